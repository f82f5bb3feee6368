//go:build unix

package rshtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// TestBehaviours shows each behaviour that can be seen by what reaches the client, on both channels, and how they end.
func TestBehaviours(t *testing.T) {
	const end, reset = false, true
	hugeLines := strings.Repeat(strings.Repeat("x", 63)+"\n", 3) + strings.Repeat("x", 8)
	for _, test := range []struct {
		behaviour, command string
		out, errs          string
		ends               bool // how both channels end
	}{
		{"ok", wrapped, "\x00" + lead + "hello world\n" + trail, lead + "oops" + trail, end},
		{"slow=10us", wrapped, "\x00" + lead + "hello world\n" + trail, lead + "oops" + trail, end},
		{"late=1ms", wrapped, "\x00" + lead + "hello world\n" + trail, lead + "oops" + trail, end},
		{"error=Not today.", wrapped, "\x01Not today.\n", "", end},
		{"error", wrapped, "\x01Try again.\n", "", end},
		{"garbage", wrapped, "\xfe\x13SSH-2.0-\xff\xff\n\x7f", "", end},
		{"denied=redone", wrapped, "\x00Authentication failure\n", "", end},
		{"denied=netkit", wrapped, "\x01Permission denied.\n", "", end},
		{"huge=200", wrapped, "\x00" + lead + hugeLines + "hello world\n" + trail, lead + "oops" + trail, end},
		{"huge=200", "echo bare; echo err >&2", "\x00bare\n" + hugeLines, "err\n", end},
		{"leader=stdout", wrapped, "\x00" + lead + "hello world\n" + trail, "oops" + trail, end},
		{"leader=stderr", wrapped, "\x00hello world\n" + trail, lead + "oops" + trail, end},
		{"trailer=stdout", wrapped, "\x00" + lead + "hello world\n" + trail, lead + "oops", end},
		{"trailer=stderr", wrapped, "\x00" + lead + "hello world\n", lead + "oops" + trail, end},
		{"trailer=none", wrapped, "\x00" + lead + "hello world\n", lead + "oops", end},
		{"falsetrailer", wrapped, "\x00" + lead + "\x1e123456789abcdef0123456789abcdef0-0\n" + "hello world\n" + trail,
			lead + "\x1e123456789abcdef0123456789abcdef0-0\noops" + trail, end},
		{"close=handshake", wrapped, "", "", end},
		{"close=leader", wrapped, "\x00", "", end},
		{"close=end", wrapped, "\x00" + lead + "hello world\n" + trail, lead + "oops" + trail, end},
		{"close=trailer", "echo bare", "\x00bare\n", "", end},
		{"reset=handshake", wrapped, "", "", reset},
		{"reset=leader", wrapped, "\x00", "", reset},
		{"reset=end", wrapped, "\x00" + lead + "hello world\n" + trail, lead + "oops" + trail, reset},
		{"reset=trailer", "echo bare", "\x00bare\n", "", reset},
	} {
		t.Run(test.behaviour, func(t *testing.T) {
			s := &Server{AnyPort: true, Behaviour: MustParseBehaviour(test.behaviour)}
			c := rcmd(t, newServer(t, s), true, test.command)
			out, errs, r1, r2 := both(c.main, c.accept())
			if out != test.out || errs != test.errs || r1 != test.ends || r2 != test.ends {
				t.Errorf("stdout %q (reset %v)\nstderr %q (reset %v)", out, r1, errs, r2)
			}
		})
	}
}

