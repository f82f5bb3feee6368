package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/ssh/sshtest"
)

// relay passes connections on to a server. Once it is frozen nothing goes through any more, and nobody is told.
type relay struct {
	addr   netip.AddrPort
	frozen chan struct{}
	end    chan struct{}
	mu     sync.Mutex
	conns  []net.Conn
	all    sync.WaitGroup
}

func newRelay(t *testing.T, to netip.AddrPort) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().(*net.TCPAddr).AddrPort(), frozen: make(chan struct{}), end: make(chan struct{})}
	r.all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to.String())
			if err != nil {
				near.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, near, far)
			r.mu.Unlock()
			r.all.Go(func() { r.pass(near, far) })
			r.all.Go(func() { r.pass(far, near) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(r.end)
		r.cut()
		r.all.Wait()
	})
	return r
}

func (r *relay) pass(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-r.frozen:
			<-r.end
			return
		default:
		}
		if n > 0 {
			to.Write(buf[:n])
		}
		if err != nil {
			to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// cut ends all connections there are.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// through serves a jump host that is reached over a relay.
func (h *home) through(t *testing.T, s *sshtest.Server) (*relay, transport.Host) {
	t.Helper()
	addr, _ := h.serve(s)
	r := newRelay(t, addr)
	h.know(sshtest.KnownHosts(s.HostKey(), fmt.Sprintf("[%v]:%d", r.addr.Addr(), r.addr.Port())))
	return r, transport.Host{Addr: r.addr.Addr().String(), Port: r.addr.Port()}
}

// target serves a host to be reached over others.
func (h *home) target(s *sshtest.Server) transport.Host {
	h.t.Helper()
	addr, _ := h.serve(s)
	h.know(sshtest.KnownHosts(s.HostKey(), "target"))
	return transport.Host{Name: "target", Port: addr.Port()}
}

var gone = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// A jump host that goes dead keeps nobody: neither a handshake beyond its time, nor a session that is closed, nor the end of the run.
func TestFrozenJumpHost(t *testing.T) {
	t.Run("handshake", func(t *testing.T) {
		h := newHome(t)
		var r *relay
		server := &sshtest.Server{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			near, _ := net.Pipe()
			t.Cleanup(func() { near.Close() })
			return freezing{near, sync.OnceFunc(func() { close(r.frozen) })}, nil
		}}
		r, one := h.through(t, server)
		host := h.target(&sshtest.Server{})
		tr := h.behind(one)
		tr.ConnectTimeout = 2 * time.Second
		if got := run(t, tr, host, line); !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("%v", got.err)
		}
		tr.Shutdown(gone)
	})
	for name, input := range map[string]*io.SectionReader{
		"session":       nil,
		"blocked input": io.NewSectionReader(bytes.NewReader(make([]byte, 16<<20)), 0, 16<<20),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			r, one := h.through(t, &sshtest.Server{})
			host := h.target(&sshtest.Server{})
			tr := h.behind(one)
			out := &record{want: 1, until: func() { close(r.frozen) }}
			s, err := tr.Start(t.Context(), host, &transport.Command{Line: "echo up; cat; sleep 1000", Stdin: input, Stdout: out})
			if err != nil {
				t.Fatal(err)
			}
			go func() { <-r.frozen; s.Close() }()
			if _, err := s.Wait(t.Context()); !errors.Is(err, transport.ErrClosed) {
				t.Errorf("%v", err)
			}
			tr.Shutdown(gone)
		})
	}
}

// freezing is a connection whose first bytes freeze something.
type freezing struct {
	net.Conn
	freeze func()
}

func (f freezing) Write(p []byte) (int, error) { f.freeze(); return len(p), nil }

// A jump host whose connection breaks is connected anew for the hosts that come later, and gives back its place in the one before it.
func TestLostJumpHost(t *testing.T) {
	h := newHome(t)
	_, one := h.serve(&sshtest.Server{})
	r, two := h.through(t, &sshtest.Server{})
	host := h.target(&sshtest.Server{})
	tr := h.behind(one, two)
	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	out := &record{want: 1, until: r.cut}
	s, err := tr.Start(ctx, host, &transport.Command{Line: "echo up; sleep 1000", Stdout: out})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[*hop]bool)
	note := func() {
		tr.hops.mu.Lock()
		defer tr.hops.mu.Unlock()
		for _, h := range tr.hops.all {
			seen[h] = true
		}
	}
	note()
	if _, err := s.Wait(ctx); !errors.Is(err, transport.ErrLost) {
		t.Errorf("%v", err)
	}
	for h := range seen {
		if h.depth == 2 {
			<-h.client.gone
		}
	}
	if got := run(t, tr, host, line); got != (result{"out\n", "err\n", ended, nil}) {
		t.Errorf("%+v", got)
	}
	note()
	tr.Shutdown(t.Context())
	if len(seen) != 3 {
		t.Errorf("%d connections to jump hosts, want 3", len(seen))
	}
	for h := range seen {
		if n := len(h.slots); n != 0 {
			t.Errorf("%s: %d places not given back", h.name, n)
		}
	}
}

