package output

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// Tally counts how the hosts of a run end and how long they take. Of each host it keeps two durations; and the names of those that were not
// ok, that left a child running, and that were the slowest.
type Tally struct {
	Hosts    int
	Outcomes map[runner.Outcome]int
	Retried  int // hosts that were tried more than once
	Mended   int // of them, those that were ok then

	failed   map[failure][]string
	children map[ending][]string // hosts where a child was left running
	errorKinds

	stopped int      // hosts whose command we have stopped, and which have confirmed its end
	loose   []string // where it may still be running, since they have not

	connect, run []time.Duration // of the hosts that accepted the command
	slowest      slowest
	first, last  time.Time
}

// failure is how hosts were not ok: those with the same one are told together.
type failure struct {
	ending
	kind string // of the error; "": none that has to be told
}

// example is an error in the words of the first host that had it.
type example struct {
	text  string
	host  string
	names bool // it names that host or an address, in whose place others have their own
}

const (
	maxKinds      = 200  // kinds of errors that are told apart: a host may say anything
	maxStragglers = 1000 // hosts that can be told as stragglers by name
)

// errorKinds tells errors apart by their texts, in which the host's own name and addresses do not count. Two of them that are asked of the
// same hosts in the same order tell the same.
type errorKinds struct {
	texts map[string]example // the first of each kind

	norm  *normalizer
	line  []byte
	parts replacements
}

// of is the kind of a host's error and its text, "" for none; names tells whether it holds names.
func (k *errorKinds) of(e runner.Event) (kind, text string, names bool) {
	if e.Result.Err == nil {
		return "", "", false
	}
	if k.norm == nil {
		k.norm = newNormalizer(&Normalize{Host: true, IP: true})
		k.parts = make(replacements, partRegexps)
	}
	text = sentence(e.Result.Err)
	k.line = k.norm.appendLine(k.line[:0], []byte(text), hostNames(&e.Host), k.parts)
	kind = strings.ReplaceAll(string(k.line), markOf[partIP], markOf[partHost]) // an address may be the host's name
	return kind, text, kind != text
}

// kind is that of a host's error, "" if there is none that has to be told.
func (k *errorKinds) kind(e runner.Event) string {
	if stoppedWithRun(e.Result) {
		return "" // the run's end is its reason
	}
	kind, text, names := k.of(e)
	if _, known := k.texts[kind]; known || kind == "" {
		return kind
	}
	if k.texts == nil {
		k.texts = map[string]example{}
	}
	if len(k.texts) >= maxKinds {
		kind, text, names = otherErrors, "other errors", false
	}
	k.texts[kind] = example{text, e.Host.Name, names}
	return kind
}

// otherErrors is the kind of those beyond maxKinds.
const otherErrors = "\x00other"

// taken is how long a host took to run the command.
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
		t.first, t.last = e.Time, e.Time
	}
	if e.Time.After(t.last) {
		t.last = e.Time
	}
	if e.Kind != runner.Finish {
		return
	}
	if t.Outcomes == nil {
		t.Outcomes = map[runner.Outcome]int{}
		t.failed, t.children = map[failure][]string{}, map[ending][]string{}
	}
	r := e.Result
	t.Hosts++
	t.Outcomes[r.Outcome]++
	if r.Tries > 1 {
		t.Retried++
		if r.Outcome == runner.OK {
			t.Mended++
		}
	}
	how := endingOf(r)
	if r.Outcome != runner.OK {
		f := failure{how, t.kind(e)}
		t.failed[f] = append(t.failed[f], e.Host.Name)
	}
	switch stopped, confirmed := r.Stopped(); {
	case stopped && confirmed:
		t.stopped++
	case stopped:
		t.loose = append(t.loose, e.Host.Name)
	}
	if r.Status.Background {
		t.children[how] = append(t.children[how], e.Host.Name)
	}
	if !r.Running.IsZero() {
		t.took(e.Host.Name, max(0, r.Running.Sub(r.Started)), max(0, r.Ended.Sub(r.Running)))
	}
}

