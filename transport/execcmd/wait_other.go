//go:build !linux

package execcmd

import (
	"os"
	"syscall"
)

func sysProcAttr(*int) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func pollable(int) *os.File { return nil }

// await waits for the end of the process and reaps it, so that from here on its group is not signalled any more.
func (s *session) await() (status syscall.WaitStatus, dead bool) {
	for {
		_, err := syscall.Wait4(s.pid, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		s.mu.Lock()
		s.reaped = true
		s.mu.Unlock()
		return status, err == nil
	}
}
