package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"multirsh/runner"
	"multirsh/transport"
)

// whole is a writer that takes whole lines only, each with one of the labels.
type whole struct {
	bytes.Buffer
	tb     testing.TB
	labels [2]string
}

func (w *whole) Write(p []byte) (int, error) {
	if len(p) == 0 || p[len(p)-1] != '\n' {
		w.tb.Errorf("a Write of %.100q, which is no whole line", p)
	}
	for line := range bytes.Lines(p) {
		if !bytes.HasPrefix(line, []byte(w.labels[0])) && !bytes.HasPrefix(line, []byte(w.labels[1])) {
			w.tb.Errorf("line %.100q without its label", line)
		}
	}
	return w.Buffer.Write(p)
}

// labelled is the output that data of one host must become.
func labelled(label string, data []byte) []byte {
	var want []byte
	for line := range bytes.Lines(data) {
		want = append(append(want, label...), line...)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		want = append(want, '\n')
	}
	return want
}

// linesOf are those behind the label, without it.
func linesOf(text []byte, label string) (lines []byte) {
	for line := range bytes.Lines(text) {
		if rest, is := bytes.CutPrefix(line, []byte(label)); is {
			lines = append(lines, rest...)
		}
	}
	return lines
}

// unbroken is text without any newlines.
func unbroken(text []byte) []byte { return bytes.ReplaceAll(text, []byte{'\n'}, nil) }

// check fails if what is known of the unfinished lines is wrong.
func (l *Lines) check(tb testing.TB) {
	tb.Helper()
	held := 0
	for ch, u := range l.unfinished {
		held += cap(u.text)
		if len(u.text) > maxLine || cap(u.text) > maxLine {
			tb.Fatalf("%d bytes of a line are held in %d, want no more than %d", len(u.text), cap(u.text), maxLine)
		}
		if p := l.passedTo(ch.kind); len(u.text) > 0 && p.open && p.seq == ch.seq {
			tb.Fatalf("%q is held behind what has been passed on of the same line", u.text)
		}
	}
	if held != l.held {
		tb.Fatalf("%d bytes are held, and %d are known of", held, l.held)
	}
}

