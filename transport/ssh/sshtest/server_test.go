//go:build unix

package sshtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"multirsh/transport"
	"multirsh/transport/testserver"
)

var cmpConnection = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b Behaviour) bool { return a == b }),
	cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) || errors.Is(b, a) }),
	cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "Algorithms" }, cmp.Ignore()),
}

func TestGoodServer(t *testing.T) {
	s, addr := serve(t, "ok")
	c := dial(t, addr)
	x := c.session()
	var out, errs bytes.Buffer
	x.Stdin, x.Stdout, x.Stderr = strings.NewReader("in\x00put\n"), &out, &errs
	if err := x.Setenv("LC_TEST", "é x"); err != nil {
		t.Error(err)
	}
	err := x.Run(`cat; echo "$LC_TEST" err >&2; exit 7`)
	if exitCode(err) != 7 || out.String() != "in\x00put\n" || errs.String() != "é x err\n" {
		t.Errorf("%v, stdout %q, stderr %q", err, out.String(), errs.String())
	}
	c.disconnect()
	c.Wait()
	got := one(t, s)
	want := Connection{
		Client: netip.MustParseAddrPort(c.tcp.LocalAddr().String()), Server: addr, ClientVersion: "SSH-2.0-Go",
		User: "ann", Attempts: []Attempt{{"none", true}}, LoggedIn: true,
		Sessions: []Session{{
			Command: `cat; echo "$LC_TEST" err >&2; exit 7`, Env: []string{"LC_TEST=é x"}, Input: 7,
			Status: transport.Status{Known: true, Started: true, Code: 7},
		}},
		Disconnect: "11: disconnected by user", First: ServerSide, End: io.EOF,
	}
	if diff := cmp.Diff(want, got, cmpConnection); diff != "" {
		t.Error(diff)
	}
	if got.Algorithms.HostKey != ssh.KeyAlgoED25519 || got.Algorithms.KeyExchange == "" {
		t.Errorf("%+v", got.Algorithms)
	}
	if a := s.Account(); a.Connections != 1 || a.Logins != 1 || a.Sessions != 1 || a.ServerFirst != 1 || a.MostHandshakes != 1 {
		t.Errorf("%+v", a)
	}
}

// A client that closes or resets without a word is first, also when its end is there before its DISCONNECT is read.
func TestWhoClosesFirst(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(c *client)
		want Side
	}{
		"disconnect, then wait": {func(c *client) { c.disconnect(); c.Wait() }, ServerSide},
		"close":                 {func(c *client) { c.Close() }, ClientSide},
		"reset":                 {func(c *client) { c.tcp.SetLinger(0); c.Close() }, ClientSide},
		"shut down, then wait":  {func(c *client) { c.tcp.CloseWrite(); c.Wait() }, ClientSide},
		"after a command":       {func(c *client) { c.run("true"); c.disconnect(); c.Wait() }, ServerSide},
	} {
		t.Run(name, func(t *testing.T) {
			s, addr := serve(t, "ok")
			test.end(dial(t, addr))
			if got := one(t, s); got.First != test.want || got.End == nil {
				t.Errorf("first %q, end %v", got.First, got.End)
			}
		})
	}
}

// A server that closes first leaves its port to the next one, and a thousand connections one after the other never run out.
func TestPortComesBack(t *testing.T) {
	var addr string
	for i := range 3 {
		s := &Server{}
		if i == 0 {
			addr = "127.0.0.1:0"
		}
		at, err := s.Start(addr)
		if err != nil {
			t.Fatal(err)
		}
		addr = at.String()
		c := dial(t, at)
		c.disconnect()
		c.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if a := s.Account(); a.ServerFirst != 1 {
			t.Errorf("%+v", a)
		}
	}
}

// Output of any size arrives whole, on both streams at once.
func TestOutput(t *testing.T) {
	_, addr := serve(t, "ok")
	out, errs, err := dial(t, addr).run("head -c 3000000 /dev/zero; head -c 2500000 /dev/zero >&2; exit 3")
	if len(out) != 3_000_000 || len(errs) != 2_500_000 || exitCode(err) != 3 {
		t.Errorf("%d bytes, %d bytes, %v", len(out), len(errs), err)
	}
}

