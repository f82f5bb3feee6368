package resvport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"multirsh/transport"
	"multirsh/transport/rsh/sockdiag"
)

var hereAddr = netip.MustParseAddr(here)

func lease(t testing.TB, a *Allocator, local netip.Addr) *Listener {
	t.Helper()
	l, err := a.Lease(t.Context(), local)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Release)
	return l
}

// at is where a listener of ours is for the host.
func at(l *Listener) string { return fmt.Sprintf("%s:%d", here, l.Port()) }

// from is a reserved port of the host.
func from(p int) string { return fmt.Sprintf("%s:%d", hostA, p) }

func accept(t testing.TB, l *Listener) *net.TCPConn {
	t.Helper()
	c, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func hostMain(t testing.TB, a *Allocator) *Conn {
	return dial(t, a, netip.MustParseAddrPort(hostA+":514"))
}

func listening(t testing.TB) (ports []uint16) {
	t.Helper()
	for _, s := range table(t) {
		if s.State == sockdiag.Listen {
			ports = append(ports, s.Local.Port())
		}
	}
	return ports
}

func TestLease(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	c := hostMain(t, a)
	var ports [2]uint16
	for i := range ports {
		l := lease(t, a, c.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
		ports[i] = l.Port()
		if got := listening(t); len(got) != 1 || got[0] != l.Port() {
			t.Errorf("listening on %v, lent %d", got, l.Port())
		}
		say(t, c, "back "+from(1000+i)+" "+at(l))
		back := accept(t, l)
		if got := hear(t, c); got != "connected" {
			t.Fatal(got)
		}
		if got := hear(t, back); got != "hello" {
			t.Errorf("%q", got)
		}
		if got := listening(t); len(got) != 0 {
			t.Errorf("still listening on %v", got)
		}
		checkOptions(t, back, 30)
		back.Close() // a reset, by the inherited option
		if got := hear(t, c); !strings.Contains(got, "reset") {
			t.Errorf("the host saw %q, want a reset", got)
		}
		l.Release() // nothing any more
		if _, err := l.Accept(t.Context()); err == nil {
			t.Error("a second connection on one lease")
		}
	}
	if ports[0] != ports[1] {
		t.Errorf("ports %v: the listener did not go to the next session", ports)
	}
	if s := a.Stats(); s.Leases != 2 || s.Listeners != 1 || s.Retired != 0 || s.Strangers != 0 {
		t.Errorf("%+v", s)
	}
	a.Close()
	c.Close()
	if left := table(t); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// TestLateConnectBack: the lease is over, the host connects all the same, and the next session must not get that connection.
func TestLateConnectBack(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 700, 709)
	c := hostMain(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	first := lease(t, a, hereAddr)
	done := make(chan error)
	go func() { _, err := first.Accept(ctx); done <- err }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	second := lease(t, a, hereAddr)
	if first.Port() == second.Port() {
		t.Fatalf("port %d lent again at once", first.Port())
	}
	say(t, c, "back "+from(1000)+" "+at(first))
	if got := hear(t, c); !strings.Contains(got, "refused") {
		t.Errorf("the late host: %q, want a refusal", got)
	}
	// Nobody else can have the port either: not another process that shares ports, and not ours for a dial.
	other := newAllocator(t, first.Port(), first.Port())
	ctx2, cancel2 := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel2()
	if _, err := other.Lease(ctx2, hereAddr); !errors.Is(err, transport.ErrNoPorts) {
		t.Errorf("another process got the retired port: %v", err)
	}
	for range 9 {
		if c := dial(t, a, host(0)); port(c) == first.Port() {
			t.Errorf("dialled from the retired port")
		}
		if a.Stats().Open == 9 { // 10 ports, without the retired and the lent one, and the first connection
			break
		}
	}
	say(t, c, "back "+from(1001)+" "+at(second))
	back := accept(t, second)
	if got := hear(t, back); got != "hello" {
		t.Errorf("%q", got)
	}
	if s := a.Stats(); s.Retired != 1 || s.Listeners != 1 {
		t.Errorf("%+v", s)
	}
}

// TestPendingConnection: it came, but nobody accepted it while the lease lasted.
func TestPendingConnection(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	c, d := hostMain(t, a), hostMain(t, a)

	// Two connect, the first is taken, the second is still there when the port goes to the next session.
	l := lease(t, a, hereAddr)
	say(t, c, "back "+from(1000)+" "+at(l))
	if got := hear(t, c); got != "connected" {
		t.Fatal(got)
	}
	say(t, d, "back "+from(1001)+" "+at(l))
	if got := hear(t, d); got != "connected" {
		t.Fatal(got)
	}
	accept(t, l)
	if got := hear(t, d); !strings.Contains(got, "reset") {
		t.Errorf("the second: %q, want a reset", got)
	}
	// One connects, and the lease ends without it.
	l = lease(t, a, hereAddr)
	say(t, d, "back "+from(1002)+" "+at(l))
	if got := hear(t, d); got != "connected" {
		t.Fatal(got)
	}
	l.Release()
	if got := hear(t, d); !strings.Contains(got, "reset") {
		t.Errorf("pending at the release: %q, want a reset", got)
	}
	if s := a.Stats(); s.Retired != 1 {
		t.Errorf("%+v", s)
	}
}

// TestReturn: a host that refuses the session has connected back before, or never will. Its port is the next session's at once.
func TestReturn(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 700, 709)
	c, d := hostMain(t, a), hostMain(t, a)
	ports := make(map[uint16]bool)
	for i := range 100 {
		l := lease(t, a, hereAddr)
		ports[l.Port()] = true
		if i < 3 {
			say(t, d, "back "+from(1000+i)+" "+at(l))
			if got := hear(t, d); got != "connected" {
				t.Fatal(got)
			}
		}
		pending := l.Return()
		switch {
		case i >= 3:
			if pending != nil {
				t.Errorf("%v was pending, and nobody had called", pending.RemoteAddr())
			}
		case pending == nil || pending.RemoteAddr().(*net.TCPAddr).Port != 1000+i:
			t.Fatalf("pending at the return: %v, want the connection from port %d", pending, 1000+i)
		default:
			pending.Close()
			if got := hear(t, d); !strings.Contains(got, "reset") {
				t.Errorf("closed: %q, want a reset", got)
			}
		}
		l.Release() // nothing any more
	}
	l := lease(t, a, hereAddr)
	say(t, c, "back "+from(1010)+" "+at(l))
	if got := accept(t, l).RemoteAddr().(*net.TCPAddr).Port; got != 1010 {
		t.Errorf("accepted a connection from port %d", got)
	}
	if s := a.Stats(); len(ports) != 1 || s.Retired != 0 || s.Listeners != 1 {
		t.Errorf("%d ports, %+v", len(ports), s)
	}
}

// TestTakenOver: a listener that makes room for another one is closed, and it is the one that has been out of use longest.
func TestTakenOver(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	for name, end := range map[string]func(*Listener){"idle": func(l *Listener) { l.Return() }, "retired": (*Listener).Release} {
		t.Run(name, func(t *testing.T) {
			a := newAllocator(t, 700, 709) // at most 5 listeners
			var all []*Listener
			for range 5 {
				all = append(all, lease(t, a, hereAddr))
			}
			for _, l := range all {
				end(l)
			}
			lease(t, a, netip.MustParseAddr("10.99.0.3"))
			bound := make(map[uint16]int)
			for _, s := range table(t) {
				if s.Local.Addr() == hereAddr {
					bound[s.Local.Port()]++
				}
			}
			if len(bound) != 4 || bound[all[0].Port()] != 0 {
				t.Errorf("still bound: %v, want all but %d", bound, all[0].Port())
			}
			a.Close()
			if left := table(t); len(left) != 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// TestStranger: only a reserved port proves that rshd is calling.
func TestStranger(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	c := hostMain(t, a)
	l := lease(t, a, hereAddr)
	var strangers []*Conn
	for _, p := range []string{"0", from(511), from(1024)} {
		d := hostMain(t, a)
		say(t, d, "back "+p+" "+at(l))
		if got := hear(t, d); got != "connected" {
			t.Fatal(got)
		}
		strangers = append(strangers, d)
	}
	say(t, c, "back "+from(512)+" "+at(l))
	back := accept(t, l)
	if got := back.RemoteAddr().(*net.TCPAddr).Port; got != 512 {
		t.Errorf("accepted a connection from port %d", got)
	}
	for _, d := range strangers {
		if got := hear(t, d); !strings.Contains(got, "reset") {
			t.Errorf("the stranger saw %q, want a reset", got)
		}
	}
	if s := a.Stats(); s.Strangers != 3 || s.Retired != 0 {
		t.Errorf("%+v", s)
	}
}

// TestRetirement ends after a minute, which passes at once in the bubble.
func TestRetirement(t *testing.T) {
	if !inside(t) {
		return
	}
	ip(t, "link set lo up")
	synctest.Test(t, func(t *testing.T) {
		a := newAllocator(t, 700, 709)
		loopback := netip.MustParseAddr("127.0.0.1")
		l := lease(t, a, loopback)
		address := fmt.Sprintf("127.0.0.1:%d", l.Port())
		l.Release()
		free := func() error {
			ln, err := net.Listen("tcp4", address)
			if err == nil {
				ln.Close()
			}
			return err
		}
		time.Sleep(59 * time.Second)
		if err := free(); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("after 59 s: %v, want %v", err, syscall.EADDRINUSE)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := free(); err != nil {
			t.Errorf("after 61 s: %v", err)
		}
		if s := a.Stats(); s.InUse != 0 || s.Listeners != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestIdleListeners are closed after a second, without Close.
func TestIdleListeners(t *testing.T) {
	if !inside(t) {
		return
	}
	ip(t, "link set lo up")
	synctest.Test(t, func(t *testing.T) {
		a := newAllocator(t, 512, 800) // the connections come from 900 up
		var ls []*Listener
		for range 5 {
			ls = append(ls, lease(t, a, netip.MustParseAddr("127.0.0.1")))
		}
		for i, l := range ls {
			connectAndAccept(t, l, 900+i)
		}
		time.Sleep(idleFor / 2)
		if s := a.Stats(); s.Listeners != 5 {
			t.Errorf("%+v, want 5 listeners", s)
		}
		time.Sleep(2 * idleFor)
		synctest.Wait()
		if s := a.Stats(); s.Listeners != 0 || s.InUse != 0 {
			t.Errorf("%+v, want no listener", s)
		}
	})
}

// TestCloseWhileSweeping: when Close returns no listener is left, also of those that are being closed because they were idle.
func TestCloseWhileSweeping(t *testing.T) {
	if !inside(t) {
		return
	}
	ip(t, "link set lo up")
	for range 50 {
		a := newAllocator(t, 512, 800)
		var ls []*Listener
		for range 16 {
			ls = append(ls, lease(t, a, netip.MustParseAddr("127.0.0.1")))
		}
		for _, l := range ls {
			l.Return()
		}
		a.mu.Lock()
		for _, s := range a.pool.idle {
			s.since = s.since.Add(-idleFor)
		}
		a.mu.Unlock()
		swept := make(chan struct{})
		go func() { a.sweep(); close(swept) }()
		for begun := false; !begun; runtime.Gosched() {
			a.mu.Lock()
			begun = len(a.pool.idle) == 0
			a.mu.Unlock()
		}
		a.Close()
		left := table(t)
		<-swept
		if len(left) > 0 {
			t.Fatalf("%d sockets left, such as %+v", len(left), left[0])
		}
	}
}

// connectAndAccept ends a lease well, with a connection over loopback.
func connectAndAccept(t testing.TB, l *Listener, fromPort int) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: fromPort}, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
	}}
	c, err := d.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", l.Port()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	io.ReadAll(c)
	c.Close()
}

// TestLeaseLimit: the pool is half of the range; who finds it lent out waits, first come first served.
func TestLeaseLimit(t *testing.T) {
	if !inside(t) {
		return
	}
	ip(t, "link set lo up")
	synctest.Test(t, func(t *testing.T) {
		a := newAllocator(t, 700, 707)
		local := netip.MustParseAddr("127.0.0.1")
		var lent []*Listener
		for range 4 {
			lent = append(lent, lease(t, a, local))
		}
		order, done := make(chan int, 2), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 2 {
			go func() {
				l, err := a.Lease(t.Context(), local)
				order <- i // before the port can go on to the next
				if err != nil {
					t.Error(err)
				} else {
					connectAndAccept(t, l, 950+i)
				}
				done <- struct{}{}
			}()
			synctest.Wait()
		}
		failed := make(chan error)
		go func() { _, err := a.Lease(ctx, local); failed <- err }()
		synctest.Wait()
		time.Sleep(time.Minute) // nothing comes of itself
		cancel()
		if err := <-failed; !errors.Is(err, transport.ErrNoPorts) || !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want %v and %v", err, transport.ErrNoPorts, context.Canceled)
		}
		connectAndAccept(t, lent[0], 940)
		<-done
		<-done
		if got := <-order; got != 0 {
			t.Errorf("the second was served before the first")
		}
		if got := <-order; got != 1 {
			t.Error("not served")
		}
		// Hosts that never connect back: half of the pool at most is kept from the others.
		for _, l := range lent[1:] {
			l.Release()
		}
		for range 3 {
			l, err := a.Lease(t.Context(), local)
			if err != nil {
				t.Fatal(err)
			}
			l.Release()
		}
		if s := a.Stats(); s.Retired != 6 || s.LeaseWaits != 3 {
			t.Errorf("%+v", s)
		}
		// An idle listener on another address makes room.
		if _, err := a.Lease(t.Context(), netip.MustParseAddr("127.0.0.2")); err != nil {
			t.Error(err)
		}
	})
}

// TestRelease wakes an Accept, and so does Close.
func TestRelease(t *testing.T) {
	if !inside(t) {
		return
	}
	ip(t, "link set lo up")
	a := newAllocator(t, 0, 0)
	testWoken(t, "Release", a, (*Listener).Release)
	testWoken(t, "Close", a, func(*Listener) { a.Close() })
}

func testWoken(t *testing.T, name string, a *Allocator, end func(*Listener)) {
	l := lease(t, a, netip.MustParseAddr("127.0.0.1"))
	done := make(chan error)
	go func() { _, err := l.Accept(t.Context()); done <- err }()
	end(l)
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after %s: %v, want %v", name, err, net.ErrClosed)
	}
}

// TestManyLeases: sessions at once need few listeners when hosts are near.
func TestManyLeases(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	const n = 800
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	most := 0
	for i := range n {
		wg.Go(func() {
			c, err := a.Dial(t.Context(), host(i))
			if err != nil {
				t.Error(err)
				return
			}
			l, err := a.Lease(t.Context(), hereAddr)
			if err != nil {
				t.Error(err)
				return
			}
			// From the address that was dialled, or another session's connection could not be told from ours.
			addr := c.RemoteAddr().(*net.TCPAddr).IP
			fmt.Fprintf(c, "back %v:1000 %s\n", addr, at(l))
			back, err := l.Accept(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if got := back.RemoteAddr().(*net.TCPAddr).IP; !got.Equal(addr) {
				t.Errorf("the connection of %v came to the session of %v", got, addr)
			}
			mu.Lock()
			conns = append(conns, c, back)
			most = max(most, a.Stats().Listeners)
			mu.Unlock()
		})
	}
	wg.Wait()
	t.Logf("%d sessions at once, at most %d listeners: %+v", n, most, a.Stats())
	if s := a.Stats(); s.Leases != n || s.Retired != 0 || s.Strangers != 0 {
		t.Errorf("%+v", s)
	}
	for _, c := range conns {
		c.Close()
	}
	a.Close()
	if left := table(t); len(left) != 0 {
		t.Errorf("%d sockets left, such as %+v", len(left), left[0])
	}
}

// TestLeaseAddresses: a listener is there for one address, and the same ports serve all of them.
func TestLeaseAddresses(t *testing.T) {
	if !inside(t) {
		return
	}
	withHosts(t)
	a := newAllocator(t, 0, 0)
	c := hostMain(t, a)
	v4, other := lease(t, a, hereAddr), lease(t, a, netip.MustParseAddr("10.99.0.3"))
	v6, local := lease(t, a, netip.MustParseAddr("fd99::1")), lease(t, a, netip.MustParseAddr("fe80::99:1%v0"))
	if v4.Port() != other.Port() || v4.Port() != v6.Port() {
		t.Errorf("ports %d, %d and %d for three addresses", v4.Port(), other.Port(), v6.Port())
	}
	for l, ends := range map[*Listener][2]string{
		v4:    {from(1000), at(v4)},
		other: {from(1001), fmt.Sprintf("10.99.0.3:%d", other.Port())},
		v6:    {"[fd99::2]:1000", fmt.Sprintf("[fd99::1]:%d", v6.Port())},
		local: {"[fe80::99:2%v1]:1000", fmt.Sprintf("[fe80::99:1%%v1]:%d", local.Port())},
	} {
		say(t, c, "back "+ends[0]+" "+ends[1])
		back := accept(t, l)
		if got := hear(t, c); got != "connected" {
			t.Fatal(got)
		}
		if got := back.RemoteAddr().(*net.TCPAddr).Port; got < 1000 {
			t.Errorf("from port %d", got)
		}
		back.Close()
		hear(t, c)
	}
	for _, bad := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.MustParseAddr("192.0.2.1")} {
		if _, err := a.Lease(t.Context(), bad); err == nil || errors.Is(err, transport.ErrNoPorts) {
			t.Errorf("lease on %v: %v", bad, err)
		}
	}
}
