package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is an in-process SSH server that lets one thing in and remembers what it was asked.
type host struct {
	ssh.ServerConfig
	addr string

	mu    sync.Mutex
	keys  []ssh.PublicKey     // that it lets in
	names map[string]string   // what a test calls a key, by its wire form
	conns map[string]net.Conn // by the client's address
	seen  []string            // keys and answers, in the order in which they came
}

// newHost serves logins until the test ends. configure may be nil: then nothing is let in, by any key.
func newHost(t testing.TB, configure func(*host)) *host {
	t.Helper()
	h := &host{names: map[string]string{}, conns: map[string]net.Conn{}}
	h.MaxAuthTries = -1
	h.AddHostKey(newKey(t))
	h.PublicKeyCallback = h.takeKey
	if configure != nil {
		configure(h)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns[c.RemoteAddr().String()] = c
			h.mu.Unlock()
			serving.Go(func() {
				defer c.Close()
				conn, channels, requests, err := ssh.NewServerConn(c, &h.ServerConfig)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				for ch := range channels {
					ch.Reject(ssh.Prohibited, "")
				}
				conn.Wait()
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return h
}

// takeKeys lets these keys in, from now on.
func (h *host) takeKeys(keys ...ssh.PublicKey) {
	h.mu.Lock()
	h.keys = keys
	h.mu.Unlock()
}

func (h *host) takeKey(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	h.saw(h.name(key))
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.ContainsFunc(h.keys, func(k ssh.PublicKey) bool { return same(k, key) }) {
		return nil, nil
	}
	return nil, errors.New("not this one")
}

// takePassword lets a password in, by the method of its name.
func (h *host) takePassword(password string) {
	h.PasswordCallback = func(_ ssh.ConnMetadata, got []byte) (*ssh.Permissions, error) {
		h.saw("password " + string(got))
		if string(got) != password {
			return nil, errors.New("wrong")
		}
		return nil, nil
	}
}

// ask has keyboard-interactive ask hidden questions and let the right answers in.
func (h *host) ask(questions []string, answers ...string) {
	h.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, challenge ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
		for i, q := range questions {
			got, err := challenge("", "", []string{q}, []bool{false})
			if err != nil {
				return nil, err
			}
			h.saw(q + got[0])
			if got[0] != answers[i] {
				return nil, errors.New("wrong")
			}
		}
		return nil, nil
	}
}

func (h *host) call(name string, key ssh.PublicKey) {
	h.mu.Lock()
	h.names[string(key.Marshal())] = name
	h.mu.Unlock()
}

func (h *host) name(key ssh.PublicKey) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name, ok := h.names[string(key.Marshal())]; ok {
		return name
	}
	return ssh.FingerprintSHA256(key)
}

func (h *host) saw(what string) {
	h.mu.Lock()
	h.seen = append(h.seen, what)
	h.mu.Unlock()
}

// took gives what was seen since it was called last.
func (h *host) took() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := h.seen
	h.seen = nil
	return seen
}

// login logs in once, as the core does.
func login(ctx context.Context, w *Wallet, p Profile, h *host) error {
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	a := w.Attempt(ctx, p)
	conn, channels, requests, err := ssh.NewClientConn(c, h.addr, &ssh.ClientConfig{
		User: p.User, AuthCallback: a.Next, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return a.Failed(err)
	}
	a.Succeeded()
	go ssh.DiscardRequests(requests)
	conn.Close()
	for range channels {
	}
	conn.Wait()
	return nil
}

// wallet makes a Wallet that is closed when the test ends.
func wallet(t testing.TB, o Options) *Wallet {
	w := New(o)
	t.Cleanup(func() { w.Close() })
	return w
}

// user is a profile that allows everything and has nothing.
func user(host string) Profile {
	return Profile{User: "ann", Host: host, Pubkey: true, Password: true, Keyboard: true}
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// keyFile writes a new identity file and its .pub, and gives its public key.
func keyFile(t testing.TB, path string) ssh.PublicKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, pem.EncodeToMemory(block), 0o600)
	write(t, path+".pub", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o644)
	return signer.PublicKey()
}

