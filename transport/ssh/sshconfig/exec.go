package sshconfig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// execLimit is how long a command of Match exec may take. ssh would wait for ever.
const execLimit = 10 * time.Second

// execs runs the commands of Match exec, each of them once.
type execs struct {
	limit   time.Duration
	running chan struct{} // one place for each that may run at the same time

	mu      sync.Mutex
	results map[string]*result // by command
}

// A result is there when done is closed.
type result struct {
	done  chan struct{}
	holds bool
	err   error
	ended bool // the context of whoever ran it ended: it says nothing to others
}

// run is whether command exits with 0. Who comes while another one runs it waits for that; if that one gives up, the next does it.
func (e *execs) run(ctx context.Context, command string) (bool, error) {
	for {
		e.mu.Lock()
		r, known := e.results[command]
		if !known {
			r = &result{done: make(chan struct{})}
			e.results[command] = r
		}
		e.mu.Unlock()
		if !known {
			r.holds, r.err = e.start(ctx, command)
			if r.ended = ctx.Err() != nil; r.ended {
				e.mu.Lock()
				delete(e.results, command)
				e.mu.Unlock()
			}
			close(r.done)
			return r.holds, r.err
		}
		select {
		case <-r.done:
			if !r.ended {
				return r.holds, r.err
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// start runs command in the user's shell, with nothing to read and nowhere to write to, and in a process group of its own, so that
// at the end of its time nothing is left of it.
func (e *execs) start(ctx context.Context, command string) (bool, error) {
	select {
	case e.running <- struct{}{}:
		defer func() { <-e.running }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	shell := os.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	limited, cancel := context.WithTimeout(ctx, e.limit)
	defer cancel()
	cmd := exec.CommandContext(limited, shell, "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case limited.Err() != nil:
		return false, fmt.Errorf("exec %q was not done within %v: make it faster, or have it decide by timeout(1)", command, e.limit)
	case err == nil:
		return true, nil
	case errors.As(err, &exit) && exit.Exited():
		return false, nil
	default:
		return false, fmt.Errorf("exec %q could not be run to its end by %s: %w", command, shell, err)
	}
}
