//go:build linux

package real

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"multirsh/transport/rig"
)

const portsPage = `The sockets are on the reserved ports of a network namespace, to as many addresses of its loopback device; multi-rsh and ss, which both say who holds
each, run in turn. Shown is the median of nine runs, with their range in brackets.`

// portsNumbers measures how long the picture of 20,000 sockets takes.
func portsNumbers(t *testing.T, tab *table) {
	rig.New(t, rig.Config{}) // so that it skips where there is no network of our own
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp4", "0.0.0.0:514")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// connect makes the i-th connection, from one of 400 ports, and holds both ends.
	var held []net.Conn
	connect := func(i int) (ours, theirs net.Conn) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 600 + i%400}, KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		}}
		c, err := d.Dial("tcp4", fmt.Sprintf("127.0.2.%d:514", 1+i/400))
		check(err)
		s, err := l.Accept()
		check(err)
		return c, s
	}
	// wait makes the i-th connection and closes it first.
	wait := func(i int) {
		c, s := connect(i)
		check(c.(*net.TCPConn).CloseWrite())
		_, err := io.Copy(io.Discard, s)
		check(err)
		check(s.Close())
		_, err = io.Copy(io.Discard, c)
		check(err)
		check(c.Close())
	}
	show := func(what string) {
		var ours, theirs []float64
		for range 9 {
			for _, p := range []struct {
				times *[]float64
				name  string
				args  []string
			}{
				{&ours, "multi-rsh", []string{"ports"}},
				{&theirs, "ss", []string{"-Htanpo", "( sport >= :512 and sport <= :1023 )"}},
			} {
				o := run(t, p.name, p.args...)
				if n := strings.Count(o.stdout, "\n"); o.code != 0 || n < 20_000 {
					t.Fatalf("%d lines: %v", n, o)
				}
				*p.times = append(*p.times, o.wall.Seconds()*1000)
			}
		}
		text := func(ms []float64) string {
			return fmt.Sprintf("%.0f ms (%.0f to %.0f)", median(ms), slices.Min(ms), slices.Max(ms))
		}
		tab.add(median(ours) <= 100, what, "≤ 100 ms", text(ours), text(theirs))
	}
	for i := range 20_000 {
		wait(i)
	}
	show("`ports`: 20,000 sockets in TIME-WAIT, drawn and listed")
	if o := run(t, "multi-rsh", "ports", "reap", "--yes"); o.code != 0 {
		t.Fatal(o)
	}
	defer func() {
		for _, c := range held {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	for i := range 9_000 {
		c, s := connect(i)
		held = append(held, c, s)
	}
	for i := range 2_000 {
		wait(9_000 + i)
	}
	show("the same, where a process holds 18,000 of them")
}
