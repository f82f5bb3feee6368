package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
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
	until(b.t, "towards the host", func() string {
		text, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			b.t.Fatal(err)
		}
		var left []string
		for l := range strings.Lines(string(text)) {
			if f := strings.Fields(l); len(f) > 3 && strings.HasSuffix(f[2], ":0016") {
				left = append(left, f[1]+" to "+f[2]+" in state "+f[3])
			}
		}
		for _, l := range left {
			if !strings.HasSuffix(l, "09") { // LAST_ACK goes by itself
				b.t.Fatalf("left here: %s", strings.Join(left, ", "))
			}
		}
		return strings.Join(left, ", ")
	})
}

// until waits until there is no objection any more: neither the kernel nor a far process tells when something has gone.
func until(t testing.TB, what string, objection func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(45 * time.Second); ; <-tick.C {
		o := objection()
		if o == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %s", what, o)
		}
	}
}

// processes waits until so many of that name run on the host.
func (b *bench) processes(name string, n int) {
	b.t.Helper()
	until(b.t, name+" on the host", func() string {
		all, err := b.h.Processes(name)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(all) == n {
			return ""
		}
		return fmt.Sprintf("%d processes, want %d: %+v", len(all), n, all)
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

// live is a session that waits.
type live struct {
	transport.Session
	stdout, stderr record
	done           chan struct{}
	got            result
}

func (b *bench) begin(host transport.Host, line string) *live {
	b.t.Helper()
	l := &live{done: make(chan struct{})}
	s, err := b.tr.Start(b.t.Context(), host, &transport.Command{Line: line, Stdout: &l.stdout, Stderr: &l.stderr})
	if err != nil {
		b.t.Fatal(err)
	}
	l.Session = s
	go func() {
		defer close(l.done)
		l.got.status, l.got.err = s.Wait(context.Background())
	}()
	b.t.Cleanup(func() { s.Close(); <-l.done })
	until(b.t, "the command's first word", func() string {
		if strings.Contains(l.stdout.String(), "up\n") {
			return ""
		}
		return "it has not come"
	})
	return l
}

func (l *live) result() result {
	<-l.done
	l.got.stdout, l.got.stderr = l.stdout.String(), l.stderr.String()
	return l.got
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
	text, err := b.h.SSHLog()
	if err != nil {
		t.Fatal(err)
	}
	ordinary := map[rig.Daemon]string{rig.OpenSSH: ":11: disconnected by user", rig.Dropbear: "Disconnect received"}[b.server]
	if n := strings.Count(text, ordinary); n != hosts {
		t.Errorf("%d ordinary disconnects in the server's log, want %d", n, hosts)
	}
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
			if got := l.result(); got.status == (transport.Status{}) {
				t.Errorf("%s, %s: %+v", user, line, got)
			}
		}
	}
	b.processes("sleep", 0)
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
		if got := l.result(); got.err != nil || got.status.Signal == "" {
			t.Errorf("%s: %+v", line, got)
		}
	}
	b.processes("sleep", 0)
	b.nothingHere()
	b.closings(2, "server", "FIN")
}

func closeLive(t *testing.T, b *bench) {
	l := b.begin(b.host(0), "echo up; sleep 1000")
	l.Close()
	if got := l.result(); !errors.Is(got.err, transport.ErrClosed) || got.status.Known || got.status.Ended {
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
		b.processes("sleep", i+1)
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

// hold has a session of "sleep" on each address and says so on stdout. It does not return.
func hold(spec string) {
	fields := strings.Fields(spec)
	config, err := sshconfig.Read(sshconfig.Sources{File: "none", Home: fields[0], LocalUser: "local", LocalHost: "here", Options: []string{
		"IdentityFile=" + rig.ClientKeyFile, "UserKnownHostsFile=" + fields[1], "User=" + fields[2],
	}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	tr := &Transport{Config: config, Wallet: auth.New(auth.Options{})}
	for i, addr := range fields[3:] {
		up := make(chan struct{})
		out := &record{want: 1, until: func() { close(up) }}
		s, err := tr.Start(context.Background(), transport.Host{Name: "h", Addr: addr}, &transport.Command{Line: "echo up; sleep 1000", Stdout: out})
		if err != nil {
			fmt.Println(i, err)
			os.Exit(1)
		}
		go s.Wait(context.Background())
		<-up
	}
	fmt.Println("holding")
	select {}
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
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), holdVar+"="+spec)
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	child.Stderr = os.Stderr
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "holding\n" {
		t.Fatalf("the child said %q: %v", line, err)
	}
	child.Process.Kill()
	child.Wait()
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
	if got := l.result(); !errors.Is(got.err, transport.ErrLost) || got.status.Known || got.status.Ended || !got.status.Started {
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
	if got := l.result(); !errors.Is(got.err, transport.ErrLost) || got.status.Known {
		t.Errorf("%+v", got)
	}
	b.nothingHere()
}
