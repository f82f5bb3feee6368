package output

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner"
)

// emulator is a terminal, as far as a Screen needs one: ECMA-48's CUU, ED and EL.
type emulator struct {
	mu      sync.Mutex
	rows    [][]rune
	y, x    int
	width   int
	writes  int
	largest int   // of the writes
	err     error // of every Write, once it is set
	unknown []string
	hold    chan struct{} // not nil: a Write waits until it is closed
}

func (m *emulator) Write(p []byte) (int, error) {
	m.mu.Lock()
	hold := m.hold
	m.mu.Unlock()
	if hold != nil {
		<-hold
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	m.writes++
	m.largest = max(m.largest, len(p))
	text := string(p)
	for text != "" {
		if rest, is := strings.CutPrefix(text, "\x1b["); is {
			end := strings.IndexFunc(rest, func(r rune) bool { return r >= '@' })
			n, _ := strconv.Atoi(rest[:end])
			switch rest[end] {
			case 'A':
				m.y = max(0, m.y-max(1, n))
			case 'J':
				m.rows = m.rows[:min(len(m.rows), m.y+1)]
				fallthrough
			case 'K':
				if m.y < len(m.rows) {
					m.rows[m.y] = m.rows[m.y][:min(len(m.rows[m.y]), m.x)]
				}
			default:
				m.unknown = append(m.unknown, rest[:end+1])
			}
			text = rest[end+1:]
			continue
		}
		switch c := text[0]; c {
		case '\n': // with the carriage return that the line discipline adds (ONLCR)
			m.y, m.x = m.y+1, 0
		case '\r':
			m.x = 0
		default:
			if m.x == m.width {
				m.y, m.x = m.y+1, 0
			}
			for len(m.rows) <= m.y {
				m.rows = append(m.rows, nil)
			}
			for len(m.rows[m.y]) <= m.x {
				m.rows[m.y] = append(m.rows[m.y], ' ')
			}
			m.rows[m.y][m.x] = rune(c)
			m.x++
		}
		text = text[1:]
	}
	return len(p), nil
}

// screen is what is to be seen, as far as the cursor's line if there is nothing below it.
func (m *emulator) screen() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for y, row := range m.rows {
		if y < m.y || len(row) > 0 {
			b.WriteString(strings.TrimRight(string(row), " ") + "\n")
		}
	}
	for y := len(m.rows); y < m.y; y++ {
		b.WriteByte('\n')
	}
	return b.String()
}

func TestScreen(t *testing.T) {
	for _, width := range []int{20, 80} {
		synctest.Test(t, func(t *testing.T) {
			m := &emulator{width: width}
			p := &Progress{Total: 50}
			s := newScreen(m, p)
			var want strings.Builder
			line := func(n int) {
				text := fmt.Sprintf("node%03d: x%s", n, strings.Repeat("x", n))
				fmt.Fprintln(s, text)
				for len(text) > width {
					fmt.Fprintln(&want, text[:width])
					text = text[width:]
				}
				fmt.Fprintln(&want, text)
			}
			for n := range 50 {
				feedMore(t, p, runner.Event{Kind: runner.Start, Time: time.Now(), Seq: n, Host: host(n)})
				line(n)
				time.Sleep(30 * time.Millisecond)
				if n == 10 {
					if got := m.screen(); got != want.String() {
						t.Fatalf("within the first half second:\n%s\nwant:\n%s", got, want.String())
					}
				}
				if n == 40 { // a key was pressed
					m.Write([]byte("^C"))
				}
				feedMore(t, p, ok(n))
			}
			feedMore(t, p, runner.Event{Kind: runner.Start, Time: time.Now(), Seq: 50, Host: host(50)})
			time.Sleep(1500 * time.Millisecond)
			lines := p.lines(time.Now(), width-1)
			if got, want := m.screen(), want.String()+lines[0]+"\n"+lines[1]+"\n"; got != want {
				t.Errorf("at %d columns:\n%s\nwant:\n%s", width, got, want)
			}
			line(50)
			s.Stop()
			line(51)
			s.Stop()
			if got := m.screen(); got != want.String() {
				t.Errorf("at the end, at %d columns:\n%s\nwant:\n%s", width, got, want.String())
			}
			if m.unknown != nil {
				t.Errorf("the terminal got sequences that it does not know: %q", m.unknown)
			}
		})
	}
}

