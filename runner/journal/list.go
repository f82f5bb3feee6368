package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Info is a run as a list has it.
type Info struct {
	ID      string
	Head    Head
	Counts  Counts
	Running bool      // a process is at it
	PID     int       // that process; 0: none
	Ended   time.Time // when it came to its end; zero: it has not, yet or ever
	Err     error     // why it cannot be read; then Counts says nothing
}

// List is the runs in dir, newest first. A run that cannot be read is in it, with its Err.
func List(dir string) ([]Info, error) {
	runs, err := names(dir)
	if err != nil {
		return nil, err
	}
	var list []Info
	for _, id := range runs {
		info, err := inspect(filepath.Join(dir, id, journalFile), id)
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(filepath.Join(dir, id)); err != nil {
				continue // it was removed at this moment
			}
		}
		info.ID, info.Err = id, err
		list = append(list, info)
	}
	return list, nil
}

// inspect looks at a run. One that has come to its end says its counts in its last line, and the first one is its head; of another, all is read.
func inspect(path, id string) (Info, error) {
	f, err := openJournal(path, os.O_RDONLY)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	running := locked(f)
	if !running {
		if info, ok := glance(f, path, id); ok {
			return info, nil
		}
	}
	run, _, _, err := read(io.NewSectionReader(f, 0, 1<<62), path, id)
	if err != nil {
		return Info{}, err
	}
	info := Info{ID: id, Head: run.Head, Counts: run.Counts(), Running: running, Ended: run.Ended}
	if running {
		info.PID = run.PID
	}
	return info, nil
}

// glance reads the first line and the last one.
func glance(f *os.File, path, id string) (Info, bool) {
	stat, err := f.Stat()
	if err != nil {
		return Info{}, false
	}
	tail := make([]byte, min(stat.Size(), 64<<10))
	if _, err := f.ReadAt(tail, stat.Size()-int64(len(tail))); err != nil {
		return Info{}, false
	}
	text, whole := strings.CutSuffix(string(tail), "\n")
	if !whole {
		return Info{}, false
	}
	end, err := parse([]byte(text[strings.LastIndexByte(text, '\n')+1:]))
	if err != nil || end.Type != "end" {
		return Info{}, false
	}
	line, err := newLines(io.NewSectionReader(f, 0, stat.Size())).next()
	if err != nil {
		return Info{}, false
	}
	x := &reader{run: &Run{ID: id}, path: path}
	if x.head(line) != nil {
		return Info{}, false
	}
	return Info{ID: id, Head: x.run.Head, Ended: end.Time, Counts: Counts{end.Outcomes, end.Open, end.NotRun}}, true
}

// ownFiles are the files of a run.
var ownFiles = []string{journalFile, inputFile}

// Keep is how many runs are kept, unless it is said.
const Keep = 100

// stale is the age from which what was left half made is taken away.
const stale = time.Hour

// Prune removes the oldest runs in dir, so that keep are left, and what processes that were killed have left half made or half removed. A run that is going on stays, and so
// does everything that is not ours: links, the folders of other users, and those with a file in them that no run has. It goes on after an error.
func Prune(dir string, keep int) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	slices.Reverse(entries) // newest first
	for _, e := range entries {
		name, path := e.Name(), filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil || !ours(info) {
			continue // removed, or another's
		}
		old := time.Since(info.ModTime()) > stale
		switch {
		case e.IsDir() && validID(name):
			if keep--; keep < 0 {
				errs = append(errs, remove(dir, name))
			}
		case e.IsDir() && (strings.HasPrefix(name, newPrefix) && old || strings.HasPrefix(name, oldPrefix)):
			errs = append(errs, clearFolder(path))
		case info.Mode().IsRegular() && strings.HasPrefix(name, spoolPrefix) && old:
			errs = append(errs, unlock(path, func() error { return os.Remove(path) }))
		}
	}
	return errors.Join(errs...)
}

// remove takes a run out of the list at one stroke, and then its files.
func remove(dir, id string) error {
	path := filepath.Join(dir, id)
	if !onlyOwn(path) {
		return nil
	}
	return unlock(filepath.Join(path, journalFile), func() error {
		gone := filepath.Join(dir, oldPrefix+id)
		if err := os.Rename(path, gone); err != nil {
			return err
		}
		return removeFiles(gone)
	})
}

// clearFolder removes a folder that was left half made or half removed.
func clearFolder(path string) error {
	if !onlyOwn(path) {
		return nil
	}
	return unlock(filepath.Join(path, journalFile), func() error { return removeFiles(path) })
}

// unlock calls f with the lock of a file, or if there is no such file. If another process has it, or it is no file of ours, nothing is done.
func unlock(path string, f func() error) error {
	file, err := openJournal(path, os.O_RDONLY)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gone(f())
	case err != nil:
		return nil
	}
	defer file.Close()
	switch err := lock(file); {
	case err == errLocked:
		return nil
	case err != nil:
		return err
	}
	return gone(f())
}

// gone is err, unless it says that another one was first.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// onlyOwn tells whether a folder has no files but those of a run.
func onlyOwn(path string) bool {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if !e.Type().IsRegular() || !slices.Contains(ownFiles, e.Name()) {
			return false
		}
	}
	return err == nil
}

func removeFiles(folder string) error {
	for _, name := range ownFiles {
		if err := gone(os.Remove(filepath.Join(folder, name))); err != nil {
			return err
		}
	}
	return os.Remove(folder)
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }
