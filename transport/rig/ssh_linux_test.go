package rig

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// login connects to a host with x/crypto/ssh. The host key must be one of the host's.
func login(h *Host, addr netip.Addr, user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(addr, h.ssh.Port).String(), patience)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	c, channels, requests, err := ssh.NewClientConn(conn, h.Name, &ssh.ClientConfig{
		User: user,
		Auth: auth,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			for _, k := range h.HostKeys {
				if string(k.Marshal()) == string(key.Marshal()) {
					return nil
				}
			}
			return errors.New("not a key of the host: " + string(ssh.MarshalAuthorizedKey(key)))
		},
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// output logs in, runs a command and returns what it writes.
func output(h *Host, addr netip.Addr, user, command string, auth ...ssh.AuthMethod) (string, error) {
	client, err := login(h, addr, user, auth...)
	if err != nil {
		return "", err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.Output(command)
	return string(out), err
}

func key() ssh.AuthMethod { return ssh.PublicKeys(ClientKey()) }

// sshClient is a command line of OpenSSH's client that sees nothing of the machine's settings.
func sshClient(t *testing.T, knownHosts string, arg ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("ssh is not installed here (apt-get install openssh-client)")
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(knownHosts), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-F", "none", "-i", ClientKeyFile}
	for _, o := range []string{"BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=none",
		"UserKnownHostsFile=" + file, "KexAlgorithms=curve25519-sha256"} {
		args = append(args, "-o", o)
	}
	cmd := exec.CommandContext(t.Context(), path, append(args, arg...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return cmd
}

// eachServer runs a test against one host with each SSH server, and in.rshd beside it.
func eachServer(t *testing.T, test func(t *testing.T, h *Host)) {
	for _, server := range []Daemon{OpenSSH, Dropbear} {
		t.Run(string(server), func(t *testing.T) {
			h := New(t, Config{Daemon: Redone, SSH: SSH{Server: server}}).Hosts[0]
			test(t, h)
			if t.Failed() {
				log, _ := h.SSHLog()
				t.Logf("the server's log:\n%s", log)
			}
		})
	}
}

func TestSSHUsers(t *testing.T) {
	eachServer(t, func(t *testing.T, h *Host) {
		users := []string{"root"}
		for _, s := range Shells() {
			if s.Path != "" {
				users = append(users, s.User)
			}
		}
		for _, user := range users {
			for _, addr := range []netip.Addr{h.Addr(0), h.Addr(7), h.Addr6(7)} {
				if addr.Is6() && !HasIPv6() {
					continue
				}
				got, err := output(h, addr, user, "whoami; hostname; pwd", key())
				if want := user + "\n" + h.Name + "\n/run/rig/home/" + user + "\n"; err != nil || got != want {
					t.Errorf("%s on %v: %v\n%s", user, addr, err, cmp.Diff(want, got))
				}
			}
		}
		for _, k := range h.HostKeys {
			algorithm := strings.Replace(k.Type(), "ssh-rsa", "rsa-sha2-256", 1)
			client, err := ssh.Dial("tcp", netip.AddrPortFrom(h.Addr(2), 22).String(), &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{key()},
				HostKeyAlgorithms: []string{algorithm}, HostKeyCallback: ssh.FixedHostKey(k), Timeout: patience})
			if err != nil {
				t.Errorf("with the host key %s: %v", k.Type(), err)
				continue
			}
			client.Close()
		}
		for _, user := range []string{NoRhosts, PasswordUser} {
			if _, err := output(h, h.Addr(1), user, "true", key()); err == nil {
				t.Errorf("%s lets the client key in", user)
			}
		}
		if got, err := output(h, h.Addr(1), PasswordUser, "whoami", ssh.Password(Password)); err != nil || got != PasswordUser+"\n" {
			t.Errorf("with the password: %q, %v", got, err)
		}
		if _, err := output(h, h.Addr(1), PasswordUser, "true", ssh.Password("guess")); err == nil {
			t.Error("any password will do")
		}
		if got, err := rcmd(h.Addr(1), "tester-bash", "echo out", true); err != nil || got.Stdout != "out\n" {
			t.Errorf("in.rshd beside it: %+v, %v", got, err)
		}
		if got, _ := rcmd(h.Addr(1), PasswordUser, "echo out", true); got.Stdout == "out\n" {
			t.Errorf("in.rshd lets %s in", PasswordUser)
		}
	})
}

// OpenSSH's own client knows every host by its names and addresses, strictly, and by a certificate as well.
func TestSSHClient(t *testing.T) {
	r := New(t, Config{Hosts: 2, SSH: SSH{Server: OpenSSH, Port: 2222, HostKeys: []string{"rsa", "ecdsa", "ed25519"}, Certified: true}})
	h := r.Hosts[1]
	targets := []string{h.Name, h.NameOf(3), h.Addr(254).String(), h.Name + "-dual"}
	if HasIPv6() {
		targets = append(targets, h.Name+"-v6", h.Addr6(9).String())
	}
	authority := fmt.Sprintf("@cert-authority * %s", ssh.MarshalAuthorizedKey(CA().PublicKey()))
	for _, algorithm := range []string{"rsa-sha2-512", "ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"} {
		known := r.KnownHosts()
		if strings.Contains(algorithm, "cert") {
			known = authority
			targets = []string{h.Name, h.NameOf(3), h.Addr(3).String()}
		}
		for _, target := range targets {
			cmd := sshClient(t, known, "-p", "2222", "-o", "HostKeyAlgorithms="+algorithm, "-l", "tester-bash", target, "hostname; exit 7")
			out, err := cmd.CombinedOutput()
			if err == nil || err.Error() != "exit status 7" || string(out) != h.Name+"\n" {
				t.Errorf("%s %s: %v, %s", target, algorithm, err, out)
			}
		}
	}
	out, err := sshClient(t, r.Hosts[0].KnownHosts(), "-p", "2222", "-l", "tester-bash", h.Name, "hostname").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Host key verification failed") {
		t.Errorf("a host of which nothing is known: %v, %s", err, out)
	}
	out, err = sshClient(t, r.KnownHosts(), "-tt", "-p", "2222", "-l", "tester-bash", h.Name, "tty").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "/dev/pts/") {
		t.Errorf("with a terminal: %v, %s", err, out)
	}
	// sshd notes who logs in at a terminal: on the host, not on the machine.
	if out, err := h.Command(t.Context(), "test", "-s", "/var/log/lastlog").CombinedOutput(); err != nil {
		t.Errorf("no login is noted: %v, %s", err, out)
	}
}

func TestSSHUserCertificate(t *testing.T) {
	h := New(t, Config{SSH: SSH{Server: OpenSSH}}).Hosts[0]
	private := signer(wellKnown("somebody"))
	cert := &ssh.Certificate{Key: private.PublicKey(), CertType: ssh.UserCert,
		ValidPrincipals: []string{NoRhosts}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, CA()); err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(cert, private)
	if err != nil {
		t.Fatal(err)
	}
	for user, wanted := range map[string]bool{NoRhosts: true, "tester-bash": false} {
		if _, err := output(h, h.Addr(1), user, "true", ssh.PublicKeys(certified)); (err == nil) != wanted {
			t.Errorf("%s with a certificate for %s: %v", user, NoRhosts, err)
		}
	}
}

// What a Config says wins over the rig's own settings, and over sshd's.
func TestSSHLines(t *testing.T) {
	other := signer(wellKnown("somebody"))
	h := New(t, Config{SSH: SSH{Server: OpenSSH, Authorized: `command="echo restricted" ` + authorized(other), Lines: []string{
		"MaxStartups 1000", "UsePAM yes", "PasswordAuthentication no", "LogLevel ERROR", "PermitRootLogin no",
		"match user tester-bash", "ForceCommand echo forced"}}}).Hosts[0]
	if out, err := output(h, h.Addr(1), "tester-bash", "echo asked", key()); out != "forced\n" {
		t.Errorf("ForceCommand below Match: %q, %v", out, err)
	}
	if out, err := output(h, h.Addr(1), "tester-dash", "echo asked", ssh.PublicKeys(other)); out != "restricted\n" {
		t.Errorf("with another key: %q, %v", out, err)
	}
	if _, err := output(h, h.Addr(1), "root", "true", key()); err == nil {
		t.Error("root is let in")
	}
	asked := func(_, _ string, questions []string, echo []bool) ([]string, error) {
		answers := make([]string, len(questions))
		for i := range questions {
			answers[i] = Password
		}
		return answers, nil
	}
	if out, err := output(h, h.Addr(1), PasswordUser, "whoami", ssh.KeyboardInteractive(asked)); out != PasswordUser+"\n" {
		t.Errorf("PAM's question: %q, %v", out, err)
	}
	// By itself sshd would refuse the hundredth at the latest.
	for range 120 {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(h.Addr(1), 22).String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(conn, make([]byte, len("SSH-2.0-"))); err != nil {
			t.Fatalf("MaxStartups: %v", err)
		}
	}
	if log, err := h.SSHLog(); err != nil || strings.Contains(log, "Accepted") {
		t.Errorf("the log is not as short as it was to be: %v\n%s", err, log)
	}
}

// The helpers of newer versions are named where the package has them.
func TestSSHDConfig(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the rig gives its files an owner, which needs root: run the tests as root")
	}
	dir := t.TempDir()
	if err := writeFiles([]file{{path: dir + "/usr/lib/openssh/sshd-session", mode: 0o755}}); err != nil {
		t.Fatal(err)
	}
	s := SSH{Server: OpenSSH, HostKeys: []string{"rsa"}, Certified: true, Lines: []string{"PidFile /x", "Match\tall", "X11Forwarding no"}}
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	want := "PidFile /x\nPort 22\nLogLevel VERBOSE\nPidFile none\nTrustedUserCAKeys /run/rig/ssh/ca.pub\n" +
		"ModuliFile " + dir + "/etc/ssh/moduli\n" +
		"SshdSessionPath " + dir + "/usr/lib/openssh/sshd-session\nHostKey /run/rig/ssh/host_rsa\n" +
		"HostCertificate /run/rig/ssh/host_rsa-cert.pub\nMatch\tall\nX11Forwarding no\n"
	if got := s.sshdConfig(dir); got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func TestSSHBadConfig(t *testing.T) {
	New(t, Config{SSH: SSH{Server: OpenSSH}}) // or a skip
	for want, s := range map[string]SSH{
		`no SSH server "telnetd"`:            {Server: "telnetd"},
		"no SSH.Server":                      {Port: 22},
		`type "dsa"`:                         {Server: OpenSSH, HostKeys: []string{"dsa"}},
		"has no sshd_config":                 {Server: Dropbear, Lines: []string{"MaxStartups 1"}},
		"Bad configuration option: Nonsense": {Server: OpenSSH, Lines: []string{"Nonsense yes"}},
	} {
		if r, err := Start(Config{SSH: s}); err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, %v; want an error with %q", s, r, err, want)
		}
	}
}

