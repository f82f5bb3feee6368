package output

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Screen shows a Progress on the last lines of a terminal while what is written to it goes above them.
//
//	Write ─► mpb's buffer ─► up to the first line, clear; what was written; the lines again ─► terminal
//	                at most ten times a second, or when much has been written
//
// Everything that goes to the terminal meanwhile must go through Write. Nothing is shown in the first half second, which is all that many
// runs take; on a terminal with less than four rows; and while the text above does not end with its line.
type Screen struct {
	terminal io.Writer
	size     func() (columns, rows int)
	progress *Progress
	quit     chan struct{} // closed by Stop
	gone     chan struct{} // closed when the goroutine that draws has ended

	turn    turn // held while the terminal is waited for: it holds writers and the drawing up alike
	bars    *mpb.Progress
	rows    [2]*mpb.Bar
	drawing chan any // asks mpb for one; nil: nothing is shown
	waiting int      // bytes written since it was asked
	buf     []byte
	open    bool // the last text has not ended its line
	paused  int  // Pause without its Resume
	stopped bool
	lost    bool // a text that mpb took may not have come to the terminal, and no Write has said so

	lines  atomic.Pointer[[2]string] // that mpb draws
	output outlet
}

const (
	screenDelay   = 500 * time.Millisecond
	screenRefresh = 100 * time.Millisecond
	screenRows    = 4         // with fewer the lines would scroll out at every drawing
	maxWaiting    = 256 << 10 // bytes, after which a drawing is asked for; twice that, and a text, may wait for a slow terminal
)

// fresh begins what may follow a drawing. mpb goes up to its first line and clears from there on, but stays in the column: where a key has been
// shown, as ^C is, a part of that line would stay.
const fresh = "\r\x1b[K"

// turn is a mutex that is had in the order in which it was asked for.
type turn chan struct{}

func (t turn) take() { t <- struct{}{} }
func (t turn) end()  { <-t }

// outlet is the terminal as mpb writes to it. mpb keeps the errors for itself.
type outlet struct {
	io.Writer
	failed chan struct{} // closed when err is set
	err    error
}

func (o *outlet) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil && o.err == nil {
		o.err = err
		close(o.failed)
	}
	return n, err
}

// failure is the error that mpb has met.
func (o *outlet) failure() error {
	select {
	case <-o.failed:
		return o.err
	default:
		return nil
	}
}

// NewScreen begins to show p. size is that of the terminal, and may change; zeros: it is not known, and nothing is shown. The terminal stays the
// caller's. Stop must be called.
func NewScreen(terminal io.Writer, size func() (columns, rows int), p *Progress) *Screen {
	s := &Screen{
		terminal: terminal, size: size, progress: p, quit: make(chan struct{}), gone: make(chan struct{}),
		turn: make(turn, 1), output: outlet{Writer: terminal, failed: make(chan struct{})},
	}
	go func() {
		defer close(s.gone)
		for wait := screenDelay; ; wait = screenRefresh {
			select {
			case <-time.After(wait):
				s.tick()
			case <-s.quit:
				return
			}
		}
	}()
	return s
}

// tick has things as they should be now.
func (s *Screen) tick() {
	s.turn.take()
	defer s.turn.end()
	columns, rows := s.size()
	if rows < screenRows || s.stopped || s.paused > 0 || s.open || s.output.failure() != nil {
		s.hide()
		return
	}
	lines := s.progress.lines(time.Now(), columns-1) // in the last column some terminals break the line
	before := s.lines.Swap(&lines)
	if s.bars == nil {
		s.show()
	} else if s.waiting == 0 && *before == lines {
		return
	}
	s.draw()
}

// show begins to draw. The caller has the turn, as for hide and draw.
func (s *Screen) show() {
	s.drawing = make(chan any)
	s.bars = mpb.New(mpb.WithOutput(&s.output), mpb.WithManualRefresh(s.drawing))
	for row := range s.rows {
		filler := mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error {
			line := s.lines.Load()[row]
			if row == 0 {
				line = fresh + line
			}
			_, err := io.WriteString(w, line)
			return err
		})
		s.rows[row] = s.bars.MustAdd(0, filler, mpb.BarRemoveOnComplete(), mpb.BarFillerTrim())
	}
}

// draw has mpb write what it has. It returns when that has begun, or before; but all earlier drawings have begun then.
func (s *Screen) draw() {
	select {
	case s.drawing <- nil:
	case <-s.output.failed:
	}
	s.waiting = 0
}

// hide removes the lines, if there are any, and waits until all is with the terminal.
func (s *Screen) hide() {
	if s.bars == nil {
		return
	}
	for _, row := range s.rows {
		row.Abort(true)
	}
	for range 3 { // mpb draws what has ended twice more, and then without it; it does not end before it has done what it was asked for
		s.draw()
	}
	s.bars.Wait()
	s.bars = nil
	if s.output.failure() == nil {
		io.WriteString(&s.output, fresh)
	}
	s.lost = s.lost && s.output.failure() != nil
}

// Write implements io.Writer. The text appears in its order, within a tenth of a second. A slow terminal holds Write up. When the terminal
// has failed the next Write tells it, and so do all until Stop.
func (s *Screen) Write(text []byte) (n int, err error) {
	s.turn.take()
	defer s.turn.end()
	if len(text) == 0 {
		return 0, nil
	}
	s.open = text[len(text)-1] != '\n'
	if s.open && !s.stopped {
		s.hide()
	}
	if s.bars == nil && (s.stopped || s.output.failure() == nil) {
		return s.terminal.Write(text)
	}
	for n < len(text) {
		part := text[n:]
		if len(part) > maxWaiting {
			end := bytes.LastIndexByte(part[:maxWaiting], '\n')
			if end < 0 {
				end = maxWaiting + bytes.IndexByte(part[maxWaiting:], '\n')
			}
			part = part[:end+1]
		}
		if err = s.output.failure(); err == nil {
			s.buf = append(append(s.buf[:0], fresh...), part...)
			if _, err = s.bars.Write(s.buf); err != nil {
				err = s.output.failure() // for which alone mpb ends
			}
		}
		if err != nil {
			s.lost = false
			return n, err
		}
		n += len(part)
		s.lost = true
		if s.waiting += len(part); s.waiting >= maxWaiting {
			s.draw()
		}
	}
	return n, nil
}

// Pause removes the lines from the terminal until as many calls of Resume, as for a question; what is written meanwhile goes there directly.
func (s *Screen) Pause() {
	s.turn.take()
	defer s.turn.end()
	s.paused++
	s.hide()
}

// Resume ends a Pause.
func (s *Screen) Resume() {
	s.turn.take()
	defer s.turn.end()
	s.paused--
}

// Stop removes the lines from the terminal. What is written later goes there directly. An error is the terminal's, if it has cost text and no
// Write has told it. Stop waits for the terminal, which may hang. It may be called again.
func (s *Screen) Stop() error {
	s.turn.take()
	if !s.stopped {
		s.stopped = true
		close(s.quit)
		s.hide()
	}
	var err error
	if s.lost {
		s.lost, err = false, s.output.failure()
	}
	s.turn.end()
	<-s.gone
	return err
}
