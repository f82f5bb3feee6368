package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"multirsh/runner/output"
	"multirsh/transport"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/rsh/sockdiag"
)

// finding is what a check has found. Of those that are as they should be, too, there is one for each check.
type finding struct {
	Severity string `json:"severity"` // ok, note, warning or error
	Check    string `json:"check"`
	Text     string `json:"text"`
	Command  string `json:"command,omitempty"` // what mends it, for a shell
}

// severities from the worst on. An error keeps runs over rsh from working, a warning makes them fail at times.
var severities = []string{"error", "warning", "note", "ok"}

const (
	bad   = 0 // indices in severities
	risky = 1
	aside = 2
	good  = 3
)

// examination is what the checks look at.
type examination struct {
	p      *portsPicture
	k      kernel
	etc    string
	fanout int
	files  int          // the most that this process may have open; 0: not known
	permit func() error // whether reserved ports can be had
	view   *portsView   // names owners
	found  []finding
}

// doctor says what can go wrong with reserved ports here.
func (q *portsQuery) doctor() error {
	return q.before(q.Signals(), func(ctx context.Context) error {
		q.ctx = ctx
		p, err := q.read(false)
		if err != nil {
			return err
		}
		x := &examination{
			p: p, k: q.kernel, etc: q.Etc, fanout: q.fanout, files: mayOpen(),
			permit: func() error {
				var a resvport.Allocator
				defer a.Close()
				return a.Check()
			},
			view: &portsView{name: userNames()},
		}
		found := x.examine()
		out := newPrinter(ctx, q.Stdout, "")
		if q.is("json") {
			out.json(struct {
				Findings []finding `json:"findings"`
			}{found})
		} else {
			view := q.view(out)
			view.findings(found)
		}
		if err := out.done(); err != nil {
			return err
		}
		if found[0].Severity == severities[bad] {
			return &ending{exitHosts}
		}
		return nil
	})
}

// mayOpen is how many files this process may have open: Go raises the limit to the hard one by itself.
func mayOpen() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Max), 1<<30))
}

// findings writes them, the worst first.
func (v *portsView) findings(found []finding) {
	colors := map[string]output.Color{"error": output.BoldRed, "warning": output.Red, "note": output.Cyan, "ok": output.Green}
	for _, f := range found {
		fmt.Fprintf(v.W, "%s: %s\n", v.Paint(colors[f.Severity], f.Severity), f.Check)
		v.say("%s", f.Text)
		if f.Command != "" {
			fmt.Fprintf(v.W, "      %s\n", f.Command)
		}
	}
}

// examine makes all checks; the worst finding is the first.
func (x *examination) examine() []finding {
	for _, check := range []func(){
		x.permission, x.unprivileged, x.space, x.services, x.closers, x.neglected, x.unanswered, x.timestamps, x.finTimeout, x.reuse,
		x.buckets, x.conntrack, x.openFiles, x.rate,
	} {
		check()
	}
	slices.SortStableFunc(x.found, func(a, b finding) int {
		return cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity))
	})
	return x.found
}

func (x *examination) add(severity int, check, command, format string, args ...any) {
	x.found = append(x.found, finding{Severity: severities[severity], Check: check, Text: fmt.Sprintf(format, args...), Command: command})
}

// sysctl is the command that changes a setting.
func sysctl(name string, value int) string { return fmt.Sprintf("sudo sysctl -w %s=%d", name, value) }

