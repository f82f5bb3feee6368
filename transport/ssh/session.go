package ssh

import (
	"bytes"
	"context"
	"encoding/binary"
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

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/shwrap"
	"multirsh/transport/ssh/sshconfig"
)

// drain is how long after the exit status a channel may stay open without a word: a child that the command left behind holds it, or the
// host or the network has come to a stop, which asking the server tells apart. It has to answer within maxAnswer.
const (
	drain     = 500 * time.Millisecond
	pause     = drain / 3 // before, between and behind two questions
	maxAnswer = 5 * time.Second
)

// killAfter is when a stop's SIGKILL comes.
const killAfter = time.Second

// session is a command on a host.
type session struct {
	transport *Transport
	client    *client
	channel   ssh.Channel
	requests  <-chan *ssh.Request
	closed    chan struct{} // closed when the channel is
	cmd       *transport.Command
	host      string
	wrap      *shwrap.Wrapper // nil: the command goes as it is

	stdout, stderr *stream
	others         sync.WaitGroup // the goroutines beside Wait's
	ended          atomic.Bool    // Wait has seen the end

	writing sync.Mutex // held by open until send has sent the preamble: no stop line goes before that, and none within another write
	input   int        // the state of the input, under writing

	mu      sync.Mutex
	exit    transport.Status // what the server has said
	drainer *time.Timer      // starts drain
	killer  *time.Timer      // of Signal
	stopped time.Time        // when Signal was first called; zero: never
	moved   int64            // what the streams had carried when the drainer last looked
	drained bool             // the drainer has ended the session
	hungUp  bool
	reason  error // why we have ended the session ourselves
}

// The states of session.input.
const (
	inputDone    = iota // none, or all of it: a stop line will be read
	inputSending        // it is on its way: only its breaking off stops the command
	inputCut            // Signal has it broken off
)

// open opens the channel and has the server run the command.
func (t *Transport) open(c *client, host string, cmd *transport.Command) (*session, error) {
	s := &session{transport: t, client: c, closed: make(chan struct{}), host: host, cmd: cmd}
	line, err := s.line()
	if err != nil {
		return nil, err
	}
	if s.channel, s.requests, err = c.conn.OpenChannel("session", nil); err != nil {
		return nil, channelError(err)
	}
	if err := s.ask(line); err != nil {
		// Nobody reads the requests yet, and the connection cannot end with some of them waiting.
		go ssh.DiscardRequests(s.requests)
		return nil, err
	}
	s.writing.Lock()
	return s, nil
}

// channelError is why a server opens no session.
func channelError(err error) error {
	if refusal := (*ssh.OpenChannelError)(nil); errors.As(err, &refusal) {
		return &wrapped{fmt.Sprintf("the server opens no session (MaxSessions, or an account for forwarding alone?): it says %q", abbreviate(refusal.Message)), transport.ErrProtocol}
	}
	return &wrapped{"the server broke the connection off before the command was sent", syscall.EHOSTUNREACH}
}

// line is what is sent to be run: the command as it is, or what runs it below the wrapper.
func (s *session) line() (string, error) {
	if !s.wrapped() {
		return s.cmd.Line, nil
	}
	var err error
	s.wrap, err = shwrap.New(s.transport.script(s.cmd))
	return shwrap.Bootstrap, err
}

// script is what the wrapper makes of a command.
func (t *Transport) script(cmd *transport.Command) shwrap.Script {
	script := shwrap.Script{Line: cmd.Line, Merged: t.oneChannel(), KillOnDisconnect: t.KillOnDisconnect}
	if !t.Shell {
		script.Line = `exec "${SHELL:-/bin/sh}" -c ` + quote(cmd.Line)
	}
	if t.Merge {
		script.Line = "exec 2>&1; " + script.Line
	}
	if cmd.Stdin != nil {
		script.Input = cmd.Stdin.Size()
	}
	return script
}

// Sent is what a host gets to run the command: the line for its login shell and, where that is the wrapper, the one for the shell that this
// runs, with zeros for the session's nonce. A server that passes no signals on (sshd before 9.8, to root) gets the wrapper unasked.
func (t *Transport) Sent(cmd *transport.Command) (string, error) {
	if !t.Shell && !t.KillOnDisconnect && (t.Plain || t.Terminal != nil || !t.Merge) {
		return cmd.Line, nil
	}
	w, err := shwrap.New(t.script(cmd))
	if err != nil {
		return "", err
	}
	return shwrap.Bootstrap + "\n" + string(w.Shown()), nil
}

