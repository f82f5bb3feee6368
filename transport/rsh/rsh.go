// Package rsh runs commands over the BSD rsh protocol of rcmd(3) and rshd(8), on reserved ports that never run out.
//
// The wire is simple. The client connects to port 514 from a reserved port and names a second port, on which it listens;
// the server connects back to that for stderr, checks who we are by our address and port, answers one byte, and runs
// the command with the main connection as its stdin and stdout.
//
//	          resvport.Dial                      leased only from here …
//	client :600  ───────────── connect ─────────────► :514  host
//	  "700\0ann\0ops\0COMMAND\0"  ────────────────────────►
//	client :700  ◄──────────── connect ────────────── :1011     … to here: the next session listens on :700
//	             ◄──────────── \0 ───────────────────
//	  shwrap's script, input  ───────────────────────────►
//	             ◄── leader, output, trailer ── both channels
//	             ◄──────────── FIN ── both channels          the host closes first, always
//	             ────────── FIN (main), a byte (stderr) ►   which the host answers with RST
//
// Plain rsh has no exit status, loses its client's end of input or pays for it with TIME_WAIT, and leaves the command running
// when the client goes. Package shwrap mends that from the outside with a few lines of POSIX sh; Plain goes without.
//
// Who closes, and how, is the point of this program: see "Closing" in docs/design.md. In short: we never send a FIN
// first. SO_LINGER{1,0} stands from the dial on, so that a kill -9 leaves nothing behind, and is taken off the main channel
// only after its end of file. On the stderr channel a byte after its end of file has the host reset it, and so get its reserved port back at once.
//
// A session owns its two connections and at most two goroutines beside Wait's caller (stderr, input); Wait ends them all, but that stderr's
// close may take a round trip longer, which Shutdown waits for.
package rsh

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
	"unicode"

	"multirsh/transport"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/shwrap"
)

// DefaultConnectTimeout is that of the zero Transport.
const DefaultConnectTimeout = 10 * time.Second

// shortLine is the longest command, in bytes, that rsh-redone's rshd takes. A longer one it answers with a bare reset.
const shortLine = 1023

// Transport runs commands by rsh. Ports and LocalUser must be set.
type Transport struct {
	Ports     *resvport.Allocator
	LocalUser string // our name on the wire. rshd trusts it: take it from getuid(2), never from the environment

	User             string        // on hosts that name none; empty: LocalUser
	ConnectTimeout   time.Duration // from resolving to the host's answer, without the wait for a stderr port; 0: DefaultConnectTimeout. Then the login shell has three times as long to start the command
	Merge            bool          // stderr comes with stdout on the main channel: one port a session instead of two
	Plain            bool          // the bare command without the shell wrapper, for hosts without a POSIX shell: no exit status, no stop
	KillOnDisconnect bool          // the command is killed when we vanish; otherwise it lives on, as rsh has always had it

	// LookupNetIP resolves names; nil: net.DefaultResolver.
	LookupNetIP func(ctx context.Context, network, host string) ([]netip.Addr, error)

	closing closing
}

// CheckLine says whether a command can be sent at all, before anything runs.
func (t *Transport) CheckLine(line string) error {
	_, err := shwrap.New(shwrap.Script{Line: line}) // what holds for the wrapper's shell holds for the login shell
	return err
}

// script is what the wrapper makes of a command.
func (t *Transport) script(cmd *transport.Command) shwrap.Script {
	script := shwrap.Script{Line: cmd.Line, Merged: t.Merge, KillOnDisconnect: t.KillOnDisconnect}
	if cmd.Stdin != nil {
		script.Input = cmd.Stdin.Size()
	}
	return script
}

// Sent is what a host gets to run the command: the line for its login shell and, without Plain, the one for the shell that this runs, with
// zeros for the session's nonce.
func (t *Transport) Sent(cmd *transport.Command) (string, error) {
	if t.Plain {
		return cmd.Line, nil
	}
	w, err := shwrap.New(t.script(cmd))
	if err != nil {
		return "", err
	}
	return shwrap.Bootstrap + "\n" + string(w.Shown()), nil
}

// CheckUser says whether a user's name can be sent. rshd hands it to login programs and to the shell's environment.
func CheckUser(name string) error {
	switch {
	case name == "":
		return errors.New("the user's name is empty")
	case name[0] == '-':
		return fmt.Errorf("the user's name %q begins with a dash", name)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("the user's name %q holds a blank or a control character", name)
	}
	return nil
}

