package output

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// Fold keeps what hosts write and shows it when it is closed, equal outputs once, under the names of their hosts:
//
//	---------------
//	node[1-3,5-640] (639)
//	---------------
//	Linux 6.1.0-25-amd64
//	---------------
//	node004 (1): exit 127, no output
//	---------------
//
// Hosts are in one group if they ended alike and wrote the same bytes. The groups are ordered by how their hosts ended, then the largest first, then as the
// hosts were in the run. A body that lacks its last newline gets one; where some have it and others do not, the header tells which do not.
// Hosts that the run never came to are not shown; of one that was tried several times, what it wrote in the last try is.
//
// Outputs are kept as described at store: each once, also while it comes in, and past Memory in a file without a name in TempDir. If that file cannot be
// written, Event fails with an error that names it and the cause, and Close shows what there is.
type Fold struct {
	Stream
	Stderr    bool      // standard error is part of a host's output, behind the rest of it; else it is not looked at
	Normalize Normalize // what may differ; the group's first host is shown then, and the header says in what others differ
	Diff      bool      // the largest group is shown in full, of others the differences to it
	Memory    int64     // bytes of outputs to keep in memory, 0: DefaultFoldMemory
	TempDir   string    // where the file for more is made; empty: os.TempDir

	store  *store
	norm   *normalizer // nil: what is compared is what was written
	open   map[int]*folding
	spare  []*folding
	groups map[groupKey]*group
	all    []*group
	buf    []byte
	part   []byte
}

// DefaultFoldMemory is how much of the outputs Fold keeps in memory.
const DefaultFoldMemory = 256 << 20

// maxHeld bounds what is held back of a line until its end is there: what is disregarded is looked for in pieces of this size.
const maxHeld = 16 << 10

const keepFoldings = 256 // states of hosts that have ended are kept for the next ones

// folding is a host that has written something and not ended.
type folding struct {
	cursor
	stderr cursor // with Stderr
	bare   bool   // what has come of standard output lacks its last newline
	name   string
	names  []string
	line   []byte // what has come of a line, with Normalize
	raw    hash.Hash
	key    hash.Hash
	parts  replacements
}

// group is hosts whose outputs are shown together.
type group struct {
	how   ending
	cut   bool // the outputs could not be kept to their ends
	end   *piece
	bytes int64
	first int      // position in the run of the host whose output is kept
	names []string // by which that host is known to Normalize
	hosts []string
	ran   bool // the command did, as far as is known
	bare  bool // the output lacks its last newline

	// With Normalize: the sum of some member's raw output, what has been replaced in it, and in what others differ.
	sum      sum
	parts    replacements
	other    bool   // some member's raw output is another
	differ   uint64 // set of the parts of which not the same was replaced in all
	replaced uint64 // set of the parts of which something was replaced at all
	into     *group // the one that has taken all in; nil: it is one itself
}

type sum [16]byte // of SHA-256

// groupKey finds the group of a host. With Normalize each is entered under two sums, of its raw output and of what is left of it, for a
// file that is the same everywhere may name hosts.
type groupKey struct {
	how ending
	cut bool
	end *piece
	raw bool
	sum sum
}

// Event implements [runner.Sink].
func (f *Fold) Event(e runner.Event) error {
	if f.store == nil {
		f.begin()
	}
	switch e.Kind {
	case runner.Stdout:
		return f.output(e, 0)
	case runner.Stderr:
		if f.Stderr {
			return f.output(e, 1)
		}
	case runner.Restart:
		return f.forget(e.Seq)
	case runner.Finish:
		return f.finish(e)
	}
	return nil
}

// forget drops what a try has written that is followed by another: how the host ended is told of the last one, and so is what it wrote.
func (f *Fold) forget(seq int) error {
	h := f.open[seq]
	if h == nil {
		return nil
	}
	for _, c := range []*cursor{&h.cursor, &h.stderr} {
		end, err := f.store.finish(c)
		if err != nil {
			return err
		}
		f.store.leave(end)
	}
	delete(f.open, seq)
	f.release(h)
	return nil
}

