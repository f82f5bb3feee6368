package sockdiag

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// insideVar is set in the second run of a test, which is in a network namespace of its own.
const insideVar = "SOCKDIAG_TEST_INSIDE"

// inside runs the calling test or benchmark again in a network namespace with nothing but a loopback and reports whether this is that
// second run. The first must return.
func inside(t testing.TB, args ...string) bool {
	t.Helper()
	if os.Getenv(insideVar) != "" {
		ip(t, "link set lo up")
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed (apt-get install iproute2)")
	}
	if len(args) == 0 {
		args = []string{"-test.run=^" + t.Name() + "$"}
	}
	cmd := exec.Command(os.Args[0], append(args, "-test.v", "-test.timeout=120s")...)
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EINVAL):
		t.Skipf("a network namespace cannot be made here (run as root, or allow user namespaces): %v", err)
	case err != nil && !errors.As(err, &exit):
		t.Fatal(err)
	case err != nil:
		t.Fatalf("in the namespace: %v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP: ")):
		t.Skipf("in the namespace:\n%s", out)
	}
	t.Logf("in the namespace:\n%s", out)
	return false
}

func ip(t testing.TB, words string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", words, err, out)
	}
}

// menagerie is a socket in each state that can be had on a loopback. Ports 512 and up listen; the others are clients' from 600 on.
type menagerie struct {
	testing.TB
	port int
	held []io.Closer // so that the collector does not close them
}

// client is a socket on the next port, connected to another one of the same address.
func (m *menagerie) client(network string, port int) *net.TCPConn {
	m.Helper()
	m.port++
	here := net.ParseIP(map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"}[network])
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: here, Port: m.port}}
	c, err := d.Dial(network, (&net.TCPAddr{IP: here, Port: port}).String())
	if err != nil {
		m.Fatal(err)
	}
	m.held = append(m.held, c)
	return c.(*net.TCPConn)
}

// pair is both ends of a connection.
func (m *menagerie) pair(network string, ln net.Listener) (client, server *net.TCPConn) {
	m.Helper()
	client = m.client(network, ln.Addr().(*net.TCPAddr).Port)
	c, err := ln.Accept()
	if err != nil {
		m.Fatal(err)
	}
	m.held = append(m.held, c)
	return client, c.(*net.TCPConn)
}

func (m *menagerie) listen(network, address string) net.Listener {
	m.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	ln, err := config.Listen(m.Context(), network, address)
	if err != nil {
		m.Fatal(err)
	}
	m.held = append(m.held, ln)
	return ln
}

func (m *menagerie) check(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// ends reads to the end of file, so that the peer's FIN has come.
func (m *menagerie) ends(c *net.TCPConn) {
	m.Helper()
	if _, err := io.Copy(io.Discard, c); err != nil {
		m.Fatal(err)
	}
}

// populate fills a namespace. On return ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2 (held and orphaned), TIME-WAIT, CLOSE-WAIT, LAST-ACK,
// LISTEN, SYN-SENT, SYN-RECEIVED and BOUND are there, over IPv4, IPv6, and IPv4 in an IPv6 socket.
func populate(t testing.TB) *menagerie {
	t.Helper()
	m := &menagerie{TB: t, port: 599}
	t.Cleanup(func() {
		for _, c := range m.held {
			c.Close()
		}
	})
	v4, v6, both := m.listen("tcp4", "127.0.0.1:512"), m.listen("tcp6", "[::1]:513"), m.listen("tcp", "[::]:514")
	for _, of := range []struct {
		network string
		ln      net.Listener
	}{{"tcp4", v4}, {"tcp6", v6}, {"tcp4", both}} {
		m.pair(of.network, of.ln) // ESTABLISHED
		c, s := m.pair(of.network, of.ln)
		m.check(c.CloseWrite()) // FIN-WAIT-2 and CLOSE-WAIT
		m.ends(s)
		c, s = m.pair(of.network, of.ln)
		m.check(c.Close()) // FIN-WAIT-2 that no process holds
		m.ends(s)
		c, s = m.pair(of.network, of.ln)
		m.check(c.CloseWrite()) // TIME-WAIT
		m.ends(s)
		m.check(s.Close())
		m.ends(c)
		m.check(c.Close())
	}
	// SYN-RECEIVED: the listener does not take the connection before there are data.
	late := m.listen("tcp4", "127.0.0.1:515")
	raw, err := late.(*net.TCPListener).SyscallConn()
	m.check(err)
	m.check(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30) }))
	m.check(err)
	m.client("tcp4", 515)

	// What is sent to this neighbour goes nowhere.
	ip(t, "link add nowhere type veth peer name swallows")
	ip(t, "addr add 192.0.2.1/24 dev nowhere")
	ip(t, "link set nowhere up")
	ip(t, "link set swallows up")
	ip(t, "neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev nowhere")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	m.check(err)
	m.held = append(m.held, os.NewFile(uintptr(fd), "SYN-SENT"))
	m.check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 700}))
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 2}, Port: 514}); err != unix.EINPROGRESS {
		t.Fatalf("connect: %v", err)
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	m.check(err)
	m.held = append(m.held, os.NewFile(uintptr(fd), "BOUND"))
	m.check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 701}))

	// FIN-WAIT-1 and LAST-ACK wait for an acknowledgement that cannot come.
	c, _ := m.pair("tcp4", v4)
	c2, s2 := m.pair("tcp4", v4)
	m.check(c2.CloseWrite())
	m.ends(s2)
	ip(t, "link set lo down")
	m.check(c.Close())
	m.check(s2.Close())
	return m
}

