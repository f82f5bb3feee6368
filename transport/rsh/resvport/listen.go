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
)

const (
	// freely is how many listeners are opened without hesitation. Beyond it sessions wait for one to come free, and the pool doubles every
	// growAfter while half of the leases last longer than that: near hosts never make it larger, far ones soon do.
	freely    = window
	growAfter = 20 * time.Millisecond

	idleFor   = time.Second      // a listener without a lease keeps its port from others no longer
	retireFor = 60 * time.Second // after a lease that ended without its connection
)

// pool is the listeners. A socket is lent, or idle, or retired; only while lent does it listen.
//
//	         ┌── Accept: the connection came ──► hush ──► idle ──1 s──► close
//	open ──► lent ─ Return: it is here or cannot come ┘└─► or to the next who waits
//	         └── Release, or ctx ended ────────► hold ──► retired ──60 s──► close
type pool struct {
	limit   int // sockets, the retired ones included: half of the range, so that the other half is there for dials
	total   int
	lent    map[*socket]bool
	idle    []*socket // last in, first out
	retired []*socket // longest retired first
	waiters []*waiter
	sweeper *time.Timer // nil while there is nothing to sweep
	grower  *time.Timer // nil while nobody waits, or the limit is reached
}

type socket struct {
	ln    *net.TCPListener // nil while it is being opened
	local netip.Addr
	port  int       // index
	since time.Time // lent, idle or retired
}

// grant is what a lease gets: a socket, or a place to open one, for which another must be closed first if old is not nil. The zero grant
// means that something has changed: look again.
type grant struct {
	s, old *socket
	place  bool // counted in total already
}

type waiter struct {
	local netip.Addr
	ch    chan grant // has room for one
}

func (p *pool) init(ports int) {
	p.limit = max(1, ports/2)
	p.lent = make(map[*socket]bool)
}

// Listener is a listening reserved port, for one session, until Accept has returned a connection, or Return or Release was called.
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
// Take it after the connection to the host, whose LocalAddr says local, and end it with Accept, Return or Release. If there is no
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
	for again := false; ; again = true {
		g, err := a.grant(ctx, local, again)
		if err != nil {
			return nil, err
		}
		if g.old != nil {
			g.old.ln.Close()
		}
		s := g.s
		switch {
		case s != nil:
			if err := speak(s.ln); err != nil { // somebody took the port in the meantime
				a.drop(s)
				continue
			}
		case g.place:
			if s, err = a.open(local); errors.Is(err, syscall.EADDRINUSE) {
				if err := rest(ctx); err != nil {
					return nil, noPorts(ctx, "others listen on each of %d", len(a.book.ports))
				}
				continue
			} else if err != nil {
				return nil, err
			}
		default:
			continue
		}
		a.count(&a.stats.Leases)
		return s, nil
	}
}

