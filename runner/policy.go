package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"multirsh/transport"
)

// A run's policies end it early, or hold its hosts back. Each is a field of Runner and a few lines here; where they act:
//
//	          turns (who may start)                loop (what has ended)
//	Ramp      a stage's hosts wait for the last's   counts the stage's failures
//	MaxFail                                         the Nth failure: drain, or stop
//	Rate      pacer: not before its time
//	Retry     those that wait hold no slot          a host's task says whether it is tried again
//	Deadline                                        a timer: stop
//
// Every end by a policy is a *PolicyError, which is Run's error, that of the hosts never started (skipped), and the cause of
// those that were stopped.

// Share is a number of hosts or a percentage of them. The zero Share is none.
type Share struct {
	N       int // hosts
	Percent int // of a total, 1 to 100; with an N of 0
}

// Of is how many hosts of a total that is: a percentage is rounded up, so that it is one host at least. The N stays as it is.
func (s Share) Of(total int) int {
	if s.Percent > 0 {
		return max(1, (total/100)*s.Percent+((total%100)*s.Percent+99)/100) // total*Percent may overflow
	}
	return s.N
}

// IsZero tells whether it is none.
func (s Share) IsZero() bool { return s == Share{} }

// String is what ParseShare reads.
func (s Share) String() string {
	if s.Percent > 0 {
		return strconv.Itoa(s.Percent) + "%"
	}
	return strconv.Itoa(s.N)
}

func (s Share) check() error {
	if s.N < 0 || s.Percent < 0 || s.Percent > 100 || s.N > 0 && s.Percent > 0 {
		return fmt.Errorf("%d hosts or %d%% is not a number of hosts or 1%% to 100%% of them", s.N, s.Percent)
	}
	return nil
}

// Ramp is how far a run has come at the end of each of its stages, in hosts or in percent of all: the first 1, then 10 in all, then 10%,
// then all. Nil: one stage.
type Ramp []Share

// String is what ParseRamp reads.
func (r Ramp) String() string {
	texts := make([]string, len(r))
	for i, s := range r {
		texts[i] = s.String()
	}
	return strings.Join(texts, ",")
}

// Stages is the number of hosts done at the end of each stage of a run of total hosts, ascending to total. A stage that adds
// no host (10 of 640 hosts and then 1%) is left out. The error says that the last stage leaves hosts out.
func (r Ramp) Stages(total int) ([]int, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if len(r) == 0 {
		return nil, nil
	}
	if total <= 0 {
		return nil, fmt.Errorf("%v needs to know how many hosts there are", r)
	}
	var ends []int
	done := 0
	for _, s := range r {
		if end := min(s.Of(total), total); end > done {
			ends, done = append(ends, end), end
		}
	}
	if done < total {
		return nil, fmt.Errorf("%v ends at %d of %d hosts: end it with 100%%", r, done, total)
	}
	return ends, nil
}

// check finds what is wrong whatever the number of hosts: numbers ascend, and so do percentages. 10,1% is a matter of how many there are.
func (r Ramp) check() error {
	var number, percent Share
	for i, s := range r {
		if s.IsZero() || s.check() != nil {
			return fmt.Errorf("stage %d, %v, is neither a number of hosts, as 10, nor a percentage, as 10%%", i+1, s)
		}
		last := &number
		if s.Percent > 0 {
			last = &percent
		}
		if !last.IsZero() && cmp.Or(s.Percent, s.N) <= cmp.Or(last.Percent, last.N) {
			return fmt.Errorf("%v goes from %v to %v: each stage is how many hosts are done at its end, so they ascend", r, *last, s)
		}
		*last = s
		if i < len(r)-1 && s.Percent == 100 {
			return fmt.Errorf("%v goes on after 100%%, where all hosts are done", r)
		}
	}
	return nil
}

// StageReport is how a stage of a ramp went.
type StageReport struct {
	Stage, Stages  int             // which one, from 1, of how many
	Hosts          int             // in this stage
	Failed         int             // of them, those that were not ok
	Outcomes       map[Outcome]int // of them
	Done, Total    int             // hosts of the run
	Next           int             // hosts in the next stage
	Started, Ended time.Time
}

// Rate is in hosts per second. 0: any.
type Rate float64

// Interval is the time between two hosts. 0: none.
func (r Rate) Interval() time.Duration {
	if r <= 0 {
		return 0
	}
	return time.Duration(min(float64(time.Second)/float64(r), 1<<62))
}

// Phases of outcome timeout beside those of package transport, where it was not a step of the session that took too long.
const (
	PhaseIdle     transport.Phase = "idle"     // IdleTimeout
	PhaseDeadline transport.Phase = "deadline" // Deadline
)

