// Package transporttest is the suite that every transport passes. A transport's own tests need ten lines for it:
//
//	func TestConformance(t *testing.T) {
//		transporttest.Run(t, transporttest.Harness{
//			New: func(tb testing.TB) (transport.Transport, transport.Host) {
//				return &execcmd.Transport{}, transport.Host{Name: "h1"}
//			},
//		})
//	}
//
//	Harness.New ──► Transport ── Start ──► Session ── Wait ──► Status
//	                    ▲                     │
//	                 command with           output into a Recorder:
//	               a script for sh       the test waits for what comes
//
// Nothing here sleeps or takes time: a test waits for a word in the output and only then takes its next step. Each sub-test
// ends with no goroutine more than it began with, servers of the harness included, unless Harness.Leaks excepts them.
//
// Tests beyond the suite have [Begin] and [Recorder] from here, to meddle with a session that runs.
//
// The commands are POSIX sh, in characters that every login shell leaves alone in single quotes: no single quote, no newline,
// no exclamation mark, no doubled backslash. With Harness.ForeignShell they are given to /bin/sh in those quotes.
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"multirsh/transport"
)

// Harness is a transport under test and what it can do. The zero value of each field but New is a transport that can do all.
type Harness struct {
	// New makes a transport and a host that it reaches. It is called at the start of each sub-test; what it starts it stops
	// in tb.Cleanup.
	New func(tb testing.TB) (transport.Transport, transport.Host)

	Merged       bool // both outputs arrive on Stdout
	NoStatus     bool // Status.Known is never true, nor can a child left running be told from the command
	NoBackground bool // a child left running cannot be told from the command
	NoInput      bool // Command.Stdin does not work
	NoSignal     bool // Signal says errors.ErrUnsupported
	ForeignShell bool // the login shell on the far side is not a POSIX one
	Parallel     int  // how many sessions at once; 0: 50
	Leaks        []goleak.Option
}

// patience is when a test that waits gives up. It decides nothing but when a hang is called one.
const patience = 45 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	type test struct {
		name string
		run  func(*testing.T, *bench)
		skip string
	}
	tests := []test{
		{"exit status", exitStatus, ""},
		{"killed by a signal", killedBySignal, ""},
		{"stdout and stderr", streams, ""},
		{"no streams", noStreams, ""},
		{"long line", longLine, ""},
		{"flood on both", flood, ""},
		{"slow sink", slowSink, ""},
		{"sink fails", sinkFails, ""},
		{"no input", noInput, ""},
		{"input", input, h.lacks(h.NoInput, "input")},
		{"input shared", inputShared, h.lacks(h.NoInput, "input")},
		{"input unread", inputUnread, h.lacks(h.NoInput, "input")},
		{"input unreadable", inputUnreadable, h.lacks(h.NoInput, "input")},
		{"signal", signals, h.lacks(h.NoSignal, "signals")},
		{"signal ignored", signalIgnored, h.lacks(h.NoSignal, "signals")},
		{"signal after the end", signalAfterEnd, ""},
		{"close", closeSession, ""},
		{"close at once", closeAtOnce, ""},
		{"wait's context ends", waitContext, ""},
		{"start's context has ended", startContext, ""},
		{"start's context ends later", startContextLater, ""},
		{"background child", background, h.lacks(h.NoStatus || h.NoBackground, "word of a child left running")},
		{"in parallel", parallel, ""},
	}
	if h.NoSignal {
		tests = append(tests, test{"signal unsupported", signalUnsupported, ""})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.skip != "" {
				t.Skip(test.skip)
			}
			now := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, append(h.Leaks, now)...) }) // after the harness's own cleanups
			tr, host := h.New(t)
			t.Cleanup(func() { tr.Shutdown(context.Background()) })
			test.run(t, &bench{Harness: h, tr: tr, host: host})
		})
	}
}

// lacks is the reason to skip a test of what, if no is set.
func (h Harness) lacks(no bool, what string) string {
	if no {
		return "the harness says that this transport has no " + what
	}
	return ""
}

// bench is one sub-test's transport.
type bench struct {
	Harness
	tr   transport.Transport
	host transport.Host
}

