//go:build !linux

package ssh

import (
	"os"

	"golang.org/x/sys/unix"
)

// setOptions sets the options of a socket before it connects. How long a silence may last is the system's to say.
func setOptions(fd int, keepAlive bool) error {
	if keepAlive {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
}
