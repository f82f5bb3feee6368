//go:build linux

package real

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"multirsh/transport/fleet"
	"multirsh/transport/rig"
)

var numbers = flag.String("numbers", "", "run the benchmarks and write their table to this file (absolute path)")

// table collects the rows. A goal that was missed fails the test, after all have run.
type table struct {
	t    *testing.T
	text strings.Builder
}

func (tab *table) add(ok bool, what, goal, here, peer string) {
	if !ok {
		here += " **missed**"
		tab.t.Errorf("%s: %s, to reach: %s", what, here, goal)
	}
	line := fmt.Sprintf("| %s | %s | %s | %s |\n", what, goal, here, peer)
	tab.text.WriteString(line)
	fmt.Print(line)
}

// TestNumbers is the benchmark: the main jobs on real and simulated hosts, beside what else does them, and the tables of what came
// out, one for each transport, and one each for host expressions, output, runs that end early or go on, and the picture of the ports.
func TestNumbers(t *testing.T) {
	if *numbers == "" {
		t.Skip("a benchmark of several minutes: make bench")
	}
	t.Run("output", func(t *testing.T) { // first: a process starts with the peak of its parent's memory
		tab := &table{t: t}
		outputNumbers(t, tab)
		tab.write("output", versions("clustershell", "chromium"), outputPage, "clush")
	})
	t.Run("rsh", func(t *testing.T) {
		tab := &table{t: t}
		for _, daemon := range []rig.Daemon{rig.Redone, rig.Netkit} {
			realNumbers(t, tab, daemon)
		}
		simulatedNumbers(t, tab)
		tab.write("rsh", versions("pdsh"), rshPage, "pdsh -R rsh")
	})
	t.Run("ssh", func(t *testing.T) {
		tab := &table{t: t}
		realSSHNumbers(t, tab)
		tab.write("ssh", versions("pdsh", "clustershell", "pssh", "openssh-client"), sshPage, "the others")
	})
	t.Run("runs", func(t *testing.T) {
		tab := &table{t: t}
		runsNumbers(t, tab)
		if os.Geteuid() == 0 {
			stopNumbers(t, tab)
		}
		tab.write("runs", versions(), runsPage, "others")
	})
	t.Run("ports", func(t *testing.T) {
		tab := &table{t: t}
		portsNumbers(t, tab)
		tab.write("ports", versions("iproute2"), portsPage, "ss")
	})
	t.Run("hosts", func(t *testing.T) {
		tab := &table{t: t}
		hostsNumbers(t, tab)
		tab.write("hosts", versions("clustershell"), hostsPage, "nodeset")
	})
}

const title = "# Benchmarks\n"

const rshPage = `Real hosts are in.rshd of Debian's two packages, 32 hosts each in a network namespace of its own, 100 addresses a host, all on
this machine, so that the hosts' work shares its CPUs with the client's. Simulated hosts are "fleetsim --fast" on loopback, without a
shell behind it. CPU is user and system time of the client process alone, memory its peak resident size. Ratios and
counts carry over to other machines, times do not.`

// write puts the table into the file, in the place of an earlier one of that part. The others stay.
func (tab *table) write(part, versions, about, peer string) {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	text := fmt.Sprintf(`
## %s

Made by "make bench" on %s: Linux %s, %d CPUs, %s, %s.
%s

| what | to reach | multi-rsh | %s, same run |
|---|---|---|---|
%s`, part, time.Now().Format("2006-01-02"), strings.TrimSpace(string(kernel)), runtime.NumCPU(), runtime.Version(), versions,
		about, peer, tab.text.String())
	before, _ := os.ReadFile(*numbers)
	sections := map[string]string{}
	for _, section := range strings.Split(string(before), "\n## ")[1:] {
		name, _, _ := strings.Cut(section, "\n")
		sections[name] = "\n## " + strings.TrimSuffix(section, "\n") + "\n"
	}
	sections[part] = text
	if err := os.WriteFile(*numbers, []byte(title+sections["ssh"]+sections["rsh"]+sections["hosts"]+sections["output"]+sections["runs"]+sections["ports"]), 0o644); err != nil {
		tab.t.Fatal(err)
	}
}

// versions are those of Debian's packages, without the ones that are not installed.
func versions(packages ...string) string {
	var found []string
	for _, name := range packages {
		if out, err := exec.Command("dpkg-query", "-W", "-f", "${Package} ${Version}", name).Output(); err == nil {
			found = append(found, string(out))
		}
	}
	if found == nil {
		return "nothing to compare with"
	}
	return strings.Join(found, ", ")
}

