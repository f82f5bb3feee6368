//go:build unix

// Package fleet simulates many rsh or SSH hosts on one machine, for tests, demonstrations and benchmarks. All of 127.0.0.0/8 is the
// machine itself, so each host has an address of its own there and nothing has to be set up:
//
//	host 1 = 127.1.0.1 = sim00001, host 2 = 127.1.0.2 … host i = 127.1.0.0 + i
//
//	client ── connect ──► 127.1.0.7:514 ─┐
//	client ── connect ──► 127.1.0.8:514 ─┼─► one listener on 0.0.0.0:514, bound to the loopback device
//	client ── connect ──► 127.2.3.4:514 ─┘     │ the address connected to tells the host, the host its behaviour
//	                                           ├─► rshtest.Server: really runs the command          (the rule)
//	       ◄── stderr channel, from the        └─► the fast path: answers by itself, without a shell (Fast, well-behaved hosts)
//	           host's own address
//
// Hosts cost nothing, connections do: a fleet of 100,000 hosts takes no more memory than one of ten. A connection that is really
// served costs a goroutine and the processes of its command; one of SSH six goroutines, about 90 KiB of memory (half of it live, the
// other half the collector's) and 0.8 ms of CPU.
//
// SSH hosts are those of a fleet with the field SSH, on a port of their own; rsh and SSH hosts at the same addresses are two fleets.
// They are served by sshtest.Server in the same way, all with one host key; under Fast too, which then has no process run for any.
//
// Fast is for benchmarks only. It understands the preamble of package shwrap and answers with leader, a configured output and
// trailers as a host would whose command takes no time; to a bare command it sends just the output. No command is run, so
// nothing that is shown with it says anything about the correctness of a client.
//
// Fleets need Linux: elsewhere 127.0.0.0/8 is one address, and a listener cannot be kept to the loopback device.
//
// A host closes first, on both channels, as an rshd does, so the client has no TIME_WAIT; what the host keeps is on its own port. Of the stderr
// channels, which take reserved ports that here are the client's too, nothing is kept at all.
//
// [Fleet.Close] ends it all: the listener, the connections, the processes, and returns when they are gone.
package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"multirsh/transport/rsh/rshtest"
	"multirsh/transport/ssh/sshtest"
)

// MaxHosts is how many hosts 127.0.0.0/8 has room for, the first at 127.1.0.1 and the last at 127.255.255.254.
const MaxHosts = 255<<16 - 2

// keepMax bounds what of a connection under Fast is kept because it is not yet whole: the longest preamble is half of it.
const keepMax = 1 << 20

const base = 127<<24 | 1<<16 // 127.1.0.0

