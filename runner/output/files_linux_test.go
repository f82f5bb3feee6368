package output

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"multirsh/runner"
)

// smallDisk is a disk that 256 KiB fill.
func smallDisk(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small disk cannot be mounted (%v): run this as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// On a full disk the cause is said with the file; what has a host's name is whole.
func TestFilesDiskFull(t *testing.T) {
	dir := smallDisk(t)
	f := openFiles(t, dir, "")
	whole := strings.Repeat("x", 100<<10)
	feedMore(t, f, output(runner.Stdout, 1, whole), ok(1))
	err := f.Event(output(runner.Stdout, 2, whole+whole))
	if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), filepath.Join(dir, "node002")+": ") {
		t.Errorf("error %v, want one of a full disk that begins with the file", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	got := tree(t, dir)
	if got["node001"] != whole || len(got) != 2 || len(got[".node002.partial"]) < 100<<10 {
		t.Errorf("there are %d files, %d bytes of the whole one and %d of the partial one", len(got), len(got["node001"]), len(got[".node002.partial"]))
	}
}