// benchmarks runs benchmarks of a package and returns the milliseconds of one by its name, which is a regular expression.
func benchmarks(t *testing.T, pkg, which string) func(name string) float64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "test", pkg, "-run", "^$", "-benchtime", "200ms", "-bench", which).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return func(name string) float64 {
		t.Helper()
		m := regexp.MustCompile(`Benchmark` + name + `(?:-\d+)?\s+\d+\s+([\d.]+) ns/op`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("no figure for %s: %s", name, out)
		}
		ns, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return ns / 1e6
	}
}

var havePdsh = func() bool { _, err := exec.LookPath("pdsh"); return err == nil }()

// pdsh runs pdsh over rsh, or gives nil where it is not installed.
func pdsh(t *testing.T, fanout int, hosts string, command ...string) *outcome {
	if !havePdsh {
		return nil
	}
	args := append([]string{"-R", "rsh", "-l", "tester-bash", "-u", "120", "-t", "60", "-f", fmt.Sprint(fanout), "-w", hosts}, command...)
	o := run(t, "pdsh", args...)
	return &o
}

// lines counts the lines of text that end in suffix.
func lines(text, suffix string) int {
	n := 0
	for line := range strings.Lines(text) {
		if strings.HasSuffix(strings.TrimSuffix(line, "\n"), suffix) {
			n++
		}
	}
	return n
}

func show(peer *outcome, f func(*outcome) string) string {
	if peer == nil {
		return "not installed"
	}
	return f(peer)
}

// settle waits until nothing is left of what has been measured, or it would count in what is measured next: a peer's TIME_WAITs take
// a minute. What is there after two is a row of its own, and missed.
func (tab *table) settle(left func() []rig.Socket) {
	var busy []rig.Socket
	if within(tab.t, 2*time.Minute, func() bool {
		busy = left()
		return len(busy) == 0
	}) {
		return
	}
	tab.add(false, "sockets of the rows above, two minutes later: they are there while the next row is measured", "0",
		fmt.Sprint(len(busy), " ", states(busy)), "–")
}

// settle waits until no reserved port is in any state, here or on the hosts.
func settle(t *testing.T, tab *table, r *rig.Rig) {
	tab.settle(func() []rig.Socket { return append(controlReserved(t), hostReserved(t, r)...) })
}

func realNumbers(t *testing.T, tab *table, daemon rig.Daemon) {
	r := rig.New(t, rig.Config{Hosts: 32, Daemon: daemon})
	on := func(what string) string { return fmt.Sprintf("%s, %s", what, daemon) }

	o := rsh(t, "-p", "3200", "--connect-timeout", "60", "-w", addresses(r, 100), "sleep 4; echo ok")
	left := controlReserved(t)
	ok := lines(o.stdout, ": ok")
	settle(t, tab, r)
	p := pdsh(t, 600, addresses(r, 20), "sleep 4; echo ok")
	pleft := controlReserved(t)
	tab.add(ok == 3200 && o.code == 0, on("sessions at once, stderr channel on, `sleep 4`"), "3,200 of 3,200 ok",
		fmt.Sprintf("%d of 3200, %.1f s", ok, o.wall.Seconds()), show(p, func(p *outcome) string {
			return fmt.Sprintf("%d of 640, %.1f s", lines(p.stdout, ": ok"), p.wall.Seconds())
		}))
	tab.add(len(left) == 0, on("sockets on our own reserved ports afterwards, any state"), "0", fmt.Sprint(len(left)),
		show(p, func(*outcome) string { return fmt.Sprint(len(pleft), " ", states(pleft)) }))
	tab.add(o.rss <= 64<<20, on("resident memory, 3,200 sessions"), "≤ 64 MB", fmt.Sprintf("%.1f MB", float64(o.rss)/1e6), "–")
	if ok != 3200 {
		fmt.Println(o)
	}
	settle(t, tab, r)

	interruptNumbers(t, tab, r, on)
	settle(t, tab, r)
	oneHostNumbers(t, tab, r, on)
	settle(t, tab, r)
	killNumbers(t, tab, r, on)
	settle(t, tab, r)

	var pair [2]*job
	for i := range pair {
		pair[i] = start(t, "multi-rsh", rshArgs([]string{"-p", "300", "-w", fmt.Sprintf("10.77.[1-30].[%d-%d]", 1+10*i, 10+10*i), "sleep 2; echo ok"})...)
	}
	a, b := pair[0].wait(t), pair[1].wait(t)
	both := lines(a.stdout, ": ok") + lines(b.stdout, ": ok")
	tab.add(both == 600, on("two runs of 300 hosts at the same time"), "600 of 600 ok", fmt.Sprintf("%d of 600", both), "–")
}

