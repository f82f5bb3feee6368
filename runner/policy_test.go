package runner

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"multirsh/transport"
)

// statusOf is a command that runs for so long and exits so.
func statusOf(runs time.Duration, code int) behaviour {
	return behaviour{runs: runs, status: transport.Status{Known: true, Started: true, Code: code}}
}

// all is a fake of which each of n0 to n(n-1) does the same.
func all(n int, b behaviour) *fake {
	f := &fake{hosts: map[string]behaviour{}}
	for i := range n {
		f.hosts[fmt.Sprint("n", i)] = b
	}
	return f
}

func policyOf(t testing.TB, err error, option string) {
	t.Helper()
	if policy := (*PolicyError)(nil); !errors.As(err, &policy) || policy.Option != option {
		t.Errorf("error %v, want one of %s", err, option)
	}
}

func TestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{
			"silent": {runs: time.Hour},
			"spoke":  {quiet: 4 * time.Second, output: 1, runs: time.Hour},
			"deaf":   {runs: time.Hour, deaf: true},
			"brief":  statusOf(4*time.Second, 0),
			"dials":  {hangStart: true},
		}}
		rec := newRecorder(t)
		r := &Runner{Transport: f, IdleTimeout: 5 * time.Second, Timeout: time.Minute}
		if _, err := r.Run(t.Context(), hosts("silent", "spoke", "deaf", "brief", "dials"), command, rec); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]struct {
			phase transport.Phase
			took  time.Duration
		}{
			"silent": {PhaseIdle, 5 * time.Second}, "spoke": {PhaseIdle, 9 * time.Second}, "deaf": {PhaseIdle, 7 * time.Second},
			"brief": {"", 4 * time.Second}, "dials": {transport.PhaseConnect, time.Minute}, // which has other limits
		} {
			got := rec.results[name]
			if got.Phase() != want.phase || got.Ended.Sub(got.Started) != want.took || (want.phase != "") != (got.Outcome == Timeout) {
				t.Errorf("%s: %s in phase %q after %v, want phase %q after %v", name, got.Outcome, got.Phase(), got.Ended.Sub(got.Started), want.phase, want.took)
			}
		}
		if got, want := rec.results["silent"].Err.Error(), "silent: idle: no output for 5s (--idle-timeout)"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// A reader of ours that takes its time is not the command's silence.
func TestIdleTimeoutSlowSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{"a": {output: 3, runs: 4 * time.Second, status: transport.Status{Known: true, Started: true}}}}
		rec := newRecorder(t)
		rec.onEvent = func(ev Event) {
			if ev.Kind == Stdout {
				time.Sleep(time.Minute)
			}
		}
		sum, err := (&Runner{Transport: f, IdleTimeout: 5 * time.Second}).Run(t.Context(), hosts("a"), command, rec)
		if err != nil || sum.Outcomes[OK] != 1 {
			t.Errorf("%v, %v: %v", err, sum.Outcomes, rec.results["a"].Err)
		}
	})
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hosts: map[string]behaviour{"runs": {runs: time.Hour}, "deaf": {runs: time.Hour, deaf: true}, "dials": {hangStart: true}, "done": statusOf(time.Second, 0)}}
		rec := newRecorder(t)
		began := time.Now()
		sum, err := (&Runner{Transport: f, Fanout: 4, Deadline: 10 * time.Second}).Run(t.Context(), hosts("done", "runs", "deaf", "dials", "next", "late", "later"), command, rec)
		policyOf(t, err, "--deadline")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 12*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		want := map[string]Outcome{"done": OK, "runs": Timeout, "deaf": Timeout, "dials": Timeout, "next": OK, "late": OK, "later": OK}
		if diff := cmp.Diff(want, rec.outcomes()); diff != "" {
			t.Error(diff)
		}
		if sum.Stopped != 1 || sum.Loose != 1 {
			t.Errorf("stopped %d, loose %d: want 1 that has confirmed it and 1 that may still be running", sum.Stopped, sum.Loose)
		}
		for _, name := range []string{"runs", "deaf", "dials"} {
			if got := rec.results[name]; got.Phase() != PhaseDeadline || !strings.Contains(got.Err.Error(), "not done within 10s (--deadline)") {
				t.Errorf("%s: %v", name, got.Err)
			}
		}
	})
}

// Hosts whose turn had not come are skipped, those that wait for a limit, a pace or another try among them.
func TestDeadlineSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := newRecorder(t)
		f := all(8, behaviour{runs: time.Hour})
		began := time.Now()
		sum, err := (&Runner{Transport: f, Fanout: 3, Deadline: time.Second}).Run(t.Context(), numbered(8), command, rec)
		policyOf(t, err, "--deadline")
		if diff := cmp.Diff(map[Outcome]int{Timeout: 3, Skipped: 5}, sum.Outcomes); diff != "" || time.Since(began) != time.Second {
			t.Errorf("after %v: %s", time.Since(began), diff)
		}
		if got := rec.results["n7"]; got.Tries != 0 || got.Phase() != "" || !errors.Is(got.Err, context.DeadlineExceeded) {
			t.Errorf("n7: %d tries, %v", got.Tries, got.Err)
		}
	})
}