// FuzzLines gives two hosts the same bytes, but for the highest bit, in pieces of any size, one after the other: each host's lines must come
// out as if in one piece, and whole; or if memory is short, the same bytes.
func FuzzLines(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), []byte{1, 3, 200}, true, uint16(0))
	f.Add([]byte("\x00\xff\n\r\nno newline"), []byte{0, 7}, false, uint16(0))
	f.Add([]byte("\n\n\n"), []byte{1}, true, uint16(0))
	f.Add([]byte("0123456789012345678901234567890123456789012345678901234567890123456789\n0123456789\n\n"), []byte{1, 3, 2, 20}, false, uint16(1))
	f.Add([]byte("gr\xc3\xbc\xc3\x9fe 0123456789012345678901234567890123456789012345678901234567890123456789\n0123456789"), []byte{60, 12}, true, uint16(70))
	f.Fuzz(func(t *testing.T, data, cuts []byte, labels bool, memory uint16) {
		var datas [2][]byte
		for _, c := range data {
			for i := range datas {
				if c != '\n' {
					c = c&0x7f | byte(i)<<7
				}
				if c&0x7f == '\n' {
					c = '\n'
				}
				datas[i] = append(datas[i], c)
			}
		}
		out := &whole{tb: t, labels: [2]string{"node001: ", "node002: "}}
		var bare, notices bytes.Buffer
		l := &Lines{Stdout: Stream{W: out}, Stderr: Stream{W: &notices}, NoLabels: !labels, maxHeld: int(memory)}
		if !labels {
			l.Stdout.W = &bare
		}
		var at [2]int
		for i := 0; at[0] < len(data) || at[1] < len(data); i++ {
			size := len(data)
			if len(cuts) > 0 {
				size = int(cuts[i/2%len(cuts)]) + i/2/len(cuts) // in the end, some size above 0
			}
			to := min(len(data), at[i%2]+size)
			piece := bytes.Clone(datas[i%2][at[i%2]:to])
			feed(t, l, runner.Event{Kind: runner.Stdout, Seq: 1 + i%2, Host: host(1 + i%2), Data: piece})
			for j := range piece {
				piece[j] = 'X' // it is valid only during the call
			}
			at[i%2] = to
			l.check(t)
			if most := max(int(memory), maxCap); memory > 0 && l.held > most {
				t.Fatalf("%d bytes are held, want at most %d", l.held, most)
			}
		}
		feed(t, l, ok(1), ok(2))
		if len(l.unfinished) != 0 || l.held != 0 {
			t.Errorf("%d unfinished lines are left", len(l.unfinished))
		}
		broken := notices.Len() > 0
		if broken && memory == 0 {
			t.Errorf("notices: %s", notices.String())
		}
		if n := bytes.Count(notices.Bytes(), []byte("\n")); n > 2 {
			t.Errorf("%d notices:\n%s", n, notices.String())
		}
		for i, label := range out.labels {
			var got, want []byte
			if labels {
				got, want = linesOf(out.Bytes(), label), labelled("", datas[i])
			} else {
				for _, c := range bare.Bytes() {
					if c != '\n' && int(c>>7) == i {
						got = append(got, c)
					}
				}
				want = unbroken(datas[i])
			}
			if broken {
				got, want = unbroken(got), unbroken(want)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("host %d: %q, want %q", i+1, got, want)
			}
		}
		if !labels && !broken {
			if want := 2 * len(labelled("", datas[0])); bare.Len() != want {
				t.Errorf("%d bytes, want %d", bare.Len(), want)
			}
		}

		if !labels { // and one host alone
			bare.Reset()
			l := &Lines{Stdout: Stream{W: &bare}, NoLabels: true, maxHeld: int(memory)}
			for piece := range slices.Chunk(data, 1+len(cuts)) {
				feed(t, l, output(runner.Stdout, 1, string(piece)))
				l.check(t)
			}
			feed(t, l, ok(1))
			if !bytes.Equal(bare.Bytes(), data) {
				t.Errorf("one host alone: %q, want %q", bare.Bytes(), data)
			}
		}
	})
}

// maxCap is room for a line of one event of the fuzzing, which is held in any case.
const maxCap = 4 << 10

// TestLongLine: a line is broken where it has more than maxLine bytes, in whatever pieces it comes, and not within a character.
func TestLongLine(t *testing.T) {
	const notice = "node001: a line has no end within 1 MiB, so it is broken there\n"
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, tt := range []struct {
		name, data, want string
		notice           string
	}{
		{"just not", x(maxLine) + "\n" + x(maxLine-1) + "\n", x(maxLine) + "\n" + x(maxLine-1) + "\n", ""},
		{"just not, and no end", "\n" + x(maxLine), "\n" + x(maxLine) + "\n", ""},
		{"just", x(maxLine+1) + "\n" + "y\n", x(maxLine) + "\nx\ny\n", notice},
		{"twice", x(2*maxLine) + "\n", x(maxLine) + "\n" + x(maxLine) + "\n", notice},
		{"again", x(2*maxLine+1) + "\n" + x(maxLine+5), x(maxLine) + "\n" + x(maxLine) + "\nx\n" + x(maxLine) + "\nxxxxx\n", notice},
		{"in a character", x(maxLine-1) + "ü!", x(maxLine-1) + "\nü!\n", notice},
		{"no characters", x(maxLine-2) + "\xff\x80\x80\x80", x(maxLine-2) + "\xff\x80\n\x80\x80\n", notice},
	} {
		for _, event := range []int{777, 64 << 10, maxLine, 3 * maxLine} {
			var out, notices bytes.Buffer
			l := &Lines{Stdout: Stream{W: &out}, Stderr: Stream{W: &notices}, Quiet: true}
			for piece := range slices.Chunk([]byte(tt.data), event) {
				feed(t, l, runner.Event{Kind: runner.Stdout, Seq: 1, Host: host(1), Data: piece})
				l.check(t)
			}
			feed(t, l, ok(1))
			if want := labelled("node001: ", []byte(tt.want)); !bytes.Equal(out.Bytes(), want) {
				t.Errorf("%s, in pieces of %d: %d bytes, want other %d", tt.name, event, out.Len(), len(want))
			}
			if notices.String() != tt.notice {
				t.Errorf("%s, in pieces of %d: notice %q, want %q", tt.name, event, notices.String(), tt.notice)
			}
			if len(l.spare) != 0 && cap(l.spare[0].text) > keepLine || len(l.broken) != 0 {
				t.Errorf("%s: kept for the next host: %d buffers, %d notices", tt.name, len(l.spare), len(l.broken))
			}
		}
	}
}

