package rsh

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/transporttest"
)

// TestClosing goes through "Closing: who goes first" in docs/design.md, a row at a time, against both real daemons. What a row
// leaves is read from the socket tables of both kernels, ours and the host's.
func TestClosing(t *testing.T) {
	for _, daemon := range []rig.Daemon{rig.Redone, rig.Netkit} {
		for _, row := range []struct {
			name string
			test func(*testing.T, *bench)
		}{
			{"normal end", normalEnd},
			{"many in a row", manyInARow},
			{"input", withInput},
			{"stop", stop},
			{"stop with input in flight", stopInFlight},
			{"close", closeLive},
			{"background child", backgroundChild},
			{"our death", ownDeath},
			{"our death, kill on disconnect", ownDeathKills},
			{"the host vanishes", hostVanishes},
			{"the host vanishes, close", hostVanishesClose},
			{"rshd dies", rshdDies},
			{"the shell dies", shellDies},
			{"before it is up", beforeItIsUp},
			{"listeners", listeners},
		} {
			t.Run(string(daemon)+"/"+row.name, func(t *testing.T) {
				h := rig.New(t, rig.Config{Daemon: daemon}).Hosts[0]
				row.test(t, &bench{t: t, tr: client(t), h: h, user: rig.ShellUser(t, "bash")})
			})
		}
	}
}

// bench is a row's client and host.
type bench struct {
	t    *testing.T
	tr   *Transport
	h    *rig.Host
	user string
}

func (b *bench) host(j int) transport.Host {
	return transport.Host{Name: b.h.NameOf(j), Addr: b.h.Addr(j).String(), User: b.user}
}

// nothingHere checks that no socket is left on our reserved ports, whatever its state, after the sessions and the Allocator have ended. There
// may be a moment of LAST-ACK, until the host has confirmed our answer to its FIN; any other state means that we closed first.
func nothingHere(t testing.TB, tr *Transport) {
	t.Helper()
	tr.Shutdown(context.Background())
	tr.Ports.Close()
	rig.Until(t, "on our reserved ports", func() string {
		table, err := resvport.Table()
		if err != nil {
			t.Fatal(err)
		}
		left, wrong := "", false
		for _, s := range table {
			if !simulated(s.Local.Addr()) {
				left += fmt.Sprintf("%v %v %v; ", s.State, s.Local, s.Remote)
				wrong = wrong || s.State.String() != "LAST-ACK"
			}
		}
		if wrong {
			t.Fatalf("on our reserved ports: %s", left)
		}
		return left
	})
}

// simulated tells the addresses of servers in this process, whose reserved ports are theirs, from ours.
func simulated(a netip.Addr) bool { return a.IsLoopback() && a != netip.MustParseAddr("127.0.0.1") }

// freeThere checks that no reserved port of the host is in use, but for 514, where it listens and may have TIME_WAITs: it
// returns how many.
func (b *bench) freeThere() (timeWaits int) {
	b.t.Helper()
	rig.Until(b.t, "on the host's reserved ports", func() (busy string) {
		table, err := b.h.Sockets()
		if err != nil {
			b.t.Fatal(err)
		}
		timeWaits = 0
		for _, s := range table {
			p := s.Local.Port()
			switch {
			case p < resvport.First || p > resvport.Last, p == DefaultPort && s.State == "LISTEN":
			case p == DefaultPort && s.State == "TIME_WAIT":
				timeWaits++
			default:
				busy += fmt.Sprintf("%s %v %v; ", s.State, s.Local, s.Remote)
			}
		}
		return busy
	})
	return timeWaits
}

// begin starts a command on the host.
func (b *bench) begin(cmd transport.Command) *transporttest.Live {
	b.t.Helper()
	return transporttest.Begin(b.t, b.tr, b.host(0), cmd)
}

// end waits for the end.
func end(t testing.TB, l *transporttest.Live) result {
	t.Helper()
	status, err := l.End(t)
	return result{l.Stdout.String(), l.Stderr.String(), status, err}
}

func normalEnd(t *testing.T, b *bench) {
	for _, variant := range []struct {
		name         string
		merge, plain bool
	}{{"wrapped", false, false}, {"merged", true, false}, {"plain", false, true}, {"plain and merged", true, true}} {
		b.tr.Merge, b.tr.Plain = variant.merge, variant.plain
		got := run(t, b.tr, b.host(0), "echo out; echo err >&2")
		if want := "out\nerr\n"; got.err != nil || got.stdout+got.stderr != want || !got.status.Ended || got.status.Known == variant.plain {
			t.Errorf("%s: %+v", variant.name, got)
		}
	}
	// The TIME_WAITs are the host's, for it has closed first, and on the port that is nobody's to take.
	if n := b.freeThere(); n != 4 {
		t.Errorf("%d TIME_WAIT on the host's port 514 after 4 sessions: did it not close first?", n)
	}
	nothingHere(t, b.tr)
}