func TestMaxFail(t *testing.T) {
	for name, test := range map[string]struct {
		r       *Runner
		hosts   int
		fails   func(i int) bool
		want    map[Outcome]int
		started int // at most; 0: as many as have an outcome of their own
		text    string
		after   time.Duration
	}{
		"every host fails": {r: &Runner{Fanout: 64, MaxFail: Share{N: 5}}, hosts: 1000, started: 5 + 64, text: "stopped because 5 hosts failed (--max-fail 5)"},
		"none fails":       {r: &Runner{MaxFail: Share{N: 1}}, hosts: 100, fails: func(int) bool { return false }, want: map[Outcome]int{OK: 100}},
		"too few fail":     {r: &Runner{MaxFail: Share{N: 4}}, hosts: 30, fails: func(i int) bool { return i < 3 }, want: map[Outcome]int{OK: 27, Exit: 3}},
		"the last one":     {r: &Runner{Fanout: 1, MaxFail: Share{N: 1}}, hosts: 3, fails: func(i int) bool { return i == 2 }, want: map[Outcome]int{OK: 2, Exit: 1}, text: "stopped because 1 host failed (--max-fail 1)"},
		"the rest":         {r: &Runner{Fanout: 1, MaxFail: Share{N: 2}}, hosts: 10, fails: func(i int) bool { return i%3 == 0 }, want: map[Outcome]int{Exit: 2, OK: 2, Skipped: 6}, text: "stopped because 2 hosts failed (--max-fail 2)"},
		"percent":          {r: &Runner{Fanout: 1, Total: 25, MaxFail: Share{Percent: 10}}, hosts: 25, want: map[Outcome]int{Exit: 3, Skipped: 22}, text: "stopped because 3 of 25 hosts failed (--max-fail 10%)"},
		"one percent":      {r: &Runner{Fanout: 1, Total: 3, MaxFail: Share{Percent: 1}}, hosts: 3, want: map[Outcome]int{Exit: 1, Skipped: 2}, text: "stopped because 1 of 3 hosts failed (--max-fail 1%)"},
		"all percent":      {r: &Runner{Fanout: 2, Total: 4, MaxFail: Share{Percent: 100}}, hosts: 4, want: map[Outcome]int{Exit: 4}, text: "stopped because 4 of 4 hosts failed (--max-fail 100%)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{hosts: map[string]behaviour{}}
				for i := range test.hosts {
					if test.fails == nil || test.fails(i) {
						f.hosts[fmt.Sprint("n", i)] = statusOf(0, 1)
					}
				}
				rec := newRecorder(t)
				test.r.Transport = f
				sum, err := test.r.Run(t.Context(), numbered(test.hosts), command, rec)
				switch {
				case test.text == "" && err != nil:
					t.Error(err)
				case test.text != "":
					if policyOf(t, err, "--max-fail"); err == nil || err.Error() != test.text {
						t.Errorf("%v, want %s", err, test.text)
					}
				}
				if diff := cmp.Diff(test.want, sum.Outcomes); test.want != nil && diff != "" {
					t.Error(diff)
				}
				if len(rec.results) != test.hosts || test.started > 0 && len(f.started) > test.started {
					t.Errorf("%d results, %d started: want %d, at most %d", len(rec.results), len(f.started), test.hosts, test.started)
				}
				if ran := test.hosts - sum.Outcomes[Skipped]; ran != len(f.started) {
					t.Errorf("%d started, %d have outcomes of those that were", len(f.started), ran)
				}
			})
		})
	}
}

// Those that run when the limit is reached finish; with MaxFailKill they are stopped.
func TestMaxFailRunning(t *testing.T) {
	for kill, want := range map[bool]struct {
		outcomes map[Outcome]int
		took     time.Duration
	}{
		false: {map[Outcome]int{Exit: 1, OK: 3, Skipped: 6}, time.Minute},
		true:  {map[Outcome]int{Exit: 1, Cancelled: 3, Skipped: 6}, time.Second},
	} {
		t.Run(fmt.Sprint("kill ", kill), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := all(10, statusOf(time.Minute, 0))
				f.hosts["n0"] = statusOf(time.Second, 1)
				began, rec := time.Now(), newRecorder(t)
				skippedAfter := time.Duration(-1)
				rec.onEvent = func(ev Event) {
					if ev.Kind == Finish && ev.Result.Outcome == Skipped {
						skippedAfter = time.Since(began)
					}
				}
				sum, err := (&Runner{Transport: f, Fanout: 4, MaxFail: Share{N: 1}, MaxFailKill: kill}).Run(t.Context(), numbered(10), command, rec)
				policyOf(t, err, "--max-fail")
				if diff := cmp.Diff(want.outcomes, sum.Outcomes); diff != "" || time.Since(began) != want.took {
					t.Errorf("took %v, want %v: %s", time.Since(began), want.took, diff)
				}
				if skippedAfter != time.Second {
					t.Errorf("the last was skipped after %v: nobody need wait for that", skippedAfter)
				}
			})
		})
	}
}

