package output

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// WriteReport reads a record and writes it as a page for a browser: one file, which loads nothing from anywhere.
//
//	record ─ Replay ─► report ─┬─► Fold    outputs, each once, and which hosts have it
//	                           ├─► Tally   outcomes, times
//	                           └─► columns: name, ending, times … of each host
//	                                     │ at the end, as JSON
//	    report.html, report.css ─► page ◄┘ ◄─ report.js, which draws it
//
// Nothing that came from a host becomes markup or script: the data are JSON in a block of their own, in which appendString leaves nothing that could end it,
// and the script puts them into the page as text. Should that fail the page's Content-Security-Policy still allows no script but this one, and no request.
// Control characters are shown as on a terminal, see appendEscaped.
//
// Lines of the record that cannot be used are reported to damaged as by [Replay], and counted in the page. Errors are those of Replay and of w.
func WriteReport(w io.Writer, record io.Reader, damaged func(line int, why error)) error {
	r := &report{index: map[int]int{}, endings: map[ending]int{}, errors: map[string]int{}, labels: map[string]int{}}
	r.fold = Fold{Stream: Stream{W: io.Discard}, Stderr: true}
	r.fold.begin()
	defer r.fold.store.close()
	run, err := Replay(record, r, func(line int, why error) {
		if why != ErrCut && why != ErrHeadless { // the outcomes say it
			r.damaged++
		}
		damaged(line, why)
	})
	if err != nil {
		return err
	}
	r.fold.store.giveUp()
	out := bufio.NewWriterSize(w, 64<<10)
	if err := r.page(out, run); err != nil {
		return err
	}
	return out.Flush()
}

// Bounds of the outputs in a page. What is left out is said there, and is in the record.
const (
	maxReportText  = 256 << 10 // bytes of one output, and of one difference
	maxReportTexts = 64 << 20  // of all
)

// report is a sink that gathers what the page shows.
type report struct {
	fold    Fold // of hosts that are called by their places in hosts
	tally   Tally
	hosts   []reported
	index   map[int]int // places in hosts, by Seq
	endings map[ending]int
	errors  map[string]int
	labels  map[string]int
	damaged int
	room    int // left of maxReportTexts
}

// reported is a host of the page.
type reported struct {
	name         string
	seq          int
	ending       int
	error, label int           // -1: none
	group        int           // -1: none
	connect, run time.Duration // -1: it did not accept the command
}

func (r *report) Event(e runner.Event) error {
	r.tally.add(e)
	i, known := r.index[e.Seq]
	if !known {
		i = len(r.hosts)
		r.index[e.Seq] = i
		r.hosts = append(r.hosts, reported{name: e.Host.Name, seq: e.Seq, error: -1, label: -1, group: -1, connect: -1, run: -1})
	}
	h := &r.hosts[i]
	if e.Kind == runner.Finish {
		how := endingOf(e.Result)
		h.ending = intern(r.endings, how)
		if e.Result.Err != nil {
			h.error = intern(r.errors, sentence(e.Result.Err))
		}
		if labels := labelsOf(e.Host.Vars); labels != "" {
			h.label = intern(r.labels, labels)
		}
		if res := e.Result; !res.Running.IsZero() {
			h.connect, h.run = max(0, res.Running.Sub(res.Started)), max(0, res.Ended.Sub(res.Running))
		}
		delete(r.index, e.Seq)
	}
	e.Host.Name = strconv.Itoa(i)
	return r.fold.Event(e)
}

func (r *report) Close() error { return nil }

// intern is the number of a value.
func intern[T comparable](numbers map[T]int, value T) int {
	n, known := numbers[value]
	if !known {
		n = len(numbers)
		numbers[value] = n
	}
	return n
}

// interned are the values in the order of their numbers.
func interned[T comparable](numbers map[T]int) []T {
	values := make([]T, len(numbers))
	for value, n := range numbers {
		values[n] = value
	}
	return values
}

// labelsOf are the labels among a host's variables, as text.
func labelsOf(vars map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if label, is := strings.CutPrefix(name, labelVar); is {
			list = append(list, label+"="+vars[name])
		}
	}
	return strings.Join(list, " ")
}

var (
	//go:embed report.html
	reportHTML string
	//go:embed report.css
	reportCSS string
	//go:embed report.js
	reportJS string

	reportTemplate = template.Must(template.New("report").Parse(reportHTML))
)

