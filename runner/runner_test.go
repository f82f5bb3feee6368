package runner

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/transport"
)

// fake is a transport whose hosts behave as their entry says; hosts without one print their name and end with 0.
type fake struct {
	hosts   map[string]behaviour
	mu      sync.Mutex
	now     int // sessions that live
	most    int
	started []string
	stopped []string // asked to stop
}

type behaviour struct {
	startErr  error           // of Start, at once
	hangStart bool            // Start waits for its context
	hangPhase transport.Phase // in which it does; empty: connect
	runs      time.Duration   // until the command ends by itself
	status    transport.Status
	err       error
	deaf      bool              // takes no notice of Signal
	stopped   *transport.Status // how it ends when Signal has asked it to; nil: with status 143
	lingers   time.Duration     // after that, when Wait is not done yet
	mute      bool              // Signal is errors.ErrUnsupported
	stillborn bool              // never shows that the command has begun
	output    int               // lines
	quiet     time.Duration     // before the output
}

func (f *fake) Shutdown(context.Context) {}

func (f *fake) Start(ctx context.Context, host transport.Host, cmd *transport.Command) (transport.Session, error) {
	f.mu.Lock()
	b, ok := f.hosts[host.Name]
	if !ok {
		b = behaviour{output: 1, status: transport.Status{Known: true, Started: true}}
	}
	f.started = append(f.started, host.Name)
	f.mu.Unlock()
	if b.hangStart {
		<-ctx.Done()
		b.startErr = context.Cause(ctx)
	}
	if b.startErr != nil {
		phase := transport.PhaseConnect
		if b.hangPhase != "" {
			phase = b.hangPhase
		}
		return nil, &transport.OpError{Phase: phase, Host: host.Name, Err: b.startErr}
	}
	f.mu.Lock()
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	return &fakeSession{f: f, b: b, host: host, cmd: cmd, stop: make(chan struct{}), closed: make(chan struct{})}, nil
}

type fakeSession struct {
	f            *fake
	b            behaviour
	host         transport.Host
	cmd          *transport.Command
	stop, closed chan struct{}
	ended        atomic.Bool
	once, cl     sync.Once
}

func (s *fakeSession) Wait(ctx context.Context) (transport.Status, error) {
	defer func() { s.f.mu.Lock(); s.f.now--; s.f.mu.Unlock() }()
	defer s.ended.Store(true)
	time.Sleep(s.b.quiet)
	for i := range s.b.output {
		if _, err := fmt.Fprintf(s.cmd.Stdout, "%s %d\n", s.host.Name, i); err != nil {
			return transport.Status{Started: true}, &transport.OpError{Phase: transport.PhaseRun, Host: s.host.Name, Err: err}
		}
	}
	fail := func(err error) (transport.Status, error) {
		return transport.Status{Started: !s.b.stillborn}, &transport.OpError{Phase: transport.PhaseRun, Host: s.host.Name, Err: err}
	}
	select {
	case <-time.After(s.b.runs):
		if s.b.err != nil {
			return fail(s.b.err)
		}
		return s.b.status, nil
	case <-s.stop:
		status := transport.Status{Known: true, Started: true, Code: 143}
		if s.b.stopped != nil {
			status = *s.b.stopped
		}
		select {
		case <-time.After(s.b.lingers):
			return status, nil
		case <-ctx.Done():
			return status, &transport.OpError{Phase: transport.PhaseRun, Host: s.host.Name, Err: context.Cause(ctx)}
		}
	case <-s.closed:
		return fail(transport.ErrClosed)
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
}

func (s *fakeSession) Signal(os.Signal) error {
	s.f.mu.Lock()
	s.f.stopped = append(s.f.stopped, s.host.Name)
	s.f.mu.Unlock()
	switch {
	case s.ended.Load():
		return os.ErrProcessDone
	case s.b.mute:
		return errors.ErrUnsupported
	case !s.b.deaf:
		s.once.Do(func() { close(s.stop) })
	}
	return nil
}

func (s *fakeSession) Close() error { s.cl.Do(func() { close(s.closed) }); return nil }

// recorder keeps what a sink is told, and checks the order that is promised for each host.
type recorder struct {
	t       testing.TB
	results map[string]*Result
	open    map[int]bool
	output  map[string]string
	closed  bool
	fail    error // of Event, from the first output on
	onEvent func(Event)
}

func newRecorder(t testing.TB) *recorder {
	return &recorder{t: t, results: map[string]*Result{}, open: map[int]bool{}, output: map[string]string{}}
}

func (r *recorder) Event(ev Event) error {
	switch ev.Kind {
	case Start:
		r.open[ev.Seq] = true
	case Stdout, Stderr:
		if !r.open[ev.Seq] {
			r.t.Errorf("%s: output outside of start and finish", ev.Host.Name)
		}
		r.output[ev.Host.Name] += string(ev.Data)
		if r.fail != nil {
			return r.fail
		}
	case Finish:
		if r.results[ev.Host.Name] != nil {
			r.t.Errorf("%s: a second result", ev.Host.Name)
		}
		delete(r.open, ev.Seq)
		r.results[ev.Host.Name] = ev.Result
	}
	if r.onEvent != nil {
		r.onEvent(ev)
	}
	return nil
}

func (r *recorder) Close() error { r.closed = true; return nil }

func (r *recorder) outcomes() map[string]Outcome {
	m := map[string]Outcome{}
	for name, result := range r.results {
		m[name] = result.Outcome
	}
	return m
}

func hosts(names ...string) iter.Seq[transport.Host] {
	return func(yield func(transport.Host) bool) {
		for _, name := range names {
			if !yield(transport.Host{Name: name}) {
				return
			}
		}
	}
}

func numbered(n int) iter.Seq[transport.Host] {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("n", i))
	}
	return hosts(names...)
}

