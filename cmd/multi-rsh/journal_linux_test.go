package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"multirsh/runner/journal"
)

// recording is the environment of a program whose runs are kept in a directory.
func recording(dir string) []string {
	return []string{"MULTI_RSH_NO_JOURNAL=", "XDG_STATE_HOME=" + dir}
}

// The disk with the journal becomes full during the run: no more hosts are started, those that run end well, and resume does the rest.
func TestJournalDiskFull(t *testing.T) {
	t.Parallel()
	const hosts = 400
	ran := filepath.Join(t.TempDir(), "ran")
	command := fmt.Sprintf(`test %%h = n1 && head -c 400000 /dev/zero 2>/dev/null >@disk/fill; echo %%h >>%s`, ran)
	_, stderr, status, left := onSmallDiskWith(t, recording("@disk"), "-R", "exec", "-p4", "-q", "-w", fmt.Sprintf("n[1-%d]", hosts), command)
	want := regexp.MustCompile(`^multi-rsh: the journal @disk/multi-rsh/runs/.*/journal cannot be written: no space left on device, so no further host was started and those running were waited for; ([0-9]+) of 400 hosts were ok\n$`)
	if status != exitFailure || !want.MatchString(stderr) {
		t.Fatalf("exit status %d, want %d; standard error:\n%s\nwant:\n%s", status, exitFailure, stderr, want)
	}
	run, damaged, err := journal.Load(journal.Dir(left, ""), journal.Last)
	if err != nil || len(damaged) > 0 {
		t.Fatalf("%v, %v", err, damaged)
	}
	counts := run.Counts()
	if ok := fmt.Sprint(counts.Outcomes["ok"]); counts.Open != 0 || ok != want.FindStringSubmatch(stderr)[1] || counts.NotRun == 0 {
		t.Errorf("in the journal: %+v; standard error:\n%s", counts, stderr)
	}
	resume := exec.Command(program(t), "resume", "-q", "last")
	resume.Env = append(os.Environ(), recording(left)...)
	// Its first host filled the disk, and has a result.
	if out, err := resume.CombinedOutput(); err != nil {
		t.Errorf("resume: %v:\n%s", err, out)
	}
	text, err := os.ReadFile(ran)
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for host := range strings.FieldsSeq(string(text)) {
		times[host]++
	}
	for n := range hosts {
		if host := fmt.Sprintf("n%d", n+1); times[host] != 1 {
			t.Errorf("%s has run %d times", host, times[host])
		}
	}
}

// While a run goes on, be it new or resumed, it is not resumed and not repeated.
func TestTwoResumes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	gate, err := os.OpenFile(fifo, os.O_RDWR, 0) // so that nobody waits to open it
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close()
	name := program(t)
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), recording(dir)...)
		return cmd
	}
	begin := func(host string, args ...string) (*exec.Cmd, *bufio.Reader, *strings.Builder) {
		t.Helper()
		cmd := command(args...)
		stderr := new(strings.Builder)
		cmd.Stderr = stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); line != host+": begun\n" {
			t.Fatalf("%q, %v; standard error:\n%s", line, err, stderr)
		}
		return cmd, lines, stderr
	}
	refused := func(busy *exec.Cmd) {
		t.Helper()
		want := fmt.Sprintf("is still going on, in process %d\n", busy.Process.Pid)
		for _, verb := range []string{"resume", "retry"} {
			cmd := command(verb, "last")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if status := ended(t, cmd.Run()); status != exitUsage || !strings.HasSuffix(stderr.String(), want) {
				t.Errorf("%s: exit status %d, want %d; standard error, which should end with %q:\n%s", verb, status, exitUsage, want, &stderr)
			}
		}
		if out, err := command("runs").Output(); err != nil || !strings.Contains(string(out), fmt.Sprintf("  running (%d)  ", busy.Process.Pid)) {
			t.Errorf("%v:\n%s", err, out)
		}
	}
	first, lines, _ := begin("n1", "-R", "exec", "-p1", "-w", "n[1-3]", "echo begun; read line <"+fifo)
	refused(first)
	first.Process.Kill()
	io.Copy(io.Discard, lines)
	first.Wait()
	second, lines, stderr := begin("n2", "resume", "last")
	refused(second)
	if _, err := io.WriteString(gate, "\n\n\n"); err != nil { // one for n1, whose command was left behind
		t.Fatal(err)
	}
	io.Copy(io.Discard, lines)
	if status := ended(t, second.Wait()); status != exitHosts || !strings.Contains(stderr.String(), "(1): n1; --again-unknown") || !strings.HasSuffix(stderr.String(), "\n2 hosts: 2 ok\n") {
		t.Errorf("exit status %d, want %d; standard error:\n%s", status, exitHosts, stderr)
	}
	if out, err := command("runs").Output(); err != nil || !regexp.MustCompile(`open   3      2   0       1 `).Match(out) {
		t.Errorf("%v:\n%s", err, out)
	}
}
