// Package runner runs one command on many hosts, a bounded number at a time.
//
//	iter.Seq[Host] ──► turns ──► errgroup, at most Fanout ── Start ─► Session ── Wait ─► Result
//	   pulled lazily     │ Limits       │ Stdout and Stderr of a host are writers that hand an event over
//	                     ▼              ▼ and wait until it is dealt with
//	                set aside  one channel ──► one loop (the goroutine of Run) ──► Sink
//
// Every host that is pulled ends in exactly one [Result], whatever happens. A worker never fails the group with a host's
// error: the error of [Runner.Run] is one of the run itself (a sink failed, the run was stopped).
//
// A run is ended early in one of three manners. Each is a context inside the one before, so that the harder end is also the milder:
//
//	halt  no further host is started, those running finish     Drain, MaxFail, a stage of a Ramp
//	soft  those running are asked to stop (Session.Signal),     the end of Run's context, Deadline, FailFast, MaxFail with
//	      and closed when the Grace is over                     MaxFailKill, a sink that failed
//	hard  every session is closed at once                       Kill
//
// A host's Timeout and IdleTimeout stop that host alone, politely. In all cases Run returns only when all of its goroutines are gone, and
// the closes that go on behind the sessions (Transport.Shutdown): those take no slot. All times are differences of time.Now, which a
// clock that is set does not change.
package runner

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"multirsh/transport"
)

// Defaults of the zero Runner.
const (
	DefaultFanout = 64
	DefaultGrace  = 2 * time.Second
)

// Runner says how to run. Transport must be set; the zero values of the rest have the defaults named. One Run at a time.
type Runner struct {
	Transport transport.Transport
	Fanout    int           // hosts at once; 0: DefaultFanout
	Grace     time.Duration // between the request to stop and closing the session; 0: DefaultGrace
	Total     int           // hosts in all, where a policy needs to know; 0: not known

	Timeout     time.Duration // for each try of a host, all phases together; 0: none
	IdleTimeout time.Duration // that a command may be without output, since it was accepted; time that the sink takes does not count; 0: any
	Deadline    time.Duration // for the whole run; 0: none

	FailFast    bool  // the first host that is not ok stops the run: a MaxFail of 1 with MaxFailKill
	MaxFail     Share // of hosts not ok, with which no further host is started; zero: any
	MaxFailKill bool  // with which those running are stopped, too

	// Ramp has the run go in stages: every host of one has ended before the next one begins. A stage breaks, and the rest is skipped, when none
	// of its hosts was ok, be there a MaxFail or not. Of MaxFail, a number is of the run's hosts and a percentage of the stage's.
	// Between, if it is not nil, is called after each stage but the last, and its error ends the run there. It is called on a
	// goroutine of its own and may take its time (Inspect goes on); it must return when its context ends, which the run's does.
	Ramp    Ramp
	Between func(context.Context, StageReport) error

	Rate  Rate          // hosts that are started per second, evenly: time in which none could start is not made up for
	Delay time.Duration // from one host's start to the next one's, at least
	Retry Retry         // counts as starting a host for Rate and Delay

	// Limits are the limits that a host is under beside Fanout; nil: none. Hosts that have to wait for one are set aside, a few thousand at
	// most, and later ones go first. One goroutine calls it, once for each host that is pulled.
	Limits func(transport.Host) []Limit

	live atomic.Pointer[run]
}

// SinkError is Run's error when the sink failed: output can no longer be written, so nothing more is run.
type SinkError struct{ Err error }

func (e *SinkError) Error() string { return e.Err.Error() }
func (e *SinkError) Unwrap() error { return e.Err }

// Kill closes all sessions at once and starts no more; those that are not stopping already are asked for nothing. Run still
// waits for its goroutines and returns cause, if nothing has stopped it before. Safe at any time.
func (r *Runner) Kill(cause error) {
	if run := r.live.Load(); run != nil {
		run.end(cause) // before the stop: else it would be chance which of the commands are still told to end
		run.stop(cause)
	}
}

// Drain starts no further host and lets those running finish; Run then returns cause, if nothing has stopped it before. Hosts that
// were not started are skipped if cause is a *[PolicyError], else cancelled. A sink may call it: the host of the Start event that it is
// dealing with is then not started either. Safe at any time.
func (r *Runner) Drain(cause error) {
	if run := r.live.Load(); run != nil {
		run.drain(cause)
	}
}

