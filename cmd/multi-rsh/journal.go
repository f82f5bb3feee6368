package main

import (
	"context"
	"encoding/json"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"multirsh/runner"
	"multirsh/runner/hostlist"
	"multirsh/runner/inventory/groups"
	"multirsh/runner/journal"
	"multirsh/transport"
)

// runsDir is where the journals of the user's runs are; "": there is no place for them.
func (e *env) runsDir() string {
	home := e.Getenv("HOME")
	if home == "" { // as of a service
		if who, err := user.Current(); err == nil {
			home = who.HomeDir
		}
	}
	return journal.Dir(e.Getenv("XDG_STATE_HOME"), home)
}

// journaled has a run's journal know of an event before anybody is shown it. When the journal can no longer be written, the run starts
// no more hosts, and those running go on to their ends.
type journaled struct {
	*journal.Journal             // nil: none is kept
	fresh            bool        // it is that of a new run
	next             runner.Sink // nil: nothing has begun
	drain            func(error)
	err              error // the journal's
}

// Event implements runner.Sink.
func (s *journaled) Event(e runner.Event) error {
	if s.Journal != nil {
		if err := s.Journal.Event(e); err != nil && s.err == nil {
			s.err = err
			s.drain(err)
		}
	}
	return s.next.Event(e)
}

// Close implements runner.Sink.
func (s *journaled) Close() error {
	err := s.next.Close()
	if s.Journal != nil {
		if lost := s.Journal.Close(); s.err == nil {
			s.err = lost
		}
	}
	return err
}

// id is the name of the run; empty: it has none.
func (s *journaled) id() string {
	if s.Journal == nil {
		return ""
	}
	return s.Journal.ID
}

// lost is why the journal is not whole; nil: it is, or there is none. It is for after Close.
func (s *journaled) lost() error { return s.err }

// keepsInput is what makes the file of the input in the folder of runs; nil: the input is not kept.
func (e *env) keepsInput(c *config) func() (*os.File, error) {
	if c.noJournal || c.explain || c.past != nil && c.past.journal != nil {
		return nil
	}
	return func() (*os.File, error) { return journal.Spool(e.runsDir()) }
}

// callOptions is what a journal has of how the program was called, to run the same again.
type callOptions struct {
	Options []journal.Text `json:"options"`         // in the one form --name=value
	Dir     journal.Text   `json:"dir"`             // in which it was
	Title   journal.Text   `json:"title,omitempty"` // what to call the command, if that is not its text
}

// journal is what keeps the run's journal: that of the past run that is resumed, or a new one. The oldest runs are removed.
func (e *env) journal(c *config, p *plan, drain func(error)) (*journaled, error) {
	s := &journaled{drain: drain}
	if c.past != nil && c.past.journal != nil {
		s.Journal = c.past.journal
		return s, nil
	}
	if c.noJournal {
		return s, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = ""
	}
	if c.past != nil && c.past.dir != "" { // where local commands run again
		dir = c.past.dir
	}
	kept, settings := c.kept()
	options, err := json.Marshal(callOptions{journal.Texts(kept), journal.Text(dir), journal.Text(c.title)})
	if err != nil {
		return nil, err
	}
	head := journal.Head{
		Program: version, Argv: append([]string{"multi-rsh"}, e.Args...), Config: options, Command: c.command,
		Settings: strings.Join(settings, "\n"),
	}
	if c.past != nil {
		head.Parent = c.past.run.ID
	}
	runs := e.runsDir()
	if s.Journal, err = journal.Create(runs, head, p.hosts.all, p.spooled); err != nil {
		return nil, err
	}
	s.fresh = true
	journal.Prune(runs, journal.Keep) // what stays is no harm, and is tried again next time
	return s, nil
}

// begin has next shown what the journal knows.
func (s *journaled) begin(next runner.Sink, c *config) {
	s.next = next
	if c.past != nil {
		c.past.journal = nil // it is closed with the run
	}
}

// abandon ends a new run's journal when nothing is run after all.
func (s *journaled) abandon() {
	if s.Journal != nil && s.next == nil && s.fresh {
		s.Journal.Discard()
	}
}