// Start implements transport.Transport. The host's name may have several addresses: they are tried in turn until one connects.
func (t *Transport) Start(ctx context.Context, host transport.Host, cmd *transport.Command) (transport.Session, error) {
	s := &session{host: host, cmd: cmd, transport: t, trace: transport.TraceOf(ctx)}
	phase, err := s.start(ctx)
	if err != nil {
		s.reset()
		return nil, &transport.OpError{Phase: phase, Host: host.Name, Err: err}
	}
	return s, nil
}

// Shutdown implements transport.Transport. It takes a fraction of a second at most, so ctx cuts nothing short.
func (t *Transport) Shutdown(context.Context) { t.closing.Wait() }

// start brings the session up to the host's answer, and on failure names the phase.
func (s *session) start(ctx context.Context) (transport.Phase, error) {
	clock := newClock(ctx, s.transport.connectTimeout())
	defer clock.stop()
	if phase, err := s.reach(clock); err != nil {
		return phase, clock.cause(err)
	}
	if s.transport.Merge {
		return s.handshake(clock, nil)
	}
	clock.pause() // the others' sessions are no fault of this host
	lease, err := s.transport.Ports.Lease(ctx, localAddr(s.main))
	if err != nil {
		return transport.PhasePort, clock.cause(err)
	}
	defer lease.Release()
	clock.resume()
	if s.trace != nil {
		s.trace.Pass(transport.PhasePort, fmt.Sprintf("%d for stderr", lease.Port()))
	}
	return s.handshake(clock, lease)
}

func (t *Transport) connectTimeout() time.Duration {
	if t.ConnectTimeout > 0 {
		return t.ConnectTimeout
	}
	return DefaultConnectTimeout
}

// reach connects to the host.
func (s *session) reach(clock *clock) (transport.Phase, error) {
	addrs, err := s.transport.resolve(clock.ctx, s.host.Address())
	if err != nil {
		return transport.PhaseResolve, err
	}
	if s.trace != nil {
		passed := transport.Passed{Phase: transport.PhaseResolve}
		for _, addr := range addrs {
			passed.Addrs = append(passed.Addrs, netip.AddrPortFrom(addr, s.port()))
		}
		s.trace(passed)
	}
	return s.connect(clock, addrs)
}

// handshake sends the request and waits for the answer and the stderr channel, if there is a lease for one.
func (s *session) handshake(clock *clock, lease *resvport.Listener) (transport.Phase, error) {
	inTime := s.deadline(clock)
	defer inTime()
	if err := s.request(lease); err != nil {
		return transport.PhaseHandshake, err
	}
	// The host connects back before it answers, so with the answer in hand the stderr channel is already there.
	if err := s.answer(); err != nil {
		auth := errors.Is(err, transport.ErrAuth)
		if lease != nil && (auth || errors.Is(err, transport.ErrProtocol)) {
			// It has answered or hung up, so it will not connect any more.
			if stderr := lease.Return(); stderr != nil {
				s.transport.closing.ending(stderr)
			}
		}
		if long := len(s.cmd.Line); auth && s.transport.Plain && long > shortLine {
			err = &plainError{fmt.Sprintf("%v; or its rshd takes no command of more than %d bytes, and this one has %d", err, shortLine, long), err}
		}
		if auth {
			return transport.PhaseAuth, err
		}
		return transport.PhaseHandshake, clock.cause(err)
	}
	s.trace.Pass(transport.PhaseAuth, "")
	if lease != nil {
		var err error
		if s.stderr, err = lease.Accept(clock.ctx); err != nil {
			return transport.PhaseHandshake, fmt.Errorf("the host has not opened the stderr channel (a firewall that lets no connection back in? --merge needs none): %w", clock.cause(err))
		}
	}
	if s.trace != nil && s.stderr != nil {
		s.trace.Pass(transport.PhaseStderr, fmt.Sprintf("from port %d to %d", s.stderr.RemoteAddr().(*net.TCPAddr).Port, lease.Port()))
	}
	if !inTime() { // the deadline has struck the connection
		return transport.PhaseHandshake, context.Cause(clock.ctx)
	}
	return "", nil
}

// deadline ends all reading and writing when the clock does. The function that it returns takes that back, and says false
// when it is too late.
func (s *session) deadline(clock *clock) func() bool {
	return context.AfterFunc(clock.ctx, func() { s.main.SetDeadline(time.Unix(1, 0)) })
}

// request makes the script and sends the request. That a host does not take it shows where we read, together with what the
// host said before it hung up.
func (s *session) request(lease *resvport.Listener) (err error) {
	t, command := s.transport, s.cmd.Line
	if !t.Plain {
		if s.wrap, err = shwrap.New(t.script(s.cmd)); err != nil {
			return err
		}
		command = shwrap.Bootstrap
	}
	var port uint16
	if lease != nil {
		port = lease.Port()
	}
	buf := smallBuffers.Get().(*[]byte)
	defer smallBuffers.Put(buf)
	s.main.Write(appendRequest((*buf)[:0], port, t.LocalUser, s.user(), command))
	return nil
}