// Input that the command does not want does not fill the client's window.
func TestUnwantedInput(t *testing.T) {
	_, addr := serve(t, "ok")
	x := dial(t, addr).session()
	in, _ := x.StdinPipe()
	var out bytes.Buffer
	x.Stdout = &out
	if err := x.Start("exec 0<&-; echo done"); err != nil {
		t.Fatal(err)
	}
	in.Write(make([]byte, 3<<20)) // more than the window; the channel may be closed before all of it is sent
	if err := x.Wait(); err != nil || out.String() != "done\n" {
		t.Errorf("%v, %q", err, out.String())
	}
}

// A signal goes to all of the command's processes, and its death is told by name.
func TestSignals(t *testing.T) {
	for _, name := range []ssh.Signal{ssh.SIGTERM, ssh.SIGKILL, ssh.SIGINT, ssh.SIGHUP, ssh.SIGUSR1} {
		s, addr := serve(t, "ok")
		c := dial(t, addr)
		x := c.session()
		out, _ := x.StdoutPipe()
		if err := x.Start("sleep 1000 | { echo up; cat; }"); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
			t.Fatalf("%q, %v", line, err)
		}
		x.Signal(name)
		var exit *ssh.ExitError
		if err := x.Wait(); !errors.As(err, &exit) || exit.Signal() != string(name) {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
		got := one(t, s).Sessions[0]
		want := transport.Status{Known: true, Started: true, Signal: string(name)}
		if got.Status != want || len(got.Signals) != 1 || got.Signals[0] != string(name) {
			t.Errorf("%+v", got)
		}
	}
}

// A child that was left behind holds the channel, not the exit status.
func TestBackgroundChild(t *testing.T) {
	_, addr := serve(t, "ok")
	x := dial(t, addr).channel()
	x.exec("sleep 1000 & echo $!")
	line, err := bufio.NewReader(x).ReadString('\n')
	pid, _ := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid == 0 {
		t.Fatalf("%q, %v", line, err)
	}
	if r := <-x.requests; x.name(r) != "exit-status 0" {
		t.Errorf("%s", x.name(r))
	}
	// With the child gone the channel ends.
	syscall.Kill(pid, syscall.SIGKILL)
	if more, out := x.ends(); len(more) != 0 || out != "" {
		t.Errorf("%v, %q", more, out)
	}
}

// The command survives its connection, and not the server.
func TestCommandLivesOn(t *testing.T) {
	s, addr := serve(t, "ok")
	c := dial(t, addr)
	x := c.session()
	out, _ := x.StdoutPipe()
	if err := x.Start("echo $$; exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	c.disconnect()
	c.Wait()
	one(t, s)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the command is gone with its connection: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the command is still there: %v", err)
	}
}

