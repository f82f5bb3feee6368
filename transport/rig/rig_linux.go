package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const bridgeName = "br0"

// running are the hosts of all rigs of this process.
var running fleet

type fleet struct {
	mu    sync.Mutex
	hosts [255]*Host // by number; none has the number 0
	names [255]int   // so many of a number's addresses have names; -1: not even the host has one
}

// take gives hosts the lowest free numbers.
func (f *fleet) take(hosts []*Host) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var free []int
	for n := 1; n < len(f.hosts) && len(free) < len(hosts); n++ {
		if f.hosts[n] == nil {
			free = append(free, n)
		}
	}
	if len(free) < len(hosts) {
		return fmt.Errorf("rig: %d hosts are too many: %d of 254 are left", len(hosts), len(free))
	}
	for i, h := range hosts {
		h.N, h.Name = free[i], hostName(free[i])
		f.hosts[h.N] = h
	}
	return nil
}

// give takes the numbers back.
func (f *fleet) give(hosts []*Host) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range hosts {
		if f.hosts[h.N] == h {
			f.hosts[h.N] = nil
		}
	}
}

// name sees to it that hosts and their first names addresses have names on the control side. A name once given stays:
// package net looks at /etc/hosts again after five seconds only, so a file that does not change is a test that does not wait.
func (f *fleet) name(hosts []*Host, names int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := false
	for _, h := range hosts {
		if f.names[h.N] < names {
			f.names[h.N], changed = names, true
		}
	}
	if !changed {
		return nil
	}
	return f.writeHosts()
}

// writeHosts writes the control side's /etc/hosts; nobody ever reads half of it.
func (f *fleet) writeHosts() error {
	var b strings.Builder
	b.WriteString(localNames + controlNames)
	for n, names := range f.names {
		if names < 0 {
			continue
		}
		h := &Host{N: n, Name: hostName(n)}
		b.WriteString(h.names())
		for j := 1; j <= names; j++ {
			fmt.Fprintf(&b, "%v %s\n", h.Addr(j), h.NameOf(j))
		}
	}
	if err := os.WriteFile("/etc/hosts.new", []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename("/etc/hosts.new", "/etc/hosts")
}

// usual is how many hosts have names from the start, with defaultNames of their addresses.
const usual = 32

func (f *fleet) init() error {
	for n := range f.names {
		f.names[n] = -1
		if 1 <= n && n <= usual {
			f.names[n] = defaultNames
		}
	}
	return f.writeHosts()
}

func start(cfg Config) (r *Rig, err error) {
	if errHere != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, errHere)
	}
	r = &Rig{Hosts: make([]*Host, cfg.Hosts)}
	all := r // what there is to close when r has become nil
	packages := make(map[Daemon]string)
	for i := range r.Hosts {
		h := &Host{Daemon: cfg.Daemon, ssh: cfg.SSH}
		if cfg.Daemon == Both {
			h.Daemon = []Daemon{Redone, Netkit}[i%2]
		}
		for _, d := range []Daemon{h.Daemon, h.ssh.Server} {
			if _, have := packages[d]; d == "" || have {
				continue
			}
			if packages[d], err = fetch(d); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
		}
		r.Hosts[i] = h
	}
	if err := running.take(r.Hosts); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	if cfg.SSH.Server != "" {
		if err := writeClientKey(); err != nil {
			return nil, err
		}
	}
	l, err := openLinks()
	if err != nil {
		return nil, err
	}
	defer l.Close()

	names := localNames
	if !cfg.Nameless {
		names += controlNames
	}
	for _, h := range r.Hosts {
		names += h.names()
	}
	shells := Shells()
	control := make([]*os.File, len(r.Hosts))
	for i, h := range r.Hosts {
		if control[i], err = h.launch(l); err != nil {
			return nil, fmt.Errorf("rig: %s: %w", h.Name, err)
		}
		defer control[i].Close()
		spec, err := h.spec(cfg, packages, names, shells)
		if err == nil {
			err = json.NewEncoder(control[i]).Encode(spec)
		}
		if err != nil {
			return nil, fmt.Errorf("rig: %s: %w", h.Name, err)
		}
	}
	for i, h := range r.Hosts {
		var answer struct{ Error string }
		err := json.NewDecoder(control[i]).Decode(&answer)
		if err == nil && answer.Error != "" {
			err = errors.New(answer.Error)
		} else if err == io.EOF {
			err = errors.New("it died before it was ready")
		}
		if err == nil {
			err = h.reach(l)
		}
		if err != nil {
			return nil, fmt.Errorf("rig: %s: %w", h.Name, err)
		}
	}
	if err := running.name(r.Hosts, cfg.Names); err != nil {
		return nil, err
	}
	return r, waitForName(r.Hosts[len(r.Hosts)-1].NameOf(cfg.Names))
}

