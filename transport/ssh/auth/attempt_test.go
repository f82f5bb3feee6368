package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// asking is a password that is asked for at most once.
func asking(t testing.TB, password string) func() (string, error) {
	asked := false
	return func() (string, error) {
		if asked {
			t.Error("asked twice")
		}
		asked = true
		return password, nil
	}
}

// The key that let a user in goes first on the next host, if that host's settings have it, and for that user.
func TestWorkedFirst(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, nil)
	keys := map[string]ssh.PublicKey{}
	p := user("h")
	for _, name := range []string{"a", "b", "c"} {
		path := filepath.Join(dir, name)
		keys[name] = keyFile(t, path)
		h.call(name, keys[name])
		p.IdentityFiles = append(p.IdentityFiles, path)
	}
	w := wallet(t, Options{})
	step := func(p Profile, takes, want string) {
		t.Helper()
		h.takeKeys(keys[takes])
		err := login(t.Context(), w, p, h)
		if got := strings.Join(h.took(), " "); got != want || (err == nil) != strings.HasSuffix(want, takes) {
			t.Errorf("takes %s: got %s, want %s; %v", takes, got, want, err)
		}
	}
	step(p, "b", "a b")
	step(p, "b", "b")
	step(p, "c", "b a c")
	step(p, "a", "c a")
	step(p, "c", "a b c")
	bob := p
	bob.User = "bob"
	step(bob, "a", "a")
	step(p, "c", "c")
	fewer := p
	fewer.IdentityFiles = p.IdentityFiles[:2]
	step(fewer, "c", "a b")
	off := p
	off.Pubkey = false
	step(off, "c", "")
}

