package resvport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"multirsh/transport"
)

// Conn is a connection from a reserved port. Closing it gives the port back for its destination; closing the TCPConn inside does not.
//
// SO_LINGER{1,0} is set: a close, or the death of the process, resets the connection and leaves nothing behind. Who has read
// to the end of file and wants the plain close calls SetLinger(-1) first.
type Conn struct {
	*net.TCPConn
	a      *Allocator
	d      *dest
	port   int // index
	closed atomic.Bool
}

// Close closes the connection and then gives its port back. Calls after the first return [net.ErrClosed].
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	err := c.TCPConn.Close()
	c.a.giveBack(c.d, c.port)
	return err
}

// Dial connects to dst from a reserved port. Of the ports that are free for dst it takes the one least recently used for it;
// while there is none it waits until ctx ends, and the error then wraps [transport.ErrNoPorts] and the context's cause.
// An error of connect(2) comes back as package net has it (ask with errors.Is for syscall.ECONNREFUSED and so on). A ctx that ends
// after Dial has returned does not matter to the connection. The trace of ctx is told of each port that is tried (transport.PhasePort).
func (a *Allocator) Dial(ctx context.Context, dst netip.AddrPort) (*Conn, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	addr := dst.Addr().Unmap()
	if !addr.IsValid() || dst.Port() == 0 {
		return nil, fmt.Errorf("dial %v: not an address to connect to", dst)
	}
	dst = netip.AddrPortFrom(addr, dst.Port())
	trace := transport.TraceOf(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}

	a.mu.Lock()
	if a.done {
		a.mu.Unlock()
		return nil, errClosed
	}
	d := a.book.pin(dst)
	a.mu.Unlock()
	for asked := false; ; {
		i, err := a.take(ctx, d)
		if err != nil {
			a.unpin(d)
			return nil, err
		}
		from := netip.AddrPortFrom(unspecified(addr), a.book.ports[i])
		if trace != nil {
			trace.Pass(transport.PhasePort, strconv.Itoa(int(from.Port())))
		}
		c, err := a.dialer.DialTCP(timeless{ctx}, network(addr), from, dst)
		var sys *os.SyscallError
		errors.As(err, &sys)
		switch {
		case err == nil:
			a.mu.Lock()
			a.stats.Dialled++
			a.mu.Unlock()
			return &Conn{TCPConn: c, a: a, d: d, port: i}, nil

		case errors.Is(err, syscall.EADDRINUSE):
			a.passOver(d, i, true)

		case errors.Is(err, syscall.EADDRNOTAVAIL):
			// The pair is taken, or this machine has no address from which dst can be reached at all.
			if !asked && noSource(dst) {
				a.giveBack(d, i)
				return nil, err
			}
			asked = true
			a.passOver(d, i, false)

		case sys != nil && sys.Syscall == "bind" && isDenied(err):
			a.giveBack(d, i)
			return nil, deniedError(from.Port(), err)

		default:
			a.giveBack(d, i)
			return nil, err
		}
	}
}

// take waits for a port to try.
func (a *Allocator) take(ctx context.Context, d *dest) (int, error) {
	if ctx.Err() != nil {
		return 0, noPorts(ctx, "%v: no time left to try another", d.to)
	}
	a.mu.Lock()
	i, ok := a.book.take(d, time.Now())
	if ok {
		more := a.turn.more(a.book.reached)
		a.mu.Unlock()
		if more > 0 {
			a.turn.reserve(more)
		}
		return i, nil
	}
	a.stats.DialWaits++
	w := make(chan int, 1)
	d.waiters = append(d.waiters, w)
	a.mu.Unlock()

	// A Close hands its port over. What other processes give back, and listeners of ours, nobody tells us.
	timer := time.NewTimer(poll())
	defer timer.Stop()
	for {
		ended := false
		select {
		case i := <-w:
			return i, nil
		case <-timer.C:
			timer.Reset(poll())
		case <-ctx.Done():
			ended = true
		}
		a.mu.Lock()
		i, ok := 0, false
		select {
		case i = <-w: // handed over just now
			if ok = !ended; ended {
				a.book.giveBack(d, i, time.Now())
			}
		default:
			if !ended {
				i, ok = a.book.take(d, time.Now())
			}
			if ok || ended {
				d.waiters = remove(d.waiters, w)
			}
		}
		a.mu.Unlock()
		switch {
		case ok:
			return i, nil
		case ended:
			return 0, noPorts(ctx, "%v: all %d are in use for it (fewer sessions at once, or more time to connect, would do)", d.to, len(a.book.ports))
		}
	}
}

func (a *Allocator) unpin(d *dest) {
	a.mu.Lock()
	a.book.unpin(d, time.Now())
	a.mu.Unlock()
}

// giveBack ends the use of a pair.
func (a *Allocator) giveBack(d *dest, i int) {
	now := time.Now()
	a.mu.Lock()
	a.book.giveBack(d, i, now)
	a.book.unpin(d, now)
	a.mu.Unlock()
}

// passOver takes back a pair that the kernel refused.
func (a *Allocator) passOver(d *dest, i int, atBind bool) {
	now := time.Now()
	a.mu.Lock()
	if atBind {
		a.stats.BindBusy++
		a.book.block(d, i, now.Add(restAfterBind))
		a.book.putBy(d, i, time.Time{})
	} else {
		a.stats.PairBusy++
		a.book.putBy(d, i, now.Add(restAfterConnect))
	}
	a.mu.Unlock()
}

// noSource reports whether connect(2) fails with EADDRNOTAVAIL whatever the local port is, as with IPv6 switched off.
// Connecting a UDP socket sends nothing.
func noSource(dst netip.AddrPort) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.EADDRNOTAVAIL)
}
