package resvport

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketOptions returns what sets the options of a socket before it connects or listens; accepted sockets inherit them.
func socketOptions(timeout time.Duration) func(fd int) error {
	// The first probe comes after half of the time without a word, and when the whole is over TCP_USER_TIMEOUT ends the connection
	// whatever TCP_KEEPCNT says (tcp(7)).
	probe := int(max(1, timeout/2/time.Second))
	millis := int(min(timeout.Milliseconds(), math.MaxInt32))
	return func(fd int) error {
		for _, o := range [...]struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, probe},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, probe},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, millis},
		} {
			if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	}
}

// tryBind asks whether this process may bind to port. That somebody else has it is no error.
func tryBind(port uint16) error {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(port)}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		sa = &unix.SockaddrInet6{Port: int(port)}
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sa); err != nil && err != unix.EADDRINUSE {
		return os.NewSyscallError("bind", err)
	}
	return nil
}

// backlog is for the one connection that is expected, and strangers before it.
const backlog = 8

// hush stops a socket from listening without giving up its port: shutdown(2) of a listening socket resets whatever is pending
// and refuses what comes. speak makes it listen again.
func hush(ln *net.TCPListener) error {
	return control(ln, func(fd int) error {
		return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_RD))
	})
}

func speak(ln *net.TCPListener) error {
	return control(ln, func(fd int) error { return os.NewSyscallError("listen", unix.Listen(fd, backlog)) })
}

// hold is hush, and keeps every other process from the port too.
func hold(ln *net.TCPListener) error {
	return control(ln, func(fd int) error {
		if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
			return os.NewSyscallError("shutdown", err)
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0))
	})
}

// take accepts the connection from a reserved port that is pending, if there is one. Others are reset.
func take(ln *net.TCPListener) (conn *net.TCPConn) {
	control(ln, func(fd int) error {
		for {
			n, peer, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(n), "")
			if conn == nil && isReserved(portOf(peer)) {
				if c, err := net.FileConn(f); err == nil {
					conn = c.(*net.TCPConn)
				}
			}
			f.Close()
		}
	})
	return conn
}

func portOf(peer unix.Sockaddr) uint16 {
	switch peer := peer.(type) {
	case *unix.SockaddrInet4:
		return uint16(peer.Port)
	case *unix.SockaddrInet6:
		return uint16(peer.Port)
	}
	return 0
}

func control(ln *net.TCPListener, f func(fd int) error) error {
	c, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := c.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// openLocked opens the state file under an exclusive lock, which closing it gives up. The file must be the user's own.
func openLocked(name string) (*os.File, error) {
	if err := makeDir(filepath.Dir(name)); err != nil {
		return nil, err
	}
	// O_NONBLOCK: somebody may have put a FIFO there.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !(info.Mode().IsRegular() && ours(info)) {
		err = fmt.Errorf("%s is not a file of this user", name)
	}
	// The lock is held for microseconds. Who keeps it longer is stuck, and no reason to get stuck as well.
	for tries := 0; err == nil; tries++ {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) && tries < 100 {
			time.Sleep(2 * time.Millisecond)
			err = nil
		}
	}
	f.Close()
	return nil, err
}

// ours says whether the user owns a file.
func ours(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}