// A drain can be followed by a stop, and a stop by a kill.
func TestDrainThenStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := all(6, behaviour{runs: time.Hour, deaf: true})
		r := &Runner{Transport: f, Fanout: 3}
		full, interrupted := errors.New("disk full"), errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1*time.Second, func() { r.Drain(full) })
		time.AfterFunc(10*time.Second, func() { cancel(interrupted) })
		began, rec := time.Now(), newRecorder(t)
		sum, err := r.Run(ctx, numbered(6), command, rec)
		if !errors.Is(err, interrupted) || sum.Outcomes[Cancelled] != 6 || time.Since(began) != 12*time.Second {
			t.Errorf("%v after %v: %v", err, time.Since(began), sum.Outcomes)
		}
		if got := rec.results["n5"]; !errors.Is(got.Err, full) || got.Ended.Sub(began) != time.Second {
			t.Errorf("n5: %v after %v", got.Err, got.Ended.Sub(began))
		}
		r.Drain(full) // after the end: nothing
	})
}

// A sink that cannot note a start drains the run, and that host is not started.
func TestDrainBySink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := all(10, statusOf(time.Second, 0))
		r := &Runner{Transport: f, Fanout: 2}
		rec := newRecorder(t)
		full := errors.New("the journal cannot be written")
		rec.onEvent = func(ev Event) {
			if ev.Kind == Start && len(rec.results) == 4 {
				r.Drain(full)
			}
		}
		sum, err := r.Run(t.Context(), numbered(10), command, rec)
		if !errors.Is(err, full) || sum.Outcomes[OK] != len(f.started) || sum.Outcomes[OK]+sum.Outcomes[Cancelled] != 10 || sum.Outcomes[Cancelled] < 5 {
			t.Errorf("%v, %d started, %v", err, len(f.started), sum.Outcomes)
		}
	})
}

// stages is the hosts started by the second, which in these tests is by stage.
func stages(rec *recorder) *[]int {
	var counts []int
	began := time.Now()
	rec.onEvent = func(ev Event) {
		if ev.Kind == Start {
			second := int(time.Since(began) / time.Second)
			for len(counts) <= second {
				counts = append(counts, 0)
			}
			counts[second]++
		}
	}
	return &counts
}

func TestRamp(t *testing.T) {
	exits := func(names ...string) map[string]int {
		m := map[string]int{}
		for _, name := range names {
			m[name] = 1
		}
		return m
	}
	for name, test := range map[string]struct {
		ramp    string
		maxFail Share
		hosts   int
		exits   map[string]int
		want    []int // hosts started in each stage
		text    string
	}{
		"all ok":                 {ramp: "1,10,10%,100%", hosts: 400, want: []int{1, 9, 30, 360}},
		"one stage":              {ramp: "100%", hosts: 7, want: []int{7}},
		"numbers":                {ramp: "2,5,9", hosts: 9, want: []int{2, 3, 4}},
		"more than there are":    {ramp: "5,50,1000", hosts: 20, want: []int{5, 15}},
		"a stage with none":      {ramp: "10,10%,100%", hosts: 30, want: []int{10, 20}},
		"the canary dies":        {ramp: "1,100%", hosts: 30, exits: exits("n0"), want: []int{1}, text: "stopped because no host of stage 1 was ok (--ramp 1,100%)"},
		"some may fail":          {ramp: "2,100%", hosts: 9, exits: exits("n0"), want: []int{2, 7}},
		"within a stage":         {ramp: "2,50%,100%", maxFail: Share{Percent: 25}, hosts: 20, exits: exits("n2", "n3"), want: []int{2, 8}, text: "stopped because 2 of the 8 hosts of stage 2 failed (--max-fail 25%)"},
		"percent is by stage":    {ramp: "50%,100%", maxFail: Share{Percent: 30}, hosts: 20, exits: exits("n0", "n1", "n10", "n11"), want: []int{10, 10}},
		"a number is of the run": {ramp: "50%,70%,100%", maxFail: Share{N: 3}, hosts: 20, exits: exits("n0", "n1", "n10"), want: []int{10, 4}, text: "stopped because 3 hosts failed (--max-fail 3)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := all(test.hosts, statusOf(time.Second, 0))
				for name, code := range test.exits {
					f.hosts[name] = statusOf(time.Second, code)
				}
				ramp, err := ParseRamp(test.ramp)
				if err != nil {
					t.Fatal(err)
				}
				rec := newRecorder(t)
				got := stages(rec)
				r := &Runner{Transport: f, Fanout: 1000, Total: test.hosts, Ramp: ramp, MaxFail: test.maxFail}
				sum, err := r.Run(t.Context(), numbered(test.hosts), command, rec)
				if (err == nil) != (test.text == "") || err != nil && err.Error() != test.text {
					t.Errorf("%v, want %s", err, test.text)
				}
				if diff := cmp.Diff(test.want, *got); diff != "" || sum.Hosts != test.hosts || sum.Outcomes[Skipped] != test.hosts-len(f.started) {
					t.Errorf("%v: %s", sum.Outcomes, diff)
				}
			})
		})
	}
}

