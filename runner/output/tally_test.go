package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner"
	"multirsh/transport"
)

// took is a host that was ok and took so long to accept the command and to run it.
func took(seq int, connect, run time.Duration) runner.Event {
	e := ok(seq)
	begin := time.Date(2026, 3, 29, 1, 59, 59, 0, time.UTC)
	e.Result.Started = begin
	e.Result.Running = begin.Add(connect)
	e.Result.Ended = e.Result.Running.Add(run)
	e.Time = e.Result.Ended
	return e
}

// Percentiles are by nearest rank: the smallest of the values that so many of a hundred do not exceed.
func TestPercentiles(t *testing.T) {
	upTo := func(n int) (d []time.Duration) {
		for i := n; i > 0; i-- {
			d = append(d, time.Duration(i))
		}
		return d
	}
	for _, test := range []struct {
		name string
		of   []time.Duration
		want Percentiles
	}{
		{"one", upTo(1), Percentiles{1, 1, 1, 1}},
		{"two", upTo(2), Percentiles{1, 2, 2, 2}},
		{"three", upTo(3), Percentiles{2, 3, 3, 3}},
		{"five, as in the textbook", []time.Duration{15, 20, 35, 40, 50}, Percentiles{35, 50, 50, 50}},
		{"ten", upTo(10), Percentiles{5, 9, 10, 10}},
		{"a hundred", upTo(100), Percentiles{50, 90, 99, 100}},
		{"a hundred and one", upTo(101), Percentiles{51, 91, 100, 101}},
		{"all the same", []time.Duration{7, 7, 7, 7}, Percentiles{7, 7, 7, 7}},
	} {
		if got, ok := percentiles(test.of); !ok || got != test.want {
			t.Errorf("%s: %v, %v, want %v", test.name, got, ok, test.want)
		}
	}
	if _, ok := percentiles(nil); ok {
		t.Error("there are percentiles of nothing")
	}
}

func TestStragglers(t *testing.T) {
	many := func(n int, each time.Duration, late ...time.Duration) (list []runner.Event) {
		for i := range n {
			list = append(list, took(i, 0, each))
		}
		for i, d := range late {
			list = append(list, took(n+i, 0, d))
		}
		return list
	}
	crowd := make([]time.Duration, maxStragglers+500)
	for i := range crowd {
		crowd[i] = time.Hour + time.Duration(i)*time.Second
	}
	for _, test := range []struct {
		name  string
		list  []runner.Event
		n     int
		names []string // the first of them
	}{
		{"nobody", nil, 0, nil},
		{"none", many(10, time.Second), 0, nil},
		{"three times the median is not more", many(10, 2*time.Second, 6*time.Second), 0, nil},
		{"a little more is", many(10, 2*time.Second, 6*time.Second+1), 1, []string{"node010"}},
		{"not a second more", many(10, time.Millisecond, time.Second), 0, nil},
		{"a second more", many(10, time.Millisecond, time.Second+time.Millisecond), 1, []string{"node010"}},
		{"the slowest first", many(10, time.Second, 9*time.Second, 20*time.Second, 9*time.Second), 3, []string{"node011", "node010", "node012"}},
		{"more than are told", many(3*maxStragglers, time.Second, crowd...), len(crowd), []string{"node4499", "node4498"}},
		{"half of them", many(5, 0, time.Minute, time.Minute, time.Minute, time.Minute), 4, []string{"node005"}},
	} {
		var tally Tally
		for _, e := range test.list {
			tally.add(e)
		}
		n, names := tally.Stragglers()
		if len(names) != min(n, maxStragglers) {
			t.Errorf("%s: %d names of %d stragglers", test.name, len(names), n)
		}
		if diff := cmp.Diff(test.names, names[:min(len(names), len(test.names))]); n != test.n || diff != "" {
			t.Errorf("%s: %d stragglers, want %d; -want +got:\n%s", test.name, n, test.n, diff)
		}
	}
}

// A clock that was set back in the run makes no negative times.
func TestTallyClock(t *testing.T) {
	var tally Tally
	tally.add(took(1, -time.Hour, -time.Minute))
	connect, _ := tally.Connect()
	run, _ := tally.Run()
	if connect.P50 != 0 || run.Max != 0 {
		t.Errorf("connect %v, run %v", connect, run)
	}
}