// limitPhase is the phase of a host that was stopped for cause in that phase of its session.
func limitPhase(cause error, phase transport.Phase) transport.Phase {
	if idle := (*IdleError)(nil); errors.As(cause, &idle) {
		return PhaseIdle
	}
	if policy := (*PolicyError)(nil); errors.As(cause, &policy) && policy.Option == optionDeadline {
		return PhaseDeadline
	}
	return phase
}

// PolicyError is why a policy has ended the run before all hosts were run: the error of Run and of hosts skipped, and the Cause in the
// StopError of those that were stopped for it.
type PolicyError struct {
	Option string // that asked for it: "--max-fail"
	Text   string
	Err    error // context.DeadlineExceeded for the Deadline, what Between returned; else nil
}

func (e *PolicyError) Error() string { return e.Text }
func (e *PolicyError) Unwrap() error { return e.Err }

const (
	optionFailFast = "--fail-fast"
	optionMaxFail  = "--max-fail"
	optionRamp     = "--ramp"
	optionDeadline = "--deadline"
)

// ErrFailFast is why FailFast has stopped a run; a *PolicyError.
var ErrFailFast error = &PolicyError{Option: optionFailFast, Text: "stopped because another host failed (" + optionFailFast + ")"}

func deadlineError(after time.Duration) error {
	return &PolicyError{optionDeadline, fmt.Sprintf("stopped because the run was not done within %v (%s)", after, optionDeadline), context.DeadlineExceeded}
}

// IdleError is a command's failure to write anything for so long; it is a context.DeadlineExceeded to errors.Is.
type IdleError struct{ After time.Duration }

func (e *IdleError) Error() string { return fmt.Sprintf("no output for %v (--idle-timeout)", e.After) }

// Is makes it a deadline like any other.
func (e *IdleError) Is(target error) bool { return target == context.DeadlineExceeded }

// Check finds policies that can never be met, before anything has run. Run begins with it.
func (r *Runner) Check() error {
	for _, limit := range []struct {
		name  string
		value time.Duration
	}{
		{"timeout", r.Timeout}, {"idle timeout", r.IdleTimeout}, {"deadline", r.Deadline}, {"grace", r.Grace}, {"delay", r.Delay},
		{"backoff of the retries", r.Retry.Backoff}, {"longest backoff of the retries", r.Retry.Longest},
	} {
		if limit.value < 0 {
			return fmt.Errorf("a %s of %v: time does not run backwards", limit.name, limit.value)
		}
	}
	if err := r.MaxFail.check(); err != nil {
		return err
	}
	switch {
	case !(r.Rate >= 0):
		return fmt.Errorf("a rate of %v hosts a second is none", float64(r.Rate))
	case r.MaxFail.Percent > 0 && r.Total <= 0:
		return fmt.Errorf("a limit of %v of the hosts needs to know how many hosts there are", r.MaxFail)
	}
	if _, err := r.Ramp.Stages(r.Total); err != nil {
		return fmt.Errorf("%s %w", optionRamp, err)
	}
	return r.Retry.check()
}

// progress is what MaxFail and Ramp know of a run. The loop counts; the goroutine of pull opens a stage, while no host
// runs and so none can end.
type progress struct {
	stage  StageReport
	ends   []int // hosts of the run at the end of this stage and of the later ones; nil: no ramp
	failed int   // hosts of the run
}

func (x *run) openStage(n int) {
	s := StageReport{Stage: n, Stages: x.stage.Stages, Done: x.stage.Done, Total: x.Total, Hosts: x.Total, Started: time.Now()}
	if x.ends != nil {
		s.Hosts, s.Outcomes = x.ends[0]-s.Done, map[Outcome]int{}
		if len(x.ends) > 1 {
			s.Next = x.ends[1] - x.ends[0]
		}
	}
	x.stage = s
}

