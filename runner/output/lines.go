package output

import (
	"bytes"

	"multirsh/runner"
)

// Lines writes the output of the hosts as it comes, each line behind its host's name: "host: line". What the command wrote to
// its standard error goes to Stderr, labelled too, and so does one line for each host that was tried and was not ok, when it ends.
//
// Host names and errors never hold what a terminal obeys. A line is never broken or cut, however long it is, and changed only by
// Stream.Escape, whatever its bytes: it waits, in memory, until its newline
// has come, and goes out in one Write together with the other whole lines of the event. The last line of a host gets
// its newline if it has none.
type Lines struct {
	Stdout, Stderr Stream
	NoLabels       bool // lines alone
	Quiet          bool // only what the commands write, nothing about how hosts ended

	unfinished map[channel][]byte // label and begin of a line, of those that have one
	spare      [][]byte           // buffers to hold the next ones
	label      []byte
	batch      []byte
	escaped    []byte
}

// channel is one of a host's two outputs.
type channel struct {
	seq  int
	kind runner.Kind
}

const (
	keepBatch = 1 << 20 // a batch buffer that grew larger is not kept
	keepLine  = 4 << 10 // the same for buffers of unfinished lines, of which so many are kept
	keepLines = 256
)

// Event implements [runner.Sink]. An error is that of Stdout or Stderr.
func (l *Lines) Event(e runner.Event) error {
	switch e.Kind {
	case runner.Stdout:
		return l.output(l.Stdout, e)
	case runner.Stderr:
		return l.output(l.Stderr, e)
	case runner.Finish:
		return l.finish(e)
	}
	return nil
}

// Close implements [runner.Sink]. There is nothing left to do: each host's end has been written at its Finish.
func (l *Lines) Close() error { return nil }

func (l *Lines) output(w Stream, e runner.Event) error {
	ch := channel{e.Seq, e.Kind}
	held, began := l.unfinished[ch]
	l.setLabel(e)
	end := bytes.LastIndexByte(e.Data, '\n') + 1
	whole, rest := e.Data[:end], e.Data[end:]

	var err error
	switch {
	case end == 0:
	case began && cap(held) > keepLine: // a long line, which is not copied once more
		first := bytes.IndexByte(whole, '\n') + 1
		err = l.write(w, l.appendLines(append(held, whole[:first]...), whole[first:]))
	case !began && l.NoLabels:
		err = l.write(w, whole)
	default:
		batch := l.batch[:0]
		if began {
			first := bytes.IndexByte(whole, '\n') + 1
			batch = append(append(batch, held...), whole[:first]...)
			whole = whole[first:]
			l.release(held)
		}
		l.batch = l.appendLines(batch, whole)
		err = l.write(w, l.batch)
		if cap(l.batch) > keepBatch {
			l.batch = nil
		}
	}
	if began && end > 0 {
		delete(l.unfinished, ch)
		began, held = false, nil
	}

	if len(rest) > 0 {
		if !began {
			if n := len(l.spare); n > 0 {
				held, l.spare = l.spare[n-1], l.spare[:n-1]
			}
			held = append(held, l.label...)
		}
		if l.unfinished == nil {
			l.unfinished = map[channel][]byte{}
		}
		l.unfinished[ch] = append(held, rest...)
	}
	return err
}

// write writes whole lines, escaped if they are to be.
func (l *Lines) write(w Stream, lines []byte) error {
	if w.Escape {
		l.escaped = appendEscaped(l.escaped[:0], lines)
		lines = l.escaped
		if cap(l.escaped) > keepBatch {
			l.escaped = nil
		}
	}
	_, err := w.W.Write(lines)
	return err
}

// setLabel makes l.label that of the event's host.
func (l *Lines) setLabel(e runner.Event) {
	l.label = l.label[:0]
	if !l.NoLabels {
		l.label = append(appendEscaped(l.label, []byte(e.Host.Name)), ": "...)
	}
}

// appendLines appends whole lines, each behind the label.
func (l *Lines) appendLines(to, lines []byte) []byte {
	if len(l.label) == 0 {
		return append(to, lines...)
	}
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		to = append(append(to, l.label...), lines[:n]...)
		lines = lines[n:]
	}
	return to
}

// release keeps the buffer of an unfinished line for another one, if it is not large.
func (l *Lines) release(buf []byte) {
	if cap(buf) <= keepLine && len(l.spare) < keepLines {
		l.spare = append(l.spare, buf[:0])
	}
}

// finish writes a host's unfinished lines and how it ended.
func (l *Lines) finish(e runner.Event) error {
	for _, out := range [...]struct {
		kind runner.Kind
		w    Stream
	}{{runner.Stdout, l.Stdout}, {runner.Stderr, l.Stderr}} {
		ch := channel{e.Seq, out.kind}
		held, began := l.unfinished[ch]
		if !began {
			continue
		}
		delete(l.unfinished, ch)
		held = append(held, '\n')
		err := l.write(out.w, held)
		l.release(held)
		if err != nil {
			return err
		}
	}
	if r := e.Result; !l.Quiet && r.Outcome != runner.OK && !stoppedWithRun(r) {
		notice := e.Host.Name + ": " + endingOf(r).String()
		if r.Err != nil {
			notice += ": " + sentence(r.Err)
		}
		_, err := l.Stderr.W.Write(appendEscaped(nil, []byte(notice+"\n")))
		return err
	}
	return nil
}
