package main

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"multirsh/runner"
	"multirsh/transport"
)

// The steps of a visit.
const (
	stepSettings = "settings" // told of where they are wrong alone
	stepResolve  = "resolve"
	stepRoute    = "route"
	stepPort     = "reserved port"
	stepConnect  = "connect"
	stepVersion  = "version"
	stepKeys     = "key exchange"
	stepTaken    = "port accepted" // by rshd(8)
	stepName     = "reverse name"
	stepAuth     = "authorisation"
	stepStderr   = "stderr channel"
	stepCommand  = "command"
	stepStatus   = "status"
	stepClose    = "close"
)

// courses are the steps over each transport, in their order.
var courses = map[string][]string{
	"rsh": {stepResolve, stepRoute, stepPort, stepConnect, stepTaken, stepName, stepAuth, stepStderr, stepCommand, stepStatus, stepClose},
	"ssh": {stepSettings, stepResolve, stepRoute, stepConnect, stepVersion, stepKeys, stepAuth, stepCommand, stepStatus, stepClose},
}

var stepOf = map[transport.Phase]string{
	transport.PhaseResolve: stepResolve, transport.PhasePort: stepPort, transport.PhaseConnect: stepConnect, transport.PhaseVersion: stepVersion,
	transport.PhaseKeyExchange: stepKeys, transport.PhaseHandshake: stepAuth, transport.PhaseAuth: stepAuth, transport.PhaseStderr: stepStderr,
	transport.PhaseStart: stepCommand, transport.PhaseRun: stepStatus, transport.PhaseDrain: stepClose, transport.PhaseClose: stepClose,
}

// The states of a step.
const (
	stepOK      = "ok"
	stepFailed  = "failed"
	stepUnknown = "unknown" // the protocol does not tell, or the visit was interrupted there
)

// step is one of a visit.
type step struct {
	Step  string   `json:"step"`
	State string   `json:"state"`
	MS    *float64 `json:"ms,omitempty"` // nil: it ended together with another one, which has the time of both
	Note  string   `json:"note,omitempty"`
}

// mend is one thing that may help.
type mend struct {
	At   string `json:"at,omitempty"`   // "here", or the host on which to do it; "": somewhere on the way
	Run  string `json:"run,omitempty"`  // a command for a shell there
	Text string `json:"text,omitempty"` // what it shows or does, or what to do without a command
}

// visit is what was found on the way to a host.
type visit struct {
	Host      string         `json:"host"`
	Transport string         `json:"transport"`
	Outcome   runner.Outcome `json:"outcome"`
	Steps     []step         `json:"steps"`
	Failed    string         `json:"failed,omitempty"` // the first step that did
	Cause     string         `json:"cause,omitempty"`
	Mend      []mend         `json:"mend,omitempty"`

	host   transport.Host
	hung   string          // the step in which it was interrupted
	silent bool            // rshd has taken the connection and not answered in time
	said   map[string]step // by the name of a step: State and Note, where they are not what the marks tell
	own    []string        // pairs: what the texts have that is this host's own, and a word for it

	mu     sync.Mutex // of what follows, until the run is over
	start  time.Time
	ended  time.Time
	marks  []mark
	addrs  []netip.AddrPort
	local  netip.AddrPort // our end of the connection
	routed error
}

// mark is a step that was passed, which may be more than once.
type mark struct {
	step string
	at   time.Time
	took time.Duration // since the mark before
	note string
	vain bool // an address that could not be connected to
}

func (v *visit) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.start = time.Now()
}

func (v *visit) begun() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.start.IsZero()
}

// passed is the session's trace.
func (v *visit) passed(p transport.Passed) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch p.Phase {
	case transport.PhaseResolve:
		v.addrs = p.Addrs
		var texts []string
		for _, addr := range p.Addrs {
			texts = append(texts, addr.Addr().String())
		}
		p.Note = cmp.Or(p.Note, strings.Join(texts, ", "))
	case transport.PhaseConnect:
		if p.Err == nil {
			local, _, _ := strings.Cut(p.Note, " ")
			v.local, _ = netip.ParseAddrPort(local)
		}
	}
	v.mark(stepOf[p.Phase], p.Note, p.Err != nil)
	if p.Phase == transport.PhaseResolve && len(p.Addrs) > 0 {
		var note string
		for _, addr := range p.Addrs { // one that can be reached is enough
			if note, v.routed = route(addr); v.routed == nil {
				v.mark(stepRoute, note, false)
				return
			}
		}
	}
}

