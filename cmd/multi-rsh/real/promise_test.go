//go:build linux

package real

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"multirsh/transport/rig"
	"multirsh/transport/rsh/rshtest"
)

// hosts is the rig that the tests of this file share: two hosts of each daemon.
func hosts(t *testing.T) *rig.Rig { return rig.Shared(t, rig.Config{Hosts: 4, Daemon: rig.Both}) }

// nothingLeft checks the promise at both ends.
func nothingLeft(t *testing.T, r *rig.Rig) {
	t.Helper()
	if left := controlReserved(t); len(left) > 0 {
		t.Errorf("on our own reserved ports: %s, %+v", states(left), left)
	}
	// The hosts have closed first: what they have not finished yet goes without us.
	until(t, "no reserved port held on a host", func() bool { return len(hostReserved(t, r)) == 0 })
}

func TestMainJob(t *testing.T) {
	r := hosts(t)
	o := rsh(t, "-p", "160", "-w", addresses(r, 40), "echo out; echo err >&2; case $(hostname) in h3) exit 3;; esac")
	if o.code != 1 || lines(o.stdout, ": out") != 160 || lines(o.stderr, ": err") != 160 {
		t.Errorf("%d lines of output, %d of errors\n%v", lines(o.stdout, ": out"), lines(o.stderr, ": err"), o)
	}
	for _, want := range []string{"160 hosts: 120 ok, 40 exit\n", "exit 3 (40): 10.77.3.[1-40]\n"} {
		if !strings.Contains(o.stderr, want) {
			t.Errorf("no %q in the summary\n%v", want, o)
		}
	}
	nothingLeft(t, r)
}

// Names, both forms of the command line, a hosts file with settings, the environment.
func TestForms(t *testing.T) {
	r := hosts(t)
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("h[1-2] user=tester-bash\nh3 user=tester-dash # another\r\nh4-v6 user=tester-bash"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-R", "rsh", "-l", file, "echo", "it is", "$(id -un)"},
		{"--transport=rsh", "-utester-bash", "-w", "h[1-4]!h3", "-w", "h3-1", "echo it is $(id -un)"},
		{"-R", "rsh", "-u", "tester-bash", "echo it is $(id -un)", "h1", "h2,h4-v6", "h4"},
	} {
		o := run(t, "multi-rsh", args...)
		if o.code != 0 || strings.Count(o.stdout, ": it is tester-") != 4 || !strings.Contains(o.stderr, "4 hosts: 4 ok") {
			t.Errorf("%v\n%s", o, o.stdout)
		}
	}
	nothingLeft(t, r)
}

func TestInputReal(t *testing.T) {
	r := hosts(t)
	file := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(file, []byte(strings.Repeat("0123456789abcde\n", 1<<16)), 0o644); err != nil {
		t.Fatal(err)
	}
	o := rsh(t, "--input", file, "-w", "h[1-4]", "wc -c; echo end")
	if o.code != 0 || strings.Count(o.stdout, ": 1048576\n") != 4 || strings.Count(o.stdout, ": end\n") != 4 {
		t.Errorf("%v\n%s", o, o.stdout)
	}
	// Without --input the command reads nothing, and the loop around us keeps its own.
	loop := exec.Command("/bin/sh", "-c", `printf '%s\n' h1 h2 h3 | while read h; do "$0" -R rsh -u tester-bash -w "$h" 'cat; echo got'; done`, filepath.Join(bin, "multi-rsh"))
	out, err := loop.Output()
	if err != nil || string(out) != "h1: got\nh2: got\nh3: got\n" {
		t.Errorf("%v: %q", err, out)
	}
	nothingLeft(t, r)
}

func TestInterruptReal(t *testing.T) {
	r := hosts(t)
	term := onTerminal(t, "multi-rsh", rshArgs([]string{"-w", addresses(r, 16), "sleep 1001"})...)
	until(t, "64 sleeps", func() bool { return sleepers(t, r, "1001") == 64 })
	term.press(t, "\x03")
	until(t, "the status", func() bool { return strings.Contains(term.screen(), "Ctrl-C again within a second stops") })
	term.press(t, "\x03")
	if code := term.wait(); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
	if n := sleepers(t, r, "1001"); n != 0 {
		t.Errorf("%d commands still run", n)
	}
	if !strings.Contains(term.screen(), "64 hosts: 64 cancelled") {
		t.Errorf("no summary:\n%s", term.screen())
	}
	nothingLeft(t, r)
}

