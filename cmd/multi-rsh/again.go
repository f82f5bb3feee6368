package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"multirsh/runner"
	"multirsh/runner/journal"
)

// resumeLine and retryLine are the command lines of "multi-rsh resume" and "multi-rsh retry": a run's, but for what says where a run begins.
var (
	resumeLine = againLine("resume", &option{name: "again-unknown", once: true, group: "Hosts again", text: "also those begun of which no end is known"})
	retryLine  = againLine("retry", &option{name: "only", arg: "WORDS", once: true, group: "Hosts again", text: "of these outcomes (notok: all that are not ok)"})
)

func againLine(verb string, own *option) *commandLine {
	options := slices.DeleteFunc(slices.Clone(runLine.options), func(o *option) bool {
		return o.action || o.group == "Hosts" || o.name == "input" || o.name == "script" || verb == "resume" && o.name == "no-journal"
	})
	return &commandLine{name: "multi-rsh " + verb, options: append(options, own,
		&option{name: "help", letters: "h", action: true, group: "Other again", text: "this page"})}
}

var resumeHelp = helpPage{
	head: `multi-rsh resume goes on with a run that was cut short: on the hosts that have no
result, with the same command, input and options. None that has a result runs again.

  multi-rsh resume RUN [options]      (RUN: last, or as multi-rsh runs lists it)

A host that was begun, and of which no end is known, is left out unless you say
otherwise. The options of a run that are no choice of hosts, as --fanout or --fold,
can be given anew: multi-rsh --help
`,
	groups: []string{"Hosts again", "Other again"},
	foot: `Examples
  multi-rsh resume last
  multi-rsh resume last --again-unknown --fanout 200
`,
}

var retryHelp = helpPage{
	head: `multi-rsh retry runs the command of a past run once more, as a run of its own, on
those of its hosts that were not ok: failed, stopped, or never begun.

  multi-rsh retry RUN [options]       (RUN: last, or as multi-rsh runs lists it)

The options of a run that are no choice of hosts, as --fanout or --fold, can be
given anew: multi-rsh --help
`,
	groups: []string{"Hosts again", "Other again"},
	foot: `Examples
  multi-rsh retry last
  multi-rsh retry 20261123-0415 --only timeout,unreachable --timeout 5m
`,
}

// onceMore takes the arguments of resume or retry apart. A nil a is one whose help has been shown.
func (e *env) onceMore(line *commandLine, page helpPage, args []string) (a *arguments, name string, err error) {
	verb := strings.TrimPrefix(line.name, "multi-rsh ")
	for _, o := range runLine.options { // which it could have, and which would be unknown
		if o.group == "Hosts" || o.name == "input" || o.name == "script" {
			for _, arg := range args {
				name, _, _ := strings.Cut(arg, "=")
				if name == "--"+o.name || len(arg) > 1 && arg[0] == '-' && arg[1] != '-' && strings.ContainsRune(o.letters, rune(arg[1])) {
					return nil, "", usagef("%s: %s says what the run has said already, and cannot be changed", verb, name)
				}
			}
		}
	}
	if len(args) > 0 {
		if args, err = line.optionsFirst(args); err != nil {
			return nil, "", err
		}
	}
	if a, err = line.split(args, func(string) string { return "" }); err != nil {
		return nil, "", err
	}
	switch {
	case a.action == "help" || len(args) == 0:
		if err := line.help(e.Stdout, page); err != nil {
			return nil, "", err
		}
		return nil, "", &ending{exitOK}
	case len(a.words) != 1:
		return nil, "", usagef("%s: name one run, as multi-rsh %[1]s last; multi-rsh runs lists them", verb)
	}
	for _, name := range fixed {
		if as := a.origin[name]; as != "" {
			return nil, "", usagef("%s: %s is as it was in the run: the other hosts had it so; leave it out, or begin a new run", verb, as)
		}
	}
	return a, a.words[0], nil
}