// The hook sees how a stage went and may take its time; it holds up neither sink nor Inspect.
func TestRampBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := all(10, statusOf(time.Second, 0))
		f.hosts["n1"] = statusOf(2*time.Second, 3)
		f.hosts["n2"] = behaviour{startErr: syscall.ECONNREFUSED}
		no := errors.New("not today")
		var reports []StageReport
		rec := newRecorder(t)
		r := &Runner{Transport: f, Total: 10, Ramp: Ramp{{N: 2}, {N: 5}, {Percent: 100}}}
		inspected := 0
		r.Between = func(_ context.Context, s StageReport) error {
			reports = append(reports, s)
			time.Sleep(time.Minute)
			r.Inspect(func() { inspected = len(rec.results) })
			if s.Stage == 2 {
				return no
			}
			return nil
		}
		began := time.Now()
		sum, err := r.Run(t.Context(), numbered(10), command, rec)
		if policyOf(t, err, "--ramp"); !errors.Is(err, no) || err.Error() != "stopped after stage 2 (--ramp 2,5,100%): not today" {
			t.Error(err)
		}
		want := []StageReport{
			{Stage: 1, Stages: 3, Hosts: 2, Failed: 1, Outcomes: map[Outcome]int{OK: 1, Exit: 1}, Done: 2, Total: 10, Next: 3, Started: began, Ended: began.Add(2 * time.Second)},
			{Stage: 2, Stages: 3, Hosts: 3, Failed: 1, Outcomes: map[Outcome]int{OK: 2, Refused: 1}, Done: 5, Total: 10, Next: 5, Started: began.Add(62 * time.Second), Ended: began.Add(63 * time.Second)},
		}
		if diff := cmp.Diff(want, reports); diff != "" {
			t.Error(diff)
		}
		if sum.Outcomes[Skipped] != 5 || inspected != 5 || time.Since(began) != 123*time.Second {
			t.Errorf("%v, %d seen by Inspect, after %v", sum.Outcomes, inspected, time.Since(began))
		}
	})
}

// Whatever ends the run ends the hook, and what the hook says then does not matter.
func TestRampBetweenStopped(t *testing.T) {
	for name, stop := range map[string]func(r *Runner, cancel func(error), cause error){
		"context": func(_ *Runner, cancel func(error), cause error) { cancel(cause) },
		"drain":   func(r *Runner, _ func(error), cause error) { r.Drain(cause) },
		"kill":    func(r *Runner, _ func(error), cause error) { r.Kill(cause) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				why := errors.New("enough")
				ctx, cancel := context.WithCancelCause(t.Context())
				r := &Runner{Transport: &fake{}, Total: 4, Ramp: Ramp{{N: 1}, {Percent: 100}}}
				r.Between = func(ctx context.Context, _ StageReport) error { <-ctx.Done(); return nil }
				time.AfterFunc(time.Second, func() { stop(r, cancel, why) })
				began := time.Now()
				sum, err := r.Run(ctx, numbered(4), command, newRecorder(t))
				if !errors.Is(err, why) || sum.Outcomes[Cancelled] != 3 || time.Since(began) != time.Second {
					t.Errorf("%v after %v: %v", err, time.Since(began), sum.Outcomes)
				}
			})
		})
	}
}

// starts is when hosts were started.
func starts(rec *recorder) *[]time.Duration {
	var at []time.Duration
	began := time.Now()
	rec.onEvent = func(ev Event) {
		if ev.Kind == Start || ev.Kind == Restart {
			at = append(at, time.Since(began))
		}
	}
	return &at
}

func TestRateAndDelay(t *testing.T) {
	ms := func(all ...int) (d []time.Duration) {
		for _, n := range all {
			d = append(d, time.Duration(n)*time.Millisecond)
		}
		return d
	}
	for name, test := range map[string]struct {
		r    *Runner
		runs []int // milliseconds
		want []time.Duration
	}{
		"rate":                       {&Runner{Rate: 4}, []int{0, 0, 0, 0}, ms(0, 250, 500, 750)},
		"delay":                      {&Runner{Delay: time.Second}, []int{0, 0, 0}, ms(0, 1000, 2000)},
		"the slower of both":         {&Runner{Delay: time.Second, Rate: 10}, []int{0, 0, 0}, ms(0, 1000, 2000)},
		"what is lost is lost":       {&Runner{Rate: 10, Fanout: 1}, []int{1000, 0, 0, 0}, ms(0, 1000, 1100, 1200)},
		"from start to start":        {&Runner{Delay: time.Second, Fanout: 1}, []int{5000, 300, 0}, ms(0, 5000, 6000)},
		"no slot, whatever the rate": {&Runner{Rate: 1000, Fanout: 1}, []int{500, 500, 0}, ms(0, 500, 1000)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{hosts: map[string]behaviour{}}
				for i, runs := range test.runs {
					f.hosts[fmt.Sprint("n", i)] = statusOf(time.Duration(runs)*time.Millisecond, 0)
				}
				rec := newRecorder(t)
				got := starts(rec)
				test.r.Transport = f
				if _, err := test.r.Run(t.Context(), numbered(len(test.runs)), command, rec); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, *got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A pace does not make a stop wait, nor the results of those that it held back.
func TestRateStops(t *testing.T) {
	for name, r := range map[string]*Runner{"rate": {Rate: 1. / 3600}, "delay": {Delay: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				why := errors.New("enough")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(why) })
				r.Transport = &fake{}
				began := time.Now()
				sum, err := r.Run(ctx, numbered(5), command, newRecorder(t))
				if !errors.Is(err, why) || time.Since(began) != time.Second || sum.Outcomes[OK] != 1 || sum.Outcomes[Cancelled] != 4 {
					t.Errorf("%v after %v: %v", err, time.Since(began), sum.Outcomes)
				}
			})
		})
	}
}

