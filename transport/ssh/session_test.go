package ssh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"multirsh/transport"
	"multirsh/transport/shwrap"
	"multirsh/transport/ssh/sshconfig"
	"multirsh/transport/ssh/sshtest"
)

// transcript ends the client's work and returns what the server has seen of its only connection.
func transcript(t *testing.T, tr *Transport, server *sshtest.Server) sshtest.Connection {
	t.Helper()
	tr.Shutdown(context.Background())
	all, err := server.Wait(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LC_TEST", "here")
	t.Setenv("LC_OTHER", "not asked for")
	h := newHome(t)
	server := &sshtest.Server{Record: true, Env: []string{"PATH=/usr/bin:/bin"}}
	_, host := h.serve(server)
	tr := h.transport("SetEnv=FOO=bar", "SendEnv=LC_TE*")
	if got := run(t, tr, host, `echo "$FOO $LC_TEST $LC_OTHER"`); got.stdout != "bar here \n" {
		t.Errorf("%+v", got)
	}
	if env := transcript(t, tr, server).Sessions[0].Env; !slices.Equal(env, []string{"FOO=bar", "LC_TEST=here"}) {
		t.Errorf("the server was asked to set %q", env)
	}
}

func TestTerminal(t *testing.T) {
	h := newHome(t)
	server := &sshtest.Server{Record: true}
	_, host := h.serve(server)
	tr := h.transport()
	tr.Terminal = &Terminal{Type: "vt100", Columns: 97, Rows: 31}
	got := run(t, tr, host, "test -t 0 && test -t 1 && echo out; echo err >&2")
	if got.stdout != "out\r\nerr\r\n" || got.stderr != "" || got.err != nil {
		t.Errorf("%+v", got)
	}
	want := sshtest.Pty{Term: "vt100", Sizes: []sshtest.Size{{Columns: 97, Rows: 31}}}
	if pty := transcript(t, tr, server).Sessions[0].Pty; pty == nil || pty.Term != want.Term || !slices.Equal(pty.Sizes, want.Sizes) {
		t.Errorf("the server was asked for %+v", pty)
	}
}

// The agent is forwarded when it is asked for, and not otherwise.
func TestForwardAgent(t *testing.T) {
	ring := agent.NewKeyring()
	private, signer := newKey(t)
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { agent.ServeAgent(ring, c); c.Close() }()
		}
	}()
	for _, asked := range []bool{false, true} {
		h := newHome(t)
		server := &sshtest.Server{Record: true, Users: map[string]sshtest.User{"": {Keys: []ssh.PublicKey{signer.PublicKey()}}}}
		_, host := h.serve(server)
		tr := h.transport("IdentityAgent=" + socket)
		tr.ForwardAgent = asked
		got := run(t, tr, host, `echo "${SSH_AUTH_SOCK:+forwarded}"`)
		if want := map[bool]string{true: "forwarded\n", false: "\n"}[asked]; got.stdout != want || got.err != nil {
			t.Errorf("asked for: %v: %+v", asked, got)
		}
		if s := transcript(t, tr, server).Sessions[0]; s.Agent != asked {
			t.Errorf("asked for: %v; the server was asked: %v", asked, s.Agent)
		}
		tr.Wallet.Close()
	}
}

// TestLegacy: an old server is spoken to only when it is asked for.
func TestLegacy(t *testing.T) {
	h := newHome(t)
	server := &sshtest.Server{Record: true, Crypto: ssh.Config{
		KeyExchanges: []string{ssh.InsecureKeyExchangeDH14SHA1}, Ciphers: []string{ssh.InsecureCipherAES128CBC}, MACs: []string{ssh.HMACSHA1},
	}}
	_, host := h.serve(server)
	if got := run(t, h.transport(), host, line); !errors.Is(got.err, ErrNoCommon) || !errors.Is(got.err, transport.ErrProtocol) || !strings.Contains(got.err.Error(), "--legacy") {
		t.Errorf("%+v", got)
	}
	tr := h.transport()
	tr.Legacy = true
	if got := run(t, tr, host, line); got != (result{"out\n", "err\n", ended, nil}) {
		t.Errorf("%+v", got)
	}
}