// count is a writer that counts.
type count struct{ bytes, xs, newlines int }

func (c *count) Write(p []byte) (int, error) {
	c.bytes += len(p)
	c.xs += bytes.Count(p, []byte{'x'})
	c.newlines += bytes.Count(p, []byte{'\n'})
	return len(p), nil
}

// TestEndless: a host that sends no newline at all.
func TestEndless(t *testing.T) {
	const event, events = 64 << 10, 3200 // 200 MiB
	for _, tt := range []struct {
		name   string
		lines  Lines
		want   count
		notice bool
	}{
		{"labels", Lines{}, count{event*events + 200*len("node001: \n"), event * events, 200}, true},
		{"terminal", Lines{Stdout: Stream{Width: 80, Escape: true, Color: true}},
			count{event*events + 200*len(string(colorOfHost("node001"))+"node001:"+reset+" \n"), event * events, 200}, true},
		{"no labels", Lines{NoLabels: true}, count{event * events, event * events, 0}, false},
		{"no labels, terminal", Lines{NoLabels: true, Stdout: Stream{Width: 80}}, count{event*events + 200, event * events, 200}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &tt.lines
			var out, notices count
			l.Stdout.W, l.Stderr.W = &out, &notices
			e := output(runner.Stdout, 1, strings.Repeat("x", event))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range events {
				if err := l.Event(e); err != nil {
					t.Fatal(err)
				}
				l.check(t)
			}
			runtime.ReadMemStats(&after)
			feed(t, l, ok(1))
			if out != tt.want {
				t.Errorf("%+v, want %+v", out, tt.want)
			}
			if (notices.newlines == 1) != tt.notice {
				t.Errorf("%d notices", notices.newlines)
			}
			if made := after.TotalAlloc - before.TotalAlloc; made > 16<<20 {
				t.Errorf("%d MiB of memory were made for it", made>>20)
			}
		})
	}
}

// TestManyUnfinished: what is held of the lines of 2,000 hosts is bounded in all, and nothing of them is lost.
func TestManyUnfinished(t *testing.T) {
	const hosts, event, events = 2000, 64 << 10, 16 // 1 MiB from each
	for _, noLabels := range []bool{false, true} {
		var out, notices count
		l := &Lines{Stdout: Stream{W: &out}, Stderr: Stream{W: &notices}, NoLabels: noLabels}
		text := strings.Repeat("x", event)
		most := 0
		for range events {
			for seq := range hosts {
				if err := l.Event(output(runner.Stdout, seq, text)); err != nil {
					t.Fatal(err)
				}
				most = max(most, l.held)
			}
			l.check(t)
		}
		if most > maxUnfinished || most < maxUnfinished/2 {
			t.Errorf("at most %d MiB were held", most>>20)
		}
		for seq := range hosts {
			feed(t, l, ok(seq))
		}
		if want := hosts * event * events; out.xs != want {
			t.Errorf("%d bytes came out, want %d", out.xs, want)
		}
		if l.held != 0 || len(l.unfinished) != 0 || len(l.broken) != 0 {
			t.Errorf("%d bytes, %d lines, %d notices are left", l.held, len(l.unfinished), len(l.broken))
		}
		if notices.newlines > hosts || notices.newlines < hosts/2 {
			t.Errorf("%d notices of %d hosts", notices.newlines, hosts)
		}
	}
}