func TestTimeoutReal(t *testing.T) {
	r := hosts(t)
	o := rsh(t, "-t", "2", "-w", "h[1-4]", `echo begun; trap "" TERM; while :; do sleep 1002; done`)
	if o.code != 1 || strings.Count(o.stdout, ": begun\n") != 4 || !strings.Contains(o.stderr, "timeout run (4): h[1-4]") {
		t.Error(o)
	}
	if n := sleepers(t, r, "1002"); n != 0 {
		t.Errorf("%d commands still run", n)
	}
	nothingLeft(t, r)
}

func TestKillReal(t *testing.T) {
	r := hosts(t)
	for _, with := range []string{"--kill-on-disconnect", ""} {
		args := rshArgs([]string{"-w", addresses(r, 16), "sleep 3"})
		if with != "" {
			args = append([]string{with}, args...)
		}
		j := start(t, "multi-rsh", args...)
		until(t, "64 sleeps", func() bool { return sleepers(t, r, "3") == 64 })
		j.Process.Kill()
		j.wait(t)
		if left := controlReserved(t); len(left) > 0 {
			t.Errorf("on our own reserved ports: %s", states(left))
		}
		until(t, "the commands have ended", func() bool { return sleepers(t, r, "3") == 0 })
	}
	nothingLeft(t, r)
}

func TestTwoAtOnceReal(t *testing.T) {
	r := hosts(t)
	var jobs []*job
	for i := range 2 {
		jobs = append(jobs, start(t, "multi-rsh", rshArgs([]string{"-p", "120", "-w", fmt.Sprintf("10.77.[1-4].[%d-%d]", 1+50*i, 30+50*i), "sleep 1; echo ok"})...))
	}
	for _, j := range jobs {
		if o := j.wait(t); o.code != 0 || lines(o.stdout, ": ok") != 120 {
			t.Error(o)
		}
	}
	nothingLeft(t, r)
}

// A reader that goes away ends the run with one sentence and status 3, and the commands with it.
func TestOutputClosed(t *testing.T) {
	r := hosts(t)
	cmd := exec.Command(filepath.Join(bin, "multi-rsh"), rshArgs([]string{"-w", "h[1-4]", "while :; do echo on and on; sleep 0.01; done"})...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(out, make([]byte, 100))
	out.Close()
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(stderr.String(), "nobody reads the output any more") {
		t.Errorf("exit %d: %s", cmd.ProcessState.ExitCode(), stderr.String())
	}
	nothingLeft(t, r)
}

// as runs the program as another user of this machine.
func as(t *testing.T, uid uint32, program string, env []string, args ...string) (code int, text string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=/nonexistent", "MULTI_RSH_NO_JOURNAL=true"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// shared is a copy of the program that everybody may run.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "multi-rsh-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "multi-rsh")
	text, err := os.ReadFile(filepath.Join(bin, "multi-rsh"))
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, text, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	return program
}

const nobody = 65534

// Without the right to reserved ports nothing is run, and the error says how to get it.
func TestNoRight(t *testing.T) {
	hosts(t)
	code, text := as(t, nobody, shared(t), nil, "-R", "rsh", "-w", "h1", "true")
	if code != 3 || !strings.Contains(text, "CAP_NET_BIND_SERVICE") || !strings.Contains(text, "setcap") || strings.Contains(text, "1 host") {
		t.Errorf("exit %d: %s", code, text)
	}
}

// With file capabilities everybody may run it, and rshd trusts the name that we send: it must be that of getuid().
func TestLocalUser(t *testing.T) {
	hosts(t)
	program := shared(t)
	if out, err := exec.Command("setcap", "cap_net_bind_service=+ep", program).CombinedOutput(); err != nil {
		t.Skipf("setcap does not work here (apt-get install libcap2-bin, and a TMPDIR on a file system with capabilities): %v %s", err, out)
	}
	server := &rshtest.Server{Record: true}
	if _, err := server.Start("127.0.0.1:514"); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	code, text := as(t, nobody, program, []string{"USER=root", "LOGNAME=root"}, "-R", "rsh", "-w", "127.0.0.1", "echo ran")
	if code != 0 || text != "127.0.0.1: ran\n" {
		t.Errorf("exit %d: %s", code, text)
	}
	sessions, err := server.Wait(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if sessions[0].LocalUser != "nobody" || sessions[0].RemoteUser != "nobody" {
		t.Errorf("we said that we are %q and want to be %q", sessions[0].LocalUser, sessions[0].RemoteUser)
	}
}
