package output

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// Progress knows which hosts are running and since when.
type Progress struct {
	running  map[int]running // by Seq
	done     int
	outcomes map[runner.Outcome]int
}

type running struct {
	name  string
	since time.Time
}

// statusGroups is how many lines of running hosts Status writes.
const statusGroups = 10

// Event implements [runner.Sink].
func (p *Progress) Event(e runner.Event) error {
	if p.running == nil {
		p.running, p.outcomes = map[int]running{}, map[runner.Outcome]int{}
	}
	switch e.Kind {
	case runner.Start:
		p.running[e.Seq] = running{e.Host.Name, e.Time}
	case runner.Finish:
		delete(p.running, e.Seq)
		p.done++
		p.outcomes[e.Result.Outcome]++
	}
	return nil
}

// Close implements [runner.Sink].
func (p *Progress) Close() error { return nil }

// Status writes how far the run is: the hosts done, those running, the longest first and by the second, and how many of the
// total are waiting; a total of 0 is one that is not known. Call it on the goroutine that calls Event.
//
//	312 of 640 hosts done (310 ok, 2 exit), 64 running, 264 waiting
//	running 4m12s (1): node017
//	running 3s (63): node[313-375]
func (p *Progress) Status(w Stream, now time.Time, total int) error {
	var b strings.Builder
	if total > 0 {
		fmt.Fprintf(&b, "%d of %s done", p.done, number(total, "host"))
	} else {
		fmt.Fprintf(&b, "%s done", number(p.done, "host"))
	}
	if p.done > 0 {
		fmt.Fprintf(&b, " (%s)", counts(p.outcomes))
	}
	fmt.Fprintf(&b, ", %d running", len(p.running))
	if waiting := total - p.done - len(p.running); waiting > 0 {
		fmt.Fprintf(&b, ", %d waiting", waiting)
	}
	b.WriteByte('\n')

	ages := map[time.Duration][]string{}
	for _, r := range p.running {
		age := max(0, now.Sub(r.since)).Truncate(time.Second)
		ages[age] = append(ages[age], r.name)
	}
	left := len(p.running)
	for i, age := range slices.SortedFunc(maps.Keys(ages), func(a, b time.Duration) int { return cmp.Compare(b, a) }) {
		if i == statusGroups {
			fmt.Fprintf(&b, "and %d more, for a shorter time\n", left)
			break
		}
		names := ages[age]
		left -= len(names)
		fmt.Fprintln(&b, wrap(fmt.Sprintf("running %v (%d): %s", age, len(names), hostlist.Fold(slices.Values(names))), w.Width, 1))
	}
	_, err := io.WriteString(w.W, b.String())
	return err
}
