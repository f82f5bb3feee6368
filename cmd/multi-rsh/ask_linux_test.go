package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// conversation is multi-rsh on a terminal that shows what the program writes and, unless the program forbids it, what is typed.
type conversation struct {
	testing.TB
	keys   *os.File
	cmd    *exec.Cmd
	screen string // all that was shown
	seen   int    // of it, by expects
}

// converse starts multi-rsh in dir, with the configuration that testSSHD has written there.
func converse(t testing.TB, dir string, args ...string) *conversation {
	t.Helper()
	return converseAt(t, 0, dir, append([]string{"-F", "config"}, args...)...)
}

// converseAt starts it on a terminal of so many columns; 0: it does not know.
func converseAt(t testing.TB, columns uint16, dir string, args ...string) *conversation {
	t.Helper()
	keys, tty := pseudoTerminal(t)
	modes, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	modes.Lflag |= unix.ECHO
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, modes); err != nil {
		t.Fatal(err)
	}
	if columns > 0 {
		if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{
		Path: self, Args: append([]string{"multi-rsh"}, args...), Dir: dir,
		Stdin: tty, Stdout: tty, Stderr: tty, Env: append(os.Environ(), "NO_COLOR=1"),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close() // what is shown ends with the program
	t.Cleanup(func() { cmd.Process.Kill() })
	return &conversation{TB: t, keys: keys, cmd: cmd}
}

// more reads what is shown next; false: the program has ended.
func (c *conversation) more() bool {
	c.Helper()
	buf := make([]byte, 4096)
	n, err := c.keys.Read(buf)
	c.screen += strings.ReplaceAll(string(buf[:n]), "\r\n", "\n")
	if err != nil && !errors.Is(err, syscall.EIO) {
		c.Fatal(err)
	}
	return err == nil
}

// expects waits until text is shown, after what was expected before.
func (c *conversation) expects(text string) {
	c.Helper()
	for {
		if at := strings.Index(c.screen[c.seen:], text); at >= 0 {
			c.seen += at + len(text)
			return
		}
		if !c.more() {
			c.Fatalf("it ended before it showed %q:\n%s", text, c.screen)
		}
	}
}

func (c *conversation) types(text string) {
	c.Helper()
	if _, err := c.keys.WriteString(text); err != nil {
		c.Fatal(err)
	}
}

func (c *conversation) exits(want int) {
	c.Helper()
	for c.more() {
	}
	err := c.cmd.Wait()
	got := c.cmd.ProcessState.ExitCode()
	if got != want {
		c.Fatalf("%v, want exit status %d:\n%s", err, want, c.screen)
	}
}

// hides is for what must not have been shown.
func (c *conversation) hides(text string) {
	c.Helper()
	if strings.Contains(c.screen, text) {
		c.Errorf("%q was shown:\n%s", text, c.screen)
	}
}

// echoes says whether the terminal shows what is typed, as it did before.
func (c *conversation) echoes() bool {
	c.Helper()
	modes, err := unix.IoctlGetTermios(int(c.keys.Fd()), unix.TCGETS)
	if err != nil {
		c.Fatal(err)
	}
	return modes.Lflag&unix.ECHO != 0
}

func exists(t testing.TB, dir, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestAskHostKeys(t *testing.T) {
	dir := t.TempDir()
	testSSHD(t, t.Cleanup, dir, "hosts=2")
	const question = "Accept 1 host key of 2 hosts, and go on? (yes, no, show) "
	start := func() *conversation {
		return converse(t, dir, "--host-keys", "ask", "touch ran; echo done", "127.0.0.[1-2]")
	}

	c := start()
	c.expects("No file knows these host keys:\n  ssh-ed25519 SHA256:")
	c.expects("  127.0.0.[1-2] (2 hosts)\n" + question)
	c.types("no\n")
	c.expects("no\n")
	c.expects("multi-rsh: the host keys were not accepted, so nothing has been run\n")
	c.exits(exitUsage)

	c = start()
	c.expects(question)
	c.types("\x04") // Ctrl-D
	c.expects("the host keys were not accepted")
	c.exits(exitUsage)

	c = start()
	c.expects(question)
	c.types(ctrlC)
	c.expects("multi-rsh: interrupted, and nothing has been run\n")
	c.exits(exitInterrupted)

	c = start()
	c.expects(question)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.expects("multi-rsh: terminated, and nothing has been run\n")
	c.exits(exitTerminated)

	if exists(t, dir, "ran") || exists(t, dir, "known") {
		t.Fatal("a host was run on, or its key noted, without a yes")
	}
	c = start()
	c.expects(question)
	c.types("perhaps\n")
	c.expects("perhaps\n" + question)
	c.types("show\n")
	c.expects("ssh-ed25519 SHA256:")
	c.expects(question)
	c.types("yes\n")
	c.expects("yes\n")
	c.expects(": done\n")
	c.expects(": done\n")
	c.exits(exitOK)

	c = start() // known now
	c.exits(exitOK)
	c.hides("SHA256")
}

func TestAskPassword(t *testing.T) {
	dir := t.TempDir()
	testSSHD(t, t.Cleanup, dir, "hosts=2", "password=s3cret")
	start := func() *conversation {
		return converse(t, dir, "-o", "UserKnownHostsFile=right", "--ask-pass", "touch ran; echo done", "127.0.0.[1-2]")
	}
	c := start()
	c.expects("Password on the hosts: ")
	c.types("s3c" + ctrlC)
	c.expects("multi-rsh: interrupted, and nothing has been run\n")
	c.exits(exitInterrupted)
	c.hides("s3c")
	if !c.echoes() {
		t.Error("the terminal was left without echo")
	}

	c = start()
	c.expects("Password on the hosts: ")
	c.types("\n")
	c.expects("multi-rsh: the password is empty, so nothing has been run\n")
	c.exits(exitUsage)
	if exists(t, dir, "ran") {
		t.Fatal("a host was run on without a password")
	}

	c = start()
	c.expects("Password on the hosts: ")
	c.types("s3cret\n")
	c.expects(": done\n")
	c.expects(": done\n")
	c.exits(exitOK)
	c.hides("s3cret")
	if !c.echoes() {
		t.Error("the terminal was left without echo")
	}
}

func TestAskPassphrase(t *testing.T) {
	dir := t.TempDir()
	if err := testKey(filepath.Join(dir, "sealed"), "a phrase"); err != nil {
		t.Fatal(err)
	}
	testSSHD(t, t.Cleanup, dir, "hosts=2", "key=sealed")
	start := func() *conversation {
		return converse(t, dir, "-o", "UserKnownHostsFile=right", "touch ran; echo done", "127.0.0.[1-2]")
	}
	prompt := "Passphrase for " + filepath.Join(dir, "sealed") + ": "

	c := start()
	c.expects(prompt)
	c.types(ctrlC)
	c.expects("multi-rsh: interrupted, and nothing has been run\n")
	c.exits(exitInterrupted)

	c = start()
	for range 3 {
		c.expects(prompt)
		c.types("a guess\n")
	}
	c.expects("multi-rsh: there is no key to log in with: the passphrase given for ")
	c.exits(exitUsage)
	c.hides("a guess")
	if exists(t, dir, "ran") {
		t.Fatal("a host was run on without a key")
	}

	c = start()
	c.expects(prompt)
	c.types("a phrase\n")
	c.expects(": done\n")
	c.expects(": done\n")
	c.exits(exitOK)
	c.hides("a phrase")
}
