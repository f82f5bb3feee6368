package runner

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/transport"
)

// byName limits hosts by the keys in their names: "a+b.7" has the keys a and b.
func byName(limits map[string]int) func(transport.Host) []Limit {
	return func(h transport.Host) (all []Limit) {
		keys, _, _ := strings.Cut(h.Name, ".")
		for key := range strings.SplitSeq(keys, "+") {
			if n, limited := limits[key]; limited {
				all = append(all, Limit{key, n})
			}
		}
		return all
	}
}

// counting is a fake whose hosts run for as long as lasts says, and which counts how many with each key run at once.
type counting struct {
	fake
	now, most map[string]int
}

func newCounting(lasts func(name string) time.Duration, names iter.Seq[transport.Host]) *counting {
	c := &counting{fake: fake{hosts: map[string]behaviour{}}, now: map[string]int{}, most: map[string]int{}}
	for h := range names {
		c.hosts[h.Name] = behaviour{runs: lasts(h.Name), status: transport.Status{Known: true, Started: true}}
	}
	return c
}

func second(string) time.Duration { return time.Second }

// event counts from the sink's place, which sees every host from before its start to after its end.
func (c *counting) event(ev Event) {
	keys, _, _ := strings.Cut(ev.Host.Name, ".")
	for key := range strings.SplitSeq(keys, "+") {
		switch {
		case ev.Kind == Start:
			c.now[key]++
			c.most[key] = max(c.most[key], c.now[key])
		case ev.Kind == Finish && !ev.Result.Started.Equal(ev.Result.Ended):
			c.now[key]--
		}
	}
}

// order is the names in the order of their start events.
func order(r *recorder) *[]string {
	var names []string
	r.onEvent = func(ev Event) {
		if ev.Kind == Start {
			names = append(names, ev.Host.Name)
		}
	}
	return &names
}

func TestLimitsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 300 {
			names = append(names, fmt.Sprintf("rack%d+web%d.%d", i/60, i%7, i))
		}
		random := rand.New(rand.NewPCG(1, 2))
		f := newCounting(func(string) time.Duration { return time.Duration(1+random.IntN(100)) * time.Millisecond }, hosts(names...))
		limits := map[string]int{"rack0": 3, "rack1": 2, "rack2": 1, "rack3": 4, "web0": 1, "web1": 2, "web2": 5}
		rec := newRecorder(t)
		rec.onEvent = f.event
		sum, err := (&Runner{Transport: f, Fanout: 16, Limits: byName(limits)}).Run(t.Context(), hosts(names...), command, rec)
		if err != nil || sum.Outcomes[OK] != len(names) {
			t.Fatalf("%v, %v", err, sum.Outcomes)
		}
		for key, n := range limits {
			if f.most[key] > n {
				t.Errorf("%d of %s at once, want %d at most", f.most[key], key, n)
			}
		}
		if f.fake.most > 16 {
			t.Errorf("%d at once, with a fan-out of 16", f.fake.most)
		}
	})
}

