package output

import (
	"cmp"
	"container/list"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// Progress knows how far a run is: which hosts are running and since when, how many are done, and how fast. It is safe for use by many
// goroutines, so that a [Screen] may show it meanwhile.
type Progress struct {
	Total int                   // hosts in all; 0: that is not known
	Ports func() (used, of int) // reserved ports; nil: none are needed
	Ends  []int                 // hosts done at the end of each stage, as runner.Ramp.Stages has them; nil: no stages

	mu       sync.Mutex
	running  map[int]*list.Element // of hosts, by Seq
	hosts    list.List             // of running, in the order of their starts
	again    map[int]bool          // that wait for their next try, by Seq
	done     int
	outcomes map[runner.Outcome]int
	began    time.Time
	times    ring
}

type running struct {
	name  string
	since time.Time
}

// ring is when the last hosts were done.
type ring struct {
	at   [256]time.Time
	last int // index of the latest
	n    int
}

func (r *ring) add(now time.Time) {
	r.last = (r.last + 1) % len(r.at)
	r.at[r.last] = now
	r.n = min(r.n+1, len(r.at))
}

const (
	statusGroups = 10               // lines of running hosts that Status writes
	slowHosts    = 3                // running hosts that are named in a line
	rateSpan     = 10 * time.Second // of the past, of which the rate is
)

// Event implements [runner.Sink].
func (p *Progress) Event(e runner.Event) error {
	if e.Kind == runner.Stdout || e.Kind == runner.Stderr {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		p.running, p.outcomes, p.began = map[int]*list.Element{}, map[runner.Outcome]int{}, e.Time
	}
	switch e.Kind {
	case runner.Start, runner.Restart:
		delete(p.again, e.Seq)
		p.running[e.Seq] = p.hosts.PushBack(running{e.Host.Name, e.Time})
	case runner.Again:
		p.leaves(e.Seq)
		if p.again == nil {
			p.again = map[int]bool{}
		}
		p.again[e.Seq] = true
	case runner.Finish:
		p.leaves(e.Seq)
		delete(p.again, e.Seq)
		p.done++
		p.outcomes[e.Result.Outcome]++
		p.times.add(e.Time)
	}
	return nil
}

// Expect tells of hosts that come in addition to those of Total.
func (p *Progress) Expect(more int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Total += more
}

// leaves takes a host from those that are running. The caller holds the lock.
func (p *Progress) leaves(seq int) {
	if at := p.running[seq]; at != nil {
		p.hosts.Remove(at)
		delete(p.running, seq)
	}
}

// Close implements [runner.Sink].
func (p *Progress) Close() error { return nil }

// stage is the one that the run is in, as "stage 2/4"; "" without any. A stage begins with its first host, not with the end of the one before: a
// person may be asked between them. The caller holds the lock.
func (p *Progress) stage() string {
	if len(p.Ends) < 2 {
		return ""
	}
	begun := p.done + len(p.running) + len(p.again)
	n := 1
	for n < len(p.Ends) && begun > p.Ends[n-1] {
		n++
	}
	return fmt.Sprintf("stage %d/%d", n, len(p.Ends))
}

// snapshot is what a line is made of.
type snapshot struct {
	done, failed, running, total int     // hosts; done are all that have ended, whatever their outcomes
	rate                         float64 // hosts done a second; 0: not known
	again                        int     // hosts that wait for their next try
	slow                         []string
	ports, stage                 string
}

func (p *Progress) snapshot(now time.Time) snapshot {
	p.mu.Lock()
	s := snapshot{done: p.done, running: len(p.running), total: p.Total, rate: p.rate(now), again: len(p.again), stage: p.stage()}
	s.failed = p.done - p.outcomes[runner.OK] - p.outcomes[runner.Cancelled] - p.outcomes[runner.Skipped] // whom we stopped has not failed
	for at := p.hosts.Front(); at != nil && len(s.slow) < slowHosts; at = at.Next() {
		r := at.Value.(running)
		s.slow = append(s.slow, string(appendEscaped(nil, []byte(r.name)))+" "+age(now, r.since).String())
	}
	p.mu.Unlock()
	if p.Ports != nil {
		used, of := p.Ports()
		s.ports = fmt.Sprintf("ports %d/%d", used, of)
	}
	return s
}

// age is in whole seconds, and never negative, whatever the clock does.
func age(now, since time.Time) time.Duration { return max(0, now.Sub(since)).Truncate(time.Second) }

// rate is how many hosts were done a second, of late. The caller holds the lock.
func (p *Progress) rate(now time.Time) float64 {
	from := now.Add(-rateSpan)
	if p.began.After(from) {
		from = p.began
	}
	n := 0
	for ; n < p.times.n; n++ {
		at := p.times.at[(p.times.last-n+len(p.times.at))%len(p.times.at)]
		if at.Before(from) {
			break
		}
	}
	if n == len(p.times.at) { // the ring is too short for the span
		from = p.times.at[(p.times.last+1)%len(p.times.at)]
	}
	if span := now.Sub(from); n > 0 && span > 0 {
		return float64(n) / span.Seconds()
	}
	return 0
}

// left is the time until all hosts are done, if they go on as they have; 0: that is not known.
func (s *snapshot) left() time.Duration {
	if s.rate == 0 || s.total <= s.done {
		return 0
	}
	return max(time.Second, time.Duration(float64(s.total-s.done)/s.rate*float64(time.Second)).Truncate(time.Second))
}

// facts are the parts of a line, the most important first.
func (s *snapshot) facts() []string {
	done := strconv.Itoa(s.done)
	if s.total > 0 {
		done += "/" + strconv.Itoa(s.total)
	}
	facts := []string{done + " done"}
	if s.failed > 0 {
		facts = append(facts, strconv.Itoa(s.failed)+" failed")
	}
	facts = append(facts, strconv.Itoa(s.running)+" running")
	if s.stage != "" {
		facts = append(facts, s.stage)
	}
	if s.again > 0 {
		facts = append(facts, strconv.Itoa(s.again)+" to be tried again")
	}
	if s.rate > 0 {
		facts = append(facts, strconv.FormatFloat(s.rate, 'g', 2, 64)+"/s")
		if s.rate >= 10 {
			facts[len(facts)-1] = strconv.FormatFloat(s.rate, 'f', 0, 64) + "/s"
		}
	}
	if left := s.left(); left > 0 {
		facts = append(facts, left.String()+" left")
	}
	if s.ports != "" {
		facts = append(facts, s.ports)
	}
	return facts
}

// lines are what a screen shows, each of at most so many columns.
func (p *Progress) lines(now time.Time, width int) (lines [2]string) {
	s := p.snapshot(now)
	lines[0] = fit(s.facts(), width)
	if len(s.slow) > 0 {
		s.slow[0] = "slowest: " + s.slow[0]
		lines[1] = fit(s.slow, width)
	}
	return lines
}

// fit joins as many of the parts as there is room for, and cuts the first if even that has none.
func fit(parts []string, width int) string {
	line := ""
	for i, part := range parts {
		if i > 0 {
			part = ", " + part
		}
		if columns(line)+columns(part) > width {
			break
		}
		line += part
	}
	if line == "" && width > 0 {
		runes := []rune(parts[0])
		for len(runes) > 0 && columns(string(runes)) > width {
			runes = runes[:len(runes)-1]
		}
		line = string(runes)
	}
	return line
}

// columns is how much of a terminal's line the text takes at most: characters beyond ASCII may take two.
func columns(text string) (n int) {
	for _, r := range text {
		n++
		if r >= 0x1100 {
			n++
		}
	}
	return n
}

// Plain writes one line of how far the run is, for a log.
//
//	multi-rsh: 312/640 done, 3 failed, 64 running, 41/s, 8s left, slowest: node017 4m12s, node313 3s, node314 3s
func (p *Progress) Plain(w io.Writer, now time.Time) error {
	s := p.snapshot(now)
	line := "multi-rsh: " + strings.Join(s.facts(), ", ")
	if len(s.slow) > 0 {
		line += ", slowest: " + strings.Join(s.slow, ", ")
	}
	_, err := io.WriteString(w, line+"\n")
	return err
}

// Status writes how far the run is: the hosts done, those running, the longest first and by the second, and how many of the
// total are waiting.
//
//	312 of 640 hosts done (310 ok, 2 exit), 64 running, 264 waiting
//	running 4m12s (1): node017
//	running 3s (63): node[313-375]
func (p *Progress) Status(w Stream, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	if p.Total > 0 {
		fmt.Fprintf(&b, "%d of %s done", p.done, number(p.Total, "host"))
	} else {
		fmt.Fprintf(&b, "%s done", number(p.done, "host"))
	}
	if p.done > 0 {
		fmt.Fprintf(&b, " (%s)", w.counts(p.outcomes))
	}
	fmt.Fprintf(&b, ", %d running", len(p.running))
	if waiting := p.Total - p.done - len(p.running); waiting > 0 {
		fmt.Fprintf(&b, ", %d waiting", waiting)
		if len(p.again) > 0 {
			fmt.Fprintf(&b, ", of them %d to be tried again", len(p.again))
		}
	}
	if stage := p.stage(); stage != "" {
		b.WriteString(", " + stage)
	}
	b.WriteByte('\n')

	ages := map[time.Duration][]string{}
	for at := p.hosts.Front(); at != nil; at = at.Next() {
		r := at.Value.(running)
		ages[age(now, r.since)] = append(ages[age(now, r.since)], r.name)
	}
	left := len(p.running)
	for i, age := range slices.SortedFunc(maps.Keys(ages), func(a, b time.Duration) int { return cmp.Compare(b, a) }) {
		if i == statusGroups {
			fmt.Fprintf(&b, "and %d more, for a shorter time\n", left)
			break
		}
		names := ages[age]
		left -= len(names)
		text := appendEscaped(nil, []byte(hostlist.Fold(slices.Values(names))))
		fmt.Fprintln(&b, wrap(fmt.Sprintf("running %v (%d): %s", age, len(names), text), w.Width, 1))
	}
	_, err := io.WriteString(w.W, b.String())
	return err
}
