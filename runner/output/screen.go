package output

import (
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Screen shows a Progress on the last lines of a terminal while what is written to it goes above them. For its first half second, which is all
// that many runs take, nothing is shown.
//
// Everything that goes to the terminal meanwhile must go through Write, in whole lines. It appears in its order, within a tenth of a second. A
// slow terminal holds Write up, and no more than a few MiB wait for it. When the terminal fails, Write does.
type Screen struct {
	terminal io.Writer
	columns  func() int
	progress *Progress

	mu      sync.Mutex // never held while the terminal is written to by mpb
	start   *time.Timer
	bars    *mpb.Progress // nil: nothing is shown
	rows    []*mpb.Bar
	stopped bool
	failed  bool       // mpb has ended by itself
	waiting int        // bytes that mpb has not written
	drawn   *sync.Cond // waiting has become 0, or nothing is shown any more
}

const (
	screenDelay   = 500 * time.Millisecond
	screenRefresh = 100 * time.Millisecond
	maxWaiting    = 4 << 20
)

// fresh begins what may follow a drawing. mpb goes up to its first line and clears from there on, but stays in the column: where a key has been
// shown, as ^C is, a part of that line would stay.
const fresh = "\r\x1b[K"

// NewScreen begins to show p. columns is the width of the terminal, which stays the caller's; it may change. Stop must be called.
func NewScreen(terminal io.Writer, columns func() int, p *Progress) *Screen {
	s := &Screen{terminal: terminal, columns: columns, progress: p}
	s.drawn = sync.NewCond(&s.mu)
	s.start = time.AfterFunc(screenDelay, s.show)
	return s
}

// show begins to draw.
func (s *Screen) show() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	ended := make(chan any, 1)
	s.bars = mpb.New(mpb.WithOutput(s.terminal), mpb.WithShutdownNotifier(ended), mpb.WithAutoRefresh(), mpb.WithRefreshRate(screenRefresh))
	for row := range 2 {
		filler := mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error { return s.fill(w, row) })
		s.rows = append(s.rows, s.bars.MustAdd(0, filler, mpb.BarRemoveOnComplete(), mpb.BarFillerTrim()))
	}
	go func() {
		<-ended
		s.mu.Lock()
		s.failed = true
		s.drawn.Broadcast()
		s.mu.Unlock()
	}()
}

// fill draws a row. Once there is one, all that was written before is with the terminal, or will be before what comes now.
func (s *Screen) fill(w io.Writer, row int) error {
	if row == 0 {
		s.mu.Lock()
		s.waiting = 0
		s.drawn.Broadcast()
		s.mu.Unlock()
	}
	line := s.progress.lines(time.Now(), s.columns()-1)[row] // in the last column some terminals break the line
	if row == 0 {
		line = fresh + line
	}
	_, err := io.WriteString(w, line)
	return err
}

// Write implements io.Writer.
func (s *Screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	for s.bars != nil && !s.failed && s.waiting >= maxWaiting {
		s.drawn.Wait()
	}
	bars := s.bars
	if bars == nil {
		defer s.mu.Unlock() // in order, and before anything is shown
		return s.terminal.Write(text)
	}
	s.waiting += len(text)
	s.mu.Unlock()
	if _, err := bars.Write(append([]byte(fresh), text...)); err == nil {
		return len(text), nil
	}
	s.hide() // it has stopped, by Stop or since the terminal has failed
	return s.terminal.Write(text)
}

// hide ends the drawing.
func (s *Screen) hide() {
	s.mu.Lock()
	bars, rows := s.bars, s.rows
	s.bars, s.rows = nil, nil
	s.drawn.Broadcast()
	s.mu.Unlock()
	if bars == nil {
		return
	}
	for _, row := range rows {
		row.Abort(true)
	}
	bars.Wait()
}

// Stop removes the progress from the terminal. What is written later goes there as it is. It may be called again.
func (s *Screen) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.start.Stop()
	s.mu.Unlock()
	s.hide()
}
