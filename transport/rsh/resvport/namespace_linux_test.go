package resvport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// The tests with sockets run in a network namespace of their own, and the hosts they talk to in a second one, so that real packets
// and real TIME-WAITs are seen (on loopback the kernel behaves otherwise) and nothing of this machine is touched:
//
//	go test ──► the same test again, in namespace 1 ──veth── host process, in namespace 2
//	                 10.99.0.1, fd99::1                       10.99.0.2, 10.99.16.0/20, fd99::2
//
// Namespaces end with their last process, and each process is killed by the kernel when its parent ends.
const (
	roleVar = "RESVPORT_TEST_ROLE" // of a process started by a test: "inside", "host", "dialler"
	hostA   = "10.99.0.2"
	here    = "10.99.0.1"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "host":
		serveHosts()
		return
	case "dialler":
		dialForTest()
		return
	}
	goleak.VerifyTestMain(m)
}

// host(i) is the i-th of the 4,096 addresses that the host process answers for.
func host(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 16 + byte(i>>8), byte(i)}), 514)
}

// inside runs the calling test again in a namespace and reports whether this is that second run. The first must return.
func inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(roleVar) == "inside" {
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed (apt-get install iproute2)")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), roleVar+"=inside")
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
	case strings.Contains(string(out), "--- SKIP: "):
		t.Skipf("in the namespace:\n%s", out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "    ") { // what the test logged
			t.Log(strings.TrimSpace(line))
		}
	}
	return false
}

// withHosts starts the host process in its namespace and joins the two.
func withHosts(t testing.TB) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"=host")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	ip(t, "link add v0 type veth peer name v1 netns", fmt.Sprint(cmd.Process.Pid))
	ip(t, "link set lo up")
	ip(t, "addr add 10.99.0.1/24 dev v0")
	ip(t, "addr add 10.99.0.3/24 dev v0") // a second address of ours
	ip(t, "addr add fd99::1/64 dev v0 nodad")
	ip(t, "addr add fe80::99:1/64 dev v0 nodad")
	ip(t, "link set v0 up")
	ip(t, "route add 10.99.16.0/20 via 10.99.0.2") // one neighbour, or the kernel's table of them overflows at 1,024
	fmt.Fprintln(stdin, "go")                      // its end of the wire is there
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the host process said %q: %v", line, err)
	}
}

func ip(t testing.TB, words ...string) {
	t.Helper()
	args := strings.Fields(strings.Join(words, " "))
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func sysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
		t.Skipf("net.%s cannot be set here: %v", name, err)
	}
}

// serveHosts is the host process. On each connection it reads one line and does what that says.
func serveHosts() {
	bufio.NewReader(os.Stdin).ReadString('\n')
	for _, args := range []string{"link set lo up", "addr add 10.99.0.2/24 dev v1", "addr add fd99::2/64 dev v1 nodad", "addr add fe80::99:2/64 dev v1 nodad", "link set v1 up",
		"route add local 10.99.16.0/20 dev lo"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "ip %s: %v: %s", args, err, out)
			os.Exit(1)
		}
	}
	ln, err := net.Listen("tcp", ":514")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	for {
		c, err := ln.Accept()
		if err != nil {
			os.Exit(0)
		}
		go serveHost(c)
	}
}

func serveHost(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch word := strings.Fields(line); word[0] {
		case "end": // answer and close first, as rshd does when the command has ended
			io.WriteString(c, "ok\n")
			return
		case "echo":
			io.WriteString(c, line)
		case "back": // back FROM-PORT ADDRESS: connect, say so, and copy what comes to the main connection until it ends
			var d net.Dialer
			if word[1] != "0" {
				d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(word[1]))
				d.Control = func(_, _ string, c syscall.RawConn) error {
					return c.Control(func(fd uintptr) {
						syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
					})
				}
			}
			back, err := d.Dial("tcp", word[2])
			if err != nil {
				fmt.Fprintf(c, "failed %v\n", err)
				continue
			}
			io.WriteString(back, "hello\n") // before we hear of it: a write would swallow a reset
			fmt.Fprintf(c, "connected\n")
			_, err = io.Copy(io.Discard, back)
			fmt.Fprintf(c, "ended %v\n", err)
			back.Close()
		}
	}
}

// dialForTest is the dialler process: it does what its arguments say and prints the outcome.
//
//	hold N           N connections, to hosts 0 to N-1, and then nothing until it is killed
//	visit N K FILE   K times N hosts, 64 at a time, each "end"ed by the host
func dialForTest() {
	a := &Allocator{}
	var n, k int
	fmt.Sscan(os.Args[2], &n)
	switch os.Args[1] {
	case "hold":
		var held []*Conn // or the collector closes them
		for i := range n {
			c, err := a.Dial(context.Background(), host(i))
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Fprintln(c, "echo")
			bufio.NewReader(c).ReadString('\n')
			held = append(held, c)
		}
		fmt.Println("holding")
		io.Copy(io.Discard, os.Stdin)
		runtime.KeepAlive(held)
	case "visit":
		fmt.Sscan(os.Args[3], &k)
		a.State = os.Args[4]
		failed := visit(a, n*k, 64, func(i int) netip.AddrPort { return host(i % n) })
		a.Close()
		fmt.Printf("%d failed\n", len(failed))
		for _, err := range failed {
			fmt.Println(err)
			break
		}
		fmt.Printf("%+v\n", a.Stats())
	}
}

// visit makes n connections, at most wide at once, and has the host end each; it returns the errors.
func visit(a *Allocator, n, wide int, to func(int) netip.AddrPort) (failed []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, wide)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := talk(a, to(i)); err != nil {
				mu.Lock()
				failed = append(failed, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// talk is one connection from dial to the plain close after end of file.
func talk(a *Allocator, to netip.AddrPort) error {
	c, err := a.Dial(context.Background(), to)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "end\n"); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "ok\n" {
		err = fmt.Errorf("the host said %q", b)
	}
	if err == nil {
		err = c.SetLinger(-1)
	}
	return err
}

// dialler starts a process that dials, in this namespace.
func dialler(t testing.TB, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVar+"=dialler")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // stays open
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, bufio.NewReader(out)
}
