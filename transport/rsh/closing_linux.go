package rsh

import "golang.org/x/sys/unix"

// isClosed says whether a connection has been reset. A read does not: after the end of file it goes on saying that.
func isClosed(fd uintptr) bool {
	const tcpClose = 7
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	return err != nil || info.State == tcpClose
}
