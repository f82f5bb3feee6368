package closing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"multirsh/transport/rsh/sockdiag"
)

// end is one of two machines: a network namespace, and the thread that is in it.
type end struct {
	name  string
	addr  netip.Addr
	mac   net.HardwareAddr
	card  int // its index
	peer  *end
	work  chan func()
	links *netlink.Conn
}

// newEnd makes a namespace, or says why there can be none.
func newEnd(t testing.TB, name string, addr string, mac byte) (*end, error) {
	e := &end{name: name, addr: netip.MustParseAddr(addr), mac: net.HardwareAddr{2, 0, 0, 0, 0, mac}, work: make(chan func())}
	ready := make(chan error)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread() // and never unlocked: the thread, and with it the namespace, ends with this function
		err := unix.Unshare(unix.CLONE_NEWNET)
		ready <- err
		for f := range e.work {
			f()
		}
	}()
	t.Cleanup(func() {
		close(e.work)
		<-gone
	})
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("a network namespace cannot be made here (run as root): %w", err)
	}
	return e, nil
}

// do has the end's thread do something: whatever opens a socket or a file of this namespace.
func (e *end) do(f func() error) error {
	done := make(chan error)
	e.work <- func() { done <- f() }
	return <-done
}

// sysctl sets a setting of this namespace alone.
func (e *end) sysctl(name, value string) error {
	return e.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0) })
}

// cardName is that of both ends' cards.
const cardName = "eth0"

// cable joins two ends, each with one card and knowing the other's address without asking. Nobody answers who asks for an address,
// so that an entry that is taken away holds the packets back: see gate.
func cable(here, there *end) error {
	here.peer, there.peer = there, here
	err := here.do(func() (err error) {
		here.links, err = netlink.Dial(unix.NETLINK_ROUTE, nil)
		return err
	})
	if err != nil {
		return err
	}
	var tid int
	err = there.do(func() (err error) {
		tid = unix.Gettid()
		there.links, err = netlink.Dial(unix.NETLINK_ROUTE, nil)
		return err
	})
	if err != nil {
		return err
	}
	card := func(e *end) func(*netlink.AttributeEncoder) {
		return func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_IFNAME, cardName)
			ae.Bytes(unix.IFLA_ADDRESS, e.mac)
		}
	}
	err = here.link(unix.RTM_NEWLINK, unix.IfInfomsg{}, func(ae *netlink.AttributeEncoder) {
		card(here)(ae)
		ae.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
			info.String(unix.IFLA_INFO_KIND, "veth")
			info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
				const vethInfoPeer = 1 // VETH_INFO_PEER of linux/veth.h: a message of its own
				peer, err := message(unix.IfInfomsg{}, func(ae *netlink.AttributeEncoder) {
					card(there)(ae)
					ae.Uint32(unix.IFLA_NET_NS_PID, uint32(tid)) // a thread's will do
				})
				data.Bytes(vethInfoPeer, peer)
				return err
			})
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	for _, e := range []*end{here, there} {
		err := e.do(func() error {
			c, err := net.InterfaceByName(cardName)
			if err == nil {
				e.card = c.Index
			}
			return err
		})
		if err != nil {
			return err
		}
		for name, value := range map[string]string{
			"conf/" + cardName + "/arp_ignore":     "8",
			"neigh/" + cardName + "/mcast_solicit": "1000", // one a second
		} {
			if err := e.sysctl(name, value); err != nil {
				return err
			}
		}
		up := unix.IfInfomsg{Index: int32(e.card), Flags: unix.IFF_UP, Change: unix.IFF_UP}
		if err := e.link(unix.RTM_NEWLINK, up, nil); err != nil {
			return err
		}
	}
	for _, e := range []*end{here, there} {
		if err := e.alias(e.addr); err != nil {
			return err
		}
	}
	return nil
}

