//go:build unix

package sshtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Behaviour is how a server treats one connection. The zero value is a good sshd; any other comes from [ParseBehaviour].
// Behaviours are comparable values.
type Behaviour struct {
	kind  kind
	phase Phase         // of stall, reset, close, garbage and hang
	arg   string        // of the behaviours that take a word or a text
	n     int64         // of huge, rekey: bytes; of maxauthtries: attempts; of maxstartups: millionths
	pause time.Duration // of slow, drip and background
}

type kind uint8

const (
	good kind = iota
	refuse
	maxStartups
	stall
	reset
	closes
	garbage
	hang
	banner
	http
	preface
	version
	noCommon
	slow
	hostKey
	denied
	maxAuthTries
	noOpen
	noExec
	noForward
	status
	exitSignal
	background
	noInput
	drip
	huge
	flood
	earlyData
	noSignal
	noKeepalive
	rekey
	neverClose
)

// Phase is a point in the life of a connection.
type Phase string

// The phases in their order.
const (
	PhaseAccept  Phase = "accept"  // accepted, not a byte sent
	PhaseVersion Phase = "version" // our version line is sent, the client's read
	PhaseKex     Phase = "kex"     // the algorithms are agreed and the client's half of the exchange is read, ours not sent
	PhaseAuth    Phase = "auth"    // keys are exchanged, the first authentication request is read, not answered
	PhaseOpen    Phase = "open"    // the user is let in, the first channel (session or direct-tcpip) asked for, not answered
	PhaseExec    Phase = "exec"    // the session is open, the command asked for, not answered and not started
	PhaseOutput  Phase = "output"  // half of the first piece of standard output is sent (when there is none: as status)
	PhaseStatus  Phase = "status"  // all of the output is sent, no exit status
	PhaseEnd     Phase = "end"     // the exit status is sent and the session's channel closed, the connection is not
)

var (
	phases = []string{
		string(PhaseAccept), string(PhaseVersion), string(PhaseKex), string(PhaseAuth), string(PhaseOpen),
		string(PhaseExec), string(PhaseOutput), string(PhaseStatus), string(PhaseEnd),
	}
	hangs = []string{string(PhaseAuth), string(PhaseOpen), string(PhaseExec), string(PhaseStatus)}
)

