package fleet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"multirsh/transport/rsh/rshtest"
	"multirsh/transport/shwrap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAddr(t *testing.T) {
	for i, want := range map[int]string{
		1: "127.1.0.1", 255: "127.1.0.255", 256: "127.1.1.0", 65535: "127.1.255.255", 65536: "127.2.0.0", 100_000: "127.2.134.160",
		MaxHosts: "127.255.255.254",
	} {
		if got := Addr(i); got.String() != want || Number(got) != i {
			t.Errorf("host %d: %v, which is host %d", i, got, Number(got))
		}
	}
	for _, a := range []string{"127.0.0.1", "127.1.0.0", "127.255.255.255", "10.1.0.1", "::1"} {
		if n := Number(netip.MustParseAddr(a)); n != 0 {
			t.Errorf("%s is host %d", a, n)
		}
	}
	if n := Number(netip.MustParseAddr("::ffff:127.1.0.9")); n != 9 {
		t.Errorf("mapped: host %d", n)
	}
	if Name(7) != "sim00007" || Name(123456) != "sim123456" {
		t.Errorf("%s %s", Name(7), Name(123456))
	}
}

func TestWriteHosts(t *testing.T) {
	var b strings.Builder
	if err := WriteHosts(&b, 2, 514); err != nil {
		t.Fatal(err)
	}
	if err := WriteHosts(&b, 1, 1514); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != "127.1.0.1\n127.1.0.2\n127.1.0.1 port=1514\n" {
		t.Errorf("%q", got)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	if err := WriteHosts(w, 1, 514); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%v", err)
	}
}

// newFleet starts f, and closes it with the test.
func newFleet(tb testing.TB, f *Fleet) (port uint16) {
	tb.Helper()
	port, err := f.Start()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Close(); err != nil {
			tb.Error(err)
		}
		if a := f.Account(); a.Now != 0 {
			tb.Errorf("after Close: %+v", a)
		}
	})
	return port
}

// client is as much of rcmd(3) as these tests need.
type client struct {
	tb           testing.TB
	main, stderr *net.TCPConn // stderr nil: none
}

// dial connects to a host from any port and sends the header; with stderr it accepts the connection back.
func dial(tb testing.TB, host int, port uint16, stderr bool, command string) *client {
	tb.Helper()
	c := &client{tb: tb}
	lease := "0"
	var l *net.TCPListener
	if stderr {
		var err error
		if l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			tb.Fatal(err)
		}
		defer l.Close()
		lease = fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	}
	conn, err := net.Dial("tcp4", netip.AddrPortFrom(Addr(host), port).String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	c.main = conn.(*net.TCPConn)
	fmt.Fprintf(conn, "%s\x00ann\x00ops\x00%s\x00", lease, command)
	if stderr {
		if c.stderr, err = l.AcceptTCP(); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { c.stderr.Close() })
		if from := c.stderr.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from.Unmap() != Addr(host) {
			tb.Errorf("host %d connected back from %v", host, from)
		}
	}
	return c
}

// ends reads both channels to their ends, which must be ends of file.
func (c *client) ends() (out, errs string) {
	c.tb.Helper()
	var b []byte
	var stderrErr error
	var wg sync.WaitGroup
	if c.stderr != nil {
		wg.Go(func() { b, stderrErr = io.ReadAll(c.stderr) })
	}
	main, err := io.ReadAll(c.main)
	wg.Wait()
	if err != nil || stderrErr != nil {
		c.tb.Errorf("main: %v, stderr: %v", err, stderrErr)
	}
	return string(main), string(b)
}

func TestRealShell(t *testing.T) {
	f := &Fleet{Hosts: 70_000}
	f.Server.AnyPort = true
	port := newFleet(t, f)
	for _, host := range []int{1, 256, 70_000} {
		out, errs := dial(t, host, port, true, "echo out $USER; echo err >&2").ends()
		if out != "\x00out ops\n" || errs != "err\n" {
			t.Errorf("host %d: %q, %q", host, out, errs)
		}
	}
	w, err := shwrap.New(shwrap.Script{Line: "echo wrapped; exit 3"})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, 2, port, true, shwrap.Bootstrap)
	c.main.Write(w.Preamble())
	out, errs := c.ends()
	mark, end := string(w.Leader()), string(w.Trailer(3))
	if out != "\x00"+mark+"wrapped\n"+end || errs != mark+end {
		t.Errorf("%q, %q", out, errs)
	}
	if a := f.Account(); a.Connections != 4 || a.Refused != 0 || a.Most < 1 {
		t.Errorf("%+v", a)
	}
}

