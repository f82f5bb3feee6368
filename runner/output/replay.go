package output

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"multirsh/runner"
	"multirsh/transport"
)

// maxRecordLine bounds a line of a record: ours are much shorter, and a file without newlines is no record.
const maxRecordLine = 64 << 20

// VersionError is a record of a version that this program does not know.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("this record is of version %d and this program knows version %d: read it with the program that wrote it, or a newer one", e.Version, RecordVersion)
}

// ErrNoRun is what is no record: nothing in it tells of a run.
var ErrNoRun = errors.New("there is no run in it: a record, as --json=FILE makes it, begins with a line of the type run")

// What Replay reports to damaged of a record as a whole: no line of it is left out for that.
var (
	ErrHeadless = errors.New("the record does not begin with the line of its run, so its version is not known")
	ErrCut      = errors.New("the record ends before the run did: hosts are missing, and those without a result count as unknown") // as of a run that was killed
)

// Replay reads a record that [Record] wrote, and calls the sink with the events of that run, which it closes at the end. Results
// have the outcome, status, phase, times and the error's text that they had; Err is not of the types that it was, but for
// *transport.OpError and *runner.StopError.
//
// A line that cannot be used is reported to damaged with its number, from 1, and why, and the rest is used: of a result that is lost
// there is one of outcome unknown at the end, so that every host that began has exactly one. damaged is told ErrCut then, and ErrHeadless where the run's line is missing. Errors are a
// *VersionError for a record of a later version, ErrNoRun where no line can be used, those of r, and a *runner.SinkError.
func Replay(r io.Reader, sink runner.Sink, damaged func(line int, why error)) (Run, error) {
	p := &player{sink: sink, hosts: map[int]*played{}}
	lines := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		line, long, err := readLine(lines)
		if err != nil && err != io.EOF {
			return p.run, errors.Join(err, p.close())
		}
		var why error
		switch {
		case long:
			why = fmt.Errorf("this line is longer than %d MiB", maxRecordLine>>20)
		case len(line) > 0:
			why = p.line(line, err == io.EOF)
		}
		switch why.(type) {
		case nil:
		case *VersionError, *runner.SinkError:
			p.close()
			return p.run, why
		default:
			damaged(number, why)
		}
		if err == io.EOF {
			if !p.begun && len(p.hosts) == 0 {
				return p.run, errors.Join(ErrNoRun, p.close())
			}
			if !p.begun {
				damaged(1, ErrHeadless)
			}
			if p.unfinished() {
				damaged(number, ErrCut)
			}
			return p.run, p.finish()
		}
	}
}

// readLine returns the next line without its newline, valid until the next call. A long one is skipped.
func readLine(r *bufio.Reader) (line []byte, long bool, err error) {
	line, err = r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		whole := slices.Clone(line)
		for err == bufio.ErrBufferFull {
			if line, err = r.ReadSlice('\n'); len(whole) <= maxRecordLine {
				whole = append(whole, line...)
			}
		}
		if line = whole; len(whole) > maxRecordLine {
			return nil, true, err
		}
	}
	return bytes.TrimSuffix(line, []byte("\n")), false, err
}

// player turns lines into events.
type player struct {
	sink  runner.Sink
	run   Run
	begun bool            // the line of the run has come
	hosts map[int]*played // by seq
	order []int           // their seqs, as they began
	last  time.Time       // of an event
}

// played is a host of the record.
type played struct {
	host  transport.Host
	start time.Time
	again *runner.Result // of a try that failed, after which no other has begun; nil: none
	ended bool
}

// line is any line of a record.
type recorded struct {
	Type string `json:"type"`

	V         int       `json:"v"`
	ID        string    `json:"id"`
	Program   string    `json:"program"`
	Time      time.Time `json:"time"`
	Command   string    `json:"command"`
	Transport string    `json:"transport"`
	Fanout    int       `json:"fanout"`
	Hosts     int       `json:"hosts"`

	Seq    *int              `json:"seq"`
	Host   string            `json:"host"`
	User   string            `json:"user"`
	Addr   string            `json:"addr"`
	Port   uint16            `json:"port"`
	Jump   string            `json:"jump"`
	Labels map[string]string `json:"labels"`

	Stream string  `json:"stream"`
	Data   *string `json:"data"`
	Base64 *string `json:"base64"`

	Outcome    runner.Outcome  `json:"outcome"`
	Code       *int            `json:"code"`
	Signal     string          `json:"signal"`
	Phase      transport.Phase `json:"phase"`
	Error      string          `json:"error"`
	Confirmed  *bool           `json:"confirmed"`
	Ran        bool            `json:"ran"`
	Background bool            `json:"background"`
	Tries      int             `json:"tries"`
	Started    time.Time       `json:"started"`
	Running    time.Time       `json:"running"`
	Ended      time.Time       `json:"ended"`
}

// line deals with one line; last, if no newline ends it. Its errors are *runner.SinkError, or what is wrong with the line.
func (p *player) line(text []byte, last bool) error {
	var r recorded
	if err := json.Unmarshal(text, &r); err != nil {
		if last {
			return errors.New("the record ends within this line")
		}
		if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
			return fmt.Errorf("this is no line of a record: %s cannot be a %s", cmp.Or(kind.Field, "it"), kind.Value)
		}
		return fmt.Errorf("this is no line of a record: %w", err)
	}
	switch r.Type {
	case "run":
		return p.begin(&r)
	case "start", "output", "again", "restart", "result":
		return p.event(&r)
	case "summary":
		return nil // made anew
	case "":
		return errors.New("this is no line of a record: it has no type")
	}
	return nil // of a program that knows more, docs/json.md
}