// alias gives the end an address, and the peer the way there.
func (e *end) alias(addr netip.Addr) error {
	header := unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: 24, Index: uint32(e.card)}
	err := e.link(unix.RTM_NEWADDR, header, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.IFA_LOCAL, addr.AsSlice())
		ae.Bytes(unix.IFA_ADDRESS, addr.AsSlice())
	})
	if err != nil {
		return fmt.Errorf("the address %v: %w", addr, err)
	}
	return e.peer.neighbour(unix.RTM_NEWNEIGH, addr, e.mac)
}

// link sends the kernel one request about this end's network and returns when that has been done.
func (e *end) link(typ netlink.HeaderType, header any, attrs func(*netlink.AttributeEncoder)) error {
	data, err := message(header, attrs)
	if err != nil {
		return err
	}
	flags := netlink.Request | netlink.Acknowledge
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_NEWADDR, unix.RTM_NEWROUTE:
		flags |= netlink.Create
	case unix.RTM_NEWNEIGH:
		flags |= netlink.Create | netlink.Replace
	}
	_, err = e.links.Execute(netlink.Message{Header: netlink.Header{Type: typ, Flags: flags}, Data: data})
	return err
}

func message(header any, attrs func(*netlink.AttributeEncoder)) ([]byte, error) {
	data, err := binary.Append(nil, binary.NativeEndian, header)
	if err != nil {
		return nil, err
	}
	ae := netlink.NewAttributeEncoder()
	if attrs != nil {
		attrs(ae)
	}
	b, err := ae.Encode()
	return append(data, b...), err
}

// gate says what happens to packets that leave an end.
type gate int

const (
	open gate = iota // they arrive
	hold             // they wait, in their order, until it is another
	lose             // they go to a card that nobody has
)

func (e *end) gate(g gate) error {
	switch g {
	case hold:
		return e.neighbour(unix.RTM_DELNEIGH, e.peer.addr, nil)
	case lose:
		return e.neighbour(unix.RTM_NEWNEIGH, e.peer.addr, net.HardwareAddr{2, 0, 0, 0, 0, 99})
	}
	return e.neighbour(unix.RTM_NEWNEIGH, e.peer.addr, e.peer.mac)
}

// neighbour sets or forgets the card that has an address.
func (e *end) neighbour(typ netlink.HeaderType, addr netip.Addr, mac net.HardwareAddr) error {
	header := unix.NdMsg{Family: unix.AF_INET, Ifindex: int32(e.card), State: unix.NUD_PERMANENT}
	err := e.link(typ, header, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_DST, addr.AsSlice())
		if mac != nil {
			ae.Bytes(unix.NDA_LLADDR, mac)
		}
	})
	if err != nil {
		return fmt.Errorf("the neighbour %v: %w", addr, err)
	}
	return nil
}

// slowly makes this end wait for an acknowledgement so long before it sends anything again.
func (e *end) slowly(d time.Duration) error {
	return e.link(unix.RTM_NEWROUTE, unix.RtMsg{Family: unix.AF_INET, Dst_len: 32, Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST},
		func(ae *netlink.AttributeEncoder) {
			ae.Bytes(unix.RTA_DST, e.peer.addr.AsSlice())
			ae.Uint32(unix.RTA_OIF, uint32(e.card))
			ae.Nested(unix.RTA_METRICS, func(m *netlink.AttributeEncoder) error {
				m.Uint32(unix.RTAX_LOCK, 1<<unix.RTAX_RTO_MIN) // without it the kernel's own lower bound holds
				m.Uint32(unix.RTAX_RTO_MIN, uint32(d.Milliseconds()))
				return nil
			})
		})
}

// sock is a socket, bound to no goroutine and no poller: each call goes to the kernel, and gives up after patience.
type sock struct {
	t   testing.TB
	end *end
	fd  int // -1: closed
}

// patience is when a wait for the kernel is called a hang.
const patience = 15 * time.Second

