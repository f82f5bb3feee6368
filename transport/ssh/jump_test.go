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

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/ssh/sshconfig"
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

// A host's own jump hosts go before those of the configuration, and hosts with the same way share it, whoever has named it.
func TestHostJump(t *testing.T) {
	h := newHome(t)
	configured, own := &sshtest.Server{Record: true}, &sshtest.Server{Record: true}
	_, one := h.serve(configured)
	_, two := h.serve(own)
	target := &sshtest.Server{Record: true}
	addr, _ := h.serve(target)
	h.know(sshtest.KnownHosts(target.HostKey(), "target"))
	through := func(host transport.Host) string { return strings.TrimPrefix(jump(host), "ProxyJump=") }
	h.write("config", fmt.Sprintf("Host target*\n HostKeyAlias target\nHost target* own\n HostName 127.0.0.2\nHost target*\n ProxyJump %s\nMatch originalhost own\n ProxyJump %s\n HostKeyAlias target\n", through(one), through(two)))
	tr := h.transportFrom("config")
	for _, tt := range []struct {
		host              transport.Host
		configured, owned int // channels through either jump host by now
	}{
		{transport.Host{Name: "target1"}, 1, 0},
		{transport.Host{Name: "target2", Jump: through(two)}, 1, 1},
		{transport.Host{Name: "target3", Jump: "none"}, 1, 1},
		{transport.Host{Name: "own"}, 1, 2},
		{transport.Host{Name: "target4", Jump: through(one) + "," + through(two)}, 2, 3},
	} {
		tt.host.Port = addr.Port()
		if got := run(t, tr, tt.host, line); got != (result{"out\n", "err\n", ended, nil}) {
			t.Errorf("%+v: %+v", tt.host, got)
		}
		if c, o := configured.Account().Forwards, own.Account().Forwards; c != tt.configured || o != tt.owned {
			t.Errorf("%+v: %d channels through the jump host that is configured and %d through the other, want %d and %d", tt.host, c, o, tt.configured, tt.owned)
		}
	}
	if got := configured.Account().Connections; got != 1 {
		t.Errorf("%d connections to the first jump host, want one", got)
	}
	if got := own.Account().Connections; got != 2 { // by two ways
		t.Errorf("%d connections to the second jump host, want two", got)
	}

	// The command line's is for all hosts, so a host's own goes before it.
	optional := h.transport("ProxyJump=" + through(one))
	optional.JumpConfig = h.transport().Config
	host := transport.Host{Name: "127.0.0.2", Port: addr.Port(), Jump: through(two)}
	if got := run(t, optional, host, line); got.err != nil || configured.Account().Forwards != 2 || own.Account().Forwards != 4 {
		t.Errorf("%v: went through %d and %d", got.err, configured.Account().Forwards, own.Account().Forwards)
	}
	if got := run(t, optional, transport.Host{Name: "bad", Jump: "a,"}, line); got.err == nil || !strings.Contains(got.err.Error(), "jump host") {
		t.Errorf("%v", got.err)
	}
}

func TestCheckJump(t *testing.T) {
	for _, tt := range []struct {
		host transport.Host
		want string
	}{
		{transport.Host{Name: "a", Transport: "rsh"}, ""},
		{transport.Host{Name: "a", Transport: "rsh", Jump: "none"}, ""},
		{transport.Host{Name: "a", Transport: "rsh", Jump: "g"}, "a has jump=g and is reached by rsh, which knows no jump hosts"},
		{transport.Host{Name: "a", Transport: "ssh", Jump: "u@g:22,h"}, ""},
		{transport.Host{Name: "a", Transport: "ssh", Jump: "g,"}, `a has jump=g,: "" is not [user@]host[:port]`},
	} {
		if err := CheckJump(tt.host); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.host, err, tt.want)
		}
	}
}

// A host's Addr is to it what HostName is to ssh: the configuration goes by its Name, and known_hosts by the Addr unless there is an alias for the Name.
func TestHostAddr(t *testing.T) {
	h := newHome(t)
	server := &sshtest.Server{Record: true, Users: map[string]sshtest.User{"named": {Keys: []ssh.PublicKey{h.signer.PublicKey()}}}}
	addr, host := h.serve(server) // known by its address
	h.write("config", fmt.Sprintf("Host web\n User named\n HostName elsewhere.example\n IdentityFile %s\n UserKnownHostsFile %s\nHost 127.0.0.2\n User other\nHost aliased\n User named\n HostKeyAlias nobody\n IdentityFile %[1]s\n", h.path("id"), h.path("known_hosts")))
	read, err := sshconfig.Read(sshconfig.Sources{File: h.path("config"), Home: h.dir, LocalUser: "local", LocalHost: "here", Options: []string{
		"UserKnownHostsFile=" + h.path("known_hosts"), "GlobalKnownHostsFile=/nonexistent"}})
	if err != nil {
		t.Fatal(err)
	}
	tr := h.transport()
	tr.Config = read
	host.Name = "web"
	if got := run(t, tr, host, line); got != (result{"out\n", "err\n", ended, nil}) {
		t.Errorf("%+v", got)
	}
	host.Name = "aliased"
	if got := run(t, tr, host, line); !errors.Is(got.err, transport.ErrHostKey) || !strings.Contains(got.err.Error(), "nobody") {
		t.Errorf("%v: want the alias asked for at %v", got.err, addr)
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
				jump, forward := (*JumpError)(nil), (*ForwardError)(nil)
				if errors.As(got.err, &jump) == errors.As(got.err, &forward) || (forward != nil) != (behaviour == "noforward") || jump != nil && jump.First() != "127.0.0.2" {
					t.Errorf("%v: of the jump host itself is %v, of what it forwards is %v", got.err, jump, forward)
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
	if forward := (*ForwardError)(nil); errors.As(got.err, new(*JumpError)) || !errors.As(got.err, &forward) || forward.Jump != "127.0.0.2" {
		t.Errorf("%v is not told as of what the jump host has found", got.err)
	}
}

// Jump hosts that lead to each other lead nowhere.
func TestJumpCircle(t *testing.T) {
	h := newHome(t)
	h.write("config", "Host a target\n  ProxyJump b\nHost b\n  ProxyJump a\n")
	got := run(t, h.transportFrom("config"), transport.Host{Name: "target"}, line)
	if !errors.As(got.err, new(*SettingsError)) || !strings.Contains(got.err.Error(), "ProxyJump leads over more than") {
		t.Errorf("%v", got.err)
	}
}

// Of several jump hosts, the one that failed is told.
func TestJumpFirst(t *testing.T) {
	err := error(&JumpError{"outer", &JumpError{"inner", syscall.ECONNREFUSED}})
	if got := err.(*JumpError).First(); got != "inner" {
		t.Errorf("%v: %q", err, got)
	}
	err = &JumpError{"outer", &ForwardError{Jump: "inner", text: "inner cannot reach outer"}}
	if got := err.(*JumpError).First(); got != "outer" {
		t.Errorf("%v: %q", err, got)
	}
}

func TestProxyCommand(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash, whose /dev/tcp makes the ProxyCommand: apt-get install bash")
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
