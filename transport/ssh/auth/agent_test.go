package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// behaving is an agent of one key that signs as a test says.
type behaving struct {
	agent.ExtendedAgent
	sign func(ssh.PublicKey, []byte, agent.SignatureFlags) (*ssh.Signature, error)
}

func (b behaving) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	return b.sign(key, data, flags)
}

func (b behaving) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	return b.sign(key, data, 0)
}

// keyring is an agent with a new key of a kind.
func keyring(t testing.TB, kind string) (agent.ExtendedAgent, ssh.PublicKey) {
	t.Helper()
	var private any
	var err error
	if kind == "rsa" {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring().(agent.ExtendedAgent)
	if err := keys.Add(agent.AddedKey{PrivateKey: private, Comment: kind}); err != nil {
		t.Fatal(err)
	}
	list, err := keys.List()
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.ParsePublicKey(list[0].Blob)
	if err != nil {
		t.Fatal(err)
	}
	return keys, public
}

// Hundreds of hosts at once get their signatures over one connection to the real ssh-agent.
func TestManyHostsOneAgent(t *testing.T) {
	tool(t, "ssh-agent")
	path := filepath.Join(t.TempDir(), "key")
	public := keyFile(t, path)
	socket := realAgent(t, path)
	var connections atomic.Int32
	w := wallet(t, Options{NewAgent: func(socket string) (net.Conn, error) {
		connections.Add(1)
		return net.Dial("unix", socket)
	}})
	h := newHost(t, func(h *host) { h.takeKeys(public) })
	p := user("h")
	p.AgentSocket = socket
	if err := w.Prepare(t.Context(), []Profile{p}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 300 {
		all.Go(func() {
			if err := login(t.Context(), w, p, h); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections to the agent", n)
	}
}

// An RSA key signs with SHA-2, by the agent and by a file, as the server allows.
func TestRSA(t *testing.T) {
	keys, public := keyring(t, "rsa")
	socket, _ := serveAgent(t, keys)
	for _, test := range []struct {
		server, ours []string
		ok           bool
	}{
		{server: []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}, ok: true},
		{server: []string{ssh.KeyAlgoRSASHA256}, ok: true},
		{server: []string{ssh.KeyAlgoRSA}, ok: false},
		{server: []string{ssh.KeyAlgoRSA}, ours: []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSA}, ok: true}, // --legacy
		{server: []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSA}, ours: []string{"rsa-sha2-*"}, ok: true},
		{server: []string{ssh.KeyAlgoED25519}, ours: []string{"ssh-ed25519"}, ok: false},
	} {
		h := newHost(t, func(h *host) { h.takeKeys(public); h.PublicKeyAuthAlgorithms = test.server })
		p := user("h")
		p.AgentSocket, p.PubkeyAlgorithms = socket, test.ours
		err := login(t.Context(), wallet(t, Options{}), p, h)
		if ok := err == nil; ok != test.ok {
			t.Errorf("server %v, ours %v: %v", test.server, test.ours, err)
		}
		if test.server[0] == ssh.KeyAlgoRSA && !test.ok && !strings.Contains(err.Error(), "takes no signature algorithm but ssh-rsa: --legacy") {
			t.Error(err)
		}
	}
}

// What an agent does wrong is said with its name, and costs its keys, not the host.
func TestAgentMisbehaves(t *testing.T) {
	keys, public := keyring(t, "ed25519")
	rsaKeys, rsaPublic := keyring(t, "rsa")
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherSigner, err := ssh.NewSignerFromKey(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		serve func(net.Conn)
		dial  error
		want  string
		rsa   bool
	}{
		{name: "not there", dial: syscall.ECONNREFUSED, want: "the ssh-agent at SOCKET cannot be reached (connection refused): start one and ssh-add the key, or unset SSH_AUTH_SOCK"},
		{name: "gone at once", serve: func(c net.Conn) {}, want: "the ssh-agent at SOCKET has gone ("},
		{name: "no agent", serve: func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); c.Read(make([]byte, 99)) },
			want: "the ssh-agent at SOCKET does not list its keys (agent: client error: response too large): is it one?"},
		{name: "will not list", serve: func(c net.Conn) {
			for {
				if _, err := c.Read(make([]byte, 5)); err != nil {
					return
				}
				c.Write([]byte{0, 0, 0, 1, 5})
			}
		}, want: "the ssh-agent at SOCKET does not list its keys (agent: failed to list keys): is it one?"},
		{name: "refuses", serve: signing(keys, func(ssh.PublicKey, []byte, agent.SignatureFlags) (*ssh.Signature, error) {
			return nil, errors.New("no")
		}), want: "was accepted but could not sign: the ssh-agent at SOCKET refused to sign with it"},
		{name: "wrong signature", serve: signing(keys, func(_ ssh.PublicKey, data []byte, _ agent.SignatureFlags) (*ssh.Signature, error) {
			return otherSigner.Sign(rand.Reader, data)
		}), want: "was accepted but could not sign: the ssh-agent at SOCKET made a wrong signature: restart it"},
		{name: "ignores flags", rsa: true, serve: signing(rsaKeys, func(key ssh.PublicKey, data []byte, _ agent.SignatureFlags) (*ssh.Signature, error) {
			return rsaKeys.SignWithFlags(key, data, 0)
		}), want: `the ssh-agent at SOCKET answered with a "ssh-rsa" signature where "rsa-sha2-512" was asked for`},
		{name: "dies on signing", serve: func(c net.Conn) {
			signing(keys, func(ssh.PublicKey, []byte, agent.SignatureFlags) (*ssh.Signature, error) {
				c.Close()
				return nil, errors.New("gone")
			})(c)
		}, want: "the ssh-agent at SOCKET has gone (EOF): start it again, or name the keys' files with -i"},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := "/run/nothing"
			if test.serve != nil {
				socket = listen(t, test.serve)
			}
			dial := func(socket string) (net.Conn, error) {
				if test.dial != nil {
					return nil, &net.OpError{Op: "dial", Err: test.dial}
				}
				return net.Dial("unix", socket)
			}
			w := wallet(t, Options{NewAgent: dial})
			p := user("h")
			p.AgentSocket = socket
			h := newHost(t, func(h *host) {
				h.takeKeys(public, rsaPublic)
				h.PublicKeyAuthAlgorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA512}
			})
			err := login(t.Context(), w, p, h)
			if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(test.want, "SOCKET", socket)) {
				t.Errorf("got  %v\nwant %s", err, strings.ReplaceAll(test.want, "SOCKET", socket))
			}

			// A file lets us in all the same.
			path := filepath.Join(t.TempDir(), "file")
			h.takeKeys(public, rsaPublic, keyFile(t, path))
			p.IdentityFiles = []string{path}
			for range 2 {
				if err := login(t.Context(), w, p, h); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// signing serves an agent that signs so.
func signing(keys agent.ExtendedAgent, sign func(ssh.PublicKey, []byte, agent.SignatureFlags) (*ssh.Signature, error)) func(net.Conn) {
	return func(c net.Conn) { agent.ServeAgent(behaving{keys, sign}, c) }
}

// When the agent dies under many hosts, each of them says so, those that come later too, and a key that is in a file as well
// signs from there.
func TestAgentDiesInMidRun(t *testing.T) {
	const hosts = 40
	path := filepath.Join(t.TempDir(), "both")
	public := keyFile(t, path)
	keys, alone := keyring(t, "ed25519")
	both, err := ssh.ParseRawPrivateKey(text(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: both}); err != nil {
		t.Fatal(err)
	}
	die := make(chan struct{})
	socket := listen(t, func(c net.Conn) {
		signing(keys, func(ssh.PublicKey, []byte, agent.SignatureFlags) (*ssh.Signature, error) {
			<-die
			c.Close()
			return nil, errors.New("dead")
		})(c)
	})
	w := wallet(t, Options{})
	var offered sync.WaitGroup
	offered.Add(hosts)
	h := newHost(t, func(h *host) {
		h.takeKeys(alone)
		h.PublicKeyCallback = func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if same(key, alone) {
				offered.Done()
			}
			return h.takeKey(c, key)
		}
	})
	p := user("h")
	p.AgentSocket = socket
	if err := w.Prepare(t.Context(), []Profile{p}); err != nil {
		t.Fatal(err)
	}
	want := "the ssh-agent at " + socket + " has gone"
	var all sync.WaitGroup
	for range hosts {
		all.Go(func() {
			if err := login(t.Context(), w, p, h); err == nil || strings.Count(err.Error(), want) == 0 {
				t.Error(err)
			}
		})
	}
	offered.Wait()
	close(die)
	all.Wait()
	if err := login(t.Context(), w, p, h); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("later: %v", err)
	}
	h.takeKeys(public)
	p.IdentityFiles = []string{path}
	if err := login(t.Context(), w, p, h); err != nil {
		t.Errorf("with the file: %v", err)
	}
}

