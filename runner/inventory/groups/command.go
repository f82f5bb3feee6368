package groups

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// command is a program to run for its output.
type command struct {
	args []string
	show string // what errors call it; empty: the arguments
	env  []string
	dir  string
}

const (
	linger    = time.Second // that a child of a command which has ended may keep its output open
	maxStderr = 4 << 10     // of what a command says on standard error, the end
)

var errTooMuch = fmt.Errorf("it printed more than %d bytes", maxText)

// lateError is a context.DeadlineExceeded that says whose time it was.
type lateError struct{}

func (lateError) Error() string { return "it was not done in time" }
func (lateError) Unwrap() error { return context.DeadlineExceeded }

var errLate error = lateError{}

// runCommand returns what a command prints. It reads nothing, and is in a process group of its own, which is killed when the command has ended, when
// ctx ends, or when there is too much output; a child that has left the group lives on, but holds nobody up. The error names the command, why, and
// the last line that it wrote to standard error; it wraps the *exec.ExitError or ctx's cause.
func runCommand(ctx context.Context, c command) (string, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out, errs := &limited{stop: stop}, &tail{}
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = c.dir
	cmd.WaitDelay = linger
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	if cmd.Process != nil {
		cmd.Cancel() // those of its children that are there still
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // one of these had the output open
	}
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
		if cause == context.DeadlineExceeded {
			err = errLate
		}
	}
	show := quoteCommand(cmp.Or(c.show, strings.Join(c.args, " ")))
	if err != nil {
		if said := errs.lastLine(); said != "" {
			return "", fmt.Errorf("%s: %w: %s", show, err, said)
		}
		return "", fmt.Errorf("%s: %w", show, err)
	}
	text := string(out.data)
	if at, why := notText(text); why != "" {
		return "", fmt.Errorf("%s: line %d of what it printed: %s", show, 1+strings.Count(text[:at], "\n"), why)
	}
	return text, nil
}

func quoteCommand(text string) string {
	return quote(strings.Join(strings.Fields(text), " "))
}

// limited keeps at most maxText bytes, and stops the command at more.
type limited struct {
	data []byte
	stop context.CancelCauseFunc
}

func (l *limited) Write(p []byte) (int, error) {
	if len(l.data)+len(p) > maxText {
		l.stop(errTooMuch)
		return 0, errTooMuch
	}
	l.data = append(l.data, p...)
	return len(p), nil
}

// tail keeps the last bytes.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - maxStderr; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

func (t *tail) lastLine() string {
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(t.data), "?")), "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.TrimSpace(lines[len(lines)-1]))
}