// Inspect has f called on the goroutine that calls the sink, between two events, and waits for it: the way to look at a
// sink's state during a run. It returns false, without calling f, when no run is going on.
func (r *Runner) Inspect(f func()) bool {
	run := r.live.Load()
	if run == nil {
		return false
	}
	done := make(chan struct{})
	select {
	case run.calls <- func() { f(); close(done) }:
		<-done
		return true
	case <-run.over:
		return false
	}
}

// Summary counts how a run's hosts ended.
type Summary struct {
	Hosts      int
	Outcomes   map[Outcome]int
	Codes      map[int]int    // hosts by exit status, of those with outcome exit
	Signals    map[string]int // hosts by signal's name, of those with outcome signal
	Background int            // hosts on which the command left a child running
	Stopped    int            // hosts whose command we have stopped, and which have confirmed its end
	Loose      int            // hosts on which it may still be running, since they have not
	Started    time.Time
	Ended      time.Time
}

func (s *Summary) add(r *Result) {
	s.Hosts++
	s.Outcomes[r.Outcome]++
	switch r.Outcome {
	case Exit:
		s.Codes[r.Status.Code]++
	case Signal:
		s.Signals[r.Status.Signal]++
	}
	if r.Status.Background {
		s.Background++
	}
	switch stopped, confirmed := r.Stopped(); {
	case stopped && confirmed:
		s.Stopped++
	case stopped:
		s.Loose++
	}
}

// run is the state of one Run.
type run struct {
	*Runner
	sink    Sink
	command func(transport.Host) *transport.Command
	events  chan *envelope
	calls   chan func()
	over    chan struct{} // closed when the loop has ended

	halt  context.Context // ends: start no more; ends with soft
	drain context.CancelCauseFunc
	soft  context.Context // ends: stop politely
	stop  context.CancelCauseFunc
	hard  context.Context // ends: close everything
	end   context.CancelCauseFunc

	progress
	summary Summary
	sinkErr error
}

// envelope carries the events of one sender to the loop, one after the other: the sender waits for the answer, so neither it
// nor Data needs a copy.
type envelope struct {
	Event
	answer chan error
}

func (x *run) post(e *envelope) error {
	e.Time = time.Now()
	x.events <- e
	return <-e.answer
}

// Run runs the command on each of the hosts and returns when all have ended. Hosts are pulled as slots become free.
// command gives the command for a host; its Stdout and Stderr are set by Run (events of the sink), its Stdin is kept.
// The end of ctx stops the run politely; its cause is then Run's error. The sink is closed before Run returns. An error of Check comes
// before anything has run.
func (r *Runner) Run(ctx context.Context, hosts iter.Seq[transport.Host], command func(transport.Host) *transport.Command, sink Sink) (Summary, error) {
	if err := r.Check(); err != nil {
		sink.Close()
		return Summary{}, err
	}
	x := &run{
		Runner: r, sink: sink, command: command,
		events: make(chan *envelope), calls: make(chan func()), over: make(chan struct{}),
		summary: Summary{Outcomes: map[Outcome]int{}, Codes: map[int]int{}, Signals: map[string]int{}, Started: time.Now()},
	}
	x.hard, x.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if r.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Deadline, deadlineError(r.Deadline))
		defer cancel()
	}
	x.soft, x.stop = context.WithCancelCause(ctx)
	defer x.end(nil)
	defer x.stop(nil)
	x.halt, x.drain = context.WithCancelCause(x.soft)
	x.ends, _ = r.Ramp.Stages(r.Total)
	x.stage.Stages = max(1, len(x.ends))
	x.openStage(1)
	r.live.Store(x)
	defer r.live.Store(nil)

	go x.pull(hosts)
	x.loop()
	close(x.over)
	x.Transport.Shutdown(x.hard)

	if err := sink.Close(); err != nil && x.sinkErr == nil {
		x.sinkErr = &SinkError{err}
	}
	x.summary.Ended = time.Now()
	if x.sinkErr != nil {
		return x.summary, x.sinkErr
	}
	return x.summary, cmp.Or(context.Cause(x.soft), context.Cause(x.halt))
}

// pull hands the hosts to the workers and closes the events when the last has gone.
func (x *run) pull(hosts iter.Seq[transport.Host]) {
	defer close(x.events)
	turns, seq := x.newTurns(), 0
	for host := range hosts {
		if len(x.ends) > 1 && seq == x.ends[0] && turns.settle() {
			x.betweenStages()
		}
		turns.admit(place{seq: seq, host: host})
		seq++
	}
	turns.finish()
}

func positive[T ~int | ~int64](value, otherwise T) T {
	if value > 0 {
		return value
	}
	return otherwise
}

