// Package execcmd is the transport that runs a command on this machine, once for each host: the host is only a word in it.
//
//	multi-rsh -R exec -w 'node[1-9]' ping -c1 %h
//
// It makes any program that talks to one host a parallel one, and it is what the tests of everything above transports run on.
// The line is given to /bin/sh -c after %h, %u, %n and %% have been replaced (see [Validate] for what they mean).
//
//	            ┌── feeder ───► stdin ──┐
//	Command ────┤                       ├── /bin/sh -c LINE, leader of a process group of its own
//	            └◄─ copiers ◄── stdout ─┤
//	                         ◄── stderr ┘
//
// Start forks, and starts one goroutine for each stream that the command has; Wait waits for the process, then for them. The
// process stays a zombie until Wait is done with it, so that its group's number cannot belong to anybody else when Signal,
// Close or the deadline of a Signal fires. A session that waits costs no thread: pipes and the process (a pidfd, where the
// kernel has them) are in the runtime's poller, and it has no buffer while nothing comes.
//
// A session ends when the command has ended and its output is read to the end of file. A child that it left behind may hold
// the pipes open for ever; so once the command has ended, half a second without a byte on either pipe ends the session too,
// and [transport.Status] says that there is such a child. It is left alone; writing more will get it a SIGPIPE.
package execcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"multirsh/transport"
)

const (
	shell = "/bin/sh"
	// quietAfter is how long both pipes must be quiet after the command's end before a child is taken to hold them.
	quietAfter = 500 * time.Millisecond
	// killAfter is the time between Signal and SIGKILL.
	killAfter = time.Second
	// deadAfter is how long Wait waits for a process that was killed: one that has another user's rights cannot be, and one
	// in an uninterruptible sleep does not die.
	deadAfter = time.Second
)

// Transport runs commands on this machine. The zero value is ready, and any number of goroutines may use it.
type Transport struct {
	// Merge gives the command one pipe for both its outputs, so that they keep their order; all of it goes to Stdout.
	Merge bool

	Dir string // where the commands run; empty: where we do
}

// Start implements [transport.Transport]. The errors are of phase "start": a line or a name that cannot be run, too many
// processes or open files.
func (t *Transport) Start(ctx context.Context, host transport.Host, cmd *transport.Command) (transport.Session, error) {
	fail := func(err error) (transport.Session, error) {
		return nil, &transport.OpError{Phase: transport.PhaseStart, Host: host.Name, Err: err}
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	line, err := expand(cmd.Line, host)
	if err != nil {
		return fail(err)
	}
	s := &session{host: host.Name}
	if err := s.start(line, cmd, t); err != nil {
		return fail(startError(err))
	}
	return s, nil
}

// startError adds the mend to the errors of pipe(2), fork(2) and execve(2) that have one.
func startError(err error) error {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w: lower the fan-out or raise ulimit -n", err)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("cannot fork: %w: lower the fan-out or raise ulimit -u", err)
	case errors.Is(err, syscall.E2BIG):
		return fmt.Errorf("%w: put the command in a file, or pass its data as input", err)
	}
	return fmt.Errorf("cannot run %s: %w", shell, err)
}

type session struct {
	host     string
	pid      int
	pidfd    *os.File // nil: the kernel has none
	in       *os.File // nil: no input
	out, err *os.File // nil: thrown away
	copiers  sync.WaitGroup
	feeder   sync.WaitGroup

	// What the drain is judged by, shared by both copiers.
	ended      atomic.Bool  // the command has ended
	writing    atomic.Int32 // copiers that are in a Write of the caller's: time there is not silence
	last       atomic.Int64 // when a copier last had something, in nanoseconds since born
	background atomic.Bool
	cut        atomic.Bool // a copier stopped before the end of file
	born       time.Time

	mu        sync.Mutex
	phase     transport.Phase
	failure   error       // the first reason to end the session early
	reaped    bool        // the group's number is no longer ours
	killed    bool        // SIGKILL has been sent
	killTimer *time.Timer // of Signal
	killDone  chan struct{}
}

