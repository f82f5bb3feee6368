package output

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

func start(seq int) runner.Event {
	return runner.Event{Kind: runner.Start, Seq: seq, Host: host(seq)}
}

// waves is a run of two waves.
func waves() []runner.Event {
	var events []runner.Event
	for seq := range 8 {
		events = append(events, start(seq))
	}
	for seq := range 8 {
		events = append(events, output(runner.Stdout, seq, "Linux 6.1\nup "))
	}
	events = append(events, start(10), start(11)) // the first line is out
	for seq := range 8 {
		text := "3 days\nload low\n"
		if seq == 4 {
			text = "2 minutes\nload low\n"
		}
		events = append(events, output(runner.Stdout, seq, text))
	}
	events = append(events, output(runner.Stdout, 6, "and that is all\x1b[2J"))
	for _, seq := range []int{0, 1, 3, 4, 7, 2, 6, 5} {
		events = append(events, ok(seq))
	}
	return append(events, output(runner.Stdout, 11, "Linux 6.1\n"), output(runner.Stderr, 11, "warning\n"), output(runner.Stdout, 10, "Linux 6.1"), ok(10), ok(11), ok(12))
}

// started puts the starts of the hosts before the events.
func started(events []runner.Event) []runner.Event {
	var starts []runner.Event
	for _, e := range events {
		if !slices.ContainsFunc(starts, func(s runner.Event) bool { return s.Seq == e.Seq }) {
			starts = append(starts, start(e.Seq))
		}
	}
	return append(starts, events...)
}

func TestFoldLiveViews(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fold   FoldLive
		events []runner.Event
	}{
		{"foldlive.txt", FoldLive{}, waves()},
		{"foldlive-terminal.txt", FoldLive{Stream: Stream{Width: 30, Escape: true}, Stderr: true}, waves()},
		{"foldlive-normalize.txt", FoldLive{Normalize: Normalize{Host: true, IP: true, Time: true, Num: true}}, started(disregarded())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got bytes.Buffer
			tt.fold.W = &got
			feed(t, &tt.fold, tt.events...)
			golden(t, tt.name, got.String())
		})
	}
}

// liveModel sees what the sink writes, and holds against it what has been put in.
type liveModel struct {
	tb       testing.TB
	hosts    []*modelHost
	waveOf   map[int]int
	wave     int
	shown    [][]string // lines of each host that have come out
	at       [][]int    // in which place
	count    int
	finished map[int]bool
}

func (m *liveModel) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		label, text, cut := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		names, err := hostlist.Parse(strings.TrimSuffix(label, "~"))
		if !cut || err != nil {
			m.tb.Fatalf("line %q: %v", line, err)
		}
		selection, err := names.Eval(&hostlist.Scope{})
		if err != nil {
			m.tb.Fatal(err)
		}
		for name := range selection.Hosts.All() {
			var seq int
			fmt.Sscanf(name, "node%d", &seq)
			m.shown[seq] = append(m.shown[seq], text)
			m.at[seq] = append(m.at[seq], m.count)
			if m.waveOf[seq] == m.wave {
				m.wave++
			}
		}
		m.count++
	}
	return len(p), nil
}

// lines are those that a host has sent.
func (m *liveModel) lines(seq int) []string {
	text := string(m.hosts[seq].text)
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if last := len(lines) - 1; !m.finished[seq] || lines[last] == "" {
		lines = lines[:last]
	}
	return lines
}

// stuck checks that nothing is held back that could come out: of hosts in a wave with the same lines so far, one must have no next one.
func (m *liveModel) stuck() {
	type group struct {
		wave  int
		lines string
	}
	free, some := map[group]bool{}, map[group][]int{}
	for seq := range m.hosts {
		wave, started := m.waveOf[seq]
		lines := m.lines(seq)
		if !started || m.finished[seq] && len(lines) == len(m.shown[seq]) {
			continue
		}
		g := group{wave, strings.Join(m.shown[seq], "\n")}
		some[g] = append(some[g], seq)
		if len(lines) == len(m.shown[seq]) {
			free[g] = true
		}
	}
	for g, hosts := range some {
		if !free[g] {
			m.tb.Fatalf("hosts %v of wave %d all have their next line after %q", hosts, g.wave, g.lines)
		}
	}
}

