package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"multirsh/transport"
)

// holding is what a process says that holds its sessions.
const holding = "holding\n"

// StartHolder runs the test binary once more, with NAME=value in its environment. TestMain must have that process call Hold.
// StartHolder returns when the sessions are up, with what kills the process (SIGKILL), as its end and that of the test do too.
func StartHolder(t testing.TB, env string) (kill func()) {
	t.Helper()
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), env)
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	child.Stderr = os.Stderr
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() { child.Process.Kill(); child.Wait() }
	t.Cleanup(kill)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != holding {
		t.Fatalf("the child said %q: %v", line, err)
	}
	return kill
}

// Hold has a session of "sleep 1000" on each of the addresses until the process is killed. It does not return.
func Hold(tr transport.Transport, user string, addrs []string) {
	for i, addr := range addrs {
		up, print := io.Pipe()
		s, err := tr.Start(context.Background(), transport.Host{Name: "h", Addr: addr, User: user}, &transport.Command{Line: "echo up; sleep 1000", Stdout: print})
		if err != nil {
			fmt.Println(i, err)
			os.Exit(1)
		}
		go s.Wait(context.Background())
		io.ReadFull(up, make([]byte, len("up\n")))
	}
	fmt.Print(holding)
	select {}
}