// start makes the pipes, the process and the goroutines. It leaves nothing open when it fails.
func (s *session) start(line string, cmd *transport.Command, t *Transport) (err error) {
	var opened, remote []*os.File
	defer func() {
		for _, f := range remote {
			f.Close()
		}
		if err != nil {
			for _, f := range opened {
				f.Close()
			}
		}
	}()
	pipe := func(input bool) (ours, theirs *os.File, err error) {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		ours, theirs = r, w
		if input {
			ours, theirs = w, r
		}
		opened, remote = append(opened, ours), append(remote, theirs)
		return ours, theirs, nil
	}
	var null *os.File
	if cmd.Stdin == nil || cmd.Stdout == nil || (cmd.Stderr == nil && !t.Merge) {
		if null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
			return err
		}
		remote = append(remote, null)
	}
	stdin, stdout, stderr := null, null, null
	if cmd.Stdin != nil {
		if s.in, stdin, err = pipe(true); err != nil {
			return err
		}
	}
	if cmd.Stdout != nil {
		if s.out, stdout, err = pipe(false); err != nil {
			return err
		}
	}
	switch {
	case t.Merge:
		stderr = stdout
	case cmd.Stderr != nil:
		if s.err, stderr, err = pipe(false); err != nil {
			return err
		}
	}
	pidfd := -1
	// Fd puts these ends, and not ours, into blocking mode, which is what the command expects.
	s.pid, err = syscall.ForkExec(shell, []string{"sh", "-c", "--", line}, &syscall.ProcAttr{
		Dir:   t.Dir,
		Env:   os.Environ(),
		Files: []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   sysProcAttr(&pidfd),
	})
	if err != nil {
		return err
	}
	s.pidfd = pollable(pidfd)
	s.born = time.Now()
	s.phase = transport.PhaseRun
	if s.out != nil {
		s.copiers.Go(func() { s.copy(s.out, cmd.Stdout) })
	}
	if s.err != nil {
		s.copiers.Go(func() { s.copy(s.err, cmd.Stderr) })
	}
	if s.in != nil {
		s.feeder.Go(func() { s.feed(cmd.Stdin) })
	}
	return nil
}

// Shutdown implements [transport.Transport]. There is nothing behind a session.
func (t *Transport) Shutdown(context.Context) {}

// Wait implements [transport.Session]. Status.Known is false only for a process that outlived Close.
func (s *session) Wait(ctx context.Context) (transport.Status, error) {
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.end(context.Cause(ctx))
		close(cancelled)
	})
	status, dead := s.await()

	s.last.Store(int64(time.Since(s.born)))
	s.ended.Store(true)
	s.mu.Lock()
	s.phase = transport.PhaseDrain
	s.mu.Unlock()
	s.deadline(s.out, quietAfter)
	s.deadline(s.err, quietAfter)
	s.copiers.Wait()
	if s.in != nil {
		s.in.SetDeadline(time.Unix(1, 0))
		s.feeder.Wait()
	}
	if !stop() {
		<-cancelled
	}

	s.mu.Lock()
	timer := s.killTimer
	if timer != nil {
		s.kill() // what is still in the group has left its output and its leader
	}
	if dead && !s.reaped {
		for {
			_, err := syscall.Wait4(s.pid, &status, 0, nil)
			if err != syscall.EINTR {
				break
			}
		}
	}
	s.reaped = true
	failure := s.failure
	s.mu.Unlock()
	if timer != nil && !timer.Stop() {
		<-s.killDone
	}
	for _, f := range []*os.File{s.pidfd, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}

	st := transport.Status{Started: true, Ended: dead && !s.cut.Load(), Background: s.background.Load()}
	if dead {
		st.Known = true
		st.Code = status.ExitStatus()
		if status.Signaled() {
			st.Signal = signalName(status.Signal())
			st.Code = 128 + int(status.Signal())
		}
	}
	return st, failure
}

// signalName is the name of sig without its SIG, or its number where it has no name.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return fmt.Sprint(int(sig))
}

// Signal implements [transport.Session]. After the end it returns [os.ErrProcessDone].
func (s *session) Signal(sig os.Signal) error {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v: %w", sig, errors.ErrUnsupported)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reaped {
		return os.ErrProcessDone
	}
	if s.killTimer == nil {
		done := make(chan struct{})
		s.killDone = done
		s.killTimer = time.AfterFunc(killAfter, func() {
			s.mu.Lock()
			s.kill()
			s.mu.Unlock()
			close(done)
		})
	}
	if n == syscall.SIGKILL {
		s.dying()
	}
	if err := syscall.Kill(-s.pid, n); err != nil {
		return &transport.OpError{Phase: s.phase, Host: s.host, Err: fmt.Errorf("cannot signal the command: %w", err)}
	}
	return nil
}

