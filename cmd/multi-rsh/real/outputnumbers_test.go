//go:build linux

package real

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"multirsh/transport/fleet"
)

const outputPage = `multi-rsh and clush run the same local commands, "-R exec" of both, which print a file; fan-out 64, standard output to /dev/null, the runs
alternating. Simulated hosts are "fleetsim --fast" over rsh on loopback, which clush cannot reach without an rsh client: beside those
stands its "-R exec". Their work, and that of the commands, shares this machine's CPUs with the client's. clush has fewer bytes or hosts where
the row says so, since it would take minutes; what is compared are rates. Memory is the client's peak resident size, without the commands'. Shown are
the median and, in brackets, the range over the rounds. Ratios carry over to other machines, times do not.`

// needsRoot is what a row says that has simulated rsh hosts.
const needsRoot = "not run: reserved ports need root"

func outputNumbers(t *testing.T, tab *table) {
	o := outputBench{T: t, tab: tab, dir: t.TempDir(), root: os.Geteuid() == 0}
	_, err := exec.LookPath("clush")
	o.clush = err == nil
	o.labelled()
	o.folded()
	o.foldedEqual()
	o.recorded()
	o.reported()
}

// outputBench is what the rows of this part have in common.
type outputBench struct {
	*testing.T
	tab         *table
	dir         string
	root, clush bool
	record      string // of a run of 10,000 hosts, made by folded
}

// quiet runs a program whose standard output goes to /dev/null, or into a file. It must end with status 0.
func (b outputBench) quiet(to, name string, args ...string) outcome {
	b.Helper()
	if to == "" {
		to = os.DevNull
	}
	out, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	if name == "multi-rsh" {
		name = filepath.Join(bin, name)
	}
	j := &job{Cmd: exec.CommandContext(b.Context(), name, args...), began: time.Now()}
	j.Cmd.Stdout, j.Cmd.Stderr = out, &j.stderr
	if err := j.Cmd.Start(); err != nil {
		b.Fatal(err)
	}
	o := j.wait(b)
	if o.code != 0 {
		b.Fatal(o)
	}
	return o
}

// writes says that multi-rsh writes so many bytes: what is measured goes to /dev/null, where nobody would miss any.
func (b outputBench) writes(want int, args ...string) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), filepath.Join(bin, "multi-rsh"), args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	n, err := io.Copy(io.Discard, out)
	if err := errors.Join(err, cmd.Wait()); err != nil || n != int64(want) {
		b.Fatalf("%v: %d bytes, not %d (%v)", args, n, want, err)
	}
}