// resume is "multi-rsh resume": the rest of a run.
func (e *env) resume(args []string) (*config, error) {
	a, name, err := e.onceMore(resumeLine, resumeHelp, args)
	if err != nil {
		return nil, err
	}
	values, err := a.values()
	if err != nil {
		return nil, err
	}
	p := &past{}
	var damaged []journal.Damage
	if values.Bool("dry-run") || values.Bool("explain") {
		p.run, damaged, err = journal.Load(e.runsDir(), name)
	} else {
		p.journal, p.run, damaged, err = journal.Resume(e.runsDir(), name)
	}
	e.tellDamage(damaged)
	if err != nil {
		return nil, pastError(err)
	}
	c, err := e.resumed(a, p, values.Bool("again-unknown"))
	if err != nil {
		p.close()
	}
	return c, err
}

// resumed makes the configuration for the rest of a run, if there is one.
func (e *env) resumed(a *arguments, p *past, unknown bool) (*config, error) {
	var open, lost []journal.Host
	want := func(h journal.Host) bool { return h.State == journal.NotRun || unknown && h.State == journal.Unknown }
	for _, h := range p.run.Hosts {
		switch {
		case h.State == journal.Done:
		case h.Lost:
			lost = append(lost, h)
		case want(h):
			p.hosts = append(p.hosts, h.Host)
		default:
			open = append(open, h)
		}
	}
	if p.journal != nil {
		p.hosts = p.journal.Rest(want)
	}
	if p.run.Rebooted && !unknown && len(p.hosts) > 0 {
		fmt.Fprintf(e.Stderr, "multi-rsh: this machine was started anew in the middle of run %s: hosts that were begun in its last second may run twice\n", p.run.ID)
	}
	if len(lost) > 0 {
		fmt.Fprintf(e.Stderr, "multi-rsh: %s cannot be run: the lines that say how to reach them are damaged: %s\n", number(len(lost), "host"), foldedPast(lost))
	}
	if len(open) > 0 {
		fmt.Fprintf(e.Stderr, "multi-rsh: left out, since it is not known how it ended there (%d): %s; --again-unknown runs them again\n", len(open), foldedPast(open))
	}
	if len(p.hosts) == 0 {
		if len(open)+len(lost) > 0 {
			return nil, &ending{exitHosts}
		}
		counts := p.run.Counts()
		fmt.Fprintf(e.Stderr, "multi-rsh: nothing is left to do: run %s has a result of each of its %s, %d of them ok\n",
			p.run.ID, number(len(p.run.Hosts), "host"), counts.Outcomes[runner.OK])
		return nil, &ending{exitOK}
	}
	c, err := e.pastConfig(a, p)
	if err == nil {
		c.leftOut = len(open) + len(lost)
		e.tellPast(c, "going on with")
	}
	return c, err
}

// tellPast says what is about to be run.
func (e *env) tellPast(c *config, what string) {
	if !c.quiet {
		fmt.Fprintf(e.Stderr, "multi-rsh: %s run %s: %d of its %s\n", what, c.past.run.ID, len(c.past.hosts), number(len(c.past.run.Hosts), "host"))
	}
}

