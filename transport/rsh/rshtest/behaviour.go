//go:build unix

package rshtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Behaviour is how a server treats one connection. The zero value is a good rshd; any other comes from [ParseBehaviour].
// Behaviours are comparable values.
type Behaviour struct {
	kind  kind
	phase Phase         // of stall, reset and close
	arg   string        // of callback, denied, leader and trailer; the text of error
	n     int64         // of huge: bytes
	pause time.Duration // of late, slow and background
}

type kind uint8

const (
	good kind = iota
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

var phases = []string{
	string(PhaseAccept), string(PhaseCallback), string(PhaseHandshake), string(PhaseLeader),
	string(PhaseOutput), string(PhaseTrailer), string(PhaseEnd),
}

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
type Doc struct {
	Name string // as ParseBehaviour takes it; words in capitals stand for a value, brackets enclose what may be left out
	Text string // one line
}

// spec is one row of the table that parses, prints and documents behaviours.
type spec struct {
	kind    kind
	name    string
	value   string   // name of the value in Doc; empty: takes none
	choices []string // the values allowed; nil: any that parses
	preset  string   // the value when it is left out; empty: it may not be
	text    string
}

var specs = []spec{
	{good, "ok", "", nil, "", "a good rshd"},
	{stall, "stall", "PHASE", phases, "", "goes silent at PHASE and keeps the connection, reading nothing, until the client closes or resets it"},
	{reset, "reset", "PHASE", phases, "", "resets both channels at PHASE"},
	{closes, "close", "PHASE", phases, "", "closes both channels at PHASE without a word, before the client does; handshake: no status byte, output: in mid-line"},
	{neverClose, "neverclose", "", nil, "", "does all as it should and then never closes, not even when the client has"},
	{errorLine, "error", "TEXT", nil, "Try again.", "answers with a byte 1 and the line TEXT"},
	{garbage, "garbage", "", nil, "", "answers with bytes of no meaning where the status byte belongs, then closes"},
	{denied, "denied", "DAEMON", []string{byRedone, byNetkit}, "", `refuses the login: redone with a byte 0 and "Authentication failure" as output, netkit with a byte 1 and "Permission denied."`},
	{huge, "huge", "BYTES", nil, "", "adds BYTES (k, M, G) of output in lines of 64 bytes, after the leader of a wrapped command, at the end of a bare one"},
	{slow, "slow", "PAUSE", nil, "1ms", "sends the output byte by byte with PAUSE before each"},
	{late, "late", "PAUSE", nil, "1s", "connects back PAUSE late, then does all as it should"},
	{callback, "callback", "HOW", []string{cbExpired, cbTwice, cbAddress, cbUnreserved, cbPort, cbNone}, "",
		"connects back wrongly: expired (once the client has given up), twice, address (from another one), unreserved (from a port above 1023), port (to a wrong one) or none (not at all)"},
	{leaderOn, "leader", "CHANNEL", []string{onStdout, onStderr}, "", "lets a wrapped command's leader through on CHANNEL only"},
	{trailerOn, "trailer", "CHANNEL", []string{onStdout, onStderr, onNone}, "", "lets a wrapped command's trailer through on CHANNEL only, or on none"},
	{falseTrailer, "falsetrailer", "", nil, "", "sends a trailer with a wrong nonce before the output of a wrapped command"},
	{background, "background", "DURATION", nil, "1000s", "leaves a child behind that holds the main channel open for DURATION"},
}

// Behaviours lists all behaviours with their documentation.
func Behaviours() []Doc {
	docs := make([]Doc, len(specs))
	for i, s := range specs {
		name := s.name
		switch {
		case s.value != "" && s.preset != "":
			name += "[=" + s.value + "]"
		case s.value != "":
			name += "=" + s.value
		}
		text := s.text
		if s.preset != "" {
			text += " (" + s.preset + ")"
		}
		docs[i] = Doc{name, text}
	}
	return docs
}

// Phases lists the values that stall, reset and close take, in their order.
func Phases() []Phase {
	all := make([]Phase, len(phases))
	for i, p := range phases {
		all[i] = Phase(p)
	}
	return all
}

// ParseBehaviour reads a behaviour by its name, as "ok", "stall=handshake" or "huge=10M". [Behaviours] lists them.
func ParseBehaviour(text string) (Behaviour, error) {
	name, value, given := strings.Cut(text, "=")
	i := slices.IndexFunc(specs, func(s spec) bool { return s.name == name })
	if i < 0 {
		return Behaviour{}, fmt.Errorf("no behaviour %q: it is one of %s", name, names())
	}
	s := specs[i]
	if s.value == "" {
		if given {
			return Behaviour{}, fmt.Errorf("behaviour %s takes no value, not %q", name, value)
		}
		return Behaviour{kind: s.kind}, nil
	}
	if !given {
		if s.preset == "" {
			return Behaviour{}, fmt.Errorf("behaviour %s needs a value: %s", name, s.want())
		}
		value = s.preset
	}
	if s.choices != nil && !slices.Contains(s.choices, value) {
		return Behaviour{}, fmt.Errorf("behaviour %s=%q: the value is %s", name, value, s.want())
	}
	b := Behaviour{kind: s.kind}
	var err error
	switch s.value {
	case "PHASE":
		b.phase = Phase(value)
	case "BYTES":
		b.n, err = parseBytes(value)
	case "PAUSE", "DURATION":
		b.pause, err = time.ParseDuration(value)
		if err != nil || b.pause < 0 {
			err = fmt.Errorf("the value is a duration such as 1.5s")
		}
	case "TEXT":
		b.arg = value
		if strings.ContainsAny(value, "\n\x00") {
			err = fmt.Errorf("the value is one line without a NUL")
		}
	default:
		b.arg = value
	}
	if err != nil {
		return Behaviour{}, fmt.Errorf("behaviour %s=%q: %w", name, value, err)
	}
	return b, nil
}

// MustParseBehaviour is ParseBehaviour for a constant text; it panics when that is wrong.
func MustParseBehaviour(text string) Behaviour {
	b, err := ParseBehaviour(text)
	if err != nil {
		panic(err)
	}
	return b
}

// String returns the text that ParseBehaviour turns into b.
func (b Behaviour) String() string {
	i := slices.IndexFunc(specs, func(s spec) bool { return s.kind == b.kind })
	s := specs[i]
	switch s.value {
	case "":
		return s.name
	case "PHASE":
		return s.name + "=" + string(b.phase)
	case "BYTES":
		return s.name + "=" + strconv.FormatInt(b.n, 10)
	case "PAUSE", "DURATION":
		return s.name + "=" + b.pause.String()
	}
	return s.name + "=" + b.arg
}

// at reports whether b is to stall, reset or close at p.
func (b Behaviour) at(p Phase) bool {
	return b.phase == p && (b.kind == stall || b.kind == reset || b.kind == closes)
}

// needsRelay reports whether b meddles with the streams, so that the command cannot have the sockets for itself.
func (b Behaviour) needsRelay() bool {
	switch b.kind {
	case stall, reset, closes, neverClose, huge, slow, leaderOn, trailerOn, falseTrailer:
		return true
	}
	return false
}

func (s spec) want() string {
	switch {
	case s.choices != nil:
		return strings.Join(s.choices, ", ")
	case s.value == "BYTES":
		return "a number of bytes such as 10M"
	}
	return s.value
}

func names() string {
	var all []string
	for _, s := range specs {
		all = append(all, s.name)
	}
	return strings.Join(all, ", ")
}

func parseBytes(text string) (int64, error) {
	digits, unit := text, int64(1)
	if text != "" {
		switch text[len(text)-1] {
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit > 1 {
			digits = text[:len(text)-1]
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > uint64((1<<63-1)/unit) {
		return 0, fmt.Errorf("the value is a number of bytes such as 4096, 64k, 10M or 1G")
	}
	return int64(n) * unit, nil
}
