//go:build linux

package real

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A run is killed with kill -9 ten times, each time at a random moment, and resumed: every host has exactly one result, none with a result
// runs again, and those that were running are left out as unknown until they are asked for.
func TestKilledRun(t *testing.T) {
	killedRun(t, 300)
}

const killedFanout = 16

// killedRun returns how often the run was killed before it was over, at most ten times, and how many hosts were unknown then.
func killedRun(t *testing.T, hosts int) (kills, unknown int) {
	t.Helper()
	const most = 10
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	if err := os.WriteFile(ran, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	program := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "multi-rsh"), args...)
		cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+dir)
		return cmd
	}
	shown := map[string]bool{} // hosts of which a result was shown
	for kills < most {
		args := []string{"resume", "--json", "last"}
		if kills == 0 {
			args = []string{"-R", "exec", "--json", "-p", fmt.Sprint(killedFanout), "-w", fmt.Sprintf("n[1-%d]", hosts), "echo %h >>" + ran}
		}
		if !resultsUntilKilled(t, program(args...), 1+rand.IntN(hosts/most/3), shown) {
			break
		}
		kills++
		at := readJournal(t, dir, hosts)
		for host := range shown {
			if at.results[host] != 1 {
				t.Fatalf("after kill %d %s has %d results, and one was shown", kills, host, at.results[host])
			}
		}
		if len(at.unknown) > kills*killedFanout {
			t.Fatalf("after kill %d %d hosts are unknown, want at most %d", kills, len(at.unknown), kills*killedFanout)
		}
	}
	before := readJournal(t, dir, hosts)

	var told strings.Builder
	cmd := program("resume", "last")
	cmd.Stderr = &told
	err := cmd.Run()
	if want := fmt.Sprintf("left out, since it is not known how it ended there (%d): ", len(before.unknown)); len(before.unknown) > 0 && (cmd.ProcessState.ExitCode() != 1 || !strings.Contains(told.String(), want)) {
		t.Errorf("the last resume: %v, without %q:\n%s", err, want, tail(told.String()))
	} else if len(before.unknown) == 0 && err != nil {
		t.Errorf("the last resume: %v:\n%s", err, tail(told.String()))
	}
	after := readJournal(t, dir, hosts)
	if len(after.results) != hosts-len(before.unknown) || !slices.Equal(after.unknown, before.unknown) {
		t.Errorf("%d results and %d unknown hosts, want %d and %d", len(after.results), len(after.unknown), hosts-len(before.unknown), len(before.unknown))
	}
	times := timesRun(t, ran)
	for host, n := range times {
		if n > 1 {
			t.Errorf("%s has run %d times", host, n)
		}
	}
	for host := range after.results {
		if times[host] != 1 {
			t.Errorf("%s has a result and has run %d times", host, times[host])
		}
	}

	if len(before.unknown) > 0 {
		if out, err := program("resume", "--again-unknown", "last").CombinedOutput(); err != nil {
			t.Errorf("resume --again-unknown: %v:\n%s", err, tail(string(out)))
		}
	}
	last := readJournal(t, dir, hosts)
	for host, n := range last.results {
		if n != 1 {
			t.Errorf("%s has %d results", host, n)
		}
	}
	if len(last.results) != hosts || len(last.unknown) > 0 {
		t.Errorf("%d of %d hosts have a result in the end, and %d are unknown", len(last.results), hosts, len(last.unknown))
	}
	for host, n := range timesRun(t, ran) {
		if n > 1 && (n > 2 || !slices.Contains(before.unknown, host)) {
			t.Errorf("%s has run %d times in the end", host, n)
		}
	}
	t.Logf("%d hosts, %d kills: %d unknown", hosts, kills, len(before.unknown))
	return kills, len(before.unknown)
}