// A run that is over soon shows nothing.
func TestScreenShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 80}
		s := newScreen(m, &Progress{Total: 1})
		fmt.Fprintln(s, "node000: hi")
		time.Sleep(screenDelay - 1)
		s.Stop()
		time.Sleep(time.Minute)
		if got := m.screen(); got != "node000: hi\n" {
			t.Errorf("%q", got)
		}
	})
}

// A terminal that takes nothing holds writers up, and little waits for it.
func TestScreenSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 80}
		s := newScreen(m, &Progress{Total: 1})
		time.Sleep(time.Second)
		hold := make(chan struct{})
		m.mu.Lock()
		m.hold = hold
		m.mu.Unlock()
		part := []byte(strings.Repeat(strings.Repeat("x", 63)+"\n", 1024)) // 64 KiB
		written, ended := 0, false
		go func() {
			for range 200 {
				s.Write(part)
				written += len(part)
			}
			ended = true
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if ended || written > 2*maxWaiting+len(part) {
			t.Errorf("%d bytes were taken for a terminal that takes none", written)
		}
		m.mu.Lock()
		m.hold = nil
		m.mu.Unlock()
		close(hold)
		time.Sleep(time.Minute)
		synctest.Wait()
		if !ended || m.largest > 2*maxWaiting+2*len(part) {
			t.Errorf("all was taken: %v; the largest write was of %d bytes", ended, m.largest)
		}
		s.Stop()
		if got := strings.Count(m.screen(), "x\n"); got != 200*1024 {
			t.Errorf("%d lines, want %d", got, 200*1024)
		}
	})
}

// The error of a terminal that has gone reaches who writes, and nothing hangs.
func TestScreenGone(t *testing.T) {
	gone := errors.New("the terminal is gone")
	for _, tt := range []struct {
		name string
		then func(t *testing.T, s *Screen) error
	}{
		{"the next text", func(t *testing.T, s *Screen) error {
			_, err := s.Write([]byte("node000: there\n"))
			return err
		}},
		{"a text that does not end its line", func(t *testing.T, s *Screen) error {
			_, err := s.Write([]byte("node000: there"))
			return err
		}},
		{"the end", func(t *testing.T, s *Screen) error { return s.Stop() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &emulator{width: 80}
				s := newScreen(m, &Progress{Total: 1})
				time.Sleep(time.Second)
				m.mu.Lock()
				m.err = gone
				m.mu.Unlock()
				if _, err := s.Write([]byte("node000: hi\n")); err != nil {
					t.Fatal("before anybody could know: ", err)
				}
				time.Sleep(time.Second)
				if err := tt.then(t, s); err != gone {
					t.Errorf("error %v, want %v", err, gone)
				}
				if err := s.Stop(); err != nil {
					t.Errorf("told twice: %v", err)
				}
				if _, err := s.Write([]byte("1 host: 1 ok\n")); err != gone {
					t.Errorf("after the end: error %v, want the terminal's", err)
				}
			})
		})
	}
}

// A terminal that has gone while nothing was written to it is nobody's trouble.
func TestScreenGoneUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 80}
		p := &Progress{Total: 1}
		s := newScreen(m, p)
		time.Sleep(time.Second)
		m.mu.Lock()
		m.err = errors.New("gone")
		m.mu.Unlock()
		feedMore(t, p, runner.Event{Kind: runner.Start, Time: time.Now(), Host: host(0)})
		time.Sleep(time.Second)
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// newScreen is of a terminal with 24 rows.
func newScreen(m *emulator, p *Progress) *Screen {
	return NewScreen(m, func() (int, int) { return m.width, 24 }, p)
}

