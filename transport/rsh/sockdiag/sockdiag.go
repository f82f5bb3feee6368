package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// State is where a socket is in TCP's state machine (RFC 9293, section 3.3.2), with the kernel's numbers.
type State uint8

// The states, as in include/net/tcp_states.h.
const (
	Established State = 1 + iota
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Closed
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv // a connection request that has no socket of its own yet
	Bound      // bound to a port and neither listening nor connected, not yet or no more; shown since Linux 6.8
)

var stateNames = [...]string{
	Established: "ESTABLISHED", SynSent: "SYN-SENT", SynRecv: "SYN-RECEIVED", FinWait1: "FIN-WAIT-1", FinWait2: "FIN-WAIT-2",
	TimeWait: "TIME-WAIT", Closed: "CLOSED", CloseWait: "CLOSE-WAIT", LastAck: "LAST-ACK", Listen: "LISTEN", Closing: "CLOSING",
	NewSynRecv: "SYN-RECEIVED", Bound: "BOUND",
}

// String is the name in RFC 9293.
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Timer says what the socket's running timer is for.
type Timer uint8

// The timers, as in tcp_diag.
const (
	NoTimer Timer = iota
	Retransmit
	Keepalive
	TimeWaitTimer
	ZeroWindow
)

// String is ss(8)'s word for the timer.
func (t Timer) String() string {
	switch t {
	case NoTimer:
		return "off"
	case Retransmit:
		return "on"
	case Keepalive:
		return "keepalive"
	case TimeWaitTimer:
		return "timewait"
	case ZeroWindow:
		return "persist"
	}
	return fmt.Sprintf("timer %d", uint8(t))
}

// Socket is one line of the table. What is read from /proc/net has no Interface, no Cookie and no Quiet, its times are exact to
// 10 ms, and sockets in the state Bound are not there.
type Socket struct {
	State     State
	IPv6      bool           // an AF_INET6 socket, whatever its addresses: IPv4 over it is shown as IPv4
	Local     netip.AddrPort // without zone: Interface has it
	Remote    netip.AddrPort // all zero for a socket that is not connected
	Interface uint32         // index of the interface that the socket is bound to, 0 for none
	UID       uint32         // who made it; 0 in TIME-WAIT
	Inode     uint32         // as in /proc/PID/fd; 0 once no process holds it
	Timer     Timer
	Expires   time.Duration // until the timer fires
	Cookie    uint64        // the kernel's own name for the socket, never used again; 0: not known
	Quiet     time.Duration // how long no data has gone out or come in, and nothing been acknowledged; with Filter.Quiet, and 0 in TIME-WAIT
}

// Filter says which sockets are wanted, and what of them. The zero Filter takes them all.
type Filter struct {
	States           []State // none: every state
	MinPort, MaxPort uint16  // local port, both included; MaxPort 0: no upper bound
	Quiet            bool    // fill in Socket.Quiet; the kernel's answer is four times as long
}

// wants says whether the filter takes s, as the kernel would.
func (f Filter) wants(s Socket) bool {
	return f.states()&(1<<s.State) != 0 && f.has(s.Local.Port())
}

// has says whether a local port is wanted.
func (f Filter) has(port uint16) bool {
	return port >= f.MinPort && (f.MaxPort == 0 || port <= f.MaxPort)
}

func (f Filter) states() (bits uint32) {
	if len(f.States) == 0 {
		return ^uint32(0)
	}
	for _, s := range f.States {
		bits |= 1 << s
	}
	return bits
}

// Sizes in linux/inet_diag.h.
const (
	requestLen = 56 // struct inet_diag_req_v2
	messageLen = 72 // struct inet_diag_msg
)

// The attribute behind a message that holds a struct tcp_info, and where in linux/tcp.h that has the milliseconds since the last
// data went out, data came in, and an acknowledgement came in.
const (
	attrInfo        = 2 // INET_DIAG_INFO
	infoLastDataOut = 44
	infoLastDataIn  = 52
	infoLastAckIn   = 56
	infoLen         = 60
)

// Address families and the protocol, which are the same numbers on the wire wherever this is compiled.
const (
	afInet     = 2
	afInet6    = 10
	ipprotoTCP = 6
)

// request is a struct inet_diag_req_v2 that asks for one address family.
func request(family uint8, f Filter) []byte {
	b := make([]byte, requestLen)
	b[0], b[1] = family, ipprotoTCP
	if f.Quiet {
		b[2] = 1 << (attrInfo - 1)
	}
	binary.NativeEndian.PutUint32(b[4:], f.states())
	return b
}