// Hosts that a limit holds back are under the rate, too, and one that has no room does not use up another's token.
func TestRateWithLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a.1", "a.2", "b.1", "b.2"}
		rec := newRecorder(t)
		got := starts(rec)
		r := &Runner{Transport: newCounting(func(string) time.Duration { return 10 * time.Second }, hosts(names...)), Rate: 1, Limits: byName(map[string]int{"a": 1})}
		if _, err := r.Run(t.Context(), hosts(names...), command, rec); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]time.Duration{0, time.Second, 2 * time.Second, 10 * time.Second}, *got); diff != "" {
			t.Error(diff)
		}
	})
}

// flaky fails a host's first tries.
type flaky struct {
	fake
	fails map[string][]behaviour // of each host's tries, in turn; the next works
}

func (f *flaky) Start(ctx context.Context, host transport.Host, cmd *transport.Command) (transport.Session, error) {
	f.mu.Lock()
	one := f.fails[host.Name]
	if len(one) > 0 {
		f.fails[host.Name] = one[1:]
		f.hosts[host.Name] = one[0]
	} else {
		delete(f.hosts, host.Name)
	}
	f.mu.Unlock()
	return f.fake.Start(ctx, host, cmd)
}

func newFlaky(n int, names iter.Seq[transport.Host], b behaviour) *flaky {
	f := &flaky{fake: fake{hosts: map[string]behaviour{}}, fails: map[string][]behaviour{}}
	for h := range names {
		f.fails[h.Name] = slices.Repeat([]behaviour{b}, n)
	}
	return f
}

func exactly(d time.Duration) time.Duration { return d }

// kinds is each host's events as one letter each: Start, out, err, Finish, Again, Restart.
func kinds(rec *recorder) map[string]string {
	m := map[string]string{}
	rec.onEvent = func(ev Event) {
		m[ev.Host.Name] += string("SoeFAR"[ev.Kind])
		if wants := ev.Kind >= Finish; wants != (ev.Result != nil) {
			rec.t.Errorf("%s: event %d with result %v", ev.Host.Name, ev.Kind, ev.Result)
		}
	}
	return m
}

func TestRetry(t *testing.T) {
	refused := behaviour{startErr: syscall.ECONNREFUSED}
	lost := behaviour{output: 1, err: fmt.Errorf("%w: reset", transport.ErrLost)}
	for name, test := range map[string]struct {
		retry   Retry
		fails   []behaviour
		timeout time.Duration
		outcome Outcome
		tries   int
		took    time.Duration
		kinds   string
	}{
		"none":                  {Retry{}, []behaviour{refused}, 0, Refused, 1, 0, "SF"},
		"works at last":         {Retry{Tries: 3}, []behaviour{refused, refused}, 0, OK, 3, 3 * time.Second, "SARARoF"},
		"enough":                {Retry{Tries: 3}, []behaviour{refused, refused, refused, refused, refused}, 0, Refused, 4, 7 * time.Second, "SARARARF"},
		"longest":               {Retry{Tries: 4, Backoff: 3 * time.Second, Longest: 7 * time.Second}, []behaviour{refused, refused, refused, refused}, 0, OK, 5, (3 + 6 + 7 + 7) * time.Second, "SARARARARoF"},
		"other outcome":         {Retry{Tries: 3, On: []Outcome{DNS}}, []behaviour{refused}, 0, Refused, 1, 0, "SF"},
		"another the next time": {Retry{Tries: 3}, []behaviour{refused, {startErr: fmt.Errorf("no (%w)", transport.ErrAuth)}}, 0, Auth, 2, time.Second, "SARF"},
		"timeout of the start":  {Retry{Tries: 1}, []behaviour{{hangStart: true}}, 5 * time.Second, OK, 2, 6 * time.Second, "SARoF"},
		"timeout of the run":    {Retry{Tries: 1}, []behaviour{{runs: time.Hour}}, 5 * time.Second, Timeout, 1, 5 * time.Second, "SF"},
		"not known to have run": {Retry{Tries: 1}, []behaviour{{runs: time.Hour, deaf: true, stillborn: true}}, 5 * time.Second, Timeout, 1, 7 * time.Second, "SF"},
		"began":                 {Retry{Tries: 1, On: []Outcome{Refused}}, []behaviour{lost}, 0, Unknown, 1, 0, "SoF"},
		"began, may run twice":  {Retry{Tries: 1, On: []Outcome{Unknown}, Started: true}, []behaviour{lost}, 0, OK, 2, time.Second, "SoARoF"},
		"exit, may run twice":   {Retry{Tries: 2, On: []Outcome{Exit}, Started: true}, []behaviour{statusOf(0, 9), statusOf(0, 9), statusOf(0, 9)}, 0, Exit, 3, 3 * time.Second, "SARARF"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFlaky(0, hosts(), behaviour{})
				f.fails["a"] = test.fails
				test.retry.Jitter = exactly
				rec := newRecorder(t)
				got := kinds(rec)
				began := time.Now()
				sum, err := (&Runner{Transport: f, Timeout: test.timeout, Retry: test.retry}).Run(t.Context(), hosts("a"), command, rec)
				if err != nil || sum.Hosts != 1 {
					t.Fatal(err, sum)
				}
				a := rec.results["a"]
				if a.Outcome != test.outcome || a.Tries != test.tries || time.Since(began) != test.took || got["a"] != test.kinds {
					t.Errorf("%s after %d tries, %v, %s; want %s, %d, %v, %s", a.Outcome, a.Tries, time.Since(began), got["a"], test.outcome, test.tries, test.took, test.kinds)
				}
			})
		})
	}
}