// TestBackPressure: a writer that takes nothing holds the hosts up, and nothing is queued for it.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := make(chan int)
		slow := writerFunc(func(p []byte) (int, error) {
			taken <- len(p)
			return len(p), nil
		})
		l := &Lines{Stdout: Stream{W: slow}, Stderr: Stream{W: slow}}
		done := 0
		go func() {
			for range 10 {
				l.Event(output(runner.Stdout, 1, "a line\n"))
				done++
			}
		}()
		for i := range 10 {
			synctest.Wait()
			if done != i {
				t.Errorf("%d events are done and %d are written", done, i)
			}
			if n := <-taken; n != len("node001: a line\n") {
				t.Errorf("%d bytes in a Write", n)
			}
		}
	})
}

// TestPassedOn: what is written to two streams without labels, and in what order.
func TestPassedOn(t *testing.T) {
	long := strings.Repeat("x", maxLine+1)
	const broken = "node001: a line has no end within 1 MiB, so it is broken there\n"
	for _, tt := range []struct {
		name     string
		events   []runner.Event
		out, err string
	}{
		{"one host", []runner.Event{output(runner.Stdout, 1, "\x00a\nb"), output(runner.Stderr, 1, "c"), ok(1)}, "\x00a\nb", "c"},
		{"one that says something", []runner.Event{output(runner.Stdout, 1, "a"), ok(1), ok(2), exit(3, 1)}, "a", "node003: exit 1\n"},
		{"one that fails", []runner.Event{output(runner.Stdout, 1, "a"), output(runner.Stderr, 1, "b"), exit(1, 3)}, "a", "b\nnode001: exit 3\n"},
		{"two", []runner.Event{output(runner.Stdout, 1, "a"), output(runner.Stdout, 2, "b"), ok(2), ok(1)}, "b\na\n", ""},
		{"two, one after the other", []runner.Event{output(runner.Stdout, 1, "a"), ok(1), output(runner.Stdout, 2, "b\n"), ok(2)}, "a\nb\n", ""},
		{"a long line", []runner.Event{output(runner.Stdout, 1, long), output(runner.Stdout, 1, "y"), ok(1)}, long + "y", ""},
		{"a long line, and another host's", []runner.Event{output(runner.Stdout, 1, long), output(runner.Stdout, 2, "a\nb"), output(runner.Stdout, 1, "y"), ok(1), ok(2)},
			long + "\na\ny\nb\n", broken},
		{"a long line has ended before another host's", []runner.Event{output(runner.Stdout, 1, long), output(runner.Stdout, 1, "\ny"), output(runner.Stdout, 2, "a\nb"), ok(2), ok(1)},
			long + "\na\nb\ny\n", ""},
		{"a long line of standard error, and a notice", []runner.Event{output(runner.Stderr, 1, long), exit(2, 1), output(runner.Stderr, 1, "y"), exit(1, 2)},
			"", long + "\n" + broken + "node002: exit 1\ny\nnode001: exit 2\n"},
		{"two long lines", []runner.Event{output(runner.Stdout, 1, long), output(runner.Stdout, 2, long), ok(1), ok(2)}, long + "\n" + long + "\n",
			broken},
		{"an output that is empty", []runner.Event{output(runner.Stdout, 1, ""), output(runner.Stdout, 2, "b"), ok(1), ok(2)}, "b", ""},
	} {
		var out, err bytes.Buffer
		l := &Lines{Stdout: Stream{W: &out}, Stderr: Stream{W: &err}, NoLabels: true}
		for _, e := range tt.events {
			feed(t, l, e)
			l.check(t)
		}
		short := func(b *bytes.Buffer) string { return strings.ReplaceAll(b.String(), long, "LONG") }
		if out.String() != tt.out || err.String() != tt.err {
			t.Errorf("%s: %q and %q, want %q and %q", tt.name, short(&out), short(&err), strings.ReplaceAll(tt.out, long, "LONG"), strings.ReplaceAll(tt.err, long, "LONG"))
		}
	}
}

