package output

import (
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"multirsh/runner"
	"multirsh/transport"
)

// RecordVersion is the version of the record's schema, docs/json.md. Fields may be added to it; a reader ignores those that it
// does not know. What changes the meaning of a field is a new version.
const RecordVersion = 1

// Run is what a record says of the whole run, in its first line.
type Run struct {
	ID        string    // of the run; empty: it has none
	Program   string    // version of multi-rsh
	Time      time.Time // when it began
	Command   string    // as it was given
	Transport string    // of hosts that name none
	Fanout    int       // hosts at once
	Hosts     int       // in all
}

// Record writes the events of a run as JSON lines, each one object: a run, then for each host its start, any number of outputs and a
// result, before which there may be tries that failed, and at the end a summary. docs/json.md describes each field; [Replay] reads a record back. Every event is written
// when Event returns, in one Write, so the record of a run that was killed is whole but for its last lines.
type Record struct {
	W   io.Writer
	Run Run

	begun   bool
	line    []byte
	bytes   []byte
	rest    map[channel][]byte // the begin of a character whose end is still to come
	tally   Tally
	failure error
}

// Event implements [runner.Sink]. An error is that of W.
func (r *Record) Event(e runner.Event) error {
	r.line = r.line[:0]
	if !r.begun {
		r.begin()
	}
	r.tally.add(e)
	switch e.Kind {
	case runner.Start:
		r.open("start", e)
		r.stringOf("transport", e.Host.Transport)
		r.stringOf("user", e.Host.User)
		r.stringOf("addr", e.Host.Addr)
		r.intOf("port", int(e.Host.Port))
		r.stringOf("jump", e.Host.Jump)
		r.labels(e.Host.Vars)
		r.close()
	case runner.Stdout, runner.Stderr:
		r.output(e)
	case runner.Restart:
		r.open("restart", e)
		r.close()
	case runner.Finish, runner.Again:
		for _, kind := range [...]runner.Kind{runner.Stdout, runner.Stderr} {
			if rest := r.rest[channel{e.Seq, kind}]; len(rest) > 0 {
				delete(r.rest, channel{e.Seq, kind})
				r.data(e, kind, rest)
			}
		}
		if e.Kind == runner.Again {
			r.result("again", e)
		} else {
			r.result("result", e)
		}
	}
	return r.write()
}

// Close implements [runner.Sink]: it writes the summary. W stays open.
func (r *Record) Close() error {
	if r.failure != nil {
		return nil // it has been told
	}
	r.line = r.line[:0]
	if !r.begun {
		r.begin()
	}
	r.line = append(r.line, `{"type":"summary",`...)
	r.line = r.tally.appendFields(r.line)
	r.close()
	return r.write()
}

func (r *Record) write() error {
	if len(r.line) == 0 {
		return nil
	}
	_, err := r.W.Write(r.line)
	r.failure = err
	return err
}

// begin writes the first line.
func (r *Record) begin() {
	r.begun = true
	r.line = append(r.line, `{"type":"run","v":`...)
	r.line = strconv.AppendInt(r.line, RecordVersion, 10)
	r.stringOf("id", r.Run.ID)
	r.stringOf("program", r.Run.Program)
	r.timeOf("time", r.Run.Time)
	r.stringOf("command", r.Run.Command)
	r.stringOf("transport", r.Run.Transport)
	r.intOf("fanout", r.Run.Fanout)
	r.intOf("hosts", r.Run.Hosts)
	r.close()
}

// output writes the event's data, less a character at its end that is not yet whole: UTF-8 stays text however it is cut.
func (r *Record) output(e runner.Event) {
	ch := channel{e.Seq, e.Kind}
	data := e.Data
	if rest, some := r.rest[ch]; some {
		r.bytes = append(append(r.bytes[:0], rest...), data...)
		data = r.bytes
		delete(r.rest, ch)
	}
	if whole := len(data) - partial(data); whole < len(data) {
		if r.rest == nil {
			r.rest = map[channel][]byte{}
		}
		r.rest[ch] = slices.Clone(data[whole:])
		data = data[:whole]
	}
	if len(data) > 0 {
		r.data(e, e.Kind, data)
	}
}

