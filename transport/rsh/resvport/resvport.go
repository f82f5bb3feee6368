package resvport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"multirsh/transport"
	"multirsh/transport/rsh/sockdiag"
)

// The range that rcmd(3) takes ports from and rshd(8) accepts.
const (
	First = 512
	Last  = 1023
)

// window is how many ports a run uses while no destination comes back to it (a port serves any number of destinations).
const window = 16

// Allocator says who may use which reserved port now. The zero value is ready to use; the fields must not change after the first
// call. It is safe for use by many goroutines, and one is meant to serve the whole process.
type Allocator struct {
	Low, High uint16        // the range, both included; 0: First and Last
	State     string        // file that carries the rotation from process to process, see StatePath; empty: a random start
	Timeout   time.Duration // for data that is not acknowledged and peers that have vanished (TCP_USER_TIMEOUT, keepalive); 0: 30 s

	once   sync.Once
	err    error // why no port can be had at all
	dialer net.Dialer
	listen net.ListenConfig

	mu    sync.Mutex // never held during a system call
	book  book
	pool  pool
	turn  rotation
	stats Stats
	done  bool

	sweeps sync.WaitGroup // that Close waits for: what they close is in the pool no more
}

// Stats is what an Allocator has done so far. A connection accepted by a Listener is its caller's and not counted.
type Stats struct {
	Ports      int // reserved ports that can be used at all
	InUse      int // those that have a connection or a listener of ours now
	Peak       int // the most that there were
	Used       int // those that have had one at any time
	Open       int // connections now
	Dialled    int // connections made
	BindBusy   int // ports passed over at bind: another program has them (EADDRINUSE)
	PairBusy   int // ports passed over at connect: the kernel still knows the pair (EADDRNOTAVAIL)
	DialWaits  int // dials that had to wait because no port was free for their destination
	Leases     int // listeners lent
	LeaseWaits int // leases that had to wait for a listener
	Listeners  int // listening sockets now, lent or kept for the next session
	Retired    int // leases that ended without their connection
	Strangers  int // connections to a listener that came from no reserved port, and were reset
}

// Stats returns a snapshot.
func (a *Allocator) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stats
	s.Ports = len(a.book.ports)
	s.InUse, s.Peak, s.Used, s.Open = a.book.inUse, a.book.peak, a.book.used, a.book.open
	s.Listeners = a.pool.total - len(a.pool.retired)
	return s
}

// Check says whether reserved ports can be had at all, so that a run may end before it begins. The error wraps
// [transport.ErrPorts] where this process is not permitted to use them. Dial and Lease return the same error.
func (a *Allocator) Check() error {
	a.once.Do(func() { a.err = a.setUp() })
	return a.err
}

func (a *Allocator) setUp() error {
	low, high := cmp.Or(a.Low, First), cmp.Or(a.High, Last)
	if low > high {
		return fmt.Errorf("the range of reserved ports is empty: it begins at %d and ends at %d", low, high)
	}
	low, err := permitted(low, high)
	if err != nil {
		return err
	}
	spared := leaveAlone(low, high)
	var ports []uint16
	for p := int(low); p <= int(high); p++ {
		if !spared[uint16(p)] {
			ports = append(ports, uint16(p))
		}
	}
	if len(ports) == 0 {
		return fmt.Errorf("%w: each of %d to %d is listened on, or named in %s or net.ipv4.ip_local_reserved_ports",
			transport.ErrNoPorts, low, high, blacklistFile)
	}
	a.turn.file = a.State
	start := a.turn.begin(window)
	a.mu.Lock() // Stats may be asked at any time
	a.book.init(ports, int(start%uint32(len(ports))))
	a.pool.init(len(ports))
	a.mu.Unlock()

	options := socketOptions(cmp.Or(a.Timeout, 30*time.Second))
	control := func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = options(int(fd)) }); e != nil {
			return e
		}
		return err
	}
	// Negative KeepAlive: the options have it already, and Go would spend four system calls on saying so again.
	a.dialer = net.Dialer{Control: control, KeepAlive: -1}
	a.listen = net.ListenConfig{Control: control, KeepAlive: -1}
	a.listen.SetMultipathTCP(false) // Go's default for listeners; rshd speaks plain TCP
	return nil
}

// permitted returns the lowest port from which on this process may bind.
func permitted(low, high uint16) (uint16, error) {
	err := tryBind(low)
	if !isDenied(err) {
		return low, err // with an error that is about something else, if any
	}
	// net.ipv4.ip_unprivileged_port_start may open the upper part of the range to everybody.
	if from, ok := unprivilegedStart(); ok && low < from && from <= high {
		if err := tryBind(from); !isDenied(err) {
			return from, err // likewise
		}
	}
	return 0, deniedError(low, err)
}

func isDenied(err error) bool { return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) }

func deniedError(port uint16, err error) error {
	program := "$(command -v multi-rsh)"
	if path, err := os.Executable(); err == nil {
		program = shellWord(path)
	}
	return fmt.Errorf("%w: rshd accepts connections from ports 512 to 1023 alone, and for port %d the kernel wants CAP_NET_BIND_SERVICE (%w): "+
		"run as root, or once: sudo setcap cap_net_bind_service=+ep %s", transport.ErrPorts, port, err, program)
}

// Close closes the listeners, so that a lease still out fails, and notes in the state file where the rotation stands. Connections
// that Dial returned are their owners' to close. Dial and Lease fail from now on.
func (a *Allocator) Close() error {
	if a.Check() != nil {
		return nil
	}
	a.mu.Lock()
	a.done = true
	sockets := a.closePool()
	reached := a.book.reached
	a.mu.Unlock()
	for _, s := range sockets {
		s.ln.Close()
	}
	a.sweeps.Wait()
	a.turn.end(uint32(reached))
	return nil
}

// Socket is one line of the kernel's table of TCP sockets.
type Socket = sockdiag.Socket

// Table returns the TCP sockets of this network namespace whose local port is in the range that rcmd(3) uses, in any state,
// whoever made them. It is for showing and for tests; [errors.ErrUnsupported] elsewhere than on Linux.
func Table() ([]Socket, error) {
	return sockdiag.Table(sockdiag.Filter{MinPort: First, MaxPort: Last})
}

// poll is how long to wait before asking the kernel again, spread so that waiting sessions and processes do not ask at once.
func poll() time.Duration { return 100*time.Millisecond + rand.N(100*time.Millisecond) }

// timeless hides the deadline of a context from package net, which would set a timer of the poller's for it, twice for each
// connection (a seventh of a dial's CPU); that the context ends with the deadline is enough.
type timeless struct{ context.Context }

func (timeless) Deadline() (time.Time, bool) { return time.Time{}, false }

// isReserved says whether a peer's port proves that the peer is privileged there, as rcmd(3) checks it.
func isReserved(port uint16) bool { return First <= port && port <= Last }

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func network(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp6"
}

func noPorts(ctx context.Context, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", transport.ErrNoPorts, fmt.Sprintf(format, args...), context.Cause(ctx))
}

var errClosed = fmt.Errorf("the allocator of reserved ports is closed: %w", net.ErrClosed)

// remove takes e out of s, which has it at most once.
func remove[S ~[]E, E comparable](s S, e E) S {
	if i := slices.Index(s, e); i >= 0 {
		s = slices.Delete(s, i, i+1)
	}
	return s
}
