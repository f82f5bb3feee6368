//go:build linux

package real

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"multirsh/transport/rig"
)

const sshPage = `Real hosts are OpenSSH's sshd of Debian's package, 32 hosts each in a network namespace of its own, all on this machine, so
that the hosts' work shares its CPUs with the client's and most of a wall time is theirs. Simulated hosts are "fleetsim --protocol ssh
--fast" on loopback. multi-rsh and the others have the same ssh_config, ed25519 key, known_hosts of just the hosts of the run, and
user, whose shell is dash. CPU is user and system time of the client and of all the processes that it has started. The runs of a
comparison alternate: all in the first round, then multi-rsh and who was best in the first, by CPU or by time. Shown are the median
and, in brackets, the range over the rounds. Ratios and counts carry over to other machines, times do not.`

// peer is another parallel shell, which runs ssh(1) for each host; here on addresses 1 to n of each host of the rig.
type peer struct {
	name string
	run  func(t *testing.T, cfg string, r *rig.Rig, n int, command string) outcome
}

// peers are those that are installed.
func peers() []peer {
	all := []peer{
		{"pdsh", func(t *testing.T, cfg string, r *rig.Rig, n int, command string) outcome {
			t.Setenv("PDSH_SSH_ARGS_APPEND", "-F "+cfg)
			return run(t, "pdsh", "-R", "ssh", "-l", sshUser, "-t", "60", "-u", "120", "-f", sshFanout, "-w", addresses(r, n), command)
		}},
		{"clush", func(t *testing.T, cfg string, r *rig.Rig, n int, command string) outcome {
			return run(t, "clush", "-n", "-l", sshUser, "-t", "60", "-u", "120", "-f", sshFanout, "-o", "-F "+cfg, "-w", addresses(r, n), command)
		}},
		{"parallel-ssh", func(t *testing.T, cfg string, r *rig.Rig, n int, command string) outcome {
			var list strings.Builder
			for _, h := range r.Hosts {
				for j := 1; j <= n; j++ {
					fmt.Fprintln(&list, h.Addr(j))
				}
			}
			file := filepath.Join(t.TempDir(), "hosts")
			if err := os.WriteFile(file, []byte(list.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			return run(t, "parallel-ssh", "-P", "-l", sshUser, "-t", "120", "-p", sshFanout, "-x", "-F "+cfg, "-h", file, command)
		}},
	}
	return slices.DeleteFunc(all, func(p peer) bool { _, err := exec.LookPath(p.name); return err != nil })
}

const sshFanout = "32" // of the comparisons

// atOnce are many hosts, each with several addresses, that are 1,000 in all.
func atOnce(r *rig.Rig) (some *rig.Rig, expr string) {
	some = &rig.Rig{Hosts: r.Hosts[len(r.Hosts)-25:]}
	return some, addresses(some, 40)
}

func realSSHNumbers(t *testing.T, tab *table) {
	r := sshRig(t, 32)
	cfg := sshConfig(t, knownHosts(r, 10, 0))
	left := compare(t, tab, r, "their defaults", 35, 0.25, cfg, cfg)
	compare(t, tab, r, "`KexAlgorithms=curve25519-sha256`", 6, 0.9, cfg, sshConfig(t, knownHosts(r, 10, 0), "KexAlgorithms curve25519-sha256"))
	simulatedSSHNumbers(t, tab) // meanwhile the peers' TIME_WAITs go
	jumpNumbers(t, tab, r)
	closingNumbers(t, tab, r, left)
}

// compare runs all against 10 addresses of each host. It returns how many sockets in TIME_WAIT each peer's first run has left behind.
func compare(t *testing.T, tab *table, r *rig.Rig, with string, cpuGoal, wallGoal float64, cfg, peerCfg string) (left string) {
	const n, rounds = 10, 3
	hosts := n * len(r.Hosts)
	running := peers()
	var ours []outcome
	theirs := map[string][]outcome{}
	var ratios struct{ cpu, wall []float64 } // of each round: ours to the best
	var lefts []string
	for round := range rounds {
		o := run(t, "multi-rsh", overSSH(cfg, "-p", sshFanout, "-t", "120", "-w", addresses(r, n), "echo ok")...)
		if o.code != 0 || lines(o.stdout, ": ok") != hosts {
			t.Fatal(o)
		}
		ours = append(ours, o)
		var cpu, wall []float64
		for _, p := range running {
			before := timeWait(toSSHD(t))
			o := p.run(t, peerCfg, r, n, "echo ok")
			if round == 0 {
				lefts = append(lefts, fmt.Sprintf("%s %d of %d", p.name, fresh(timeWait(toSSHD(t)), before), hosts))
			}
			if ok := lines(o.stdout, ": ok"); ok != hosts {
				t.Errorf("%d of %d hosts are ok\n%v", ok, hosts, o)
			}
			theirs[p.name] = append(theirs[p.name], o)
			cpu, wall = append(cpu, o.cpu.Seconds()), append(wall, o.wall.Seconds())
		}
		if len(running) == 0 {
			continue
		}
		ratios.cpu = append(ratios.cpu, slices.Min(cpu)/o.cpu.Seconds())
		ratios.wall = append(ratios.wall, o.wall.Seconds()/slices.Min(wall))
		var best []peer
		for i, p := range running {
			if cpu[i] == slices.Min(cpu) || wall[i] == slices.Min(wall) {
				best = append(best, p)
			}
		}
		if round == 0 {
			running = best
		}
	}
	figures := func(unit string, of func(outcome) float64, format string) (here, peer string) {
		one := func(runs []outcome) string {
			var v []float64
			for _, o := range runs {
				v = append(v, of(o))
			}
			return fmt.Sprintf(format, median(v)) + unit
		}
		var each []string
		for _, p := range peers() {
			each = append(each, p.name+" "+one(theirs[p.name]))
		}
		if each == nil {
			each = []string{"none is installed"}
		}
		return one(ours), strings.Join(each, ", ")
	}
	span := func(v []float64, format string) string {
		if len(v) == 0 {
			return ""
		}
		return fmt.Sprintf(": "+format+" ("+format+" to "+format+")", median(v), slices.Min(v), slices.Max(v))
	}
	here, peer := figures(" ms", func(o outcome) float64 { return o.cpu.Seconds() * 1000 / float64(hosts) }, "%.2f")
	tab.add(len(ratios.cpu) == 0 || median(ratios.cpu) >= cpuGoal, "client CPU for a host: connect, `echo ok`, close; the others with "+with,
		fmt.Sprintf("≤ 1/%.0f of the best", cpuGoal), here+span(ratios.cpu, "1/%.1f"), peer)
	here, peer = figures(" s", func(o outcome) float64 { return o.wall.Seconds() }, "%.1f")
	tab.add(len(ratios.wall) == 0 || median(ratios.wall) <= wallGoal, fmt.Sprintf("wall time of those %d hosts, fan-out %s; the others with %s", hosts, sshFanout, with),
		fmt.Sprintf("≤ %.2f × the best", wallGoal), here+span(ratios.wall, "%.2f ×"), peer)
	return strings.Join(lefts, ", ")
}

// fresh counts the sockets that were not there before.
func fresh(now, before []rig.Socket) int {
	n := 0
	for _, s := range now {
		if !slices.Contains(before, s) {
			n++
		}
	}
	return n
}

// closingNumbers are what 1,000 hosts leave behind, however the run ends.
func closingNumbers(t *testing.T, tab *table, r *rig.Rig, peersLeft string) {
	const wait = "sockets of ours in TIME_WAIT (in any state) after 1,000 hosts: "
	some, expr := atOnce(r)
	known := knownHosts(some, 40, 0)
	cfg := sshConfig(t, known)
	settle := func() { tab.settle(func() []rig.Socket { return toSSHD(t) }) }
	settle()
	row := func(how, peer string, ok bool, more string) {
		left := toSSHD(t)
		tab.add(ok && len(left) == 0, wait+how, "0", fmt.Sprintf("%d (%d); %s", len(timeWait(left)), len(left), more), peer)
		settle()
	}

	var o outcome
	ends := closings(t, func() { o = run(t, "multi-rsh", overSSH(cfg, "-t", "120", "-w", expr, "echo ok")...) })
	ok := lines(o.stdout, ": ok")
	row("normal end", peersLeft, ok == 1000 && o.code == 0, fmt.Sprintf("%d ok, %.1f s", ok, o.wall.Seconds()))
	first := serverFirst(ends)
	tab.add(first == 1000 && len(ends) == 1000, "who sends the first FIN over those 1,000 normal ends", "the server, 1,000 of 1,000",
		fmt.Sprintf("the server, %d of %d", first, len(ends)), "–")

	// Half of them are refused the login, the other half have a key that is not theirs.
	failed := run(t, "multi-rsh", "-R", "ssh", "-F", cfg, "-u", rig.NoRhosts, "-t", "120", "-w", addresses(some, 20), "echo ok")
	changed := run(t, "multi-rsh", overSSH(sshConfig(t, knownHosts(some, 40, 1)), "-t", "120", "-w", addresses(some, 20), "echo ok")...)
	ok = strings.Count(failed.stderr+changed.stderr, "500 hosts: 500 ")
	row("failed handshakes, 500 logins refused and 500 wrong host keys", "–", ok == 2, fmt.Sprint(tally(failed), "; ", tally(changed)))

	o = run(t, "multi-rsh", overSSH(cfg, "-p", "250", "-t", "4", "-w", expr, "sleep 30")...)
	row("timeouts, `-t 4` with `sleep 30`, fan-out 250", "–", strings.Contains(o.stderr, "1000 hosts: 1000 timeout"), tally(o))
	until(t, "the commands have ended", func() bool { return sleepers(t, r, "30") == 0 })

	term := onTerminal(t, "multi-rsh", overSSH(cfg, "-p", "1000", "--connect-timeout", "60", "-w", expr, "sleep 1000")...)
	until(t, "1,000 sleeps", func() bool { return sleepers(t, r, "1000") == 1000 })
	term.press(t, "\x03")
	until(t, "the status", func() bool { return strings.Contains(term.screen(), "Ctrl-C again within a second stops") })
	began := time.Now()
	term.press(t, "\x03")
	code := term.wait()
	took := time.Since(began)
	summary := strings.Contains(term.screen(), "1000 cancelled")
	running := sleepers(t, r, "1000")
	row("Ctrl-C twice amid `sleep 1000`", "–", summary && code == 130 && running == 0,
		fmt.Sprintf("%.1f s, exit %d, all in the summary: %v, %d commands still run", took.Seconds(), code, summary, running))
	until(t, "the commands have ended", func() bool { return sleepers(t, r, "1000") == 0 })

	j := start(t, "multi-rsh", overSSH(cfg, "-p", "1000", "--connect-timeout", "60", "-w", expr, "sleep 25")...)
	until(t, "1,000 sleeps", func() bool { return sleepers(t, r, "25") == 1000 })
	j.Process.Kill()
	j.wait(t)
	row("kill -9 amid `sleep 25`", "–", true, "at once")
}

// tally is the line of the summary that counts.
func tally(o outcome) string {
	for line := range strings.Lines(o.stderr) {
		if strings.Contains(line, " hosts: ") && line[0] >= '0' && line[0] <= '9' {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return "no summary"
}

func jumpNumbers(t *testing.T, tab *table, r *rig.Rig) {
	jump, _ := gate(t, r)
	_, expr := atOnce(r)
	cfg := sshConfig(t, knownHosts(r, 40, 0))
	var o outcome
	ends := closings(t, func() {
		o = run(t, "multi-rsh", overSSH(cfg, "-J", sshUser+"@"+jump.Name, "-t", "120", "-w", expr, "echo ok")...)
	})
	ok := lines(o.stdout, ": ok")
	tab.add(ok == 1000 && len(ends) == 1, "1,000 hosts behind one jump host", "all ok, one connection to it",
		fmt.Sprintf("%d ok, %d connection, %.1f s", ok, len(ends), o.wall.Seconds()), "–")
	if ok != 1000 {
		fmt.Println(o)
	}
}

// simulatedSSH starts a fleet of n SSH hosts and returns how to log in there.
func simulatedSSH(t *testing.T, n int, args ...string) (stop func() string, login []string) {
	t.Helper()
	dir := t.TempDir()
	hosts, known, key := filepath.Join(dir, "hosts"), filepath.Join(dir, "known_hosts"), filepath.Join(dir, "key")
	stop = simulate(t, append([]string{"--protocol", "ssh", "--hosts", fmt.Sprint(n), "--hosts-file", hosts, "--known-hosts", known, "--identity", key}, args...)...)
	return stop, []string{"-R", "ssh", "-F", "none", "-o", "UserKnownHostsFile=" + known, "-o", "IdentitiesOnly=yes", "-i", key, "-u", sshUser, "-l", hosts}
}

// resident is the memory in use by a process, in bytes, and the CPU time that it has used, in ticks.
func resident(t *testing.T, pid int) (rss int64, ticks string) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(after, &rss); err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))
	return rss << 10, fields[12] + " " + fields[13] // from the one that proc(5) calls 2
}

func simulatedSSHNumbers(t *testing.T, tab *table) {
	const many, hold = 5000, 45 * time.Second
	// held runs n hosts and returns the memory in use once all sessions are held, and the run.
	held := func(stop func() string, login []string, n int) (rss int64, j *job) {
		t.Helper()
		first := []string{"-p", fmt.Sprint(n), "-t", "120", "--connect-timeout", "60"}
		j = start(t, "multi-rsh", append(append(first, login...), "echo ok")...)
		until(t, "all connections are there", func() bool {
			sockets, err := rig.Sockets()
			if err != nil {
				t.Fatal(err)
			}
			there := 0
			for _, s := range sockets {
				if s.Remote.Port() == 22 && s.State == "ESTABLISHED" {
					there++
				}
			}
			return there == n
		})
		for before := ""; ; { // until it does nothing more
			time.Sleep(time.Second)
			var now string
			if rss, now = resident(t, j.Process.Pid); now == before {
				return rss, j
			}
			before = now
		}
	}
	stop, login := simulatedSSH(t, 1, "--fast", "--hold", hold.String())
	base, j := held(stop, login, 1)
	j.Process.Kill()
	j.wait(t)
	stop()

	stop, login = simulatedSSH(t, many, "--fast", "--hold", hold.String())
	rss, j := held(stop, login, many)
	o := j.wait(t)
	most := 0
	if _, err := fmt.Sscanf(regexp.MustCompile(`at most \d+`).FindString(stop()), "at most %d", &most); err != nil {
		t.Fatal(err)
	}
	ok := lines(o.stdout, ": ok")
	each := float64(rss-base) / many / 1024
	tab.add(each <= 64, "memory for a live session, 5,000 at once", "≤ 64 KiB",
		fmt.Sprintf("%.1f KiB (%.0f MB in use; %.1f KiB at the peak, while they log in)", each, float64(rss)/1e6, float64(o.rss-base)/many/1024), "8.5 MiB: a process")
	tab.add(ok == many && most == many && o.code == 0, "connections at once, simulated fleet, fan-out 5,000", "5,000 of 5,000 ok",
		fmt.Sprintf("%d of %d ok, at most %d at once", ok, many, most), "–")
	if ok != many {
		fmt.Println(o)
	}

	stop, login = simulatedSSH(t, 1000, "--behaviour", "stall=kex:50%,stall=auth:50%")
	o = run(t, "multi-rsh", append([]string{"-p", "1000", "--connect-timeout", "1"}, append(login, "echo ok")...)...)
	// A second: what the kernel has still in hand is gone then, and no TIME_WAIT or FIN_WAIT_2 is.
	var left map[string]int
	within(t, time.Second, func() bool {
		sockets, err := rig.Sockets()
		if err != nil {
			t.Fatal(err)
		}
		left = map[string]int{}
		for _, s := range sockets {
			if s.Remote.Port() == 22 {
				left[s.State]++
			}
		}
		return len(left) == 0
	})
	stop()
	states := "0"
	if len(left) > 0 {
		states = fmt.Sprint(left)
	}
	tab.add(len(left) == 0 && strings.Contains(o.stderr, "1000 hosts: 1000 timeout"), "sockets of ours in any state after 1,000 simulated hosts that go silent in the handshake, a second later",
		"0", fmt.Sprintf("%s; %s", states, tally(o)), "–")

	hostKeyNumbers(t, tab)
}

// hostKeyNumbers are those of the package's own benchmark.
func hostKeyNumbers(t *testing.T, tab *table) {
	ms := benchmarks(t, "multirsh/transport/ssh/hostkeys", "^BenchmarkHost$/^hashed(-3-types)?$/^(check|algorithms-in-disorder|unknown)$")
	check := ms("Host/hashed/check") + ms("Host/hashed/algorithms-in-disorder")
	three := ms("Host/hashed-3-types/check") + ms("Host/hashed-3-types/algorithms-in-disorder")
	tab.add(check <= 0.2, "host key check with 10,000 hashed known_hosts lines, on a hit", "≤ 0.2 ms a host",
		fmt.Sprintf("%.3f ms (%.2f ms for a name that is not there)", check, ms("Host/hashed/unknown")), "–")
	tab.add(true, "the same, 3,333 hosts with three lines each, in another order than the file's", "–", fmt.Sprintf("%.2f ms", three), "–")
}
