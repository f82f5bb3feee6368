package ssh

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/ssh/auth"
)

// wrapped is an error with a text of its own for another.
type wrapped struct {
	text string
	err  error
}

func (e *wrapped) Error() string { return e.text }
func (e *wrapped) Unwrap() error { return e.err }

// droppedError is a server that closed the connection before it had said its version: it was never in a session, so another try is
// harmless. It is wrapped as unreachable because that is what it was.
type droppedError struct {
	err   error
	tries int
}

func (e *droppedError) Error() string {
	times := "once"
	if e.tries > 1 {
		times = fmt.Sprintf("%d times", e.tries)
	}
	return fmt.Sprintf("the server drops the connection before its version line, tried %s; sshd does so when too many come at once (MaxStartups), and from 9.8 on to a client that it penalises for a while (PerSourcePenalties): fewer at once, or a quarter of a minute later", times)
}

func (e *droppedError) Unwrap() error { return syscall.EHOSTUNREACH }

// ErrNoCommon is a server that knows none of the algorithms that we offer for something. It is a [transport.ErrProtocol].
var ErrNoCommon = fmt.Errorf("no algorithm in common: %w", transport.ErrProtocol)

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// explain says in one sentence why a connection did not come to a login.
func explain(ctx context.Context, err error, w *wire, attempt *auth.Attempt) error {
	failed := attempt.Failed(err) // whatever it was, the attempt is over
	if cause := context.Cause(ctx); cause != nil {
		text := cause.Error()
		if waited := failed.Error(); failed != err && strings.Contains(waited, text) {
			text = waited
		} else if failed != err {
			text += "; " + waited
		}
		return &wrapped{text, cause}
	}
	if key := (*hostKeyError)(nil); errors.As(err, &key) {
		return key
	}
	if none := (*ssh.AlgorithmNegotiationError)(nil); errors.As(err, &none) {
		return &wrapped{fmt.Sprintf("no %s in common: the server offers %s, we offer %s; --legacy adds what old servers need",
			none.What, list(none.RequestedAlgorithms), list(none.SupportedAlgorithms)), ErrNoCommon}
	}
	switch w.phase.Load() {
	case inVersion:
		if _, proxied := w.Conn.(*proxyConn); proxied && len(w.greet) == 0 && isGone(err) {
			return &wrapped{"the ProxyCommand ended before a version line came", syscall.EHOSTUNREACH}
		}
		return notSSH(err, w.greet)
	case inKeyExchange:
		if errors.Is(err, rsa.ErrVerification) || strings.Contains(err.Error(), "signature did not verify") {
			return &hostKeyError{errors.New("the server does not prove that it has the host key that it shows: someone may be in between")}
		}
		return &wrapped{fmt.Sprintf("the key exchange failed: %s", bare(err)), transport.ErrProtocol}
	}
	return &authError{failed}
}

// authError is a host that does not let us in.
type authError struct{ err error }

func (e *authError) Error() string   { return e.err.Error() }
func (e *authError) Unwrap() []error { return []error{transport.ErrAuth, e.err} }

// notSSH is a server that has not come to its version line; it said greet.
func notSSH(err error, greet []byte) error {
	text := strings.TrimSpace(string(bytes.ToValidUTF8(greet, []byte("?"))))
	switch {
	case text == "" && isGone(err), text == "Exceeded MaxStartups", text == "Not allowed at this time":
		return &droppedError{err: err}
	case text == "":
		return fmt.Errorf("no version line came: %s", bare(err))
	case isVersion([]byte(text)):
		return &wrapped{fmt.Sprintf("the server says %q and no more; this program speaks SSH 2.0", abbreviate(text)), transport.ErrProtocol}
	}
	return &wrapped{fmt.Sprintf("the server says %q where an SSH version line belongs: another service on this port, or a server that turns us away", abbreviate(text)), transport.ErrProtocol}
}

// bare is an error's text without what package ssh says around it.
func bare(err error) string {
	text := err.Error()
	for _, prefix := range []string{"ssh: handshake failed: ", "ssh: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if isGone(err) {
		return "the server closed the connection"
	}
	return text
}

func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ",")
}

// abbreviate cuts a text of a host to what fits into a message.
func abbreviate(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
