package real

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const outputPage = `Simulated hosts are "fleetsim --fast" on loopback, over rsh, fan-out 64. clush has no client of its own: it runs a local command for each
host (clush -R exec), which prints as much; where it would take many minutes it has fewer hosts or fewer bytes, and rates are compared. Of
programs the time is from the start of the process to its end, and the memory its peak resident size. Shown are the median and, in
brackets, the range over the rounds. Ratios carry over to other machines, times do not.`

// timed runs a program with its output thrown away, so that its memory and its time are its own.
func timed(t *testing.T, name string, args ...string) outcome {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout = null
	var stderr strings.Builder
	cmd.Stderr = &stderr
	began := time.Now()
	err = cmd.Run()
	o := outcome{args: cmd.Args, stderr: stderr.String(), wall: time.Since(began)}
	if err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	o.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	o.rss = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	return o
}

func ours(t *testing.T, args ...string) outcome {
	t.Helper()
	return timed(t, filepath.Join(bin, "multi-rsh"), append([]string{"--config", "none", "-R", "rsh", "-q"}, args...)...)
}

// rates are of a program's rounds.
type rates struct {
	per, wall []float64 // units a second, seconds
	rss       int64
}

func (r *rates) add(o outcome, units float64) {
	r.per = append(r.per, units/o.wall.Seconds())
	r.wall = append(r.wall, o.wall.Seconds())
	r.rss = max(r.rss, o.rss)
}

func outputNumbers(t *testing.T, tab *table) {
	clush, err := exec.LookPath("clush")
	if err != nil {
		clush = ""
	}
	labelledNumbers(t, tab, clush)
	foldNumbers(t, tab, clush)
	foldMemory(t, tab)

	ms := benchmarks(t, "multirsh/runner/output", "^Benchmark(Report|ReportPage)$")
	made, opened := ms("Report"), ms("ReportPage")
	tab.add(made <= 2000, "report of a 10,000-host run: to make, in the process", "≤ 2 s", fmt.Sprintf("%.2f s", made/1000), "–")
	tab.add(opened <= 2000, "the same: to open in headless Chromium, until it is drawn", "≤ 2 s", fmt.Sprintf("%.2f s", opened/1000), "–")
}

func labelledNumbers(t *testing.T, tab *table, clush string) {
	const hosts, each, theirEach = 32, 100e6, 1e6
	stop := simulate(t, "--hosts", fmt.Sprint(hosts), "--fast", "--output-bytes", fmt.Sprint(int(each)))
	defer stop()
	file := simulatedHosts(t, hosts)
	var mine, peer rates
	for range 3 {
		mine.add(ours(t, "-p", "64", "-l", file, "x"), hosts*each/1e6)
		if clush != "" {
			peer.add(timed(t, clush, "-R", "exec", "-f", "64", "-w", fmt.Sprintf("n[1-%d]", hosts),
				fmt.Sprintf("yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 2>&- | head -c %d", int(theirEach))), hosts*theirEach/1e6)
		}
	}
	here := fmt.Sprintf("%.0f MB/s (%.0f to %.0f), %.0f MB", median(mine.per), slices.Min(mine.per), slices.Max(mine.per), float64(mine.rss)/1e6)
	ok, there := median(mine.per) >= 200 && mine.rss <= 40e6, "not installed"
	if clush != "" {
		ratio := median(mine.per) / median(peer.per)
		ok = ok && ratio >= 5
		here += fmt.Sprintf(", %.0f ×", ratio)
		there = fmt.Sprintf("%.1f MB/s, %.0f MB (1 MB each)", median(peer.per), float64(peer.rss)/1e6)
	}
	tab.add(ok, "labelled output of 32 hosts, 100 MB each, in lines of 64 bytes, to /dev/null", "≥ 5 × clush, ≥ 200 MB/s, ≤ 40 MB", here, there)
}

func foldNumbers(t *testing.T, tab *table, clush string) {
	const hosts, theirHosts = 10_000, 1000
	stop := simulate(t, "--hosts", fmt.Sprint(hosts), "--fast", "--output-bytes", fmt.Sprint(20*64), "--kinds", "10")
	defer stop()
	file := simulatedHosts(t, hosts)
	var mine, peer rates
	for range 3 {
		mine.add(ours(t, "-b", "-p", "64", "-l", file, "x"), hosts)
		if clush != "" {
			peer.add(timed(t, clush, "-b", "-R", "exec", "-f", "64", "-w", fmt.Sprintf("n[1-%d]", theirHosts),
				`echo $((%rank %% 10)); printf '%%063d\n' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19`), theirHosts)
		}
	}
	here := fmt.Sprintf("%.2f s (%.2f to %.2f), %.0f MB", median(mine.wall), slices.Min(mine.wall), slices.Max(mine.wall), float64(mine.rss)/1e6)
	ok, there := median(mine.wall) <= 3, "not installed"
	if clush != "" {
		ratio := median(mine.per) / median(peer.per)
		ok = ok && ratio >= 10
		here += fmt.Sprintf(", %.1f × the hosts a second", ratio)
		there = fmt.Sprintf("%.2f s for %d hosts, %.0f MB", median(peer.wall), theirHosts, float64(peer.rss)/1e6)
	}
	tab.add(ok, "fold (`-b`) of 10,000 hosts with 20 lines each, 10 different outputs, the whole run", "≥ 10 × clush -b, ≤ 3 s", here, there)
}

func foldMemory(t *testing.T, tab *table) {
	const hosts = 100_000
	stop := simulate(t, "--hosts", fmt.Sprint(hosts), "--fast", "--output-bytes", "1024")
	defer stop()
	o := ours(t, "-b", "-p", "64", "-l", simulatedHosts(t, hosts), "x")
	tab.add(o.rss <= 120e6, "fold of 100,000 hosts with 1 KB each, all equal", "≤ 120 MB", fmt.Sprintf("%.0f MB, %.1f s", float64(o.rss)/1e6, o.wall.Seconds()), "not run")
}
