package main

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"multirsh/runner/output"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/rsh/sockdiag"
)

//go:embed multi-rsh-ports.1
var portsManual []byte

// portsLine is the command line of "multi-rsh ports". In only are the sub-commands that an option is for; "show" is what is done without one.
var portsLine = &commandLine{name: "multi-rsh ports", options: []*option{
	{name: "state", letters: "s", arg: "STATE", many: true, only: "show reap", group: "Sockets", text: "only those in these states: time-wait,fin-wait-2"},
	{name: "peer", arg: "HOST", many: true, only: "show reap", group: "Sockets", text: "only with this peer: name, address, 10.1.0.0/16"},

	{name: "watch", only: "show", group: "Result", text: "draw it again each second, until q or Ctrl-C"},
	{name: "json", letters: "j", only: "show doctor reap", group: "Result", text: "one JSON document"},
	{name: "color", arg: "WHEN", group: "Result", text: "auto, always or never"},

	{name: "older-than", arg: "TIME", only: "reap", group: "Reap", text: "only what has lasted so long: 30 (seconds), 2m"},
	{name: "force", weakens: true, only: "reap", group: "Reap", text: "also sockets in use, which --state has to name"},
	{name: "yes", letters: "y", weakens: true, only: "reap", group: "Reap", text: "do not ask"},

	runLine.byLong("fanout"),
	runLine.byLong("config"),
	{name: "help", letters: "h", action: true, group: "Other", text: "this page"},
	{name: "man", action: true, group: "Other", text: "the manual of ports"},
}}

// portsHelp fits a screen of 80 by 50.
var portsHelp = helpPage{
	head: `multi-rsh ports shows what the reserved ports of this machine are doing, which
rsh needs: 512 to 1023, each of which TCP may keep for a minute after its use.

` + func() string {
		var lines strings.Builder
		for _, c := range portsCommands {
			fmt.Fprintf(&lines, "  multi-rsh ports %-16s %s\n", c.usage(), c.text)
		}
		return lines.String()
	}(),
	foot: `Examples
  multi-rsh ports --watch
  multi-rsh ports --state time-wait --peer node7
  multi-rsh ports reap --older-than 30s --peer 10.1.0.0/16
`,
}

// portsCommand is one of the things that the verb does.
type portsCommand struct {
	name, args, text string
	does             func(*portsQuery) error
}

func (c *portsCommand) usage() string {
	if c.name == "show" {
		return ""
	}
	return strings.TrimSpace(c.name + " " + c.args)
}

// portsCommands in the order of the help. The first is done where none is named.
var portsCommands = []*portsCommand{
	{name: "show", text: "draw them, and list the sockets", does: (*portsQuery).show},
	{name: "explain", args: "[PORT]", text: "what their states mean, and what ends them", does: (*portsQuery).explain},
	{name: "doctor", text: "what can go wrong here, and the remedy", does: (*portsQuery).doctor},
	{name: "reap", text: "end sockets that are stuck, after asking", does: (*portsQuery).reap},
}

// portsQuery is what the verb is asked.
type portsQuery struct {
	*env
	*portsCommand
	is        func(name string) bool // a switch is on
	given     map[string]string      // how an option was written that was given
	states    []sockdiag.State       // none: all of them
	peers     []string               // of --peer
	olderThan time.Duration
	port      uint16 // of explain; 0: all of them
	fanout    int
	kernel    kernel
	stdout    output.Stream // how standard output is to look

	ctx  context.Context
	nets []netip.Prefix // what the peers are
}

// rareGC has the collector run once or twice for 20,000 sockets, which are some 20 MB, instead of ten times: it would take a third of
// the time.
const rareGC = 800

// portsVerb is "multi-rsh ports". Its errors are as a run's.
func (e *env) portsVerb(args []string) error {
	args, err := portsLine.optionsFirst(args)
	if err != nil {
		return err
	}
	a, err := portsLine.split(args, func(string) string { return "" }) // the variables are about runs
	switch {
	case err != nil:
		return err
	case a.action == "help" || len(a.words) == 1 && a.words[0] == "help":
		return portsLine.help(e.Stdout, portsHelp)
	case a.action == "man":
		return e.writeManual(portsManual)
	}
	q := &portsQuery{env: e, given: maps.Clone(a.origin), fanout: defaultFanout, kernel: thisKernel}
	if err := q.command(a.words); err != nil {
		return err
	}
	values, _, err := e.settle(a)
	if err != nil {
		return err
	}
	if e.Getenv("GOGC") == "" {
		debug.SetGCPercent(rareGC)
	}
	q.is = values.Bool
	if err := q.options(a, values); err != nil {
		return err
	}
	return q.does(q)
}

