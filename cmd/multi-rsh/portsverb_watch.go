package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// errEnough is the end of a watch that somebody asked for at the terminal.
var errEnough = errors.New("enough")

// watch shows the ports again each second, until a key or a signal ends it. Ctrl-C is the usual way to do that, and no failure.
func (q *portsQuery) watch() error {
	signals := q.Signals()
	if err := q.before(signals, func(ctx context.Context) error { q.ctx = ctx; return q.resolve() }); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	q.ctx = ctx
	go func() {
		select {
		case signal := <-signals:
			if signal == os.Interrupt {
				stop(errEnough)
			} else {
				stop(&stopped{signal})
			}
		case <-ctx.Done():
		}
	}()
	draw := q.drawJSON
	if !q.is("json") {
		leave, err := q.takeScreen(stop)
		if err != nil {
			return err
		}
		defer leave()
		draw = q.drawScreen
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		err := draw(ctx)
		if err == nil {
			select {
			case <-second.C:
				continue
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	}
}

// drawJSON writes a document.
func (q *portsQuery) drawJSON(ctx context.Context) error {
	p, err := q.read(false)
	if err != nil {
		return err
	}
	out := newPrinter(ctx, q.Stdout, "")
	out.json(p.document())
	return out.done()
}

// Control sequences of xterm, which every terminal of today knows.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // a screen of its own, no cursor, lines end at the edge
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// takeScreen prepares the terminal, and has the keys that are typed call stop. leave gives the terminal back as it was.
func (q *portsQuery) takeScreen(stop func(error)) (leave func(), err error) {
	tty, err := q.Terminal()
	if err != nil { // a terminal that is not ours has no keys for us; signals still end it
		io.WriteString(q.Stdout, enterScreen)
		return func() { io.WriteString(q.Stdout, leaveScreen) }, nil
	}
	restore, err := singleKeys(int(tty.Fd()))
	if err != nil {
		tty.Close()
		return nil, fmt.Errorf("the terminal cannot be set to single keys: %w", err)
	}
	io.WriteString(q.Stdout, enterScreen)
	go func() { // left behind in its read, as the process then ends
		key := make([]byte, 1)
		for {
			if _, err := tty.Read(key); err != nil {
				stop(&stopped{syscall.SIGHUP})
				return
			}
			switch key[0] {
			case 'q', 'Q', 'C' & 0x1f, 'D' & 0x1f:
				stop(errEnough)
				return
			}
		}
	}()
	return func() {
		io.WriteString(q.Stdout, leaveScreen)
		restore()
	}, nil
}

// singleKeys has a terminal hand over each key as it is typed, Ctrl-C, Ctrl-Z and Ctrl-S among them, and show none, until
// restore is called: who stops or holds us with the screen taken would be left with a terminal that shows nothing.
func singleKeys(fd int) (restore func(), err error) {
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	keys := *before
	keys.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG | unix.IEXTEN
	keys.Iflag &^= unix.IXON
	keys.Cc[unix.VMIN], keys.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, setTermios, &keys); err != nil {
		return nil, err
	}
	return func() { unix.IoctlSetTermios(fd, setTermios, before) }, nil
}

// drawScreen draws the screen anew, over what it shows, so that it does not flicker.
func (q *portsQuery) drawScreen(ctx context.Context) error {
	columns, rows := 80, 24
	if file, is := terminal(q.Stdout); is {
		if w, h, err := term.GetSize(int(file.Fd())); err == nil && w > 0 && h > 0 {
			columns, rows = w, h // it may have changed
		}
	}
	p, err := q.read(false)
	if err != nil {
		return err
	}
	out := newPrinter(ctx, q.Stdout, "")
	view := q.view(out)
	view.Width = columns
	out.Write(frame(p, view, rows))
	return out.done()
}

// frame is a screen of so many rows, with as much of the table as there is room for.
func frame(p *portsPicture, view *portsView, rows int) []byte {
	var text bytes.Buffer
	view.W = &text
	fmt.Fprintf(&text, "%s  each second, q ends\n", p.time.Format(time.TimeOnly))
	view.picture(p)
	const around = 4 // an empty line and the heading before the table, and two lines after it
	view.table(p, min(len(p.sockets), max(0, rows-bytes.Count(text.Bytes(), []byte("\n"))-around)))
	lines := bytes.Split(bytes.TrimSuffix(text.Bytes(), []byte("\n")), []byte("\n"))
	lines = lines[:min(len(lines), rows)]
	for i := range lines {
		lines[i] = cutLine(lines[i], view.Width)
	}
	more := len(lines) < rows
	// What is cleared begins where the cursor is, which behind a line as wide as the screen is on its last character: so at the beginning.
	screen := []byte(home + clearLine)
	screen = append(screen, bytes.Join(lines, []byte("\r\n"+clearLine))...)
	if more {
		screen = append(screen, "\r\n"+clearRest...)
	}
	return screen
}

// colors are what Stream.Paint writes around a text.
var colors = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// cutLine shortens a line to so many characters, and keeps its colours.
func cutLine(line []byte, width int) []byte {
	var cut []byte
	for len(line) > 0 {
		text, color := line, []byte(nil)
		if at := colors.FindIndex(line); at != nil {
			text, color = line[:at[0]], line[at[0]:at[1]]
		}
		line = line[len(text)+len(color):]
		for len(text) > 0 && width > 0 {
			_, n := utf8.DecodeRune(text)
			cut, text, width = append(cut, text[:n]...), text[n:], width-1
		}
		cut = append(cut, color...)
	}
	return cut
}
