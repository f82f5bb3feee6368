// Package runner (types first; the pool follows).
package runner

import (
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

// Result is how one host ended.
type Result struct {
	Seq     int // position of the host in the run, from 0
	Host    transport.Host
	Outcome Outcome
	Status  transport.Status
	Err     error // an *transport.OpError, nil for ok, exit and signal
	Started time.Time
	Ended   time.Time
}

// Kind says what an Event is about.
type Kind uint8

// The kinds of events. For each host: Start, any number of Stdout and Stderr, and one Finish. A host that was never
// started (cancelled, skipped) has a Finish alone.
const (
	Start Kind = iota
	Stdout
	Stderr
	Finish
)

// Event is something that happened in a run.
type Event struct {
	Kind   Kind
	Time   time.Time
	Seq    int
	Host   transport.Host
	Data   []byte  // of Stdout and Stderr; valid only during the call
	Result *Result // of Finish
}

// Sink takes the events of a run. One goroutine calls it, so it needs no lock, and while it works every host waits:
// that is the back-pressure. An error stops the run.
type Sink interface {
	Event(Event) error
	Close() error // flushes; called once, after the last event
}
