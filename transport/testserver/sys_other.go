//go:build unix && !linux

package testserver

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// pollGone is the event of a peer that has shut down its side: with no other name for it, that of any byte, which makes a stall
// end as soon as the client has sent something.
const pollGone = unix.POLLHUP

// group is the process group of a command.
type group struct{ id int }

func (g *group) watch(*syscall.SysProcAttr) {}

// kill sends sig to all members, and returns ESRCH when there are none. Signal 0 only asks.
func (g *group) kill(sig syscall.Signal) error { return unix.Kill(-g.id, sig) }

// livingGroups tells which of the groups, all of them killed, still have a member.
func livingGroups(groups map[*Process]struct{}) map[int]bool {
	living := make(map[int]bool)
	for g := range groups {
		living[g.id] = !g.gone()
	}
	return living
}

func (g *group) release() {}
