package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Watch sees how TCP connections end, by their packets. The kernel keeps these until Closings asks for them: a Watch has no
// goroutine, and nothing is late. Its methods are for one goroutine.
type Watch struct {
	fd      int // a packet(7) socket
	lost    uint32
	tracker tracker
}

// WatchClosings watches, from now on, the connections between the control side and all hosts, as the control side sees them.
// The caller must Close the Watch.
func WatchClosings() (*Watch, error) {
	if errHere != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, errHere)
	}
	return watch(bridgeName)
}

// WatchClosings watches, from now on, all that goes over the host's cable: its connections with the control side and with other
// hosts, as they are seen at the cable's far end.
func (h *Host) WatchClosings() (*Watch, error) { return watch(h.cable()) }

// What the kernel keeps for a Watch at most: about 800 bytes for each SYN, FIN and RST, until Closings is called.
const watchBuffer = 64 << 20

func watch(link string) (w *Watch, err error) {
	card, err := net.InterfaceByName(link)
	if err != nil {
		return nil, err
	}
	// Without a protocol it gets nothing before it is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	filter := closingFilter
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer/2), // the kernel doubles it
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: card.Index}))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", link, os.NewSyscallError("packet socket", err))
	}
	return &Watch{fd: fd, tracker: tracker{conns: make(map[ends]*tracked)}}, nil
}

// Closings are the connections that were opened since the Watch began and whose first FIN or RST has been sent, in that order,
// from the beginning each time. A close of ours is among them as soon as it has been made, one of the host's as soon as we can read
// the end of file.
//
// It fails if more packets came than the kernel keeps, those of some 25,000 connections: ask more often then.
func (w *Watch) Closings() ([]Closing, error) {
	packet := make([]byte, packetHeaders)
	for {
		n, err := unix.Read(w.fd, packet)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return nil, os.NewSyscallError("read packets", err)
		}
		if s, ok := parseSegment(packet[:n]); ok {
			w.tracker.see(s)
		}
	}
	stats, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return nil, os.NewSyscallError("packet statistics", err)
	}
	if w.lost += stats.Drops; w.lost > 0 {
		return nil, fmt.Errorf("rig: %d packets were lost: ask for the closings more often", w.lost)
	}
	return w.tracker.closings(), nil
}

// Close ends the watch.
func (w *Watch) Close() error { return unix.Close(w.fd) }

// packetHeaders is enough of a packet for its headers, as those of IPv4 and TCP are 60 bytes at most.
const packetHeaders = 128

// closingFilter lets TCP segments pass that have FIN or RST, or SYN without ACK. It begins to read at the IP header.
var closingFilter = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0}, // version
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x40, Jf: 7},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9}, // IPv4: protocol
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: protocolTCP, Jf: 12},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 6}, // fragment offset
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x1fff, Jt: 10},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0}, // length of the header
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 13}, // TCP's flags
	{Code: unix.BPF_JMP | unix.BPF_JA, K: 4},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x60, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 6}, // IPv6: next header
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: protocolTCP, Jf: 4},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 40 + 13}, // TCP's flags
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: flagFIN | flagRST, Jt: 3},
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: flagSYN | flagACK},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: flagSYN, Jt: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: packetHeaders},
}

// networkOrder is htons(3).
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