// line is the command line for a script.
func (b *bench) line(script string) string {
	if b.ForeignShell {
		return "exec /bin/sh -c '" + script + "'"
	}
	return script
}

// start starts a script, with streams of the caller's choice.
func (b *bench) start(t testing.TB, cmd transport.Command) transport.Session {
	t.Helper()
	cmd.Line = b.line(cmd.Line)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := b.tr.Start(ctx, b.host, &cmd)
	if err != nil {
		t.Fatalf("Start(%.100q): %v", cmd.Line, err)
	}
	return s
}

// wait waits for the end.
func wait(s transport.Session) (transport.Status, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, errors.New("the test has lost patience"))
	defer cancel()
	return s.Wait(ctx)
}

// waiting begins to wait, which is when output begins to flow, and gives the function that returns what Wait did.
func waiting(s transport.Session) func() (transport.Status, error) {
	type end struct {
		st  transport.Status
		err error
	}
	ended := make(chan end, 1)
	go func() {
		st, err := wait(s)
		ended <- end{st, err}
	}()
	return func() (transport.Status, error) { e := <-ended; return e.st, e.err }
}

// run runs a script to its end, which must be without error.
func (b *bench) run(t testing.TB, script string, stdin *io.SectionReader) (out, err string, st transport.Status) {
	t.Helper()
	var stdout, stderr Recorder
	s := b.start(t, transport.Command{Line: script, Stdin: stdin, Stdout: &stdout, Stderr: &stderr})
	st, waitErr := wait(s)
	if waitErr != nil {
		t.Fatalf("Wait after %.100q: %v (output %.1000q, %.1000q)", script, waitErr, stdout.String(), stderr.String())
	}
	return stdout.String(), stderr.String(), st
}

// code checks an exit status, where there are any.
func (b *bench) code(t testing.TB, st transport.Status, want int) {
	t.Helper()
	if b.NoStatus {
		if st.Known {
			t.Errorf("status %+v is known, and the harness says it never is", st)
		}
		return
	}
	if !st.Known || !st.Started || st.Code != want || st.Signal != "" {
		t.Errorf("status %+v, want a known exit %d of a started command", st, want)
	}
}

// opError checks the shape of an error: an OpError with a phase and the host's name, said once.
func (b *bench) opError(t testing.TB, err, cause error) {
	t.Helper()
	var op *transport.OpError
	if !errors.As(err, &op) {
		t.Fatalf("error %v (%T) is no *transport.OpError", err, err)
	}
	if op.Host != b.host.Name || op.Phase == "" {
		t.Errorf("error of host %q, phase %q, want host %q and some phase", op.Host, op.Phase, b.host.Name)
	}
	var inner *transport.OpError
	if errors.As(op.Err, &inner) {
		t.Errorf("error %v holds another OpError", err)
	}
	if !errors.Is(err, cause) {
		t.Errorf("error %v does not wrap %v", err, cause)
	}
}

// writerFunc is an io.Writer.
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func exitStatus(t *testing.T, b *bench) {
	for _, code := range []int{0, 1, 3, 127, 255} {
		_, _, st := b.run(t, fmt.Sprintf("exit %d", code), nil)
		b.code(t, st, code)
		if st.Background || !st.Ended {
			t.Errorf("status %+v, want the end of both outputs, and no child left running", st)
		}
	}
	_, _, st := b.run(t, "echo begin; false", nil)
	b.code(t, st, 1)
}

func killedBySignal(t *testing.T, b *bench) {
	out, _, st := b.run(t, "echo before; kill -KILL $$", nil)
	if out != "before\n" {
		t.Errorf("stdout %q, want %q", out, "before\n")
	}
	// A wrapper of sh cannot tell the signal from an exit with 128 and its number.
	if bySignal, byCode := st.Signal == "KILL", st.Signal == "" && st.Code == 137; !b.NoStatus && (!st.Known || !bySignal && !byCode) {
		t.Errorf("status %+v, want signal KILL or exit 137", st)
	}
}

