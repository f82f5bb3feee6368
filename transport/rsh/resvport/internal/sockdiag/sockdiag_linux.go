package sockdiag

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// reqBytecode is INET_DIAG_REQ_BYTECODE, the attribute that carries the filter.
const reqBytecode = 1

// Table returns the TCP sockets of this network namespace that f wants, IPv4 before IPv6.
func Table(f Filter) ([]Socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
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
		answers, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   data,
		})
		if err != nil {
			return nil, fmt.Errorf("sockdiag: %w", err)
		}
		for _, m := range answers {
			s, err := parse(m.Data)
			if err != nil {
				return nil, err
			}
			sockets = append(sockets, s)
		}
	}
	return sockets, nil
}