func command(transport.Host) *transport.Command { return &transport.Command{Line: "true"} }

func TestEveryHostHasOneResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{
			"n3":  {startErr: syscall.ECONNREFUSED},
			"n4":  {status: transport.Status{Known: true, Started: true, Code: 3}},
			"n5":  {status: transport.Status{Started: true}},
			"n6":  {status: transport.Status{Known: true, Signal: "SEGV"}},
			"n7":  {startErr: &net.DNSError{Err: "no such host"}},
			"n8":  {err: fmt.Errorf("%w: reset", transport.ErrLost)},
			"n9":  {startErr: fmt.Errorf("permission denied (%w)", transport.ErrAuth)},
			"n10": {status: transport.Status{Known: true, Background: true}},
		}}
		rec := newRecorder(t)
		r := &Runner{Transport: f, Fanout: 7}
		sum, err := r.Run(t.Context(), numbered(100), command, rec)
		if err != nil {
			t.Fatal(err)
		}
		want := map[Outcome]int{OK: 93, Refused: 1, Exit: 1, Unknown: 2, Signal: 1, DNS: 1, Auth: 1}
		if diff := cmp.Diff(want, sum.Outcomes); diff != "" {
			t.Error(diff)
		}
		if sum.Hosts != 100 || len(rec.results) != 100 || sum.Codes[3] != 1 || sum.Signals["SEGV"] != 1 || sum.Background != 1 {
			t.Errorf("%d results, summary %+v", len(rec.results), sum)
		}
		if rec.output["n42"] != "n42 0\n" || !rec.closed {
			t.Errorf("output %q, closed %v", rec.output["n42"], rec.closed)
		}
	})
}

func TestFanout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{}}
		for i := range 50 {
			f.hosts[fmt.Sprint("n", i)] = behaviour{runs: time.Second, status: transport.Status{Known: true}}
		}
		pulled := 0
		source := func(yield func(transport.Host) bool) {
			for host := range numbered(50) {
				pulled++
				if f.mu.Lock(); pulled > len(f.started)+2 {
					t.Errorf("pulled %d hosts with %d started", pulled, len(f.started))
				}
				f.mu.Unlock()
				synctest.Wait()
				if !yield(host) {
					return
				}
			}
		}
		began := time.Now()
		if _, err := (&Runner{Transport: f, Fanout: 10}).Run(t.Context(), source, command, newRecorder(t)); err != nil {
			t.Fatal(err)
		}
		if f.most != 10 || time.Since(began) != 5*time.Second {
			t.Errorf("most at once %d, want 10; took %v, want 5s", f.most, time.Since(began))
		}
	})
}