// partial is how many bytes at the end of p are the begin of a character, and can become one.
func partial(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if tail := p[len(p)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

var streams = map[runner.Kind]string{runner.Stdout: "stdout", runner.Stderr: "stderr"}

func (r *Record) data(e runner.Event, kind runner.Kind, data []byte) {
	r.open("output", e)
	r.stringOf("stream", streams[kind])
	if utf8.Valid(data) {
		r.line = append(r.line, `,"data":`...)
		r.line = appendString(r.line, data)
	} else {
		r.line = append(r.line, `,"base64":"`...)
		r.line = base64.StdEncoding.AppendEncode(r.line, data)
		r.line = append(r.line, '"')
	}
	r.close()
}

// result writes how a host, or a try of one, has ended.
func (r *Record) result(kind string, e runner.Event) {
	res := e.Result
	r.open(kind, e)
	r.stringOf("outcome", string(res.Outcome))
	if res.Status.Known {
		if res.Status.Signal != "" {
			r.stringOf("signal", res.Status.Signal)
		} else {
			r.line = append(r.line, `,"code":`...)
			r.line = strconv.AppendInt(r.line, int64(res.Status.Code), 10)
		}
	}
	r.stringOf("phase", string(res.Phase()))
	if res.Err != nil {
		err := res.Err
		if op, is := err.(*transport.OpError); is {
			err = op.Err
		}
		r.stringOf("error", err.Error())
		if stop := (*runner.StopError)(nil); errors.As(res.Err, &stop) {
			r.line = append(r.line, `,"confirmed":`...)
			r.line = strconv.AppendBool(r.line, stop.Confirmed)
		}
	}
	r.flagOf("ran", res.Status.Started)
	r.flagOf("background", res.Status.Background)
	r.intOf("tries", res.Tries)
	r.timeOf("started", res.Started)
	r.timeOf("running", res.Running)
	r.timeOf("ended", res.Ended)
	r.close()
}

// open begins a line about a host.
func (r *Record) open(kind string, e runner.Event) {
	r.line = append(append(append(r.line, `{"type":"`...), kind...), `","seq":`...)
	r.line = strconv.AppendInt(r.line, int64(e.Seq), 10)
	r.stringOf("host", e.Host.Name)
	r.timeOf("time", e.Time)
}

func (r *Record) close() { r.line = append(r.line, '}', '\n') }

func (r *Record) key(name string) {
	r.line = append(append(append(r.line, ',', '"'), name...), '"', ':')
}

// A field that says nothing is left out.

func (r *Record) stringOf(name, value string) {
	if value != "" {
		r.key(name)
		r.line = appendString(r.line, value)
	}
}

func (r *Record) intOf(name string, value int) {
	if value != 0 {
		r.key(name)
		r.line = strconv.AppendInt(r.line, int64(value), 10)
	}
}

func (r *Record) flagOf(name string, value bool) {
	if value {
		r.key(name)
		r.line = append(r.line, "true"...)
	}
}

func (r *Record) timeOf(name string, value time.Time) {
	if !value.IsZero() {
		r.key(name)
		r.line = append(value.UTC().AppendFormat(append(r.line, '"'), time.RFC3339Nano), '"')
	}
}

// labelVar begins the keys of transport.Host.Vars that are labels.
const labelVar = "label."

// labels writes the labels that the inventory has given to a host.
func (r *Record) labels(vars map[string]string) {
	first := true
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		label, is := strings.CutPrefix(name, labelVar)
		if !is {
			continue
		}
		if first {
			r.key("labels")
			r.line = append(r.line, '{')
		} else {
			r.line = append(r.line, ',')
		}
		first = false
		r.line = append(appendString(r.line, label), ':')
		r.line = appendString(r.line, vars[name])
	}
	if !first {
		r.line = append(r.line, '}')
	}
}