// loop deals with events until there can be no more. It outlives a failing sink, so that no worker waits for ever.
func (x *run) loop() {
	for {
		select {
		case env, open := <-x.events:
			if !open {
				return
			}
			env.answer <- x.handle(env.Event)
		case f := <-x.calls:
			f()
		}
	}
}

func (x *run) handle(ev Event) error {
	starts := ev.Kind == Start || ev.Kind == Restart
	switch {
	case starts && x.halt.Err() != nil:
		return context.Cause(x.halt) // since it was its turn
	case ev.Kind == Finish:
		x.summary.add(ev.Result)
		x.count(ev.Result.Outcome)
	}
	if err := x.sink.Event(ev); err != nil && x.sinkErr == nil {
		x.sinkErr = &SinkError{err}
		x.stop(x.sinkErr)
	}
	if starts {
		return context.Cause(x.halt)
	}
	return x.sinkErr
}

// task is one try of a host. Its envelope is for start and finish; the two streams, which may write at the same time,
// have one each. What a host needs is in here and not in frames: thousands of goroutines wait in their sessions, and small
// frames decide whether their stacks are 4 KiB or 8.
type task struct {
	*run
	envelope
	stdout, stderr stream
	cmd            transport.Command
	result         Result
}

func (x *run) newTask(p place) *task {
	t := &task{run: x}
	t.address(Start, p.seq, p.host)
	t.result.Seq, t.result.Host = p.seq, p.host
	if p.last != nil {
		t.Kind, t.Event.Result = Restart, p.last
		t.result.Tries = p.last.Tries
	}
	return t
}

func (e *envelope) address(kind Kind, seq int, host transport.Host) {
	e.Kind, e.Seq, e.Host = kind, seq, host
	e.answer = make(chan error)
}

// stream is a host's Stdout or Stderr.
type stream struct {
	*run
	envelope
	lost bool // some of what was written went nowhere, for the run's sinkErr
}

func (s *stream) open(t *task, kind Kind) *stream {
	s.run = t.run
	s.address(kind, t.Seq, t.Host)
	return s
}

// Write never fails. What a broken sink does not take is thrown away and noted: its failure has stopped the run, and a
// session that ended for it first could not be asked to stop its command.
func (s *stream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.Data = p
	if s.post(&s.envelope) != nil {
		s.lost = true
	}
	s.Data = nil
	return len(p), nil
}

// host runs the command on the host, from slot to result.
func (t *task) host() {
	t.result.Started = time.Now()
	if t.post(&t.envelope) != nil {
		t.never()
		return
	}
	t.result.Tries++
	t.result.Status, t.result.Err = t.session()
	if (t.stdout.lost || t.stderr.lost) && t.result.Err == nil {
		t.result.Err = t.opError(transport.PhaseRun, &StopError{Cause: t.sinkErr, Confirmed: true}) // it may have been ok, its output was not
	}
	t.result.Outcome = classify(t.result.Status, t.result.Err)
	t.result.Ended = time.Now()
	if t.Retry.wants(&t.result) && t.halt.Err() == nil {
		t.tell(Again)
	} else {
		t.tell(Finish)
	}
}

// never gives a host that is not started its result: that of the try before, if there was one.
func (t *task) never() {
	if last := t.Event.Result; last != nil {
		t.result = *last
	} else {
		t.result.Err = context.Cause(t.halt)
		t.result.Outcome = Cancelled
		if policy := (*PolicyError)(nil); errors.As(t.result.Err, &policy) {
			t.result.Outcome = Skipped
		}
		t.result.Started = time.Now()
		t.result.Ended = t.result.Started
	}
	t.tell(Finish)
}

func (t *task) tell(kind Kind) {
	t.Kind, t.Event.Result = kind, &t.result
	t.post(&t.envelope)
}

// limit names the options in a timeout's message: in other tools -t is the connect timeout alone.
const limit = "--timeout, for all of it; --connect-timeout is for the connection alone"

// session starts the command and sees it to its end, within the host's time.
func (t *task) session() (transport.Status, error) {
	soft := t.soft
	if t.Timeout > 0 {
		var cancel context.CancelFunc
		soft, cancel = context.WithTimeoutCause(soft, t.Timeout, &transport.TimeoutError{After: t.Timeout, Limit: limit})
		defer cancel()
	}
	if t.IdleTimeout > 0 {
		return t.watched(soft)
	}
	session, err := t.begin(soft, nil)
	if err != nil {
		return transport.Status{}, err
	}
	return t.wait(soft, session)
}