// wrapped says whether the command needs the wrapper: because the user wants it, or wants stderr in its place among stdout, or because the
// server would not pass a signal on. Dropbear gives a session no process group, which the wrapper needs.
func (s *session) wrapped() bool {
	t, version := s.transport, strings.TrimPrefix(string(s.client.conn.ServerVersion()), "SSH-2.0-")
	switch {
	case t.Shell, t.KillOnDisconnect: // which a server without process groups cannot do: the wrapper says so there
		return true
	case t.Plain, t.Terminal != nil, strings.HasPrefix(version, "dropbear"):
		return false
	}
	return t.Merge || s.client.conn.User() == "root" && ignoresSignals(version)
}

// oneChannel says whether both outputs come as stdout.
func (t *Transport) oneChannel() bool { return t.Terminal != nil || t.Merge }

// ignoresSignals says whether an sshd does not pass signals on to root's commands: before 9.8 OpenSSH has no process to do it with.
func ignoresSignals(version string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "OpenSSH_%d.%d", &major, &minor); n < 2 {
		return false
	}
	return major < 9 || major == 9 && minor < 8
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// ask has the server make the session what it should be, and run the line.
func (s *session) ask(line string) error {
	for _, pair := range environment(s.client.settings) {
		name, value, _ := strings.Cut(pair, "=")
		s.channel.SendRequest("env", false, ssh.Marshal(&struct{ Name, Value string }{name, value}))
	}
	if s.transport.forwards(s.client.settings) {
		s.client.agent.Store(true)
		s.channel.SendRequest("auth-agent-req@openssh.com", false, nil)
	}
	if tty := s.transport.Terminal; tty != nil {
		ok, err := s.channel.SendRequest("pty-req", true, ssh.Marshal(&struct {
			Type                         string
			Columns, Rows, Width, Height uint32
			Modes                        string
		}{tty.Type, uint32(tty.Columns), uint32(tty.Rows), 0, 0, "\x00"}))
		if err != nil || !ok {
			return requestError("gives no terminal", err)
		}
	}
	ok, err := s.channel.SendRequest("exec", true, ssh.Marshal(&struct{ Line string }{line}))
	if err != nil || !ok {
		return requestError("runs no command", err)
	}
	return nil
}

func requestError(what string, err error) error {
	if err != nil {
		return errors.New("the server broke the connection off before the command had started")
	}
	return &wrapped{"the server " + what, transport.ErrProtocol}
}

// stream is one of the channel's two on its way to the output.
type stream struct {
	session *session
	from    io.Reader
	to      io.Writer
	wire    *shwrap.Channel // nil: the bytes are the command's
	busy    atomic.Bool     // somebody else's Write has the last piece in hand
	carried atomic.Int64
	eof     bool
}

// Two sizes of buffers: a session begins with the small one, and those with much to say share the large ones.
const smallRead, largeRead = 512, 64 << 10

var largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeRead); return &b }}

// errOutput marks the failure of the caller's own writer.
type errOutput struct{ error }

func (e errOutput) Unwrap() error { return e.error }

// run copies the stream to its end.
func (r *stream) run() {
	small := make([]byte, smallRead)
	for {
		n, err := r.from.Read(small)
		if n > 0 {
			r.pass(small[:n])
		}
		for err == nil && n == len(small) { // there is more
			n, err = r.readMuch(len(small))
		}
		if err != nil {
			r.eof = err == io.EOF
			break
		}
	}
	if r.wire != nil {
		if err := r.wire.Close(); err != nil {
			r.session.abandon(errOutput{err})
		}
	}
}

// readMuch reads while large pieces come, and then says what the last one was as a small read would.
func (r *stream) readMuch(full int) (int, error) {
	buf := largeBuffers.Get().(*[]byte)
	defer largeBuffers.Put(buf)
	n, err := r.from.Read(*buf)
	if n > 0 {
		r.pass((*buf)[:n])
	}
	if n == len(*buf) {
		n = full
	} else {
		n = 0
	}
	return n, err
}

// pass hands bytes on. What cannot be written ends the session.
func (r *stream) pass(p []byte) {
	r.busy.Store(true)
	defer r.busy.Store(false)
	r.carried.Add(int64(len(p)))
	var err error
	if r.wire != nil {
		_, err = r.wire.Write(p)
	} else {
		_, err = r.to.Write(p)
	}
	if err != nil {
		r.session.abandon(errOutput{err})
	}
}

