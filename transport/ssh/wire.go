package ssh

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"multirsh/transport"
)

// wire is the connection below the protocol: what it says of itself decides who closes first, what a failure means and whether
// another try is harmless. It may be read by one goroutine at a time.
type wire struct {
	net.Conn
	tcp *net.TCPConn // to take the linger off; nil: no TCP of ours (a channel of a jump host, a ProxyCommand)

	trace  transport.Trace // nil: nobody wants to know
	phase  atomic.Int32    // index into phases
	ended  atomic.Bool     // the server's end of file was read: it has closed first
	reset  atomic.Bool     // it was closed before that
	taken  atomic.Bool     // from the library, by takeBack
	greet  []byte          // what came before the version line; at most maxGreeting
	closed sync.Once
	err    error // of Close
}

// phases in the order in which a connection goes through them.
var phases = [...]transport.Phase{transport.PhaseVersion, transport.PhaseKeyExchange, transport.PhaseAuth, transport.PhaseStart}

const (
	inVersion = iota // the version exchange, RFC 4253 section 4.2
	inKeyExchange
	inAuth
	inStart
)

// maxGreeting is how much a server may say before its version line. The library gives up long before.
const maxGreeting = 1 << 10

func newWire(conn net.Conn) *wire {
	tcp, _ := conn.(*net.TCPConn)
	return &wire{Conn: conn, tcp: tcp}
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.taken.Load() {
		return 0, net.ErrClosed
	}
	if n > 0 && w.phase.Load() == inVersion {
		w.listen(p[:n])
	}
	if err == io.EOF {
		w.ended.Store(true)
	}
	return n, err
}

// listen keeps what a server says until its version line is whole.
func (w *wire) listen(p []byte) {
	w.greet = append(w.greet, p[:min(len(p), maxGreeting-len(w.greet))]...)
	if line, _, found := bytes.Cut(afterBanner(w.greet), []byte("\n")); found && isVersion(line) {
		w.phase.Store(inKeyExchange)
		w.greet = nil
		if w.trace != nil {
			w.trace.Pass(transport.PhaseVersion, abbreviate(strings.TrimSpace(string(bytes.ToValidUTF8(line, []byte("?"))))))
		}
	}
}

// afterBanner skips the lines that come before a version line.
func afterBanner(p []byte) []byte {
	for !isVersion(p) {
		_, rest, found := bytes.Cut(p, []byte("\n"))
		if !found {
			return nil
		}
		p = rest
	}
	return p
}

func isVersion(line []byte) bool { return bytes.HasPrefix(line, []byte("SSH-")) }

// takeBack ends the protocol on the connection, but not the connection: for the library it is closed, and everything that waits for it
// is told so at once.
func (w *wire) takeBack() {
	w.taken.Store(true)
	w.Conn.SetReadDeadline(time.Unix(1, 0))
}

// awaitEnd reads what still comes, for closeTimeout at most, and closes. The library reads no more.
func (w *wire) awaitEnd(deadline time.Time) {
	w.Conn.SetReadDeadline(deadline)
	if _, err := io.Copy(io.Discard, w.Conn); err == nil {
		w.ended.Store(true)
	}
	w.close()
}

// Close is the library's close.
func (w *wire) Close() error {
	if w.taken.Load() {
		return nil
	}
	return w.close()
}

// close closes plainly if the server has closed first; else the linger that stands from the dial on makes it a reset.
func (w *wire) close() error {
	w.closed.Do(func() {
		if !w.ended.Load() {
			w.reset.Store(true)
		} else if w.tcp != nil {
			w.tcp.SetLinger(-1)
		}
		w.err = w.Conn.Close()
	})
	return w.err
}

// isGone says whether an error is the other side's closing or a reset.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || isReset(err)
}
