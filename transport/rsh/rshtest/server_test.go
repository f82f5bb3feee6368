//go:build unix

package rshtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	nonce   = "0123456789abcdef0123456789abcdef"
	wrapped = `printf '\036` + nonce + `+\n'; printf '\036` + nonce + `+\n' >&2; printf 'hello world\n'; printf oops >&2; ` +
		`printf '\036` + nonce + `-3\n'; printf '\036` + nonce + `-3\n' >&2`
	lead  = "\x1e" + nonce + "+\n"
	trail = "\x1e" + nonce + "-3\n"
)

func TestGoodServer(t *testing.T) {
	for _, daemon := range []Daemon{Redone, Netkit} {
		for _, relayed := range []bool{false, true} {
			t.Run(fmt.Sprintf("daemon %d relayed %v", daemon, relayed), func(t *testing.T) {
				b := Behaviour{}
				if relayed {
					b = MustParseBehaviour("slow=0s")
				}
				s := &Server{AnyPort: true, Daemon: daemon, Behaviour: b}
				addr := newServer(t, s)
				c := rcmd(t, addr, true, "cat; echo err >&2; exit 7")
				stderr := c.accept()
				io.WriteString(c.main, "in\x00put\n")
				c.main.CloseWrite()
				out, errs, r1, r2 := both(c.main, stderr)
				if out != "\x00in\x00put\n" || errs != "err\n" || r1 || r2 {
					t.Errorf("stdout %q (reset %v), stderr %q (reset %v)", out, r1, errs, r2)
				}
				c.main.Close()
				stderr.Close()
				got := one(t, s)
				lease := netip.MustParseAddrPort(c.lease.Addr().String())
				want := Session{
					Client: netip.MustParseAddrPort(c.main.LocalAddr().String()), Server: addr, Behaviour: b,
					StderrPort: lease.Port(), Callbacks: []Callback{{From: got.Callbacks[0].From, To: lease}},
					LocalUser: "ann", RemoteUser: "ops", Command: "cat; echo err >&2; exit 7", Exit: 7,
				}
				if relayed {
					want.End = io.EOF
				}
				if diff := cmp.Diff(want, got, cmpSession); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

var cmpSession = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b Behaviour) bool { return a == b }),
	cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) || errors.Is(b, a) }),
}

func TestOneChannel(t *testing.T) {
	for _, b := range []string{"ok", "slow=0s"} {
		s := &Server{AnyPort: true, Behaviour: MustParseBehaviour(b)}
		c := rcmd(t, newServer(t, s), false, "echo out; echo err >&2")
		if out, _ := rest(c.main); out != "\x00out\nerr\n" {
			t.Errorf("%s: %q", b, out)
		}
	}
}

func TestIPv6(t *testing.T) {
	s := &Server{AnyPort: true}
	addr, err := s.Start("[::1]:0")
	if err != nil {
		t.Skipf("needs IPv6 on loopback: %v", err)
	}
	defer s.Close()
	c := rcmd(t, addr, true, "echo six >&2")
	out, errs, _, _ := both(c.main, c.accept())
	if out != "\x00" || errs != "six\n" {
		t.Errorf("%q, %q", out, errs)
	}
}

// Not a byte beyond the header may be the server's: a shell's read gets what was sent in the same packet.
func TestInputBehindHeader(t *testing.T) {
	s := &Server{AnyPort: true}
	c := rcmd(t, newServer(t, s), false, "read a; read b; echo $b $a\x00one\ntwo\n") // the helper's own NUL follows
	if out, _ := rest(c.main); out != "\x00two one\n" {
		t.Errorf("%q", out)
	}
}

// Between the command and the connection, input that the command leaves unread costs none of its output.
func TestRelayUnreadInput(t *testing.T) {
	s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("slow=0s")}
	c := rcmd(t, newServer(t, s), false, "read a; echo $a")
	io.WriteString(c.main, "one\n"+strings.Repeat("unread\n", 1000))
	if out, wasReset := rest(c.main); out != "\x00one\n" || wasReset {
		t.Errorf("%q, reset %v", out, wasReset)
	}
}

