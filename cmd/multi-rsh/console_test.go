package main

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"multirsh/runner"
	"multirsh/runner/output"
)

// hung is a terminal that takes nothing until it is closed.
type hung chan struct{}

func (h hung) Write(p []byte) (int, error) {
	<-h
	return len(p), nil
}

// A run that was killed ends although its terminal hangs.
func TestReleaseOfHungTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tty := make(hung)
		progress := &output.Progress{Total: 1}
		s := &console{progress: progress, screen: output.NewScreen(tty, func() (int, int) { return 80, 24 }, progress)}
		time.Sleep(time.Minute)
		begin := time.Now()
		s.release()
		if took := time.Since(begin); took != patience {
			t.Errorf("it took %v, want %v", took, patience)
		}
		close(tty)
		s.release()
	})
}

// unwritable is a view that cannot write what it has at its end.
type unwritable struct{ error }

func (u unwritable) Event(runner.Event) error { return nil }
func (u unwritable) Close() error             { return u.error }

// The error of a view outlives what is told after it.
func TestConsoleKeepsError(t *testing.T) {
	full := errors.New("the disk is full")
	stream := output.Stream{W: io.Discard}
	for retries := range 3 {
		s := &console{
			sinks: unwritable{full}, progress: &output.Progress{}, summary: &output.Summary{Stream: stream}, stderr: stream,
			retries: func() int { return retries },
		}
		if err := s.Close(); err != full {
			t.Errorf("%d retries: error %v, want %v", retries, err, full)
		}
	}
}
