package ssh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/sshconfig"
)

// client is a connection after the login.
type client struct {
	conn     ssh.Conn
	wire     *wire
	settings *sshconfig.Settings
	agent    atomic.Bool     // the server may open channels to our agent: a session has asked for that
	attach   chan *session   // whose requests serve takes, too
	gone     chan struct{}   // closed when the connection is
	via      *hop            // what it goes through; nil: nothing
	trace    transport.Trace // nil: nobody wants to know
}

// release lets go of what the connection went through. The connection is gone.
func (c *client) release() {
	if c.via != nil {
		c.via.leave()
	}
}

// serve answers what the server asks of us, until the connection is gone.
func (c *client) serve(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	defer close(c.gone)
	var (
		s    *session
		said <-chan *ssh.Request // of the session's command
	)
	for channels != nil || requests != nil || said != nil {
		select {
		case s = <-c.attach:
			said = s.requests
		case r, open := <-said:
			if !open {
				said = nil
				close(s.closed)
			} else {
				s.take(r)
			}
		case n, open := <-channels:
			switch {
			case !open:
				channels = nil
			case c.agent.Load() && n.ChannelType() == "auth-agent@openssh.com":
				go c.forwardAgent(n)
			default:
				n.Reject(ssh.Prohibited, "not asked for")
			}
		case r, open := <-requests:
			if !open {
				requests = nil
			} else if r.WantReply {
				r.Reply(false, nil) // any answer will do for sshd's ClientAliveInterval
			}
		}
	}
}

// endpoint is where a connection goes, and how.
type endpoint struct {
	key  string // of the server: its handshakes are limited
	addr string // for messages
	dial func(context.Context) (net.Conn, error)
}

// connect makes a connection and has use use it, all within the connect timeout, which runs from when it is our turn. On failure it says in
// which phase. verify decides on the host's key.
func (t *Transport) connect(ctx context.Context, s *sshconfig.Settings, verify ssh.HostKeyCallback, use func(*client) error) (transport.Phase, error) {
	if phase, err := t.unasked.get(s); err != nil {
		return phase, err
	}
	local, err := t.local(s)
	if err != nil {
		return transport.PhaseResolve, &SettingsError{err}
	}
	if n := len(s.ProxyJump); n > 0 {
		transport.TraceOf(ctx).Pass(transport.PhaseResolve, "by way of "+s.ProxyJump[n-1].Host)
	}
	via, err := t.via(ctx, s)
	if err != nil {
		return transport.PhaseConnect, err
	}
	to, err := t.endpoint(ctx, s, local.dialer, via)
	if err != nil {
		via.leave()
		return transport.PhaseResolve, err
	}
	leave, err := t.servers.enter(ctx, to.key, perServer)
	if err != nil {
		via.leave()
		return transport.PhaseConnect, err
	}
	defer leave()
	select {
	case t.admitted <- struct{}{}:
		defer func() { <-t.admitted }()
	case <-ctx.Done():
		via.leave()
		return transport.PhaseConnect, context.Cause(ctx)
	}
	start, limit := ctx, t.connectTimeout(s)
	ctx, cancel := context.WithTimeoutCause(ctx, limit.After, limit)
	defer cancel()
	relearnt := false
	for try := 0; ; try++ {
		known := t.knownAlgorithms(s)
		c, phase, err := t.login(ctx, s, local.offer, to, verify)
		if !relearnt && t.relearnt(s, known, err) {
			relearnt = true
			continue
		}
		if err == nil {
			c.via = via
			return t.begin(ctx, c, use)
		}
		if deadline, _ := ctx.Deadline(); !time.Now().Before(deadline) {
			<-ctx.Done() // package net, which looks at the same clock, may be the first to see it
		}
		if cause := context.Cause(ctx); cause != nil {
			if !errors.Is(err, cause) {
				err = cause
			}
		} else if dropped := (*droppedError)(nil); errors.As(err, &dropped) {
			if try < t.retries() && backoff(ctx, try) == nil {
				t.stats.retries.Add(1)
				continue
			}
			dropped.tries, phase = try+1, transport.PhaseVersion
			if start.Err() != nil {
				err = context.Cause(start)
			}
		}
		if ctx.Err() == nil && via != nil && via.lost() && !errors.As(err, new(*JumpError)) {
			phase, err = transport.PhaseConnect, &JumpError{via.name, fmt.Errorf("the connection to it broke: %v", err)} // it is not the host that did that
		}
		via.leave()
		return phase, err
	}
}