// Wait implements transport.Session.
func (s *session) Wait(ctx context.Context) (transport.Status, error) {
	stop := context.AfterFunc(ctx, func() { s.abandon(context.Cause(ctx)) })
	defer stop()
	s.client.keepAlive(s.abandon)
	stdout, stderr := discard(s.cmd.Stdout), discard(s.cmd.Stderr)
	if s.transport.Merge {
		both := &locked{to: stdout}
		stdout, stderr = both, both
	}
	s.stdout = &stream{session: s, from: s.channel, to: stdout}
	s.stderr = &stream{session: s, from: s.channel.Stderr(), to: stderr}
	if s.wrap != nil {
		s.stdout.wire = s.wrap.Stdout(stdout)
		if !s.transport.oneChannel() {
			s.stderr.wire = s.wrap.Stderr(stderr)
		}
	}
	s.attach()
	s.others.Go(s.send)
	s.others.Go(s.stderr.run)
	s.stdout.run()
	return s.finish()
}

func discard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// locked is one writer for both streams.
type locked struct {
	mu sync.Mutex
	to io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}

// send brings the input to the host, and its end.
func (s *session) send() {
	if s.wrap != nil {
		s.channel.Write(s.wrap.Preamble())
	}
	input := s.cmd.Stdin != nil && s.cmd.Stdin.Size() > 0
	if input {
		s.input = inputSending
	}
	s.writing.Unlock()
	if input && !s.sendInput() {
		return
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	switch {
	case s.wrap == nil:
		s.channel.CloseWrite()
	case s.input == inputSending:
		s.input = inputDone
		s.channel.Write(s.wrap.Go())
	}
}

// sendInput says whether all of the input has gone.
func (s *session) sendInput() bool {
	buf := largeBuffers.Get().(*[]byte)
	defer largeBuffers.Put(buf)
	input, size := s.cmd.Stdin, s.cmd.Stdin.Size()
	for at := int64(0); at < size; {
		n, err := input.ReadAt((*buf)[:min(largeRead, size-at)], at)
		if n == 0 {
			if err == io.EOF {
				err = errors.New("it is shorter than it was")
			}
			s.abandon(fmt.Errorf("input: %w", err))
			return false
		}
		if _, err := s.channel.Write((*buf)[:n]); err != nil {
			return false // the command takes no more, which its status tells
		}
		if s.cut() {
			s.channel.CloseWrite()
			return false
		}
		at += int64(n)
	}
	return true
}

// cut says whether the input is to be broken off.
func (s *session) cut() bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.input == inputCut
}

// attach has the connection's own goroutine take the session's requests. If the connection is gone already, those that it left are here.
func (s *session) attach() {
	select {
	case s.client.attach <- s:
	case <-s.client.gone:
		for r := range s.requests {
			s.take(r)
		}
		close(s.closed)
	}
}

// take takes what the server says of the command (RFC 4254 section 6.10).
func (s *session) take(r *ssh.Request) {
	switch r.Type {
	case "exit-status":
		if len(r.Payload) >= 4 {
			// A host that is no Unix has larger ones, and none of them is to look like a success.
			s.exited(transport.Status{Known: true, Code: int(min(binary.BigEndian.Uint32(r.Payload), 255))})
		}
	case "exit-signal":
		if n := len(r.Payload); n >= 4 && int64(binary.BigEndian.Uint32(r.Payload)) <= int64(n-4) {
			s.exited(transport.Status{Known: true, Signal: signalName(r.Payload[4 : 4+binary.BigEndian.Uint32(r.Payload)])})
		}
	}
	if r.WantReply {
		r.Reply(false, nil)
	}
}

// signalName is the name of a signal as a host gives it, fit to be shown.
func signalName(name []byte) string {
	unfit := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	if len(name) == 0 || len(name) > 64 || bytes.ContainsFunc(name, unfit) {
		return "UNKNOWN"
	}
	return string(name)
}

// exited notes how the command has ended; the first word counts.
func (s *session) exited(status transport.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exit.Known {
		s.exit = status
		s.moved = s.stdout.carried.Load() + s.stderr.carried.Load()
		s.drainer = time.AfterFunc(pause, s.drain)
	}
}

