package runner

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"multirsh/transport"
)

// A host has confirmed the end of its command when all that could hold its channels is gone, or it has told the end and nothing is left.
func TestStopConfirmed(t *testing.T) {
	runs := func(stopped transport.Status, lingers time.Duration) behaviour {
		stopped.Started = true
		return behaviour{runs: time.Hour, stopped: &stopped, lingers: lingers}
	}
	for name, test := range map[string]struct {
		behaviour
		stopped, confirmed bool
	}{
		"trailer and end of file":           {runs(transport.Status{Known: true, Code: 143, Ended: true}, 0), true, true},
		"signal told":                       {runs(transport.Status{Known: true, Signal: "TERM"}, 0), true, true},
		"end of file after KILL":            {runs(transport.Status{Ended: true}, time.Second), true, true},
		"a child holds a channel":           {runs(transport.Status{Known: true, Code: 143, Background: true}, time.Second), true, false},
		"a channel is open after the grace": {runs(transport.Status{Known: true, Code: 143}, time.Hour), true, false},
		"the connection broke":              {runs(transport.Status{}, 0), true, false},
		"no answer":                         {behaviour{runs: time.Hour, deaf: true}, true, false},
		"cannot be asked":                   {behaviour{runs: time.Hour, mute: true}, true, false},
		"not begun":                         {behaviour{hangStart: true}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec := newRecorder(t)
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("interrupted"))
				defer cancel()
				sum, _ := (&Runner{Transport: &fake{hosts: map[string]behaviour{"a": test.behaviour}}}).Run(ctx, hosts("a"), command, rec)
				stopped, confirmed := rec.results["a"].Stopped()
				if stopped != test.stopped || confirmed != test.confirmed {
					t.Errorf("stopped %v, confirmed %v: %v", stopped, confirmed, rec.results["a"].Err)
				}
				if sum.Stopped+sum.Loose > 1 || (sum.Stopped == 1) != (stopped && confirmed) || (sum.Loose == 1) != (stopped && !confirmed) {
					t.Errorf("the summary has %d stopped and %d loose", sum.Stopped, sum.Loose)
				}
			})
		})
	}
}

// In the handshake of plain rsh the command is already there, and below a wrapper it is not.
func TestStopInHandshake(t *testing.T) {
	for wrapped, loose := range map[bool]int{true: 0, false: 1} {
		synctest.Test(t, func(t *testing.T) {
			rec := newRecorder(t)
			f := &fake{hosts: map[string]behaviour{"a": {hangStart: true, hangPhase: transport.PhaseHandshake}}}
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("interrupted"))
			defer cancel()
			sum, _ := (&Runner{Transport: f, Retry: Retry{Wrapped: wrapped}}).Run(ctx, hosts("a"), command, rec)
			if sum.Loose != loose || sum.Stopped != 0 {
				t.Errorf("wrapped %v: %d loose, %d stopped, want %d and 0", wrapped, sum.Loose, sum.Stopped, loose)
			}
		})
	}
}
