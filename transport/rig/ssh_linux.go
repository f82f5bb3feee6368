package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writeClientKey puts the client key where the control side's programs find it.
func writeClientKey() error {
	text, err := privateFile(wellKnown("client"), "rig")
	if err != nil {
		return err
	}
	return writeFiles([]file{
		{path: ClientKeyFile, text: string(text), mode: 0o600},
		{path: ClientKeyFile + ".pub", text: authorized(ClientKey()), mode: 0o644}})
}

// addSSH adds the SSH server to what the host is told; dir is where its package is unpacked.
func (h *Host) addSSH(spec *hostSpec, dir string) error {
	files, err := h.makeHostKeys()
	if err != nil {
		return err
	}
	spec.SSHFiles, spec.Authorized = files, authorized(ClientKey())+h.ssh.Authorized
	program := filepath.Join(dir, programs[h.ssh.Server])
	env := []string{"LD_LIBRARY_PATH=" + strings.Join(libraryDirs(dir), ":")} // for the server alone: its sessions do not inherit it
	if h.ssh.Server == Dropbear {
		argv := []string{program, "-i"}
		for _, typ := range h.ssh.HostKeys {
			argv = append(argv, "-r", hostKeyPrefix+typ)
		}
		spec.Services = append(spec.Services, service{Port: h.ssh.Port, Argv: argv, Env: env})
		return nil
	}
	files[sshConfig] = []byte(h.ssh.sshdConfig(dir))
	files[sshCA] = []byte(authorized(CA()))
	spec.SSHD, spec.SSHDEnv = []string{program, "-D", "-e", "-f", sshConfig}, env
	return nil
}

// pamSSHD is a pam.d/sshd for "UsePAM yes", of which nothing depends on the machine.
const pamSSHD = "auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_unix.so\n"

// startSSHD starts sshd and returns when it listens. Debian's sshd says so to systemd, sd_notify(3), and that is us.
func startSSHD(argv, env []string) error {
	notify, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(notify)
	if err := unix.Bind(notify, &unix.SockaddrUnix{Name: sshNotify}); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	log, err := os.OpenFile(sshLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	var process int // a pidfd
	_, err = syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append([]string{inetdPath, "NOTIFY_SOCKET=" + sshNotify}, env...),
		Files: []uintptr{null.Fd(), null.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &process},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	defer unix.Close(process)
	const patience = time.Minute
	for deadline := time.Now().Add(patience); ; {
		ready := []unix.PollFd{{Fd: int32(notify), Events: unix.POLLIN}, {Fd: int32(process), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, int(time.Until(deadline).Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("sshd does not listen after %v", patience)
		case ready[0].Revents != 0:
			return nil
		default:
			said, _ := os.ReadFile(sshLog)
			return errors.New("sshd ended at once: " + strings.TrimSpace(string(said)))
		}
	}
}
