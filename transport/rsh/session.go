package rsh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"multirsh/transport"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/shwrap"
)

const (
	// A channel may stay open for so long after the command's end has come on all of them: minDrain, or as long as the host
	// took to start the command, since one that is loaded ends a session as slowly as it begins it.
	minDrain = 500 * time.Millisecond
	maxDrain = 5 * time.Second
	// lost is how long the stderr channel may be silent once the main channel has ended without the command's status.
	lost = 5 * time.Second
	// killAfter is when the wrapper kills what a stop has not ended.
	killAfter = time.Second
)

// session is a command on a host. The main connection carries stdin and stdout.
type session struct {
	transport *Transport
	host      transport.Host
	cmd       *transport.Command
	main      *resvport.Conn
	stderr    *net.TCPConn    // nil: merged
	wrap      *shwrap.Wrapper // nil: plain
	early     []byte          // came on main together with the answer
	trace     transport.Trace // nil: nobody wants to know

	channels []*channel
	opened   time.Time                 // when the script was sent
	startup  atomic.Int64              // from then to the first leader, in ns
	tardy    *time.Timer               // ends a session whose leader does not come
	others   sync.WaitGroup            // the goroutines beside Wait's, but for stderr's
	trailers atomic.Int32              // channels whose trailer has not come yet
	input    atomic.Int32              // what the main channel carries towards the host
	stopped  atomic.Pointer[time.Time] // when Signal sent the stop line; nil: never
	ended    atomic.Bool               // Wait has seen the end
	once     sync.Once                 // of close and reset
	reason   atomic.Pointer[error]
}

// The states of session.input.
const (
	inputDone    = iota // nothing, or all of it and its go: a stop line will be read
	inputSending        // the input is on its way: only its breaking off stops the command
	inputCut            // broken off by Signal
)

// channel is one connection on its way to the output.
type channel struct {
	reader
	session *session
	wire    *shwrap.Channel // nil: plain
	out     io.Writer
	early   []byte // came before the channel was opened
	eof     bool   // read to its end of file: the host has closed it
	err     error  // otherwise why we read no further
}

// errOutput marks the failure of the caller's own writer.
type errOutput struct{ error }

func (e errOutput) Unwrap() error { return e.error }

// Wait implements transport.Session. Its frame and those below are kept small: thousands of goroutines wait in here.
func (s *session) Wait(ctx context.Context) (transport.Status, error) {
	defer s.closeAfter(ctx)()
	main := s.open()
	main.run()
	if !main.ended() {
		s.bound()
	}
	return s.finish()
}

// closeAfter has the session closed when ctx ends. The function that it returns takes that back.
func (s *session) closeAfter(ctx context.Context) func() bool {
	return context.AfterFunc(ctx, func() { s.abandon(context.Cause(ctx)) })
}

// open makes the channels, each of which awaits a trailer, sends what the host is to have, and sees to it that stderr is
// read. What is needed no more is let go.
func (s *session) open() (main *channel) {
	stdout, stderr := discard(s.cmd.Stdout), discard(s.cmd.Stderr)
	main = &channel{session: s, out: stdout, early: s.early}
	main.init(s.main.TCPConn)
	s.channels = append(s.channels, main)
	if s.stderr != nil {
		c := &channel{session: s, out: stderr}
		c.init(s.stderr)
		s.channels = append(s.channels, c)
	}
	s.trailers.Store(int32(len(s.channels)))
	if !s.transport.Plain {
		main.wire = s.wrap.Stdout(stdout)
		if s.stderr != nil {
			s.channels[1].wire = s.wrap.Stderr(stderr)
		}
		s.send(s.wrap)
		limit := 3 * s.transport.connectTimeout()
		s.tardy = time.AfterFunc(limit, func() {
			s.abandon(&transport.TimeoutError{After: limit, Limit: "three times --connect-timeout, for the login shell to start the command"})
		})
	}
	s.wrap, s.early, s.opened = nil, nil, time.Now()
	for _, c := range s.channels[1:] {
		s.transport.closing.Go(func() {
			c.run()
			over := c.eof
			close(c.done)
			if over {
				release(c.conn)
			}
		})
	}
	return main
}

// bound bounds the wait for stderr when the main channel has ended without a trailer: whoever held stdout is gone, the
// wrapper too. What stderr still has may take its time, silence is the end.
func (s *session) bound() {
	for _, c := range s.channels[1:] {
		c.patience.Store(int64(lost))
		c.conn.SetReadDeadline(time.Now().Add(lost))
	}
}

