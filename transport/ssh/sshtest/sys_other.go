//go:build unix && !linux

package sshtest

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollGone is the event of a peer that has shut down its side: with no other name for it, that of any byte, which makes a stall
// end as soon as the client has sent something.
const pollGone = unix.POLLHUP

// clientEnded and answered cannot be told here: who was first is then what reads have shown.
func clientEnded(*net.TCPConn) bool { return false }
func answered(*net.TCPConn) bool    { return false }

// group is the process group of a command.
type group struct {
	id    int
	ended bool
}

func newGroup(*syscall.SysProcAttr) *group { return &group{} }

// kill sends sig to all members, and returns ESRCH when there are none. Signal 0 only asks.
func (g *group) kill(sig syscall.Signal) error { return unix.Kill(-g.id, sig) }

func (g *group) gone() bool { return g.kill(0) == unix.ESRCH }
func (g *group) dead() bool { return g.gone() }
func (g *group) release()   {}

func openPty(Size) (master, slave *os.File, err error) {
	return nil, nil, errors.New("terminals are made on Linux only")
}

func resize(*os.File, Size) error { return nil }
