package rsh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/rsh/rshtest"
	"multirsh/transport/transporttest"
)

// The tests run in a network namespace of their own where that is allowed, as root there: reserved ports and loopback are theirs.
func TestMain(m *testing.M) {
	rig.Enter()
	if spec := os.Getenv(holdVar); spec != "" {
		hold(spec)
	}
	goleak.VerifyTestMain(m)
}

// needPorts skips a test where reserved ports cannot be had.
func needPorts(t testing.TB) {
	t.Helper()
	var a resvport.Allocator
	if err := a.Check(); err != nil {
		t.Skip("reserved ports are not permitted here (run the tests as root)")
	}
	a.Close()
}

// client makes a transport of one test.
func client(t testing.TB) *Transport {
	t.Helper()
	needPorts(t)
	a := new(resvport.Allocator)
	t.Cleanup(func() {
		if s := a.Stats(); s.Open != 0 {
			t.Errorf("%d connections still open", s.Open)
		}
		a.Close()
	})
	return &Transport{Ports: a, LocalUser: "root", ConnectTimeout: 30 * time.Second}
}

// serve starts an rshd in this process and gives the host that it is. Its address is its own, so that its reserved ports are told from ours.
func serve(t testing.TB, s *rshtest.Server) transport.Host {
	t.Helper()
	addr, err := s.Start("127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return transport.Host{Name: "sim", Addr: addr.Addr().String(), Port: addr.Port()}
}

func TestConformance(t *testing.T) {
	for _, daemon := range []rshtest.Daemon{rshtest.Redone, rshtest.Netkit} {
		for _, variant := range []struct {
			name  string
			apply func(*Transport, *transporttest.Harness)
		}{
			{"wrapped", func(*Transport, *transporttest.Harness) {}},
			{"merged", func(tr *Transport, h *transporttest.Harness) { tr.Merge = true; h.Merged = true }},
		} {
			t.Run(fmt.Sprint(daemon, "/", variant.name), func(t *testing.T) {
				h := transporttest.Harness{}
				variant.apply(&Transport{}, &h)
				h.New = func(tb testing.TB) (transport.Transport, transport.Host) {
					host := serve(tb, &rshtest.Server{Daemon: daemon})
					tr := client(tb)
					variant.apply(tr, &transporttest.Harness{})
					return tr, host
				}
				transporttest.Run(t, h)
			})
		}
	}
}

// TestRealConformance is the suite over both real daemons and every login shell, and over IPv6 and with one channel.
func TestRealConformance(t *testing.T) {
	for _, daemon := range []rig.Daemon{rig.Redone, rig.Netkit} {
		t.Run(string(daemon), func(t *testing.T) {
			r := rig.New(t, rig.Config{Daemon: daemon})
			h := r.Hosts[0]
			suite := func(t *testing.T, addr, user string, merge bool) {
				transporttest.Run(t, transporttest.Harness{
					Parallel: 20,
					Merged:   merge,
					New: func(tb testing.TB) (transport.Transport, transport.Host) {
						tr := client(tb)
						tr.Merge = merge
						return tr, transport.Host{Name: h.Name, Addr: addr, User: user}
					},
				})
			}
			for _, shell := range rig.Shells() {
				t.Run(shell.Name, func(t *testing.T) {
					suite(t, h.Addr(0).String(), rig.ShellUser(t, shell.Name), false)
				})
			}
			t.Run("ipv6", func(t *testing.T) { suite(t, h.Addr6(0).String(), rig.ShellUser(t, "bash"), false) })
			t.Run("merged", func(t *testing.T) { suite(t, h.Addr(0).String(), rig.ShellUser(t, "bash"), true) })
		})
	}
}

// result is what one command gave.
type result struct {
	stdout, stderr string
	status         transport.Status
	err            error
}

func run(t testing.TB, tr *Transport, host transport.Host, line string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	s, err := tr.Start(t.Context(), host, &transport.Command{Line: line, Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return result{err: err}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status, err := s.Wait(ctx)
	return result{stdout.String(), stderr.String(), status, err}
}

// What a host that refuses or fails is called, and that the reason reaches the user.
func TestRealRefusals(t *testing.T) {
	for _, daemon := range []rig.Daemon{rig.Redone, rig.Netkit} {
		t.Run(string(daemon), func(t *testing.T) {
			h := rig.New(t, rig.Config{Daemon: daemon}).Hosts[0]
			tr := client(t)
			for _, user := range []string{rig.NoRhosts, "no-such-user"} {
				got := run(t, tr, transport.Host{Name: "h", Addr: h.Addr(0).String(), User: user}, "echo ran")
				if !errors.Is(got.err, transport.ErrAuth) || got.stdout != "" || got.status.Started {
					t.Errorf("%s: %+v", user, got)
				}
				t.Log(got.err)
			}
			got := run(t, tr, transport.Host{Name: "h", Addr: h.Addr(0).String(), Port: 515}, "echo ran")
			if !errors.Is(got.err, syscall.ECONNREFUSED) {
				t.Error(got.err)
			}
		})
		t.Run(string(daemon)+"/nameless", func(t *testing.T) {
			h := rig.New(t, rig.Config{Daemon: daemon, Nameless: true}).Hosts[0]
			got := run(t, client(t), transport.Host{Name: "h", Addr: h.Addr(0).String(), User: rig.ShellUser(t, "bash")}, "echo ran")
			if got.err == nil || !strings.Contains(got.err.Error(), "name for our address") {
				t.Errorf("%+v", got)
			}
			t.Log(got.err)
		})
	}
}

func TestPlain(t *testing.T) {
	for _, daemon := range []rig.Daemon{rig.Redone, rig.Netkit} {
		t.Run(string(daemon), func(t *testing.T) {
			h := rig.New(t, rig.Config{Daemon: daemon}).Hosts[0]
			tr := client(t)
			tr.Plain = true
			got := run(t, tr, transport.Host{Name: "h", Addr: h.Addr(0).String(), User: rig.ShellUser(t, "csh")}, "echo out; echo $shell; exit 3")
			if got.err != nil || got.status.Known || !got.status.Ended || !got.status.Started || got.stdout != "out\n/bin/csh\n" {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestCheckLine(t *testing.T) {
	for line, bad := range map[string]bool{
		"true": false, "a\x00b": true, strings.Repeat("x", 131071): false, strings.Repeat("x", 131072): true,
	} {
		if err := (&Transport{}).CheckLine(line); (err != nil) != bad {
			t.Errorf("%.20q of %d bytes: %v", line, len(line), err)
		}
	}
	if CheckUser("") == nil || CheckUser("a\x00b") == nil || CheckUser("-froot") == nil || CheckUser("a b") == nil || CheckUser("ann") != nil {
		t.Error("CheckUser")
	}
}

// A rshd that takes no long command closes or resets; the error then says that this may be why.
func TestPlainTooLong(t *testing.T) {
	tr := client(t)
	tr.Plain = true
	host := serve(t, &rshtest.Server{Daemon: rshtest.Redone})
	if got := run(t, tr, host, ": "+strings.Repeat("x", 1021)); got.err != nil {
		t.Error(got.err)
	}
	got := run(t, tr, host, ": "+strings.Repeat("x", 1022))
	if got.err == nil || !strings.Contains(got.err.Error(), "no command of more than 1023 bytes, and this one has 1024") {
		t.Error(got.err)
	}
}
