// Package output is what a run looks like: sinks for the runner's events.
//
//	runner ──► Tee ─┬► Lines      host: line, as they come
//	                ├► Fold       equal outputs once, at the end; as differences
//	                ├► FoldLive   equal lines once, as soon as all hosts have sent them
//	                ├► Record     JSON lines (docs/json.md) ─► Replay ─► any of these again
//	                │                                      └► WriteReport ─► a page for a browser
//	                ├► Files      a file for each host
//	                ├► Progress   ─► Screen, the last lines of the terminal; Status; Plain
//	                └► Summary    how hosts ended, how long they took
//
// The runner calls its sink from one goroutine, so nothing here has a lock but Progress, which a Screen looks at meanwhile; methods that are not of [runner.Sink] are called
// on that goroutine too (Runner.Inspect). Each event is dealt with when Event returns: what could be written has been, in one
// Write for each event, so that nothing needs a flush and two writers on one terminal keep their order. The writers belong to
// the caller, who closes them.
//
// How a host ended is said in the same words everywhere: "exit 3", "signal TERM", "timeout connect", else the outcome's word.
package output

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"multirsh/runner"
	"multirsh/transport"
)

// Tee passes each event to every sink, in order, and closes them in that order. A sink that has failed gets no more events, the
// others do, so that a full disk does not cost the summary. The errors are joined.
func Tee(sinks ...runner.Sink) runner.Sink {
	return &tee{sinks: sinks, failed: make([]bool, len(sinks))}
}

type tee struct {
	sinks  []runner.Sink
	failed []bool
}

func (t *tee) Event(e runner.Event) error {
	var errs []error
	for i, s := range t.sinks {
		if t.failed[i] {
			continue
		}
		if err := s.Event(e); err != nil {
			t.failed[i] = true
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t *tee) Close() error {
	var errs []error
	for _, s := range t.sinks {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// ending is how a host ended, as a key: hosts with the same one are told together.
type ending struct {
	outcome runner.Outcome
	code    int    // of exit
	detail  string // name of the signal, phase of the timeout
	loose   bool   // we stopped it, and the host has not confirmed that
	never   bool   // it was cancelled before it began
}

func endingOf(r *runner.Result) ending {
	e := ending{outcome: r.Outcome}
	switch r.Outcome {
	case runner.Exit:
		e.code = r.Status.Code
	case runner.Signal:
		e.detail = r.Status.Signal
	case runner.Timeout:
		e.detail = string(r.Phase())
	}
	e.never = r.Outcome == runner.Cancelled && neverTried(r)
	if stop := (*runner.StopError)(nil); errors.As(r.Err, &stop) {
		e.loose = !stop.Confirmed
	}
	return e
}

func (e ending) String() string {
	text := string(e.outcome)
	switch {
	case e.outcome == runner.Exit:
		text += " " + strconv.Itoa(e.code)
	case e.detail != "":
		text += " " + e.detail
	}
	switch {
	case e.loose:
		text += ", may still be running"
	case e.never:
		text += ", not begun"
	}
	return text
}

// rank orders those that are known to have ended before the others, and those that never began last.
func (e ending) rank() int {
	switch {
	case e.never:
		return 2
	case e.loose:
		return 1
	}
	return 0
}

// order is that of the outcomes in a summary.
var order = []runner.Outcome{
	runner.OK, runner.Exit, runner.Signal, runner.Timeout, runner.Refused, runner.Unreachable, runner.DNS, runner.HostKey,
	runner.Auth, runner.Protocol, runner.NoPorts, runner.Unknown, runner.Cancelled, runner.Skipped,
}

func compareEndings(a, b ending) int {
	return cmp.Or(
		cmp.Compare(slices.Index(order, a.outcome), slices.Index(order, b.outcome)),
		cmp.Compare(a.code, b.code),
		cmp.Compare(a.detail, b.detail),
		cmp.Compare(a.rank(), b.rank()),
	)
}

// neverTried tells whether the run ended before it came to this host.
func neverTried(r *runner.Result) bool {
	return (r.Outcome == runner.Cancelled || r.Outcome == runner.Skipped) && r.Phase() == ""
}

// stoppedWithRun tells whether the host ended because the run did, as it should: the summary names it, and thousands of
// notices would only hide what matters.
func stoppedWithRun(r *runner.Result) bool {
	return neverTried(r) || r.Outcome == runner.Cancelled && !endingOf(r).loose
}

// maxSentence is where a host's error is cut, in bytes: it may hold what the far side said instead of running the command.
const maxSentence = 1000

// sentence is a host's error without the host and the phase that it carries, on one line and harmless to a terminal.
func sentence(err error) string {
	if op, ok := err.(*transport.OpError); ok {
		err = op.Err
	}
	words := strings.FieldsFunc(err.Error(), unicode.IsSpace)
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, strings.Join(words, " "))
	if len(s) <= maxSentence {
		return s
	}
	cut := maxSentence
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// wrap breaks s behind commas into rows of at most width columns, all but the first indented. What does not fit in so many
// rows is cut off. Without a width, which is to say on no terminal, s stays whole. Colours take no columns, and none goes on behind
// the end of a row.
func wrap(s string, width, rows int) string {
	const indent = "  "
	if width <= 0 {
		return s
	}
	if end, _, _ := row(s, width, NoColor); end == len(s) {
		return s
	}
	width = max(width, 20)
	var b strings.Builder
	now := NoColor
	for n := 1; ; n++ {
		room := width
		if n > 1 {
			b.WriteString("\n" + indent + string(now))
			room -= len(indent)
		}
		end, _, _ := row(s, room, now)
		if end == len(s) {
			b.WriteString(s)
			return b.String()
		}
		if n == rows {
			room-- // for the ellipsis
		}
		end, comma, then := row(s, room, now)
		if comma > 0 {
			end = comma
		}
		b.WriteString(strings.TrimRight(s[:end], " "))
		if n == rows {
			b.WriteString("…")
		}
		if then != NoColor {
			b.WriteString(reset)
		}
		if n == rows {
			return b.String()
		}
		now = then
		s = strings.TrimLeft(s[end:], " ")
	}
}

// row measures what of s fits in so many columns: up to where, and up to which comma, 0 if there is none in the second half and the row is one
// long word. What begins in the colour now is in the colour then where it is to be broken.
func row(s string, columns int, now Color) (end, comma int, then Color) {
	var atComma Color
	for used := 0; end < len(s); {
		if n := sequence(s[end:]); n > 0 {
			next := Color(s[end : end+n])
			if next == reset {
				next = NoColor
			} else if used == columns {
				break // it is the next row's
			}
			if comma == end && next == NoColor && comma > 0 { // a colour ends with the comma
				comma, atComma = end+n, next
			}
			end, now = end+n, next
			continue
		}
		if used == columns {
			break
		}
		used++
		_, size := utf8.DecodeRuneInString(s[end:])
		end += size
		if s[end-1] == ',' && used >= columns/2 {
			comma, atComma = end, now
		}
	}
	if comma > 0 {
		return end, comma, atComma
	}
	return end, 0, now
}

// number is n and a noun, in the plural where it must be.
func number(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
