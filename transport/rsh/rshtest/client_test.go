//go:build unix

package rshtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is as much of rcmd(3) as these tests need.
type client struct {
	tb    testing.TB
	main  *net.TCPConn
	lease *net.TCPListener // of the stderr channel; nil: none
}

// newServer starts s on 127.0.0.1 and closes it with the test; nothing may be left of it then.
func newServer(tb testing.TB, s *Server) netip.AddrPort {
	tb.Helper()
	s.Record = true
	addr, err := s.Start("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return addr
}

// rcmd connects to addr and sends the header. With stderr it leases a port for the stderr channel.
func rcmd(tb testing.TB, addr netip.AddrPort, stderr bool, command string) *client {
	tb.Helper()
	var l *net.TCPListener
	if stderr {
		var err error
		if l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IP(addr.Addr().AsSlice())}); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { l.Close() })
	}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	return send(tb, conn, l, command)
}

// reservedRcmd is rcmd from a reserved port and with lease, which may be nil.
func reservedRcmd(tb testing.TB, addr netip.AddrPort, lease *net.TCPListener, command string) *client {
	tb.Helper()
	var conn net.Conn
	reservedPort(tb, func(port int) (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, Control: reuseAddr}
		conn, err = d.Dial("tcp", addr.String())
		return err
	})
	return send(tb, conn, lease, command)
}

// send makes a client of its connections and sends the header.
func send(tb testing.TB, conn net.Conn, lease *net.TCPListener, command string) *client {
	tb.Cleanup(func() { conn.Close() })
	port := 0
	if lease != nil {
		port = lease.Addr().(*net.TCPAddr).Port
	}
	fmt.Fprintf(conn, "%d\x00ann\x00ops\x00%s\x00", port, command)
	return &client{tb: tb, main: conn.(*net.TCPConn), lease: lease}
}

func (c *client) accept() *net.TCPConn {
	c.tb.Helper()
	conn, err := c.lease.AcceptTCP()
	if err != nil {
		c.tb.Fatal(err)
	}
	c.tb.Cleanup(func() { conn.Close() })
	return conn
}

// expect reads exactly want.
func (c *client) expect(conn io.Reader, want string) {
	c.tb.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(conn, got)
	if string(got[:n]) != want || err != nil {
		c.tb.Fatalf("got %q, %v, want %q", got[:n], err, want)
	}
}

// rest reads conn to its end and tells a reset from an end of file.
func rest(conn io.Reader) (text string, wasReset bool) {
	b, err := io.ReadAll(conn)
	return string(b), errors.Is(err, syscall.ECONNRESET)
}

// both reads the main channel and a stderr channel to their ends at once.
func both(main, stderr io.Reader) (out, errs string, outReset, errReset bool) {
	var wg sync.WaitGroup
	wg.Go(func() { errs, errReset = rest(stderr) })
	out, outReset = rest(main)
	wg.Wait()
	return
}

// one waits for the transcript of the only connection.
func one(tb testing.TB, s *Server) Session {
	tb.Helper()
	all, err := s.Wait(context.Background(), 1)
	if err != nil || len(all) != 1 {
		tb.Fatalf("%d sessions, %v", len(all), err)
	}
	return all[0]
}

// reservedPort calls try with one reserved port after another until one is not taken, or skips the test.
func reservedPort(tb testing.TB, try func(port int) error) {
	tb.Helper()
	for range lastReserved - firstReserved + 1 {
		port := firstReserved + int(nextPort.Add(1)%(lastReserved-firstReserved+1))
		switch err := try(port); {
		case err == nil:
			return
		case errors.Is(err, os.ErrPermission):
			tb.Skip("needs ports below 1024: run as root or with CAP_NET_BIND_SERVICE")
		case !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL):
			tb.Fatal(err)
		}
	}
	tb.Fatal("no reserved port is free")
}

// reservedListen listens at a reserved port, or skips the test.
func reservedListen(tb testing.TB) *net.TCPListener {
	tb.Helper()
	var l *net.TCPListener
	reservedPort(tb, func(port int) (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		return err
	})
	tb.Cleanup(func() { l.Close() })
	return l
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	state, err := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
	return err == nil && !bytes.HasPrefix(state, []byte("Z"))
}