func streams(t *testing.T, b *bench) {
	for _, test := range []struct{ script, out, err string }{
		{`printf "a\000b\377\376\n\000"`, "a\x00b\xff\xfe\n\x00", ""},
		{`printf "a\000b\377\376\n\000" >&2`, "", "a\x00b\xff\xfe\n\x00"},
		{`echo out; echo err >&2`, "out\n", "err\n"},
		{`printf unfinished; printf "lines\r" >&2`, "unfinished", "lines\r"},
		{`true`, "", ""},
		{`exec >&-; echo late >&2`, "", "late\n"},
		{`exec 2>&-; echo late`, "late\n", ""},
	} {
		out, errs, st := b.run(t, test.script, nil)
		b.code(t, st, 0)
		if b.Merged {
			test.out, test.err = test.out+test.err, ""
		}
		if out != test.out || errs != test.err {
			t.Errorf("%s: stdout %q, stderr %q, want %q and %q", test.script, out, errs, test.out, test.err)
		}
	}
}

func noStreams(t *testing.T, b *bench) {
	st, err := wait(b.start(t, transport.Command{Line: "echo out; echo err >&2; exit 4"}))
	if err != nil {
		t.Fatal(err)
	}
	b.code(t, st, 4)
}

func longLine(t *testing.T, b *bench) {
	const size = 10_000_000
	out, _, st := b.run(t, fmt.Sprintf(`head -c %d /dev/zero | tr "\000" x; exit 5`, size), nil)
	b.code(t, st, 5)
	if len(out) != size || strings.Count(out, "x") != size {
		t.Errorf("%d bytes, %d of them x, want %d", len(out), strings.Count(out, "x"), size)
	}
}

func flood(t *testing.T, b *bench) {
	const size = 3_000_000
	out, errs, st := b.run(t, fmt.Sprintf(`{ head -c %d /dev/zero | tr "\000" e >&2; } & head -c %[1]d /dev/zero | tr "\000" o; wait`, size), nil)
	b.code(t, st, 0)
	if b.Merged {
		if len(errs) != 0 {
			t.Errorf("%d bytes of stderr, where outputs are merged", len(errs))
		}
		errs = strings.ReplaceAll(out, "o", "")
		out = strings.ReplaceAll(out, "e", "")
	}
	if len(out) != size || strings.Count(out, "o") != size || len(errs) != size || strings.Count(errs, "e") != size {
		t.Errorf("%d bytes of stdout, %d of stderr, want %d of each", len(out), len(errs), size)
	}
}

// slowSink holds a sink's first Write back: the command must not be read to its end meanwhile, another session must not be
// disturbed, and nothing may be lost.
func slowSink(t *testing.T, b *bench) {
	const size = 32 << 20 // more than the buffers of any way here
	var (
		first   = make(chan struct{})
		release = make(chan struct{})
		once    sync.Once
		n       int
		last    byte
	)
	slow := writerFunc(func(p []byte) (int, error) {
		once.Do(func() {
			close(first)
			<-release
		})
		n += len(p)
		last = p[len(p)-1]
		return len(p), nil
	})
	var stderr Recorder
	s := b.start(t, transport.Command{Line: fmt.Sprintf("head -c %d /dev/zero; printf z; echo finished >&2", size), Stdout: slow, Stderr: &stderr})
	status := make(chan transport.Status)
	go func() {
		st, err := wait(s)
		if err != nil {
			t.Errorf("Wait: %v", err)
		}
		status <- st
	}()
	<-first
	for range 5 {
		b.run(t, "head -c 100000 /dev/zero", nil)
	}
	if strings.Contains(stderr.String(), "finished") {
		t.Errorf("the command could write %d bytes while nobody took them", size)
	}
	close(release)
	b.code(t, <-status, 0)
	want := size + 1
	if b.Merged {
		want, last = want+len("finished\n"), 'z'
	}
	if n != want || last != 'z' {
		t.Errorf("%d bytes, the last %q, want %d and z", n, last, want)
	}
}

