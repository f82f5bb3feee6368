package groups

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// entry is a file that holds the answer to a question for a time. Its modification time is when that time is over. The zero value holds nothing.
type entry struct {
	dir, name string
	good      time.Duration
}

// entry is where the answer to a question is kept: what is asked, of which command.
func (u Upcall) entry(question []string) entry {
	if u.Cache <= 0 || u.CacheDir == "" {
		return entry{}
	}
	sum := sha256.Sum256([]byte(strings.Join(question, "\x00")))
	return entry{u.CacheDir, hex.EncodeToString(sum[:16]), u.Cache}
}

// read returns the answer, if there is one that is good still and that nobody else has written: who could would choose the hosts of a run.
func (e entry) read() (string, bool) {
	if e.dir == "" {
		return "", false
	}
	f, err := os.OpenFile(filepath.Join(e.dir, e.name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 {
		return "", false
	}
	if stat, is := info.Sys().(*syscall.Stat_t); is && int(stat.Uid) != os.Geteuid() {
		return "", false
	}
	if left := time.Until(info.ModTime()); left <= 0 || left > e.good { // more than there can be: the clock was wrong, or the time is shorter now
		return "", false
	}
	data, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil || len(data) > maxText {
		return "", false
	}
	_, why := notText(string(data))
	return string(data), why == ""
}

// ours are the names that keep makes.
var ours = regexp.MustCompile(`^([0-9a-f]{32}|\.new-[0-9]+)$`)

// keep puts an answer into the cache, and takes out those that are no longer good. Where that fails the command is run again the next time, which is
// no harm.
func (e entry) keep(answer string) {
	if e.dir == "" || os.MkdirAll(e.dir, 0o700) != nil {
		return
	}
	now := time.Now()
	entries, _ := os.ReadDir(e.dir)
	for _, old := range entries {
		if !ours.MatchString(old.Name()) {
			continue
		}
		if info, err := old.Info(); err == nil && info.ModTime().Add(time.Hour).Before(now) { // the hour is for those that are being written
			os.Remove(filepath.Join(e.dir, old.Name()))
		}
	}
	f, err := os.CreateTemp(e.dir, ".new-*") // mode 0600
	if err != nil {
		return
	}
	_, err = f.WriteString(answer)
	err = errors.Join(err, f.Close(), os.Chtimes(f.Name(), time.Time{}, now.Add(e.good)))
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(e.dir, e.name))
	}
	if err != nil {
		os.Remove(f.Name())
	}
}