// TestMainChannel is TestBehaviours for phases in which what has come on the stderr channel is not settled.
func TestMainChannel(t *testing.T) {
	for _, test := range []struct {
		behaviour, command, out string
		reset                   bool
	}{
		{"close=accept", wrapped, "", false},
		{"close=callback", wrapped, "", false},
		{"close=output", wrapped, "\x00" + lead + "hello ", false},
		{"close=output", "echo bare", "\x00ba", false},
		{"close=output", "true", "\x00", false},
		{"close=trailer", wrapped, "\x00" + lead + "hello world\n", false},
		{"reset=callback", wrapped, "", true},
		{"reset=output", wrapped, "\x00" + lead + "hello ", true},
		{"reset=trailer", wrapped, "\x00" + lead + "hello world\n", true},
	} {
		t.Run(test.behaviour, func(t *testing.T) {
			s := &Server{AnyPort: true, Behaviour: MustParseBehaviour(test.behaviour)}
			c := rcmd(t, newServer(t, s), true, test.command)
			if out, reset := rest(c.main); out != test.out || reset != test.reset {
				t.Errorf("stdout %q (reset %v)", out, reset)
			}
		})
	}
}

// The reset may come while the client is still connecting.
func TestResetAtAccept(t *testing.T) {
	s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("reset=accept")}
	conn, err := net.Dial("tcp", newServer(t, s).String())
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
}

// A stalled server ends nothing by itself: the end comes after the client's, as a reset.
func TestStall(t *testing.T) {
	want := map[Phase]string{
		PhaseAccept: "", PhaseCallback: "", PhaseHandshake: "", PhaseLeader: "\x00", PhaseOutput: "\x00" + lead + "hello ",
		PhaseTrailer: "\x00" + lead + "hello world\n", PhaseEnd: "\x00" + lead + "hello world\n" + trail,
	}
	for _, phase := range Phases() {
		t.Run(string(phase), func(t *testing.T) {
			s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("stall=" + string(phase))}
			c := rcmd(t, newServer(t, s), true, wrapped)
			if phase != PhaseAccept && phase != PhaseCallback {
				c.accept()
			}
			c.expect(c.main, want[phase])
			if n := len(s.Sessions()); n != 0 {
				t.Error("the session is over before the client has closed")
			}
			c.main.CloseWrite()
			if more, reset := rest(c.main); more != "" || !reset {
				t.Errorf("after it %q (reset %v)", more, reset)
			}
			x := one(t, s)
			if x.End != io.EOF {
				t.Errorf("the server saw the end %v", x.End)
			}
			if calls := len(x.Callbacks); (calls == 0) != (phase == PhaseAccept || phase == PhaseCallback) {
				t.Errorf("%d connections back", calls)
			}
		})
	}
	t.Run("client resets", func(t *testing.T) {
		s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("stall=handshake")}
		c := rcmd(t, newServer(t, s), true, wrapped)
		c.accept()
		c.main.SetLinger(0)
		c.main.Close()
		if x := one(t, s); !errors.Is(x.End, syscall.ECONNRESET) {
			t.Errorf("the server saw the end %v", x.End)
		}
	})
	t.Run("server closes", func(t *testing.T) {
		s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("stall=leader")}
		c := rcmd(t, newServer(t, s), false, wrapped)
		c.expect(c.main, "\x00")
		s.Close()
		if _, reset := rest(c.main); !reset {
			t.Error("not reset")
		}
	})
}

// Not even the client's close makes it close; only its own end does, and that is a reset.
func TestNeverClose(t *testing.T) {
	s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("neverclose")}
	c := rcmd(t, newServer(t, s), true, wrapped)
	stderr := c.accept()
	c.expect(c.main, "\x00"+lead+"hello world\n"+trail)
	c.expect(stderr, lead+"oops"+trail)
	c.main.CloseWrite()
	stderr.CloseWrite()
	s.Close()
	out, errs, r1, r2 := both(c.main, stderr)
	if out != "" || errs != "" || !r1 || !r2 {
		t.Errorf("%q (reset %v), %q (reset %v)", out, r1, errs, r2)
	}
}

func TestBackground(t *testing.T) {
	s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("background")}
	c := rcmd(t, newServer(t, s), true, wrapped)
	stderr := c.accept()
	c.expect(c.main, "\x00"+lead+"hello world\n"+trail)
	if errs, _ := rest(stderr); errs != lead+"oops"+trail {
		t.Errorf("%q", errs)
	}
	if x := one(t, s); x.Exit != 0 { // the command itself has ended
		t.Errorf("exit %d", x.Exit)
	}
	if err := s.Close(); err != nil { // which kills the child, and only that closes the channel
		t.Error(err)
	}
	if more, _ := rest(c.main); more != "" {
		t.Errorf("%q", more)
	}

	s = &Server{AnyPort: true, Behaviour: MustParseBehaviour("background=10ms")}
	c = rcmd(t, newServer(t, s), false, "echo hi")
	if out, reset := rest(c.main); out != "\x00hi\n" || reset {
		t.Errorf("%q (reset %v)", out, reset)
	}
}

