package journal

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"multirsh/runner"
	"multirsh/transport"
)

// maxLine bounds a line: a head holds a command of 128 KiB and a configuration, and a file without newlines is no journal.
const maxLine = 16 << 20

// crcKey begins the end of every line: `,"crc":"` + eight hexadecimal digits + `"}`. It is the CRC-32C (RFC 3720, section 12.1) of what stands before.
const (
	crcKey  = `,"crc":"`
	crcTail = len(crcKey) + 8 + len(`"}`)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal ends a line that is an object but for its brace.
func seal(b []byte) []byte {
	sum := crc32.Checksum(b, castagnoli)
	b = append(b, crcKey...)
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[sum>>shift&15])
	}
	return append(b, "\"}\n"...)
}

var errDamaged = errors.New("this line is damaged")

// unseal checks a line, which has no newline.
func unseal(line []byte) error {
	at := len(line) - crcTail
	if at < 0 || string(line[at:at+len(crcKey)]) != crcKey || string(line[len(line)-2:]) != `"}` {
		return errDamaged
	}
	sum, err := strconv.ParseUint(string(line[at+len(crcKey):len(line)-2]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(line[:at], castagnoli) {
		return errDamaged
	}
	return nil
}

// appendString appends a JSON string. What is no UTF-8 in it becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // never fails for a string
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// appendText appends a string that comes back byte for byte: as a JSON string or, if it is no UTF-8, as {"base64":"…"}.
func appendText(b []byte, s string) []byte {
	if utf8.ValidString(s) {
		return appendString(b, s)
	}
	b = base64.StdEncoding.AppendEncode(append(b, `{"base64":"`...), []byte(s))
	return append(b, `"}`...)
}

// Text is a string that goes into JSON and comes back byte for byte, UTF-8 or not.
type Text string

// MarshalJSON implements json.Marshaler.
func (t Text) MarshalJSON() ([]byte, error) { return appendText(nil, string(t)), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (t *Text) UnmarshalJSON(b []byte) error {
	if b[0] != '{' {
		return json.Unmarshal(b, (*string)(t))
	}
	var in struct {
		Base64 []byte `json:"base64"`
	}
	err := json.Unmarshal(b, &in)
	*t = Text(in.Base64)
	return err
}

// Texts are strings as Text.
func Texts(s []string) []Text {
	var all []Text
	for _, one := range s {
		all = append(all, Text(one))
	}
	return all
}

// FromTexts is the inverse of Texts.
func FromTexts(t []Text) []string {
	var all []string
	for _, one := range t {
		all = append(all, string(one))
	}
	return all
}

func appendTime(b []byte, t time.Time) []byte {
	return append(t.UTC().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

// appendSeconds appends a duration as a number of seconds, exactly up to 104 days.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, d.Seconds(), 'f', -1, 64)
}

func fromSeconds(s float64) time.Duration {
	return time.Duration(math.Round(s * float64(time.Second)))
}

// appendHost appends the line of a host.
func appendHost(b []byte, seq int, h transport.Host) []byte {
	b = strconv.AppendInt(append(b, `{"type":"host","seq":`...), int64(seq), 10)
	b = appendText(append(b, `,"host":`...), h.Name)
	for _, field := range [...]struct{ key, value string }{
		{`,"addr":`, h.Addr}, {`,"user":`, h.User}, {`,"transport":`, h.Transport}, {`,"jump":`, h.Jump},
	} {
		if field.value != "" {
			b = appendText(append(b, field.key...), field.value)
		}
	}
	if h.Port != 0 {
		b = strconv.AppendInt(append(b, `,"port":`...), int64(h.Port), 10)
	}
	if len(h.Vars) > 0 { // names and values in turn: a name need not be UTF-8 either
		b = append(b, `,"vars":[`...)
		for i, name := range slices.Sorted(maps.Keys(h.Vars)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(append(appendText(b, name), ','), h.Vars[name])
		}
		b = append(b, ']')
	}
	return seal(b)
}

// appendProcess appends the line with which a process begins: of kind run or resume.
func appendProcess(b []byte, kind string, pid int, hosts int) []byte {
	b = append(append(append(b, `{"type":"`...), kind...), `","time":`...)
	b = strconv.AppendInt(append(appendTime(b, time.Now()), `,"pid":`...), int64(pid), 10)
	b = strconv.AppendInt(append(b, `,"hosts":`...), int64(hosts), 10)
	if boot := bootID(); boot != "" {
		b = appendString(append(b, `,"boot":`...), boot)
	}
	return seal(b)
}

func appendEnd(b []byte, c *Counts, why string) []byte {
	b = appendTime(append(b, `{"type":"end","time":`...), time.Now())
	b = append(b, `,"outcomes":{`...)
	for i, outcome := range slices.Sorted(maps.Keys(c.Outcomes)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(appendString(b, string(outcome)), ':'), int64(c.Outcomes[outcome]), 10)
	}
	b = strconv.AppendInt(append(b, `},"open":`...), int64(c.Open), 10)
	b = strconv.AppendInt(append(b, `,"notrun":`...), int64(c.NotRun), 10)
	if why != "" {
		b = appendText(append(b, `,"error":`...), short(why))
	}
	return seal(b)
}

// headLine is the first line.
type headLine struct {
	Type     string          `json:"type"`
	V        int             `json:"v"`
	Time     time.Time       `json:"time"`
	Program  string          `json:"program,omitempty"`
	Parent   string          `json:"parent,omitempty"`
	Digest   string          `json:"digest"`
	Command  Text            `json:"command"`
	Settings Text            `json:"settings,omitempty"`
	Argv     []Text          `json:"argv,omitempty"`
	Config   json.RawMessage `json:"config,omitempty"`
	Input    *inputField     `json:"input,omitempty"`
}

type inputField struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func appendHead(b []byte, h *Head) ([]byte, error) {
	l := headLine{
		Type: "head", V: Version, Time: h.Time, Program: h.Program, Parent: h.Parent, Digest: h.Digest,
		Command: Text(h.Command), Settings: Text(h.Settings), Argv: Texts(h.Argv), Config: h.Config,
	}
	if h.InputSHA256 != "" {
		l.Input = &inputField{h.InputSize, h.InputSHA256}
	}
	line, err := json.Marshal(l)
	if err != nil {
		return b, fmt.Errorf("the configuration of the run is no JSON: %w", err)
	}
	return seal(append(b, line[:len(line)-1]...)), nil
}

// entry is any line but the head.
type entry struct {
	Type string    `json:"type"`
	Seq  *int      `json:"seq"`
	Host Text      `json:"host"`
	Time time.Time `json:"time"`

	// host
	Addr      Text   `json:"addr"`
	User      Text   `json:"user"`
	Transport Text   `json:"transport"`
	Jump      Text   `json:"jump"`
	Port      uint16 `json:"port"`
	Vars      []Text `json:"vars"`

	// run, resume
	PID   int    `json:"pid"`
	Hosts int    `json:"hosts"`
	Boot  string `json:"boot"`

	// waits, result
	Outcome    runner.Outcome  `json:"outcome"`
	Code       *int            `json:"code"`
	Signal     Text            `json:"signal"`
	Phase      transport.Phase `json:"phase"`
	Error      Text            `json:"error"`
	Confirmed  *bool           `json:"confirmed"`
	Ran        bool            `json:"ran"`
	Ended      bool            `json:"ended"`
	Background bool            `json:"background"`
	Tries      int             `json:"tries"`
	Started    time.Time       `json:"started"`
	Connect    *float64        `json:"connect"`
	Run        float64         `json:"run"`

	// end
	Outcomes map[runner.Outcome]int `json:"outcomes"`
	Open     int                    `json:"open"`
	NotRun   int                    `json:"notrun"`
}

// parse reads a line that is no head.
func parse(line []byte) (*entry, error) {
	if err := unseal(line); err != nil {
		return nil, err
	}
	e := &entry{}
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("this is no line of a journal: %w", err)
	}
	return e, nil
}

// host is the host of a line that is one.
func (e *entry) host() transport.Host {
	h := transport.Host{
		Name: string(e.Host), Addr: string(e.Addr), User: string(e.User), Transport: string(e.Transport), Jump: string(e.Jump), Port: e.Port,
	}
	if len(e.Vars) > 0 {
		h.Vars = map[string]string{}
		for pair := range slices.Chunk(e.Vars, 2) {
			h.Vars[string(pair[0])] = string(pair[len(pair)-1])
		}
	}
	return h
}

// result is what a line says of how its host ended. Of the error, its text and phase are as they were, and whether it was a stop.
func (e *entry) result(host transport.Host) *runner.Result {
	r := &runner.Result{
		Seq: *e.Seq, Host: host, Outcome: e.Outcome, Tries: e.Tries, Started: e.Started,
		Status: transport.Status{
			Known: e.Code != nil || e.Signal != "", Signal: string(e.Signal), Started: e.Ran, Ended: e.Ended, Background: e.Background,
		},
	}
	if e.Code != nil {
		r.Status.Code = *e.Code
	}
	accepted := r.Started
	if e.Connect != nil {
		accepted = accepted.Add(fromSeconds(*e.Connect))
		r.Running = accepted
	}
	r.Ended = accepted.Add(fromSeconds(e.Run))
	r.Err = runner.Retold(string(e.Error), e.Phase, host.Name, e.Confirmed)
	return r
}

// lines reads a file line by line.
type lines struct {
	r      *bufio.Reader
	number int   // of the line that was read last, from 1
	end    int64 // of the last line that has its newline
	whole  bool  // the line that was read last has its newline
	long   bool  // it is longer than maxLine, and was skipped
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 64<<10)} }

// next returns the next line without its newline, valid until the next call, or io.EOF when there is none.
func (l *lines) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	size := int64(len(line))
	if err == bufio.ErrBufferFull {
		all := slices.Clone(line)
		for err == bufio.ErrBufferFull {
			line, err = l.r.ReadSlice('\n')
			if size += int64(len(line)); size <= maxLine {
				all = append(all, line...)
			}
		}
		line = all
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	if size == 0 {
		return nil, io.EOF
	}
	l.number++
	if l.whole = err == nil; l.whole {
		l.end += size
	}
	l.long = size > maxLine
	return bytes.TrimSuffix(line, []byte("\n")), nil
}
