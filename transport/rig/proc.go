package rig

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Socket is a TCP socket in the kernel's table, in any state but closed.
type Socket struct {
	Local, Remote netip.AddrPort // an IPv4 address in an IPv6 socket is given as IPv4
	State         string         // as netstat(8) and RFC 9293 name it: "ESTABLISHED", "TIME_WAIT", "LISTEN" …
}

// States in the order of the kernel's include/net/tcp_states.h, from 1.
var states = []string{1: "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
	"LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"}

// Sockets is the TCP socket table of the control side, IPv4 and IPv6.
func Sockets() ([]Socket, error) { return sockets("/proc/self/net/") }

// Sockets is the host's TCP socket table, IPv4 and IPv6.
func (h *Host) Sockets() ([]Socket, error) { return sockets(fmt.Sprintf("/proc/%d/net/", h.PID)) }

func sockets(dir string) ([]Socket, error) {
	var all []Socket
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(dir + name)
		if name == "tcp6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		all, err = parseSockets(all, text)
		if err != nil {
			return nil, fmt.Errorf("%s%s: %w", dir, name, err)
		}
	}
	return all, nil
}

// parseSockets appends the sockets of a table as in proc_pid_net(5): a heading, then lines "sl local remote st …".
func parseSockets(all []Socket, text []byte) ([]Socket, error) {
	for i, line := range bytes.Split(text, []byte{'\n'}) {
		if i == 0 || len(line) == 0 {
			continue
		}
		f := strings.Fields(string(line))
		if len(f) < 4 {
			return nil, fmt.Errorf("line %d: too short", i+1)
		}
		local, err1 := parseAddrPort(f[1])
		remote, err2 := parseAddrPort(f[2])
		state, err3 := strconv.ParseUint(f[3], 16, 8)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		s := Socket{Local: local, Remote: remote, State: "unknown"}
		if 0 < state && state < uint64(len(states)) {
			s.State = states[state]
		}
		all = append(all, s)
	}
	return all, nil
}

// parseAddrPort reads "0100007F:0202": the address in 32-bit words of the machine's byte order, the port as a number.
func parseAddrPort(s string) (netip.AddrPort, error) {
	words, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(words)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("bad address %q", s)
	}
	for w := range slices.Chunk(b, 4) {
		binary.NativeEndian.PutUint32(w, binary.BigEndian.Uint32(w))
	}
	addr, _ := netip.AddrFromSlice(b)
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("bad port in %q", s)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), nil
}

// Process is a process of a host.
type Process struct {
	PID, Parent int    // as the host numbers them
	Name        string // of the program, its first 15 bytes
	State       byte   // as in proc_pid_stat(5); 'Z' is one that has ended and has not been waited for
	Args        []string
}

// Processes lists the host's processes with that program name, or all of them if it is empty. The host's own process 1
// is not among them.
func (h *Host) Processes(name string) ([]Process, error) {
	entries, err := os.ReadDir(h.procDir())
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		stat, err := os.ReadFile(h.procDir() + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		p := Process{PID: pid}
		// "PID (NAME) STATE PPID …", and NAME may hold anything, also ") "
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		p.Name = string(stat[open+1 : end])
		if name != "" && p.Name != name {
			continue
		}
		if _, err := fmt.Sscanf(string(stat[end+1:]), " %c %d", &p.State, &p.Parent); err != nil {
			return nil, fmt.Errorf("process %d of %s: %w", pid, h.Name, err)
		}
		if args, err := os.ReadFile(h.procDir() + e.Name() + "/cmdline"); err == nil && len(args) > 0 {
			p.Args = strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
		}
		all = append(all, p)
	}
	return all, nil
}

// procDir is the host's own /proc as the control side sees it.
func (h *Host) procDir() string { return fmt.Sprintf("/proc/%d/root/proc/", h.PID) }

// The file on a host that holds what its programs said to syslog.
const logFile = "/run/rig/log"

// Log is what the host's programs have said to syslog(3) so far: in.rshd and PAM say there why they refuse somebody.
func (h *Host) Log() (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", h.PID, logFile))
	return string(text), err
}
