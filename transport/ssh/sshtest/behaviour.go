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
	lull
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
	phases = []Phase{
		PhaseAccept, PhaseVersion, PhaseKex, PhaseAuth, PhaseOpen, PhaseExec, PhaseOutput, PhaseStatus, PhaseEnd,
	}
	atPhases = testserver.Choices(phases...)
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
type Doc = testserver.Doc

var specs = testserver.Table{
	good:         {Name: "ok", Text: "a good sshd"},
	refuse:       {Name: "refuse", Text: "refuses connections, where Start would listen; what another listener has accepted is reset at once"},
	maxStartups:  {Name: "maxstartups", Value: "SHARE", Preset: "0.3", Text: "drops SHARE of all connections, 0 to 1, before the version, as sshd with too many logins under way; the others are good"},
	stall:        {Name: "stall", Value: "PHASE", Choices: atPhases, Text: "goes silent at PHASE and keeps the connection, reading nothing, until the client closes or resets it"},
	reset:        {Name: "reset", Value: "PHASE", Choices: atPhases, Text: "resets the connection at PHASE"},
	closes:       {Name: "close", Value: "PHASE", Choices: atPhases, Text: "closes the connection at PHASE without a word, before the client does"},
	garbage:      {Name: "garbage", Value: "PHASE", Choices: atPhases, Text: "sends bytes of no meaning at PHASE, then closes"},
	hang:         {Name: "hang", Value: "STEP", Choices: testserver.Choices(PhaseAuth, PhaseOpen, PhaseExec, PhaseStatus), Text: "never answers STEP (status: never sends an exit status nor closes the channel), but keeps the rest of the connection alive"},
	banner:       {Name: "banner", Value: "TEXT", Preset: "Exceeded MaxStartups", Text: "says TEXT where its version belongs, then closes"},
	http:         {Name: "http", Text: "is a web server: waits for a line and answers 400 Bad Request"},
	preface:      {Name: "preface", Value: "TEXT", Preset: "Authorised use only", Text: "says TEXT in a line before its version, which RFC 4253 allows, then is good"},
	version:      {Name: "version", Value: "TEXT", Preset: "SSH-1.5-old", Text: "calls its version TEXT and goes on"},
	noCommon:     {Name: "nocommon", Value: "WHAT", Choices: []string{onKex, onHostKey, onCipher, onMAC}, Text: "offers only algorithms that nobody has for WHAT, then closes"},
	slow:         {Name: "slow", Value: "PAUSE", Preset: "1s", Text: "pauses for PAUSE before the version, the key exchange and each answer of the authentication"},
	hostKey:      {Name: "hostkey", Value: "HOW", Choices: []string{keyOther, keyForged}, Text: "is somebody else: other shows a host key that is not the server's, forged shows the server's with a signature that is not good"},
	denied:       {Name: "denied", Text: "refuses every attempt to authenticate"},
	maxAuthTries: {Name: "maxauthtries", Value: "N", Preset: "2", Text: "disconnects at the Nth failed attempt to authenticate"},
	noOpen:       {Name: "noopen", Value: "REASON", Choices: []string{openProhibited, openConnect, openType, openShortage}, Preset: openProhibited, Text: "opens no session, for REASON (RFC 4254 section 5.1)"},
	noExec:       {Name: "noexec", Text: "opens sessions and refuses to run a command"},
	noForward:    {Name: "noforward", Text: "opens no direct-tcpip channel, as sshd with AllowTcpForwarding no"},
	status:       {Name: "status", Value: "HOW", Choices: []string{statusNone, statusTwice, statusEarly}, Text: "sends the exit status wrongly: none, twice (the second one higher by one) or early (before all of the output)"},
	exitSignal:   {Name: "signal", Value: "NAME", Choices: slices.Sorted(maps.Keys(signals)), Preset: "KILL", Text: "says that the signal NAME (RFC 4254 section 6.10) ended the command, however it ended"},
	background:   {Name: "background", Value: "DURATION", Preset: "1000s", Text: "sends the exit status and keeps the channel open for DURATION, as a child does that was left behind and holds the output"},
	lull:         {Name: "lull", Value: "PAUSE", Preset: "1s", Text: "sends the exit status, and then nothing for PAUSE, as a machine that swaps; then answers what it was asked meanwhile, and only then sends the output"},
	noInput:      {Name: "noinput", Text: "never reads the input, so that the client's window fills"},
	drip:         {Name: "drip", Value: "PAUSE", Preset: "1ms", Text: "sends the output byte by byte with PAUSE before each"},
	huge:         {Name: "huge", Value: "BYTES", Text: "sends BYTES (k, M, G) of output in lines of 64 bytes before that of the command"},
	flood:        {Name: "flood", Text: "runs nothing and sends output without end"},
	earlyData:    {Name: "earlydata", Text: "sends the first output before the reply to the command's request"},
	noSignal:     {Name: "nosignal", Text: "ignores the client's signals, as sshd 9.2 does for root"},
	noKeepalive:  {Name: "nokeepalive", Text: "answers no global request, so no keepalive"},
	rekey:        {Name: "rekey", Value: "BYTES", Preset: "4096", Text: "asks for new keys after every BYTES (k, M, G), 256 or more"},
	neverClose:   {Name: "neverclose", Text: "does all as it should and then never closes, not even when the client has said DISCONNECT or closed"},
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