// rest waits a little.
func rest(ctx context.Context) error {
	timer := time.NewTimer(poll())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// grant waits for its turn; who looks again goes before the others.
func (a *Allocator) grant(ctx context.Context, local netip.Addr, again bool) (grant, error) {
	a.mu.Lock()
	if a.done {
		a.mu.Unlock()
		return grant{}, errClosed
	}
	g := a.pick(local)
	if g != (grant{}) {
		a.mu.Unlock()
		return g, nil
	}
	w := &waiter{local, make(chan grant, 1)}
	if again {
		a.pool.waiters = slices.Insert(a.pool.waiters, 0, w)
	} else {
		a.pool.waiters = append(a.pool.waiters, w)
		a.stats.LeaseWaits++
	}
	a.growLater()
	a.mu.Unlock()

	select {
	case g = <-w.ch:
		return g, nil
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case g = <-w.ch: // just now: it is the next one's
		if g.place {
			a.pool.total--
		}
		a.pass(g.s)
	default:
		a.pool.waiters = remove(a.pool.waiters, w)
	}
	return grant{}, noPorts(ctx, "all %d listeners are in use", a.pool.limit)
}

// pick decides what a lease gets without waiting, if anything. The caller holds the lock.
func (a *Allocator) pick(local netip.Addr) (g grant) {
	p := &a.pool
	for i := len(p.idle) - 1; i >= 0; i-- {
		if s := p.idle[i]; s.local == local {
			p.idle = slices.Delete(p.idle, i, i+1)
			a.lendOut(s)
			return grant{s: s}
		}
	}
	switch {
	case p.total < p.limit && p.total-len(p.retired) < freely:
		p.total++
		return grant{place: true}
	case len(p.idle) > 0: // of another address
		g.old = p.idle[0]
		p.idle = slices.Delete(p.idle, 0, 1)
	case p.total >= p.limit && len(p.retired) > p.limit/2:
		// Hosts that never connect back must not stop the others: half of the pool is what they can keep from them, so the one
		// that has been retired longest comes free before its time.
		g.old = p.retired[0]
		p.retired = slices.Delete(p.retired, 0, 1)
	default:
		return grant{}
	}
	a.book.leave(g.old.port)
	a.book.seats[g.old.port].listeners--
	g.place = true // the place of the old one
	return g
}

// lendOut notes that a lease begins. The caller holds the lock.
func (a *Allocator) lendOut(s *socket) {
	s.since = time.Now()
	a.pool.lent[s] = true
}

// pass gives a socket that was lent, or nil for a change, to the first who waits. The caller holds the lock.
func (a *Allocator) pass(s *socket) {
	p := &a.pool
	if s != nil && (len(p.waiters) == 0 || p.waiters[0].local != s.local) {
		delete(p.lent, s)
		s.since = time.Now()
		p.idle = append(p.idle, s)
		a.sweepLater()
		s = nil
	}
	if len(p.waiters) == 0 {
		return
	}
	if s != nil {
		a.lendOut(s)
	}
	p.waiters[0].ch <- grant{s: s}
	p.waiters = slices.Delete(p.waiters, 0, 1)
}

// growLater has grow run soon, as it does again and again while somebody waits. The caller holds the lock.
func (a *Allocator) growLater() {
	if p := &a.pool; p.grower == nil && p.total < p.limit && !a.done {
		p.grower = time.AfterFunc(growAfter, a.grow)
	}
}

// grow doubles the pool if it is slow hosts that others wait for.
func (a *Allocator) grow() {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &a.pool
	p.grower = nil
	slow := 0
	for s := range p.lent {
		if time.Since(s.since) >= growAfter {
			slow++
		}
	}
	if 2*slow >= len(p.lent) {
		for n := len(p.lent); n > 0 && p.total < p.limit && len(p.waiters) > 0; n-- {
			p.total++
			p.waiters[0].ch <- grant{place: true}
			p.waiters = slices.Delete(p.waiters, 0, 1)
		}
	}
	if len(p.waiters) > 0 {
		a.growLater()
	}
}

// open makes a listener on local. The place for it is taken already, and is given back if there is an error.
func (a *Allocator) open(local netip.Addr) (*socket, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tried := make(map[int]bool)
	for {
		i, ok := a.place(local, tried)
		if !ok {
			a.pool.total--
			a.pass(nil)
			return nil, syscall.EADDRINUSE
		}
		tried[i] = true
		s := &socket{local: local, port: i}
		a.lendOut(s)
		a.book.use(i)
		a.book.seats[i].listeners++

		a.mu.Unlock()
		address := net.JoinHostPort(local.String(), strconv.Itoa(int(a.book.ports[i])))
		ln, err := a.listen.Listen(context.Background(), network(local), address)
		a.mu.Lock()

		switch {
		case !a.pool.lent[s]: // Close was here
			if err == nil {
				ln.Close()
			}
			return nil, errClosed
		case err == nil:
			s.ln = ln.(*net.TCPListener)
			return s, nil
		}
		delete(a.pool.lent, s)
		a.book.leave(i)
		a.book.seats[i].listeners--
		if errors.Is(err, syscall.EADDRINUSE) {
			a.stats.BindBusy++
			continue
		}
		a.pool.total--
		a.pass(nil)
		if isDenied(err) {
			return nil, deniedError(a.book.ports[i], err)
		}
		return nil, err
	}
}

// place chooses the port for a new listener on local: from the far side of the range, so that several processes, whose
// windows follow one another, do not listen where the others dial, and rather one that carries no connections of ours.
// The caller holds the lock.
func (a *Allocator) place(local netip.Addr, tried map[int]bool) (port int, ok bool) {
	b, p := &a.book, &a.pool
	taken := make(map[int]bool)
	for _, s := range slices.Concat(p.idle, p.retired) {
		taken[s.port] = taken[s.port] || s.local == local
	}
	for s := range p.lent {
		taken[s.port] = taken[s.port] || s.local == local
	}
	for k := range b.ports {
		i := (b.start + len(b.ports)/2 + k) % len(b.ports)
		if taken[i] || tried[i] {
			continue
		}
		if b.seats[i].users == b.seats[i].listeners {
			return i, true
		}
		if !ok {
			port, ok = i, true
		}
	}
	return port, ok
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
	if a.done {
		a.mu.Unlock()
		return
	}
	a.sweeps.Add(1)
	defer a.sweeps.Done()
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
		w.ch <- grant{} // they look again and see that it is over
	}
	p.waiters = nil
	if p.grower != nil {
		p.grower.Stop()
		p.grower = nil
	}
	if p.sweeper != nil {
		p.sweeper.Stop()
		p.sweeper = nil
	}
	return slices.DeleteFunc(sockets, func(s *socket) bool { return s.ln == nil })
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

// Return ends the lease of a host that has answered or hung up, and the next session has the port at once. rshd(8) connects back
// before it says a word, so what it wanted to connect is here already: that connection, which the caller closes, or nil if there
// is none. After Accept has returned a connection it does nothing; it must not be called while Accept is waiting.
func (l *Listener) Return() (pending *net.TCPConn) {
	if l.end() {
		pending = take(l.s.ln)
		l.a.next(l.s)
	}
	return pending
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

// next hands a socket that can have no connection any more to the next session.
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
