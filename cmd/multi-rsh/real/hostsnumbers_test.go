//go:build linux

package real

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const hostsPage = `"multi-rsh hosts" and nodeset (ClusterShell) do the same work on the same input, one after the other in each round; of programs
the time is from the start of the process to its end, and the memory its peak resident size. Shown are the median and, in
brackets, the range over the rounds. Ratios carry over to other machines, times do not.`

// work is something that multi-rsh and nodeset can both do.
type work struct {
	what, stdin  string
	ours, theirs []string // arguments of multi-rsh and of nodeset
	answer       string   // the beginning of what both must write, "" where they may differ
	limit        time.Duration
	memory       int64   // bytes, 0: no limit
	faster       float64 // so many times nodeset's speed, 0: no matter
	goal         string
}

func hostsNumbers(t *testing.T, tab *table) {
	first := benchmarks(t, "multirsh/runner/hostlist", "^BenchmarkFirstName$")("FirstName")
	tab.add(first < 1, "`node[1-1000000]` read and expanded to the first name, in the process", "< 1 ms", fmt.Sprintf("%.4f ms", first), "–")

	dir := t.TempDir()
	plain, irregular := filepath.Join(dir, "plain"), filepath.Join(dir, "irregular")
	writeShuffled(t, plain, 1_000_000, 1_000_000, func(i int) string { return fmt.Sprintf("n%d", i+1) })
	writeShuffled(t, irregular, 120_000, 100_000, func(i int) string { return fmt.Sprintf("rack%dn%d", i/400+1, i%400+1) })
	debug.FreeOSMemory() // a process starts with the peak of its parent

	const a, b = "node[1-1000000]", "node[500001-1500000]"
	for _, w := range []work{
		{what: "expand `" + a + "` to all names, a name a line", ours: []string{"expand", a}, theirs: []string{"-e", "-S", `\n`, a},
			answer: "node1\nnode2\n", limit: 150 * time.Millisecond, goal: "< 0.15 s"},
		{what: "fold 1,000,000 shuffled names `n[1-1000000]` from standard input", stdin: plain, ours: []string{"fold", "-"}, theirs: []string{"-f", "-"},
			answer: "n[1-1000000]\n", limit: time.Second, memory: 200e6, faster: 10, goal: "< 1 s, ≤ 200 MB, ≥ 10 × nodeset"},
		{what: "fold 100,000 of the names `rack[1-300]n[1-400]`, chosen at random, from standard input", stdin: irregular, ours: []string{"fold", "-"},
			theirs: []string{"-f", "-"}, limit: time.Second, goal: "< 1 s"},
		{what: "`" + a + "!" + b + "`, folded", ours: []string{"fold", a + "!" + b}, theirs: []string{"-f", a + "!" + b},
			answer: "node[1-500000]\n", limit: time.Second / 2, goal: "< 0.5 s"},
		{what: "the same with `&`", ours: []string{"fold", a + "&" + b}, theirs: []string{"-f", a + "&" + b},
			answer: "node[500001-1000000]\n", limit: time.Second / 2, goal: "< 0.5 s"},
		{what: "the same with `^`", ours: []string{"fold", a + "^" + b}, theirs: []string{"-f", a + "^" + b},
			answer: "node[1-500000,1000001-1500000]\n", limit: time.Second / 2, goal: "< 0.5 s"},
	} {
		w.compare(t, tab)
	}
	firstConnection(t, tab)
}

