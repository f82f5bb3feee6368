package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"multirsh/runner"
	"multirsh/runner/output"
	"multirsh/transport"
	"multirsh/transport/rsh"
)

//go:embed multi-rsh-doctor.1
var doctorManual []byte

// doctorLine is the command line of "multi-rsh doctor". Which hosts, and how they are reached, is said as for a run.
var doctorLine = &commandLine{name: "multi-rsh doctor", options: append(func() (options []*option) {
	for _, name := range []string{
		"hosts", "exclude", "group", "exclude-group", "all", "hosts-file", "inventory", "pick",
		"user", "fanout", "timeout", "connect-timeout", "merge",
		"transport", "plain",
		"ssh-config", "ssh-option", "identity", "jump", "host-keys", "ask-pass", "askpass-command", "connect-retries", "sh", "legacy",
	} {
		options = append(options, runLine.byLong(name))
	}
	return options
}(),
	&option{name: "json", letters: "j", group: "Result", text: "one JSON document"},
	&option{name: "color", arg: "WHEN", group: "Result", text: "auto, always, or never"},
	runLine.byLong("config"),
	&option{name: "help", letters: "h", action: true, group: "Other", text: "this page"},
	&option{name: "man", action: true, group: "Other", text: "the manual of doctor"},
)}

// doctorHelp fits a screen of 80 by 50.
var doctorHelp = helpPage{
	head: `multi-rsh doctor makes a connection to hosts, runs "true" there, tells of each
step how long it took, and of the first that fails why, and what mends it.

  multi-rsh doctor [options] host...        (or -w, -g, -a, -l)
`,
	foot: `Examples
  multi-rsh doctor -R rsh -w 'node[01-16]'
  multi-rsh doctor -g web --json
`,
}

// longestVisit is how long a host may take as a whole where --timeout does not say so: a login that hangs, as with a home directory on
// a dead server, is to be told and not waited for.
const longestVisit = time.Minute

// checkup is what the verb is asked.
type checkup struct {
	*env
	*config
	json bool

	plan     *plan
	where    *destinations
	progress *output.Progress
	names    map[netip.Addr]string // of our addresses, by this machine's resolver; "": it knows none

	mu     sync.Mutex
	visits map[string]*visit // by the host's name
}

// doctorVerb is "multi-rsh doctor". Its errors are as a run's.
func (e *env) doctorVerb(args []string) error {
	if len(args) == 0 {
		return doctorLine.help(e.Stdout, doctorHelp)
	}
	args, err := doctorLine.optionsFirst(args)
	if err != nil {
		return err
	}
	a, err := doctorLine.split(args, func(name string) string {
		if name == doctorLine.byLong("json").environ() {
			return "" // which is about records of runs
		}
		return e.Getenv(name)
	})
	switch {
	case err != nil:
		return err
	case a.action == "help":
		return doctorLine.help(e.Stdout, doctorHelp)
	case a.action == "man":
		return e.writeManual(doctorManual)
	}
	for _, word := range a.words {
		a.options = append(a.options, "--hosts="+word)
		a.origin["hosts"] = cmp.Or(a.origin["hosts"], "-w")
	}
	a.words = []string{"true"} // the command
	if !a.settled()["hosts"] && e.Getenv("WCOLL") == "" {
		return usagef("doctor: no hosts: name them, multi-rsh doctor host..., or by -w, -g, -a or -l")
	}
	values, files, err := e.settle(a)
	if err != nil {
		return err
	}
	d := &checkup{env: e, json: values.Bool("json"), names: map[netip.Addr]string{}}
	if d.config, err = a.config(values, files, e.Getenv); err != nil {
		return err
	}
	signals := e.Signals()
	if err := e.before(signals, d.prepare); err != nil {
		return err
	}
	defer d.plan.close()
	return e.obey(signals, d.examine)
}

// prepare selects the hosts, and refuses those that there is nothing to find out of.
func (d *checkup) prepare(ctx context.Context) (err error) {
	if d.plan, err = d.env.plan(ctx, d.config); err != nil {
		return err
	}
	if d.plan.hosts.by["exec"] {
		err = usagef("doctor: local commands (exec) have no connection to look at; name hosts that are reached by ssh or rsh")
	} else {
		d.where, err = d.destinations(d.config, d.plan.hosts, d.plan.reach)
	}
	if err != nil {
		d.plan.close()
	}
	return err
}