func interruptNumbers(t *testing.T, tab *table, r *rig.Rig, on func(string) string) {
	term := onTerminal(t, "multi-rsh", rshArgs([]string{"-p", "640", "--connect-timeout", "60", "-w", addresses(r, 20), "sleep 1000"})...)
	until(t, "640 sleeps", func() bool { return sleepers(t, r, "1000") == 640 })
	term.press(t, "\x03")
	until(t, "the status", func() bool { return strings.Contains(term.screen(), "Ctrl-C again within a second stops") })
	began := time.Now()
	term.press(t, "\x03")
	code := term.wait()
	took := time.Since(began)
	left := sleepers(t, r, "1000")
	summary := strings.Contains(term.screen(), "640 cancelled")
	tab.add(took <= 5*time.Second && left == 0 && summary && code == 130, on("Ctrl-C twice, 640 sessions of `sleep 1000`"),
		"prompt ≤ 5 s, 0 `sleep` left, all in the summary", fmt.Sprintf("%.1f s, %d left, summary %v, exit %d", took.Seconds(), left, summary, code), "–")
	if !summary {
		fmt.Println(tail(term.screen()))
	}
}

// oneHostNumbers runs the program 5,000 times against one address, 20 at a time: each run is a process of its own, so that
// the rotation must carry over.
func oneHostNumbers(t *testing.T, tab *table, r *rig.Rig, on func(string) string) {
	const commands, atOnce = 5000, 20
	target := r.Hosts[0].Addr(0).String()
	var group errgroup.Group
	group.SetLimit(atOnce)
	okays := make([]bool, commands)
	bad := make(chan outcome, commands)
	began := time.Now()
	for i := range commands {
		group.Go(func() error {
			o := rsh(t, "-w", target, "-q", "echo ok")
			okays[i] = o.code == 0 && strings.HasSuffix(o.stdout, ": ok\n")
			if !okays[i] {
				bad <- o
			}
			return nil
		})
	}
	group.Wait()
	took := time.Since(began)
	ok := 0
	for _, good := range okays {
		if good {
			ok++
		}
	}
	held := hostReserved(t, r)
	settle(t, tab, r)
	peer := "not installed"
	if havePdsh {
		n := 0
		for ; n < 1000; n++ {
			if o := pdsh(t, 1, target, "echo ok"); lines(o.stdout, ": ok") != 1 {
				break
			}
		}
		peer = fmt.Sprintf("%d in a row, then: held on the target %s", n, states(hostReserved(t, r)))
	}
	tab.add(ok == commands && len(held) == 0, on("commands in a row into one host, 20 at a time, each a process"),
		"5,000 of 5,000 ok, no reserved port held on the target", fmt.Sprintf("%d ok in %.0f s, %d held %s", ok, took.Seconds(), len(held), states(held)), peer)
	if ok != commands {
		fmt.Println(<-bad)
	}
}

func killNumbers(t *testing.T, tab *table, r *rig.Rig, on func(string) string) {
	j := start(t, "multi-rsh", rshArgs([]string{"-p", "640", "--connect-timeout", "60", "-w", addresses(r, 20), "sleep 20"})...)
	until(t, "640 sleeps", func() bool { return sleepers(t, r, "20") == 640 })
	j.Process.Kill()
	j.wait(t)
	var left []rig.Socket
	within(t, time.Second, func() bool {
		left = controlReserved(t)
		return len(left) == 0
	})
	tab.add(len(left) == 0, on("kill -9 amid 640 sessions, a second later: sockets on our reserved ports"), "0",
		fmt.Sprint(len(left)), "not run")
	until(t, "the commands have ended", func() bool { return sleepers(t, r, "20") == 0 })
}

// simulate starts a fleet and waits until it is ready. To stop it returns what it says at its end.
func simulate(t *testing.T, args ...string) (stop func() string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "fleetsim"), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	first, err := said.ReadString('\n')
	if err != nil {
		t.Fatalf("fleetsim: %v", err)
	}
	fmt.Print(first)
	return func() string {
		cmd.Process.Signal(syscall.SIGTERM)
		last, _ := said.ReadString('\n')
		cmd.Wait()
		return last
	}
}

