package real

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"multirsh/transport/rig"
)

// way is how hosts of a rig are reached.
type way struct {
	name string
	args []string
}

// ways are all of those to hosts that have both daemons.
func ways(cfg string) []way {
	return []way{
		{"rsh", rshArgs(nil)},
		{"ssh", overSSH(cfg)},
		{"ssh --sh", overSSH(cfg, "--sh")},
	}
}

// bothRig is a rig whose hosts have sshd beside in.rshd, both packages of this in turn.
func bothRig(t testing.TB, hosts int) *rig.Rig {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	return rig.New(t, rig.Config{Hosts: hosts, Daemon: rig.Both, SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 1000"}}})
}

// ended is what a record says of a host's end.
type ended struct {
	Type, Host, Outcome string
	Confirmed           *bool
}

// results are those in a record, by host.
func results(t testing.TB, file string) map[string]ended {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]ended{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var e ended
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == "result" {
			all[e.Host] = e
		}
	}
	return all
}

// cancelled counts the hosts that were cancelled, those that have confirmed the end of their command and those that have not.
func cancelled(all map[string]ended) (confirmed, loose int) {
	for _, e := range all {
		switch {
		case e.Outcome != "cancelled" || e.Confirmed == nil:
		case *e.Confirmed:
			confirmed++
		default:
			loose++
		}
	}
	return confirmed, loose
}

// What is said to have ended has, and what still runs is said to.
func TestStopIsVerified(t *testing.T) {
	r := bothRig(t, 2)
	cfg := sshConfig(t, knownHosts(r, 1, 0))
	for _, way := range ways(cfg) {
		t.Run(way.name, func(t *testing.T) {
			type stop struct {
				what, command, sleep string
				runs                 bool // still, when the run is over
			}
			stops := []stop{
				{"obeys", "sleep 2001", "2001", false},
				{"needs the KILL", `trap "" TERM; while :; do sleep 2002; done`, "2002", false},
				{"leaves the group", "setsid sleep 2003", "2003", true},
				{"leaves a child in another group", "setsid sleep 2004 & wait", "2004", true},
			}
			if way.name != "ssh" { // a server sends no signal to those whom the shell leaves behind
				stops = append(stops, stop{"leaves a child that needs the KILL", `(trap "" TERM; sleep 2005; sleep 2005) & wait`, "2005", false})
			}
			jobs, files := make([]*job, len(stops)), make([]string, len(stops))
			for i, s := range stops {
				files[i] = filepath.Join(t.TempDir(), "record")
				jobs[i] = start(t, "multi-rsh", append(way.args[:len(way.args):len(way.args)], "--json="+files[i], "-w", addresses(r, 1), s.command)...)
			}
			for i, s := range stops {
				until(t, s.what+" has begun", func() bool { return sleepers(t, r, s.sleep) == len(r.Hosts) })
				jobs[i].Process.Signal(os.Interrupt)
			}
			for i, s := range stops {
				o := jobs[i].wait(t)
				left := sleepers(t, r, s.sleep)
				confirmed, loose := cancelled(results(t, files[i]))
				want, n := [3]int{len(r.Hosts), 0, 0}, len(r.Hosts)
				if s.runs {
					want = [3]int{0, n, n}
				}
				if got := [3]int{confirmed, loose, left}; got != want || o.code != 130 {
					t.Errorf("%s: confirmed, not confirmed, still running: %v, want %v\n%v", s.what, got, want, o)
				}
				if s.runs != strings.Contains(o.stderr, "may still be running") {
					t.Errorf("%s: the summary says\n%s", s.what, o.stderr)
				}
			}
			for _, h := range r.Hosts {
				if _, err := h.Kill("sleep", syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A host that is frozen confirms nothing, and does not hold the others up.
func TestStopFrozen(t *testing.T) {
	r := bothRig(t, 2)
	cfg := sshConfig(t, knownHosts(r, 1, 0))
	for _, way := range ways(cfg) {
		t.Run(way.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "record")
			j := start(t, "multi-rsh", append(way.args[:len(way.args):len(way.args)], "--json="+file, "-w", addresses(r, 1), "sleep 2006")...)
			until(t, "both have begun", func() bool { return sleepers(t, r, "2006") == 2 })
			frozen := r.Hosts[0]
			all := func(sig syscall.Signal) {
				running, err := frozen.Processes("")
				if err != nil {
					t.Fatal(err)
				}
				names := map[string]bool{}
				for _, p := range running {
					names[p.Name] = true
				}
				for name := range names {
					if _, err := frozen.Kill(name, sig); err != nil {
						t.Fatal(err)
					}
				}
			}
			all(syscall.SIGSTOP)
			defer func() {
				all(syscall.SIGCONT)
				frozen.Kill("sleep", syscall.SIGKILL)
			}()
			j.Process.Signal(os.Interrupt)
			o := j.wait(t)
			got := results(t, file)
			if confirmed, loose := cancelled(got); confirmed != 1 || loose != 1 || *got[frozen.Addr(1).String()].Confirmed {
				t.Errorf("%d confirmed, %d not: %v\n%v", confirmed, loose, got, o)
			}
			if want := fmt.Sprintf("cancelled, may still be running (1): %v\n", frozen.Addr(1)); !strings.Contains(o.stderr, want) {
				t.Errorf("no %q in\n%s", want, o.stderr)
			}
		})
	}
}

// With --kill-on-disconnect nothing is left on a host when we are killed, or when the connection is reset; it needs no other option.
func TestKillOnDisconnect(t *testing.T) {
	r := bothRig(t, 4)
	cfg := sshConfig(t, knownHosts(r, 8, 0))
	const n = "2007"
	for _, way := range ways(cfg) {
		for _, input := range []bool{false, true} {
			args := append(way.args[:len(way.args):len(way.args)], "--kill-on-disconnect", "-w", addresses(r, 8))
			name := way.name
			if input {
				file := filepath.Join(t.TempDir(), "input")
				if err := os.WriteFile(file, []byte("some\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				args, name = append(args, "--input", file), name+" with input"
			}
			args = append(args, `trap "" HUP; sleep `+n+`; sleep `+n)
			begin := func(t *testing.T) *job {
				t.Helper()
				j := start(t, "multi-rsh", args...)
				until(t, "32 sleeps", func() bool { return sleepers(t, r, n) == 32 })
				return j
			}
			t.Run(name+", kill -9", func(t *testing.T) {
				j := begin(t)
				j.Process.Kill()
				j.wait(t)
				until(t, "no orphan is left", func() bool { return sleepers(t, r, n) == 0 })
			})
			t.Run(name+", reset", func(t *testing.T) {
				j := begin(t)
				resetConnections(t)
				o := j.wait(t)
				if o.code != 1 || !strings.Contains(o.stderr, "32 hosts: 32 unknown") {
					t.Error(o)
				}
				until(t, "no orphan is left", func() bool { return sleepers(t, r, n) == 0 })
			})
		}
	}
}

// resetConnections has the kernel reset all TCP connections of the control side that lead to hosts (SOCK_DESTROY of sock_diag(7)).
func resetConnections(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip("no ss(8) here to reset connections with (apt-get install iproute2)")
	}
	out, err := exec.CommandContext(t.Context(), "ss", "-K", "-tn", "state", "established", "dst", "10.77.0.0/16").CombinedOutput()
	if err != nil {
		t.Skipf("this kernel resets no connections (CONFIG_INET_DIAG_DESTROY): %v: %s", err, out)
	}
}

// interrupted is how a run of "sleep N" over rsh and ssh at once ends at Ctrl-C twice.
type interrupted struct {
	code            int
	took            time.Duration
	left            int  // commands that still run on the hosts
	confirmed       int  // hosts that have confirmed the end
	summary         bool // all hosts are in it
	rsh, ssh, total int
	screen          string
}

func (i interrupted) ok() bool {
	return i.code == 130 && i.left == 0 && i.summary && i.confirmed == i.total
}

func (i interrupted) String() string {
	return fmt.Sprintf("%.1f s, %d `sleep` left, %d of %d confirmed, all in the summary: %v, exit %d", i.took.Seconds(), i.left, i.confirmed, i.total, i.summary, i.code)
}

// interruptBoth runs it on so many addresses of each host by rsh, and on so many others by ssh.
func interruptBoth(t *testing.T, r *rig.Rig, rshEach, sshEach int, n string) interrupted {
	t.Helper()
	cfg := sshConfig(t, knownHosts(r, rshEach+sshEach, 0))
	hosts, dir := len(r.Hosts), t.TempDir()
	i := interrupted{rsh: hosts * rshEach, ssh: hosts * sshEach, total: hosts * (rshEach + sshEach)}
	on := func(from, to int) string {
		return fmt.Sprintf("10.77.[%d-%d].[%d-%d]", r.Hosts[0].N, r.Hosts[hosts-1].N, from, to)
	}
	list, record := filepath.Join(dir, "hosts"), filepath.Join(dir, "record")
	text := fmt.Sprintf("%s transport=rsh\n%s transport=ssh\n", on(1, rshEach), on(rshEach+1, rshEach+sshEach))
	if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	term := onTerminal(t, "multi-rsh", "-F", cfg, "-u", sshUser, "-p", fmt.Sprint(i.total), "--connect-timeout", "120", "--json="+record, "-l", list, "sleep "+n)
	until(t, "all commands run", func() bool { return sleepers(t, r, n) == i.total })
	term.press(t, "\x03")
	until(t, "the status", func() bool { return strings.Contains(term.screen(), "Ctrl-C again within a second stops") })
	began := time.Now()
	term.press(t, "\x03")
	i.code = term.wait()
	i.took = time.Since(began)
	i.left = sleepers(t, r, n)
	i.screen = term.screen()
	i.summary = strings.Contains(i.screen, fmt.Sprintf("%d hosts: %[1]d cancelled", i.total))
	i.confirmed, _ = cancelled(results(t, record))
	return i
}

func TestInterruptBoth(t *testing.T) {
	r := bothRig(t, 4)
	if i := interruptBoth(t, r, 8, 4, "2008"); !i.ok() {
		t.Errorf("%d sessions of rsh and %d of ssh: %v\n%s", i.rsh, i.ssh, i, tail(i.screen))
	}
	nothingLeft(t, r)
	if left := toSSHD(t); len(left) > 0 {
		t.Errorf("our sockets to the hosts: %s", states(left))
	}
}

// begunWithMaxFail is on how many of 1,000 failing hosts a run with --max-fail 5 at fan-out 64 begins.
func begunWithMaxFail(t *testing.T) (begun int, o outcome) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "begun")
	o = run(t, "multi-rsh", "-R", "exec", "-p", "64", "--max-fail", "5", "-w", "n[1-1000]", "echo %h >>"+file+"; exit 3")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n"), o
}

func TestMaxFailReal(t *testing.T) {
	if begun, o := begunWithMaxFail(t); begun < 5 || begun > 5+64 || o.code != 1 || !strings.Contains(o.stderr, fmt.Sprintf("1000 hosts: %d exit, %d skipped", begun, 1000-begun)) {
		t.Errorf("%d hosts have begun\n%v", begun, o)
	}
}

const stopPage = `Real hosts are 32, each in a network namespace of its own with in.rshd of one of Debian's two packages and OpenSSH's sshd, all on this
machine. One run reaches 20 addresses of each by rsh and 10 others by ssh; a host has confirmed the end of its command when nothing
holds a channel any more.`

func stopNumbers(t *testing.T, tab *table) {
	r := bothRig(t, 32)
	i := interruptBoth(t, r, 20, 10, "1000")
	tab.add(i.ok() && i.took <= 5*time.Second, fmt.Sprintf("Ctrl-C twice amid `sleep 1000`, %d sessions of rsh and %d of ssh in one run", i.rsh, i.ssh),
		"prompt ≤ 5 s, 0 `sleep` left, every host in the summary", i.String(), "–")
	if !i.ok() {
		fmt.Println(tail(i.screen))
	}
	tab.settle(func() []rig.Socket { return append(append(controlReserved(t), hostReserved(t, r)...), toSSHD(t)...) })

	begun, o := begunWithMaxFail(t)
	tab.add(begun <= 5+64 && o.code == 1, "`--max-fail 5` at fan-out 64, 1,000 local commands that all fail", "at most 5 + 64 begun",
		fmt.Sprintf("%d begun; %s", begun, tally(o)), "–")
}
