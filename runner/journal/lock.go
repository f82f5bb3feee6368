package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// BusyError is a run that another process is at.
type BusyError struct {
	ID  string
	PID int // 0: not known
}

func (e *BusyError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("run %s is still going on, in another process", e.ID)
	}
	return fmt.Sprintf("run %s is still going on, in process %d", e.ID, e.PID)
}

// errLocked is a lock that another has.
var errLocked = errors.New("locked by another process")

// lockTries bounds how often lock asks again while somebody only looks.
const lockTries = 200

// lock takes a file for its process. Who looks whether it is taken (locked) holds a shared lock for a moment, and is not mistaken for who works with it.
func lock(f *os.File) error {
	for range lockTries {
		err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK {
			return err
		}
		if err = flock(f, unix.LOCK_SH|unix.LOCK_NB); err != nil {
			break
		}
		flock(f, unix.LOCK_UN)
		time.Sleep(time.Millisecond)
	}
	return errLocked
}

// locked tells whether a process has the file.
func locked(f *os.File) bool {
	err := flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		flock(f, unix.LOCK_UN)
	}
	return err == unix.EWOULDBLOCK
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// openJournal opens a journal, or a spool: a file, and no link or device that somebody has put in its place.
func openJournal(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return f, nil
}

// ours tells whether the user owns a file.
func ours(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}

// bootID tells one boot of this machine from another (random(4)); empty where the system has none.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// isFull is an error of a disk or a quota that is used up.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}
