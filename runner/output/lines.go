package output

import (
	"bytes"
	"fmt"
	"io"

	"multirsh/runner"
)

// Lines writes the output of the hosts as it comes, each line behind its host's name: "host: line". What the command wrote to
// its standard error goes to Stderr, labelled too, and so does one line for each host that was tried and was not ok, when it ends.
// With colours a line of standard error has a red ! in place of the colon.
//
// Host names and errors never hold what a terminal obeys. A line waits, in memory, until its newline has come, and goes out in one Write
// together with the other whole lines of the event. It is changed only by Stream.Escape, whatever its bytes, and by colours that end before
// its newline. The last line of a host gets its newline if it has none.
//
// A line of more than 1 MiB is broken: it goes out in pieces, each a line of its own. So does the longest one when more than 64 MiB in all
// wait for their ends. A notice on Stderr, also if Quiet, says so once for each host. A slow writer holds Event up; nothing is queued.
//
// Without labels a stream that is no terminal and not escaped gets what hosts write byte for byte, and a newline of ours only where the output of
// another host would else go on in the same line: when a second one writes, the first one's last line is ended, and of them all each one's; and a
// long line is passed on in pieces, and broken only if another host's output comes between. So what one host alone writes is never changed.
type Lines struct {
	Stdout, Stderr Stream
	NoLabels       bool // lines alone
	Quiet          bool // only what the commands write, nothing about how hosts ended

	// A Summary follows: of those hosts that ended alike and with the same error only the first maxTold are told of, and one line then says that
	// the summary tells the rest.
	Summarized bool

	unfinished map[channel]*unfinished // lines that have begun
	held       int                     // capacities of their buffers
	maxHeld    int                     // 0: maxUnfinished
	spare      []*unfinished           // to hold the next ones
	broken     map[int]bool            // hosts with a line that was broken, by Seq
	passed     [2]passed
	kinds      errorKinds
	told       map[failure]*told

	label, line, batch []byte
}

// channel is one of a host's two outputs.
type channel struct {
	seq  int
	kind runner.Kind
}

// unfinished is the begin of a line.
type unfinished struct {
	host string
	text []byte
}

// passed is what is known of a stream to which things are passed on byte for byte.
type passed struct {
	seq     int // of the host that has written last
	host    string
	bytes   int  // of its line, if that has no end yet
	began   bool // something has been written
	several bool // by more hosts than one
	open    bool // the last line has no end
	ended   bool // and will have none: its host has ended
}

// told counts the hosts that were told of with an error.
type told struct {
	hosts int
	last  string
}

const (
	maxUnfinished = 64 << 20 // memory for the begins of lines
	keepBatch     = 2 << 20  // a batch buffer that grew larger is not kept
	keepLine      = 4 << 10  // the same for buffers of unfinished lines, of which so many are kept
	keepLines     = 256
)

// Event implements [runner.Sink]. An error is that of Stdout or Stderr.
func (l *Lines) Event(e runner.Event) error {
	switch e.Kind {
	case runner.Stdout, runner.Stderr:
		// More than a line may have is taken in parts, so that it comes out as if it had come in small events.
		for data := e.Data; len(data) > 0; {
			n := min(len(data), maxLine)
			if err := l.output(channel{e.Seq, e.Kind}, e.Host.Name, data[:n]); err != nil {
				return err
			}
			data = data[n:]
		}
	case runner.Again: // what the next try writes is another line
		return l.endOutputs(e.Seq)
	case runner.Finish:
		return l.finish(e)
	}
	return nil
}

// endOutputs writes the lines that a host's outputs end with.
func (l *Lines) endOutputs(seq int) error {
	for _, kind := range [...]runner.Kind{runner.Stdout, runner.Stderr} {
		if err := l.endOutput(channel{seq, kind}); err != nil {
			return err
		}
	}
	return nil
}

// Close implements [runner.Sink]. There is nothing left to do: each host's end has been written at its Finish.
func (l *Lines) Close() error { return nil }