// command takes the sub-command, and its port, from the words, and refuses options that are not for it.
func (q *portsQuery) command(words []string) error {
	q.portsCommand = portsCommands[0]
	if len(words) > 0 {
		var names []string
		for _, c := range portsCommands[1:] {
			names = append(names, c.name)
			if c.name == words[0] {
				q.portsCommand = c
			}
		}
		if q.portsCommand == portsCommands[0] {
			if best := nearest(words[0], names); best != "" {
				return usagef("ports %s: there is no such command; did you mean %s?", words[0], best)
			}
			return usagef("ports %s: there is no such command; it is %s, or none (multi-rsh -- ports runs a remote command of that name)", words[0], enumerate(names))
		}
		words = words[1:]
	}
	for _, o := range portsLine.options {
		only := strings.Fields(o.only)
		if o == runLine.byLong("fanout") {
			only = []string{"doctor"}
		}
		if as := q.given[o.name]; as != "" && len(only) > 0 && !slices.Contains(only, q.name) {
			return usagef("%s is for %s, and means nothing to %s; leave it out", as, enumerate(callings(only)), q.calling())
		}
	}
	if q.name == "explain" && len(words) > 0 {
		n, err := strconv.ParseUint(words[0], 10, 16)
		if err != nil || n < resvport.First || n > resvport.Last {
			return usagef("ports explain %q: a reserved port is a number from %d to %d", words[0], resvport.First, resvport.Last)
		}
		q.port, words = uint16(n), words[1:]
	}
	if len(words) > 0 {
		return usagef("%s: it takes no %q; multi-rsh ports --help shows what it takes", q.calling(), words[0])
	}
	return nil
}

// calling is how the sub-command is called in a message.
func (c *portsCommand) calling() string { return callings([]string{c.name})[0] }

func callings(names []string) (calls []string) {
	for _, name := range names {
		calls = append(calls, strings.TrimSuffix("ports "+name, " show"))
	}
	return calls
}

// options reads the options.
func (q *portsQuery) options(a *arguments, values *cli.Context) error {
	for _, text := range values.StringSlice("state") {
		states, err := parseStates(q.given["state"], text)
		if err != nil {
			return err
		}
		q.states = append(q.states, states...)
	}
	q.peers = values.StringSlice("peer")
	if text := values.String("older-than"); text != "" {
		d, err := parseTime(text)
		if err != nil || d <= 0 {
			return usagef("--older-than %q: this is a time, as 30 (seconds), 90s or 2m", text)
		}
		q.olderThan = d
	}
	var c config
	if err := a.fanout(values, &c); err != nil {
		return err
	}
	q.fanout = cmp.Or(c.fanout, q.fanout)
	when, err := a.oneOf(values, "color", "when there are colours", "auto", "always", "never")
	if err != nil {
		return err
	}
	q.stdout, _ = q.streams(&view{color: when})
	if q.is("watch") && !q.is("json") && !isTerminal(q.Stdout) {
		return usagef("--watch draws on a terminal, and standard output is none; --watch --json writes a document a second")
	}
	return nil
}

// parseStates reads names of states with commas between them, in RFC 9293's writing or ss(8)'s.
func parseStates(as, text string) (states []sockdiag.State, err error) {
	for name := range strings.SplitSeq(text, ",") {
		word := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), "_", "-")
		found := false
		for _, look := range looks {
			if word == look.name || word != "" && word == look.alias {
				states, found = append(states, look.states...), true
			}
		}
		if !found {
			var names []string
			for _, look := range looks {
				if look.states != nil {
					names = append(names, look.name)
				}
			}
			return nil, usagef("%s %q: there is no such state; there are %s", as, name, strings.Join(names, ", "))
		}
	}
	return states, nil
}