func sinkFails(t *testing.T, b *bench) {
	full := errors.New("no space left in the test")
	for _, script := range []string{
		"while :; do echo on and on; done",
		"echo once; exec sleep 1000",
		"echo once",
		"while :; do echo on and on >&2; done",
	} {
		broken := writerFunc(func([]byte) (int, error) { return 0, full })
		cmd := transport.Command{Line: script, Stdout: broken, Stderr: new(Recorder)}
		if strings.HasSuffix(script, ">&2; done") && !b.Merged {
			cmd.Stdout, cmd.Stderr = cmd.Stderr, cmd.Stdout
		}
		_, err := wait(b.start(t, cmd))
		b.opError(t, err, full)
	}
}

func noInput(t *testing.T, b *bench) {
	out, _, st := b.run(t, "cat; echo end", nil)
	b.code(t, st, 0)
	if out != "end\n" {
		t.Errorf("stdout %q, want %q", out, "end\n")
	}
}

// pattern is n bytes in which every value occurs and no short period does.
func pattern(n int) []byte {
	data := make([]byte, n)
	x := uint32(2463534242)
	for i := range data {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		data[i] = byte(x >> 11)
	}
	return data
}

func section(data []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data)))
}

func input(t *testing.T, b *bench) {
	big := pattern(1 << 20)
	for name, data := range map[string][]byte{
		"empty": nil, "a byte": {0}, "a line": []byte("hello\n"), "go": []byte("go\nstop\n"), "1 MB": big, "1 MB and one": append(big[:len(big):len(big)], '\n'),
	} {
		out, _, st := b.run(t, "cat; exit 6", section(data))
		b.code(t, st, 6)
		if out != string(data) {
			t.Errorf("%s: %d bytes came back, not the %d that were sent", name, len(out), len(data))
		}
	}
}

// inputShared has many sessions read one spool, a part of a bigger one and with its own offset moved, at the same time.
func inputShared(t *testing.T, b *bench) {
	data := pattern(400_000)
	shared := io.NewSectionReader(bytes.NewReader(data), 1000, 300_000)
	if _, err := shared.Seek(777, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var sessions sync.WaitGroup
	for range 8 {
		sessions.Go(func() {
			var out Recorder
			s, err := b.tr.Start(t.Context(), b.host, &transport.Command{Line: b.line("cat"), Stdin: shared, Stdout: &out})
			if err != nil {
				t.Errorf("Start: %v", err)
				return
			}
			if _, err := wait(s); err != nil {
				t.Errorf("Wait: %v", err)
			}
			if out.String() != string(data[1000:301_000]) {
				t.Errorf("%d bytes came back, not the 300000 of the section", len(out.String()))
			}
		})
	}
	sessions.Wait()
	if at, _ := shared.Seek(0, io.SeekCurrent); at != 777 {
		t.Errorf("the section's own offset went from 777 to %d", at)
	}
}

func inputUnread(t *testing.T, b *bench) {
	data := pattern(1 << 20)
	for _, script := range []string{
		`head -c 300000 /dev/zero | tr "\000" x; echo tail; exit 7`,
		`dd bs=10 count=1 of=/dev/null 2>/dev/null; head -c 300000 /dev/zero | tr "\000" x; echo tail; exit 7`,
		`exec <&-; head -c 300000 /dev/zero | tr "\000" x; echo tail; exit 7`,
	} {
		out, _, st := b.run(t, script, section(data))
		b.code(t, st, 7)
		if len(out) != 300_005 || !strings.HasSuffix(out, "xtail\n") {
			t.Errorf("%s: %d bytes of output, want 300005 with the tail", script, len(out))
		}
	}
}

// inputUnreadable has a spool that breaks half way: the command must not take the half for the whole.
func inputUnreadable(t *testing.T, b *bench) {
	broken := errors.New("bad sector in the test")
	var out Recorder
	s := b.start(t, transport.Command{
		Line:   "cat >/dev/null; echo whole",
		Stdin:  io.NewSectionReader(half{size: 500_000, err: broken}, 0, 1_000_000),
		Stdout: &out,
	})
	_, err := wait(s)
	b.opError(t, err, broken)
	if strings.Contains(out.String(), "whole") {
		t.Error("the command saw an end of file after half the input")
	}
}

// half is an io.ReaderAt of zeros that fails from size on.
type half struct {
	size int64
	err  error
}

func (h half) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), max(0, h.size-off)))
	clear(p[:n])
	if n < len(p) {
		return n, h.err
	}
	return n, nil
}