// What is tried, in what order, and what is said.
func TestMethods(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	public := keyFile(t, path)
	right := func(h *host) { h.takePassword("right") }
	for _, test := range []struct {
		name     string
		host     func(*host)
		profile  func(*Profile)
		password string
		seen     string
		err      string // empty: it lets us in
	}{
		{name: "nothing is asked for", host: func(h *host) { h.NoClientAuth = true }},
		{name: "password", host: right, password: "right", seen: "key,password right"},
		{name: "keyboard", host: func(h *host) { h.ask([]string{"Password: "}, "right") }, password: "right", seen: "key,Password: right"},
		{name: "keyboard in German", host: func(h *host) { h.ask([]string{"Passwort für ann: "}, "right") }, password: "right", seen: "key,Passwort für ann: right"},
		{name: "keyboard before password", host: func(h *host) { right(h); h.ask([]string{"Password: "}, "right") }, password: "right", seen: "key,Password: right"},
		{name: "preferred", host: func(h *host) { right(h); h.ask([]string{"Password: "}, "right") }, password: "right",
			profile: func(p *Profile) { p.Preferred = "gssapi-with-mic,password,publickey" }, seen: "password right"},
		{name: "wrong, never by both methods", host: func(h *host) { right(h); h.ask([]string{"Password: "}, "right") }, password: "wrong", seen: "key,Password: wrong",
			err: `the host does not let user "ann" in: it refused 1 key: DIR/key (SHA256:…); it refused the password; it takes password, publickey, keyboard-interactive`},
		{name: "wrong, then by key", host: func(h *host) { right(h); h.takeKeys(public) }, password: "wrong",
			profile: func(p *Profile) { p.Preferred = "password,publickey" }, seen: "password wrong,key"},
		{name: "one-time code at once", host: func(h *host) { h.ask([]string{"Verification code: "}, "1") }, password: "right", seen: "key",
			err: `the host does not let user "ann" in: it refused 1 key: DIR/key (SHA256:…); it asks "Verification code: ", and a password is all that can be answered: log in there with a key, or with ssh; it takes publickey, keyboard-interactive`},
		{name: "one-time code after it", host: func(h *host) { right(h); h.ask([]string{"Password: ", "Verification code: "}, "right", "1") }, password: "right", seen: "key,Password: right",
			err: `the host does not let user "ann" in: it refused 1 key: DIR/key (SHA256:…); it asks "Verification code: ", and a password is all that can be answered: log in there with a key, or with ssh; it takes password, publickey, keyboard-interactive`},
		{name: "no password", host: right, seen: "key",
			err: `the host does not let user "ann" in: it refused 1 key: DIR/key (SHA256:…); it takes password, publickey: add such a key to the user's authorized_keys there, or name another with -i, or give a password with --ask-pass`},
		{name: "switched off", host: func(h *host) { right(h); h.takeKeys(public) }, password: "right", profile: func(p *Profile) { p.Pubkey, p.Password = false, false },
			err: `the host does not let user "ann" in: it takes password, publickey: allow keys (PubkeyAuthentication)`},
		{name: "no keys", profile: func(p *Profile) { p.IdentityFiles = nil },
			err: `the host does not let user "ann" in: there is no key to offer; it takes publickey: name a key with -i, or ssh-add one`},
		{name: "both", host: func(h *host) {
			h.takePassword("right")
			next := h.PasswordCallback
			h.PublicKeyCallback = func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
				h.saw(h.name(key))
				return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{PasswordCallback: next}}
			}
			h.PasswordCallback = nil
		}, password: "right", seen: "key,password right"},
		{name: "too many", host: func(h *host) { h.MaxAuthTries = 1 }, seen: "key",
			err: `the host does not let user "ann" in: it allows no more attempts after 1 key: DIR/key (SHA256:…): name the right key with -i and set IdentitiesOnly=yes`},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t, test.host)
			h.call("key", public)
			p := user("h")
			p.IdentityFiles = []string{path}
			if test.profile != nil {
				test.profile(&p)
			}
			var o Options
			if test.password != "" {
				o.Password = asking(t, test.password)
			}
			err := login(t.Context(), wallet(t, o), p, h)
			if diff := cmp.Diff(test.seen, strings.Join(h.took(), ",")); diff != "" {
				t.Errorf("the host saw (-want +got):\n%s", diff)
			}
			got := ""
			if err != nil {
				got = regexp.MustCompile(`SHA256:[^)]*`).ReplaceAllString(strings.ReplaceAll(err.Error(), dir, "DIR"), "SHA256:…")
				if failure := (*Error)(nil); !errors.As(err, &failure) {
					t.Errorf("%T", err)
				}
			}
			if diff := cmp.Diff(test.err, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Hosts that answer a password, or a key, by ending the connection.
func TestConnectionEnds(t *testing.T) {
	for _, test := range []struct {
		name    string
		when    string // the server hangs up when it sees this
		want    string
		refused bool
	}{
		{name: "on the password", when: "password x", want: "it ended the connection on being told the password, which is taken as a refusal", refused: true},
		{name: "on a key", when: "key", want: "it ended the connection when asked about"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			public := keyFile(t, path)
			var h *host
			hangUp := func(c ssh.ConnMetadata, what string) {
				if what == test.when {
					h.mu.Lock()
					defer h.mu.Unlock()
					h.conns[c.RemoteAddr().String()].Close()
				}
			}
			h = newHost(t, func(h *host) {
				h.PublicKeyCallback = func(c ssh.ConnMetadata, _ ssh.PublicKey) (*ssh.Permissions, error) {
					hangUp(c, "key")
					return nil, errors.New("no")
				}
				h.PasswordCallback = func(c ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
					hangUp(c, "password "+string(p))
					return nil, errors.New("no")
				}
			})
			h.call("key", public)
			w := wallet(t, Options{Password: asking(t, "x")})
			p := user("h1")
			p.IdentityFiles = []string{path}
			if err := login(t.Context(), w, p, h); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
			if got := w.password.refused != ""; got != test.refused {
				t.Errorf("the password counts as refused: %v", got)
			}
		})
	}
}

// A host that has given no verdict in time leaves the password to the next.
func TestNoVerdict(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	slow := newHost(t, func(h *host) {
		h.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
			cancel(errors.New("the time is over"))
			<-release
			return nil, errors.New("too late")
		}
	})
	defer close(release)
	w := wallet(t, Options{Password: asking(t, "x")})
	err := login(ctx, w, user("slow"), slow)
	if failure := (*Error)(nil); err == nil || errors.As(err, &failure) {
		t.Errorf("got %v", err)
	}
	if err := login(t.Context(), w, user("quick"), newHost(t, func(h *host) { h.takePassword("x") })); err != nil {
		t.Error(err)
	}
}