// head is what the template shows.
type head struct {
	Title, Command        string
	Facts                 []fact
	Missing               []string // of the record
	Counts                string
	Style                 template.CSS
	StyleHash, ScriptHash string
}

type fact struct{ Name, Value string }

// contentHash names a style or script for the page's policy (Content Security Policy, level 3).
func contentHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func (r *report) page(w *bufio.Writer, run Run) error {
	began := run.Time
	if began.IsZero() {
		began = r.tally.first
	}
	command := cmp.Or(visibly(run.Command), "a run without a command")
	h := head{
		Title:   fmt.Sprintf("%s: %s", number(r.tally.Hosts, "host"), firstLine(command)),
		Command: command,
		Facts:   []fact{{"hosts", strconv.Itoa(r.tally.Hosts)}},
		Counts:  number(r.tally.Hosts, "host") + ": " + counts(r.tally.Outcomes),
		Style:   template.CSS(reportCSS), StyleHash: contentHash(reportCSS), ScriptHash: contentHash(reportJS),
	}
	if !began.IsZero() {
		h.Facts = append(h.Facts, fact{"began", began.Format("2006-01-02 15:04:05 -07:00")}, fact{"took", brief(r.tally.Elapsed())})
	}
	for _, f := range []fact{{"transport", run.Transport}, {"run", run.ID}, {"by multi-rsh", run.Program}} {
		if f.Value != "" {
			h.Facts = append(h.Facts, fact{f.Name, visibly(f.Value)})
		}
	}
	if run.Fanout > 0 {
		h.Facts = append(h.Facts, fact{"hosts at once", strconv.Itoa(run.Fanout)})
	}
	if r.damaged > 0 {
		h.Missing = append(h.Missing, number(r.damaged, "line")+" of the record could not be used.")
	}
	if run.Hosts > r.tally.Hosts {
		h.Missing = append(h.Missing, fmt.Sprintf("The record ends early: the run was to have %s.", number(run.Hosts, "host")))
	}
	if err := reportTemplate.Execute(w, &h); err != nil {
		return err
	}
	w.WriteString(`<script type="application/json" id="data">`)
	if err := r.data(w); err != nil {
		return err
	}
	w.WriteString("</script>\n<script>" + reportJS + "</script>\n</body>\n</html>\n")
	return nil
}

// visibly is a text with control characters shown.
func visibly(text string) string { return string(appendEscaped(nil, []byte(text))) }

// firstLine is the beginning of a command, for a title.
func firstLine(text string) string {
	line, _, more := strings.Cut(text, "\n")
	if runes := []rune(line); len(runes) > 80 {
		line, more = string(runes[:80]), true
	}
	if more {
		line += "…"
	}
	return line
}

// data writes what the script reads.
func (r *report) data(w *bufio.Writer) error {
	groups := r.fold.sorted()
	for n, g := range groups {
		for _, name := range g.hosts {
			i, err := strconv.Atoi(name)
			if err != nil {
				return err
			}
			r.hosts[i].group = n
		}
	}
	byGroup := make([][]string, len(groups))
	for _, h := range r.hosts {
		if h.group >= 0 {
			byGroup[h.group] = append(byGroup[h.group], h.name)
		}
	}
	slices.SortFunc(r.hosts, func(a, b reported) int { return cmp.Compare(a.seq, b.seq) })

	var b []byte
	b = append(b, `{"summary":{`...)
	b = append(r.tally.appendFields(b), "},\n\"endings\":"...)
	b = appendList(b, interned(r.endings), func(b []byte, e ending) []byte {
		b = appendString(append(b, '['), string(e.outcome))
		return append(appendString(append(b, ','), visibly(e.String())), ']')
	})
	text := func(b []byte, s string) []byte { return appendString(b, visibly(s)) }
	b = appendList(append(b, ",\n\"errors\":"...), interned(r.errors), text)
	b = appendList(append(b, ",\n\"labels\":"...), interned(r.labels), text)
	b = appendList(append(b, ",\n\"names\":"...), r.hosts, func(b []byte, h reported) []byte { return text(b, h.name) })
	for _, column := range []struct {
		name string
		of   func(reported) int
	}{
		{"ending", func(h reported) int { return h.ending }},
		{"error", func(h reported) int { return h.error }},
		{"label", func(h reported) int { return h.label }},
		{"group", func(h reported) int { return h.group }},
		{"connect", func(h reported) int { return micros(h.connect) }},
		{"run", func(h reported) int { return micros(h.run) }},
	} {
		b = append(append(append(b, ",\n\""...), column.name...), `":`...)
		b = appendList(b, r.hosts, func(b []byte, h reported) []byte { return strconv.AppendInt(b, int64(column.of(h)), 10) })
	}
	b = append(b, ",\n\"groups\":["...)
	if _, err := w.Write(b); err != nil {
		return err
	}
	if err := r.groups(w, groups, byGroup); err != nil {
		return err
	}
	_, err := w.WriteString("]}")
	return err
}

