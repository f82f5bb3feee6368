//go:build unix

package sshtest

import (
	"maps"
	"slices"

	"multirsh/transport/testserver"
)

// Behaviour is how a server treats one connection. The zero value is a good sshd; any other comes from [ParseBehaviour].
// Behaviours are comparable values.
type Behaviour struct{ script }

type script = testserver.Behaviour

// The kinds of behaviours, by which specs has them.
const (
	good = iota
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

var phases = []Phase{
	PhaseAccept, PhaseVersion, PhaseKex, PhaseAuth, PhaseOpen, PhaseExec, PhaseOutput, PhaseStatus, PhaseEnd,
}

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
type Doc = testserver.Doc

var specs = testserver.Table{
	good:         {"ok", "", nil, "", "a good sshd"},
	refuse:       {"refuse", "", nil, "", "refuses connections, where Start would listen; what another listener has accepted is reset at once"},
	maxStartups:  {"maxstartups", "SHARE", nil, "0.3", "drops SHARE of all connections, 0 to 1, before the version, as sshd with too many logins under way; the others are good"},
	stall:        {"stall", "PHASE", testserver.Choices(phases...), "", "goes silent at PHASE and keeps the connection, reading nothing, until the client closes or resets it"},
	reset:        {"reset", "PHASE", testserver.Choices(phases...), "", "resets the connection at PHASE"},
	closes:       {"close", "PHASE", testserver.Choices(phases...), "", "closes the connection at PHASE without a word, before the client does"},
	garbage:      {"garbage", "PHASE", testserver.Choices(phases...), "", "sends bytes of no meaning at PHASE, then closes"},
	hang:         {"hang", "STEP", testserver.Choices(PhaseAuth, PhaseOpen, PhaseExec, PhaseStatus), "", "never answers STEP (status: never sends an exit status nor closes the channel), but keeps the rest of the connection alive"},
	banner:       {"banner", "TEXT", nil, "Exceeded MaxStartups", "says TEXT where its version belongs, then closes"},
	http:         {"http", "", nil, "", "is a web server: waits for a line and answers 400 Bad Request"},
	preface:      {"preface", "TEXT", nil, "Authorised use only", "says TEXT in a line before its version, which RFC 4253 allows, then is good"},
	version:      {"version", "TEXT", nil, "SSH-1.5-old", "calls its version TEXT and goes on"},
	noCommon:     {"nocommon", "WHAT", []string{onKex, onHostKey, onCipher, onMAC}, "", "offers only algorithms that nobody has for WHAT, then closes"},
	slow:         {"slow", "PAUSE", nil, "1s", "pauses for PAUSE before the version, the key exchange and each answer of the authentication"},
	hostKey:      {"hostkey", "HOW", []string{keyOther, keyForged}, "", "is somebody else: other shows a host key that is not the server's, forged shows the server's with a signature that is not good"},
	denied:       {"denied", "", nil, "", "refuses every attempt to authenticate"},
	maxAuthTries: {"maxauthtries", "N", nil, "2", "disconnects at the Nth failed attempt to authenticate"},
	noOpen:       {"noopen", "REASON", []string{openProhibited, openConnect, openType, openShortage}, openProhibited, "opens no session, for REASON (RFC 4254 section 5.1)"},
	noExec:       {"noexec", "", nil, "", "opens sessions and refuses to run a command"},
	noForward:    {"noforward", "", nil, "", "opens no direct-tcpip channel, as sshd with AllowTcpForwarding no"},
	status:       {"status", "HOW", []string{statusNone, statusTwice, statusEarly}, "", "sends the exit status wrongly: none, twice (the second one higher by one) or early (before all of the output)"},
	exitSignal:   {"signal", "NAME", slices.Sorted(maps.Keys(signals)), "KILL", "says that the signal NAME (RFC 4254 section 6.10) ended the command, however it ended"},
	background:   {"background", "DURATION", nil, "1000s", "sends the exit status and keeps the channel open for DURATION, as a child does that was left behind and holds the output"},
	noInput:      {"noinput", "", nil, "", "never reads the input, so that the client's window fills"},
	drip:         {"drip", "PAUSE", nil, "1ms", "sends the output byte by byte with PAUSE before each"},
	huge:         {"huge", "BYTES", nil, "", "sends BYTES (k, M, G) of output in lines of 64 bytes before that of the command"},
	flood:        {"flood", "", nil, "", "runs nothing and sends output without end"},
	earlyData:    {"earlydata", "", nil, "", "sends the first output before the reply to the command's request"},
	noSignal:     {"nosignal", "", nil, "", "ignores the client's signals, as sshd 9.2 does for root"},
	noKeepalive:  {"nokeepalive", "", nil, "", "answers no global request, so no keepalive"},
	rekey:        {"rekey", "BYTES", nil, "4096", "asks for new keys after every BYTES (k, M, G), 256 or more"},
	neverClose:   {"neverclose", "", nil, "", "does all as it should and then never closes, not even when the client has said DISCONNECT or closed"},
}

// Behaviours lists all behaviours with their documentation.
func Behaviours() []Doc { return specs.Docs() }

// Phases lists the values that stall, reset, close and garbage take, in their order.
func Phases() []Phase { return slices.Clone(phases) }

// ParseBehaviour reads a behaviour by its name, as "ok", "stall=kex" or "huge=10M". [Behaviours] lists them.
func ParseBehaviour(text string) (Behaviour, error) {
	b, err := specs.Parse(text)
	return Behaviour{b}, err
}

// MustParseBehaviour is ParseBehaviour for a constant text; it panics when that is wrong.
func MustParseBehaviour(text string) Behaviour { return testserver.Must(ParseBehaviour(text)) }

// String returns the text that ParseBehaviour turns into b.
func (b Behaviour) String() string { return specs.Print(b.script) }

// at reports whether b departs from the good at p.
func (b Behaviour) at(p Phase) bool {
	switch b.Kind {
	case stall, reset, closes, garbage, hang:
		return b.Word == string(p)
	}
	return false
}