// What is kept of a host that was ok is two durations.
func TestTallyMemory(t *testing.T) {
	const hosts = 1_000_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var tally Tally
	e := took(1, time.Millisecond, time.Second)
	for i := range hosts {
		e.Result.Ended = e.Result.Running.Add(time.Duration(i))
		tally.add(e)
	}
	if _, ok := tally.Run(); !ok || tally.Hosts != hosts {
		t.Fatalf("%d hosts", tally.Hosts)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 24*hosts {
		t.Errorf("a million hosts take %d bytes, %.0f each", used, float64(used)/hosts)
	}
	runtime.KeepAlive(&tally)
}

// The same error in other words is one kind: its host's name and addresses do not count. However much hosts say, the kinds
// are bounded.
func TestErrorKinds(t *testing.T) {
	refuse := func(seq int, text string) runner.Event {
		return failed(seq, runner.Refused, transport.PhaseConnect, errors.New(text))
	}
	var tally Tally
	for i := range 300 {
		tally.add(refuse(i, fmt.Sprintf("nobody listens on 10.0.%d.%d:22", i/256, i%256)))
	}
	tally.add(refuse(300, "nobody listens on node300:22"))
	tally.add(refuse(301, "nobody listens on [2001:db8::1]:22"))
	tally.add(refuse(302, "nobody listens on node003:22"))
	var got []string
	for _, f := range tally.failures() {
		got = append(got, fmt.Sprintf("%d: %s", len(tally.failed[f]), tally.texts[f.kind].among(tally.failed[f])))
	}
	want := []string{
		"301: nobody listens on 10.0.0.0:22 (node000; the others likewise)",
		"1: nobody listens on [2001:db8::1]:22",
		"1: nobody listens on node003:22",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}

	var babel Tally
	for i := range 10 * maxKinds {
		babel.add(refuse(i, strings.Repeat("x", i)))
	}
	if len(babel.texts) > maxKinds+1 || babel.Hosts != 10*maxKinds {
		t.Errorf("%d kinds of errors of %d hosts", len(babel.texts), babel.Hosts)
	}
	told := 0
	for _, f := range babel.failures() {
		told += len(babel.failed[f])
	}
	if told != babel.Hosts {
		t.Errorf("of %d hosts %d are told", babel.Hosts, told)
	}
}

// The summary of a record and that for machines are one object.
func TestSummaryJSON(t *testing.T) {
	list := append(timed(), took(20, time.Millisecond, time.Minute))
	var b strings.Builder
	feed(t, &Summary{Stream: Stream{W: &b, Width: 20}, JSON: true}, list...)
	lines := strings.SplitAfter(strings.TrimSuffix(record(t, Run{}, list...), "\n"), "\n")
	if diff := cmp.Diff(lines[len(lines)-1]+"\n", b.String()); diff != "" {
		t.Errorf("-record +summary:\n%s", diff)
	}
	var indented strings.Builder
	var object any
	if err := json.Unmarshal([]byte(b.String()), &object); err != nil {
		t.Fatal(err)
	}
	encoder := json.NewEncoder(&indented)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(object); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.json", indented.String())

	b.Reset()
	feed(t, &Summary{Stream: Stream{W: &b}, JSON: true})
	if want := `{"type":"summary","hosts":0,"outcomes":{},"seconds":0}` + "\n"; b.String() != want {
		t.Errorf("of no hosts: %s, want %s", b.String(), want)
	}
}

// A run in which most of what can be told is.
func TestSummaryText(t *testing.T) {
	var list []runner.Event
	for i := range 400 {
		switch {
		case i == 17 || i == 4:
			list = append(list, exit(i, 3))
		case i < 30:
			list = append(list, failed(i, runner.Timeout, transport.PhaseConnect, &transport.TimeoutError{After: 10 * time.Second, Limit: "--connect-timeout"}))
		case i < 130:
			list = append(list, failed(i, runner.Refused, transport.PhaseConnect, fmt.Errorf("nobody listens on port 514 of 10.0.0.%d: is an rshd running there?", i)))
		case i == 200:
			list = append(list, failed(i, runner.Refused, transport.PhaseConnect, errors.New("\x1b[2Jgo away\u202e")))
		case i == 300 || i == 301:
			list = append(list, took(i, time.Millisecond, 4*time.Second))
		case i == 302:
			list = append(list, took(i, 3*time.Second, time.Minute+2*time.Second))
		default:
			list = append(list, took(i, time.Duration(i)*100*time.Microsecond, 300*time.Millisecond+time.Duration(i)*time.Millisecond))
		}
	}
	for i := range list {
		list[i].Time = time.Date(2026, 3, 29, 2, 0, i, 0, time.UTC)
	}
	left := took(400, 0, 0)
	left.Result.Status.Background = true
	list = append(list, left, finish(401, runner.Result{Outcome: runner.Cancelled, Err: errors.New("interrupted")}))
	var b strings.Builder
	for _, s := range []Summary{{}, {Errors: true}, {Stream: Stream{Width: 60}}} {
		s.W = &b
		feed(t, &s, list...)
		b.WriteByte('\n')
	}
	golden(t, "summary.txt", b.String())
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1: "1ns", 1234: "1.23µs", 12345: "12.3µs", 123456: "123µs", 999_999: "1ms",
		time.Millisecond: "1ms", 12345678: "12.3ms", 123456789: "123ms", 1234567891: "1.23s", 12345678912: "12.3s",
		59960 * time.Millisecond: "1m", 61900 * time.Millisecond: "1m2s", 2 * time.Minute: "2m", 2*time.Hour + 1: "2h0m",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%v) = %s, want %s", d, got, want)
		}
	}
}
