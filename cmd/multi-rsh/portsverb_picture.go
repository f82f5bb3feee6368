package main

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"multirsh/runner/output"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/rsh/sockdiag"
)

// look is how a port in some state is shown: a letter, so that no colour is needed, and a colour.
type look struct {
	name   string // as in JSON and --state
	alias  string // ss(8)'s other name for it
	letter byte
	color  output.Color
	states []sockdiag.State // nil: of ports without a socket
	first  string           // who closed first
}

// looks are in the order of what is worse for a port: one that has sockets in many states is shown in the last of these. TIME-WAIT
// goes away by itself and CLOSE-WAIT does not.
var looks = []look{
	{name: "free", letter: '.', color: output.Faint},
	{name: "blocked", letter: '#', color: output.Magenta},
	{name: "listen", alias: "listening", letter: 'L', color: output.Cyan, states: []sockdiag.State{sockdiag.Listen}},
	{name: "bound", alias: "unconn", letter: 'B', color: output.Cyan, states: []sockdiag.State{sockdiag.Bound, sockdiag.Closed}},
	{name: "established", alias: "estab", letter: 'E', color: output.Green, states: []sockdiag.State{sockdiag.Established}},
	{name: "syn-sent", letter: 'S', color: output.Green, states: []sockdiag.State{sockdiag.SynSent}},
	{name: "syn-received", alias: "syn-recv", letter: 'R', color: output.Green, states: []sockdiag.State{sockdiag.SynRecv, sockdiag.NewSynRecv}},
	{name: "last-ack", letter: 'A', color: output.Yellow, states: []sockdiag.State{sockdiag.LastAck}, first: "they"},
	{name: "closing", letter: 'C', color: output.Yellow, states: []sockdiag.State{sockdiag.Closing}, first: "both"},
	{name: "fin-wait-1", letter: '1', color: output.Yellow, states: []sockdiag.State{sockdiag.FinWait1}, first: "we"},
	{name: "fin-wait-2", letter: '2', color: output.Yellow, states: []sockdiag.State{sockdiag.FinWait2}, first: "we"},
	{name: "time-wait", letter: 'T', color: output.Red, states: []sockdiag.State{sockdiag.TimeWait}, first: "we"},
	{name: "close-wait", letter: 'W', color: output.BoldRed, states: []sockdiag.State{sockdiag.CloseWait}, first: "they"},
}

const (
	lookFree    = 0 // indices in looks
	lookBlocked = 1
)

// lookAt is the index of a state's look. A state that a later kernel may have is shown as in use.
func lookAt(s sockdiag.State) int {
	at := slices.IndexFunc(looks, func(l look) bool { return slices.Contains(l.states, s) })
	if at < 0 {
		return lookAt(sockdiag.Established)
	}
	return at
}

func lookOf(s sockdiag.State) look { return looks[lookAt(s)] }

// portsPicture is what the ports were doing at some time.
type portsPicture struct {
	time    time.Time
	sockets []sockdiag.Socket // in the order of their ports
	owners  sockdiag.Owners
	blocked map[uint16]string // with what blocks them
	total   int               // sockets in the range, with those that were not wanted
	filter  string            // what was wanted; "": all
}

const rangeSize = resvport.Last - resvport.First + 1

// ports is the look of each port, as an index.
func (p *portsPicture) ports() (ports [rangeSize]int) {
	for port := range p.blocked {
		ports[port-resvport.First] = lookBlocked
	}
	for _, s := range p.sockets {
		i := s.Local.Port() - resvport.First
		ports[i] = max(ports[i], lookAt(s.State))
	}
	return ports
}

// count counts ports by look.
func count(ports [rangeSize]int) []int {
	counts := make([]int, len(looks))
	for _, at := range ports {
		counts[at]++
	}
	return counts
}

// inUse is how many ports have a socket.
func inUse(counts []int) int { return rangeSize - counts[lookFree] - counts[lookBlocked] }

// portsView writes pictures.
type portsView struct {
	output.Stream
	name func(uid uint32) string
}

// picture writes the headline, the grid and its legend.
func (v *portsView) picture(p *portsPicture) {
	ports := p.ports()
	counts := count(ports)
	v.headline(p, counts)
	fmt.Fprintln(v.W)
	v.grid(ports)
	fmt.Fprintln(v.W)
	v.legend(counts, p.filter != "")
}

// headline says how many there are, in a line where the terminal is wide enough.
func (v *portsView) headline(p *portsPicture, counts []int) {
	text := fmt.Sprintf("%d in use by %s, %d blocked, %d free", inUse(counts), plural(len(p.sockets), "socket"), counts[lookBlocked], counts[lookFree])
	if p.filter != "" {
		text = fmt.Sprintf("%s of %d on %s (%s)", plural(len(p.sockets), "socket"), p.total, plural(inUse(counts), "port"), p.filter)
	}
	writeParagraph(v.W, fmt.Sprintf("reserved ports %d to %d: %s", resvport.First, resvport.Last, text), "", cmp.Or(v.Width, math.MaxInt))
}

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}

