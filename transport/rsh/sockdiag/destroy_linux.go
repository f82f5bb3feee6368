package sockdiag

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// CanDestroy says what keeps this process from destroying sockets, as far as that can be told without destroying one.
func CanDestroy() error {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("sockdiag: %w", err)
	}
	defer conn.Close()
	return canDestroy(conn)
}

func canDestroy(conn *netlink.Conn) error {
	// The kernel looks for the socket first and at the capability then: a socket that cannot exist tells what the kernel was built
	// with and no more.
	if err := destroy(conn, Socket{}); !errors.Is(err, ErrGone) {
		return err
	}
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return ErrNotPermitted
	}
	return nil
}

// Destroy ends each of the sockets, as Table has returned them: SOCK_DESTROY of sock_diag(7), which is what ss -K does. A connection's peer is
// told by a reset, and the process that holds it gets ECONNABORTED from its next call; a socket in TIME-WAIT just vanishes. If one
// of them has been followed by another on the same addresses since Table was called, that one is left alone.
//
// each is called after each socket, with nil when it has been ended; its own answer says whether to go on.
func Destroy(sockets []Socket, each func(s Socket, err error) bool) error {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("sockdiag: %w", err)
	}
	defer conn.Close()
	for _, s := range sockets {
		if !each(s, destroy(conn, s)) {
			break
		}
	}
	return nil
}

// destroy ends one socket. The zero Socket is none.
func destroy(conn *netlink.Conn, s Socket) error {
	req := request(afInet, Filter{})
	if s.IPv6 {
		req[0] = afInet6
	}
	sockID(req, s)
	_, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DESTROY, Flags: netlink.Request | netlink.Acknowledge},
		Data:   req,
	})
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE):
		return ErrGone
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return ErrNotPermitted
	case errors.Is(err, unix.EOPNOTSUPP) && s == Socket{}:
		return ErrNoDestroy
	case errors.Is(err, unix.EOPNOTSUPP):
		if err := destroy(conn, Socket{}); errors.Is(err, ErrNoDestroy) {
			return err
		}
		return ErrNotThis
	case err != nil:
		return fmt.Errorf("sockdiag: %w", err)
	}
	return nil
}
