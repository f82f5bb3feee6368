package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"multirsh/transport/rig"
	"multirsh/transport/rsh/sockdiag"
)

// portsInsideVar is set in the second run of a test, which is in a network namespace of its own.
const portsInsideVar = "PORTS_TEST_INSIDE"

// portsInside runs the calling test again in a network namespace with nothing but a loopback and reports whether this is that second
// run. The first must return.
func portsInside(t testing.TB, args ...string) bool {
	t.Helper()
	if os.Getenv(portsInsideVar) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("ip link set lo up: %v: %s", err, out)
		}
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed (apt-get install iproute2)")
	}
	if len(args) == 0 {
		args = []string{"-test.run=^" + t.Name() + "$"}
	}
	cmd := exec.Command(os.Args[0], append(args, "-test.v", "-test.timeout=120s")...)
	cmd.Env = append(os.Environ(), portsInsideVar+"=1", "TEST_ETC=/no-etc", "MULTI_RSH_CONFIG=none", "GORACE=atexit_sleep_ms=10")
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

// portsHost is hosts on 127.0.0.2 and so on, which listen on port 514, and our connections to them.
type portsHost struct {
	testing.TB
	ln   net.Listener
	held []net.Conn
}

func newPortsHost(t testing.TB) *portsHost {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	ln, err := config.Listen(t.Context(), "tcp4", "0.0.0.0:514")
	if err != nil {
		t.Fatal(err)
	}
	h := &portsHost{TB: t, ln: ln}
	t.Cleanup(func() {
		ln.Close()
		for _, c := range h.held {
			c.Close()
		}
	})
	return h
}

// connect returns both ends of a connection from port to host, 127.0.0.2 and so on. They stay open until the test ends.
func (h *portsHost) connect(port int, host string) (ours, theirs *net.TCPConn) {
	h.Helper()
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, KeepAlive: -1,
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return errors.Join(e, err)
		},
	}
	c, err := d.Dial("tcp4", host+":514")
	if err != nil {
		h.Fatal(err)
	}
	s, err := h.ln.Accept()
	if err != nil {
		h.Fatal(err)
	}
	h.held = append(h.held, c, s)
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// closeWrite sends the end of file, and waits until the other side has it and the kernel knows that: an acknowledgement may be late.
func (h *portsHost) closeWrite(from, to *net.TCPConn) {
	h.Helper()
	if err := from.CloseWrite(); err != nil {
		h.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, to); err != nil {
		h.Fatal(err)
	}
	raw, err := from.SyscallConn()
	h.check(err)
	rig.Until(h, "its end of file is acknowledged", func() (objection string) {
		h.check(raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			h.check(err)
			if state := sockdiag.State(info.State); state == sockdiag.FinWait1 {
				objection = state.String()
			}
		}))
		return objection
	})
}

// timeWait leaves port in TIME-WAIT.
func (h *portsHost) timeWait(port int, host string) {
	h.Helper()
	c, s := h.connect(port, host)
	h.closeWrite(c, s)
	h.closeWrite(s, c)
	h.check(s.Close())
	h.check(c.Close())
}

func (h *portsHost) check(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// multiRsh runs the program here, and returns what it wrote and its exit status.
func multiRsh(t testing.TB, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := &exec.Cmd{Path: self, Args: append([]string{"multi-rsh"}, args...), Stdout: &out, Stderr: &errs,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}} // without a terminal
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func readDocument(t testing.TB, text string) (d portsDocument) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return d
}

