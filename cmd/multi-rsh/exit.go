package main

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"multirsh/runner"
)

// The exit statuses of multi-rsh; with -S also those of the hosts. The manual has the same table, and a test compares them.
const (
	exitOK          = 0   // every host ok
	exitHosts       = 1   // some host not ok
	exitUsage       = 2   // a mistake in what we were given; nothing has been run
	exitFailure     = 3   // a failure here, as a full disk, or output that nobody reads
	exitTimeout     = 124 // -S: a host was not done in time
	exitNoConnect   = 254 // -S: a host could not be reached
	exitUnknown     = 255 // -S: how it ended on a host is not known
	exitInterrupted = 130 // Ctrl-C
	exitTerminated  = 143 // SIGTERM or SIGHUP
)

// stopped is the cause of a run's end when a signal asked for it.
type stopped struct{ signal os.Signal }

func (s *stopped) Error() string {
	switch s.signal {
	case syscall.SIGTERM:
		return "terminated"
	case syscall.SIGHUP:
		return "terminated, since the terminal is gone"
	}
	return "interrupted"
}

// ending is an error that says how we end, and has no words: whoever asked for it knows.
type ending struct{ status int }

func (e *ending) Error() string { return "exit status " + strconv.Itoa(e.status) }

// exitStatus is our own exit status: of the hosts' ends, of the run's error, and of whether -S was given.
func exitStatus(summary runner.Summary, err error, largest bool) int {
	if signal := (*stopped)(nil); errors.As(err, &signal) {
		if signal.signal == syscall.SIGTERM || signal.signal == syscall.SIGHUP {
			return exitTerminated
		}
		return exitInterrupted
	}
	if end := (*ending)(nil); errors.As(err, &end) {
		return end.status
	}
	policy := (*runner.PolicyError)(nil)
	switch usage := (*usageError)(nil); {
	case errors.As(err, &usage):
		return exitUsage
	case err != nil && !errors.As(err, &policy): // the hosts that failed say more
		return exitFailure
	case summary.Outcomes[runner.OK] == summary.Hosts:
		return exitOK
	case largest:
		return largestStatus(summary)
	}
	return exitHosts
}

// largestStatus is what -S exits with when not every host is ok. A host that we have stopped, or never tried, has no status
// to give; where there is none at all the answer is 1, so that -S is never 0 for a run that failed.
func largestStatus(summary runner.Summary) int {
	largest := exitHosts
	for code := range summary.Codes {
		largest = max(largest, code)
	}
	for name := range summary.Signals {
		largest = max(largest, signalStatus(name))
	}
	for outcome := range summary.Outcomes {
		switch outcome {
		case runner.Timeout:
			largest = max(largest, exitTimeout)
		case runner.Refused, runner.Unreachable, runner.DNS:
			largest = max(largest, exitNoConnect)
		case runner.Unknown, runner.Auth, runner.HostKey, runner.NoPorts, runner.Protocol:
			largest = max(largest, exitUnknown)
		}
	}
	return largest
}

// signalStatus is how a shell tells of a command that a signal has ended: 128 and the signal's number.
func signalStatus(name string) int {
	if number := unix.SignalNum("SIG" + name); number != 0 {
		return 128 + int(number)
	}
	return exitUnknown
}