// kept are the options that a run has again when it is resumed or retried, and of them those that decide what a host does.
func (c *config) kept() (options, settings []string) {
	for _, text := range c.settled {
		name, value, _ := strings.Cut(strings.TrimPrefix(text, "--"), "=")
		if o := runLine.byLong(name); o == nil || o.passing() {
			continue
		}
		if name == "ssh-config" && value != "none" || name == "identity" {
			if path, err := filepath.Abs(value); err == nil && !strings.ContainsAny(value, "~%$") { // which ssh_config(5) gives a meaning
				text = "--" + name + "=" + path
			}
		}
		if name == "argv" && c.script != "" {
			continue // said below
		}
		options = append(options, text)
		if slices.Contains(fixed, name) {
			settings = append(settings, text)
		}
	}
	if c.script != "" { // what the command is by now
		options = append(options, "--argv=true")
	}
	return options, settings
}

// passing is an option of this call alone: which hosts, and how the run is shown.
func (o *option) passing() bool {
	return o.group == "Hosts" || o.once || o.name == "progress" || o.name == "stats" || o.name == "no-journal" || slices.Contains(viewOptions, o)
}

// fixed are the options that decide what a host does with the command: a run that goes on has them as they were.
var fixed = []string{"user", "transport", "merge", "plain", "sh", "tty", "subst", "argv"}

// past is a run of the journal that is gone on with, or hosts of which are run once more.
type past struct {
	run     *journal.Run
	journal *journal.Journal // of a run that is resumed, until it has begun; nil: a new one is made
	hosts   []transport.Host
	input   string          // the file; "": none
	title   string          // of the command; "": its text
	dir     string          // in which it began; "": not known
	options map[string]bool // that the run had, by their long names
}

// has tells whether an option is the past run's own, and not this call's.
func (p *past) has(option string) bool { return p != nil && p.options[option] }

// pastHosts are those of the past run that are left, reached as they were then. Of the inventory there is only how many may run at once.
func (e *env) pastHosts(ctx context.Context, c *config) (*selection, error) {
	hosts := c.past.hosts
	s := &selection{count: len(hosts), all: slices.Values(hosts), by: map[string]bool{}}
	names := map[string]bool{}
	for _, h := range hosts {
		names[h.Name] = true
		s.by[h.Transport] = true
	}
	s.has = func(name string) bool { return names[name] }
	if err := c.suits(s.by); err != nil {
		return nil, err
	}
	fanout := func(string) (string, int) { return "", 0 }
	if c.fanouts() {
		inv, err := e.inventory(ctx, &c.choice)
		if err != nil {
			return nil, err
		}
		chosen, err := inv.Select(ctx, []string{folded(hosts)}, nil)
		if err != nil {
			return nil, badHosts(err)
		}
		fanout = chosen.Fanout
	}
	return s, c.limit(s, fanout)
}

// folded is the hosts as one short expression.
func folded(hosts []transport.Host) string {
	return hostlist.Fold(func(yield func(string) bool) {
		for _, h := range hosts {
			if !yield(h.Name) {
				return
			}
		}
	})
}

// foldedPast is the same of hosts of a past run.
func foldedPast(hosts []journal.Host) string {
	return hostlist.Fold(func(yield func(string) bool) {
		for _, h := range hosts {
			if !yield(h.Name) {
				return
			}
		}
	})
}

// runsSource is the source of groups that past runs are: @last.failed, @20261123-0415.timeout.
const runsSource = "runs"

// pastRuns is that source.
type pastRuns struct{ dir string }

var pastGroup = regexp.MustCompile(`^(last|[0-9]{8}[0-9a-f-]*)\.([a-z]+)$`)

// Claims implements groups.Claimer.
func (p pastRuns) Claims(group string) bool { return pastGroup.MatchString(group) }

// Map implements groups.Source.
func (p pastRuns) Map(_ context.Context, group string) (string, error) {
	parts := pastGroup.FindStringSubmatch(group)
	if parts == nil {
		return "", groups.ErrNoGroup
	}
	names, err := journal.Hosts(p.dir, parts[1], parts[2])
	if err != nil {
		return "", err
	}
	return hostlist.Fold(slices.Values(names)), nil
}

// List implements groups.Source. Runs come and go: multi-rsh runs lists them.
func (p pastRuns) List(context.Context) ([]string, error) { return nil, nil }
