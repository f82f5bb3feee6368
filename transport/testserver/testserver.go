//go:build unix

// Package testserver is what servers for tests have in common, whatever protocol they speak: rshtest and sshtest are built on it. A
// protocol's server says what is done with a connection and what it holds meanwhile; this package lets go of all of it.
//
//	protocol's server                         Server
//	  New(begin, log)
//	  Start, Serve ──────────────────────────► accepts; an accepted connection is begun, then served in a goroutine of its own
//	  Enter(c) ──────────────────────────────► counts the connection in; c is what Close resets
//	  Own(c) … Disown(c) ────────────────────► whatever else is to be closed: pipes, further connections
//	  Run(cmd) ─► Process: Signal, Wait ─────► process groups, for Close to kill what a command has left behind
//	  Leave(c) ──────────────────────────────► counts it out
//	  Close ─────────────────────────────────► listeners, connections, process groups; returns when all of it is gone
//
// A [Table] has the behaviours that can be asked of a server by name, and a [Watched] value is what a test waits for.
package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Server is the life of a server: what it holds, from listening to the end. Make one with New.
type Server struct {
	begin  func(*net.TCPConn) func()
	log    *log.Logger
	ctx    context.Context // done: the server is closed
	cancel context.CancelFunc

	mu        sync.Mutex
	wg        sync.WaitGroup // of connections and processes; Add under mu and not after closed
	closed    bool
	listeners map[net.Listener]struct{}
	held      map[io.Closer]struct{}
	processes map[*Process]struct{} // whose groups may have members
}

// New makes a server. Begin is called for each connection in the order in which they were accepted. It returns what serves the
// connection, after Enter and up to Leave, or nil when Enter has refused it. Log may be nil.
func New(begin func(*net.TCPConn) (serve func()), log *log.Logger) *Server {
	s := &Server{
		begin: begin, log: log,
		listeners: make(map[net.Listener]struct{}), held: make(map[io.Closer]struct{}), processes: make(map[*Process]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Context is done when the server is closed.
func (s *Server) Context() context.Context { return s.ctx }

// Start listens at addr, as "127.0.0.1:0", and serves in the background until Close. It returns the address it listens at.
func (s *Server) Start(addr string) (netip.AddrPort, error) {
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
			s.Logf("serve: %v", err)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// Serve serves the connections of l, which must be TCP, until Close, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
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
				s.Logf("accept: %v", err)
				s.Pause(10 * time.Millisecond)
				continue
			}
			return err
		}
		t, ok := c.(*net.TCPConn)
		if !ok {
			c.Close()
			return fmt.Errorf("%s is not TCP", l.Addr())
		}
		serve := s.begin(t)
		if serve == nil {
			return nil
		}
		go serve()
	}
}

// ServeConn serves one connection that someone else has accepted, and returns when it is over. It closes c.
func (s *Server) ServeConn(c *net.TCPConn) {
	if serve := s.begin(c); serve != nil {
		serve()
	}
}

// Enter counts a connection in and owns c, its way to the client, until Leave. When the server is closed it aborts c and returns
// false.
func (s *Server) Enter(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.own(c) {
		return false
	}
	s.wg.Add(1)
	return true
}

// Leave counts a connection out. Close may return now.
func (s *Server) Leave(c io.Closer) {
	s.Disown(c)
	s.wg.Done()
}

// Own has Close close c: abruptly, if c is TCP or has a method Abort. When the server is closed it does so itself and returns false.
func (s *Server) Own(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own(c)
}

func (s *Server) own(c io.Closer) bool {
	if s.closed {
		abort(c)
		return false
	}
	s.held[c] = struct{}{}
	return true
}

// Disown leaves c to the caller.
func (s *Server) Disown(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, c)
}

func abort(c io.Closer) {
	switch c := c.(type) {
	case interface{ Abort() }:
		c.Abort()
		return
	case *net.TCPConn:
		c.SetLinger(0)
	}
	c.Close()
}

// Go has Close wait for f too. It must be called within a connection's service.
func (s *Server) Go(f func()) { s.wg.Go(f) }

// Run starts cmd in a session of its own, whose process group Close then kills. The caller must Wait for it.
func (s *Server) Run(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setsid = true
	p := &Process{srv: s, cmd: cmd}
	p.watch(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.id = cmd.Process.Pid
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes[p] = struct{}{}
	if s.closed {
		p.kill(syscall.SIGKILL)
	}
	return p, nil
}

// Close stops listening, aborts what the server owns, kills every process group that it has started and waits until its goroutines
// and processes are gone. The error names process groups that would not go.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.held {
		abort(c)
	}
	clear(s.held)
	for p := range s.processes {
		p.kill(syscall.SIGKILL)
	}
	s.mu.Unlock()
	s.wg.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	// What is left are children of commands that have ended. They are nobody's to wait for but init's.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		living := livingGroups(s.processes)
		for p := range s.processes {
			if !living[p.id] {
				s.forget(p)
			}
		}
		if len(s.processes) == 0 || time.Now().After(end) {
			break
		}
	}
	var errs []error
	for p := range s.processes {
		errs = append(errs, fmt.Errorf("process group %d was killed and is still there", p.id))
	}
	return errors.Join(errs...)
}

// forget lets go of a group that has no member left. The caller holds mu.
func (s *Server) forget(p *Process) {
	p.release()
	delete(s.processes, p)
}

// Logf writes a line to the log, if there is one.
func (s *Server) Logf(format string, args ...any) {
	if s.log != nil {
		s.log.Printf(format, args...)
	}
}

// Pause sleeps for d and reports whether it did so to the end, the server not being closed.
func (s *Server) Pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// Drip writes p byte by byte, with a pause before each.
func (s *Server) Drip(w io.Writer, p []byte, pause time.Duration) (int, error) {
	for i := range p {
		if !s.Pause(pause) {
			return i, net.ErrClosed
		}
		if _, err := w.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// Process is a command that Run has started, and its process group, which outlives it when the command leaves children behind.
type Process struct {
	group
	srv   *Server
	cmd   *exec.Cmd
	ended bool
}

// Signal sends sig to all members of the process group, if there are any.
func (p *Process) Signal(sig syscall.Signal) {
	p.srv.mu.Lock()
	defer p.srv.mu.Unlock()
	if _, known := p.srv.processes[p]; known { // else its number may have come to name another group
		p.kill(sig)
	}
}

// Wait waits for the command itself. What it has left running stays, for Close.
func (p *Process) Wait() syscall.WaitStatus {
	p.cmd.Wait() // its error is in the state
	s := p.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	p.ended = true
	for p := range s.processes {
		if p.ended && p.gone() {
			s.forget(p)
		}
	}
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// gone reports whether the group has no member left.
func (p *Process) gone() bool { return p.kill(0) == syscall.ESRCH }