// ssLine is what ss says of a socket.
type ssLine struct {
	State, Local, Remote, Timer string
	UID, Inode                  string
	Cookie                      string
	Holders                     string
}

// ssNames are ss's words for the states.
var ssNames = map[State]string{
	Established: "ESTAB", SynSent: "SYN-SENT", SynRecv: "SYN-RECV", FinWait1: "FIN-WAIT-1", FinWait2: "FIN-WAIT-2", TimeWait: "TIME-WAIT",
	CloseWait: "CLOSE-WAIT", LastAck: "LAST-ACK", Listen: "LISTEN", Closing: "CLOSING",
}

// asSS writes our table as ss would.
func asSS(t testing.TB, table []Socket, owners Owners) (lines []ssLine) {
	t.Helper()
	address := func(s Socket, a netip.AddrPort) string {
		port := strconv.Itoa(int(a.Port()))
		if a.Port() == 0 {
			port = "*"
		}
		host := a.Addr().String()
		if a.Addr().Is6() {
			host = "[" + host + "]"
		}
		if host == "[::]" {
			host = "*"
		} else if s.IPv6 && a.Addr().Is4() {
			host = "[::ffff:" + host + "]"
		}
		return host + ":" + port
	}
	for _, s := range table {
		l := ssLine{
			State: ssNames[s.State], Local: address(s, s.Local), Remote: address(s, s.Remote), Timer: s.Timer.String(),
			UID: strconv.Itoa(int(s.UID)), Inode: strconv.Itoa(int(s.Inode)), Cookie: strconv.FormatUint(s.Cookie, 16),
		}
		for _, p := range owners.ByInode[s.Inode] {
			l.Holders += fmt.Sprintf("%q,pid=%d ", p.Name, p.PID)
		}
		lines = append(lines, l)
	}
	sortSS(lines)
	return lines
}

func sortSS(lines []ssLine) {
	slices.SortFunc(lines, func(a, b ssLine) int { return cmp.Compare(a.Cookie, b.Cookie) })
}

// readSS has ss show the range, and returns also for how long each timer in TIME-WAIT has to run, by cookie.
func readSS(t testing.TB) (lines []ssLine, left map[string]time.Duration) {
	t.Helper()
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip("ss is not installed (apt-get install iproute2)")
	}
	out, err := exec.Command("ss", "-Htaneop", "sport >= :512 and sport <= :1023").Output()
	if err != nil {
		t.Fatal(err)
	}
	left = map[string]time.Duration{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		// It writes [::] where IPv4 is not taken, which the table does not say.
		l := ssLine{State: f[0], Local: strings.Replace(f[3], "[::]", "*", 1), Remote: strings.Replace(f[4], "[::]", "*", 1), Timer: "off", UID: "0", Inode: "0"}
		expires := ""
		for _, word := range f[5:] {
			name, value, _ := strings.Cut(word, ":")
			switch name {
			case "timer":
				parts := strings.Split(strings.Trim(value, "()"), ",")
				l.Timer, expires = parts[0], parts[1]
			case "uid":
				l.UID = value
			case "ino":
				l.Inode = value
			case "sk":
				l.Cookie = value
			case "users":
				for _, user := range strings.Split(strings.Trim(value, "()"), "),(") {
					user, _, _ = strings.Cut(user, ",fd=")
					l.Holders += user + " "
				}
			}
		}
		if l.Timer == "timewait" {
			left[l.Cookie] = ssTime(t, expires)
		}
		lines = append(lines, l)
	}
	sortSS(lines)
	return lines, left
}