func (e *end) socket(t testing.TB) *sock {
	t.Helper()
	s := &sock{t: t, end: e}
	err := e.do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	s.check(unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	s.check(unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
	t.Cleanup(func() { s.drop() })
	return s
}

func (s *sock) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// drop closes the descriptor if it is still open.
func (s *sock) drop() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

func (s *sock) close() string {
	fd := s.fd
	s.fd = -1
	s.check(unix.Close(fd))
	return ""
}

func (s *sock) set(level, name, value int) {
	s.t.Helper()
	s.check(unix.SetsockoptInt(s.fd, level, name, value))
}

func (s *sock) linger(seconds int32) {
	s.t.Helper()
	s.check(unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: seconds}))
}

func (s *sock) reuse() { s.set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }

func (s *sock) bind(port int) error {
	return unix.Bind(s.fd, &unix.SockaddrInet4{Port: port, Addr: s.end.addr.As4()})
}

// retry makes a system call until no signal has ended it.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func (s *sock) connect(port int) error { return s.connectTo(s.end.peer.addr, port) }

func (s *sock) connectTo(addr netip.Addr, port int) error {
	err := unix.Connect(s.fd, &unix.SockaddrInet4{Port: port, Addr: addr.As4()})
	if err == unix.EINTR { // it goes on by itself
		p := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
		retry(func() error { _, err := unix.Poll(p, int(patience.Milliseconds())); return err })
		code, _ := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err = nil; code != 0 {
			err = unix.Errno(code)
		}
	}
	return err
}

func (s *sock) listen(backlog int) { s.t.Helper(); s.check(unix.Listen(s.fd, backlog)) }

func (s *sock) accept() *sock {
	s.t.Helper()
	a := &sock{t: s.t, end: s.end}
	s.check(retry(func() (err error) { a.fd, _, err = unix.Accept4(s.fd, unix.SOCK_CLOEXEC); return err }))
	s.t.Cleanup(func() { a.drop() })
	return a
}

// read and write say what the process is told.
func (s *sock) read() string {
	var n int
	err := retry(func() (err error) { n, err = unix.Read(s.fd, make([]byte, 100)); return err })
	switch {
	case err != nil:
		return "read: " + told(err)
	case n == 0:
		return "read: end of file"
	}
	return fmt.Sprintf("read: %d bytes", n)
}

func (s *sock) write(n int) string {
	err := retry(func() error { _, err := unix.SendmsgN(s.fd, make([]byte, n), nil, nil, unix.MSG_NOSIGNAL); return err })
	if err != nil {
		return "write: " + told(err)
	}
	return ""
}

// shut is shutdown(2) for writing: the half-close.
func (s *sock) shut() string { s.t.Helper(); s.check(unix.Shutdown(s.fd, unix.SHUT_WR)); return "" }

// told is an error by its name.
func told(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// drops lets nothing more come in on the socket but, if fins, what has a FIN.
func (s *sock) drops(fins bool) {
	s.t.Helper()
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if fins { // the filter of a TCP socket sees the TCP header first
		filter = []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
			{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: flagFIN, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		}
	}
	s.check(unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}))
}

func (s *sock) takes() {
	s.t.Helper()
	s.check(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
}

// process gives the socket to a process of its own, and returns what kills that with SIGKILL and waits for its end.
func (s *sock) process() (kill func() string) {
	s.t.Helper()
	file := os.NewFile(uintptr(s.fd), "socket")
	s.fd = -1
	defer file.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.Stdin = file
	s.check(cmd.Start())
	dead := false
	kill = func() string {
		if !dead {
			dead = true
			cmd.Process.Kill()
			cmd.Wait()
		}
		return ""
	}
	s.t.Cleanup(func() { kill() })
	return kill
}

// vanish takes the socket out of the kernel without a word to the peer, as a power cut does (TCP_REPAIR).
func (s *sock) vanish() string {
	s.t.Helper()
	s.set(unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
	return s.close()
}

// table is the end's TCP sockets.
func (e *end) table() (sockets []sockdiag.Socket, err error) {
	err = e.do(func() (err error) {
		sockets, err = sockdiag.Table(sockdiag.Filter{})
		return err
	})
	return sockets, err
}