// Close implements [transport.Session].
func (s *session) Close() error {
	s.end(transport.ErrClosed)
	return nil
}

// dying notes that SIGKILL goes out. What it ends takes a moment to let go of the pipes, and that is not the silence of a child that has left
// the group. The caller holds mu.
func (s *session) dying() {
	s.killed = true
	s.last.Store(int64(time.Since(s.born)))
}

// kill sends SIGKILL to the group. The caller holds mu.
func (s *session) kill() {
	if !s.reaped {
		s.dying()
		syscall.Kill(-s.pid, syscall.SIGKILL)
	}
}

// end ends the session at once, because of cause.
func (s *session) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reaped || s.failure != nil {
		return
	}
	s.failure = &transport.OpError{Phase: s.phase, Host: s.host, Err: cause}
	s.kill()
	past := time.Unix(1, 0)
	for _, f := range []*os.File{s.out, s.err, s.in} {
		if f != nil {
			f.SetDeadline(past)
		}
	}
	if s.pidfd != nil {
		s.pidfd.SetReadDeadline(time.Now().Add(deadAfter))
	}
}

// deadline lets the reads of f fail after d, or lets those of a session that was ended fail at once.
func (s *session) deadline(f *os.File, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != nil && s.failure == nil {
		f.SetReadDeadline(time.Now().Add(d))
	}
}

// over tells whether end was called.
func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure != nil
}

// quiet tells whether the command has ended and neither pipe has had anything for so long that a child must hold them. While
// Signal's second runs, a child that is in the group may still be tidying up.
func (s *session) quiet() bool {
	if !s.ended.Load() || s.writing.Load() > 0 || time.Since(s.born)-time.Duration(s.last.Load()) < quietAfter {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killTimer == nil || s.killed
}

// buffers are as big as a pipe, and only in use while there are bytes in them.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// copy passes on what comes from src until its end, or the session's.
func (s *session) copy(src *os.File, dst io.Writer) {
	if !s.copyToEnd(src, dst) {
		s.cut.Store(true)
	}
}

// copyToEnd tells whether the end of file was reached.
func (s *session) copyToEnd(src *os.File, dst io.Writer) bool {
	raw, err := src.SyscallConn()
	if err != nil {
		s.end(err)
		return false
	}
	var (
		buf     *[64 << 10]byte
		n       int
		readErr error
		once    bool // look, and do not wait
	)
	read := func(fd uintptr) bool {
		buf = buffers.Get().(*[64 << 10]byte)
		for {
			n, readErr = syscall.Read(int(fd), buf[:])
			if readErr != syscall.EINTR {
				break
			}
		}
		if n > 0 {
			return true
		}
		buffers.Put(buf)
		return once || readErr != syscall.EAGAIN
	}
	for {
		n, readErr = 0, nil
		err := raw.Read(read)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.over() {
				return false
			}
			// The time is over, but bytes may have come that a busy machine has not let us see: look again.
			once = true
			s.deadline(src, quietAfter)
		case err != nil:
			s.end(err)
			return false
		case n > 0:
			once = false
			s.writing.Add(1)
			_, err := dst.Write(buf[:n])
			buffers.Put(buf)
			if s.ended.Load() {
				s.last.Store(int64(time.Since(s.born)))
				s.deadline(src, quietAfter)
			}
			s.writing.Add(-1)
			if err != nil {
				s.end(err)
				return false
			}
		case readErr == nil: // end of file
			return true
		case readErr == syscall.EAGAIN:
			once = false
			if s.quiet() {
				s.background.Store(true)
				return false
			}
		default:
			s.end(fmt.Errorf("cannot read the command's output: %w", readErr))
			return false
		}
	}
}

// feed writes the input, through offsets of its own, and closes the pipe. When the input cannot be read the command is killed
// before the pipe closes: it must not take half the input for the whole.
func (s *session) feed(input *io.SectionReader) {
	defer s.in.Close()
	buf := make([]byte, min(32<<10, input.Size()))
	for off := int64(0); off < input.Size(); {
		n, err := input.ReadAt(buf, off)
		off += int64(n)
		if _, err := s.in.Write(buf[:n]); err != nil {
			return // the command has closed its input, or the session is over
		}
		if err != nil && off < input.Size() {
			s.end(fmt.Errorf("cannot read the input: %w", err))
			return
		}
	}
}