// What the program shows is what ss shows in the same namespace, and each port is in the state in which ss has it.
func TestPortsAsSS(t *testing.T) {
	if !portsInside(t) {
		return
	}
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip("ss is not installed (apt-get install iproute2)")
	}
	h := newPortsHost(t)
	h.connect(600, "127.0.0.2")
	h.connect(600, "127.0.0.3")
	h.timeWait(600, "127.0.0.4")
	c, s := h.connect(601, "127.0.0.2")
	h.closeWrite(c, s) // FIN-WAIT-2 here, CLOSE-WAIT there
	c, s = h.connect(602, "127.0.0.2")
	h.closeWrite(s, c) // CLOSE-WAIT here
	h.timeWait(603, "127.0.0.2")

	stdout, stderr, status := multiRsh(t, "ports", "--json")
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	d := readDocument(t, stdout)
	var got, want []string
	names := map[string]string{"ESTAB": "established", "LISTEN": "listen"}
	for _, r := range d.Sockets {
		peer := r.Peer
		if peer == "" {
			peer = "0.0.0.0:*"
		}
		owner := ""
		if r.PID != 0 {
			owner = fmt.Sprintf("users:((%q,pid=%d,", r.Process, r.PID)
		}
		got = append(got, fmt.Sprintf("%s %s %s %d %s", r.State, r.Local, peer, r.Inode, owner))
	}
	out, err := exec.Command("ss", "-Htanpe", "sport >= :512 and sport <= :1023").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		inode, owner := "0", ""
		for _, word := range f[5:] {
			if ino, is := strings.CutPrefix(word, "ino:"); is {
				inode = ino
			}
			if strings.HasPrefix(word, "users:") {
				owner, _, _ = strings.Cut(word, "fd=")
			}
		}
		state := names[f[0]]
		if state == "" {
			state = strings.ToLower(f[0])
		}
		want = append(want, fmt.Sprintf("%s %s %s %s %s", state, f[3], f[4], inode, owner))
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-ss +ports:\n%s", diff)
	}
	wantPorts := map[string]int{"free": 507, "close-wait": 2, "time-wait": 2, "fin-wait-2": 1} // 514 has a CLOSE-WAIT too
	if diff := cmp.Diff(wantPorts, d.Summary.Ports); diff != "" {
		t.Errorf("ports: -want +got:\n%s", diff)
	}

	// What is asked for, and no more.
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--state", "time-wait"}, 2},
		{[]string{"-s", "TIME_WAIT,fin-wait-2"}, 4},
		{[]string{"--peer", "127.0.0.4"}, 1},
		{[]string{"--peer", "127.0.0.4/31"}, 1},
		{[]string{"--peer", "127.0.0.2", "--state", "estab"}, 1},
		{[]string{"--peer", "127.0.0.2", "--peer", "127.0.0.3", "--state", "estab"}, 2},
		{[]string{"--peer", "::1"}, 0},
	} {
		stdout, _, _ := multiRsh(t, append([]string{"ports", "--json"}, tt.args...)...)
		if got := len(readDocument(t, stdout).Sockets); got != tt.want {
			t.Errorf("%q: %d sockets, want %d", tt.args, got, tt.want)
		}
	}
	stdout, _, _ = multiRsh(t, "ports", "explain", "602")
	if want := fmt.Sprintf("The program has to act: multi-rsh.test (%d).", os.Getpid()); !strings.Contains(strings.Join(strings.Fields(stdout), " "), want) {
		t.Errorf("no %q in:\n%s", want, stdout)
	}
	stdout, _, status = multiRsh(t, "ports", "doctor")
	if !strings.Contains(stdout, "warning: sockets left open") || status != 0 {
		t.Errorf("doctor: %d\n%s", status, stdout)
	}
}

