package output

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"multirsh/runner"
)

// patch applies a unified diff, and fails where it does not fit.
func patch(tb testing.TB, old, diff string) string {
	tb.Helper()
	from := slices.Collect(strings.Lines(old))
	var to []string
	at := 0
	lines := slices.Collect(strings.Lines(diff))[2:]
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		text := line[1:]
		if i+1 < len(lines) && lines[i+1][0] == '\\' {
			text = strings.TrimSuffix(text, "\n")
		}
		switch line[0] {
		case '@':
			head := strings.Fields(line)
			first, count, some := strings.Cut(head[1][1:], ",")
			n, err := strconv.Atoi(first)
			if err != nil {
				tb.Fatal(err)
			}
			if !some || count != "0" {
				n--
			}
			if n < at || n > len(from) {
				tb.Fatalf("%q comes after line %d of %d", line, at, len(from))
			}
			to = append(to, from[at:n]...)
			at = n
			if head[2] != "+"+strconv.Itoa(len(to)+1) && !strings.HasPrefix(head[2], fmt.Sprintf("+%d,", len(to)+1)) && head[2] != fmt.Sprintf("+%d,0", len(to)) {
				tb.Fatalf("%q comes after line %d", line, len(to))
			}
		case ' ', '-':
			if at >= len(from) || from[at] != text {
				tb.Fatalf("line %d is not %q", at, text)
			}
			at++
			if line[0] == ' ' {
				to = append(to, text)
			}
		case '+':
			to = append(to, text)
		case '\\':
		default:
			tb.Fatalf("%q", line)
		}
	}
	return strings.Join(append(to, from[at:]...), "")
}

// TestDiffModel: a difference, applied to the one output, makes the other.
func TestDiffModel(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		kinds := 1 + r.IntN(40)
		lines := make([]string, r.IntN(400))
		for i := range lines {
			lines[i] = fmt.Sprintf("line %d\n", r.IntN(kinds))
		}
		a := strings.Join(lines, "")
		other := slices.Clone(lines)
		for range r.IntN(r.IntN(200) + 1) {
			at := r.IntN(len(other) + 1)
			switch {
			case at < len(other) && r.IntN(2) == 0:
				other = slices.Delete(other, at, at+1)
			default:
				other = slices.Insert(other, at, fmt.Sprintf("line %d\n", r.IntN(kinds+2)))
			}
		}
		b := strings.Join(other, "")
		if r.IntN(4) == 0 {
			a = strings.TrimSuffix(a, "\n")
		}
		if r.IntN(4) == 0 {
			b = strings.TrimSuffix(b, "\n")
		}
		var got bytes.Buffer
		feed(t, &Fold{Stream: Stream{W: &got}, Diff: true}, output(runner.Stdout, 1, a), output(runner.Stdout, 2, a), output(runner.Stdout, 3, b), ok(1), ok(2), ok(3))
		if a == "" || b == "" || a == b {
			continue
		}
		_, rest, _ := strings.Cut(got.String(), foldRule+"node003 (1)")
		_, diff, _ := strings.Cut(rest, foldRule)
		if !strings.HasPrefix(diff, "--- node[001-002]\n+++ node003\n") {
			if strings.TrimSuffix(diff, "\n") != strings.TrimSuffix(b, "\n") {
				t.Fatalf("seed %d: neither a difference nor the output:\n%s", seed, got.String())
			}
			continue
		}
		if patched := patch(t, a, diff); patched != b {
			t.Fatalf("seed %d: %q and the difference make %q, want %q:\n%s", seed, a, patched, b, diff)
		}
	}
}

func TestDiffTooLarge(t *testing.T) {
	var got bytes.Buffer
	f := &Fold{Stream: Stream{W: &got}, Diff: true}
	large := strings.Repeat("x\n", maxCompared/2+1)
	feed(t, f, output(runner.Stdout, 1, "small\n"), output(runner.Stdout, 2, "small\n"), output(runner.Stdout, 3, large), ok(1), ok(2), ok(3))
	want := foldRule + "node[001-002] (2)\n" + foldRule + "small\n" + foldRule + "node003 (1): too large to be compared\n" + foldRule + large
	if got.String() != want {
		t.Errorf("%.300q", got.String())
	}
}

func BenchmarkDiff(b *testing.B) {
	for _, bench := range []struct{ lines, changes, groups int }{{20, 1, 1000}, {10_000, 10, 20}, {10_000, 3000, 20}, {200_000, 100_000, 2}} {
		b.Run(fmt.Sprintf("lines=%d,changes=%d,groups=%d", bench.lines, bench.changes, bench.groups), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			lines := make([]string, bench.lines)
			for i := range lines {
				lines[i] = fmt.Sprintf("setting %d = %d\n", i, r.IntN(10))
			}
			texts := []string{strings.Join(lines, "")}
			for range bench.groups {
				other := slices.Clone(lines)
				for range bench.changes {
					other[r.IntN(len(other))] = fmt.Sprintf("changed to %d\n", r.Uint32())
				}
				texts = append(texts, strings.Join(other, ""))
			}
			for b.Loop() {
				f := &Fold{Stream: Stream{W: &bytes.Buffer{}}, Diff: true}
				for i, text := range append(texts, texts[0]) {
					f.Event(output(runner.Stdout, i, text))
					f.Event(ok(i))
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
