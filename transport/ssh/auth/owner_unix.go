//go:build unix

package auth

import (
	"io/fs"
	"os"
	"syscall"
)

// ours says whether a file belongs to the user that we are.
func ours(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
