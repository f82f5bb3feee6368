package journal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"multirsh/runner"
	"multirsh/transport"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(victimVar); what != "" {
		victim(what)
	}
	goleak.VerifyTestMain(m)
}

// numbered is n hosts.
func numbered(n int) iter.Seq[transport.Host] {
	return func(yield func(transport.Host) bool) {
		for i := range n {
			if !yield(transport.Host{Name: fmt.Sprintf("node%04d", i)}) {
				return
			}
		}
	}
}

// create makes a journal of n hosts, which the test closes.
func create(t testing.TB, dir string, n int) *Journal {
	t.Helper()
	j, err := Create(dir, Head{Command: "uptime"}, numbered(n), "")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func closed(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func load(t testing.TB, dir, name string) (*Run, []Damage) {
	t.Helper()
	run, damaged, err := Load(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return run, damaged
}

// send has the journal get an event, which must work.
func send(t testing.TB, j *Journal, e runner.Event) {
	t.Helper()
	if err := j.Event(e); err != nil {
		t.Fatalf("host %d: %v", e.Seq, err)
	}
}

func event(kind runner.Kind, seq int, name string) runner.Event {
	return runner.Event{Kind: kind, Time: time.Now(), Seq: seq, Host: transport.Host{Name: name}}
}

func start(seq int) runner.Event { return event(runner.Start, seq, fmt.Sprintf("node%04d", seq)) }

// finish is the end of a host with this exit status.
func finish(seq, code int) runner.Event {
	e := event(runner.Finish, seq, fmt.Sprintf("node%04d", seq))
	r := &runner.Result{
		Seq: seq, Host: e.Host, Outcome: runner.OK, Tries: 1, Status: transport.Status{Known: true, Code: code, Started: true, Ended: true},
		Started: e.Time, Running: e.Time.Add(time.Millisecond), Ended: e.Time.Add(time.Second),
	}
	if code != 0 {
		r.Outcome = runner.Exit
	}
	e.Result = r
	return e
}

// skipped is the end of a host that was never started.
func skipped(seq int) runner.Event {
	e := event(runner.Finish, seq, fmt.Sprintf("node%04d", seq))
	e.Result = &runner.Result{Seq: seq, Host: e.Host, Outcome: runner.Skipped, Err: errors.New("enough have failed"), Started: e.Time, Ended: e.Time}
	return e
}

func states(run *Run) string {
	var b strings.Builder
	for _, h := range run.Hosts {
		b.WriteByte("-?x"[h.State])
	}
	return b.String()
}

func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "runs")
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	head := Head{
		Program: "1.2.3", Time: time.Date(2026, 11, 23, 4, 15, 2, 7, time.UTC), Argv: []string{"multi-rsh", "-w", "n[1-2]\xff", "up\ntime"},
		Config: []byte(`{"fanout":3}`), Command: "echo '\xff\x00<&>\u2028'", Settings: "ssh", Parent: "20261123-041502-0001",
	}
	hosts := []transport.Host{
		{Name: "n1"},
		{Name: "n2", Addr: "10.0.0.2", Port: 2222, User: "root", Transport: "rsh", Jump: "gate", Vars: map[string]string{"label.r\xffck": "7\n", "rank": "1"}},
		{Name: "n1"}, // again
		{Name: "new\nline\x00\xff\"\\"},
		{Name: strings.Repeat("x", 10<<10)},
		{Name: "Ω\u2028\ufffd"},
		{},
	}
	j, err := Create(dir, head, slices.Values(hosts), script)
	if err != nil {
		t.Fatal(err)
	}
	at := func(kind runner.Kind, seq int) runner.Event {
		return runner.Event{Kind: kind, Time: time.Now(), Seq: seq, Host: hosts[seq]}
	}
	began := time.Now()
	ends := []*runner.Result{
		{Outcome: runner.OK, Status: transport.Status{Known: true, Started: true, Ended: true}},
		{Outcome: runner.Signal, Status: transport.Status{Known: true, Signal: "KILL", Started: true, Background: true}},
		{Outcome: runner.Exit, Status: transport.Status{Known: true, Code: 255, Started: true}},
		{Outcome: runner.Timeout, Err: &transport.OpError{Phase: transport.PhaseRun, Err: &runner.StopError{Cause: errors.New("late\n\xff"), Confirmed: true}}},
		{Outcome: runner.Refused, Err: &transport.OpError{Phase: transport.PhaseConnect, Err: errors.New("connection refused")}, Tries: 3},
	}
	for seq, r := range ends {
		r.Seq, r.Host, r.Tries, r.Started = seq, hosts[seq], max(1, r.Tries), began
		if op, is := r.Err.(*transport.OpError); is {
			op.Host = r.Host.Name
		} else {
			r.Running = began.Add(1234567 * time.Nanosecond)
		}
		r.Ended = began.Add(time.Duration(seq+1) * 987654321 * time.Nanosecond)
		send(t, j, at(runner.Start, seq))
		send(t, j, at(runner.Stdout, seq))
		if r.Tries > 1 {
			for range 2 {
				again := at(runner.Again, seq)
				again.Result = r
				send(t, j, again)
				send(t, j, at(runner.Restart, seq))
			}
		}
		end := at(runner.Finish, seq)
		end.Result = r
		send(t, j, end)
	}
	send(t, j, at(runner.Start, 5))
	closed(t, j)

	run, damaged := load(t, dir, j.ID)
	if len(damaged) > 0 {
		t.Errorf("damaged: %v", damaged)
	}
	head.InputSize, head.InputSHA256 = 10, fmt.Sprintf("%x", sha256.Sum256([]byte("#!/bin/sh\n")))
	head.Digest = Digest(head.Command, head.Settings, head.InputSHA256)
	if diff := cmp.Diff(head, run.Head); diff != "" {
		t.Errorf("head (-want +got):\n%s", diff)
	}
	if got := states(run); got != "xxxxx?-" {
		t.Errorf("states %s", got)
	}
	for seq, h := range run.Hosts {
		if diff := cmp.Diff(hosts[seq], h.Host); diff != "" {
			t.Errorf("host %d (-want +got):\n%s", seq, diff)
		}
		if seq >= len(ends) {
			continue
		}
		if diff := cmp.Diff(ends[seq], h.Result, cmpopts.IgnoreFields(runner.Result{}, "Err"), cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("result %d (-want +got):\n%s", seq, diff)
		}
		want, got := ends[seq], h.Result
		if fmt.Sprint(want.Err) != fmt.Sprint(got.Err) || want.Phase() != got.Phase() || h.Tries != want.Tries {
			t.Errorf("host %d: %v in %q after %d tries, want %v in %q after %d", seq, got.Err, got.Phase(), h.Tries, want.Err, want.Phase(), want.Tries)
		}
		s1, c1 := want.Stopped()
		s2, c2 := got.Stopped()
		if s1 != s2 || c1 != c2 {
			t.Errorf("host %d: stopped %t, confirmed %t", seq, s2, c2)
		}
	}
	for path, mode := range map[string]fs.FileMode{dir: 0o700 | fs.ModeDir, run.Folder: 0o700 | fs.ModeDir, j.path: 0o600, j.Input(): 0o600} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if text, err := os.ReadFile(j.Input()); err != nil || string(text) != "#!/bin/sh\n" {
		t.Errorf("input %q, %v", text, err)
	}
	if _, err := os.Stat(script); err != nil {
		t.Errorf("the user's own file: %v", err)
	}
	if run.Ended.IsZero() || run.Running || run.Rebooted || run.PID != os.Getpid() {
		t.Errorf("%+v", run)
	}

	for word, want := range map[string][]string{
		"ok": {"n1"}, "exit": {"n1"}, "signal": {"n2"}, "failed": {"n2", "n1", hosts[3].Name, hosts[4].Name, hosts[5].Name}, "unknown": {hosts[5].Name},
		"timeout": {hosts[3].Name}, "notrun": nil, "noports": nil, "notok": {"n2", "n1", hosts[3].Name, hosts[4].Name, hosts[5].Name},
	} {
		got, err := Hosts(dir, Last, word)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("@last.%s (-want +got):\n%s", word, diff)
		}
	}
	if _, err := Hosts(dir, Last, "fialed"); err == nil || !strings.Contains(err.Error(), `"fialed" is no outcome: there are failed, notrun, `) {
		t.Error(err)
	}
}

