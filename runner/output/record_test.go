package output

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"multirsh/runner"
	"multirsh/transport"
)

// events keeps what a sink is called with.
type events struct {
	list   []runner.Event
	closed int
}

func (s *events) Event(e runner.Event) error {
	e.Data = bytes.Clone(e.Data)
	s.list = append(s.list, e)
	return nil
}

func (s *events) Close() error { s.closed++; return nil }

// record is what a Record writes of the events.
func record(tb testing.TB, run Run, list ...runner.Event) string {
	tb.Helper()
	var b strings.Builder
	feed(tb, &Record{W: &b, Run: run}, list...)
	return b.String()
}

// replay reads a record, and returns the damage too, as "line: why".
func replay(tb testing.TB, text string) (*events, Run, []string) {
	tb.Helper()
	var damage []string
	got := &events{}
	run, err := Replay(strings.NewReader(text), got, func(line int, why error) { damage = append(damage, fmt.Sprintf("%d: %v", line, why)) })
	if err != nil {
		tb.Fatal(err)
	}
	if got.closed != 1 {
		tb.Errorf("the sink was closed %d times", got.closed)
	}
	return got, run, damage
}

// timed is the story with starts and times, as a run tells it.
func timed() []runner.Event {
	at := time.Date(2026, 3, 29, 1, 59, 59, 123456789, time.UTC)
	started := map[int]time.Time{}
	var list []runner.Event
	for _, e := range story() {
		at = at.Add(17 * time.Millisecond)
		if _, known := started[e.Seq]; !known && !(e.Kind == runner.Finish && neverTried(e.Result)) {
			started[e.Seq] = at
			e.Host.Transport, e.Host.User, e.Host.Port = "ssh", "ops", 2222
			e.Host.Vars = map[string]string{"label.rack": "r1", "rank": "3"}
			list = append(list, runner.Event{Kind: runner.Start, Time: at, Seq: e.Seq, Host: e.Host})
		}
		e.Time = at
		if r := e.Result; r != nil {
			r.Started, r.Ended = started[e.Seq], at
			if r.Err == nil {
				r.Running = started[e.Seq].Add(time.Millisecond)
			}
		}
		list = append(list, e)
	}
	return list
}

