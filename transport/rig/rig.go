// Package rig gives tests and benchmarks real hosts: the in.rshd of both Debian packages, OpenSSH's sshd and Dropbear, each host
// in a network namespace of its own, on one machine, with nothing of the machine changed.
//
// A process that wants a rig calls [Enter] (or [Main], from TestMain) before anything else. As root on Linux that runs the
// same program again, in namespaces of its own, and what the test does from then on it does there:
//
//	the machine      program as it was started: relays signals in and the exit status out
//	└─ keeper        pid 1 of a new pid namespace, still on the machine's network; when it ends, all below it ends
//	   └─ control    the test itself: own network and mount namespace, br0 is 10.76.0.1 and fd76::1
//	      ├─ h1      pid 1 of its own pid, network and mount namespace: a small inetd, in.rshd on port 514
//	      │  └─ in.rshd ─ the user's shell ─ the command
//	      └─ h2 …    eth0 of hN is 10.76.1.N and fd76::1:N, on br0; also its own: all of 10.77.N.0/24 and fd77:N::/64
//
// Namespaces have no names and no files: they end with their processes. The kernel kills the keeper when the program dies,
// however it dies, and with the keeper everything in its pid namespace. So there is never anything to clean up.
//
// On the control side there is no other network than the rig's, names come from /etc/hosts alone, and /run is empty. Programs
// that the test starts are in there with it; so a benchmark runs other people's programs against the same hosts.
//
// Files that differ from the machine's (passwd, pam.d/rsh, hosts, …) are in an overlay over /etc and in a tmpfs over /run,
// both mounted in the namespaces alone. Everything else a host sees is the machine's.
//
// # SSH
//
// Config.SSH puts an SSH server beside in.rshd or in its place. It answers on all of a host's addresses, so one sshd is hundreds of
// hosts to a client:
//
//	r := rig.New(t, rig.Config{Hosts: 2, SSH: rig.SSH{Server: rig.OpenSSH, Lines: []string{"MaxStartups 1000"}}})
//	r.KnownHosts()        // who they are, for a known_hosts file
//	rig.ClientKey()       // whom their users let in; for programs: -i rig.ClientKeyFile
//	r.Hosts[0].SSHLog()   // what sshd said
//
// With two processors a host with sshd is up in 15 to 30 ms, where one with in.rshd alone takes 9; 32 hosts in 0.3 to 0.4 s, and 0.2.
//
// # Who closes first
//
// A [Watch] tells from the packets, for each connection, which side sent the first FIN or RST. That holds for rsh as for SSH,
// and for any other connection between the control side and the hosts, or among these.
//
// # Waiting, and dying
//
// [Until] and [Host.AwaitProcesses] wait for what nobody announces. [StartHolder] starts a process that holds sessions, so that a test
// can see what its death leaves behind; the process calls [Hold] from its TestMain.
//
// # Packages
//
// A daemon's package is fetched with "apt-get download" and unpacked with "dpkg -x", once, into $MULTI_RSH_RIG_CACHE, or
// multi-rsh/rig in the user's cache directory; for sshd and Dropbear, the libraries that the machine lacks too. They are never installed.
//
// # By hand
//
// A rig to play with, one host with each daemon, until the time is up or Ctrl-C, and two ways inside:
//
//	RIG_HOLD=10m go test ./transport/rig -run TestHold -v -timeout 0
//	nsenter -n -m -p -t $(pgrep -nf ^rig-control) pdsh -R rsh -l tester-bash -w h1,h2 hostname
//	nsenter -n -m -p -u -t $(pgrep -nf '^rig-host h1$') bash
//
// With RIG_SSH=openssh-server there is sshd beside it: run "ssh -i /run/rig/ssh/id_ed25519 tester-bash@h1" the first way.
//
// # Adding something to hosts
//
// A setting goes from Config into a hostSpec (Host.spec) and so to the host's process, which makes the host of it (becomeHost).
// What a host serves is a list of services, each a port and a program as in inetd.conf; a further server is another service (addSSH
// has Dropbear for an example, and sshd for a daemon of its own). Files that it needs are written in hostFiles, into the private
// /etc or below /run/rig.
package rig

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// ErrUnavailable is wrapped by the errors of Start that say why there can be no rig here; a test that gets it is skipped.
var ErrUnavailable = errors.New("no rig of real hosts here")

