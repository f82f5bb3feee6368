package journal

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate has blocks for the file up to size; its length stays as it is (fallocate(2)).
func allocate(f *os.File, size int64) error {
	for {
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size); err != unix.EINTR {
			return err
		}
	}
}
