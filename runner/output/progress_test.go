package output

import (
	"strings"
	"sync"
	"testing"
	"time"

	"multirsh/runner"
	"multirsh/transport"
)

// progressAt is a run of 640 hosts: after eight seconds 100 are done, 3 of them not ok, and 64 are running.
func progressAt(tb testing.TB, total int, ports func() (int, int)) (*Progress, time.Time) {
	tb.Helper()
	p, begin := &Progress{Total: total, Ports: ports}, time.Unix(1000, 0)
	for seq := range 164 {
		feedMore(tb, p, runner.Event{Kind: runner.Start, Time: begin.Add(time.Duration(seq) * 10 * time.Millisecond), Seq: seq, Host: host(seq)})
	}
	for seq := 64; seq < 164; seq++ {
		outcome := runner.OK
		if seq%40 == 0 {
			outcome = runner.Exit
		}
		feedMore(tb, p, runner.Event{
			Kind: runner.Finish, Time: begin.Add(time.Duration(seq) * 40 * time.Millisecond), Seq: seq, Host: host(seq), Result: &runner.Result{Outcome: outcome},
		})
	}
	return p, begin.Add(8 * time.Second)
}

func TestProgressLines(t *testing.T) {
	ports := func() (int, int) { return 38, 512 }
	for _, tt := range []struct {
		name  string
		total int
		ports func() (int, int)
		width int
		want  [2]string
	}{
		{"wide", 640, ports, 200, [2]string{"100/640 done, 3 failed, 64 running, 12/s, 43s left, ports 38/512", "slowest: node000 8s, node001 7s, node002 7s"}},
		{"80", 640, nil, 79, [2]string{"100/640 done, 3 failed, 64 running, 12/s, 43s left", "slowest: node000 8s, node001 7s, node002 7s"}},
		{"40", 640, ports, 39, [2]string{"100/640 done, 3 failed, 64 running", "slowest: node000 8s, node001 7s"}},
		{"20", 640, nil, 19, [2]string{"100/640 done", "slowest: node000 8s"}},
		{"8", 640, nil, 8, [2]string{"100/640 ", "slowest:"}},
		{"none", 640, nil, 0, [2]string{}},
		{"total not known", 0, nil, 79, [2]string{"100 done, 3 failed, 64 running, 12/s", "slowest: node000 8s, node001 7s, node002 7s"}},
	} {
		p, now := progressAt(t, tt.total, tt.ports)
		if got := p.lines(now, tt.width); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Whatever the clock does no number is negative, and nothing is told that is not known.
func TestProgressClock(t *testing.T) {
	p, now := progressAt(t, 640, nil)
	if got, want := p.lines(now.Add(-time.Hour), 79), ([2]string{"100/640 done, 3 failed, 64 running", "slowest: node000 0s, node001 0s, node002 0s"}); got != want {
		t.Errorf("an hour back: %q, want %q", got, want)
	}
	if got, want := p.lines(now.Add(time.Hour), 79)[0], "100/640 done, 3 failed, 64 running"; got != want {
		t.Errorf("an hour on: %q, want %q", got, want)
	}
	if got, want := new(Progress).lines(now, 79), ([2]string{"0 done, 0 running"}); got != want {
		t.Errorf("before anything: %q, want %q", got, want)
	}
}

// A host that we have stopped, or never tried, has not failed.
func TestProgressFailed(t *testing.T) {
	p := &Progress{Total: 5}
	for seq, outcome := range []runner.Outcome{runner.OK, runner.Exit, runner.Cancelled, runner.Skipped, runner.Unknown} {
		feedMore(t, p, finish(seq, runner.Result{Outcome: outcome}))
	}
	if got, want := p.lines(time.Now(), 79)[0], "5/5 done, 2 failed, 0 running"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A rate is of the last ten seconds, also where more hosts were done in them than are kept.
func TestProgressRate(t *testing.T) {
	p, begin := &Progress{Total: 100_000}, time.Unix(1000, 0)
	for seq := range 50_000 { // 1,000 a second
		at := begin.Add(time.Duration(seq) * time.Millisecond)
		feedMore(t, p,
			runner.Event{Kind: runner.Start, Time: at, Seq: seq, Host: host(seq)},
			runner.Event{Kind: runner.Finish, Time: at, Seq: seq, Host: host(seq), Result: &runner.Result{Outcome: runner.OK}})
	}
	if got, want := p.lines(begin.Add(50*time.Second), 79)[0], "50000/100000 done, 0 running, 1000/s, 50s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestProgressPlain(t *testing.T) {
	p, now := progressAt(t, 640, func() (int, int) { return 38, 512 })
	evil := runner.Event{Kind: runner.Start, Time: now.Add(-time.Hour), Seq: 1000, Host: transport.Host{Name: "evil\x1b[2J"}}
	first := &Progress{Total: 1}
	feedMore(t, first, evil)
	var b strings.Builder
	for _, p := range []*Progress{p, first} {
		if err := p.Plain(&b, now); err != nil {
			t.Fatal(err)
		}
	}
	want := "multi-rsh: 100/640 done, 3 failed, 64 running, 12/s, 43s left, ports 38/512, slowest: node000 8s, node001 7s, node002 7s\n" +
		"multi-rsh: 0/1 done, 1 running, slowest: evil^[[2J 1h0m0s\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// A screen reads while the run goes on.
func TestProgressAtOnce(t *testing.T) {
	p := &Progress{Total: 1000}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 1000 {
			p.lines(time.Now(), 80)
		}
	})
	for seq := range 1000 {
		feedMore(t, p, runner.Event{Kind: runner.Start, Time: time.Now(), Seq: seq, Host: host(seq)}, ok(seq))
	}
	wg.Wait()
	if got := p.lines(time.Now().Add(time.Hour), 80); got != [2]string{"1000/1000 done, 0 running"} {
		t.Errorf("%q", got)
	}
}
