package output

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"math"
	"slices"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// FoldLive writes the lines of the hosts while they come, equal ones once, behind the folded names of their hosts:
//
//	node[001-064]: Linux 6.1
//	node[001-003,005-064]: up 3 days
//	node004: up 2 minutes
//
// The hosts that were started before a wave's first line came out are a wave; those started later are the next one. A line comes out as soon
// as all hosts of the wave that have had the same lines so far have sent their next one or have ended. Where these lines are not the same,
// the group parts for good.
//
// What hosts are ahead of the slowest is kept in memory, equal lines once. When that is more than Memory, a host that sends more is not
// held up by slower ones any longer: its group parts there, and lines come out apart that would have been one. A line of more than 1 MiB is
// broken, and so is one that does not fit in Memory with what else is there; a notice says of which host. So nothing is lost and the memory
// is bounded, whatever hosts send.
//
// With Normalize lines may be told as one that differ in what is disregarded: then a ~ follows the names, and the line is that of the host
// that is first in the run.
type FoldLive struct {
	Stream              // names that take more than half of a terminal's width have lines of their own
	Notices   io.Writer // told of lines that were broken; nil: nobody is
	Stderr    bool      // lines of standard error are taken as well; else they are not looked at
	Normalize Normalize
	Memory    int64 // bytes, 0: DefaultFoldMemory

	norm  *normalizer
	hosts map[int]*liveHost // that have not ended
	wave  *cohort           // hosts may join; nil: the next begins one
	lines map[string]*liveLine
	held  int64
	out   []byte
	key   []byte
	parts replacements // of no use here
	last  string       // names that have just been on a line of their own
}

const (
	maxLine      = 1 << 20 // a longer line is broken
	minBroken    = 4 << 10 // a shorter one is not, even if memory is short
	liveLineCost = 120     // memory of a line without its bytes, about
)

// cohort is hosts that have had the same lines since they were started.
type cohort struct {
	hosts   []*liveHost
	waiting int    // of them, those of which the next line has not come
	label   string // names of the hosts; empty: to be made
}

type liveHost struct {
	seq     int
	name    string
	names   []string // for Normalize
	cohort  *cohort
	at      int       // in its hosts
	partial [2][]byte // of standard output and error: a line without its end
	ahead   []sent    // lines that have not come out
	ended   bool
	noticed bool
}

// sent is a line of a host: what is shown of it, and what is compared.
type sent struct{ text, key *liveLine }

// liveLine is a line that some hosts are ahead with.
type liveLine struct {
	text string
	uses int
}

// Event implements [runner.Sink]. All that comes out is written in one Write.
func (f *FoldLive) Event(e runner.Event) error {
	if f.hosts == nil {
		f.begin()
	}
	switch e.Kind {
	case runner.Start:
		f.host(e)
	case runner.Stdout:
		f.output(e, 0)
	case runner.Stderr:
		if f.Stderr {
			f.output(e, 1)
		}
	case runner.Again: // what the next try writes is another line
		if h := f.hosts[e.Seq]; h != nil {
			f.endLines(h)
		}
	case runner.Finish:
		if h := f.hosts[e.Seq]; h != nil {
			f.end(h)
		}
	}
	return f.flush()
}

// Close implements [runner.Sink]. Of hosts that have not ended, since the run was given up, all that has come comes out.
func (f *FoldLive) Close() error {
	for _, seq := range slices.Sorted(maps.Keys(f.hosts)) {
		f.end(f.hosts[seq])
	}
	return f.flush()
}

func (f *FoldLive) begin() {
	f.hosts, f.lines = map[int]*liveHost{}, map[string]*liveLine{}
	if f.Normalize.any() {
		f.norm = newNormalizer(&f.Normalize)
		f.parts = make(replacements, partRegexps+len(f.Normalize.Regexps))
	}
}

func (f *FoldLive) flush() error {
	if len(f.out) == 0 {
		return nil
	}
	_, err := f.W.Write(f.out)
	if f.out = f.out[:0]; cap(f.out) > maxLine {
		f.out = nil
	}
	return err
}

// host is the event's host, which joins the wave if it has just come.
func (f *FoldLive) host(e runner.Event) *liveHost {
	h := f.hosts[e.Seq]
	if h != nil {
		return h
	}
	if f.wave == nil {
		f.wave = new(cohort)
	}
	h = &liveHost{seq: e.Seq, name: e.Host.Name}
	if f.Normalize.Host {
		h.names = hostNames(&e.Host)
	}
	f.hosts[e.Seq] = h
	f.wave.add(h)
	f.wave.waiting++
	f.wave.label = ""
	return h
}

