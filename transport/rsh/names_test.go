package rsh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"multirsh/transport"
	"multirsh/transport/rig"
)

// resolver answers for one name.
func resolver(t testing.TB, name string, addrs ...string) func(context.Context, string, string) ([]netip.Addr, error) {
	return func(_ context.Context, network, host string) ([]netip.Addr, error) {
		if network != "ip" || host != name {
			t.Errorf("asked for %s of %q", network, host)
		}
		var all []netip.Addr
		for _, a := range addrs {
			all = append(all, netip.MustParseAddr(a))
		}
		return all, nil
	}
}

// A name with several addresses is a host as long as one of them answers.
func TestSeveralAddresses(t *testing.T) {
	const nobody = "127.0.0.3" // refuses
	for name, addrs := range map[string][]string{
		"the first":          {"127.0.0.2", nobody},
		"the second":         {nobody, "127.0.0.2"},
		"the last":           {nobody, nobody, nobody, "127.0.0.2"},
		"in IPv6's notation": {"::ffff:127.0.0.3", "::ffff:127.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := client(t)
			_, host := misbehaving(t, "ok")
			host.Addr = "node7.example"
			tr.LookupNetIP = resolver(t, "node7.example", addrs...)
			if got := run(t, tr, host, "echo out"); got.err != nil || got.stdout != "out\n" {
				t.Errorf("%+v", got)
			}
			nothingHere(t, tr)
		})
	}
	t.Run("none", func(t *testing.T) {
		tr := client(t)
		tr.LookupNetIP = resolver(t, "odd", nobody, "127.0.0.4")
		got := run(t, tr, transport.Host{Name: "odd"}, "echo out")
		checkError(t, got.err, outcome{phase: transport.PhaseConnect, kinds: []error{syscall.ECONNREFUSED}, text: nobody})
		nothingHere(t, tr)
	})
}

// An address from which nothing comes uses up its share of the time, not all of it.
func TestDeadAddress(t *testing.T) {
	r := rig.New(t, rig.Config{Hosts: 3})
	user := rig.ShellUser(t, "bash")
	var dead []string
	for _, h := range r.Hosts[:2] {
		if err := h.SetLink(false); err != nil {
			t.Fatal(err)
		}
		dead = append(dead, h.Addr(0).String())
	}
	tr := client(t)
	tr.ConnectTimeout = time.Second // first: three seconds after the first packet the kernel knows that there is no such neighbour, and says so
	tr.LookupNetIP = resolver(t, "node7", dead...)
	got := run(t, tr, transport.Host{Name: "node7", User: user}, "echo out")
	var op *transport.OpError
	if !errors.As(got.err, &op) || op.Phase != transport.PhaseConnect || !errors.Is(got.err, context.DeadlineExceeded) {
		t.Errorf("%v", got.err)
	}
	tr.ConnectTimeout = 3 * time.Second // what is dead takes as long as we let it
	tr.LookupNetIP = resolver(t, "node7", append(dead, r.Hosts[2].Addr(0).String())...)
	if got := run(t, tr, transport.Host{Name: "node7", User: user}, "echo out"); got.err != nil || got.stdout != "out\n" {
		t.Errorf("%+v: %v", got, got.err)
	}
	nothingHere(t, tr)
}

// The names of the system: /etc/hosts of the rig's control side.
func TestSystemNames(t *testing.T) {
	h := rig.New(t, rig.Config{}).Hosts[0]
	tr := client(t)
	for _, name := range []string{h.Name, h.Name + "-v6", h.Name + "-dual"} {
		if got := run(t, tr, transport.Host{Name: name, User: rig.ShellUser(t, "bash")}, "echo out"); got.err != nil || got.stdout != "out\n" {
			t.Errorf("%s: %+v: %v", name, got, got.err)
		}
	}
	got := run(t, tr, transport.Host{Name: "odd", Addr: "no-such-host"}, "echo out")
	checkError(t, got.err, outcome{phase: transport.PhaseResolve, text: "no-such-host"})
	var dns *net.DNSError
	if !errors.As(got.err, &dns) || !dns.IsNotFound {
		t.Errorf("error %v, want a DNSError of a name that is not found", got.err)
	}
	nothingHere(t, tr)
}

// The resolver's error is the user's, and the time for resolving is part of the time to connect.
func TestResolve(t *testing.T) {
	t.Run("error", func(t *testing.T) {
		want := &net.DNSError{Err: "server misbehaving", Name: "odd", Server: "10.0.0.53:53", IsTemporary: true}
		tr := &Transport{LookupNetIP: func(context.Context, string, string) ([]netip.Addr, error) { return nil, want }}
		_, err := tr.Start(t.Context(), transport.Host{Name: "odd"}, &transport.Command{Line: line})
		checkError(t, err, outcome{phase: transport.PhaseResolve, kinds: []error{want}})
	})
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := &Transport{LookupNetIP: func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
				<-ctx.Done()
				return nil, &net.DNSError{Err: "i/o timeout", Name: "odd", IsTimeout: true, UnwrapErr: context.DeadlineExceeded}
			}}
			begin := time.Now()
			_, err := tr.Start(t.Context(), transport.Host{Name: "odd"}, &transport.Command{Line: line})
			checkError(t, err, outcome{phase: transport.PhaseResolve, kinds: []error{context.DeadlineExceeded}, text: "--connect-timeout"})
			if took := time.Since(begin); took != DefaultConnectTimeout {
				t.Errorf("it took %v", took)
			}
		})
	})
	t.Run("an address needs none", func(t *testing.T) {
		tr := client(t)
		_, host := misbehaving(t, "ok")
		tr.LookupNetIP = func(context.Context, string, string) ([]netip.Addr, error) {
			t.Error("asked for the name of an address")
			return nil, errors.ErrUnsupported
		}
		if got := run(t, tr, host, "echo out"); got.err != nil || got.stdout != "out\n" {
			t.Errorf("%+v", got)
		}
	})
}

// An address that is tried in vain is told as such, so that its time is not taken for that of the next one's port.
func TestTraceOfAddresses(t *testing.T) {
	tr := client(t)
	_, host := misbehaving(t, "ok")
	host.Addr = "node7.example"
	tr.LookupNetIP = resolver(t, "node7.example", "127.0.0.3", "127.0.0.2") // nobody listens on the first
	var passed []string
	ctx := transport.WithTrace(t.Context(), func(p transport.Passed) {
		passed = append(passed, fmt.Sprint(p.Phase, " ", p.Err != nil, " ", errors.Is(p.Err, syscall.ECONNREFUSED)))
	})
	s, err := tr.Start(ctx, host, &transport.Command{Line: "echo out"})
	if err != nil {
		t.Fatal(err)
	}
	connected := slices.Clone(passed[:min(len(passed), 5)])
	if _, err := s.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	want := []string{"resolve false false", "port false false", "connect true true", "port false false", "connect false false"}
	if !slices.Equal(connected, want) {
		t.Errorf("%q, want %q", connected, want)
	}
}