// retry is "multi-rsh retry": a new run, on hosts of a past one.
func (e *env) retry(args []string) (*config, error) {
	a, name, err := e.onceMore(retryLine, retryHelp, args)
	if err != nil {
		return nil, err
	}
	values, err := a.values()
	if err != nil {
		return nil, err
	}
	run, damaged, err := journal.Load(e.runsDir(), name)
	e.tellDamage(damaged)
	if err != nil {
		return nil, pastError(err)
	}
	if err := run.CheckInput(); err != nil {
		return nil, pastError(err)
	}
	if run.Running {
		return nil, pastError(&journal.BusyError{ID: run.ID, PID: run.PID})
	}
	words := values.String("only")
	if words == "" {
		words = journal.NotOK
	}
	chosen := map[int]bool{}
	for word := range strings.SplitSeq(words, ",") {
		hosts, err := run.Select(word)
		if err != nil {
			return nil, usagef("%s %v", a.origin["only"], err)
		}
		for _, h := range hosts {
			chosen[h.Seq] = true
		}
	}
	p := &past{run: run}
	var lost []journal.Host
	for _, h := range run.Hosts {
		switch {
		case !chosen[h.Seq]:
		case h.Lost:
			lost = append(lost, h)
		default:
			p.hosts = append(p.hosts, h.Host)
		}
	}
	if len(lost) > 0 {
		fmt.Fprintf(e.Stderr, "multi-rsh: %s cannot be run: the lines that say how to reach them are damaged: %s\n", number(len(lost), "host"), foldedPast(lost))
	}
	if len(p.hosts) == 0 {
		fmt.Fprintf(e.Stderr, "multi-rsh: no host to run on: of the %s of run %s none is %s\n", number(len(run.Hosts), "host"), run.ID, strings.ReplaceAll(words, ",", " or "))
		return nil, &ending{exitOK}
	}
	c, err := e.pastConfig(a, p)
	if err == nil {
		c.leftOut = len(lost)
		e.tellPast(c, "again, of")
	}
	return c, err
}

// pastConfig settles the options of a run that goes on: first the arguments, then what the run had, and how it is shown as for any run.
func (e *env) pastConfig(a *arguments, p *past) (*config, error) {
	var call callOptions
	if err := json.Unmarshal(p.run.Head.Config, &call); err != nil {
		return nil, fmt.Errorf("run %s does not say how it was called, so it cannot be run again: %w", p.run.ID, err)
	}
	own := a.settled()
	p.options = map[string]bool{}
	for _, text := range journal.FromTexts(call.Options) {
		name, value, _ := strings.Cut(strings.TrimPrefix(text, "--"), "=")
		o := a.line.byLong(name)
		switch {
		case o == nil:
			return nil, fmt.Errorf("run %s was made with --%s, which this multi-rsh %s does not have: use the version %s that made it", p.run.ID, name, version, p.run.Head.Program)
		case own[name]:
			continue
		}
		if err := a.add(o, "--"+name, value); err != nil {
			return nil, fmt.Errorf("run %s cannot be run again: %w", p.run.ID, err)
		}
		p.options[name] = true
	}
	if err := a.environment(func(variable string) string {
		for _, o := range a.line.options {
			if o.variable() == variable && o.passing() {
				return e.Getenv(variable)
			}
		}
		return ""
	}); err != nil {
		return nil, err
	}
	a.past, p.title, p.dir = p, string(call.Title), string(call.Dir)
	values, err := a.values()
	if err != nil {
		return nil, err
	}
	files, err := e.configFiles(values.String("config"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		shown := *f
		shown.options = slices.DeleteFunc(slices.Clone(f.options), func(o fileOption) bool { return !o.option.passing() })
		if err := a.defaults(&shown); err != nil {
			return nil, err
		}
	}
	if values, err = a.values(); err != nil {
		return nil, err
	}
	if p.journal != nil {
		p.input = p.journal.Input()
	} else {
		p.input = p.run.Input()
	}
	return a.config(values, files, e.Getenv)
}

// pastError is err, of a run that is to be read, as the user is told it.
func pastError(err error) error {
	name, later, busy, input := (*journal.NameError)(nil), (*journal.VersionError)(nil), (*journal.BusyError)(nil), (*journal.InputError)(nil)
	if errors.As(err, &name) || errors.As(err, &later) || errors.As(err, &busy) || errors.As(err, &input) {
		return usagef("%v", err)
	}
	return err
}

// tellDamage names the lines of a journal that cannot be used.
func (e *env) tellDamage(damaged []journal.Damage) {
	for i, d := range damaged {
		if i == told {
			fmt.Fprintf(e.Stderr, "multi-rsh: and %d more lines of it cannot be used\n", len(damaged)-told)
			break
		}
		fmt.Fprintf(e.Stderr, "multi-rsh: %v; the line is left out\n", d)
	}
}

// close ends the journal of a run that is not gone on with after all.
func (p *past) close() {
	if p != nil && p.journal != nil {
		p.journal.Close()
	}
}