func text(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// An agent that owes answers and gives none is given up, and nobody hangs.
func TestSilentAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		w := New(Options{NewAgent: func(string) (net.Conn, error) { return ours, nil }})
		go io.Copy(io.Discard, theirs)
		p := user("h")
		p.AgentSocket = "S"
		began := time.Now()
		if err := w.Prepare(t.Context(), []Profile{p}); err != nil {
			t.Fatal(err)
		}
		want := []string{"the ssh-agent at S has not answered for 15s: restart it"}
		if got := w.Warnings(); fmt.Sprint(got) != fmt.Sprint(want) || time.Since(began) != listPatience {
			t.Errorf("after %v: %q", time.Since(began), got)
		}
		w.Close()
		theirs.Close()
	})
}

// A caller whose time is over does not wait for the agent, and one that asks later still gets its answer.
func TestSlowAgent(t *testing.T) {
	keys, public := keyring(t, "ed25519")
	synctest.Test(t, func(t *testing.T) {
		pipe, theirs := net.Pipe()
		ours := roomy{pipe, make(chan []byte, 2*pipelined)}
		var served sync.WaitGroup
		served.Go(func() {
			for p := range ours.out {
				pipe.Write(p)
			}
		})
		touched := make(chan struct{})
		served.Go(func() {
			signing(keys, func(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
				<-touched
				return keys.SignWithFlags(key, data, flags)
			})(theirs)
		})
		w := New(Options{NewAgent: func(string) (net.Conn, error) { return ours, nil }})
		a, err := w.agent(t.Context(), "S")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, errors.New("the time is over"))
		defer cancel()
		_, err = a.sign(ctx, public, []byte("data"), ssh.KeyAlgoED25519)
		if want := "the ssh-agent at S has not answered yet (the time is over): is somebody to confirm or touch a key?"; err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}

		// 40 more, of which 31 are on the wire; every answer is progress, however long they take together.
		go func() {
			for range 41 {
				time.Sleep(signPatience - time.Second - 10*time.Second)
				touched <- struct{}{}
			}
		}()
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				if _, err := a.sign(t.Context(), public, []byte("data"), ssh.KeyAlgoED25519); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()

		// And then it is silent for good.
		if _, err = a.sign(t.Context(), public, []byte("data"), ssh.KeyAlgoED25519); err == nil || err.Error() != "the ssh-agent at S has not answered for 1m0s: restart it" {
			t.Errorf("got %v", err)
		}
		if _, again := a.sign(t.Context(), public, []byte("data"), ssh.KeyAlgoED25519); again != err {
			t.Errorf("then %v", again)
		}
		close(touched)
		w.Close()
		close(ours.out)
		theirs.Close()
		served.Wait()
	})
}