// manyInARow is more commands than a host has reserved ports, from one address of ours to one of its.
func manyInARow(t *testing.T, b *bench) {
	const commands, atOnce = 600, 20
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range commands {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			got := run(t, b.tr, b.host(0), fmt.Sprintf("echo %d; echo err %d >&2", i, i))
			if got.err != nil || got.stdout != fmt.Sprintln(i) || got.stderr != fmt.Sprintln("err", i) || got.status.Code != 0 {
				t.Errorf("%d: %+v", i, got)
			}
		})
	}
	wg.Wait()
	b.freeThere()
	nothingHere(t, b.tr)
}

func withInput(t *testing.T, b *bench) {
	text := strings.Repeat("a line of input\n", 1<<16)
	for line, want := range map[string]string{
		"cat":     text,
		"head -1": "a line of input\n", // the rest is drained by the wrapper, or the host would reset and lose what was printed
		"true":    "",
	} {
		l := b.begin(transport.Command{Line: line, Stdin: io.NewSectionReader(strings.NewReader(text), 0, int64(len(text)))})
		if got := end(t, l); got.err != nil || got.stdout != want || !got.status.Ended || got.status.Code != 0 {
			t.Errorf("%s: %d bytes of output, %+v, %v", line, len(got.stdout), got.status, got.err)
		}
	}
	if n := b.freeThere(); n != 3 {
		t.Errorf("%d TIME_WAIT on the host's port 514 after 3 sessions: did it not close first?", n)
	}
	nothingHere(t, b.tr)
}

func stop(t *testing.T, b *bench) {
	for line, known := range map[string]bool{
		"echo up; sleep 1000":                                 true,
		"trap '' TERM; echo up; sleep 1000; sleep 1000":       false, // needs the SIGKILL, which takes the wrapper along
		"sleep 1000 & sleep 1000 & echo up; wait; sleep 1000": true,
	} {
		l := b.begin(transport.Command{Line: line})
		l.Stdout.Await(t, "up")
		if err := l.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		got := end(t, l)
		if got.status.Known != known || known && (got.err != nil || got.status.Code != 143) || !known && !errors.Is(got.err, transport.ErrLost) {
			t.Errorf("%s: %+v", line, got)
		}
		if !got.status.Ended { // the host has closed both channels: nobody there holds one
			t.Errorf("%s: %+v: the session ended before the host did", line, got.status)
		}
	}
	b.h.AwaitProcesses(b.t, "sleep", 0)
	b.freeThere()
	nothingHere(t, b.tr)
}

// gate is input whose second half comes when the gate is opened.
type gate struct {
	half int64
	open chan struct{}
}

func (g gate) ReadAt(p []byte, at int64) (int, error) {
	if at >= g.half {
		<-g.open
	} else {
		p = p[:min(int64(len(p)), g.half-at)]
	}
	return copy(p, bytes.Repeat([]byte("x"), len(p))), nil
}

func stopInFlight(t *testing.T, b *bench) {
	g := gate{half: 1 << 20, open: make(chan struct{})}
	l := b.begin(transport.Command{
		Line:  "sleep 1000 & head -c 1000000 >/dev/null; echo up; cat; echo the input is whole",
		Stdin: io.NewSectionReader(g, 0, 2*g.half),
	})
	l.Stdout.Await(t, "up")
	if err := l.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	close(g.open)
	got := end(t, l)
	if got.status.Known || !errors.Is(got.err, transport.ErrLost) || !got.status.Started || strings.Contains(got.stdout, "whole") {
		t.Errorf("%+v, %v", got.status, got.err)
	}
	if !got.status.Ended { // stderr's end of file is the proof
		t.Errorf("%+v: the session ended before the host did", got.status)
	}
	b.h.AwaitProcesses(b.t, "sleep", 0)
	b.freeThere()
	nothingHere(t, b.tr)
}

// closeLive is the end of all patience: nothing is left here, and what runs on the host lives on, if it was not told otherwise.
func closeLive(t *testing.T, b *bench) {
	for _, kill := range []bool{true, false} {
		b.tr.KillOnDisconnect = kill
		l := b.begin(transport.Command{Line: "echo up; sleep 1000"})
		l.Stdout.Await(t, "up")
		l.Close()
		if got := end(t, l); !errors.Is(got.err, transport.ErrClosed) || got.status.Known || got.status.Ended {
			t.Errorf("%+v", got)
		}
		if kill {
			b.h.AwaitProcesses(b.t, "sleep", 0)
		}
	}
	b.freeThere() // both ends are gone before we look for the survivor
	b.h.AwaitProcesses(b.t, "sleep", 1)
	nothingHere(t, b.tr)
}