// file writes text of so many lines of 64 bytes and returns its name.
func (b outputBench) file(name string, lines int) string {
	b.Helper()
	file := filepath.Join(b.dir, name)
	block := strings.Repeat(strings.Repeat("x", 63)+"\n", 1<<14)
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	for n := lines * 64; n > 0; n -= len(block) {
		if _, err := f.WriteString(block[:min(n, len(block))]); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return file
}

// rates are the figures of runs that handle so many units each: the median a second with its range, and the most memory.
type rates struct {
	each []float64
	rss  int64
}

func (r *rates) add(o outcome, units float64) {
	r.each, r.rss = append(r.each, units/o.wall.Seconds()), max(r.rss, o.rss)
}

func (r *rates) String() string { return r.in("MB/s") }

func (r *rates) in(unit string) string {
	if len(r.each) == 0 {
		return "not installed"
	}
	return fmt.Sprintf("%.0f %s (%.0f to %.0f), %.0f MB", median(r.each), unit, slices.Min(r.each), slices.Max(r.each), float64(r.rss)/1e6)
}

// times says how many times the peer's rate each of ours was in its round. ok is whether the median reaches the goal, or there is no peer.
func (r *rates) times(peer *rates, goal float64) (text string, ok bool) {
	var ratio []float64
	for i := range min(len(r.each), len(peer.each)) {
		ratio = append(ratio, r.each[i]/peer.each[i])
	}
	if len(ratio) == 0 {
		return "", true
	}
	return fmt.Sprintf(", %.1f × (%.1f to %.1f)", median(ratio), slices.Min(ratio), slices.Max(ratio)), median(ratio) >= goal
}

func (b outputBench) labelled() {
	const hosts, lines, peerLines, rounds = 32, 100e6 / 64, 2e6 / 64, 3
	const mb = hosts * lines * 64 / 1e6
	big, small := b.file("big", lines), b.file("small", peerLines)
	labels := 0 // bytes of the labels, "node1: " and so on
	for i := range hosts {
		labels += lines * len(fmt.Sprintf("node%d: ", i+1))
	}
	b.writes(hosts*lines*64+labels, "-R", "exec", "-q", "-w", "node[1-32]", "cat "+big)
	var local, peer, json rates
	for range rounds {
		local.add(b.quiet("", "multi-rsh", "-R", "exec", "-q", "-w", "node[1-32]", "cat "+big), mb)
		json.add(b.quiet("", "multi-rsh", "-R", "exec", "-q", "--json", "-w", "node[1-32]", "cat "+big), mb)
		if b.clush {
			peer.add(b.quiet("", "clush", "-n", "-R", "exec", "-f", "64", "-w", "node[1-32]", "cat "+small), hosts*peerLines*64/1e6)
		}
	}
	times, ok := local.times(&peer, 5)
	b.tab.add(ok && median(local.each) >= 200 && local.rss <= 40e6, "labelled output of 32 commands, 100 MB each in lines of 64 bytes, to /dev/null; clush: 2 MB each",
		"≥ 5 × clush, ≥ 200 MB/s, ≤ 40 MB", local.String()+times, peer.String())

	const what, goal = "the same of 32 simulated hosts", "≥ 5 × clush, ≥ 200 MB/s, ≤ 40 MB"
	if b.root {
		stop := simulate(b.T, "--hosts", "32", "--fast", "--output-bytes", fmt.Sprint(int(lines)*64))
		file := simulatedHosts(b.T, hosts)
		labels := 0
		for i := range hosts {
			labels += lines * len(fleet.Addr(i+1).String()+": ")
		}
		b.writes(hosts*lines*64+labels, "-R", "rsh", "-q", "-l", file, "cat")
		var here rates
		for range rounds {
			here.add(b.quiet("", "multi-rsh", "-R", "rsh", "-q", "-l", file, "cat"), mb)
		}
		stop()
		times, ok := here.times(&peer, 5)
		b.tab.add(ok && median(here.each) >= 200 && here.rss <= 40e6, what, goal, here.String()+times, peer.String())
	} else {
		b.tab.add(true, what, goal, needsRoot, "–")
	}
	b.tab.add(true, "`--json` of those commands, to /dev/null; MB of output, not of JSON", "–", json.String(), "–")
	os.Remove(big)
}

// kinds starts ten fleets, each with an output of its own of 20 lines, and returns a file with n hosts of them in turn.
func (b outputBench) kinds(n int) (hosts string, stop func()) {
	b.Helper()
	const port = 6000 // in a network of our own
	var stops []func() string
	hosts = filepath.Join(b.dir, "kinds")
	f, err := os.Create(hosts)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for kind := range 10 {
		stops = append(stops, simulate(b.T, "--hosts", fmt.Sprint(n), "--fast", "--port", fmt.Sprint(port+kind), "--output", strings.TrimSuffix(twentyLines(kind), "\n")))
	}
	for i := range n {
		fmt.Fprintf(w, "%v port=%d\n", fleet.Addr(i+1), port+i%10)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return hosts, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// twentyLines is the output of the hosts of a kind. The kinds differ in one line.
func twentyLines(kind int) string {
	var text strings.Builder
	for i := range 20 {
		if i == 9 {
			fmt.Fprintf(&text, "kind %d\n", kind)
		} else {
			fmt.Fprintf(&text, "line %02d of an output that all hosts have in common\n", i+1)
		}
	}
	return text.String()
}

func (b *outputBench) folded() {
	const hosts, some, rounds = 10_000, 1_000, 3
	for kind := range 10 {
		if err := os.WriteFile(filepath.Join(b.dir, fmt.Sprint("kind", kind)), []byte(twentyLines(kind)), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	command := `h=%h; cat ` + b.dir + `/kind"${h#"${h%%?}"}"` // by the last digit of the name
	expr := fmt.Sprintf("node[0-%d]", some-1)
	groups := func(file string) {
		b.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		for kind := range 10 {
			if n := bytes.Count(text, fmt.Appendf(nil, "\nkind %d\n", kind)); n != 1 {
				b.Fatalf("%s has output %d %d times, not once:\n%s", file, kind, n, tail(string(text)))
			}
		}
	}
	ours, theirs := filepath.Join(b.dir, "ours"), filepath.Join(b.dir, "theirs")
	var wall []float64
	var local, simulated, peer rates
	file, stop := "", func() {}
	if b.root {
		file, stop = b.kinds(hosts)
	}
	for range rounds {
		local.add(b.quiet(ours, "multi-rsh", "-R", "exec", "-q", "-b", "-w", expr, command), some)
		groups(ours)
		if b.clush {
			peer.add(b.quiet(theirs, "clush", "-n", "-R", "exec", "-f", "64", "-b", "-w", expr, command), some)
			groups(theirs)
		}
		if b.root {
			o := b.quiet(ours, "multi-rsh", "-R", "rsh", "-q", "-b", "-l", file, "uname -a")
			groups(ours)
			simulated.add(o, hosts)
			wall = append(wall, o.wall.Seconds())
		}
	}
	const what, goal = "fold of 10,000 simulated hosts × 20 lines, 10 distinct outputs, whole run; clush: 1,000 commands", "≤ 3 s, ≥ 10 × clush -b"
	if b.root {
		times, ok := simulated.times(&peer, 10)
		b.tab.add(ok && median(wall) <= 3, what, goal, fmt.Sprintf("%.2f s (%.2f to %.2f): ", median(wall), slices.Min(wall), slices.Max(wall))+
			simulated.in("hosts/s")+times, peer.in("hosts/s"))
	} else {
		b.tab.add(true, what, goal, needsRoot, "–")
	}
	times, _ := local.times(&peer, 0)
	b.tab.add(true, "the same of 1,000 commands, mostly the start of their processes", "–", local.in("hosts/s")+times, peer.in("hosts/s"))

	// A record of the 10,000, and their lines as clubak reads them.
	b.record = filepath.Join(b.dir, "record.jsonl")
	labelled := filepath.Join(b.dir, "labelled")
	var made outcome
	if b.root {
		made = b.quiet(labelled, "multi-rsh", "-R", "rsh", "--summary", "none", "--json="+b.record, "-l", file, "uname -a")
	} else {
		made = b.quiet(labelled, "multi-rsh", "-R", "exec", "--summary", "none", "--json="+b.record, "-w", "node[0-9999]", command)
	}
	stop()
	_, err := exec.LookPath("clubak")
	clubak := err == nil
	var again, gathered rates
	for range rounds {
		again.add(b.quiet(ours, "multi-rsh", "replay", "-q", "-b", b.record), hosts)
		groups(ours)
		if clubak {
			gathered.add(b.quiet(theirs, "sh", "-c", `exec clubak -S ": " -b <"$1"`, "sh", labelled), hosts)
			groups(theirs)
		}
	}
	times, _ = again.times(&gathered, 0)
	b.tab.add(true, "folding alone, those 10,000: `replay -b` of the record, clubak -b of the labelled lines", "–", again.in("hosts/s")+times, gathered.in("hosts/s"))
	b.tab.add(true, "labelled and recorded in one run, those 10,000", "–", fmt.Sprintf("%.2f s, %.0f MB", made.wall.Seconds(), float64(made.rss)/1e6), "–")
}

func (b outputBench) foldedEqual() {
	const hosts, goal = 100_000, "≤ 120 MB"
	const what = "fold of 100,000 simulated hosts × 1 KB, all equal, fan-out 2,000"
	if !b.root {
		b.tab.add(true, what, goal, needsRoot, "–")
		return
	}
	stop := simulate(b.T, "--hosts", fmt.Sprint(hosts), "--fast", "--output-bytes", "1024")
	defer stop()
	file := simulatedHosts(b.T, hosts)
	out := filepath.Join(b.dir, "equal")
	o := b.quiet(out, "multi-rsh", "-R", "rsh", "-q", "-b", "-p", "2000", "-l", file, "cat")
	text, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	body := strings.Count(string(text), strings.Repeat("x", 63)+"\n")
	b.tab.add(body == 16 && o.rss <= 120e6, what, goal, fmt.Sprintf("%.0f MB, %.1f s, the output %d ×", float64(o.rss)/1e6, o.wall.Seconds(), body/16), "–")
}

// recorded is the way into a file and out of it again.
func (b outputBench) recorded() {
	const hosts, lines, rounds = 32, 4e6 / 64, 3
	const mb = hosts * lines * 64 / 1e6
	text, record := b.file("text", lines), filepath.Join(b.dir, "big.jsonl")
	var write, read rates
	for range rounds {
		write.add(b.quiet("", "multi-rsh", "-R", "exec", "-q", "--json="+record, "-w", "node[1-32]", "cat "+text), mb)
		read.add(b.quiet("", "multi-rsh", "replay", "-q", record), mb)
	}
	size, err := os.Stat(record)
	if err != nil {
		b.Fatal(err)
	}
	b.tab.add(true, "32 commands, 4 MB each, labelled to /dev/null and `--json=FILE`", "–", fmt.Sprintf("%v; the record is %.0f MB for %.0f", &write, float64(size.Size())/1e6, mb), "–")
	b.tab.add(true, "`replay` of that record, labelled, to /dev/null", "–", read.String(), "–")
	os.Remove(record)
}

func (b outputBench) reported() {
	page := filepath.Join(b.dir, "run.html")
	var wall []float64
	var rss int64
	for range 5 {
		o := b.quiet("", "multi-rsh", "report", b.record, "-o", page)
		wall, rss = append(wall, o.wall.Seconds()), max(rss, o.rss)
	}
	size, err := os.Stat(page)
	if err != nil {
		b.Fatal(err)
	}
	b.tab.add(median(wall) <= 2, "report of that run of 10,000 hosts, made", "≤ 2 s", fmt.Sprintf("%.2f s (%.2f to %.2f), %.0f MB; the page is %.1f MB",
		median(wall), slices.Min(wall), slices.Max(wall), float64(rss)/1e6, float64(size.Size())/1e6), "–")

	const what, goal = "that report opened in headless Chromium, until it has been drawn", "≤ 2 s"
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		b.tab.add(true, what, goal, "not run: Chromium is not installed", "–")
		return
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.WindowSize(1200, 900))
	if b.root {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	open := func(url string, more ...chromedp.Action[chromedp.Void]) float64 {
		began := time.Now()
		if err := chromedp.Do(ctx, append([]chromedp.Action[chromedp.Void]{chromedp.Navigate(url)}, more...)...); err != nil {
			b.Fatalf("%s: %v", url, err)
		}
		return time.Since(began).Seconds()
	}
	started := open("about:blank")
	var opened []float64
	for range 5 {
		opened = append(opened, open("file://"+page, chromedp.WaitVisible(chromedp.CSS(`html[data-ready="true"]`))))
		open("about:blank")
	}
	b.tab.add(median(opened) <= 2, what, goal, fmt.Sprintf("%.2f s (%.2f to %.2f); before it %.1f s for the browser's own start", median(opened), slices.Min(opened), slices.Max(opened), started), "–")
}
