package ssh

import (
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/ssh/auth"
)

func wantGood(t *testing.T, tr *Transport, host transport.Host) {
	t.Helper()
	if got := run(t, tr, host, line); got != (result{"out\n", "err\n", ended, nil}) {
		t.Errorf("%+v: %v", got, got.err)
	}
}

// Certificates, of the host and of the user, instead of keys that somebody would have to know.
func TestRealCertificates(t *testing.T) {
	h := rig.New(t, rig.Config{SSH: rig.SSH{Server: rig.OpenSSH, Certified: true}}).Hosts[0]
	host := transport.Host{Name: h.Name, Addr: h.Addr(0).String(), User: rig.ShellUser(t, "bash")}
	home := newHome(t)
	home.know("@cert-authority * " + string(ssh.MarshalAuthorizedKey(rig.CA().PublicKey())))

	private, signer := newKey(t)
	cert := &ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.UserCert, KeyId: "test", ValidPrincipals: []string{host.User}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, rig.CA()); err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	home.write("id", string(pem.EncodeToMemory(block)))
	home.write("id-cert.pub", string(ssh.MarshalAuthorizedKey(cert)))
	wantGood(t, home.transport(), host)

	host.User = rig.ShellUser(t, "dash") // whom the certificate does not name
	if got := run(t, home.transport(), host, line); !errors.Is(got.err, transport.ErrAuth) {
		t.Errorf("%+v", got)
	}
	stranger := newHome(t)
	_, other := newKey(t)
	stranger.know("@cert-authority * " + string(ssh.MarshalAuthorizedKey(other.PublicKey())))
	if got := run(t, stranger.transport(), host, line); !errors.Is(got.err, transport.ErrHostKey) {
		t.Errorf("%+v", got)
	}
}

