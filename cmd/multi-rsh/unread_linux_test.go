package main

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// fullPipe is the end for writing of a pipe that has no room left and is never read.
func fullPipe(t testing.TB) *os.File {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ends[0]) })
	for {
		if _, err := unix.Write(ends[1], make([]byte, 4096)); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.SetNonblock(ends[1], false); err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(ends[1]), "full pipe")
	t.Cleanup(func() { w.Close() })
	return w
}

// Both outputs go to a reader that takes nothing, as in "2>&1 | less": a signal that asks for the end gets it, although not
// even that can be said.
func TestSignalsWhileNobodyReads(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for signal, want := range map[string]int{"TERM": exitTerminated, "HUP": exitTerminated, "QUIT": exitInterrupted} {
		t.Run(signal, func(t *testing.T) {
			t.Parallel()
			full := fullPipe(t)
			cmd := &exec.Cmd{
				Path: self, Args: []string{"multi-rsh", "-R", "exec", "-w", "n1", "trap '' TERM; kill -" + signal + " $PPID; exec yes"},
				Stdout: full, Stderr: full,
			}
			err := cmd.Run()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != want {
				t.Errorf("%v, want exit status %d", err, want)
			}
		})
	}
}