// What servers say, and x/crypto/ssh words, when more is wrong than a refusal.
func TestFailed(t *testing.T) {
	keys := make([]*key, 4)
	for i := range keys {
		keys[i] = &key{public: newKey(t).PublicKey(), name: fmt.Sprintf("k%d", i)}
	}
	for _, test := range []struct {
		name    string
		a       Attempt
		err     error
		want    string
		refused bool // the password, for all
	}{
		{"expired", Attempt{begun: true, alive: true, sent: true}, errors.New("ssh: handshake failed: ssh: unexpected message type 60 (expected 52)"),
			"the password has expired there: log in with ssh and set a new one", true},
		{"closed after keys, as dropbear does", Attempt{begun: true, alive: true, refused: keys[:3], offer: &offer{key: keys[3], announced: true}}, fmt.Errorf("ssh: handshake failed: %w", io.EOF),
			"it allows no more attempts after 4 keys: k0", false},
		{"closed before the password came", Attempt{begun: true, sent: true}, io.EOF, "it ended the connection in the middle of authentication", false},
		{"half the way", Attempt{begun: true, alive: true, partial: 1, takes: []string{"hostbased"}}, errors.New("ssh: unable to authenticate, attempted methods [none], no supported methods remain"),
			"besides what it has accepted it takes hostbased", false},
		{"said why", Attempt{begun: true, alive: true, offer: &offer{key: keys[0], announced: true}}, errors.New(`ssh: disconnect, reason 2: "bye\r\n"`),
			`it ended the connection with "bye"; it refused 1 key: k0`, false},
		{"nonsense", Attempt{begun: true, alive: true}, errors.New("ssh: handshake failed: ssh: unexpected message type 99 (expected 52)"),
			"authentication broke off (unexpected message type 99 (expected 52))", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &test.a
			a.w, a.ctx, a.p = wallet(t, Options{}), t.Context(), user("h")
			if err := a.Failed(test.err); !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.err) {
				t.Errorf("got %v", err)
			}
			if got := a.w.password.refused == "h"; got != test.refused {
				t.Errorf("the password counts as refused: %v", got)
			}
		})
	}
}

// A password is tried on one host while the others wait; a right one then goes to all, a refused one to none.
func TestPasswordVerdict(t *testing.T) {
	for _, right := range []bool{true, false} {
		t.Run(fmt.Sprint(right), func(t *testing.T) {
			const hosts = 50
			var mu sync.Mutex
			atOnce, tries := 0, 0
			answered := make(chan struct{}, hosts)
			h := newHost(t, func(h *host) {
				h.PublicKeyCallback = nil
				h.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
					mu.Lock()
					tries++
					first := tries == 1
					if !first && atOnce > 0 {
						t.Error("tried on a second host before the first had answered")
					}
					if first {
						atOnce++
					}
					mu.Unlock()
					if first { // until the others are connected, and wait
						for range hosts - 1 {
							<-answered
						}
						mu.Lock()
						atOnce--
						mu.Unlock()
					}
					if !right {
						return nil, errors.New("wrong")
					}
					return nil, nil
				}
				h.AuthLogCallback = func(_ ssh.ConnMetadata, method string, _ error) {
					if method == "none" {
						answered <- struct{}{}
					}
				}
			})
			w := wallet(t, Options{Password: asking(t, "x")})
			var all sync.WaitGroup
			refused := 0
			for i := range hosts {
				all.Go(func() {
					p := user(fmt.Sprintf("h%d", i))
					err := login(t.Context(), w, p, h)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case (err == nil) != right:
						t.Error(err)
					case err != nil && strings.Contains(err.Error(), "it refused the password"):
						refused++
					case err != nil && !regexp.MustCompile(`the password was refused on h\d+ and is tried on no other host, so that no account gets locked: run again with the right one`).MatchString(err.Error()):
						t.Error(err)
					}
				})
			}
			all.Wait()
			if right && tries != hosts || !right && (tries != 1 || refused != 1) {
				t.Errorf("%d tries, %d refusals", tries, refused)
			}
		})
	}
}

// The turns with the password, without hosts.
func TestSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := secret{ask: asking(t, "x")}
		take := func(user, host string) (*trial, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, trial, err := s.take(ctx, user, host)
			return trial, err
		}
		first, err := take("ann", "h1")
		if first == nil || err != nil {
			t.Fatal(first, err)
		}
		_, err = take("ann", "h2")
		if want := "h1 had not yet answered to the password, which the other hosts wait for (context deadline exceeded)"; err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}

		// No verdict: the next one tries.
		next := make(chan *trial)
		go func() { trial, _ := take("ann", "h2"); next <- trial }()
		synctest.Wait()
		s.report("ann", "h1", first, none)
		second := <-next
		if second == nil || second.host != "h2" {
			t.Fatalf("%+v", second)
		}

		// Accepted: ann's hosts need no turn, bob's do.
		s.report("ann", "h2", second, accepted)
		if trial, err := take("ann", "h3"); trial != nil || err != nil {
			t.Error(trial, err)
		}
		bob, err := take("bob", "h4")
		if bob == nil || err != nil {
			t.Fatal(bob, err)
		}
		if trial, err := take("ann", "h5"); trial != nil || err != nil {
			t.Error(trial, err)
		}

		// Refused, even by a host that had no turn: over for all.
		s.report("ann", "h3", nil, denied)
		for _, user := range []string{"ann", "bob"} {
			if _, err := take(user, "h6"); err == nil || !strings.Contains(err.Error(), "refused on h3") {
				t.Error(err)
			}
		}
		s.report("bob", "h4", bob, denied)
		if s.refused != "h3" || s.trial != nil {
			t.Errorf("%+v", &s)
		}
	})
}

