package runner

import (
	"time"

	"multirsh/transport"
)

// Kind says what an Event is about.
type Kind uint8

// The kinds of events. For each host: Start, any number of Stdout and Stderr, and one Finish. A host that was never
// started (cancelled, skipped) has a Finish alone. Between, for each try that failed and is followed by another, Again when it has failed and
// Restart when the next begins; without the latter, a Finish with the same Result says that the run has ended first.
//
//	Start, output…, {Again, Restart, output…}, Finish
const (
	Start Kind = iota
	Stdout
	Stderr
	Finish
	Again   // the host waits for its next try, and is not running
	Restart // it is running again
)

// Event is something that happened in a run.
type Event struct {
	Kind   Kind
	Time   time.Time
	Seq    int // position of the host in the run, from 0
	Host   transport.Host
	Data   []byte  // of Stdout and Stderr; valid only during the call
	Result *Result // of Finish; of Again and Restart, that of the try that failed
}

// Sink takes the events of a run. One goroutine calls it, so it needs no lock, and while it works every host waits:
// that is the back-pressure. An error stops the run, of which the sink is told to the end all the same: one part of it may have
// failed, and the others are to know how the hosts ended.
type Sink interface {
	Event(Event) error
	Close() error // flushes; called once, after the last event
}