// What the runner gives a result though it never ran is for later.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	j := create(t, dir, 8)
	for _, e := range []runner.Event{start(0), start(1), start(2), start(3), finish(1, 0), finish(0, 3), skipped(2), skipped(4)} {
		send(t, j, e)
	}
	again := finish(3, 0)
	again.Kind, again.Result.Outcome = runner.Again, runner.Refused
	for _, e := range []runner.Event{again, start(5), start(6)} {
		send(t, j, e)
	}
	if err := j.Event(start(1)); err == nil || !strings.Contains(err.Error(), "has its result") {
		t.Errorf("a second start: %v", err)
	}
	if err := j.Event(finish(1, 1)); err == nil || !strings.Contains(err.Error(), "has its result") {
		t.Errorf("a second result: %v", err)
	}
	if err := j.Event(start(8)); err == nil {
		t.Error("a host that is not in the list was started")
	}
	if _, _, _, err := Resume(dir, Last); err == nil || err.Error() != fmt.Sprintf("run %s is still going on, in process %d", j.ID, os.Getpid()) {
		t.Errorf("two at a time: %v", err)
	}
	if run, _ := load(t, dir, Last); !run.Running || states(run) != "xx---??-" {
		t.Errorf("%s, running %t", states(run), run.Running)
	}
	closed(t, j)
	if run, _ := load(t, dir, Last); run.Running || run.Why != "enough have failed" {
		t.Errorf("%+v", run)
	}

	j2, run, damaged, err := Resume(dir, j.ID[:12])
	if err != nil || len(damaged) > 0 {
		t.Fatal(err, damaged)
	}
	if diff := cmp.Diff(run.Counts(), Counts{map[runner.Outcome]int{runner.OK: 1, runner.Exit: 1}, 2, 4}); diff != "" {
		t.Error(diff)
	}
	rest := j2.Rest(func(h Host) bool { return h.Seq != 2 }) // a host with a result is not given out, whoever asks
	var names []string
	for _, h := range rest {
		names = append(names, h.Name)
	}
	if diff := cmp.Diff([]string{"node0003", "node0004", "node0005", "node0006", "node0007"}, names); diff != "" {
		t.Fatal(diff)
	}
	as := func(seq int, e runner.Event) runner.Event { e.Seq = seq; return e }
	if err := j2.Event(start(0)); err == nil {
		t.Error("a host was started that was not given out")
	}
	send(t, j2, as(0, start(3)))
	send(t, j2, as(0, finish(3, 0)))
	send(t, j2, as(1, start(4)))
	send(t, j2, as(1, skipped(4)))
	send(t, j2, as(2, skipped(5))) // we did not come to it; an earlier process did
	send(t, j2, as(3, start(6)))
	send(t, j2, as(3, skipped(6)))
	closed(t, j2)
	run, damaged = load(t, dir, Last)
	if got := states(run); got != "xx-x-??-" || len(damaged) > 0 {
		t.Errorf("%s, %v", got, damaged)
	}
	list, err := List(dir)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if diff := cmp.Diff(run.Counts(), list[0].Counts); diff != "" {
		t.Errorf("what the last line says (-want +got):\n%s", diff)
	}
	if err := j2.Event(start(7)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// Lines are on the disk a second after they were written, and nothing is synced for nothing.
func TestSync(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := &Journal{Head: Head{Command: "true"}, counts: Counts{Outcomes: map[runner.Outcome]int{}}}
		synced := 0
		var fail error
		j.fsync = func() error { synced++; return fail }
		folder, err := os.MkdirTemp(dir, newPrefix+"*")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(j.make(folder, numbered(3), ""), j.name(dir, folder)); err != nil {
			t.Fatal(err)
		}
		j.begin()
		for _, step := range []struct {
			events []runner.Event
			synced int
		}{{nil, 1}, {nil, 1}, {[]runner.Event{start(0), start(1)}, 2}, {[]runner.Event{finish(0, 0)}, 3}, {nil, 3}} {
			for _, e := range step.events {
				send(t, j, e)
			}
			time.Sleep(SyncEvery)
			synctest.Wait()
			if synced != step.synced {
				t.Errorf("%d times synced, want %d", synced, step.synced)
			}
		}
		fail = syscall.EIO
		send(t, j, finish(1, 0))
		time.Sleep(SyncEvery)
		synctest.Wait()
		write := (*WriteError)(nil)
		if err := j.Event(start(2)); !errors.As(err, &write) || write.Path != j.path || !errors.Is(err, syscall.EIO) {
			t.Errorf("after a disk's failure: %v", err)
		}
		if err := j.Close(); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
	})
}