// drain ends a session whose command is over and whose channel stays open, once it has been silent for a while. The exit status may come
// before the output, and a host that swaps, or a packet that is lost, makes a silence too. So the server is asked for a sign of life, twice:
// sshd may answer just before it sends what the command has left in the pipe, and has sent that when it answers again.
func (s *session) drain() {
	for answers := 0; !s.ended.Load(); {
		wait, silent := s.silence()
		switch {
		case !silent:
			answers, wait = 0, pause
		case wait > 0:
		case answers == 2:
			s.leave()
			return
		case !s.asked():
			return
		default:
			answers++
			wait = pause
		}
		select {
		case <-time.After(wait):
		case <-s.closed:
			return
		}
	}
}

// silence says whether nothing has come since it was last called, and if so how long to wait for it to count. What is on its way to a slow
// reader of ours is no silence.
func (s *session) silence() (wait time.Duration, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := s.stdout.carried.Load() + s.stderr.carried.Load()
	if s.stdout.busy.Load() || s.stderr.busy.Load() || moved != s.moved {
		s.moved = moved
		return 0, false
	}
	// Children that were told to stop with the command have a second, and the wrapper kills them then: only what holds on after that has left
	// the process group. And a server that stops many at once takes its time to close.
	if !s.stopped.IsZero() {
		wait = max(0, time.Until(s.stopped.Add(killAfter+drain)))
	}
	return wait, true
}

// asked says whether the server has answered. If it does not in time, the session ends: what is missing of the output will not be known.
func (s *session) asked() bool {
	limit := time.AfterFunc(maxAnswer, func() {
		s.abandon(fmt.Errorf("%w: the host has not answered for %v after the command's end (%s), so that some of its output may be missing",
			transport.ErrLost, maxAnswer, s.told()))
	})
	defer limit.Stop()
	_, _, err := s.client.conn.SendRequest("keepalive@openssh.com", true, nil)
	return err == nil
}

// told is how the command has ended, as the server says.
func (s *session) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit.Signal != "" {
		return "SIG" + s.exit.Signal
	}
	return fmt.Sprintf("exit status %d", s.exit.Code)
}

// leave ends a session that only a child of the command holds open.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended.Load() && !s.hungUp {
		s.drained = true
		s.hangUp()
	}
}

// hangUp ends the connection, once. The caller holds the lock.
func (s *session) hangUp() {
	if !s.hungUp {
		s.hungUp = true
		s.transport.hangUp(s.client)
	}
}

// abandon ends the session for a reason of ours; the first one counts.
func (s *session) abandon(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil && !s.ended.Load() {
		s.reason = reason
	}
	s.hangUp()
}

// finish waits for the rest, hangs up and says how it ended.
func (s *session) finish() (transport.Status, error) {
	s.others.Wait()
	<-s.closed
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended.Store(true)
	for _, timer := range []*time.Timer{s.drainer, s.killer} {
		if timer != nil {
			timer.Stop()
		}
	}
	byUs := s.hungUp
	s.hangUp()

	status := s.exit
	status.Started, status.Ended = true, s.exit.Known && !byUs
	status.Background = s.exit.Known && s.drained
	if s.wrap != nil {
		s.unwrap(&status)
	}
	if status.Known {
		s.client.trace.Pass(transport.PhaseRun, "")
	}
	err := s.failure(status)
	if err != nil {
		phase := transport.PhaseRun
		if !status.Started {
			phase = transport.PhaseStart
		}
		err = &transport.OpError{Phase: phase, Host: s.host, Err: err}
	}
	return status, err
}

// unwrap takes the status from the trailer, which the server's own cannot know better.
func (s *session) unwrap(status *transport.Status) {
	status.Started = s.stdout.wire.Started()
	if code, known := s.stdout.wire.Ended(); known {
		status.Known, status.Code, status.Signal = true, code, ""
		status.Background = s.drained || s.stdout.wire.Late() > 0
	} else if !status.Started {
		status.Known = false
	}
}