// sshd's connections end as their packets tell: by the client that just closes, and by sshd when it will not go on.
func TestSSHClosings(t *testing.T) {
	h := New(t, Config{SSH: SSH{Server: OpenSSH}}).Hosts[0]
	w, err := h.WatchClosings()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	client, err := login(h, h.Addr(1), "root", key())
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(h.Addr(2), 22).String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "who are you?\r\n")
	io.Copy(io.Discard, conn)
	want := []Closing{
		{Client: netip.MustParseAddrPort(client.LocalAddr().String()), Server: netip.AddrPortFrom(h.Addr(1), 22), By: "client", With: "FIN"},
		{Client: netip.MustParseAddrPort(conn.LocalAddr().String()), Server: netip.AddrPortFrom(h.Addr(2), 22), By: "server", With: "FIN"},
	}
	if got := closings(t, w); !slices.Equal(got, want) {
		t.Error(cmp.Diff(want, got, compareAddrPort))
	}
}

// A session is to be seen on the host while it is there, and in the log.
func TestSSHProcessesAndSockets(t *testing.T) {
	h := New(t, Config{SSH: SSH{Server: OpenSSH}}).Hosts[0]
	client, err := login(h, h.Addr(3), "tester-bash", key())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	wait(t, "sleep runs", func() bool { return count(t, h, "sleep") == 1 })
	sockets, err := h.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	client4 := netip.MustParseAddrPort(client.LocalAddr().String())
	if want := (Socket{netip.AddrPortFrom(h.Addr(3), 22), client4, "ESTABLISHED"}); !slices.Contains(sockets, want) {
		t.Errorf("no %v among the host's %v", want, sockets)
	}
	if n, err := h.Kill("sleep", syscall.SIGTERM); n != 1 || err != nil {
		t.Errorf("killed %d, %v", n, err)
	}
	if err := session.Wait(); err == nil || !strings.Contains(err.Error(), "signal TERM") {
		t.Errorf("the killed command ended with %v", err)
	}
	client.Close()
	wait(t, "sshd alone is left", func() bool { return count(t, h, "") == 1 && count(t, h, "sshd") == 1 })
	log, err := h.SSHLog()
	for _, want := range []string{"Accepted publickey for tester-bash from 10.76.0.1", "Close session: user tester-bash"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log: %v\n%s", want, err, log)
		}
	}
}
