package execcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"multirsh/transport"
	"multirsh/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	for name, tr := range map[string]*Transport{"apart": {}, "merged": {Merge: true}} {
		t.Run(name, func(t *testing.T) {
			transporttest.Run(t, transporttest.Harness{
				New: func(testing.TB) (transport.Transport, transport.Host) {
					return tr, transport.Host{Name: "h1"}
				},
				Merged: tr.Merge,
			})
		})
	}
}

func run(tb testing.TB, host transport.Host, line string) (string, transport.Status, error) {
	tb.Helper()
	var out bytes.Buffer
	s, err := (&Transport{Merge: true}).Start(tb.Context(), host, &transport.Command{Line: line, Stdout: &out})
	if err != nil {
		return "", transport.Status{}, err
	}
	st, err := s.Wait(tb.Context())
	return out.String(), st, err
}

func TestSubstitution(t *testing.T) {
	me, err := localUser()
	if err != nil {
		t.Skipf("this process's user has no name, so %%u has no default; add it to /etc/passwd: %v", err)
	}
	for _, test := range []struct {
		line string
		host transport.Host
		want string
	}{
		{"echo %h", transport.Host{Name: "node1"}, "node1\n"},
		{"echo %h", transport.Host{Name: "node1", Addr: "192.0.2.1"}, "192.0.2.1\n"},
		{"echo %h", transport.Host{Name: "fe80::1%eth0"}, "fe80::1%eth0\n"},
		{"echo %u@%h", transport.Host{Name: "node1", User: "ops"}, "ops@node1\n"},
		{"echo %u", transport.Host{Name: "node1"}, me + "\n"},
		{"echo %n", transport.Host{Name: "node1"}, "0\n"},
		{"echo %n", transport.Host{Name: "node1", Vars: map[string]string{"rank": "17"}}, "17\n"},
		{"echo 50%% of %h.", transport.Host{Name: "a"}, "50% of a.\n"},
		{"f=a.txt; echo ${f%%.txt}", transport.Host{Name: "a"}, "a\n"},
		{`echo "%h" '%h' \%h $(echo %h)`, transport.Host{Name: "a"}, "a a a a\n"},
		{`echo "it's" %h`, transport.Host{Name: "a b"}, "it's a b\n"},
		{`echo \' %h`, transport.Host{Name: "a  b"}, "' a  b\n"},
		{"echo x%hx", transport.Host{Name: "it's; echo oops"}, "xit's; echo oopsx\n"},
		{"echo %h", transport.Host{Name: "$(echo oops)`echo oops`\n*"}, "$(echo oops)`echo oops`\n*\n"},
	} {
		out, _, err := run(t, test.host, test.line)
		if err != nil || out != test.want {
			t.Errorf("%s with %q: %q, %v, want %q", test.line, test.host.Name, out, err, test.want)
		}
	}
}

func TestRefusedLines(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"date +%Y", "%Y means nothing: there are %h (host), %u (user) and %n (number); write %% for a percent sign"},
		{"echo %é", "%é means nothing: there are %h (host), %u (user) and %n (number); write %% for a percent sign"},
		{"echo 100%", "the command ends in a single %: write %% for a percent sign"},
		{"echo \x00", "the command holds a NUL byte"},
		{"echo %h %u %n %%", ""},
		{"", ""},
	} {
		got := ""
		if err := Validate(test.line); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("Validate(%q): %q, want %q", test.line, got, test.want)
		}
		_, _, err := run(t, transport.Host{Name: "h"}, test.line)
		var op *transport.OpError
		if (err != nil) != (test.want != "") || err != nil && (!errors.As(err, &op) || op.Phase != transport.PhaseStart) {
			t.Errorf("Start(%q): %v, want %q in phase start", test.line, err, test.want)
		}
	}
}

