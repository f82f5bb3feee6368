//go:build unix

package sshtest

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"multirsh/transport"
	"multirsh/transport/testserver"
)

// process is a command that really runs, and our ends of its streams.
type process struct {
	c              *session
	err            error // it could not be started
	stdin          *os.File
	stdout, stderr *os.File // stderr nil: a terminal, and stdout is all of it
	ended          chan transport.Status
	agent          *agentSocket // nil: none
}

// start starts SHELL -c LINE, or the shell alone. The caller holds c.mu.
func (c *session) start(line string) *process {
	s := c.x.srv
	p := &process{c: c, ended: make(chan transport.Status, 1)}
	shell := cmp.Or(s.Shell, "/bin/sh")
	cmd := &exec.Cmd{
		Path: shell, Args: []string{filepath.Base(shell), "-c", line}, Dir: s.Dir, Env: c.env(shell),
	}
	if line == "" {
		cmd.Args = []string{"-" + filepath.Base(shell)}
	}
	if c.rec.Agent {
		if p.agent, p.err = listenAgent(c.x); p.err != nil {
			return p
		}
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+p.agent.path)
	}
	var theirs []*os.File
	defer func() {
		closeFiles(theirs...)
		if p.err != nil {
			p.close()
		}
	}()
	if c.slave != nil {
		// One description for both directions; the session closes its own.
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.slave, c.slave, c.slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setctty: true}
		p.stdin, p.stdout = c.master, c.master
	} else {
		pipes := [3][2]*os.File{}
		for i := range pipes {
			r, w, err := os.Pipe()
			if err != nil {
				p.err = err
				return p
			}
			pipes[i] = [2]*os.File{r, w}
			if i == 0 {
				theirs, p.stdin = append(theirs, r), w
				continue
			}
			theirs = append(theirs, w)
			if i == 1 {
				p.stdout = r
			} else {
				p.stderr = r
			}
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	}
	var run *testserver.Process
	if run, p.err = s.core.Run(cmd); p.err != nil {
		return p
	}
	closeFiles(c.slave) // or its output would never end
	c.slave = nil
	c.process = run
	s.core.Go(func() { // it may outlive the connection
		status := run.Wait()
		c.mu.Lock()
		c.process = nil
		c.mu.Unlock()
		p.ended <- ending(status)
	})
	return p
}

func ending(w syscall.WaitStatus) transport.Status {
	s := transport.Status{Known: true, Started: true, Code: max(0, w.ExitStatus())}
	if w.Signaled() {
		s.Signal = w.Signal().String()
		for name, sig := range signals {
			if sig == w.Signal() {
				s.Signal = name
			}
		}
	}
	return s
}

// env is the command's environment, as sshd(8) makes it on top of the server's own.
func (c *session) env(shell string) []string {
	env := c.x.srv.Env
	if env == nil {
		// Nothing of a connection that this process itself came by.
		env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SSH_") })
	}
	from, to := c.x.rec.Client, c.x.rec.Server
	env = append(slices.Clone(env), "SHELL="+shell, "USER="+c.x.rec.User, "LOGNAME="+c.x.rec.User,
		fmt.Sprintf("SSH_CLIENT=%v %d %d", from.Addr(), from.Port(), to.Port()),
		fmt.Sprintf("SSH_CONNECTION=%v %d %v %d", from.Addr(), from.Port(), to.Addr(), to.Port()))
	if c.slave != nil {
		env = append(env, "SSH_TTY="+c.slave.Name(), "TERM="+c.rec.Pty.Term)
	}
	return append(env, c.rec.Env...)
}

// run passes the streams on and returns when the command has ended, with a function that waits until nobody holds its output any
// more. The end of the session cuts both short and leaves the command to itself.
func (p *process) run(out, errs io.Writer) (transport.Status, func()) {
	if p.err != nil {
		fmt.Fprintln(errs, strings.TrimPrefix(p.err.Error(), "fork/exec "))
		return transport.Status{Known: true, Code: 1}, func() {}
	}
	// The input goes on until the client closes the channel, for what nobody reads must not fill its window.
	p.c.x.work.Go(func() {
		in := p.c.stdin()
		io.Copy(p.stdin, struct{ io.Reader }{in})
		if p.stdin != p.stdout {
			p.stdin.Close()
		}
		io.Copy(io.Discard, in)
	})
	var copies sync.WaitGroup
	copies.Go(func() { io.Copy(out, struct{ io.Reader }{p.stdout}) })
	if p.stderr != nil {
		copies.Go(func() { io.Copy(errs, struct{ io.Reader }{p.stderr}) })
	}
	drained := make(chan struct{})
	p.c.x.work.Go(func() {
		copies.Wait()
		close(drained)
	})
	drain := func() {
		select {
		case <-drained:
		case <-p.c.gone:
		}
		p.close()
		<-drained
	}
	select {
	case status := <-p.ended:
		return status, drain
	case <-p.c.gone:
		return transport.Status{Started: true}, drain
	}
}

// close lets go of the streams. A command that still runs sees the end of its input, and a SIGPIPE when it writes; one with a
// terminal gets a SIGHUP when the session closes that.
func (p *process) close() {
	closeFiles(p.stdin, p.stdout, p.stderr)
	if p.agent != nil {
		p.agent.close()
	}
}

func closeFiles(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// agentSocket is where a command finds the client's agent: each connection to it is a channel to the client.
type agentSocket struct {
	dir, path string
	listener  net.Listener
	once      sync.Once
}

func listenAgent(x *conn) (*agentSocket, error) {
	dir, err := os.MkdirTemp("", "sshtest-")
	if err != nil {
		return nil, err
	}
	a := &agentSocket{dir: dir, path: filepath.Join(dir, "agent")}
	if a.listener, err = net.Listen("unix", a.path); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	x.work.Go(func() {
		for {
			c, err := a.listener.Accept()
			if err != nil {
				return
			}
			channel, requests, err := x.ssh.OpenChannel("auth-agent@openssh.com", nil)
			if err != nil {
				c.Close()
				continue
			}
			x.work.Go(func() { join(channel, requests, c) })
		}
	})
	return a, nil
}

func (a *agentSocket) close() {
	a.once.Do(func() {
		a.listener.Close()
		os.RemoveAll(a.dir)
	})
}