func TestHeaderInCrumbs(t *testing.T) {
	s := &Server{AnyPort: true}
	addr := newServer(t, s)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, b := range []byte("0\x00ann\x00ops\x00echo crumbs\x00") {
		conn.Write([]byte{b})
	}
	if out, _ := rest(conn); out != "\x00crumbs\n" {
		t.Errorf("%q", out)
	}
}

// What rshd does not take ends without a word.
func TestRefusedHeaders(t *testing.T) {
	for name, header := range map[string]string{
		"port is no number": "12x\x00ann\x00ops\x00true\x00",
		"port is too long":  "123456\x00ann\x00ops\x00true\x00",
		"port is too large": "65536\x00ann\x00ops\x00true\x00",
		"user is too long":  "0\x00" + strings.Repeat("a", userMax+1) + "\x00ops\x00true\x00",
		"cut off":           "0\x00ann\x00ops\x00tru",
		"empty":             "",
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{AnyPort: true}
			conn, err := net.Dial("tcp", newServer(t, s).String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, header)
			conn.(*net.TCPConn).CloseWrite()
			if got, _ := rest(conn); got != "" {
				t.Errorf("an answer: %q", got)
			}
			if x := one(t, s); x.Exit != -1 {
				t.Errorf("a command ran: %+v", x)
			}
		})
	}
}

func TestCommandLimits(t *testing.T) {
	fill := func(n int) string { return "echo ran #" + strings.Repeat("x", n-len("echo ran #")) }
	for _, test := range []struct {
		daemon Daemon
		length int
		want   string
		reset  bool
	}{
		{Redone, 1023, "\x00ran\n", false},
		{Redone, 1024, "", true},
		{Netkit, 1024, "\x00ran\n", false},
		{Netkit, 131_071, "\x00ran\n", false},
		{Netkit, 131_072, "\x00/bin/sh: Argument list too long\n", false},
	} {
		s := &Server{AnyPort: true, Daemon: test.daemon}
		c := rcmd(t, newServer(t, s), false, fill(test.length))
		if got, reset := rest(c.main); got != test.want || reset != test.reset {
			t.Errorf("daemon %d, %d bytes: %q, reset %v", test.daemon, test.length, got, reset)
		}
	}
}

func TestReservedPorts(t *testing.T) {
	t.Run("client from an ordinary port", func(t *testing.T) {
		s := &Server{}
		c := rcmd(t, newServer(t, s), false, "echo ran")
		if got, _ := rest(c.main); got != "" {
			t.Errorf("%q", got)
		}
	})
	t.Run("ordinary stderr port", func(t *testing.T) {
		s := &Server{}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := reservedRcmd(t, newServer(t, s), l, "echo ran")
		if got, _ := rest(c.main); got != "" {
			t.Errorf("%q", got)
		}
	})
	t.Run("all reserved", func(t *testing.T) {
		s := &Server{}
		c := reservedRcmd(t, newServer(t, s), reservedListen(t), "echo out; echo err >&2")
		stderr := c.accept()
		if port := stderr.RemoteAddr().(*net.TCPAddr).Port; !reserved(uint16(port)) {
			t.Errorf("connected back from %d", port)
		}
		if out, errs, _, _ := both(c.main, stderr); out != "\x00out\n" || errs != "err\n" {
			t.Errorf("%q, %q", out, errs)
		}
	})
	t.Run("callback=unreserved", func(t *testing.T) {
		s := &Server{Behaviour: MustParseBehaviour("callback=unreserved")}
		c := reservedRcmd(t, newServer(t, s), reservedListen(t), "true")
		if port := c.accept().RemoteAddr().(*net.TCPAddr).Port; port <= lastReserved {
			t.Errorf("connected back from %d", port)
		}
	})
}