func TestLate(t *testing.T) {
	const pause = 50 * time.Millisecond
	s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("late=" + pause.String())}
	addr := newServer(t, s)
	start := time.Now()
	rcmd(t, addr, true, "true").accept()
	if took := time.Since(start); took < pause { // it can only be later
		t.Errorf("connected back after %v", took)
	}
}

func TestCallbacks(t *testing.T) {
	start := func(t *testing.T, how string) (*Server, *client) {
		s := &Server{AnyPort: true, Behaviour: MustParseBehaviour("callback=" + how)}
		return s, rcmd(t, newServer(t, s), true, "echo out; echo err >&2")
	}
	t.Run("expired", func(t *testing.T) {
		s, c := start(t, "expired")
		c.main.Close()
		stderr := c.accept()
		if text, _ := rest(stderr); text != "too late\n" {
			t.Errorf("%q", text)
		}
		stderr.Close()
		one(t, s)
	})
	t.Run("expired and the lease is closed", func(t *testing.T) {
		s, c := start(t, "expired")
		c.lease.Close()
		c.main.Close()
		if x := one(t, s); len(x.Callbacks) != 1 || !errors.Is(x.Callbacks[0].Err, syscall.ECONNREFUSED) {
			t.Errorf("%+v", x.Callbacks)
		}
	})
	t.Run("twice", func(t *testing.T) {
		s, c := start(t, "twice")
		first, second := c.accept(), c.accept()
		if text, _ := rest(second); text != "the second connection\n" {
			t.Errorf("second: %q", text)
		}
		if out, errs, _, _ := both(c.main, first); out != "\x00out\n" || errs != "err\n" {
			t.Errorf("%q, %q", out, errs)
		}
		if x := one(t, s); len(x.Callbacks) != 2 || x.Callbacks[0].From == x.Callbacks[1].From {
			t.Errorf("%+v", x.Callbacks)
		}
	})
	t.Run("address", func(t *testing.T) {
		_, c := start(t, "address")
		stderr := c.accept()
		if ip := stderr.RemoteAddr().(*net.TCPAddr).IP.String(); ip != "127.0.1.1" {
			t.Errorf("from %s", ip)
		}
		if out, errs, _, _ := both(c.main, stderr); out != "\x00out\n" || errs != "err\n" {
			t.Errorf("%q, %q", out, errs)
		}
	})
	t.Run("port", func(t *testing.T) {
		s, c := start(t, "port")
		c.expect(c.main, "\x00out\n")
		lease := c.lease.Addr().(*net.TCPAddr).AddrPort()
		c.main.Close()
		if x := one(t, s); len(x.Callbacks) != 1 || x.Callbacks[0].To == lease || x.Callbacks[0].To.Addr() != lease.Addr() {
			t.Errorf("%+v", x.Callbacks)
		}
	})
	t.Run("none", func(t *testing.T) {
		s, c := start(t, "none")
		if out, _ := rest(c.main); out != "\x00out\n" {
			t.Errorf("%q", out)
		}
		if x := one(t, s); len(x.Callbacks) != 0 || x.StderrPort == 0 {
			t.Errorf("%+v", x)
		}
	})
}

