package transporttest

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"multirsh/transport"
)

// Recorder is a writer whose reader waits for what it wants to see.
type Recorder struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	came chan struct{} // closed at the next Write
}

func (r *Recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf.Write(p)
	if r.came != nil {
		close(r.came)
		r.came = nil
	}
	return len(p), nil
}

// String is what has been written so far.
func (r *Recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// Await waits until word has been written.
func (r *Recorder) Await(t testing.TB, word string) {
	t.Helper()
	lost := time.NewTimer(patience)
	defer lost.Stop()
	for {
		r.mu.Lock()
		got := r.buf.String()
		if r.came == nil {
			r.came = make(chan struct{})
		}
		came := r.came
		r.mu.Unlock()
		if strings.Contains(got, word) {
			return
		}
		select {
		case <-came:
		case <-lost.C:
			t.Fatalf("no %q in the output, which is %.1000q", word, got)
		}
	}
}

// Live is a session that is being waited for in the background, so that a test can meddle with it.
type Live struct {
	transport.Session
	Stdout, Stderr Recorder

	done   chan struct{}
	status transport.Status // valid when done
	err    error
}

// Begin starts a command whose output goes to the recorders. It is closed and gone when the test ends.
func Begin(t testing.TB, tr transport.Transport, host transport.Host, cmd transport.Command) *Live {
	t.Helper()
	l := &Live{done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &l.Stdout, &l.Stderr
	s, err := tr.Start(t.Context(), host, &cmd)
	if err != nil {
		t.Fatal(err)
	}
	l.Session = s
	go func() {
		defer close(l.done)
		l.status, l.err = s.Wait(context.Background())
	}()
	t.Cleanup(func() { s.Close(); <-l.done })
	return l
}

// End waits for the end, and tells what Wait did.
func (l *Live) End(t testing.TB) (transport.Status, error) {
	t.Helper()
	select {
	case <-l.done:
	case <-time.After(patience):
		t.Fatal("the session does not end")
	}
	return l.status, l.err
}
