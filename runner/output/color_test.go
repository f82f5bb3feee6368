package output

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"multirsh/runner"
	"multirsh/transport"
)

func TestColors(t *testing.T) {
	for _, tt := range []struct {
		when     string
		terminal bool
		env      string
		want     bool
	}{
		{"auto", true, "", true},
		{"", true, "", true},
		{"auto", false, "", false},
		{"auto", true, "TERM=xterm", true},
		{"auto", true, "TERM=dumb", false},
		{"auto", true, "NO_COLOR=", true},
		{"auto", true, "NO_COLOR=0", false},
		{"auto", false, "FORCE_COLOR=", false},
		{"auto", false, "FORCE_COLOR=0", true},
		{"auto", true, "FORCE_COLOR=1 TERM=dumb", true},
		{"auto", true, "NO_COLOR=1 FORCE_COLOR=1", false},
		{"always", false, "NO_COLOR=1 TERM=dumb", true},
		{"never", true, "FORCE_COLOR=1", false},
	} {
		env := map[string]string{}
		for _, setting := range strings.Fields(tt.env) {
			name, value, _ := strings.Cut(setting, "=")
			env[name] = value
		}
		if got := Colors(tt.when, tt.terminal, func(name string) string { return env[name] }); got != tt.want {
			t.Errorf("--color %q, terminal %v, %s: %v", tt.when, tt.terminal, tt.env, got)
		}
	}
}

// luminance is the relative luminance (WCAG 2) of a color of the cube of 6 × 6 × 6.
func luminance(tb testing.TB, c Color) float64 {
	tb.Helper()
	digits, is := strings.CutPrefix(strings.TrimSuffix(string(c), "m"), "\x1b[0;38;5;")
	n, err := strconv.Atoi(digits)
	if !is || err != nil || n < 16 || n > 231 {
		tb.Fatalf("%q is no color of the cube", c)
	}
	sum := 0.0
	for i, share := range [...]float64{0.2126, 0.7152, 0.0722} {
		v := float64([...]int{0, 95, 135, 175, 215, 255}[(n-16)/[...]int{36, 6, 1}[i]%6]) / 255
		if v <= 0.03928 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += share * v
	}
	return sum
}

// Each color has a contrast of 3:1 or more with black and with white.
func TestContrast(t *testing.T) {
	for _, c := range append([]Color{Red, Yellow, Green, Cyan, Magenta}, hostColors[:]...) {
		l := luminance(t, c)
		if onBlack, onWhite := (l+0.05)/0.05, 1.05/(l+0.05); onBlack < 3 || onWhite < 3 {
			t.Errorf("%q: %.1f on black, %.1f on white", c, onBlack, onWhite)
		}
	}
}

// The color of a host stays, and those of many are spread.
func TestColorOfHost(t *testing.T) {
	for name, want := range map[string]string{"": "30", "node001": "99", "db.example.org": "163"} {
		if got := colorOfHost(name); got != Color("\x1b[0;38;5;"+want+"m") {
			t.Errorf("%q has %q, want %s", name, got, want)
		}
	}
	used, same := map[Color]int{}, 0
	for i := range 120 {
		c := colorOfHost(host(i).Name)
		used[c]++
		if c == colorOfHost(host(i+1).Name) {
			same++
		}
	}
	for _, c := range hostColors {
		if used[c] < 3 || used[c] > 20 {
			t.Errorf("%d of 120 hosts have %q", used[c], c)
		}
	}
	if same > 20 {
		t.Errorf("%d hosts of 120 have the color of the next one", same)
	}
}

// tags shows escape sequences as text.
func tags(text string) string {
	text = strings.NewReplacer(string(Red), "<red>", string(Yellow), "<yellow>", string(Green), "<green>", string(Cyan), "<cyan>", string(Bold), "<b>", reset, "</>").Replace(text)
	return strings.ReplaceAll(regexp.MustCompile("\x1b\\[0;38;5;([0-9]+)m").ReplaceAllString(text, "<$1>"), "\x1b", "<ESC>")
}

var sequences = regexp.MustCompile("\x1b\\[[0-9;]*m")

// leaks finds a line behind whose end a color goes on.
func leaks(text string) string {
	for line := range strings.Lines(text) {
		if all := sequences.FindAllString(line, -1); len(all) > 0 && all[len(all)-1] != reset {
			return line
		}
	}
	return ""
}

