//go:build linux

package real

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"multirsh/transport/rig"
	"multirsh/transport/testserver"
)

// bin is where the programs under test are.
var bin string

func TestMain(m *testing.M) {
	rig.Enter()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "multi-rsh-real-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", dir, "multirsh/cmd/multi-rsh", "multirsh/cmd/fleetsim")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
		bin = dir
		os.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
		os.Setenv("MULTI_RSH_CONFIG", "none") // whoever runs this may have one
		return m.Run()
	}())
}

// outcome is how a program ended.
type outcome struct {
	args           []string
	code           int
	stdout, stderr string
	wall, cpu      time.Duration
	rss            int64 // bytes, the most at once
}

func (o outcome) String() string {
	return fmt.Sprintf("%s: exit %d, %v, CPU %v, %d MiB\n%s", strings.Join(o.args, " "), o.code, o.wall.Round(time.Millisecond),
		o.cpu.Round(time.Millisecond), o.rss>>20, tail(o.stderr))
}

func tail(s string) string {
	if len(s) > 3000 {
		return "…" + s[len(s)-3000:]
	}
	return s
}

// job is a program that has been started.
type job struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
	began          time.Time
}

// start runs a program of the rig's control side. It is killed when the test ends.
func start(t testing.TB, name string, args ...string) *job {
	t.Helper()
	if name == "multi-rsh" || name == "fleetsim" {
		name = filepath.Join(bin, name)
	}
	j := &job{Cmd: exec.CommandContext(t.Context(), name, args...), began: time.Now()}
	j.Cmd.Stdout, j.Cmd.Stderr = &j.stdout, &j.stderr
	if err := j.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return j
}

func (j *job) wait(t testing.TB) outcome {
	t.Helper()
	err := j.Cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{
		args: j.Args, code: j.ProcessState.ExitCode(), stdout: j.stdout.String(), stderr: j.stderr.String(),
		wall: time.Since(j.began), cpu: j.ProcessState.UserTime() + j.ProcessState.SystemTime(),
		rss: j.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10,
	}
}

func run(t testing.TB, name string, args ...string) outcome {
	t.Helper()
	return start(t, name, args...).wait(t)
}

// rsh runs multi-rsh over rsh as the test user of the rig.
func rsh(t testing.TB, args ...string) outcome {
	t.Helper()
	return run(t, "multi-rsh", rshArgs(args)...)
}

func rshArgs(args []string) []string {
	return append([]string{"-R", "rsh", "-u", "tester-bash"}, args...)
}

// reserved are the sockets whose local port is 512 to 1023 and that nobody listens on.
func reserved(t testing.TB, sockets []rig.Socket, err error) []rig.Socket {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var found []rig.Socket
	for _, s := range sockets {
		if p := s.Local.Port(); p >= 512 && p <= 1023 && s.State != "LISTEN" {
			found = append(found, s)
		}
	}
	return found
}

// controlReserved are those of the control side, without what a test's own server on loopback keeps on its port 514.
func controlReserved(t testing.TB) []rig.Socket {
	t.Helper()
	sockets, err := rig.Sockets()
	return slices.DeleteFunc(reserved(t, sockets, err), func(s rig.Socket) bool {
		return s.Local.Port() == 514 && s.Local.Addr().IsLoopback()
	})
}

// hostReserved are the reserved ports that the hosts hold for their side, without those of the service itself.
func hostReserved(t testing.TB, r *rig.Rig) []rig.Socket {
	t.Helper()
	var held []rig.Socket
	for _, h := range r.Hosts {
		sockets, err := h.Sockets()
		for _, s := range reserved(t, sockets, err) {
			if s.Local.Port() != 514 {
				held = append(held, s)
			}
		}
	}
	return held
}

// sleepers counts the commands "sleep N" that live on the hosts.
func sleepers(t testing.TB, r *rig.Rig, n string) int {
	t.Helper()
	count := 0
	for _, h := range r.Hosts {
		found, err := h.Processes("sleep")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range found {
			if p.State != 'Z' && len(p.Args) == 2 && p.Args[1] == n {
				count++
			}
		}
	}
	return count
}

// until waits for a condition of other processes; a test that waits for more than a minute has failed.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	if !within(t, time.Minute, condition) {
		t.Fatalf("still not: %s", what)
	}
}

// within says whether a condition of other processes came to hold in time.
func within(t testing.TB, limit time.Duration, condition func() bool) bool {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return condition()
		}
	}
	return true
}

// states counts sockets by state, for messages.
func states(sockets []rig.Socket) string {
	count := map[string]int{}
	for _, s := range sockets {
		count[s.State]++
	}
	return fmt.Sprint(count)
}

// addresses is an expression for n addresses of each host of the rig.
func addresses(r *rig.Rig, n int) string {
	return fmt.Sprintf("10.77.[%d-%d].[1-%d]", r.Hosts[0].N, r.Hosts[len(r.Hosts)-1].N, n)
}

// terminal starts a program with a terminal of its own on all three streams and returns the master's side. What the program
// prints is collected in the buffer under the lock.
type terminal struct {
	*exec.Cmd
	master *os.File
	mu     sync.Mutex
	text   bytes.Buffer
	read   chan struct{} // closed when the terminal is
}

func onTerminal(t testing.TB, name string, args ...string) *terminal {
	t.Helper()
	master, slave, err := testserver.OpenTerminal(80, 24)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	term := &terminal{Cmd: exec.CommandContext(t.Context(), filepath.Join(bin, name), args...), master: master, read: make(chan struct{})}
	term.Cmd.Stdin, term.Cmd.Stdout, term.Cmd.Stderr = slave, slave, slave
	term.Cmd.Env = append(os.Environ(), "NO_COLOR=1")
	term.Cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(term.read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			term.mu.Lock()
			term.text.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return term
}

func (term *terminal) screen() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.text.String()
}

func (term *terminal) press(t testing.TB, keys string) {
	t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// wait returns the exit code when the program has ended and its output has been read.
func (term *terminal) wait() int {
	term.Cmd.Wait()
	<-term.read
	term.master.Close()
	return term.Cmd.ProcessState.ExitCode()
}
