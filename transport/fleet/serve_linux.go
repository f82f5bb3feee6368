package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// start listens on all addresses, but on the loopback device only: nobody else can connect.
func (f *Fleet) start() (uint16, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") }), err)
	}}
	l, err := lc.Listen(context.Background(), "tcp4", fmt.Sprintf("0.0.0.0:%d", f.Port))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return 0, fmt.Errorf("port %d is taken by another program: stop that, or choose another port", f.Port)
	case errors.Is(err, os.ErrPermission):
		return 0, fmt.Errorf("no permission for port %d: run as root, or with CAP_NET_BIND_SERVICE", f.Port)
	case err != nil:
		return 0, err
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if f.Fast && f.SSH == nil {
		f.engine, err = newEngine(f, l.(*net.TCPListener))
		l.Close() // the engine has a copy
		if err != nil {
			return 0, err
		}
		f.wg.Go(f.engine.run)
		return port, nil
	}
	f.listener = l
	f.wg.Go(f.accept)
	return port, nil
}

// accept serves every connection with the rshd that really runs commands, or with the sshd.
func (f *Fleet) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			if f.closed.Load() {
				return
			}
			// Out of descriptors, or a client that left before it was accepted: the fleet goes on.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		t := c.(*net.TCPConn)
		host := Number(t.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
		if !f.admit(host, uint16(t.RemoteAddr().(*net.TCPAddr).Port)) {
			t.SetLinger(0)
			t.Close()
			continue
		}
		f.wg.Go(func() { f.serve(t) })
	}
}