// Ports rotate, and one port serves many connections at once.
func TestCallbackPorts(t *testing.T) {
	reservedListen(t).Close() // or skip
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := l.Addr().(*net.TCPAddr).AddrPort()
	used := make(map[uint16]int)
	for i := range 600 { // more than there are
		c, from, err := dialFrom(context.Background(), netip.AddrFrom4([4]byte{127, 9, byte(i >> 8), byte(i)}), to, false)
		if err != nil {
			t.Fatal(err)
		}
		c.SetLinger(0) // no TIME_WAIT
		defer c.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		used[from.Port()]++
	}
	for port, n := range used {
		if n > 3 {
			t.Errorf("port %d was used %d times for 600 connections", port, n)
		}
	}
}

func TestSignals(t *testing.T) {
	s := &Server{AnyPort: true, Daemon: Netkit}
	c := rcmd(t, newServer(t, s), true, "echo ready; exec sleep 1000")
	stderr := c.accept()
	c.expect(c.main, "\x00ready\n")
	stderr.Write([]byte{byte(syscall.SIGTERM)})
	both(c.main, stderr)
	stderr.Close()
	if x := one(t, s); x.Exit != 128+int(syscall.SIGTERM) || string(x.Signals) != "\x0f" {
		t.Errorf("exit %d, signals %v", x.Exit, x.Signals)
	}

	// Redone leaves the channel to the command, which ends by itself.
	s = &Server{AnyPort: true}
	c = rcmd(t, newServer(t, s), true, "read x; exit 4")
	stderr = c.accept()
	stderr.Write([]byte{byte(syscall.SIGTERM)})
	io.WriteString(c.main, "on\n")
	both(c.main, stderr)
	if x := one(t, s); x.Exit != 4 || len(x.Signals) != 0 {
		t.Errorf("exit %d, signals %v", x.Exit, x.Signals)
	}
}

func TestNoShell(t *testing.T) {
	s := &Server{AnyPort: true, Shell: "/nonexistent/sh"}
	c := rcmd(t, newServer(t, s), false, "true")
	if got, _ := rest(c.main); got != "\x00/nonexistent/sh: no such file or directory\n" {
		t.Errorf("%q", got)
	}
}

// Close leaves nothing: neither the command nor what it left behind, here a child in its group after the command has ended.
func TestCloseKills(t *testing.T) {
	for _, command := range []string{
		"sleep 1000 & echo $!; wait",
		"sleep 1000 >/dev/null 2>&1 </dev/null & echo $!",
		"trap '' TERM HUP INT; echo $$; while :; do sleep 1; done",
	} {
		for _, b := range []string{"ok", "slow=0s"} {
			s := &Server{AnyPort: true, Behaviour: MustParseBehaviour(b)}
			c := rcmd(t, newServer(t, s), false, command)
			var pid int
			if _, err := fmt.Fscanf(c.main, "\x00%d\n", &pid); err != nil {
				t.Fatal(err)
			}
			if !alive(pid) {
				t.Errorf("%s, %s: process %d is not there", b, command, pid)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if alive(pid) {
				t.Errorf("%s, %s: process %d is still there after Close", b, command, pid)
			}
		}
	}
}

func TestCloseTwice(t *testing.T) {
	s := &Server{AnyPort: true}
	addr := newServer(t, s)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("still listening: %v", err)
	}
	if _, err := s.Start("127.0.0.1:0"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("started after Close: %v", err)
	}
}

func TestWaitEnds(t *testing.T) {
	s := &Server{AnyPort: true}
	newServer(t, s)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if all, err := s.Wait(ctx, 1); len(all) != 0 || err != cause {
		t.Errorf("%v, %v", all, err)
	}
}

// A close waits for the client, but not for ever.
func TestPatience(t *testing.T) {
	s := &Server{AnyPort: true, Patience: time.Millisecond, Behaviour: MustParseBehaviour("error=no")}
	c := rcmd(t, newServer(t, s), false, "true")
	if x := one(t, s); !errors.Is(x.End, context.DeadlineExceeded) && !isTimeout(x.End) {
		t.Errorf("%v", x.End)
	}
	c.expect(c.main, "\x01no\n")
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