// ssTime reads 1min59sec, 59sec, 9.999ms or 999ms, rounded down as ss does.
func ssTime(t testing.TB, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(strings.NewReplacer("min", "m", "sec", "s").Replace(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Every number is the one that ss shows, of every kind of socket; so is what comes out of /proc/net.
func TestAsSS(t *testing.T) {
	if !inside(t) {
		return
	}
	populate(t)
	f := Filter{MinPort: 512, MaxPort: 1023}
	read := func(table func(Filter) ([]Socket, error)) ([]Socket, Owners) {
		t.Helper()
		sockets, err := table(f)
		if err != nil {
			t.Fatal(err)
		}
		owners, err := FindOwners(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if owners.Hidden > 0 {
			t.Logf("%d processes could not be looked at", owners.Hidden)
		}
		return sockets, owners
	}
	before, owners := read(diagTable)
	want, left := readSS(t)
	after, _ := read(diagTable)

	states := map[State]bool{}
	for _, s := range before {
		states[s.State] = true
	}
	for _, s := range []State{Established, SynSent, SynRecv, FinWait1, FinWait2, TimeWait, CloseWait, LastAck, Listen} {
		if !states[s] {
			t.Errorf("no socket is in state %v: the test shows less than it should", s)
		}
	}
	if !states[Bound] {
		t.Log("this kernel does not show sockets that are only bound (Linux 6.8 does)")
	}
	notBound := func(s Socket) bool { return s.State == Bound } // ss knows them since iproute2 6.9
	if diff := gocmp.Diff(want, asSS(t, slices.DeleteFunc(slices.Clone(before), notBound), owners)); diff != "" {
		t.Errorf("-ss +table:\n%s", diff)
	}

	// A timer only runs down, so ss's is between what it was before and after.
	expires := func(table []Socket, cookie string) time.Duration {
		for _, s := range table {
			if strconv.FormatUint(s.Cookie, 16) == cookie {
				return s.Expires
			}
		}
		t.Fatalf("the socket %s has gone", cookie)
		return 0
	}
	if len(left) == 0 {
		t.Error("no timer of TIME-WAIT")
	}
	for cookie, ss := range left {
		unit := time.Millisecond
		if ss >= time.Second {
			unit = time.Second // ss leaves the rest out
		}
		high, low := expires(before, cookie), expires(after, cookie)
		if ss > high || ss+unit <= low {
			t.Errorf("%s: ss says %v, the table %v before it and %v after it", cookie, ss, high, low)
		}
	}

	slow, owners := read(procTable)
	for i := range want {
		want[i].Cookie = ""
	}
	got := asSS(t, slow, owners)
	for i := range got {
		got[i].Cookie = ""
	}
	all := func(a, b ssLine) int {
		return cmp.Or(cmp.Compare(a.Local, b.Local), cmp.Compare(a.Remote, b.Remote), cmp.Compare(a.State, b.State))
	}
	slices.SortFunc(want, all)
	slices.SortFunc(got, all)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("-ss +/proc/net:\n%s", diff)
	}
}

// Each state that can be had is destroyed, its process and its peer are told, and the port is free at once.
func TestDestroy(t *testing.T) {
	if !inside(t) {
		return
	}
	if err := CanDestroy(); err != nil {
		t.Skipf("nothing can be destroyed here: %v", err)
	}
	populate(t)
	f := Filter{MinPort: 512, MaxPort: 1023}
	table, err := Table(f)
	if err != nil {
		t.Fatal(err)
	}
	destroyed := map[State]int{}
	err = Destroy(table, func(s Socket, err error) bool {
		switch {
		case err == nil:
			destroyed[s.State]++
		case errors.Is(err, ErrGone): // its peer was ended a moment ago
		default:
			t.Errorf("%v %v → %v: %v", s.State, s.Local, s.Remote, err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("destroyed: %v", destroyed)
	for _, s := range []State{TimeWait, FinWait2, CloseWait, Established} {
		if destroyed[s] == 0 {
			t.Errorf("none was destroyed in state %v", s)
		}
	}
	if table, err = Table(f); err != nil {
		t.Fatal(err)
	}
	for _, s := range table {
		if s.State != Closed && s.State != Bound { // with its process still, which has to close it
			t.Errorf("left: %+v", s)
		}
	}
}

// A socket that is no more, or another one on the same addresses, is left alone.
func TestDestroyGone(t *testing.T) {
	if !inside(t) {
		return
	}
	if err := CanDestroy(); err != nil {
		t.Skipf("nothing can be destroyed here: %v", err)
	}
	m := &menagerie{TB: t, port: 599}
	ln := m.listen("tcp4", "127.0.0.1:512")
	defer ln.Close()
	c, s := m.pair("tcp4", ln)
	defer s.Close()
	defer c.Close()
	table, err := Table(Filter{MinPort: 600, MaxPort: 600})
	if err != nil || len(table) != 1 {
		t.Fatal(table, err)
	}
	other := table[0]
	other.Cookie++
	elsewhere := table[0]
	elsewhere.Local = netip.MustParseAddrPort("127.0.0.1:601")
	var got []error
	each := func(_ Socket, err error) bool { got = append(got, err); return true }
	if err := Destroy([]Socket{other, elsewhere, table[0], table[0]}, each); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{ErrGone, ErrGone, nil, ErrGone} {
		if !errors.Is(got[i], want) {
			t.Errorf("%d: %v, want %v", i, got[i], want)
		}
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the process was told %v, want ECONNABORTED", err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the peer was told %v, want ECONNRESET", err)
	}
}

// Quiet is how long nothing has moved: more than nothing and less than the test has lasted.
func TestQuiet(t *testing.T) {
	if !inside(t) {
		return
	}
	m := &menagerie{TB: t, port: 599}
	ln := m.listen("tcp4", "127.0.0.1:512")
	defer ln.Close()
	begun := time.Now()
	c, s := m.pair("tcp4", ln)
	defer s.Close()
	defer c.Close()
	for { // the clock of the kernel's that it is counted by has ticks of up to 10 ms
		table, err := Table(Filter{MinPort: 600, MaxPort: 600, Quiet: true})
		if err != nil || len(table) != 1 {
			t.Fatal(table, err)
		}
		lasted := time.Since(begun)
		if quiet := table[0].Quiet; quiet > lasted+20*time.Millisecond {
			t.Fatalf("quiet for %v, and the connection is %v old", quiet, lasted)
		} else if quiet > 0 {
			break
		}
	}
}

// crowd is n sockets in the range, as a large run would have them: both ends of connections, each port used for many hosts, and a
// tenth of all in TIME-WAIT.
func (m *menagerie) crowd(n int) {
	m.Helper()
	ln := m.listen("tcp4", "0.0.0.0:514")
	reuse := func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return cmp.Or(e, err)
	}
	for i, made := 0, 1; made < n; i++ {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 600 + i%400}, Control: reuse, KeepAlive: -1}
		c, err := d.Dial("tcp4", fmt.Sprintf("127.0.1.%d:514", 1+i/400))
		m.check(err)
		s, err := ln.Accept()
		m.check(err)
		if m.held = append(m.held, c, s); i%5 == 0 {
			m.held = m.held[:len(m.held)-2]
			m.check(c.(*net.TCPConn).CloseWrite())
			m.ends(s.(*net.TCPConn))
			m.check(s.Close())
			m.ends(c.(*net.TCPConn))
			m.check(c.Close())
			made++
		} else {
			made += 2
		}
	}
}

// BenchmarkCrowd reads 20,000 sockets, and who holds them.
func BenchmarkCrowd(b *testing.B) {
	if !inside(b, "-test.run=^$", "-test.bench=^BenchmarkCrowd$") {
		return
	}
	m := &menagerie{TB: b}
	const n = 20_000
	m.crowd(n)
	defer func() {
		for _, c := range m.held {
			c.Close()
		}
	}()
	f := Filter{MinPort: 512, MaxPort: 1023}
	var sockets []Socket
	for name, table := range map[string]func(Filter) ([]Socket, error){"netlink": diagTable, "proc": procTable} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var err error
				if sockets, err = table(f); err != nil || len(sockets) < n {
					b.Fatal(len(sockets), err)
				}
			}
		})
	}
	b.Run("owners", func(b *testing.B) {
		for b.Loop() {
			if _, err := FindOwners(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