// watched is session with an IdleTimeout.
func (t *task) watched(soft context.Context) (transport.Status, error) {
	soft, cancel := context.WithCancelCause(soft)
	defer cancel(nil)
	idle := &idleClock{after: t.IdleTimeout, cancel: cancel}
	session, err := t.begin(soft, idle)
	if err != nil {
		return transport.Status{}, err
	}
	idle.start()
	defer idle.stop()
	return t.wait(soft, session)
}

func (t *task) begin(soft context.Context, idle *idleClock) (transport.Session, error) {
	t.cmd = *t.command(t.Host)
	t.cmd.Stdout = t.stdout.open(t, Stdout)
	t.cmd.Stderr = t.stderr.open(t, Stderr)
	if idle != nil {
		t.cmd.Stdout = &watchedWriter{idle, &t.stdout}
		t.cmd.Stderr = &watchedWriter{idle, &t.stderr}
	}
	session, err := t.Transport.Start(soft, t.Host, &t.cmd)
	if err != nil {
		return nil, t.notStarted(soft, err)
	}
	t.result.Running = time.Now()
	return session, nil
}

// wait waits for the session, which is stopped when soft ends.
func (t *task) wait(soft context.Context, session transport.Session) (transport.Status, error) {
	stop := t.newStopper(soft, session)
	status, err := session.Wait(stop.hard)
	return stop.verdict(status, err)
}

// notStarted is err, or the reason for which the start was given up.
func (t *task) notStarted(soft context.Context, err error) error {
	cause := context.Cause(soft)
	if cause == nil || !(errors.Is(err, cause) || errors.Is(err, soft.Err())) {
		return err
	}
	phase := transport.PhaseConnect
	if op := (*transport.OpError)(nil); errors.As(err, &op) {
		phase = op.Phase
	}
	// In the start phase the command has been sent, and nobody has seen what became of it.
	// Under plain rsh that is so in the handshake phase, too.
	unseen := phase == transport.PhaseStart || phase == transport.PhaseHandshake && !t.Retry.Wrapped
	return t.opError(limitPhase(cause, phase), &StopError{Cause: cause, Confirmed: !unseen})
}

func (t *task) opError(phase transport.Phase, err error) error {
	return &transport.OpError{Phase: phase, Host: t.Host.Name, Err: err}
}

// stopper asks a session to stop when soft ends, and has it closed when the grace is over.
type stopper struct {
	*task
	session    transport.Session
	soft, hard context.Context
	end        context.CancelCauseFunc // of hard
	cancel     func() bool             // that run begins
	timer      *time.Timer             // of the grace; nil: the session had already ended
	done       chan struct{}           // closed when run has ended
}

var errGrace = errors.New("the grace after the request to stop is over")

func (t *task) newStopper(soft context.Context, session transport.Session) *stopper {
	s := &stopper{task: t, session: session, soft: soft, done: make(chan struct{})}
	s.hard, s.end = context.WithCancelCause(t.run.hard)
	s.cancel = context.AfterFunc(soft, s.run)
	return s
}

func (s *stopper) run() {
	defer close(s.done)
	if s.task.hard.Err() != nil {
		return // all is closed
	}
	grace := positive(s.Grace, DefaultGrace)
	switch err := s.session.Signal(syscall.SIGTERM); {
	case errors.Is(err, os.ErrProcessDone):
		return
	case err != nil:
		grace = 0 // it cannot be asked
	}
	s.timer = time.AfterFunc(grace, func() { s.end(errGrace) })
}

// verdict is what Wait's results come to, and lets go of all that the stopper holds.
func (s *stopper) verdict(status transport.Status, err error) (transport.Status, error) {
	defer s.end(nil)
	closed := err != nil && s.hard.Err() != nil
	if !s.cancel() {
		<-s.done
	}
	asked := s.timer != nil
	if asked {
		s.timer.Stop()
	}
	if !asked && !closed {
		return status, err // it ended by itself
	}
	phase := transport.PhaseRun
	if !status.Started {
		phase = transport.PhaseStart
	}
	// A kill ends hard before it ends soft.
	cause := cmp.Or(context.Cause(s.soft), context.Cause(s.hard))
	overdue := closed && context.Cause(s.hard) == errGrace
	return status, s.opError(limitPhase(cause, phase), &StopError{Cause: cause, Confirmed: confirmed(status, overdue)})
}

// confirmed tells whether a command that we have stopped is known to have ended: all that could hold its channels is gone, or it has told how
// it ended and left nothing behind that does. A channel that was still open when the grace was over is held by something.
func confirmed(status transport.Status, overdue bool) bool {
	return status.Ended || status.Known && !status.Background && !overdue
}
