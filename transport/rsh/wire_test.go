package rsh

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"multirsh/transport"
)

func TestRequest(t *testing.T) {
	for _, test := range []struct {
		port uint16
		want string
	}{
		{1013, "1013\x00ann\x00ops\x00uptime; echo \xff\x00"},
		{0, "\x00ann\x00ops\x00uptime; echo \xff\x00"},
	} {
		if got := string(appendRequest(nil, test.port, "ann", "ops", "uptime; echo \xff")); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// What a host answers, and what that is called. An error of reading comes behind the answer where there is one, else end of file.
func TestReadStatus(t *testing.T) {
	other := errors.New("no route to host")
	for _, test := range []struct {
		answer string
		then   error
		rest   string
		kind   error // nil: it is no refusal
		text   string
	}{
		{answer: "\x00"},
		{answer: "\x00out\n\x00\x01", rest: "out\n\x00\x01"},
		{answer: "\x00\x00", rest: "\x00"},

		{answer: "", kind: transport.ErrAuth, text: "closed the connection without an answer"},
		{answer: "", then: syscall.ECONNRESET, kind: transport.ErrAuth, text: "closed the connection without an answer"},
		{answer: "", then: &os.SyscallError{Syscall: "read", Err: syscall.ECONNRESET}, kind: transport.ErrAuth, text: "without an answer"},
		{answer: "", then: other, kind: other, text: "no route"},
		{answer: "", then: os.ErrDeadlineExceeded, kind: os.ErrDeadlineExceeded},

		{answer: "\x01Permission denied.\n", kind: transport.ErrAuth, text: `"Permission denied."`},
		{answer: "\x01rshd: Permission denied.\r\n", kind: transport.ErrAuth, text: `"Permission denied."`},
		{answer: "\x01in.rshd: Login incorrect.", kind: transport.ErrAuth, text: `"Login incorrect."`},
		{answer: "\x01Permission denied.", then: syscall.ECONNRESET, kind: transport.ErrAuth, text: `"Permission denied."`},
		{answer: "\x01getnameinfo: Name or service not known\n", kind: transport.ErrAuth, text: "could not look up a name for our address"},
		{answer: "\x01rshd: Host name for your address (10.0.0.1) unknown.\n", kind: transport.ErrAuth, text: "could not look up a name for our address"},
		{answer: "\x01No remote directory.\n", kind: ErrAccount, text: "it is the user's account"},
		{answer: "\x01rshd: Logins currently disabled.\n", kind: ErrAccount, text: "/etc/nologin"}, // netkit, as it was found
		{answer: "\x01Locuser too long\n", kind: transport.ErrProtocol, text: `the host refused: "Locuser too long"`},
		{answer: "\x01Try again.\nand more\n", kind: transport.ErrProtocol, text: `"Try again."`},
		{answer: "\x01", kind: transport.ErrAuth, text: "gave no reason"},
		{answer: "\x01 \r\n", kind: transport.ErrAuth, text: "gave no reason"},
		{answer: "\x01" + strings.Repeat("x", 1<<20), kind: transport.ErrProtocol, text: strings.Repeat("x", 200) + "…"},

		{answer: "\x02", kind: transport.ErrProtocol, text: `it says "\x02"`},
		{answer: "SSH-2.0-OpenSSH_9.2\r\n", kind: transport.ErrProtocol, text: `it says "SSH-2.0-OpenSSH_9.2"`},
		{answer: "\n", kind: transport.ErrProtocol},
		{answer: strings.Repeat("\xff", 1<<20), kind: transport.ErrProtocol},
	} {
		for name, r := range map[string]io.Reader{
			"at once":      strings.NewReader(test.answer),
			"byte by byte": iotest.OneByteReader(strings.NewReader(test.answer)),
			"with the end": iotest.DataErrReader(strings.NewReader(test.answer)),
		} {
			if test.then != nil {
				if name == "with the end" {
					continue // it would be the end of the first reader alone
				}
				r = io.MultiReader(r, iotest.ErrReader(test.then))
			}
			rest, err := readStatus(r, make([]byte, 512))
			if test.kind == nil {
				if want := test.rest; err != nil || string(rest) != want && (name != "byte by byte" || len(rest) > 0) {
					t.Errorf("%.40q %s: %q, %v, want %q", test.answer, name, rest, err, want)
				}
				continue
			}
			if account := test.kind == ErrAccount; errors.Is(err, ErrAccount) != account || account && !errors.Is(err, transport.ErrAuth) {
				t.Errorf("%.40q %s: %v is about the account: want %v", test.answer, name, err, account)
			}
			if rest != nil || !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%.40q %s: %q, %v, want %v and %q", test.answer, name, rest, err, test.kind, test.text)
			}
		}
	}
}

// What redone says behind a status byte 0, or a login shell that will not.
func TestNotStarted(t *testing.T) {
	for text, kind := range map[string]error{
		"Authentication failure":                   transport.ErrAuth,
		"Permission denied":                        transport.ErrAuth,
		"User account has expired":                 ErrAccount,
		"This account is currently not available.": ErrAccount, // nologin(8)
		"":                           transport.ErrProtocol,
		"sh: 1: IFS: not found":      transport.ErrProtocol,
		strings.Repeat("motd\n", 99): transport.ErrProtocol,
	} {
		err := notStarted(text)
		if !errors.Is(err, kind) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: %v, want %v", text, err, kind)
		}
	}
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// Whatever comes, only a byte 0 is success, then nothing behind it is lost; anything else is a refusal of some kind, told in one short
// line, and no host can make us read for ever.
func FuzzReadStatus(f *testing.F) {
	for _, seed := range []string{
		"", "\x00", "\x00out", "\x01Permission denied.\n", "\x01", "\x01rshd: ", "\x01getnameinfo: x\n", "SSH-2.0-x\r\n", "\x01\n\n", "\xff\xfe\n",
		"\x01" + strings.Repeat("é", 150) + "\n", "\x01\x1b[2J\n",
	} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, answer []byte, size uint8) {
		c := &counter{r: io.MultiReader(bytes.NewReader(answer), bytes.NewReader(bytes.Repeat([]byte("y"), 1<<16)))}
		if len(answer) == 0 {
			c.r = bytes.NewReader(nil)
		}
		rest, err := readStatus(c, make([]byte, int(size)+1))
		if len(answer) > 0 && answer[0] == 0 {
			if err != nil || !bytes.HasPrefix(append(bytes.Clone(answer), bytes.Repeat([]byte("y"), 256)...), append([]byte{0}, rest...)) || c.n != len(rest)+1 {
				t.Fatalf("%q: %q, %v, %d bytes read", answer, rest, err, c.n)
			}
			return
		}
		if rest != nil || err == nil || errors.Is(err, transport.ErrAuth) == errors.Is(err, transport.ErrProtocol) {
			t.Fatalf("%q: %q, %v", answer, rest, err)
		}
		if c.n > maxRefusal+1024 {
			t.Errorf("%d bytes were read", c.n)
		}
		checkMessage(t, err)
	})
}

// The same for the text that comes instead of a command.
func FuzzNotStarted(f *testing.F) {
	f.Add("Authentication failure")
	f.Add("rshd: permission denied\x00\n")
	f.Fuzz(func(t *testing.T, text string) {
		err := notStarted(text)
		if errors.Is(err, transport.ErrAuth) == errors.Is(err, transport.ErrProtocol) {
			t.Fatalf("%q: %v", text, err)
		}
		checkMessage(t, err)
	})
}

func checkMessage(t *testing.T, err error) {
	t.Helper()
	text := fmt.Sprint(err)
	if len(text) > 1200 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("the message is not one short line of text: %q", text)
	}
}
