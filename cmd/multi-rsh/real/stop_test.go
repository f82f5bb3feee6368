package real

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"multirsh/transport/rig"
)

// One run over rsh and SSH is interrupted: each session's command ends, and each host is in the summary.
func TestInterruptBoth(t *testing.T) {
	r := rig.New(t, rig.Config{Hosts: 4, Daemon: rig.Both, SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 1000"}}})
	o := interruptBoth(t, r, 8, 4, "1009")
	if o.code != 130 || o.left != 0 || !o.summary || !o.stopped {
		t.Errorf("%+v", o)
	}
	nothingLeft(t, r)
}

// With --kill-on-disconnect no command outlives our death, or its connection's, over rsh and SSH.
func TestKillOnDisconnectBoth(t *testing.T) {
	r := rig.New(t, rig.Config{Hosts: 4, Daemon: rig.Both, SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 1000"}}})
	t.Setenv("SSH_AUTH_SOCK", "")
	cfg := sshConfig(t, knownHosts(r, 8, 0))
	first, last := r.Hosts[0].N, r.Hosts[len(r.Hosts)-1].N
	begin := func(sleep string) *job {
		j := start(t, "multi-rsh", "-F", cfg, "-u", sshUser, "--kill-on-disconnect", "-w", fmt.Sprintf("rsh:10.77.[%d-%d].[1-4]", first, last),
			"-w", fmt.Sprintf("ssh:10.77.[%d-%d].[5-8]", first, last), "sleep "+sleep)
		until(t, "32 sleeps", func() bool { return sleepers(t, r, sleep) == 32 })
		return j
	}
	j := begin("1011")
	j.Process.Kill()
	j.wait(t)
	until(t, "the commands of a process that was killed have ended", func() bool { return sleepers(t, r, "1011") == 0 })

	j = begin("1012")
	for _, port := range []string{":514", ":22"} {
		if out, err := exec.Command("ss", "-K", "-t", "state", "established", "dport", "=", port).CombinedOutput(); err != nil {
			j.Process.Kill()
			t.Skipf("connections cannot be reset here (%v: %s): install iproute2; the kernel needs CONFIG_INET_DIAG_DESTROY", err, out)
		}
	}
	o := j.wait(t)
	until(t, "the commands of connections that were reset have ended", func() bool { return sleepers(t, r, "1012") == 0 })
	if o.code != 1 || !strings.Contains(o.stderr, "32 hosts: 32 unknown") {
		t.Error(o)
	}
	nothingLeft(t, r)
}

// interrupted is how a run ended that was interrupted.
type interrupted struct {
	code             int
	took             time.Duration
	left             int // commands that still run
	summary, stopped bool
	screen           string
}

// interruptBoth runs sleep on so many addresses of each host over rsh and over SSH, and presses Ctrl-C twice when all of them run.
func interruptBoth(t *testing.T, r *rig.Rig, rsh, ssh int, sleep string) interrupted {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	first, last := r.Hosts[0].N, r.Hosts[len(r.Hosts)-1].N
	n := len(r.Hosts) * (rsh + ssh)
	cfg := sshConfig(t, knownHosts(r, rsh+ssh, 0))
	term := onTerminal(t, "multi-rsh", "-F", cfg, "-u", sshUser, "-p", fmt.Sprint(n), "--connect-timeout", "60", "--progress", "none",
		"-w", fmt.Sprintf("rsh:10.77.[%d-%d].[1-%d]", first, last, rsh), "-w", fmt.Sprintf("ssh:10.77.[%d-%d].[%d-%d]", first, last, rsh+1, rsh+ssh), "sleep "+sleep)
	until(t, fmt.Sprint(n, " sleeps"), func() bool { return sleepers(t, r, sleep) == n })
	term.press(t, "\x03")
	until(t, "the status", func() bool { return strings.Contains(term.screen(), "Ctrl-C again within a second stops") })
	began := time.Now()
	term.press(t, "\x03")
	o := interrupted{code: term.wait(), took: time.Since(began)}
	o.left, o.screen = sleepers(t, r, sleep), tail(term.screen())
	o.summary = strings.Contains(o.screen, fmt.Sprintf("%d hosts: %[1]d cancelled", n))
	o.stopped = strings.Contains(o.screen, fmt.Sprintf("stopped %d\r\n", n))
	return o
}

// stopNumbers are the rows about runs that are stopped.
func stopNumbers(t *testing.T, tab *table) {
	r := rig.New(t, rig.Config{Hosts: 32, Daemon: rig.Both, SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 1000"}}})
	o := interruptBoth(t, r, 20, 10, "1000")
	tab.add(o.took <= 5*time.Second && o.left == 0 && o.summary && o.code == 130, "Ctrl-C twice amid `sleep 1000` on 640 real rsh sessions and 320 real SSH sessions",
		"prompt ≤ 5 s, 0 `sleep` left, every host in the summary",
		fmt.Sprintf("%.1f s, %d left, every host in the summary: %v, all confirmed: %v, exit %d", o.took.Seconds(), o.left, o.summary, o.stopped, o.code), "–")
	if !o.summary {
		fmt.Println(o.screen)
	}
	settle(t, tab, r)

	f := run(t, "multi-rsh", "-R", "exec", "-p", "64", "--max-fail", "5", "--json", "-w", "n[1-2000]", "exit 1")
	begun := strings.Count(f.stdout, `{"type":"start"`)
	tab.add(f.code == 1 && begun >= 5 && begun <= 5+64, "`--max-fail 5` at fan-out 64, every one of 2,000 hosts failing: hosts started", "≤ 69", fmt.Sprint(begun), "–")
}