// grid writes a letter for each port: 64 in a row, in groups of eight, or as many as the terminal has room for.
func (v *portsView) grid(ports [rangeSize]int) {
	const group = 8
	across := 64
	for v.Width > 0 && across > group && 5+across+across/group-1 > v.Width {
		across /= 2
	}
	var b strings.Builder
	b.WriteString("    ")
	for column := 0; column < across; column += group {
		fmt.Fprintf(&b, " +%-*d", group-1, column)
	}
	fmt.Fprintln(v.W, strings.TrimRight(b.String(), " "))
	for row := 0; row < rangeSize; row += across {
		b.Reset()
		fmt.Fprintf(&b, "%4d", resvport.First+row)
		for column := 0; column < across; column += group {
			b.WriteByte(' ')
			cells := ports[row+column : row+column+group]
			for len(cells) > 0 { // a run of one colour at a time
				n := 1
				for n < len(cells) && looks[cells[n]].color == looks[cells[0]].color {
					n++
				}
				letters := make([]byte, n)
				for i := range n {
					letters[i] = looks[cells[i]].letter
				}
				b.WriteString(v.Paint(looks[cells[0]].color, string(letters)))
				cells = cells[n:]
			}
		}
		fmt.Fprintln(v.W, b.String())
	}
}

// legend says what the letters mean that are there, and on how many ports each is.
func (v *portsView) legend(counts []int, filtered bool) {
	width, column := cmp.Or(v.Width, 80), 0
	var b strings.Builder
	for at, l := range looks {
		if counts[at] == 0 {
			continue
		}
		name := l.name
		if filtered && at == lookFree {
			name = "none of these"
		}
		text := fmt.Sprintf("%c %s %d", l.letter, name, counts[at])
		switch {
		case column > 0 && column+3+len(text) > width:
			b.WriteByte('\n')
			column = 0
		case column > 0:
			b.WriteString("   ")
			column += 3
		}
		column += len(text)
		b.WriteString(v.Paint(l.color, text[:1]) + text[1:])
	}
	fmt.Fprintln(v.W, b.String())
}

// Columns that are enough for peers over IPv4, and for most owners.
const (
	ipv4Peer  = 21
	mostOwner = 23
)

// table lists the sockets, n of them at most.
func (v *portsView) table(p *portsPicture, n int) {
	if len(p.sockets) == 0 {
		return
	}
	heading := fmt.Sprintf("%-5s %-12s %5s %-5s ", "PORT", "STATE", "LEFT", "FIRST")
	indent := len(heading)
	peers := ipv4Peer
	for _, s := range p.sockets[:n] {
		peers = max(peers, utf8.RuneCountInString(peerOf(s)))
	}
	if v.Width > 0 && indent+peers+1+mostOwner > v.Width {
		peers = ipv4Peer // and the few that are longer have a line for their owner
	}
	fmt.Fprintf(v.W, "\n%s%-*s OWNER\n", heading, peers, "PEER")
	hidden := 0
	var b []byte
	for i, s := range p.sockets {
		owner, known := v.owner(p, s)
		if !known {
			hidden++
		}
		if i >= n {
			continue
		}
		l := lookOf(s.State)
		peer := peerOf(s)
		b = strconv.AppendUint(b[:0], uint64(s.Local.Port()), 10)
		b = pad(b, 6)
		b = append(b, v.Paint(l.color, l.name)...)
		b = append(b, blank[:12-len(l.name)+1]...)
		b = fmt.Appendf(b, "%5s %-5s ", cmp.Or(left(s), "-"), cmp.Or(l.first, "-"))
		if v.Width > 0 && indent+max(peers, utf8.RuneCountInString(peer))+1+utf8.RuneCountInString(owner) > v.Width {
			b = fmt.Appendf(b, "%s\n%*s%s\n", peer, indent, "", owner)
		} else {
			start := len(b)
			b = append(b, peer...)
			b = pad(b, start+peers+1+len(peer)-utf8.RuneCountInString(peer))
			b = append(append(b, owner...), '\n')
		}
		v.W.Write(b)
	}
	if rest := len(p.sockets) - n; rest > 0 {
		fmt.Fprintf(v.W, "… and %d more\n", rest)
	}
	if hidden > 0 {
		fmt.Fprintf(v.W, "Whose process has %s is hidden from this user: run it as root to see.\n", plural(hidden, "socket"))
	}
}

// blank is longer than any column.
var blank = strings.Repeat(" ", 64)

// pad fills a line up to a column.
func pad(b []byte, column int) []byte {
	return append(b, blank[:min(len(blank), max(0, column-len(b)))]...)
}

// left is how long a socket still lasts, as far as a clock decides that: in TIME-WAIT, and in FIN-WAIT-2 without a process.
func left(s sockdiag.Socket) string {
	if s.Timer != sockdiag.TimeWaitTimer {
		return ""
	}
	return fmt.Sprintf("%.1fs", s.Expires.Seconds())
}

// peerOf is the peer's address, or for a socket without one where it is bound.
func peerOf(s sockdiag.Socket) string {
	if s.Remote.Port() == 0 {
		return "on " + address(s, s.Local.Addr().String())
	}
	if !linkLocal(s) {
		return s.Remote.String()
	}
	host := address(s, s.Remote.Addr().String())
	return net.JoinHostPort(host, strconv.Itoa(int(s.Remote.Port())))
}

