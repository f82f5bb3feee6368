package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Enter()
	goleak.VerifyTestMain(m)
}

// patience bounds what should happen soon; a test that needs it all has failed.
const patience = time.Minute

// answer is all that came back for a command.
type answer struct {
	Status         string // what came before the output: "0", or "1" and then Stdout is the error; "" if nothing came
	Stdout, Stderr string
}

// rcmd runs a command as rcmd(3) does: from a reserved port, and with a second connection for stderr that the host makes to
// another reserved port of ours. Both are read to their end.
func rcmd(host netip.Addr, user, command string, stderr bool) (a answer, err error) {
	deadline := time.Now().Add(patience)
	var listener *net.TCPListener
	port := 0
	if stderr {
		listener, err = onReservedPort(func(p int) (*net.TCPListener, error) {
			return net.ListenTCP("tcp", &net.TCPAddr{Port: p})
		})
		if err != nil {
			return a, err
		}
		defer listener.Close()
		listener.SetDeadline(deadline)
		port = listener.Addr().(*net.TCPAddr).Port
	}
	conn, err := onReservedPort(func(p int) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: p}, Deadline: deadline, Control: shareAddress}
		return d.Dial("tcp", netip.AddrPortFrom(host, 514).String())
	})
	if err != nil {
		return a, err
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(conn, "%d\x00tester\x00%s\x00%s\x00", port, user, command); err != nil {
		return a, err
	}
	var second sync.WaitGroup
	if stderr {
		second.Go(func() {
			c, err := listener.Accept()
			if err != nil {
				return // the host refused before it came to this
			}
			defer c.Close()
			c.SetDeadline(deadline)
			text, _ := io.ReadAll(c)
			a.Stderr = string(text)
		})
	}
	all, err := io.ReadAll(conn)
	if len(all) > 0 {
		a.Status, a.Stdout = fmt.Sprint(all[0]), string(all[1:])
	}
	if stderr && a.Status != "0" {
		listener.Close() // it will not connect any more
	}
	second.Wait()
	return a, err
}

// lastPort makes reserved ports be used in turn.
var lastPort atomic.Int32

func onReservedPort[T any](use func(port int) (T, error)) (v T, err error) {
	for range 512 {
		v, err = use(512 + int(lastPort.Add(1)%512))
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	return v, err
}

// shareAddress lets one port of ours be used for many hosts.
func shareAddress(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) }); e != nil {
		return e
	}
	return err
}

// eachDaemon runs a test against one host of each.
func eachDaemon(t *testing.T, cfg Config, test func(t *testing.T, h *Host)) {
	cfg.Hosts, cfg.Daemon = 2, Both
	r := New(t, cfg)
	for _, h := range r.Hosts {
		t.Run(string(h.Daemon), func(t *testing.T) {
			test(t, h)
			if t.Failed() {
				log, _ := h.Log()
				t.Logf("the host's log:\n%s", log)
			}
		})
	}
}

func TestShells(t *testing.T) {
	eachDaemon(t, Config{}, func(t *testing.T, h *Host) {
		for _, s := range Shells() {
			t.Run(s.Name, func(t *testing.T) {
				user := ShellUser(t, s.Name)
				for _, addr := range []netip.Addr{h.Addr(0), h.Addr(7), h.Addr6(0), h.Addr6(7)} {
					if addr.Is6() && !HasIPv6() {
						continue
					}
					got, err := rcmd(addr, user, "echo out; sh -c 'echo err >&2'; hostname; pwd", true)
					want := answer{"0", "out\n" + h.Name + "\n/run/rig/home/" + user + "\n", "err\n"}
					if err != nil || got != want {
						t.Errorf("%v: %v\n%s", addr, err, cmp.Diff(want, got))
					}
				}
			})
		}
	})
}