// Operations of the filter's bytecode, linux/inet_diag.h.
const (
	opSourceGE = 2
	opSourceLE = 3
)

// bytecode is a program for the kernel's little filter machine, or nil if every port is wanted. An operation is a code, how
// far to jump if it holds and how far if not; the port follows in an operation of its own. Jumping to just behind the
// end accepts the socket, and four bytes further refuses it.
func (f Filter) bytecode() (b []byte) {
	add := func(code uint8, port uint16, left int) {
		b = append(b, code, 8)
		b = binary.NativeEndian.AppendUint16(b, uint16(left+4))
		b = append(b, 0, 0)
		b = binary.NativeEndian.AppendUint16(b, port)
	}
	switch {
	case f.MinPort > 0 && f.MaxPort > 0:
		add(opSourceGE, f.MinPort, 16)
		add(opSourceLE, f.MaxPort, 8)
	case f.MinPort > 0:
		add(opSourceGE, f.MinPort, 8)
	case f.MaxPort > 0:
		add(opSourceLE, f.MaxPort, 8)
	}
	return b
}

var errShort = errors.New("sockdiag: the kernel's answer is shorter than a struct inet_diag_msg")

// parse reads a struct inet_diag_msg, and of the attributes behind it the struct tcp_info.
func parse(b []byte) (Socket, error) {
	if len(b) < messageLen {
		return Socket{}, errShort
	}
	s := Socket{
		State:     State(b[1]),
		Timer:     Timer(b[2]),
		Interface: binary.NativeEndian.Uint32(b[40:]),
		Expires:   time.Duration(binary.NativeEndian.Uint32(b[52:])) * time.Millisecond,
		UID:       binary.NativeEndian.Uint32(b[64:]),
		Inode:     binary.NativeEndian.Uint32(b[68:]),
		Cookie:    binary.NativeEndian.Uint64(b[44:]),
		Quiet:     quiet(b[messageLen:]),
	}
	if s.State == Closed {
		s.State = Bound // what is closed and not bound is not in the table
	}
	var local, remote netip.Addr
	switch b[0] {
	case afInet:
		local, remote = netip.AddrFrom4([4]byte(b[8:])), netip.AddrFrom4([4]byte(b[24:]))
	case afInet6:
		s.IPv6 = true
		local, remote = netip.AddrFrom16([16]byte(b[8:])).Unmap(), netip.AddrFrom16([16]byte(b[24:])).Unmap()
	default:
		return Socket{}, fmt.Errorf("sockdiag: address family %d in the kernel's answer", b[0])
	}
	s.Local = netip.AddrPortFrom(local, binary.BigEndian.Uint16(b[4:]))
	s.Remote = netip.AddrPortFrom(remote, binary.BigEndian.Uint16(b[6:]))
	return s, nil
}

// quiet finds the struct tcp_info among attributes, netlink(7). An attribute is its length, its type, and the value, and begins
// at a multiple of four bytes.
func quiet(attrs []byte) time.Duration {
	const header = 4
	for len(attrs) >= header {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < header || size > len(attrs) {
			return 0
		}
		if value := attrs[header:size]; binary.NativeEndian.Uint16(attrs[2:]) == attrInfo && len(value) >= infoLen {
			least := min(binary.NativeEndian.Uint32(value[infoLastDataOut:]), binary.NativeEndian.Uint32(value[infoLastDataIn:]),
				binary.NativeEndian.Uint32(value[infoLastAckIn:]))
			return time.Duration(least) * time.Millisecond
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return 0
}

// sockID writes the struct inet_diag_sockid of s into a request, so that it means this socket and no later one on the same ports.
func sockID(request []byte, s Socket) {
	family := addressOf(s)
	binary.BigEndian.PutUint16(request[8:], s.Local.Port())
	binary.BigEndian.PutUint16(request[10:], s.Remote.Port())
	copy(request[12:28], family(s.Local.Addr()))
	copy(request[28:44], family(s.Remote.Addr()))
	binary.NativeEndian.PutUint32(request[44:], s.Interface)
	cookie := s.Cookie
	if cookie == 0 {
		cookie = ^uint64(0) // INET_DIAG_NOCOOKIE
	}
	binary.NativeEndian.PutUint64(request[48:], cookie)
}

// addressOf returns how an address of s is written: in an AF_INET6 socket IPv4 is mapped.
func addressOf(s Socket) func(netip.Addr) []byte {
	if s.IPv6 {
		return func(a netip.Addr) []byte { b := a.As16(); return b[:] }
	}
	return netip.Addr.AsSlice
}