// What two that are up to date agree on is safe against a quantum computer, and ssh_config may have it otherwise.
func TestAlgorithms(t *testing.T) {
	for option, want := range map[string]string{
		"":                                  ssh.KeyExchangeMLKEM768X25519,
		"KexAlgorithms=ecdh-sha2-nistp256":  ssh.KeyExchangeECDHP256,
		"KexAlgorithms=^curve25519-sha256":  ssh.KeyExchangeCurve25519,
		"KexAlgorithms=-mlkem*,curve25519*": ssh.KeyExchangeECDHP256,
	} {
		h := newHome(t)
		server := &sshtest.Server{Record: true}
		_, host := h.serve(server)
		var options []string
		if option != "" {
			options = []string{option}
		}
		tr := h.transport(options...)
		if got := run(t, tr, host, line); got.err != nil {
			t.Errorf("%s: %v", option, got.err)
		}
		if got := transcript(t, tr, server).Algorithms.KeyExchange; got != want {
			t.Errorf("%s: agreed on %s, want %s", option, got, want)
		}
	}
	h := newHome(t)
	settings := func(option string) *sshconfig.Settings {
		s, err := h.transport(option).settings(t.Context(), transport.Host{Name: "h1"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for option, want := range map[string][]string{
		"PubkeyAcceptedAlgorithms=ssh-ed25519-cert-v01@openssh.com": {ssh.CertAlgoED25519v01},
		"PubkeyAcceptedAlgorithms=sk-*-cert-v01@openssh.com":        {ssh.CertAlgoSKED25519v01, ssh.CertAlgoSKECDSA256v01},
	} {
		if got := new(Transport).pubkeyAlgorithms(settings(option)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", option, got, want)
		}
	}
	server := &sshtest.Server{Record: true}
	_, host := h.serve(server)
	for option, text := range map[string]string{
		"PubkeyAcceptedAlgorithms=rot13": "PubkeyAcceptedAlgorithms rot13 names nothing",
		"Ciphers=rot13":                  "Ciphers rot13 names nothing",
		"BindAddress=here":               `BindAddress "here" is no address`,
	} {
		got := run(t, h.transport(option), host, line)
		if !errors.As(got.err, new(*SettingsError)) || !strings.Contains(got.err.Error(), text) {
			t.Errorf("%s: %+v", option, got)
		}
	}
	if n := server.Account().Connections; n != 0 {
		t.Errorf("%d connections with settings that are wrong", n)
	}
}

// TestWrapped: root's command goes below the wrapper where sshd would ignore signals, and is still run by the login shell.
func TestWrapped(t *testing.T) {
	for _, tt := range []struct {
		user, version string
		want          bool
	}{
		{"root", "SSH-2.0-OpenSSH_9.2p1 Debian-2", true},
		{"root", "SSH-2.0-OpenSSH_9.8", false},
		{"root", "SSH-2.0-OpenSSH_10.0p2", false},
		{"ops", "SSH-2.0-OpenSSH_9.2p1", false},
		{"root", "SSH-2.0-other", false},
	} {
		h := newHome(t)
		server := &sshtest.Server{Behaviour: sshtest.MustParseBehaviour("version=" + tt.version), Record: true}
		_, host := h.serve(server)
		host.User = tt.user
		tr := h.transport()
		if got := run(t, tr, host, `echo "it's $0"; echo err >&2; exit 3`); !strings.HasPrefix(got.stdout, "it's ") || got.stderr != "err\n" || got.status != ended || got.err != nil {
			t.Errorf("%+v: %+v", tt, got)
		}
		command := transcript(t, tr, server).Sessions[0].Command
		if wrapped := command == shwrap.Bootstrap; wrapped != tt.want {
			t.Errorf("%+v: wrapped is %v, the command is %.60q", tt, wrapped, command)
		}
	}
}

// What a busy sshd drops is tried again, and counted.
func TestRetries(t *testing.T) {
	h := newHome(t)
	server := &sshtest.Server{Behaviour: sshtest.MustParseBehaviour("maxstartups=0.5")}
	_, host := h.serve(server)
	tr := h.transport()
	tr.Retries = 40 // so that chance does not decide
	const runs = 20
	for range runs {
		if got := run(t, tr, host, line); got != (result{"out\n", "err\n", ended, nil}) {
			t.Errorf("%+v: %v", got, got.err)
		}
	}
	tr.Shutdown(t.Context())
	if s, a := tr.Stats(), server.Account(); s.Retries == 0 || s.Retries < a.Connections-runs {
		t.Errorf("%+v, and the server saw %d connections for %d runs", s, a.Connections, runs)
	}
}

// A server that answers no keepalive is given up.
func TestKeepAlive(t *testing.T) {
	h := newHome(t)
	addr, host := h.serve(&sshtest.Server{Behaviour: sshtest.MustParseBehaviour("nokeepalive")})
	tr := h.transport("ServerAliveInterval=1", "ServerAliveCountMax=1")
	if got := run(t, tr, host, "sleep 1000"); !errors.Is(got.err, transport.ErrLost) || !strings.Contains(got.err.Error(), "ServerAliveInterval") {
		t.Errorf("%+v", got)
	}
	nothingLeft(t, tr, addr)
}

// Without a way to send a disconnect the connection is reset, which leaves nothing here either.
func TestResetInstead(t *testing.T) {
	h := newHome(t)
	server := &sshtest.Server{Record: true}
	addr, host := h.serve(server)
	tr := h.transport()
	var out bytes.Buffer
	s, err := tr.Start(t.Context(), host, &transport.Command{Line: line, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	c := s.(*session).client
	c.conn = opaque{c.conn}
	if status, err := s.Wait(t.Context()); status != ended || err != nil || out.String() != "out\n" {
		t.Errorf("%+v, %v, %q", status, err, out.String())
	}
	nothingLeft(t, tr, addr)
	if s := tr.Stats(); s.Reset != 1 || s.ClosedFirst != 0 {
		t.Errorf("%+v, want one reset", s)
	}
	if all, err := server.Wait(t.Context(), 1); err != nil || all[0].First != sshtest.ClientSide || all[0].Disconnect != "" {
		t.Errorf("%+v, %v", all, err)
	}
}

// opaque is a connection of another make than package ssh's.
type opaque struct{ ssh.Conn }

// What a server says of the end is never taken for more than it is.
func TestExits(t *testing.T) {
	code := func(n uint32) []byte { return ssh.Marshal(&struct{ N uint32 }{n}) }
	signal := func(name string) []byte {
		return ssh.Marshal(&struct {
			Name    string
			Core    bool
			Message string
			Tag     string
		}{name, false, "", ""})
	}
	for _, tt := range []struct {
		name     string
		requests []ssh.Request
		want     transport.Status
	}{
		{"status", []ssh.Request{{Type: "exit-status", Payload: code(3)}}, transport.Status{Known: true, Code: 3}},
		{"large status", []ssh.Request{{Type: "exit-status", Payload: code(256)}}, transport.Status{Known: true, Code: 255}},
		{"short status", []ssh.Request{{Type: "exit-status", Payload: []byte{0, 0}}}, transport.Status{}},
		{"signal", []ssh.Request{{Type: "exit-signal", Payload: signal("TERM")}}, transport.Status{Known: true, Signal: "TERM"}},
		{"signal, then status", []ssh.Request{{Type: "exit-signal", Payload: signal("TERM")}, {Type: "exit-status", Payload: code(0)}}, transport.Status{Known: true, Signal: "TERM"}},
		{"nameless signal", []ssh.Request{{Type: "exit-signal", Payload: signal("")}}, transport.Status{Known: true, Signal: "UNKNOWN"}},
		{"signal for the terminal", []ssh.Request{{Type: "exit-signal", Payload: signal("\x1b[2J")}}, transport.Status{Known: true, Signal: "UNKNOWN"}},
		{"signal that is not there", []ssh.Request{{Type: "exit-signal", Payload: []byte{0xff, 0xff, 0xff, 0xff}}}, transport.Status{}},
	} {
		s := &session{stdout: &stream{}, stderr: &stream{}}
		for _, r := range tt.requests {
			s.take(&r)
		}
		s.ended.Store(true) // for the drainer
		if s.exit != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, s.exit, tt.want)
		}
	}
}

// A stop that comes before Wait, or several at once, stop the command all the same.
func TestStopWrapped(t *testing.T) {
	for name, input := range map[string]*io.SectionReader{
		"no input": nil,
		"input":    io.NewSectionReader(bytes.NewReader(make([]byte, 1<<20)), 0, 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			_, host := h.serve(&sshtest.Server{})
			tr := h.transport()
			tr.Shell = true
			s, err := tr.Start(t.Context(), host, &transport.Command{Line: "cat >/dev/null; sleep 1000", Stdin: input})
			if err != nil {
				t.Fatal(err)
			}
			for range 8 {
				if err := s.Signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
			}
			if status, err := s.Wait(t.Context()); !status.Started || err != nil && !errors.Is(err, transport.ErrLost) {
				t.Errorf("%+v, %v", status, err)
			}
		})
	}
}

// A stop in mid-input breaks the input off: the command does not get the rest.
func TestStopInInput(t *testing.T) {
	h := newHome(t)
	_, host := h.serve(&sshtest.Server{})
	tr := h.transport()
	tr.Shell = true
	up := make(chan struct{})
	out := &record{want: 1, until: func() { close(up) }}
	input := io.NewSectionReader(zeros{}, 0, 1<<40)
	s, err := tr.Start(t.Context(), host, &transport.Command{Line: "echo up; cat >/dev/null; sleep 1000", Stdin: input, Stdout: out})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-up
		s.Signal(syscall.SIGTERM)
	}()
	if status, err := s.Wait(t.Context()); !status.Started || err != nil && !errors.Is(err, transport.ErrLost) {
		t.Errorf("%+v, %v", status, err)
	}
}

// zeros is an input without end.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

// What breaks off before the wrapper has begun has not run.
func TestWrappedNotStarted(t *testing.T) {
	h := newHome(t)
	_, host := h.serve(&sshtest.Server{Answer: func(*sshtest.Exec) transport.Status { return transport.Status{} }})
	tr := h.transport()
	tr.Shell = true
	if got := run(t, tr, host, line); got.status.Started || !errors.Is(got.err, syscall.EHOSTUNREACH) || errors.Is(got.err, transport.ErrProtocol) {
		t.Errorf("%+v", got)
	}
}

// A start whose time ends as it succeeds is over when it says so: Shutdown finds its connection.
func TestStartJustTooLate(t *testing.T) {
	h := newHome(t)
	_, host := h.serve(&sshtest.Server{})
	tr := h.transport()
	settings, err := tr.settings(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	verify, err := tr.verifier(settings)
	if err != nil {
		t.Fatal(err)
	}
	tr.init()
	const starts = 50
	for i := range starts {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := tr.connect(ctx, settings, verify, func(*client) error {
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		tr.Shutdown(t.Context())
		if s := tr.Stats(); s.ClosedFirst+s.Reset != i+1 {
			t.Fatalf("after %d starts %+v", i+1, s)
		}
	}
}
