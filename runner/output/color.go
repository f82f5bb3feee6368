package output

import (
	"strconv"
	"strings"

	"multirsh/runner"
)

// Colors tells whether something is to be written with colours: when is what the user has asked for, "always", "never" or else "auto". What
// decides, the first that says anything:
//
//	--color always, never
//	NO_COLOR, if not empty       no   (no-color.org)
//	FORCE_COLOR, if not empty    yes  (force-color.org)
//	it is no terminal            no
//	TERM=dumb                    no
func Colors(when string, terminal bool, getenv func(string) string) bool {
	switch {
	case when == "always" || when == "never":
		return when == "always"
	case getenv("NO_COLOR") != "":
		return false
	case getenv("FORCE_COLOR") != "":
		return true
	}
	return terminal && getenv("TERM") != "dumb"
}

// Color is the escape sequence (ECMA-48, SGR) that begins it; it ends what was before. Those of the palette of 256 can be read on a dark
// and on a light ground, which cannot be said of all the first sixteen.
type Color string

// The colours, and ways to write.
const (
	NoColor Color = ""
	Bold    Color = "\x1b[0;1m"
	Faint   Color = "\x1b[0;2m"
	Red     Color = "\x1b[0;38;5;160m"
	BoldRed Color = "\x1b[0;1;38;5;160m"
	Yellow  Color = "\x1b[0;38;5;136m"
	Green   Color = "\x1b[0;38;5;28m"
	Cyan    Color = "\x1b[0;38;5;30m"
	Magenta Color = "\x1b[0;38;5;133m"

	reset = "\x1b[0m"
)

// hostColors are those of hosts' names. None can be taken for red, yellow or green, which say how a host ended.
var hostColors = func() (list [12]Color) {
	for i, n := range [...]int{29, 30, 32, 62, 64, 66, 94, 97, 99, 128, 133, 163} {
		list[i] = Color("\x1b[0;38;5;" + strconv.Itoa(n) + "m")
	}
	return list
}()

// colorOfHost is the same in every run.
func colorOfHost(name string) Color {
	h := uint32(2166136261) // FNV-1a
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return hostColors[h%uint32(len(hostColors))]
}

// colorOf is that of an outcome.
func colorOf(o runner.Outcome) Color {
	switch o {
	case runner.OK:
		return Green
	case runner.Unknown, runner.Cancelled, runner.Skipped:
		return Yellow
	}
	return Red
}

// Paint is text, which is on one line, in that colour if the stream has any.
func (s Stream) Paint(c Color, text string) string {
	if !s.Color || c == NoColor || text == "" {
		return text
	}
	return string(c) + text + reset
}

// counts is the number of hosts of each outcome that has any.
func (s Stream) counts(outcomes map[runner.Outcome]int) string {
	var list []string
	for _, o := range order {
		if n := outcomes[o]; n > 0 {
			list = append(list, s.Paint(colorOf(o), strconv.Itoa(n)+" "+string(o)))
		}
	}
	return strings.Join(list, ", ")
}

// sequence is the length of the colour that s begins with, 0 if it begins with none.
func sequence(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	return strings.IndexByte(s, 'm') + 1
}
