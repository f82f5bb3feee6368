//go:build linux

package real

import (
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"multirsh/transport/rig"
	"multirsh/transport/rsh/rshtest"
)

// checkup is a host as "multi-rsh doctor --json" tells of it.
type checkup struct {
	Host, Transport, Outcome, Failed, Cause string
	Mend                                    []struct{ At, Run, Text string }
	Steps                                   []struct {
		Step, State, Note string
		MS                *float64
	}
}

// steps are its steps, with a sign for those that are not ok: those in one line of text.
func (c checkup) steps() string {
	var words []string
	for _, s := range c.Steps {
		word := strings.ReplaceAll(s.Step, " ", "-")
		switch s.State {
		case "failed":
			word += "!"
		case "unknown":
			word += "?"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// doctor runs it, and checks that what it says is told by its exit status.
func doctor(t *testing.T, args ...string) map[string]checkup {
	t.Helper()
	o := run(t, "multi-rsh", append([]string{"doctor", "--config", "none", "--json"}, args...)...)
	var document struct{ Hosts []checkup }
	if err := json.Unmarshal([]byte(o.stdout), &document); err != nil {
		t.Fatalf("%v: %s\n%s", err, o, o.stdout)
	}
	found, code := map[string]checkup{}, 0
	for _, c := range document.Hosts {
		found[c.Host] = c
		if c.Failed != "" {
			code = 1
		}
	}
	if o.code != code {
		t.Errorf("exit status %d, want %d: %s", o.code, code, o)
	}
	return found
}

const (
	reached  = "resolve route reserved-port connect"
	rshSteps = reached + " port-accepted reverse-name authorisation stderr-channel command status close"
	sshSteps = "resolve route connect version key-exchange authorisation command status close"
)

// wants are the steps of a host, and what its cause and its mends say.
type wants struct {
	steps, failed string
	says          []string
}

func check(t *testing.T, found map[string]checkup, want map[string]wants) {
	t.Helper()
	got := map[string]wants{}
	for name, c := range found {
		w := wants{c.steps(), c.Failed, want[name].says}
		all := c.Cause + "\n"
		for _, m := range c.Mend {
			all += m.At + ": " + m.Run + "\n" + m.Text + "\n"
		}
		for _, text := range want[name].says {
			if !strings.Contains(all, text) {
				t.Errorf("%s: %q is not said:\n%s", name, text, all)
			}
		}
		if c.Failed == "" && all != "\n" {
			t.Errorf("%s is healthy, and: %s", name, all)
		}
		got[name] = w
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(wants{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if t.Failed() {
		text, _ := json.MarshalIndent(found, "", " ")
		t.Logf("%s", text)
	}
}

// Each way in which a real rshd turns somebody away is told at its step, with the mend.
func TestDoctorRsh(t *testing.T) {
	for _, daemon := range []rig.Daemon{rig.Redone, rig.Netkit} {
		t.Run(string(daemon), func(t *testing.T) {
			r := rig.New(t, rig.Config{Hosts: 3, Daemon: daemon})
			nameless := rig.New(t, rig.Config{Hosts: 1, Daemon: daemon, Nameless: true})
			gone := rig.New(t, rig.Config{Hosts: 1, Daemon: daemon})
			if err := gone.Hosts[0].SetLink(false); err != nil {
				t.Fatal(err)
			}
			if out, err := r.Hosts[2].Command(t.Context(), "touch", "/etc/nologin").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			noLogin := []string{"Authentication failure", "some rshds tell neither apart from .rhosts, nor /etc/nologin"}
			if daemon == rig.Netkit {
				noLogin = []string{"Logins currently disabled", "rm /etc/nologin /run/nologin"}
			}
			sshd := rig.New(t, rig.Config{SSH: rig.SSH{Server: rig.OpenSSH}})
			h1, h2, h3, without, down, closed := r.Hosts[0].Name, r.Hosts[1].Name, r.Hosts[2].Name, nameless.Hosts[0].Name, gone.Hosts[0].Name, sshd.Hosts[0].Name

			file := filepath.Join(t.TempDir(), "hosts")
			lines := []string{h1, h2 + " user=" + rig.NoRhosts, h3, without, down, closed, "nowhere.invalid", "no-route addr=192.0.2.1",
				"translated addr=127.0.0.1 port=" + translated(t, r.Hosts[0].Addr(1).String()+":514")}
			if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			found := doctor(t, "-R", "rsh", "-u", "tester-dash", "--connect-timeout", "5", "-l", file)
			check(t, found, map[string]wants{
				h1:                {rshSteps, "", nil},
				h2:                {reached + " port-accepted reverse-name authorisation!", "authorisation", []string{".rhosts", "ctl root >>~" + rig.NoRhosts + "/.rhosts"}},
				h3:                {reached + " port-accepted reverse-name authorisation!", "authorisation", noLogin},
				without:           {reached + " port-accepted? reverse-name!", "reverse name", []string{"name", "echo '10.76.0.1 ctl' >>/etc/hosts"}},
				down:              {"resolve route reserved-port connect!", "connect", []string{"ping"}},
				closed:            {"resolve route reserved-port connect!", "connect", []string{"nobody listens on port 514", "systemctl enable --now rsh.socket"}},
				"nowhere.invalid": {"resolve!", "resolve", []string{"getent hosts nowhere.invalid"}},
				"no-route":        {"resolve route!", "route", []string{"no way to 192.0.2.1", "ip route get 192.0.2.1"}},
				"translated":      {reached + " port-accepted? reverse-name!", "reverse name", []string{"(NAT) must leave the source port below 1024"}},
			})
			for _, s := range found[h1].Steps {
				if s.MS == nil != slices.Contains([]string{"port accepted", "reverse name"}, s.Step) {
					t.Errorf("%s: time %v", s.Step, s.MS)
				}
			}
			if left := timeWait(controlReserved(t)); len(left) > 0 {
				t.Errorf("left in TIME_WAIT: %v", left)
			}
		})
	}
}

// translated is a port of ours that leads to an address, as through a router that gives connections other ports of its own.
func translated(t *testing.T, to string) (port string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				s, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer s.Close()
				go io.Copy(s, c)
				io.Copy(c, s)
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// The same for sshd: a wrong key, an unknown one of the host's, nobody there, and packets that are dropped.
func TestDoctorSSH(t *testing.T) {
	r := sshRig(t, 4)
	for _, args := range [][]string{{"ip", "route", "add", "blackhole", "10.76.0.1/32"}} { // what it answers is dropped
		if out, err := r.Hosts[3].Command(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	h1, h2, h3, h4 := r.Hosts[0].Name, r.Hosts[1].Name, r.Hosts[2].Name, r.Hosts[3].Name
	known := knownHosts(r, 1, 0)
	known = strings.ReplaceAll(known, h3+",", "another,")
	known = strings.ReplaceAll(known, r.Hosts[2].Addr(1).String(), "192.0.2.9")
	cfg := sshConfig(t, known)
	file := filepath.Join(t.TempDir(), "hosts")
	lines := []string{h1, h2 + " user=" + rig.PasswordUser, h3, h4, "shut addr=" + r.Hosts[0].Addr(1).String() + " port=23", "nowhere.invalid", "no-route addr=192.0.2.1"}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, doctor(t, "-R", "ssh", "-F", cfg, "-u", sshUser, "--connect-timeout", "3", "-l", file), map[string]wants{
		h1:                {sshSteps, "", nil},
		h2:                {"resolve route connect version key-exchange authorisation!", "authorisation", []string{"ssh-copy-id " + rig.PasswordUser + "@" + h2}},
		h3:                {"resolve route connect version key-exchange!", "key exchange", []string{"SHA256:", "--host-keys ask " + h3}},
		h4:                {"resolve route connect!", "connect", []string{"--connect-timeout", "a firewall there or on the way drops packets: let TCP to port 22 in"}},
		"shut":            {"resolve route connect!", "connect", []string{"nobody listens on", "systemctl enable --now ssh"}},
		"nowhere.invalid": {"resolve!", "resolve", []string{"getent hosts nowhere.invalid"}},
		"no-route":        {"resolve route!", "route", []string{"ip route get 192.0.2.1"}},
	})
	if left := timeWait(toSSHD(t)); len(left) > 0 {
		t.Errorf("left in TIME_WAIT: %v", left)
	}
}

// Hosts on which the same was found are told of once, those that failed first.
func TestDoctorFolds(t *testing.T) {
	r := rig.New(t, rig.Config{Hosts: 6})
	o := run(t, "multi-rsh", "doctor", "--config", "none", "-R", "rsh", "-u", "tester-dash", r.Hosts[0].Name, r.Hosts[1].Name, r.Hosts[2].Name, r.Hosts[3].Name)
	if o.code != 0 || strings.Count(o.stdout, "by rsh: ok") != 1 || !strings.Contains(o.stdout, " (4) by rsh: ok\n") {
		t.Errorf("%s\n%s", o, o.stdout)
	}
	t.Log(o.stdout)
	o = run(t, "multi-rsh", "doctor", "--config", "none", "-R", "rsh", "-u", rig.NoRhosts, r.Hosts[4].Name, r.Hosts[5].Name)
	if o.code != 1 || strings.Count(o.stdout, "authorisation failed") != 1 || !strings.Contains(o.stdout, "on HOST: printf") {
		t.Errorf("%s\n%s", o, o.stdout)
	}
	t.Log(o.stdout)
}

// What servers do wrong on the way is told at its step.
func TestDoctorMisbehaving(t *testing.T) {
	rig.New(t, rig.Config{}) // so that it skips where there is no network of our own
	servers := []struct {
		behaviour string
		wants
	}{
		{"ok", wants{rshSteps, "", nil}},
		{"reset=handshake", wants{reached + " port-accepted? reverse-name!", "reverse name", []string{"closed the connection without an answer", "/etc/hosts", "journalctl -t in.rshd", "(NAT)"}}},
		{"close=handshake", wants{reached + " port-accepted? reverse-name!", "reverse name", []string{"closed the connection without an answer"}}},
		{"stall=accept", wants{reached + " port-accepted? reverse-name!", "reverse name", []string{"with a stderr channel and without one (tried just now)", "/etc/resolv.conf"}}},
		{"stall=handshake", wants{reached + " port-accepted? reverse-name!", "reverse name", []string{"its name server does not answer"}}},
		{"callback=none", wants{reached + " port-accepted reverse-name authorisation stderr-channel!", "stderr channel", []string{"to ports 512-1023 of this machine", "--merge does without"}}},
		{"callback=unreserved", wants{reached + " port-accepted reverse-name authorisation stderr-channel!", "stderr channel", []string{"--merge"}}},
		{"denied=redone", wants{reached + " port-accepted reverse-name authorisation!", "authorisation", []string{"Authentication failure", ".rhosts"}}},
		{"denied=netkit", wants{reached + " port-accepted reverse-name authorisation!", "authorisation", []string{"Permission denied", ".rhosts"}}},
		{"garbage", wants{reached + " port-accepted? reverse-name? authorisation!", "authorisation", []string{"ss -ltnp 'sport = :514'"}}},
		{"close=leader", wants{rshUpTo("stderr-channel") + " command!", "command", []string{"login shell"}}},
		{"stall=leader", wants{rshUpTo("stderr-channel") + " command!", "command", []string{"login shell", "--plain"}}},
		{"close=trailer", wants{rshUpTo("command") + " status!", "status", []string{"journalctl -n 50"}}},
		{"error=Account expired.", wants{reached + " port-accepted reverse-name authorisation!", "authorisation", []string{"it is the user's account there", "chage -l root"}}},
		{"late=30s", wants{reached + " port-accepted reverse-name authorisation stderr-channel!", "stderr channel", []string{"lets us in when it is asked for no stderr channel", "to ports 512-1023 of this machine"}}},
		{"background", wants{rshUpTo("status") + " close!", "close", []string{"still holds the connection", ">/dev/null"}}},
		{"neverclose", wants{rshUpTo("status") + " close!", "close", []string{"still holds the connection"}}},
	}
	want := map[string]wants{}
	args := []string{"-R", "rsh", "--connect-timeout", "1"}
	for i, s := range servers {
		server := &rshtest.Server{Behaviour: rshtest.MustParseBehaviour(s.behaviour), SharedPorts: true}
		addr := netip.AddrFrom4([4]byte{127, 9, 0, byte(i + 1)})
		if _, err := server.Start(netip.AddrPortFrom(addr, 514).String()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		want[addr.String()] = s.wants
		args = append(args, addr.String())
	}
	// One that is slow the first time, as with a name server that then knows the answer, is no case for a firewall's owner.
	var asked atomic.Int32
	slow := &rshtest.Server{SharedPorts: true, Behave: func(netip.AddrPort) rshtest.Behaviour {
		if asked.Add(1) == 1 {
			return rshtest.MustParseBehaviour("stall=handshake")
		}
		return rshtest.MustParseBehaviour("ok")
	}}
	if _, err := slow.Start("127.9.0.100:514"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slow.Close() })
	want["127.9.0.100"] = wants{reached + " port-accepted? reverse-name!", "reverse name", []string{"answers when it is asked again", "--connect-timeout gives it more time"}}
	found := doctor(t, append(args, "127.9.0.100")...)
	check(t, found, want)
	for _, c := range found {
		for _, s := range c.Steps {
			if s.State == "ok" && s.MS == nil && c.Failed == "stderr channel" && strings.Contains(c.Cause, "tried just now") && s.Note != "as asked without a stderr channel" {
				t.Errorf("%s: %s: %q", c.Host, s.Step, s.Note)
			}
		}
	}
	silent := doctor(t, "-R", "rsh", "--merge", "--connect-timeout", "1", "127.9.0.5")
	check(t, silent, map[string]wants{"127.9.0.5": {reached + " port-accepted? reverse-name!", "reverse name", []string{"its name server does not answer"}}})
	if text := silent["127.9.0.5"].Cause; strings.Contains(text, "stderr") {
		t.Errorf("there is no stderr channel, and: %s", text)
	}
	// Without the wrapper the protocol does not tell when the command begins, and how it ends.
	check(t, doctor(t, "-R", "rsh", "--plain", "127.9.0.1"), map[string]wants{"127.9.0.1": {rshUpTo("stderr-channel") + " command? status? close", "", nil}})
}

// rshUpTo is the steps of a good host up to one.
func rshUpTo(step string) string {
	before, _, _ := strings.Cut(rshSteps+" ", " "+step+" ")
	return before + " " + step
}
