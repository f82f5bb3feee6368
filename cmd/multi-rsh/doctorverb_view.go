package main

import (
	"cmp"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"multirsh/runner/hostlist"
	"multirsh/runner/output"
)

// splitAddress takes an address apart that hostPort has made.
func splitAddress(address string) (host string, port uint16) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return address, 0
	}
	n, _ := strconv.ParseUint(text, 10, 16)
	return host, uint16(n)
}

// checkupDocument is the JSON document.
func checkupDocument(found []*visit) any {
	document := struct {
		Hosts []*visit `json:"hosts"`
	}{found}
	if document.Hosts == nil {
		document.Hosts = []*visit{}
	}
	return document
}

// checkupView writes what was found, and what was found alike once.
type checkupView struct{ output.Stream }

// write tells of the hosts on which something failed first, and then of those that were interrupted.
func (w *checkupView) write(found []*visit) {
	var order []string
	alike := map[string][]*visit{}
	for _, v := range found {
		key := v.key()
		if alike[key] == nil {
			order = append(order, key)
		}
		alike[key] = append(alike[key], v)
	}
	slices.SortStableFunc(order, func(a, b string) int {
		failed := func(key string) int {
			switch v := alike[key][0]; {
			case v.Failed != "":
				return 0
			case v.hung != "":
				return 1
			}
			return 2
		}
		return cmp.Or(cmp.Compare(failed(a), failed(b)), cmp.Compare(len(alike[b]), len(alike[a])))
	})
	for _, key := range order {
		w.group(alike[key])
		fmt.Fprintln(w.W)
	}
	w.counts(found)
}

// counts says how many hosts there are, and how many failed at each step or were interrupted.
func (w *checkupView) counts(found []*visit) {
	var steps []string
	failed := map[string]int{}
	hung := 0
	for _, v := range found {
		if v.hung != "" {
			hung++
			continue
		}
		if failed[v.Failed]++; v.Failed != "" && failed[v.Failed] == 1 {
			steps = append(steps, v.Failed)
		}
	}
	slices.SortStableFunc(steps, func(a, b string) int { return cmp.Compare(failed[b], failed[a]) })
	text := fmt.Sprintf("%s: %d ok", number(len(found), "host"), failed[""])
	for _, step := range steps {
		text += fmt.Sprintf(", %d failed at %s", failed[step], step)
	}
	if hung > 0 {
		text += fmt.Sprintf(", %d interrupted", hung)
	}
	fmt.Fprintln(w.W, text)
}

// key is the same for hosts on which the same was found: the steps, and what is said of the one that failed, but for what is the
// host's own.
func (v *visit) key() string {
	var b strings.Builder
	b.WriteString(v.Transport)
	for _, s := range v.Steps {
		b.WriteString("\x00" + s.Step + " " + s.State)
	}
	b.WriteString("\x00" + string(v.Outcome) + "\x00" + v.general(v.Cause))
	for _, m := range v.Mend {
		b.WriteString("\x00" + v.general(m.At) + "\x00" + v.general(m.Run) + "\x00" + v.general(m.Text))
	}
	return b.String()
}

// general is a text with words for what is the host's own.
func (v *visit) general(text string) string {
	return whole(fingerprint.ReplaceAllString(text, "FINGERPRINT"), v.own)
}

