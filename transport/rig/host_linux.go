package rig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// hostSpec is what a host process is told on its standard input once its network card is there, as JSON.
type hostSpec struct {
	Name       string
	Addrs      []netip.Prefix // of eth0
	Own        []netip.Prefix // every address of these is the host's as well
	HostsFile  string
	NameServer bool // names that are not in HostsFile are asked of a name server, which does not answer
	HostsEquiv string
	PAMDir     string // with the pam.d files of the daemon's package; empty: none
	Programs   []string
	Shells     []Shell
	Services   []service

	Authorized    string   // authorized_keys of the users; empty: there are none
	SSHFiles      sshFiles // empty: no SSH server
	SSHD, SSHDEnv []string // the program and its arguments, and further environment; empty: no sshd
}

// service is a line of an inetd.conf: TCP, nowait, root. Both Internet families.
type service struct {
	Port uint16
	Argv []string
	Env  []string // beside inetdPath
}

const inetdPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// hostMain is the life of a host: its first process, which is its inetd as well. It ends when it is killed.
func hostMain() {
	control := os.Stdin
	var spec hostSpec
	answer := struct{ Error string }{}
	err := json.NewDecoder(control).Decode(&spec)
	var listeners []listener
	if err == nil {
		listeners, err = becomeHost(&spec)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	if err := json.NewEncoder(control).Encode(answer); err != nil || answer.Error != "" {
		os.Exit(1)
	}
	control.Close()
	serve(listeners)
}

// becomeHost turns the new namespaces of this process into the host.
func becomeHost(spec *hostSpec) ([]listener, error) {
	if err := errors.Join(privateMounts(), dropPrivateEtc(), unix.Sethostname([]byte(spec.Name))); err != nil {
		return nil, err
	}
	files, err := hostFiles(spec)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(privateEtc(), privateDev(), privateLogs()); err != nil {
		return nil, err
	}
	for _, path := range []string{"/etc/hosts.equiv", "/etc/nologin"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if err := writeFiles(files); err != nil {
		return nil, err
	}
	if err := hostNetwork(spec); err != nil {
		return nil, err
	}
	if err := keepLog(); err != nil {
		return nil, err
	}
	// An ordinary limit for what runs here; netkit's in.rshd goes through all possible descriptors for each connection.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1024, Max: 4096}); err != nil {
		return nil, err
	}
	if spec.SSHD != nil {
		if err := startSSHD(spec.SSHD, spec.SSHDEnv); err != nil {
			return nil, err
		}
	}
	return listen(spec.Services)
}

func hostNetwork(spec *hostSpec) error {
	if err := quickIPv6(); err != nil {
		return err
	}
	l, err := openLinks()
	if err != nil {
		return err
	}
	defer l.Close()
	if err := errors.Join(l.set("lo", true), l.set("eth0", true)); err != nil {
		return err
	}
	for _, p := range spec.Addrs {
		if err := l.address("eth0", p); err != nil {
			return fmt.Errorf("address %v: %w", p, err)
		}
	}
	for _, p := range spec.Own {
		if err := l.own(p); err != nil {
			return fmt.Errorf("addresses %v: %w", p, err)
		}
	}
	return nil
}

// The users' numbers begin here: where hardly anybody on a machine has one, since the kernel counts a user's processes over all
// namespaces, and below the 65,536 that a container may have.
const firstUID = 7601

// hostFiles are the files of a host that differ from the machine's. It is called while the machine's are still to be seen.
func hostFiles(spec *hostSpec) ([]file, error) {
	files := append([]file{
		{path: "/etc/hostname", text: spec.Name + "\n", mode: 0o644},
		{path: "/etc/hosts", text: spec.HostsFile, mode: 0o644},
	}, resolverFiles...)
	if spec.NameServer {
		// An empty resolv.conf means port 53 of this host, resolv.conf(5), and nobody listens there.
		files = append(files, file{path: nsswitch, text: nsswitchFiles + "hosts: files dns\n", mode: 0o644})
	}
	if spec.HostsEquiv != "" {
		files = append(files, file{path: "/etc/hosts.equiv", text: spec.HostsEquiv, mode: 0o644})
	}
	if spec.PAMDir != "" {
		pam, err := os.ReadDir(spec.PAMDir)
		if err != nil {
			return nil, err
		}
		for _, e := range pam {
			text, err := os.ReadFile(filepath.Join(spec.PAMDir, e.Name()))
			if err != nil {
				return nil, err
			}
			files = append(files, file{path: "/etc/pam.d/" + e.Name(), text: string(text), mode: 0o644})
		}
	}
	for _, p := range spec.Programs {
		text, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: programPath(p), text: string(text), mode: 0o755})
	}

	var passwd, shadow, group, loginShells strings.Builder
	passwd.WriteString("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	shadow.WriteString("nobody:*:19000:0:99999:7:::\n")
	group.WriteString("tty:x:5:\nnogroup:x:65534:\n")
	uid := 0
	user := func(name, shell, password string) {
		home := homes + name
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:%s\n", name, uid, uid, name, home, shell)
		fmt.Fprintf(&shadow, "%s:%s:19000:0:99999:7:::\n", name, password)
		fmt.Fprintf(&group, "%s:x:%d:\n", name, uid)
		fmt.Fprintln(&loginShells, shell)
		mode := os.FileMode(0o755)
		if uid == 0 {
			mode = 0o700
		}
		files = append(files, file{path: home, mode: os.ModeDir | mode, owner: uid})
		if uid != 0 && trusted(name) {
			files = append(files, file{path: home + "/.rhosts", text: "+ +\n", mode: 0o600, owner: uid})
		}
		if spec.Authorized != "" && trusted(name) {
			files = append(files,
				file{path: home + "/.ssh", mode: os.ModeDir | 0o700, owner: uid},
				file{path: home + "/.ssh/authorized_keys", text: spec.Authorized, mode: 0o600, owner: uid})
		}
		uid = max(uid+1, firstUID)
	}
	user("root", "/bin/sh", "*")
	for _, s := range spec.Shells {
		if s.Path != "" {
			user(s.User, s.Path, "*")
		}
	}
	user(NoRhosts, "/bin/sh", "*")
	user(PasswordUser, "/bin/sh", passwordHash)
	if spec.SSHFiles != nil {
		fmt.Fprintf(&passwd, "sshd:x:%d:65534:sshd:/run/sshd:/usr/sbin/nologin\n", uid)
		files = append(files,
			file{path: "/run/sshd", mode: os.ModeDir | 0o755}, // where sshd shuts its unprivileged part up: sshd(8)
			file{path: "/etc/pam.d/sshd", text: pamSSHD, mode: 0o644})
	}
	for path, text := range spec.SSHFiles {
		files = append(files, file{path: path, text: string(text), mode: 0o600})
	}
	return append(files,
		file{path: "/etc/passwd", text: passwd.String(), mode: 0o644},
		file{path: "/etc/shadow", text: shadow.String(), mode: 0o600},
		file{path: "/etc/group", text: group.String(), mode: 0o644},
		file{path: "/etc/shells", text: loginShells.String(), mode: 0o644}), nil
}

