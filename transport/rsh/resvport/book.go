package resvport

import (
	"net/netip"
	"slices"
	"time"
)

// How long a port that failed is left in peace before the kernel is asked again. Each is far below a connect deadline, and long
// enough that asking costs nothing: at most 505 binds a second for the whole process, and for each destination 2,000 connects.
const (
	restAfterBind    = time.Second            // another program has the port
	restAfterConnect = 250 * time.Millisecond // another process has the pair, or it is in TIME-WAIT
)

// What is remembered of a destination that nobody is connected to: enough to come back to it on another port for as long as
// any TIME-WAIT may last at either end (RFC 9293: twice the MSL of 2 minutes), and no more of them than fit into a few megabytes.
// To forget too early does no harm where TCP timestamps are on; elsewhere connect finds out, and the next port is taken.
const (
	rememberFor = 4 * time.Minute
	remember    = 1 << 15
)

// book is who uses which port for what: no sockets, no clock and no lock of its own. Ports are called by their index in ports.
type book struct {
	ports  []uint16
	start  int // index where the rotation of this process begins
	seats  []seat
	dests  map[netip.AddrPort]*dest
	idle   dest // ring of the destinations nobody refers to, longest idle first
	idling int
	begun  int // destinations so far: each begins one further in the window

	reached int // how far from start the rotation has come
	inUse   int // ports with a user
	used    int // ports that have had one
	peak    int
	open    int // pairs out
}

// seat is one port.
type seat struct {
	users     int          // connections and listeners
	used      bool         // there has been one
	listeners int          // while there is one, bind refuses everybody else
	blocked   [2]time.Time // until when not to try, for IPv4 and IPv6
}

// dest is one destination. A port is in exactly one place: not yet had (the rotation from fresh on), in rest, or out.
type dest struct {
	to      netip.AddrPort
	refs    int // connections out and dials under way
	offset  int // where in the window it began
	fresh   int // ports of the rotation that it has had or passed over
	uses    int // pairs handed out
	rest    []rested
	waiters []chan int // dials with nothing to try, first come first served

	prev, next *dest // in the ring of the idle
	since      time.Time
}

// rested is a port that a destination can have again. They queue: the least recently used is first.
type rested struct {
	port  int
	until time.Time // not before
}

func (b *book) init(ports []uint16, start int) {
	b.ports, b.start = ports, start
	b.seats = make([]seat, len(ports))
	b.dests = make(map[netip.AddrPort]*dest)
	b.idle.prev, b.idle.next = &b.idle, &b.idle
}

// pin returns the destination's entry and keeps it until unpin.
func (b *book) pin(to netip.AddrPort) *dest {
	d := b.dests[to]
	if d == nil {
		d = &dest{to: to, offset: b.begun % b.window()}
		b.begun++
		b.dests[to] = d
	} else if d.refs == 0 {
		b.unlink(d)
	}
	d.refs++
	return d
}

func (b *book) unpin(d *dest, now time.Time) {
	if d.refs--; d.refs > 0 {
		return
	}
	d.since = now
	d.prev, d.next = b.idle.prev, &b.idle
	d.prev.next, d.next.prev = d, d
	b.idling++
	for old := b.idle.next; b.idling > remember || b.idling > 0 && now.Sub(old.since) >= rememberFor; old = b.idle.next {
		b.unlink(old)
		delete(b.dests, old.to)
	}
}

func (b *book) unlink(d *dest) {
	d.prev.next, d.next.prev = d.next, d.prev
	d.prev, d.next = nil, nil
	b.idling--
}

func (b *book) window() int { return min(window, len(b.ports)) }

// at is the k-th port in the rotation of d: first the window, from d's own offset on, then the rest of the range. Destinations are spread over
// the window so that one that was forgotten and comes back has probably another port.
func (b *book) at(d *dest, k int) int {
	if w := b.window(); k < w {
		k = (d.offset + k) % w
	}
	return (b.start + k) % len(b.ports)
}

// take hands out the port that d used least recently, or never. It reports false if there is none to try now.
func (b *book) take(d *dest, now time.Time) (port int, ok bool) {
	for d.fresh < len(b.ports) {
		i := b.at(d, d.fresh)
		d.fresh++
		if b.ports[i] == d.to.Port() {
			continue // to a local address this would be a connection of the socket with itself (RFC 9293, simultaneous open)
		}
		if b.usable(i, d, now) {
			b.out(d, i)
			return i, true
		}
		d.rest = append(d.rest, rested{port: i})
	}
	for k, r := range d.rest {
		if !r.until.After(now) && b.usable(r.port, d, now) {
			if k == 0 {
				d.rest = d.rest[1:] // the usual case; append makes room again
			} else {
				d.rest = slices.Delete(d.rest, k, k+1)
			}
			b.out(d, r.port)
			return r.port, true
		}
	}
	return 0, false
}

func (b *book) usable(i int, d *dest, now time.Time) bool {
	s := &b.seats[i]
	return s.listeners == 0 && !s.blocked[family(d.to.Addr())].After(now)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (b *book) out(d *dest, i int) {
	d.uses++
	b.reached = max(b.reached, d.uses, (i-b.start+len(b.ports))%len(b.ports)+1)
	b.open++
	b.use(i)
}

// use and leave count the users of a port.
func (b *book) use(i int) {
	s := &b.seats[i]
	if s.users++; s.users == 1 {
		b.inUse++
		b.peak = max(b.peak, b.inUse)
		if !s.used {
			s.used = true
			b.used++
		}
	}
}

func (b *book) leave(i int) {
	s := &b.seats[i]
	if s.users--; s.users == 0 {
		b.inUse--
	}
}

// giveBack takes a port back from d, for the first who waits or for later.
func (b *book) giveBack(d *dest, i int, now time.Time) {
	if len(d.waiters) > 0 && b.usable(i, d, now) {
		d.uses++
		b.reached = max(b.reached, d.uses)
		d.waiters[0] <- i // has room for one
		d.waiters = slices.Delete(d.waiters, 0, 1)
		return
	}
	b.putBy(d, i, time.Time{})
}

// putBy takes a port back that is not to be tried before until.
func (b *book) putBy(d *dest, i int, until time.Time) {
	d.rest = append(d.rest, rested{i, until})
	b.open--
	b.leave(i)
}

// block keeps everybody of d's address family from trying port i until then.
func (b *book) block(d *dest, i int, until time.Time) {
	b.seats[i].blocked[family(d.to.Addr())] = until
}