func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{
			"slow":    {runs: time.Hour},
			"deaf":    {runs: time.Hour, deaf: true},
			"mute":    {runs: time.Hour, mute: true},
			"connect": {hangStart: true},
		}}
		rec := newRecorder(t)
		_, err := (&Runner{Transport: f, Timeout: 5 * time.Second}).Run(t.Context(), hosts("slow", "deaf", "mute", "connect", "fine"), command, rec)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]Outcome{"slow": Timeout, "deaf": Timeout, "mute": Timeout, "connect": Timeout, "fine": OK}
		if diff := cmp.Diff(want, rec.outcomes()); diff != "" {
			t.Error(diff)
		}
		for name, want := range map[string]time.Duration{"slow": 5 * time.Second, "deaf": 7 * time.Second, "mute": 5 * time.Second, "connect": 5 * time.Second} {
			if r := rec.results[name]; r.Ended.Sub(r.Started) != want {
				t.Errorf("%s took %v, want %v", name, r.Ended.Sub(r.Started), want)
			}
		}
		for name, want := range map[string]struct {
			phase     transport.Phase
			confirmed bool
		}{"slow": {transport.PhaseRun, true}, "deaf": {transport.PhaseRun, false}, "mute": {transport.PhaseRun, false}, "connect": {transport.PhaseConnect, true}} {
			var stop *StopError
			if r := rec.results[name]; !errors.As(r.Err, &stop) || stop.Confirmed != want.confirmed || r.Phase() != want.phase {
				t.Errorf("%s: %v in phase %q, want confirmed %v in %q", name, r.Err, r.Phase(), want.confirmed, want.phase)
			}
		}
	})
}

func TestStopPolitely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{}}
		for i := range 20 {
			f.hosts[fmt.Sprint("n", i)] = behaviour{runs: time.Hour}
		}
		cause := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { cancel(cause) })
		rec := newRecorder(t)
		began := time.Now()
		sum, err := (&Runner{Transport: f, Fanout: 5}).Run(ctx, numbered(20), command, rec)
		if !errors.Is(err, cause) || sum.Outcomes[Cancelled] != 20 || len(f.started) != 5 {
			t.Errorf("error %v, %v, %d started", err, sum.Outcomes, len(f.started))
		}
		if time.Since(began) != 3*time.Second {
			t.Errorf("took %v", time.Since(began))
		}
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{"a": {runs: time.Hour, deaf: true}, "b": {hangStart: true}}}
		r := &Runner{Transport: f, Fanout: 2}
		killed := errors.New("killed")
		time.AfterFunc(time.Second, func() { r.Kill(killed) })
		rec := newRecorder(t)
		began := time.Now()
		sum, err := r.Run(t.Context(), hosts("a", "b", "c"), command, rec)
		if !errors.Is(err, killed) || sum.Outcomes[Cancelled] != 3 || time.Since(began) != time.Second {
			t.Errorf("%v after %v: %v", err, time.Since(began), sum.Outcomes)
		}
		if len(f.stopped) > 0 {
			t.Errorf("%v were asked to stop", f.stopped)
		}
		r.Kill(killed) // after the end: nothing
	})
}

func TestFailFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{
			"n0": {runs: time.Hour},
			"n1": {runs: time.Second, status: transport.Status{Known: true, Code: 1}},
		}}
		rec := newRecorder(t)
		sum, err := (&Runner{Transport: f, Fanout: 2, FailFast: true}).Run(t.Context(), numbered(10), command, rec)
		if !errors.Is(err, ErrFailFast) {
			t.Error(err)
		}
		if diff := cmp.Diff(map[Outcome]int{Exit: 1, Cancelled: 1, Skipped: 8}, sum.Outcomes); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSinkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{"busy": {runs: time.Hour, deaf: true}}}
		rec := newRecorder(t)
		rec.fail = syscall.ENOSPC
		sum, err := (&Runner{Transport: f}).Run(t.Context(), hosts("busy", "a", "b"), command, rec)
		var sink *SinkError
		if !errors.As(err, &sink) || !errors.Is(err, syscall.ENOSPC) || sum.Hosts != 3 || !rec.closed {
			t.Errorf("error %v, %d hosts, closed %v", err, sum.Hosts, rec.closed)
		}
		if len(rec.results) != 3 {
			t.Errorf("the sink was told of the ends of %d hosts, want 3", len(rec.results))
		}
	})
}

// What a host took to accept the command is told apart from what the command took.
func TestRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{"busy": {runs: time.Minute}, "down": {startErr: syscall.ECONNREFUSED}}}
		rec := newRecorder(t)
		(&Runner{Transport: f}).Run(t.Context(), hosts("busy", "down"), command, rec)
		busy := rec.results["busy"]
		if busy.Running.Before(busy.Started) || busy.Ended.Sub(busy.Running) < time.Minute {
			t.Errorf("started %v, running %v, ended %v", busy.Started, busy.Running, busy.Ended)
		}
		if down := rec.results["down"].Running; !down.IsZero() {
			t.Errorf("a host that refused is running since %v", down)
		}
	})
}

// A host whose output is lost is not ok, however its command ended.
func TestOutputLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := newRecorder(t)
		rec.fail = syscall.ENOSPC
		sum, err := (&Runner{Transport: &fake{}}).Run(t.Context(), hosts("a"), command, rec)
		if !errors.Is(err, syscall.ENOSPC) || sum.Outcomes[OK] != 0 {
			t.Errorf("error %v, %v", err, sum.Outcomes)
		}
	})
}