func TestTerminal(t *testing.T) {
	master, slave, err := testserver.OpenTerminal(80, 24)
	if err != nil {
		t.Skipf("needs a pseudo-terminal, as Linux gives with /dev/pts mounted: %v", err)
	}
	closeFiles(master, slave)
	s, addr := serve(t, "ok")
	c := dial(t, addr)
	x := c.session()
	if err := x.RequestPty("xterm-test", 40, 132, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	in, _ := x.StdinPipe()
	out, _ := x.StdoutPipe()
	if err := x.Start("trap 'stty size; exit 5' WINCH; stty -echo; stty size; echo $TERM; test -t 0 && test -t 2 && echo tty; while read a; do echo got $a; done"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for _, want := range []string{"40 132", "xterm-test", "tty", "got one"} {
		line, err := lines.ReadString('\n')
		if strings.TrimRight(line, "\r\n") != want || err != nil {
			t.Fatalf("%q, %v, want %q", line, err, want)
		}
		if want == "tty" {
			io.WriteString(in, "one\n")
		}
	}
	x.WindowChange(50, 100)
	in.Write([]byte("\n")) // the shell may run the trap only when read has returned
	rest, _ := io.ReadAll(lines)
	if err := x.Wait(); !strings.Contains(string(rest), "50 100") || exitCode(err) != 5 {
		t.Errorf("%q, %v", rest, err)
	}
	c.Close()
	want := &Pty{Term: "xterm-test", Sizes: []Size{{132, 40}, {100, 50}}}
	if diff := cmp.Diff(want, one(t, s).Sessions[0].Pty); diff != "" {
		t.Error(diff)
	}
}

// The end of the connection hangs up a terminal.
func TestTerminalHangup(t *testing.T) {
	master, slave, err := testserver.OpenTerminal(80, 24)
	if err != nil {
		t.Skipf("needs a pseudo-terminal, as Linux gives with /dev/pts mounted: %v", err)
	}
	closeFiles(master, slave)
	s, addr := serve(t, "ok")
	c := dial(t, addr)
	x := c.session()
	file := filepath.Join(t.TempDir(), "hung-up")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	x.RequestPty("vt100", 24, 80, ssh.TerminalModes{})
	out, _ := x.StdoutPipe()
	if err := x.Start("trap 'echo yes >" + file + "; exit' HUP; echo up; while :; do sleep 1; done"); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(out).ReadString('\n')
	c.disconnect()
	c.Wait()
	if got, err := os.ReadFile(file); string(got) != "yes\n" {
		t.Errorf("%q, %v", got, err)
	}
	one(t, s)
}

func TestAnswer(t *testing.T) {
	s := &Server{Answer: func(e *Exec) transport.Status {
		in, _ := io.ReadAll(e.Stdin)
		fmt.Fprintf(e.Stdout, "%s ran %q with %q", e.User, e.Command, in)
		fmt.Fprint(e.Stderr, e.Env)
		if e.Command == "wait" {
			return transport.Status{Known: true, Signal: <-e.Signals}
		}
		return transport.Status{Known: e.Command != "unknown", Code: 4}
	}}
	addr := newServer(t, s)
	c := dial(t, addr)
	x := c.session()
	x.Setenv("A", "b")
	x.Stdin = strings.NewReader("input")
	var errs bytes.Buffer
	x.Stderr = &errs
	if out, err := x.Output("uptime"); string(out) != `ann ran "uptime" with "input"` || errs.String() != "[A=b]" || exitCode(err) != 4 {
		t.Errorf("%q, %q, %v", out, errs.String(), err)
	}
	if _, _, err := c.run("unknown"); !errors.As(err, new(*ssh.ExitMissingError)) {
		t.Errorf("%v", err)
	}
	x = c.session()
	x.Start("wait")
	x.Signal(ssh.SIGTERM)
	var exit *ssh.ExitError
	if err := x.Wait(); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("%v", err)
	}
}

// Every way to log in, and what is written down of it.
func TestAuthentication(t *testing.T) {
	key, other, ca := newKey(t), newKey(t), newKey(t)
	cert := certificate(t, ca, key, "ann", time.Now().Add(time.Hour))
	expired := certificate(t, ca, key, "ann", time.Now().Add(-time.Hour))
	foreign := certificate(t, ca, key, "bob", time.Now().Add(time.Hour))
	users := map[string]User{
		"ann": {
			Keys: []ssh.PublicKey{key.PublicKey()}, Password: "secret",
			Prompts: []Prompt{{Question: "Password: ", Answer: "secret"}, {Question: "Code: ", Answer: "123456", Echo: true}},
		},
		"two":  {Keys: []ssh.PublicKey{key.PublicKey()}, Password: "secret", Second: true},
		"cert": {CAs: []ssh.PublicKey{ca.PublicKey()}},
		"":     {Keys: []ssh.PublicKey{other.PublicKey()}},
	}
	users["ann2"] = users["cert"]
	users["otp"] = User{Prompts: users["ann"].Prompts, Keys: []ssh.PublicKey{key.PublicKey()}, Second: true}
	answers := func(questions int, all ...string) ssh.AuthMethod {
		return ssh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) {
			if len(q) != questions {
				t.Errorf("asked %q", q)
			}
			return all, nil
		})
	}
	for name, test := range map[string]struct {
		user    string
		methods []ssh.AuthMethod
		ok      bool
		want    []Attempt
	}{
		"key":            {"ann", []ssh.AuthMethod{ssh.PublicKeys(key)}, true, []Attempt{{"none", false}, {"publickey", true}}},
		"second key":     {"ann", []ssh.AuthMethod{ssh.PublicKeys(other, key)}, true, []Attempt{{"none", false}, {"publickey", false}, {"publickey", true}}},
		"wrong key":      {"ann", []ssh.AuthMethod{ssh.PublicKeys(other)}, false, []Attempt{{"none", false}, {"publickey", false}}},
		"anybody":        {"carol", []ssh.AuthMethod{ssh.PublicKeys(other)}, true, []Attempt{{"none", false}, {"publickey", true}}},
		"password":       {"ann", []ssh.AuthMethod{ssh.Password("secret")}, true, []Attempt{{"none", false}, {"password", true}}},
		"wrong password": {"ann", []ssh.AuthMethod{ssh.Password("guess")}, false, []Attempt{{"none", false}, {"password", false}}},
		"no password":    {"cert", []ssh.AuthMethod{ssh.Password("")}, false, []Attempt{{"none", false}, {"password", false}}},
		"prompts":        {"ann", []ssh.AuthMethod{answers(2, "secret", "123456")}, true, []Attempt{{"none", false}, {"keyboard-interactive", true}}},
		"wrong code":     {"ann", []ssh.AuthMethod{answers(2, "secret", "0")}, false, []Attempt{{"none", false}, {"keyboard-interactive", false}}},
		"key, password": {"two", []ssh.AuthMethod{ssh.PublicKeys(key), ssh.Password("secret")}, true,
			[]Attempt{{"none", false}, {"publickey", true}, {"password", true}}},
		"key, prompts": {"otp", []ssh.AuthMethod{ssh.PublicKeys(key), answers(2, "secret", "123456")}, true,
			[]Attempt{{"none", false}, {"publickey", true}, {"keyboard-interactive", true}}},
		"password alone of two": {"two", []ssh.AuthMethod{ssh.Password("secret")}, false, []Attempt{{"none", false}, {"password", false}}},
		"certificate":           {"cert", []ssh.AuthMethod{ssh.PublicKeys(certificate(t, ca, key, "cert", time.Now().Add(time.Hour)))}, true, []Attempt{{"none", false}, {"publickey", true}}},
		"foreign certificate":   {"ann2", []ssh.AuthMethod{ssh.PublicKeys(foreign)}, false, []Attempt{{"none", false}, {"publickey", false}}},
		"certificate for ann":   {"ann2", []ssh.AuthMethod{ssh.PublicKeys(cert)}, false, []Attempt{{"none", false}, {"publickey", false}}},
		"expired certificate":   {"cert", []ssh.AuthMethod{ssh.PublicKeys(expired)}, false, []Attempt{{"none", false}, {"publickey", false}}},
		"none":                  {"ann", nil, false, []Attempt{{"none", false}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Users: users}
			c, err := handshake(t, newServer(t, s), ssh.ClientConfig{User: test.user, Auth: test.methods})
			if (err == nil) != test.ok {
				t.Errorf("%v", err)
			}
			if err == nil {
				c.Close()
			}
			got := one(t, s)
			if diff := cmp.Diff(test.want, got.Attempts); diff != "" || got.LoggedIn != test.ok || got.User != test.user || got.ClientVersion == "" {
				t.Errorf("%+v\n%s", got, diff)
			}
		})
	}
}