// roomy is a pipe with a socket's buffer: a goroutine that waits for a lock, and not for the pipe, would stop the bubble's clock.
type roomy struct {
	net.Conn
	out chan []byte
}

func (c roomy) Write(p []byte) (int, error) {
	c.out <- slices.Clone(p)
	return len(p), nil
}

// Close ends the goroutines even of an agent that answers what nobody asked.
func TestCloseAnsweredUnasked(t *testing.T) {
	keys, _ := keyring(t, "ed25519")
	said := make(chan struct{})
	socket := listen(t, func(c net.Conn) {
		served := readOnce{Conn: c, said: said}
		agent.ServeAgent(keys, &served)
	})
	w := New(Options{})
	if _, err := w.agent(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	<-said
	w.Close()
}

// readOnce is a connection whose server, once it has answered, answers again unasked.
type readOnce struct {
	net.Conn
	once sync.Once
	said chan struct{}
}

func (c *readOnce) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n >= 5 || len(p) > 5 {
		c.once.Do(func() { c.Conn.Write([]byte{0, 0, 0, 1, 5}); close(c.said) })
	}
	return n, err
}

// A socket whose backlog is full for a moment is tried again.
func TestAgentBusy(t *testing.T) {
	keys, _ := keyring(t, "ed25519")
	socket, connections := serveAgent(t, keys)
	tries := 0
	w := wallet(t, Options{NewAgent: func(socket string) (net.Conn, error) {
		if tries++; tries < 4 {
			return nil, &net.OpError{Op: "dial", Err: syscall.EAGAIN}
		}
		return net.Dial("unix", socket)
	}})
	a, err := w.agent(t.Context(), socket)
	if err != nil || a.lost() != nil || len(a.keys) != 1 || connections() != 1 {
		t.Errorf("%v, %v, %d keys, %d connections", err, a.lost(), len(a.keys), connections())
	}
}

// Signatures a second through the wallet, and of x/crypto's client alone, over one connection to the real ssh-agent.
func BenchmarkSignatures(b *testing.B) {
	tool(b, "ssh-agent")
	path := filepath.Join(b.TempDir(), "key")
	public := keyFile(b, path)
	socket := realAgent(b, path)
	data := make([]byte, 200)
	b.Run("wallet", func(b *testing.B) {
		w := wallet(b, Options{})
		a, err := w.agent(b.Context(), socket)
		if err != nil {
			b.Fatal(err)
		}
		inParallel(b, func() error {
			_, err := a.sign(b.Context(), public, data, ssh.KeyAlgoED25519)
			return err
		})
	})
	b.Run("bare", func(b *testing.B) {
		c, err := net.Dial("unix", socket)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		client := agent.NewClient(c)
		inParallel(b, func() error {
			_, err := client.Sign(public, data)
			return err
		})
	})
}

func inParallel(b *testing.B, sign func() error) {
	b.SetParallelism(100)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := sign(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
}