func (f *Fold) begin() {
	f.store = &store{limit: cmp.Or(f.Memory, DefaultFoldMemory), dir: f.TempDir}
	f.open, f.groups = map[int]*folding{}, map[groupKey]*group{}
	if f.Normalize.any() {
		f.norm = newNormalizer(&f.Normalize)
	}
}

// host is the state of the event's host.
func (f *Fold) host(e runner.Event) *folding {
	h := f.open[e.Seq]
	if h != nil {
		return h
	}
	if n := len(f.spare); n > 0 {
		h, f.spare = f.spare[n-1], f.spare[:n-1]
	} else {
		h = new(folding)
	}
	f.open[e.Seq] = h
	h.name = e.Host.Name
	if f.norm != nil {
		if h.raw == nil {
			h.raw, h.key = sha256.New(), sha256.New()
			h.parts = make(replacements, partRegexps+len(f.norm.Regexps))
		}
		if f.norm.Host {
			h.names = hostNames(&e.Host)
		}
	}
	return h
}

// release keeps the state of a host that has ended for another one.
func (f *Fold) release(h *folding) {
	f.store.memory -= int64(cap(h.line))
	h.line, h.names, h.cursor, h.stderr, h.bare = nil, nil, cursor{}, cursor{}, false
	if h.raw != nil {
		h.raw.Reset()
		h.key.Reset()
		clear(h.parts)
	}
	if len(f.spare) < keepFoldings {
		f.spare = append(f.spare, h)
	}
}

// output takes what the host has written to one of its streams. Standard error is kept apart, and put behind the rest when the host has ended:
// where one comes into the other is chance, and equal hosts would not be told as equal.
func (f *Fold) output(e runner.Event, stream int) error {
	if len(e.Data) == 0 {
		return nil
	}
	h := f.host(e)
	if stream == 1 {
		return f.store.add(&h.stderr, e.Data)
	}
	h.bare = e.Data[len(e.Data)-1] != '\n'
	return f.add(h, e.Data)
}

// join puts the host's standard error behind its output.
func (f *Fold) join(h *folding) error {
	if h.stderr.pos == 0 {
		return nil
	}
	if h.bare {
		if err := f.add(h, []byte("\n")); err != nil {
			return err
		}
	}
	end, err := f.store.finish(&h.stderr)
	if err != nil {
		return err
	}
	defer f.store.leave(end)
	for pos, to := int64(0), h.stderr.pos; pos < to; {
		// What is added may split the pieces that are read, so each is looked up anew.
		p := end
		for p.start > pos {
			p = p.parent
		}
		data, err := f.store.read(p, int(pos-p.start), int(p.end()-pos))
		if err != nil {
			return err
		}
		f.part = append(f.part[:0], data...)
		if err := f.add(h, f.part); err != nil {
			return err
		}
		pos += int64(len(f.part))
	}
	return nil
}

func (f *Fold) hold(buf *[]byte, data []byte) {
	before := cap(*buf)
	*buf = append(*buf, data...)
	f.store.memory += int64(cap(*buf) - before)
}

// add appends to the host's output.
func (f *Fold) add(h *folding, data []byte) error {
	if f.norm != nil {
		f.compare(h, data)
	}
	return f.store.add(&h.cursor, data)
}

// compare adds data to what the output is compared by.
func (f *Fold) compare(h *folding, data []byte) {
	h.raw.Write(data)
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n') + 1
		if n == 0 {
			n = len(data)
		}
		n = min(n, maxHeld-len(h.line))
		line := data[:n]
		if len(h.line) > 0 || line[n-1] != '\n' && n < maxHeld {
			f.hold(&h.line, line)
			line = h.line
		}
		data = data[n:]
		if line[len(line)-1] == '\n' || len(line) == maxHeld {
			f.compareLine(h, line)
			h.line = h.line[:0]
		}
	}
}

func (f *Fold) compareLine(h *folding, line []byte) {
	f.buf = f.norm.appendLine(f.buf[:0], line, h.names, h.parts)
	h.key.Write(f.buf)
}

// finish puts the host to its group.
func (f *Fold) finish(e runner.Event) error {
	h := f.open[e.Seq]
	if h == nil && neverTried(e.Result) {
		return nil
	}
	h = f.host(e)
	if err := f.join(h); err != nil {
		return err
	}
	err := f.end(e.Seq, h, endingOf(e.Result), e.Result.Err == nil || e.Result.Status.Started, false)
	delete(f.open, e.Seq)
	f.release(h)
	return err
}

