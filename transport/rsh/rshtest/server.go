//go:build unix

// Package rshtest is an rshd for tests: it speaks the server's half of the rcmd(3) protocol, really runs the command with a
// shell, and misbehaves on request. It runs in the process of the test or, as package fleet does, stands for many hosts.
//
//	client                                  Server
//	  │ connect from a port in 512..1023 ────► Serve accepts, one goroutine for each connection
//	  │ "1013\0"  stderr port, "0\0": none ──► 1. checks the client's port, reads the stderr port
//	  │ ◄──── connects back from a reserved ── 2. to that port: the stderr channel
//	  │ "ann\0ops\0uptime\0" ────────────────► 3. local user, remote user, command
//	  │ ◄──────────── "\0", or "\1why\n" ───── 4. the status byte
//	  │ ◄═══════════ input, output ══════════► 5. SHELL -c COMMAND in a session of its own; fd 0 and 1 are the connection
//	                                              itself, fd 2 the stderr channel (the connection, when there is none)
//
// A [Behaviour] says where a connection departs from that. Unless it meddles with the streams, the command has the sockets for
// itself, as under a real rshd: the server closes its own copies once the command runs, and the connection ends when the last
// process that holds it has ended, in a reset when input was left unread. A behaviour that meddles puts the server between the
// command and the connection:
//
//	client ◄══ main, stderr ══► Server: pieces, meddling ◄══ socketpairs ══► SHELL -c COMMAND
//
// Who closes: what the server still holds at the end it shuts down for writing and then waits, with a deadline, for the client's
// end of file, so that the client never loses what was sent. The protocol has the server close first, on both channels, so TIME_WAIT is
// its own, not the client's; docs/closing.md says why that is right, and what SharedPorts is for. [Server.Close] resets what is left, kills every process group
// that the server has started and returns when all of it is gone, goroutines and processes.
//
// No user is looked up and nobody is authenticated: commands run as the user that runs the server. Never let it listen where
// a stranger can connect.
//
// What [Server.Record] keeps of each connection (ports, users, command, how it ended) is for tests to check the client by.
package rshtest

import (
	"context"
	"log"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"multirsh/transport/testserver"
)

// Daemon is which rshd to be like, where they differ.
type Daemon uint8

const (
	// Redone is rsh-redone-server's in.rshd: at most 1,023 bytes of command, beyond it a bare reset; the command has the
	// stderr channel for itself, so signal bytes on it are never read.
	Redone Daemon = iota

	// Netkit is netkit's rsh-server's in.rshd: at most 131,071 bytes of command, beyond it an error of the shell; it relays
	// stderr, and until that has ended it sends the command's process group each signal whose number comes as a byte.
	Netkit
)

// Server is an rshd. The zero value is a good one, like rsh-redone's, with /bin/sh. Its fields must not change once it serves.
type Server struct {
	Daemon    Daemon
	Behaviour Behaviour                            // of every connection
	Behave    func(local netip.AddrPort) Behaviour // chooses by the address that the client connected to; nil: Behaviour

	Shell string   // login shell; empty: /bin/sh
	Dir   string   // where commands run; empty: the directory of this process
	Env   []string // environment of commands; nil: that of this process with SHELL and USER as rshd(8) sets them

	// AnyPort leaves out what needs privileges: clients may come from any port and have any stderr port, and the connection
	// back is made from any port.
	AnyPort bool

	// SharedPorts is for a server on its client's own machine, as on loopback, where a reserved port that the server keeps in
	// TIME_WAIT is one that the client lacks: the end of a stderr channel is then a FIN and, as soon as that is acknowledged, a
	// reset, after which neither end keeps anything. A real rshd keeps the port for a minute, unless the client helps it. Linux only.
	SharedPorts bool

	// Patience is how long a close waits for the client's end of file. Zero: 10 s.
	Patience time.Duration

	Record bool        // keep a transcript of each connection, for Sessions and Wait
	Log    *log.Logger // one line for each connection that does not go as rshd means it to; nil: silent

	once     sync.Once
	core     *testserver.Server
	sessions testserver.Watched[[]Session]
}

// Session is the transcript of one connection.
type Session struct {
	Client, Server netip.AddrPort
	Behaviour      Behaviour
	StderrPort     uint16     // as the client gave it; 0: no stderr channel
	Callbacks      []Callback // in the order they were made
	LocalUser      string     // on the client's host
	RemoteUser     string     // on this one
	Command        string
	Signals        []byte // that came on the stderr channel; Netkit only

	// Exit is the exit status of the command, 128 and the signal's number when one ended it, -1 when no command ran.
	Exit int

	// End is how the connection ended where the server saw that: io.EOF when the client closed it, an error that wraps
	// ECONNRESET when the client reset it. Nil for a command that had the connection for itself.
	End error
}

// Callback is one connection back to the client.
type Callback struct {
	From, To netip.AddrPort
	Err      error // of connecting
}

func (s *Server) init() {
	s.once.Do(func() { s.core = testserver.New(s.begin, s.Log) })
}

// Start listens at addr, as "127.0.0.1:0", and serves in the background until Close. It returns the address it listens at.
func (s *Server) Start(addr string) (netip.AddrPort, error) {
	s.init()
	return s.core.Start(addr)
}

// Serve serves the connections of l, which must be TCP, until Close, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	s.init()
	return s.core.Serve(l)
}

// ServeConn serves one connection that someone else has accepted, and returns when it is over. It closes c.
func (s *Server) ServeConn(c *net.TCPConn) {
	s.init()
	s.core.ServeConn(c)
}

func (s *Server) begin(c *net.TCPConn) func() {
	if !s.core.Enter(c) {
		return nil
	}
	return func() { s.serve(c) }
}

// Close stops listening, resets every connection that the server holds, kills every process group that it has started and
// waits until its goroutines and processes are gone. The error names process groups that would not go.
func (s *Server) Close() error {
	s.init()
	return s.core.Close()
}

// Sessions returns the transcripts of the connections that are over, in the order in which they ended. Nil without Record.
func (s *Server) Sessions() []Session { return slices.Clone(s.sessions.Value()) }

// Wait returns the transcripts once n connections are over, or what there is and the cause when ctx ends first.
func (s *Server) Wait(ctx context.Context, n int) ([]Session, error) {
	all, err := s.sessions.Until(ctx, func(all []Session) bool { return len(all) >= n })
	return slices.Clone(all), err
}

func (s *Server) record(x *Session) {
	if s.Record {
		s.sessions.Change(func(all *[]Session) { *all = append(*all, *x) })
	}
}

func (s *Server) behaviour(local netip.AddrPort) Behaviour {
	if s.Behave != nil {
		return s.Behave(local)
	}
	return s.Behaviour
}
