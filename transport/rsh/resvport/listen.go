package resvport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"multirsh/transport"
)

const (
	// freely is how many listeners are opened without hesitation. Beyond it a lease first waits growAfter for one to come free: near
	// hosts, done with theirs in a millisecond or two, then never make the pool larger, while far ones do.
	freely    = window
	growAfter = 10 * time.Millisecond

	idleFor   = time.Second      // a listener without a lease keeps its port from others no longer
	retireFor = 60 * time.Second // after a lease that ended without its connection
)

// pool is the listeners. A socket is lent, or idle, or retired; only while lent does it listen.
//
//	         ┌── Accept: the connection came ──► hush ──► idle ──1 s──► close
//	open ──► lent                                └─► or to the next who waits
//	         └── Release, or ctx ended ────────► hold ──► retired ──60 s──► close
type pool struct {
	limit   int // sockets, the retired ones included: half of the range, so that the other half is there for dials
	total   int
	lent    map[*socket]bool
	idle    []*socket // last in, first out
	retired []*socket // longest retired first
	waiters []*waiter
	sweeper *time.Timer // nil while there is nothing to sweep
}

type socket struct {
	ln    *net.TCPListener
	local netip.Addr
	port  int       // index
	since time.Time // idle or retired
}

// waiter is a lease that waits. It gets a socket that fits, or nil: something has changed, look again.
type waiter struct {
	local netip.Addr
	ch    chan *socket
}

func (p *pool) init(ports int) {
	p.limit = max(1, ports/2)
	p.lent = make(map[*socket]bool)
}

// Listener is a listening reserved port, for one session, until Accept has returned a connection or Release was called.
type Listener struct {
	a     *Allocator
	s     *socket
	mu    sync.Mutex
	ended bool
}

// Lease lends a listener for one connection that a host makes to local, the address from which it was called: the second channel
// of rcmd(3). It listens on that address alone. That costs a listener for each address of this machine that is in use (the same ports
// serve all of them), and nobody who cannot reach that address ever sees the port.
//
// Take it after the connection to the host, whose LocalAddr says local, and end it with Accept or Release. If there is no
// listener Lease waits until ctx ends; the error then wraps [transport.ErrNoPorts] and the context's cause.
func (a *Allocator) Lease(ctx context.Context, local netip.Addr) (*Listener, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	local = local.Unmap()
	if !local.IsValid() || local.IsUnspecified() {
		return nil, fmt.Errorf("lease on %v: not an address to listen on", local)
	}
	s, err := a.lend(ctx, local)
	if err != nil {
		return nil, err
	}
	return &Listener{a: a, s: s}, nil
}

// lend finds a socket, waits for one or opens one, and has it listen.
func (a *Allocator) lend(ctx context.Context, local netip.Addr) (*socket, error) {
	grow, waited := false, false // waited long enough to open another; waited at all
	for front := false; ; {
		a.mu.Lock()
		if a.done {
			a.mu.Unlock()
			return nil, errClosed
		}
		s, old, open := a.pool.pick(local, grow)
		var w *waiter
		switch {
		case s != nil:
			a.pool.lent[s] = true
		case old != nil:
			a.book.leave(old.port)
			a.book.seats[old.port].listeners--
		case !open:
			w = &waiter{local, make(chan *socket, 1)}
			if front {
				a.pool.waiters = slices.Insert(a.pool.waiters, 0, w)
			} else {
				a.pool.waiters = append(a.pool.waiters, w)
			}
			if !waited {
				a.stats.LeaseWaits++
			}
		}
		a.mu.Unlock()

		if w != nil {
			waited = true
			var err error
			s, err = a.await(ctx, w, &grow)
			if err != nil {
				return nil, err
			}
			if s == nil {
				front = true // it was its turn
				continue
			}
		}
		if old != nil {
			old.ln.Close()
		}
		if s != nil {
			if err := speak(s.ln); err == nil {
				a.count(&a.stats.Leases)
				return s, nil
			}
			// Somebody took the port in the meantime.
			a.drop(s)
			continue
		}
		s, err := a.open(local)
		switch {
		case err == nil:
			a.count(&a.stats.Leases)
			return s, nil
		case !errors.Is(err, syscall.EADDRINUSE):
			return nil, err
		}
		// Every port has a listener of somebody's.
		timer := time.NewTimer(poll())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, noPorts(ctx, "each of %d has a listener", len(a.book.ports))
		}
	}
}