func TestTold(t *testing.T) {
	refused := func(seq int) runner.Event {
		return failed(seq, runner.Refused, transport.PhaseConnect, fmt.Errorf("nobody listens on 10.0.0.%d:514", seq))
	}
	var got bytes.Buffer
	l := &Lines{Stderr: Stream{W: &got}, Summarized: true}
	var list []runner.Event
	for i := range 30 {
		list = append(list, refused(i))
		if i == 8 { // others are told of between them
			list = append(list, exit(100, 1), failed(101, runner.Timeout, transport.PhaseConnect, fmt.Errorf("nobody listens on 10.0.0.9:514")))
		}
	}
	feed(t, l, list...)
	golden(t, "told.txt", got.String())

	all := strings.Count(got.String(), "\n")
	l.Summarized = false
	got.Reset()
	feed(t, l, list...)
	if n := strings.Count(got.String(), "\n"); n != len(list) || all != 13 {
		t.Errorf("%d lines of %d hosts without a summary, and %d with one", n, len(list), all)
	}
}

// TestToldAll: however hosts end, each one's error is in its own line or in the summary.
func TestToldAll(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		outcomes := []runner.Outcome{runner.Refused, runner.Timeout, runner.Unknown, runner.Cancelled}
		kinds := 1 + random.IntN(2*maxKinds)
		var lines, summary strings.Builder
		var list []runner.Event
		for seq := range 5000 {
			text := fmt.Sprintf("because of %s at node%03d.", strings.Repeat("x", random.IntN(1+random.IntN(kinds))), seq)
			if seq%7 == 0 {
				list = append(list, exit(seq, 3))
				continue
			}
			list = append(list, failed(seq, outcomes[random.IntN(len(outcomes))], transport.PhaseConnect, &runner.StopError{Cause: errors.New(text)}))
		}
		feed(t, Tee(&Lines{Stderr: Stream{W: &lines}, Summarized: true}, &Summary{Stream: Stream{W: &summary}}), list...)
		told := map[string]bool{}
		for line := range strings.Lines(lines.String()) {
			name, _, _ := strings.Cut(line, ":")
			told[name] = true
		}
		var folded []string
		for line := range strings.Lines(summary.String()) {
			if strings.HasPrefix(line, "  ") {
				folded = append(folded, line)
			}
		}
		tally := new(Tally)
		for _, e := range list {
			tally.add(e)
		}
		groups := 0
		for f, names := range tally.failed {
			if f.kind != "" && f.kind != otherErrors && len(names) > maxTold {
				groups++
				if text := "  " + tally.texts[f.kind].among(names) + "\n"; !slices.Contains(folded, text) {
					t.Errorf("seed %d: %d hosts had an error that is not in the summary: %s", seed, len(names), text)
				}
				if n := len(slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !told[name] })); n != maxTold {
					t.Errorf("seed %d: of %d hosts with one error %d are told", seed, len(names), n)
				}
				continue
			}
			for _, name := range names {
				if !told[name] {
					t.Errorf("seed %d: nothing tells why %s ended with %s", seed, name, f)
				}
			}
		}
		if groups == 0 {
			t.Errorf("seed %d: no group is large", seed)
		}
	}
}

