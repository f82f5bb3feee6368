//go:build unix

package sshtest

import (
	"io"
	"math"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/testserver"
)

// Exec is a command for [Server.Answer].
type Exec struct {
	Client, Server netip.AddrPort
	User           string
	Command        string
	Env            []string // NAME=value, as the client sent them
	Pty            bool

	Stdin          io.Reader // ends with the client's input
	Stdout, Stderr io.Writer
	Signals        <-chan string   // names, as "TERM"; what is not received soon is lost
	Gone           <-chan struct{} // closed: the client has closed the session, or the connection has ended
}

// session is one session channel at work.
type session struct {
	x       *conn
	channel ssh.Channel
	gone    chan struct{} // closed: the channel or the connection is
	run     sync.WaitGroup

	signals chan string // for Answer
	input   atomic.Int64

	mu            sync.Mutex
	rec           Session
	started       bool
	process       *testserver.Process // the command; nil: none runs
	master, slave *os.File            // nil: no terminal
}

func newSession(x *conn, c ssh.Channel) *session {
	return &session{x: x, channel: c, gone: make(chan struct{}), signals: make(chan string, 8)}
}

// signals are those of RFC 4254 section 6.10.
var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP, "ILL": syscall.SIGILL,
	"INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE, "QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV,
	"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}

// serve answers the session's requests until the channel is closed, and returns when its command has let go of it.
func (c *session) serve(requests <-chan *ssh.Request) {
	for r := range requests {
		c.request(r)
	}
	close(c.gone)
	c.run.Wait()
	closeFiles(c.master, c.slave)
	c.rec.Input = c.input.Load()
	c.x.mu.Lock()
	c.x.rec.Sessions = append(c.x.rec.Sessions, c.rec)
	c.x.mu.Unlock()
}

// request answers one request, RFC 4254 section 6.
func (c *session) request(r *ssh.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Type {
	case "env":
		var env struct{ Name, Value string }
		ok := ssh.Unmarshal(r.Payload, &env) == nil
		if ok {
			c.rec.Env = append(c.rec.Env, env.Name+"="+env.Value)
		}
		r.Reply(ok, nil)
	case "pty-req":
		r.Reply(c.openPty(r.Payload), nil)
	case "window-change":
		var m struct{ Columns, Rows, Width, Height uint32 }
		if ssh.Unmarshal(r.Payload, &m) == nil && c.rec.Pty != nil {
			size := Size{int(m.Columns), int(m.Rows)}
			c.rec.Pty.Sizes = append(c.rec.Pty.Sizes, size)
			if c.master != nil {
				testserver.ResizeTerminal(c.master, size.Columns, size.Rows)
			}
		}
		r.Reply(true, nil)
	case "auth-agent-req@openssh.com":
		c.rec.Agent = true
		r.Reply(true, nil)
	case "signal":
		var m struct{ Name string }
		if ssh.Unmarshal(r.Payload, &m) == nil {
			c.signal(m.Name)
		}
		r.Reply(true, nil)
	case "exec":
		var m struct{ Line string }
		if ssh.Unmarshal(r.Payload, &m) != nil {
			r.Reply(false, nil)
			return
		}
		c.exec(r, m.Line)
	case "shell":
		c.exec(r, "")
	default:
		r.Reply(false, nil)
	}
}

// openPty gives the session a terminal, and for a command that is to run a real one.
func (c *session) openPty(payload []byte) bool {
	var m struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if ssh.Unmarshal(payload, &m) != nil || c.rec.Pty != nil || c.started {
		return false
	}
	size := Size{int(m.Columns), int(m.Rows)}
	if c.x.srv.Answer == nil {
		var err error
		if c.master, c.slave, err = testserver.OpenTerminal(size.Columns, size.Rows); err != nil {
			c.x.srv.core.Logf("%v: terminal: %v", c.x.rec.Client, err)
			return false
		}
	}
	c.rec.Pty = &Pty{Term: m.Term, Sizes: []Size{size}}
	return true
}

// signal passes one on to the command.
func (c *session) signal(name string) {
	c.rec.Signals = append(c.rec.Signals, name)
	if c.x.b.Kind == noSignal {
		return
	}
	select {
	case c.signals <- name:
	default:
	}
	if sig, known := signals[name]; known && c.process != nil {
		c.process.Signal(sig)
	}
}

// exec starts the command that r asks for. An empty line is the shell itself. The caller holds mu.
func (c *session) exec(r *ssh.Request, line string) {
	b := c.x.b
	switch {
	case c.started || b.Kind == noExec:
		r.Reply(false, nil)
		return
	case b.at(PhaseExec) && b.Kind == hang:
		return
	case b.at(PhaseExec):
		c.x.misbehave()
		return
	}
	c.started = true
	c.rec.Command = line
	var p *process
	if c.x.srv.Answer == nil && b.Kind != flood {
		p = c.start(line) // before the reply, so that a signal finds it
	}
	reply := sync.OnceFunc(func() { r.Reply(true, nil) })
	if b.Kind != earlyData {
		reply()
	}
	c.run.Go(func() { c.command(p, line, reply) })
}

