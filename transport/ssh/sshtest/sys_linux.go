package sshtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollGone is the event of a peer that has shut down its side.
const pollGone = unix.POLLRDHUP

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

// pidfdProcessGroup is PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), Linux 6.9.
const pidfdProcessGroup = 1 << 2

// group is the process group of a command. It outlives the command when that leaves children behind, and then the number may in
// time come to name another group; a pidfd never does.
type group struct {
	id    int
	pidfd int // -1: the kernel has none
	ended bool
}

func newGroup(attr *syscall.SysProcAttr) *group {
	g := &group{pidfd: -1}
	attr.PidFD = &g.pidfd
	return g
}

// kill sends sig to all members, and returns ESRCH when there are none. Signal 0 only asks.
func (g *group) kill(sig syscall.Signal) error {
	if g.pidfd >= 0 {
		if err := unix.PidfdSendSignal(g.pidfd, sig, nil, pidfdProcessGroup); err != unix.EINVAL {
			return err
		}
		// The kernel is older than the flag.
	}
	return unix.Kill(-g.id, sig)
}

func (g *group) gone() bool { return g.kill(0) == unix.ESRCH }

// dead reports whether a group that was killed has no member left. One that waits for init to take note of its death, as it may
// for seconds, is none.
func (g *group) dead() bool {
	if g.gone() {
		return true
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has just gone
		}
		// proc(5): pid (name) state ppid pgrp; the name may hold anything.
		var state string
		var ppid, pgrp int
		_, err = fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), &state, &ppid, &pgrp)
		if err == nil && pgrp == g.id && state != "Z" && state != "X" {
			return false
		}
	}
	return true
}

func (g *group) release() {
	if g.pidfd >= 0 {
		unix.Close(g.pidfd)
		g.pidfd = -1
	}
}

// openPty opens a pseudo-terminal, see pty(7).
func openPty(size Size) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	var number int
	err = control(master, func(fd int) error {
		var err error
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, resize(master, size)
}

// resize tells a terminal its size.
func resize(master *os.File, size Size) error {
	return control(master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Rows), Col: uint16(size.Columns)})
	})
}

func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}