// pick decides what a lease gets: a socket, a place to open one (in which case old, if any, is to be closed for it first), or nothing.
// The caller holds the lock. A place is counted in total from now on.
func (p *pool) pick(local netip.Addr, grow bool) (s, old *socket, open bool) {
	for i := len(p.idle) - 1; i >= 0; i-- {
		if s := p.idle[i]; s.local == local {
			p.idle = slices.Delete(p.idle, i, i+1)
			return s, nil, false
		}
	}
	working := p.total - len(p.retired)
	switch {
	case working < freely && p.total < p.limit, grow && p.total < p.limit:
		p.total++
		return nil, nil, true
	case len(p.idle) > 0: // of another address
		old, p.idle = p.idle[0], slices.Delete(p.idle, 0, 1)
		return nil, old, true
	case p.total >= p.limit && len(p.retired) > p.limit/2:
		// Hosts that never connect back must not stop the others: half of the pool is what they can keep from them, so the one
		// that has been retired longest comes free before its time.
		old, p.retired = p.retired[0], slices.Delete(p.retired, 0, 1)
		return nil, old, true
	}
	return nil, nil, false
}

// await waits until a socket is handed over, or something has changed, or it is time to grow.
func (a *Allocator) await(ctx context.Context, w *waiter, grow *bool) (*socket, error) {
	var later <-chan time.Time
	if !*grow {
		timer := time.NewTimer(growAfter)
		defer timer.Stop()
		later = timer.C
	}
	select {
	case s := <-w.ch:
		return s, nil
	case <-later:
		*grow = true
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case s := <-w.ch: // just now
		if ctx.Err() == nil {
			return s, nil
		}
		a.pass(s)
	default:
		a.pool.waiters = remove(a.pool.waiters, w)
	}
	if ctx.Err() != nil {
		return nil, noPorts(ctx, "all %d listeners are in use", a.pool.limit)
	}
	return nil, nil
}

// pass gives a socket that was lent, or nil for a change, to the first who waits. The caller holds the lock.
func (a *Allocator) pass(s *socket) {
	if len(a.pool.waiters) == 0 {
		if s != nil {
			a.rest(s)
		}
		return
	}
	w := a.pool.waiters[0]
	a.pool.waiters = slices.Delete(a.pool.waiters, 0, 1)
	if s != nil && s.local != w.local {
		a.rest(s)
		s = nil
	}
	w.ch <- s // has room for one
}

func (a *Allocator) rest(s *socket) {
	delete(a.pool.lent, s)
	s.since = time.Now()
	a.pool.idle = append(a.pool.idle, s)
	a.sweepLater()
}

// open makes a listener on local. The place for it is taken already, and is given back if there is an error.
func (a *Allocator) open(local netip.Addr) (*socket, error) {
	a.mu.Lock()
	candidates := a.book.places(local, &a.pool)
	a.mu.Unlock()
	err := error(syscall.EADDRINUSE)
	for _, i := range candidates {
		var ln net.Listener
		address := net.JoinHostPort(local.String(), strconv.Itoa(int(a.book.ports[i])))
		ln, err = a.listen.Listen(context.Background(), network(local), address)
		if errors.Is(err, syscall.EADDRINUSE) {
			a.count(&a.stats.BindBusy)
			continue
		}
		if err != nil {
			break
		}
		s := &socket{ln: ln.(*net.TCPListener), local: local, port: i}
		a.mu.Lock()
		if a.done {
			a.mu.Unlock()
			ln.Close()
			return nil, errClosed
		}
		a.book.use(i)
		a.book.seats[i].listeners++
		a.pool.lent[s] = true
		a.mu.Unlock()
		return s, nil
	}
	a.mu.Lock()
	a.pool.total--
	a.pass(nil)
	a.mu.Unlock()
	if isDenied(err) {
		err = fmt.Errorf("%w: %w", transport.ErrPorts, err)
	}
	return nil, err
}

// places are the ports for a listener on local, best first: from the far side of the range, so that several processes, whose
// windows follow one another, do not listen where the others dial; and first those that carry no connections of ours.
func (b *book) places(local netip.Addr, p *pool) []int {
	taken := make(map[int]bool)
	for _, s := range slices.Concat(p.idle, p.retired) {
		taken[s.port] = taken[s.port] || s.local == local
	}
	for s := range p.lent {
		taken[s.port] = taken[s.port] || s.local == local
	}
	var empty, busy []int
	for k := range b.ports {
		i := (b.start + len(b.ports)/2 + k) % len(b.ports)
		switch seat := b.seats[i]; {
		case taken[i]:
		case seat.users == seat.listeners:
			empty = append(empty, i)
		default:
			busy = append(busy, i)
		}
	}
	return append(empty, busy...)
}

// drop closes a socket that was lent.
func (a *Allocator) drop(s *socket) {
	s.ln.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pool.lent[s] { // else Close has seen to it
		delete(a.pool.lent, s)
		a.forget(s)
	}
}