// The port of a socket in TIME-WAIT is free at once; what is in use is not touched; nothing is ended unasked.
func TestPortsReap(t *testing.T) {
	if !portsInside(t) {
		return
	}
	h := newPortsHost(t)
	h.connect(600, "127.0.0.2")
	h.timeWait(601, "127.0.0.2")
	h.timeWait(602, "127.0.0.3")
	c, s := h.connect(603, "127.0.0.2")
	h.closeWrite(s, c) // CLOSE-WAIT here
	now := func() (states []string) {
		stdout, stderr, status := multiRsh(t, "ports", "--json", "--peer", "127.0.0.2/31")
		if status != 0 {
			t.Fatal(stderr)
		}
		for _, r := range readDocument(t, stdout).Sockets {
			states = append(states, fmt.Sprintf("%d %s", r.Port, r.State))
		}
		return states
	}
	expect := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, now()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	fails := func(want int, says string, args ...string) {
		t.Helper()
		_, stderr, status := multiRsh(t, append([]string{"ports", "reap"}, args...)...)
		if status != want || !strings.Contains(stderr, says) {
			t.Errorf("reap %q: %d, %s", args, status, stderr)
		}
	}
	all := []string{"600 established", "601 time-wait", "602 time-wait", "603 close-wait"}
	fails(exitUsage, "there is no terminal to ask on; --yes goes without")
	fails(exitUsage, "--json asks nothing", "--json")
	fails(exitUsage, "what is established is in use", "--yes", "--state", "established")
	fails(exitUsage, "--state has to name them", "--yes", "--force")
	expect(all...)
	stdout, _, status := multiRsh(t, "ports", "reap", "--yes", "--older-than", "1h")
	if status != 0 || !strings.HasPrefix(stdout, "nothing to end: ") {
		t.Errorf("%d: %s", status, stdout)
	}
	expect(all...)

	// Without the capability. In a user namespace, the capability there is.
	if setpriv, err := exec.LookPath("setpriv"); err == nil {
		self, _ := os.Executable()
		cmd := exec.Command(setpriv, "--bounding-set=-net_admin", "--inh-caps=-net_admin", "bash", "-c", `exec -a multi-rsh "$0" "$@"`, self, "ports", "reap", "--yes")
		out, err := cmd.CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("multi-rsh: nothing has been ended: only a process with CAP_NET_ADMIN may end sockets: run it as root\n")) {
			t.Errorf("without CAP_NET_ADMIN: %v, %s", err, out)
		}
		expect(all...)
	}

	reap := func(want map[string]int, args ...string) {
		t.Helper()
		stdout, stderr, status := multiRsh(t, append([]string{"ports", "reap", "--yes", "--json"}, args...)...)
		var d struct{ Ended, Gone, Failed int }
		if err := json.Unmarshal([]byte(stdout), &d); err != nil || status != 0 {
			t.Fatalf("%v, %d: %s", err, status, stderr)
		}
		if diff := cmp.Diff(want, map[string]int{"ended": d.Ended, "gone": d.Gone, "failed": d.Failed}); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	reap(map[string]int{"ended": 1, "gone": 0, "failed": 0}, "--peer", "127.0.0.3")
	expect("600 established", "601 time-wait", "603 close-wait")
	reap(map[string]int{"ended": 1, "gone": 0, "failed": 0}, "--state", "close-wait")
	if _, err := c.Write([]byte("x")); !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("the process was told %v", err)
	}
	h.check(c.Close())
	expect("600 established", "601 time-wait")
	stdout, _, status = multiRsh(t, "ports", "reap", "--yes")
	if status != 0 || !strings.HasSuffix(stdout, "\n1 socket ended\n") || !strings.Contains(stdout, "late packets") {
		t.Errorf("%d: %s", status, stdout)
	}
	expect("600 established")
	if ln, err := net.Listen("tcp4", "127.0.0.1:601"); err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		ln.Close()
	}
	reap(map[string]int{"ended": 1, "gone": 0, "failed": 0}, "--state", "established", "--force", "--peer", "127.0.0.2")
}

// At a terminal it asks, and takes no for an answer.
func TestPortsReapAsks(t *testing.T) {
	if !portsInside(t) {
		return
	}
	h := newPortsHost(t)
	h.timeWait(601, "127.0.0.2")
	for _, tt := range []struct {
		answer string
		status int
		left   int
	}{
		{"\n", exitHosts, 1}, {"no\n", exitHosts, 1}, {"\x04", exitHosts, 1}, {"y\n", exitOK, 0},
	} {
		m := startOnTerminal(t, "ports", "reap")
		m.expects(m.stdout, "601   time-wait")
		question := make([]byte, len("End 1 socket? [y/N] "))
		// What is read may have an end of line of the answer before it, as the terminal shows it.
		if _, err := io.ReadFull(m.keys, question); err != nil || !strings.Contains(string(question), "[y/N]") {
			t.Fatalf("%q, %v", question, err)
		}
		m.types(tt.answer)
		rest, _ := io.ReadAll(m.stdout)
		if tt.status == exitOK {
			if err := m.cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(string(rest), "1 socket ended\n") {
				t.Errorf("%s", rest)
			}
		} else {
			m.exits(tt.status)
		}
		stdout, _, _ := multiRsh(t, "ports", "--json", "--state", "time-wait")
		if got := len(readDocument(t, stdout).Sockets); got != tt.left {
			t.Errorf("%q: %d sockets are left, want %d", tt.answer, got, tt.left)
		}
	}
}

