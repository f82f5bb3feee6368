//go:build unix

package testserver

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var table = Table{
	{Name: "ok", Text: "a good one"},
	{Name: "stall", Value: "PHASE", Choices: Choices("accept", "end"), Text: "goes silent"},
	{Name: "say", Value: "TEXT", Preset: "Hello", Text: "says TEXT"},
	{Name: "huge", Value: "BYTES", Text: "sends BYTES"},
	{Name: "tries", Value: "N", Preset: "2", Text: "tries"},
	{Name: "drop", Value: "SHARE", Preset: "0.3", Text: "drops"},
	{Name: "slow", Value: "PAUSE", Preset: "1ms", Text: "pauses"},
	{Name: "child", Value: "DURATION", Preset: "1000s", Text: "stays"},
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Behaviour{
		"ok":          {},
		"stall=end":   {Kind: 1, Word: "end"},
		"say":         {Kind: 2, Word: "Hello"},
		"say=a=b, c":  {Kind: 2, Word: "a=b, c"},
		"say=":        {Kind: 2},
		"huge=10M":    {Kind: 3, N: 10 << 20},
		"huge=0":      {Kind: 3},
		"tries=7":     {Kind: 4, N: 7},
		"drop":        {Kind: 5, N: 300_000},
		"drop=1":      {Kind: 5, N: 1_000_000},
		"slow=1m0.5s": {Kind: 6, Pause: time.Minute + time.Second/2},
		"child":       {Kind: 7, Pause: 1000 * time.Second},
	} {
		got, err := table.Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again := Must(table.Parse(table.Print(got))); again != want {
			t.Errorf("%s printed as %s", text, table.Print(got))
		}
	}
	for text, want := range map[string]string{
		"":                    `no behaviour "": it is one of ok, stall, say, huge`,
		"ok=1":                `behaviour ok takes no value, not "1"`,
		"stall":               "behaviour stall needs a value: accept, end",
		"stall=lunch":         `behaviour stall="lunch": the value is accept, end`,
		"huge":                "behaviour huge needs a value: a number of bytes such as 10M",
		"huge=1T":             `behaviour huge="1T": the value is a number of bytes such as 4096, 64k, 10M or 1G`,
		"huge=9999999999999G": "a number of bytes",
		"tries=0":             "the value is a number, 1 or more",
		"drop=NaN":            "the value is a number from 0 to 1",
		"slow=-1s":            "the value is a duration such as 1.5s",
		"say=a\nb":            "the value is one line without a NUL",
	} {
		if b, err := table.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %s", text, b, err, want)
		}
	}
	if got := Must(table.Parse("drop=0.25")).Share(); got != 0.25 {
		t.Errorf("share %v", got)
	}
}

func TestDocs(t *testing.T) {
	want := []Doc{
		{"ok", "a good one"}, {"stall=PHASE", "goes silent"}, {"say[=TEXT]", "says TEXT (Hello)"}, {"huge=BYTES", "sends BYTES"},
		{"tries[=N]", "tries (2)"}, {"drop[=SHARE]", "drops (0.3)"}, {"slow[=PAUSE]", "pauses (1ms)"}, {"child[=DURATION]", "stays (1000s)"},
	}
	if diff := cmp.Diff(want, table.Docs()); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range table {
		f.Add(r.Name)
		f.Add(r.Name + "=" + r.Preset)
		for _, c := range r.Choices {
			f.Add(r.Name + "=" + c)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := table.Parse(text)
		if err != nil {
			return
		}
		if again, err := table.Parse(table.Print(b)); err != nil || again != b {
			t.Errorf("%q printed as %q, read back as %+v, %v", text, table.Print(b), again, err)
		}
	})
}

// newServer makes a server that reads each connection to its end and says so on ended.
func newServer(t *testing.T) (s *Server, ended chan error) {
	ended = make(chan error, 10)
	s = New(func(c *net.TCPConn) func() {
		if !s.Enter(c) {
			return nil
		}
		return func() {
			defer s.Leave(c)
			defer c.Close()
			_, err := io.Copy(io.Discard, c)
			ended <- err
		}
	}, nil)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, ended
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// Close resets what is open, and nothing can be started any more.
func TestClose(t *testing.T) {
	s, ended := newServer(t)
	addr, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first, second := dial(t, addr.String()), dial(t, addr.String())
	first.Close()
	if err := <-ended; err != nil {
		t.Errorf("after the client's close: %v", err)
	}
	held, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if !s.Own(held) {
		t.Error("a server that is open does not own")
	}
	second.Write([]byte("x"))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client read %v, want a reset", err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the server read %v", err)
	}
	if _, err := held.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("what it owned is not closed: %v", err)
	}
	if s.Pause(time.Hour) || s.Context().Err() == nil {
		t.Error("it is not over")
	}
	if _, err := s.Start("127.0.0.1:0"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("started again: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Error(err)
	}
	if l, err = net.Listen("tcp", l.Addr().String()); err != nil {
		t.Fatal("Serve has not closed the listener:", err)
	}
	defer l.Close()
	third := dial(t, l.Addr().String())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.ServeConn(c.(*net.TCPConn))
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection after Close: %v, want a reset", err)
	}
}