func (t *Transport) retries() int {
	if t.Retries == 0 {
		return DefaultRetries
	}
	return t.Retries
}

// login dials and goes through version, key exchange and authentication.
func (t *Transport) login(ctx context.Context, s *sshconfig.Settings, offer ssh.Algorithms, to *endpoint, verify ssh.HostKeyCallback) (*client, transport.Phase, error) {
	conn, err := to.dial(ctx)
	if err != nil {
		return nil, transport.PhaseConnect, err
	}
	w := newWire(conn)
	if w.trace = transport.TraceOf(ctx); w.trace != nil {
		note := ""
		if w.tcp != nil {
			note = fmt.Sprintf("%v to %v", conn.LocalAddr(), conn.RemoteAddr())
		}
		w.trace.Pass(transport.PhaseConnect, note)
	}
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer stop()
	config, attempt := t.clientConfig(ctx, s, offer)
	config.HostKeyCallback = func(name string, remote net.Addr, key ssh.PublicKey) error {
		if err := verify(name, remote, key); err != nil {
			return &hostKeyError{err}
		}
		w.phase.Store(inAuth)
		if w.trace != nil {
			w.trace.Pass(transport.PhaseKeyExchange, key.Type()+" "+ssh.FingerprintSHA256(key))
		}
		return nil
	}
	c, channels, requests, err := ssh.NewClientConn(w, to.addr, config)
	if err != nil {
		w.Close()
		return nil, phases[w.phase.Load()], explain(ctx, err, w, attempt)
	}
	attempt.Succeeded()
	w.trace.Pass(transport.PhaseAuth, "")
	w.phase.Store(inStart)
	client := &client{conn: c, wire: w, settings: s, attach: make(chan *session), gone: make(chan struct{}), trace: w.trace}
	go client.serve(channels, requests)
	return client, "", nil
}

// begin has a new connection used, and hangs it up if that fails.
func (t *Transport) begin(ctx context.Context, c *client, use func(*client) error) (transport.Phase, error) {
	hungUp := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		t.hangUp(c)
		close(hungUp)
	})
	err := use(c)
	switch {
	case !stop():
		<-hungUp // Shutdown, which may come next, shall know of it
		return transport.PhaseStart, context.Cause(ctx)
	case err != nil:
		t.hangUp(c)
		return transport.PhaseStart, err
	}
	return "", nil
}

// clientConfig is the library's form of what a connection is to be like.
func (t *Transport) clientConfig(ctx context.Context, s *sshconfig.Settings, offer ssh.Algorithms) (*ssh.ClientConfig, *auth.Attempt) {
	attempt := t.Wallet.Attempt(ctx, t.profile(s))
	return &ssh.ClientConfig{
		User:              s.User,
		Config:            ssh.Config{KeyExchanges: offer.KeyExchanges, Ciphers: offer.Ciphers, MACs: offer.MACs},
		HostKeyAlgorithms: t.knownFirst(s, offer.HostKeys),
		AuthCallback:      attempt.Next,
	}, attempt
}

// local is what of a host's settings has to be right before anybody is asked for anything.
type local struct {
	offer  ssh.Algorithms
	dialer *dialer
}

func (t *Transport) local(s *sshconfig.Settings) (l local, err error) {
	if l.offer, err = t.algorithms(s); err == nil {
		l.dialer, err = newDialer(s)
	}
	return l, err
}

// SettingsError is of the settings for a host: ssh_config, the command line or the files that they name are not as they should be, and
// nobody has been asked for anything.
type SettingsError struct{ err error }

func (e *SettingsError) Error() string { return e.err.Error() }
func (e *SettingsError) Unwrap() error { return e.err }

