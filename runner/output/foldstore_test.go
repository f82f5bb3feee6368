package output

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"multirsh/runner"
)

// TestFoldMemory: 40 MB of different outputs take no more memory than they may, and all of it is shown.
func TestFoldMemory(t *testing.T) {
	const hosts, pieces, limit = 10, 64, 2 << 20
	dir := t.TempDir()
	f := &Fold{Memory: limit, TempDir: dir}
	sum := 0
	f.W = writerFunc(func(p []byte) (int, error) {
		sum += len(p)
		return len(p), nil
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	piece := make([]byte, pieceSize)
	for i := range pieces {
		for seq := range hosts {
			for j := range piece {
				piece[j] = byte('a' + seq + i + j%7)
			}
			if err := f.Event(output(runner.Stdout, seq, string(piece))); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > limit+limit/2 {
		t.Errorf("%d bytes are in memory, %d may be", grown, limit)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("a file has a name: %v", left)
	}
	for seq := range hosts {
		feedOne(t, f, ok(seq))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if sum < hosts*pieces*pieceSize {
		t.Errorf("%d bytes are shown of %d", sum, hosts*pieces*pieceSize)
	}
	if _, err := f.store.file.Stat(); err == nil {
		t.Error("the file is still open")
	}
}

// TestFoldEqual: 100,000 hosts that all run at once and send the same have it once.
func TestFoldEqual(t *testing.T) {
	const hosts = 100_000
	var got bytes.Buffer
	f := &Fold{Stream: Stream{W: &got}, Stderr: true}
	line := strings.Repeat("x", 511) + "\n"
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 2 {
		for seq := range hosts {
			feedOne(t, f, output(runner.Stdout, seq, line))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 40<<20 {
		t.Errorf("%d bytes are in memory", grown)
	}
	for seq := range hosts {
		feedOne(t, f, ok(seq))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if want := foldRule + "node[000-99999] (100000)\n" + foldRule + line + line; got.String() != want {
		t.Errorf("%.200q", got.String())
	}
}

func feedOne(tb testing.TB, s runner.Sink, e runner.Event) {
	tb.Helper()
	if err := s.Event(e); err != nil {
		tb.Fatal(err)
	}
}

// TestFoldDiskReused: outputs that are equal to others when normalised are not kept, and their room on disk serves the next.
func TestFoldDiskReused(t *testing.T) {
	f := &Fold{Stream: Stream{W: io.Discard}, Memory: 1 << 20, TempDir: t.TempDir(), Normalize: Normalize{Num: true}}
	for seq := range 15 {
		for range 10 {
			feedOne(t, f, output(runner.Stdout, seq, string(bytes.Repeat([]byte{byte('0' + seq%10), byte('0' + seq/10), '\n'}, pieceSize))))
			checkStore(t, f)
		}
		feedOne(t, f, output(runner.Stdout, 100+seq, "a short one beside\n"))
		feedOne(t, f, ok(seq))
		checkStore(t, f)
	}
	const one = 30 * pieceSize
	if f.store.size > 3*one {
		t.Errorf("the file has %d bytes, an output %d", f.store.size, one)
	}
	for seq := range 15 {
		feedOne(t, f, ok(100+seq))
	}
	if n := len(f.sorted()); n != 2 {
		t.Errorf("%d groups", n)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFoldNoSpool: where nothing can be written the error says so, and what is there is shown.
func TestFoldNoSpool(t *testing.T) {
	var got bytes.Buffer
	missing := filepath.Join(t.TempDir(), "missing")
	f := &Fold{Stream: Stream{W: &got}, Memory: 1000, TempDir: missing, Normalize: Normalize{Num: true}, Stderr: true}
	feedOne(t, f, output(runner.Stdout, 1, "done\n"))
	feedOne(t, f, ok(1))
	feedOne(t, f, output(runner.Stdout, 3, "half a line"))
	err := f.Event(output(runner.Stdout, 2, strings.Repeat("x", 1000)+"\n"))
	if err == nil || !strings.Contains(err.Error(), missing+"/multi-rsh-fold-") || !strings.Contains(err.Error(), "no such file or directory") || !strings.Contains(err.Error(), "1000 bytes") {
		t.Errorf("error %v", err)
	}
	if again := f.Event(output(runner.Stdout, 2, "more\n")); again == nil {
		t.Error("later output is lost without an error")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want := foldRule + "node001 (1)\n" + foldRule + "done\n" +
		foldRule + "node002 (1): cut off: the rest could not be kept\n" + foldRule + strings.Repeat("x", 1000) + "\n" +
		foldRule + "node003 (1): cut off: the rest could not be kept\n" + foldRule + "half a line\n"
	if got.String() != want {
		t.Errorf("%s\nwant\n%s", got.String(), want)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1000: "1000 bytes", 1 << 10: "1 KiB", 1536: "1.5 KiB", 256 << 20: "256 MiB", 5 << 30: "5 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
