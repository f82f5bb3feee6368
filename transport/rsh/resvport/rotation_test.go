package resvport

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestStatePath(t *testing.T) {
	for _, tt := range []struct{ xdg, home, want string }{
		{"/state", "/home/u", "/state/multi-rsh/rotation"},
		{"", "/home/u", "/home/u/.local/state/multi-rsh/rotation"},
		{"relative", "/home/u", "/home/u/.local/state/multi-rsh/rotation"}, // the specification says to ignore it
		{"", "", ""},
	} {
		if got := StatePath(tt.xdg, tt.home); got != tt.want {
			t.Errorf("StatePath(%q, %q) is %q, want %q", tt.xdg, tt.home, got, tt.want)
		}
	}
}

func written(t *testing.T, file string) uint32 {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseRotation(string(b))
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return v
}

// TestRotation: each process begins behind the one before, whether that ended well or was killed.
func TestRotation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a", "b", "rotation")
	r1 := rotation{file: file}
	start := r1.begin(16)
	if got := written(t, file); got != start+16 {
		t.Errorf("the file says %d, want %d", got, start+16)
	}
	r1.end(3) // it used three
	r2 := rotation{file: file}
	if got := r2.begin(16); got != start+3 {
		t.Errorf("after an orderly end at 3 the next begins at %d", got-start)
	}
	// r2 is killed
	r3 := rotation{file: file}
	if got := r3.begin(16); got != start+3+16 {
		t.Errorf("after a kill the next begins at %d, want %d", got-start, 19)
	}
	// r3 comes to need more, by doubling
	for _, tt := range []struct{ reached, more int }{{16, 0}, {17, 16}, {32, 0}, {33, 32}, {65, 64}} {
		n := r3.more(tt.reached)
		if n != tt.more {
			t.Errorf("at %d: %d more, want %d", tt.reached, n, tt.more)
		}
		if n > 0 {
			r3.reserve(n)
		}
	}
	if got := written(t, file); got != start+19+128 {
		t.Errorf("the file says %d, want %d", got-start, 19+128)
	}
	// With another one behind it nothing is given back.
	r4 := rotation{file: file}
	r4.begin(16)
	r3.end(70)
	if got := written(t, file); got != start+19+128+16 {
		t.Errorf("the file says %d, want %d", got-start, 19+128+16)
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// TestRotationShared: processes at once (here: descriptors, which is what flock(2) goes by) get stretches that do not overlap.
func TestRotationShared(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rotation")
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[uint32]bool)
	for range 20 {
		wg.Go(func() {
			r := rotation{file: file}
			start := r.begin(16)
			mu.Lock()
			defer mu.Unlock()
			if r.file == "" || seen[start] {
				t.Errorf("stretch %d twice, or not from the file (%q)", start, r.file)
			}
			seen[start] = true
		})
	}
	wg.Wait()
}

// TestRotationUnusable: a start at random, nothing written, nothing waited for.
func TestRotationUnusable(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "target")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"", fifo, link, dir, "/dev/null/x", "/proc/nothing/here"} {
		r1, r2 := rotation{file: file}, rotation{file: file}
		if r1.begin(16) == r2.begin(16) {
			t.Errorf("%q: twice the same start", file)
		}
		r1.reserve(16)
		r1.end(1)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("written through a symbolic link")
	}
	foreign := filepath.Join(dir, "foreign")
	if os.Getuid() == 0 {
		if err := os.Mkdir(foreign, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(foreign, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		r := rotation{file: filepath.Join(foreign, "multi-rsh", "rotation")}
		r.begin(16)
		if _, err := os.Lstat(filepath.Join(foreign, "multi-rsh")); err == nil {
			t.Error("root made a directory in another user's")
		}
	}
}

func TestRotationDamaged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rotation")
	for _, text := range []string{"", "12", "x\n", "-1\n", "99999999999\n", strings.Repeat("7", 100)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := rotation{file: file}
		if start := r.begin(16); written(t, file) != start+16 {
			t.Errorf("%q was not mended", text)
		}
	}
	// The number wraps.
	if err := os.WriteFile(file, []byte("4294967290\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := rotation{file: file}
	if start := r.begin(16); start != 4294967290 || written(t, file) != 10 {
		t.Errorf("from %d to %d", start, written(t, file))
	}
}

func FuzzParseRotation(f *testing.F) {
	for _, s := range []string{"", "\n", "0000000012\n", "4294967296\n", "+1\n", "1_0\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseRotation(s)
		if err != nil {
			return
		}
		line, _, _ := strings.Cut(s, "\n")
		if strings.TrimLeft(line, "0") != strings.TrimLeft(strconv.Itoa(int(v)), "0") {
			t.Errorf("%q is %d", s, v)
		}
	})
}