// endpoint finds the way to a host: through via if there is one, by its ProxyCommand, or directly to one of its addresses.
func (t *Transport) endpoint(ctx context.Context, s *sshconfig.Settings, dialer *dialer, via *hop) (*endpoint, error) {
	addr := net.JoinHostPort(s.HostName, strconv.Itoa(int(s.Port)))
	switch {
	case via != nil:
		return &endpoint{via.key + " " + addr, addr, func(ctx context.Context) (net.Conn, error) { return via.dial(ctx, s.HostName, s.Port) }}, nil
	case s.ProxyCommand != "":
		transport.TraceOf(ctx).Pass(transport.PhaseResolve, "by the ProxyCommand")
		return &endpoint{s.ProxyCommand, addr, func(context.Context) (net.Conn, error) { return t.proxy(s.ProxyCommand) }}, nil
	}
	addrs, err := t.resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	if trace := transport.TraceOf(ctx); trace != nil {
		trace(transport.Passed{Phase: transport.PhaseResolve, Addrs: addrs})
	}
	return &endpoint{addrs[0].String(), addr, func(ctx context.Context) (net.Conn, error) { return dialer.any(ctx, addrs) }}, nil
}

// resolve finds the addresses of a host; a literal needs no looking up. Its time runs from when it is our turn.
func (t *Transport) resolve(ctx context.Context, s *sshconfig.Settings) ([]netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(s.HostName); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr, s.Port)}, nil
	}
	select {
	case t.lookups <- struct{}{}:
		defer func() { <-t.lookups }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	limit := t.connectTimeout(s)
	ctx, cancel := context.WithTimeoutCause(ctx, limit.After, limit)
	defer cancel()
	lookup := t.LookupNetIP
	if lookup == nil {
		lookup = net.DefaultResolver.LookupNetIP
	}
	network := map[string]string{"inet": "ip4", "inet6": "ip6"}[s.AddressFamily]
	if network == "" {
		network = "ip"
	}
	found, err := lookup(ctx, network, s.HostName)
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		err = &wrapped{fmt.Sprintf("the name %q has no address", s.HostName), err}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	addrs := make([]netip.AddrPort, len(found))
	for i, addr := range found {
		addrs[i] = netip.AddrPortFrom(addr.Unmap(), s.Port)
	}
	return addrs, nil
}

// patience is how long a server may be silent while the kernel waits for its answer: keepalive probes and unacknowledged data.
const patience = 60 * time.Second

// dialer makes TCP connections that are reset when they are closed, unless the linger is taken off.
type dialer struct{ net.Dialer }

func newDialer(s *sshconfig.Settings) (*dialer, error) {
	d := &dialer{net.Dialer{KeepAlive: -1}}
	d.Control = func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(func(fd uintptr) { err = setOptions(int(fd), s.TCPKeepAlive) }); failed != nil {
			return failed
		}
		return err
	}
	if s.BindAddress != "" {
		addr, err := netip.ParseAddr(s.BindAddress)
		if err != nil {
			return nil, fmt.Errorf("BindAddress %q is no address", s.BindAddress)
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))
	}
	return d, nil
}

// any tries the addresses in turn. Each gets an equal share of the time that is left, so that a dead one cannot use it up.
func (d *dialer) any(ctx context.Context, addrs []netip.AddrPort) (net.Conn, error) {
	var first error
	for i, addr := range addrs {
		conn, err := d.one(ctx, addr, len(addrs)-i)
		if err == nil {
			return conn, nil
		}
		err = unreachable(err, addr)
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
		if trace := transport.TraceOf(ctx); trace != nil && i < len(addrs)-1 {
			trace(transport.Passed{Phase: transport.PhaseConnect, Err: err})
		}
	}
	return nil, first
}

func (d *dialer) one(ctx context.Context, addr netip.AddrPort, left int) (net.Conn, error) {
	if deadline, set := ctx.Deadline(); set && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return d.DialContext(ctx, "tcp", addr.String())
}

// unreachable is an error of connect(2) without what package net says around it.
func unreachable(err error, addr netip.AddrPort) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	switch {
	case isReset(err):
		return &droppedError{err: err} // before connect(2) had returned
	case errors.Is(err, syscall.ECONNREFUSED):
		return &wrapped{fmt.Sprintf("nobody listens on %v", addr), err}
	}
	return fmt.Errorf("%v: %w", addr, err)
}

// jitter is between half and one and a half of d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }
