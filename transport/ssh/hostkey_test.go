package ssh

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/ssh/hostkeys"
	"multirsh/transport/ssh/sshtest"
)

// forget empties known_hosts.
func (h *home) forget() { h.write("known_hosts", "") }

func (h *home) known() string {
	h.t.Helper()
	text, err := os.ReadFile(h.path("known_hosts"))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

func TestPolicy(t *testing.T) {
	for _, tt := range []struct {
		policy  Policy
		options []string
		ok      bool // an unknown host is let through
		noted   bool
	}{
		{policy: FromConfig},
		{policy: FromConfig, options: []string{"StrictHostKeyChecking=yes"}},
		{policy: FromConfig, options: []string{"StrictHostKeyChecking=ask"}},
		{policy: FromConfig, options: []string{"StrictHostKeyChecking=accept-new"}, ok: true, noted: true},
		{policy: FromConfig, options: []string{"StrictHostKeyChecking=no"}, ok: true, noted: true},
		{policy: Strict, options: []string{"StrictHostKeyChecking=no"}},
		{policy: Ask},
		{policy: AcceptNew, ok: true, noted: true},
		{policy: AcceptNew, options: []string{"HashKnownHosts=yes"}, ok: true, noted: true},
		{policy: Ignore, ok: true},
	} {
		t.Run(fmt.Sprint(tt.policy, tt.options), func(t *testing.T) {
			h := newHome(t)
			server := &sshtest.Server{}
			addr, host := h.serve(server)
			h.forget()
			tr := h.transport(tt.options...)
			tr.HostKeys = tt.policy
			got := run(t, tr, host, line)
			switch {
			case tt.ok && got != (result{"out\n", "err\n", ended, nil}):
				t.Errorf("%+v", got)
			case !tt.ok && (!errors.Is(got.err, transport.ErrHostKey) || !strings.Contains(got.err.Error(), hostkeys.Fingerprint(server.HostKey()))):
				t.Errorf("%+v, want the host key refused and named", got)
			}
			if noted := h.known() != ""; noted != tt.noted {
				t.Errorf("known_hosts has %q", h.known())
			}
			nothingLeft(t, tr, addr)

			// A key that is not the one known is refused whatever the policy.
			other := newHome(t)
			h.write("known_hosts", sshtest.KnownHosts(other.signer.PublicKey(), fmt.Sprintf("[%v]:%d", addr.Addr(), addr.Port())))
			changed := h.transport(tt.options...)
			changed.HostKeys = tt.policy
			if got := run(t, changed, host, line); !errors.Is(got.err, transport.ErrHostKey) || !strings.Contains(got.err.Error(), "known_hosts:1") {
				t.Errorf("changed: %+v", got)
			}
		})
	}
}

// Unknown keys are collected without a login, the jump host's first, and known once they are accepted.
func TestUnknownHostKeys(t *testing.T) {
	h := newHome(t)
	jumpServer, target, known := &sshtest.Server{Record: true}, &sshtest.Server{Record: true}, &sshtest.Server{}
	_, one := h.serve(jumpServer)
	addr, _ := h.serve(target)
	h.forget()
	_, old := h.serve(known)
	tr := h.behind(one)
	tr.HostKeys = Ask
	dead := transport.Host{Name: "dead", Addr: "127.0.0.2", Port: 1}
	hosts := []transport.Host{{Name: "target", Port: addr.Port()}, {Name: "target2", Port: addr.Port()}, old, dead}

	for _, want := range []string{one.Addr, "target"} {
		keys, err := tr.UnknownHostKeys(t.Context(), slices.Values(hosts), 4)
		if err != nil || len(keys) != 1 || !strings.Contains(keys[0].Name, want) {
			t.Fatalf("%+v, %v: want that of %s alone", keys, err, want)
		}
		if got := run(t, tr, hosts[0], line); !errors.Is(got.err, transport.ErrHostKey) {
			t.Errorf("before it is accepted: %+v", got)
		}
		if err := tr.AcceptHostKeys(keys); err != nil {
			t.Fatal(err)
		}
		tr.Shutdown(t.Context()) // the jump host's refusal was for that run
	}
	if keys, err := tr.UnknownHostKeys(t.Context(), slices.Values(hosts), 4); err != nil || len(keys) != 0 {
		t.Errorf("%+v, %v: want none any more", keys, err)
	}
	for _, host := range hosts[:3] {
		if got := run(t, tr, host, line); got.err != nil {
			t.Errorf("%s: %v", host.Name, got.err)
		}
	}
	if n := strings.Count(h.known(), "\n"); n != 3 {
		t.Errorf("%d lines in known_hosts, want 3: %s", n, h.known())
	}
	if a := target.Account(); a.Logins != 2 {
		t.Errorf("%+v: want a login for each of the two runs, and none for the keys", a)
	}
}

// A key that RevokedHostKeys lists is refused whatever the policy, and so is every key when the list cannot be read.
func TestRevokedHostKeys(t *testing.T) {
	h := newHome(t)
	server := &sshtest.Server{}
	_, host := h.serve(server)
	listed := string(ssh.MarshalAuthorizedKey(server.HostKey()))
	for name, text := range map[string]string{"listed": listed, "other": string(ssh.MarshalAuthorizedKey(h.signer.PublicKey())), "damaged": "h1 " + listed} {
		h.write(name, text)
	}
	for _, known := range []bool{true, false} {
		if !known {
			h.forget()
		}
		for name, want := range map[string]string{"listed": "is revoked", "missing": "no such file", "damaged": "here is no public key", "other": ""} {
			for _, policy := range []Policy{Strict, Ask, Ignore, AcceptNew} {
				before := h.known()
				tr := h.transport("RevokedHostKeys=" + h.path(name))
				tr.HostKeys = policy
				got := run(t, tr, host, line)
				switch {
				case want == "" && known && got.err != nil:
					t.Errorf("%s, %s: %v", name, policy, got.err)
				case want != "" && (!errors.Is(got.err, transport.ErrHostKey) || !strings.Contains(got.err.Error(), want)):
					t.Errorf("%s, %s: %v, want one with %q", name, policy, got.err, want)
				case want != "" && h.known() != before:
					t.Errorf("%s, %s: noted all the same", name, policy)
				}
				if keys, err := tr.UnknownHostKeys(t.Context(), slices.Values([]transport.Host{host}), 1); want != "" && (err != nil || len(keys) != 0) {
					t.Errorf("%s, %s: %v, %v: a key that is not to be accepted is shown", name, policy, keys, err)
				}
				if want == "" && !known {
					h.forget()
				}
			}
		}
	}
}

// A forged signature is one whatever the kind of key.
func TestForgedRSA(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	h := newHome(t)
	_, host := h.serve(&sshtest.Server{HostKeys: []ssh.Signer{signer}, Behaviour: sshtest.MustParseBehaviour("hostkey=forged")})
	if got := run(t, h.transport(), host, line); !errors.Is(got.err, transport.ErrHostKey) {
		t.Errorf("%v", got.err)
	}
}
