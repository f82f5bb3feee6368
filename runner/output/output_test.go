package output

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner"
	"multirsh/transport"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name.
func golden(tb testing.TB, name, got string) {
	tb.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		tb.Errorf("%s (-want +got; go test -update writes it anew):\n%s", file, diff)
	}
}

// terminal is where both streams end; a mark before each line tells which one it came from.
type terminal struct{ bytes.Buffer }

func (t *terminal) stream(mark string) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		for line := range bytes.Lines(p) {
			fmt.Fprintf(t, "%s%s", mark, line)
		}
		return len(p), nil
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func host(seq int) transport.Host { return transport.Host{Name: fmt.Sprintf("node%03d", seq)} }

func output(kind runner.Kind, seq int, data string) runner.Event {
	return runner.Event{Kind: kind, Seq: seq, Host: host(seq), Data: []byte(data)}
}

func finish(seq int, r runner.Result) runner.Event {
	r.Seq, r.Host = seq, host(seq)
	return runner.Event{Kind: runner.Finish, Seq: seq, Host: r.Host, Result: &r}
}

func ok(seq int) runner.Event {
	return finish(seq, runner.Result{Outcome: runner.OK, Status: transport.Status{Known: true, Started: true}})
}

func exit(seq, code int) runner.Event {
	return finish(seq, runner.Result{Outcome: runner.Exit, Status: transport.Status{Known: true, Started: true, Code: code}})
}

func failed(seq int, o runner.Outcome, phase transport.Phase, err error) runner.Event {
	return finish(seq, runner.Result{Outcome: o, Err: &transport.OpError{Phase: phase, Host: host(seq).Name, Err: err}})
}

func feed(tb testing.TB, s runner.Sink, events ...runner.Event) {
	tb.Helper()
	for _, e := range events {
		if err := s.Event(e); err != nil {
			tb.Fatalf("event %+v: %v", e, err)
		}
	}
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}

// story is a run in which everything happens.
func story() []runner.Event {
	left := ok(12)
	left.Result.Status.Background = true
	left3 := exit(13, 3)
	left3.Result.Status.Background = true
	return []runner.Event{
		output(runner.Stdout, 1, "one\ntwo\nthr"),
		output(runner.Stdout, 2, "x"),
		output(runner.Stderr, 1, "warning"),
		output(runner.Stdout, 1, "ee\nfour\nfi"),
		output(runner.Stdout, 2, "y"),
		output(runner.Stderr, 2, "\n\nafter empty lines\n"),
		output(runner.Stdout, 2, ""),
		ok(1),
		ok(2),
		exit(4, 3),
		exit(17, 3),
		exit(5, 1),
		finish(6, runner.Result{Outcome: runner.Signal, Status: transport.Status{Known: true, Started: true, Code: 139, Signal: "SEGV"}}),
		failed(7, runner.Timeout, transport.PhaseConnect, &transport.TimeoutError{After: 10 * time.Second, Limit: "--connect-timeout"}),
		failed(8, runner.Timeout, transport.PhaseRun, &transport.TimeoutError{After: time.Minute, Limit: "-t"}),
		failed(9, runner.Refused, transport.PhaseConnect, syscall.ECONNREFUSED),
		failed(10, runner.Unknown, transport.PhaseStart, errors.New("the command did not start: \x1b[2JThis account is\n\tcurrently not  available.\r\n")),
		failed(11, runner.Cancelled, transport.PhaseRun, &runner.StopError{Cause: errors.New("interrupted"), Confirmed: true}),
		failed(16, runner.Cancelled, transport.PhaseRun, &runner.StopError{Cause: errors.New("interrupted")}),
		left,
		left3,
		finish(14, runner.Result{Outcome: runner.Cancelled, Err: context.Canceled}),
		finish(15, runner.Result{Outcome: runner.Skipped, Err: runner.ErrFailFast}),
	}
}

