package output

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"multirsh/runner"
)

// twentyLines is an output of 20 lines, of which there are as many as kinds.
func twentyLines(kinds int) [][]byte {
	texts := make([][]byte, kinds)
	for i := range texts {
		var b bytes.Buffer
		for line := range 20 {
			fmt.Fprintf(&b, "line %d of this output, which has a value: %d\n", line, line*(i+1)/10)
		}
		texts[i] = b.Bytes()
	}
	return texts
}

// BenchmarkFold folds 10,000 hosts with 20 lines each and 10 distinct outputs, as a run with a fan-out of 64 gives them, in one event or one for each line.
func BenchmarkFold(b *testing.B) {
	const hosts, fanout = 10_000, 64
	all := Normalize{Host: true, IP: true, Time: true, Num: true}
	for _, bench := range []struct {
		name  string
		fold  Fold
		lines bool
	}{
		{"whole", Fold{}, false},
		{"lines", Fold{}, true},
		{"lines,stderr", Fold{Stderr: true}, true},
		{"whole,diff", Fold{Diff: true}, false},
		{"lines,num", Fold{Normalize: Normalize{Num: true}}, true},
		{"lines,all", Fold{Normalize: all}, true},
		{"lines,regexp", Fold{Normalize: Normalize{Regexps: []*Regexp{mustRegexp(b, "s/[0-9]+$/N/")}}}, true},
		{"lines,spooled", Fold{Memory: 1, TempDir: b.TempDir()}, true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			texts := twentyLines(10)
			starts, ends := make([]runner.Event, hosts), make([]runner.Event, hosts)
			for i := range hosts {
				starts[i] = output(runner.Stdout, i, "")
				ends[i] = ok(i)
			}
			b.ReportAllocs()
			for b.Loop() {
				f := &Fold{Stream: Stream{W: io.Discard}, Stderr: bench.fold.Stderr, Diff: bench.fold.Diff, Normalize: bench.fold.Normalize, Memory: bench.fold.Memory, TempDir: bench.fold.TempDir}
				for from := 0; from < hosts; from += fanout {
					batch := starts[from:min(hosts, from+fanout)]
					if bench.lines {
						for line := range 20 {
							for i, e := range batch {
								text := texts[(from+i)%len(texts)]
								for range line {
									text = text[bytes.IndexByte(text, '\n')+1:]
								}
								e.Data = text[:bytes.IndexByte(text, '\n')+1]
								f.Event(e)
							}
						}
					} else {
						for i, e := range batch {
							e.Data = texts[(from+i)%len(texts)]
							f.Event(e)
						}
					}
					for _, e := range ends[from:min(hosts, from+fanout)] {
						f.Event(e)
					}
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFoldEqual folds 100,000 hosts with the same 1 KB and says what that takes of memory: those that run at once hold nothing of their own.
func BenchmarkFoldEqual(b *testing.B) {
	const hosts = 100_000
	text := []byte(strings.Repeat("the same sixty-four bytes in each line, of which there are 16..\n", 16))
	for _, bench := range []struct {
		fanout int
		norm   Normalize
	}{{64, Normalize{}}, {hosts, Normalize{}}, {64, Normalize{Num: true, Host: true}}} {
		b.Run(fmt.Sprintf("fanout=%d,normalize=%v", bench.fanout, bench.norm.any()), func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				f := &Fold{Stream: Stream{W: io.Discard}, Normalize: bench.norm}
				for from := 0; from < hosts; from += bench.fanout {
					to := min(hosts, from+bench.fanout)
					for half := range 2 {
						for i := from; i < to; i++ {
							f.Event(runner.Event{Kind: runner.Stdout, Seq: i, Host: host(i), Data: text[half*512 : half*512+512]})
						}
					}
					for i := from; i < to; i++ {
						f.Event(ok(i))
					}
				}
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-heap")
				b.ReportMetric(float64(after.Sys)/(1<<20), "MiB-of-OS")
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFoldBytes has 8 hosts send much, each its own or all the same.
func BenchmarkFoldBytes(b *testing.B) {
	for _, bench := range []struct {
		name   string
		same   bool
		memory int64
	}{{"same", true, 0}, {"own", false, 0}, {"own,spooled", false, 8 << 20}, {"same,spooled", true, 1 << 20}} {
		b.Run(bench.name, func(b *testing.B) {
			const hosts, events = 8, 100
			data := bytes.Repeat([]byte("some text that is long enough to be a line of some output......\n"), 1000)
			b.SetBytes(int64(hosts * events * len(data)))
			for b.Loop() {
				f := &Fold{Stream: Stream{W: io.Discard}, Memory: bench.memory, TempDir: b.TempDir()}
				for i := range events {
					for seq := range hosts {
						if data[0] = 'a'; !bench.same {
							data[0] = byte('a' + seq)
						}
						data[1] = byte(i)
						if err := f.Event(runner.Event{Kind: runner.Stdout, Seq: seq, Host: host(seq), Data: data}); err != nil {
							b.Fatal(err)
						}
					}
				}
				for seq := range hosts {
					f.Event(ok(seq))
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
