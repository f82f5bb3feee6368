package sockdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// reqBytecode is INET_DIAG_REQ_BYTECODE, the attribute that carries the filter.
const reqBytecode = 1

// Table returns the TCP sockets of this network namespace that f wants, IPv4 before IPv6. Where the kernel does not answer (one
// without CONFIG_INET_DIAG, or a sandbox without netlink) it reads /proc/net, which knows less, as Socket says.
func Table(f Filter) ([]Socket, error) {
	sockets, err := diagTable(f)
	if err == nil {
		return sockets, nil
	}
	sockets, other := procTable(f)
	if other != nil {
		return nil, errors.Join(err, other)
	}
	return sockets, nil
}

// datagram is the largest that the kernel sends of a dump; it does so once it has seen a buffer of this size, and 20,000 sockets then
// are 77 of them. Asking for each one's size first, as the library does by itself, takes twice as long.
const datagram = 32 << 10

func diagTable(f Filter) ([]Socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{MessageBufferSize: datagram})
	if err != nil {
		return nil, fmt.Errorf("sockdiag: %w", err)
	}
	defer conn.Close()
	return dump(conn, f)
}

func dump(conn *netlink.Conn, f Filter) ([]Socket, error) {
	var sockets []Socket
	for _, family := range []uint8{afInet, afInet6} {
		data := request(family, f)
		if code := f.bytecode(); code != nil {
			attr, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: reqBytecode, Data: code}})
			if err != nil {
				return nil, fmt.Errorf("sockdiag: %w", err)
			}
			data = append(data, attr...)
		}
		_, err := conn.Send(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   data,
		})
		if err != nil {
			return nil, fmt.Errorf("sockdiag: %w", err)
		}
		for m, err := range conn.ReceiveIter() {
			if err != nil {
				return nil, fmt.Errorf("sockdiag: %w", err)
			}
			s, err := parse(m.Data)
			if err != nil {
				return nil, err
			}
			if f.has(s.Local.Port()) { // a socket that lets go of its port meanwhile passes the kernel's filter, and comes without one
				sockets = append(sockets, s)
			}
		}
	}
	return sockets, nil
}

// procTable reads the table of the calling thread's network namespace, as netlink does.
func procTable(f Filter) ([]Socket, error) {
	var all []Socket
	for _, name := range []string{"tcp", "tcp6"} {
		file, err := os.Open("/proc/thread-self/net/" + name)
		if name == "tcp6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("sockdiag: %w", err)
		}
		sockets, err := parseProc(file, f)
		file.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, sockets...)
	}
	return all, nil
}
