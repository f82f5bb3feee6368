package output

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"multirsh/runner"
	"multirsh/runner/hostlist"
	"multirsh/transport"
)

// kernels is a run whose outputs fold.
func kernels() []runner.Event {
	var events []runner.Event
	say := func(seq int, text string) { events = append(events, output(runner.Stdout, seq, text)) }
	motd := "Welcome\nkernel 6.1\nuptime 3 days\n\tdisk 80%\nusers 2\nload low\nswap none\n"
	for seq := range 12 {
		half := len(motd) * seq / 12
		say(seq, motd[:half])
		say(seq, motd[half:])
	}
	for _, seq := range []int{20, 21, 23} {
		say(seq, strings.Replace(motd, "6.1", "5.10", 1))
	}
	say(24, strings.TrimSuffix(motd, "\n"))
	say(25, "\x1b[2Jcleared\r\n\x00\xff\u202e\n")
	say(30, "no such file")
	say(31, "no such file")
	say(34, motd)
	say(36, "half a l")
	events = append(events, output(runner.Stderr, 30, "warning: 3\n"), output(runner.Stdout, 30, "\n"))
	events = append(events, output(runner.Stdout, 31, "\n"), output(runner.Stderr, 31, "warning: 3\n"))
	for seq := range 12 {
		events = append(events, ok(11-seq))
	}
	return append(events,
		ok(23), ok(20), ok(21), ok(24), ok(25), ok(26), ok(28),
		exit(31, 3), exit(30, 3), exit(32, 1), exit(34, 1),
		failed(36, runner.Timeout, transport.PhaseRun, &runner.StopError{Cause: &transport.TimeoutError{}}),
		failed(37, runner.Refused, transport.PhaseConnect, syscall.ECONNREFUSED),
		finish(38, runner.Result{Outcome: runner.Cancelled, Err: errors.New("interrupted")}),
	)
}

// lsof is a run in which everything to disregard differs.
func disregarded() []runner.Event {
	var events []runner.Event
	for seq := range 4 {
		text := fmt.Sprintf("This is node%03d.example at 10.1.2.%d\nSun Nov 23 00:%02d:11 UTC 2025 load 0.%d\nsame\npid=%d\n", seq, seq, 30+seq, seq, 700+seq)
		if seq == 3 {
			text += "one more\n"
		}
		events = append(events, output(runner.Stdout, seq, text))
	}
	events = append(events, output(runner.Stdout, 5, "kernel 6\n"), output(runner.Stdout, 6, "kernel 6\n"), output(runner.Stdout, 8, "kernel 7\n"))
	events = append(events, output(runner.Stdout, 7, "node001 node005 node007\n"), output(runner.Stdout, 9, "node001 node005 node007\n"))
	for _, seq := range []int{3, 2, 1, 0, 9, 8, 7, 6} {
		events = append(events, ok(seq))
	}
	return append(events, exit(5, 1))
}

func mustRegexp(tb testing.TB, text string) *Regexp {
	tb.Helper()
	r, err := ParseRegexp(text)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestFoldViews(t *testing.T) {
	all := Normalize{Host: true, IP: true, Time: true, Num: true}
	for _, tt := range []struct {
		name   string
		fold   Fold
		events []runner.Event
	}{
		{"fold.txt", Fold{}, kernels()},
		{"fold-terminal.txt", Fold{Stream: Stream{Width: 40, Escape: true}}, kernels()},
		{"fold-stderr.txt", Fold{Stderr: true}, kernels()},
		{"fold-diff.txt", Fold{Stream: Stream{Width: 80, Escape: true}, Diff: true}, kernels()},
		{"fold-normalize.txt", Fold{Normalize: all}, disregarded()},
		{"fold-normalize-diff.txt", Fold{Normalize: all, Diff: true}, disregarded()},
		{"fold-regexp.txt", Fold{Normalize: Normalize{Host: true, Time: true, IP: true, Regexps: []*Regexp{mustRegexp(t, "s/pid=[0-9]+/pid/"), mustRegexp(t, `s|load .*||`)}}}, disregarded()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got bytes.Buffer
			tt.fold.W = &got
			feed(t, &tt.fold, tt.events...)
			golden(t, tt.name, got.String())
			inMemory := got.String()

			got.Reset() // the same with all of it on disk
			tt.fold = Fold{Stream: Stream{W: &got, Width: tt.fold.Width, Escape: tt.fold.Escape}, Stderr: tt.fold.Stderr, Normalize: tt.fold.Normalize, Diff: tt.fold.Diff, Memory: 1, TempDir: t.TempDir()}
			feed(t, &tt.fold, tt.events...)
			if got.String() != inMemory {
				t.Errorf("from disk it is\n%s", got.String())
			}
		})
	}
}

