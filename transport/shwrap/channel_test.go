package shwrap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func newWrapper(t testing.TB, s Script) *Wrapper {
	t.Helper()
	w, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// outcome is all that a Channel tells.
type outcome struct {
	output, noise  string
	started, ended bool
	status         int
	late           int64
}

func (o outcome) String() string {
	return fmt.Sprintf("output %.200q (%d bytes), noise %.200q, started %v, ended %v, status %d, late %d",
		o.output, len(o.output), o.noise, o.started, o.ended, o.status, o.late)
}

func feedChannel(t testing.TB, w *Wrapper, pieces ...[]byte) outcome {
	t.Helper()
	var out bytes.Buffer
	c := w.Stdout(&out)
	for _, p := range pieces {
		if n, err := c.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write of %d bytes: %d, %v", len(p), n, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	o := outcome{output: out.String(), noise: string(c.Noise()), started: c.Started(), late: c.Late()}
	o.status, o.ended = c.Ended()
	return o
}

// pieces cuts b at random.
func pieces(b []byte, r *rand.Rand) (cut [][]byte) {
	for len(b) > 0 {
		n := 1 + r.IntN(min(len(b), 1<<r.IntN(12)))
		cut = append(cut, b[:n])
		b = b[n:]
	}
	return cut
}

func TestChannel(t *testing.T) {
	w, other := newWrapper(t, Script{}), newWrapper(t, Script{})
	lead := string(w.Leader())
	end := func(status int) string { return string(w.Trailer(status)) }
	big := strings.Repeat("\x1e no newline \x00", 1<<18)
	noise := strings.Repeat("motd\n", maxNoise/5+1)
	for _, tt := range []struct {
		name, wire string
		want       outcome
	}{
		{"nothing", "", outcome{}},
		{"no output", lead + end(0), outcome{started: true, ended: true}},
		{"output", lead + "a\nb\n" + end(3), outcome{output: "a\nb\n", started: true, ended: true, status: 3}},
		{"no newline at the end", lead + "a" + end(255), outcome{output: "a", started: true, ended: true, status: 255}},
		{"noise", "hello\n" + lead + "a\n" + end(143), outcome{output: "hello\na\n", started: true, ended: true, status: 143}},
		{"ksh93's SIGTERM", lead + end(256+15), outcome{started: true, ended: true, status: 143}},
		{"noise only", "Authentication failure\n", outcome{noise: "Authentication failure\n"}},
		{"noise that ends like a leader", "x" + lead[:20], outcome{noise: "x" + lead[:20]}},
		{"too much noise", noise, outcome{output: noise}},
		{"too much noise and a leader", noise + lead + "a" + end(0), outcome{output: noise + "a", started: true, ended: true}},
		{"background child", lead + "a" + end(0) + "later", outcome{output: "a", started: true, ended: true, late: 5}},
		{"first trailer counts", lead + end(1) + end(2), outcome{started: true, ended: true, status: 1, late: int64(len(end(2)))}},
		{"no trailer", lead + "a\n", outcome{output: "a\n", started: true}},
		{"trailer cut off", lead + "a" + end(12)[:36], outcome{output: "a" + end(12)[:36], started: true}},
		{"trailer without leader", end(0), outcome{noise: end(0)}},
		{"second leader is output", lead + lead + end(0), outcome{output: lead, started: true, ended: true}},
		{"another's marks", lead + string(other.Leader()) + string(other.Trailer(7)) + end(0),
			outcome{output: string(other.Leader()) + string(other.Trailer(7)), started: true, ended: true}},
		{"no mark after all", lead + end(0)[:34] + "x\n" + end(0)[:34] + "1234\n" + end(0)[:34] + "\n" + end(0)[:33] + end(4),
			outcome{output: end(0)[:34] + "x\n" + end(0)[:34] + "1234\n" + end(0)[:34] + "\n" + end(0)[:33], started: true, ended: true, status: 4}},
		{"megabytes without a newline", lead + big + end(0), outcome{output: big, started: true, ended: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for range 50 {
				if got := feedChannel(t, w, pieces([]byte(tt.wire), r)...); got != tt.want {
					t.Fatalf("in pieces: got %v\nwant %v", got, tt.want)
				}
			}
			if got := feedChannel(t, w, []byte(tt.wire)); got != tt.want {
				t.Errorf("in one: got %v\nwant %v", got, tt.want)
			}
		})
	}
}

// Output must not wait in the channel because a mark might come: only what may really be one does.
func TestChannelHoldsBackOnlyMarks(t *testing.T) {
	w := newWrapper(t, Script{})
	var out bytes.Buffer
	c := w.Stdout(&out)
	c.Write(w.Leader())
	mark := w.Trailer(0)
	for _, text := range []string{"a", string(w.nonce[:]), "+-\n", "\x1ex", "line\n", string(mark[:20]) + "\n"} {
		out.Reset()
		c.Write([]byte(text))
		if out.String() != text {
			t.Errorf("wrote %q, %q came through", text, out.String())
		}
	}
}

type failingWriter struct{ after int }

func (f *failingWriter) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestChannelDestinationFails(t *testing.T) {
	w := newWrapper(t, Script{})
	for _, wire := range []string{
		"noise" + string(w.Leader()),
		string(w.Leader()) + "output",
		string(w.Leader()) + string(w.Trailer(0)[:10]) + "output",
		strings.Repeat("x", maxNoise+1),
	} {
		c := w.Stdout(&failingWriter{after: 2})
		var err error
		for i := 0; i < len(wire) && err == nil; i++ {
			_, err = c.Write([]byte{wire[i]})
		}
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%.50q: got %v", wire, err)
		}
		if _, err := w.Stdout(&failingWriter{}).Write([]byte(wire)); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%.50q in one: got %v", wire, err)
		}
	}
	c := w.Stdout(&failingWriter{})
	c.Write(w.Leader())
	c.Write(w.Trailer(0)[:5])
	if err := c.Close(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Close: got %v", err)
	}
}

