package output

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// Summary counts how hosts end and says it when it is closed: one line with the number of each outcome, then one for each way
// in which hosts were not ok, with their names folded; where many had the same error, its text once. Of a run of ten hosts or more it says how
// long they took, until they accepted the command and from then to its end, and which were much slower than the others.
//
//	640 hosts: 537 ok, 2 exit, 101 refused
//	exit 3 (2): node[004,017]
//	refused (101): node[100-200]
//	  nobody listens on port 514 of 10.0.0.100: is an rshd running there? (node100; the others likewise)
//	cancelled, may still be running (3): node[004,009,017]
//	stopped 97, still running 3: node[004,009,017]
//	ok, but left a child running (1): node020
//	12 hosts were tried again, 9 of them ok
//	took 1m4s
//	connect: p50 12ms, p90 30ms, p99 1.2s, max 3s
//	run: p50 310ms, p90 450ms, p99 1.4s, max 1m2s
//	stragglers, over 3 × the median (2): 1m2s node500, 4s node501
//
// A run of one host has no such text where [Lines] has said it all, unless a child was left running.
type Summary struct {
	Stream
	JSON   bool // one line instead, the same as the last of a record; of a run of any size
	Errors bool // the texts of all errors, since no Lines tells any; else of those that more than maxTold hosts had

	tally  Tally
	untold int // hosts of which Lines says nothing
}

const (
	summaryRows  = 5  // rows of a terminal that the names of one group may take
	summaryTimes = 10 // hosts whose times are worth a line
	maxTold      = 10 // hosts with the same error that Lines tells one by one
)

// Event implements [runner.Sink].
func (s *Summary) Event(e runner.Event) error {
	s.tally.add(e)
	if e.Kind == runner.Finish && stoppedWithRun(e.Result) {
		s.untold++
	}
	return nil
}

// Close implements [runner.Sink]: it writes the summary, in one Write.
func (s *Summary) Close() error {
	var text []byte
	if s.JSON {
		text = append(s.tally.appendFields([]byte(`{"type":"summary",`)), '}', '\n')
	} else {
		text = s.text()
	}
	if len(text) == 0 {
		return nil
	}
	_, err := s.W.Write(text)
	return err
}

func (s *Summary) text() []byte {
	t := &s.tally
	var b strings.Builder
	if t.Hosts > 1 || s.untold > 0 || s.Errors && len(t.failed) > 0 {
		s.line(&b, fmt.Sprintf("%s: %s", s.Paint(Bold, number(t.Hosts, "host")), s.counts(t.Outcomes)))
		s.failures(&b)
		s.stops(&b)
	}
	for _, how := range slices.SortedFunc(maps.Keys(t.children), compareEndings) {
		s.group(&b, how, ", but left a child running", t.children[how])
	}
	if t.Retried > 0 {
		s.line(&b, retried(t.Retried, t.Mended))
	}
	if len(t.run) >= summaryTimes {
		s.times(&b)
	}
	return []byte(b.String())
}

// retried says of how many hosts there was a second try, or more of them.
func retried(hosts, ok int) string {
	switch {
	case hosts == 1 && ok == 1:
		return "1 host was tried again, and was ok"
	case hosts == 1:
		return "1 host was tried again, and was not ok"
	}
	return fmt.Sprintf("%d hosts were tried again, %d of them ok", hosts, ok)
}

// failures says which hosts were not ok, those with an error that has to be told apart from the others that ended alike.
func (s *Summary) failures(b *strings.Builder) {
	t := &s.tally
	var quiet []string // those whose errors have been told, or that have none
	all := t.failures()
	for i, f := range all {
		names := t.failed[f]
		if f.kind == "" || !s.Errors && len(names) <= maxTold {
			quiet = append(quiet, names...)
		} else {
			s.group(b, f.ending, "", names)
			s.line(b, harmless("  "+t.texts[f.kind].among(names)))
		}
		if len(quiet) > 0 && (i == len(all)-1 || all[i+1].ending != f.ending) {
			s.group(b, f.ending, "", quiet)
			quiet = nil
		}
	}
}

// stops says on how many hosts we have stopped the command, and on which it may still be running.
func (s *Summary) stops(b *strings.Builder) {
	switch t := &s.tally; {
	case len(t.loose) > 0:
		s.line(b, fmt.Sprintf("stopped %d, %s: %s", t.stopped, s.Paint(Red, fmt.Sprintf("still running %d", len(t.loose))),
			harmless(hostlist.Fold(slices.Values(t.loose)))))
	case t.stopped > 0:
		s.line(b, fmt.Sprintf("stopped %d", t.stopped))
	}
}

// among is the error as it is told of the hosts that had it.
func (e example) among(hosts []string) string {
	if !e.names || len(hosts) == 1 {
		return e.text
	}
	return fmt.Sprintf("%s (%s; the others likewise)", e.text, e.host)
}

// times says how long the hosts took.
func (s *Summary) times(b *strings.Builder) {
	connect, _ := s.tally.Connect()
	run, _ := s.tally.Run()
	s.line(b, "took "+brief(s.tally.Elapsed()))
	s.line(b, "connect: "+connect.String())
	s.line(b, "run: "+run.String())
	n, late := s.tally.stragglers()
	if n == 0 {
		return
	}
	var groups []string
	for from := 0; from < len(late); {
		to, took := from, brief(late[from].time)
		var names []string
		for ; to < len(late) && brief(late[to].time) == took; to++ {
			names = append(names, late[to].name)
		}
		groups = append(groups, s.Paint(Yellow, took)+" "+harmless(hostlist.Fold(slices.Values(names))))
		from = to
	}
	if more := n - len(late); more > 0 {
		groups = append(groups, fmt.Sprintf("and %d more", more))
	}
	s.line(b, fmt.Sprintf("stragglers, over 3 × the median (%d): %s", n, strings.Join(groups, ", ")))
}

// group writes how hosts ended and their names.
func (s *Summary) group(b *strings.Builder, how ending, more string, names []string) {
	text := s.Paint(colorOf(how.outcome), harmless(how.String()))
	s.line(b, fmt.Sprintf("%s%s (%d): %s", text, more, len(names), harmless(hostlist.Fold(slices.Values(names)))))
}

// line writes a line that is harmless to a terminal but for our colours.
func (s *Summary) line(b *strings.Builder, text string) {
	b.WriteString(wrap(text, s.Width, summaryRows))
	b.WriteByte('\n')
}

func (p Percentiles) String() string {
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s", brief(p.P50), brief(p.P90), brief(p.P99), brief(p.Max))
}

// brief is a duration to three digits or, of minutes, to the second.
func brief(d time.Duration) string {
	unit := time.Nanosecond
	for limit := time.Duration(1000); unit < time.Second && d >= limit; limit *= 10 {
		unit *= 10
	}
	if d >= time.Minute {
		unit = time.Second
	}
	text := d.Round(unit).String()
	if whole, zero := strings.CutSuffix(text, "m0s"); zero {
		return whole + "m"
	}
	return text
}

// counts is the number of hosts of each outcome that has any.
func counts(outcomes map[runner.Outcome]int) string { return Stream{}.counts(outcomes) }