// trusted says whether a user lets others in without a password.
func trusted(name string) bool { return name != NoRhosts && name != PasswordUser }

const homes = private + "/home/"

// programPath is where a host has a program that came from a package.
func programPath(source string) string { return private + "/sbin/" + filepath.Base(source) }

// privateLogs hides the machine's logs: who logs in is noted in the host's own wtmp(5), lastlog and btmp.
func privateLogs() error {
	const dir = "/var/log"
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unix.Mount("rig", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return writeFiles([]file{{path: dir + "/wtmp", mode: 0o644}, {path: dir + "/lastlog", mode: 0o644}, {path: dir + "/btmp", mode: 0o600}})
}

// privateDev gives the host a /dev of its own, so that what its programs say to syslog stays in the host: see keepLog.
func privateDev() error {
	const dev = private + "/dev/"
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := writeFiles([]file{{path: dev + name, mode: 0o644}}); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, dev+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind /dev/%s: %w", name, err)
		}
	}
	for _, name := range []string{"pts", "shm"} {
		if err := os.Mkdir(dev+name, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("/dev/shm", dev+"shm", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /dev/shm: %w", err)
	}
	// Terminals of its own: those of another file system cannot be had through a ptmx in this one.
	if err := unix.Mount("rig", dev+"pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "ptmxmode=666,mode=620,gid=5"); err != nil {
		return fmt.Errorf("mount a devpts on /dev/pts: %w", err)
	}
	for name, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(to, dev+name); err != nil {
			return err
		}
	}
	if err := unix.Mount(dev, "/dev", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	return nil
}

// keepLog is the host's syslogd: it appends what is sent to /dev/log, one message a line, to a file.
func keepLog() error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
	if err != nil {
		return err
	}
	if err := os.Chmod("/dev/log", 0o666); err != nil {
		return err
	}
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	go func() {
		message := make([]byte, 64<<10)
		for {
			n, err := conn.Read(message)
			if err != nil {
				return
			}
			log.Write(append(bytes.TrimRight(message[:n], "\x00\n"), '\n'))
		}
	}()
	return nil
}

// listener is a service and a socket that it listens on.
type listener struct {
	service
	fd int
}

// listen opens the services' sockets: one for IPv4 and one for IPv6 each, as inetd does with tcp4 and tcp6.
func listen(services []service) ([]listener, error) {
	addrs := func(port uint16) []unix.Sockaddr {
		if !HasIPv6() {
			return []unix.Sockaddr{&unix.SockaddrInet4{Port: int(port)}}
		}
		return []unix.Sockaddr{&unix.SockaddrInet4{Port: int(port)}, &unix.SockaddrInet6{Port: int(port)}}
	}
	var all []listener
	for _, s := range services {
		for _, sa := range addrs(s.Port) {
			family := unix.AF_INET
			if _, ok := sa.(*unix.SockaddrInet6); ok {
				family = unix.AF_INET6
			}
			fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			if family == unix.AF_INET6 {
				err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
			}
			err = errors.Join(err,
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), // an ended session's TIME_WAIT is no reason to fail
				unix.Bind(fd, sa),
				unix.Listen(fd, 4096))
			if err != nil {
				return nil, fmt.Errorf("listen on port %d: %w", s.Port, err)
			}
			all = append(all, listener{s, fd})
		}
	}
	return all, nil
}

// serve accepts for all listeners and waits for every process that ends in the host, ours or orphaned.
func serve(listeners []listener) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for _, l := range listeners {
		go l.accept()
	}
	for range ended {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}

// accept runs the service for each connection, as inetd does: the socket, blocking, is its standard input, output and error,
// it is root, in a session of its own, with inetd's environment.
func (l listener) accept() {
	attr := syscall.ProcAttr{
		Dir: "/",
		Env: append([]string{inetdPath}, l.Env...),
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	for {
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "rig: accept on port %d: %v\n", l.Port, err)
			os.Exit(1)
		}
		attr.Files = []uintptr{uintptr(fd), uintptr(fd), uintptr(fd)}
		if _, err := syscall.ForkExec(l.Argv[0], l.Argv, &attr); err != nil {
			fmt.Fprintf(os.Stderr, "rig: %s: %v\n", l.Argv[0], err)
		}
		unix.Close(fd)
	}
}
