package main

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/term"

	"multirsh/runner"
	"multirsh/runner/output"
)

// console is the sink of a run: the lines of the hosts, the status for when it is asked for, and the summary.
type console struct {
	lines    output.Lines
	progress output.Progress
	summary  output.Summary
	stderr   output.Stream
	total    int
	retries  func() int // connections tried again, when the run is over
	quiet    bool
	failed   bool // the lines could not be written: what the summary has seen is then not the whole run
}

func (e *env) console(c *config, total int, retries func() int) *console {
	stderr := output.Stream{W: e.Stderr}
	if file, is := terminal(e.Stderr); is {
		if columns, _, err := term.GetSize(int(file.Fd())); err == nil {
			stderr.Width = columns
		}
	}
	return &console{
		lines:   output.Lines{Stdout: output.Stream{W: e.Stdout}, Stderr: stderr, NoLabels: c.noLabels, Quiet: c.quiet},
		summary: output.Summary{Stream: stderr},
		stderr:  stderr,
		total:   total,
		retries: retries,
		quiet:   c.quiet,
	}
}

// Event implements runner.Sink.
func (s *console) Event(ev runner.Event) error {
	if err := s.progress.Event(ev); err != nil {
		return err
	}
	if err := s.summary.Event(ev); err != nil {
		return err
	}
	err := s.lines.Event(ev)
	s.failed = s.failed || err != nil
	return err
}

// Close implements runner.Sink.
func (s *console) Close() error {
	if s.quiet || s.failed {
		return nil
	}
	if err := s.summary.Close(); err != nil {
		return err
	}
	var err error
	switch n := s.retries(); n {
	case 0:
	case 1:
		_, err = io.WriteString(s.stderr.W, "1 connection was tried again: a server had dropped it\n")
	default:
		_, err = fmt.Fprintf(s.stderr.W, "%d connections were tried again: servers had dropped them\n", n)
	}
	return err
}

// status shows how far the run is. Where that cannot be written there is nobody to tell.
func (s *console) status(now time.Time) {
	s.progress.Status(s.stderr, now, s.total)
	io.WriteString(s.stderr.W, "Ctrl-C again within a second stops\n")
}