// What the daemons say to a user without .rhosts, word for word.
func TestAuthenticationFailure(t *testing.T) {
	want := map[Daemon]answer{
		Redone: {"0", "Authentication failure\n", ""},
		Netkit: {"1", "Permission denied.\n", ""},
	}
	eachDaemon(t, Config{}, func(t *testing.T, h *Host) {
		got, err := rcmd(h.Addr(1), NoRhosts, "echo out", true)
		if err != nil || got != want[h.Daemon] {
			t.Errorf("%v\n%s", err, cmp.Diff(want[h.Daemon], got))
		}
	})
}

func TestHostsEquiv(t *testing.T) {
	eachDaemon(t, Config{HostsEquiv: "ctl " + NoRhosts + "\nctl tester\n"}, func(t *testing.T, h *Host) {
		got, err := rcmd(h.Addr(1), NoRhosts, "echo out", true)
		want := answer{"0", "out\n", ""}
		if err != nil || got != want {
			t.Errorf("%v\n%s", err, cmp.Diff(want, got))
		}
	})
}

// What the daemons do with a client whose name their resolver cannot tell.
func TestNameless(t *testing.T) {
	eachDaemon(t, Config{Nameless: true}, func(t *testing.T, h *Host) {
		got, err := rcmd(h.Addr(1), "tester-bash", "echo out", true)
		switch want := (answer{"1", "getnameinfo: Temporary failure in name resolution\n", ""}); {
		case h.Daemon == Netkit && (err != nil || got != want):
			t.Errorf("%v\n%s", err, cmp.Diff(want, got))
		case h.Daemon == Redone && got != answer{}: // with a reset or a plain end of file
			t.Errorf("%v\n%s", err, cmp.Diff(answer{}, got))
		}
	})
}

func TestArgs(t *testing.T) {
	h := New(t, Config{Daemon: Netkit, Args: []string{"-L"}}).Hosts[0]
	if got, err := rcmd(h.Addr(0), "tester-bash", "echo out", false); err != nil || got.Stdout != "out\n" {
		t.Fatalf("%+v, %v", got, err)
	}
	wait(t, "in.rshd -L has logged the command", func() bool {
		log, err := h.Log()
		return err == nil && strings.Contains(log, "cmd='echo out'")
	})
}

// Each host and the control side know each other's names, both ways, whichever resolver asks.
func TestNames(t *testing.T) {
	r := New(t, Config{Hosts: 2})
	h := r.Hosts[1]
	ctx := t.Context()
	want := map[string]string{"ctl": "10.76.0.1", h.Name: h.Addr(0).String(), h.NameOf(20): h.Addr(20).String()}
	for name, addr := range want {
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
		if err != nil || len(addrs) != 1 || addrs[0].Unmap().String() != addr {
			t.Errorf("%s is %v, %v; want %s", name, addrs, err, addr)
		}
		names, err := net.DefaultResolver.LookupAddr(ctx, addr)
		if err != nil || names[0] != name {
			t.Errorf("%s is %v, %v; want %s", addr, names, err, name)
		}
		if out, err := exec.Command("getent", "ahostsv4", name).Output(); err != nil || !strings.HasPrefix(string(out), addr+" ") {
			t.Errorf("getent %s: %s %v", name, out, err)
		}
	}
	for _, name := range []string{"ctl", h.Name, h.Name + "-v6", h.Name + "-dual"} {
		out, err := r.Hosts[0].Command(ctx, "getent", "hosts", name).CombinedOutput()
		if err != nil || !strings.Contains(string(out), name) {
			t.Errorf("getent %s on %s: %s %v", name, r.Hosts[0].Name, out, err)
		}
	}
}