func newKey(tb testing.TB) ssh.Signer {
	tb.Helper()
	k, err := NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func certificate(tb testing.TB, ca, key ssh.Signer, principal string, until time.Time) ssh.Signer {
	tb.Helper()
	c := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{principal}, ValidBefore: uint64(until.Unix()),
	}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(c, key)
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}

// Host keys of several types, the client's choice; the banner; the known_hosts line.
func TestHostKeys(t *testing.T) {
	one := newKey(t)
	ca := newKey(t)
	c := &ssh.Certificate{Key: one.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	cert, err := ssh.NewCertSigner(c, one)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{HostKeys: []ssh.Signer{one, cert}, Banner: "Welcome.\n"}
	addr := newServer(t, s)
	for _, algorithm := range []string{ssh.KeyAlgoED25519, ssh.CertAlgoED25519v01} {
		var seen, banner string
		got, err := handshake(t, addr, ssh.ClientConfig{
			HostKeyAlgorithms: []string{algorithm}, BannerCallback: func(m string) error { banner = m; return nil },
			HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error { seen = k.Type(); return nil },
		})
		if err != nil || seen != algorithm || banner != "Welcome.\n" {
			t.Errorf("%s: %v, %s, %q", algorithm, err, seen, banner)
			continue
		}
		got.Close()
	}
	line := KnownHosts(s.HostKey(), "[127.*]:22", "x")
	if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimPrefix(line, "[127.*]:22,x "))); err != nil || !bytes.Equal(key.Marshal(), one.PublicKey().Marshal()) {
		t.Errorf("%q: %v", line, err)
	}
}

