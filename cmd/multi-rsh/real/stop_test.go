//go:build linux

package real

import (
	"fmt"
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
