package output

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"multirsh/runner"
)

// emulator is a terminal, as far as a Screen needs one: ECMA-48's CUU, ED and EL.
type emulator struct {
	mu      sync.Mutex
	rows    [][]rune
	y, x    int
	width   int
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

// screen is what is to be seen.
func (m *emulator) screen() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, row := range m.rows {
		b.WriteString(strings.TrimRight(string(row), " ") + "\n")
	}
	return b.String()
}

func TestScreen(t *testing.T) {
	for _, width := range []int{20, 80} {
		synctest.Test(t, func(t *testing.T) {
			m := &emulator{width: width}
			p := &Progress{Total: 50}
			s := NewScreen(m, func() int { return width }, p)
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
		s := NewScreen(m, func() int { return 80 }, &Progress{Total: 1})
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
		s := NewScreen(m, func() int { return 80 }, &Progress{Total: 1})
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
		if ended || written > maxWaiting+len(part) {
			t.Errorf("%d bytes were taken for a terminal that takes none", written)
		}
		m.mu.Lock()
		m.hold = nil
		m.mu.Unlock()
		close(hold)
		time.Sleep(time.Minute)
		synctest.Wait()
		if !ended || m.largest > maxWaiting+2*len(part) {
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
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("the terminal is gone")
		m := &emulator{width: 80}
		s := NewScreen(m, func() int { return 80 }, &Progress{Total: 1})
		time.Sleep(time.Second)
		m.mu.Lock()
		m.err = gone
		m.mu.Unlock()
		time.Sleep(time.Second)
		if _, err := s.Write([]byte("node000: hi\n")); err != gone {
			t.Errorf("error %v, want %v", err, gone)
		}
		s.Stop()
	})
}
