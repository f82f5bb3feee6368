package ssh

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// setOptions sets the options of a socket before it connects.
func setOptions(fd int, keepAlive bool) error {
	if keepAlive {
		for _, o := range [...]struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(patience / 2 / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(patience / 2 / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds())},
		} {
			if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
}