func write(t testing.TB, path string, text []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
}

// serveAgent serves an agent on a socket until the test ends, and counts its connections.
func serveAgent(t testing.TB, keys agent.Agent) (socket string, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	socket = listen(t, func(c net.Conn) {
		mu.Lock()
		n++
		mu.Unlock()
		agent.ServeAgent(keys, c)
	})
	return socket, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// listen serves a unix socket until the test ends.
func listen(t testing.TB, serve func(net.Conn)) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			serving.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return socket
}

// tool finds one of OpenSSH's programs.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (%v): apt-get install openssh-client", name, err)
	}
	return path
}

// run runs a program without the caller's agent and home.
func run(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tool(t, name), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// realAgent starts ssh-agent(1), adds keys and stops it when the test ends.
func realAgent(t testing.TB, files ...string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a unix socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	cmd := exec.Command(tool(t, "ssh-agent"), "-D", "-a", socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	// It says where it listens when it does.
	if _, err := out.Read(make([]byte, 512)); err != nil {
		t.Fatalf("ssh-agent: %v", err)
	}
	for _, f := range files {
		run(t, []string{"SSH_AUTH_SOCK=" + socket}, "ssh-add", "-q", f)
	}
	return socket
}

// The keys go out in the order in which ssh itself offers them.
func TestOrder(t *testing.T) {
	tool(t, "ssh")
	dir := t.TempDir()
	h := newHost(t, nil)
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"ca", "a", "b", "c", "agent1", "agent2", "pubonly", "hidden", "certified", "certagent", "twin"} {
		h.call(name, keyFile(t, path(name)))
	}
	for _, name := range []string{"certified", "certagent"} {
		run(t, nil, "ssh-keygen", "-q", "-s", path("ca"), "-I", name, "-n", "ann", path(name+".pub"))
		h.call(name+"-cert", readCertificate(path(name+"-cert.pub")).cert)
	}
	socket := realAgent(t, path("agent1"), path("b"), path("pubonly"), path("agent2"), path("certagent"))
	// Not beside their private half any more, or never.
	for _, name := range []string{"pubonly", "certagent"} {
		if err := os.Remove(path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path("hidden.pub")); err != nil {
		t.Fatal(err)
	}
	twin, err := os.ReadFile(path("a"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, path("twin"), twin, 0o600)
	write(t, path("open"), twin, 0o644)

	for _, test := range []struct {
		name  string
		files []string
		certs []string
		only  bool
		agent bool
	}{
		{name: "files", files: []string{"c", "a", "hidden"}},
		{name: "agent alone", agent: true, files: []string{"nothing"}},
		{name: "files in the agent first", files: []string{"a", "b", "c"}, agent: true},
		{name: "the agent's order", files: []string{"pubonly.pub", "b", "a"}, agent: true},
		{name: "identities only", files: []string{"c", "b", "a"}, only: true, agent: true},
		{name: "a .pub selects", files: []string{"agent2.pub"}, only: true, agent: true},
		{name: "a missing private half", files: []string{"pubonly"}, only: true, agent: true},
		{name: "certificate beside a file", files: []string{"c", "certified", "a"}},
		{name: "certificate beside, agent", files: []string{"certified", "b"}, agent: true},
		{name: "certificate of the agent", files: []string{"certagent", "a"}, only: true, agent: true},
		{name: "certificate named", files: []string{"c", "certified"}, certs: []string{"certified-cert.pub"}},
		{name: "certificates named", files: []string{"certified", "a"}, certs: []string{"certagent-cert.pub", "certified-cert.pub"}, agent: true},
		{name: "certificate named, identities only", files: []string{"a"}, certs: []string{"certagent-cert.pub"}, agent: true, only: true},
		{name: "missing and too open", files: []string{"nothing", "open", "a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := []string{"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
				"-o", "PreferredAuthentications=publickey", "-o", fmt.Sprintf("IdentitiesOnly=%v", map[bool]string{true: "yes", false: "no"}[test.only])}
			p := user("h")
			p.IdentitiesOnly = test.only
			for _, f := range test.files {
				args = append(args, "-o", "IdentityFile="+path(f)) // -i leaves out what is missing, even if an agent has it
				p.IdentityFiles = append(p.IdentityFiles, path(f))
			}
			for _, c := range test.certs {
				args = append(args, "-o", "CertificateFile="+path(c))
				p.CertificateFiles = append(p.CertificateFiles, path(c))
			}
			args = append(args, "-o", "IdentityAgent="+map[bool]string{true: socket, false: "none"}[test.agent])
			if test.agent {
				p.AgentSocket = socket
			}
			_, port, _ := net.SplitHostPort(h.addr)
			h.took()
			cmd := exec.CommandContext(t.Context(), "ssh", append(args, "-p", port, "ann@127.0.0.1", "true")...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
			out, _ := cmd.CombinedOutput()
			if !strings.Contains(string(out), "Permission denied") {
				t.Fatalf("ssh: %s", out)
			}
			// A certificate that is named and in the agent too goes out twice there: once is enough.
			var want []string
			for _, name := range h.took() {
				if !slices.Contains(want, name) {
					want = append(want, name)
				}
			}
			err := login(t.Context(), wallet(t, Options{}), p, h)
			got := h.took()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ssh offered (-), we (+):\n%s%v\n%s", diff, err, out)
			}
		})
	}
}

// Every key that ssh-keygen writes logs in, with and without a passphrase, which is asked for once.
func TestFormats(t *testing.T) {
	tool(t, "ssh-keygen")
	dir := t.TempDir()
	for _, kind := range []string{"ed25519", "rsa 2048", "ecdsa 256", "ecdsa 384", "ecdsa 521"} {
		for _, format := range []string{"RFC4716", "PEM", "PKCS8"} {
			for _, passphrase := range []string{"", "geheim wie nie"} {
				name := strings.ReplaceAll(fmt.Sprintf("%s %s %t", kind, format, passphrase != ""), " ", "-")
				t.Run(name, func(t *testing.T) {
					path := filepath.Join(dir, name)
					which, bits, _ := strings.Cut(kind, " ")
					args := []string{"-q", "-t", which, "-m", format, "-N", passphrase, "-f", path, "-a", "1"}
					if bits != "" {
						args = append(args, "-b", bits)
					}
					run(t, nil, "ssh-keygen", args...)
					text, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					t.Log(strings.SplitN(string(text), "\n", 2)[0])
					public, _, _ := read(path + ".pub")
					for _, beside := range []bool{true, false} {
						if !beside {
							if err := os.Remove(path + ".pub"); err != nil {
								t.Fatal(err)
							}
						}
						asked := 0
						w := wallet(t, Options{Passphrase: func(file string) (string, error) {
							if asked++; file != path || passphrase == "" {
								t.Errorf("asked for %s", file)
							}
							return passphrase, nil
						}})
						h := newHost(t, func(h *host) { h.takeKeys(publicLine(public)) })
						p := user("h")
						p.IdentityFiles = []string{path}
						if err := w.Prepare(t.Context(), []Profile{p, p}); err != nil {
							t.Fatal(err)
						}
						if err := login(t.Context(), w, p, h); err != nil {
							t.Error(err)
						}
						if asked > 1 || passphrase != "" && asked == 0 {
							t.Errorf("asked %d times", asked)
						}
					}
				})
			}
		}
	}
}

// What openssl writes and ssh reads.
func TestOpenSSLFormats(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skipf("openssl is not installed (%v): apt-get install openssl", err)
	}
	dir := t.TempDir()
	bare := filepath.Join(dir, "bare")
	run(t, nil, "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-out", bare) // the curve's parameters, then the key
	for name, args := range map[string][]string{
		"aes128 sha1":   {"-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"},
		"aes192 sha512": {"-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512"},
		"3des sha224":   {"-v2", "des3", "-v2prf", "hmacWithSHA224"},
		"many":          {"-iter", "100000"},
		"bare":          nil,
		"scrypt":        {"-scrypt"},
	} {
		t.Run(name, func(t *testing.T) {
			path := bare
			if args != nil {
				path = filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
				run(t, nil, "openssl", append([]string{"pkcs8", "-topk8", "-in", bare, "-out", path, "-passout", "pass:pw"}, args...)...)
			}
			f := readFile(path)
			f.unseal(func(string) (string, error) { return "pw", nil })
			signer, _, why := f.usable()
			if name == "scrypt" {
				if signer != nil || !strings.Contains(why, "key derivation 1.3.6.1.4.1.11591.4.11") {
					t.Errorf("why %q", why)
				}
			} else if signer == nil {
				t.Error(why)
			}
			if args != nil {
				f := readFile(path)
				f.unseal(func(string) (string, error) { return "wrong", nil })
				if signer, _, why := f.usable(); signer != nil || name != "scrypt" && !strings.Contains(why, "is wrong") {
					t.Errorf("with a wrong passphrase: %q", why)
				}
			}
		})
	}
}

// What cannot be used is said, with the mend.
func TestUnusable(t *testing.T) {
	tool(t, "ssh-keygen")
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	keyFile(t, path("good"))
	keyFile(t, path("open"))
	if err := os.Chmod(path("open"), 0o640); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-a", "1", "-f", path("sealed"))
	run(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-a", "1", "-Z", "aes256-gcm@openssh.com", "-f", path("gcm"))
	run(t, nil, "ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-m", "PEM", "-N", "secret", "-f", path("oldpem"))
	run(t, nil, "ssh-keygen", "-q", "-s", path("good"), "-I", "x", "-h", "-n", "h", path("good.pub")) // a host's certificate
	if err := os.Rename(path("good-cert.pub"), path("host-cert.pub")); err != nil {
		t.Fatal(err)
	}
	keyFile(t, path("orphan"))
	run(t, nil, "ssh-keygen", "-q", "-s", path("good"), "-I", "x", "-n", "ann", path("orphan.pub"))
	write(t, path("garbage"), []byte("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"), 0o600)
	write(t, path("text"), []byte("hello\n"), 0o600)
	secrets := func(s string) func(string) (string, error) { return func(string) (string, error) { return s, nil } }

	for _, test := range []struct {
		name   string
		files  []string
		certs  []string
		usual  bool
		ask    func(string) (string, error)
		reason string // empty: none
	}{
		{name: "missing", files: []string{"none"}, reason: "identity file DIR/none does not exist"},
		{name: "missing, of OpenSSH's list", files: []string{"none"}, usual: true},
		{name: "too open", files: []string{"open"}, reason: "DIR/open has permissions 0640, so that others can use the key: chmod 600 DIR/open"},
		{name: "encrypted", files: []string{"sealed"}, reason: "DIR/sealed is encrypted and its passphrase is not known: ssh-add DIR/sealed"},
		{name: "encrypted, wrong passphrase", files: []string{"sealed"}, ask: secrets("wrong"), reason: "the passphrase given for DIR/sealed is wrong"},
		{name: "old PEM, wrong passphrase", files: []string{"oldpem"}, ask: secrets("wrong"), reason: "the passphrase given for DIR/oldpem is wrong"},
		{name: "encrypted, an empty answer", files: []string{"sealed"}, ask: secrets(""),
			reason: "DIR/sealed is encrypted and there was no passphrase (it is empty): ssh-add DIR/sealed"},
		{name: "encrypted, no answer", files: []string{"sealed"}, ask: func(string) (string, error) { return "", errors.New("no terminal") },
			reason: "DIR/sealed is encrypted and there was no passphrase (no terminal): ssh-add DIR/sealed"},
		{name: "a cipher that the library has not", files: []string{"gcm"}, ask: secrets("secret"),
			reason: `DIR/gcm cannot be used (unknown cipher "aes256-gcm@openssh.com", only supports "aes256-ctr" or "aes256-cbc"): ssh-add DIR/gcm, if ssh can`},
		{name: "garbage", files: []string{"garbage"}, reason: "DIR/garbage cannot be used (it is damaged): ssh-add DIR/garbage, if ssh can"},
		{name: "text", files: []string{"text"}, reason: "DIR/text is no key in a format that ssh-keygen writes"},
		{name: "public", files: []string{"good.pub"}, reason: "DIR/good.pub is a public key that no agent holds: ssh-add its private key, or name the private key's file"},
		{name: "directory", files: []string{""}, reason: "identity file DIR cannot be read (is a directory)"},
		{name: "certificate missing", certs: []string{"none-cert.pub"}, files: []string{"text"}, reason: "certificate DIR/none-cert.pub cannot be read (no such file or directory)"},
		{name: "no certificate", certs: []string{"good.pub"}, files: []string{"text"}, reason: "DIR/good.pub is no certificate: ssh-keygen -s makes one"},
		{name: "a host's certificate", certs: []string{"host-cert.pub"}, files: []string{"text"}, reason: "DIR/host-cert.pub is a host's certificate, not a user's"},
		{name: "a certificate without its key", certs: []string{"orphan-cert.pub"}, files: []string{"text"},
			reason: "there is no private key to certificate DIR/orphan-cert.pub among the identity files and in the agent"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := user("h")
			p.DefaultIdentities = test.usual
			for _, f := range test.files {
				p.IdentityFiles = append(p.IdentityFiles, filepath.Join(dir, f))
			}
			for _, c := range test.certs {
				p.CertificateFiles = append(p.CertificateFiles, path(c))
			}
			w := wallet(t, Options{Passphrase: test.ask})
			err := w.Prepare(t.Context(), []Profile{p})
			got := strings.ReplaceAll(strings.Join(w.Warnings(), "\n"), dir, "DIR")
			if test.reason == "" {
				if err != nil || got != "" {
					t.Errorf("%v; %s", err, got)
				}
				return
			}
			if !slices.Contains(strings.Split(got, "\n"), test.reason) {
				t.Errorf("got  %s\nwant %s", got, test.reason)
			}
			var failure *Error
			if !errors.As(err, &failure) || !strings.Contains(strings.ReplaceAll(err.Error(), dir, "DIR"), test.reason) {
				t.Errorf("Prepare: %v", err)
			}
			if err := login(t.Context(), w, p, newHost(t, nil)); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), dir, "DIR"), test.reason) {
				t.Errorf("login: %v", err)
			}

			// With a key that can be used, or a password, it is no reason not to begin.
			p.IdentityFiles = append(p.IdentityFiles, path("good"))
			if err := wallet(t, Options{}).Prepare(t.Context(), []Profile{p}); err != nil {
				t.Errorf("beside a good key: %v", err)
			}
			p.IdentityFiles = p.IdentityFiles[:1]
			if err := wallet(t, Options{Password: func() (string, error) { return "", nil }}).Prepare(t.Context(), []Profile{p}); err != nil {
				t.Errorf("beside a password: %v", err)
			}
		})
	}
}

// A wrong passphrase is asked for again, as ssh does: three times in all.
func TestPassphraseTries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sealed")
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, pem.EncodeToMemory(block), 0o600)
	for _, test := range []struct {
		says  []string
		asked int
		ok    bool
	}{
		{[]string{"right"}, 1, true},
		{[]string{"wrong", "right"}, 2, true},
		{[]string{"wrong", "wrong", "right"}, 3, true},
		{[]string{"wrong", "wrong", "wrong", "right"}, 3, false},
		{[]string{"wrong", "", "right"}, 2, false},
	} {
		asked := 0
		w := wallet(t, Options{Passphrase: func(string) (string, error) { asked++; return test.says[asked-1], nil }})
		p := user("h")
		p.IdentityFiles = []string{path}
		for range 2 { // whatever came of it, nobody is asked again
			if err := w.Prepare(t.Context(), []Profile{p}); (err == nil) != test.ok || asked != test.asked {
				t.Errorf("%q: %v after %d questions, want %d", test.says, err, asked, test.asked)
			}
		}
	}
}
