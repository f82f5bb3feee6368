package output

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner"
	"multirsh/transport"
)

// again is the end of a host's n-th try that another follows, and restart the begin of that.
func again(e runner.Event, n int) runner.Event {
	e.Kind, e.Result.Tries = runner.Again, n
	return e
}

func restart(e runner.Event) runner.Event {
	e.Kind, e.Time = runner.Restart, e.Time.Add(time.Second)
	return e
}

func try(e runner.Event, n int) runner.Event {
	e.Result.Tries = n
	return e
}

// retriedStory has a host for each of the ways in which a host of timed ends: that is how its first try does, and its second one is ok.
func retriedStory() (list []runner.Event) {
	for _, e := range timed() {
		if e.Kind != runner.Finish || neverTried(e.Result) {
			continue
		}
		e.Seq += 100
		e.Host = host(e.Seq)
		result := *e.Result
		result.Seq, result.Host = e.Seq, e.Host
		e.Result = &result
		begin, second := start(e.Seq), ok(e.Seq)
		begin.Time, second.Time = e.Time, e.Time.Add(time.Second)
		list = append(list, begin, again(e, 1), restart(e), try(second, 2))
	}
	return list
}

// A record of tries is the same run again.
func TestReplayTries(t *testing.T) {
	text := record(t, Run{}, retriedStory()...)
	if record(t, Run{}, replayed(t, text)...) != text {
		t.Error("the record of a record is another one")
	}
	views := func(list []runner.Event) string {
		var b strings.Builder
		feed(t, Tee(&Lines{Stdout: Stream{W: &b}, Stderr: Stream{W: &b}}, &Fold{Stream: Stream{W: &b}}, &Summary{Stream: Stream{W: &b}}), list...)
		return b.String()
	}
	if diff := cmp.Diff(views(retriedStory()), views(replayed(t, text))); diff != "" {
		t.Errorf("views of the run and of its record (-run +record):\n%s", diff)
	}
}

// What the try before has written is whole lines of its own where lines come as they come, and is not there in a fold.
func TestTriesInViews(t *testing.T) {
	list := []runner.Event{
		start(1), output(runner.Stdout, 1, "first"), output(runner.Stderr, 1, "oh"), again(exit(1, 4), 1), restart(exit(1, 4)),
		output(runner.Stdout, 1, "second\n"), try(ok(1), 2),
		start(2), output(runner.Stdout, 2, "second\n"), ok(2),
		start(3), output(runner.Stdout, 3, "first\n"), again(exit(3, 4), 1), try(exit(3, 4), 1), // the run ended before its next try
	}
	for _, test := range []struct {
		name string
		sink func(Stream) runner.Sink
		want string
	}{
		{"lines", func(s Stream) runner.Sink { return &Lines{Stdout: s, Stderr: s} },
			"node001: first\nnode001: oh\nnode001: second\nnode002: second\nnode003: first\nnode003: exit 4\n"},
		{"fold", func(s Stream) runner.Sink { return &Fold{Stream: s, Stderr: true} },
			foldRule + "node[001-002] (2)\n" + foldRule + "second\n" + foldRule + "node003 (1): exit 4\n" + foldRule + "first\n"},
		{"normalized fold", func(s Stream) runner.Sink { return &Fold{Stream: s, Normalize: Normalize{Host: true}} },
			foldRule + "node[001-002] (2)\n" + foldRule + "second\n" + foldRule + "node003 (1): exit 4\n" + foldRule + "first\n"},
		{"live fold", func(s Stream) runner.Sink { return &FoldLive{Stream: s} },
			"node001: first\nnode001: second\nnode002: second\nnode003: first\n"},
		{"summary", func(s Stream) runner.Sink { return &Summary{Stream: s} },
			"3 hosts: 2 ok, 1 exit\nexit 4 (1): node003\n1 host was tried again, and was ok\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b strings.Builder
			feed(t, test.sink(Stream{W: &b}), list...)
			if diff := cmp.Diff(test.want, b.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSummaryTries(t *testing.T) {
	for want, list := range map[string][]runner.Event{
		"": {try(ok(1), 1), try(ok(2), 1)},
		"1 host was tried again, and was not ok\n": {try(ok(1), 1), try(exit(2, 1), 2)},
		"2 hosts were tried again, 1 of them ok\n": {try(ok(1), 2), try(exit(2, 1), 3)},
	} {
		var b strings.Builder
		feed(t, &Summary{Stream: Stream{W: &b}}, list...)
		if _, got, _ := strings.Cut(strings.TrimPrefix(b.String(), "2 hosts: 2 ok\n"), "exit 1 (1): node002\n"); got != want {
			t.Errorf("got %q, want %q", b.String(), want)
		}
	}
}

// A host that waits for its next try does not run; one whose next try has begun does, since then.
func TestProgressTries(t *testing.T) {
	at := time.Date(2026, 3, 29, 2, 0, 0, 0, time.UTC)
	p := &Progress{Total: 20, Ends: []int{2, 20}}
	refused := failed(1, runner.Refused, transport.PhaseConnect, syscall.ECONNREFUSED)
	refused.Time = at
	status := func() string {
		var b strings.Builder
		if err := p.Status(Stream{W: &b}, at.Add(3*time.Second)); err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(p.lines(at.Add(3*time.Second), 200)[0], "/s")
		return b.String() + line
	}
	for _, step := range []struct {
		events []runner.Event
		want   string
	}{
		{nil, "0 of 20 hosts done, 0 running, 20 waiting, stage 1/2\n0/20 done, 0 running, stage 1/2"},
		{[]runner.Event{start(1), start(2), again(refused, 1)},
			"0 of 20 hosts done, 1 running, 19 waiting, of them 1 to be tried again, stage 1/2\n" +
				"running 3s (1): node002\n0/20 done, 1 running, stage 1/2, 1 to be tried again"},
		{[]runner.Event{restart(refused), ok(2)},
			"1 of 20 hosts done (1 ok), 1 running, 18 waiting, stage 1/2\nrunning 3s (1): node001\n1/20 done, 1 running, stage 1/2, 0.33"},
		{[]runner.Event{again(refused, 2), try(refusedAgain(refused), 2)},
			"2 of 20 hosts done (1 ok, 1 refused), 0 running, 18 waiting, stage 1/2\n2/20 done, 1 failed, 0 running, stage 1/2, 0.67"},
		{[]runner.Event{{Kind: runner.Start, Seq: 3, Host: host(3), Time: at}},
			"2 of 20 hosts done (1 ok, 1 refused), 1 running, 17 waiting, stage 2/2\nrunning 3s (1): node003\n2/20 done, 1 failed, 1 running, stage 2/2, 0.67"},
	} {
		for _, e := range step.events {
			e.Time = at
			if err := p.Event(e); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(step.want, status()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func refusedAgain(e runner.Event) runner.Event {
	e.Kind = runner.Finish
	return e
}