func TestFoldLiveModel(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 9))
		n := 1 + r.IntN(12)
		m := &liveModel{tb: t, waveOf: map[int]int{}, shown: make([][]string, n), at: make([][]int, n), finished: map[int]bool{}}
		for range n {
			m.hosts = append(m.hosts, new(modelHost))
		}
		f := &FoldLive{Stream: Stream{W: m}}
		if r.IntN(3) == 0 {
			f.Normalize.Num = true
		}
		x := newNormalizer(&f.Normalize)
		// left is what Normalize leaves of lines.
		left := func(lines ...string) string {
			return string(x.appendLine(nil, []byte(strings.Join(lines, "|")), nil, make(replacements, partRegexps)))
		}
		bounded := r.IntN(2) == 0
		if bounded {
			f.Memory = 2000
		}
		play(t, r, sinkFunc(func(e runner.Event) error {
			if _, begun := m.waveOf[e.Seq]; !begun {
				m.waveOf[e.Seq] = m.wave
				if err := f.Event(start(e.Seq)); err != nil {
					return err
				}
			}
			if e.Kind == runner.Finish {
				m.finished[e.Seq] = true
			}
			err := f.Event(e)
			if !bounded {
				m.stuck()
			} else if f.held > f.Memory+int64(len(m.hosts))*(minBroken+maxPlayed) {
				t.Fatalf("seed %d: %d bytes are held", seed, f.held)
			}
			return err
		}), m.hosts, false)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		for seq := range m.hosts {
			got, want := m.shown[seq], m.lines(seq)
			if bounded && f.Normalize.Num {
				continue // lines may be broken within a number
			}
			if bounded { // lines may be broken
				got, want = []string{strings.Join(got, "")}, []string{strings.Join(want, "")}
			}
			if left(got...) != left(want...) {
				t.Fatalf("seed %d: of host %d came %q, want %q", seed, seq, got, want)
			}
		}
		if len(f.lines) != 0 || len(f.hosts) != 0 || f.held != 0 {
			t.Errorf("seed %d: %d lines, %d hosts and %d bytes are left", seed, len(f.lines), len(f.hosts), f.held)
		}
		for a := 0; !bounded && a < n; a++ { // the same lines came out together
			for b := range a {
				for i := 0; m.waveOf[a] == m.waveOf[b] && i < min(len(m.shown[a]), len(m.shown[b])) && m.shown[a][i] == m.shown[b][i]; i++ {
					if m.at[a][i] != m.at[b][i] {
						t.Fatalf("seed %d: line %d of hosts %d and %d is the same and was not folded", seed, i, a, b)
					}
				}
			}
		}
	}
}

// TestFoldLiveAhead has one host send much more than another, and without ends of lines.
func TestFoldLiveAhead(t *testing.T) {
	const limit = 1 << 20
	var notices bytes.Buffer
	counted := 0
	f := &FoldLive{Stream: Stream{W: writerFunc(func(p []byte) (int, error) {
		counted += len(p)
		return len(p), nil
	})}, Memory: limit, Notices: &notices}
	for seq := range 3 {
		if err := f.Event(start(seq)); err != nil {
			t.Fatal(err)
		}
	}
	line := strings.Repeat("x", 63) + "\n"
	sent := 0
	most := int64(0)
	for i := range 10_000 {
		for seq := range 2 {
			text := strings.Repeat(line, 10)
			if seq == 1 {
				text = strings.Repeat("y", 640)
			}
			sent += len(text)
			if err := f.Event(output(runner.Stdout, seq, text)); err != nil {
				t.Fatal(err)
			}
		}
		if most = max(most, f.held); most > 2*limit {
			t.Fatalf("%d bytes are held after %d events", f.held, 2*i)
		}
	}
	feed(t, f, ok(0), ok(1), ok(2))
	if counted < sent {
		t.Errorf("%d bytes came out of %d", counted, sent)
	}
	if got := notices.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "node001: a line has no end within ") {
		t.Errorf("notices: %q", got)
	}
}

func BenchmarkFoldLive(b *testing.B) {
	const hosts, fanout = 10_000, 64
	texts := twentyLines(10)
	b.ReportAllocs()
	for b.Loop() {
		f := &FoldLive{Stream: Stream{W: io.Discard}}
		for from := 0; from < hosts; from += fanout {
			to := min(hosts, from+fanout)
			for i := from; i < to; i++ {
				f.Event(start(i))
			}
			for i := from; i < to; i++ {
				f.Event(runner.Event{Kind: runner.Stdout, Seq: i, Host: host(i), Data: texts[i%len(texts)]})
			}
			for i := from; i < to; i++ {
				f.Event(ok(i))
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