// A watch draws again, shows what has changed, and gives the terminal back as it was, however it ends.
func TestPortsWatch(t *testing.T) {
	if !portsInside(t) {
		return
	}
	h := newPortsHost(t)
	for i, tt := range []struct {
		end    func(cmd *exec.Cmd, keys io.Writer) error
		status int
	}{
		{func(_ *exec.Cmd, keys io.Writer) error { _, err := io.WriteString(keys, "q"); return err }, exitOK},
		{func(_ *exec.Cmd, keys io.Writer) error { _, err := io.WriteString(keys, ctrlC); return err }, exitOK},
		{func(cmd *exec.Cmd, _ io.Writer) error { return cmd.Process.Signal(os.Interrupt) }, exitOK},
		{func(cmd *exec.Cmd, _ io.Writer) error { return cmd.Process.Signal(syscall.SIGTERM) }, exitTerminated},
	} {
		keys, tty := pseudoTerminal(t)
		h.check(unix.IoctlSetWinsize(int(keys.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 80}))
		before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		h.check(err)
		self, err := os.Executable()
		h.check(err)
		cmd := &exec.Cmd{
			Path: self, Args: []string{"multi-rsh", "ports", "--watch", "--color", "never"}, Stdin: tty, Stdout: tty, Stderr: tty,
			SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
		}
		h.check(cmd.Start())
		tty.Close() // so that the reads here end when the program has
		t.Cleanup(func() { cmd.Process.Kill() })
		screen := &screenReader{TB: t, from: keys}
		screen.expects(enterScreen)
		port := 700 + i
		screen.expects("each second, q ends")
		h.timeWait(port, "127.0.0.2")
		screen.expects(fmt.Sprintf("%d   time-wait", port))
		h.check(tt.end(cmd, keys))
		screen.expects(leaveScreen)
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != tt.status {
			t.Errorf("%d: exit status %d, want %d", i, got, tt.status)
		}
		after, err := unix.IoctlGetTermios(int(keys.Fd()), unix.TCGETS) // the same, from the other side
		h.check(err)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the terminal is not as it was: -before +after:\n%s", diff)
		}
	}
	_, stderr, status := multiRsh(t, "ports", "--watch")
	if status != exitUsage || !strings.Contains(stderr, "--watch draws on a terminal, and standard output is none") {
		t.Errorf("%d: %s", status, stderr)
	}
}

// screenReader reads what a terminal shows.
type screenReader struct {
	testing.TB
	from io.Reader
	text string
}

func (s *screenReader) expects(want string) {
	s.Helper()
	buffer := make([]byte, 4096)
	for !strings.Contains(s.text, want) {
		n, err := s.from.Read(buffer)
		if err != nil {
			s.Fatalf("it ended before it showed %q: %v\n%q", want, err, s.text)
		}
		s.text += string(buffer[:n])
	}
	_, s.text, _ = strings.Cut(s.text, want)
}

// A watch that writes documents writes more than one.
func TestPortsWatchJSON(t *testing.T) {
	if !portsInside(t) {
		return
	}
	m := startOnTerminal(t, "ports", "--watch", "--json")
	m.expects(m.stdout, `"sockets":[]`)
	m.expects(m.stdout, `"sockets":[]`)
	m.types(ctrlC)
	if err := m.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Connections come and go all the time while the table is read: no socket is shown twice, none without its port, and nothing fails.
func TestPortsInMotion(t *testing.T) {
	if !portsInside(t) {
		return
	}
	h := newPortsHost(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 600 + i%300}, Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			}}
			c, err := d.Dial("tcp4", fmt.Sprintf("127.0.%d.2:514", i/300%200))
			if err != nil {
				continue
			}
			s, err := h.ln.Accept()
			if err != nil {
				return
			}
			c.Close()
			s.Close()
		}
	}()
	for range 20 {
		stdout, stderr, status := multiRsh(t, "ports", "--json")
		if status != 0 {
			t.Fatalf("%d: %s", status, stderr)
		}
		seen := map[[2]string]bool{}
		for _, r := range readDocument(t, stdout).Sockets {
			at, err := netip.ParseAddrPort(r.Local)
			if err != nil || at.Port() != r.Port {
				t.Errorf("%+v: %v", r, err)
			}
			if id := [2]string{r.Local, r.Peer}; seen[id] {
				t.Errorf("twice: %+v", r)
			} else {
				seen[id] = true
			}
		}
	}
	close(stop)
	<-stopped
}

// BenchmarkPorts is the program as it is run, on 20,000 sockets: all in TIME-WAIT, or 18,000 of them held by one process.
func BenchmarkPorts(b *testing.B) {
	if !portsInside(b, "-test.run=^$", "-test.bench=^BenchmarkPorts$") {
		return
	}
	h := newPortsHost(b)
	measure := func(name string, args ...string) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if stdout, stderr, status := multiRsh(b, args...); status != 0 || len(stdout) < 500 {
					b.Fatal(status, stderr)
				}
			}
		})
	}
	measure("none", "ports")
	for i := range 20_000 {
		h.timeWait(600+i%400, fmt.Sprintf("127.0.2.%d", 1+i/400))
	}
	measure("time-wait", "ports")
	if _, _, status := multiRsh(b, "ports", "reap", "--yes", "--older-than", "1ms"); status != 0 {
		b.Fatal(status)
	}
	for i := range 9_000 {
		h.connect(600+i%400, fmt.Sprintf("127.0.1.%d", 1+i/400))
	}
	for i := range 2_000 {
		h.timeWait(600+i%400, fmt.Sprintf("127.0.2.%d", 1+i/400))
	}
	measure("held", "ports")
	measure("held-json", "ports", "--json")
}