func (v *visit) mark(name, note string, vain bool) {
	now, last := time.Now(), v.start
	if n := len(v.marks); n > 0 {
		last = v.marks[n-1].at
	}
	v.marks = append(v.marks, mark{name, now, now.Sub(last), note, vain})
}

// reached says whether a step was passed.
func (v *visit) reached(name string) bool {
	return slices.ContainsFunc(v.marks, func(m mark) bool { return m.step == name && !m.vain })
}

// letIn says whether rshd has authorised us.
func (v *visit) letIn() bool { return v != nil && v.reached(stepAuth) }

// next is the step behind the last one that was passed.
func (v *visit) next() string {
	course := courses[v.Transport]
	if len(v.marks) == 0 {
		return stepResolve
	}
	last := v.marks[len(v.marks)-1]
	if last.vain {
		return last.step
	}
	i := slices.Index(course, last.step)
	if v.Transport == "rsh" && last.step == stepPort && v.reached(stepConnect) { // that for stderr
		i = slices.Index(course, stepConnect)
	}
	if next := course[min(i+1, len(course)-1)]; next != stepRoute {
		return next
	}
	return course[i+2] // the route takes no time
}

// tell makes the steps of the marks: those before the one that failed or was interrupted, which has all the time since. On a visit that
// went well, those without a mark are not known.
func (v *visit) tell() {
	course := courses[v.Transport]
	end := len(course)
	if last := cmp.Or(v.Failed, v.hung); last != "" {
		end = slices.Index(course, last)
	}
	v.Steps = nil
	since := v.start
	for _, m := range v.marks {
		if slices.Index(course, m.step) < end {
			since = m.at
		}
	}
	for i, name := range course[:end] {
		s := step{Step: name, State: stepOK}
		var notes, vain []string
		for _, m := range v.marks {
			switch {
			case m.step != name:
				continue
			case m.vain:
				vain = append(vain, m.note)
			case m.note != "" && name == stepPort:
				notes = append(notes, m.note)
			case m.note != "":
				notes = []string{m.note}
			}
			s.took(m.took)
		}
		if len(vain) > 0 {
			notes = append(notes, "after "+strings.Join(vain, ", ")+" in vain")
		}
		s.Note = strings.Join(notes, ", ")
		said, told := v.said[name]
		if told {
			s.State, s.Note = cmp.Or(said.State, s.State), cmp.Or(said.Note, s.Note)
		}
		switch {
		case s.MS != nil, told:
		case v.Transport == "rsh" && (name == stepTaken || name == stepName): // of which the byte that authorises tells
		case end == len(course) && slices.Index(course, stepCommand) <= i:
			s.State = stepUnknown
		default:
			continue // not on this way
		}
		v.Steps = append(v.Steps, s)
	}
	if end == len(course) {
		return
	}
	last := step{Step: course[end], State: stepFailed}
	if v.hung != "" {
		last.State, last.Note = stepUnknown, "interrupted"
	}
	last.took(max(0, v.ended.Sub(since)))
	v.Steps = append(v.Steps, last)
}

// took adds to the time of a step.
func (s *step) took(d time.Duration) {
	ms := float64(d.Microseconds()) / 1000
	if s.MS != nil {
		ms += *s.MS
	}
	s.MS = &ms
}

// route asks the kernel which way packets to an address go. Connecting a UDP socket sends nothing.
func route(to netip.AddrPort) (note string, err error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err
		}
		return "", err
	}
	defer c.Close()
	from := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	note = "from " + from.WithZone("").String()
	interfaces, err := net.Interfaces()
	if err != nil {
		return note, nil
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if net, is := a.(*net.IPNet); is && net.IP.Equal(from.AsSlice()) {
				return note + " on " + i.Name, nil
			}
		}
	}
	return note, nil
}