// writeShuffled writes so many of total names, in random order, a name a line.
func writeShuffled(t *testing.T, file string, total, names int, name func(int) string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(total)[:names] {
		fmt.Fprintln(w, name(i))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func (w work) compare(t *testing.T, tab *table) {
	var ours, theirs []outcome
	var wall, peerWall, ratio []float64
	for range 3 {
		for range 3 { // for each of nodeset's: they are over in no time, in which anything can come between
			o := w.run(t, filepath.Join(bin, "multi-rsh"), append([]string{"hosts"}, w.ours...))
			ours, wall = append(ours, o), append(wall, o.wall.Seconds())
		}
		if nodeset, err := exec.LookPath("nodeset"); err == nil {
			p := w.run(t, nodeset, w.theirs)
			theirs, peerWall = append(theirs, p), append(peerWall, p.wall.Seconds())
			ratio = append(ratio, p.wall.Seconds()/median(wall[len(wall)-3:]))
		}
	}
	figures := func(runs []outcome, wall []float64) string {
		var rss int64
		var cpu []float64
		for _, o := range runs {
			rss, cpu = max(rss, o.rss), append(cpu, o.cpu.Seconds())
		}
		return fmt.Sprintf("%.3f s (%.3f to %.3f), CPU %.3f s, %.0f MB", median(wall), slices.Min(wall), slices.Max(wall), median(cpu), float64(rss)/1e6)
	}
	here, peer := figures(ours, wall), "not installed"
	ok := median(wall) < w.limit.Seconds()
	for _, o := range ours {
		ok = ok && (w.memory == 0 || o.rss <= w.memory)
	}
	if len(theirs) > 0 {
		peer = figures(theirs, peerWall)
		here += fmt.Sprintf(", %.0f × (%.0f to %.0f)", median(ratio), slices.Min(ratio), slices.Max(ratio))
		ok = ok && median(ratio) >= w.faster
	}
	tab.add(ok, w.what, w.goal, here, peer)
}

// run runs a program whose output goes to a file, so that its memory is its own: see writeShuffled's caller.
func (w work) run(t *testing.T, program string, args []string) outcome {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdout = out
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if w.stdin != "" {
		in, err := os.Open(w.stdin)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		cmd.Stdin = in
	}
	began := time.Now()
	err = cmd.Run()
	o := outcome{args: cmd.Args, stderr: stderr.String(), wall: time.Since(began)}
	if err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	o.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	o.rss = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	head := make([]byte, max(len(w.answer), 1))
	if n, err := out.ReadAt(head, 0); n == 0 || !strings.HasPrefix(string(head[:n]), w.answer) {
		t.Fatalf("%v: its output begins with %q, not with %q (%v)", o, head[:n], w.answer, err)
	}
	return o
}

// firstConnection measures from the start of a run to its first connection: all addresses are this machine's, and it is a
// listener of ours that waits for it. It never answers, and the run is killed.
func firstConnection(t *testing.T, tab *table) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp := l.(*net.TCPListener)
	accept := func(wait time.Duration) bool {
		tcp.SetDeadline(time.Now().Add(wait))
		c, err := tcp.Accept()
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	home := t.TempDir()
	port := fmt.Sprintf(":%d", tcp.Addr().(*net.TCPAddr).Port)
	firstOf(t, tab, "first connection, `-R ssh`", func(expr string) (first func() bool, kill func()) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "multi-rsh"), "-R", "ssh", "--config", "none", "-p", "64", "-w", expr+port, "true")
		cmd.Env = append(os.Environ(), "HOME="+home)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return func() bool { return accept(time.Minute) }, func() {
			cmd.Process.Kill()
			cmd.Wait()
			for accept(20 * time.Millisecond) { // up to 64 are still in the queue
			}
		}
	})

	fifo := filepath.Join(home, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(fifo, os.O_RDWR, 0) // for writing too, so that it never ends
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	firstOf(t, tab, "first command, `-R exec`", func(expr string) (first func() bool, kill func()) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "multi-rsh"), "-R", "exec", "--config", "none", "-p", "64", "-w", expr, "echo >"+fifo)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 1<<16)
		read := func(wait time.Duration) bool {
			r.SetReadDeadline(time.Now().Add(wait))
			_, err := r.Read(buffer)
			return err == nil
		}
		return func() bool { return read(time.Minute) }, func() {
			cmd.Process.Kill()
			cmd.Wait()
			for read(20 * time.Millisecond) { // commands that have started go on
			}
		}
	})
}

// firstOf compares the time from the start of a run to what it does first: with one host, and with a million in one expression.
func firstOf(t *testing.T, tab *table, what string, start func(expr string) (first func() bool, kill func())) {
	once := func(expr string) float64 {
		began := time.Now()
		first, kill := start(expr)
		ok := first()
		took := time.Since(began)
		kill()
		if !ok {
			t.Fatalf("%s: nothing has come in a minute", what)
		}
		return took.Seconds() * 1000
	}
	var one, many, more []float64
	for range 5 {
		a, b := once("127.1.0.0"), once("127.[1-16].[0-249].[0-249]")
		one, many, more = append(one, a), append(many, b), append(more, b-a)
	}
	tab.add(median(more) < 50, "start to "+what+", 1,000,000 hosts in one expression, fan-out 64", "< 50 ms more than with one host",
		fmt.Sprintf("%.0f ms, with one host %.0f ms: %.1f ms more (%.1f to %.1f)", median(many), median(one), median(more), slices.Min(more), slices.Max(more)), "–")
}
