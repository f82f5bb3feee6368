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
	PAMDir     string // with the pam.d files of the daemon's package
	Programs   []string
	Shells     []Shell
	Services   []service
}

// service is a line of an inetd.conf: TCP, nowait, root. Both Internet families.
type service struct {
	Port uint16
	Argv []string
}

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
	if err := errors.Join(privateEtc(), privateDev()); err != nil {
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
	for _, p := range spec.Programs {
		text, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: programPath(p), text: string(text), mode: 0o755})
	}

	var passwd, shadow, group strings.Builder
	passwd.WriteString("root:x:0:0:root:" + homes + "root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	shadow.WriteString("root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n")
	group.WriteString("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
	uid := firstUID
	user := func(name, shell string) {
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:%s\n", name, uid, uid, name, homes+name, shell)
		fmt.Fprintf(&shadow, "%s:*:19000:0:99999:7:::\n", name)
		fmt.Fprintf(&group, "%s:x:%d:\n", name, uid)
		files = append(files, file{path: homes + name, mode: os.ModeDir | 0o755, owner: uid})
		if name != NoRhosts {
			files = append(files, file{path: homes + name + "/.rhosts", text: "+ +\n", mode: 0o600, owner: uid})
		}
		uid++
	}
	for _, s := range spec.Shells {
		if s.Path != "" {
			user(s.User, s.Path)
		}
	}
	user(NoRhosts, "/bin/sh")
	return append(files,
		file{path: homes + "root", mode: os.ModeDir | 0o700},
		file{path: "/etc/passwd", text: passwd.String(), mode: 0o644},
		file{path: "/etc/shadow", text: shadow.String(), mode: 0o600},
		file{path: "/etc/group", text: group.String(), mode: 0o644}), nil
}

const homes = private + "/home/"

// programPath is where a host has a program that came from a package.
func programPath(source string) string { return private + "/sbin/" + filepath.Base(source) }

// privateDev gives the host a /dev of its own, so that what its programs say to syslog stays in the host: see keepLog.
func privateDev() error {
	const dev = private + "/dev/"
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "ptmx"} {
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
		if err := unix.Mount("/dev/"+name, dev+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind /dev/%s: %w", name, err)
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
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
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
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
