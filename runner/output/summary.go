package output

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// Summary counts how hosts end and says it when it is closed: one line with the number of each outcome, then one for each way
// in which hosts were not ok, with their names folded.
//
//	640 hosts: 637 ok, 2 exit, 1 timeout
//	exit 3 (2): node[004,017]
//	timeout connect (1): node007
//	ok, but left a child running (1): node020
//
// A run of one host has no such text where [Lines] has said it all, unless a child was left running.
// It remembers the names of hosts that were not ok and nothing of the others.
type Summary struct {
	W     io.Writer
	Width int // columns of the terminal that W is; 0: it is none, and no line is wrapped or cut

	hosts    int
	untold   int // hosts of which Lines says nothing
	outcomes map[runner.Outcome]int
	failed   map[ending][]string
	children map[ending][]string // hosts where a child was left running
}

// summaryRows is how many rows of a terminal the names of one group may take.
const summaryRows = 5

// Event implements [runner.Sink].
func (s *Summary) Event(e runner.Event) error {
	if e.Kind != runner.Finish {
		return nil
	}
	if s.outcomes == nil {
		s.outcomes, s.failed, s.children = map[runner.Outcome]int{}, map[ending][]string{}, map[ending][]string{}
	}
	s.hosts++
	s.outcomes[e.Result.Outcome]++
	if stoppedWithRun(e.Result) {
		s.untold++
	}
	how := endingOf(e.Result)
	if how.outcome != runner.OK {
		s.failed[how] = append(s.failed[how], e.Host.Name)
	}
	if e.Result.Status.Background {
		s.children[how] = append(s.children[how], e.Host.Name)
	}
	return nil
}

// Close implements [runner.Sink]: it writes the summary, in one Write.
func (s *Summary) Close() error {
	var b strings.Builder
	if s.hosts > 1 || s.untold > 0 {
		s.line(&b, fmt.Sprintf("%s: %s", number(s.hosts, "host"), counts(s.outcomes)))
		for _, how := range slices.SortedFunc(maps.Keys(s.failed), compareEndings) {
			names := s.failed[how]
			s.line(&b, fmt.Sprintf("%s (%d): %s", how, len(names), hostlist.Fold(slices.Values(names))))
		}
	}
	for _, how := range slices.SortedFunc(maps.Keys(s.children), compareEndings) {
		names := s.children[how]
		s.line(&b, fmt.Sprintf("%s, but left a child running (%d): %s", how, len(names), hostlist.Fold(slices.Values(names))))
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(s.W, b.String())
	return err
}

func (s *Summary) line(b *strings.Builder, text string) {
	b.WriteString(wrap(text, s.Width, summaryRows))
	b.WriteByte('\n')
}

// counts is the number of hosts of each outcome that has any.
func counts(outcomes map[runner.Outcome]int) string {
	var list []string
	for _, o := range order {
		if n := outcomes[o]; n > 0 {
			list = append(list, fmt.Sprintf("%d %s", n, o))
		}
	}
	return strings.Join(list, ", ")
}