// examine visits the hosts and tells what was found. When ctx ends before all of them have been visited, it tells of those that have.
func (d *checkup) examine(ctx context.Context) error {
	screen := d.screen()
	found, err := d.visit(ctx, d.plan.reach, d.plan.hosts)
	if err == nil {
		err = d.second(ctx, found)
	}
	if lost := screen.Stop(); err == nil {
		err = lost
	}
	if ended := context.Cause(ctx); err != nil && !errors.Is(err, ended) {
		return err
	}
	out := newPrinter(context.Background(), d.Stdout, "") // what was found is told, whatever has ended the visits
	if d.json {
		out.json(checkupDocument(found))
	} else {
		stdout, _ := d.streams(&d.config.view)
		stdout.W = out
		(&checkupView{stdout}).write(found)
	}
	if err := cmp.Or(out.done(), err); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintf(d.Stderr, "multi-rsh: %v: %d of %d hosts have been looked at\n", err, len(found), d.plan.hosts.count)
		}
		return err
	}
	for _, v := range found {
		if v.Failed != "" {
			return &ending{exitHosts}
		}
	}
	return nil
}

// screen shows on standard error how many hosts have been visited, if that is a terminal.
func (d *checkup) screen() *output.Screen {
	d.progress = &output.Progress{Total: d.plan.hosts.count, Ports: d.plan.reach.portsInUse()}
	tty, is := terminal(d.Stderr)
	return output.NewScreen(d.Stderr, func() (columns, rows int) {
		if is && d.config.progress == "auto" && d.Getenv("TERM") != "dumb" {
			columns, rows, _ = term.GetSize(int(tty.Fd()))
		}
		return columns, rows
	}, d.progress)
}

// visit has the hosts visited. The visits are in the order of the hosts, without those that the end of ctx has cost: its cause is then
// the error.
func (d *checkup) visit(ctx context.Context, t transport.Transport, hosts *selection) (found []*visit, err error) {
	d.visits = map[string]*visit{}
	r := &runner.Runner{Transport: &visitor{t, d}, Fanout: d.fanout, Timeout: cmp.Or(d.timeout, longestVisit), Limits: hosts.limits}
	results := make([]*runner.Result, hosts.count)
	sink := output.Tee(d.progress, finishes(func(r *runner.Result) { results[r.Seq] = r }))
	_, err = r.Run(ctx, hosts.all, func(transport.Host) *transport.Command { return &transport.Command{Line: d.command} }, sink)
	for _, r := range results {
		if r == nil || r.Outcome == runner.Cancelled {
			continue
		}
		v := d.of(r.Host)
		v.conclude(ctx, d, r)
		found = append(found, v)
	}
	return found, err
}

// second looks again at hosts of rsh that have not answered in time: without the channel for stderr it shows whether it is that
// channel which does not come through.
func (d *checkup) second(ctx context.Context, found []*visit) error {
	again := map[string]*visit{}
	for _, v := range found {
		if v.silent {
			again[v.Host] = v
		}
	}
	first := d.plan.reach.rsh
	if len(again) == 0 || first == nil || d.merge {
		return nil
	}
	hosts := *d.plan.hosts
	hosts.count = len(again)
	hosts.all = func(yield func(transport.Host) bool) {
		for host := range d.plan.hosts.all {
			if again[host.Name] != nil && !yield(host) {
				return
			}
		}
	}
	merged := &rsh.Transport{
		Ports: first.Ports, LocalUser: first.LocalUser, User: first.User, ConnectTimeout: first.ConnectTimeout, Plain: first.Plain,
		Merge: true, LookupNetIP: first.LookupNetIP,
	}
	d.progress.Total += hosts.count
	other, err := d.visit(ctx, merged, &hosts)
	for _, without := range other {
		again[without.Host].compare(d, without)
	}
	return err
}

// finishes is a sink that takes results alone.
type finishes func(*runner.Result)

// Event implements runner.Sink.
func (f finishes) Event(ev runner.Event) error {
	if ev.Kind == runner.Finish {
		f(ev.Result)
	}
	return nil
}

// Close implements runner.Sink.
func (finishes) Close() error { return nil }

// visitor is a transport whose sessions are traced.
type visitor struct {
	transport.Transport
	d *checkup
}

// Start implements transport.Transport.
func (t *visitor) Start(ctx context.Context, host transport.Host, cmd *transport.Command) (transport.Session, error) {
	v := t.d.of(host)
	v.begin()
	return t.Transport.Start(transport.WithTrace(ctx, v.passed), host, cmd)
}

// of is the visit of a host.
func (d *checkup) of(host transport.Host) *visit {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visits[host.Name]
	if v == nil {
		v = &visit{host: host, Host: host.Name, Transport: host.Transport}
		d.visits[host.Name] = v
	}
	return v
}

// The steps of a visit.
const (
	stepResolve = "resolve"
	stepRoute   = "route"
	stepPort    = "reserved port"
	stepConnect = "connect"
	stepVersion = "version"
	stepKeys    = "key exchange"
	stepTaken   = "port accepted" // by rshd(8)
	stepName    = "reverse name"
	stepAuth    = "authorisation"
	stepStderr  = "stderr channel"
	stepCommand = "command"
	stepStatus  = "status"
	stepClose   = "close"
)