func TestCommand(t *testing.T) {
	h := New(t, Config{}).Hosts[0]
	var stderr strings.Builder
	cmd := h.Command(t.Context(), "sh", "-c", "cat; hostname >&2; exit 7")
	cmd.Stdin, cmd.Stderr = strings.NewReader("in"), &stderr
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 7 || string(out) != "in" || stderr.String() != h.Name+"\n" {
		t.Errorf("stdout %q, stderr %q, %v", out, stderr.String(), err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cmd = h.Command(ctx, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "sleep runs", func() bool { return count(t, h, "sleep") == 1 })
	cancel()
	cmd.Wait()
	wait(t, "sleep has gone with its context", func() bool { return count(t, h, "sleep") == 0 })
}

func TestProcessesAndSockets(t *testing.T) {
	eachDaemon(t, Config{}, func(t *testing.T, h *Host) {
		result := make(chan answer, 1)
		go func() {
			a, _ := rcmd(h.Addr(3), "tester-bash", "exec sleep 1000", true)
			result <- a
		}()
		var sleep []Process
		wait(t, "sleep runs", func() bool { // within execve(2) the kernel has its name before its arguments
			var err error
			if sleep, err = h.Processes("sleep"); err != nil {
				t.Fatal(err)
			}
			return len(sleep) == 1 && len(sleep[0].Args) > 0
		})
		if !slices.Equal(sleep[0].Args, []string{"sleep", "1000"}) {
			t.Errorf("%+v", sleep)
		}

		// Both tables show both connections, each from its side.
		type end struct{ local, remote, state string }
		established := func(from func() ([]Socket, error)) (all []end) {
			sockets, err := from()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sockets {
				if s.State != "LISTEN" {
					all = append(all, end{s.Local.String(), s.Remote.String(), s.State})
				}
			}
			return all
		}
		theirs := established(h.Sockets)
		ours := established(Sockets)
		for i, e := range theirs {
			if mirror := (end{e.remote, e.local, e.state}); !slices.Contains(ours, mirror) {
				t.Errorf("the host has %v, the control side only %v", theirs[i], ours)
			}
		}
		if len(theirs) != 2 {
			t.Errorf("the host's connections: %v", theirs)
		}

		if n, err := h.Kill("sleep", syscall.SIGTERM); n != 1 || err != nil {
			t.Errorf("killed %d, %v", n, err)
		}
		select {
		case a := <-result:
			if a.Status != "0" {
				t.Errorf("%+v", a)
			}
		case <-time.After(patience):
			t.Error("the command was killed, but its connection does not end")
		}
		wait(t, "no process is left", func() bool { return count(t, h, "") == 0 })
	})
}

// A host whose cable is pulled says nothing any more; plugged in again it goes on as if nothing had been.
func TestVanish(t *testing.T) {
	h := New(t, Config{}).Hosts[0]
	inside := func(script string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if out, err := h.Command(ctx, "sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s %v", script, out, err)
		}
	}
	// A fifo holds the command back until something comes through it, from inside.
	const fifo = "/run/rig/home/tester-bash/fifo"
	inside("mkfifo -m 666 " + fifo)
	result := make(chan answer, 1)
	go func() {
		a, _ := rcmd(h.Addr(3), "tester-bash", "read x < "+fifo+"; echo $x", false)
		result <- a
	}()
	wait(t, "the command runs", func() bool { return count(t, h, "bash") == 1 })
	if err := h.SetLink(false); err != nil {
		t.Fatal(err)
	}
	inside("echo back > " + fifo)
	d := net.Dialer{Timeout: 500 * time.Millisecond} // nobody answers, however long
	if conn, err := d.Dial("tcp", netip.AddrPortFrom(h.Addr(1), 514).String()); err == nil {
		conn.Close()
		t.Error("a host without a cable answers")
	}
	if err := h.SetLink(true); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-result:
		if want := (answer{"0", "back\n", ""}); a != want {
			t.Error(cmp.Diff(want, a))
		}
	case <-time.After(patience):
		t.Error("the session did not come back")
	}
}

