package output

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"multirsh/runner"
)

// TestFoldDiskFull has a disk that is full.
func TestFoldDiskFull(t *testing.T) {
	dir := smallDisk(t)
	var got bytes.Buffer
	f := &Fold{Stream: Stream{W: &got}, Memory: 64 << 10, TempDir: dir}
	var failed error
	line, sent := "", 0
	for i := range 1000 {
		line = fmt.Sprintf("%d ", i) + strings.Repeat("x", 1000) + "\n"
		if failed = f.Event(output(runner.Stdout, 1, line)); failed != nil {
			break
		}
		sent += len(line)
	}
	if !errors.Is(failed, syscall.ENOSPC) || !strings.Contains(failed.Error(), dir) {
		t.Fatalf("error %v, want one of a full disk that names %s", failed, dir)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if head := foldRule + "node001 (1): cut off: the rest could not be kept\n" + foldRule; !strings.HasPrefix(got.String(), head) || got.Len() < len(head)+sent {
		t.Errorf("%d bytes are shown of %d: %.100q", got.Len(), sent, got.String())
	}
}
