package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport/shwrap"
	"multirsh/transport/ssh/sshtest"
)

// login connects to an SSH host.
func login(tb testing.TB, f *Fleet, host int, port uint16) (*ssh.Client, error) {
	tb.Helper()
	conn, err := net.Dial("tcp4", netip.AddrPortFrom(Addr(host), port).String())
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{User: "ops", HostKeyCallback: ssh.FixedHostKey(f.SSH.HostKey())})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// remote runs a command on an SSH host, with input, and returns its two outputs.
func remote(tb testing.TB, f *Fleet, host int, port uint16, command, input string) (out, errs string, err error) {
	tb.Helper()
	c, err := login(tb, f, host, port)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	x, err := c.NewSession()
	if err != nil {
		return "", "", err
	}
	var o, e bytes.Buffer
	x.Stdin, x.Stdout, x.Stderr = strings.NewReader(input), &o, &e
	err = x.Run(command)
	return o.String(), e.String(), err
}

func exitCode(err error) int {
	if exit := (*ssh.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitStatus()
	}
	return 0
}

func TestSSHRealShell(t *testing.T) {
	f := &Fleet{Hosts: 70_000, SSH: &sshtest.Server{}}
	port := newFleet(t, f)
	for _, host := range []int{1, 256, 70_000} {
		out, errs, err := remote(t, f, host, port, "echo $USER ${SSH_CONNECTION#* * }; cat >&2; exit 3", "err\n")
		if want := fmt.Sprintf("ops %v %d\n", Addr(host), port); out != want || errs != "err\n" || exitCode(err) != 3 {
			t.Errorf("host %d: %q, %q, %v", host, out, errs, err)
		}
	}
	if _, err := login(t, f, 70_001, port); err == nil {
		t.Error("an address that is no host's let us in")
	}
	if a := f.Account(); a.Connections != 4 || a.Refused != 1 || a.Most < 1 {
		t.Errorf("%+v", a)
	}
}