// stopped checks the status of a command that a signal ended.
func (b *bench) stopped(t *testing.T, st transport.Status) {
	t.Helper()
	if st.Known && st.Code == 0 && st.Signal == "" {
		t.Errorf("status %+v says ok, of a command that was stopped", st)
	}
}

func signals(t *testing.T, b *bench) {
	for _, script := range []string{
		"echo ready; exec sleep 1000",
		"echo ready; sleep 1000; echo no",
		"sleep 1000 & sleep 1000 & echo ready; wait; echo no",
		"echo ready; sleep 1000 | cat; echo no",
	} {
		var out Recorder
		s := b.start(t, transport.Command{Line: script, Stdout: &out, Stderr: new(Recorder)})
		end := waiting(s)
		out.Await(t, "ready\n")
		if err := s.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("Signal: %v", err)
		}
		st, err := end()
		if err != nil {
			t.Errorf("%s: Wait: %v", script, err)
		}
		b.stopped(t, st)
		if out.String() != "ready\n" {
			t.Errorf("%s: stdout %q, want only ready", script, out.String())
		}
	}

	var out Recorder
	s := b.start(t, transport.Command{Line: `trap "echo bye; exit 9" TERM; sleep 1000 & echo ready; wait; echo no`, Stdout: &out, Stderr: new(Recorder)})
	end := waiting(s)
	out.Await(t, "ready\n")
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("Signal: %v", err)
	}
	st, err := end()
	if err != nil {
		t.Errorf("Wait: %v", err)
	}
	b.stopped(t, st)
	if out.String() != "ready\nbye\n" {
		t.Errorf("stdout %q, want ready and what the command says on its way out", out.String())
	}
}

func signalIgnored(t *testing.T, b *bench) {
	for _, script := range []string{
		`trap "" TERM; echo ready; while :; do sleep 1; done`,
		`(trap "" TERM; echo ready; while :; do sleep 1; done); echo no`,
	} {
		var out Recorder
		s := b.start(t, transport.Command{Line: script, Stdout: &out, Stderr: new(Recorder)})
		end := waiting(s)
		out.Await(t, "ready\n")
		if err := s.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("Signal: %v", err)
		}
		st, err := end()
		// Where SIGKILL takes the teller of the status along, the end of both outputs is what proves the stop.
		if err != nil && !(errors.Is(err, transport.ErrLost) && st.Ended) {
			t.Errorf("%s: Wait: %v (%+v)", script, err, st)
		}
		b.stopped(t, st)
		if out.String() != "ready\n" {
			t.Errorf("%s: stdout %q, want only ready", script, out.String())
		}
	}
}

func signalUnsupported(t *testing.T, b *bench) {
	var out Recorder
	s := b.start(t, transport.Command{Line: "echo ready; exec sleep 1000", Stdout: &out})
	end := waiting(s)
	out.Await(t, "ready\n")
	if err := s.Signal(syscall.SIGTERM); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Signal: %v, want %v", err, errors.ErrUnsupported)
	}
	s.Close()
	_, err := end()
	b.opError(t, err, transport.ErrClosed)
}

func signalAfterEnd(t *testing.T, b *bench) {
	s := b.start(t, transport.Command{Line: "exit 0"})
	st, err := wait(s)
	if err != nil {
		t.Fatal(err)
	}
	b.code(t, st, 0)
	s.Signal(syscall.SIGTERM) // there is nobody left to say anything about
	s.Signal(os.Kill)
	if err := s.Close(); err != nil {
		t.Errorf("Close after the end: %v", err)
	}
}

func closeSession(t *testing.T, b *bench) {
	for _, script := range []string{
		"echo ready; exec sleep 1000",
		`trap "" TERM; echo ready; while :; do sleep 1; done`,
		"echo ready; while :; do echo on and on; done",
	} {
		var out Recorder
		s := b.start(t, transport.Command{Line: script, Stdout: &out, Stderr: new(Recorder)})
		ended := make(chan error, 1)
		go func() {
			_, err := wait(s)
			ended <- err
		}()
		out.Await(t, "ready\n")
		var closes sync.WaitGroup
		for range 4 {
			closes.Go(func() { s.Close() })
		}
		closes.Wait()
		b.opError(t, <-ended, transport.ErrClosed)
		s.Close()
	}
}

