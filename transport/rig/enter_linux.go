package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The program is run again in these roles; the role is its argv[0], which no child inherits, and its own arguments follow.
const (
	roleKeeper  = "rig-keeper"  // ARGV…
	roleControl = "rig-control" // ARGV…
	roleHost    = "rig-host"    // NAME, for ps(1)
	roleJoin    = "rig-join"    // PID COMMAND…
	roleJoined  = "rig-joined"  // COMMAND…
)

// insideEnv tells programs that the control process runs (workers of go test -fuzz, a test binary that runs itself) that
// they are inside already: its value is the name of their pid namespace.
const insideEnv = "MULTI_RSH_RIG_INSIDE"

// errHere says why Start cannot work in this process.
var errHere = errors.New("rig.Enter has not been called")

func enter() {
	switch os.Args[0] {
	case roleKeeper:
		os.Exit(keep(os.Args[1:]))
	case roleHost:
		hostMain()
	case roleJoin:
		os.Exit(joinMain(os.Args[1:]))
	case roleJoined:
		err := joined(os.Args[1:])
		fmt.Fprintf(os.Stderr, "rig: %s: %v\n", os.Args[1], err)
		os.Exit(126)
	case roleControl:
		os.Args = os.Args[1:]
		errHere = controlNamespace()
		return
	}
	switch {
	case os.Getenv(insideEnv) == pidNamespace():
		errHere = errors.New("only the first process of a test run starts rigs")
	case os.Geteuid() != 0:
		errHere = errors.New("it needs root (sudo go test …)")
	default:
		errHere = relay()
	}
}

func pidNamespace() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return name
}

// again is this program in another role.
func again(ctx context.Context, role string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{role}, args...)
	return cmd
}

// relay runs the program again below a keeper and exits as it does. It returns only if it cannot.
func relay() error {
	if err := otherUsers(); err != nil {
		return err
	}
	reasons, report, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reasons.Close()
	keeper := again(context.Background(), roleKeeper, os.Args...)
	keeper.ExtraFiles = []*os.File{report}
	status, err := runChild(keeper, unix.CLONE_NEWPID|unix.CLONE_NEWNS, func() error {
		report.Close()
		// The keeper closes its end when it has started the control process, or says why it could not.
		if reason, err := io.ReadAll(reasons); err != nil || len(reason) > 0 {
			return errors.Join(err, errors.New(string(reason)))
		}
		return nil
	})
	if err != nil {
		report.Close()
		return fmt.Errorf("no new namespaces: %w", err)
	}
	os.Exit(status)
	return nil
}

// keep is the keeper: process 1 of the pid namespace, still on the machine's network. It starts the control process, waits
// for whatever is orphaned in the namespace, and takes all of it along when the control process has ended.
func keep(argv []string) int {
	report := os.NewFile(3, "report to the relay")
	unix.CloseOnExec(int(report.Fd()))
	err := privateMounts()
	var status int
	if err == nil {
		control := again(context.Background(), roleControl, argv...)
		control.Env = append(os.Environ(), insideEnv+"="+pidNamespace())
		status, err = runChild(control, unix.CLONE_NEWNET|unix.CLONE_NEWNS, report.Close)
	}
	if err != nil {
		fmt.Fprint(report, err)
		return 1
	}
	return status
}

// otherUsers fails for the root of a user namespace that cannot become the users of the hosts.
func otherUsers() error {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	var inside, outside, n int
	if _, err := fmt.Sscan(string(text), &inside, &outside, &n); err != nil || inside > firstUID || inside+n < firstUID+100 {
		return fmt.Errorf("it needs root of a machine, not of a user namespace without further users (uid_map: %s)",
			strings.Join(strings.Fields(string(text)), " "))
	}
	return nil
}

// relayed are the signals that go on to the child: what a terminal, go test or a service manager sends.
var relayed = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM}