// Who has to wait is passed by later hosts, and goes first when it need not wait any more.
func TestLimitsOrder(t *testing.T) {
	for name, test := range map[string]struct {
		fanout int
		limits map[string]int
		lasts  func(string) time.Duration
		hosts  []string
		want   string
	}{
		"set aside": {2, map[string]int{"a": 1}, func(name string) time.Duration {
			return time.Second + time.Duration(name[0]-'a')*time.Millisecond
		}, []string{"a.1", "a.2", "a.3", "b.1", "b.2", "b.3"}, "a.1 b.1 a.2 b.2 a.3 b.3"},
		"no slot, no passing": {1, map[string]int{"a": 1}, second, []string{"a.1", "a.2", "b.1", "a.3"}, "a.1 a.2 b.1 a.3"},
		"no limit":            {1, map[string]int{"a": 0, "b": -1}, second, []string{"a.1", "b.1", "a.2", "c.1"}, "a.1 b.1 a.2 c.1"},
		"all of one key":      {3, map[string]int{"a": 1}, second, []string{"a.1", "a.2", "a.3", "a.4"}, "a.1 a.2 a.3 a.4"},
		"the oldest that can": {3, map[string]int{"a": 1, "b": 1}, func(name string) time.Duration {
			return map[string]time.Duration{"a.1": 2 * time.Second, "b.1": time.Second}[name] + time.Millisecond
		}, []string{"a.1", "b.1", "a.2", "b.2", "a.3", "b.3"}, "a.1 b.1 b.2 b.3 a.2 a.3"},
		"both keys, or neither": {4, map[string]int{"a": 1, "b": 1}, func(name string) time.Duration {
			return map[string]time.Duration{"a.1": 3 * time.Second, "b.1": time.Second}[name] + time.Millisecond
		}, []string{"a.1", "b.1", "a+b.1", "b.2", "a.2"}, "a.1 b.1 b.2 a+b.1 a.2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec := newRecorder(t)
				got := order(rec)
				f := newCounting(test.lasts, hosts(test.hosts...))
				// One after the other, as far as the order of what may start at the same moment goes.
				limits := byName(test.limits)
				slowly := func(h transport.Host) []Limit { synctest.Wait(); return limits(h) }
				if _, err := (&Runner{Transport: f, Fanout: test.fanout, Limits: slowly}).Run(t.Context(), hosts(test.hosts...), command, rec); err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(*got, " "); got != test.want {
					t.Errorf("%s\nwant %s", got, test.want)
				}
			})
		})
	}
}

// Two hosts may give one key different numbers: each waits for its own.
func TestLimitsDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := []string{"a.1", "a.2", "a.3", "a.4"}
		n := map[string]int{"a.1": 3, "a.2": 3, "a.3": 1, "a.4": 3}
		rec := newRecorder(t)
		got := order(rec)
		r := &Runner{Transport: newCounting(second, hosts(all...)), Limits: func(h transport.Host) []Limit {
			synctest.Wait()
			return []Limit{{"a", 5}, {"a", n[h.Name]}} // the key counts once, with the smaller number
		}}
		began := time.Now()
		if _, err := r.Run(t.Context(), hosts(all...), command, rec); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(*got, " "); got != "a.1 a.2 a.4 a.3" || time.Since(began) != 2*time.Second {
			t.Errorf("%s in %v", got, time.Since(began))
		}
	})
}

// A host with two keys, each of which has room only while the other has not, gets its turn all the same.
func TestLimitsStarveNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a.0", "b.0", "a+b.0"}
		for i := 1; i < 500; i++ {
			names = append(names, fmt.Sprint("a.", i), fmt.Sprint("b.", i))
		}
		lasts := func(name string) time.Duration {
			if name == "b.0" {
				return 1500 * time.Millisecond // out of step with the others for ever
			}
			return time.Second
		}
		rec := newRecorder(t)
		got := order(rec)
		r := &Runner{Transport: newCounting(lasts, hosts(names...)), Fanout: 2, Limits: byName(map[string]int{"a": 1, "b": 1})}
		if _, err := r.Run(t.Context(), hosts(names...), command, rec); err != nil {
			t.Fatal(err)
		}
		if at := slices.Index(*got, "a+b.0"); at > 2*mostPassed+4 {
			t.Errorf("passed by %d hosts", at)
		}
	})
}

// Nothing is kept for a host that one long command holds up.
func TestLimitsLongCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"b.0", "a+b.0"}
		for i := range 500 {
			names = append(names, fmt.Sprint("a.", i))
		}
		lasts := func(name string) time.Duration {
			if name == "b.0" {
				return time.Hour
			}
			return time.Second
		}
		rec := newRecorder(t)
		got := order(rec)
		r := &Runner{Transport: newCounting(lasts, hosts(names...)), Fanout: 8, Limits: byName(map[string]int{"a": 1, "b": 1})}
		if _, err := r.Run(t.Context(), hosts(names...), command, rec); err != nil {
			t.Fatal(err)
		}
		if at := slices.Index(*got, "a+b.0"); at != len(names)-1 {
			t.Errorf("it was number %d: the hosts with room waited for it", at)
		}
	})
}