// resolve finds the addresses of --peer.
func (q *portsQuery) resolve() error {
	q.nets = nil
	for _, peer := range q.peers {
		if net, err := netip.ParsePrefix(peer); err == nil {
			q.nets = append(q.nets, net.Masked())
			continue
		}
		addrs := make([]netip.Addr, 1)
		var err error
		if addrs[0], err = netip.ParseAddr(strings.Trim(peer, "[]")); err != nil {
			if strings.Contains(peer, "/") {
				return usagef("--peer %s: this is no network; one is written as 10.1.0.0/16", peer)
			}
			if addrs, err = net.DefaultResolver.LookupNetIP(q.ctx, "ip", peer); err != nil {
				return usagef("--peer %s: its address cannot be found: %v", peer, err)
			}
		}
		for _, addr := range addrs {
			addr = addr.Unmap().WithZone("")
			q.nets = append(q.nets, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return nil
}

// wanted says whether the options let a socket be shown.
func (q *portsQuery) wanted(s sockdiag.Socket) bool {
	isPeer := func(net netip.Prefix) bool { return net.Contains(s.Remote.Addr()) }
	return (len(q.states) == 0 || slices.Contains(q.states, s.State)) &&
		(len(q.peers) == 0 || s.Remote.Port() != 0 && slices.ContainsFunc(q.nets, isPeer))
}

// read looks at the kernel's table. quiet is whether the sockets are to say how long they have been silent.
func (q *portsQuery) read(quiet bool) (*portsPicture, error) {
	// Who holds the sockets is found out meanwhile, unless none that is wanted can be held; no process has one in TIME-WAIT.
	ctx, stop := context.WithCancel(q.ctx)
	defer stop()
	var owners sockdiag.Owners
	var looking errgroup.Group
	if slices.ContainsFunc(q.states, func(s sockdiag.State) bool { return s != sockdiag.TimeWait }) || len(q.states) == 0 {
		looking.Go(func() (err error) {
			owners, err = sockdiag.FindOwners(ctx)
			return err
		})
	}
	table, err := sockdiag.Table(sockdiag.Filter{MinPort: resvport.First, MaxPort: resvport.Last, Quiet: quiet})
	p := &portsPicture{time: q.Now(), blocked: resvport.Blocked(q.Etc), total: len(table), filter: q.filter()}
	table = slices.DeleteFunc(table, func(s sockdiag.Socket) bool { return !q.wanted(s) })
	held := slices.ContainsFunc(table, func(s sockdiag.Socket) bool { return s.Inode != 0 })
	if !held {
		stop()
	}
	p.sockets = byPort(table)
	if other := looking.Wait(); err == nil && held {
		err = other
	}
	if err != nil {
		return nil, fmt.Errorf("the sockets of this machine cannot be read: %w", err)
	}
	p.owners = owners
	return p, nil
}

// byPort sorts sockets by port, and leaves out what was seen twice because it changed its state while the table was read. It is what
// was seen later that stays.
func byPort(table []sockdiag.Socket) []sockdiag.Socket {
	var ports [rangeSize][]*sockdiag.Socket // a port at a time, and pointers: a fifth of the time of sorting the whole table
	for i := range table {
		at := table[i].Local.Port() - resvport.First
		ports[at] = append(ports[at], &table[i])
	}
	kept := make([]sockdiag.Socket, 0, len(table))
	for _, of := range ports {
		slices.SortStableFunc(of, func(a, b *sockdiag.Socket) int {
			return cmp.Or(a.Remote.Compare(b.Remote), a.Local.Compare(b.Local))
		})
		for _, s := range of {
			if n := len(kept); n > 0 && s.Remote.Port() != 0 && s.Remote == kept[n-1].Remote && s.Local == kept[n-1].Local && s.Interface == kept[n-1].Interface {
				kept[n-1] = *s
				continue
			}
			kept = append(kept, *s)
		}
	}
	return kept
}

// filter is how the options that choose sockets are written.
func (q *portsQuery) filter() string {
	var words []string
	for _, s := range q.states {
		words = append(words, lookOf(s).name)
	}
	if len(q.peers) > 0 {
		words = append(words, "with "+strings.Join(q.peers, ", "))
	}
	return strings.Join(words, ", ")
}

// view is how things are written to w, which leads to standard output.
func (q *portsQuery) view(w io.Writer) *portsView {
	stream := q.stdout
	stream.W = w
	return &portsView{Stream: stream, name: userNames()}
}

// show draws the ports once, or until somebody has seen enough.
func (q *portsQuery) show() error {
	if q.is("watch") {
		return q.watch()
	}
	return q.before(q.Signals(), func(ctx context.Context) error {
		q.ctx = ctx
		if err := q.resolve(); err != nil {
			return err
		}
		p, err := q.read(false)
		if err != nil {
			return err
		}
		out := newPrinter(ctx, q.Stdout, "")
		if q.is("json") {
			out.json(p.document())
			return out.done()
		}
		view := q.view(out)
		view.picture(p)
		view.table(p, len(p.sockets))
		return out.done()
	})
}