// forget settles the books for a socket that is closed. The caller holds the lock.
func (a *Allocator) forget(s *socket) {
	a.pool.total--
	a.book.leave(s.port)
	a.book.seats[s.port].listeners--
	a.pass(nil)
}

func (a *Allocator) count(n *int) {
	a.mu.Lock()
	*n++
	a.mu.Unlock()
}

// sweepLater has sweep run in a second, as it does every second while there is something to sweep. The caller holds the lock.
func (a *Allocator) sweepLater() {
	if a.pool.sweeper == nil && !a.done {
		a.pool.sweeper = time.AfterFunc(idleFor, a.sweep)
	}
}

// sweep closes what has been idle or retired for long enough.
func (a *Allocator) sweep() {
	now := time.Now()
	var over []*socket
	due := func(list []*socket, after time.Duration) []*socket {
		for len(list) > 0 && now.Sub(list[0].since) >= after {
			over = append(over, list[0])
			list = slices.Delete(list, 0, 1)
		}
		return list
	}
	a.mu.Lock()
	p := &a.pool
	p.sweeper = nil
	p.idle, p.retired = due(p.idle, idleFor), due(p.retired, retireFor)
	if len(p.idle)+len(p.retired) > 0 {
		a.sweepLater()
	}
	a.mu.Unlock()

	for _, s := range over {
		s.ln.Close()
		a.mu.Lock()
		a.forget(s)
		a.mu.Unlock()
	}
}

// closePool takes all sockets out of the pool, for the caller to close. The caller holds the lock.
func (a *Allocator) closePool() (sockets []*socket) {
	p := &a.pool
	for s := range p.lent {
		sockets = append(sockets, s)
	}
	sockets = slices.Concat(sockets, p.idle, p.retired)
	clear(p.lent)
	p.idle, p.retired = nil, nil
	for _, s := range sockets {
		p.total--
		a.book.leave(s.port)
		a.book.seats[s.port].listeners--
	}
	for _, w := range p.waiters {
		w.ch <- nil // they look again and see that it is over
	}
	p.waiters = nil
	if p.sweeper != nil {
		p.sweeper.Stop()
		p.sweeper = nil
	}
	return sockets
}

// Port is where the listener listens.
func (l *Listener) Port() uint16 { return l.a.book.ports[l.s.port] }

// Accept returns the connection that the lease is for, which inherits the listener's options (SO_LINGER{1,0}, keepalive), and ends
// the lease: the port goes to the next session. Connections from a port that is not reserved are reset and do not count. If
// ctx ends first, or on any other error, the lease ends as by Release.
func (l *Listener) Accept(ctx context.Context) (*net.TCPConn, error) {
	released := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { l.Release(); close(released) })
	defer func() {
		if !stop() {
			<-released
		}
	}()
	for {
		c, err := l.s.ln.AcceptTCP()
		if err != nil {
			if l.Release(); ctx.Err() != nil {
				err = context.Cause(ctx)
			} else if errors.Is(err, syscall.EINVAL) { // hushed by Release
				err = net.ErrClosed
			}
			return nil, fmt.Errorf("no connection came to port %d: %w", l.Port(), err)
		}
		if peer := c.RemoteAddr().(*net.TCPAddr); !isReserved(uint16(peer.Port)) {
			c.Close()
			l.a.count(&l.a.stats.Strangers)
			continue
		}
		if !l.end() {
			c.Close()
			return nil, fmt.Errorf("no connection came to port %d: %w", l.Port(), net.ErrClosed)
		}
		l.a.next(l.s)
		return c, nil
	}
}

// Release ends the lease without its connection; after Accept has returned one it does nothing. A blocked Accept returns
// [net.ErrClosed]. For a minute the port is refused to the host, which may still try to connect, and to everybody else,
// who would get that connection.
func (l *Listener) Release() {
	if l.end() {
		l.a.retire(l.s)
	}
}

// end reports whether this call ends the lease.
func (l *Listener) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.ended
	l.ended = true
	return first
}

// next hands a socket that has had its connection to the next session.
func (a *Allocator) next(s *socket) {
	if err := hush(s.ln); err != nil {
		a.drop(s)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pool.lent[s] {
		a.pass(s)
	}
}

// retire takes a socket out of use for a while.
func (a *Allocator) retire(s *socket) {
	if err := hold(s.ln); err != nil {
		a.drop(s) // the port is free for anybody then, but no worse than that
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Retired++
	if !a.pool.lent[s] {
		return
	}
	delete(a.pool.lent, s)
	s.since = time.Now()
	a.pool.retired = append(a.pool.retired, s)
	a.pass(nil) // there may be one to take out of retirement now
	a.sweepLater()
}