// A jump host: two handshakes, one within the other; a dead target; many channels on one connection.
func TestForward(t *testing.T) {
	target, targetAddr := serve(t, "ok")
	jump, jumpAddr := serve(t, "ok")
	c := dial(t, jumpAddr)
	const n = 50
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			conn, err := c.Dial("tcp", targetAddr.String())
			if err != nil {
				t.Error(err)
				return
			}
			inner, channels, requests, err := ssh.NewClientConn(conn, "target", &ssh.ClientConfig{User: "bob", HostKeyCallback: ssh.FixedHostKey(target.HostKey())})
			if err != nil {
				t.Error(err)
				return
			}
			cl := &client{ssh.NewClient(inner, channels, requests), t, nil}
			if out, _, err := cl.run("echo $USER"); out != "bob\n" || err != nil {
				t.Errorf("%q, %v", out, err)
			}
			cl.disconnect()
			cl.Wait()
		})
	}
	all.Wait()
	until(t, jump, func(a Account) bool { return a.ForwardsNow == 0 })
	if a := jump.Account(); a.Connections != 1 || a.Forwards != n || a.Sessions != 0 {
		t.Errorf("jump host: %+v", a)
	}
	until(t, target, func(a Account) bool { return a.Now == 0 })
	if a := target.Account(); a.Connections != n || a.ServerFirst != n {
		t.Errorf("target: %+v", a)
	}
	_, nobody := serve(t, "refuse")
	if _, err := c.Dial("tcp", nobody.String()); err == nil || !strings.Contains(err.Error(), "connect failed") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
	c.Close()
	got := one(t, jump)
	if len(got.Forwards) != n+1 || got.Forwards[0] != targetAddr.String() {
		t.Errorf("%v", got.Forwards)
	}
}

// The client that closes the channel, not the connection, lets go of the target.
func TestForwardIsClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, addr := serve(t, "ok")
	c := dial(t, addr)
	conn, err := c.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	end, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	io.WriteString(conn, "to the target")
	conn.Close()
	if got, err := io.ReadAll(end); string(got) != "to the target" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	until(t, s, func(a Account) bool { return a.Forwards == 1 && a.ForwardsNow == 0 })
}

// A forwarded agent signs for a command on the host.
func TestAgent(t *testing.T) {
	if _, err := exec.LookPath("ssh-add"); err != nil {
		t.Skip("ssh-add is not installed: apt-get install openssh-client")
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private, Comment: "from afar"}); err != nil {
		t.Fatal(err)
	}
	s, addr := serve(t, "ok")
	c := dial(t, addr)
	if err := agent.ForwardToAgent(c.Client, ring); err != nil {
		t.Fatal(err)
	}
	x := c.session()
	if err := agent.RequestAgentForwarding(x); err != nil {
		t.Fatal(err)
	}
	if out, err := x.CombinedOutput("ssh-add -l"); !strings.Contains(string(out), "from afar") {
		t.Errorf("%q, %v", out, err)
	}
	c.Close()
	if got := one(t, s).Sessions; len(got) != 1 || !got[0].Agent {
		t.Errorf("%+v", got)
	}
}