// Words that behaviours take.
const (
	onKex     = "kex"
	onHostKey = "hostkey"
	onCipher  = "cipher"
	onMAC     = "mac"

	keyOther  = "other"
	keyForged = "forged"

	openProhibited = "prohibited"
	openConnect    = "connect"
	openType       = "type"
	openShortage   = "shortage"

	statusNone  = "none"
	statusTwice = "twice"
	statusEarly = "early"
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
	{good, "ok", "", nil, "", "a good sshd"},
	{refuse, "refuse", "", nil, "", "refuses connections, where Start would listen; what another listener has accepted is reset at once"},
	{maxStartups, "maxstartups", "SHARE", nil, "0.3", "drops SHARE of all connections, 0 to 1, before the version, as sshd with too many logins under way; the others are good"},
	{stall, "stall", "PHASE", phases, "", "goes silent at PHASE and keeps the connection, reading nothing, until the client closes or resets it"},
	{reset, "reset", "PHASE", phases, "", "resets the connection at PHASE"},
	{closes, "close", "PHASE", phases, "", "closes the connection at PHASE without a word, before the client does"},
	{garbage, "garbage", "PHASE", phases, "", "sends bytes of no meaning at PHASE, then closes"},
	{hang, "hang", "STEP", hangs, "", "never answers STEP (status: never sends an exit status nor closes the channel), but keeps the rest of the connection alive"},
	{banner, "banner", "TEXT", nil, "Exceeded MaxStartups", "says TEXT where its version belongs, then closes"},
	{http, "http", "", nil, "", "is a web server: waits for a line and answers 400 Bad Request"},
	{preface, "preface", "TEXT", nil, "Authorised use only", "says TEXT in a line before its version, which RFC 4253 allows, then is good"},
	{version, "version", "TEXT", nil, "SSH-1.5-old", "calls its version TEXT and goes on"},
	{noCommon, "nocommon", "WHAT", []string{onKex, onHostKey, onCipher, onMAC}, "", "offers only algorithms that nobody has for WHAT, then closes"},
	{slow, "slow", "PAUSE", nil, "1s", "pauses for PAUSE before the version, the key exchange and each answer of the authentication"},
	{hostKey, "hostkey", "HOW", []string{keyOther, keyForged}, "", "is somebody else: other shows a host key that is not the server's, forged shows the server's with a signature that is not good"},
	{denied, "denied", "", nil, "", "refuses every attempt to authenticate"},
	{maxAuthTries, "maxauthtries", "N", nil, "2", "disconnects at the Nth failed attempt to authenticate"},
	{noOpen, "noopen", "REASON", []string{openProhibited, openConnect, openType, openShortage}, openProhibited, "opens no session, for REASON (RFC 4254 section 5.1)"},
	{noExec, "noexec", "", nil, "", "opens sessions and refuses to run a command"},
	{noForward, "noforward", "", nil, "", "opens no direct-tcpip channel, as sshd with AllowTcpForwarding no"},
	{status, "status", "HOW", []string{statusNone, statusTwice, statusEarly}, "", "sends the exit status wrongly: none, twice (the second one higher by one) or early (before all of the output)"},
	{exitSignal, "signal", "NAME", nil, "KILL", "says that the signal NAME ended the command, however it ended"},
	{background, "background", "DURATION", nil, "1000s", "sends the exit status and keeps the channel open for DURATION, as a child does that was left behind and holds the output"},
	{noInput, "noinput", "", nil, "", "never reads the input, so that the client's window fills"},
	{drip, "drip", "PAUSE", nil, "1ms", "sends the output byte by byte with PAUSE before each"},
	{huge, "huge", "BYTES", nil, "", "sends BYTES (k, M, G) of output in lines of 64 bytes before that of the command"},
	{flood, "flood", "", nil, "", "runs nothing and sends output without end"},
	{earlyData, "earlydata", "", nil, "", "sends the first output before the reply to the command's request"},
	{noSignal, "nosignal", "", nil, "", "ignores the client's signals, as sshd 9.2 does for root"},
	{noKeepalive, "nokeepalive", "", nil, "", "answers no global request, so no keepalive"},
	{rekey, "rekey", "BYTES", nil, "4096", "asks for new keys after every BYTES (k, M, G), 256 or more"},
	{neverClose, "neverclose", "", nil, "", "does all as it should and then never closes, not even when the client has said DISCONNECT or closed"},
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

// Phases lists the values that stall, reset, close and garbage take, in their order.
func Phases() []Phase {
	all := make([]Phase, len(phases))
	for i, p := range phases {
		all[i] = Phase(p)
	}
	return all
}

// ParseBehaviour reads a behaviour by its name, as "ok", "stall=kex" or "huge=10M". [Behaviours] lists them.
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
	if err := b.set(s, value); err != nil {
		return Behaviour{}, fmt.Errorf("behaviour %s=%q: %w", name, value, err)
	}
	return b, nil
}

// set takes the value of s in.
func (b *Behaviour) set(s spec, value string) (err error) {
	switch s.value {
	case "PHASE", "STEP":
		b.phase = Phase(value)
	case "BYTES":
		b.n, err = parseBytes(value)
	case "N":
		b.n, err = strconv.ParseInt(value, 10, 32)
		if err != nil || b.n < 1 {
			return errors.New("the value is a number, 1 or more")
		}
	case "SHARE":
		share, err := strconv.ParseFloat(value, 64)
		if err != nil || !(share >= 0 && share <= 1) {
			return errors.New("the value is a number from 0 to 1 such as 0.3")
		}
		b.n = int64(share*millionth + 0.5)
	case "PAUSE", "DURATION":
		b.pause, err = time.ParseDuration(value)
		if err != nil || b.pause < 0 {
			return errors.New("the value is a duration such as 1.5s")
		}
	case "TEXT":
		b.arg = value
		if strings.ContainsAny(value, "\r\n\x00") {
			return errors.New("the value is one line without a NUL")
		}
	case "NAME":
		b.arg = value
		if _, known := signals[value]; !known {
			return errors.New("the value is a signal of RFC 4254 section 6.10 such as KILL or TERM")
		}
	default:
		b.arg = value
	}
	return err
}

const millionth = 1_000_000

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
	case "PHASE", "STEP":
		return s.name + "=" + string(b.phase)
	case "BYTES", "N":
		return s.name + "=" + strconv.FormatInt(b.n, 10)
	case "SHARE":
		return s.name + "=" + strconv.FormatFloat(float64(b.n)/millionth, 'f', -1, 64)
	case "PAUSE", "DURATION":
		return s.name + "=" + b.pause.String()
	}
	return s.name + "=" + b.arg
}

// at reports whether b departs from the good at p.
func (b Behaviour) at(p Phase) bool {
	switch b.kind {
	case stall, reset, closes, garbage, hang:
		return b.phase == p
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
		return 0, errors.New("the value is a number of bytes such as 4096, 64k, 10M or 1G")
	}
	return int64(n) * unit, nil
}
