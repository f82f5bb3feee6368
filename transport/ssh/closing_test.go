package ssh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/sshconfig"
	"multirsh/transport/transporttest"
)

// real is a client of the rig's hosts.
func real(t testing.TB, h *rig.Host, options ...string) *Transport {
	t.Helper()
	home := newHome(t)
	home.know(h.KnownHosts())
	return home.transport(append(options, "IdentityFile="+rig.ClientKeyFile, "IdentitiesOnly=yes")...)
}

var servers = []rig.Daemon{rig.OpenSSH, rig.Dropbear}

// TestRealConformance is the suite over both real servers: the command as it is for users with several login shells, for root, whose signals
// an old sshd does not pass on, below the wrapper, merged, and over IPv6.
func TestRealConformance(t *testing.T) {
	for _, server := range servers {
		t.Run(string(server), func(t *testing.T) {
			h := rig.New(t, rig.Config{SSH: rig.SSH{Server: server, Lines: lines(server, "MaxStartups 100")}}).Hosts[0]
			suite := func(t *testing.T, addr, user string, set func(*Transport)) {
				harness := transporttest.Harness{Parallel: 20, NoBackground: server == rig.Dropbear}
				harness.New = func(tb testing.TB) (transport.Transport, transport.Host) {
					tr := real(tb, h)
					set(tr)
					return tr, transport.Host{Name: h.Name, Addr: addr, User: user}
				}
				probe := new(Transport)
				set(probe)
				harness.Merged = probe.Merge
				transporttest.Run(t, harness)
			}
			none := func(*Transport) {}
			t.Run("bash", func(t *testing.T) { suite(t, h.Addr(0).String(), rig.ShellUser(t, "bash"), none) })
			t.Run("root", func(t *testing.T) { suite(t, h.Addr(0).String(), "root", none) })
			t.Run("ipv6", func(t *testing.T) { suite(t, h.Addr6(0).String(), rig.ShellUser(t, "bash"), none) })
			if server == rig.Dropbear {
				return // no process group for the wrapper
			}
			for _, shell := range []string{"bash", "csh", "fish"} {
				t.Run("wrapped/"+shell, func(t *testing.T) {
					suite(t, h.Addr(0).String(), rig.ShellUser(t, shell), func(tr *Transport) { tr.Shell = true })
				})
			}
			t.Run("merged", func(t *testing.T) {
				suite(t, h.Addr(0).String(), rig.ShellUser(t, "bash"), func(tr *Transport) { tr.Merge = true })
			})
		})
	}
}

// lines are for OpenSSH alone.
func lines(server rig.Daemon, text ...string) []string {
	if server == rig.OpenSSH {
		return text
	}
	return nil
}

// bench is a row's client and host.
type bench struct {
	t      *testing.T
	h      *rig.Host
	server rig.Daemon
	tr     *Transport
	user   string
	watch  *rig.Watch
}

// TestClosing goes through "Closing: who goes first" in docs/design.md, a row at a time, against both real servers. Who was first is read from
// the packets, what is left from our kernel's socket table.
func TestClosing(t *testing.T) {
	for _, server := range servers {
		for _, row := range []struct {
			name string
			test func(*testing.T, *bench)
		}{
			{"normal end", normalEnd},
			{"stop", stopLive},
			{"close", closeLive},
			{"background child", backgroundChild},
			{"refused login", refusedLogin},
			{"host key refused", refusedKey},
			{"start's time is over", startLate},
			{"our death", ownDeath},
			{"the host vanishes", hostVanishes},
			{"the server dies", serverDies},
		} {
			t.Run(string(server)+"/"+row.name, func(t *testing.T) {
				h := rig.New(t, rig.Config{SSH: rig.SSH{Server: server, Lines: lines(server, "MaxStartups 200")}}).Hosts[0]
				w, err := h.WatchClosings()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { w.Close() })
				row.test(t, &bench{t, h, server, real(t, h), rig.ShellUser(t, "bash"), w})
			})
		}
	}
}

func (b *bench) host(j int) transport.Host {
	return transport.Host{Name: b.h.NameOf(j), Addr: b.h.Addr(j).String(), User: b.user}
}