// All hosts are stopped as at any other end of the run, whether they have something to say or not: nobody would stop their
// commands later.
func TestSinkFailsPolitely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{"silent": {runs: time.Hour}, "talks": {quiet: time.Second, output: 2, runs: time.Hour}}}
		rec := newRecorder(t)
		rec.fail = syscall.EPIPE
		sum, err := (&Runner{Transport: f, Fanout: 2}).Run(t.Context(), hosts("silent", "talks"), command, rec)
		if !errors.Is(err, syscall.EPIPE) || sum.Hosts != 2 {
			t.Errorf("error %v, %d hosts", err, sum.Hosts)
		}
		slices.Sort(f.stopped)
		if diff := cmp.Diff([]string{"silent", "talks"}, f.stopped); diff != "" {
			t.Errorf("asked to stop: %s", diff)
		}
	})
}

// A timeout names the phase: what has accepted the command and never shows that it runs is another ill than a long command.
func TestTimeoutBeforeTheCommandRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{"a": {runs: time.Hour, deaf: true, stillborn: true}, "b": {runs: time.Hour, deaf: true}}}
		rec := newRecorder(t)
		(&Runner{Transport: f, Timeout: time.Second, Fanout: 2}).Run(t.Context(), hosts("a", "b"), command, rec)
		for name, want := range map[string]transport.Phase{"a": transport.PhaseStart, "b": transport.PhaseRun} {
			if got := rec.results[name]; got.Outcome != Timeout || got.Phase() != want {
				t.Errorf("%s: %s %s, want timeout %s", name, got.Outcome, got.Phase(), want)
			}
		}
	})
}

func TestInspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Runner{Transport: &fake{hosts: map[string]behaviour{"a": {runs: time.Minute, status: transport.Status{Known: true}}}}}
		if r.Inspect(func() {}) {
			t.Error("Inspect without a run")
		}
		rec := newRecorder(t)
		running := -1
		time.AfterFunc(time.Second, func() { r.Inspect(func() { running = len(rec.open) }) })
		if _, err := r.Run(t.Context(), hosts("a", "b"), command, rec); err != nil || running != 1 {
			t.Errorf("%v, running %d", err, running)
		}
		if r.Inspect(func() {}) {
			t.Error("Inspect after the run")
		}
	})
}

// A command that ends at the moment of the stop keeps its own status.
func TestEndBeforeStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			f := &fake{hosts: map[string]behaviour{"a": {runs: time.Second, deaf: true, status: transport.Status{Known: true, Code: 7}}}}
			rec := newRecorder(t)
			(&Runner{Transport: f, Timeout: time.Second}).Run(t.Context(), hosts("a"), command, rec)
			got := rec.results["a"]
			if !slices.Contains([]Outcome{Exit, Timeout}, got.Outcome) || (got.Outcome == Exit) != (got.Err == nil) {
				t.Fatalf("%s %v", got.Outcome, got.Err)
			}
		}
	})
}

func TestClassify(t *testing.T) {
	op := func(phase transport.Phase, err error) error { return &transport.OpError{Phase: phase, Err: err} }
	for _, test := range []struct {
		err  error
		want Outcome
	}{
		{op(transport.PhaseConnect, syscall.EHOSTUNREACH), Unreachable},
		{op(transport.PhaseConnect, syscall.ECONNRESET), Unreachable},
		{op(transport.PhaseConnect, &net.OpError{Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), Refused},
		{op(transport.PhaseHandshake, syscall.ECONNRESET), Protocol},
		{op(transport.PhaseHandshake, os.ErrDeadlineExceeded), Timeout},
		{op(transport.PhaseHandshake, transport.ErrHostKey), HostKey},
		{op(transport.PhasePort, transport.ErrNoPorts), NoPorts},
		{op(transport.PhasePort, transport.ErrPorts), NoPorts},
		{op(transport.PhaseAuth, errors.New("no")), Auth},
		{op(transport.PhaseResolve, errors.New("no")), DNS},
		{op(transport.PhaseRun, syscall.ECONNRESET), Unknown},
		{op(transport.PhaseRun, transport.ErrProtocol), Protocol},
		{op(transport.PhaseRun, &StopError{Cause: errors.New("interrupted")}), Cancelled},
		{op(transport.PhaseRun, &StopError{Cause: &transport.TimeoutError{After: time.Second}}), Timeout},
		{errors.New("interrupted"), Cancelled},
	} {
		if got := classify(transport.Status{}, test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
}