// answer reads the host's answer and keeps what came with it.
func (s *session) answer() error {
	buf := smallBuffers.Get().(*[]byte)
	defer smallBuffers.Put(buf)
	early, err := readStatus(s.main, *buf)
	if len(early) > 0 {
		s.early = bytes.Clone(early)
	}
	return err
}

func (s *session) user() string {
	for _, name := range []string{s.host.User, s.transport.User} {
		if name != "" {
			return name
		}
	}
	return s.transport.LocalUser
}

// resolve finds the addresses of a name; a literal needs no looking up.
func (t *Transport) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{addr}, nil
	}
	lookup := t.LookupNetIP
	if lookup == nil {
		lookup = net.DefaultResolver.LookupNetIP
	}
	addrs, err := lookup(ctx, "ip", name)
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		err = &plainError{fmt.Sprintf("the name %q has no address", name), err}
	}
	if err != nil {
		return nil, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// connect dials the addresses in turn. Each gets an equal share of the time that is left, so that a dead one cannot use it up.
func (s *session) connect(clock *clock, addrs []netip.Addr) (transport.Phase, error) {
	port := s.port()
	var first error
	for i, addr := range addrs {
		ctx, cancel := clock.ctx, context.CancelFunc(func() {})
		if more := len(addrs) - i; more > 1 {
			ctx, cancel = context.WithTimeout(ctx, clock.left()/time.Duration(more))
		}
		conn, err := s.transport.dial(ctx, netip.AddrPortFrom(addr, port))
		cancel()
		if err == nil {
			s.main = conn
			if s.trace != nil {
				s.trace.Pass(transport.PhaseConnect, fmt.Sprintf("%v to %v", conn.LocalAddr(), conn.RemoteAddr()))
			}
			return "", nil
		}
		err = explain(err, netip.AddrPortFrom(addr, port))
		if first == nil {
			first = err
		}
		if clock.ctx.Err() != nil {
			break
		}
		if s.trace != nil && i < len(addrs)-1 {
			s.trace(transport.Passed{Phase: transport.PhaseConnect, Err: err})
		}
	}
	if errors.Is(first, transport.ErrNoPorts) || errors.Is(first, transport.ErrPorts) {
		return transport.PhasePort, first
	}
	return transport.PhaseConnect, first
}

func (s *session) port() uint16 { return cmp.Or(s.host.Port, DefaultPort) }

// dial dials on a goroutine of its own. Package net needs a deep stack for it, and a goroutine keeps what its stack has
// grown to: thousands that only wait from then on would have 8 KiB each instead of 4.
func (t *Transport) dial(ctx context.Context, dst netip.AddrPort) (conn *resvport.Conn, err error) {
	dialled := make(chan struct{})
	go func() {
		defer close(dialled)
		conn, err = t.Ports.Dial(ctx, dst)
	}()
	<-dialled
	return conn, err
}

func localAddr(conn net.Conn) netip.Addr {
	return conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// clock is the connect timeout. It can be paused while we wait for something that is not the host's doing; its context
// ends with the caller's, or when the time is used up.
type clock struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	limit   time.Duration
	timer   *time.Timer
	used    time.Duration
	running time.Time // since when; zero: paused
}

func newClock(parent context.Context, limit time.Duration) *clock {
	c := &clock{limit: limit}
	c.ctx, c.cancel = context.WithCancelCause(parent)
	c.timer = time.AfterFunc(limit, func() {
		c.cancel(&transport.TimeoutError{After: limit, Limit: "--connect-timeout"})
	})
	c.running = time.Now()
	return c
}

func (c *clock) left() time.Duration {
	if c.running.IsZero() {
		return c.limit - c.used
	}
	return c.limit - c.used - time.Since(c.running)
}

func (c *clock) pause() {
	c.timer.Stop()
	c.used = c.limit - c.left()
	c.running = time.Time{}
}

func (c *clock) resume() {
	c.running = time.Now()
	c.timer.Reset(c.limit - c.used)
}

func (c *clock) stop() {
	c.timer.Stop()
	c.cancel(nil)
}

// cause is err, or the reason why the clock's context ended where that is what err tells of.
func (c *clock) cause(err error) error {
	deadline := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	if cause := context.Cause(c.ctx); cause != nil && deadline {
		return cause
	}
	return err
}