// output takes what a host has written to one of its streams.
func (f *FoldLive) output(e runner.Event, stream int) {
	h := f.host(e)
	partial := &h.partial[stream]
	for data := e.Data; len(data) > 0; {
		n := min(len(data), maxLine-len(*partial))
		end := bytes.IndexByte(data[:n], '\n')
		switch {
		case end >= 0:
			n = end + 1
			if len(*partial) == 0 {
				f.send(h, data[:end])
			} else {
				f.hold(partial, data[:end])
				f.sendHeld(h, partial)
			}
		default:
			f.hold(partial, data[:n])
			if len(*partial) == maxLine {
				f.breakLine(h, partial)
			}
		}
		data = data[n:]
		if h.cohort.waiting == 0 {
			f.advance(h.cohort)
		}
	}
	f.relieve(h)
}

func (f *FoldLive) hold(partial *[]byte, data []byte) {
	before := cap(*partial)
	*partial = append(*partial, data...)
	f.held += int64(cap(*partial) - before)
}

// sendHeld makes what is held of a line a line.
func (f *FoldLive) sendHeld(h *liveHost, partial *[]byte) {
	f.send(h, *partial)
	if *partial = (*partial)[:0]; cap(*partial) > minBroken {
		f.held -= int64(cap(*partial))
		*partial = nil
	}
}

// breakLine does so before its end has come.
func (f *FoldLive) breakLine(h *liveHost, partial *[]byte) {
	n := len(*partial)
	f.sendHeld(h, partial)
	if !h.noticed && f.Notices != nil {
		h.noticed = true
		// Nothing that must be known depends on it.
		io.WriteString(f.Notices, harmless(h.name)+": "+brokenLine(n)+"\n")
	}
}

// endLines makes what has come of the host's lines whole ones.
func (f *FoldLive) endLines(h *liveHost) {
	for i := range h.partial {
		if len(h.partial[i]) > 0 {
			f.sendHeld(h, &h.partial[i])
		}
	}
	if h.cohort.waiting == 0 {
		f.advance(h.cohort)
	}
}

// send adds a line to those that have not come out.
func (f *FoldLive) send(h *liveHost, line []byte) {
	s := sent{text: f.intern(line)}
	s.key = s.text
	if f.norm != nil {
		f.key = f.norm.appendLong(f.key[:0], line, h.names, f.parts)
		s.key = f.intern(f.key)
	}
	if len(h.ahead) == 0 {
		h.cohort.waiting--
	}
	before := cap(h.ahead)
	h.ahead = append(h.ahead, s)
	f.held += int64(cap(h.ahead)-before) * 16
}

// intern is the line, which is kept once.
func (f *FoldLive) intern(text []byte) *liveLine {
	l := f.lines[string(text)]
	if l == nil {
		l = &liveLine{text: string(text)}
		f.lines[l.text] = l
		f.held += liveLineCost + int64(len(text))
	}
	l.uses++
	return l
}

func (f *FoldLive) release(l *liveLine) {
	if l.uses--; l.uses == 0 {
		delete(f.lines, l.text)
		f.held -= liveLineCost + int64(len(l.text))
	}
}

// end is the end of a host: there is no line to wait for.
func (f *FoldLive) end(h *liveHost) {
	for i := range h.partial {
		if len(h.partial[i]) > 0 {
			f.send(h, h.partial[i])
		}
		f.held -= int64(cap(h.partial[i]))
		h.partial[i] = nil
	}
	delete(f.hosts, h.seq)
	h.ended = true
	c := h.cohort
	if len(h.ahead) == 0 {
		c.waiting--
		c.remove(h)
		c.label = ""
	}
	if c.waiting == 0 {
		f.advance(c)
	}
}

// add and remove do not touch the label.
func (c *cohort) add(h *liveHost) {
	h.cohort, h.at = c, len(c.hosts)
	c.hosts = append(c.hosts, h)
}

func (c *cohort) remove(h *liveHost) {
	last := len(c.hosts) - 1
	c.hosts[h.at] = c.hosts[last]
	c.hosts[h.at].at = h.at
	c.hosts[last] = nil
	c.hosts = c.hosts[:last]
}

// advance lets all lines come out that can, of a cohort that waits for no host, and of those that it parts into.
func (f *FoldLive) advance(c *cohort) {
	for todo := []*cohort{c}; len(todo) > 0; {
		c, todo = todo[len(todo)-1], todo[:len(todo)-1]
		for c.waiting == 0 && len(c.hosts) > 0 {
			if c == f.wave {
				f.wave = nil
			}
			if parts := c.part(); parts != nil {
				todo = append(todo, parts...)
				break
			}
			f.line(c)
		}
	}
}