func micros(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int(d.Microseconds())
}

// appendList appends a JSON array.
func appendList[T any](b []byte, list []T, item func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, v)
	}
	return append(b, ']')
}

// groups writes the outputs, the hosts of each, and in what it differs from that of the largest group.
func (r *report) groups(w *bufio.Writer, groups []*group, hosts [][]string) error {
	var base *comparison
	for _, g := range groups {
		if g.bytes > 0 && (base == nil || len(g.hosts) > len(base.base.hosts)) {
			base = r.fold.newFolded().newComparison(g)
			base.label = "the largest group"
		}
	}
	r.room = maxReportTexts
	var b []byte
	for i, g := range groups {
		text, left, err := r.text(g)
		if err != nil {
			return err
		}
		var note, diff, why string
		if left > 0 {
			note = fmt.Sprintf("%s of this output are left out here; they are in the record.", size(left))
		}
		switch {
		case base == nil || g.bytes == 0:
		case g == base.base:
			why = base.label
		default:
			if diff, why, err = r.diff(base, g); err != nil {
				return err
			}
		}
		b = b[:0]
		if i > 0 {
			b = append(b, ',', '\n')
		}
		b = strconv.AppendInt(append(b, `{"ending":`...), int64(r.endings[g.how]), 10)
		b = strconv.AppendInt(append(b, `,"hosts":`...), int64(len(g.hosts)), 10)
		b = strconv.AppendInt(append(b, `,"bytes":`...), g.bytes, 10)
		b = appendString(append(b, `,"folded":`...), visibly(hostlist.Fold(slices.Values(hosts[i]))))
		b = appendString(append(b, `,"text":`...), text)
		for _, f := range []struct{ name, value string }{{"diff", diff}, {"why", why}, {"note", note}} {
			if f.value != "" {
				b = appendString(append(append(append(b, `,"`...), f.name...), `":`...), f.value)
			}
		}
		if _, err := w.Write(append(b, '}')); err != nil {
			return err
		}
	}
	return nil
}

// text is the group's output, and how many bytes of it are left out.
func (r *report) text(g *group) (text []byte, left int64, err error) {
	head := &bounded{most: min(maxReportText, r.room)}
	if err := r.fold.store.write(head, g.end); err != nil && err != errBounded {
		return nil, 0, err
	}
	data := head.data
	if left = g.bytes - int64(len(data)); left > 0 { // not within a character
		cut := len(data) - partial(data)
		left += int64(len(data) - cut)
		data = data[:cut]
	}
	r.room -= len(data)
	return appendEscaped(nil, data), left, nil
}

// diff is in what the group's output differs from the base's, or why that is not shown.
func (r *report) diff(base *comparison, g *group) (diff, why string, err error) {
	unified, why, err := base.with(g)
	if err != nil || unified == nil {
		return "", why, err
	}
	var b strings.Builder
	unified.to = "this output"
	unified.write(Stream{W: &b})
	if diff = b.String(); len(diff) > min(maxReportText, r.room) {
		return "", "too different to show in what", nil
	}
	r.room -= len(diff)
	return strings.TrimSuffix(visibly(diff), "\n"), why, nil
}

// bounded keeps the first bytes that are written to it, and refuses more.
type bounded struct {
	data []byte
	most int
}

var errBounded = errors.New("enough")

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.most-len(b.data))
	b.data = append(b.data, p[:n]...)
	if n < len(p) {
		return n, errBounded
	}
	return n, nil
}
