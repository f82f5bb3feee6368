//go:build unix

package rshtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"multirsh/transport/testserver"
)

const (
	firstReserved = 512 // rcmd(3): IPPORT_RESERVED/2, and up to IPPORT_RESERVED-1
	lastReserved  = 1023

	userMax       = 256     // bytes of a user's name; both daemons take fewer
	redoneCommand = 1023    // bytes
	netkitCommand = 131_071 // bytes; Linux takes no longer argument in execve(2)
	commandMax    = 1 << 20 // beyond it no daemon reads on

	headerTime = 60 * time.Second // rshd(8) gives up on a slow header after that
)

func reserved(port uint16) bool { return firstReserved <= port && port <= lastReserved }

// session is one connection at work: its transcript and what it holds.
type session struct {
	Session
	srv    *Server
	b      Behaviour
	main   *net.TCPConn
	stderr *net.TCPConn // nil: none
}

var (
	errSilent = errors.New("closed without a word, as rshd does")
	errReset  = errors.New("reset, as rshd does")
)

// serve sees one connection through. It closes c.
func (s *Server) serve(c *net.TCPConn) {
	defer s.core.Leave(c)
	x := &session{srv: s, main: c}
	x.Client, x.Server, x.Exit = testserver.AddrPort(c.RemoteAddr()), testserver.AddrPort(c.LocalAddr()), -1
	x.b = s.behaviour(x.Server)
	x.Behaviour = x.b
	err := x.run()
	if err != nil {
		s.core.Logf("%v: %v", x.Client, err)
	}
	if errors.Is(err, errReset) {
		x.abort()
	}
	x.close()
	s.record(&x.Session)
}