func TestFoldNothing(t *testing.T) {
	var got bytes.Buffer
	feed(t, &Fold{Stream: Stream{W: &got}})
	feed(t, &Fold{Stream: Stream{W: &got}}, finish(1, runner.Result{Outcome: runner.Skipped, Err: runner.ErrFailFast}))
	if got.Len() > 0 {
		t.Errorf("%q", got.String())
	}
}

// TestFoldDiffering: the header names what was replaced in the group's hosts, not in others before them.
func TestFoldDiffering(t *testing.T) {
	var got bytes.Buffer
	feed(t, &Fold{Stream: Stream{W: &got}, Normalize: Normalize{Host: true, Num: true}},
		output(runner.Stdout, 2, "17\n"), output(runner.Stdout, 1, "I am node001\n"), ok(1), output(runner.Stdout, 3, "18\n"), ok(2), ok(3),
		output(runner.Stdout, 4, "same 5 4\n"), output(runner.Stdout, 5, "same 5 4\n"), ok(5), ok(4))
	want := foldRule + "node[002-003] (2): differing only in num\n" + foldRule + "17\n" +
		foldRule + "node[004-005] (2)\n" + foldRule + "same 5 4\n" +
		foldRule + "node001 (1)\n" + foldRule + "I am node001\n"
	if got.String() != want {
		t.Errorf("%s\nwant\n%s", got.String(), want)
	}
}

// TestFoldReplay: a record of a run is folded as the run was.
func TestFoldReplay(t *testing.T) {
	views := func(w io.Writer) runner.Sink {
		all := Normalize{Host: true, IP: true, Time: true, Num: true}
		return Tee(&Fold{Stream: Stream{W: w}, Stderr: true}, &Fold{Stream: Stream{W: w, Escape: true, Width: 80}, Normalize: all, Diff: true}, &FoldLive{Stream: Stream{W: w}, Stderr: true})
	}
	for _, events := range [][]runner.Event{started(kernels()), waves(), started(disregarded())} {
		var live, again bytes.Buffer
		feed(t, views(&live), events...)
		text := record(t, Run{}, events...)
		_, err := Replay(strings.NewReader(text), views(&again), func(line int, why error) { t.Errorf("line %d: %v", line, why) })
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(live.String(), again.String()); diff != "" {
			t.Error(diff)
		}
	}
}

// modelHost is a host of the model: what it does, and what of that is to be shown.
type modelHost struct {
	end    int // its exit status
	stderr []byte
	text   []byte
	key    string
	parts  replacements
	group  int
}

func (h *modelHost) say(stream int, data []byte, stderr bool) {
	switch {
	case stream == 0:
		h.text = append(h.text, data...)
	case stderr:
		h.stderr = append(h.stderr, data...)
	}
}

func (h *modelHost) finish() {
	if n := len(h.text); n > 0 && h.text[n-1] != '\n' && len(h.stderr) > 0 {
		h.text = append(h.text, '\n')
	}
	h.text = append(h.text, h.stderr...)
}