// part parts the cohort by the next lines of its hosts. The largest part comes last, and is told first. It returns nil if there is but one.
func (c *cohort) part() []*cohort {
	next := c.hosts[0].ahead[0]
	differs := func(h *liveHost) bool { return h.ahead[0].key != next.key }
	if !slices.ContainsFunc(c.hosts, differs) {
		return nil
	}
	// As in Fold, lines are told as one that are the same, or the same in what is compared: the same line may name hosts.
	type bundle struct {
		hosts []*liveHost
		into  *bundle // the one that has taken all in; nil: it is one itself
	}
	find := func(b *bundle) *bundle {
		for b != nil && b.into != nil {
			b = b.into
		}
		return b
	}
	var bundles []*bundle
	byText, byKey := map[*liveLine]*bundle{}, map[*liveLine]*bundle{}
	for _, h := range c.hosts {
		next := h.ahead[0]
		b, other := find(byText[next.text]), find(byKey[next.key])
		if b == nil || other != nil && len(b.hosts) < len(other.hosts) {
			b, other = other, b
		}
		if b == nil {
			b = new(bundle)
			bundles = append(bundles, b)
		}
		if other != nil && other != b {
			b.hosts = append(b.hosts, other.hosts...)
			other.hosts, other.into = nil, b
		}
		b.hosts = append(b.hosts, h)
		byText[next.text], byKey[next.key] = b, b
	}
	bundles = slices.DeleteFunc(bundles, func(b *bundle) bool { return b.into != nil })
	if len(bundles) == 1 {
		return nil
	}
	var parts []*cohort
	for _, b := range bundles {
		part := new(cohort)
		for _, h := range b.hosts {
			part.add(h)
		}
		parts = append(parts, part)
	}
	slices.SortFunc(parts, func(a, b *cohort) int {
		return cmp.Or(cmp.Compare(len(a.hosts), len(b.hosts)), cmp.Compare(b.first().seq, a.first().seq))
	})
	return parts
}

// first is the host that is first in the run.
func (c *cohort) first() *liveHost {
	return slices.MinFunc(c.hosts, func(a, b *liveHost) int { return cmp.Compare(a.seq, b.seq) })
}

// line lets the next line come out, which is the same for all hosts of the cohort.
func (f *FoldLive) line(c *cohort) {
	shown, alike := c.first().ahead[0].text, true
	for _, h := range c.hosts {
		alike = alike && h.ahead[0].text == shown
	}
	f.write(c, shown.text, alike)
	hosts := c.hosts
	c.hosts = hosts[:0]
	for _, h := range hosts {
		s := h.ahead[0]
		f.release(s.text)
		if f.norm != nil {
			f.release(s.key)
		}
		before := cap(h.ahead)
		h.ahead[0] = sent{}
		if h.ahead = h.ahead[1:]; len(h.ahead) == 0 {
			h.ahead = nil
		}
		f.held -= int64(before-cap(h.ahead)) * 16
		switch {
		case len(h.ahead) > 0:
		case h.ended:
			c.label = ""
			continue
		default:
			c.waiting++
		}
		c.add(h)
	}
	clear(hosts[len(c.hosts):])
}

// relieve lets a host's lines come out without waiting for slower ones, if more is held than may be.
func (f *FoldLive) relieve(h *liveHost) {
	limit := cmp.Or(f.Memory, DefaultFoldMemory)
	if f.held <= limit {
		return
	}
	for i := range h.partial {
		if len(h.partial[i]) >= minBroken {
			f.breakLine(h, &h.partial[i])
		}
	}
	for f.held > limit && len(h.ahead) > 0 {
		slow, ready := h.cohort, new(cohort)
		if slow == f.wave {
			f.wave = nil
		}
		hosts := slow.hosts
		slow.hosts, slow.label = hosts[:0], ""
		for _, h := range hosts {
			if len(h.ahead) > 0 {
				ready.add(h)
			} else {
				slow.add(h)
			}
		}
		clear(hosts[len(slow.hosts):])
		f.advance(ready)
	}
}

// write appends a line behind its label to what comes out.
func (f *FoldLive) write(c *cohort, line string, alike bool) {
	if c.label == "" {
		names := func(yield func(string) bool) {
			for _, h := range c.hosts {
				if !yield(h.name) {
					return
				}
			}
		}
		c.label = harmless(hostlist.Fold(names))
	}
	label := c.label
	if !alike {
		label += "~"
	}
	if f.Width > 0 && len(label)+2 > f.Width/2 {
		if f.last != label {
			f.out = append(append(f.out, wrap(f.Paint(Bold, label), f.Width-1, math.MaxInt)...), ":\n"...)
		}
		f.last = label
		label = "  "
	} else {
		f.last = ""
		label = f.Paint(Bold, label) + ": "
	}
	f.out = append(f.out, label...)
	switch {
	case f.Escape:
		f.out = appendEscaped(f.out, []byte(line))
	case f.Color: // that the hosts' own ones end with the line
		f.out = append(append(f.out, line...), reset...)
	default:
		f.out = append(f.out, line...)
	}
	f.out = append(f.out, '\n')
}