// run is rshd(8)'s doit, with x's behaviour. It leaves what it has not closed to serve; its error says why no command ran.
func (x *session) run() error {
	if !x.srv.AnyPort && !reserved(x.Client.Port()) {
		return fmt.Errorf("the client's port is not in 512..1023: %w", errSilent)
	}
	if x.b.at(PhaseAccept) {
		return x.misbehave()
	}
	x.main.SetReadDeadline(time.Now().Add(headerTime))
	field, err := x.field(len("65535"))
	if err != nil {
		return fmt.Errorf("stderr port: %w", err)
	}
	if field != "" {
		port, err := strconv.ParseUint(field, 10, 16)
		if err != nil {
			return fmt.Errorf("stderr port %q: %w", field, errSilent)
		}
		x.StderrPort = uint16(port)
	}
	if x.b.at(PhaseCallback) {
		return x.misbehave()
	}
	if x.StderrPort != 0 {
		if !x.srv.AnyPort && !reserved(x.StderrPort) {
			return fmt.Errorf("the stderr port %d is not in 512..1023: %w", x.StderrPort, errSilent)
		}
		if err := x.connectBack(); err != nil {
			return fmt.Errorf("stderr channel: %w", err)
		}
	}
	for _, f := range []struct {
		name string
		to   *string
		max  int
	}{{"local user", &x.LocalUser, userMax}, {"remote user", &x.RemoteUser, userMax}, {"command", &x.Command, commandMax}} {
		if *f.to, err = x.field(f.max); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	x.main.SetReadDeadline(time.Time{})
	if x.srv.Daemon == Redone && len(x.Command) > redoneCommand {
		return fmt.Errorf("a command of %d bytes: %w", len(x.Command), errReset)
	}

	switch {
	case x.b.at(PhaseHandshake):
		return x.misbehave()
	case x.b.Kind == errorLine:
		return x.answer("\x01" + x.b.Word + "\n")
	case x.b.Kind == garbage:
		return x.answer("\xfe\x13SSH-2.0-\xff\xff\n\x7f")
	case x.b.Kind == denied && x.b.Word == byNetkit:
		return x.answer("\x01Permission denied.\n")
	case x.b.Kind == denied:
		return x.answer("\x00Authentication failure\n")
	}
	if err := x.answer("\x00"); err != nil {
		return err
	}
	if x.b.at(PhaseLeader) {
		return x.misbehave()
	}
	if x.srv.Daemon == Netkit && len(x.Command) > netkitCommand {
		return x.complain(fmt.Errorf("%s: Argument list too long", x.shell()))
	}
	if x.b.needsRelay() {
		return x.relay()
	}
	return x.exec()
}

// answer writes text on the main channel.
func (x *session) answer(text string) error {
	_, err := io.WriteString(x.main, text)
	return err
}

// complain writes err where the command's standard error goes, as a shell that cannot be started does.
func (x *session) complain(err error) error {
	w := x.main
	if x.stderr != nil {
		w = x.stderr
	}
	io.WriteString(w, err.Error()+"\n")
	return err
}

// field reads up to the next NUL, and not a byte more: what follows may be the command's.
func (x *session) field(limit int) (string, error) {
	raw, err := x.main.SyscallConn()
	if err != nil {
		return "", err
	}
	var field []byte
	buf := make([]byte, min(limit+1, 4096))
	for {
		var n int
		var sysErr error
		err := raw.Read(func(fd uintptr) bool {
			n, _, sysErr = unix.Recvfrom(int(fd), buf, unix.MSG_PEEK)
			return sysErr != unix.EAGAIN && sysErr != unix.EINTR
		})
		if err = errors.Join(err, sysErr); err != nil {
			return "", err
		}
		if n == 0 {
			return "", io.ErrUnexpectedEOF
		}
		end := bytes.IndexByte(buf[:n], 0)
		if end >= 0 {
			n = end + 1
		}
		if _, err := io.ReadFull(x.main, buf[:n]); err != nil {
			return "", err
		}
		if end >= 0 {
			n = end
		}
		if len(field)+n > limit {
			return "", fmt.Errorf("more than %d bytes: %w", limit, errSilent)
		}
		field = append(field, buf[:n]...)
		if end >= 0 {
			return string(field), nil
		}
	}
}

// connectBack makes the stderr channel, as x's behaviour has it.
func (x *session) connectBack() error {
	local, to := x.Server.Addr(), netip.AddrPortFrom(x.Client.Addr(), x.StderrPort)
	how := x.b.Word
	if x.b.Kind == late {
		if !x.srv.core.Pause(x.b.Pause) {
			return net.ErrClosed
		}
	}
	if x.b.Kind != callback {
		how = ""
	}
	anyPort := x.srv.AnyPort
	switch how {
	case cbNone:
		return nil
	case cbExpired:
		x.End = testserver.WaitGone(x.main)
		if x.srv.core.Context().Err() != nil {
			return net.ErrClosed
		}
	case cbAddress:
		a, err := otherLoopback(local)
		if err != nil {
			return err
		}
		local = a
	case cbUnreserved:
		anyPort = true
	case cbPort:
		if port := x.StderrPort + 1; port <= lastReserved || x.srv.AnyPort && port != 0 {
			to = netip.AddrPortFrom(to.Addr(), port)
		} else {
			to = netip.AddrPortFrom(to.Addr(), x.StderrPort-1)
		}
	}
	c, err := x.dialBack(local, to, anyPort)
	switch how {
	case cbExpired:
		if err == nil {
			io.WriteString(c, "too late\n")
			x.finish(c)
		}
		return errors.New("the client has given up")
	case cbPort:
		if err == nil {
			x.stderr = c
		}
		return nil // as if it were the right one
	case cbTwice:
		if err == nil {
			if second, err := x.dialBack(local, to, anyPort); err == nil {
				defer x.srv.core.Disown(second)
				io.WriteString(second, "the second connection\n")
				second.Close()
			}
		}
	}
	x.stderr = c
	return err
}

// dialBack connects and writes down how that went.
func (x *session) dialBack(local netip.Addr, to netip.AddrPort, anyPort bool) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(x.srv.core.Context(), headerTime)
	defer cancel()
	c, from, err := dialFrom(ctx, local, to, anyPort)
	x.Callbacks = append(x.Callbacks, Callback{From: from, To: to, Err: err})
	if err == nil && !x.srv.core.Own(c) {
		return nil, net.ErrClosed
	}
	if err == nil && x.srv.SharedPorts {
		err = keepNothing(c)
	}
	return c, err
}

