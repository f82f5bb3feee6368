package main

import (
	"context"
	"errors"
	"iter"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"multirsh/runner"
	"multirsh/runner/hostlist"
	"multirsh/runner/inventory"
	"multirsh/transport"
	"multirsh/transport/ssh"
)

// selection is the hosts of a run.
type selection struct {
	count  int
	all    iter.Seq[transport.Host]            // made as they are asked for
	alike  bool                                // they are known to differ in their names alone
	has    func(name string) bool              // whether a host of that name is among them
	by     map[string]bool                     // the transports that they are reached by
	limits func(transport.Host) []runner.Limit // nil: none
}

var transportNames = []string{"ssh", "rsh", "exec"}

// labelPrefix is what the names of labels have before them in a host's Vars.
const labelPrefix = "label."

// selectHosts finds the hosts that the configuration means, and all that is known of them.
func (e *env) selectHosts(ctx context.Context, c *config) (*selection, error) {
	if c.past != nil {
		return e.pastHosts(ctx, c)
	}
	inv, err := e.inventory(ctx, &c.choice)
	if err != nil {
		return nil, err
	}
	include := c.include
	if len(include) == 0 { // all of the file, and of nothing else
		include = []string{"@" + inventory.SectionsSource + ":*"}
	}
	chosen, err := inv.Select(ctx, include, c.exclude)
	if err != nil {
		return nil, badHosts(err)
	}
	s := &selection{
		count: chosen.Len(),
		all:   chosen.Hosts(transport.Host{User: c.user, Transport: c.transport}),
		by:    chosen.Transports(c.transport),
		alike: chosen.Alike(),
		has:   chosen.Names().Contains,
	}
	switch {
	case s.count == 0 && len(c.exclude) > 0: // of which each item has taken some
		return nil, usagef("no host is left: all of them are excluded")
	case s.count == 0 && len(c.include) == 0:
		return nil, usagef("%s names no host; write some into it, one or more a line", hostsFileName(c.hostsFile))
	case s.count == 0:
		return nil, usagef("no host is left: the expression takes away all that it names")
	case c.pick > 0 && c.pick < s.count:
		s.pick(c.pick)
	}
	if err := c.suits(s.by); err != nil {
		return nil, err
	}
	if err := s.checkJumps(); err != nil {
		return nil, err
	}
	if err := c.limit(s, chosen.Fanout); err != nil {
		return nil, err
	}
	t, err := c.template()
	if err != nil {
		return nil, err
	}
	if s.by["exec"] && strings.Contains(c.command+strings.Join(c.words, ""), "%n") || t != nil && t.uses("rank") {
		s.all = ranked(s.all)
	}
	return s, nil
}

// inventory is what c's hosts are chosen from. It has read the hosts files, and asked no source for groups yet.
func (e *env) inventory(ctx context.Context, c *choice) (*inventory.Inventory, error) {
	options, err := e.groupSources(c)
	if err != nil {
		return nil, err
	}
	inv := inventory.New(options)
	err = unlessStopped(ctx, func() error { return e.readHosts(c, inv) })
	if err != nil {
		return nil, err
	}
	for _, f := range c.files {
		for _, h := range f.hosts {
			if err := inv.Match(h.match, h.place, h.set); err != nil {
				return nil, badHosts(err)
			}
		}
	}
	return inv, nil
}

// readHosts reads the hosts files.
func (e *env) readHosts(c *choice, inv *inventory.Inventory) error {
	if c.hostsFile == "-" {
		return badHosts(inv.Read(e.Stdin, hostsFileName("-")))
	}
	files := c.inventory
	switch {
	case c.hostsFile != "":
		files = []string{c.hostsFile}
	case len(files) == 0 && !c.bare:
		for _, dir := range e.configDirs() {
			if name := filepath.Join(dir, "hosts"); isThere(name) {
				files = append(files, name)
			}
		}
	}
	for _, name := range files {
		if err := inv.ReadFile(name); err != nil {
			return badHosts(err)
		}
	}
	return nil
}

// hostsFileName is what to call it in a message.
func hostsFileName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// pick leaves n of the hosts, chosen at random, in their order.
func (s *selection) pick(n int) {
	hosts := slices.Collect(sample(s.all, s.count, n, rand.IntN))
	s.count, s.all, s.by = n, slices.Values(hosts), map[string]bool{}
	s.has = func(name string) bool {
		return slices.ContainsFunc(hosts, func(h transport.Host) bool { return h.Name == name })
	}
	for _, host := range hosts {
		s.by[host.Transport] = true
	}
}