// rsh and SSH hosts are beside each other at the same addresses.
func TestBothProtocols(t *testing.T) {
	rsh, other := &Fleet{Hosts: 1}, &Fleet{Hosts: 1, SSH: &sshtest.Server{}}
	rsh.Server.AnyPort = true
	rshPort, sshPort := newFleet(t, rsh), newFleet(t, other)
	if out, _ := dial(t, 1, rshPort, false, "echo rsh").ends(); out != "\x00rsh\n" {
		t.Errorf("%q", out)
	}
	if out, _, err := remote(t, other, 1, sshPort, "echo ssh", ""); out != "ssh\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// Each host behaves as its share says, under Fast too.
func TestSSHBehaviours(t *testing.T) {
	shares, err := ParseSSHShares("ok:50%,banner=no:25%,signal=SEGV:25%")
	if err != nil {
		t.Fatal(err)
	}
	for _, fast := range []bool{false, true} {
		f := &Fleet{Hosts: 20, SSHShares: shares, Seed: 3, Fast: fast, Output: []byte("real\n"), SSH: &sshtest.Server{}}
		port := newFleet(t, f)
		seen := make(map[string]int)
		for host := 1; host <= f.Hosts; host++ {
			out, _, err := remote(t, f, host, port, "echo real", "")
			var exit *ssh.ExitError
			got := "banner=no"
			switch {
			case errors.As(err, &exit) && exit.Signal() == "SEGV" && out == "real\n":
				got = "signal=SEGV"
			case err == nil && out == "real\n":
				got = "ok"
			}
			if want := shares.Of(host, f.Seed).String(); got != want {
				t.Errorf("fast %v, host %d: %s, want %s (%v)", fast, host, got, want, err)
			}
			seen[got]++
		}
		if len(seen) != 3 {
			t.Errorf("fast %v: %v", fast, seen)
		}
	}
}

// Under Fast a bare command prints the output, and a wrapped one does all that the wrapper says.
func TestSSHFast(t *testing.T) {
	f := &Fleet{Hosts: 1, Fast: true, Output: []byte("fast\n"), SSH: &sshtest.Server{}}
	port := newFleet(t, f)
	if out, errs, err := remote(t, f, 1, port, "exit 3", ""); out != "fast\n" || errs != "" || err != nil {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	for name, s := range map[string]shwrap.Script{
		"two channels": {Line: "uptime"}, "one channel": {Line: "uptime", Merged: true}, "input": {Line: "cat", Input: 3_000_000},
		"long text": {Line: "echo '" + strings.Repeat("é\n", 30_000) + "'"},
	} {
		w, err := shwrap.New(s)
		if err != nil {
			t.Fatal(err)
		}
		out, errs, err := remote(t, f, 1, port, shwrap.Bootstrap, string(w.Preamble())+strings.Repeat("i", int(s.Input))+string(w.Go()))
		mark, end := string(w.Leader()), string(w.Trailer(0))
		wantErrs := mark + end
		if s.Merged {
			wantErrs = ""
		}
		if out != mark+"fast\n"+end || errs != wantErrs || err != nil {
			t.Errorf("%s: %q, %q, %v", name, out, errs, err)
		}
	}
	for name, text := range map[string]string{
		"no preamble": "hello\n", "nothing": "", "endless": strings.Repeat("a", 2*keepMax),
	} {
		if out, _, err := remote(t, f, 1, port, shwrap.Bootstrap, text); out != "" || err == nil {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

func TestSSHFastHold(t *testing.T) {
	const hold = 30 * time.Millisecond
	f := &Fleet{Hosts: 1, Fast: true, Output: []byte("ok\n"), Hold: hold, SSH: &sshtest.Server{}}
	port := newFleet(t, f)
	start := time.Now()
	if out, _, err := remote(t, f, 1, port, "sleep", ""); out != "ok\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if took := time.Since(start); took < hold { // it can only be later
		t.Errorf("held for %v", took)
	}

	// A stop ends it: a signal of the protocol, or the wrapper's line.
	f = &Fleet{Hosts: 1, Fast: true, Hold: time.Hour, SSH: &sshtest.Server{}}
	port = newFleet(t, f)
	c, err := login(t, f, 1, port)
	if err != nil {
		t.Fatal(err)
	}
	x, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	x.Start("sleep")
	x.Signal(ssh.SIGTERM)
	var exit *ssh.ExitError
	if err := x.Wait(); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("%v", err)
	}
	w, err := shwrap.New(shwrap.Script{Line: "sleep"})
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := remote(t, f, 1, port, shwrap.Bootstrap, string(w.Preamble())+"TERM\n")
	if out != string(w.Leader())+string(w.Trailer(143)) || exitCode(err) != 143 {
		t.Errorf("%q, %v", out, err)
	}
	// And so does the end of the connection.
	x, err = c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	x.Start("sleep")
	c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if a, err := f.SSH.Until(ctx, func(a sshtest.Account) bool { return a.Now == 0 }); err != nil {
		t.Errorf("%v: %+v", err, a)
	}
}

func TestSSHShares(t *testing.T) {
	s, err := ParseSSHShares("ok:90%,stall=kex:10%")
	if err != nil || s.String() != "ok:90%,stall=kex:10%" {
		t.Errorf("%v, %v", s, err)
	}
	for text, want := range map[string]string{
		"error": `no behaviour "error"`, "ok:95%": "add up to 95%, not 100%", "ok:50%,stall=leader:50%": `behaviour stall="leader"`,
	} {
		if _, err := ParseSSHShares(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// Many connections at once, all held, cut off by Close.
func TestSSHMany(t *testing.T) {
	const n = 200
	f := &Fleet{Hosts: n, Fast: true, Hold: time.Hour, SSH: &sshtest.Server{}}
	port := newFleet(t, f)
	var all sync.WaitGroup
	limit := make(chan struct{}, 16)
	waits := make(chan error, n)
	for host := 1; host <= n; host++ {
		limit <- struct{}{}
		all.Go(func() {
			defer func() { <-limit }()
			c, err := login(t, f, host, port)
			if err != nil {
				t.Error(err)
				return
			}
			x, err := c.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			if err := x.Start("sleep"); err != nil {
				t.Error(err)
			}
			go func() { waits <- x.Wait() }()
		})
	}
	all.Wait()
	if a := f.Account(); a.Now != n || a.Most != n {
		t.Errorf("%+v", a)
	}
	f.Close()
	for range n {
		if err := <-waits; err == nil {
			t.Fatal("a session ended well")
		}
	}
}

// BenchmarkSSHFast is a plain client of a fast fleet in the same process: what both ends cost for a connection with one command.
func BenchmarkSSHFast(b *testing.B) {
	const hosts = 10_000
	f := &Fleet{Hosts: hosts, Fast: true, Output: []byte("ok\n"), SSH: &sshtest.Server{}}
	port := newFleet(b, f)
	b.SetParallelism(16)
	var next sync.Mutex
	host := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			next.Lock()
			host = host%hosts + 1
			to := host
			next.Unlock()
			conn, err := net.Dial("tcp4", netip.AddrPortFrom(Addr(to), port).String())
			if err != nil {
				b.Error(err)
				return
			}
			c, channels, requests, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{User: "ops", HostKeyCallback: ssh.InsecureIgnoreHostKey()})
			if err != nil {
				b.Error(err)
				return
			}
			client := ssh.NewClient(c, channels, requests)
			x, err := client.NewSession()
			if err != nil {
				b.Error(err)
				return
			}
			if out, err := x.Output("true"); string(out) != "ok\n" || err != nil {
				b.Errorf("%q, %v", out, err)
			}
			client.Close()
		}
	})
}

// BenchmarkSSHHeld is how much memory a connection takes at both ends while its command runs.
func BenchmarkSSHHeld(b *testing.B) {
	const n = 1000
	for b.Loop() {
		f := &Fleet{Hosts: n, Fast: true, Hold: time.Hour, SSH: &sshtest.Server{}}
		port, err := f.Start()
		if err != nil {
			b.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for host := 1; host <= n; host++ {
			c, err := login(b, f, host, port)
			if err != nil {
				b.Fatal(err)
			}
			x, requests, err := c.OpenChannel("session", nil)
			if err != nil {
				b.Fatal(err)
			}
			go ssh.DiscardRequests(requests)
			go io.Copy(io.Discard, x)
			x.SendRequest("exec", true, ssh.Marshal(struct{ Line string }{"sleep"}))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/n, "B/connection")
		f.Close()
	}
}