// Daemon says which in.rshd a host runs.
type Daemon string

// The daemons. Both have their own pam.d/rsh, which the hosts use as it comes.
//
// Flags (Config.Args). Netkit: -a looks up the addresses of the client's name and insists on a match, -n turns TCP keepalive
// off (both from its rshd(8)), -l ignores .rhosts files but not hosts.equiv, -h lets .rhosts files count for root too, -L sends
// each command to syslog (those three as tried). Redone takes none, and answers one with its usage.
const (
	Redone Daemon = "rsh-redone-server"
	Netkit Daemon = "rsh-server"
	Both   Daemon = "both" // in turn: Redone, Netkit, Redone …
)

// Config says what to start. The zero value is one host with Redone. SSH: SSH{Server: OpenSSH} is one with sshd alone.
type Config struct {
	Hosts      int      // how many; 0: one. All rigs of a process together have at most 254
	Daemon     Daemon   // empty: Redone, or no in.rshd where there is an SSH server
	SSH        SSH      // which SSH server, beside in.rshd or alone; empty: none
	Args       []string // flags of in.rshd
	Names      int      // so many of each host's addresses 10.77.N.J have a name (hN-J) on the control side; 0: 20, at most 254
	HostsEquiv string   // contents of the hosts' /etc/hosts.equiv; empty: there is none

	// Nameless hosts cannot find out the name of the control side: it is not in their /etc/hosts, and their name server does
	// not answer. in.rshd turns such a client away. (When a name server says that there is no name, it lets it in.)
	Nameless bool
}

const defaultNames = 20

// Rig is a number of running hosts.
type Rig struct {
	Hosts []*Host
}

// Host is one host of a rig.
type Host struct {
	N      int    // its number, 1 to 254
	Name   string // "hN"; names of its other addresses: see Addr, Addr6, NameOf
	Daemon Daemon // empty: no in.rshd
	PID    int    // of its first process, as the control side sees it

	HostKeys []ssh.PublicKey // of its SSH server, in the order of SSH.HostKeys

	ssh    SSH
	routed int       // so many of its routes have been made
	cmd    *exec.Cmd // process PID; nil: not started
}

// Enter must be the first thing in TestMain (or main) of a program that uses a rig. As root on Linux it does not return in
// the process that was started: that one becomes the relay, and Enter returns in the control process instead, which has the
// same arguments, files and environment, and a network of its own. Elsewhere it returns and does nothing, and Start says why.
func Enter() { enter() }

// Main is a TestMain: Enter, then the tests. A package that has its own (goleak.VerifyTestMain) calls Enter before it.
func Main(m *testing.M) {
	Enter()
	os.Exit(m.Run())
}

// New starts a rig for a test and stops it when the test ends. The test is skipped, with the reason, where there can be none.
func New(t testing.TB, cfg Config) *Rig {
	t.Helper()
	r, err := Start(cfg)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Start starts the hosts and returns when all of them answer on their ports. The caller must Close the rig, or just end.
// A running rig has no goroutine in the caller's process.
func Start(cfg Config) (*Rig, error) {
	if cfg.Hosts == 0 {
		cfg.Hosts = 1
	}
	if cfg.Daemon == "" && cfg.SSH.Server == "" {
		cfg.Daemon = Redone
	}
	if cfg.Names == 0 {
		cfg.Names = defaultNames
	}
	if cfg.Hosts < 0 || cfg.Names < 0 || cfg.Names > 254 {
		return nil, fmt.Errorf("rig: %d hosts with %d names each: 1 to 254 are possible", cfg.Hosts, cfg.Names)
	}
	if cfg.Daemon != Redone && cfg.Daemon != Netkit && cfg.Daemon != Both && cfg.Daemon != "" {
		return nil, fmt.Errorf("rig: no daemon %q", cfg.Daemon)
	}
	if err := cfg.SSH.check(); err != nil {
		return nil, err
	}
	return start(cfg)
}

// Close ends every process of the hosts and takes their links away. It may be called again.
func (r *Rig) Close() error { return r.close() }

// Addr is the host's address 10.77.N.j for j of 1 to 254, and for 0 that of its network card, 10.76.1.N, from which it
// connects back. in.rshd answers on all of them.
func (h *Host) Addr(j int) netip.Addr {
	if j == 0 {
		return netip.AddrFrom4([4]byte{10, 76, 1, byte(h.N)})
	}
	return netip.AddrFrom4([4]byte{10, 77, byte(h.N), byte(j)})
}

// Addr6 is the same in IPv6: fd77:N::j, and for 0 fd76::1:N; N and j as they are written in decimal.
func (h *Host) Addr6(j int) netip.Addr {
	if j == 0 {
		return netip.MustParseAddr(fmt.Sprintf("fd76::1:%d", h.N))
	}
	return netip.MustParseAddr(fmt.Sprintf("fd77:%d::%d", h.N, j))
}

// HasIPv6 says whether this kernel, and so a host, has IPv6.
func HasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// NameOf is the name of Addr(j): "hN-j", and for 0 "hN". The name "hN-v6" has Addr6(0), and "hN-dual" has both addresses.
func (h *Host) NameOf(j int) string {
	if j == 0 {
		return h.Name
	}
	return fmt.Sprintf("%s-%d", h.Name, j)
}

// ControlAddr and ControlAddr6 are the control side's addresses, its name is "ctl".
var (
	ControlAddr  = netip.MustParseAddr("10.76.0.1")
	ControlAddr6 = netip.MustParseAddr("fd76::1")
)

// Command is a command that runs inside the host, as root, in "/". It dies with the process that started it.
// Its Dir is not used.
func (h *Host) Command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	return join(ctx, h.PID, name, arg...)
}