func TestColorViews(t *testing.T) {
	colored := story()
	colored = append([]runner.Event{output(runner.Stdout, 2, "\x1b[1;31mits own\x1b[K"), output(runner.Stdout, 2, "\r\n\x1b[7m")}, colored...)
	fold := func(f Fold) func(Stream) runner.Sink {
		return func(s Stream) runner.Sink {
			one := f
			one.Stream = s
			return &one
		}
	}
	lines := func(s Stream) runner.Sink {
		return Tee(&Lines{Stdout: s, Stderr: s}, &Summary{Stream: s})
	}
	for _, tt := range []struct {
		file   string
		stream Stream
		sink   func(Stream) runner.Sink
		events []runner.Event
	}{
		{"color-story.txt", Stream{Width: 60, Escape: true}, lines, colored},
		{"color-raw.txt", Stream{Width: 60}, lines, colored},
		{"color-summary.txt", Stream{Width: 32, Escape: true}, func(s Stream) runner.Sink { return &Summary{Stream: s, Errors: true} }, append(timed(), story()...)},
		{"color-fold.txt", Stream{Width: 40, Escape: true}, fold(Fold{Stderr: true}), kernels()},
		{"color-diff.txt", Stream{Width: 80, Escape: true}, fold(Fold{Diff: true}), kernels()},
		{"color-foldlive.txt", Stream{Width: 40, Escape: true}, func(s Stream) runner.Sink { return &FoldLive{Stream: s, Stderr: true} }, waves()},
	} {
		t.Run(tt.file, func(t *testing.T) {
			var bare, got bytes.Buffer
			tt.stream.W = &bare
			feed(t, tt.sink(tt.stream), tt.events...)
			tt.stream.W, tt.stream.Color = &got, true
			feed(t, tt.sink(tt.stream), tt.events...)
			golden(t, tt.file, tags(got.String()))
			if line := leaks(got.String()); line != "" {
				t.Errorf("a color goes on behind %q", line)
			}
			if !tt.stream.Escape {
				return
			}
			// But for colors, and what stands for the colon of standard error, the screen is the same.
			without := sequences.ReplaceAllString(strings.ReplaceAll(got.String(), string(Red)+"!"+reset, ":"), "")
			if without != bare.String() {
				t.Errorf("without colors it is\n%s\nwant\n%s", without, bare.String())
			}
		})
	}
}

// Colors take no columns, and none goes on behind a row's end.
func TestWrapColors(t *testing.T) {
	s := Stream{Color: true}
	for _, tt := range []struct {
		text        string
		width, rows int
		want        string
	}{
		{s.Paint(Red, "exactly twenty chars"), 20, 1, "<red>exactly twenty chars</>"},
		{"exactly " + s.Paint(Red, "twenty") + " chars!", 20, 9, "exactly <red>twenty</> chars\n  !"},
		{s.Paint(Red, "aaaaaaaaa, bbbbbbbbb, ccc") + " d", 20, 9, "<red>aaaaaaaaa,</>\n  <red>bbbbbbbbb, ccc</> d"},
		{s.Paint(Red, "aaaaaaaaaaaa,") + s.Paint(Green, "bbbbbbbbb") + ", ccc", 20, 9, "<red>aaaaaaaaaaaa,</>\n  <green>bbbbbbbbb</>, ccc"},
		{s.Paint(Red, "aaaaaaaaa,bbbbbbbbb,ccc"), 20, 1, "<red>aaaaaaaaa,…</>"},
		{s.Paint(Bold, strings.Repeat("é", 41)), 20, 2, "<b>" + strings.Repeat("é", 20) + "</>\n  <b>" + strings.Repeat("é", 17) + "…</>"},
	} {
		if got := tags(wrap(tt.text, tt.width, tt.rows)); got != tt.want {
			t.Errorf("%s, %d columns:\n%s\nwant\n%s", tags(tt.text), tt.width, got, tt.want)
		}
	}
}

// A name is harmless with colors as well.
func TestColorNames(t *testing.T) {
	var got bytes.Buffer
	s := Stream{W: &got, Color: true, Escape: true}
	evil := transport.Host{Name: "a\x1b[2J"}
	result := runner.Result{Host: evil, Outcome: runner.Signal, Status: transport.Status{Known: true, Started: true, Signal: "\x1b[3J"}}
	feed(t, Tee(&Lines{Stdout: s, Stderr: s}, &Summary{Stream: s}, &Fold{Stream: s, Diff: true}, &FoldLive{Stream: s}),
		runner.Event{Kind: runner.Stdout, Host: evil, Data: []byte("x\n")},
		runner.Event{Kind: runner.Stderr, Host: evil, Data: []byte("y\n")},
		runner.Event{Kind: runner.Finish, Host: evil, Result: &result},
		output(runner.Stdout, 2, "z\n"), ok(2))
	if n := strings.Count(fmt.Sprintf("%q", sequences.ReplaceAllString(got.String(), "")), `\x1b`); n > 0 || strings.Contains(got.String(), "\x1b[2J") {
		t.Errorf("%q", got.String())
	}
}
