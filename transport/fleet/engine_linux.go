package fleet

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"multirsh/transport/rsh/rshtest"
	"multirsh/transport/shwrap"
)

// engine is the fast path: one goroutine and epoll(7), for a server that shares its processors with the client it measures. Each
// connection goes through its states as far as the bytes that are there carry it:
//
//	port ─► (connecting) ─► header ─► preamble ─► input ─► (held) ─► sending ─► closed
//	                          └───────────── a bare command ──────────►┘
type engine struct {
	fleet    *Fleet
	epoll    int
	listener int
	wake     int     // an eventfd: stop
	conns    []*conn // by descriptor, of either channel
	buf      []byte  // for what one connection has sent
	scratch  []byte  // for what one is sent
	port     int     // the reserved port that the last connection back was made from
	held     []*conn // in the order in which their time comes
}

type state uint8

const (
	inPort       state = iota // waiting for the stderr port
	inConnecting              // for the connection back
	inHeader                  // for users and command
	inPreamble                // for a wrapped command's preamble
	inInput                   // for its input
	inHold                    // for its time to end
	inSending                 // for room to send the rest
	closed
)

// conn is one connection. Its bytes are kept only while they are incomplete.
type conn struct {
	main, stderr  int // descriptors; stderr -1: none
	state         state
	polled        bool // epoll knows main
	local, client [4]byte
	in            []byte          // come and not yet used
	input         int64           // bytes of input still to come
	wrap          *shwrap.Wrapper // nil: a bare command
	out           [3][]byte       // still to be sent on main
	until         time.Time       // of inHold
}