func (p *player) begin(r *recorded) error {
	switch {
	case r.V > RecordVersion:
		return &VersionError{r.V}
	case r.V < 1:
		return errors.New("this line of the run has no version")
	case p.begun:
		return errors.New("a second run begins here: a record has one")
	}
	p.begun = true
	p.run = Run{ID: r.ID, Program: r.Program, Time: r.Time, Command: r.Command, Transport: r.Transport, Fanout: r.Fanout, Hosts: r.Hosts}
	return nil
}

func (p *player) event(r *recorded) error {
	if r.Seq == nil || *r.Seq < 0 || r.Host == "" {
		return fmt.Errorf("this %s has no host or no seq", r.Type)
	}
	h, known := p.hosts[*r.Seq]
	switch {
	case known && h.host.Name != r.Host:
		return fmt.Errorf("seq %d is %s here and %s before", *r.Seq, r.Host, h.host.Name)
	case known && h.ended:
		return fmt.Errorf("this %s of %s comes after its result", r.Type, r.Host)
	case known && r.Type == "start":
		return fmt.Errorf("%s starts a second time", r.Host)
	case r.Type == "restart" && (!known || h.again == nil):
		return fmt.Errorf("%s is tried again, and no try of it has failed before", r.Host)
	case r.Type == "again" && known && h.again != nil:
		return fmt.Errorf("a try of %s ends that has not begun", r.Host)
	}
	e := runner.Event{Time: r.Time, Seq: *r.Seq}
	switch r.Type {
	case "output":
		switch r.Stream {
		case "stdout":
			e.Kind = runner.Stdout
		case "stderr":
			e.Kind = runner.Stderr
		default:
			return fmt.Errorf("there is no stream %q", r.Stream)
		}
		switch {
		case r.Data != nil:
			e.Data = []byte(*r.Data)
		case r.Base64 != nil:
			data, err := base64.StdEncoding.DecodeString(*r.Base64)
			if err != nil {
				return fmt.Errorf("base64: %w", err)
			}
			e.Data = data
		default:
			return errors.New("this output has neither data nor base64")
		}
	case "result", "again":
		if !slices.Contains(order, r.Outcome) {
			return fmt.Errorf("there is no outcome %q", r.Outcome)
		}
		if e.Kind = runner.Finish; r.Type == "again" {
			e.Kind = runner.Again
		}
	case "restart":
		e.Kind = runner.Restart
	}
	if !known {
		h = &played{host: transport.Host{Name: r.Host}, start: r.Time}
		p.hosts[*r.Seq] = h
		p.order = append(p.order, *r.Seq)
		if r.Type == "start" {
			h.host.Transport, h.host.User, h.host.Addr, h.host.Port, h.host.Jump = r.Transport, r.User, r.Addr, r.Port, r.Jump
			if r.Labels != nil {
				h.host.Vars = map[string]string{}
				for name, value := range r.Labels {
					h.host.Vars[labelVar+name] = value
				}
			}
		} else if r.Type != "result" { // its start is lost
			if err := p.send(runner.Event{Kind: runner.Start, Time: r.Time, Seq: *r.Seq, Host: h.host}); err != nil {
				return err
			}
		}
	}
	e.Host = h.host
	switch e.Kind {
	case runner.Finish:
		h.ended = true
		e.Result = r.result(h.host)
	case runner.Again:
		h.again = r.result(h.host)
		e.Result = h.again
	case runner.Restart:
		e.Result, h.again = h.again, nil
	}
	return p.send(e)
}

// result is what the line says, as it was.
func (r *recorded) result(host transport.Host) *runner.Result {
	res := &runner.Result{
		Seq: *r.Seq, Host: host, Outcome: r.Outcome, Tries: r.Tries, Started: r.Started, Running: r.Running, Ended: r.Ended,
		Status: transport.Status{Known: r.Code != nil || r.Signal != "", Signal: r.Signal, Started: r.Ran, Background: r.Background},
	}
	if r.Code != nil {
		res.Status.Code = *r.Code
	}
	res.Err = runner.Retold(r.Error, r.Phase, host.Name, r.Confirmed)
	return res
}

func (p *player) send(e runner.Event) error {
	p.last = e.Time
	if err := p.sink.Event(e); err != nil {
		return &runner.SinkError{Err: err}
	}
	return nil
}

// finish gives a result to those that have none, and closes the sink.
func (p *player) finish() error {
	for _, seq := range p.order {
		h := p.hosts[seq]
		if h.ended {
			continue
		}
		res := &runner.Result{
			Seq: seq, Host: h.host, Outcome: runner.Unknown, Started: h.start, Ended: p.last,
			Err: &transport.OpError{Phase: transport.PhaseRun, Host: h.host.Name, Err: errors.New("the record ends before this host's result")},
		}
		if err := p.send(runner.Event{Kind: runner.Finish, Time: p.last, Seq: seq, Host: h.host, Result: res}); err != nil {
			p.close()
			return err
		}
	}
	return p.close()
}

// unfinished tells whether hosts have no result, or are not there at all.
func (p *player) unfinished() bool {
	if len(p.hosts) < p.run.Hosts {
		return true
	}
	for _, h := range p.hosts {
		if !h.ended {
			return true
		}
	}
	return false
}

func (p *player) close() error {
	if err := p.sink.Close(); err != nil {
		return &runner.SinkError{Err: err}
	}
	return nil
}
