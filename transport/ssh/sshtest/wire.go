//go:build unix

package sshtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"multirsh/transport/testserver"
)

// wire is the TCP connection under the library, which it lets neither close nor wait as it likes: Close sends our end of file and
// no more, so that finish can wait for the client's, and a frozen wire moves nothing.
type wire struct {
	*net.TCPConn
	stop context.Context // the server's

	frozen   atomic.Bool
	holdOpen bool          // neverclose
	over     chan struct{} // closed: the client has ended, or we have
	ended    sync.Once     // of over
	shut     sync.Once     // of our end

	ahead []byte // read and not yet given to the library

	mu    sync.Mutex
	first Side
	end   error // how the client's side ended
}

func newWire(c *net.TCPConn, stop context.Context) *wire {
	return &wire{TCPConn: c, stop: stop, over: make(chan struct{})}
}

// Read is TCPConn's for the library, which reads the client's version byte by byte: that is not worth a system call each.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.ahead) == 0 && len(p) == 1 {
		b := make([]byte, 256)
		n, err := w.read(b)
		if err != nil {
			return 0, err
		}
		w.ahead = b[:n]
	}
	if len(w.ahead) > 0 {
		n := copy(p, w.ahead)
		w.ahead = w.ahead[n:]
		return n, nil
	}
	return w.read(p)
}

func (w *wire) read(p []byte) (int, error) {
	n, err := w.TCPConn.Read(p)
	if err != nil {
		w.saw(err)
	}
	if w.frozen.Load() {
		<-w.over
		return 0, net.ErrClosed
	}
	return n, err
}

// saw takes note of the error of a read: the client's end, unless it is ours.
func (w *wire) saw(err error) {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	w.mu.Lock()
	if w.end == nil {
		w.end = err
	}
	if w.first == "" {
		w.first = ClientSide
	}
	w.mu.Unlock()
	if !w.frozen.Load() {
		w.finished()
	}
}

func (w *wire) finished() { w.ended.Do(func() { close(w.over) }) }

// Write is TCPConn's for the library.
func (w *wire) Write(p []byte) (int, error) {
	if w.frozen.Load() {
		<-w.over
		return 0, net.ErrClosed
	}
	return w.TCPConn.Write(p)
}

// Close sends our end of file, writes down who was first, and has the library's read return.
func (w *wire) Close() error {
	w.shut.Do(func() {
		defer w.finished()
		defer w.SetReadDeadline(time.Unix(1, 0))
		if w.holdOpen {
			return
		}
		// The client's end of file may be there unread, or come in this very moment: ask before and after.
		clientFirst := clientEnded(w.TCPConn)
		w.CloseWrite()
		clientFirst = clientFirst || answered(w.TCPConn)
		w.mu.Lock()
		switch {
		case w.first != "":
		case clientFirst:
			w.first = ClientSide
		default:
			w.first = ServerSide
		}
		w.mu.Unlock()
	})
	return nil
}

// finish sees the connection to its end after Close: it waits for the client's end of file with a deadline, for a close with bytes
// unread would be a reset, at which the client would lose what it has not yet read. When it returns, nothing is left.
func (w *wire) finish(patience time.Duration) {
	w.Close()
	if w.holdOpen {
		<-w.stop.Done()
		w.Abort()
		return
	}
	w.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, w.TCPConn)
	if err == nil {
		err = io.EOF
	}
	w.saw(err)
	w.TCPConn.Close()
}

// Abort resets the connection.
func (w *wire) Abort() {
	w.shut.Do(func() {
		w.mu.Lock()
		if w.first == "" {
			w.first = ServerSide
		}
		w.mu.Unlock()
	})
	w.SetLinger(0)
	w.TCPConn.Close()
	w.finished()
}

// freeze moves nothing any more, in either direction, until the client has closed or reset; then it resets.
func (w *wire) freeze() {
	w.frozen.Store(true)
	w.SetReadDeadline(time.Unix(1, 0))    // the library's read returns, and stays in ours
	w.saw(testserver.WaitGone(w.TCPConn)) // not before the library's read has returned
	w.Abort()
}

// say writes a line past the library.
func (w *wire) say(line string) error {
	_, err := io.WriteString(w.TCPConn, line+"\r\n")
	return err
}
