package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/ssh/sshconfig"
)

const (
	// perHop is how many connections go through one jump host at once; more wait. sshd's MaxSessions does not count them.
	perHop = 1024
	// longestChain ends a ProxyJump that leads back to itself.
	longestChain = 16
)

// CheckJump says in one sentence why the jump hosts that a host names for itself cannot be passed, before the run; nil: nothing speaks
// against them. Host.Transport must be set: only ssh knows jump hosts.
func CheckJump(host transport.Host) error {
	switch host.Jump {
	case "", "none":
		return nil
	}
	if host.Transport != "ssh" {
		return fmt.Errorf("%s has jump=%s and is reached by %s, which knows no jump hosts: leave it out, or reach the host by ssh", host.Name, host.Jump, host.Transport)
	}
	if _, err := sshconfig.ParseJump(host.Jump); err != nil {
		return fmt.Errorf("%s has jump=%s: %v", host.Name, host.Jump, err)
	}
	return nil
}

// hop is a jump host: one connection that carries those of all hosts behind it.
type hop struct {
	key    string // who it is and how it is reached
	name   string
	depth  int                // how many jump hosts lead to what is behind it
	giveUp context.CancelFunc // ends the connecting
	ready  chan struct{}      // closed when client or err is there
	client *client
	err    error
	slots  chan struct{}
}

// hops are the jump hosts of a run.
type hops struct {
	mu  sync.Mutex
	all map[string]*hop
}