// limit has --limit-by and the fan-outs of [[hosts]] bound how many hosts run at once. fanout tells of a host which of those it is
// under, and by what name.
func (c *config) limit(s *selection, fanout func(name string) (string, int)) error {
	if as := c.given["limit-by"]; as != "" { // what a variable or the configuration sets holds where it can
		if err := c.labelsExist(as, s.all); err != nil {
			return err
		}
	}
	if len(c.limits) == 0 && !c.fanouts() {
		return nil
	}
	s.limits = func(host transport.Host) (limits []runner.Limit) {
		for _, l := range c.limits {
			if value, has := host.Vars[labelPrefix+l.label]; has {
				limits = append(limits, runner.Limit{Key: l.label + "=" + value, N: l.n})
			}
		}
		if key, n := fanout(host.Name); n > 0 {
			limits = append(limits, runner.Limit{Key: key, N: n})
		}
		return limits
	}
	return nil
}

// fanouts tells whether a [[hosts]] has one.
func (c *config) fanouts() bool {
	return slices.ContainsFunc(c.files, func(f *configFile) bool {
		return slices.ContainsFunc(f.hosts, func(h fileHosts) bool { return h.set.Fanout > 0 })
	})
}

// labelsExist refuses a limit by a label that no host has.
func (c *config) labelsExist(as string, hosts iter.Seq[transport.Host]) error {
	missing := map[string]bool{}
	for _, l := range c.limits {
		missing[l.label] = true
	}
	there := map[string]bool{}
	for host := range hosts {
		for name := range host.Vars {
			if label, is := strings.CutPrefix(name, labelPrefix); is {
				there[label] = true
				delete(missing, label)
			}
		}
		if len(missing) == 0 {
			return nil
		}
	}
	label := slices.Min(slices.Collect(maps.Keys(missing)))
	if len(there) == 0 {
		return usagef("%s %s: no host here has a label; give them some in a hosts file, as node[1-4] label=%[2]s:NAME", as, label)
	}
	return usagef("%s %s: no host here has this label; there is %s", as, label, strings.Join(slices.Sorted(maps.Keys(there)), ", "))
}

// suits refuses options of the command line that mean nothing to any of the hosts' transports, and those that contradict each
// other there. What the environment or the configuration sets holds where it can.
func (c *config) suits(by map[string]bool) error {
	for _, o := range runLine.options {
		as, transports := c.given[o.name], strings.Fields(o.only)
		if as == "" || o.only == "" || slices.ContainsFunc(transports, func(t string) bool { return by[t] }) {
			continue
		}
		return usagef("%s is for %s, and no host here is reached by it; leave it out", as, strings.Join(transports, " and "))
	}
	switch plain := c.plain && by["rsh"]; {
	case plain && c.killOnDisconnect, c.plain && by["ssh"] && c.given["kill-on-disconnect"] != "":
		return usagef("--plain sends the bare text, and --kill-on-disconnect needs what --plain leaves out; give one of them")
	case plain && c.input != "":
		return usagef("--plain sends the bare text, and --input needs what --plain leaves out; give one of them")
	case plain && c.script != "":
		return usagef("--plain sends the bare text, and --script needs what --plain leaves out; give one of them")
	case plain && c.largestStatus:
		return usagef("with --plain no exit status is known, so -S has nothing to tell; give one of them")
	case by["ssh"] && c.plain && (c.sh || c.merge):
		return usagef("--plain sends the text as it is, and --sh and --merge put it below a wrapper; give one of them")
	}
	return nil
}

// checkJumps refuses jump hosts that could only fail, and those of hosts that are reached by rsh; local commands need no way.
func (s *selection) checkJumps() error {
	for host := range s.all {
		if host.Jump != "" && host.Transport != "exec" {
			if err := ssh.CheckJump(host); err != nil {
				return usagef("%v", err)
			}
		}
		if s.alike {
			break
		}
	}
	return nil
}

// reachedBy are the hosts of one transport.
func (s *selection) reachedBy(name string) iter.Seq[transport.Host] {
	return func(yield func(transport.Host) bool) {
		for host := range s.all {
			if host.Transport == name && !yield(host) {
				return
			}
		}
	}
}

// badHosts makes err a usageError, which shows the place in the expression that is at fault.
func badHosts(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if syntax := (*hostlist.SyntaxError)(nil); errors.As(err, &syntax) {
		text += "\n  " + strings.ReplaceAll(syntax.Caret(), "\n", "\n  ")
	}
	return &usageError{text}
}

// ranked numbers the hosts for execcmd's %n.
func ranked(hosts iter.Seq[transport.Host]) iter.Seq[transport.Host] {
	return func(yield func(transport.Host) bool) {
		rank := 0
		for host := range hosts {
			vars := make(map[string]string, len(host.Vars)+1) // which other hosts may share
			maps.Copy(vars, host.Vars)
			vars["rank"] = strconv.Itoa(rank)
			host.Vars = vars
			rank++
			if !yield(host) {
				return
			}
		}
	}
}
