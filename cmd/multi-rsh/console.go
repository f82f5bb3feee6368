package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"multirsh/runner"
	"multirsh/runner/output"
)

// console is the sink of a run: what the view has of it, the progress, and at the end the summary.
//
//	events ─┬─► Progress ──► Screen, on the last lines of the terminal; or a line every ten seconds
//	        ├─► Summary                         ▲ all that goes to that terminal
//	        └─► Lines, Fold, Record, Files … ───┘
type console struct {
	sinks    runner.Sink     // the view's
	summary  *output.Summary // nil: none is wanted
	progress *output.Progress
	screen   *output.Screen         // nil: there is none
	stages   *output.Stages         // nil: there is one
	question atomic.Pointer[string] // that is being asked, nil: none
	stderr   output.Stream
	retries  func() int // connections tried again, when the run is over
	quiet    bool
}

// console makes the sink. Files are open and the screen is taken then: the caller has it released, whatever happens.
func (e *env) console(c *config, p *plan, id string) (*console, error) {
	stdout, stderr := e.streams(&c.view)
	ends, _ := c.ramp.Stages(p.hosts.count) // which has been checked
	s := &console{
		progress: &output.Progress{Total: p.hosts.count, Ports: p.reach.portsInUse(), Ends: ends},
		retries:  p.reach.retries,
		quiet:    c.quiet,
	}
	if tty, is := terminal(e.Stderr); is && c.progress == "auto" && !c.quiet && e.Getenv("TERM") != "dumb" {
		s.screen = output.NewScreen(tty, func() (columns, rows int) {
			columns, rows, _ = term.GetSize(int(tty.Fd()))
			return columns, rows
		}, s.progress)
		stderr.W = s.screen
		if same(e.Stdout, tty) {
			stdout.W = s.screen
		}
	}
	s.stderr = stderr
	if c.summary != "none" {
		s.summary = &output.Summary{Stream: stderr, JSON: c.summary == "json"}
	}
	list, err := e.sinks(&c.view, c.record(e.Now(), p.hosts.count, id), stdout, stderr)
	if err != nil {
		s.release()
		return nil, err
	}
	if len(ends) > 1 {
		s.stages = &output.Stages{Ends: ends, Outputs: c.rampPause, Normalize: c.normalize, Memory: c.foldMemory, TempDir: e.Getenv("TMPDIR")}
		list = append(list, s.stages)
	}
	s.sinks = output.Tee(list...)
	return s, nil
}

// record is what a record says of the run.
func (c *config) record(now time.Time, hosts int, id string) output.Run {
	return output.Run{ID: id, Program: version, Time: now, Command: cmp.Or(c.title, c.command), Transport: c.transport, Fanout: c.fanout, Hosts: hosts}
}

// same tells whether the stream is that terminal.
func same(stream any, tty *os.File) bool {
	file, is := terminal(stream)
	if !is {
		return false
	}
	a, err := file.Stat()
	b, err2 := tty.Stat()
	return err == nil && err2 == nil && os.SameFile(a, b)
}

// Event implements runner.Sink.
func (s *console) Event(ev runner.Event) error {
	s.progress.Event(ev)
	if s.summary != nil {
		s.summary.Event(ev)
	}
	return s.sinks.Event(ev)
}

// Close implements runner.Sink.
func (s *console) Close() error {
	err := s.sinks.Close()
	if s.screen != nil {
		if lost := s.screen.Stop(); err == nil {
			err = lost
		}
	}
	if s.summary != nil {
		if told := s.summary.Close(); err == nil {
			err = told
		}
	}
	if s.quiet {
		return err
	}
	var told error
	switch n := s.retries(); n {
	case 0:
	case 1:
		_, told = io.WriteString(s.stderr.W, "1 connection was tried again: a server had dropped it\n")
	default:
		_, told = fmt.Fprintf(s.stderr.W, "%d connections were tried again: servers had dropped them\n", n)
	}
	return cmp.Or(err, told)
}

// release gives the terminal back, where Close has not. That is when nothing has been run, or when the run was killed: then a terminal that takes
// nothing is not waited for.
func (s *console) release() {
	if s.screen == nil {
		return
	}
	released := make(chan struct{})
	go func() { s.screen.Stop(); close(released) }()
	select {
	case <-released:
	case <-time.After(patience):
	}
}

// suspends has the progress leave the terminal while the process is suspended, by Ctrl-Z or kill -TSTP, until end is called. Without a
// progress the kernel alone sees to it.
func (s *console) suspends() (end func()) {
	if s.screen == nil || signal.Ignored(syscall.SIGTSTP) {
		return func() {}
	}
	signals, over := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGTSTP)
	go func() {
		for {
			select {
			case <-signals:
				paused := make(chan struct{})
				go func() { s.screen.Pause(); close(paused) }()
				select {
				case <-paused:
				case <-time.After(patience): // the terminal takes nothing
				}
				syscall.Kill(os.Getpid(), syscall.SIGSTOP) // returns when the process goes on
				go s.screen.Resume()
			case <-over:
				return
			}
		}
	}()
	return func() { signal.Stop(signals); close(over) }
}

// status shows how far the run is. Where that cannot be written there is nobody to tell.
func (s *console) status(now time.Time) {
	s.progress.Status(s.stderr, now)
	io.WriteString(s.stderr.W, "Ctrl-C again within a second stops\n")
}