// The size that the main job is tried with: 640 addresses on 32 hosts, all at once.
func TestManyAtOnce(t *testing.T) {
	r := New(t, Config{Hosts: 32, Daemon: Both})
	const each = 20
	errs := make(chan error)
	for _, h := range r.Hosts {
		for j := 1; j <= each; j++ {
			go func() {
				got, err := rcmd(h.Addr(j), "tester-dash", "hostname; sleep 1", false)
				if want := (answer{"0", h.Name + "\n", ""}); err == nil && got != want {
					err = errors.New(cmp.Diff(want, got))
				}
				errs <- err
			}()
		}
	}
	failed := 0
	for range each * len(r.Hosts) {
		if err := <-errs; err != nil {
			if failed++; failed <= 5 {
				t.Error(err)
			}
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d failed", failed, each*len(r.Hosts))
	}
}

// Rigs run side by side with different hosts, and numbers come back when a rig is closed.
func TestSeveralRigs(t *testing.T) {
	numbers := func(r *Rig) (all []int) {
		for _, h := range r.Hosts {
			if got, err := rcmd(h.Addr(1), "tester-bash", "hostname", true); err != nil || got.Stdout != h.Name+"\n" {
				t.Errorf("%s: %+v, %v", h.Name, got, err)
			}
			all = append(all, h.N)
		}
		return all
	}
	first, second := New(t, Config{Hosts: 2}), New(t, Config{Hosts: 1})
	if a, b := numbers(first), numbers(second); !slices.Equal(a, []int{1, 2}) || !slices.Equal(b, []int{3}) {
		t.Errorf("hosts %v and %v", a, b)
	}
	for range 2 { // the second Close finds nothing to do
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if a := numbers(New(t, Config{Hosts: 3})); !slices.Equal(a, []int{1, 2, 4}) {
		t.Errorf("hosts %v, want those that are free: 1, 2 and 4", a)
	}
}

func TestBadConfig(t *testing.T) {
	New(t, Config{}) // or a skip
	for want, cfg := range map[string]Config{
		"253 of 254 are left": {Hosts: 254},
		"-1 hosts":            {Hosts: -1},
		"255 names":           {Names: 255},
		`no daemon "inetd"`:   {Daemon: "inetd"},
	} {
		if r, err := Start(cfg); err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, %v; want an error with %q", cfg, r, err, want)
		}
	}
}

// Nothing of all this is to be seen on the machine.
func TestMachineUntouched(t *testing.T) {
	New(t, Config{})
	const script = `grep -E ' - (tmpfs|overlay) rig ' /proc/self/mountinfo; getent passwd tester-bash; getent hosts h1; cat /sys/class/net/br0/address`
	out, _ := machine(t.Context(), "sh", "-c", "{ "+script+"; } 2>/dev/null").Output()
	if len(out) > 0 {
		t.Errorf("the machine has:\n%s", out)
	}
}

// outside is this test program as if it had been started by hand, on the machine itself.
func outside(t *testing.T, env string, args ...string) *exec.Cmd {
	t.Helper()
	New(t, Config{}) // or a skip
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := machine(t.Context(), exe, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, insideEnv) }), env)
	cmd.Stderr = os.Stderr
	return cmd
}

