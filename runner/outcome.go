package runner

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"multirsh/transport"
)

// Outcome is one word for how a host ended, the same everywhere: text, JSON, summary, retry, exit status.
type Outcome string

// The outcomes. Exactly one of them is given to each host.
const (
	OK          Outcome = "ok"          // exit status 0
	Exit        Outcome = "exit"        // another exit status
	Signal      Outcome = "signal"      // ended by a signal
	Timeout     Outcome = "timeout"     // a deadline of ours; the error's phase says which
	Refused     Outcome = "refused"     // nobody listens on the port
	Unreachable Outcome = "unreachable" // no route, no answer
	DNS         Outcome = "dns"         // the name has no address
	HostKey     Outcome = "hostkey"     // not the host we know
	Auth        Outcome = "auth"        // not let in
	Protocol    Outcome = "protocol"    // the host does not speak the protocol
	NoPorts     Outcome = "noports"     // no reserved port could be had
	Cancelled   Outcome = "cancelled"   // stopped by the user or a policy
	Skipped     Outcome = "skipped"     // never tried, by a policy
	Unknown     Outcome = "unknown"     // it ran, or may have run, and how it ended is not known
)

var outcomes = []Outcome{OK, Exit, Signal, Timeout, Refused, Unreachable, DNS, HostKey, Auth, Protocol, NoPorts, Cancelled, Skipped, Unknown}

// Result is how one host ended, in its last try if there were several.
type Result struct {
	Seq     int // position of the host in the run, from 0
	Host    transport.Host
	Outcome Outcome
	Status  transport.Status
	Err     error // nil for ok, exit and signal; an *transport.OpError for a host that was tried
	Tries   int   // how often it was tried; 0: never
	Started time.Time
	Running time.Time // when the host had accepted the command; zero if it never did
	Ended   time.Time
}

// Phase is the stage in which the host failed, "" where there was no error or no attempt.
func (r *Result) Phase() transport.Phase {
	if op := (*transport.OpError)(nil); errors.As(r.Err, &op) {
		return op.Phase
	}
	return ""
}

// Stopped tells whether we have stopped the host's command, and whether that is confirmed: the command is known to have ended there. A host
// that we gave up before the command was sent has had none to stop.
func (r *Result) Stopped() (stopped, confirmed bool) {
	if r.Err == nil {
		return false, false
	}
	stop := (*StopError)(nil)
	if !errors.As(r.Err, &stop) || stop.Confirmed && r.Running.IsZero() {
		return false, false
	}
	return true, stop.Confirmed
}

// StopError is the error of a host that we have stopped.
type StopError struct {
	Cause     error // a *transport.TimeoutError, an *IdleError, a *PolicyError, or the cause of Kill or of Run's context
	Confirmed bool  // the command is known to have ended there; without it, it may still be running
}

func (e *StopError) Error() string {
	if e.Confirmed {
		return e.Cause.Error()
	}
	return e.Cause.Error() + "; the host has not confirmed the end"
}

func (e *StopError) Unwrap() error { return e.Cause }

// Retold is the error of a Result that was written down and is read again: its text as it was, the [transport.OpError] of its phase if it
// had one, and where confirmed is not nil a [StopError]. Without a text it is nil. What else was in it is lost.
func Retold(text string, phase transport.Phase, host string, confirmed *bool) (err error) {
	if text == "" {
		return nil
	}
	told := &retold{text: text}
	if confirmed != nil {
		told.stop = &StopError{Cause: errors.New(text), Confirmed: *confirmed}
	}
	if phase == "" {
		return told
	}
	return &transport.OpError{Phase: phase, Host: host, Err: told}
}

type retold struct {
	text string
	stop *StopError // nil: it was none
}

func (e *retold) Error() string { return e.text }

func (e *retold) Unwrap() error {
	if e.stop == nil {
		return nil
	}
	return e.stop
}

// classify puts a word to how a host ended.
func classify(status transport.Status, err error) Outcome {
	if err == nil {
		switch {
		case !status.Known:
			return Unknown
		case status.Signal != "":
			return Signal
		case status.Code != 0:
			return Exit
		}
		return OK
	}
	for _, known := range []struct {
		err     error
		outcome Outcome
	}{
		{context.DeadlineExceeded, Timeout},
		{os.ErrDeadlineExceeded, Timeout},
		{transport.ErrHostKey, HostKey},
		{transport.ErrAuth, Auth},
		{transport.ErrNoPorts, NoPorts},
		{transport.ErrPorts, NoPorts},
		{transport.ErrProtocol, Protocol},
		{transport.ErrLost, Unknown},
		{transport.ErrClosed, Cancelled},
		{syscall.ECONNREFUSED, Refused},
		{syscall.EHOSTUNREACH, Unreachable},
		{syscall.ENETUNREACH, Unreachable},
		{syscall.ETIMEDOUT, Unreachable},
	} {
		if errors.Is(err, known.err) {
			return known.outcome
		}
	}
	if stop := (*StopError)(nil); errors.As(err, &stop) {
		return Cancelled
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return DNS
	}
	op := (*transport.OpError)(nil)
	if !errors.As(err, &op) {
		return Cancelled
	}
	switch op.Phase {
	case transport.PhaseResolve:
		return DNS
	case transport.PhasePort, transport.PhaseConnect:
		return Unreachable
	case transport.PhaseHandshake, transport.PhaseVersion, transport.PhaseKeyExchange:
		return Protocol
	case transport.PhaseAuth:
		return Auth
	}
	return Unknown
}
