package execcmd

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sysProcAttr makes the process the leader of its own group and asks for a pidfd.
func sysProcAttr(pidfd *int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, PidFD: pidfd}
}

// pollable puts a pidfd into the runtime's poller. It returns nil if there is none.
func pollable(pidfd int) *os.File {
	if pidfd < 0 {
		return nil
	}
	syscall.SetNonblock(pidfd, true)
	return os.NewFile(uintptr(pidfd), "pidfd")
}

// await waits for the end of the process and leaves it a zombie, whose group stays ours. It gives up, and returns false, when
// the deadline passes that end sets.
func (s *session) await() (status syscall.WaitStatus, dead bool) {
	if s.pidfd == nil {
		for {
			err := unix.Waitid(unix.P_PID, s.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if err != unix.EINTR {
				return 0, err == nil
			}
		}
	}
	raw, err := s.pidfd.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Read(func(fd uintptr) bool {
		// A pidfd is readable from the process's end on, pidfd_open(2).
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	return 0, err == nil
}
