package ssh

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// A host that was not there when its key was asked for is not waited for a second time where only accepted keys count, and is where new ones do.
func TestUnaskedHosts(t *testing.T) {
	for policy, connections := range map[Policy]int64{Ask: 1, AcceptNew: 2} {
		h := newHome(t)
		silent, err := net.Listen("tcp", "127.0.0.2:0")
		if err != nil {
			t.Fatal(err)
		}
		var came atomic.Int64
		var all sync.WaitGroup
		all.Go(func() {
			for {
				conn, err := silent.Accept()
				if err != nil {
					return
				}
				came.Add(1)
				all.Go(func() { io.Copy(io.Discard, conn); conn.Close() })
			}
		})
		defer all.Wait()
		defer silent.Close()
		_, gate := h.serve(&sshtest.Server{})
		tr := h.transport()
		tr.HostKeys, tr.ConnectTimeout = policy, 300*time.Millisecond
		host := transport.Host{Name: "h1", Addr: "127.0.0.2", Port: uint16(silent.Addr().(*net.TCPAddr).Port)}
		behind := transport.Host{Name: "h2", Addr: "127.0.0.3", Jump: net.JoinHostPort(host.Addr, strconv.Itoa(int(host.Port)))}
		for range 2 { // as with jump hosts that have been accepted
			if keys, err := tr.UnknownHostKeys(t.Context(), slices.Values([]transport.Host{host, behind, gate}), 4); len(keys) > 0 || err != nil {
				t.Fatal(keys, err)
			}
			if policy != Ask {
				break
			}
		}
		for _, to := range []transport.Host{host, behind} {
			got := run(t, tr, to, line)
			said := got.err != nil && strings.Contains(got.err.Error(), "when it was asked for its host key")
			if to.Name == "h1" && !errors.Is(got.err, context.DeadlineExceeded) || said != (policy == Ask) {
				t.Errorf("%s: %s: %v", policy, to.Name, got.err)
			}
			if policy != Ask {
				break
			}
		}
		if n := came.Load(); n != connections {
			t.Errorf("%s: %d connections, want %d", policy, n, connections)
		}
		if got := run(t, tr, gate, line); got.err != nil {
			t.Error(got.err)
		}
		tr.Shutdown(t.Context())
		run(t, tr, host, line) // another run begins anew
		if n := came.Load(); n != connections+1 {
			t.Errorf("%s: %d connections after Shutdown, want %d", policy, n, connections+1)
		}
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

// Whether keys may be learnt is known without asking anybody.
func TestLearnsHostKeys(t *testing.T) {
	h := newHome(t)
	for _, test := range []struct {
		config string
		policy Policy
		want   bool
	}{
		{"", FromConfig, false},
		{"", Strict, false},
		{"", AcceptNew, true},
		{"", Ask, true},
		{"", Ignore, false},
		{"StrictHostKeyChecking accept-new\n", FromConfig, true},
		{"StrictHostKeyChecking accept-new\n", Strict, false},
		{"Match host gate\n\tStrictHostKeyChecking accept-new\nMatch host n1\n\tProxyJump gate\n", FromConfig, true},
		{"Match host other\n\tStrictHostKeyChecking accept-new\n", FromConfig, false},
	} {
		tr, _ := prepared(t, h, test.config)
		tr.HostKeys = test.policy
		if got := tr.LearnsHostKeys(t.Context(), transport.Host{Name: "n1"}); got != test.want {
			t.Errorf("%q, %q: %v, want %v", test.config, test.policy, got, test.want)
		}
	}
}