func (x *examination) permission() {
	const check = "permission"
	switch err := x.permit(); {
	case err == nil:
		x.add(good, check, "", "This process may use reserved ports.")
	case errors.Is(err, transport.ErrPorts):
		who := "this user"
		if u, err := user.Current(); err == nil {
			who = u.Username
		}
		program := "$(command -v multi-rsh)"
		if path, err := os.Executable(); err == nil {
			program = "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		}
		x.add(bad, check, "sudo setcap cap_net_bind_service=+ep "+program,
			"%s may not use reserved ports, since the kernel asks for CAP_NET_BIND_SERVICE: no connection over rsh can be made. "+
				"Run it as root, or give the program that capability; who may run it then may be anybody to rshd, so give it mode 0750 and a group of those who may.", who)
	default:
		x.add(bad, check, "", "No reserved port can be had: %v.", err)
	}
}

func (x *examination) unprivileged() {
	const check, name = "unprivileged ports", "net.ipv4.ip_unprivileged_port_start"
	start, known := x.k.setting(name)
	switch {
	case !known:
	case start <= resvport.Last:
		x.add(risky, check, sysctl(name, 1024),
			"%s is %d, so every user of this machine may use ports from there on: coming from one of them proves nothing, and who trusts this machine's rsh trusts all its users.", name, start)
	default:
		x.add(good, check, "", "Only privileged programs may use ports below %d.", start)
	}
}

func (x *examination) space() {
	const check = "range"
	usable := x.p.usable()
	var by []string
	files := map[string]int{}
	for _, name := range x.p.blocked {
		files[name]++
	}
	for name, n := range files {
		by = append(by, fmt.Sprintf("%d blocked by %s", n, name))
	}
	slices.Sort(by)
	if listen := rangeSize - usable - len(x.p.blocked); listen > 0 {
		by = append(by, fmt.Sprintf("%d listened on", listen))
	}
	text := fmt.Sprintf("%d of the %d ports can be used", usable, rangeSize)
	if len(by) > 0 {
		text += ": " + strings.Join(by, ", ")
	}
	switch {
	case usable == 0:
		x.add(bad, check, "sysctl net.ipv4.ip_local_reserved_ports; cat "+x.etc+"/bindresvport.blacklist", "%s. Take ports out of the lists.", text)
	case usable < rangeSize/2:
		x.add(risky, check, "sysctl net.ipv4.ip_local_reserved_ports; cat "+x.etc+"/bindresvport.blacklist", "%s. That is few; take ports out of the lists that no service here needs.", text)
	default:
		x.add(good, check, "", "%s.", text)
	}
}

// services are those that listen in the range without being on a list: what asks for a reserved port may have it before they do.
func (x *examination) services() {
	const check = "services"
	var ports, names []string
	seen := map[uint16]bool{}
	for _, s := range x.p.sockets {
		port := s.Local.Port()
		if s.State != sockdiag.Listen || seen[port] {
			continue
		}
		seen[port] = true
		if x.p.blocked[port] != "" {
			continue
		}
		owner, _ := x.view.owner(x.p, s)
		ports = append(ports, strconv.Itoa(int(port)))
		names = append(names, fmt.Sprintf("%d (%s)", port, owner))
	}
	if len(ports) == 0 {
		x.add(good, check, "", "Every port of the range that somebody listens on is blocked for others.")
		return
	}
	x.add(aside, check, fmt.Sprintf("printf '%%s\\n' %s | sudo tee -a %s/bindresvport.blacklist", strings.Join(ports, " "), x.etc),
		"Somebody listens on %s, and no list keeps other programs from these ports: before the service starts they may take them. multi-rsh leaves them alone while they listen. "+
			"(A listener of rsh's own, for a stderr channel, is gone when its run has ended.)", strings.Join(names, ", "))
}

// closers finds who closes first, and so eats the range.
func (x *examination) closers() {
	const check = "who closes first"
	var waiting []sockdiag.Socket
	toPort, using := map[uint16]int{}, map[uint16][]sockdiag.Socket{} // by the peer's port
	served := map[uint16]bool{}
	for _, s := range x.p.sockets {
		if s.State == sockdiag.Listen {
			served[s.Local.Port()] = true
		}
	}
	for _, s := range x.p.sockets {
		if served[s.Local.Port()] {
			continue // a client's connection to a service here, which takes a port from nobody
		}
		switch peer := s.Remote.Port(); s.State {
		case sockdiag.TimeWait, sockdiag.FinWait1, sockdiag.FinWait2:
			waiting = append(waiting, s)
			toPort[peer]++
		case sockdiag.Established, sockdiag.CloseWait:
			using[peer] = append(using[peer], s)
		}
	}
	if len(waiting) == 0 {
		x.add(good, check, "", "No connection from a reserved port has been closed by this side first in the last minute.")
		return
	}
	ports := portsOf(waiting)
	peers := make([]uint16, 0, len(toPort))
	for port := range toPort {
		peers = append(peers, port)
	}
	slices.SortFunc(peers, func(a, b uint16) int { return cmp.Or(cmp.Compare(toPort[b], toPort[a]), cmp.Compare(a, b)) })
	var words []string
	for _, port := range peers[:min(len(peers), 3)] {
		text := fmt.Sprintf("%d to port %d%s", toPort[port], port, knownAs(port))
		if of := using[port]; len(of) > 0 {
			text += ", where " + x.view.holders(x.p, of) + " is connected now"
		}
		words = append(words, text)
	}
	severity := aside
	switch usable := max(x.p.usable(), 1); {
	case ports*8 >= usable*7:
		severity = bad
	case ports*4 >= usable:
		severity = risky
	}
	x.add(severity, check, "multi-rsh ports reap --state time-wait",
		"Still waiting because this side closed first: %s on %s, %s. A program that uses reserved ports and closes first, as rsh(1) does at the end of its input, uses one up for %s each time; "+
			"multi-rsh in its place leaves none. To have the ports back now:",
		plural(len(waiting), "connection"), plural(ports, "port"), strings.Join(words, "; "), about(timeWait))
}

// knownAs names what a port is for, of those that reserved ports are used with.
func knownAs(port uint16) string {
	names := map[uint16]string{111: "portmapper", 513: "rlogin", 514: "rsh", 2049: "NFS"}
	if name := names[port]; name != "" {
		return " (" + name + ")"
	}
	return ""
}

// neglected finds programs that do not close what their peers have closed.
func (x *examination) neglected() {
	const check = "sockets left open"
	var of []sockdiag.Socket
	for _, s := range x.p.sockets {
		if s.State == sockdiag.CloseWait {
			of = append(of, s)
		}
	}
	if len(of) == 0 {
		x.add(good, check, "", "No program holds a connection that its peer has closed.")
		return
	}
	x.add(risky, check, "multi-rsh ports reap --state close-wait --older-than 60",
		"%s (on %s) closed by the peer, and not by the program here: %s. Nothing but that program ends them, so if they do not go away by themselves restart it, or:",
		plural(len(of), "connection"), plural(portsOf(of), "port"), x.view.holders(x.p, of))
}

// unanswered finds hosts that do not answer any more.
func (x *examination) unanswered() {
	const check = "hosts that do not answer"
	var of []sockdiag.Socket
	hosts := map[string]bool{}
	for _, s := range x.p.sockets {
		if s.Timer == sockdiag.Retransmit && slices.Contains([]sockdiag.State{sockdiag.FinWait1, sockdiag.LastAck, sockdiag.Closing}, s.State) {
			of = append(of, s)
			hosts[s.Remote.Addr().String()] = true
		}
	}
	if len(of) == 0 {
		x.add(good, check, "", "No close of a connection is waiting for a host that does not answer.")
		return
	}
	x.add(aside, check, "multi-rsh ports reap --state fin-wait-1,last-ack,closing --older-than 30",
		"%s (on %s) wait for %s to confirm the close; the kernel gives up by itself after some %s.", plural(len(of), "connection"), plural(portsOf(of), "port"), plural(len(hosts), "host"), about(x.k.orphanGivesUp()))
}

func (x *examination) timestamps() {
	const check, name = "timestamps", "net.ipv4.tcp_timestamps"
	n, known := x.k.setting(name)
	switch {
	case !known:
	case n == 0:
		x.add(risky, check, sysctl(name, 1), "%s is 0, so while a connection is in TIME-WAIT the same port cannot be used for the same host again. multi-rsh takes another one; others fail (EADDRNOTAVAIL).", name)
	default:
		x.add(good, check, "", "%s is %d: a port in TIME-WAIT can be used for the same host again.", name, n)
	}
}

func (x *examination) finTimeout() {
	const check, name = "FIN-WAIT-2", "net.ipv4.tcp_fin_timeout"
	n, known := x.k.setting(name)
	switch {
	case !known:
	case n > 60:
		x.add(risky, check, sysctl(name, 60), "%s is %d: for so many seconds a host that does not close its end keeps a port of ours.", name, n)
	default:
		x.add(good, check, "", "%s is %d: after so many seconds the kernel stops waiting for a host to close its end. (TIME-WAIT is %s whatever it says.)", name, n, about(timeWait))
	}
}

func (x *examination) reuse() {
	const name = "net.ipv4.tcp_tw_reuse"
	if n, known := x.k.setting(name); known {
		x.add(good, "tcp_tw_reuse", "", "%s is %d, which is for ports that the kernel chooses: for a port that the program chooses, as a reserved one, it makes no difference.", name, n)
	}
}

func (x *examination) buckets() {
	const check, name = "TIME-WAIT table", "net.ipv4.tcp_max_tw_buckets"
	most, known := x.k.setting(name)
	if !known {
		return
	}
	now, _ := x.k.counter("sockstat", "TCP", "tw")
	lost, _ := x.k.counter("netstat", "TcpExt", "TCPTimeWaitOverflow")
	switch {
	case most == 0 || now*10 >= most*9:
		x.add(risky, check, sysctl(name, max(2*most, 65536)), "%d connections are in TIME-WAIT on this machine, and %s allows %d: the kernel ends it early for others, and late packets can get into new connections.", now, name, most)
	case lost > 0:
		x.add(aside, check, sysctl(name, max(2*most, 65536)), "The kernel has ended TIME-WAIT early %s since it started, when there were more than %s allows (%d; %d now).", times(lost), name, most, now)
	default:
		x.add(good, check, "", "%d connections are in TIME-WAIT on this machine, and %s allows %d.", now, name, most)
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return strconv.Itoa(n) + " times"
}

func (x *examination) conntrack() {
	const check, name, lasts = "connection tracking", "net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_tcp_timeout_time_wait"
	most, known := x.k.setting(name)
	now, counted := x.k.setting("net.netfilter.nf_conntrack_count")
	if !known || !counted {
		return // it is not loaded
	}
	wait, _ := x.k.setting(lasts)
	switch {
	case most > 0 && now*10 >= most*8:
		x.add(risky, check, sysctl(name, 2*most), "The firewall's table has %d of %d connections; when it is full, new ones are dropped without a word. It keeps a closed one for %d s (%s).", now, most, wait, lasts)
	case wait > 120:
		x.add(aside, check, sysctl(lasts, 60), "The firewall's table keeps a closed connection for %d s (%s), far longer than the kernel's own TIME-WAIT of %s; it has %d of %d.", wait, lasts, about(timeWait), now, most)
	default:
		x.add(good, check, "", "The firewall's table has %d of %d connections, and keeps a closed one for %d s.", now, most, wait)
	}
}

// A session over rsh has two sockets; beside them the program has its listeners, input, output and the like.
const filesBeside = 64

func (x *examination) openFiles() {
	const check = "open files"
	need := 2*x.fanout + filesBeside
	switch {
	case x.files == 0:
	case x.files < need:
		x.add(risky, check, fmt.Sprintf("ulimit -n %d", need),
			"A fan-out of %d needs about %d open files, and a process here may have %d. Where the shell does not let you raise that, root may (limits.conf(5)), or run with --fanout %d.",
			x.fanout, need, x.files, max(1, (x.files-filesBeside)/2))
	default:
		x.add(good, check, "", "A fan-out of %d needs about %d open files, and a process here may have %d.", x.fanout, need, x.files)
	}
}

func (x *examination) rate() {
	usable := x.p.usable()
	x.add(good, "rate", "", "To one host %d sessions at a time are possible. How many come one after the other is not limited for who closes last, as multi-rsh does; "+
		"who closes first, and does not use a port again in TIME-WAIT, is limited to %d in %s: %.1f a second.", usable, usable, about(timeWait), float64(usable)/timeWait.Seconds())
}