// A jump host that breaks in the middle of a login is what failed, not the host behind it.
func TestJumpHostBreaks(t *testing.T) {
	h := newHome(t)
	r, one := h.through(t, &sshtest.Server{})
	target := &sshtest.Server{Behaviour: sshtest.MustParseBehaviour("hang=auth")}
	host := h.target(target)
	tr := h.behind(one)
	go func() {
		target.Until(t.Context(), func(a sshtest.Account) bool { return a.Connections > 0 })
		r.cut()
	}()
	got := run(t, tr, host, line)
	if !errors.Is(got.err, syscall.EHOSTUNREACH) || errors.Is(got.err, transport.ErrAuth) || !strings.Contains(got.err.Error(), "jump host 127.0.0.3: the connection to it broke") {
		t.Errorf("%v", got.err)
	}
}

// Nobody waits any more for a jump host that is still being connected.
func TestShutdownConnecting(t *testing.T) {
	h := newHome(t)
	server := &sshtest.Server{Behaviour: sshtest.MustParseBehaviour("stall=accept")}
	_, one := h.serve(server)
	tr := h.behind(one)
	tr.ConnectTimeout = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		server.Until(ctx, func(a sshtest.Account) bool { return a.Now > 0 })
		cancel()
	}()
	if got := runContext(ctx, tr, transport.Host{Name: "target", Port: 22}, line); !errors.Is(got.err, context.Canceled) {
		t.Errorf("%v", got.err)
	}
	tr.Shutdown(context.Background())
}

// The end may come when a chain of jump hosts has only just been asked for.
func TestShutdownAtOnce(t *testing.T) {
	h := newHome(t)
	_, one := h.serve(&sshtest.Server{})
	_, two := h.serve(&sshtest.Server{})
	tr := h.behind(one, two)
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if got := runContext(ctx, tr, transport.Host{Name: "target", Port: 1}, line); got.err == nil {
			t.Error("it succeeded")
		}
		tr.Shutdown(t.Context())
	}
}

// A ProxyCommand that does not want to end is ended.
func TestStubbornProxy(t *testing.T) {
	h := newHome(t)
	_, host := h.serve(&sshtest.Server{})
	tr := h.transport(`ProxyCommand=sh -c "trap '' TERM; echo $$ >` + h.path("pid") + `; while :; do sleep 1000; done"`)
	tr.ConnectTimeout = 2 * time.Second
	if got := run(t, tr, host, line); !errors.Is(got.err, context.DeadlineExceeded) {
		t.Errorf("%v", got.err)
	}
	tr.Shutdown(context.Background())
	text, err := os.ReadFile(h.path("pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	fmt.Sscan(string(text), &pid)
	rig.Until(t, "the proxy's process group", func() string {
		if err := syscall.Kill(-pid, 0); err != syscall.ESRCH {
			return fmt.Sprint(strings.TrimSpace(string(text)), " is there: ", err)
		}
		return ""
	})
}

// A jump host gets no hand on our agent, whatever the hosts behind it may.
func TestNoAgentForJumpHost(t *testing.T) {
	h := newHome(t)
	_, one := h.serve(&sshtest.Server{})
	host := h.target(&sshtest.Server{})
	t.Setenv("SSH_AUTH_SOCK", h.path("agent"))
	tr := h.behind(one)
	tr.ForwardAgent = true
	s, err := tr.Start(t.Context(), host, &transport.Command{Line: line})
	if err != nil {
		t.Fatal(err)
	}
	if !s.(*session).client.agent.Load() {
		t.Error("the host may not use the agent")
	}
	for _, h := range tr.hops.all {
		if h.client.agent.Load() {
			t.Error("the jump host may use the agent")
		}
	}
	if _, err := s.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