// An answer that cannot be had is asked for once, and said by every host.
func TestNoPassword(t *testing.T) {
	asked := 0
	w := wallet(t, Options{Password: func() (string, error) { asked++; return "", errors.New("no terminal") }})
	h := newHost(t, func(h *host) { h.takePassword("x") })
	for range 2 {
		if err := login(t.Context(), w, user("h"), h); err == nil || !strings.Contains(err.Error(), "there is no password (no terminal)") {
			t.Error(err)
		}
	}
	if asked != 1 || len(h.took()) != 0 {
		t.Errorf("asked %d times", asked)
	}
}

// An error that is not authentication's comes back as it was.
func TestNotOurs(t *testing.T) {
	w := wallet(t, Options{})
	a := w.Attempt(t.Context(), user("h"))
	plain := &net.OpError{Op: "read", Err: errors.New("gone")}
	if err := a.Failed(plain); err != error(plain) {
		t.Error(err)
	}
	said := errors.New(`ssh: handshake failed: ssh: disconnect, reason 11: "go away\x1b[2J\r\n"`)
	if err := a.Failed(said); err.Error() != `the host ended the connection with "go away\x1b[2J"` || !errors.Is(err, said) {
		t.Error(err)
	}
}

func TestAlgorithms(t *testing.T) {
	for _, test := range []struct {
		format, accepted, want string
	}{
		{ssh.KeyAlgoED25519, "", "ssh-ed25519"},
		{ssh.KeyAlgoRSA, "", "rsa-sha2-512 rsa-sha2-256"},
		{ssh.KeyAlgoRSA, "ssh-rsa,rsa-sha2-256", "rsa-sha2-256 ssh-rsa"},
		{ssh.KeyAlgoRSA, "ssh-ed25519", ""},
		{"ssh-dss", "", ""},
		{"ssh-dss", "ssh-dss", "ssh-dss"},
		{ssh.CertAlgoED25519v01, "", "ssh-ed25519"},
		{ssh.CertAlgoED25519v01, "ssh-ed25519", "ssh-ed25519"},
		{ssh.KeyAlgoED25519, "ssh-ed25519-cert-v01@openssh.com", ""},
		{ssh.CertAlgoED25519v01, "ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"},
		{ssh.CertAlgoED25519v01, "*-cert-v01@openssh.com", "ssh-ed25519"},
		{ssh.CertAlgoRSAv01, "rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-512"},
		{ssh.CertAlgoSKED25519v01, "", ssh.KeyAlgoSKED25519},
		{ssh.CertAlgoSKED25519v01, ssh.CertAlgoSKED25519v01, ssh.KeyAlgoSKED25519},
		{ssh.CertAlgoSKECDSA256v01, "sk-*", ssh.KeyAlgoSKECDSA256},
	} {
		var accepted []string
		if test.accepted != "" {
			accepted = strings.Split(test.accepted, ",")
		}
		if got := strings.Join(algorithms(test.format, accepted), " "); got != test.want {
			t.Errorf("%s, %q: got %q, want %q", test.format, test.accepted, got, test.want)
		}
	}
}

// encryptedPKCS8 is openssl's, with 10 iterations and the passphrase pw.
const encryptedPKCS8 = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGaMFYGCSqGSIb3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAi13xoJypIEMQIBCjAM
BggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQQo0IYkKY0L3dhcZiw4P8IARA9hV3
j3Q6lV4bo+S5x/LpGdxbyD8sDVUnHaMCe63PGAzre45xBleKZnZgi4wSUKl+WEdn
sswdd4iN8du9OMMjeQ==
-----END ENCRYPTED PRIVATE KEY-----
`

// Nothing that is in a file makes its reading fail in another way than by a reason.
func FuzzIdentityFile(f *testing.F) {
	dir := f.TempDir()
	keyFile(f, filepath.Join(dir, "key"))
	f.Add(text(f, filepath.Join(dir, "key")), "")
	f.Add(text(f, filepath.Join(dir, "key.pub")), "")
	for _, seed := range []string{
		"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
		encryptedPKCS8,
	} {
		f.Add([]byte(seed), "pw")
	}
	f.Fuzz(func(t *testing.T, text []byte, passphrase string) {
		id := &file{path: "f"}
		id.parse(text, 0o600)
		id.unseal(func(string) (string, error) { return passphrase, nil })
		signer, _, why := id.usable()
		if (signer == nil) != (why != "") || signer != nil && !same(signer.PublicKey(), id.public) {
			t.Errorf("signer %v, why %q", signer, why)
		}
	})
}