func backgroundChild(t *testing.T, b *bench) {
	for i, line := range []string{
		"sleep 1000 & echo out; exit 3",
		"sleep 1000 2>/dev/null & echo out; exit 3",
		"sleep 1000 >/dev/null & echo out; exit 3",
	} {
		l := b.begin(transport.Command{Line: line})
		got := end(t, l)
		if want := (transport.Status{Known: true, Code: 3, Started: true, Background: true}); got.err != nil || got.status != want || got.stdout != "out\n" {
			t.Errorf("%s: %+v", line, got)
		}
		b.freeThere()
		b.h.AwaitProcesses(b.t, "sleep", i+1)
	}
	nothingHere(t, b.tr)
}

// holdVar makes the test binary a process of its own that holds sessions until it is killed. It says: kill on disconnect (true or
// false), user, addresses.
const holdVar = "RSH_TEST_HOLD"

// hold does so, and does not return.
func hold(spec string) {
	fields := strings.Fields(spec)
	tr := &Transport{Ports: new(resvport.Allocator), LocalUser: "root", KillOnDisconnect: fields[0] == "true"}
	rig.Hold(tr, fields[1], fields[2:])
}

func ownDeath(t *testing.T, b *bench)      { die(t, b, false) }
func ownDeathKills(t *testing.T, b *bench) { die(t, b, true) }

// die has a process with 64 live sessions killed with SIGKILL.
func die(t *testing.T, b *bench, kill bool) {
	const sessions = 64
	spec := fmt.Sprint(kill, " ", b.user)
	for i := range sessions {
		spec += " " + b.h.Addr(i+1).String()
	}
	killHolder := rig.StartHolder(t, holdVar+"="+spec)
	b.h.AwaitProcesses(b.t, "sleep", sessions)
	killHolder()
	nothingHere(t, b.tr)
	b.freeThere() // the hosts have seen the end of their connections
	if kill {
		b.h.AwaitProcesses(b.t, "sleep", 0)
	} else {
		b.h.AwaitProcesses(b.t, "sleep", sessions)
	}
}

// hostVanishes without a word while a session is quiet: the keepalive finds out.
func hostVanishes(t *testing.T, b *bench) {
	b.tr.Ports = &resvport.Allocator{Timeout: time.Second}
	l := b.begin(transport.Command{Line: "echo up; sleep 1000"})
	l.Stdout.Await(t, "up")
	if err := b.h.SetLink(false); err != nil {
		t.Fatal(err)
	}
	if got := end(t, l); !errors.Is(got.err, transport.ErrLost) || got.status.Known || got.status.Ended || !got.status.Started {
		t.Errorf("%+v", got)
	}
	nothingHere(t, b.tr)
}

// hostVanishesClose ends the same by our own will, and at once.
func hostVanishesClose(t *testing.T, b *bench) {
	l := b.begin(transport.Command{Line: "echo up; sleep 1000"})
	l.Stdout.Await(t, "up")
	if err := b.h.SetLink(false); err != nil {
		t.Fatal(err)
	}
	if err := l.Signal(syscall.SIGTERM); err != nil { // goes nowhere, and does not block
		t.Error(err)
	}
	l.Close()
	if got := end(t, l); !errors.Is(got.err, transport.ErrClosed) || got.status.Known || got.status.Ended {
		t.Errorf("%+v", got)
	}
	nothingHere(t, b.tr)
}

