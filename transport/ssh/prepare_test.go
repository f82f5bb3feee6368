package ssh

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/sshconfig"
)

// prepared is a Transport with a configuration, and the files whose passphrases it asks for.
func prepared(t testing.TB, h *home, config string) (tr *Transport, asked *[]string) {
	t.Helper()
	h.write("config", config)
	read, err := sshconfig.Read(sshconfig.Sources{File: h.path("config"), Home: h.dir, LocalUser: "local", LocalHost: "here"})
	if err != nil {
		t.Fatal(err)
	}
	asked = new([]string)
	wallet := auth.New(auth.Options{Passphrase: func(file string) (string, error) {
		*asked = append(*asked, strings.TrimPrefix(file, h.dir+"/"))
		return "", errors.New("nobody there")
	}})
	t.Cleanup(func() { wallet.Close() })
	return &Transport{Config: read, Wallet: wallet}, asked
}

func named(names ...string) iter.Seq[transport.Host] {
	return func(yield func(transport.Host) bool) {
		for _, name := range names {
			if !yield(transport.Host{Name: name}) {
				return
			}
		}
	}
}

// sealedKey is an identity file with a passphrase.
func sealedKey(t testing.TB) string {
	t.Helper()
	private, _ := newKey(t)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

// The keys of the hosts and of the jump hosts before them are read, and what is encrypted is asked for once.
func TestPrepare(t *testing.T) {
	h := newHome(t)
	for _, name := range []string{"gate", "inner"} {
		h.write(name, sealedKey(t))
	}
	tr, asked := prepared(t, h, fmt.Sprintf(`
Host gate
	IdentityFile %[1]s/gate
Host inner*
	IdentityFile %[1]s/inner
	ProxyJump gate
Host *
	IdentityFile %[1]s/id
	IdentityAgent none
`, h.dir))
	if err := tr.Prepare(t.Context(), named("plain", "inner1", "inner2", "inner3"), 1); err != nil {
		t.Fatal(err)
	}
	slices.Sort(*asked)
	if got := strings.Join(*asked, " "); got != "gate inner" {
		t.Errorf("asked for the passphrases of %q, want those of gate and inner", got)
	}
}

func TestPrepareWithoutKeys(t *testing.T) {
	h := newHome(t)
	h.write("sealed", sealedKey(t))
	tr, _ := prepared(t, h, fmt.Sprintf("IdentityFile %s/sealed\nIdentityAgent none\n", h.dir))
	err := tr.Prepare(t.Context(), named("a", "b"), 1)
	if err == nil || !strings.Contains(err.Error(), "nobody there") {
		t.Errorf("%v, want why there is no key", err)
	}
}

func TestPrepareEnds(t *testing.T) {
	tr, _ := prepared(t, newHome(t), "IdentityAgent none\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if err := tr.Prepare(ctx, named("a"), 1); !errors.Is(err, why) {
		t.Errorf("%v, want the context's cause", err)
	}
}

// The files that a run takes are known once its hosts are.
func TestFiles(t *testing.T) {
	h := newHome(t)
	tr, _ := prepared(t, h, `
Host proxied*
	ProxyCommand nc %h %p
Host inner*
	ProxyJump gate1,gate2
Host deep
	ProxyJump proxied9
Host *
	IdentityAgent none
`)
	if err := tr.Prepare(t.Context(), named("plain1", "plain2", "plain3", "proxied1", "proxied2", "inner1", "inner2", "inner3", "deep"), 1); err != nil {
		t.Fatal(err)
	}
	const jumps = 1 + 3 // gate1, and what leads to proxied9
	for sessions, want := range map[int]int{1: 3 + jumps, 2: 2*3 + jumps, 3: 2*3 + 1 + 1 + jumps, 100: 2*3 + 3 + 3 + jumps} {
		if got := tr.Files(sessions); got != want {
			t.Errorf("%d sessions: %d files, want %d", sessions, got, want)
		}
	}
}

// Hosts that differ in their names alone are prepared as one, and counted as all of them.
func TestPrepareAlike(t *testing.T) {
	h := newHome(t)
	tr, _ := prepared(t, h, "IdentityAgent none\nProxyCommand nc 127.0.0.1 %p\n")
	if !tr.Config.Alike() {
		t.Fatal("the hosts are not alike")
	}
	if err := tr.Prepare(t.Context(), named("n1"), 1000); err != nil {
		t.Fatal(err)
	}
	if got := tr.Files(64); got != 3*64 {
		t.Errorf("64 sessions: %d files, want %d", got, 3*64)
	}
}

// BenchmarkPrepare is the cost for one host of a run.
func BenchmarkPrepare(b *testing.B) {
	h := newHome(b)
	tr, _ := prepared(b, h, fmt.Sprintf("Host n7\n\tUser x\nHost *\n\tIdentityFile %s/id\n\tIdentityAgent none\n", h.dir))
	b.ReportAllocs()
	b.ResetTimer()
	err := tr.Prepare(b.Context(), func(yield func(transport.Host) bool) {
		for i := range b.N {
			if !yield(transport.Host{Name: fmt.Sprintf("n%d", i)}) {
				return
			}
		}
	}, 1)
	if err != nil {
		b.Fatal(err)
	}
}