func discard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// run copies the channel until its end.
func (c *channel) run() {
	early := c.early
	c.early = nil
	if !c.feed(early) {
		return
	}
	for {
		more, err := c.read(c.feed)
		switch {
		case !more && err == nil:
			return // feed has said why
		case err != nil:
			c.close(err)
			return
		}
		if p := c.patience.Load(); p > 0 && !c.ended() {
			c.conn.SetReadDeadline(time.Now().Add(time.Duration(p)))
		}
	}
}

// close notes why there is no more to read and passes on what was held back.
func (c *channel) close(err error) {
	if c.eof = err == io.EOF; !c.eof {
		c.err = err
	}
	if c.wire != nil {
		if err := c.wire.Close(); err != nil {
			c.err = errOutput{err}
			c.session.abandon(c.err)
		}
	}
}

// feed passes bytes of the wire on. False ends the channel.
func (c *channel) feed(data []byte) bool {
	if len(data) == 0 {
		return true
	}
	started, ended := c.started(), c.ended()
	var err error
	if c.wire != nil {
		_, err = c.wire.Write(data)
	} else {
		_, err = c.out.Write(data)
	}
	if err != nil {
		c.err = errOutput{err}
		c.session.abandon(c.err)
		return false
	}
	if !started && c.started() {
		c.session.tardy.Stop()
		if c == c.session.channels[0] {
			c.session.trace.Pass(transport.PhaseStart, "")
		}
		c.session.startup.CompareAndSwap(0, int64(time.Since(c.session.opened)))
	}
	if !ended && c.ended() {
		c.session.trailer()
	}
	return true
}

// started says whether the leader has come.
func (c *channel) started() bool { return c.wire != nil && c.wire.Started() }

// ended says whether the trailer has come.
func (c *channel) ended() bool {
	if c.wire == nil {
		return false
	}
	_, ended := c.wire.Ended()
	return ended
}

// trailer counts the trailers. When the last has come the command is over; only its children can still hold the channels. Those that were told to
// stop with it have their second, and are killed then: only what holds on after that has left the process group.
func (s *session) trailer() {
	if s.trailers.Add(-1) > 0 {
		return
	}
	s.trace.Pass(transport.PhaseRun, "")
	drain := min(max(minDrain, time.Duration(s.startup.Load())), maxDrain)
	deadline := time.Now().Add(drain)
	if stopped := s.stopped.Load(); stopped != nil {
		if killed := stopped.Add(killAfter + drain); killed.After(deadline) {
			deadline = killed
		}
	}
	for _, c := range s.channels {
		c.conn.SetReadDeadline(deadline)
	}
}

// finish waits for the rest, closes what is open in the manner that the end calls for, and says how it ended.
func (s *session) finish() (transport.Status, error) {
	main := s.channels[0]
	for _, c := range s.channels[1:] {
		<-c.done
	}
	s.ended.Store(true)
	if s.tardy != nil {
		s.tardy.Stop()
	}
	if main.eof {
		s.main.SetLinger(-1) // the host has closed first: ours is the second FIN, and nothing stays behind
	}
	s.close()
	s.others.Wait()

	status := transport.Status{Started: s.transport.Plain, Ended: true}
	drained := false
	for _, c := range s.channels {
		status.Ended = status.Ended && (c.eof || s.stderr != nil && c == main && s.input.Load() == inputCut)
		drained = drained || errors.Is(c.err, os.ErrDeadlineExceeded)
	}
	if s.transport.Plain {
		status.Background = drained
	} else {
		for _, c := range s.channels {
			status.Started = status.Started || c.wire.Started()
		}
		status.Code, status.Known = main.wire.Ended()
		status.Background = status.Known && (drained || main.wire.Late() > 0)
	}
	if status.Ended {
		s.trace.Pass(transport.PhaseClose, "")
	}
	err := s.failure(status)
	if err != nil {
		err = &transport.OpError{Phase: phase(err, status), Host: s.host.Name, Err: err}
	}
	return status, err
}