func TestGolden(t *testing.T) {
	var full, quiet, bare terminal
	feed(t, Tee(
		&Lines{Stdout: Stream{W: full.stream("1 ")}, Stderr: Stream{W: full.stream("2 ")}},
		&Summary{Stream: Stream{W: full.stream("2 ")}},
	), story()...)
	feed(t, &Lines{Stdout: Stream{W: quiet.stream("1 ")}, Stderr: Stream{W: quiet.stream("2 ")}, Quiet: true}, story()...)
	feed(t, &Lines{Stdout: Stream{W: bare.stream("1 "), Width: 80}, Stderr: Stream{W: bare.stream("2 "), Width: 80}, NoLabels: true, Quiet: true}, story()...)
	golden(t, "story.txt", full.String())
	golden(t, "quiet.txt", quiet.String())
	golden(t, "bare.txt", bare.String())
}

func TestLongError(t *testing.T) {
	var b strings.Builder
	feed(t, &Lines{Stderr: Stream{W: &b}}, failed(1, runner.Protocol, transport.PhaseHandshake, errors.New(strings.Repeat("é", 40_000))))
	if !strings.HasSuffix(b.String(), "é…\n") || b.Len() > maxSentence+100 || strings.ContainsRune(b.String(), '\uFFFD') {
		t.Errorf("an error of 80,000 bytes became %d bytes, ending in %q", b.Len(), b.String()[b.Len()-10:])
	}
}

