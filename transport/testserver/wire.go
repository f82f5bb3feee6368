//go:build unix

package testserver

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// AddrPort is a TCP address; IPv4 is given as that on a socket of IPv6 too.
func AddrPort(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// WaitGone waits, without reading a byte, until the client has closed c (io.EOF) or reset it (ECONNRESET). It takes a read deadline
// away. Its error wraps net.ErrClosed when c is closed here.
func WaitGone(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	end := io.EOF
	for {
		err = raw.Read(func(fd uintptr) bool { // not before another's read has returned
			p := []unix.PollFd{{Fd: int32(fd), Events: pollGone}}
			if n, err := unix.Poll(p, 0); n <= 0 || err != nil {
				return false // the poller calls again at the next event
			}
			if p[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
				if err == nil && code != 0 && code != int(unix.EPIPE) { // that is a reset behind its end of file
					end = os.NewSyscallError("poll", syscall.Errno(code))
				}
			}
			return p[0].Revents&(pollGone|unix.POLLERR|unix.POLLHUP) != 0
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		c.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return err
	}
	return end
}

// WriteLines writes n bytes in lines of 64.
func WriteLines(w io.Writer, n int64) error {
	chunk := bytes.Repeat(append(bytes.Repeat([]byte("x"), 63), '\n'), 512)
	for ; n > 0; n -= int64(len(chunk)) {
		if _, err := w.Write(chunk[:min(n, int64(len(chunk)))]); err != nil {
			return err
		}
	}
	return nil
}
