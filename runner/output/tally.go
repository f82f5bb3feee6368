package output

import (
	"cmp"
	"container/heap"
	"slices"
	"strconv"
	"time"

	"multirsh/runner"
)

// Tally counts how the hosts of a run end and how long they take. It keeps two durations for each host, and the names of the slowest.
type Tally struct {
	Hosts    int
	Outcomes map[runner.Outcome]int

	connect, run []time.Duration // of the hosts that accepted the command
	slowest      slowest
	first, last  time.Time
}

// maxStragglers is how many hosts can be told as stragglers by name.
const maxStragglers = 1000

// host is how long one took to run the command.
type taken struct {
	name string
	time time.Duration
}

// slowest is a heap with the fastest of the slowest hosts on top.
type slowest []taken

func (s slowest) Len() int           { return len(s) }
func (s slowest) Less(i, j int) bool { return s[i].time < s[j].time }
func (s slowest) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *slowest) Push(x any)        { *s = append(*s, x.(taken)) }
func (s *slowest) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}

func (t *Tally) add(e runner.Event) {
	if t.first.IsZero() {
		t.first = e.Time
	}
	t.last = e.Time
	if e.Kind != runner.Finish {
		return
	}
	if t.Outcomes == nil {
		t.Outcomes = map[runner.Outcome]int{}
	}
	r := e.Result
	t.Hosts++
	t.Outcomes[r.Outcome]++
	if r.Running.IsZero() {
		return
	}
	t.connect = append(t.connect, max(0, r.Running.Sub(r.Started)))
	ran := max(0, r.Ended.Sub(r.Running))
	t.run = append(t.run, ran)
	switch {
	case len(t.slowest) < maxStragglers:
		heap.Push(&t.slowest, taken{e.Host.Name, ran})
	case ran > t.slowest[0].time:
		t.slowest[0] = taken{e.Host.Name, ran}
		heap.Fix(&t.slowest, 0)
	}
}

// Elapsed is the time from the first event to the last.
func (t *Tally) Elapsed() time.Duration { return t.last.Sub(t.first) }

// Percentiles of a set of durations.
type Percentiles struct{ P50, P90, P99, Max time.Duration }

// Connect and Run are the percentiles of the time until the hosts accepted the command, and from then to its end; ok is false
// where no host did.
func (t *Tally) Connect() (p Percentiles, ok bool) { return percentiles(t.connect) }

// Run is described at Connect.
func (t *Tally) Run() (p Percentiles, ok bool) { return percentiles(t.run) }

// percentiles sorts d; a percentile is the smallest value that so many of a hundred do not exceed (nearest rank).
func percentiles(d []time.Duration) (Percentiles, bool) {
	if len(d) == 0 {
		return Percentiles{}, false
	}
	slices.Sort(d)
	at := func(percent int) time.Duration { return d[(len(d)*percent+99)/100-1] }
	return Percentiles{at(50), at(90), at(99), d[len(d)-1]}, true
}

// Stragglers are the hosts whose command ran more than three times as long as the median's, and a second longer at least, the slowest
// first: their number and at most a thousand of their names.
func (t *Tally) Stragglers() (n int, names []string) {
	run, ok := t.Run()
	if !ok {
		return 0, nil
	}
	limit := max(3*run.P50, run.P50+time.Second)
	after, _ := slices.BinarySearch(t.run, limit+1)
	n = len(t.run) - after
	late := slices.DeleteFunc(slices.Clone(t.slowest), func(h taken) bool { return h.time <= limit })
	slices.SortStableFunc(late, func(a, b taken) int { return cmp.Compare(b.time, a.time) })
	for _, h := range late {
		names = append(names, h.name)
	}
	return n, names
}

// appendFields appends the tally as the fields of a JSON object, without its braces: docs/json.md, summary.
func (t *Tally) appendFields(b []byte) []byte {
	b = append(b, `"hosts":`...)
	b = strconv.AppendInt(b, int64(t.Hosts), 10)
	b = append(b, `,"outcomes":{`...)
	comma := false
	for _, o := range order {
		n := t.Outcomes[o]
		if n == 0 {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(append(append(b, '"'), o...), '"', ':')
		b = strconv.AppendInt(b, int64(n), 10)
	}
	b = append(b, `},"seconds":`...)
	b = appendSeconds(b, t.Elapsed())
	if p, ok := t.Connect(); ok {
		b = p.appendJSON(append(b, `,"connect":`...))
	}
	if p, ok := t.Run(); ok {
		b = p.appendJSON(append(b, `,"run":`...))
	}
	if n, names := t.Stragglers(); n > 0 {
		b = append(b, `,"stragglers":{"hosts":`...)
		b = strconv.AppendInt(b, int64(n), 10)
		b = append(b, `,"names":[`...)
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, name)
		}
		b = append(b, ']', '}')
	}
	return b
}

func (p Percentiles) appendJSON(b []byte) []byte {
	for i, f := range [...]struct {
		name  string
		value time.Duration
	}{{"p50", p.P50}, {"p90", p.P90}, {"p99", p.P99}, {"max", p.Max}} {
		b = append(b, "{,"[min(i, 1)], '"')
		b = append(append(b, f.name...), '"', ':')
		b = appendSeconds(b, f.value)
	}
	return append(b, '}')
}

// appendSeconds appends d in seconds, to the microsecond.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Round(time.Microsecond))/float64(time.Second), 'f', -1, 64)
}
