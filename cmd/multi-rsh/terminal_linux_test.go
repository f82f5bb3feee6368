package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"multirsh/transport/testserver"
)

// pseudoTerminal is a pseudo-terminal, pty(7): what a person types is written to keys.
func pseudoTerminal(t testing.TB) (keys, tty *os.File) {
	t.Helper()
	keys, tty, err := testserver.OpenTerminal(0, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal to test Ctrl-C on: %v (mount devpts)", err)
	}
	t.Cleanup(func() { keys.Close(); tty.Close() })
	// No echo: nobody reads it here, and when its buffer is full no key goes in.
	modes, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	modes.Lflag &^= unix.ECHO
	// At a key that interrupts, the kernel otherwise throws away output: now and then what is written after the signal, too.
	modes.Lflag |= unix.NOFLSH
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, modes); err != nil {
		t.Fatal(err)
	}
	return keys, tty
}

// onTerminal is multi-rsh in the foreground of a terminal, with its output in pipes.
type onTerminal struct {
	testing.TB
	keys           *os.File
	stdout, stderr *bufio.Reader
	cmd            *exec.Cmd
}

func startOnTerminal(t testing.TB, args ...string) *onTerminal {
	t.Helper()
	keys, tty := pseudoTerminal(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{
		Path: self, Args: append([]string{"multi-rsh"}, args...), Stdin: tty,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true}, // Ctty is descriptor 0
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return &onTerminal{t, keys, bufio.NewReader(stdout), bufio.NewReader(stderr), cmd}
}

const (
	ctrlC         = "\x03"
	ctrlBackslash = "\x1c"
)

func (m *onTerminal) types(key string) {
	m.Helper()
	if _, err := io.WriteString(m.keys, key); err != nil {
		m.Fatal(err)
	}
}

// expects reads lines up to one that contains text.
func (m *onTerminal) expects(from *bufio.Reader, text string) {
	m.Helper()
	for {
		line, err := from.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			m.Fatalf("it ended before it said %q: %v", text, err)
		}
	}
}

func (m *onTerminal) exits(want int) {
	m.Helper()
	rest, err := io.ReadAll(m.stderr)
	if err != nil {
		m.Fatal(err)
	}
	err = m.cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != want {
		m.Fatalf("%v, want exit status %d; standard error ended with:\n%s", err, want, rest)
	}
}

// stops types Ctrl-C until two of them were within a second.
func (m *onTerminal) stops() {
	m.Helper()
	for {
		m.types(ctrlC)
		line, err := m.stderr.ReadString('\n')
		if err != nil {
			m.Fatal(err)
		}
		if strings.Contains(line, "interrupted: what runs has 2s to end") {
			return
		}
		m.expects(m.stderr, "Ctrl-C again within a second stops") // the last line of the status
	}
}

func TestCtrlC(t *testing.T) {
	m := startOnTerminal(t, "-R", "exec", "-p", "2", "-w", "n[1-3]", "echo ready; exec sleep 1000")
	m.expects(m.stdout, "ready")
	m.expects(m.stdout, "ready")
	m.types(ctrlC)
	m.expects(m.stderr, "0 of 3 hosts done, 2 running, 1 waiting")
	m.expects(m.stderr, "): n")
	m.expects(m.stderr, "Ctrl-C again within a second stops")
	m.stops()
	m.expects(m.stderr, "cancelled")
	m.exits(exitInterrupted)
}

// Nobody reads standard output, as in a pager that is left open, so the run cannot go on and a polite stop has no end: the
// third Ctrl-C ends it all the same.
func TestCtrlCThrice(t *testing.T) {
	m := startOnTerminal(t, "-R", "exec", "-w", "n1", "trap '' TERM; echo ready; exec yes")
	m.expects(m.stdout, "ready")
	killed := make(chan error, 1)
	go func() {
		for {
			line, err := m.stderr.ReadString('\n')
			if err != nil || strings.Contains(line, "multi-rsh: killed: commands may still be running on their hosts") {
				killed <- err
				return
			}
		}
	}()
	for {
		select {
		case err := <-killed:
			if err != nil {
				t.Fatalf("it ended before it said that it was killed: %v", err)
			}
			m.exits(exitInterrupted)
			return
		default: // kill(2) for Ctrl-C: a terminal takes no more keys once the program on it has gone
			if err := m.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestCtrlBackslash(t *testing.T) {
	m := startOnTerminal(t, "-R", "exec", "-w", "n1", "trap '' TERM; echo ready; while :; do sleep 1000; done")
	m.expects(m.stdout, "ready")
	m.types(ctrlBackslash)
	m.expects(m.stderr, "multi-rsh: killed: commands may still be running on their hosts")
	m.exits(exitInterrupted)
}