// resultsUntilKilled runs the program until it has shown so many results, and kills it; false: it was faster. They are noted in shown.
func resultsUntilKilled(t *testing.T, cmd *exec.Cmd, results int, shown map[string]bool) bool {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var line struct{ Type, Host string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			continue // cut off by the kill
		}
		if line.Type == "result" {
			if shown[line.Host] {
				t.Errorf("a second result of %s is shown", line.Host)
			}
			shown[line.Host] = true
			results--
		}
		if results <= 0 { // from then on it is what has been on its way
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() && status.ExitStatus() > 1 {
		t.Fatalf("%q: %v", cmd.Args, cmd.ProcessState)
	}
	return status.Signaled()
}

// onDisk is what the lines of a journal say.
type onDisk struct {
	results map[string]int
	unknown []string // started, without a result
}

func readJournal(t *testing.T, dir string, hosts int) onDisk {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "multi-rsh", "runs", "*", "journal"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d journals, want one (%v)", len(files), err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	at, started := onDisk{results: map[string]int{}}, map[string]bool{}
	n := 0
	for line := range bytes.Lines(text) {
		var entry struct{ Type, Host string }
		if json.Unmarshal(line, &entry) != nil {
			continue // the last one may be half a line
		}
		switch entry.Type {
		case "host":
			n++
		case "start":
			if at.results[entry.Host] > 0 {
				t.Errorf("%s is started again after its result", entry.Host)
			}
			started[entry.Host] = true
		case "waits":
			delete(started, entry.Host)
		case "result":
			at.results[entry.Host]++
			delete(started, entry.Host)
		}
	}
	if n != hosts {
		t.Fatalf("the journal has %d hosts, want %d", n, hosts)
	}
	for host := range started {
		at.unknown = append(at.unknown, host)
	}
	slices.Sort(at.unknown)
	return at
}

// timesRun is how often each host has run.
func timesRun(t *testing.T, ran string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(ran)
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for host := range strings.FieldsSeq(string(text)) {
		times[host]++
	}
	return times
}

const runsPage = `Simulated hosts are "fleetsim --fast" over rsh on loopback, at a fan-out of 64; the runs with and without a journal alternate, and their state directory
is below the temporary directory. Shown are the median of the ratios of each pair and, in brackets, their range. The kills are of local commands, "-R exec".`

func runsNumbers(t *testing.T, tab *table) {
	kills, unknown := killedRun(t, 2000)
	right := !t.Failed() && kills == 10

	const hosts, rounds = 10_000, 15
	const what, goal = "wall time of a run of 10,000 simulated hosts with its journal, beside `--no-journal`", "≤ 1.05 ×"
	if os.Geteuid() == 0 {
		stop := simulate(t, "--hosts", "100000", "--fast")
		file := simulatedHosts(t, hosts)
		timed := func(more ...string) outcome {
			o := run(t, "multi-rsh", append(more, "-R", "rsh", "-q", "-p", "64", "-l", file, "echo ok")...)
			if o.code != 0 {
				t.Fatal(o)
			}
			return o
		}
		timed() // the first one finds everything cold
		var ratios, wall, cpu []float64
		for i := range rounds {
			var with, without outcome
			if i%2 == 0 {
				with, without = timed(), timed("--no-journal")
			} else {
				without, with = timed("--no-journal"), timed()
			}
			ratios = append(ratios, with.wall.Seconds()/without.wall.Seconds())
			wall = append(wall, with.wall.Seconds())
			cpu = append(cpu, with.cpu.Seconds()/without.cpu.Seconds())
		}
		stop()
		tab.add(median(ratios) <= 1.05, what, goal, fmt.Sprintf("%.3f × (%.3f–%.3f), of %.1f s; CPU %.2f ×", median(ratios), slices.Min(ratios), slices.Max(ratios),
			median(wall), median(cpu)), "–")
	} else {
		tab.add(true, what, goal, needsRoot, "–")
	}
	tab.add(right, "kill -9 at ten random moments of a run of 2,000 hosts, `resume` each time", "every host one result, none with a result run again, those in flight unknown",
		fmt.Sprintf("so it is, %d times; %d were unknown in the end", kills, unknown), "–")
}
