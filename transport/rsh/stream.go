package rsh

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"multirsh/transport/shwrap"
)

// What one read takes at most: a session begins with small reads and goes over to large ones while they fill up.
const (
	smallRead = 2 << 10
	largeRead = 64 << 10
)

// The buffers are shared by all sessions and held only while bytes are at hand: thousands of silent sessions cost none.
var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallRead); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeRead); return &b }}
)

// reader reads a connection without holding a buffer while it waits.
type reader struct {
	conn     *net.TCPConn
	raw      syscall.RawConn
	done     chan struct{} // closed when the channel has ended
	patience atomic.Int64  // how long a silence may be, in ns; 0: for ever

	attempt func(fd uintptr) bool
	buffers *sync.Pool // from which buf comes, and the next one
	buf     *[]byte
	n       int // read(2)'s result
	last    int // bytes that the last read with success gave
	err     error
}

func (r *reader) init(conn *net.TCPConn) {
	r.conn = conn
	r.done = make(chan struct{})
	r.raw, r.err = conn.SyscallConn()
	r.attempt = r.once
}

// once is one read(2) as syscall.RawConn wants it: false means to call again when there is something to read.
func (r *reader) once(fd uintptr) bool {
	r.buffers = &smallBuffers
	if r.last >= smallRead {
		r.buffers = &largeBuffers
	}
	r.buf = r.buffers.Get().(*[]byte)
	for {
		r.n, r.err = syscall.Read(int(fd), *r.buf)
		if r.err != syscall.EINTR {
			break
		}
	}
	if r.err == syscall.EAGAIN {
		r.buffers.Put(r.buf)
		return false
	}
	return true
}

// read waits for bytes and feeds them. It returns feed's answer, or an error: io.EOF at the end of file.
func (r *reader) read(feed func([]byte) bool) (more bool, err error) {
	if r.raw == nil {
		return false, r.err
	}
	if err := r.raw.Read(r.attempt); err != nil {
		return false, err
	}
	defer r.buffers.Put(r.buf)
	switch {
	case r.err != nil:
		return false, r.err
	case r.n == 0:
		return false, io.EOF
	}
	r.last = r.n
	return feed((*r.buf)[:r.n]), nil
}

// send brings the script to the host, and the input behind it. What is short goes at once; the rest has a goroutine.
func (s *session) send(wrap *shwrap.Wrapper) {
	preamble := wrap.Preamble()
	const atOnce = 16 << 10 // always fits into the socket's send buffer
	if wrap.Input == 0 && len(preamble) <= atOnce {
		s.main.Write(preamble) // a failure shows where we read
		return
	}
	if wrap.Input > 0 {
		s.input.Store(inputSending)
	}
	s.others.Go(func() {
		if _, err := s.main.Write(preamble); err != nil || wrap.Input == 0 {
			return
		}
		switch err := s.sendInput(); {
		case err != nil:
			s.abandon(err)
		case s.input.CompareAndSwap(inputSending, inputDone):
			s.main.Write(wrap.Go())
		}
	})
}

// sendInput sends the input. Its error is one of reading it; a host that takes no more shows where we read.
func (s *session) sendInput() error {
	buf := largeBuffers.Get().(*[]byte)
	defer largeBuffers.Put(buf)
	input, size := s.cmd.Stdin, s.cmd.Stdin.Size()
	for at := int64(0); at < size; {
		n, err := input.ReadAt((*buf)[:min(largeRead, size-at)], at)
		if n == 0 {
			if err == io.EOF {
				err = errors.New("it is shorter than it was")
			}
			return fmt.Errorf("input: %w", err)
		}
		if _, err := s.main.Write((*buf)[:n]); err != nil {
			return nil
		}
		at += int64(n)
	}
	return nil
}