// TestHostIsNeverCode puts names that are code where the shell would run them.
func TestHostIsNeverCode(t *testing.T) {
	for _, line := range []string{
		"'%h'", `"%h"`, `\%h`, `"$(echo '%h')"`, "$(echo %h)", "`%h`", "# it's %h", `$'\'%h'`, "<<'E'\n%h\nE\n", `"\"%h"`, `'\'%h'`,
	} {
		for _, name := range []string{"'; echo code; '", "$(echo code)", "a;echo code", "\necho code\n", `";echo code;"`, "E\necho code\n"} {
			out, _, err := run(t, transport.Host{Name: name}, "echo "+line)
			if err == nil && strings.Contains(strings.ReplaceAll(out, "echo code", ""), "code") {
				t.Errorf("%s with host %q ran it: %q", line, name, out)
			}
		}
	}
	for _, name := range []string{"-oProxyCommand=x", "a\x00b"} {
		if _, _, err := run(t, transport.Host{Name: name}, "echo %h"); err == nil {
			t.Errorf("host %q was accepted", name)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("echo '%h' %n", "a b")
	f.Add(`"\"" %h`, "';x")
	f.Fuzz(func(t *testing.T, line, name string) {
		got, err := expand(line, transport.Host{Name: name, User: name})
		if bad := Validate(line); bad != nil {
			if err == nil {
				t.Fatalf("Validate says %v, and expand took it", bad)
			}
			return
		}
		if plain(name) && !strings.HasPrefix(name, "-") {
			want := strings.NewReplacer("%%", "%", "%h", name, "%u", name, "%n", "0").Replace(line)
			if err != nil || got != want {
				t.Fatalf("expand(%q, %q) is %q, %v, want %q", line, name, got, err, want)
			}
		}
	})
}

func TestStatus(t *testing.T) {
	for _, test := range []struct {
		line string
		want transport.Status
	}{
		{"exit 9", transport.Status{Known: true, Started: true, Ended: true, Code: 9}},
		{"kill -TERM $$", transport.Status{Known: true, Started: true, Ended: true, Code: 143, Signal: "TERM"}},
		{"kill -USR1 $$", transport.Status{Known: true, Started: true, Ended: true, Code: 138, Signal: "USR1"}},
		{"kill -40 $$", transport.Status{Known: true, Started: true, Ended: true, Code: 168, Signal: "40"}},
		{"sh -c 'kill -KILL $$'; exit $?", transport.Status{Known: true, Started: true, Ended: true, Code: 137}},
	} {
		_, got, err := run(t, transport.Host{Name: "h"}, test.line)
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, %v, want %+v", test.line, got, err, test.want)
		}
	}
}

func TestTooLong(t *testing.T) {
	_, _, err := run(t, transport.Host{Name: "h"}, "# "+strings.Repeat("x", 3<<20))
	if !errors.Is(err, syscall.E2BIG) || !strings.Contains(err.Error(), "put the command in a file") {
		t.Errorf("a line of 3 MB: %v, want E2BIG and the mend", err)
	}
}

// TestCloseKillsGroup looks for the grandchild, which holds the write end of a FIFO, until it is gone.
func TestCloseKillsGroup(t *testing.T) {
	for _, stop := range []func(transport.Session) error{
		transport.Session.Close,
		func(s transport.Session) error { return s.Signal(syscall.SIGTERM) },
		func(s transport.Session) error { return s.Signal(os.Kill) },
	} {
		fifo := t.TempDir() + "/alive"
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("(trap '' TERM; exec sleep 1000 >/dev/null 2>&1 3>%s) & wait", fifo)
		s, err := (&Transport{}).Start(t.Context(), transport.Host{Name: "h"}, &transport.Command{Line: line, Stdout: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		alive, err := os.Open(fifo) // returns when the grandchild has opened the other end
		if err != nil {
			t.Fatal(err)
		}
		if err := stop(s); err != nil {
			t.Error(err)
		}
		s.Wait(t.Context())
		if _, err := io.ReadAll(alive); err != nil { // end of file: the grandchild is gone
			t.Error(err)
		}
		alive.Close()
	}
}

// heard notes when it was last written to.
type heard struct {
	bytes.Buffer
	last time.Time
}

func (h *heard) Write(p []byte) (int, error) {
	h.last = time.Now()
	return h.Buffer.Write(p)
}

// TestBackgroundTalks has a child that talks on one pipe hold both: the other pipe's silence is not the end.
func TestBackgroundTalks(t *testing.T) {
	want := transport.Status{Known: true, Started: true, Ended: true, Code: 2}
	for range 10 {
		var out, errs heard
		// In all it talks for longer than one that is silent may hold them, and pauses for far less than that.
		line := "{ for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done; echo 9 >&2; } & exit 2"
		began := time.Now()
		s, err := (&Transport{}).Start(t.Context(), transport.Host{Name: "h"}, &transport.Command{Line: line, Stdout: &out, Stderr: &errs})
		if err != nil {
			t.Fatal(err)
		}
		st, err := s.Wait(t.Context())
		silent := time.Since(slices.MaxFunc([]time.Time{began, out.last, errs.last}, time.Time.Compare))
		if st.Background && silent >= quietAfter {
			continue // so slow was the machine
		}
		if err != nil || st != want || out.String() != "1\n2\n3\n4\n5\n6\n7\n8\n" || errs.String() != "9\n" {
			t.Errorf("%+v, %v, %q, %q, want %+v, 1 to 9", st, err, out.String(), errs.String(), want)
		}
		return
	}
	t.Error("each time the child was silent for too long")
}

// TestEnvironment: the command sees ours, and its input is at the end from the start.
func TestEnvironment(t *testing.T) {
	t.Setenv("MULTI_RSH_TEST", "seen")
	if out, _, err := run(t, transport.Host{Name: "h"}, "echo $MULTI_RSH_TEST; cat"); err != nil || out != "seen\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// BenchmarkExec is what a host costs at the usual fan-out; the shell does nothing but echo.
func BenchmarkExec(b *testing.B) {
	for _, fanout := range []int{1, 64} {
		b.Run(fmt.Sprintf("fanout=%d", fanout), func(b *testing.B) {
			b.ReportAllocs()
			slots := make(chan struct{}, fanout)
			var sessions sync.WaitGroup
			for range b.N {
				slots <- struct{}{}
				sessions.Go(func() {
					defer func() { <-slots }()
					s, err := (&Transport{}).Start(context.Background(), transport.Host{Name: "h"}, &transport.Command{Line: "echo %h", Stdout: io.Discard, Stderr: io.Discard})
					if err != nil {
						b.Error(err)
						return
					}
					if _, err := s.Wait(context.Background()); err != nil {
						b.Error(err)
					}
				})
			}
			sessions.Wait()
		})
	}
}

func BenchmarkThroughput(b *testing.B) {
	b.SetBytes(64 << 20)
	for b.Loop() {
		s, err := (&Transport{}).Start(context.Background(), transport.Host{Name: "h"}, &transport.Command{Line: "head -c 67108864 /dev/zero", Stdout: io.Discard})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Wait(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
