package resvport

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/rsh/sockdiag"
)

func newAllocator(t testing.TB, low, high uint16) *Allocator {
	a := &Allocator{Low: low, High: high}
	t.Cleanup(func() { a.Close() })
	return a
}

func dial(t testing.TB, a *Allocator, to netip.AddrPort) *Conn {
	t.Helper()
	c, err := a.Dial(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func say(t testing.TB, c net.Conn, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, c net.Conn) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("after %q: %v", line, err)
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

// table is the reserved sockets of this namespace, listeners of others aside.
func table(t testing.TB) []Socket {
	t.Helper()
	s, err := Table()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func port(c net.Conn) uint16 { return c.LocalAddr().(*net.TCPAddr).AddrPort().Port() }

// TestManyHosts: one run needs few ports, however many hosts there are.
func TestManyHosts(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	const n = 3200
	conns := make([]*Conn, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c, err := a.Dial(t.Context(), host(i))
			if err != nil {
				t.Error(err)
				return
			}
			conns[i] = c
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if got := len(table(t)); got != n {
		t.Errorf("%d sockets in the kernel's table, want %d", got, n)
	}
	s := a.Stats()
	if s.Open != n || s.InUse > window || s.Peak > window {
		t.Errorf("%+v", s)
	}
	t.Logf("%d connections at once on %d ports: %+v", n, s.Peak, s)
	for _, c := range conns {
		c.Close()
	}
	if left := table(t); len(left) != 0 {
		t.Errorf("%d sockets left, such as %+v", len(left), left[0])
	}
	if s := a.Stats(); s.Open != 0 || s.InUse != 0 {
		t.Errorf("after the closes: %+v", s)
	}
}

// TestOneHost: commands in a row into one host, each connection closed first by the host.
func TestOneHost(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	const n = 5000
	if failed := visit(a, n, 20, func(int) netip.AddrPort { return host(0) }); len(failed) > 0 {
		t.Errorf("%d of %d failed: %v", len(failed), n, failed[0])
	}
	for _, s := range table(t) {
		if s.State == sockdiag.TimeWait {
			t.Errorf("left: %+v", s)
		}
	}
	t.Logf("%d connections in a row to one host: %+v", n, a.Stats())
}

// TestTimeWait: our side closes first, so that every pair stays in TIME-WAIT for a minute, and without timestamps the kernel
// does not give it back. The rotation has a fresh pair for each visit; the fixed order of rresvport(3) has none for the second.
func TestTimeWait(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	sysctl(t, "ipv4/tcp_timestamps", "0")
	const ports = 40
	a := newAllocator(t, 700, 700+ports-1)
	for i := range ports {
		c := dial(t, a, host(0))
		c.SetLinger(-1)
		c.CloseWrite() // FIN first
		io.ReadAll(c)
		c.Close()
		if s := a.Stats(); s.PairBusy != 0 {
			t.Fatalf("visit %d met a pair in TIME-WAIT: %+v", i, s)
		}
	}
	rig.Until(t, "the pairs are in TIME-WAIT", func() string { // the last of them may still be on its way there
		waits := 0
		for _, s := range table(t) {
			if s.State == sockdiag.TimeWait {
				waits++
			}
		}
		if waits == ports {
			return ""
		}
		return fmt.Sprintf("%d, want %d", waits, ports)
	})
	// Now there is no pair left, and to wait is all that can be done.
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	_, err := a.Dial(ctx, host(0))
	if !errors.Is(err, transport.ErrNoPorts) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v and a deadline", err, transport.ErrNoPorts)
	}
	if s := a.Stats(); s.PairBusy < ports || s.DialWaits == 0 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
	dial(t, a, host(1)) // other hosts are not concerned
	t.Logf("%v: %+v", err, a.Stats())
}

// TestTwoProcesses: both visit the same hosts at the same time, from the same state file.
func TestTwoProcesses(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	state := filepath.Join(t.TempDir(), "rotation")
	for _, args := range [][]string{{"visit", "300", "5", state}, {"visit", "3", "500", state}} {
		var outs [2]*bufio.Reader
		for i := range outs {
			_, outs[i] = dialler(t, args...)
		}
		for i, out := range outs {
			b, err := io.ReadAll(out)
			if err != nil || !strings.HasPrefix(string(b), "0 failed\n") {
				t.Errorf("process %d %v: %v: %s", i, args, err, b)
			}
			t.Logf("process %d %v: %s", i, args, b)
		}
	}
}

// TestKilled: what a killed process leaves behind.
func TestKilled(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	cmd, out := dialler(t, "hold", "640")
	if line, err := out.ReadString('\n'); line != "holding\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if got := len(table(t)); got != 640 {
		t.Fatalf("%d sockets before the kill, want 640", got)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if left := table(t); len(left) != 0 {
		t.Errorf("%d sockets left, such as %+v", len(left), left[0])
	}
}

func TestWaitForClose(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 600, 603)
	var first []*Conn
	for range 4 {
		first = append(first, dial(t, a, host(0)))
	}
	type result struct {
		c   *Conn
		err error
	}
	results := make(chan result)
	go func() {
		c, err := a.Dial(t.Context(), host(0))
		results <- result{c, err}
	}()
	waitUntil(t, func() bool { return a.Stats().DialWaits == 1 })
	select {
	case r := <-results:
		t.Fatalf("a fifth connection on four ports: %+v", r)
	default:
	}
	free := port(first[2])
	first[2].Close()
	first[2].Close() // gives nothing back a second time
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	if port(r.c) != free {
		t.Errorf("port %d, want %d, which came free", port(r.c), free)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := a.Dial(ctx, host(0))
		results <- result{c, err}
	}()
	waitUntil(t, func() bool { return a.Stats().DialWaits == 2 })
	cancel()
	if err := (<-results).err; !errors.Is(err, transport.ErrNoPorts) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v and %v", err, transport.ErrNoPorts, context.Canceled)
	}
	r.c.Close()
	dial(t, a, host(0)) // what came free after the wait was given up is not lost
}

// TestWaitForOthers: the pairs are another process's, of which we hear nothing but what the kernel says.
func TestWaitForOthers(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	other, a := newAllocator(t, 600, 603), newAllocator(t, 600, 603)
	var theirs []*Conn
	for range 4 {
		theirs = append(theirs, dial(t, other, host(0)))
	}
	done := make(chan error)
	go func() {
		c, err := a.Dial(t.Context(), host(0))
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	waitUntil(t, func() bool { return a.Stats().DialWaits == 1 })
	theirs[1].Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := a.Stats(); s.PairBusy < 4 {
		t.Errorf("%+v", s)
	}
}

// TestForeignPorts: ports that others listen on, or have without SO_REUSEADDR.
func TestForeignPorts(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	before, err := net.Listen("tcp4", "0.0.0.0:600")
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	a := newAllocator(t, 600, 603)
	if err := a.Check(); err != nil {
		t.Fatal(err)
	}
	later, err := net.Listen("tcp4", "0.0.0.0:601")
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	plain := net.Dialer{LocalAddr: &net.TCPAddr{Port: 602}} // as a client without SO_REUSEADDR
	c, err := plain.Dial("tcp4", host(7).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 3 {
		if got := port(dial(t, a, host(i))); got != 603 {
			t.Errorf("host %d from port %d, want 603", i, got)
		}
	}
	// Each is asked about once: for all destinations, not for each.
	if s := a.Stats(); s.BindBusy > 2 || s.PairBusy != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOtherErrors(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	ip(t, "route add unreachable 10.77.0.0/16")
	ip(t, "route add prohibit 10.78.0.0/16")
	a := newAllocator(t, 600, 600)
	for _, tt := range []struct {
		to   string
		want error
	}{
		{hostA + ":515", syscall.ECONNREFUSED},
		{"10.77.0.1:514", syscall.EHOSTUNREACH},
		{"10.78.0.1:514", syscall.EACCES}, // of connect: no matter of ports
		{"192.0.2.1:514", syscall.ENETUNREACH},
	} {
		// Twice: the only port there is comes back.
		for range 2 {
			if _, err := a.Dial(t.Context(), netip.MustParseAddrPort(tt.to)); !errors.Is(err, tt.want) || errors.Is(err, transport.ErrPorts) {
				t.Errorf("%s: error %v, want %v", tt.to, err, tt.want)
			}
		}
	}
	// Nobody answers at all.
	ip(t, "neigh add 10.99.0.77 lladdr 02:00:00:00:00:01 dev v0")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Dial(ctx, netip.MustParseAddrPort("10.99.0.77:514")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transport.ErrNoPorts) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
	sysctl(t, "ipv6/conf/all/disable_ipv6", "1")
	if _, err := a.Dial(t.Context(), netip.MustParseAddrPort("[fd99::2]:514")); err == nil || errors.Is(err, transport.ErrNoPorts) {
		t.Errorf("without IPv6: %v", err)
	}
	if _, err := a.Dial(t.Context(), netip.AddrPort{}); err == nil {
		t.Error("no error for the zero address")
	}
	if s := a.Stats(); s.Open != 0 || s.InUse != 0 || s.Dialled != 0 {
		t.Errorf("%+v", s)
	}
	if left := table(t); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestIPv6(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	if err := talk(a, netip.MustParseAddrPort("[fd99::2]:514")); err != nil {
		t.Error(err)
	}
	if err := talk(a, netip.MustParseAddrPort("[::ffff:10.99.0.2]:514")); err != nil {
		t.Error(err)
	}
	// The host's link-local address, with a zone.
	c := dial(t, a, netip.MustParseAddrPort("[fe80::99:2%v0]:514"))
	say(t, c, "echo")
	if got := hear(t, c); got != "echo" {
		t.Errorf("%q", got)
	}
}

// TestOptions: what is set before the connection is, and that nothing of the context stays.
func TestOptions(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	a.Timeout = 20 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	c, err := a.Dial(ctx, host(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	say(t, c, "echo")
	if got := hear(t, c); got != "echo" {
		t.Errorf("after the context: %q", got)
	}
	checkOptions(t, c.TCPConn, 20)
	if s := table(t)[0]; s.Timer != sockdiag.Keepalive || s.Expires > 10*time.Second {
		t.Errorf("timer %v in %v", s.Timer, s.Expires)
	}
}

func checkOptions(t *testing.T, c *net.TCPConn, seconds int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, o := range []struct {
			name          string
			level, option int
			want          int
		}{
			{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds / 2},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds / 2},
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, seconds * 1000},
		} {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.option); err != nil || got != o.want {
				t.Errorf("%s is %d, %v, want %d", o.name, got, err, o.want)
			}
		}
		// struct linger is two ints; an address of IPv4 multicast happens to be read as 8 bytes too.
		l, err := unix.GetsockoptIPMreq(int(fd), unix.SOL_SOCKET, unix.SO_LINGER)
		if err != nil || binary.NativeEndian.Uint32(l.Multiaddr[:]) != 1 || binary.NativeEndian.Uint32(l.Interface[:]) != 0 {
			t.Errorf("SO_LINGER is %v, %v", l, err)
		}
	})
}

// TestLeftAlone: ports that the administrator or the kernel's table says belong to others.
func TestLeftAlone(t *testing.T) {
	if !inside(t) {
		return
	}
	sysctl(t, "ipv4/ip_local_reserved_ports", "1,514-515,1023")
	ln, err := net.Listen("tcp6", "[::]:600")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer ln.Close()
	spared := leaveAlone(First, Last)
	for _, p := range []uint16{514, 515, 600, 1023} {
		if !spared[p] {
			t.Errorf("port %d is not left alone", p)
		}
	}
	if spared[513] || spared[601] {
		t.Error("more ports are left alone than were named")
	}
	a := newAllocator(t, 514, 515)
	if err := a.Check(); !errors.Is(err, transport.ErrNoPorts) {
		t.Errorf("with the whole range left alone: %v", err)
	}
	if _, err := a.Dial(t.Context(), host(0)); !errors.Is(err, transport.ErrNoPorts) {
		t.Errorf("Dial: %v", err)
	}
	if err := newAllocator(t, 700, 600).Check(); err == nil {
		t.Error("an empty range is accepted")
	}
}

// TestSelf: a port of this machine in the range, on which nobody listens, must not connect with itself.
func TestSelf(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 600, 601)
	for range 4 {
		if c, err := a.Dial(t.Context(), netip.MustParseAddrPort("127.0.0.1:600")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, error %v, want %v", c, err, syscall.ECONNREFUSED)
		}
	}
}

func TestClosed(t *testing.T) {
	if !inside(t) {
		return
	}
	a := newAllocator(t, 0, 0)
	a.Close()
	if _, err := a.Dial(t.Context(), host(0)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	if _, err := a.Lease(t.Context(), netip.MustParseAddr("127.0.0.1")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Lease: %v", err)
	}
	a.Close()
}

// TestPermission runs Check as a user without capabilities.
func TestPermission(t *testing.T) {
	if os.Getenv(roleVar) == "plain" {
		fmt.Println((&Allocator{}).Check())
		return
	}
	if !inside(t) {
		return
	}
	if os.Getuid() != 0 {
		t.Skip("to become another user takes root")
	}
	check := func() string {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestPermission$")
		cmd.Env = append(os.Environ(), roleVar+"=plain")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EINVAL) {
			t.Skipf("this binary cannot be run as another user here: %v", err)
		}
		return string(out)
	}
	got := check()
	for _, want := range []string{transport.ErrPorts.Error(), "CAP_NET_BIND_SERVICE", "sudo setcap cap_net_bind_service=+ep /"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	t.Log(got)
	for _, from := range []string{"700", "0"} {
		sysctl(t, "ipv4/ip_unprivileged_port_start", from)
		if got := check(); !strings.HasPrefix(got, "<nil>\n") {
			t.Errorf("with ports from %s on free for all: %s", from, got)
		}
	}
}

// waitUntil polls for something that another goroutine is about to do, giving it the processor.
func waitUntil(t testing.TB, cond func() bool) {
	t.Helper()
	for !cond() {
		select {
		case <-t.Context().Done():
			t.Fatal("it never happened")
		case <-time.After(time.Millisecond):
		}
	}
}
