package resvport

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// StatePath is where a user's rotation is kept: below $XDG_STATE_HOME, or ~/.local/state without it (XDG Base Directory
// Specification). Empty if there is neither.
func StatePath(xdgStateHome, home string) string {
	switch {
	case filepath.IsAbs(xdgStateHome):
		return filepath.Join(xdgStateHome, "multi-rsh", "rotation")
	case filepath.IsAbs(home):
		return filepath.Join(home, ".local", "state", "multi-rsh", "rotation")
	}
	return ""
}

// rotation is where in the range the processes of this user have come to: one number in a file, which only grows (and wraps).
// A process reserves a stretch before it uses it, so that the file is touched rarely and a process that is killed can do no harm: the
// next one begins behind the stretch. Who ends orderly gives back what it did not use.
//
//	file ──begin──► start ···· used ····│··· reserved ···│
//	                └─ reached ──────────┘               └─ mark: what the file says
type rotation struct {
	file string // set to empty when it turns out to be no use

	mu       sync.Mutex // one process, one change of the file at a time
	start    uint32
	mark     uint32
	reserved int // guarded by the Allocator's lock
}

// begin reserves the first stretch and returns where it starts: at random where the file cannot be used.
func (r *rotation) begin(n int) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved = n
	if r.file == "" || !r.change(func(v uint32) uint32 {
		r.start, r.mark = v, v+uint32(n)
		return r.mark
	}) {
		r.file, r.start = "", rand.Uint32()
	}
	return r.start
}

// more says by how much the stretch must grow before reached ports are used: it doubles, so that few changes do for a long run.
func (r *rotation) more(reached int) int {
	if reached <= r.reserved {
		return 0
	}
	n := min(r.reserved, Last-First)
	r.reserved += n
	return n
}

func (r *rotation) reserve(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != "" {
		r.change(func(v uint32) uint32 { r.mark = v + uint32(n); return r.mark })
	}
}

// end gives back what was reserved and not reached, unless another process has begun behind it.
func (r *rotation) end(reached uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != "" {
		r.change(func(v uint32) uint32 {
			if v == r.mark {
				v = r.start + reached
			}
			return v
		})
		r.file = "" // once
	}
}

// change replaces the number in the file under its lock, and reports whether that could be done.
func (r *rotation) change(f func(uint32) uint32) bool {
	file, err := openLocked(r.file)
	if err != nil {
		return false
	}
	defer file.Close() // and with it the lock
	var buf [32]byte
	n, _ := file.ReadAt(buf[:], 0)
	v, err := parseRotation(string(buf[:n]))
	if err != nil {
		v = rand.Uint32() // new, or damaged: begin anywhere
	}
	// One write of always the same length: there is no moment at which the file is cut short.
	_, err = file.WriteAt(fmt.Appendf(nil, "%010d\n", f(v)), 0)
	return err == nil
}

func parseRotation(s string) (uint32, error) {
	line, _, ok := strings.Cut(s, "\n")
	if !ok {
		return 0, errors.New("no line")
	}
	v, err := strconv.ParseUint(line, 10, 32)
	return uint32(v), err
}

// makeDir makes the directory of the state file, below the user's own directories only: under sudo with the user's
// $HOME, root must not leave directories there that the user cannot write.
func makeDir(dir string) error {
	for up := dir; ; up = filepath.Dir(up) {
		info, err := os.Stat(up)
		if errors.Is(err, fs.ErrNotExist) && up != filepath.Dir(up) {
			continue
		}
		if err != nil {
			return err
		}
		if !ours(info) {
			return fmt.Errorf("%s belongs to another user", up)
		}
		return os.MkdirAll(dir, 0o700)
	}
}
