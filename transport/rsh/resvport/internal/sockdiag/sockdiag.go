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
	Bound      // bound to a port and neither listening nor connected; shown since Linux 6.8
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

// Socket is one line of the table.
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
}

// Filter says which sockets are wanted. The zero Filter takes them all.
type Filter struct {
	States           []State // none: every state
	MinPort, MaxPort uint16  // local port, both included; MaxPort 0: no upper bound
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

// parse reads a struct inet_diag_msg. Attributes behind it are ignored: none were asked for.
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