// What is no TCP is not served.
func TestServeUnix(t *testing.T) {
	s, _ := newServer(t)
	l, err := net.Listen("unix", t.TempDir()+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Serve(l); err == nil || !strings.Contains(err.Error(), "is not TCP") {
		t.Errorf("%v", err)
	}
}

type aborted chan struct{}

func (a aborted) Abort()       { close(a) }
func (a aborted) Close() error { return errors.New("closed, not aborted") }

// What can be aborted is, be it owned before the end or after.
func TestAbort(t *testing.T) {
	s, _ := newServer(t)
	before, left, after := make(aborted), make(aborted), make(aborted)
	s.Own(before)
	s.Own(left)
	s.Disown(left)
	s.Close()
	if s.Own(after) || s.Enter(make(aborted)) {
		t.Error("it owns after its end")
	}
	<-before
	<-after
	select {
	case <-left:
		t.Error("what it disowned was aborted")
	default:
	}
}

// run starts a command that says when it is up.
func run(t *testing.T, s *Server, line string) (*Process, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd := exec.Command("sh", "-c", line)
	cmd.Stdout = w
	p, err := s.Run(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len("up\n"))); err != nil {
		t.Fatal(err)
	}
	return p, r
}

func TestProcess(t *testing.T) {
	s, _ := newServer(t)
	p, _ := run(t, s, "echo up; exit 3")
	if w := p.Wait(); w.ExitStatus() != 3 {
		t.Errorf("%v", w)
	}
	p.Signal(syscall.SIGKILL) // which is nobody's

	p, out := run(t, s, "sleep 1000 & echo up; wait")
	p.Signal(syscall.SIGTERM)
	if w := p.Wait(); w.Signal() != syscall.SIGTERM {
		t.Errorf("%v", w)
	}
	if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil { // the child was signalled too, for it lets go of its output
		t.Errorf("%q, %v", rest, err)
	}

	// What a command leaves behind is Close's to kill.
	p, out = run(t, s, "sleep 1000 & echo up")
	p.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	p, err := s.Run(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if w := p.Wait(); w.Signal() != syscall.SIGKILL {
		t.Errorf("started after the end: %v", w)
	}
	if _, err := s.Run(exec.Command("/nonexistent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// The client's end is told without a byte read, and a deadline that another had set is none.
func TestWaitGone(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*net.TCPConn)
		want error
	}{
		"close":             {func(c *net.TCPConn) { c.Close() }, io.EOF},
		"half-close":        {func(c *net.TCPConn) { c.CloseWrite() }, io.EOF},
		"reset":             {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, syscall.ECONNRESET},
		"half-close, reset": {func(c *net.TCPConn) { c.CloseWrite(); c.SetLinger(0); c.Close() }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client := dial(t, l.Addr().String())
			client.Write([]byte("unread"))
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetReadDeadline(time.Unix(1, 0))
			test.end(client)
			if err := WaitGone(c.(*net.TCPConn)); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			c.Close()
			if err := WaitGone(c.(*net.TCPConn)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("when closed here: %v", err)
			}
		})
	}
}

func TestWatched(t *testing.T) {
	var w Watched[[]int]
	go func() {
		for i := range 3 {
			w.Change(func(all *[]int) { *all = append(*all, i) })
		}
	}()
	got, err := w.Until(t.Context(), func(all []int) bool { return len(all) == 3 })
	if err != nil || !slices.Equal(got, []int{0, 1, 2}) || !slices.Equal(w.Value(), got) {
		t.Errorf("%v, %v", got, err)
	}
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if got, err := w.Until(ctx, func([]int) bool { return false }); err != gone || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDripAndLines(t *testing.T) {
	s, _ := newServer(t)
	var writes []string
	w := writerFunc(func(p []byte) (int, error) {
		writes = append(writes, string(p))
		return len(p), nil
	})
	if n, err := s.Drip(w, []byte("abc\n"), 0); n != 4 || err != nil || !slices.Equal(writes, []string{"a", "b", "c", "\n"}) {
		t.Errorf("%d, %v, %q", n, err, writes)
	}
	s.Close()
	if n, err := s.Drip(w, []byte("abc"), time.Hour); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %d, %v", n, err)
	}
	const n = 512*64 + 100 // one chunk and a part of the next
	writes = nil
	if err := WriteLines(w, n); err != nil {
		t.Error(err)
	}
	all := strings.Join(writes, "")
	if want := strings.Repeat(strings.Repeat("x", 63)+"\n", 514)[:n]; all != want {
		t.Errorf("%d bytes: %.80q …", len(all), all)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
