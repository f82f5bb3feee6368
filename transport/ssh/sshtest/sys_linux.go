package sshtest

import (
	"net"

	"golang.org/x/sys/unix"
)

// The states of tcp_states.h that matter here.
const (
	tcpCloseWait = 8
	tcpLastAck   = 9
)

// clientEnded reports whether the client's end of file has come to c, read or not.
func clientEnded(c *net.TCPConn) bool { return tcpState(c) == tcpCloseWait }

// answered reports whether the end of file that we have just sent on c was an answer to the client's.
func answered(c *net.TCPConn) bool { return tcpState(c) == tcpLastAck }

func tcpState(c *net.TCPConn) (state uint8) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return state
}
