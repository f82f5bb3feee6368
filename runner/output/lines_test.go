package output

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"multirsh/runner"
	"multirsh/transport"
)

// whole is a writer that takes whole, labelled lines only.
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

// FuzzLines gives two hosts the same bytes in pieces of any size, one after the other: each host's lines must come out as if in
// one piece, and whole.
func FuzzLines(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), []byte{1, 3, 200}, true)
	f.Add([]byte("\x00\xff\n\r\nno newline"), []byte{0, 7}, false)
	f.Add([]byte("\n\n\n"), []byte{1}, true)
	f.Fuzz(func(t *testing.T, data, cuts []byte, labels bool) {
		out := &whole{tb: t}
		if labels {
			out.labels = [2]string{"node001: ", "node002: "}
		}
		l := &Lines{Stdout: Stream{W: out}, Stderr: Stream{W: out}, NoLabels: !labels}
		var at [2]int
		for i := 0; at[0] < len(data) || at[1] < len(data); i++ {
			size := len(data)
			if len(cuts) > 0 {
				size = int(cuts[i/2%len(cuts)]) + i/2/len(cuts) // in the end, some size above 0
			}
			to := min(len(data), at[i%2]+size)
			piece := bytes.Clone(data[at[i%2]:to])
			feed(t, l, runner.Event{Kind: runner.Stdout, Seq: 1 + i%2, Host: host(1 + i%2), Data: piece})
			for j := range piece {
				piece[j] = 'X' // it is valid only during the call
			}
			at[i%2] = to
		}
		feed(t, l, ok(1), ok(2))
		if len(l.unfinished) != 0 {
			t.Errorf("%d unfinished lines are left", len(l.unfinished))
		}
		if !labels {
			if want := 2 * len(labelled("", data)); out.Len() != want {
				t.Errorf("%d bytes, want %d", out.Len(), want)
			}
			return
		}
		for i, label := range out.labels {
			var got []byte
			for line := range bytes.Lines(out.Bytes()) {
				if bytes.HasPrefix(line, []byte(label)) {
					got = append(got, line...)
				}
			}
			if want := labelled(label, data); !bytes.Equal(got, want) {
				t.Errorf("host %d: %q, want %q", i+1, got, want)
			}
		}
	})
}

func TestLongLine(t *testing.T) {
	out := &whole{tb: t, labels: [2]string{"node001: ", "node001: "}}
	l := &Lines{Stdout: Stream{W: out}}
	data := bytes.Repeat([]byte("\x00\xff x"), 2_500_000)
	for piece := data; len(piece) > 0; {
		n := min(65536, len(piece))
		feed(t, l, output(runner.Stdout, 1, string(piece[:n])))
		piece = piece[n:]
	}
	feed(t, l, ok(1))
	if want := labelled("node001: ", data); !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes, want the same %d", out.Len(), len(want))
	}
	if len(l.spare) != 0 {
		t.Error("a buffer of 10 MB is kept for the next line")
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
	}{
		{"line=60,event=64K", 60, 64 << 10, false},
		{"line=60,event=64K,bare", 60, 64 << 10, true},
		{"line=60,event=4K", 60, 4 << 10, false},
		{"line=60,event=60", 60, 60, false},
		{"line=10,event=64K", 10, 64 << 10, false},
		{"line=10M,event=64K", 10 << 20, 64 << 10, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			line := strings.Repeat("x", bench.line-1) + "\n"
			data := []byte(strings.Repeat(line, (16<<20)/len(line)))
			l := &Lines{Stdout: Stream{W: null}, Stderr: Stream{W: null}, NoLabels: bench.bare}
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
