//go:build linux

package real

import (
	"strings"
	"testing"
)

// TestSSH is the program over SSH on four hosts with OpenSSH, of 16 addresses each where it says so.
func TestSSH(t *testing.T) {
	r := sshRig(t, 4)
	cfg := sshConfig(t, knownHosts(r, 22, 0))
	nothing := func(t *testing.T) {
		t.Helper()
		if left := toSSHD(t); len(left) > 0 {
			t.Errorf("our sockets to the hosts: %s", states(left))
		}
	}

	t.Run("job", func(t *testing.T) {
		var o outcome
		ends := closings(t, func() {
			o = run(t, "multi-rsh", overSSH(cfg, "-w", addresses(r, 16),
				"echo out; echo err >&2; case $(hostname) in "+r.Hosts[2].Name+") exit 3;; esac")...)
		})
		if o.code != 1 || lines(o.stdout, ": out") != 64 || lines(o.stderr, ": err") != 64 {
			t.Errorf("%d lines of output, %d of errors\n%v", lines(o.stdout, ": out"), lines(o.stderr, ": err"), o)
		}
		failed := strings.TrimSuffix(r.Hosts[2].Addr(1).String(), "1") + "[1-16]"
		for _, want := range []string{"64 hosts: 48 ok, 16 exit\n", "exit 3 (16): " + failed + "\n"} {
			if !strings.Contains(o.stderr, want) {
				t.Errorf("no %q in the summary\n%v", want, o)
			}
		}
		if n := serverFirst(ends); n != 64 || len(ends) != 64 {
			t.Errorf("the servers sent the first FIN of %d of %d connections, want 64 of 64", n, len(ends))
		}
		nothing(t)
	})

	t.Run("interrupt", func(t *testing.T) {
		term := onTerminal(t, "multi-rsh", overSSH(cfg, "-w", addresses(r, 16), "sleep 1003")...)
		until(t, "64 sleeps", func() bool { return sleepers(t, r, "1003") == 64 })
		term.press(t, "\x03")
		until(t, "the status", func() bool { return strings.Contains(term.screen(), "Ctrl-C again within a second stops") })
		term.press(t, "\x03")
		if code := term.wait(); code != 130 {
			t.Errorf("exit %d, want 130", code)
		}
		if !strings.Contains(term.screen(), "64 hosts: 64 cancelled") {
			t.Errorf("no summary:\n%s", term.screen())
		}
		nothing(t)
		until(t, "the commands have ended", func() bool { return sleepers(t, r, "1003") == 0 })
	})

	t.Run("kill", func(t *testing.T) {
		j := start(t, "multi-rsh", overSSH(cfg, "-w", addresses(r, 16), "sleep 3")...)
		until(t, "64 sleeps", func() bool { return sleepers(t, r, "3") == 64 })
		j.Process.Kill()
		j.wait(t)
		nothing(t)
		until(t, "the commands have ended", func() bool { return sleepers(t, r, "3") == 0 })
	})

	t.Run("jump", func(t *testing.T) {
		jump, behind := gate(t, r)
		var o outcome
		ends := closings(t, func() {
			o = run(t, "multi-rsh", overSSH(cfg, "-J", sshUser+"@"+jump.Name, "-w", addresses(behind, 22), "echo ${SSH_CLIENT%% *}")...)
		})
		if n := lines(o.stdout, ": "+jump.Addr(0).String()); o.code != 0 || n != 66 {
			t.Errorf("%d of 66 hosts see the jump host\n%v\n%s", n, o, tail(o.stdout))
		}
		if len(ends) != 1 || ends[0].Server.Addr() != jump.Addr(0) || serverFirst(ends) != 1 {
			t.Errorf("not one connection, to the jump host, which closes it: %v", ends)
		}
		nothing(t)
	})
}