// Shell is a login shell and the user on every host who has it.
type Shell struct {
	Name string // bash, dash, csh, tcsh, fish
	Path string // empty: not installed here, so the hosts do not have the user
	User string // may log in from everywhere
}

// NoRhosts is a user on every host who has no .rhosts file: in.rshd refuses the login, unless hosts.equiv allows it.
const NoRhosts = "tester-norhosts"

// Shells lists the login shells, also those that are not installed.
func Shells() []Shell {
	shells := []Shell{
		{Name: "bash"},
		{Name: "dash"},
		{Name: "csh"}, // Debian's csh package has it as bsd-csh, and /bin/csh may be tcsh
		{Name: "tcsh"},
		{Name: "fish"},
	}
	for i := range shells {
		s := &shells[i]
		s.User = "tester-" + s.Name
		try := []string{"/bin/" + s.Name, "/usr/bin/" + s.Name}
		if s.Name == "csh" {
			try = append([]string{"/bin/bsd-csh"}, try...)
		}
		for _, p := range try {
			if fi, err := os.Stat(p); err == nil && fi.Mode()&0o111 != 0 {
				s.Path = p
				break
			}
		}
	}
	return shells
}

// ShellUser is the user whose login shell is the named one; the test is skipped where that shell is not installed.
func ShellUser(t testing.TB, shell string) string {
	t.Helper()
	for _, s := range Shells() {
		if s.Name == shell {
			if s.Path == "" {
				t.Skipf("%s is not installed here (apt-get install %s)", shell, shell)
			}
			return s.User
		}
	}
	t.Fatalf("rig: no user has the shell %q", shell)
	return ""
}

// Shared is New for a rig that all tests of the program with this Config have in common: started for the first of them, it runs
// until the program ends.
func Shared(t testing.TB, cfg Config) *Rig {
	t.Helper()
	start, _ := shared.LoadOrStore(fmt.Sprintf("%#v", cfg), sync.OnceValues(func() (*Rig, error) { return Start(cfg) }))
	r, err := start.(func() (*Rig, error))()
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var shared sync.Map // of a Config's text, to the function that starts the rig or returns it

// Fetch gets the daemon's package, if it is not in the cache yet, and returns the directory that it is unpacked in. Start
// does this by itself; by hand it saves a first run without network.
func Fetch(d Daemon) (dir string, err error) { return fetch(d) }

// What is in the hosts files, hosts(5). They are kept short: every lookup reads all of one.
var (
	localNames   = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"
	controlNames = fmt.Sprintf("%v ctl\n%v ctl\n", ControlAddr, ControlAddr6)
)

func (h *Host) names() string {
	return fmt.Sprintf("%v %s %s-dual\n%v %s-v6 %s-dual\n", h.Addr(0), h.Name, h.Name, h.Addr6(0), h.Name, h.Name)
}

func hostName(n int) string { return fmt.Sprintf("h%d", n) }
