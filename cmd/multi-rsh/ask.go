package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Whether an answer is shown while it is typed.
const (
	visible = false
	hidden  = true
)

var errNoTerminal = errors.New("there is no terminal to ask on")

// ask puts a question on the terminal and returns the line that is typed there, io.EOF for none. At the end of ctx it
// gives up, with the terminal as it was.
func (e *env) ask(ctx context.Context, question string, secret bool) (string, error) {
	tty, err := e.Terminal()
	if err != nil {
		return "", errNoTerminal
	}
	fd := int(tty.Fd())
	restore := func() {}
	if secret {
		// Before there is a question, unlike term.ReadPassword: who answers at once, as a script, is not shown either.
		if restore, err = noEcho(fd); err != nil {
			tty.Close()
			return "", errNoTerminal
		}
	}
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		_, err := io.WriteString(tty, question)
		line := ""
		if err == nil {
			line, err = bufio.NewReader(tty).ReadString('\n')
		}
		answered <- answer{strings.TrimSuffix(line, "\n"), err}
	}()
	select {
	case a := <-answered:
		if secret || a.err != nil { // whose end of line was not shown
			io.WriteString(tty, "\n")
		}
		restore()
		tty.Close()
		return a.line, a.err
	case <-ctx.Done():
		// Nothing ends a read of a terminal on all systems. The process ends instead, and it soon does: this was a signal.
		restore()
		io.WriteString(tty, "\n")
		return "", context.Cause(ctx)
	}
}

// noEcho has a terminal not show what is typed, until restore is called.
func noEcho(fd int) (restore func(), err error) {
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, setTermios, &silent); err != nil {
		return nil, err
	}
	return func() { unix.IoctlSetTermios(fd, setTermios, before) }, nil
}