// Pieces of text are not eaten, wherever they end: as of Fold, which writes when its buffer is full.
func TestScreenPieces(t *testing.T) {
	for _, size := range []int{1, 7, 500, 4096, 64 << 10, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			m := &emulator{width: 80}
			s := newScreen(m, &Progress{Total: 1})
			time.Sleep(time.Second)
			var want strings.Builder
			for n := range 200 {
				fmt.Fprintf(&want, "%d %s\n", n, strings.Repeat("x", 1+n%70))
			}
			for text := want.String(); text != ""; {
				n := min(size, len(text))
				if got, err := io.WriteString(s, text[:n]); got != n || err != nil {
					t.Fatal(got, err)
				}
				text = text[n:]
				time.Sleep(17 * time.Millisecond)
			}
			s.Stop()
			if got := m.screen(); got != want.String() {
				t.Errorf("in pieces of %d bytes (-want +got):\n%s", size, cmp.Diff(want.String(), got))
			}
		})
	}
}

// While a line is not ended it stands alone, and the progress comes again behind its end.
func TestScreenOpenLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 80}
		s := newScreen(m, &Progress{Total: 1})
		time.Sleep(time.Second)
		io.WriteString(s, "first\nsecond")
		time.Sleep(time.Minute)
		if got, want := m.screen(), "first\nsecond\n"; got != want {
			t.Errorf("open:\n%s\nwant:\n%s", got, want)
		}
		io.WriteString(s, ", ended\n")
		time.Sleep(time.Second)
		if got, want := m.screen(), "first\nsecond, ended\n0/1 done, 0 running\n\n"; got != want {
			t.Errorf("ended:\n%s\nwant:\n%s", got, want)
		}
		io.WriteString(s, "third")
		s.Stop()
		if got, want := m.screen(), "first\nsecond, ended\nthird\n"; got != want {
			t.Errorf("at the end:\n%s\nwant:\n%s", got, want)
		}
	})
}

// What a terminal shows of keys is cleared with the lines.
func TestScreenKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 80}
		p := &Progress{Total: 2}
		s := newScreen(m, p)
		time.Sleep(time.Second)
		io.WriteString(m, "^C")
		feedMore(t, p, runner.Event{Kind: runner.Start, Time: time.Now(), Host: host(0)})
		time.Sleep(500 * time.Millisecond)
		if got, want := m.screen(), "0/2 done, 1 running\nslowest: node000 0s\n"; got != want {
			t.Errorf("drawn again:\n%s\nwant:\n%s", got, want)
		}
		io.WriteString(m, "^C")
		s.Stop()
		if got := m.screen(); got != "" {
			t.Errorf("at the end:\n%s", got)
		}
	})
}

// Nothing is between Pause and Resume but what is written.
func TestScreenPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 80}
		s := newScreen(m, &Progress{Total: 1})
		s.Resume() // of nothing
		time.Sleep(time.Second)
		fmt.Fprintln(s, "before")
		s.Pause()
		if got, want := m.screen(), "before\n"; got != want {
			t.Errorf("paused:\n%s\nwant:\n%s", got, want)
		}
		m.Write([]byte("go on? yes\n")) // a question elsewhere
		fmt.Fprintln(s, "meanwhile")
		s.Pause()
		time.Sleep(time.Minute)
		if got, want := m.screen(), "before\ngo on? yes\nmeanwhile\n"; got != want {
			t.Errorf("a minute on:\n%s\nwant:\n%s", got, want)
		}
		s.Resume()
		fmt.Fprintln(s, "after")
		time.Sleep(time.Second)
		if got, want := m.screen(), "before\ngo on? yes\nmeanwhile\nafter\n0/1 done, 0 running\n\n"; got != want {
			t.Errorf("resumed:\n%s\nwant:\n%s", got, want)
		}
		s.Pause()
		s.Stop()
		if got, want := m.screen(), "before\ngo on? yes\nmeanwhile\nafter\n"; got != want {
			t.Errorf("at the end:\n%s\nwant:\n%s", got, want)
		}
	})
}