// sshd's own client gets what it expects, and is let go first.
func TestOpenSSH(t *testing.T) {
	program, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("ssh is not installed: apt-get install openssh-client")
	}
	dir := t.TempDir()
	s := &Server{}
	addr := newServer(t, s)
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte(KnownHosts(s.HostKey(), fmt.Sprintf("[127.*]:%d", addr.Port()))), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-F", "none", "-o", "BatchMode=yes", "-o", "GlobalKnownHostsFile=none",
		"-o", "UserKnownHostsFile="+known, "-o", "StrictHostKeyChecking=yes", "-o", "IdentityAgent=none", "-p", strconv.Itoa(int(addr.Port())), "ann@127.0.0.1",
		"cat; echo $USER >&2; exit 9")
	cmd.Stdin = strings.NewReader("through OpenSSH\n")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if out.String() != "through OpenSSH\n" || errs.String() != "ann\n" || cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("%v: %q, %q", err, out.String(), errs.String())
	}
	if got := one(t, s); got.Disconnect != "11: disconnected by user" || !strings.HasPrefix(got.ClientVersion, "SSH-2.0-OpenSSH") {
		t.Errorf("%+v", got)
	}
}

func TestMaxSessions(t *testing.T) {
	s := &Server{MaxSessions: 2}
	c := dial(t, newServer(t, s))
	c.session()
	x := c.session()
	if _, err := c.NewSession(); err == nil || !strings.Contains(err.Error(), "open failed") {
		t.Errorf("%v", err)
	}
	x.Close()
	until(t, s, func(a Account) bool { return a.SessionsNow == 1 })
	c.session()
}

// What a client asks for that sshd does not have it refuses.
func TestRefusals(t *testing.T) {
	s, addr := serve(t, "ok")
	c := dial(t, addr)
	if ok, _, err := c.SendRequest("keepalive@openssh.com", true, nil); ok || err != nil {
		t.Errorf("keepalive: %v, %v", ok, err)
	}
	if ok, _, err := c.SendRequest("tcpip-forward", true, nil); ok || err != nil {
		t.Errorf("tcpip-forward: %v, %v", ok, err)
	}
	if _, _, err := c.OpenChannel("x11", nil); err == nil {
		t.Error("an x11 channel was opened")
	}
	if _, _, err := c.OpenChannel("direct-tcpip", []byte("bad")); err == nil {
		t.Error("a channel to nowhere was opened")
	}
	x := c.channel()
	for _, kind := range []string{"subsystem", "exec", "env", "pty-req", "nonsense"} {
		if ok, err := x.SendRequest(kind, true, []byte("bad")); ok || err != nil {
			t.Errorf("%s: %v, %v", kind, ok, err)
		}
	}
	if ok, err := x.exec("true"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if ok, err := x.exec("true"); ok {
		t.Errorf("a second command: %v, %v", ok, err)
	}
	if a := s.Account(); a.Keepalives != 1 {
		t.Errorf("%+v", a)
	}
}

// A client that does not get on is not served for ever.
func TestGrace(t *testing.T) {
	s := &Server{Grace: time.Millisecond}
	c := raw(t, newServer(t, s))
	if got, err := io.ReadAll(c); !strings.HasPrefix(string(got), "SSH-2.0-") || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	c.Close()
	if got := one(t, s); got.LoggedIn || got.First != ServerSide || !errors.Is(got.Err, os.ErrDeadlineExceeded) {
		t.Errorf("%+v", got)
	}
}

func TestShell(t *testing.T) {
	_, addr := serve(t, "ok")
	x := dial(t, addr).session()
	x.Stdin = strings.NewReader("echo from the shell; exit 2\n")
	var out bytes.Buffer
	x.Stdout = &out
	if err := x.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := x.Wait(); exitCode(err) != 2 || out.String() != "from the shell\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	s := &Server{Shell: "/nonexistent/sh"}
	if _, errs, err := dial(t, newServer(t, s)).run("true"); exitCode(err) != 1 || !strings.Contains(errs, "/nonexistent/sh: no such file") {
		t.Errorf("%v, %q", err, errs)
	}
}

// Server.Close cuts everything off, and nothing comes afterwards.
func TestCloseCutsOff(t *testing.T) {
	s, addr := serve(t, "ok")
	c := dial(t, addr)
	x := c.session()
	if err := x.Start("sleep 1000"); err != nil {
		t.Fatal(err)
	}
	half := raw(t, addr)
	until(t, s, func(a Account) bool { return a.Now == 2 && a.SessionsNow == 1 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := x.Wait(); err == nil {
		t.Error("the session ended well")
	}
	if _, err := io.ReadAll(half); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
	if _, err := s.Start("127.0.0.1:0"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