// end puts a host whose output is there to its group.
func (f *Fold) end(seq int, h *folding, how ending, ran, cut bool) error {
	end, err := f.store.finish(&h.cursor)
	if err != nil {
		return err
	}
	key := groupKey{how: how, cut: cut}
	if f.norm == nil {
		key.end = end
		g := f.groups[key]
		if g == nil {
			g = &group{how: how, cut: cut, end: end, bytes: h.pos, first: seq, ran: ran}
			f.groups[key] = g
			f.all = append(f.all, g)
		}
		g.hosts = append(g.hosts, h.name)
		g.first = min(g.first, seq)
		g.ran = g.ran || ran
		return nil
	}

	if len(h.line) > 0 {
		f.compareLine(h, h.line)
	}
	one := &group{how: how, cut: cut, end: end, bytes: h.pos, first: seq, ran: ran, hosts: []string{h.name}, names: h.names, parts: h.parts}
	key.sum = sum(h.key.Sum(nil))
	alike := f.lookup(key)
	rawKey := groupKey{how: how, cut: cut, raw: true, sum: sum(h.raw.Sum(nil))}
	one.sum = rawKey.sum
	one.replaced = one.parts.differing(make(replacements, len(one.parts)))
	g := one
	for _, known := range []*group{alike, f.lookup(rawKey)} {
		if known != nil && known != g {
			g = f.merge(known, g)
		}
	}
	if g == one {
		one.parts = slices.Clone(h.parts)
		f.all = append(f.all, one)
	}
	f.groups[key], f.groups[rawKey] = g, g
	return nil
}

// lookup finds the group that is entered under the key, or the one it has gone into.
func (f *Fold) lookup(key groupKey) *group {
	g := f.groups[key]
	if g == nil {
		return nil
	}
	for g.into != nil {
		g = g.into
	}
	f.groups[key] = g
	return g
}

// merge puts two groups together, into the larger or the first. The output that is kept is that of the host that came first in the run.
func (f *Fold) merge(a, b *group) *group {
	if len(b.hosts) > len(a.hosts) {
		a, b = b, a
	}
	a.other = a.other || b.other || a.sum != b.sum
	a.differ |= b.differ | a.parts.differing(b.parts)
	a.replaced |= b.replaced
	a.ran = a.ran || b.ran
	if b.first < a.first {
		a.first, b.first = b.first, a.first
		a.end, b.end = b.end, a.end
		a.bytes, b.bytes = b.bytes, a.bytes
		a.names = b.names
	}
	f.store.leave(b.end)
	a.hosts = append(a.hosts, b.hosts...)
	b.end, b.hosts, b.parts, b.into = nil, nil, nil, a
	return a
}

// Close implements [runner.Sink]: it writes the groups. A host that has not ended, since the run was given up when its output
// could not be kept, is shown with what there is of it.
func (f *Fold) Close() error {
	if f.store == nil {
		return nil
	}
	defer f.store.close()
	f.store.giveUp()
	var errs []error
	for _, seq := range slices.Sorted(maps.Keys(f.open)) {
		h := f.open[seq]
		errs = append(errs, f.join(h), f.end(seq, h, ending{outcome: runner.Unknown}, true, true))
	}
	return errors.Join(append(errs, f.write())...)
}

// write writes the groups.
func (f *Fold) write() error {
	groups := f.sorted()
	if len(groups) == 0 {
		return nil
	}
	out := f.newFolded()
	if err := out.groups(groups); err != nil {
		return err
	}
	return out.w.Flush()
}

// sorted are the groups in the order of their showing.
func (f *Fold) sorted() []*group {
	f.all = slices.DeleteFunc(f.all, func(g *group) bool { return g.into != nil })
	groups := f.all
	slices.SortFunc(groups, func(a, b *group) int {
		switch {
		case a.cut != b.cut && b.cut:
			return -1
		case a.cut != b.cut:
			return 1
		}
		return cmp.Or(compareEndings(a.how, b.how), cmp.Compare(len(b.hosts), len(a.hosts)), cmp.Compare(a.first, b.first))
	})
	return groups
}