// nextPort rotates over the reserved ports for all servers of this process, so that a port comes again as late as can be.
var nextPort atomic.Uint32

func init() { nextPort.Store(rand.Uint32()) }

// dialFrom connects from local, as rresvport(3) from a reserved port: SO_REUSEADDR and an explicit bind let one port serve many
// connections, and where the very same pair of addresses is in use, or somebody listens, the next port is taken.
func dialFrom(ctx context.Context, local netip.Addr, to netip.AddrPort, anyPort bool) (*net.TCPConn, netip.AddrPort, error) {
	const ports = lastReserved - firstReserved + 1
	for try := 1; ; try++ {
		from := netip.AddrPortFrom(local, 0)
		if !anyPort {
			from = netip.AddrPortFrom(local, uint16(firstReserved+nextPort.Add(1)%ports))
		}
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: reuseAddr}
		c, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil {
			return c.(*net.TCPConn), testserver.AddrPort(c.LocalAddr()), nil
		}
		taken := errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
		if anyPort || !taken || try == ports {
			return nil, from, err
		}
	}
}

func reuseAddr(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}), err)
}

// otherLoopback is another address of the same machine, which only 127.0.0.0/8 is sure to have.
func otherLoopback(a netip.Addr) (netip.Addr, error) {
	if !a.Is4() || !a.IsLoopback() {
		return a, fmt.Errorf("%v: another address is known only for 127.0.0.0/8", a)
	}
	b := a.As4()
	b[2] ^= 1
	return netip.AddrFrom4(b), nil
}

// misbehave does what x's behaviour does, its phase being reached.
func (x *session) misbehave() error {
	switch x.b.Kind {
	case stall:
		x.End = testserver.WaitGone(x.main)
		x.abort()
	case reset:
		x.abort()
	case closes:
		if x.b.at(PhaseEnd) {
			x.shut() // first, and whatever the client does
			return nil
		}
		x.close()
	}
	return nil
}

// close ends both channels so that the client gets all that was sent; twice is harmless.
func (x *session) close() {
	x.letGo()
	for _, c := range []*net.TCPConn{x.main, x.stderr} {
		if c != nil {
			c.CloseWrite()
		}
	}
	if x.stderr != nil {
		x.finish(x.stderr)
		x.stderr = nil
	}
	if x.main != nil {
		if err := x.finish(x.main); x.End == nil {
			x.End = err
		}
		x.main = nil
	}
}

// letGo ends the stderr channel where reserved ports are shared. There is no waiting for the client: its FIN, were it to come before our
// close, would bring TIME_WAIT.
func (x *session) letGo() {
	if x.stderr == nil || !x.srv.SharedPorts {
		return
	}
	if raw, err := x.stderr.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { // what has come and nobody read would make the close a reset, and the client lose output
			buf := make([]byte, 512)
			for {
				if n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); n <= 0 && err != unix.EINTR {
					return
				}
			}
		})
	}
	x.stderr.Close()
	x.srv.core.Disown(x.stderr)
	x.stderr = nil
}

// finish shuts c down, waits for the client's end of file with a deadline, and closes. A close with bytes unread would be a
// reset, at which the client would lose what it has not yet read.
func (x *session) finish(c *net.TCPConn) error {
	defer x.srv.core.Disown(c)
	defer c.Close()
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(cmp.Or(x.srv.Patience, 10*time.Second)))
	_, err := io.Copy(io.Discard, c)
	if err == nil {
		return io.EOF
	}
	return err
}

// shut closes both channels at once.
func (x *session) shut() {
	for _, c := range []*net.TCPConn{x.main, x.stderr} {
		if c != nil {
			c.Close()
			x.srv.core.Disown(c)
		}
	}
	x.main, x.stderr = nil, nil
}

// abort resets both channels.
func (x *session) abort() {
	for _, c := range []*net.TCPConn{x.main, x.stderr} {
		if c != nil {
			c.SetLinger(0)
		}
	}
	x.shut()
}