// The exit status of the tests is that of the program which was started, and signals to that one reach the tests.
func TestRelay(t *testing.T) {
	switch os.Getenv("RIG_RELAY") {
	case "exit":
		os.Exit(7)
	case "signal":
		quit := make(chan os.Signal, 1)
		signal.Notify(quit, syscall.SIGTERM)
		fmt.Println("ready")
		<-quit
		os.Exit(8)
	}
	if err := outside(t, "RIG_RELAY=exit", "-test.run=^TestRelay$").Run(); err == nil || err.Error() != "exit status 7" {
		t.Errorf("exit 7 became %v", err)
	}

	cmd := outside(t, "RIG_RELAY=signal", "-test.run=^TestRelay$")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(stdout).ReadString('\n')
	for pid, p := range descendants(t, cmd.Process.Pid) {
		if p.parent == cmd.Process.Pid {
			syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err == nil || err.Error() != "exit status 8" {
		t.Errorf("exit 8 after a signal became %v", err)
	}
}

// Whatever of a rig is killed, nothing of it is left.
func TestKilled(t *testing.T) {
	for _, role := range []string{"the program", roleKeeper, roleControl} {
		t.Run(role, func(t *testing.T) {
			cmd := outside(t, "RIG_HOLD=1h", "-test.run=^TestHold$", "-test.v")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			lines := bufio.NewScanner(stdout)
			for lines.Scan() && !strings.Contains(lines.Text(), "holding") {
			}
			all := descendants(t, cmd.Process.Pid)
			var victim int
			for pid, p := range all {
				if p.role == role || role == "the program" && p.parent == cmd.Process.Pid {
					victim = pid
				}
			}
			if victim == 0 || len(all) < 5 {
				t.Fatalf("no %s among %v", role, all)
			}
			if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			wait(t, "all processes of the killed rig are gone", func() bool {
				for pid := range all {
					if syscall.Kill(pid, 0) == nil {
						return false
					}
				}
				return true
			})
		})
	}
}

// A shared rig runs on after the test that it was started for, and leaves nothing for goleak to find.
func TestShared(t *testing.T) {
	var first *Rig
	t.Run("first", func(t *testing.T) { first = Shared(t, Config{Names: 3}) })
	if first == nil {
		t.Skip("the sub-test before has said why there is no rig here")
	}
	if again := Shared(t, Config{Names: 3}); again != first {
		t.Error("the same Config, another rig")
	}
	if got, err := rcmd(first.Hosts[0].Addr(1), "tester-bash", "echo out", true); err != nil || got.Stdout != "out\n" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestHold is a rig to play with: see the package comment.
func TestHold(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("RIG_HOLD"))
	if err != nil {
		t.Skip("set RIG_HOLD to a time, as 10m, to have a rig to play with")
	}
	r := New(t, Config{Hosts: 2, Daemon: Both, SSH: SSH{Server: Daemon(os.Getenv("RIG_SSH"))}})
	for _, h := range r.Hosts {
		fmt.Printf("%s: %s, %v to %v, %v\n", h.Name, h.Daemon, h.Addr(0), h.Addr(254), h.Addr6(1))
	}
	fmt.Println("holding for", d)
	stop, done := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer done()
	select {
	case <-stop.Done():
	case <-time.After(d):
	}
}

// Sockets are told by the kernel in words of the machine's byte order.
func TestParseSockets(t *testing.T) {
	const heading = "  sl  local_address rem_address   st tx_queue rx_queue\n"
	for text, want := range map[string][]Socket{
		heading: nil,
		heading + "   0: 0100007F:0202 00000000:0000 0A 00000000:00000000\n": {
			{netip.MustParseAddrPort("127.0.0.1:514"), netip.MustParseAddrPort("0.0.0.0:0"), "LISTEN"}},
		heading + "   1: 0000000000000000FFFF00000100007F:03FF B80D012000000000000000000100000:0202 06\n": nil,
		heading + "   1: 0000000000000000FFFF00000100007F:03FF B80D0120000000000000000001000000:0202 06\n": {
			{netip.MustParseAddrPort("127.0.0.1:1023"), netip.MustParseAddrPort("[2001:db8::1]:514"), "TIME_WAIT"}},
	} {
		got, err := parseSockets(nil, []byte(text))
		if (err == nil) != (want != nil || text == heading) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func count(t *testing.T, h *Host, name string) int {
	t.Helper()
	all, err := h.Processes(name)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// wait asks again and again until the answer is yes.
func wait(t *testing.T, what string, ask func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}

type descendant struct {
	parent int
	role   string
}

// descendants are the processes below one, as we see them.
func descendants(t *testing.T, root int) map[int]descendant {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[int]descendant)
	for _, e := range entries {
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(e.Name())
		var d descendant
		var state byte
		fmt.Sscanf(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " %c %d", &state, &d.parent)
		args, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		name, _, _ := strings.Cut(string(args), "\x00")
		d.role = name
		all[pid] = d
	}
	below := func(pid int) bool {
		for pid > 1 && pid != root {
			pid = all[pid].parent
		}
		return pid == root
	}
	for pid := range all {
		if pid == root || !below(pid) {
			delete(all, pid)
		}
	}
	return all
}