func closeAtOnce(t *testing.T, b *bench) {
	for _, script := range []string{"exec sleep 1000", "head -c 1000000 /dev/zero"} {
		s := b.start(t, transport.Command{Line: script, Stdout: new(Recorder), Stderr: new(Recorder)})
		s.Close()
		s.Close()
		_, err := wait(s)
		b.opError(t, err, transport.ErrClosed)
	}
	if !b.NoInput {
		s := b.start(t, transport.Command{Line: "exec sleep 1000", Stdin: section(pattern(1 << 20)), Stdout: new(Recorder)})
		s.Close()
		_, err := wait(s)
		b.opError(t, err, transport.ErrClosed)
	}
}

func waitContext(t *testing.T, b *bench) {
	cause := errors.New("the test has had enough")
	var out Recorder
	s := b.start(t, transport.Command{Line: "echo ready; exec sleep 1000", Stdout: &out})
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Wait(ctx)
		ended <- err
	}()
	out.Await(t, "ready\n")
	cancel(cause)
	b.opError(t, <-ended, cause)

	s = b.start(t, transport.Command{Line: "exec sleep 1000"})
	_, err := s.Wait(ctx)
	b.opError(t, err, cause)
}

func startContext(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.tr.Start(ctx, b.host, &transport.Command{Line: "true"}); err == nil {
		t.Error("Start with a context that has ended: no error")
	} else {
		b.opError(t, err, context.Canceled)
	}
}

// startContextLater ends Start's context as soon as Start has returned, as a caller with a connect timeout does.
func startContextLater(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	var out Recorder
	s, err := b.tr.Start(ctx, b.host, &transport.Command{Line: b.line("echo one; cat; echo two"), Stdout: &out})
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	st, err := wait(s)
	if err != nil {
		t.Fatal(err)
	}
	b.code(t, st, 0)
	if out.String() != "one\ntwo\n" {
		t.Errorf("stdout %q, want one and two", out.String())
	}
}

// background leaves a child behind that holds both outputs.
func background(t *testing.T, b *bench) {
	out, errs, st := b.run(t, "sleep 1000 & echo $!; echo err >&2; exit 8", nil)
	t.Cleanup(func() { b.run(t, "kill "+strings.TrimSpace(out)+" || true", nil) })
	b.code(t, st, 8)
	if !st.Background || st.Ended {
		t.Errorf("status %+v, want a child that was left running", st)
	}
	if b.Merged {
		out, _, _ = strings.Cut(out, "err\n")
		errs = "err\n"
	}
	if strings.Trim(out, "0123456789") != "\n" || errs != "err\n" {
		t.Errorf("stdout %q, stderr %q, want a number and err", out, errs)
	}
}

func parallel(t *testing.T, b *bench) {
	n := b.Parallel
	if n == 0 {
		n = 50
	}
	var sessions sync.WaitGroup
	for i := range n {
		sessions.Go(func() {
			var out, errs Recorder
			s, err := b.tr.Start(t.Context(), b.host, &transport.Command{
				Line:   b.line(fmt.Sprintf("echo out %d; echo err %[1]d >&2; exit %[1]d", i%256)),
				Stdout: &out, Stderr: &errs,
			})
			if err != nil {
				t.Errorf("session %d: Start: %v", i, err)
				return
			}
			st, err := wait(s)
			if err != nil {
				t.Errorf("session %d: Wait: %v", i, err)
			}
			b.code(t, st, i%256)
			wantOut, wantErr := fmt.Sprintf("out %d\n", i%256), fmt.Sprintf("err %d\n", i%256)
			if b.Merged {
				wantOut, wantErr = wantOut+wantErr, ""
			}
			if out.String() != wantOut || errs.String() != wantErr {
				t.Errorf("session %d: stdout %q, stderr %q", i, out.String(), errs.String())
			}
		})
	}
	sessions.Wait()
}
