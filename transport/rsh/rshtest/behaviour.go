//go:build unix

package rshtest

import (
	"slices"

	"multirsh/transport/testserver"
)

// Behaviour is how a server treats one connection. The zero value is a good rshd; any other comes from [ParseBehaviour].
// Behaviours are comparable values.
type Behaviour struct{ script }

type script = testserver.Behaviour

// The kinds of behaviours, by which specs has them.
const (
	good = iota
	stall
	reset
	closes
	neverClose
	errorLine
	garbage
	denied
	huge
	slow
	late
	callback
	leaderOn
	trailerOn
	falseTrailer
	background
)

// Phase is a point in the life of a connection at which a server can stall, reset or close.
type Phase string

// The phases in their order. Output and trailer are told apart only for a wrapped command (package shwrap); of a bare one
// every byte is output and its trailer is the end of its output.
const (
	PhaseAccept    Phase = "accept"    // accepted, not a byte read
	PhaseCallback  Phase = "callback"  // the stderr port is read, the connection back not made
	PhaseHandshake Phase = "handshake" // the whole header is read, the status byte not sent
	PhaseLeader    Phase = "leader"    // the status byte is sent, the command not started
	PhaseOutput    Phase = "output"    // half of the first piece of standard output is sent (of the trailer, when there is no output)
	PhaseTrailer   Phase = "trailer"   // all of standard output is sent, no trailer
	PhaseEnd       Phase = "end"       // all is sent, nothing closed
)

var (
	phases   = []Phase{PhaseAccept, PhaseCallback, PhaseHandshake, PhaseLeader, PhaseOutput, PhaseTrailer, PhaseEnd}
	atPhases = testserver.Choices(phases...)
)

// Ways of callback.
const (
	cbExpired    = "expired"
	cbTwice      = "twice"
	cbAddress    = "address"
	cbUnreserved = "unreserved"
	cbPort       = "port"
	cbNone       = "none"
)

// Who answers, and where a marker is sent.
const (
	byRedone = "redone"
	byNetkit = "netkit"
	onStdout = "stdout"
	onStderr = "stderr"
	onNone   = "none"
)

// Doc is the documentation of one behaviour.
type Doc = testserver.Doc

var specs = testserver.Table{
	good:         {Name: "ok", Text: "a good rshd"},
	stall:        {Name: "stall", Value: "PHASE", Choices: atPhases, Text: "goes silent at PHASE and keeps the connection, reading nothing, until the client closes or resets it"},
	reset:        {Name: "reset", Value: "PHASE", Choices: atPhases, Text: "resets both channels at PHASE"},
	closes:       {Name: "close", Value: "PHASE", Choices: atPhases, Text: "closes both channels at PHASE without a word, before the client does; handshake: no status byte, output: in mid-line"},
	neverClose:   {Name: "neverclose", Text: "does all as it should and then never closes, not even when the client has"},
	errorLine:    {Name: "error", Value: "TEXT", Preset: "Try again.", Text: "answers with a byte 1 and the line TEXT"},
	garbage:      {Name: "garbage", Text: "answers with bytes of no meaning where the status byte belongs, then closes"},
	denied:       {Name: "denied", Value: "DAEMON", Choices: []string{byRedone, byNetkit}, Text: `refuses the login: redone with a byte 0 and "Authentication failure" as output, netkit with a byte 1 and "Permission denied."`},
	huge:         {Name: "huge", Value: "BYTES", Text: "adds BYTES (k, M, G) of output in lines of 64 bytes, after the leader of a wrapped command, at the end of a bare one"},
	slow:         {Name: "slow", Value: "PAUSE", Preset: "1ms", Text: "sends the output byte by byte with PAUSE before each"},
	late:         {Name: "late", Value: "PAUSE", Preset: "1s", Text: "connects back PAUSE late, then does all as it should"},
	callback:     {Name: "callback", Value: "HOW", Choices: []string{cbExpired, cbTwice, cbAddress, cbUnreserved, cbPort, cbNone}, Text: "connects back wrongly: expired (once the client has given up), twice, address (from another one), unreserved (from a port above 1023), port (to a wrong one) or none (not at all)"},
	leaderOn:     {Name: "leader", Value: "CHANNEL", Choices: []string{onStdout, onStderr}, Text: "lets a wrapped command's leader through on CHANNEL only"},
	trailerOn:    {Name: "trailer", Value: "CHANNEL", Choices: []string{onStdout, onStderr, onNone}, Text: "lets a wrapped command's trailer through on CHANNEL only, or on none"},
	falseTrailer: {Name: "falsetrailer", Text: "sends a trailer with a wrong nonce before the output of a wrapped command"},
	background:   {Name: "background", Value: "DURATION", Preset: "1000s", Text: "leaves a child behind that holds the main channel open for DURATION"},
}

// Behaviours lists all behaviours with their documentation.
func Behaviours() []Doc { return specs.Docs() }

// Phases lists the values that stall, reset and close take, in their order.
func Phases() []Phase { return slices.Clone(phases) }

// ParseBehaviour reads a behaviour by its name, as "ok", "stall=handshake" or "huge=10M". [Behaviours] lists them.
func ParseBehaviour(text string) (Behaviour, error) {
	b, err := specs.Parse(text)
	return Behaviour{b}, err
}

// MustParseBehaviour is ParseBehaviour for a constant text; it panics when that is wrong.
func MustParseBehaviour(text string) Behaviour { return testserver.Must(ParseBehaviour(text)) }

// String returns the text that ParseBehaviour turns into b.
func (b Behaviour) String() string { return specs.Print(b.script) }

// at reports whether b is to stall, reset or close at p.
func (b Behaviour) at(p Phase) bool {
	switch b.Kind {
	case stall, reset, closes:
		return b.Word == string(p)
	}
	return false
}

// needsRelay reports whether b meddles with the streams, so that the command cannot have the sockets for itself.
func (b Behaviour) needsRelay() bool {
	switch b.Kind {
	case stall, reset, closes, neverClose, huge, slow, leaderOn, trailerOn, falseTrailer:
		return true
	}
	return false
}
