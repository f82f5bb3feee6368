package testserver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollGone is the event of a peer that has shut down its side.
const pollGone = unix.POLLRDHUP

// pidfdProcessGroup is PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), Linux 6.9.
const pidfdProcessGroup = 1 << 2

// group is the process group of a command. It outlives the command when that leaves children behind, and then the number may in
// time come to name another group; a pidfd never does.
type group struct {
	id    int
	pidfd int // -1: the kernel has none
}

// watch has the process that is to be started with attr give its pidfd.
func (g *group) watch(attr *syscall.SysProcAttr) {
	g.pidfd = -1
	attr.PidFD = &g.pidfd
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

// livingGroups tells which of the groups, all of them killed, still have a member. One that waits for init to take note of its
// death, as it may for seconds, is none.
func livingGroups(groups map[*Process]struct{}) map[int]bool {
	living := make(map[int]bool)
	for g := range groups {
		if !g.gone() {
			living[g.id] = true
		}
	}
	if len(living) == 0 {
		return nil
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return living
	}
	found := make(map[int]bool)
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has just gone
		}
		// proc(5): pid (name) state ppid pgrp; the name may hold anything.
		var state string
		var ppid, pgrp int
		_, err = fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), &state, &ppid, &pgrp)
		if err == nil && living[pgrp] && state != "Z" && state != "X" {
			found[pgrp] = true
		}
	}
	return found
}

func (g *group) release() {
	if g.pidfd >= 0 {
		unix.Close(g.pidfd)
		g.pidfd = -1
	}
}
