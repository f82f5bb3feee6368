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
	return rcmdFrom(tb, &net.Dialer{}, addr, stderr, 0, command)
}

func rcmdFrom(tb testing.TB, d *net.Dialer, addr netip.AddrPort, stderr bool, leasePort int, command string) *client {
	tb.Helper()
	c := &client{tb: tb}
	port := 0
	if stderr {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IP(addr.Addr().AsSlice()), Port: leasePort})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { l.Close() })
		c.lease, port = l, l.Addr().(*net.TCPAddr).Port
	}
	conn, err := d.Dial("tcp", addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	c.main = conn.(*net.TCPConn)
	fmt.Fprintf(conn, "%d\x00ann\x00ops\x00%s\x00", port, command)
	return c
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

// reservedDialer dials from a reserved port, or skips the test.
func reservedDialer(tb testing.TB) *net.Dialer {
	tb.Helper()
	for range lastReserved - firstReserved + 1 {
		port := firstReserved + int(nextPort.Add(1)%(lastReserved-firstReserved+1))
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if errors.Is(err, os.ErrPermission) {
			tb.Skip("needs ports below 1024: run as root or with CAP_NET_BIND_SERVICE")
		}
		if err == nil {
			l.Close()
			return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, Control: reuseAddr}
		}
	}
	tb.Fatal("no reserved port is free")
	return nil
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	state, err := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
	return err == nil && !bytes.HasPrefix(state, []byte("Z"))
}