// What is harmless to try again.
func TestRetryHarmless(t *testing.T) {
	for _, test := range []struct {
		phase   transport.Phase
		started bool
		wrapped bool
		want    bool
	}{
		{phase: transport.PhaseResolve, want: true}, {phase: transport.PhasePort, want: true}, {phase: transport.PhaseConnect, want: true},
		{phase: transport.PhaseVersion, want: true}, {phase: transport.PhaseKeyExchange, want: true}, {phase: transport.PhaseAuth, want: true},
		{phase: transport.PhaseHandshake}, {phase: transport.PhaseHandshake, wrapped: true, want: true},
		{phase: transport.PhaseStart}, {phase: transport.PhaseStart, wrapped: true}, {phase: transport.PhaseRun}, {phase: transport.PhaseDrain},
		{phase: transport.PhaseClose}, {phase: PhaseIdle}, {phase: PhaseDeadline}, {phase: ""}, {phase: transport.PhaseAuth, started: true},
	} {
		result := &Result{Outcome: Timeout, Tries: 1, Status: transport.Status{Started: test.started}, Err: &transport.OpError{Phase: test.phase, Err: context.DeadlineExceeded}}
		if got := (&Retry{Tries: 1, Wrapped: test.wrapped}).wants(result); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
		if got := (&Retry{Tries: 1, Started: true}).wants(result); !got {
			t.Errorf("%+v: not even when it may run twice", test)
		}
	}
}

// Hosts that wait for another try hold no slot: those that answer are not kept waiting by a thousand that do not.
func TestRetryHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 1000 {
			names = append(names, fmt.Sprint("dead", i))
		}
		f := newFlaky(2, hosts(names...), behaviour{startErr: syscall.ECONNREFUSED})
		names = append(names, "alive")
		rec := newRecorder(t)
		aliveAt := time.Duration(-1)
		began := time.Now()
		rec.onEvent = func(ev Event) {
			if ev.Kind == Finish && ev.Host.Name == "alive" {
				aliveAt = time.Since(began)
			}
		}
		r := &Runner{Transport: f, Fanout: 2, Retry: Retry{Tries: 2, Backoff: time.Minute, Longest: time.Hour, Jitter: exactly}}
		sum, err := r.Run(t.Context(), hosts(names...), command, rec)
		if err != nil || sum.Outcomes[OK] != 1001 || aliveAt != 0 || time.Since(began) != 3*time.Minute {
			t.Errorf("%v, %v: alive after %v, all after %v", err, sum.Outcomes, aliveAt, time.Since(began))
		}
	})
}

// The number of those that wait is bounded, and so is what they cost.
func TestRetryBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = mostAside + 1000
		waiting, most := 0, 0
		rec := newRecorder(t)
		rec.onEvent = func(ev Event) {
			switch ev.Kind {
			case Again:
				waiting++
				most = max(most, waiting)
			case Restart:
				waiting--
			}
		}
		source := func(yield func(transport.Host) bool) {
			for i := range n {
				if !yield(transport.Host{Name: fmt.Sprint("n", i)}) {
					return
				}
			}
		}
		r := &Runner{Transport: refusing{}, Fanout: 10, Retry: Retry{Tries: 1}}
		sum, err := r.Run(t.Context(), source, command, rec)
		if err != nil || sum.Outcomes[Refused] != n || most < mostAside || most > mostAside+10 {
			t.Errorf("%v, %v, %d waited at once", err, sum.Outcomes, most)
		}
	})
}

type refusing struct{}

func (refusing) Start(_ context.Context, h transport.Host, _ *transport.Command) (transport.Session, error) {
	return nil, &transport.OpError{Phase: transport.PhaseConnect, Host: h.Name, Err: syscall.ECONNREFUSED}
}
func (refusing) Shutdown(context.Context) {}

// The tries of a host are under its limits, and no two run at once.
func TestRetryWithLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 100 {
			names = append(names, fmt.Sprintf("a%d.%d", i%5, i))
		}
		f := newFlaky(2, hosts(names...), behaviour{runs: time.Second, err: fmt.Errorf("%w: reset", transport.ErrLost)})
		limits := map[string]int{"a0": 1, "a1": 2, "a2": 3, "a3": 1}
		now, most := map[string]int{}, map[string]int{}
		rec := newRecorder(t)
		rec.onEvent = func(ev Event) {
			key, _, _ := strings.Cut(ev.Host.Name, ".")
			switch ev.Kind {
			case Start, Restart:
				now[key]++
				most[key] = max(most[key], now[key])
			case Again, Finish:
				now[key]--
			}
		}
		r := &Runner{Transport: f, Fanout: 12, Limits: byName(limits), Retry: Retry{Tries: 5, On: []Outcome{Unknown}, Started: true}}
		sum, err := r.Run(t.Context(), hosts(names...), command, rec)
		if err != nil || sum.Outcomes[OK] != 100 {
			t.Fatal(err, sum.Outcomes)
		}
		for key, n := range limits {
			if most[key] > n {
				t.Errorf("%d of %s at once, want %d at most", most[key], key, n)
			}
		}
		for name, result := range rec.results {
			if result.Tries != 3 {
				t.Errorf("%s: %d tries", name, result.Tries)
			}
		}
	})
}

