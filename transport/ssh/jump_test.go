package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"multirsh/transport"
	"multirsh/transport/ssh/sshtest"
)

// jump is a ProxyJump option through servers that h serves.
func jump(hosts ...transport.Host) string {
	var list []string
	for _, h := range hosts {
		list = append(list, net.JoinHostPort(h.Addr, strconv.Itoa(int(h.Port))))
	}
	return "ProxyJump=" + strings.Join(list, ",")
}

// behind is a client whose configuration leads to target* through hosts, and to these directly.
func (h *home) behind(hosts ...transport.Host) *Transport {
	h.t.Helper()
	h.write("config", fmt.Sprintf("Host target*\n  HostName 127.0.0.2\n  HostKeyAlias target\n  %s\n", strings.Replace(jump(hosts...), "=", " ", 1)))
	return h.transportFrom("config")
}

func TestJump(t *testing.T) {
	h := newHome(t)
	first, second := &sshtest.Server{Record: true}, &sshtest.Server{Record: true}
	_, one := h.serve(first)
	_, two := h.serve(second)
	target := &sshtest.Server{Record: true}
	addr, _ := h.serve(target)
	h.know(sshtest.KnownHosts(target.HostKey(), "target"))
	tr := h.behind(one, two)
	const hosts = 40
	var all sync.WaitGroup
	for i := range hosts {
		all.Go(func() {
			host := transport.Host{Name: fmt.Sprintf("target%d", i), Port: addr.Port()}
			if got := run(t, tr, host, line); got != (result{"out\n", "err\n", ended, nil}) {
				t.Errorf("%s: %+v", host.Name, got)
			}
		})
	}
	all.Wait()
	tr.Shutdown(context.Background())
	for name, server := range map[string]*sshtest.Server{"first": first, "second": second} {
		got, err := server.Until(t.Context(), func(a sshtest.Account) bool { return a.Now == 0 })
		if err != nil {
			t.Fatal(err)
		}
		if got.Connections != 1 || got.ServerFirst != 1 || got.ForwardsNow != 0 {
			t.Errorf("%s jump host: %+v, want one connection that it has closed first", name, got)
		}
	}
	if got := first.Account().Forwards; got != 1 {
		t.Errorf("%d channels through the first jump host, want one, to the second", got)
	}
	if got := second.Account().Forwards; got != hosts {
		t.Errorf("%d channels through the second jump host, want %d", got, hosts)
	}
	if got := tr.Stats(); got.Reset != 0 || got.ClosedFirst != hosts+2 {
		t.Errorf("%+v", got)
	}
	if got := target.Account(); got.MostHandshakes > perServer {
		t.Errorf("%d handshakes at once with one server, want %d at most", got.MostHandshakes, perServer)
	}
}

// A jump host that fails is named, and all hosts behind it are unreachable, after one try.
func TestJumpFails(t *testing.T) {
	for behaviour, want := range map[string]struct {
		kind error
		text string
	}{
		"refuse":        {syscall.EHOSTUNREACH, "nobody listens on"},
		"close=version": {syscall.EHOSTUNREACH, "key exchange failed"},
		"denied":        {transport.ErrAuth, "does not let"},
		"hostkey=other": {transport.ErrHostKey, "has changed"},
		"noforward":     {nil, "AllowTcpForwarding"},
	} {
		t.Run(behaviour, func(t *testing.T) {
			b, err := sshtest.ParseBehaviour(behaviour)
			if err != nil {
				t.Fatal(err)
			}
			h := newHome(t)
			server := &sshtest.Server{Behaviour: b}
			addr, one := h.serve(server)
			tr := h.behind(one)
			for i := range 3 {
				got := run(t, tr, transport.Host{Name: "target" + strconv.Itoa(i), Port: 22}, line)
				op := (*transport.OpError)(nil)
				switch {
				case !errors.As(got.err, &op) || op.Phase != transport.PhaseConnect:
					t.Errorf("%v, want a failure to connect", got.err)
				case want.kind != nil && !errors.Is(got.err, want.kind), !strings.Contains(got.err.Error(), want.text), !strings.Contains(got.err.Error(), "jump host 127.0.0.2"):
					t.Errorf("%v, want %v, the jump host and %q", got.err, want.kind, want.text)
				}
			}
			nothingLeft(t, tr, addr)
			if n := server.Account().Connections; n > 1 {
				t.Errorf("%d connections to the jump host, want one", n)
			}
		})
	}
}

// What a jump host says of a target is the target's own failure.
func TestJumpTargetFails(t *testing.T) {
	h := newHome(t)
	_, one := h.serve(&sshtest.Server{})
	tr := h.behind(one)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	got := run(t, tr, transport.Host{Name: "target", Port: port}, line)
	if !errors.Is(got.err, syscall.ECONNREFUSED) && !errors.Is(got.err, syscall.EHOSTUNREACH) || !strings.Contains(got.err.Error(), "jump host 127.0.0.2") {
		t.Errorf("%v", got.err)
	}
}

func TestProxyCommand(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash here, whose /dev/tcp makes the ProxyCommand")
	}
	h := newHome(t)
	server := &sshtest.Server{Record: true}
	_, host := h.serve(server)
	tr := h.transport(`ProxyCommand=bash -c "exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3"`)
	for range 3 {
		if got := run(t, tr, host, line); got != (result{"out\n", "err\n", ended, nil}) {
			t.Errorf("%+v", got)
		}
	}
	nothingRuns(t, tr)
	if a, err := server.Until(t.Context(), func(a sshtest.Account) bool { return a.Now == 0 }); err != nil || a.ServerFirst != 3 {
		t.Errorf("%+v, %v: want the server first", a, err)
	}

	failing := h.transport("ProxyCommand=exit 3")
	if got := run(t, failing, host, line); got.err == nil || !strings.Contains(got.err.Error(), "ProxyCommand") {
		t.Errorf("a ProxyCommand that ends: %v", got.err)
	}
}

// nothingRuns waits for the ends of the proxies, which Shutdown does.
func nothingRuns(t *testing.T, tr *Transport) {
	t.Helper()
	tr.Shutdown(context.Background())
	if s := tr.Stats(); s.Reset != 0 {
		t.Errorf("%+v", s)
	}
}