// rshdDies in mid-session. Netkit's relays stderr, so that it breaks off: how the command ended is then told, but not everything that
// it said. Redone's has long become the login shell.
func rshdDies(t *testing.T, b *bench) {
	l := b.begin(transport.Command{Line: "exec 2>&-; echo up; sleep 1000; exit 0"})
	l.Stdout.Await(t, "up")
	b.h.AwaitProcesses(t, "sleep", 1)
	n, err := b.h.Kill("in.rshd", syscall.SIGKILL)
	if relays := b.h.Daemon == rig.Netkit; err != nil || (n == 1) != relays {
		t.Fatalf("%d processes of rshd: %v", n, err)
	}
	if _, err := b.h.Kill("sleep", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	got := end(t, l)
	if n == 0 && (got.err != nil || !got.status.Known) || n == 1 && !errors.Is(got.err, transport.ErrLost) {
		t.Errorf("%+v: %v", got, got.err)
	}
	b.freeThere()
	nothingHere(t, b.tr)
}

// shellDies, the wrapper: nobody is left to tell how the command ends.
func shellDies(t *testing.T, b *bench) {
	l := b.begin(transport.Command{Line: "echo up; exec sleep 1000"})
	l.Stdout.Await(t, "up")
	b.h.AwaitProcesses(t, "sleep", 1)
	if n, err := b.h.Kill("sh", syscall.SIGKILL); err != nil || n == 0 {
		t.Fatalf("%d shells: %v", n, err)
	}
	if n, err := b.h.Kill("sleep", syscall.SIGTERM); err != nil || n != 1 { // until then it holds the channels
		t.Fatalf("%d of sleep: %v", n, err)
	}
	if got := end(t, l); !errors.Is(got.err, transport.ErrLost) || got.status.Known || !got.status.Started || !got.status.Ended || got.stdout != "up\n" {
		t.Errorf("%+v", got)
	}
	b.freeThere()
	nothingHere(t, b.tr)
}

// beforeItIsUp is a session that does not come about.
func beforeItIsUp(t *testing.T, b *bench) {
	refused := b.host(0)
	refused.User = rig.NoRhosts
	deaf := b.host(0)
	deaf.Port = 515
	for _, merge := range []bool{false, true} {
		b.tr.Merge = merge
		if got := run(t, b.tr, refused, "echo ran"); !errors.Is(got.err, transport.ErrAuth) || got.stdout != "" {
			t.Errorf("refused login: %+v", got)
		}
		if got := run(t, b.tr, deaf, "echo ran"); !errors.Is(got.err, syscall.ECONNREFUSED) {
			t.Errorf("refused port: %+v", got)
		}
	}
	b.freeThere()
	nothingHere(t, b.tr)
}

// listeners with a connection that nobody has accepted go with their Allocator, and so does the connection.
func listeners(t *testing.T, b *bench) {
	l, err := b.tr.Ports.Lease(t.Context(), rig.ControlAddr)
	if err != nil {
		t.Fatal(err)
	}
	caller := b.h.Command(t.Context(), "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%v/%d; echo connected; read -r x <&3", rig.ControlAddr, l.Port()))
	var stderr transporttest.Recorder
	caller.Stderr = &stderr
	stdout, err := caller.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	b.tr.Ports.Close()
	caller.Wait()
	if line != "connected\n" || !strings.Contains(stderr.String(), "reset") {
		t.Errorf("the caller: %q, %q, want a reset", line, stderr.String())
	}
	nothingHere(t, b.tr)
}

// TestManyRefusals: each of hundreds of hosts that let nobody in gets its own error, none of them costs a port, and the hosts among
// them that are in order are none the worse for it.
func TestManyRefusals(t *testing.T) {
	const hosts, atOnce, goodOnes = 600, 64, 12
	for _, daemon := range []rig.Daemon{rig.Redone, rig.Netkit} {
		for _, refusal := range []struct {
			name     string
			nameless bool
			user     string
			port     uint16
			want     error
		}{
			{"login", false, rig.NoRhosts, 0, transport.ErrAuth},
			{"nameless", true, rig.ShellUser(t, "bash"), 0, transport.ErrAuth},
			{"port", false, rig.ShellUser(t, "bash"), 515, syscall.ECONNREFUSED},
		} {
			t.Run(string(daemon)+"/"+refusal.name, func(t *testing.T) {
				bad := rig.New(t, rig.Config{Daemon: daemon, Hosts: 3, Nameless: refusal.nameless})
				b := &bench{t: t, tr: client(t), h: rig.New(t, rig.Config{Daemon: daemon}).Hosts[0], user: rig.ShellUser(t, "bash")}
				var wg sync.WaitGroup
				slots := make(chan struct{}, atOnce)
				for i := range hosts {
					slots <- struct{}{}
					wg.Go(func() {
						defer func() { <-slots }()
						if i%(hosts/goodOnes) == 0 {
							if got := run(t, b.tr, b.host(0), "echo ran"); got.err != nil || got.stdout != "ran\n" {
								t.Errorf("the host that is in order: %+v", got)
							}
							return
						}
						h := bad.Hosts[i%len(bad.Hosts)]
						got := run(t, b.tr, transport.Host{Name: h.Name, Addr: h.Addr(1 + i/len(bad.Hosts)).String(), Port: refusal.port, User: refusal.user}, "echo ran")
						if !errors.Is(got.err, refusal.want) || got.stdout != "" || got.status.Started {
							t.Errorf("%d: %+v", i, got)
						}
					})
				}
				wg.Wait()
				if s := b.tr.Ports.Stats(); s.Retired != 0 {
					t.Errorf("%d listeners were retired: %+v", s.Retired, s)
				}
				for _, h := range append(bad.Hosts, b.h) {
					(&bench{t: t, h: h}).freeThere()
				}
				nothingHere(t, b.tr)
			})
		}
	}
}