// waitForName waits until this process sees a name.
func waitForName(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("rig: the name %s does not resolve: %w", name, err)
		case <-tick.C:
		}
	}
}

// launch starts the host's process, gives it its cable, and returns the stream on which it waits for its hostSpec.
func (h *Host) launch(l *links) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), h.Name), os.NewFile(uintptr(pair[1]), h.Name)
	defer theirs.Close()
	cmd := again(context.Background(), roleHost, h.Name)
	cmd.Stdin, cmd.Stderr = theirs, os.Stderr
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true, // what a terminal sends to the test is not for the hosts
	}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, err
	}
	h.cmd, h.PID = cmd, cmd.Process.Pid
	// Always the same address for the same number: the control side may remember one from an earlier rig.
	mac := net.HardwareAddr{0x02, 0, 10, 76, 1, byte(h.N)}
	if err := l.cable(h.cable(), bridgeName, h.PID, mac); err != nil {
		ours.Close()
		return nil, fmt.Errorf("its cable: %w", err)
	}
	return ours, nil
}

// cable is the name of the control side's end of the host's cable.
func (h *Host) cable() string { return fmt.Sprintf("v%d", h.N) }

func (h *Host) spec(cfg Config, packages map[Daemon]string, names string, shells []Shell) (hostSpec, error) {
	spec := hostSpec{
		Name:       h.Name,
		Addrs:      []netip.Prefix{netip.PrefixFrom(h.Addr(0), 16)},
		Own:        []netip.Prefix{h.own4()},
		HostsFile:  names,
		NameServer: cfg.Nameless,
		HostsEquiv: cfg.HostsEquiv,
		Shells:     shells,
	}
	if HasIPv6() {
		spec.Addrs = append(spec.Addrs, netip.PrefixFrom(h.Addr6(0), 64))
		spec.Own = append(spec.Own, h.own6())
	}
	if h.Daemon != "" {
		dir := packages[h.Daemon]
		rshd := filepath.Join(dir, programs[h.Daemon])
		spec.PAMDir = filepath.Join(dir, "etc/pam.d")
		spec.Programs = []string{rshd}
		spec.Services = []service{{Port: 514, Argv: append([]string{programPath(rshd)}, cfg.Args...)}}
	}
	if h.ssh.Server != "" {
		return spec, h.addSSH(&spec, packages[h.ssh.Server])
	}
	return spec, nil
}

// reach makes the routes to the host's further addresses, forget takes them and the cable away.
func (h *Host) reach(l *links) error {
	for _, r := range h.routes() {
		if err := l.route(r.to, r.via); err != nil {
			return fmt.Errorf("route to %v: %w", r.to, err)
		}
		h.routed++
	}
	return nil
}

func (h *Host) forget(l *links) error {
	err := l.remove(h.cable())
	for _, r := range h.routes()[:h.routed] {
		err = errors.Join(err, l.unroute(r.to, r.via))
	}
	return err
}

type route struct {
	to  netip.Prefix
	via netip.Addr
}

func (h *Host) routes() []route {
	all := []route{{h.own4(), h.Addr(0)}}
	if HasIPv6() {
		all = append(all, route{h.own6(), h.Addr6(0)})
	}
	return all
}

func (h *Host) own4() netip.Prefix { return netip.PrefixFrom(h.Addr(1), 24).Masked() }
func (h *Host) own6() netip.Prefix { return netip.PrefixFrom(h.Addr6(1), 64).Masked() }

func (r *Rig) close() error {
	l, err := openLinks()
	if err != nil {
		return err
	}
	defer l.Close()
	started := slices.DeleteFunc(slices.Clone(r.Hosts), func(h *Host) bool { return h.cmd == nil })
	for _, h := range started {
		h.cmd.Process.Kill()
	}
	for _, h := range started {
		h.cmd.Wait() // for every process of the host: the kernel does not let the first one go before the others
		h.cmd = nil
		err = errors.Join(err, h.forget(l))
	}
	running.give(r.Hosts)
	return err
}

// SetLink plugs the host's network cable (up) or pulls it: the host vanishes, without a word to anybody.
func (h *Host) SetLink(up bool) error {
	l, err := openLinks()
	if err != nil {
		return err
	}
	defer l.Close()
	return l.set(h.cable(), up)
}

// Kill sends a signal to the host's processes with that program name and says how many there were.
func (h *Host) Kill(name string, sig syscall.Signal) (int, error) {
	all, err := h.Processes(name)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range all {
		// The process's directory names it as a pidfd does, and it cannot come to name another process.
		dir, err := unix.Open(fmt.Sprint(h.procDir(), p.PID), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it has ended
		}
		err = unix.PidfdSendSignal(dir, sig, nil, 0)
		unix.Close(dir)
		switch err {
		case nil:
			n++
		case unix.ESRCH:
		default:
			return n, fmt.Errorf("signal process %d of %s: %w", p.PID, h.Name, err)
		}
	}
	return n, nil
}