// Addr is the address of host i, which is 1 to MaxHosts.
func Addr(i int) netip.Addr {
	n := uint32(base + i)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// Number is the host at an address: the inverse of Addr. It is 0 for an address that is no host's.
func Number(a netip.Addr) int {
	a = a.Unmap()
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	n := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if n <= base || n > base+MaxHosts {
		return 0
	}
	return n - base
}

// Name is the name of host i, as sim00001.
func Name(i int) string { return fmt.Sprintf("sim%05d", i) }

// WriteHosts writes a hosts file of the first n hosts for multi-rsh: a numeric address a line, and the port unless that is rsh's
// own, 514, or 0, which leaves it to the transport.
func WriteHosts(w io.Writer, n int, port uint16) error {
	b := bufio.NewWriter(w)
	setting := "\n"
	if port != 514 && port != 0 {
		setting = " port=" + strconv.Itoa(int(port)) + "\n"
	}
	for i := 1; i <= n; i++ {
		b.WriteString(Addr(i).String())
		b.WriteString(setting)
	}
	return b.Flush()
}

// Fleet is a number of simulated hosts. Hosts must be set; its fields must not change once it has started.
type Fleet struct {
	Hosts  int
	Port   uint16                    // of all hosts; 0: the kernel chooses one
	Seed   uint64                    // changes which hosts have which behaviour
	Shares Shares[rshtest.Behaviour] // the hosts' behaviours; the zero value: all are good

	// Server is how the hosts serve: the daemon, the shell, whether ports must be reserved, the log. Its Behaviour and Behave
	// are set by the fleet, and SharedPorts, since its hosts have the client's reserved ports.
	Server rshtest.Server

	// SSH makes the hosts SSH hosts, and is how they serve: keys, users, the shell, the log. Its Behaviour and Behave, and under
	// Fast its Answer, are set by the fleet. Shares and Server then mean nothing. Nil: rsh hosts.
	SSH       *sshtest.Server
	SSHShares Shares[sshtest.Behaviour]

	// Fast answers for well-behaved rsh hosts, and for all SSH hosts, without running the command; all others are served as ever.
	Fast   bool
	Output []byte        // of each command under Fast, on standard output
	Hold   time.Duration // how long a wrapped command seems to run under Fast

	listener net.Listener // nil under Fast
	engine   *engine      // nil without Fast
	wg       sync.WaitGroup
	closed   atomic.Bool

	connections, refused, now, most atomic.Int64
}

// Account is what a fleet has seen.
type Account struct {
	Connections int // all of them
	Refused     int // of those: from a port that is not reserved, or to an address that is no host's
	Now         int // being served
	Most        int // being served at once at most
}

// Account tells what the fleet has seen so far.
func (f *Fleet) Account() Account {
	return Account{int(f.connections.Load()), int(f.refused.Load()), int(f.now.Load()), int(f.most.Load())}
}

// Start listens and serves in the background until Close. It returns the hosts' port.
func (f *Fleet) Start() (uint16, error) {
	if f.Hosts < 1 || f.Hosts > MaxHosts {
		return 0, fmt.Errorf("a fleet has 1 to %d hosts, not %d", MaxHosts, f.Hosts)
	}
	f.Server.Behave = func(local netip.AddrPort) rshtest.Behaviour { return f.Shares.Of(Number(local.Addr()), f.Seed) }
	f.Server.SharedPorts = true
	if f.SSH != nil {
		f.SSH.Behave = func(local netip.AddrPort) sshtest.Behaviour { return f.SSHShares.Of(Number(local.Addr()), f.Seed) }
		if f.Fast {
			f.SSH.Answer = f.answer
		}
	}
	return f.start()
}

// Close stops listening, resets all connections, kills what hosts are running, and returns when all of it is gone.
// It may be called again.
func (f *Fleet) Close() error {
	if f.closed.Swap(true) {
		f.wg.Wait()
		return nil
	}
	if f.listener != nil {
		f.listener.Close()
	}
	if f.engine != nil {
		f.engine.stop()
	}
	err := f.Server.Close()
	if f.SSH != nil {
		err = errors.Join(err, f.SSH.Close())
	}
	f.wg.Wait()
	return err
}

// admit counts a connection and says whether it is to be served; leave must then be called.
func (f *Fleet) admit(host int, clientPort uint16) bool {
	f.connections.Add(1)
	if host < 1 || host > f.Hosts || f.SSH == nil && !f.Server.AnyPort && !reserved(clientPort) {
		f.refused.Add(1)
		return false
	}
	now := f.now.Add(1)
	for {
		most := f.most.Load()
		if now <= most || f.most.CompareAndSwap(most, now) {
			return true
		}
	}
}

// serve serves a connection that was admitted.
func (f *Fleet) serve(c *net.TCPConn) {
	defer f.leave()
	if f.SSH != nil {
		f.SSH.ServeConn(c)
	} else {
		f.Server.ServeConn(c)
	}
}

func (f *Fleet) leave() { f.now.Add(-1) }

// The ports of rcmd(3).
const (
	firstReserved = 512
	lastReserved  = 1023
)

// reserved is rshd(8)'s check of a source port.
func reserved(port uint16) bool { return firstReserved <= port && port <= lastReserved }