func (l *Lines) stream(kind runner.Kind) *Stream {
	if kind == runner.Stdout {
		return &l.Stdout
	}
	return &l.Stderr
}

// exact tells whether what comes on a stream may be passed on byte for byte, without newlines of ours.
func (l *Lines) exact(w *Stream) bool { return l.NoLabels && w.Width == 0 && !w.Escape }

func (l *Lines) passedTo(kind runner.Kind) *passed { return &l.passed[kind-runner.Stdout] }

// output takes at most maxLine bytes of what a host has written.
func (l *Lines) output(ch channel, host string, data []byte) error {
	u := l.unfinished[ch]
	if u != nil {
		var err error
		if data, err = l.breakLong(ch, u, data); err != nil {
			return err
		}
	}
	if bytes.IndexByte(data, '\n') >= 0 { // it is fast, and LastIndexByte is not where there is none
		end := bytes.LastIndexByte(data, '\n') + 1
		var begun []byte
		if u != nil {
			begun = u.text
		}
		lines := data[:end]
		data = data[end:]
		if err := l.whole(ch, host, begun, lines); err != nil {
			return err
		}
		if u != nil {
			l.release(ch, u)
			u = nil
		}
	}
	if len(data) == 0 {
		return nil
	}
	if u == nil {
		if n := len(l.spare); n > 0 {
			u, l.spare = l.spare[n-1], l.spare[:n-1]
			l.held += cap(u.text)
		} else {
			u = new(unfinished)
		}
		u.host = host
		if l.unfinished == nil {
			l.unfinished = map[channel]*unfinished{}
		}
		l.unfinished[ch] = u
	}
	return l.hold(ch, u, data)
}

// whole writes whole lines, the first behind what has come of it before.
func (l *Lines) whole(ch channel, host string, begun, lines []byte) error {
	w := l.stream(ch.kind)
	l.label = l.appendLabel(l.label[:0], w, ch.kind, host)
	batch := l.batch[:0]
	if len(begun) > 0 {
		first := bytes.IndexByte(lines, '\n') + 1
		l.line = append(append(l.line[:0], begun...), lines[:first]...)
		batch = w.appendLines(batch, l.label, l.line)
		lines = lines[first:]
	} else if len(l.label) == 0 && !w.Escape {
		return l.write(ch, host, lines)
	}
	l.batch = w.appendLines(batch, l.label, lines)
	err := l.write(ch, host, l.batch)
	if cap(l.batch) > keepBatch {
		l.batch = nil
	}
	return err
}

// hold keeps what has come of a line. If that is more than may be kept in all, the longest are put out.
func (l *Lines) hold(ch channel, u *unfinished, data []byte) error {
	limit := l.maxHeld
	if limit == 0 {
		limit = maxUnfinished
	}
	for {
		if p := l.passedTo(ch.kind); p.open && p.seq == ch.seq {
			return l.write(ch, u.host, data) // as what came before it
		}
		size := len(u.text) + len(data)
		if size <= cap(u.text) {
			break
		}
		size = min(max(size, 2*cap(u.text), 64), maxLine)
		if l.held == 0 || l.held-cap(u.text)+size <= limit {
			l.held += size - cap(u.text)
			u.text = append(make([]byte, 0, size), u.text...)
			break
		}
		if err := l.relieve(u); err != nil {
			return err
		}
	}
	u.text = append(u.text, data...)
	return nil
}

// relieve puts the longest line out. That of u is still to be there then.
func (l *Lines) relieve(u *unfinished) error {
	ch, longest := l.longest()
	if len(longest.text) > 0 {
		if err := l.breakLine(ch, longest); err != nil {
			return err
		}
	}
	l.held -= cap(longest.text)
	longest.text = append([]byte(nil), longest.text...) // a part of a character at most
	l.held += cap(longest.text)
	if len(longest.text) == 0 && longest != u {
		delete(l.unfinished, ch)
	}
	return nil
}