// nothingHere checks that no connection of ours is left, in whatever state.
func (b *bench) nothingHere() {
	b.t.Helper()
	b.tr.Shutdown(context.Background())
	rig.Until(b.t, "towards the host", func() string {
		table, err := rig.Sockets()
		if err != nil {
			b.t.Fatal(err)
		}
		left, wrong := "", false
		for _, s := range table {
			if s.Remote.Port() == 22 {
				left += fmt.Sprintf("%v to %v in %s; ", s.Local, s.Remote, s.State)
				wrong = wrong || s.State != "LAST_ACK" // which goes by itself
			}
		}
		if wrong {
			b.t.Fatalf("left here: %s", left)
		}
		return left
	})
}

// closings checks how the connections ended: n of them, and by whom with what.
func (b *bench) closings(n int, by, with string) {
	b.t.Helper()
	all, err := b.watch.Closings()
	if err != nil {
		b.t.Fatal(err)
	}
	counts := map[string]int{}
	for _, c := range all {
		counts[c.By+" "+c.With]++
		if c.Both {
			b.t.Errorf("both closed at once: %+v", c)
		}
	}
	if len(all) != n || counts[by+" "+with] != n {
		b.t.Errorf("%d connections ended, by %v; want %d by a %s of the %s", len(all), counts, n, with, by)
	}
}

// begin starts a line whose first word is "up", and waits for that.
func (b *bench) begin(host transport.Host, line string) *transporttest.Live {
	b.t.Helper()
	l := transporttest.Begin(b.t, b.tr, host, transport.Command{Line: line})
	l.Stdout.Await(b.t, "up\n")
	return l
}

// end waits for the end.
func end(t testing.TB, l *transporttest.Live) result {
	t.Helper()
	status, err := l.End(t)
	return result{l.Stdout.String(), l.Stderr.String(), status, err}
}

func normalEnd(t *testing.T, b *bench) {
	const hosts = 100
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range hosts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if got := run(t, b.tr, b.host(i+1), line); got != (result{"out\n", "err\n", ended, nil}) {
				t.Errorf("%d: %+v", i, got)
			}
		})
	}
	wg.Wait()
	b.nothingHere()
	b.closings(hosts, "server", "FIN")
	if s := b.tr.Stats(); s.ClosedFirst != hosts || s.Reset != 0 {
		t.Errorf("%+v", s)
	}
	ordinary := map[rig.Daemon]string{rig.OpenSSH: ":11: disconnected by user", rig.Dropbear: "Disconnect received"}[b.server]
	rig.Until(t, "in the server's log", func() string { // a server writes it behind its close
		text, err := b.h.SSHLog()
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(text, ordinary); n != hosts {
			return fmt.Sprintf("%d ordinary disconnects, want %d", n, hosts)
		}
		return ""
	})
}

func stopLive(t *testing.T, b *bench) {
	if b.server == rig.Dropbear {
		stopShell(t, b)
		return
	}
	users := []string{b.user, "root"}
	for _, user := range users {
		host := b.host(0)
		host.User = user
		for _, line := range []string{
			"echo up; sleep 1000",
			"trap '' TERM; echo up; sleep 1000; sleep 1000",
			"sleep 1000 & sleep 1000 & echo up; wait; sleep 1000",
		} {
			l := b.begin(host, line)
			if err := l.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if got := end(t, l); got.status == (transport.Status{}) {
				t.Errorf("%s, %s: %+v", user, line, got)
			}
		}
	}
	b.h.AwaitProcesses(b.t, "sleep", 0)
	b.nothingHere()
	b.closings(3*len(users), "server", "FIN")
}

// stopShell: Dropbear signals the login shell, and nothing else.
func stopShell(t *testing.T, b *bench) {
	for _, line := range []string{"echo up; exec sleep 1000", "trap '' TERM; echo up; exec sleep 1000"} {
		l := b.begin(b.host(0), line)
		if err := l.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if got := end(t, l); got.err != nil || got.status.Signal == "" {
			t.Errorf("%s: %+v", line, got)
		}
	}
	b.h.AwaitProcesses(b.t, "sleep", 0)
	b.nothingHere()
	b.closings(2, "server", "FIN")
}

func closeLive(t *testing.T, b *bench) {
	l := b.begin(b.host(0), "echo up; sleep 1000")
	l.Close()
	if got := end(t, l); !errors.Is(got.err, transport.ErrClosed) || got.status.Known || got.status.Ended {
		t.Errorf("%+v", got)
	}
	b.nothingHere()
	b.closings(1, "server", "FIN")
}

