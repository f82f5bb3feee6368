// Package transport says what it means to run one command on one host, and nothing about how.
//
// A [Transport] starts a [Command] on a [Host] and hands back a [Session]; the session is waited for, stopped or closed, and
// ends with a [Status]. The packages below this one are the transports: execcmd (a local command), rsh (the rcmd(3) protocol), ssh.
// [Mux] chooses between them by host and is itself a Transport. Every transport passes the suite of package transporttest.
//
//	Start(ctx, host, cmd) ──► Session ──► Wait ──► Status
//	   │ ctx bounds the start      │ Signal: stop politely     │ output has been written, goroutines are gone
//	   ▼                           ▼ Close: at once
//	*OpError: host and phase       (errors of Wait are *OpError too)
//
// Who owns what: the caller owns the Command's streams and must keep them valid until Wait has returned; the transport owns
// connections and goroutines. When Wait has returned the session has let go of them; only a connection whose command and
// output are over may still be on its way to a polite close, which Shutdown waits for.
package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Host is one target and how to reach it.
type Host struct {
	Name      string            // as the user wrote it: the label of its output, and what is resolved when Addr is empty
	Addr      string            // host name or IP literal to connect to; empty: Name
	Port      uint16            // TCP port; 0: the transport's own
	User      string            // user on the host; empty: the transport's default
	Transport string            // name of the transport, for Mux; empty: its default
	Jump      string            // ssh: the hosts on the way, as ssh(1)'s -J takes them; empty: as configured; "none": no jump host even if configured
	Vars      map[string]string // "label.NAME": the value of a label; "rank": the place in the run, from 0. Hosts share maps: never changed
}

// Address is what to resolve and connect to: Addr, else Name.
func (h Host) Address() string {
	if h.Addr != "" {
		return h.Addr
	}
	return h.Name
}

// Command is what to run, the same for every host or made for one.
type Command struct {
	Line string // for a shell on the host (each transport says which), byte for byte; a NUL is refused

	// Stdin is what the command reads, then end of file. One spool serves every host: a transport reads it through a
	// reader of its own (io.NewSectionReader over the same ReaderAt), never through the shared offset. Nil: no input.
	Stdin *io.SectionReader

	// Stdout and Stderr get the output, byte for byte, each from one goroutine at a time, but both at once. A Write that
	// blocks holds the remote command back. A Write that fails ends the session with that error. Nil: thrown away.
	Stdout, Stderr io.Writer
}

// Transport starts commands on hosts. It is safe for use by many goroutines.
type Transport interface {
	// Start connects to host and has it run cmd. It returns when the host has accepted the command, or with an *OpError.
	// ctx bounds the start alone: once Start has returned, ctx no longer matters to the session.
	Start(ctx context.Context, host Host, cmd *Command) (Session, error)

	// Shutdown is for the end of a run, when Wait has returned for every session: it waits for the closes that go on behind them,
	// a few seconds at most, and lets go of what the sessions have shared. The end of ctx cuts that short: what is still open
	// is reset. A Start afterwards begins anew.
	Shutdown(ctx context.Context)
}

// Session is a command running on a host. Its methods may be called at any time from any goroutine, Wait once.
type Session interface {
	// Wait carries input and output, which may not flow before it is called. It returns when the command has ended, all its
	// output has been written and the session has let go of its goroutines and connections. If ctx ends first it closes the session at once, as Close
	// does, and the error wraps context.Cause(ctx).
	// A command that failed is no error: that is in Status. An error is an *OpError; Status is then what is known all the same.
	Wait(ctx context.Context) (Status, error)

	// Signal asks the host to stop the command: sig (os.Interrupt, syscall.SIGTERM, os.Kill) for its process group, SIGKILL
	// a second later at the latest. The output until the end still comes and Wait returns when the host is done.
	// It does not block for the host. os.ErrProcessDone when it has already ended, errors.ErrUnsupported where the protocol cannot.
	Signal(sig os.Signal) error

	// Close ends the session at once, without manners and whatever the host does. Wait then returns with ErrClosed.
	// It may be called more than once.
	Close() error
}