// folded writes groups.
type folded struct {
	*Fold
	w        *bufio.Writer
	body     io.Writer // escapes, if that is to be done
	escaping *escaper  // nil: it is not
	ragged   bool      // some outputs have a last newline and others not
}

func (f *Fold) newFolded() *folded {
	out := &folded{Fold: f, w: bufio.NewWriterSize(f.W, 64<<10)}
	out.body = out.w
	if f.Escape {
		out.escaping = &escaper{w: out.w}
		out.body = out.escaping
	}
	return out
}

const foldRule = "---------------\n"

func (out *folded) groups(groups []*group) error {
	ends := map[bool]bool{}
	var largest *group // of those that have output
	for _, g := range groups {
		if g.bytes == 0 {
			continue
		}
		last, err := out.store.lastByte(g.end)
		if err != nil {
			return err
		}
		g.bare = last != '\n'
		ends[g.bare] = true
		if largest == nil || len(g.hosts) > len(largest.hosts) {
			largest = g
		}
	}
	out.ragged = len(ends) == 2
	var base *comparison
	if out.Diff && largest != nil {
		base = out.newComparison(largest)
	}
	for _, g := range groups {
		var diff *unified
		why := ""
		if base != nil && g != largest && g.bytes > 0 {
			var err error
			if diff, why, err = base.with(g); err != nil {
				return err
			}
		}
		out.header(g, why)
		if err := out.text(g, diff); err != nil {
			return err
		}
	}
	return nil
}

// header writes whose output follows.
func (out *folded) header(g *group, why string) {
	out.w.WriteString(foldRule)
	out.w.WriteString(wrap(out.Paint(Bold, out.title(g, why)), out.Width, math.MaxInt))
	out.w.WriteString("\n" + foldRule)
}

// title is whose output follows, and what is to be said of it.
func (out *folded) title(g *group, why string) string {
	var about []string
	switch {
	case g.cut:
		about = append(about, "cut off: the rest could not be kept")
	case g.how.outcome != runner.OK:
		about = append(about, harmless(g.how.String()))
	}
	switch {
	case g.cut:
	case g.bytes == 0 && g.ran:
		about = append(about, "no output")
	case g.bytes > 0 && g.bare && out.ragged:
		about = append(about, "no newline at the end")
	}
	if g.other {
		about = append(about, "differing only in "+out.Normalize.list(cmp.Or(g.differ, g.replaced))) // or else the same, in other places
	}
	if why != "" {
		about = append(about, why)
	}
	text := fmt.Sprintf("%s (%d)", g.label(), len(g.hosts))
	if len(about) > 0 {
		text += ": " + strings.Join(about, ", ")
	}
	return text
}

// label is the hosts of the group, folded and harmless to a terminal.
func (g *group) label() string {
	return harmless(hostlist.Fold(slices.Values(g.hosts)))
}

// text writes the group's output, or in what it differs.
func (out *folded) text(g *group, diff *unified) error {
	if diff != nil {
		diff.write(Stream{W: out.w, Escape: out.Escape, Color: out.Color})
	} else if err := out.store.write(out.body, g.end); err != nil {
		return err
	}
	switch {
	case out.escaping != nil:
		out.escaping.flush()
	case out.Color: // that the hosts' own ones end here
		out.w.WriteString(reset)
	}
	if g.bare && diff == nil {
		out.w.WriteByte('\n')
	}
	return nil
}

// escaper is a writer that shows control characters as text. It holds back what may be the begin of a character.
type escaper struct {
	w    io.Writer
	text []byte
	rest []byte
}

func (x *escaper) Write(p []byte) (int, error) {
	x.rest = append(x.rest, p...)
	n := len(x.rest) - partial(x.rest)
	if n > 0 && n == len(x.rest) && x.rest[n-1] == '\r' {
		n-- // the end of a line, perhaps
	}
	x.text = appendEscaped(x.text[:0], x.rest[:n])
	x.rest = append(x.rest[:0], x.rest[n:]...)
	if _, err := x.w.Write(x.text); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (x *escaper) flush() {
	x.w.Write(appendEscaped(nil, x.rest))
	x.rest = x.rest[:0]
}