// The lines follow the size of the terminal, and there are none where there is no room.
func TestScreenResized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 80}
		var size struct {
			sync.Mutex
			columns, rows int
		}
		resize := func(columns, rows int) {
			size.Lock()
			size.columns, size.rows = columns, rows
			size.Unlock()
			time.Sleep(time.Second)
		}
		p := &Progress{Total: 640}
		for seq := range 3 {
			feedMore(t, p, ok(seq))
		}
		time.Sleep(time.Hour)
		s := NewScreen(m, func() (int, int) {
			size.Lock()
			defer size.Unlock()
			return size.columns, size.rows
		}, p)
		for _, tt := range []struct {
			columns, rows int
			shown         bool
		}{{0, 0, false}, {80, 24, true}, {20, 24, true}, {200, 4, true}, {80, 3, false}, {80, 1, false}, {40, 24, true}, {-1, -1, false}} {
			fmt.Fprintln(s, "x")
			resize(tt.columns, tt.rows)
			want := ""
			if tt.shown {
				lines := p.lines(time.Now(), tt.columns-1)
				want = lines[0] + "\n" + lines[1] + "\n"
			}
			if got := strings.TrimLeft(m.screen(), "x\n"); got != want {
				t.Errorf("%d by %d:\n%s\nwant:\n%s", tt.columns, tt.rows, got, want)
			}
		}
		s.Stop()
		if got, want := m.screen(), strings.Repeat("x\n", 8); got != want {
			t.Errorf("at the end:\n%s\nwant:\n%s", got, want)
		}
	})
}

// What has not changed is not drawn again, and what changes all the time ten times a second.
func TestScreenRedraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 80}
		p := &Progress{Total: 1 << 30}
		s := newScreen(m, p)
		defer s.Stop()
		writes := func(f func()) int {
			m.mu.Lock()
			before := m.writes
			m.mu.Unlock()
			f()
			synctest.Wait()
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.writes - before
		}
		if n := writes(func() { time.Sleep(time.Hour) }); n != 1 {
			t.Errorf("%d writes for nothing, want 1", n)
		}
		if n := writes(func() {
			for seq := range 100_000 {
				feedMore(t, p, runner.Event{Kind: runner.Start, Time: time.Now(), Seq: seq, Host: host(seq)}, ok(seq))
				if seq%100 == 0 {
					fmt.Fprintln(s, seq)
				}
				time.Sleep(time.Millisecond / 10)
			}
		}); n < 90 || n > 101 {
			t.Errorf("%d writes in ten seconds, want 100", n)
		}
	})
}

// Of many writers each has its lines on the screen in its order, also where the progress comes and goes, and ends, meanwhile.
func TestScreenWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const writers, lines = 5, 400
		m := &emulator{width: 80}
		s := newScreen(m, &Progress{Total: 1})
		time.Sleep(time.Second)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for n := range lines {
					fmt.Fprintf(s, "%d %d\n", w, n)
					time.Sleep(time.Duration(1+w) * time.Millisecond)
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				s.Pause()
				time.Sleep(11 * time.Millisecond)
				s.Resume()
				time.Sleep(20 * time.Millisecond)
			}
		})
		for range 2 {
			wg.Go(func() {
				time.Sleep(1234 * time.Millisecond)
				s.Stop()
			})
		}
		wg.Wait()
		var next [writers]int
		for line := range strings.Lines(m.screen()) {
			var w, n int
			if _, err := fmt.Sscanf(line, "%d %d\n", &w, &n); err != nil || n != next[w] {
				t.Fatalf("%q where line %d was to come", line, next[w])
			}
			next[w]++
		}
		if next != [writers]int{lines, lines, lines, lines, lines} {
			t.Errorf("lines: %v, want %d of each", next, lines)
		}
	})
}

// A text larger than what may wait goes in parts, at the ends of its lines; a line goes whole.
func TestScreenLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &emulator{width: 1 << 20}
		s := newScreen(m, &Progress{Total: 1})
		time.Sleep(time.Second)
		var text strings.Builder
		for n := range 20_000 {
			fmt.Fprintln(&text, n, strings.Repeat("x", 100))
		}
		text.WriteString(strings.Repeat("y", 2*maxWaiting) + "\nz\n")
		if n, err := io.WriteString(s, text.String()); n != text.Len() || err != nil {
			t.Error(n, err)
		}
		s.Stop()
		if got := m.screen(); got != text.String() {
			t.Errorf("%d bytes are on the screen, want %d", len(got), text.Len())
		}
		if m.largest > 5*maxWaiting {
			t.Errorf("the largest write was of %d bytes", m.largest)
		}
	})
}