// via is the jump host that leads to a host, connected, with a place in it; nil: none. leave gives the place back.
func (t *Transport) via(ctx context.Context, s *sshconfig.Settings) (*hop, error) {
	h, err := t.hop(ctx, s.ProxyJump)
	if h == nil || err != nil {
		return nil, err
	}
	select {
	case h.slots <- struct{}{}:
		return h, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// leave gives back the place that via took.
func (h *hop) leave() {
	if h != nil {
		<-h.slots
	}
}

// chain is the settings of the jump hosts that lead to a host, the nearest to us first.
func (t *Transport) chain(ctx context.Context, jumps []sshconfig.Jump) (all []*sshconfig.Settings, err error) {
	for len(jumps) > 0 {
		if len(all) == longestChain {
			return nil, fmt.Errorf("ProxyJump leads over more than %d hosts, the last of them %s", longestChain, all[0].OriginalHost)
		}
		last := len(jumps) - 1
		j := jumps[last]
		s, err := cmp.Or(t.JumpConfig, t.Config).For(ctx, sshconfig.Target{Host: j.Host, User: j.User, Port: j.Port})
		if err != nil {
			return nil, err
		}
		if last > 0 { // what the list says goes before what the host's own settings do
			one := *s
			one.ProxyJump, one.ProxyCommand = jumps[:last], ""
			s = &one
		}
		all = append([]*sshconfig.Settings{s}, all...)
		jumps = s.ProxyJump
	}
	return all, nil
}

// hop is the last of the jump hosts, connected; nil: there are none.
func (t *Transport) hop(ctx context.Context, jumps []sshconfig.Jump) (*hop, error) {
	chain, err := t.chain(ctx, jumps)
	if err != nil {
		return nil, &SettingsError{err}
	}
	if len(chain) == 0 {
		return nil, nil
	}
	var key strings.Builder
	for _, s := range chain {
		fmt.Fprintf(&key, "%s@%s:%d by %q ", s.User, s.HostName, s.Port, s.ProxyCommand)
	}
	s := chain[len(chain)-1]
	t.hops.mu.Lock()
	h := t.hops.all[key.String()]
	if h == nil || h.lost() {
		if h != nil {
			t.hangUp(h.client) // for the place that it has in the jump host before it
		}
		// Connecting is not the doing of the host that comes first, so it does not end with that host's context.
		connecting, giveUp := context.WithCancel(t.closing.context())
		h = &hop{key: key.String(), name: s.OriginalHost, depth: len(chain), giveUp: giveUp, ready: make(chan struct{}), slots: make(chan struct{}, perHop)}
		if t.hops.all == nil {
			t.hops.all = make(map[string]*hop)
		}
		t.hops.all[h.key] = h
		t.closing.Go(func() {
			defer giveUp()
			defer close(h.ready)
			h.client, h.err = t.connectHop(connecting, s)
		})
	}
	t.hops.mu.Unlock()
	select {
	case <-h.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if h.err != nil {
		return nil, &JumpError{h.name, h.err}
	}
	return h, nil
}

func (t *Transport) connectHop(ctx context.Context, s *sshconfig.Settings) (c *client, err error) {
	verify, err := t.verifier(s)
	if err != nil {
		return nil, err
	}
	_, err = t.connect(ctx, s, verify, func(connected *client) error {
		c = connected
		return nil
	})
	if err != nil {
		return nil, err // the client was hung up
	}
	c.keepAlive(func(error) {})
	return c, nil
}

// lost says whether a connection that was there is gone. A failed one is not tried again: its hosts would wait for the same end.
func (h *hop) lost() bool {
	select {
	case <-h.ready:
	default:
		return false
	}
	if h.client == nil {
		return false
	}
	select {
	case <-h.client.gone:
		return true
	default:
		return false
	}
}

// take empties the jump hosts for the end of a run: those that are connected, by how far they are. Nobody waits for the others any more.
func (h *hops) take() (connected [longestChain + 1][]*hop) {
	for {
		h.mu.Lock()
		all := h.all
		h.all = nil
		h.mu.Unlock()
		if len(all) == 0 {
			return connected
		}
		for _, hop := range all { // one that has just begun may still ask for the one before it
			hop.giveUp()
			if <-hop.ready; hop.client != nil {
				connected[hop.depth] = append(connected[hop.depth], hop)
			}
		}
	}
}

// dial opens a channel through the jump host (RFC 4254 section 7.2).
func (h *hop) dial(ctx context.Context, host string, port uint16) (net.Conn, error) {
	type opened struct {
		ch       ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	open := make(chan opened, 1)
	go func() {
		ch, requests, err := h.client.conn.OpenChannel("direct-tcpip", ssh.Marshal(&struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{host, uint32(port), "127.0.0.1", 0}))
		open <- opened{ch, requests, err}
	}()
	select {
	case o := <-open:
		if o.err != nil {
			return nil, h.explain(o.err, host, port)
		}
		go ssh.DiscardRequests(o.requests)
		return newChannelConn(o.ch, h), nil
	case <-ctx.Done():
		go func() {
			if o := <-open; o.err == nil {
				go ssh.DiscardRequests(o.requests)
				o.ch.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// explain is why a jump host opens no channel.
func (h *hop) explain(err error, host string, port uint16) error {
	refusal := (*ssh.OpenChannelError)(nil)
	if !errors.As(err, &refusal) {
		return &JumpError{h.name, fmt.Errorf("the connection to it broke: %w", err)}
	}
	to := net.JoinHostPort(host, strconv.Itoa(int(port)))
	switch {
	case refusal.Reason == ssh.Prohibited:
		return &ForwardError{h.name, fmt.Sprintf("jump host %s forwards nothing to %s (AllowTcpForwarding, PermitOpen in its sshd_config): it says %q", h.name, to, abbreviate(refusal.Message)), errProhibited}
	case strings.Contains(strings.ToLower(refusal.Message), "refused"):
		return &ForwardError{h.name, fmt.Sprintf("nobody listens on %s, says jump host %s", to, h.name), syscall.ECONNREFUSED}
	}
	return &ForwardError{h.name, fmt.Sprintf("jump host %s cannot reach %s: it says %q", h.name, to, abbreviate(refusal.Message)), syscall.EHOSTUNREACH}
}

// ForwardError is a jump host, itself in order, that does not connect us to the host behind it. To errors.Is it is
// [syscall.ECONNREFUSED] where that has refused, [syscall.EHOSTUNREACH] where it was not reached, and neither where the
// jump host forwards nothing there.
type ForwardError struct {
	Jump string // the jump host, as ssh_config names it
	text string
	err  error
}

var errProhibited = errors.New("administratively prohibited") // RFC 4254 section 5.1

func (e *ForwardError) Error() string { return e.text }
func (e *ForwardError) Unwrap() error { return e.err }

// channelConn is a channel as a connection. A channel can only be closed together with the jump host, which may be dead or slow; closing
// this ends reads and writes at once and tells the jump host behind that. What passes the bytes on ends with the channel.
type channelConn struct {
	net.Conn // our end of a pipe
	channel  ssh.Channel
	hop      *hop
}

func newChannelConn(ch ssh.Channel, h *hop) *channelConn {
	near, far := net.Pipe()
	pass := func(to io.Writer, from io.Reader) {
		io.CopyBuffer(to, from, make([]byte, 8<<10))
		far.Close()
	}
	go pass(far, ch)
	go pass(ch, far)
	return &channelConn{near, ch, h}
}

func (c *channelConn) Close() error {
	go c.channel.Close()
	return c.Conn.Close()
}

func (c *channelConn) LocalAddr() net.Addr  { return c.hop.client.conn.LocalAddr() }
func (c *channelConn) RemoteAddr() net.Addr { return c.hop.client.conn.RemoteAddr() }

// proxy runs a ProxyCommand, whose input and output are the connection.
func (t *Transport) proxy(command string) (net.Conn, error) {
	shell := os.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	cmd := exec.Command(shell, "-c", "exec "+command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, theirs, err := os.Pipe() // not of cmd, for its deadlines
	if err != nil {
		in.Close()
		return nil, err
	}
	cmd.Stdout = theirs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("ProxyCommand: %w", err)
	}
	return &proxyConn{Reader: out, Writer: in, transport: t, in: in, out: out, process: cmd.Process}, nil
}

// proxyConn is a ProxyCommand as a connection. Closing it ends the command, which Shutdown waits for.
type proxyConn struct {
	io.Reader
	io.Writer
	transport *Transport
	in        io.Closer
	out       *os.File
	process   *os.Process
}

// Close asks the command to end, and makes it when it has not within closeTimeout. It stays a zombie until here, so that its process group
// is no other's.
func (c *proxyConn) Close() error {
	group := -c.process.Pid
	syscall.Kill(group, syscall.SIGTERM)
	c.transport.closing.Go(func() {
		ctx, cancel := context.WithTimeout(c.transport.closing.context(), closeTimeout)
		defer cancel()
		stop := context.AfterFunc(ctx, func() { syscall.Kill(group, syscall.SIGKILL) })
		defer stop()
		c.process.Wait()
	})
	return errors.Join(c.in.Close(), c.out.Close())
}

// pipeAddr is the address of a ProxyCommand.
type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "ProxyCommand" }

func (*proxyConn) LocalAddr() net.Addr                 { return pipeAddr{} }
func (*proxyConn) RemoteAddr() net.Addr                { return pipeAddr{} }
func (*proxyConn) SetDeadline(time.Time) error         { return errors.ErrUnsupported }
func (c *proxyConn) SetReadDeadline(t time.Time) error { return c.out.SetReadDeadline(t) }
func (*proxyConn) SetWriteDeadline(time.Time) error    { return errors.ErrUnsupported }

// JumpError is a failure of a jump host. What it stands for is that the host behind cannot be reached, whatever the jump host's own reason:
// but for its key or our login there, which the user has to mend.
type JumpError struct {
	Jump string // the jump host, as ssh_config names it; one before it may be what failed, and has a JumpError of its own inside
	err  error
}

func (e *JumpError) Error() string { return fmt.Sprintf("jump host %s: %v", e.Jump, e.err) }

// First is the jump host that failed, where several lead to a host.
func (e *JumpError) First() string {
	if before := (*JumpError)(nil); errors.As(e.err, &before) {
		return before.First()
	}
	return e.Jump
}

func (e *JumpError) Unwrap() error {
	for _, kind := range []error{transport.ErrHostKey, transport.ErrAuth} {
		if errors.Is(e.err, kind) {
			return kind
		}
	}
	return syscall.EHOSTUNREACH
}