// count notes a host's end, and ends the run with the last failure that it may have.
func (x *run) count(outcome Outcome) {
	if x.ends != nil {
		x.stage.Done++
		x.stage.Outcomes[outcome]++
	}
	if outcome == OK {
		return
	}
	x.failed++
	x.stage.Failed++
	switch s := &x.stage; {
	case x.halt.Err() != nil:
	case x.FailFast:
		x.stop(ErrFailFast)
	case x.MaxFail.N > 0 && x.failed >= x.MaxFail.N:
		x.failedTooOften(plural(x.failed, "host"))
	case x.MaxFail.Percent > 0 && s.Failed >= x.MaxFail.Of(s.Hosts):
		who := fmt.Sprintf("%d of %s", s.Failed, plural(s.Hosts, "host"))
		if x.ends != nil {
			who = fmt.Sprintf("%d of the %s of stage %d", s.Failed, plural(s.Hosts, "host"), s.Stage)
		}
		x.failedTooOften(who)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func (x *run) failedTooOften(who string) {
	err := &PolicyError{Option: optionMaxFail, Text: fmt.Sprintf("stopped because %s failed (%s %v)", who, optionMaxFail, x.MaxFail)}
	if x.MaxFailKill {
		x.stop(err)
	} else {
		x.drain(err)
	}
}

// betweenStages decides, when a stage's last host has ended, whether there is another.
func (x *run) betweenStages() {
	s := &x.stage
	s.Ended = time.Now()
	if s.Failed == s.Hosts {
		x.drain(&PolicyError{Option: optionRamp, Text: fmt.Sprintf("stopped because no host of stage %d was ok (%s %v)", s.Stage, optionRamp, x.Ramp)})
		return
	}
	if x.Between != nil {
		report := *s
		report.Outcomes = maps.Clone(s.Outcomes) // what is skipped now counts in this stage's
		if err := x.Between(x.halt, report); err != nil {
			x.drain(&PolicyError{optionRamp, fmt.Sprintf("stopped after stage %d (%s %v): %v", s.Stage, optionRamp, x.Ramp, err), err})
			return
		}
	}
	x.ends = x.ends[1:]
	x.openStage(s.Stage + 1)
}

// Retry is which failures are tried again, how often and when. The zero Retry is none.
//
// A try whose command may have begun is not repeated, unless Started is set: what counts as before is every phase until the command is
// sent, with [transport.Status].Started false. A host that waits for its next try takes no slot of the fan-out and none of its Limits. Of
// the tries only the last has a Result of its own in the summary; that of each other comes with event Again. What those
// wrote, which with Started they may have, has reached the sink by then.
type Retry struct {
	Tries   int       // more of them for each host
	On      []Outcome // that are tried again; nil: DefaultRetryOn
	Started bool      // also when the command has begun, or may have: it is one that may run twice

	// Wrapped says that no command goes out in the handshake phase, as it does under plain rsh: then a failure there is one from before the
	// command, too.
	Wrapped bool

	Backoff time.Duration                     // before the first of them, twice as long before each later one; 0: DefaultBackoff
	Longest time.Duration                     // that they come to; 0: DefaultLongestBackoff
	Jitter  func(time.Duration) time.Duration // what becomes of each, so that hosts that failed together do not come again together; nil: half to one and a half of it
}

// Defaults of a Retry.
const (
	DefaultBackoff        = time.Second
	DefaultLongestBackoff = 30 * time.Second
)

// DefaultRetryOn is the outcomes of hosts that may answer in a moment.
var DefaultRetryOn = []Outcome{Refused, Unreachable, DNS, Timeout}

func (r *Retry) check() error {
	if r.Tries < 0 {
		return fmt.Errorf("%d more tries: the least is 1", r.Tries)
	}
	for _, o := range r.On {
		if err := retryable(o); err != nil {
			return err
		}
		if !r.Started && (o == Exit || o == Signal || o == Unknown) {
			return fmt.Errorf("%q: such a host has begun to run the command, or may have, so it is tried again only with --retry-started", o)
		}
	}
	return nil
}

func retryable(o Outcome) error {
	switch o {
	case OK, Cancelled, Skipped:
		return fmt.Errorf("%q: a host that ended so is not tried again", o)
	}
	return nil
}

// wants tells whether a try that ended so is to be followed by another.
func (r *Retry) wants(result *Result) bool {
	if result.Tries > r.Tries {
		return false
	}
	on := r.On
	if on == nil {
		on = DefaultRetryOn
	}
	return slices.Contains(on, result.Outcome) && (r.Started || r.harmless(result))
}

// harmless tells whether the host cannot have begun to run the command.
func (r *Retry) harmless(result *Result) bool {
	if result.Status.Started {
		return false
	}
	switch result.Phase() {
	case transport.PhaseResolve, transport.PhasePort, transport.PhaseConnect, transport.PhaseVersion, transport.PhaseKeyExchange, transport.PhaseAuth:
		return true
	case transport.PhaseHandshake:
		return r.Wrapped
	}
	return false
}

// after is the time from a host's n-th try, which failed, to the next.
func (r *Retry) after(n int) time.Duration {
	wait := positive(r.Backoff, DefaultBackoff)
	longest := min(positive(r.Longest, max(wait, DefaultLongestBackoff)), 1<<61) // which jitter does not take beyond an int64
	for ; n > 1 && wait <= longest/2; n-- {
		wait *= 2
	}
	if n > 1 {
		wait = longest
	}
	wait = min(wait, longest)
	if r.Jitter != nil {
		return max(0, r.Jitter(wait))
	}
	return wait/2 + rand.N(wait)
}