// longest is the line that takes the most memory.
func (l *Lines) longest() (longest channel, line *unfinished) {
	for ch, u := range l.unfinished {
		if line == nil || cap(u.text) > cap(line.text) || cap(u.text) == cap(line.text) && ch.before(longest) {
			longest, line = ch, u
		}
	}
	return longest, line
}

func (a channel) before(b channel) bool {
	return a.seq < b.seq || a.seq == b.seq && a.kind < b.kind
}

// breakLong puts a line out for as long as it has more than maxLine bytes with what comes of it in data, and returns what it leaves of data.
func (l *Lines) breakLong(ch channel, u *unfinished, data []byte) ([]byte, error) {
	more := bytes.IndexByte(data, '\n')
	if more < 0 {
		more = len(data)
	}
	for {
		room := maxLine - len(u.text)
		if more <= room {
			return data, nil
		}
		if err := l.hold(ch, u, data[:room]); err != nil {
			return nil, err
		}
		if len(u.text) == maxLine { // else it has been put out before
			if err := l.breakLine(ch, u); err != nil {
				return nil, err
			}
		}
		data, more = data[room:], more-room
	}
}

// breakLine puts out what has come of a line, but for a part of a character.
func (l *Lines) breakLine(ch channel, u *unfinished) error {
	w := l.stream(ch.kind)
	if l.exact(w) {
		text := u.text
		u.text = u.text[:0]
		return l.write(ch, u.host, text)
	}
	size := len(u.text)
	n := size - partial(u.text)
	if n == 0 {
		n = size
	}
	if err := l.whole(ch, u.host, u.text[:n], []byte{'\n'}); err != nil {
		return err
	}
	u.text = append(u.text[:0], u.text[n:]...)
	return l.tellBroken(ch.seq, u.host, size)
}

// write writes what comes from a host to its stream.
func (l *Lines) write(ch channel, host string, text []byte) error {
	w := l.stream(ch.kind)
	if !l.exact(w) {
		_, err := w.W.Write(text)
		return err
	}
	p := l.passedTo(ch.kind)
	if !p.began || p.seq != ch.seq {
		if err := l.endOpen(ch.kind); err != nil {
			return err
		}
		p.several = p.began
		p.seq, p.host, p.began = ch.seq, host, true
	}
	if _, err := w.W.Write(text); err != nil {
		return err
	}
	if !p.open {
		p.bytes = 0
	}
	p.bytes += len(text)
	p.open, p.ended = text[len(text)-1] != '\n', false
	return nil
}

// endOpen ends the line on a stream that has no end, if there is one, since something else comes.
func (l *Lines) endOpen(kind runner.Kind) error {
	p := l.passedTo(kind)
	if !p.open {
		return nil
	}
	p.open = false
	if _, err := l.stream(kind).W.Write([]byte{'\n'}); err != nil {
		return err
	}
	if p.ended {
		return nil
	}
	return l.tellBroken(p.seq, p.host, p.bytes)
}

// tellBroken says, once, that a line of the host was broken.
func (l *Lines) tellBroken(seq int, host string, size int) error {
	if l.broken[seq] {
		return nil
	}
	if l.broken == nil {
		l.broken = map[int]bool{}
	}
	l.broken[seq] = true
	return l.notice(l.name(host), l.Stderr.Paint(Yellow, brokenLine(size)))
}

// brokenLine is why there is a newline behind so many bytes that no host has sent.
func brokenLine(bytes int) string {
	return "a line has no end within " + size(int64(bytes)) + ", so it is broken there"
}

// notice writes a line about someone to Stderr. Both texts are harmless to a terminal.
func (l *Lines) notice(who, text string) error {
	if err := l.endOpen(runner.Stderr); err != nil {
		return err
	}
	_, err := io.WriteString(l.Stderr.W, who+": "+text+"\n")
	return err
}

// name is a host's in a notice.
func (l *Lines) name(host string) string {
	return l.Stderr.Paint(colorOfHost(host), harmless(host))
}