// took notes how long a host took.
func (t *Tally) took(host string, connect, run time.Duration) {
	t.connect = append(t.connect, connect)
	t.run = append(t.run, run)
	switch {
	case len(t.slowest) < maxStragglers:
		heap.Push(&t.slowest, taken{host, run})
	case run > t.slowest[0].time:
		t.slowest[0] = taken{host, run}
		heap.Fix(&t.slowest, 0)
	}
}

// failures are the ways in which hosts were not ok, in the order of their showing: as the endings are, then the most hosts first.
func (t *Tally) failures() []failure {
	return slices.SortedFunc(maps.Keys(t.failed), func(a, b failure) int {
		return cmp.Or(compareEndings(a.ending, b.ending), cmp.Compare(len(t.failed[b]), len(t.failed[a])), cmp.Compare(a.kind, b.kind))
	})
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

// Stragglers are the hosts whose command ran more than three times as long as the median's, and at least a second longer: their number, and
// the names of the slowest of them, a thousand at most, the slowest first.
func (t *Tally) Stragglers() (n int, names []string) {
	n, late := t.stragglers()
	for _, h := range late {
		names = append(names, h.name)
	}
	return n, names
}

func (t *Tally) stragglers() (n int, late []taken) {
	run, ok := t.Run()
	if !ok {
		return 0, nil
	}
	limit := max(3*run.P50+1, run.P50+time.Second) // the shortest time of one
	before, _ := slices.BinarySearch(t.run, limit)
	late = slices.DeleteFunc(slices.Clone(t.slowest), func(h taken) bool { return h.time < limit })
	slices.SortStableFunc(late, func(a, b taken) int {
		return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(a.name, b.name))
	})
	return len(t.run) - before, late
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
	if t.Retried > 0 {
		b = strconv.AppendInt(append(b, `,"retried":{"hosts":`...), int64(t.Retried), 10)
		b = append(strconv.AppendInt(append(b, `,"ok":`...), int64(t.Mended), 10), '}')
	}
	for i, f := range t.failures() {
		if i == 0 {
			b = append(b, `,"failed":[`...)
		} else {
			b = append(b, ',')
		}
		b = t.appendFailure(b, f)
	}
	if len(t.failed) > 0 {
		b = append(b, ']')
	}
	if t.stopped > 0 {
		b = strconv.AppendInt(append(b, `,"stopped":`...), int64(t.stopped), 10)
	}
	if len(t.loose) > 0 {
		b = append(appendGroup(append(b, `,"loose":{`...), t.loose), '}')
	}
	if len(t.children) > 0 {
		var names []string
		for _, how := range slices.SortedFunc(maps.Keys(t.children), compareEndings) {
			names = append(names, t.children[how]...)
		}
		b = append(appendGroup(append(b, `,"children":{`...), names), '}')
	}
	return b
}

// appendFailure appends hosts that ended alike, as an object.
func (t *Tally) appendFailure(b []byte, f failure) []byte {
	b = append(append(append(b, `{"outcome":"`...), f.outcome...), '"', ',')
	switch f.outcome {
	case runner.Exit:
		b = append(strconv.AppendInt(append(b, `"code":`...), int64(f.code), 10), ',')
	case runner.Signal:
		b = append(appendString(append(b, `"signal":`...), f.detail), ',')
	case runner.Timeout:
		b = append(appendString(append(b, `"phase":`...), f.detail), ',')
	}
	if f.loose {
		b = append(b, `"confirmed":false,`...)
	}
	if f.never {
		b = append(b, `"begun":false,`...)
	}
	b = appendGroup(b, t.failed[f])
	if f.kind != "" {
		b = appendString(append(b, `,"error":`...), t.texts[f.kind].text)
	}
	return append(b, '}')
}

// appendGroup appends the fields of a group of hosts.
func appendGroup(b []byte, names []string) []byte {
	b = strconv.AppendInt(append(b, `"hosts":`...), int64(len(names)), 10)
	return appendString(append(b, `,"folded":`...), hostlist.Fold(slices.Values(names)))
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