// failure is the error of Wait, or nil.
func (s *session) failure(status transport.Status) error {
	switch {
	case s.reason != nil:
		return s.reason
	case !status.Started:
		text := string(s.stdout.wire.Noise())
		if s.stderr.wire != nil {
			text += "\n" + string(s.stderr.wire.Noise())
		}
		text = strings.TrimSpace(text)
		if text == "" && !s.exit.Known {
			return &wrapped{"the session broke off before the command had started", syscall.EHOSTUNREACH}
		}
		return &wrapped{fmt.Sprintf("the command did not start; the host says %q", abbreviate(text)), transport.ErrProtocol}
	case !status.Known:
		return fmt.Errorf("%w before the command's exit status had come: %s", transport.ErrLost, s.lost())
	}
	return nil
}

// lost is how the session ended without a status.
func (s *session) lost() string {
	select {
	case <-s.client.gone:
		return bare(s.client.conn.Wait())
	default:
		return "the server closed the channel"
	}
}

// Signal implements transport.Session: as a request of the protocol (RFC 4254 section 6.9), or as the wrapper's stop line. SIGKILL
// follows after a second.
func (s *session) Signal(sig os.Signal) error {
	if s.ended.Load() {
		return os.ErrProcessDone
	}
	number, ok := sig.(syscall.Signal)
	name, known := signals[number]
	if !ok || !known {
		return errors.ErrUnsupported
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Load() {
		return os.ErrProcessDone
	}
	if s.stopped.IsZero() {
		s.stopped = time.Now()
	}
	if s.wrap != nil {
		return s.stop(sig)
	}
	s.request(name)
	if number != syscall.SIGKILL && s.killer == nil {
		s.killer = time.AfterFunc(killAfter, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.ended.Load() {
				s.request("KILL")
			}
		})
	}
	return nil
}

var signals = map[syscall.Signal]string{
	syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGKILL: "KILL", syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT",
	syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2",
}

// request asks for a signal without waiting for the wire. The caller holds the lock.
func (s *session) request(name string) {
	s.transport.closing.Go(func() {
		s.channel.SendRequest("signal", false, ssh.Marshal(&struct{ Name string }{name}))
	})
}

// stop is Signal below the wrapper. No stop line can overtake the input: that it breaks off is the stop. Only the goroutine that sends it may
// end it, and if the host takes no more for now the host would not see that end either. The caller holds the lock.
func (s *session) stop(sig os.Signal) error {
	line, err := shwrap.Stop(sig)
	if err != nil {
		return err
	}
	s.transport.closing.Go(func() {
		s.writing.Lock()
		defer s.writing.Unlock()
		if s.input == inputSending {
			s.input = inputCut
		} else if s.input == inputDone {
			s.channel.Write(line)
		}
	})
	return nil
}

// Close implements transport.Session: the server is told, and has closeTimeout to close first.
func (s *session) Close() error {
	s.abandon(transport.ErrClosed)
	return nil
}

// keepAlive asks the server for a sign of life every ServerAliveInterval, and has dead called when too many stay away.
func (c *client) keepAlive(dead func(error)) {
	interval, most := c.settings.ServerAliveInterval, c.settings.ServerAliveCountMax
	if interval <= 0 {
		return
	}
	go func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		answered := make(chan struct{}, 1)
		missed, waiting := 0, false
		for {
			select {
			case <-c.gone:
				return
			case <-answered:
				missed, waiting = 0, false
			case <-ticker.C:
				if missed++; missed > most {
					dead(fmt.Errorf("%w: no answer to %d keepalives, one every %v (ServerAliveInterval)", transport.ErrLost, most, interval))
					c.wire.Close()
					return
				}
				if !waiting {
					waiting = true
					go func() {
						c.conn.SendRequest("keepalive@openssh.com", true, nil)
						answered <- struct{}{}
					}()
				}
			}
		}
	}()
}

// forwards says whether the server may use our agent.
func (t *Transport) forwards(s *sshconfig.Settings) bool {
	return s.IdentityAgent != "" && (t.ForwardAgent || s.ForwardAgent != "" && s.ForwardAgent != "no")
}

// forwardAgent connects a channel that the server has opened with our agent.
func (c *client) forwardAgent(n ssh.NewChannel) {
	agent, err := net.Dial("unix", c.settings.IdentityAgent)
	if err != nil {
		n.Reject(ssh.ConnectionFailed, "the agent does not answer")
		return
	}
	defer agent.Close()
	ch, requests, err := n.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	go ssh.DiscardRequests(requests)
	go func() {
		io.Copy(agent, ch)
		agent.(*net.UnixConn).CloseWrite()
		<-c.gone // and then it need not answer any more
		agent.Close()
	}()
	io.Copy(ch, agent)
}