// The output of slow goes out in writes of one byte.
func TestSlowIsByteByByte(t *testing.T) {
	s := &Server{}
	s.init()
	var writes [][]byte
	m := &meddler{x: &session{srv: s, b: MustParseBehaviour("slow=0s")}, to: writerFunc(func(p []byte) (int, error) {
		writes = append(writes, bytes.Clone(p))
		return len(p), nil
	})}
	if err := m.run(strings.NewReader("abc\n")); err != nil {
		t.Fatal(err)
	}
	if got := string(bytes.Join(writes, []byte("|"))); got != "a|b|c|\n" {
		t.Errorf("%q", got)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Every behaviour of the list can be parsed by its documented name.
func TestDocs(t *testing.T) {
	for _, d := range Behaviours() {
		name, value, _ := strings.Cut(strings.NewReplacer("[", "", "]", "").Replace(d.Name), "=")
		text := name
		switch value {
		case "":
		case "PHASE":
			text += "=output"
		case "BYTES":
			text += "=10M"
		case "PAUSE", "DURATION":
			text += "=2s"
		case "DAEMON":
			text += "=redone"
		case "HOW":
			text += "=twice"
		case "CHANNEL":
			text += "=stdout"
		default:
			text += "=some text"
		}
		b, err := ParseBehaviour(text)
		if err != nil {
			t.Errorf("%s: %v", d.Name, err)
			continue
		}
		if again, err := ParseBehaviour(b.String()); err != nil || again != b {
			t.Errorf("%s printed as %q: %v", text, b, err)
		}
		if d.Text == "" || strings.Contains(d.Text, "\n") {
			t.Errorf("%s: documentation %q", d.Name, d.Text)
		}
	}
}

func TestParseBehaviourErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                    `no behaviour "": it is one of ok, stall,`,
		"stal":                `no behaviour "stal"`,
		"ok=1":                "behaviour ok takes no value",
		"stall":               "behaviour stall needs a value: accept, callback, handshake, leader, output, trailer, end",
		"stall=lunch":         `behaviour stall="lunch": the value is accept, callback`,
		"huge":                "behaviour huge needs a value: a number of bytes such as 10M",
		"huge=-1":             "the value is a number of bytes such as 4096",
		"huge=":               "the value is a number of bytes",
		"huge=9999999T":       "the value is a number of bytes",
		"huge=99999999G":      "",
		"huge=9999999999999G": "the value is a number of bytes",
		"slow=fast":           "the value is a duration such as 1.5s",
		"slow=-1s":            "the value is a duration such as 1.5s",
		"error=a\nb":          "the value is one line",
		"denied=both":         "the value is redone, netkit",
	} {
		_, err := ParseBehaviour(text)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParseBehaviour(f *testing.F) {
	for _, d := range Behaviours() {
		f.Add(d.Name)
	}
	f.Add("huge=10M")
	f.Add("slow=1.5s")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBehaviour(text)
		if err != nil {
			return
		}
		if again, err := ParseBehaviour(b.String()); err != nil || again != b {
			t.Errorf("%q printed as %q, read back as %q, %v", text, b, again, err)
		}
	})
}

// However the bytes come in, none is lost, and the same ones are markers.
func FuzzPieces(f *testing.F) {
	mine, other := "\x1e"+nonce, "\x1ef"+nonce[1:]
	for _, seed := range []string{
		"", "noise" + lead + "out\n" + trail + "late", other + "-1\n" + lead + other + "-0\n" + other + "+\n" + mine + "-255\nx",
		"abc" + lead + mine + "-\n" + mine + "-1000\n" + mine + "-12", mine + mine + "+\n" + mine[1:] + trail, lead[:20],
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		split := func(r io.Reader) (all []byte, markers []string) {
			err := pieces(r, func(kind piece, data []byte) error {
				all = append(all, data...)
				if kind != output {
					markers = append(markers, string(data))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		all, markers := split(bytes.NewReader(in))
		crumbs, same := split(iotest.OneByteReader(bytes.NewReader(in)))
		if !bytes.Equal(all, in) || !bytes.Equal(crumbs, in) {
			t.Errorf("bytes were lost: %q, %q", all, crumbs)
		}
		if strings.Join(markers, "") != strings.Join(same, "") {
			t.Errorf("markers %q, byte by byte %q", markers, same)
		}
		if len(markers) > 0 && !strings.HasSuffix(markers[0], "+\n") {
			t.Errorf("a trailer before the leader: %q", markers)
		}
	})
}
