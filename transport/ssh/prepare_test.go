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
	if err := tr.Prepare(t.Context(), Each(named("plain", "inner1", "inner2", "inner3"))); err != nil {
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
	err := tr.Prepare(t.Context(), Each(named("a", "b")))
	if err == nil || !strings.Contains(err.Error(), "nobody there") {
		t.Errorf("%v, want why there is no key", err)
	}
}

func TestPrepareEnds(t *testing.T) {
	tr, _ := prepared(t, newHome(t), "IdentityAgent none\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if err := tr.Prepare(ctx, Each(named("a"))); !errors.Is(err, why) {
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
	if err := tr.Prepare(t.Context(), Each(named("plain1", "plain2", "plain3", "proxied1", "proxied2", "inner1", "inner2", "inner3", "deep"))); err != nil {
		t.Fatal(err)
	}
	const jumps = 1 + 3 // gate1, and what leads to proxied9
	for sessions, want := range map[int]int{1: 3 + jumps, 2: 2*3 + jumps, 3: 2*3 + 1 + 1 + jumps, 100: 2*3 + 3 + 3 + jumps} {
		if got := tr.Files(sessions); got != want {
			t.Errorf("%d sessions: %d files, want %d", sessions, got, want)
		}
	}
}

// Of hosts that differ in their names alone one is prepared for all of them, with those that a Host line names; all are counted.
func TestSpeakers(t *testing.T) {
	for _, test := range []struct {
		what, config string
		hosts        []string
		asked        []string
		files        int // of 64 sessions
		ok           bool
	}{
		{"alike", "ProxyCommand nc %h %p\nIdentityFile ~/general\n", []string{"n1", "n2"}, []string{"general"}, 3 * 64, true},
		{"a block that names one of them, and one that does not", "Host n9\nIdentityFile ~/own\nHost git\nIdentityFile ~/git\nHost *\nIdentityFile ~/general\n",
			[]string{"n9", "n1", "n2"}, []string{"general", "own"}, 2 * 64, true},
		{"the jump host of the others comes first", "ProxyJump gate\nIdentityFile ~/general\n", []string{"gate", "n1"}, []string{"general"}, 0, true},
		{"nobody speaks", "ProxyJump gate\n", []string{"gate"}, nil, 0, false},
		{"a pattern", "Host n*\nUser x\n", []string{"n1"}, nil, 0, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			h := newHome(t)
			for _, key := range []string{"general", "own", "git"} {
				h.write(key, sealedKey(t))
			}
			tr, asked := prepared(t, h, "IdentityAgent none\n"+test.config)
			has := func(name string) bool { return slices.Contains(test.hosts, name) }
			few, ok := tr.Speakers(t.Context(), named(test.hosts...), 1000, has)
			if ok != test.ok {
				t.Fatalf("%v, want %v", ok, test.ok)
			}
			if !ok {
				return
			}
			tr.Prepare(t.Context(), few) // there is nobody with a passphrase
			if slices.Sort(*asked); !slices.Equal(*asked, test.asked) {
				t.Errorf("asked for %q, want %q", *asked, test.asked)
			}
			if test.files > 0 && tr.Files(64) != test.files {
				t.Errorf("64 sessions: %d files, want %d", tr.Files(64), test.files)
			}
		})
	}
}

// BenchmarkPrepare is the cost for one host of a run.
func BenchmarkPrepare(b *testing.B) {
	h := newHome(b)
	tr, _ := prepared(b, h, fmt.Sprintf("Host n7\n\tUser x\nHost *\n\tIdentityFile %s/id\n\tIdentityAgent none\n", h.dir))
	b.ReportAllocs()
	b.ResetTimer()
	err := tr.Prepare(b.Context(), Each(func(yield func(transport.Host) bool) {
		for i := range b.N {
			if !yield(transport.Host{Name: fmt.Sprintf("n%d", i)}) {
				return
			}
		}
	}))
	if err != nil {
		b.Fatal(err)
	}
}
