package shwrap

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestBootstrap(t *testing.T) {
	if n := len(Bootstrap); n > 1023 {
		t.Errorf("%d bytes, rsh-redone takes 1,023", n)
	}
	for i := range len(Bootstrap) {
		if c := Bootstrap[i]; c < ' ' || c > '~' || c == '!' || c == '\\' {
			t.Errorf("byte %d is %q, which some login shell alters", i, c)
		}
	}
	const open = `exec /bin/sh -c '`
	body, found := strings.CutPrefix(Bootstrap, open)
	if !found || strings.Count(body, "'") != 1 || !strings.HasSuffix(body, "' sh") {
		t.Errorf("more than one pair of single quotes, or not around sh's text: %s", Bootstrap)
	}
}

func TestPreamble(t *testing.T) {
	for _, s := range scripts() {
		w := newWrapper(t, s)
		line, found := bytes.CutSuffix(w.Preamble(), []byte("\n"))
		if !found {
			t.Fatalf("%.50q: no newline at the end", s.Line)
		}
		for i, c := range line {
			if c < ' ' || c > '~' {
				t.Fatalf("%.50q: byte %d is %q", s.Line, i, c)
			}
		}
		if line[len(line)-1] == ' ' {
			t.Errorf("%.50q: read would strip the blank at the end", s.Line)
		}
		if bytes.Contains(line, w.nonce[:]) {
			t.Errorf("%.50q: the nonce stands whole in the script", s.Line)
		}
	}
}

func TestNoncesDiffer(t *testing.T) {
	if a, b := newWrapper(t, Script{}), newWrapper(t, Script{}); a.nonce == b.nonce {
		t.Errorf("twice %s", a.nonce)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		s    Script
		want string
	}{
		{Script{Line: "a\x00b"}, "NUL"},
		{Script{Line: strings.Repeat("x", MaxLine+1)}, "131072 bytes long and a shell takes at most 131071"},
		{Script{Input: -1}, "-1"},
	} {
		if _, err := New(tt.s); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.20q: got %v, want %q in it", tt.s.Line, err, tt.want)
		}
	}
}

func TestStop(t *testing.T) {
	for sig, want := range map[os.Signal]string{os.Interrupt: "INT\n", syscall.SIGTERM: "TERM\n", os.Kill: "KILL\n",
		syscall.SIGHUP: "HUP\n", syscall.SIGQUIT: "QUIT\n"} {
		if got, err := Stop(sig); string(got) != want || err != nil {
			t.Errorf("%v: got %q, %v", sig, got, err)
		}
	}
	if _, err := Stop(syscall.SIGUSR1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("USR1: got %v", err)
	}
}

// scripts are what the encoding could get wrong.
func scripts() (all []Script) {
	var bytes []byte
	for c := 1; c < 256; c++ {
		bytes = append(bytes, byte(c))
	}
	for _, line := range []string{
		"", "true", "'", "''", `'\''`, "a'b", "echo hi ", " -x", "-x", "+x", `\`, `\0`, `\0101\c`, "%s%%", "a\nb\n\n", "\n", "\t", "é", "\xff", "\n5",
		"exit 3 # comment", "sleep 1 &", string(bytes), run + "'x'" + afterRun, liveOn + leaderStderr, feedSlowly + "7;",
		"\n" + closeDecode + "; x '", strings.Repeat("x", MaxLine), strings.Repeat("\xff", MaxLine), strings.Repeat("'", MaxLine),
	} {
		all = append(all, Script{Line: line}, Script{Line: line, Input: 1, Merged: true})
	}
	for _, input := range []int64{0, 1, block - 1, block, block + 1, 5 * block, 1<<62 - 1} {
		for _, merged := range []bool{false, true} {
			for _, kill := range []bool{false, true} {
				all = append(all, Script{"cat 'x'", input, merged, kill})
			}
		}
	}
	return all
}

func TestDecode(t *testing.T) {
	for _, s := range scripts() {
		w := newWrapper(t, s)
		got, err := Decode(w.Preamble())
		if err != nil {
			t.Errorf("%.50q: %v", s.Line, err)
			continue
		}
		if got.Script != s || got.nonce != w.nonce {
			t.Errorf("got %.100q %d %v %v, want %.100q %d %v %v", got.Line, got.Input, got.Merged, got.KillOnDisconnect, s.Line, s.Input, s.Merged, s.KillOnDisconnect)
		}
	}
	p := newWrapper(t, Script{Line: "a\nb", Input: 3}).Preamble()
	for _, bad := range [][]byte{nil, []byte("\n"), []byte("3 foo\n"), p[1:], p[:len(p)-2], append([]byte("1"), p...), bytes.Replace(p, []byte("TERM"), []byte("KILL"), 1)} {
		if _, err := Decode(bad); err == nil {
			t.Errorf("%.80q: no error", bad)
		}
	}
}

// Decode takes what New made and nothing else.
func FuzzDecode(f *testing.F) {
	for _, s := range scripts() {
		if len(s.Line) < 1000 {
			f.Add(newWrapper(f, s).Preamble())
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		w, err := Decode(line)
		if err != nil {
			return
		}
		if got := bytes.TrimSuffix(w.Preamble(), []byte("\n")); !bytes.Equal(got, bytes.TrimSuffix(line, []byte("\n"))) {
			t.Fatalf("%q was taken for %q", line, got)
		}
	})
}

// Every script comes back from its preamble.
func FuzzNew(f *testing.F) {
	for _, s := range scripts() {
		if len(s.Line) < 1000 {
			f.Add(s.Line, s.Input, s.Merged, s.KillOnDisconnect)
		}
	}
	f.Fuzz(func(t *testing.T, line string, input int64, merged, kill bool) {
		s := Script{line, input, merged, kill}
		w, err := New(s)
		if err != nil {
			return
		}
		if got, err := Decode(w.Preamble()); err != nil || got.Script != s {
			t.Fatalf("%q came back as %q, %v", s.Line, got.Line, err)
		}
	})
}

func BenchmarkNew(b *testing.B) {
	for name, s := range map[string]Script{
		"plain":   {Line: "systemctl is-active sshd"},
		"input":   {Line: "cat", Input: 1 << 20},
		"encoded": {Line: "uname -a\nuptime\n"},
		"100KB":   {Line: strings.Repeat("x", 100<<10)},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w, _ := New(s)
				w.Preamble()
			}
		})
	}
}
