package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"multirsh/runner"
)

// summaryOf counts outcomes; codes and signals name themselves.
func summaryOf(ends ...any) runner.Summary {
	s := runner.Summary{Hosts: len(ends), Outcomes: map[runner.Outcome]int{}, Codes: map[int]int{}, Signals: map[string]int{}}
	for _, end := range ends {
		switch end := end.(type) {
		case runner.Outcome:
			s.Outcomes[end]++
		case int:
			s.Outcomes[runner.Exit]++
			s.Codes[end]++
		case string:
			s.Outcomes[runner.Signal]++
			s.Signals[end]++
		}
	}
	return s
}

func TestExitStatus(t *testing.T) {
	broken := &runner.SinkError{Err: fmt.Errorf("write: %w", syscall.EPIPE)}
	for _, test := range []struct {
		name             string
		summary          runner.Summary
		err              error
		without, largest int // exit status without and with -S
	}{
		{"all ok", summaryOf(runner.OK, runner.OK), nil, 0, 0},
		{"one exits", summaryOf(runner.OK, 3), nil, 1, 3},
		{"largest of several", summaryOf(3, 40, 7, runner.OK), nil, 1, 40},
		{"exit 255", summaryOf(255), nil, 1, 255},
		{"signal", summaryOf("TERM", 3), nil, 1, 143},
		{"kill", summaryOf("KILL"), nil, 1, 137},
		{"a signal we do not know", summaryOf("XYZZY"), nil, 1, 255},
		{"timeout", summaryOf(runner.Timeout, 3), nil, 1, 124},
		{"refused", summaryOf(runner.Refused, 200), nil, 1, 254},
		{"unreachable", summaryOf(runner.Unreachable), nil, 1, 254},
		{"dns", summaryOf(runner.DNS), nil, 1, 254},
		{"auth", summaryOf(runner.Auth, runner.Refused), nil, 1, 255},
		{"hostkey", summaryOf(runner.HostKey), nil, 1, 255},
		{"noports", summaryOf(runner.NoPorts), nil, 1, 255},
		{"protocol", summaryOf(runner.Protocol), nil, 1, 255},
		{"unknown", summaryOf(runner.Unknown, runner.OK), nil, 1, 255},
		{"fail-fast", summaryOf(7, runner.Cancelled, runner.Skipped), runner.ErrFailFast, 1, 7},
		{"cancelled alone", summaryOf(runner.OK, runner.Cancelled), nil, 1, 1},
		{"interrupted", summaryOf(7, runner.Cancelled), &stopped{os.Interrupt}, 130, 130},
		{"killed", summaryOf(runner.Cancelled), &stopped{syscall.SIGQUIT}, 130, 130},
		{"terminated", summaryOf(7, runner.Cancelled), &stopped{syscall.SIGTERM}, 143, 143},
		{"hung up", summaryOf(runner.Cancelled), &stopped{syscall.SIGHUP}, 143, 143},
		{"output closed", summaryOf(runner.OK), broken, 3, 3},
		{"failure here", summaryOf(), errors.New("disk full"), 3, 3},
		{"usage", summaryOf(), usagef("no"), 2, 2},
	} {
		if got := exitStatus(test.summary, test.err, false); got != test.without {
			t.Errorf("%s: exit status %d, want %d", test.name, got, test.without)
		}
		if got := exitStatus(test.summary, test.err, true); got != test.largest {
			t.Errorf("%s: exit status with -S %d, want %d", test.name, got, test.largest)
		}
	}
}