func newEngine(f *Fleet, l *net.TCPListener) (*engine, error) {
	e := &engine{
		fleet: f, epoll: -1, listener: -1, wake: -1,
		buf: make([]byte, 64<<10), scratch: make([]byte, 0, 16<<10), port: lastReserved,
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	raw.Control(func(fd uintptr) { e.listener, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		e.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	}
	if err == nil {
		e.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil {
		err = e.poll(unix.EPOLL_CTL_ADD, e.listener, unix.EPOLLIN)
	}
	if err == nil {
		err = e.poll(unix.EPOLL_CTL_ADD, e.wake, unix.EPOLLIN)
	}
	if err != nil {
		e.closeOwn()
		return nil, os.NewSyscallError("fast fleet", err)
	}
	return e, nil
}

func (e *engine) closeOwn() {
	for _, fd := range []int{e.listener, e.epoll, e.wake} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (e *engine) poll(op, fd int, events uint32) error {
	return unix.EpollCtl(e.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// stop makes run end. It must be called once.
func (e *engine) stop() {
	unix.Write(e.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

// run serves until stop, and closes all.
func (e *engine) run() {
	defer e.closeOwn()
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(e.epoll, events, e.timeout())
		if err != nil && err != unix.EINTR {
			panic("epoll_wait: " + err.Error()) // a descriptor of ours was closed behind our back
		}
		for _, event := range events[:max(n, 0)] {
			fd := int(event.Fd)
			switch fd {
			case e.listener:
				e.accept()
				continue
			case e.wake:
				for _, c := range e.conns {
					if c != nil && c.state != closed { // one that is connecting is there twice
						unix.SetsockoptLinger(c.main, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
						e.close(c)
					}
				}
				return
			}
			// The descriptor may have been closed, even used anew, since the kernel wrote the event: all that follows bears that.
			c := e.conns[fd]
			switch {
			case c == nil:
			case fd == c.stderr:
				e.connected(c)
			case c.state == inSending && event.Events&unix.EPOLLOUT != 0:
				e.send(c)
			default:
				e.read(c)
			}
		}
		e.release()
	}
}

// timeout is the time until the first held connection is due, in milliseconds as epoll_wait(2) has it.
func (e *engine) timeout() int {
	if len(e.held) == 0 {
		return -1
	}
	return int(max(0, (time.Until(e.held[0].until)+time.Millisecond-1)/time.Millisecond))
}

// release ends the held commands whose time has come.
func (e *engine) release() {
	for len(e.held) > 0 {
		c := e.held[0]
		if c.state == inHold {
			if time.Now().Before(c.until) {
				return
			}
			e.finish(c, 0)
		}
		e.held[0] = nil
		e.held = e.held[1:]
	}
}

func (e *engine) accept() {
	for range 128 {
		fd, from, err := unix.Accept4(e.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EMFILE || err == unix.ENFILE {
			time.Sleep(time.Millisecond) // rather than spin until a connection ends
		}
		if err != nil {
			return
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			unix.Close(fd)
			continue
		}
		client, local := from.(*unix.SockaddrInet4), name.(*unix.SockaddrInet4)
		addr := netip.AddrFrom4(local.Addr)
		host := Number(addr)
		if !e.fleet.admit(host, uint16(client.Port)) {
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
			continue
		}
		if e.fleet.Shares.Of(host, e.fleet.Seed) != (rshtest.Behaviour{}) {
			e.handOver(fd)
			continue
		}
		c := &conn{main: fd, stderr: -1, local: local.Addr, client: client.Addr}
		e.watch(fd, c)
		e.read(c)
	}
}

// watch enters c for a descriptor.
func (e *engine) watch(fd int, c *conn) {
	for fd >= len(e.conns) {
		e.conns = append(e.conns, make([]*conn, max(1024, len(e.conns)))...)
	}
	e.conns[fd] = c
}

// handOver has the real server serve a connection.
func (e *engine) handOver(fd int) {
	f := os.NewFile(uintptr(fd), "connection")
	c, err := net.FileConn(f) // a copy
	f.Close()
	if err != nil {
		e.fleet.leave()
		return
	}
	e.fleet.wg.Go(func() { e.fleet.serve(c.(*net.TCPConn)) })
}

// read takes what c's client has sent as far as it goes.
func (e *engine) read(c *conn) {
	kept := copy(e.buf, c.in)
	n, err := unix.Read(c.main, e.buf[kept:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		if !c.polled {
			e.await(c)
		}
		return
	case err != nil || n == 0 && c.state != inSending:
		e.close(c) // the client has gone
		return
	case n == 0:
		e.poll(unix.EPOLL_CTL_MOD, c.main, unix.EPOLLOUT) // and yet it may read on
		return
	}
	rest := e.step(c, e.buf[:kept+n])
	if len(rest) > keepMax {
		e.close(c)
	}
	if c.state == closed {
		return
	}
	c.in = append(c.in[:0:0], rest...) // nil when nothing is kept
	if free := len(e.buf) - len(c.in); free < 16<<10 {
		e.buf = make([]byte, 2*len(e.buf))
	}
	if !c.polled {
		e.await(c)
	}
}

// await has epoll tell when c's client sends.
func (e *engine) await(c *conn) {
	c.polled = true
	if e.poll(unix.EPOLL_CTL_ADD, c.main, unix.EPOLLIN) != nil {
		e.close(c)
	}
}

// step takes c through its states as far as data carries it, and returns what is left of that.
func (e *engine) step(c *conn, data []byte) []byte {
	for {
		switch c.state {
		case inPort:
			end := bytes.IndexByte(data, 0)
			if end > len("65535") || end < 0 && len(data) > len("65535") {
				e.close(c)
				return nil
			}
			if end < 0 {
				return data
			}
			var port uint64
			if end > 0 {
				var err error
				port, err = strconv.ParseUint(string(data[:end]), 10, 16)
				if err != nil || port > 0 && !e.fleet.Server.AnyPort && !reserved(uint16(port)) {
					e.close(c)
					return nil
				}
			}
			data = data[end+1:]
			c.state = inHeader
			if port > 0 {
				e.connectBack(c, int(port))
			}
		case inHeader:
			command, n := cutHeader(data)
			if n == 0 {
				return data
			}
			if string(command) != shwrap.Bootstrap {
				e.finish(c, 0)
				return nil
			}
			data = data[n:]
			c.state = inPreamble
			if _, err := unix.Write(c.main, zero); err != nil {
				e.close(c)
			}
		case inPreamble:
			end := bytes.IndexByte(data, '\n')
			if end < 0 {
				return data
			}
			w, err := shwrap.Decode(data[:end])
			if err != nil {
				e.close(c)
				return nil
			}
			data = data[end+1:]
			c.wrap, c.input = w, w.Input+int64(len(w.Go()))
			c.state = inInput
		case inInput:
			n := min(c.input, int64(len(data)))
			data = data[n:]
			if c.input -= n; c.input > 0 {
				return nil
			}
			if e.fleet.Hold == 0 {
				e.finish(c, 0)
				return nil
			}
			e.hold(c)
		case inHold:
			if len(data) > 0 { // a stop, as all that comes now
				e.finish(c, 128+int(unix.SIGTERM))
			}
			return nil
		case inSending, closed:
			return nil
		case inConnecting:
			return data
		}
	}
}

var zero = []byte{0}

// cutHeader finds the command behind the two users and how long all of it is; 0 when it is not whole.
func cutHeader(b []byte) (command []byte, n int) {
	for range 2 {
		end := bytes.IndexByte(b[n:], 0)
		if end < 0 {
			return nil, 0
		}
		n += end + 1
	}
	end := bytes.IndexByte(b[n:], 0)
	if end < 0 {
		return nil, 0
	}
	return b[n : n+end], n + end + 1
}

// connectBack makes the stderr channel from the host's own address and a reserved port, and leaves c in inConnecting when that
// takes a moment. Every host has all ports for itself, so one serves them all until it is taken, by a listener or for the very
// same pair of addresses. That keeps the others free for the client, which is on the same machine and may not know how to share.
func (e *engine) connectBack(c *conn, port int) {
	to := &unix.SockaddrInet4{Port: port, Addr: c.client}
	for range lastReserved - firstReserved + 1 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			break
		}
		from := &unix.SockaddrInet4{Addr: c.local}
		if !e.fleet.Server.AnyPort {
			from.Port = e.port
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if err = unix.Bind(fd, from); err == nil {
			err = unix.Connect(fd, to)
		}
		if err == unix.EINPROGRESS {
			// On loopback the answer is there by now, unless the client's queue is full.
			err = unix.Connect(fd, to)
		}
		switch err {
		case nil, unix.EISCONN:
			c.stderr = fd
			return
		case unix.EALREADY, unix.EINPROGRESS:
			c.stderr, c.state = fd, inConnecting
			e.watch(fd, c)
			if e.poll(unix.EPOLL_CTL_ADD, fd, unix.EPOLLOUT) != nil {
				e.close(c)
			}
			return
		}
		unix.Close(fd)
		if err != unix.EADDRINUSE && err != unix.EADDRNOTAVAIL || e.fleet.Server.AnyPort {
			break
		}
		if e.port--; e.port < firstReserved {
			e.port = lastReserved
		}
	}
	e.close(c)
}

// connected goes on once the connection back is there, or has failed.
func (e *engine) connected(c *conn) {
	if code, err := unix.GetsockoptInt(c.stderr, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		e.close(c)
		return
	}
	e.poll(unix.EPOLL_CTL_DEL, c.stderr, 0)
	e.conns[c.stderr] = nil
	c.state = inHeader
	in := e.step(c, e.buf[:copy(e.buf, c.in)])
	if c.state != closed {
		c.in = append(c.in[:0:0], in...)
	}
}

// hold sends the leaders and leaves the rest for later.
func (e *engine) hold(c *conn) {
	leader := c.wrap.Leader()
	if c.stderr >= 0 {
		unix.Write(c.stderr, leader)
	}
	if _, err := unix.Write(c.main, leader); err != nil {
		e.close(c)
		return
	}
	c.state = inHold
	c.until = time.Now().Add(e.fleet.Hold)
	e.held = append(e.held, c)
}

// finish sends all that is to be sent and closes.
func (e *engine) finish(c *conn, status int) {
	if c.wrap == nil {
		c.out[0], c.out[1] = zero, e.fleet.Output
	} else {
		trailer := c.wrap.Trailer(status)
		if c.state != inHold {
			c.out[0] = c.wrap.Leader()
		}
		if c.stderr >= 0 {
			e.scratch = append(append(e.scratch[:0], c.out[0]...), trailer...)
			unix.SendmsgN(c.stderr, e.scratch, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		}
		if status == 0 {
			c.out[1] = e.fleet.Output
		}
		c.out[2] = trailer
	}
	if c.stderr >= 0 {
		// As with SharedPorts of rshtest: else the port would stay in TIME_WAIT for a minute, as it does on a real host, but here it is the client's too.
		unix.SetsockoptInt(c.stderr, unix.IPPROTO_TCP, unix.TCP_LINGER2, -1)
		unix.Close(c.stderr) // which sends what MSG_MORE has kept, with the FIN in the same packet
		c.stderr = -1
	}
	e.send(c)
}

// send sends what c is still to be sent, and closes when that is all of it.
func (e *engine) send(c *conn) {
	size := len(c.out[0]) + len(c.out[1]) + len(c.out[2])
	var n int
	var err error
	if size <= cap(e.scratch) {
		e.scratch = append(append(append(e.scratch[:0], c.out[0]...), c.out[1]...), c.out[2]...)
		n, err = unix.SendmsgN(c.main, e.scratch, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
	} else {
		n, err = unix.Writev(c.main, c.out[:])
	}
	if err == unix.EAGAIN || err == unix.EINTR {
		n, err = 0, nil
	}
	if err != nil || n == size {
		e.close(c)
		return
	}
	for i, part := range c.out {
		used := min(n, len(part))
		c.out[i] = part[used:]
		n -= used
	}
	if c.state != inSending {
		c.state = inSending
		op := unix.EPOLL_CTL_MOD
		if !c.polled {
			op, c.polled = unix.EPOLL_CTL_ADD, true
		}
		if e.poll(op, c.main, unix.EPOLLIN|unix.EPOLLOUT) != nil {
			e.close(c)
		}
	}
}

// close ends c. Closed descriptors leave epoll by themselves.
func (e *engine) close(c *conn) {
	if c.state == closed {
		return
	}
	c.state = closed
	e.conns[c.main] = nil
	unix.Close(c.main)
	if c.stderr >= 0 {
		if c.stderr < len(e.conns) && e.conns[c.stderr] == c {
			e.conns[c.stderr] = nil
		}
		unix.Close(c.stderr)
		c.stderr = -1
	}
	e.fleet.leave()
}