// runChild runs a child in new namespaces on our own streams, passes signals on to it and returns its status. It waits for every
// other child too, as the first process of a pid namespace must. The kernel kills the child when this process dies; for that
// it watches the thread that started the child, so runChild is for the main goroutine, and nothing else runs beside it.
// If started, called after the start, fails, that is an error of the start.
func runChild(cmd *exec.Cmd, namespaces uintptr, started func() error) (status int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, append(relayed, syscall.SIGCHLD)...)
	defer signal.Stop(signals)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if err := started(); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return 0, err
	}
	for {
		if s := <-signals; s != syscall.SIGCHLD {
			syscall.Kill(cmd.Process.Pid, s.(syscall.Signal))
			continue
		}
		for {
			var ws syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
			if pid == cmd.Process.Pid {
				return shellStatus(ws), nil
			}
			if pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}

// shellStatus is how a process ended, as a shell gives it.
func shellStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// privateMounts gives a new mount namespace a life of its own, and the /proc of its pid namespace.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// The files below this directory are in a namespace's private tmpfs.
const private = "/run/rig"

// privateEtc covers /run with a tmpfs and /etc with an overlay, so that what is written there stays in this namespace.
// Covering /run also hides the machine's own helpers from programs in here: nscd, systemd's user database, D-Bus.
func privateEtc() error {
	if err := unix.Mount("rig", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
	}
	for _, dir := range []string{private + "/etc/upper", private + "/etc/work"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := "lowerdir=/etc,upperdir=" + private + "/etc/upper,workdir=" + private + "/etc/work"
	if err := unix.Mount("rig", "/etc", "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay on /etc: %w", err)
	}
	return nil
}

// dropPrivateEtc undoes privateEtc in a mount namespace that began as a copy of one that has it.
func dropPrivateEtc() error {
	for _, dir := range []string{"/etc", "/run"} {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	return nil
}

// file is a file, or with os.ModeDir a directory, of a namespace's private part.
type file struct {
	path, text string
	mode       os.FileMode
	owner      int
}

// writeFiles writes files, replacing what is there, a symbolic link included. Directories above them are made.
func writeFiles(files []file) error {
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
			return err
		}
		var err error
		if f.mode.IsDir() {
			err = os.Mkdir(f.path, 0o755)
		} else {
			os.Remove(f.path)
			err = os.WriteFile(f.path, []byte(f.text), f.mode)
		}
		if err := errors.Join(err, os.Chmod(f.path, f.mode.Perm()), os.Chown(f.path, f.owner, f.owner)); err != nil {
			return err
		}
	}
	return nil
}

const (
	nsswitch      = "/etc/nsswitch.conf"
	nsswitchFiles = "passwd: files\ngroup: files\nshadow: files\n"
)

// resolverFiles make names come from /etc/hosts alone.
var resolverFiles = []file{
	{path: nsswitch, text: nsswitchFiles + "hosts: files\n", mode: 0o644},
	{path: "/etc/resolv.conf", mode: 0o644},
	{path: "/etc/host.conf", text: "multi on\n", mode: 0o644},
}

// controlNamespace makes the namespaces that the control process has been started in its own.
func controlNamespace() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := privateEtc(); err != nil {
		return err
	}
	if err := writeFiles(resolverFiles); err != nil {
		return err
	}
	if err := running.init(); err != nil {
		return err
	}
	if err := quickIPv6(); err != nil {
		return err
	}
	l, err := openLinks()
	if err != nil {
		return err
	}
	defer l.Close()
	if err := errors.Join(l.set("lo", true), l.bridge(bridgeName)); err != nil {
		return fmt.Errorf("the bridge: %w", err)
	}
	if err := l.address(bridgeName, netip.PrefixFrom(ControlAddr, 16)); err != nil {
		return err
	}
	if HasIPv6() {
		return l.address(bridgeName, netip.PrefixFrom(ControlAddr6, 64))
	}
	return nil
}

// join is a command in the namespaces of the process pid; the keeper's are the machine's network and files.
func join(ctx context.Context, pid int, name string, arg ...string) *exec.Cmd {
	cmd := again(ctx, roleJoin, append([]string{strconv.Itoa(pid), name}, arg...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// joinMain has a command run in the namespaces of another process and returns its status, or 126.
func joinMain(args []string) int {
	status, err := joinRun(args[0], args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "rig: the namespaces of process %s: %v\n", args[0], err)
		return 126
	}
	return status
}

func joinRun(pid string, argv []string) (int, error) {
	runtime.LockOSThread() // what follows is for this thread and what it starts
	var namespaces []int
	for _, which := range []string{"net", "uts", "ipc", "pid", "mnt"} {
		fd, err := unix.Open("/proc/"+pid+"/ns/"+which, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		namespaces = append(namespaces, fd)
	}
	// A thread that shares its root and working directory with others may not change its mount namespace, setns(2).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return 0, err
	}
	for _, fd := range namespaces {
		if err := unix.Setns(fd, 0); err != nil {
			return 0, err
		}
	}
	alive, hold, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer hold.Close()
	p, err := os.StartProcess("/proc/self/exe", append([]string{roleJoined}, argv...),
		&os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, alive}})
	if err != nil {
		return 0, err
	}
	state, err := p.Wait()
	if err != nil {
		return 0, err
	}
	return shellStatus(state.Sys().(syscall.WaitStatus)), nil
}

// joined becomes the command, and returns only if that fails. It first arranges to be killed when joinRun's process dies, and
// looks whether that has happened already: the pipe on descriptor 3 has then no other end. SysProcAttr.Pdeathsig cannot do
// this: it takes a parent in another pid namespace for a dead one.
func joined(argv []string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	const alive = 3
	unix.CloseOnExec(alive)
	if n, err := unix.Poll([]unix.PollFd{{Fd: alive}}, 0); n != 0 || err != nil {
		return errors.New("nobody waits for it any more")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, argv, os.Environ())
}

// machine is a command on the machine's own network, with its own files, from wherever we are.
func machine(ctx context.Context, name string, arg ...string) *exec.Cmd {
	if errHere == nil {
		return join(ctx, 1, name, arg...)
	}
	return exec.CommandContext(ctx, name, arg...)
}