// fingerprint is what ssh-keygen(1) and we call a key.
var fingerprint = regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`)

// whole replaces each of the words of pairs that stands in text as a word of its own.
func whole(text string, pairs []string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		old, rest := pairs[i], text
		if old == "" {
			continue
		}
		var b strings.Builder
		for {
			before, after, found := strings.Cut(rest, old)
			b.WriteString(before)
			if !found {
				break
			}
			left, _ := utf8.DecodeLastRuneInString(b.String())
			right, _ := utf8.DecodeRuneInString(after)
			if inName(left) || inName(right) && !strings.HasPrefix(after, ". ") && after != "." {
				b.WriteString(old)
			} else {
				b.WriteString(pairs[i+1])
			}
			rest = after
		}
		text = b.String()
	}
	return text
}

func inName(r rune) bool {
	return r == '-' || r == '_' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// group writes what was found on hosts that are alike in it.
func (w *checkupView) group(visits []*visit) {
	first := visits[0]
	one := len(visits) == 1
	names := make([]string, len(visits))
	for i, v := range visits {
		names[i] = v.Host
	}
	head := harmless(hostlist.Fold(slices.Values(names)))
	if !one {
		head += fmt.Sprintf(" (%d)", len(visits))
	}
	verdict := w.Paint(output.Green, "ok")
	switch {
	case first.Failed != "":
		verdict = w.Paint(output.BoldRed, first.Failed+" failed")
	case first.hung != "":
		verdict = "interrupted"
	}
	fmt.Fprintf(w.W, "%s by %s: %s\n", head, first.Transport, verdict)
	for i, s := range first.Steps {
		w.step(visits, i, s)
	}
	if first.Failed == "" {
		return
	}
	general := func(text string) string {
		if !one {
			text = first.general(text)
		}
		return harmless(text)
	}
	fmt.Fprintln(w.W, w.words("  cause: ", general(first.Cause)))
	for _, m := range first.Mend {
		where := "  mend:  "
		switch m.At {
		case "":
		case "here":
			where += "here: "
		default:
			where += "on " + general(m.At) + ": "
		}
		if m.Run == "" {
			fmt.Fprintln(w.W, w.words(where, general(m.Text)))
			continue
		}
		fmt.Fprintln(w.W, where+general(m.Run)) // whole, however long it is: it is to be copied
		if m.Text != "" {
			fmt.Fprintln(w.W, w.words("           ", general(m.Text)))
		}
	}
}

// words are behind a label, and within the width of a terminal.
func (w *checkupView) words(label, text string) string {
	if w.Width == 0 {
		return label + text
	}
	width := max(w.Width, utf8.RuneCountInString(label)+20)
	var b strings.Builder
	indent := strings.Repeat(" ", utf8.RuneCountInString(label))
	writeParagraph(&b, text, indent, width)
	return label + strings.TrimSuffix(strings.TrimPrefix(b.String(), indent), "\n")
}

// step writes a line: name, time and what is known. The time of many hosts is the median, the shortest and the longest, with its host.
func (w *checkupView) step(visits []*visit, i int, s step) {
	var timed []*visit
	note := s.Note
	for _, v := range visits {
		if v.Steps[i].MS != nil {
			timed = append(timed, v)
		}
		if v.Steps[i].Note != note {
			note = "" // which is the host's own
		}
	}
	ms := func(v *visit) float64 { return *v.Steps[i].MS }
	slices.SortStableFunc(timed, func(a, b *visit) int { return cmp.Compare(ms(a), ms(b)) })
	took := ""
	if n := len(timed); n > 0 {
		took = milliseconds(ms(timed[n/2]))
		if slowest := timed[n-1]; n > 1 {
			span := fmt.Sprintf("(%s to %s, %s)", milliseconds(ms(timed[0])), milliseconds(ms(slowest)), harmless(slowest.Host))
			note = strings.TrimSpace(span + "  " + note)
		}
	}
	switch {
	case s.State == stepFailed:
		note = strings.TrimSpace("failed  " + note)
	case s.State == stepUnknown && note == "":
		note = "not known"
	case len(timed) == 0 && s.State == stepOK:
		note = "told by the answer below"
	}
	head := fmt.Sprintf("  %-14s  %9s  ", s.Step, took)
	text := strings.TrimRight(w.words(head, harmless(note)), " ")
	if s.State == stepFailed {
		text = strings.Replace(text, "failed", w.Paint(output.BoldRed, "failed"), 1)
	}
	fmt.Fprintln(w.W, text)
}

// milliseconds is a time as a person reads it.
func milliseconds(ms float64) string {
	switch {
	case ms < 10:
		return strconv.FormatFloat(ms, 'f', 2, 64) + " ms"
	case ms < 1000:
		return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
	}
	return strconv.FormatFloat(ms/1000, 'f', 1, 64) + " s"
}
