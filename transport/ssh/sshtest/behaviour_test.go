//go:build unix

package sshtest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
)

// TestParseBehaviour: what is parsed prints as it was, what is wrong is said.
func TestParseBehaviour(t *testing.T) {
	for text, want := range map[string]string{
		"ok": "ok", "stall=kex": "stall=kex", "hang=status": "hang=status", "maxstartups": "maxstartups=0.3", "maxstartups=1": "maxstartups=1",
		"banner": "banner=Exceeded MaxStartups", "banner=a=b, c": "banner=a=b, c", "slow": "slow=1s", "huge=10M": "huge=10485760",
		"maxauthtries": "maxauthtries=2", "signal": "signal=KILL", "signal=TERM": "signal=TERM", "rekey=1k": "rekey=1024", "nocommon=mac": "nocommon=mac",
		"noopen": "noopen=prohibited", "status=twice": "status=twice", "background=0s": "background=0s",
	} {
		b, err := ParseBehaviour(text)
		if err != nil || b.String() != want || MustParseBehaviour(b.String()) != b {
			t.Errorf("%s: %v, %v", text, b, err)
		}
	}
	if (Behaviour{}).String() != "ok" {
		t.Errorf("the zero value is %v", Behaviour{})
	}
	for text, want := range map[string]string{
		"sulk": `no behaviour "sulk": it is one of ok, refuse,`, "ok=1": "takes no value", "stall": "needs a value: accept, version, kex,",
		"stall=tea": "the value is accept, version", "hang=accept": "the value is auth, open, exec, status", "maxstartups=2": "a number from 0 to 1",
		"maxstartups=NaN": "a number from 0 to 1", "huge=x": "a number of bytes", "maxauthtries=0": "1 or more", "drip=-1s": "a duration",
		"banner=a\nb": "one line", "signal=STOP": "the value is ABRT, ALRM,",
	} {
		if _, err := ParseBehaviour(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, d := range Behaviours() {
		name, _, _ := strings.Cut(strings.TrimSuffix(d.Name, "]"), "=")
		if _, err := ParseBehaviour(strings.TrimSuffix(name, "[")); err != nil && !strings.Contains(err.Error(), "needs a value") {
			t.Errorf("%s is listed and not known: %v", d.Name, err)
		}
	}
}

func FuzzParseBehaviour(f *testing.F) {
	for _, s := range specs {
		f.Add(s.Name)
		f.Add(s.Name + "=" + s.Preset)
		for _, c := range s.Choices {
			f.Add(s.Name + "=" + c)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBehaviour(text)
		if err != nil {
			return
		}
		if again, err := ParseBehaviour(b.String()); err != nil || again != b {
			t.Errorf("%q is %v and then %v, %v", text, b, again, err)
		}
	})
}

// TestVersionPhase shows what a client reads that says its version and no more.
func TestVersionPhase(t *testing.T) {
	const version, end, reset = serverVersion + "\r\n", false, true
	for behaviour, want := range map[string]struct {
		text string
		end  bool
	}{
		"close=accept":    {"", end},
		"reset=accept":    {"", reset},
		"garbage=accept":  {"\xfe\x13\x00SSH-0.0-\xff\xff\n\x7f\xee\xc0\xff\xee and not a packet", end},
		"close=version":   {version, end},
		"reset=version":   {version, reset},
		"garbage=version": {version + "\xfe\x13\x00SSH-0.0-\xff\xff\n\x7f\xee\xc0\xff\xee and not a packet", end},
		"banner":          {"Exceeded MaxStartups\r\n", end},
		"banner=no":       {"no\r\n", end},
		"maxstartups=1":   {"", reset},
	} {
		t.Run(behaviour, func(t *testing.T) {
			s, addr := serve(t, behaviour)
			var got []byte
			c, err := net.Dial("tcp", addr.String())
			if err == nil { // a reset may come while the client is still connecting
				_, late := io.WriteString(c, "SSH-2.0-client\r\n") // the error may come here, and is then gone
				got, err = io.ReadAll(c)
				err = cmp.Or(err, late)
				c.Close()
			}
			if string(got) != want.text || isReset(err) != want.end || err != nil && !want.end {
				t.Errorf("%q, %v", got, err)
			}
			if x := one(t, s); x.First != ServerSide || x.Err == nil || x.LoggedIn {
				t.Errorf("%+v", x)
			}
		})
	}
	t.Run("refuse", func(t *testing.T) {
		_, addr := serve(t, "refuse")
		if _, err := net.Dial("tcp", addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v", err)
		}
	})
	t.Run("refuse where another listens", func(t *testing.T) {
		s := &Server{Behave: func(netip.AddrPort) Behaviour { return MustParseBehaviour("refuse") }}
		c, err := net.Dial("tcp", newServer(t, s).String())
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v", err)
		}
	})
	t.Run("http", func(t *testing.T) {
		_, addr := serve(t, "http")
		c := raw(t, addr)
		io.WriteString(c, "SSH-2.0-client\r\n")
		if got, err := io.ReadAll(c); !strings.HasPrefix(string(got), "HTTP/1.1 400 Bad Request\r\n") || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("preface", func(t *testing.T) {
		_, addr := serve(t, "preface=No trespassing")
		c := raw(t, addr)
		got := make([]byte, len("No trespassing\r\n"+version))
		if _, err := io.ReadFull(c, got); string(got) != "No trespassing\r\n"+version || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if out, _, err := dial(t, addr).run("echo in"); out != "in\n" || err != nil {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("version", func(t *testing.T) {
		_, addr := serve(t, "version=SSH-1.5-old")
		c := raw(t, addr)
		got := make([]byte, len("SSH-1.5-old\r\n"))
		if _, err := io.ReadFull(c, got); string(got) != "SSH-1.5-old\r\n" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// isReset also knows the write that comes too late.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Of many connections their share is dropped, evenly.
func TestMaxStartups(t *testing.T) {
	s, addr := serve(t, "maxstartups=0.3")
	dropped := 0
	for range 100 {
		c, err := net.Dial("tcp", addr.String())
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err != nil {
			dropped++
		}
	}
	if dropped < 28 || dropped > 32 {
		t.Errorf("%d of 100 were dropped", dropped)
	}
	until(t, s, func(a Account) bool { return a.Now == 0 })
}

// TestHandshakes shows the client's error where no handshake comes to an end that the client likes.
func TestHandshakes(t *testing.T) {
	for behaviour, want := range map[string]string{
		"nocommon=kex":     "no common algorithm for key exchange",
		"nocommon=hostkey": "no common algorithm for host key",
		"nocommon=cipher":  "no common algorithm for client to server cipher",
		"nocommon=mac":     "no common algorithm for client to server MAC",
		"close=kex":        "EOF",
		"reset=kex":        "connection reset",
		"garbage=kex":      "",
		"hostkey=other":    "host key mismatch",
		"hostkey=forged":   "signature did not verify",
		"close=auth":       "EOF",
		"reset=auth":       "connection reset",
		"garbage=auth":     "",
		"denied":           "unable to authenticate",
		"maxauthtries=1":   "too many authentication failures",
	} {
		t.Run(behaviour, func(t *testing.T) {
			key, wrong := newKey(t), newKey(t)
			s := &Server{Behaviour: MustParseBehaviour(behaviour), Users: map[string]User{"": {Keys: []ssh.PublicKey{key.PublicKey()}}}}
			addr := newServer(t, s)
			c, err := handshake(t, addr, ssh.ClientConfig{
				HostKeyCallback: ssh.FixedHostKey(s.HostKey()), Auth: []ssh.AuthMethod{ssh.PublicKeys(wrong, key)},
			})
			if err == nil {
				c.Close()
				t.Fatal("the handshake was good")
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			if x := one(t, s); x.LoggedIn || x.Err == nil {
				t.Errorf("%+v", x)
			}
		})
	}
	t.Run("maxauthtries=2", func(t *testing.T) {
		key, wrong := newKey(t), newKey(t)
		s := &Server{Behaviour: MustParseBehaviour("maxauthtries=2"), Users: map[string]User{"": {Keys: []ssh.PublicKey{key.PublicKey()}}}}
		addr := newServer(t, s)
		c, err := handshake(t, addr, ssh.ClientConfig{Auth: []ssh.AuthMethod{ssh.PublicKeys(wrong, key)}})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if x := one(t, s); len(x.Offered) < 2 || x.Offered[0] != ssh.FingerprintSHA256(wrong.PublicKey()) || x.Offered[1] != ssh.FingerprintSHA256(key.PublicKey()) {
			t.Errorf("%v", x.Offered)
		}
	})
	t.Run("slow", func(t *testing.T) {
		_, addr := serve(t, "slow=10ms")
		start := time.Now()
		dial(t, addr)
		if took := time.Since(start); took < 30*time.Millisecond { // it can only be later
			t.Errorf("took %v", took)
		}
	})
	t.Run("rekey", func(t *testing.T) {
		_, addr := serve(t, "rekey=256")
		x := dial(t, addr).session()
		x.Stdin = bytes.NewReader(make([]byte, 100_000))
		if out, err := x.Output("cat"); len(out) != 100_000 || err != nil {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
}

// TestSessions shows what comes off the channel of one command.
func TestSessions(t *testing.T) {
	lines := strings.Repeat(strings.Repeat("x", 63)+"\n", 3) + strings.Repeat("x", 8)
	for _, test := range []struct{ behaviour, requests, out string }{
		{"ok", "[exit-status 3]", "hello\n"},
		{"status=none", "[]", "hello\n"},
		{"status=twice", "[exit-status 3 exit-status 4]", "hello\n"},
		{"status=early", "[exit-status 3]", "hello\n"},
		{"signal", "[exit-signal KILL]", "hello\n"},
		{"signal=SEGV", "[exit-signal SEGV]", "hello\n"},
		{"background=1ms", "[exit-status 3]", "hello\n"},
		{"lull=1ms", "[exit-status 3]", "hello\n"},
		{"drip=10us", "[exit-status 3]", "hello\n"},
		{"huge=200", "[exit-status 3]", lines + "hello\n"},
		{"noinput", "[exit-status 3]", "hello\n"},
		{"nosignal", "[exit-status 3]", "hello\n"},
		{"nokeepalive", "[exit-status 3]", "hello\n"},
		{"noforward", "[exit-status 3]", "hello\n"},
		{"close=end", "[exit-status 3]", "hello\n"},
		{"close=output", "[]", "hel"},
		{"close=status", "[]", "hello\n"},
		{"reset=status", "[]", "hello\n"},
		{"reset=output", "[]", "hel"},
		{"garbage=output", "[]", "hel"},
		{"close=exec", "[]", ""},
	} {
		for _, answered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s answered %v", test.behaviour, answered), func(t *testing.T) {
				s := &Server{Behaviour: MustParseBehaviour(test.behaviour)}
				if answered {
					s.Answer = hello
				}
				addr := newServer(t, s)
				x := dial(t, addr).channel()
				ok, err := x.exec("echo hello; exit 3")
				if !ok && test.out != "" {
					t.Fatal(ok, err)
				}
				if requests, out := x.ends(); fmt.Sprint(requests) != test.requests || out != test.out {
					t.Errorf("%v, %q", requests, out)
				}
			})
		}
	}
}

func hello(e *Exec) transport.Status {
	io.WriteString(e.Stdout, "hello\n")
	return transport.Status{Known: true, Code: 3}
}

// The status is there while not a byte of the output is.
func TestEarlyStatus(t *testing.T) {
	_, addr := serve(t, "status=early")
	x := dial(t, addr).channel()
	x.exec("head -c 3000000 /dev/zero") // more than the window: were it sent before, the command would not have ended
	if r := <-x.requests; x.name(r) != "exit-status 0" {
		t.Errorf("%s", x.name(r))
	}
	if _, out := x.ends(); len(out) != 3_000_000 {
		t.Errorf("%d bytes", len(out))
	}
}

// The output is there while the reply is not.
func TestEarlyData(t *testing.T) {
	_, addr := serve(t, "earlydata")
	x := dial(t, addr).channel()
	if ok, err := x.SendRequest("exec", false, ssh.Marshal(struct{ Line string }{"echo early"})); ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, out := x.ends(); out != "early\n" {
		t.Errorf("%q", out)
	}
	if out, _, err := dial(t, addr).run("echo early"); out != "early\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// Steps that are refused say why, and the connection goes on.
func TestRefusedSteps(t *testing.T) {
	for behaviour, want := range map[string]string{
		"noopen": "administratively prohibited", "noopen=connect": "connect failed", "noopen=type": "unknown channel type", "noopen=shortage": "resource shortage",
	} {
		_, addr := serve(t, behaviour)
		if _, err := dial(t, addr).NewSession(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", behaviour, err)
		}
	}
	_, addr := serve(t, "noexec")
	if ok, err := dial(t, addr).channel().exec("true"); ok || err != nil {
		t.Errorf("noexec: %v, %v", ok, err)
	}
	_, addr = serve(t, "noforward")
	if _, err := dial(t, addr).Dial("tcp", addr.String()); err == nil || !strings.Contains(err.Error(), "administratively prohibited") {
		t.Errorf("noforward: %v", err)
	}
}

// alive is a keepalive that is answered.
func (c *client) alive() {
	c.tb.Helper()
	if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		c.tb.Errorf("keepalive: %v", err)
	}
}

// A step that hangs leaves the connection alive; the server still closes first.
func TestHang(t *testing.T) {
	for _, behaviour := range []string{"hang=open", "hang=exec", "hang=status"} {
		t.Run(behaviour, func(t *testing.T) {
			s, addr := serve(t, behaviour)
			c := dial(t, addr)
			answered := make(chan struct{})
			go func() { // ends when the connection does
				defer close(answered)
				if x, requests, err := c.OpenChannel("session", nil); err == nil {
					go ssh.DiscardRequests(requests)
					x.SendRequest("exec", true, ssh.Marshal(struct{ Line string }{"echo out"}))
					io.ReadAll(x)
				}
			}()
			if behaviour != "hang=open" {
				until(t, s, func(a Account) bool { return a.SessionsNow == 1 })
			}
			c.alive()
			select {
			case <-answered:
				t.Error("it was answered")
			default:
			}
			c.disconnect()
			c.Wait()
			<-answered
			if x := one(t, s); x.First != ServerSide || x.Disconnect == "" {
				t.Errorf("%+v", x)
			}
		})
	}
	t.Run("hang=auth", func(t *testing.T) {
		s, addr := serve(t, "hang=auth")
		conn := raw(t, addr)
		done := make(chan error, 1)
		asked := make(chan struct{})
		go func() {
			_, _, _, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{User: "ann", HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error {
				close(asked)
				return nil
			}})
			done <- err
		}()
		<-asked
		conn.CloseWrite()
		if err := <-done; err == nil {
			t.Error("it was answered")
		}
		if x := one(t, s); x.LoggedIn || x.First != ClientSide || x.End != io.EOF {
			t.Errorf("%+v", x)
		}
	})
}

// A server that stalls ends nothing by itself: the end comes after the client's, as a reset.
func TestStall(t *testing.T) {
	for _, phase := range Phases() {
		t.Run(string(phase), func(t *testing.T) {
			s, addr := serve(t, "stall="+string(phase))
			conn := raw(t, addr)
			conn.SetDeadline(time.Time{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, channels, requests, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{User: "ann", HostKeyCallback: ssh.InsecureIgnoreHostKey()})
				if err != nil {
					return
				}
				cl := ssh.NewClient(c, channels, requests)
				defer cl.Close()
				x, requests, err := cl.OpenChannel("session", nil)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				x.SendRequest("exec", true, ssh.Marshal(struct{ Line string }{"echo hello"}))
				io.ReadAll(x)
				cl.Wait()
			}()
			until(t, s, func(a Account) bool { return a.Stalled == 1 })
			select {
			case <-done:
				t.Error("the connection is over before the client has closed")
			default:
			}
			conn.CloseWrite()
			<-done
			x := one(t, s)
			if x.First != ClientSide || x.End != io.EOF {
				t.Errorf("%+v", x)
			}
			if letIn := phase != PhaseAccept && phase != PhaseVersion && phase != PhaseKex && phase != PhaseAuth; x.LoggedIn != letIn {
				t.Errorf("logged in: %v", x.LoggedIn)
			}
		})
	}
	t.Run("client resets", func(t *testing.T) {
		s, addr := serve(t, "stall=version")
		c := raw(t, addr)
		io.WriteString(c, "SSH-2.0-client\r\n")
		until(t, s, func(a Account) bool { return a.Stalled == 1 })
		c.SetLinger(0)
		c.Close()
		if x := one(t, s); x.First != ClientSide || !errors.Is(x.End, syscall.ECONNRESET) {
			t.Errorf("%+v", x)
		}
	})
}

// A server that never closes keeps its end when the client has said goodbye, and even when it has closed.
func TestNeverClose(t *testing.T) {
	s, addr := serve(t, "neverclose")
	c := dial(t, addr)
	if out, _, err := c.run("echo hello"); out != "hello\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	c.disconnect()
	c.tcp.CloseWrite()
	until(t, s, func(a Account) bool { return a.SessionsNow == 0 })
	c.tcp.SetReadDeadline(time.Unix(1, 0)) // whatever has come by now
	if _, err := c.tcp.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		t.Error("the server has closed")
	}
	if a := s.Account(); a.Now != 1 {
		t.Errorf("%+v", a)
	}
	c.Close()
	if a := s.Account(); a.Now != 1 {
		t.Errorf("%+v", a)
	}
}

// What is sent to a server that does not read fills its window and goes no further.
func TestNoInput(t *testing.T) {
	const window = 64 << 15 // of x/crypto
	s, addr := serve(t, "noinput")
	c := dial(t, addr)
	x := c.channel()
	if ok, err := x.exec("cat"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if n, err := x.Write(make([]byte, window)); n != window || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	stuck := make(chan error, 1)
	go func() {
		_, err := x.Write([]byte("x"))
		stuck <- err
	}()
	c.alive()
	c.alive()
	select {
	case err := <-stuck:
		t.Errorf("one byte more went through: %v", err)
	default:
	}
	c.disconnect()
	c.Wait()
	if err := <-stuck; err == nil {
		t.Error("one byte more went through")
	}
	if got := one(t, s).Sessions[0]; got.Input != 0 {
		t.Errorf("%+v", got)
	}
}

func TestNoSignal(t *testing.T) {
	s, addr := serve(t, "nosignal")
	c := dial(t, addr)
	x := c.session()
	in, _ := x.StdinPipe()
	if err := x.Start("read a; exit 6"); err != nil {
		t.Fatal(err)
	}
	x.Signal(ssh.SIGKILL)
	io.WriteString(in, "\n")
	if err := x.Wait(); exitCode(err) != 6 {
		t.Errorf("%v", err)
	}
	c.Close()
	if got := one(t, s).Sessions[0].Signals; len(got) != 1 || got[0] != "KILL" {
		t.Errorf("%v", got)
	}
}

func TestNoKeepalive(t *testing.T) {
	s, addr := serve(t, "nokeepalive")
	c := dial(t, addr)
	answered := make(chan error, 1)
	go func() {
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		answered <- err
	}()
	until(t, s, func(a Account) bool { return a.Keepalives == 1 })
	if out, _, err := c.run("echo alive"); out != "alive\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	select {
	case err := <-answered:
		t.Errorf("it was answered: %v", err)
	default:
	}
	c.Close()
	<-answered
}

// A flood ends with the client.
func TestFlood(t *testing.T) {
	s, addr := serve(t, "flood")
	c := dial(t, addr)
	x := c.channel()
	if ok, err := x.exec("true"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if n, err := io.CopyN(io.Discard, x, 20<<20); n != 20<<20 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	c.disconnect()
	c.Wait()
	one(t, s)
}

// The child of background holds the channel for its time, and the client may leave before.
func TestBackground(t *testing.T) {
	s, addr := serve(t, "background")
	c := dial(t, addr)
	x := c.channel()
	x.exec("echo hello")
	got := make([]byte, 6)
	if _, err := io.ReadFull(x, got); string(got) != "hello\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if r := <-x.requests; x.name(r) != "exit-status 0" {
		t.Errorf("%s", x.name(r))
	}
	c.alive()
	select {
	case r := <-x.requests:
		t.Errorf("the channel has ended, or %v", r)
	default:
	}
	x.Close()
	until(t, s, func(a Account) bool { return a.SessionsNow == 0 })
}