// linkLocal tells whether the socket's addresses mean nothing without its interface.
func linkLocal(s sockdiag.Socket) bool {
	return s.Interface != 0 && (s.Remote.Addr().IsLinkLocalUnicast() || s.Local.Addr().IsLinkLocalUnicast())
}

// address names the interface of an address that means nothing without it.
func address(s sockdiag.Socket, host string) string {
	if !linkLocal(s) {
		return host
	}
	if card, err := net.InterfaceByIndex(int(s.Interface)); err == nil {
		return host + "%" + card.Name
	}
	return host + "%" + strconv.Itoa(int(s.Interface))
}

// owner says who holds a socket, and whether that is known.
func (v *portsView) owner(p *portsPicture, s sockdiag.Socket) (text string, known bool) {
	if s.Inode == 0 {
		return "kernel", true
	}
	holders := p.owners.ByInode[s.Inode]
	if len(holders) == 0 {
		return "user " + v.name(s.UID), p.owners.Hidden == 0
	}
	return held(holders), true
}

// held names the first of the processes, and says how many more there are.
func held(holders []sockdiag.Process) string {
	text := fmt.Sprintf("%s (%d)", harmless(holders[0].Name), holders[0].PID)
	if more := len(holders) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// harmless is text that does nothing to a terminal: a process may call itself anything.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, text)
}

// userNames looks each user up once.
func userNames() func(uid uint32) string {
	names := map[uint32]string{}
	return func(uid uint32) string {
		if names[uid] == "" {
			id := strconv.FormatUint(uint64(uid), 10)
			names[uid] = id
			if u, err := user.LookupId(id); err == nil {
				names[uid] = harmless(u.Username)
			}
		}
		return names[uid]
	}
}

// portsDocument is a picture in JSON.
type portsDocument struct {
	Time    time.Time      `json:"time"`
	Sockets []socketRecord `json:"sockets"`
	Summary portsSummary   `json:"summary"`
}

type socketRecord struct {
	Port        uint16 `json:"port"`
	State       string `json:"state"`
	Local       string `json:"local"`
	Peer        string `json:"peer,omitempty"`
	IPv6        bool   `json:"ipv6"`
	Timer       string `json:"timer,omitempty"` // what is to happen in expires_ms: timewait, retransmit, keepalive or probe
	Expires     *int64 `json:"expires_ms,omitempty"`
	ClosedFirst string `json:"closed_first,omitempty"` // we, they or both
	UID         uint32 `json:"uid"`
	Inode       uint32 `json:"inode"`
	PID         int    `json:"pid,omitempty"`
	Process     string `json:"process,omitempty"`
	Holders     int    `json:"holders,omitempty"` // processes that have it open
	Result      string `json:"result,omitempty"`  // of reap
}

type portsSummary struct {
	Ports   map[string]int `json:"ports"`   // how many of the 512 are in each state, those with sockets in many in the worst
	Sockets map[string]int `json:"sockets"` // how many of those listed are in each state
	InUse   int            `json:"in_use"`  // ports with a socket
	Hidden  int            `json:"hidden"`  // processes that could not be looked at
}

var timerNames = map[sockdiag.Timer]string{
	sockdiag.Retransmit: "retransmit", sockdiag.Keepalive: "keepalive", sockdiag.TimeWaitTimer: "timewait", sockdiag.ZeroWindow: "probe",
}

func (p *portsPicture) document() portsDocument {
	d := portsDocument{
		Time: p.time, Sockets: make([]socketRecord, len(p.sockets)),
		Summary: portsSummary{Ports: map[string]int{}, Sockets: map[string]int{}, Hidden: p.owners.Hidden},
	}
	for i, s := range p.sockets {
		d.Sockets[i] = p.record(s)
		d.Summary.Sockets[d.Sockets[i].State]++
	}
	counts := count(p.ports())
	d.Summary.InUse = inUse(counts)
	for at, n := range counts {
		if n > 0 {
			d.Summary.Ports[looks[at].name] = n
		}
	}
	return d
}

func (p *portsPicture) record(s sockdiag.Socket) socketRecord {
	l := lookOf(s.State)
	r := socketRecord{
		Port: s.Local.Port(), State: l.name, IPv6: s.IPv6, ClosedFirst: l.first, UID: s.UID, Inode: s.Inode,
		Local: net.JoinHostPort(address(s, s.Local.Addr().String()), strconv.Itoa(int(s.Local.Port()))),
		Timer: timerNames[s.Timer],
	}
	if s.Remote.Port() != 0 {
		r.Peer = peerOf(s)
	}
	if r.Timer != "" {
		ms := s.Expires.Milliseconds()
		r.Expires = &ms
	}
	if holders := p.owners.ByInode[s.Inode]; s.Inode != 0 && len(holders) > 0 {
		r.PID, r.Process, r.Holders = holders[0].PID, holders[0].Name, len(holders)
	}
	return r
}