// command sees the command through, or has Answer stand for it, and closes the channel when that is over.
func (c *session) command(p *process, line string, reply func()) {
	b := c.x.b
	early := b.Kind == status && b.Word == statusEarly || b.Kind == lull
	out := &output{c: c, to: c.channel, stdout: true, sent: reply, hold: early}
	errs := &output{c: c, to: c.channel.Stderr(), sent: reply, hold: early}
	defer c.channel.Close()
	switch b.Kind {
	case flood:
		testserver.WriteLines(c.channel, math.MaxInt64)
		return
	case huge:
		testserver.WriteLines(c.channel, b.N)
	}
	var ended transport.Status
	drain := func() {} // returns when the output has ended
	if p != nil {
		ended, drain = p.run(out, errs)
	} else {
		ended = c.answer(line, out, errs)
	}
	reply()
	c.mu.Lock()
	c.rec.Status = ended
	c.mu.Unlock()
	if b.at(PhaseOutput) || b.at(PhaseStatus) {
		drain()
		if b.Kind != hang {
			c.x.misbehave()
		}
		<-c.gone
		return
	}
	release := func() {
		out.release()
		errs.release()
	}
	if b.Kind == lull {
		c.x.mu.Lock()
		c.x.lulled = true
		c.x.mu.Unlock()
		c.sendStatus(ended)
		c.x.rest(release)
	} else {
		c.sendStatus(ended)
		release()
	}
	drain()
	if b.Kind == background {
		t := time.NewTimer(b.Pause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.gone:
		}
	}
	c.channel.CloseWrite()
	c.channel.Close()
	if b.at(PhaseEnd) {
		c.x.misbehave()
	}
}

// answer has Answer stand for the command.
func (c *session) answer(line string, out, errs io.Writer) transport.Status {
	c.mu.Lock()
	e := &Exec{
		Client: c.x.rec.Client, Server: c.x.rec.Server, User: c.x.rec.User, Command: line, Env: slices.Clone(c.rec.Env),
		Pty: c.rec.Pty != nil, Stdin: c.stdin(), Stdout: out, Stderr: errs, Signals: c.signals, Gone: c.gone,
	}
	c.mu.Unlock()
	return c.x.srv.Answer(e)
}

// sendStatus tells how the command ended, RFC 4254 section 6.10.
func (c *session) sendStatus(s transport.Status) {
	b := c.x.b
	name := s.Signal
	if b.Kind == exitSignal {
		name = b.Word
	}
	switch {
	case b.Kind == status && b.Word == statusNone:
	case name != "":
		c.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name          string
			Core          bool
			Message, Lang string
		}{Name: name}))
	case s.Known:
		c.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(s.Code)}))
		if b.Kind == status && b.Word == statusTwice {
			c.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(s.Code + 1)}))
		}
	}
}

// stdin is the client's input, counted, as x's behaviour has it.
func (c *session) stdin() io.Reader {
	if c.x.b.Kind == noInput {
		return unread{c.gone}
	}
	return counted{c}
}

type counted struct{ c *session }

func (r counted) Read(p []byte) (int, error) {
	n, err := r.c.channel.Read(p)
	r.c.input.Add(int64(n))
	return n, err
}

// unread never reads anything of the channel.
type unread struct{ gone <-chan struct{} }

func (r unread) Read([]byte) (int, error) {
	<-r.gone
	return 0, io.EOF
}

// output is one of the command's two streams to the client, as the connection's behaviour has it. It is for one goroutine.
type output struct {
	c      *session
	to     io.Writer
	stdout bool
	sent   func() // to be called when something is sent

	mu   sync.Mutex
	hold bool // keep it, in held
	held []byte
}

func (o *output) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b := o.c.x.b
	o.mu.Lock()
	if o.hold {
		o.held = append(o.held, p...)
		o.mu.Unlock()
		return len(p), nil
	}
	o.mu.Unlock()
	switch {
	case b.at(PhaseOutput) && o.stdout:
		o.to.Write(p[:(len(p)+1)/2])
		return 0, o.c.x.misbehave()
	case b.Kind == drip:
		return o.c.x.srv.core.Drip(o.to, p, b.Pause)
	}
	n, err := o.to.Write(p)
	o.sent()
	return n, err
}

// release sends what is held, and from now on everything.
func (o *output) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hold {
		o.hold = false
		o.to.Write(o.held)
		o.held = nil
	}
}