func TestSummary(t *testing.T) {
	many := make([]runner.Event, 0, 2000)
	for i := range 2000 {
		switch {
		case i%3 == 0:
			many = append(many, exit(i*7%2000, 3)) // scattered, so that the fold is long
		default:
			many = append(many, ok(i))
		}
	}
	left := ok(1)
	left.Result.Status.Background = true
	for _, test := range []struct {
		name   string
		width  int
		events []runner.Event
		want   string
	}{
		{"none", 0, nil, ""},
		{"one ok", 0, []runner.Event{ok(1)}, ""},
		{"one not ok", 0, []runner.Event{exit(1, 2)}, ""},
		{"one with a child", 0, []runner.Event{left}, "ok, but left a child running (1): node001\n"},
		{"one never tried", 0, []runner.Event{finish(1, runner.Result{Outcome: runner.Cancelled, Err: context.Canceled})}, "1 host: 1 cancelled\ncancelled, not begun (1): node001\n"},
		{"two ok", 80, []runner.Event{ok(1), ok(2)}, "2 hosts: 2 ok\n"},
		{"two", 80, []runner.Event{exit(1, 2), ok(2)}, "2 hosts: 1 ok, 1 exit\nexit 2 (1): node001\n"},
	} {
		var b strings.Builder
		feed(t, &Summary{Stream: Stream{W: &b, Width: test.width}}, test.events...)
		if diff := cmp.Diff(test.want, b.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}

	var narrow, whole strings.Builder
	feed(t, &Summary{Stream: Stream{W: &narrow, Width: 80}}, many...)
	feed(t, &Summary{Stream: Stream{W: &whole}}, many...)
	golden(t, "narrow.txt", narrow.String())
	if strings.Contains(whole.String(), "…") || strings.Count(whole.String(), "\n") != 2 {
		t.Errorf("not on a terminal, and yet cut or wrapped: %.300s", whole.String())
	}
}

func TestWrap(t *testing.T) {
	for _, test := range []struct {
		s           string
		width, rows int
		want        string
	}{
		{"short", 20, 1, "short"},
		{"exactly twenty chars", 20, 1, "exactly twenty chars"},
		{"aaaaaaaaa,bbbbbbbbb,ccc", 20, 2, "aaaaaaaaa,bbbbbbbbb,\n  ccc"},
		{"aaaaaaaaa, bbbbbbbbb, ccc", 20, 2, "aaaaaaaaa,\n  bbbbbbbbb, ccc"},
		{"aaaaaaaaa,bbbbbbbbb,ccc", 20, 1, "aaaaaaaaa,…"},
		{"aaaaaaaaa,bbbbbbb,cccc", 20, 1, "aaaaaaaaa,bbbbbbb,…"},
		{strings.Repeat("é", 41), 20, 3, strings.Repeat("é", 20) + "\n  " + strings.Repeat("é", 18) + "\n  ééé"},
		{strings.Repeat("é", 60), 0, 1, strings.Repeat("é", 60)},
		{strings.Repeat("é", 41), 1, 1, strings.Repeat("é", 19) + "…"},
	} {
		if got := wrap(test.s, test.width, test.rows); got != test.want {
			t.Errorf("wrap(%q, %d, %d):\n%s\nwant\n%s", test.s, test.width, test.rows, got, test.want)
		}
	}
}

func TestStatus(t *testing.T) {
	var p Progress
	begin := time.Unix(1000, 0)
	start := func(seq int, after time.Duration) runner.Event {
		return runner.Event{Kind: runner.Start, Time: begin.Add(after), Seq: seq, Host: host(seq)}
	}
	var b strings.Builder
	width := 0
	status := func(after time.Duration, total int) {
		t.Helper()
		p.Total = total
		if err := p.Status(Stream{W: &b, Width: width}, begin.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	status(0, 20)
	feed(t, &p, start(1, 0), start(2, 0), start(3, 0), start(4, 100*time.Second), start(5, 101*time.Second), ok(2), exit(3, 1))
	status(102500*time.Millisecond, 20)
	status(2*time.Hour, 0)
	for i := 10; i < 30; i++ {
		feed(t, &p, start(i, 102*time.Second+time.Duration(i)*time.Second))
	}
	width = 80
	status(131*time.Second, 25)
	golden(t, "status.txt", b.String())
}

// sinkFunc is a sink whose Event it is.
type sinkFunc func(runner.Event) error

func (f sinkFunc) Event(e runner.Event) error { return f(e) }
func (f sinkFunc) Close() error               { return f(runner.Event{}) }

func TestTee(t *testing.T) {
	full := errors.New("full")
	var bad, good int
	s := Tee(
		sinkFunc(func(runner.Event) error { bad++; return full }),
		sinkFunc(func(runner.Event) error { good++; return nil }),
	)
	if err := s.Event(ok(1)); !errors.Is(err, full) {
		t.Errorf("Event: %v, want %v", err, full)
	}
	if err := s.Event(ok(2)); err != nil {
		t.Errorf("Event after the failure: %v", err)
	}
	if err := s.Close(); !errors.Is(err, full) {
		t.Errorf("Close: %v, want %v", err, full)
	}
	if bad != 2 || good != 3 {
		t.Errorf("the failed sink was called %d times, the other %d, want 2 and 3", bad, good)
	}
}

// TestWriteErrors: what cannot be written is said, wherever it happens.
func TestWriteErrors(t *testing.T) {
	full := errors.New("full")
	broken := writerFunc(func([]byte) (int, error) { return 0, full })
	for name, events := range map[string][]runner.Event{
		"lines":           {output(runner.Stdout, 1, "a\nb")},
		"stderr":          {output(runner.Stderr, 1, "a\n")},
		"held line":       {output(runner.Stdout, 1, "a"), output(runner.Stdout, 1, "\n")},
		"unfinished line": {output(runner.Stdout, 1, "a"), ok(1)},
		"notice":          {exit(1, 1)},
	} {
		l := &Lines{Stdout: Stream{W: broken}, Stderr: Stream{W: broken}}
		var err error
		for _, e := range events {
			err = l.Event(e)
		}
		if !errors.Is(err, full) {
			t.Errorf("%s: %v, want %v", name, err, full)
		}
	}
	s := &Summary{Stream: Stream{W: broken}}
	s.Event(ok(1))
	s.Event(ok(2))
	if err := s.Close(); !errors.Is(err, full) {
		t.Errorf("summary: %v, want %v", err, full)
	}
}
