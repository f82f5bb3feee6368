//go:build unix

package rshtest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"multirsh/transport/testserver"
)

func (x *session) shell() string { return cmp.Or(x.srv.Shell, "/bin/sh") }

// command is SHELL -c COMMAND. The server runs it in a session of its own, as inetd(8) would have it.
func (x *session) command() *exec.Cmd {
	env := x.srv.Env
	if env == nil {
		env = append(os.Environ(), "SHELL="+x.shell(), "USER="+x.RemoteUser)
	}
	return &exec.Cmd{
		Path: x.shell(),
		Args: []string{filepath.Base(x.shell()), "-c", x.Command},
		Dir:  x.srv.Dir,
		Env:  env,
	}
}

// wait waits for the command, and tells its exit status as Session has it.
func wait(p *testserver.Process) int {
	status := p.Wait()
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// exec runs the command on the sockets themselves.
func (x *session) exec() error {
	main, err := handOver(x.srv, &x.main)
	if err != nil {
		return err
	}
	files := []*os.File{main} // the command's, closed here once it has them
	defer func() { closeAll(files) }()
	cmd := x.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = main, main, main
	var fromErr *os.File // netkit: where the command's standard error comes out
	switch {
	case x.stderr != nil && x.srv.Daemon == Netkit:
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		files = append(files, w)
		defer r.Close()
		if !x.srv.core.Own(r) {
			return net.ErrClosed
		}
		defer x.srv.core.Disown(r)
		fromErr, cmd.Stderr = r, w
	case x.stderr != nil:
		f, err := handOver(x.srv, &x.stderr)
		if err != nil {
			return err
		}
		files = append(files, f)
		cmd.Stderr = f
	case x.StderrPort != 0: // and yet no connection back was made
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		files = append(files, null)
		cmd.Stderr = null
	}

	if x.b.Kind == background {
		child := exec.Command("sleep", strconv.FormatFloat(x.b.Pause.Seconds(), 'f', -1, 64))
		child.Stdout = main
		p, err := x.srv.core.Run(child)
		if err != nil {
			return err
		}
		x.srv.core.Go(func() { p.Wait() })
	}
	p, err := x.srv.core.Run(cmd)
	if err != nil {
		fmt.Fprintln(cmd.Stderr, strings.TrimPrefix(err.Error(), "fork/exec "))
		return err
	}
	closeAll(files)
	files = nil
	if fromErr != nil {
		x.relayErr(fromErr, p)
	}
	x.Exit = wait(p)
	return nil
}

// relayErr passes the command's standard error on and takes signals: a byte on the stderr channel is one for the process group.
// It returns when every process has closed its standard error.
func (x *session) relayErr(from io.Reader, p *testserver.Process) {
	var signals sync.WaitGroup
	signals.Go(func() {
		sig := make([]byte, 1)
		for {
			if _, err := x.stderr.Read(sig); err != nil {
				return
			}
			x.Signals = append(x.Signals, sig[0])
			p.Signal(syscall.Signal(sig[0]))
		}
	})
	io.Copy(x.stderr, from)
	if !x.srv.SharedPorts {
		x.stderr.CloseWrite()
	}
	x.stderr.SetReadDeadline(time.Unix(1, 0))
	signals.Wait()
	x.letGo()
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// handOver gives the server's hold on *c away, as a blocking file for a command. *c is closed and set to nil.
func handOver(s *Server, c **net.TCPConn) (*os.File, error) {
	conn := *c
	f, err := conn.File()
	if err != nil {
		return nil, err
	}
	*c = nil
	s.core.Disown(conn)
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
		f.Close()
		conn.Close()
		return nil, err
	}
	return f, conn.Close()
}

// errActed ends a relay: it is time to stall, reset or close.
var errActed = errors.New("the behaviour's phase is reached")

// relay runs the command on socket pairs and passes its streams on, as x's behaviour has it.
func (x *session) relay() error {
	mainEnd, mainFile, err := x.socketPair()
	if err != nil {
		return err
	}
	defer x.drop(mainEnd)
	files := []*os.File{mainFile}
	defer func() { closeAll(files) }()
	cmd := x.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = mainFile, mainFile, mainFile
	var errEnd *net.UnixConn
	if x.stderr != nil {
		end, file, err := x.socketPair()
		if err != nil {
			return err
		}
		defer x.drop(end)
		files = append(files, file)
		errEnd, cmd.Stderr = end, file
	}
	p, err := x.srv.core.Run(cmd)
	if err != nil {
		return x.complain(err)
	}
	closeAll(files)
	files = nil

	var input, out sync.WaitGroup
	input.Go(func() {
		io.Copy(mainEnd, x.main)
		mainEnd.CloseWrite()
	})
	stop := sync.OnceFunc(func() { // ends both channels' relays, blocked or not
		p.Signal(syscall.SIGKILL)
		mainEnd.Close()
		x.main.SetDeadline(time.Unix(1, 0))
		if errEnd != nil {
			errEnd.Close()
			x.stderr.SetDeadline(time.Unix(1, 0))
		}
	})
	errs := make([]error, 2)
	pass := func(i int, from *net.UnixConn, to *net.TCPConn) {
		out.Go(func() {
			m := &meddler{x: x, to: to, stderr: i == 1}
			if errs[i] = m.run(from); errs[i] != nil {
				stop()
			}
		})
	}
	pass(0, mainEnd, x.main)
	if errEnd != nil {
		pass(1, errEnd, x.stderr)
	}
	out.Wait()
	x.main.SetReadDeadline(time.Unix(1, 0))
	input.Wait()
	if errs[0] != nil || errs[1] != nil {
		stop()
	}
	x.Exit = wait(p)
	for _, c := range []*net.TCPConn{x.main, x.stderr} {
		if c != nil {
			c.SetDeadline(time.Time{})
		}
	}

	switch {
	case errors.Is(errs[0], errActed) || errors.Is(errs[1], errActed):
		return x.misbehave()
	case errs[0] != nil || errs[1] != nil:
		x.End = errors.Join(errs...)
		x.abort()
	case x.b.at(PhaseEnd):
		return x.misbehave()
	case x.b.Kind == neverClose:
		<-x.srv.core.Context().Done()
	}
	return nil
}

// socketPair makes a server's end, which drop closes, and a command's.
func (x *session) socketPair() (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	mine := os.NewFile(uintptr(fds[0]), "server")
	defer mine.Close() // FileConn makes its own copy
	theirs := os.NewFile(uintptr(fds[1]), "command")
	c, err := net.FileConn(mine)
	if err == nil && !x.srv.core.Own(c) {
		err = net.ErrClosed
	}
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

func (x *session) drop(c *net.UnixConn) {
	c.Close()
	x.srv.core.Disown(c)
}

// meddler passes one channel of a command on.
type meddler struct {
	x      *session
	to     io.Writer
	stderr bool
	wrapped,
	hugeDone bool
}

func (m *meddler) run(from io.Reader) error {
	// A command that ends with input unread resets its socket pair; all it has written has come before that.
	if err := pieces(from, m.piece); err != nil && !(errors.Is(err, syscall.ECONNRESET) && isRead(err)) {
		return err
	}
	// The end of a bare command's output stands for its trailer.
	b := m.x.b
	switch {
	case m.wrapped || m.stderr:
		return nil
	case b.at(PhaseTrailer), b.at(PhaseOutput):
		return errActed
	}
	return m.enlarge()
}

func isRead(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "read"
}

func (m *meddler) piece(kind piece, data []byte) error {
	b := m.x.b
	if b.at(PhaseOutput) && !m.stderr && kind != leader {
		if _, err := m.to.Write(data[:len(data)/2]); err != nil {
			return err
		}
		return errActed
	}
	switch kind {
	case leader:
		m.wrapped = true
		if b.Kind == leaderOn && !m.chosen(b.Word) {
			return nil
		}
		if err := m.write(data); err != nil {
			return err
		}
		if b.Kind == falseTrailer {
			return m.write(otherTrailer(data))
		}
		return m.enlarge()
	case trailer:
		switch {
		case b.at(PhaseTrailer) && m.stderr:
			return nil
		case b.at(PhaseTrailer):
			return errActed
		case b.Kind == trailerOn && !m.chosen(b.Word):
			return nil
		}
	}
	return m.write(data)
}

// chosen reports whether channel is this one.
func (m *meddler) chosen(channel string) bool {
	return m.stderr && channel == onStderr || !m.stderr && channel == onStdout
}

// otherTrailer is a trailer as it would follow another leader than this one.
func otherTrailer(leader []byte) []byte {
	t := append(make([]byte, 0, markMax), leader[0])
	for _, c := range leader[1 : 1+nonceLen] {
		t = append(t, "123456789abcdef0"[hexValue(c)])
	}
	return append(t, "-0\n"...)
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'a' + 10
}

// enlarge writes the huge output.
func (m *meddler) enlarge() error {
	if m.x.b.Kind != huge || m.stderr || m.hugeDone {
		return nil
	}
	m.hugeDone = true
	return testserver.WriteLines(m.to, m.x.b.N)
}

func (m *meddler) write(data []byte) (err error) {
	if m.x.b.Kind == slow {
		_, err = m.x.srv.core.Drip(m.to, data, m.x.b.Pause)
	} else {
		_, err = m.to.Write(data)
	}
	return err
}