// A record tells every view what the run told it.
func TestReplayIsTheRun(t *testing.T) {
	run := Run{ID: "r1", Program: "1.0", Time: time.Date(2026, 3, 29, 1, 59, 59, 0, time.UTC), Command: "echo \"a\" </dev/null\n", Transport: "ssh", Fanout: 64}
	list := timed()
	seqs := map[int]bool{}
	for _, e := range list {
		seqs[e.Seq] = true
	}
	run.Hosts = len(seqs)
	text := record(t, run, list...)
	var live, again terminal
	views := func(to *terminal) runner.Sink {
		return Tee(&Lines{Stdout: Stream{W: to.stream("1 ")}, Stderr: Stream{W: to.stream("2 ")}}, &Summary{Stream: Stream{W: to.stream("2 ")}})
	}
	feed(t, views(&live), list...)
	gotRun, err := Replay(strings.NewReader(text), views(&again), func(line int, why error) { t.Errorf("line %d: %v", line, why) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(live.String(), again.String()); diff != "" {
		t.Errorf("views of the run and of its record (-run +record):\n%s", diff)
	}
	if diff := cmp.Diff(run, gotRun); diff != "" {
		t.Errorf("the run (-want +got):\n%s", diff)
	}

	got, _, _ := replay(t, text)
	var want []runner.Result
	for _, e := range list {
		if e.Result != nil {
			want = append(want, *e.Result)
		}
	}
	var results []runner.Result
	for _, e := range got.list {
		if e.Result != nil {
			results = append(results, *e.Result)
		}
	}
	sameText := cmp.Comparer(func(a, b error) bool { return (a == nil) == (b == nil) && (a == nil || a.Error() == b.Error()) })
	// Of a host only its start says how it was reached, and of a status only Code or Signal counts.
	if diff := cmp.Diff(want, results, sameText, cmpopts.IgnoreFields(transport.Host{}, "Transport", "User", "Port", "Vars"), cmp.Transformer("status", func(s transport.Status) transport.Status {
		if s.Signal != "" {
			s.Code = 0
		}
		return s
	})); diff != "" {
		t.Errorf("results (-run +record):\n%s", diff)
	}
	first := got.list[0]
	if want := list[0].Host; !cmp.Equal(first.Host.Vars, map[string]string{"label.rack": "r1"}) || first.Host.Port != want.Port || first.Host.User != want.User || first.Host.Transport != want.Transport {
		t.Errorf("the first host is %+v", first.Host)
	}
	if record(t, run, got.list...) != record(t, run, replayed(t, record(t, run, got.list...))...) {
		t.Error("the record of a record is another one")
	}
}

func replayed(tb testing.TB, text string) []runner.Event {
	got, _, _ := replay(tb, text)
	return got.list
}

// Output comes back byte for byte, however it is cut; text stays text.
func TestRecordBytes(t *testing.T) {
	for _, test := range []struct {
		name   string
		data   string
		base64 bool
	}{
		{"ascii", "a line\nanother\n", false},
		{"text", "Grüße, 日本, 🖥\u2028\u2029 <script>&\n", false},
		{"controls", "\x00\x01\x1b[2J\x7f\t\r\n\"\\", false},
		{"no text", "\xff\xfe\x80", true},
		{"ends within a character", "é\xf0\x9f\x96", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for cut := range len(test.data) + 1 {
				list := []runner.Event{
					{Kind: runner.Start, Host: host(1), Seq: 1},
					output(runner.Stdout, 1, test.data[:cut]), output(runner.Stdout, 1, test.data[cut:]),
					output(runner.Stderr, 1, test.data), ok(1),
				}
				text := record(t, Run{}, list...)
				if got := strings.Contains(text, "base64"); got != test.base64 {
					t.Errorf("cut at %d: base64 is %v:\n%s", cut, got, text)
				}
				var stdout, stderr string
				for _, e := range replayed(t, text) {
					switch e.Kind {
					case runner.Stdout:
						stdout += string(e.Data)
					case runner.Stderr:
						stderr += string(e.Data)
					}
				}
				if stdout != test.data || stderr != test.data {
					t.Errorf("cut at %d: got %q and %q, want %q", cut, stdout, stderr, test.data)
				}
			}
		})
	}
}

// Every line is JSON by itself, whatever the names and errors are made of.
func TestRecordIsJSON(t *testing.T) {
	odd := runner.Event{Seq: 3, Kind: runner.Finish, Host: transport.Host{Name: "a\"\\\x00\xff</script>\u2028"}}
	odd.Result = &runner.Result{Seq: 3, Host: odd.Host, Outcome: runner.Protocol, Err: errors.New("\x1b]0;\x07\xc3")}
	for line := range strings.Lines(record(t, Run{Command: "\x80"}, append(timed(), odd)...)) {
		var any map[string]any
		if err := json.Unmarshal([]byte(line), &any); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		if strings.Contains(line, "</") {
			t.Errorf("this line would end a script: %s", line)
		}
	}
}

func TestReplayDamage(t *testing.T) {
	const (
		run     = `{"type":"run","v":1,"command":"date"}` + "\n"
		start   = `{"type":"start","seq":0,"host":"a"}` + "\n"
		out     = `{"type":"output","seq":0,"host":"a","stream":"stdout","data":"x\n"}` + "\n"
		result  = `{"type":"result","seq":0,"host":"a","outcome":"ok","code":0}` + "\n"
		again   = `{"type":"again","seq":0,"host":"a","outcome":"refused","tries":1}` + "\n"
		restart = `{"type":"restart","seq":0,"host":"a"}` + "\n"
		whole   = "start a, a: x, ok a"
	)
	for _, test := range []struct {
		name, text string
		damage     []string
		want       string
	}{
		{"whole", run + start + out + result, nil, whole},
		{"fields of later times", run + start + strings.Replace(out, `"seq"`, `"colour":"red","seq"`, 1) + result, nil, whole},
		{"no result", run + start + out, []string{"4: the record ends before the run did: hosts are missing, and those without a result count as unknown"}, "start a, a: x, unknown a"},
		{"cut off", run + start + out + result[:20], []string{"4: the record ends within this line", "4: the record ends before the run did: hosts are missing, and those without a result count as unknown"}, "start a, a: x, unknown a"},
		{"the last newline is missing", run + start + out + result[:len(result)-1], nil, whole},
		{"empty lines", run + "\n" + start + out + "\n\n" + result, nil, whole},
		{"garbage", run + "\x00\x01garbage\n" + start + out + result, []string{"2: this is no line of a record: invalid character '\\x00' looking for beginning of value"}, whole},
		{"a start is lost", run + out + result, nil, whole},
		{"no line of a run", start + out + result, []string{"1: the record does not begin with the line of its run, so its version is not known"}, whole},
		{"hosts are missing", strings.Replace(run, `"v":1`, `"v":1,"hosts":2`, 1) + start + out + result, []string{"5: the record ends before the run did: hosts are missing, and those without a result count as unknown"}, whole},
		{"a type of later times", run + `{"type":"colour"}` + "\n" + start + out + result, nil, whole},
		{"a number for a name", run + `{"type":"start","seq":0,"host":7}` + "\n" + start + out + result, []string{"2: this is no line of a record: host cannot be a number"}, whole},
		{"two runs", run + start + run + out + result, []string{"3: a second run begins here: a record has one"}, whole},
		{"two results", run + start + out + result + result, []string{"5: this result of a comes after its result"}, whole},
		{"two starts", run + start + start + out + result, []string{"3: a starts a second time"}, whole},
		{"two hosts in one place", run + start + strings.Replace(out, `"a"`, `"b"`, 1) + out + result, []string{"3: seq 0 is b here and a before"}, whole},
		{"no outcome", run + start + out + strings.Replace(result, "ok", "fine", 1), []string{`4: there is no outcome "fine"`, "5: the record ends before the run did: hosts are missing, and those without a result count as unknown"}, "start a, a: x, unknown a"},
		{"no stream", run + start + strings.Replace(out, "stdout", "3", 1) + result, []string{`3: there is no stream "3"`}, "start a, ok a"},
		{"no base64", run + start + strings.Replace(out, `"data":"x\n"`, `"base64":"%"`, 1) + result, []string{"3: base64: illegal base64 data at input byte 0"}, "start a, ok a"},
		{"no data", run + start + strings.Replace(out, `"data"`, `"date"`, 1) + result, []string{"3: this output has neither data nor base64"}, "start a, ok a"},
		{"no seq", run + start + strings.Replace(out, `"seq"`, `"number"`, 1) + result, []string{"3: this output has no host or no seq"}, "start a, ok a"},
		{"no type", run + "{}\n" + start + out + result, []string{"2: this is no line of a record: it has no type"}, whole},
		{"a try", run + start + out + again + restart + out + result, nil, "start a, a: x, again a, restart a, a: x, ok a"},
		{"a try is the last", run + start + again + strings.Replace(result, "ok", "refused", 1), nil, "start a, again a, refused a"},
		{"a try's end is lost", run + start + out + restart + result, []string{"4: a is tried again, and no try of it has failed before"}, whole},
		{"a try's begin is lost", run + start + out + again + again + result, []string{"5: a try of a ends that has not begun"}, "start a, a: x, again a, ok a"},
		{"a start is lost before a try", run + again + restart + out + result, nil, "start a, again a, restart a, a: x, ok a"},
		{"no version", `{"type":"run"}` + "\n" + start + out + result, []string{"1: this line of the run has no version", "1: the record does not begin with the line of its run, so its version is not known"}, whole},
		{"an endless line", run + strings.Repeat("x", maxRecordLine+1) + "\n" + start + out + result, []string{"2: this line is longer than 64 MiB"}, whole},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, damage := replay(t, test.text)
			if diff := cmp.Diff(test.damage, damage); diff != "" {
				t.Errorf("damage (-want +got):\n%s", diff)
			}
			var told []string
			for _, e := range got.list {
				switch e.Kind {
				case runner.Start:
					told = append(told, "start "+e.Host.Name)
				case runner.Finish:
					told = append(told, string(e.Result.Outcome)+" "+e.Host.Name)
				case runner.Again:
					told = append(told, "again "+e.Host.Name)
				case runner.Restart:
					told = append(told, "restart "+e.Host.Name)
				default:
					told = append(told, e.Host.Name+": "+strings.TrimSpace(string(e.Data)))
				}
			}
			if got := strings.Join(told, ", "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestReplayRefuses(t *testing.T) {
	never := func(line int, why error) { t.Errorf("line %d: %v", line, why) }
	got := &events{}
	if _, err := Replay(strings.NewReader(`{"type":"run","v":2}`), got, never); !errors.As(err, new(*VersionError)) || got.closed != 1 {
		t.Errorf("a later version: %v, closed %d times", err, got.closed)
	}
	broken := errors.New("broken")
	text := record(t, Run{}, timed()...)
	if _, err := Replay(io.MultiReader(strings.NewReader(text[:200]), failing{broken}), &events{}, never); !errors.Is(err, broken) {
		t.Errorf("a reader that breaks: %v", err)
	}
	full := &Lines{Stdout: Stream{W: writerFunc(func([]byte) (int, error) { return 0, broken })}, Stderr: Stream{W: io.Discard}}
	if _, err := Replay(strings.NewReader(text), full, never); !errors.Is(err, broken) || !errors.As(err, new(*runner.SinkError)) {
		t.Errorf("a sink that breaks: %v", err)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// A record that cannot be written stops the run, and is not written on.
func TestRecordDiskFull(t *testing.T) {
	full := errors.New("no space left on device")
	writes := 0
	r := &Record{W: writerFunc(func(p []byte) (int, error) { writes++; return len(p) / 2, full })}
	if err := r.Event(output(runner.Stdout, 1, "x")); !errors.Is(err, full) {
		t.Errorf("event: %v", err)
	}
	if err := r.Close(); err != nil || writes != 1 {
		t.Errorf("close: %v, %d writes", err, writes)
	}
}

// Whatever a record is, its replay ends, names what it cannot use, and gives every host one result; and the record of that is whole.
func FuzzReplay(f *testing.F) {
	f.Add(record(f, Run{Command: "date"}, timed()...))
	f.Add(`{"type":"output","seq":1,"host":"a","stream":"stdout","base64":"/w=="}` + "\n" + `{"type":"result","seq":1,"host":"a","outcome":"exit","code":3}`)
	f.Fuzz(func(t *testing.T, text string) {
		got := &events{}
		run, err := Replay(strings.NewReader(text), got, func(int, error) {})
		if errors.As(err, new(*VersionError)) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		results := map[int]int{}
		for _, e := range got.list {
			if n := results[e.Seq]; n > 0 {
				t.Fatalf("seq %d has an event after its result", e.Seq)
			}
			results[e.Seq] += 0
			if e.Kind == runner.Finish {
				results[e.Seq]++
			}
		}
		for seq, n := range results {
			if n != 1 {
				t.Fatalf("seq %d has %d results", seq, n)
			}
		}
		if _, err := Replay(strings.NewReader(record(t, run, got.list...)), &events{}, func(line int, why error) {
			t.Fatalf("line %d of the new record: %v", line, why)
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	r := &Record{W: io.Discard}
	e := output(runner.Stdout, 1, strings.Repeat("Mar 29 01:59:59 node001 kernel: \"usb 1-1\": new device\n", 600))
	b.SetBytes(int64(len(e.Data)))
	for b.Loop() {
		r.Event(e)
	}
}

// What tells of no run is no record.
func TestReplayNoRun(t *testing.T) {
	for _, text := range []string{"", "\n\n", "oops\n", strings.Repeat("\x00", 1<<20), `{"type":"summary"}`} {
		if _, err := Replay(strings.NewReader(text), Tee(), func(int, error) {}); !errors.Is(err, ErrNoRun) {
			t.Errorf("%.20q: error %v, want %v", text, err, ErrNoRun)
		}
	}
}

// What a terminal would obey is not in a record, and every character comes back.
func TestStringsOnTerminals(t *testing.T) {
	for r := range rune(0x3000) {
		text := string(r)
		b := appendString(nil, text)
		for _, shown := range string(b) {
			if shown < ' ' || shown == 0x7f || shown >= utf8.RuneSelf && obeyed(shown) {
				t.Errorf("%U is written as %q", r, b)
			}
		}
		var got string
		if err := json.Unmarshal(b, &got); err != nil || got != text && utf8.ValidRune(r) {
			t.Errorf("%U comes back as %q (%v)", r, got, err)
		}
	}
}