// failure is the error of Wait, or nil.
func (s *session) failure(status transport.Status) error {
	if reason := s.reason.Load(); reason != nil {
		return *reason
	}
	main := s.channels[0]
	if s.transport.Plain {
		for _, c := range s.channels {
			if c.err != nil && !errors.Is(c.err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("%w: %w", transport.ErrLost, c.err)
			}
		}
		return nil
	}
	switch {
	case !status.Started:
		// A host that ends without reading our script resets the connection, perhaps with a text before that.
		text := strings.TrimSpace(main.text() + "\n" + s.stderrText())
		if text != "" || main.eof || errors.Is(main.err, syscall.ECONNRESET) {
			return notStarted(text)
		}
		return fmt.Errorf("the connection broke before the command had started: %w", main.cause())
	case !status.Known:
		return fmt.Errorf("%w before the command's exit status had come: %w", transport.ErrLost, main.cause())
	}
	for _, c := range s.channels[1:] {
		switch {
		case !c.wire.Started() && c.text() != "":
			return &plainError{fmt.Sprintf("what came on the stderr channel is not this command's (its exit status was %d)", status.Code), transport.ErrProtocol}
		case !c.ended():
			return fmt.Errorf("%w: stderr broke off (the exit status was %d): %w", transport.ErrLost, status.Code, c.cause())
		}
	}
	return nil
}

func (c *channel) cause() error {
	if c.err == nil {
		return errors.New("the host closed the connection")
	}
	return c.err
}

// text is what came on a channel on which the leader never did.
func (c *channel) text() string { return strings.TrimSpace(string(c.wire.Noise())) }

func (s *session) stderrText() string {
	if s.stderr == nil {
		return ""
	}
	return s.channels[1].text()
}

// notStarted is the error of a host that accepted the session and did not run the command; text is what it said instead.
func notStarted(text string) error {
	switch {
	case deniesLogin(strings.ToLower(text)):
		return refusal(text)
	case text == "":
		return &plainError{"the host accepted the session and closed it, and the command did not start (no login shell, or no /bin/sh? --plain sends the bare command)", transport.ErrProtocol}
	}
	return &plainError{fmt.Sprintf("the command did not start; the host says %q", abbreviate(text)), transport.ErrProtocol}
}

// phase is where in the session's life an error belongs.
func phase(err error, status transport.Status) transport.Phase {
	switch {
	case errors.Is(err, transport.ErrAuth):
		return transport.PhaseAuth
	case !status.Started:
		return transport.PhaseStart
	}
	return transport.PhaseRun
}

// Signal implements transport.Session: the wrapper sends sig to the process group, and SIGKILL a second later. In plain
// sessions sig goes as rcmd(3) has it, a byte on the stderr channel; not every rshd reads it.
func (s *session) Signal(sig os.Signal) error {
	if s.ended.Load() {
		return os.ErrProcessDone
	}
	if s.transport.Plain {
		number, ok := sig.(syscall.Signal)
		if s.stderr == nil || !ok {
			return errors.ErrUnsupported
		}
		return write(s.stderr, []byte{byte(number)})
	}
	if s.input.CompareAndSwap(inputSending, inputCut) {
		// No stop line can overtake the input. The short input is the stop, and stderr's end of file the proof of it.
		s.main.Close()
		return nil
	}
	line, err := shwrap.Stop(sig)
	if err != nil {
		return err
	}
	now := time.Now()
	s.stopped.CompareAndSwap(nil, &now)
	return write(s.main.TCPConn, line)
}

// write sends a few bytes that a connection always has room for; if it has none we do not wait.
func write(conn *net.TCPConn, p []byte) error {
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, err := conn.Write(p)
	return err
}

// Close implements transport.Session.
func (s *session) Close() error {
	s.abandon(transport.ErrClosed)
	return nil
}

// abandon ends the session at once for a reason of ours; the first one counts.
func (s *session) abandon(reason error) {
	s.reason.CompareAndSwap(nil, &reason)
	s.reset()
}

// close closes the connections as their linger has it: main plainly after its end of file, else with a RST. After stderr's end of
// file its own goroutine closes it.
func (s *session) close() {
	s.once.Do(func() {
		s.main.Close()
		if s.stderr != nil && !s.channels[1].eof {
			s.stderr.Close()
		}
	})
}

// reset closes the connections at once, however far the session has come.
func (s *session) reset() {
	s.once.Do(func() {
		if s.main != nil {
			s.main.Close()
		}
		if s.stderr != nil {
			s.stderr.Close()
		}
	})
}