// simulatedHosts is a file that names n hosts of fleetsim.
func simulatedHosts(t *testing.T, n int) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "hosts"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := fleet.WriteHosts(file, n, 514); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

func simulatedNumbers(t *testing.T, tab *table) {
	if os.Geteuid() != 0 {
		t.Skip("reserved ports need root: run make bench as root")
	}
	const n = 2000
	stop := simulate(t, "--hosts", "100000", "--fast")
	file := simulatedHosts(t, n)
	var ratios struct{ speed, cpu []float64 }
	var ours, theirs []outcome
	for range 5 {
		o := run(t, "multi-rsh", "-R", "rsh", "-q", "-p", "64", "-l", file, "echo ok")
		if o.code != 0 {
			t.Fatal(o)
		}
		ours = append(ours, o)
		if p := pdsh(t, 64, "^"+file, "echo ok"); p != nil {
			theirs = append(theirs, *p)
			ratios.speed = append(ratios.speed, p.wall.Seconds()/o.wall.Seconds())
			ratios.cpu = append(ratios.cpu, o.cpu.Seconds()/p.cpu.Seconds())
		}
	}
	rate := func(runs []outcome) string {
		if len(runs) == 0 {
			return "not installed"
		}
		var wall []float64
		for _, o := range runs {
			wall = append(wall, o.wall.Seconds())
		}
		return fmt.Sprintf("%.0f hosts/s", n/median(wall))
	}
	cost := func(runs []outcome) string {
		if len(runs) == 0 {
			return "not installed"
		}
		var cpu []float64
		for _, o := range runs {
			cpu = append(cpu, o.cpu.Seconds())
		}
		return fmt.Sprintf("%.3f ms", median(cpu)/n*1000)
	}
	if havePdsh {
		tab.add(median(ratios.speed) >= 1.1, "fast simulated fleet, 2,000 hosts, fan-out 64", "≥ 1.1 × pdsh",
			fmt.Sprintf("%s, %.2f × (%.2f–%.2f)", rate(ours), median(ratios.speed), slices.Min(ratios.speed), slices.Max(ratios.speed)), rate(theirs))
		tab.add(median(ratios.cpu) <= 0.8, "client CPU for a host, same fleet", "≤ 0.8 × pdsh",
			fmt.Sprintf("%s, %.2f × (%.2f–%.2f)", cost(ours), median(ratios.cpu), slices.Min(ratios.cpu), slices.Max(ratios.cpu)), cost(theirs))
	} else {
		tab.add(true, "fast simulated fleet, 2,000 hosts, fan-out 64", "≥ 1.1 × pdsh", rate(ours), rate(nil))
		tab.add(true, "client CPU for a host, same fleet", "≤ 0.8 × pdsh", cost(ours), cost(nil))
	}

	// The same fan-out for both sizes: what grows with the number of hosts would show.
	small, big := simulatedHosts(t, 1000), simulatedHosts(t, 100000)
	var rates []float64
	for range 5 {
		o := run(t, "multi-rsh", "-R", "rsh", "-q", "-p", "2000", "-l", small, "echo ok")
		if o.code != 0 {
			t.Fatal(o)
		}
		rates = append(rates, 1000/o.wall.Seconds())
	}
	o := run(t, "multi-rsh", "-R", "rsh", "-p", "2000", "-l", big, "echo ok")
	ok := lines(o.stdout, ": ok")
	rateBig := 100000 / o.wall.Seconds()
	left := controlReserved(t)
	tab.add(ok == 100000 && o.code == 0 && o.rss <= 150<<20 && rateBig >= 0.8*median(rates),
		"100,000 simulated hosts, fan-out 2,000", "all ok, ≤ 150 MB, hosts/s within 20 % of 1,000 hosts'",
		fmt.Sprintf("%d ok, %.1f MB, %.0f hosts/s (1,000 hosts: %.0f)", ok, float64(o.rss)/1e6, rateBig, median(rates)), "not run")
	if ok != 100000 {
		fmt.Println(o)
	}
	stop()
	tab.add(clientSockets(left) == 0, "sockets of the client on reserved ports after it", "0", fmt.Sprint(clientSockets(left)), "–")
}

// clientSockets counts without the simulated hosts' own ends: client and hosts share one table on loopback, and the
// client's address there is 127.0.0.1, the hosts' are others.
func clientSockets(sockets []rig.Socket) int {
	n := 0
	for _, s := range sockets {
		if s.Local.Addr().String() == "127.0.0.1" {
			n++
		}
	}
	return n
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
