//go:build linux

package real

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"multirsh/transport/rig"
)

// sshUser has dash for a login shell, and so no start-up file that costs time.
const sshUser = "tester-dash"

// sshRig is a rig of hosts with sshd, which drops no connection however many log in at once.
func sshRig(t testing.TB, hosts int) *rig.Rig {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	return rig.New(t, rig.Config{Hosts: hosts, SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 1000"}}})
}

// sshConfig writes an ssh_config(5) that multi-rsh and its peers are given with -F, and the known hosts that it names. These are
// the addresses that a run uses and no more: a peer's clients read the whole file again for each host.
func sshConfig(t testing.TB, known string, lines ...string) (file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "ssh_config")
	lines = append(lines, "IdentityFile "+rig.ClientKeyFile, "IdentitiesOnly yes", "UserKnownHostsFile "+filepath.Join(dir, "known_hosts"),
		"GlobalKnownHostsFile /dev/null", "StrictHostKeyChecking yes", "BatchMode yes")
	for name, text := range map[string]string{"ssh_config": strings.Join(lines, "\n") + "\n", "known_hosts": known} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// knownHosts are the lines for addresses 1 to n of each host, and for its name; off by one, each with another host's key.
func knownHosts(r *rig.Rig, n, off int) string {
	var b strings.Builder
	for i, h := range r.Hosts {
		b.WriteString(h.Name)
		for j := 1; j <= n; j++ {
			fmt.Fprintf(&b, ",%v", h.Addr(j))
		}
		fmt.Fprintf(&b, " %s", ssh.MarshalAuthorizedKey(r.Hosts[(i+off)%len(r.Hosts)].HostKeys[0]))
	}
	return b.String()
}

// overSSH are the arguments that run multi-rsh over SSH, as ssh_config file cfg has it.
func overSSH(cfg string, args ...string) []string {
	return append([]string{"-R", "ssh", "-F", cfg, "-u", sshUser}, args...)
}

// toSSHD are the sockets of the control side that lead to an SSH server of the rig, in any state.
func toSSHD(t testing.TB) []rig.Socket {
	t.Helper()
	sockets, err := rig.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	var found []rig.Socket
	for _, s := range sockets {
		if s.Remote.Port() == 22 && !s.Remote.Addr().IsLoopback() {
			found = append(found, s)
		}
	}
	return found
}

// timeWait keeps those in TIME_WAIT.
func timeWait(sockets []rig.Socket) []rig.Socket {
	var found []rig.Socket
	for _, s := range sockets {
		if s.State == "TIME_WAIT" {
			found = append(found, s)
		}
	}
	return found
}

// closings are how connections ended while a run went on, to port 22 and from the control side.
func closings(t testing.TB, run func()) []rig.Closing {
	t.Helper()
	watch, err := rig.WatchClosings()
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	run()
	all, err := watch.Closings()
	if err != nil {
		t.Fatal(err)
	}
	var ours []rig.Closing
	for _, c := range all {
		if c.Client.Addr() == rig.ControlAddr && c.Server.Port() == 22 {
			ours = append(ours, c)
		}
	}
	return ours
}

// serverFirst counts the connections whose server sent the first FIN.
func serverFirst(all []rig.Closing) int {
	n := 0
	for _, c := range all {
		if c.By == "server" && c.With == "FIN" && !c.Both {
			n++
		}
	}
	return n
}

// gate makes the first host one by which the others can be reached, and returns it and those.
func gate(t testing.TB, r *rig.Rig) (jump *rig.Host, behind *rig.Rig) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip(8) here (apt-get install iproute2)")
	}
	jump, behind = r.Hosts[0], &rig.Rig{Hosts: r.Hosts[1:]}
	for _, h := range behind.Hosts {
		to := netip.PrefixFrom(h.Addr(1), 24).Masked()
		if out, err := jump.Command(t.Context(), "ip", "route", "add", to.String(), "via", h.Addr(0).String()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return jump, behind
}
