package rsh

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"multirsh/transport"
)

// DefaultPort is the service "shell" (514/tcp).
const DefaultPort = 514

// appendRequest appends what rcmd(3) sends after connecting: the port on which we await the stderr channel in ASCII (nothing:
// stderr comes on the main channel), our user's name, the user's name on the host and the command, each ended by a NUL.
func appendRequest(b []byte, stderr uint16, localUser, remoteUser, command string) []byte {
	if stderr != 0 {
		b = strconv.AppendUint(b, uint64(stderr), 10)
	}
	b = append(b, 0)
	for _, field := range []string{localUser, remoteUser, command} {
		b = append(b, field...)
		b = append(b, 0)
	}
	return b
}

// maxRefusal bounds the line in which a host says why it refuses.
const maxRefusal = 4096

// Some of the ways in which a host does not authorise us ([transport.ErrAuth], to errors.Is).
var (
	ErrHungUp  = fmt.Errorf("closed without an answer: %w", transport.ErrAuth)         // the host has not said why
	ErrNoName  = fmt.Errorf("no name for the client's address: %w", transport.ErrAuth) // the host has not found one for ours
	ErrAccount = fmt.Errorf("no account to run it: %w", transport.ErrAuth)             // whoever we are, the user's account there does not let anybody in
)

// What a host may mean that ends the connection instead of answering.
const (
	saysNothing = "the host closed the connection without an answer: it could not look up a name for our address (add it to the host's /etc/hosts), or its hosts.allow, hosts.equiv or .rhosts does not admit us"
	cannotName  = "the host could not look up a name for our address: add it to the host's /etc/hosts, or see why its DNS does not answer"
)

// readStatus reads rshd(8)'s answer: a byte 0, or 1 and a line of text. The bytes that follow a 0 in the same read are the
// beginning of the session and are returned. The error has the kind that errors.Is asks for.
func readStatus(r io.Reader, buf []byte) (rest []byte, err error) {
	n, err := r.Read(buf)
	if n == 0 {
		if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
			return nil, &plainError{saysNothing, ErrHungUp}
		}
		return nil, err
	}
	switch buf[0] {
	case 0:
		return buf[1:n], nil
	case 1:
		return nil, refusal(readLine(r, buf[1:n]))
	}
	return nil, &plainError{fmt.Sprintf("this is no rsh server: it says %q", abbreviate(readLine(r, buf[:n]))), transport.ErrProtocol}
}

// readLine reads on behind got until a newline, the end or maxRefusal bytes.
func readLine(r io.Reader, got []byte) string {
	line := bytes.Clone(got)
	var more [512]byte
	for len(line) < maxRefusal && bytes.IndexByte(line, '\n') < 0 {
		n, err := r.Read(more[:])
		line = append(line, more[:n]...)
		if err != nil {
			break
		}
	}
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	return strings.TrimRight(string(line), "\r\n")
}

// refusal makes an error of the line with which a host refuses.
func refusal(line string) error {
	text := strings.TrimSpace(line)
	// netkit names itself: "rshd: Permission denied."
	if i := strings.Index(text, "rshd: "); i >= 0 {
		text = text[i+len("rshd: "):]
	}
	lower := strings.ToLower(text)
	switch {
	case strings.Contains(lower, "getnameinfo"), strings.Contains(lower, "host name for your address"):
		return &plainError{fmt.Sprintf("%s (it says %q)", cannotName, abbreviate(text)), ErrNoName}
	case deniesAccount(lower):
		return &plainError{fmt.Sprintf("the host says %q: it is the user's account there that does not let us in, or /etc/nologin", abbreviate(text)), ErrAccount}
	case deniesLogin(lower):
		return &plainError{fmt.Sprintf("the host says %q: its hosts.equiv or the user's .rhosts must name our host and user, and belong to that user alone", abbreviate(text)), transport.ErrAuth}
	case text == "":
		return &plainError{"the host refused and gave no reason", transport.ErrAuth}
	}
	return &plainError{fmt.Sprintf("the host refused: %q", abbreviate(text)), transport.ErrProtocol}
}

// deniesLogin tells the ways in which rshds and PAM refuse a login. rsh-redone says so behind a status byte 0, as output.
func deniesLogin(lower string) bool {
	return deniesAccount(lower) || containsAny(lower, "permission denied", "authentication failure", "login incorrect", "authentication service cannot",
		"not allowed", "not authorized")
}

// deniesAccount tells those that are about the user's account on the host, and not about who we are.
func deniesAccount(lower string) bool {
	return containsAny(lower, "account expired", "account has expired", "password expired", "password has expired", "user not known", "unknown user",
		"logins not available", "logins currently disabled", "account is currently not available", "no remote directory")
}

func containsAny(text string, phrases ...string) bool {
	return slices.ContainsFunc(phrases, func(phrase string) bool { return strings.Contains(text, phrase) })
}

// plainError is an error in words for the user; what errors.Is and errors.As find is in err.
type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

// explain puts the failure to reach a host in words, with the mend where there is one.
func explain(err error, to netip.AddrPort) error {
	text := ""
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		text = fmt.Sprintf("nobody listens on port %d of %v: is an rshd running there?", to.Port(), to.Addr())
	case errors.Is(err, syscall.EHOSTUNREACH):
		text = fmt.Sprintf("no way to %v: the host is down, or a router or firewall on the way says so", to.Addr())
	case errors.Is(err, syscall.ENETUNREACH):
		text = fmt.Sprintf("no route to %v from here", to.Addr())
	case errors.Is(err, syscall.ETIMEDOUT):
		text = fmt.Sprintf("%v does not answer", to.Addr())
	case errors.Is(err, syscall.ECONNRESET):
		text = fmt.Sprintf("%v has reset the connection at once", to.Addr())
	case errors.Is(err, syscall.EINVAL) && to.Addr().Zone() != "":
		text = fmt.Sprintf("%v cannot be reached: is there an interface %q here?", to.Addr(), to.Addr().Zone())
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		text = "too many open files here: raise the limit (ulimit -n) or lower --fanout"
	default:
		return err
	}
	return &plainError{text, err}
}

// abbreviate keeps a text that a host sent short enough for an error message.
func abbreviate(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
