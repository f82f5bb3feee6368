package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"

	"multirsh/runner"
	"multirsh/runner/hostlist"
	"multirsh/runner/inventory"
	"multirsh/transport"
)

// selection is the hosts of a run.
type selection struct {
	count  int
	all    iter.Seq[transport.Host]            // made as they are asked for
	by     map[string]bool                     // the transports that they are reached by
	limits func(transport.Host) []runner.Limit // nil: none
}

var transportNames = []string{"ssh", "rsh", "exec"}

// selectHosts reads the hosts file, or the expressions of the command line, and finds the transport of every host.
func (e *env) selectHosts(ctx context.Context, c *config) (*selection, error) {
	inv, err := readHosts(c, e.Stdin)
	if err != nil {
		return nil, err
	}
	if err := inv.Exclude(c.exclude...); err != nil {
		return nil, badHosts(err)
	}
	if inv.Len() == 0 {
		return nil, usagef("no host is left: all of them are excluded")
	}
	s := &selection{count: inv.Len(), by: map[string]bool{}}
	s.all = inv.Hosts(transport.Host{User: c.user, Transport: c.transport})
	for host := range s.all {
		s.by[host.Transport] = true
		if c.hostsFile == "" { // only a file makes them differ
			break
		}
	}
	if err := c.suits(s.by); err != nil {
		return nil, err
	}
	if s.by["exec"] && strings.Contains(c.command, "%n") {
		s.all = ranked(s.all)
	}
	return s, nil
}

// suits refuses options of the command line that mean nothing to any of the hosts' transports, and those that contradict each
// other there. What the environment sets holds where it can.
func (c *config) suits(by map[string]bool) error {
	for _, o := range runLine.options {
		as, transports := c.given[o.name], strings.Fields(o.only)
		if as == "" || slices.ContainsFunc(transports, func(t string) bool { return by[t] }) {
			continue
		}
		return usagef("%s is for %s, and no host here is reached by it; leave it out", as, strings.Join(transports, " and "))
	}
	switch plain := c.plain && by["rsh"]; {
	case plain && c.killOnDisconnect:
		return usagef("--plain sends the bare text, and --kill-on-disconnect needs what --plain leaves out; give one of them")
	case plain && c.input != "":
		return usagef("--plain sends the bare text, and --input needs what --plain leaves out; give one of them")
	case plain && c.largestStatus:
		return usagef("with --plain no exit status is known, so -S has nothing to tell; give one of them")
	case by["ssh"] && c.plain && (c.sh || c.merge):
		return usagef("--plain sends the text as it is, and --sh and --merge put it below a wrapper; give one of them")
	case by["ssh"] && c.given["kill-on-disconnect"] != "" && !c.sh:
		return usagef("--kill-on-disconnect needs --sh with ssh, whose servers let a command live on; give --sh too")
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

func readHosts(c *config, stdin io.Reader) (*inventory.Inventory, error) {
	if c.hostsFile == "" {
		inv := &inventory.Inventory{}
		if err := inv.Add(c.include...); err != nil {
			return nil, badHosts(err)
		}
		return inv, nil
	}
	file, name := stdin, "standard input"
	if c.hostsFile != "-" {
		opened, err := os.Open(c.hostsFile)
		if err != nil {
			return nil, usagef("%s: %v", c.hostsFile, reason(err))
		}
		defer opened.Close()
		if info, err := opened.Stat(); err == nil && info.IsDir() {
			return nil, usagef("%s: this is a directory; name a hosts file", c.hostsFile)
		}
		file, name = opened, c.hostsFile
	}
	inv, err := inventory.Read(file, name, transportNames)
	if err != nil {
		return nil, badHosts(err)
	}
	return inv, nil
}

// badHosts is a usageError, which shows the place in the expression that is at fault.
func badHosts(err error) error {
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
			host.Vars = map[string]string{"rank": strconv.Itoa(rank)}
			rank++
			if !yield(host) {
				return
			}
		}
	}
}

// labelPrefix is what the names of labels have before them in a host's Vars.
const labelPrefix = "label."
