package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"golang.org/x/term"
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
	before, err := term.GetState(fd)
	if err != nil {
		tty.Close()
		return "", errNoTerminal
	}
	if _, err := io.WriteString(tty, question); err != nil {
		tty.Close()
		return "", errNoTerminal
	}
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		if !secret {
			line, err := bufio.NewReader(tty).ReadString('\n')
			answered <- answer{strings.TrimSuffix(line, "\n"), err}
			return
		}
		line, err := term.ReadPassword(fd)
		answered <- answer{string(line), err}
	}()
	select {
	case a := <-answered:
		if secret || a.err != nil { // whose end of line was not shown
			io.WriteString(tty, "\n")
		}
		tty.Close()
		return a.line, a.err
	case <-ctx.Done():
		// Nothing ends a read of a terminal on all systems. The process ends instead, and it soon does: this is a Ctrl-C.
		term.Restore(fd, before)
		io.WriteString(tty, "\n")
		return "", context.Cause(ctx)
	}
}
