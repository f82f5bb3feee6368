package ssh

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/sshconfig"
	"multirsh/transport/ssh/sshtest"
	"multirsh/transport/transporttest"
)

// The tests run in a network namespace of their own where that is allowed: real servers need it.
func TestMain(m *testing.M) {
	rig.Enter()
	if spec := os.Getenv(holdVar); spec != "" {
		hold(spec)
	}
	os.Unsetenv("SSH_AUTH_SOCK")
	goleak.VerifyTestMain(m)
}

// user is who logs in at the test servers, with the client's key.
const user = "ops"

// home is a client's: an identity file, known_hosts and a configuration of its own.
type home struct {
	t      testing.TB
	dir    string
	signer ssh.Signer
}

func newHome(t testing.TB) *home {
	t.Helper()
	h := &home{t: t, dir: t.TempDir()}
	private, signer := newKey(t)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	h.signer = signer
	h.write("id", string(pem.EncodeToMemory(block)))
	h.write("known_hosts", "")
	return h
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

func (h *home) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// know appends lines to known_hosts.
func (h *home) know(lines ...string) {
	h.t.Helper()
	f, err := os.OpenFile(h.path("known_hosts"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	for _, line := range lines {
		if _, err := fmt.Fprintln(f, strings.TrimSuffix(line, "\n")); err != nil {
			h.t.Fatal(err)
		}
	}
}

// transport is a client of that home, with further options of ssh_config.
func (h *home) transport(options ...string) *Transport {
	h.t.Helper()
	return h.read("none", options)
}

// transportFrom is a client of that home with a configuration file of it.
func (h *home) transportFrom(file string) *Transport {
	h.t.Helper()
	return h.read(h.path(file), nil)
}

func (h *home) read(file string, options []string) *Transport {
	h.t.Helper()
	config, err := sshconfig.Read(sshconfig.Sources{
		File: file, Home: h.dir, LocalUser: "local", LocalHost: "here",
		Options: append(options, "IdentityFile="+h.path("id"), "UserKnownHostsFile="+h.path("known_hosts"), "GlobalKnownHostsFile=/nonexistent", "User="+user),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	wallet := auth.New(auth.Options{})
	tr := &Transport{Config: config, Wallet: wallet}
	h.t.Cleanup(func() {
		tr.Shutdown(context.Background())
		wallet.Close()
	})
	return tr
}

// serve starts a server that knows the client's key, and has the client know its.
func (h *home) serve(s *sshtest.Server) (addr netip.AddrPort, host transport.Host) {
	h.t.Helper()
	if s.Users == nil {
		s.Users = map[string]sshtest.User{"": {Keys: []ssh.PublicKey{h.signer.PublicKey()}}}
	}
	addr, err := s.Start("127.0.0.2:0") // not the address that its clients have: their sockets are told by it
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { s.Close() })
	h.know(sshtest.KnownHosts(s.HostKey(), fmt.Sprintf("[%v]:%d", addr.Addr(), addr.Port())))
	return addr, transport.Host{Name: "h1", Addr: addr.Addr().String(), Port: addr.Port()}
}

func TestConformance(t *testing.T) {
	for name, set := range map[string]func(*Transport){
		"as it is": func(*Transport) {},
		"wrapped":  func(tr *Transport) { tr.Shell = true },
	} {
		t.Run(name, func(t *testing.T) {
			transporttest.Run(t, transporttest.Harness{
				New: func(tb testing.TB) (transport.Transport, transport.Host) {
					h := newHome(tb)
					_, host := h.serve(&sshtest.Server{})
					tr := h.transport()
					set(tr)
					return tr, host
				},
			})
		})
	}
	t.Run("merged", func(t *testing.T) {
		transporttest.Run(t, transporttest.Harness{
			Merged: true,
			New: func(tb testing.TB) (transport.Transport, transport.Host) {
				h := newHome(tb)
				_, host := h.serve(&sshtest.Server{})
				tr := h.transport()
				tr.Merge = true
				return tr, host
			},
		})
	})
}

// However many hosts begin at once, the name server is asked for so many names at a time, and none of them times out for having had to wait.
func TestLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, literals atomic.Int64
		tr := &Transport{ConnectTimeout: 2 * time.Second, LookupNetIP: func(ctx context.Context, _, host string) ([]netip.Addr, error) {
			for n := now.Add(1); n > most.Load(); {
				most.Store(n)
			}
			defer now.Add(-1)
			if host == "slow" {
				<-ctx.Done()
				return nil, &net.DNSError{Err: "timeout", Name: host, IsTimeout: true}
			}
			time.Sleep(time.Second)
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
		}}
		tr.init()
		var all sync.WaitGroup
		for i := range 10 * maxLookups {
			all.Go(func() {
				if _, err := tr.endpoint(t.Context(), &sshconfig.Settings{HostName: fmt.Sprint("n", i), Port: 22}, nil, nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		all.Go(func() { // which needs none of that
			if _, err := tr.endpoint(t.Context(), &sshconfig.Settings{HostName: "192.0.2.7", Port: 22}, nil, nil); err != nil {
				t.Error(err)
			}
			literals.Add(1)
		})
		synctest.Wait()
		if most.Load() != maxLookups || literals.Load() != 1 {
			t.Errorf("%d lookups at once, want %d", most.Load(), maxLookups)
		}
		why := errors.New("stopped")
		ctx, stop := context.WithCancelCause(t.Context())
		stop(why)
		if _, err := tr.endpoint(ctx, &sshconfig.Settings{HostName: "late", Port: 22}, nil, nil); !errors.Is(err, why) {
			t.Errorf("%v, want the end of the wait", err)
		}
		all.Wait()
		if _, err := tr.endpoint(t.Context(), &sshconfig.Settings{HostName: "slow", Port: 22}, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the connect timeout", err)
		}
	})
}

// An address that is tried in vain is told as such.
func TestTraceOfAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here := netip.MustParseAddrPort(l.Addr().String())
	nobody := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), here.Port())
	d, err := newDialer(&sshconfig.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		addrs []netip.AddrPort
		vain  int
		ok    bool
	}{
		{[]netip.AddrPort{here}, 0, true},
		{[]netip.AddrPort{nobody, here}, 1, true},
		{[]netip.AddrPort{nobody, nobody}, 1, false}, // the last one's is the error, or the first one's
	} {
		vain := 0
		c, err := d.any(transport.WithTrace(t.Context(), func(p transport.Passed) {
			if p.Phase == transport.PhaseConnect && errors.Is(p.Err, syscall.ECONNREFUSED) {
				vain++
			}
		}), tt.addrs)
		if vain != tt.vain || (err == nil) != tt.ok {
			t.Errorf("%v: %d in vain, want %d; %v", tt.addrs, vain, tt.vain, err)
		}
		if err == nil {
			c.Close()
		}
	}
}
