//go:build linux

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

// By each way, with and without input, nothing is left on a host when we are killed or the connection is reset, not even what ignores its hangup.
func TestKillOnDisconnectEach(t *testing.T) {
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