// A password is asked for once, tried on one host, and goes to the others when it is right.
func TestRealPassword(t *testing.T) {
	h := rig.New(t, rig.Config{SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 100"}}}).Hosts[0]
	for _, password := range []string{rig.Password, "wrong"} {
		home := newHome(t)
		home.know(h.KnownHosts())
		tr := home.transport("PubkeyAuthentication=no")
		var asked sync.Map
		tr.Wallet = auth.New(auth.Options{Password: func() (string, error) {
			if _, again := asked.LoadOrStore("", ""); again {
				t.Error("the password was asked for twice")
			}
			return password, nil
		}})
		t.Cleanup(func() { tr.Wallet.Close() })
		before := failures(t, h)
		var all sync.WaitGroup
		for j := range 12 {
			all.Go(func() {
				got := run(t, tr, transport.Host{Name: h.NameOf(j + 1), Addr: h.Addr(j + 1).String(), User: rig.PasswordUser}, line)
				if right := password == rig.Password; right != (got.err == nil) || !right && !errors.Is(got.err, transport.ErrAuth) {
					t.Errorf("%q: %+v", password, got)
				}
			})
		}
		all.Wait()
		want := map[bool]int{true: 0, false: 1}[password == rig.Password]
		if n := failures(t, h) - before; n != want {
			t.Errorf("%q: the server has refused a password %d times, want %d", password, n, want)
		}
	}
}

func failures(t *testing.T, h *rig.Host) int {
	t.Helper()
	text, err := h.SSHLog()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(text, "Failed password")
}

// TestRealMaxStartups: many names that are one server, whose MaxStartups is the default: it drops what comes too fast, and in the end all
// have got through.
func TestRealMaxStartups(t *testing.T) {
	h := rig.New(t, rig.Config{SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 2:80:4"}}}).Hosts[0]
	tr := real(t, h)
	tr.Retries, tr.ConnectTimeout = 100, time.Minute
	var all sync.WaitGroup
	for j := range 60 {
		all.Go(func() {
			wantGood(t, tr, transport.Host{Name: h.NameOf(j + 1), Addr: h.Addr(j + 1).String(), User: rig.ShellUser(t, "bash")})
		})
	}
	all.Wait()
	if tr.Stats().Retries == 0 {
		t.Error("nothing was tried again, so the server has dropped nothing")
	}
	if text, err := h.SSHLog(); err != nil || !strings.Contains(text, "disconnected by user") {
		t.Errorf("%v: no ordinary disconnect in the log", err)
	}
}

// One key too many for MaxAuthTries: the sentence says so, with the mend.
func TestRealTooManyKeys(t *testing.T) {
	h := rig.New(t, rig.Config{SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxAuthTries 2"}}}).Hosts[0]
	home := newHome(t)
	home.know(h.KnownHosts())
	var options []string
	for i := range 4 {
		private, _ := newKey(t)
		block, err := ssh.MarshalPrivateKey(private, "")
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("id", i)
		home.write(name, string(pem.EncodeToMemory(block)))
		options = append(options, "IdentityFile="+home.path(name))
	}
	got := run(t, home.transport(append(options, "IdentityFile="+rig.ClientKeyFile)...), transport.Host{Name: h.Name, Addr: h.Addr(0).String(), User: rig.ShellUser(t, "bash")}, line)
	if !errors.Is(got.err, transport.ErrAuth) || !strings.Contains(got.err.Error(), "allows no more attempts") || !strings.Contains(got.err.Error(), "IdentitiesOnly") {
		t.Errorf("%v", got.err)
	}
}

// A jump host that is a real sshd forwards for many through one connection, whatever its MaxSessions.
func TestRealJump(t *testing.T) {
	r := rig.New(t, rig.Config{Hosts: 2, SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 200"}}})
	gate, inner := r.Hosts[0], r.Hosts[1]
	home := newHome(t)
	home.know(r.KnownHosts())
	user := rig.ShellUser(t, "bash")
	home.write("config", fmt.Sprintf("Host inner*\n  HostName %v\n  ProxyJump %s@%v\nHost *\n  IdentityFile %s\n", inner.Addr(0), user, gate.Addr(0), rig.ClientKeyFile))
	tr := home.transportFrom("config")
	w, err := gate.WatchClosings()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var all sync.WaitGroup
	for j := range 50 {
		all.Go(func() {
			wantGood(t, tr, transport.Host{Name: fmt.Sprint("inner", j), User: user})
		})
	}
	all.Wait()
	tr.Shutdown(t.Context())
	closings, err := w.Closings()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, c := range closings {
		if c.Server.Addr() == gate.Addr(0) {
			ours++
			if c.By != "server" || c.With != "FIN" {
				t.Errorf("%+v", c)
			}
		}
	}
	if ours != 1 {
		t.Errorf("%d connections to the jump host, want 1", ours)
	}
}

// The hosts of an inventory name their jump hosts themselves.
func TestRealHostJump(t *testing.T) {
	r := rig.New(t, rig.Config{Hosts: 2, SSH: rig.SSH{Server: rig.OpenSSH}})
	gate, inner := r.Hosts[0], r.Hosts[1]
	home := newHome(t)
	home.know(r.KnownHosts())
	user := rig.ShellUser(t, "bash")
	home.write("config", fmt.Sprintf("Host %v\n  ProxyJump none\nHost *\n  IdentityFile %s\n  ProxyJump nobody.invalid\n", gate.Addr(0), rig.ClientKeyFile))
	tr := home.transportFrom("config")
	for i := range 5 {
		wantGood(t, tr, transport.Host{Name: fmt.Sprint("inner", i), Addr: inner.Addr(0).String(), User: user, Jump: fmt.Sprintf("%s@%v", user, gate.Addr(0))})
	}
	if text, err := gate.SSHLog(); err != nil || strings.Count(text, "Accepted publickey") != 1 {
		t.Errorf("%v: %d logins at the jump host, want one", err, strings.Count(text, "Accepted publickey"))
	}
}