// Workers may be many.
func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	const n = 500
	j := create(t, dir, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for _, e := range []runner.Event{start(i), finish(i, i%3)} {
				if err := j.Event(e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	closed(t, j)
	if run, damaged := load(t, dir, Last); states(run) != strings.Repeat("x", n) || len(damaged) > 0 {
		t.Error(states(run), damaged)
	}
}

func TestInput(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs")
	spool, err := Spool(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	io.WriteString(spool, "line\n")
	j, err := Create(dir, Head{Command: "cat"}, numbered(1), spool.Name())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(spool.Name()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the spool has not moved: %v", err)
	}
	if b, err := io.ReadAll(io.NewSectionReader(spool, 0, j.Head.InputSize)); err != nil || string(b) != "line\n" {
		t.Errorf("%q, %v", b, err)
	}
	closed(t, j)
	for _, change := range []func(string) error{
		func(path string) error { return os.WriteFile(path, []byte("lime\n"), 0) },
		os.Remove,
	} {
		if err := change(j.Input()); err != nil {
			t.Fatal(err)
		}
		input := (*InputError)(nil)
		if _, _, _, err := Resume(dir, Last); !errors.As(err, &input) || input.Path != j.Input() {
			t.Errorf("resumed with another input: %v", err)
		}
	}
	if _, err := Create(dir, Head{}, numbered(1), filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "the input cannot be read") {
		t.Error(err)
	}
	if _, err := Create(dir, Head{}, numbered(1), dir); err == nil || !strings.Contains(err.Error(), "the input cannot be read") {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A host may say anything, at any length.
func TestLongError(t *testing.T) {
	dir := t.TempDir()
	j := create(t, dir, 2)
	for seq, text := range []string{"Ω" + strings.Repeat("x", maxError-2) + "Ω", strings.Repeat("\x80", 1<<20)} {
		e := finish(seq, 0)
		e.Result.Err = errors.New(text)
		send(t, j, start(seq))
		send(t, j, e)
	}
	closed(t, j)
	run, damaged := load(t, dir, Last)
	if len(damaged) > 0 || run.Hosts[0].Result.Err.Error() != "Ω"+strings.Repeat("x", maxError-2) {
		t.Errorf("%.20q, damaged %v", run.Hosts[0].Result.Err, damaged)
	}
	if n := len(run.Hosts[1].Result.Err.Error()); n < maxError-4 || n > maxError {
		t.Errorf("%d bytes of what is no text", n)
	}
}

// The digest tells its parts apart.
func TestDigest(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range [][3]string{{"a", "b", ""}, {"ab", "", ""}, {"a", "", "b"}, {"", "ab", ""}, {"a", "b", "c"}} {
		seen[Digest(d[0], d[1], d[2])] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d digests of 5", len(seen))
	}
	if one, other := Digest("uptime", "ssh", ""), Digest("uptime", "ssh", ""); one != other {
		t.Errorf("the same is %s and %s", one, other)
	}
}

func BenchmarkJournal(b *testing.B) {
	for _, sink := range []struct {
		name string
		make func(testing.TB, int) runner.Sink
	}{
		{"none", func(testing.TB, int) runner.Sink { return none{} }},
		{"journal", func(b testing.TB, n int) runner.Sink { return create(b, b.TempDir(), n) }},
	} {
		b.Run(sink.name, func(b *testing.B) {
			s := sink.make(b, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				e := runner.Event{Kind: runner.Start, Time: time.Now(), Seq: i, Host: transport.Host{Name: "node0007"}}
				if err := s.Event(e); err != nil {
					b.Fatal(err)
				}
				e.Kind = runner.Finish
				e.Result = &runner.Result{Outcome: runner.OK, Tries: 1, Status: transport.Status{Known: true, Started: true, Ended: true}, Started: e.Time, Running: e.Time, Ended: time.Now()}
				if err := s.Event(e); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			s.Close()
		})
	}
}

type none struct{}

func (none) Event(runner.Event) error { return nil }
func (none) Close() error             { return nil }

// instant is a transport whose commands have all been run.
type instant struct{}

func (instant) Start(context.Context, transport.Host, *transport.Command) (transport.Session, error) {
	return instant{}, nil
}
func (instant) Shutdown(context.Context) {}
func (instant) Wait(context.Context) (transport.Status, error) {
	return transport.Status{Known: true, Started: true, Ended: true}, nil
}
func (instant) Signal(os.Signal) error { return os.ErrProcessDone }
func (instant) Close() error           { return nil }

// BenchmarkRun10000 is a run of 10,000 hosts that take no time, with all that a journal takes, from Create to Close. The difference is what a
// journal costs; a simulated run of as many takes more than a second.
func BenchmarkRun10000(b *testing.B) {
	const n = 10_000
	command := &transport.Command{Line: "true"}
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("journal=%t", with), func(b *testing.B) {
			dir := b.TempDir()
			for range b.N {
				var sink runner.Sink = none{}
				if with {
					sink = create(b, dir, n)
				}
				r := &runner.Runner{Transport: instant{}}
				if _, err := r.Run(b.Context(), numbered(n), func(transport.Host) *transport.Command { return command }, sink); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