// A host that waits for another try when the run ends has the result of the last one, at once.
func TestRetryStops(t *testing.T) {
	for name, test := range map[string]struct {
		r    *Runner
		stop func(r *Runner, cancel func(error), cause error)
	}{
		"context":  {r: &Runner{}, stop: func(_ *Runner, cancel func(error), cause error) { cancel(cause) }},
		"kill":     {r: &Runner{}, stop: func(r *Runner, _ func(error), cause error) { r.Kill(cause) }},
		"drain":    {r: &Runner{}, stop: func(r *Runner, _ func(error), cause error) { r.Drain(cause) }},
		"deadline": {r: &Runner{Deadline: time.Second}, stop: func(*Runner, func(error), error) {}},
		"limited":  {r: &Runner{Limits: byName(map[string]int{"a": 1})}, stop: func(r *Runner, _ func(error), cause error) { r.Drain(cause) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				f := newFlaky(3, hosts("a", "b"), behaviour{startErr: syscall.ECONNREFUSED})
				rec := newRecorder(t)
				got := kinds(rec)
				test.r.Transport, test.r.Retry = f, Retry{Tries: 9, Backoff: time.Hour, Longest: time.Hour}
				time.AfterFunc(time.Second, func() { test.stop(test.r, cancel, errors.New("enough")) })
				began := time.Now()
				sum, err := test.r.Run(ctx, hosts("a", "b", "c"), command, rec)
				if diff := cmp.Diff(map[Outcome]int{Refused: 2, OK: 1}, sum.Outcomes); err == nil || diff != "" || time.Since(began) != time.Second {
					t.Errorf("%v after %v: %s", err, time.Since(began), diff)
				}
				if a := rec.results["a"]; a.Tries != 1 || a.Ended != began || got["a"] != "SAF" {
					t.Errorf("a: %d tries, ended after %v, %s", a.Tries, a.Ended.Sub(began), got["a"])
				}
			})
		})
	}
}