func backgroundChild(t *testing.T, b *bench) {
	for i, line := range []string{"sleep 1000 & echo out; exit 3", "sleep 1000 2>/dev/null & echo out; exit 3", "sleep 1000 >/dev/null & echo out; exit 3"} {
		got := run(t, b.tr, b.host(0), line)
		want := transport.Status{Known: true, Code: 3, Started: true, Background: true}
		if b.server == rig.Dropbear { // it closes the channel when the command has ended
			want.Background, want.Ended = false, true
		}
		if got.err != nil || got.status != want || got.stdout != "out\n" {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
		b.h.AwaitProcesses(b.t, "sleep", i+1)
	}
	b.nothingHere()
	b.closings(3, "server", "FIN")
}

func refusedLogin(t *testing.T, b *bench) {
	b.user = rig.NoRhosts
	const hosts = 30
	for i := range hosts {
		if got := run(t, b.tr, b.host(i+1), line); !errors.Is(got.err, transport.ErrAuth) {
			t.Errorf("%+v", got)
		}
	}
	b.nothingHere()
}

func refusedKey(t *testing.T, b *bench) {
	stranger := newHome(t)
	b.tr = stranger.transport()
	const hosts = 30
	for i := range hosts {
		if got := run(t, b.tr, b.host(i+1), line); !errors.Is(got.err, transport.ErrHostKey) {
			t.Errorf("%+v", got)
		}
	}
	b.nothingHere()
	b.closings(hosts, "client", "RST")
}

// startLate: the command is accepted by nobody in time, because the server's process does not run.
func startLate(t *testing.T, b *bench) {
	if b.server != rig.OpenSSH {
		t.Skip("only a server that listens itself can be stopped")
	}
	if n, err := b.h.Kill("sshd", syscall.SIGSTOP); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	b.tr.ConnectTimeout = 300 * time.Millisecond
	for i := range 10 {
		if got := run(t, b.tr, b.host(i+1), line); !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("%+v", got)
		}
	}
	b.nothingHere()
	b.closings(10, "client", "RST")
}

// holdVar makes the test binary a process of its own that holds sessions until it is killed. It says: home, known hosts, user, addresses.
const holdVar = "SSH_TEST_HOLD"

// hold does so, and does not return.
func hold(spec string) {
	fields := strings.Fields(spec)
	config, err := sshconfig.Read(sshconfig.Sources{File: "none", Home: fields[0], LocalUser: "local", LocalHost: "here", Options: []string{
		"IdentityFile=" + rig.ClientKeyFile, "UserKnownHostsFile=" + fields[1], "User=" + fields[2],
	}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	rig.Hold(&Transport{Config: config, Wallet: auth.New(auth.Options{})}, "", fields[3:])
}

// ownDeath has a process with 32 live sessions killed with SIGKILL.
func ownDeath(t *testing.T, b *bench) {
	const sessions = 32
	home := newHome(t)
	home.know(b.h.KnownHosts())
	spec := fmt.Sprint(home.dir, " ", home.path("known_hosts"), " ", b.user)
	for i := range sessions {
		spec += " " + b.h.Addr(i+1).String()
	}
	rig.StartHolder(t, holdVar+"="+spec)()
	b.nothingHere()
	b.closings(sessions, "client", "RST")
}

// hostVanishes without a word: the keepalives find out.
func hostVanishes(t *testing.T, b *bench) {
	b.tr = real(t, b.h, "ServerAliveInterval=1", "ServerAliveCountMax=1")
	l := b.begin(b.host(0), "echo up; sleep 1000")
	if err := b.h.SetLink(false); err != nil {
		t.Fatal(err)
	}
	if got := end(t, l); !errors.Is(got.err, transport.ErrLost) || got.status.Known || got.status.Ended || !got.status.Started {
		t.Errorf("%+v", got)
	}
	b.nothingHere()
}

func serverDies(t *testing.T, b *bench) {
	l := b.begin(b.host(0), "echo up; sleep 1000")
	name := map[rig.Daemon]string{rig.OpenSSH: "sshd", rig.Dropbear: "dropbear"}[b.server]
	if n, err := b.h.Kill(name, syscall.SIGKILL); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	if got := end(t, l); !errors.Is(got.err, transport.ErrLost) || got.status.Known {
		t.Errorf("%+v", got)
	}
	b.nothingHere()
}