// TestMemory has 100,000 hosts talk and end, and looks at what is still remembered.
func TestMemory(t *testing.T) {
	const hosts = 100_000
	l, s, p := &Lines{Stdout: Stream{W: io.Discard}, Stderr: Stream{W: io.Discard}}, &Summary{Stream: Stream{W: io.Discard}}, &Progress{}
	sink := Tee(l, s, p)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const fanout = 2000
	for i := range hosts + fanout {
		if i < hosts {
			sink.Event(runner.Event{Kind: runner.Start, Seq: i, Host: host(i)})
			sink.Event(output(runner.Stdout, i, "a line\nand a half"))
		}
		if i >= fanout {
			sink.Event(ok(i - fanout))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("%d hosts that are done and ok are remembered in %d bytes", hosts, grown)
	}
	if n := len(l.unfinished) + len(p.running); n != 0 {
		t.Errorf("%d hosts are still open", n)
	}
	runtime.KeepAlive(sink)
}

// TestNoAllocation: a steady stream of lines costs no garbage, unfinished ones included.
func TestNoAllocation(t *testing.T) {
	l := &Lines{Stdout: Stream{W: io.Discard}, Stderr: Stream{W: io.Discard}}
	e := output(runner.Stdout, 1, "half\nwhole\nha")
	l.Event(e)
	if n := testing.AllocsPerRun(1000, func() { l.Event(e) }); n != 0 {
		t.Errorf("%v allocations for an event, want none", n)
	}
}

func BenchmarkLines(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for _, bench := range []struct {
		name  string
		line  int
		piece int
		bare  bool
		look  Stream
	}{
		{"line=60,event=64K", 60, 64 << 10, false, Stream{}},
		{"line=60,event=64K,bare", 60, 64 << 10, true, Stream{}},
		{"line=60,event=4K", 60, 4 << 10, false, Stream{}},
		{"line=60,event=60", 60, 60, false, Stream{}},
		{"line=10,event=64K", 10, 64 << 10, false, Stream{}},
		{"line=10M,event=64K", 10 << 20, 64 << 10, false, Stream{}},
		{"line=60,event=64K,escape", 60, 64 << 10, false, Stream{Escape: true}},
		{"line=60,event=64K,escape,color", 60, 64 << 10, false, Stream{Escape: true, Color: true}},
		{"line=60,event=64K,raw,color", 60, 64 << 10, false, Stream{Color: true}},
		{"line=60,event=64K,bare,escape", 60, 64 << 10, true, Stream{Escape: true}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			line := strings.Repeat("x", bench.line-1) + "\n"
			data := []byte(strings.Repeat(line, (16<<20)/len(line)))
			look := bench.look
			look.W = null
			l := &Lines{Stdout: look, Stderr: look, NoLabels: bench.bare}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				for i := 0; i < len(data); i += bench.piece {
					seq := i / bench.piece % 64
					if bench.line > bench.piece {
						seq = 0
					}
					err := l.Event(runner.Event{Kind: runner.Stdout, Seq: seq, Host: transport.Host{Name: "node001"}, Data: data[i:min(len(data), i+bench.piece)]})
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkSummary(b *testing.B) {
	events := make([]runner.Event, 100_000)
	for i := range events {
		events[i] = exit(i, i%3)
		events[i].Host.Name = fmt.Sprintf("node%06d", i)
	}
	for b.Loop() {
		s := &Summary{Stream: Stream{W: io.Discard}}
		for _, e := range events {
			s.Event(e)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLinesEscape(t *testing.T) {
	for _, tt := range []struct {
		escape, noLabels bool
		want             string
	}{
		{false, false, "a^[: \x1b[2Jé\r\na^[: \x9b\n"},
		{true, false, "a^[: ^[[2Jé\na^[: \\x9b\n"},
		{true, true, "^[[2Jé\n\\x9b\n"},
	} {
		var out bytes.Buffer
		l := &Lines{Stdout: Stream{W: &out, Escape: tt.escape}, Stderr: Stream{W: &out, Escape: tt.escape}, NoLabels: tt.noLabels, Quiet: true}
		host := transport.Host{Name: "a\x1b"}
		for _, data := range []string{"\x1b[2J\xc3", "\xa9\r", "\n\x9b"} { // pieces cut within a rune and a line's end
			if err := l.Event(runner.Event{Kind: runner.Stdout, Host: host, Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Event(runner.Event{Kind: runner.Finish, Host: host, Result: &runner.Result{Outcome: runner.OK}}); err != nil {
			t.Fatal(err)
		}
		if out.String() != tt.want {
			t.Errorf("escape %v, no labels %v: %q, want %q", tt.escape, tt.noLabels, out.String(), tt.want)
		}
	}
}