// Status is how a command ended.
type Status struct {
	Known      bool   // the host said how; without it Code and Signal mean nothing
	Code       int    // exit status, 0 to 255
	Signal     string // name of the signal that ended it, as "TERM"; empty: it exited
	Started    bool   // the host has proved that the command began to run; without it another try is harmless
	Ended      bool   // every channel was read to its end of file: no process that the command left behind holds one
	Background bool   // the command has ended, but a child of it was left running and held a channel
}

// Phase is a stage in the life of a session, for errors and timeouts.
type Phase string

// The phases in their order.
const (
	PhaseResolve     Phase = "resolve"      // name to address
	PhasePort        Phase = "port"         // waiting for a reserved port
	PhaseConnect     Phase = "connect"      // TCP
	PhaseHandshake   Phase = "handshake"    // the protocol's first exchange (rsh)
	PhaseVersion     Phase = "version"      // the version lines (ssh)
	PhaseKeyExchange Phase = "key exchange" // and the host's key (ssh)
	PhaseAuth        Phase = "auth"         // who we are
	PhaseStart       Phase = "start"        // accepted, but the command has not yet proved that it runs
	PhaseRun         Phase = "run"          // the command runs
	PhaseDrain       Phase = "drain"        // it has ended, a child of it still holds the connection
	PhaseClose       Phase = "close"        // it has ended, the connection has not
)

// OpError is the error of Start and Wait. It carries host and phase once: nobody above names the host again.
type OpError struct {
	Phase Phase
	Host  string
	Err   error // says what happened and, where there is one, the mend
}

func (e *OpError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Host, e.Phase, e.Err) }
func (e *OpError) Unwrap() error { return e.Err }

// Errors that say what kind of failure an OpError is; they are wrapped, so ask with errors.Is. Failures of the network are
// told by their own errors (*net.DNSError, syscall.ECONNREFUSED …), deadlines by context.DeadlineExceeded.
var (
	ErrAuth     = errors.New("not authorised")                   // the host will not let this user run commands
	ErrHostKey  = errors.New("host key not accepted")            // the host is not who we think it is
	ErrProtocol = errors.New("protocol error")                   // the host does not speak the protocol
	ErrNoPorts  = errors.New("no reserved port free")            // within the connect deadline
	ErrPorts    = errors.New("reserved ports are not permitted") // this process may not bind below 1024
	ErrClosed   = errors.New("session closed")                   // by Close
	ErrLost     = errors.New("connection lost")                  // after the start, before the exit status: the outcome is unknown
)

// TimeoutError is the failure to be done in time; it is a context.DeadlineExceeded to errors.Is.
type TimeoutError struct {
	After time.Duration
	Limit string // what set the limit, for the user, as "--connect-timeout"
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("not done within %v (%s)", e.After, e.Limit)
}

// Is makes it a deadline like any other.
func (e *TimeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Mux chooses the transport by host: Named[host.Transport], or Default for a host that names none.
type Mux struct {
	Default Transport
	Named   map[string]Transport
}

// Start implements Transport.
func (m *Mux) Start(ctx context.Context, host Host, cmd *Command) (Session, error) {
	t := m.Default
	if host.Transport != "" {
		t = m.Named[host.Transport]
	}
	if t == nil {
		return nil, &OpError{Phase: PhaseResolve, Host: host.Name, Err: fmt.Errorf("no transport %q", host.Transport)}
	}
	return t.Start(ctx, host, cmd)
}

// Shutdown implements Transport: it shuts all of them down, at the same time.
func (m *Mux) Shutdown(ctx context.Context) {
	var all sync.WaitGroup
	for _, t := range m.Named {
		all.Go(func() { t.Shutdown(ctx) })
	}
	if m.Default != nil {
		all.Go(func() { m.Default.Shutdown(ctx) })
	}
	all.Wait()
}