// Whatever the pieces, the channel says the same, and the output is what came before the first mark.
func FuzzChannel(f *testing.F) {
	w := newWrapper(f, Script{})
	lead, end := w.Leader(), w.Trailer(3)
	// In the fuzzer's bytes L and T stand for the marks, l and t for some of them: it could not guess the nonce.
	wire := func(b []byte) []byte {
		var out []byte
		for i, c := range b {
			switch c {
			case 'L':
				out = append(out, lead...)
			case 'T':
				out = append(out, end...)
			case 'l':
				out = append(out, lead[:(i*7)%len(lead)]...)
			case 't':
				out = append(out, end[:(i*7)%len(end)]...)
			default:
				out = append(out, c)
			}
		}
		return out
	}
	f.Add([]byte("noise L output tt-\x1et T late"), uint64(1))
	f.Add([]byte("lllLLttT"), uint64(2))
	f.Add([]byte("no marks"), uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		b = wire(b)
		if len(b) > maxNoise {
			return
		}
		whole := feedChannel(t, w, b)
		if parts := feedChannel(t, w, pieces(b, rand.New(rand.NewPCG(seed, 0)))...); parts != whole {
			t.Fatalf("in pieces %v\nin one %v", parts, whole)
		}
		noise, rest, started := bytes.Cut(b, lead)
		output, late, over := bytes.Cut(rest, end)
		want := outcome{started: started, ended: over, late: int64(len(late))}
		if started {
			want.output = string(noise) + string(output)
		} else {
			want.noise = string(noise)
		}
		if over {
			want.status = 3
		}
		if whole != want {
			t.Fatalf("got %v\nwant %v", whole, want)
		}
	})
}

func TestChannelAllocations(t *testing.T) {
	w := newWrapper(t, Script{})
	c := w.Stdout(nil)
	c.Write(w.Leader())
	text := bytes.Repeat([]byte("the quick brown fox\n"), 100)
	partial := append(bytes.Clone(text), w.Trailer(0)[:9]...)
	if n := testing.AllocsPerRun(100, func() { c.Write(text); c.Write(partial) }); n != 0 {
		t.Errorf("%v allocations for two Writes", n)
	}
}

func BenchmarkChannel(b *testing.B) {
	for name, text := range map[string]string{
		"text": "The quick brown fox jumps over the lazy dog, 0123456789 abcdef\n",
		"rs":   "\x1e\x1f",
	} {
		b.Run(name, func(b *testing.B) {
			w := newWrapper(b, Script{})
			c := w.Stdout(nil)
			c.Write(w.Leader())
			p := bytes.Repeat([]byte(text), (32<<10)/len(text))
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				c.Write(p)
			}
		})
	}
	b.Run("session", func(b *testing.B) {
		w := newWrapper(b, Script{})
		wire := append(append(w.Leader(), "ok\n"...), w.Trailer(0)...)
		b.ReportAllocs()
		for b.Loop() {
			w.Stdout(io.Discard).Write(wire)
		}
	})
}