// appendLabel appends what is written before each line of a host.
func (l *Lines) appendLabel(to []byte, w *Stream, kind runner.Kind, host string) []byte {
	switch {
	case l.NoLabels:
		return to
	case !w.Color:
		to = appendEscaped(to, []byte(host))
		return append(to, ": "...)
	}
	to = append(to, colorOfHost(host)...)
	to = appendEscaped(to, []byte(host))
	if kind == runner.Stderr {
		to = append(append(to, Red...), '!')
	} else {
		to = append(to, ':')
	}
	return append(to, reset+" "...)
}

// appendLines appends whole lines, each behind the label, as they are to look on the stream.
func (w *Stream) appendLines(to, label, lines []byte) []byte {
	if len(label) == 0 {
		if w.Escape {
			return appendEscaped(to, lines)
		}
		return append(to, lines...)
	}
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		to = append(to, label...)
		switch {
		case w.Escape:
			to = appendEscaped(to, lines[:n])
		case w.Color: // that the host's own ones end with its line
			to = append(append(to, lines[:n-1]...), reset+"\n"...)
		default:
			to = append(to, lines[:n]...)
		}
		lines = lines[n:]
	}
	return to
}

// release keeps the buffer of a line that is done for another one, if it is not large.
func (l *Lines) release(ch channel, u *unfinished) {
	delete(l.unfinished, ch)
	l.held -= cap(u.text)
	if cap(u.text) <= keepLine && len(l.spare) < keepLines {
		u.host, u.text = "", u.text[:0]
		l.spare = append(l.spare, u)
	}
}

// finish writes a host's unfinished lines and how it ended.
func (l *Lines) finish(e runner.Event) error {
	if err := l.endOutputs(e.Seq); err != nil {
		return err
	}
	delete(l.broken, e.Seq)
	r := e.Result
	if l.Quiet || r.Outcome == runner.OK || stoppedWithRun(r) {
		return nil
	}
	how := endingOf(r)
	if l.Summarized && r.Err != nil {
		switch t := l.toldOf(e, how); {
		case t == nil:
		case t.hosts > maxTold:
			return nil
		case t.hosts == maxTold:
			t.hosts++
			return l.notice("multi-rsh", fmt.Sprintf("further hosts with the error of %s (%s) are told in the summary", harmless(t.last), harmless(how.String())))
		default:
			t.hosts++
			t.last = e.Host.Name
		}
	}
	text := l.Stderr.Paint(colorOf(r.Outcome), harmless(how.String()))
	if r.Err != nil {
		text += ": " + harmless(sentence(r.Err))
	}
	return l.notice(l.name(e.Host.Name), text)
}

// endOutput writes the line that one of a host's outputs ends with, if that has no newline.
func (l *Lines) endOutput(ch channel) error {
	p := l.passedTo(ch.kind)
	if u := l.unfinished[ch]; u != nil {
		var err error
		switch alone := !p.began || p.seq == ch.seq && !p.several; {
		case len(u.text) == 0:
		case alone && l.exact(l.stream(ch.kind)):
			err = l.write(ch, u.host, u.text)
		default:
			err = l.whole(ch, u.host, u.text, []byte{'\n'})
		}
		l.release(ch, u)
		if err != nil {
			return err
		}
	}
	if !p.open || p.seq != ch.seq {
		return nil
	}
	p.ended = true
	if p.several {
		return l.endOpen(ch.kind)
	}
	return nil
}

// toldOf is how many hosts that ended so were told of with the error of this one; nil if the summary may not name it.
func (l *Lines) toldOf(e runner.Event, how ending) *told {
	kind := l.kinds.kind(e)
	if kind == "" || kind == otherErrors {
		return nil
	}
	if l.told == nil {
		l.told = map[failure]*told{}
	}
	f := failure{how, kind}
	if l.told[f] == nil {
		l.told[f] = new(told)
	}
	return l.told[f]
}
