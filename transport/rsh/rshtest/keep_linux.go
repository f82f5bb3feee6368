package rshtest

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// keepNothing has the end of c, once it is closed, followed by a reset as soon as the client has acknowledged it: tcp(7), TCP_LINGER2.
func keepNothing(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_LINGER2, -1) }), err)
}