// However many hosts share a key, few of them are pulled before their time.
func TestLimitsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = mostAside + 2000
		pulled, ahead := 0, 0
		source := func(yield func(transport.Host) bool) {
			for i := range all {
				pulled++
				if !yield(transport.Host{Name: fmt.Sprint("a.", i)}) {
					return
				}
			}
		}
		rec := newRecorder(t)
		started, last := 0, -1
		rec.onEvent = func(ev Event) {
			if ev.Kind != Start {
				return
			}
			synctest.Wait() // until no more are pulled
			started++
			ahead = max(ahead, pulled-started)
			if ev.Seq <= last {
				t.Errorf("host %d after host %d", ev.Seq, last)
			}
			last = ev.Seq
		}
		r := &Runner{Transport: &fake{}, Limits: byName(map[string]int{"a": 1})}
		sum, err := r.Run(t.Context(), source, command, rec)
		if err != nil || sum.Outcomes[OK] != all {
			t.Fatalf("%v, %v", err, sum.Outcomes)
		}
		if ahead != mostAside+1 {
			t.Errorf("%d hosts were pulled before their time, want %d", ahead, mostAside+1)
		}
	})
}

// Those set aside end as those do that have not been pulled, at once, each with one result.
func TestLimitsStop(t *testing.T) {
	why := errors.New("enough")
	for name, test := range map[string]struct {
		stop     func(*Runner, context.CancelCauseFunc)
		failFast bool
		want     map[Outcome]int
		err      error
		after    time.Duration // the last result
	}{
		"context":   {stop: func(_ *Runner, cancel context.CancelCauseFunc) { cancel(why) }, want: map[Outcome]int{Cancelled: 40}, err: why},
		"kill":      {stop: func(r *Runner, _ context.CancelCauseFunc) { r.Kill(why) }, want: map[Outcome]int{Cancelled: 40}, err: why},
		"fail fast": {stop: func(*Runner, context.CancelCauseFunc) {}, failFast: true, want: map[Outcome]int{Exit: 1, Cancelled: 2, Skipped: 37}, err: ErrFailFast},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{hosts: map[string]behaviour{}}
				var names []string
				for i := range 20 {
					names = append(names, fmt.Sprint("a.", i), fmt.Sprint("b.", i))
				}
				for _, name := range names {
					f.hosts[name] = behaviour{runs: time.Hour, deaf: name == "a.0"}
				}
				f.hosts["c.0"] = behaviour{runs: time.Second, status: transport.Status{Known: true, Code: 1}}
				if test.failFast {
					names[3] = "c.0"
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				r := &Runner{Transport: f, Fanout: 30, FailFast: test.failFast, Limits: byName(map[string]int{"a": 1, "b": 1})}
				rec := newRecorder(t)
				began, never := time.Now(), -1
				rec.onEvent = func(ev Event) {
					if ev.Kind == Finish && !rec.open[ev.Seq] && !slices.Contains(f.started, ev.Host.Name) {
						if time.Since(began) != time.Second {
							t.Errorf("%s had to wait until %v for its result", ev.Host.Name, time.Since(began))
						}
						if ev.Seq <= never {
							t.Errorf("%d after %d", ev.Seq, never)
						}
						never = ev.Seq
					}
				}
				time.AfterFunc(time.Second, func() { test.stop(r, cancel) })
				sum, err := r.Run(ctx, hosts(names...), command, rec)
				if !errors.Is(err, test.err) {
					t.Error(err)
				}
				if diff := cmp.Diff(test.want, sum.Outcomes); diff != "" || len(rec.results) != 40 {
					t.Errorf("%d results: %s", len(rec.results), diff)
				}
			})
		})
	}
}

// A key that nobody has any more is forgotten.
func TestLimitsForget(t *testing.T) {
	x := &run{Runner: &Runner{Limits: func(h transport.Host) []Limit { return []Limit{{h.Name, 1}, {"all", 2}} }}, halt: context.Background()}
	q := x.newTurns()
	for i := range 10 {
		c := q.class(transport.Host{Name: fmt.Sprint(i)})
		c.hosts++
		for _, l := range c.limits {
			l.running++
		}
		q.release(ended{&task{}, c})
	}
	if len(q.classes) > 0 || len(q.keys) > 0 {
		t.Errorf("%v, %v are left", slices.Collect(maps.Keys(q.classes)), slices.Collect(maps.Keys(q.keys)))
	}
}