// modelFold is what the sink must show, of hosts whose outputs are there whole.
func modelFold(f *Fold, hosts []*modelHost) string {
	x := newNormalizer(&f.Normalize)
	groups := map[int][]int{}
	for seq, h := range hosts {
		h.finish()
		h.group = seq
		h.parts = make(replacements, partRegexps+len(f.Normalize.Regexps))
		name := host(seq)
		var key []byte
		for line := range bytes.Lines(h.text) {
			for piece := range slices.Chunk(line, maxHeld) {
				key = x.appendLine(key, piece, hostNames(&name), h.parts)
			}
		}
		h.key = string(key)
		for other := range seq {
			o := hosts[other]
			if o.end == h.end && (string(o.text) == string(h.text) || f.Normalize.any() && o.key == h.key) {
				from, to := h.group, o.group
				for _, m := range hosts[:seq+1] {
					if m.group == from {
						m.group = to
					}
				}
			}
		}
	}
	bare := map[bool]bool{}
	for seq, h := range hosts {
		groups[h.group] = append(groups[h.group], seq)
	}
	shown := slices.SortedFunc(maps.Values(groups), func(a, b []int) int {
		return cmp.Or(cmp.Compare(hosts[a[0]].end, hosts[b[0]].end), cmp.Compare(len(b), len(a)), cmp.Compare(a[0], b[0]))
	})
	for _, g := range shown {
		if text := hosts[g[0]].text; len(text) > 0 {
			bare[!bytes.HasSuffix(text, []byte("\n"))] = true
		}
	}
	var b strings.Builder
	for _, g := range shown {
		first := hosts[g[0]]
		var names, about []string
		var differ, replaced uint64
		other := false
		for _, seq := range g {
			names = append(names, host(seq).Name)
			other = other || string(hosts[seq].text) != string(first.text)
			for part, sum := range hosts[seq].parts {
				if sum != 0 {
					replaced |= bit(part)
				}
				if sum != first.parts[part] {
					differ |= bit(part)
				}
			}
		}
		if first.end != 0 {
			about = append(about, fmt.Sprintf("exit %d", first.end))
		}
		if len(first.text) == 0 {
			about = append(about, "no output")
		} else if len(bare) == 2 && !bytes.HasSuffix(first.text, []byte("\n")) {
			about = append(about, "no newline at the end")
		}
		if other {
			about = append(about, "differing only in "+f.Normalize.list(cmp.Or(differ, replaced)))
		}
		colon := ""
		if len(about) > 0 {
			colon = ": "
		}
		fmt.Fprintf(&b, "%s%s (%d)%s%s\n%s%s", foldRule, hostlist.Fold(slices.Values(names)), len(g), colon, strings.Join(about, ", "), foldRule, first.text)
		if len(first.text) > 0 && !bytes.HasSuffix(first.text, []byte("\n")) {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// TestFoldModel has hosts write at random, and compares what is shown with what is found by comparing whole outputs.
func TestFoldModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		f := &Fold{
			Stderr: r.IntN(2) == 0, Memory: []int64{0, 1, 300, 3000}[r.IntN(4)], TempDir: t.TempDir(),
			Normalize: Normalize{Num: r.IntN(3) == 0, Host: r.IntN(4) == 0},
		}
		if r.IntN(5) == 0 {
			f.Normalize.Regexps = []*Regexp{mustRegexp(t, "s/b+/a/")}
		}
		hosts := make([]*modelHost, 1+r.IntN(30))
		for i := range hosts {
			hosts[i] = &modelHost{end: r.IntN(8) / 7}
		}
		var got bytes.Buffer
		f.W = &got
		play(t, r, sinkFunc(func(e runner.Event) error {
			err := f.Event(e)
			if r.IntN(20) == 0 {
				checkStore(t, f)
			}
			return err
		}), hosts, f.Stderr)
		checkStore(t, f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if want := modelFold(f, hosts); got.String() != want {
			t.Fatalf("seed %d: stderr %v, memory %d, normalize %+v:\n%s\nwant:\n%s", seed, f.Stderr, f.Memory, f.Normalize, got.String(), want)
		}
		if f.Memory > 0 && f.store.memory > f.Memory && f.store.oldest != nil {
			t.Errorf("seed %d: %d bytes are in memory, %d may be", seed, f.store.memory, f.Memory)
		}
	}
}

// checkStore checks what must hold of the tree at all times.
func checkStore(tb testing.TB, f *Fold) {
	tb.Helper()
	if f.store == nil {
		return
	}
	type extent struct{ at, end int64 }
	var extents []extent
	memory, listed := int64(0), 0
	for _, at := range f.store.free {
		extents = append(extents, extent{at, at + pieceSize})
	}
	var walk func(p *piece)
	walk = func(p *piece) {
		for i, c := range p.children {
			switch {
			case c.parent != p || c.start != p.end() || c.size <= 0 || c.size > pieceSize:
				tb.Fatalf("a piece of %d bytes at %d is below one that ends at %d", c.size, c.start, p.end())
			case p.child(c.first) != p.children[i]:
				tb.Fatalf("two children begin with %q", c.first)
			case c.uses == 0 && len(c.children) == 0:
				tb.Fatal("a piece is of no use")
			case c.inMemory && (int(c.size) != len(c.data) || c.data[0] != c.first):
				tb.Fatalf("a piece of %d bytes has %d", c.size, len(c.data))
			case c.inMemory:
				listed++
			default:
				extents = append(extents, extent{c.at, c.at + int64(c.size)})
			}
			memory += pieceCost + int64(cap(c.data))
			walk(c)
		}
	}
	walk(&f.store.root)
	for _, h := range f.open {
		memory += int64(cap(h.line))
	}
	if memory != f.store.memory {
		tb.Fatalf("%d bytes are in memory, %d are counted", memory, f.store.memory)
	}
	for p := f.store.oldest; p != nil; p = p.newer {
		listed--
	}
	if listed != 0 {
		tb.Fatalf("%d pieces are in memory and not in the list of those", listed)
	}
	slices.SortFunc(extents, func(a, b extent) int { return cmp.Compare(a.at, b.at) })
	end := int64(0)
	for _, e := range extents {
		if e.at < end {
			tb.Fatalf("two pieces share bytes %d to %d of the file", e.at, end)
		}
		end = e.end
	}
	if end > f.store.size {
		tb.Fatalf("the file has %d bytes, a piece ends at %d", f.store.size, end)
	}
}

// maxPlayed is the longest text of an event of play.
const maxPlayed = 2 * pieceSize

// play gives the sink random events of the hosts.
func play(t *testing.T, r *rand.Rand, sink runner.Sink, hosts []*modelHost, merged bool) {
	words := []string{"a", "b", "\n", "node001", "node002\n", "17", "4\n", "same\n", "same\n", "\x00", strings.Repeat("long ", 30)}
	if r.IntN(3) == 0 {
		words = append(words, strings.Repeat("x", pieceSize-7), strings.Repeat("x", pieceSize/2)+"\n", strings.Repeat("17 ", pieceSize/2), strings.Repeat("4 ", pieceSize))
	}
	var live []int
	for i := range min(len(hosts), 2+r.IntN(20)) { // the fan-out
		live = append(live, i)
	}
	waiting := len(live)
	var common []string // most hosts say this
	for range r.IntN(12) {
		common = append(common, words[r.IntN(len(words))])
	}
	said := make([]int, len(hosts))
	for len(live) > 0 {
		at := r.IntN(len(live))
		seq := live[at]
		h := hosts[seq]
		if said[seq] == len(common) || r.IntN(60) == 0 {
			live = slices.Delete(live, at, at+1)
			if waiting < len(hosts) {
				live = append(live, waiting)
				waiting++
			}
			e := ok(seq)
			if h.end > 0 {
				e = exit(seq, h.end)
			}
			if err := sink.Event(e); err != nil {
				t.Fatal(err)
			}
			continue
		}
		text := common[said[seq]]
		if r.IntN(40) == 0 {
			text = words[r.IntN(len(words))]
		}
		said[seq]++
		for n := 0; len(text) > 0; text = text[n:] {
			n = 1 + r.IntN(len(text))
			kind := runner.Stdout
			if r.IntN(10) == 0 {
				kind = runner.Stderr
			}
			data := []byte(text[:n])
			h.say(int(kind-runner.Stdout), data, merged)
			if err := sink.Event(runner.Event{Kind: kind, Seq: seq, Host: host(seq), Data: data}); err != nil {
				t.Fatal(err)
			}
			for i := range data {
				data[i] = '!' // it is valid only during the call
			}
		}
	}
}