// Addresses that are no host's answer as if nobody were there, in both modes.
func TestNoHost(t *testing.T) {
	for _, fast := range []bool{false, true} {
		f := &Fleet{Hosts: 5, Fast: fast}
		f.Server.AnyPort = true
		port := newFleet(t, f)
		for _, a := range []string{"127.0.0.1", "127.1.0.6"} {
			conn, err := net.Dial("tcp4", net.JoinHostPort(a, fmt.Sprint(port)))
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("fast %v, %s: %v", fast, a, err)
			}
		}
		if a := f.Account(); a.Connections != 2 || a.Refused != 2 || a.Most != 0 {
			t.Errorf("fast %v: %+v", fast, a)
		}
	}
}

// Nobody but this machine can connect.
func TestLoopbackOnly(t *testing.T) {
	f := &Fleet{Hosts: 1}
	newFleet(t, f)
	raw, err := f.listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if device, err := unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE); device != "lo" {
			t.Errorf("bound to device %q, %v", device, err)
		}
	})
}

// reservedPort calls try with one reserved port after another until one is not taken, or skips the test.
func reservedPort(tb testing.TB, try func(port int) error) {
	tb.Helper()
	for port := firstReserved; port <= lastReserved; port++ {
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

func TestReservedPorts(t *testing.T) {
	for _, fast := range []bool{false, true} {
		f := &Fleet{Hosts: 1, Fast: fast, Output: []byte("fast\n")}
		port := newFleet(t, f)
		addr := netip.AddrPortFrom(Addr(1), port).String()
		conn, err := net.Dial("tcp4", addr)
		if err == nil {
			io.WriteString(conn, "0\x00ann\x00ops\x00echo fast\x00")
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if err == nil {
			t.Errorf("fast %v: an ordinary port was served", fast)
		}
		var l *net.TCPListener
		reservedPort(t, func(port int) (err error) {
			l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			return err
		})
		defer l.Close()
		reservedPort(t, func(port int) (err error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
			conn, err = d.Dial("tcp4", addr)
			return err
		})
		defer conn.Close()
		fmt.Fprintf(conn, "%d\x00ann\x00ops\x00echo fast\x00", l.Addr().(*net.TCPAddr).Port)
		stderr, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer stderr.Close()
		if from := stderr.RemoteAddr().(*net.TCPAddr); !reserved(uint16(from.Port)) || from.IP.String() != "127.1.0.1" {
			t.Errorf("fast %v: connected back from %v", fast, from)
		}
		if out, _ := io.ReadAll(conn); string(out) != "\x00fast\n" {
			t.Errorf("fast %v: %q", fast, out)
		}
		if a := f.Account(); a.Connections != 2 || a.Refused != 1 {
			t.Errorf("fast %v: %+v", fast, a)
		}
	}
}

func TestPortIsTaken(t *testing.T) {
	f := &Fleet{Hosts: 1}
	port := newFleet(t, f)
	g := &Fleet{Hosts: 1, Port: port}
	if _, err := g.Start(); err == nil || !strings.Contains(err.Error(), "taken by another program") {
		t.Errorf("%v", err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestHostsOutOfRange(t *testing.T) {
	for _, n := range []int{-1, 0, MaxHosts + 1} {
		if _, err := (&Fleet{Hosts: n}).Start(); err == nil {
			t.Errorf("%d hosts were accepted", n)
		}
	}
}

// Each host behaves as its share says, under Fast too.
func TestBehaviours(t *testing.T) {
	shares, err := ParseShares("ok:50%,error=no:50%")
	if err != nil {
		t.Fatal(err)
	}
	for _, fast := range []bool{false, true} {
		f := &Fleet{Hosts: 20, Shares: shares, Seed: 3, Fast: fast, Output: []byte("real\n")}
		f.Server.AnyPort = true
		port := newFleet(t, f)
		seen := make(map[string]int)
		for host := 1; host <= f.Hosts; host++ {
			c := dial(t, host, port, false, "echo real")
			out, _ := c.ends()
			c.main.Close()
			want := "\x00real\n"
			if shares.Of(host, f.Seed) != (rshtest.Behaviour{}) {
				want = "\x01no\n"
			}
			if out != want {
				t.Errorf("fast %v, host %d: %q, want %q", fast, host, out, want)
			}
			seen[out]++
		}
		if len(seen) != 2 {
			t.Errorf("fast %v: %v", fast, seen)
		}
	}
}

// wrapped is a session of a wrapped command on a fast host.
func wrapped(tb testing.TB, port uint16, s shwrap.Script) (*client, *shwrap.Wrapper) {
	tb.Helper()
	w, err := shwrap.New(s)
	if err != nil {
		tb.Fatal(err)
	}
	c := dial(tb, 1, port, !s.Merged, shwrap.Bootstrap)
	if _, err := c.main.Write(w.Preamble()); err != nil {
		tb.Fatal(err)
	}
	return c, w
}

func fastFleet(tb testing.TB, output string, hold time.Duration) uint16 {
	tb.Helper()
	f := &Fleet{Hosts: 1, Fast: true, Output: []byte(output), Hold: hold}
	f.Server.AnyPort = true
	return newFleet(tb, f)
}

func TestFast(t *testing.T) {
	for name, s := range map[string]shwrap.Script{
		"two channels": {Line: "uptime"},
		"one channel":  {Line: "uptime", Merged: true},
		"long text":    {Line: "echo '" + strings.Repeat("é\n", 30_000) + "'"},
	} {
		t.Run(name, func(t *testing.T) {
			c, w := wrapped(t, fastFleet(t, "ok\n", 0), s)
			mark, end := string(w.Leader()), string(w.Trailer(0))
			out, errs := c.ends()
			if s.Merged {
				mark, end = "", ""
			}
			if want := "\x00" + string(w.Leader()) + "ok\n" + string(w.Trailer(0)); out != want || errs != mark+end {
				t.Errorf("%q, %q", out, errs)
			}
		})
	}
}

func TestFastInput(t *testing.T) {
	const size = 3_000_000
	c, w := wrapped(t, fastFleet(t, "ok\n", 0), shwrap.Script{Line: "cat", Input: size})
	if _, err := c.main.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	c.main.Write(w.Go())
	if out, _ := c.ends(); out != "\x00"+string(w.Leader())+"ok\n"+string(w.Trailer(0)) {
		t.Errorf("%q", out)
	}
}

func TestFastBareCommand(t *testing.T) {
	port := fastFleet(t, "ok\n", 0)
	for _, stderr := range []bool{false, true} {
		if out, errs := dial(t, 1, port, stderr, "true").ends(); out != "\x00ok\n" || errs != "" {
			t.Errorf("stderr %v: %q, %q", stderr, out, errs)
		}
	}
}

// Output that does not fit into the socket's buffers waits for its reader, and others do not wait for it.
func TestFastHugeOutput(t *testing.T) {
	huge := strings.Repeat(strings.Repeat("y", 63)+"\n", 1<<17) // 8 MiB
	port := fastFleet(t, huge, 0)
	slow, w := wrapped(t, port, shwrap.Script{Line: "cat"})
	one := make([]byte, 1)
	if _, err := io.ReadFull(slow.main, one); err != nil {
		t.Fatal(err)
	}
	if out, _ := dial(t, 1, port, false, "cat").ends(); out != "\x00"+huge {
		t.Errorf("%d bytes", len(out))
	}
	if out, _ := slow.ends(); out != string(w.Leader())+huge+string(w.Trailer(0)) {
		t.Errorf("%d bytes", len(out))
	}
}

func TestFastHold(t *testing.T) {
	const hold = 30 * time.Millisecond
	port := fastFleet(t, "ok\n", hold)
	start := time.Now()
	c, w := wrapped(t, port, shwrap.Script{Line: "sleep"})
	out, errs := c.ends()
	mark, end := string(w.Leader()), string(w.Trailer(0))
	if out != "\x00"+mark+"ok\n"+end || errs != mark+end {
		t.Errorf("%q, %q", out, errs)
	}
	if took := time.Since(start); took < hold { // it can only be later
		t.Errorf("held for %v", took)
	}

	// A stop ends it.
	c, w = wrapped(t, fastFleet(t, "ok\n", time.Hour), shwrap.Script{Line: "sleep"})
	mark, end = string(w.Leader()), string(w.Trailer(143))
	if _, err := io.ReadFull(c.main, make([]byte, 1+len(mark))); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c.main, "TERM\n")
	if out, errs = c.ends(); out != end || errs != mark+end {
		t.Errorf("%q, %q", out, errs)
	}
}

// What comes in parts is put together; what is not the protocol ends the connection.
func TestFastCrumbs(t *testing.T) {
	port := fastFleet(t, "ok\n", 0)
	w, err := shwrap.New(shwrap.Script{Line: "true", Merged: true})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.1.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetNoDelay(true)
	for _, b := range []byte("0\x00ann\x00ops\x00" + shwrap.Bootstrap + "\x00" + string(w.Preamble())) {
		conn.Write([]byte{b})
	}
	if out, _ := io.ReadAll(conn); string(out) != "\x00"+string(w.Leader())+"ok\n"+string(w.Trailer(0)) {
		t.Errorf("%q", out)
	}

	for name, text := range map[string]string{
		"port is no number": "x\x00", "port is too long": "1234567", "port is too large": "65536\x00a\x00b\x00c\x00",
		"no preamble":  "0\x00ann\x00ops\x00" + shwrap.Bootstrap + "\x00hello\n",
		"endless":      "0\x00" + strings.Repeat("a", 2*keepMax),
		"nobody there": "1\x00", // nobody listens on port 1
		"cut off":      "0\x00ann\x00ops\x00tru",
	} {
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.1.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			io.WriteString(conn, text)
			conn.(*net.TCPConn).CloseWrite()
		}()
		if out, _ := io.ReadAll(conn); strings.Trim(string(out), "\x00") != "" {
			t.Errorf("%s: %q", name, out)
		}
		conn.Close()
	}
}

// The connection back may take its time: the host waits for it, and serves others meanwhile.
func TestFastCallbackWaits(t *testing.T) {
	port := fastFleet(t, "ok\n", 0)
	// A listener whose queue is full: further connections wait in their SYN.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	filler, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.1.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%d\x00ann\x00ops\x00true\x00", l.Addr().(*net.TCPAddr).Port)
	if out, _ := dial(t, 1, port, true, "true").ends(); out != "\x00ok\n" {
		t.Errorf("another one meanwhile: %q", out)
	}
	for range 2 { // the filler, then the host, whose SYN is sent again
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if out, _ := io.ReadAll(conn); string(out) != "\x00ok\n" {
		t.Errorf("%q", out)
	}
}

// Many connections at once, all held, cut off by Close.
func TestFastMany(t *testing.T) {
	const n = 300
	f := &Fleet{Hosts: n, Fast: true, Hold: time.Hour}
	f.Server.AnyPort = true
	port := newFleet(t, f)
	var all []*client
	for i := 1; i <= n; i++ {
		w, err := shwrap.New(shwrap.Script{Line: "sleep", Merged: true})
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, i, port, false, shwrap.Bootstrap)
		c.main.Write(w.Preamble())
		if _, err := io.ReadFull(c.main, make([]byte, 1+len(w.Leader()))); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if a := f.Account(); a.Now != n || a.Most != n {
		t.Errorf("%+v", a)
	}
	f.Close()
	for _, c := range all {
		if _, err := io.ReadAll(c.main); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("%v", err)
		}
	}
}

// A client that leaves early leaves nothing behind.
func TestFastClientLeaves(t *testing.T) {
	f := &Fleet{Hosts: 1, Fast: true, Hold: time.Hour}
	f.Server.AnyPort = true
	port := newFleet(t, f)
	for _, text := range []string{"", "0", "0\x00ann\x00", "0\x00ann\x00ops\x00" + shwrap.Bootstrap + "\x00"} {
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.1.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, text)
		conn.(*net.TCPConn).CloseWrite()
		io.ReadAll(conn) // to its end: the host has closed
		conn.Close()
	}
	if a := f.Account(); a.Connections != 4 {
		t.Errorf("%+v", a)
	}
	// The engine does one thing at a time: when it answers this one, it has counted the others out.
	dial(t, 1, port, false, "true").ends()
	if now := f.Account().Now; now > 1 {
		t.Errorf("%d are still being served", now)
	}
}

// BenchmarkFast is a plain client of a fast fleet in the same process, 64 sessions at a time.
func BenchmarkFast(b *testing.B) {
	const hosts = 10_000
	f := &Fleet{Hosts: hosts, Fast: true, Output: []byte("ok\n")}
	f.Server.AnyPort = true
	port := newFleet(b, f)
	w, err := shwrap.New(shwrap.Script{Line: "true", Merged: true})
	if err != nil {
		b.Fatal(err)
	}
	header := []byte("0\x00ann\x00ops\x00" + shwrap.Bootstrap + "\x00" + string(w.Preamble()))
	b.SetParallelism(32)
	var next sync.Mutex
	host := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			next.Lock()
			host = host%hosts + 1
			to := netip.AddrPortFrom(Addr(host), port)
			next.Unlock()
			conn, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
			if err != nil {
				b.Error(err)
				return
			}
			conn.Write(header)
			if _, err := io.Copy(io.Discard, conn); err != nil {
				b.Error(err)
			}
			conn.SetLinger(0)
			conn.Close()
		}
	})
}
