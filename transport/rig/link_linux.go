package rig

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// links makes and changes links, addresses and routes of this network namespace, as ip(8) does, over rtnetlink(7).
type links struct{ conn *netlink.Conn }

func openLinks() (*links, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	return &links{conn}, nil
}

func (l *links) Close() error { return l.conn.Close() }

// request sends one message, a fixed header and attributes, and returns when the kernel has done it.
func (l *links) request(typ netlink.HeaderType, flags netlink.HeaderFlags, header any, attrs func(*netlink.AttributeEncoder)) error {
	data, err := message(header, attrs)
	if err != nil {
		return err
	}
	_, err = l.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   data,
	})
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

const createNew = netlink.Create | netlink.Excl

// bridge makes a bridge that is up. It does not listen for multicast membership: neighbour discovery must work at once.
func (l *links) bridge(name string) error {
	return l.request(unix.RTM_NEWLINK, createNew, unix.IfInfomsg{Flags: unix.IFF_UP, Change: unix.IFF_UP},
		func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_IFNAME, name)
			ae.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
				info.String(unix.IFLA_INFO_KIND, "bridge")
				info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
					data.Uint8(unix.IFLA_BR_MCAST_SNOOPING, 0)
					return nil
				})
				return nil
			})
		})
}

// cable makes a pair of linked cards: name here, up and a port of the bridge, and eth0 in the namespace of the process pid.
func (l *links) cable(name, bridge string, pid int, mac net.HardwareAddr) error {
	br, err := net.InterfaceByName(bridge)
	if err != nil {
		return err
	}
	return l.request(unix.RTM_NEWLINK, createNew, unix.IfInfomsg{Flags: unix.IFF_UP, Change: unix.IFF_UP},
		func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_IFNAME, name)
			ae.Uint32(unix.IFLA_MASTER, uint32(br.Index))
			ae.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
				info.String(unix.IFLA_INFO_KIND, "veth")
				info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
					const vethInfoPeer = 1 // VETH_INFO_PEER of linux/veth.h: a message of its own
					peer, err := message(unix.IfInfomsg{}, func(ae *netlink.AttributeEncoder) {
						ae.String(unix.IFLA_IFNAME, "eth0")
						ae.Bytes(unix.IFLA_ADDRESS, mac)
						ae.Uint32(unix.IFLA_NET_NS_PID, uint32(pid))
					})
					data.Bytes(vethInfoPeer, peer)
					return err
				})
				return nil
			})
		})
}

// remove takes a link away, and its peer with it. One that is gone already is no error.
func (l *links) remove(name string) error {
	err := l.request(unix.RTM_DELLINK, 0, unix.IfInfomsg{}, func(ae *netlink.AttributeEncoder) { ae.String(unix.IFLA_IFNAME, name) })
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// set turns a link on or off.
func (l *links) set(name string, up bool) error {
	header := unix.IfInfomsg{Change: unix.IFF_UP}
	if up {
		header.Flags = unix.IFF_UP
	}
	return l.request(unix.RTM_NEWLINK, 0, header, func(ae *netlink.AttributeEncoder) { ae.String(unix.IFLA_IFNAME, name) })
}

// address gives a link an address, usable at once: no duplicate address detection.
func (l *links) address(name string, p netip.Prefix) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	return l.request(unix.RTM_NEWADDR, createNew,
		unix.IfAddrmsg{Family: family(p.Addr()), Prefixlen: uint8(p.Bits()), Index: uint32(link.Index)},
		func(ae *netlink.AttributeEncoder) {
			ae.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
			ae.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
			ae.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
		})
}

// route sends a prefix to a gateway, unroute forgets that.
func (l *links) route(p netip.Prefix, via netip.Addr) error {
	return l.request(unix.RTM_NEWROUTE, createNew, gatewayRoute(p), gatewayAttrs(p, via))
}

func (l *links) unroute(p netip.Prefix, via netip.Addr) error {
	return l.request(unix.RTM_DELROUTE, 0, gatewayRoute(p), gatewayAttrs(p, via))
}

func gatewayRoute(p netip.Prefix) unix.RtMsg {
	return unix.RtMsg{Family: family(p.Addr()), Dst_len: uint8(p.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST}
}

func gatewayAttrs(p netip.Prefix, via netip.Addr) func(*netlink.AttributeEncoder) {
	return func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.RTA_DST, p.Addr().AsSlice())
		ae.Bytes(unix.RTA_GATEWAY, via.AsSlice())
	}
}

// own makes every address of a prefix one of this namespace's own.
func (l *links) own(p netip.Prefix) error {
	const lo = 1 // the loopback's index in every namespace
	return l.request(unix.RTM_NEWROUTE, createNew,
		unix.RtMsg{Family: family(p.Addr()), Dst_len: uint8(p.Bits()), Table: unix.RT_TABLE_LOCAL,
			Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_HOST, Type: unix.RTN_LOCAL},
		func(ae *netlink.AttributeEncoder) {
			ae.Bytes(unix.RTA_DST, p.Addr().AsSlice())
			ae.Uint32(unix.RTA_OIF, lo)
		})
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// quickIPv6 lets this namespace use its link-local addresses at once; without it they are "tentative" for a second or two.
// A kernel without IPv6 is no error.
func quickIPv6() error {
	for _, which := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
