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
// end of file, so that the client never loses what was sent. [Server.Close] resets what is left, kills every process group
// that the server has started and returns when all of it is gone, goroutines and processes.
//
// No user is looked up and nobody is authenticated: commands run as the user that runs the server. Never let it listen where
// a stranger can connect.
//
// What [Server.Record] keeps of each connection (ports, users, command, how it ended) is for tests to check the client by.
package rshtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
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

	// Patience is how long a close waits for the client's end of file. Zero: 10 s.
	Patience time.Duration

	Record bool        // keep a transcript of each connection, for Sessions and Wait
	Log    *log.Logger // one line for each connection that does not go as rshd means it to; nil: silent

	once   sync.Once
	ctx    context.Context // done: the server is closed
	cancel context.CancelFunc

	mu        sync.Mutex
	wg        sync.WaitGroup // of ServeConn; Add under mu and not after closed
	closed    bool
	listeners map[net.Listener]struct{}
	held      map[io.Closer]struct{} // connections and pipes that are the server's
	groups    map[*group]struct{}    // process groups that may have members
	sessions  []Session
	recorded  chan struct{} // closed and replaced when sessions grows
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
	s.once.Do(func() {
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.listeners = make(map[net.Listener]struct{})
		s.held = make(map[io.Closer]struct{})
		s.groups = make(map[*group]struct{})
		s.recorded = make(chan struct{})
	})
}

// Start listens at addr, as "127.0.0.1:0", and serves in the background until Close. It returns the address it listens at.
func (s *Server) Start(addr string) (netip.AddrPort, error) {
	s.init()
	l, err := net.Listen("tcp", addr) // package net sets SO_REUSEADDR
	if err != nil {
		return netip.AddrPort{}, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		l.Close()
		return netip.AddrPort{}, net.ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		if err := s.Serve(l); err != nil {
			s.logf("serve: %v", err)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// Serve serves the connections of l, which must be TCP, until Close, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	s.init()
	defer l.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return nil
			}
			// Out of descriptors, or a client that left before it was accepted: a good server lasts.
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
				s.logf("accept: %v", err)
				s.pause(10 * time.Millisecond)
				continue
			}
			return err
		}
		t, ok := c.(*net.TCPConn)
		if !ok {
			c.Close()
			return fmt.Errorf("%s is not TCP", l.Addr())
		}
		if !s.enter(t) {
			return nil
		}
		go s.serve(t)
	}
}

// ServeConn serves one connection that someone else has accepted, and returns when it is over. It closes c.
func (s *Server) ServeConn(c *net.TCPConn) {
	s.init()
	if s.enter(c) {
		s.serve(c)
	}
}

// enter counts a connection in; when the server is closed it resets c and returns false.
func (s *Server) enter(c *net.TCPConn) bool {
	if !s.own(c) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false // and Close has reset c, which it owned
	}
	s.wg.Add(1)
	return true
}

// own has Close close c, and reset it when it is TCP; when the server is closed it does so itself and returns false.
func (s *Server) own(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		abort(c)
		return false
	}
	s.held[c] = struct{}{}
	return true
}

func (s *Server) disown(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, c)
}

// Close stops listening, resets every connection that the server holds, kills every process group that it has started and
// waits until its goroutines and processes are gone. The error names process groups that would not go.
func (s *Server) Close() error {
	s.init()
	s.cancel()
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.held {
		abort(c)
	}
	for g := range s.groups {
		g.kill(killSignal)
	}
	s.mu.Unlock()
	s.wg.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	// What is left are children of commands that have ended. They are nobody's to wait for but init's.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		living := livingGroups(s.groups)
		for g := range s.groups {
			if !living[g.id] {
				g.release()
				delete(s.groups, g)
			}
		}
		if len(s.groups) == 0 || time.Now().After(end) {
			break
		}
	}
	var errs []error
	for g := range s.groups {
		errs = append(errs, fmt.Errorf("process group %d was killed and is still there", g.id))
	}
	return errors.Join(errs...)
}

// enterGroup has Close kill g.
func (s *Server) enterGroup(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[g] = struct{}{}
	if s.closed {
		g.kill(killSignal)
	}
}

// leaveGroup forgets g and all others that have no member left. What a command has left behind stays, for Close.
func (s *Server) leaveGroup(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.ended = true
	for g := range s.groups {
		if g.ended && g.gone() {
			g.release()
			delete(s.groups, g)
		}
	}
}

// Sessions returns the transcripts of the connections that are over, in the order in which they ended. Nil without Record.
func (s *Server) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sessions)
}

// Wait returns the transcripts once n connections are over, or what there is and the cause when ctx ends first.
func (s *Server) Wait(ctx context.Context, n int) ([]Session, error) {
	s.init()
	for {
		s.mu.Lock()
		have, more := slices.Clone(s.sessions), s.recorded
		s.mu.Unlock()
		if len(have) >= n {
			return have, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return have, context.Cause(ctx)
		}
	}
}

func (s *Server) record(x *Session) {
	if !s.Record {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions = append(s.sessions, *x)
	close(s.recorded)
	s.recorded = make(chan struct{})
}

func (s *Server) logf(format string, args ...any) {
	if s.Log != nil {
		s.Log.Printf(format, args...)
	}
}

func (s *Server) patience() time.Duration {
	if s.Patience > 0 {
		return s.Patience
	}
	return 10 * time.Second
}

func (s *Server) behaviour(local netip.AddrPort) Behaviour {
	if s.Behave != nil {
		return s.Behave(local)
	}
	return s.Behaviour
}

// pause sleeps for d and reports whether it did so to the end, the server not being closed.
func (s *Server) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}