// Failures that are tried again count when they are the last.
func TestRetryThenMaxFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlaky(1, hosts("a", "b", "c"), behaviour{startErr: syscall.ECONNREFUSED})
		f.fails["b"] = slices.Repeat(f.fails["b"], 9)
		rec := newRecorder(t)
		r := &Runner{Transport: f, Fanout: 1, Total: 4, MaxFail: Share{N: 1}, Ramp: Ramp{{N: 2}, {Percent: 100}}, Retry: Retry{Tries: 2}}
		_, err := r.Run(t.Context(), hosts("a", "b", "c", "d"), command, rec)
		policyOf(t, err, "--max-fail")
		want := map[string]Outcome{"a": OK, "b": Refused, "c": Skipped, "d": Skipped}
		if diff := cmp.Diff(want, rec.outcomes()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBackoff(t *testing.T) {
	r := &Retry{Jitter: exactly}
	var got []time.Duration
	for n := 1; n <= 8; n++ {
		got = append(got, r.after(n)/time.Second)
	}
	if diff := cmp.Diff([]time.Duration{1, 2, 4, 8, 16, 30, 30, 30}, got); diff != "" {
		t.Error(diff)
	}
	for _, r := range []*Retry{{}, {Longest: 1 << 62}, {Backoff: 1}, {Backoff: 1 << 62, Longest: 1<<63 - 1}, {Jitter: func(time.Duration) time.Duration { return -5 }}} {
		for n := range 200 {
			if d := r.after(n); d < 0 {
				t.Fatalf("%+v, try %d: %v", r, n, d)
			}
		}
	}
	seen := map[time.Duration]bool{}
	for range 100 {
		d := new(Retry).after(2)
		if d < time.Second || d >= 3*time.Second {
			t.Errorf("%v, want 1s to 3s", d)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different waits of 100", len(seen))
	}
}

// setClock is the time that a clock set forward or back by whole seconds would show, its monotonic part as it was. The layout is package
// time's: one bit, 33 bits of seconds, 30 of nanoseconds.
func setClock(t testing.TB, at time.Time, by time.Duration) time.Time {
	set := at
	*(*uint64)(unsafe.Pointer(&set)) += uint64(int64(by/time.Second)) << 30
	if set.Sub(at) != 0 || set.Round(0).Sub(at.Round(0)) != by {
		t.Fatal("package time has another layout now")
	}
	return set
}

// Nothing comes of a clock that is set during the run: every time has its monotonic part, and only differences count.
func TestClockJumps(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		now := time.Now()
		p := pacer{interval: time.Second, delay: 100 * time.Millisecond}
		p.startedAt(now)
		for _, step := range []struct {
			after time.Duration
			ready bool
		}{{0, false}, {999 * time.Millisecond, false}, {time.Second, true}} {
			if got := p.readyAt(setClock(t, now.Add(step.after), by)); got != step.ready {
				t.Errorf("clock set by %v, %v after a start: ready %v", by, step.after, got)
			}
		}
		var later retries
		later.push(retry{due: now.Add(2 * time.Second), place: place{seq: 2}})
		later.push(retry{due: setClock(t, now.Add(3*time.Second), by), place: place{seq: 3}})
		later.push(retry{due: setClock(t, now.Add(time.Second), by), place: place{seq: 1}})
		for want := 1; want <= 3; want++ {
			if got := later.pop(); got.seq != want {
				t.Errorf("clock set by %v: try of host %d, want %d", by, got.seq, want)
			}
		}
	}
	monotonic := func(at time.Time) bool { return strings.Contains(at.String(), " m=") }
	rec := newRecorder(t)
	rec.onEvent = func(ev Event) {
		if !monotonic(ev.Time) {
			t.Errorf("event %d: %v", ev.Kind, ev.Time)
		}
		if r := ev.Result; r != nil && (!monotonic(r.Started) || !monotonic(r.Ended) || !r.Running.IsZero() && !monotonic(r.Running)) {
			t.Errorf("%+v", r)
		}
	}
	f := newFlaky(1, hosts("a"), behaviour{startErr: syscall.ECONNREFUSED})
	r := &Runner{Transport: f, Fanout: 1, Retry: Retry{Tries: 1, Backoff: 1}, MaxFail: Share{N: 1}}
	f.fails["c"] = []behaviour{statusOf(0, 1)}
	sum, _ := r.Run(t.Context(), hosts("a", "b", "c", "d"), command, rec)
	if !monotonic(sum.Started) || !monotonic(sum.Ended) {
		t.Errorf("%+v", sum)
	}
}

// Late timers do not add up to a lower rate, and no two hosts share a token.
func TestPacerLate(t *testing.T) {
	began := time.Now()
	p := pacer{interval: 10 * time.Millisecond}
	now := began
	for range 100 {
		for !p.readyAt(now) {
			now = p.next.Add(3 * time.Millisecond) // what a timer of this machine makes of it
		}
		p.startedAt(now)
	}
	if took := now.Sub(began); took != 99*10*time.Millisecond+3*time.Millisecond {
		t.Errorf("100 hosts in %v", took)
	}
}

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		r    *Runner
		want string // part of it; empty: none
	}{
		"zero":                    {&Runner{}, ""},
		"all":                     {&Runner{Total: 20, Ramp: Ramp{{N: 1}, {Percent: 10}, {Percent: 100}}, MaxFail: Share{Percent: 100}, Rate: 1, Retry: Retry{Tries: 1, On: []Outcome{Auth}}}, ""},
		"ramp, no total":          {&Runner{Ramp: Ramp{{Percent: 100}}}, "needs to know how many hosts there are"},
		"ramp ends early":         {&Runner{Total: 20, Ramp: Ramp{{N: 1}, {N: 10}}}, "ends at 10 of 20 hosts: end it with 100%"},
		"ramp goes down":          {&Runner{Total: 20, Ramp: Ramp{{N: 10}, {N: 5}}}, "goes from 10 to 5"},
		"ramp goes on":            {&Runner{Total: 20, Ramp: Ramp{{Percent: 100}, {N: 5}}}, "goes on after 100%"},
		"ramp of nothing":         {&Runner{Total: 20, Ramp: Ramp{{}, {N: 5}}}, "--ramp stage 1"},
		"ramp beyond":             {&Runner{Total: 20, Ramp: Ramp{{Percent: 101}}}, "--ramp stage 1"},
		"max-fail, no total":      {&Runner{MaxFail: Share{Percent: 5}}, "needs to know how many hosts there are"},
		"max-fail beyond":         {&Runner{Total: 5, MaxFail: Share{Percent: 120}}, "120%"},
		"negative time":           {&Runner{IdleTimeout: -1}, "idle timeout"},
		"negative rate":           {&Runner{Rate: -1}, "rate"},
		"tries":                   {&Runner{Retry: Retry{Tries: -1}}, "-1 more tries"},
		"begun":                   {&Runner{Retry: Retry{Tries: 1, On: []Outcome{Exit}}}, "--retry-started"},
		"begun, may run twice":    {&Runner{Retry: Retry{Tries: 1, On: []Outcome{Exit}, Started: true}}, ""},
		"tries those that are ok": {&Runner{Retry: Retry{Tries: 1, On: []Outcome{OK}, Started: true}}, "not tried again"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{}
				test.r.Transport = f
				rec := newRecorder(t)
				_, err := test.r.Run(t.Context(), numbered(5), command, rec)
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q", err, test.want)
				}
				if err != nil && len(f.started) > 0 || !rec.closed {
					t.Errorf("%d were started, sink closed %v", len(f.started), rec.closed)
				}
			})
		})
	}
}

func TestStopped(t *testing.T) {
	op := func(err error) error { return &transport.OpError{Phase: transport.PhaseRun, Err: err} }
	for name, test := range map[string]struct {
		err       error
		running   bool
		stopped   bool
		confirmed bool
	}{
		"ok":                  {running: true},
		"its own failure":     {err: op(transport.ErrLost), running: true},
		"stopped":             {op(&StopError{errors.New("x"), true}), true, true, true},
		"not confirmed":       {op(&StopError{errors.New("x"), false}), true, true, false},
		"never begun":         {op(&StopError{errors.New("x"), true}), false, false, false},
		"sent, then given up": {op(&StopError{errors.New("x"), false}), false, true, false},
		"skipped":             {err: ErrFailFast},
	} {
		r := &Result{Err: test.err}
		if test.running {
			r.Running = time.Now()
		}
		if stopped, confirmed := r.Stopped(); stopped != test.stopped || confirmed != test.confirmed {
			t.Errorf("%s: %v, %v", name, stopped, confirmed)
		}
	}
}