var stepOf = map[transport.Phase]string{
	transport.PhaseResolve: stepResolve, transport.PhasePort: stepPort, transport.PhaseConnect: stepConnect, transport.PhaseVersion: stepVersion,
	transport.PhaseKeyExchange: stepKeys, transport.PhaseHandshake: stepAuth, transport.PhaseAuth: stepAuth, transport.PhaseStderr: stepStderr,
	transport.PhaseStart: stepCommand, transport.PhaseRun: stepStatus, transport.PhaseDrain: stepClose, transport.PhaseClose: stepClose,
}

// The states of a step.
const (
	stepOK      = "ok"
	stepFailed  = "failed"
	stepUnknown = "unknown" // the protocol does not tell
)

// step is one of a visit.
type step struct {
	Step  string   `json:"step"`
	State string   `json:"state"`
	MS    *float64 `json:"ms,omitempty"` // nil: it ended together with another one, which has the time of both
	Note  string   `json:"note,omitempty"`
}

// visit is what was found on the way to a host.
type visit struct {
	Host      string         `json:"host"`
	Transport string         `json:"transport"`
	Outcome   runner.Outcome `json:"outcome"`
	Steps     []step         `json:"steps"`
	Failed    string         `json:"failed,omitempty"` // the first step that did
	Cause     string         `json:"cause,omitempty"`
	Mend      []string       `json:"mend,omitempty"`

	host   transport.Host
	silent bool // rshd has taken the connection and not answered in time

	mu     sync.Mutex // of what follows, until the run is over
	last   time.Time  // when the last step was over
	addrs  []netip.AddrPort
	local  netip.AddrPort // our end of the connection
	routed error
}

func (v *visit) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = time.Now()
}

// passed is the session's trace.
func (v *visit) passed(p transport.Passed) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if p.Phase == transport.PhaseAuth && v.Transport == "rsh" { // of which one byte tells
		v.with(stepTaken, stepOK)
		v.with(stepName, stepOK)
	}
	switch p.Phase {
	case transport.PhaseResolve:
		v.addrs = p.Addrs
		var texts []string
		for _, addr := range p.Addrs {
			texts = append(texts, addr.Addr().String())
		}
		p.Note = cmp.Or(p.Note, strings.Join(texts, ", "))
	case transport.PhaseConnect:
		local, _, _ := strings.Cut(p.Note, " ")
		v.local, _ = netip.ParseAddrPort(local)
	}
	v.add(stepOf[p.Phase], stepOK, now.Sub(v.last), p.Note)
	v.last = now
	if p.Phase == transport.PhaseResolve && len(p.Addrs) > 0 {
		var note string
		for _, addr := range p.Addrs { // one that can be reached is enough
			if note, v.routed = route(addr); v.routed == nil {
				break
			}
		}
		v.last = time.Now()
		if v.routed == nil {
			v.add(stepRoute, stepOK, v.last.Sub(now), note)
		}
	}
}

// with notes a step that ended with the next one.
func (v *visit) with(name, state string) { v.Steps = append(v.Steps, step{Step: name, State: state}) }

// add notes a step, or that it was taken once more.
func (v *visit) add(name, state string, took time.Duration, note string) {
	ms := float64(took.Microseconds()) / 1000
	for i := range v.Steps {
		if s := &v.Steps[i]; s.Step == name {
			if s.State = state; s.MS != nil {
				ms += *s.MS
			}
			s.MS = &ms
			switch {
			case name == stepPort && s.Note != "":
				s.Note += ", " + note
			case note != "":
				s.Note = note
			}
			return
		}
	}
	v.Steps = append(v.Steps, step{Step: name, State: state, MS: &ms, Note: note})
}

// reached says whether a step went well.
func (v *visit) reached(name string) bool {
	for _, s := range v.Steps {
		if s.Step == name {
			return s.State == stepOK
		}
	}
	return false
}

// undo takes back a step and those after it, as if their time were that of the next one.
func (v *visit) undo(name string) {
	i := slices.IndexFunc(v.Steps, func(s step) bool { return s.Step == name })
	if i < 0 {
		return
	}
	for _, s := range v.Steps[i:] {
		if s.MS != nil {
			v.last = v.last.Add(-time.Duration(*s.MS * float64(time.Millisecond)))
		}
	}
	v.Steps = v.Steps[:i]
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

// ourName is what an address of ours is called here; where no name is known that is the address, and known is false. A name server that
// does not answer costs its two seconds once, and not for each host.
func (d *checkup) ourName(ctx context.Context, addr netip.Addr) (name string, known bool) {
	name, looked := d.names[addr]
	if !looked {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if names, err := net.DefaultResolver.LookupAddr(ctx, addr.Unmap().WithZone("").String()); err == nil && len(names) > 0 {
			name = strings.TrimSuffix(names[0], ".")
		}
		d.names[addr] = name
	}
	if name == "" {
		return addr.Unmap().String(), false
	}
	return name, true
}

// machine is what this one calls itself.
func machine() string {
	name, err := os.Hostname()
	if err != nil {
		return "this-machine"
	}
	return name
}
