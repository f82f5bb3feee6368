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
	d.plan, err = d.env.plan(ctx, d.config, func(hosts *selection) error {
		if hosts.by["exec"] {
			return usagef("doctor: local commands (exec) have no connection to look at; name hosts that are reached by ssh or rsh")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if d.where, err = d.destinations(d.config, d.plan.hosts, d.plan.reach); err != nil {
		d.plan.close()
		return err
	}
	if t := d.plan.reach.ssh; t != nil {
		t.Shutdown(ctx) // of what was found while the hosts were asked for their keys: a visit is to see it for itself
	}
	return nil
}

// examine visits the hosts and tells what was found. When ctx ends before all of them have been visited, it tells of those that have, and of
// those under way how far they had come.
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
			done := len(found)
			for _, v := range found {
				if v.hung != "" {
					done--
				}
			}
			fmt.Fprintf(d.Stderr, "multi-rsh: %v: %d of %d hosts have been looked at\n", err, done, d.plan.hosts.count)
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

// visit has the hosts visited. The visits are in the order of the hosts, without those that had not begun when ctx ended: its cause is then
// the error.
func (d *checkup) visit(ctx context.Context, t transport.Transport, hosts *selection) (found []*visit, err error) {
	d.visits = map[string]*visit{}
	r := &runner.Runner{Transport: &visitor{t, d}, Fanout: d.fanout, Timeout: cmp.Or(d.timeout, longestVisit), Limits: hosts.limits}
	results := make([]*runner.Result, hosts.count)
	sink := output.Tee(d.progress, finishes(func(r *runner.Result) { results[r.Seq] = r }))
	_, err = r.Run(ctx, hosts.all, func(transport.Host) *transport.Command { return &transport.Command{Line: d.command} }, sink)
	for _, r := range results {
		if r == nil {
			continue
		}
		v := d.of(r.Host)
		if r.Outcome == runner.Cancelled && !v.begun() {
			continue
		}
		v.conclude(context.WithoutCancel(ctx), d, r) // names are looked up for those that were visited whatever has ended the visits
		found = append(found, v)
	}
	return found, err
}

// second looks again at hosts of rsh that have not answered in time: without the channel for stderr it shows whether it is that
// channel which does not come through. A host that answers then is asked once more with the channel: it may have been slow the first time.
func (d *checkup) second(ctx context.Context, found []*visit) error {
	first := d.plan.reach.rsh
	if first == nil || d.merge {
		return nil
	}
	silent := slices.DeleteFunc(slices.Clone(found), func(v *visit) bool { return !v.silent })
	without, err := d.again(ctx, silent, &rsh.Transport{
		Ports: first.Ports, LocalUser: first.LocalUser, User: first.User, ConnectTimeout: first.ConnectTimeout, Plain: first.Plain,
		Merge: true, LookupNetIP: first.LookupNetIP,
	})
	if err != nil {
		return err
	}
	answered := slices.DeleteFunc(slices.Clone(silent), func(v *visit) bool { return !without[v.Host].letIn() })
	with, err := d.again(ctx, answered, first)
	if err != nil {
		return err
	}
	for _, v := range silent {
		v.compare(d, without[v.Host], with[v.Host])
	}
	return nil
}

// again visits some hosts once more, over another transport.
func (d *checkup) again(ctx context.Context, some []*visit, t transport.Transport) (map[string]*visit, error) {
	if len(some) == 0 {
		return nil, nil
	}
	these := make(map[string]*visit)
	for _, v := range some {
		these[v.Host] = nil
	}
	hosts := *d.plan.hosts
	hosts.count = len(some)
	hosts.all = func(yield func(transport.Host) bool) {
		for host := range d.plan.hosts.all {
			if _, one := these[host.Name]; one && !yield(host) {
				return
			}
		}
	}
	d.progress.Expect(len(some))
	found, err := d.visit(ctx, t, &hosts)
	for _, v := range found {
		these[v.Host] = v
	}
	return these, err
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
