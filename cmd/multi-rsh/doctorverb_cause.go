package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"multirsh/runner"
	"multirsh/transport"
	"multirsh/transport/rsh"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/ssh"
	"multirsh/transport/ssh/hostkeys"
	"multirsh/transport/ssh/sshconfig"
)

// conclude says how a visit has ended: which step was the first that failed, why, and what mends it.
func (v *visit) conclude(ctx context.Context, d *checkup, r *runner.Result) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer v.tell()
	v.Outcome, v.ended, v.said = r.Outcome, r.Ended, map[string]step{}
	if v.start.IsZero() {
		v.start = r.Started
	}
	to, err := d.where.of(ctx, v.host)
	if err != nil {
		to = destination{user: v.host.User, address: v.host.Address()}
	}
	name, _ := splitAddress(to.address)
	v.own = []string{v.Host, "HOST", v.host.Address(), "HOST", name, "HOST"}
	for _, addr := range v.addrs {
		v.own = append(v.own, addr.Addr().String(), "ADDRESS")
	}
	if v.local.IsValid() {
		v.own = append(v.own, "port "+strconv.Itoa(int(v.local.Port())), "port N")
	}
	switch {
	case r.Outcome == runner.Cancelled:
		if v.hung = stepOf[r.Phase()]; v.hung == "" || v.reached(v.hung) {
			v.hung = v.next()
		}
	case r.Outcome == runner.OK && !r.Status.Background, r.Err == nil && !r.Status.Known:
		v.healthy(r)
	case r.Err != nil:
		v.fail(ctx, d, r, to)
	case r.Outcome == runner.Exit:
		v.because(stepStatus, fmt.Sprintf("the command \"true\" ended with status %d: what the login shell does before it runs a command goes wrong", r.Status.Code),
			v.on("getent passwd "+to.user, "names a shell that is there? Then see what it reads at its start (.bashrc, .cshrc, .zshenv)"))
	case r.Outcome == runner.Signal:
		v.because(stepStatus, fmt.Sprintf("the command \"true\" was ended by SIG%s", r.Status.Signal),
			v.on("journalctl -n 50", "says who has; limits of memory and time are in limits.conf(5)"))
	default: // something is left in the background
		v.because(stepClose, "the command has ended, and something that the login started still holds the connection",
			v.on("ps -fu "+to.user, "shows what. Have what the shell starts in the background take its output elsewhere: program >/dev/null 2>&1 </dev/null &"))
	}
}

// healthy completes the steps of a visit on which nothing failed.
func (v *visit) healthy(r *runner.Result) {
	if r.Status.Known {
		v.said[stepStatus] = step{Note: "exit " + strconv.Itoa(r.Status.Code)}
	}
	if v.reached(stepClose) {
		v.said[stepClose] = step{Note: "by the host first: nothing stays here"}
	} else {
		v.said[stepClose] = step{State: stepUnknown, Note: "the host did not close in time, so we reset: nothing stays here"}
	}
}

// because notes the step that failed.
func (v *visit) because(name, cause string, mends ...mend) {
	v.Failed, v.Cause, v.Mend = name, cause, mends
}

// on is what is to be done on the host: a command, and what it is for; one of them may be missing.
func (v *visit) on(run, text string) mend { return mend{v.Host, run, text} }

// here is what is to be done on this machine.
func here(run, text string) mend { return mend{"here", run, text} }

// fail finds out which step it is that an error is about.
func (v *visit) fail(ctx context.Context, d *checkup, r *runner.Result, to destination) {
	err, phase := r.Err, r.Phase()
	if op := (*transport.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	cause := err.Error()
	if limit := (*transport.TimeoutError)(nil); errors.As(err, &limit) && d.timeout == 0 && limit.After == longestVisit {
		cause = strings.ReplaceAll(cause, limit.Error(), (&transport.TimeoutError{After: longestVisit, Limit: "as long as doctor waits; --timeout says otherwise"}).Error())
	}
	if errors.As(err, new(*ssh.SettingsError)) {
		v.because(stepSettings, cause, here("ssh -G "+quoteWord(v.Host), "shows what ssh_config says for the host; mend that, the option or the file that is named"))
		return
	}
	if v.routed != nil && !v.reached(stepConnect) {
		to := v.addrs[0].Addr()
		v.because(stepRoute, fmt.Sprintf("this machine knows no way to %v: %v", to, v.routed), here("ip route get "+to.String(), "then add the route, or bring up the interface that leads there"))
		return
	}
	name := stepOf[phase]
	switch {
	case name == "": // the end of --timeout between the phases
		name = v.next()
	case phase == transport.PhaseStart && v.Transport == "ssh" && !v.reached(stepAuth):
		name = stepAuth
	case v.Transport == "rsh" && v.reached(stepAuth) && phase == transport.PhaseHandshake:
		name = stepStderr
	}
	if v.Transport == "rsh" {
		v.failRsh(ctx, d, to, name, cause, err)
	} else {
		v.because(name, cause, v.mendSSH(d, name, err, to)...)
	}
}

// late says whether something has taken longer than it may.
func late(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// failRsh is fail for what rshd(8) does.
func (v *visit) failRsh(ctx context.Context, d *checkup, to destination, name, cause string, err error) {
	port := cmp.Or(v.host.Port, rsh.DefaultPort)
	switch name {
	case stepResolve:
		v.because(name, cause, mendName(v.host.Address()))
	case stepPort:
		v.because(name, cause, here("multi-rsh ports doctor", "says who has the ports, or why this process may not use them"))
	case stepConnect:
		v.because(name, cause, v.mendConnect(err, v.host.Address(), port, "its rshd (inetd, xinetd, or systemctl enable --now rsh.socket)")...)
	case stepStderr:
		v.because(name, cause, v.mendStderr(), here("", "--merge does without the channel"))
	case stepAuth:
		v.failLogin(ctx, d, to, cause, err)
	case stepCommand:
		v.because(name, cause, v.mendCommand(to, err), here("", "--plain sends the bare command, to what is no Unix or has no /bin/sh"))
	default:
		v.because(name, cause, v.mendStatus(to, err)...)
	}
}

// mendCommand is for a login shell that does not start the command.
func (v *visit) mendCommand(to destination, err error) mend {
	if late(err) {
		return v.on("ps -fu "+to.user, "shows what the login shell waits for: a start-up file (.bashrc, .cshrc, .zshenv), or a home directory on a server that does not answer")
	}
	return v.on("getent passwd "+to.user, "shows the login shell: it has to start, and there has to be a /bin/sh")
}

// mendStatus is for a command that began and whose end has not come.
func (v *visit) mendStatus(to destination, err error) []mend {
	if late(err) {
		return []mend{v.on("ps -fu "+to.user, "shows what still runs, or waits")}
	}
	return []mend{
		v.on("journalctl -n 50", "says what has ended the session: a lack of memory, a restart of the host or of its daemon, a limit of time"),
		here("ping "+quoteWord(v.Host), "shows whether the network holds"),
	}
}

// failLogin tells apart what rshd(8) checks before it answers.
func (v *visit) failLogin(ctx context.Context, d *checkup, to destination, cause string, err error) {
	us := v.local.Addr().Unmap().WithZone("")
	if p := v.local.Port(); p != 0 && (p < resvport.First || p > resvport.Last) {
		v.because(stepTaken, fmt.Sprintf("the host is called from port %d, and accepts %d to %d alone", p, resvport.First, resvport.Last),
			here("multi-rsh ports doctor", "says why none of these is used"))
		return
	}
	name, known := us.String(), false
	if us.IsValid() {
		name, known = d.ourName(ctx, us)
	}
	lookup := fmt.Sprintf("by this machine's own resolver %v is %s", us, name)
	entry := name
	if !known {
		lookup = fmt.Sprintf("this machine's own resolver has no name for %v either", us)
		entry = machine()
	}
	v.said[stepTaken] = step{State: stepUnknown}
	switch {
	case errors.Is(err, rsh.ErrNoName):
		v.because(stepName, cause+" ("+lookup+")", v.addName(us.String(), entry))
	case errors.Is(err, rsh.ErrHungUp):
		v.because(stepName, cause+" ("+lookup+")", v.addName(us.String(), entry),
			v.on("journalctl -t in.rshd -t rshd -n 5", "says which of these it is (or /var/log/auth.log, daemon.log)"),
			mend{Text: "a router on the way that translates addresses (NAT) must leave the source port below 1024"})
	case late(err) && d.merge:
		v.noAnswer(cause+": the host has taken the connection and says nothing", us.String(), entry)
	case late(err):
		v.silent = true
		v.because(stepName, cause+": the host has taken the connection and says nothing, as when it looks for the name of our address at a name server that does not answer, or when its connection for stderr does not come through to us ("+lookup+")",
			v.addName(us.String(), entry), here("", fmt.Sprintf("let connections from %s to ports %d-%d in, or use --merge", v.Host, resvport.First, resvport.Last)))
	case errors.Is(err, rsh.ErrAccount):
		delete(v.said, stepTaken)
		v.because(stepAuth, cause, v.on("getent passwd "+to.user, "shows whether there is such a user, with a home directory and a shell that are there"),
			v.on("chage -l "+to.user, "shows whether the account or its password has expired"), v.on("rm /etc/nologin /run/nologin", "lets users in again, if one of them is there"))
	case errors.Is(err, transport.ErrAuth):
		delete(v.said, stepTaken)
		other := v.on("getent passwd "+to.user+"; chage -l "+to.user, "shows whether there is such a user, and whether the account or its password has expired; some rshds tell neither apart from .rhosts, nor /etc/nologin")
		if to.user == "root" {
			other = v.on("", "for root, netkit's in.rshd looks at .rhosts only with -h (inetd.conf), and PAM's pam_securetty and pam_rhosts may forbid it")
		}
		v.because(stepAuth, cause, v.on(fmt.Sprintf("printf '%%s %%s\\n' %s %s >>~%s/.rhosts; chown %s ~%s/.rhosts; chmod 600 ~%s/.rhosts",
			entry, d.localName(), to.user, to.user, to.user, to.user), ""), other)
	default:
		v.said[stepName] = step{State: stepUnknown}
		v.because(stepAuth, cause, v.on(fmt.Sprintf("ss -ltnp 'sport = :%d'", cmp.Or(v.host.Port, rsh.DefaultPort)), "shows whether it is an rshd that listens there"))
	}
}

// addName has the host know a name for our address.
func (v *visit) addName(address, name string) mend {
	return v.on(fmt.Sprintf("echo '%s %s' >>/etc/hosts", address, name), "")
}

// localName is the name that rsh gives the hosts.
func (d *checkup) localName() string {
	if t := d.plan.reach.rsh; t != nil {
		return t.LocalUser
	}
	return "USER"
}

// compare tells of a host that has not answered which of two causes it is. Of the visits since, one asked for no stderr channel, and if the host
// let that in, another one asked for it again; nil: it was not made.
func (v *visit) compare(d *checkup, without, with *visit) {
	us := v.local.Addr().Unmap().WithZone("")
	name := cmp.Or(d.names[us], machine())
	switch {
	case without == nil: // interrupted: what was said of both stands
		return
	case without.letIn() && with.letIn():
		v.because(stepName, "the host took longer than it may to answer the first time, and answers when it is asked again: what it looked up was slow, as the name of our address, or the host was busy",
			v.addName(us.String(), name), here("", "--connect-timeout gives it more time"))
	case without.letIn() && with != nil && with.silent:
		note := step{State: stepOK, Note: "as asked without a stderr channel"}
		v.said[stepTaken], v.said[stepName], v.said[stepAuth] = note, note, note
		v.because(stepStderr, "the host lets us in when it is asked for no stderr channel (tried just now, and once more with it), so what does not come through is its connection to us for that channel",
			v.mendStderr(), here("", "--merge does without the channel"))
	case without.silent:
		v.noAnswer("the host has taken the connection and says nothing, with a stderr channel and without one (tried just now)", us.String(), name)
	case slices.Contains([]string{stepTaken, stepName, stepAuth}, without.Failed): // else it could not even be connected to now
		v.Outcome, v.said = without.Outcome, without.said
		v.because(without.Failed, without.Cause, without.Mend...)
	}
	v.tell()
}

// noAnswer is a host that does not find out the name of our address, which is to be called name there.
func (v *visit) noAnswer(what, address, name string) {
	v.because(stepName, what+": it is looking for the name of our address, and its name server does not answer",
		v.addName(address, name), v.on("getent hosts "+address, "shows whether the name servers in /etc/resolv.conf answer"))
}

func (v *visit) mendStderr() mend {
	return here("", fmt.Sprintf("let connections in from %s's ports %d-%d to ports %d-%d of this machine, and see that its firewall lets them out", v.Host, resvport.First, resvport.Last, resvport.First, resvport.Last))
}

// mendName is for a name without an address.
func mendName(name string) mend {
	return here("getent hosts "+quoteWord(name), "then mend the name, add it to /etc/hosts, or give the address in the hosts file (addr=...)")
}

// mendConnect is for a host that cannot be connected to; server is what has to listen.
func (v *visit) mendConnect(err error, address string, port uint16, server string) []mend {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return []mend{v.mendListen(port, server)}
	case errors.Is(err, syscall.ECONNRESET):
		return []mend{v.on("journalctl -n 20", "says who turned the connection away: hosts.allow(5), or a limit of inetd or sshd on connections")}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return []mend{here("ping "+quoteWord(address)+"; ip neigh", "the host is down, or something on the way turns packets back")}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return []mend{
			here("ping "+quoteWord(address), "shows whether the host is up"),
			v.on("", fmt.Sprintf("if it is, a firewall there or on the way drops packets: let TCP to port %d in", port)),
		}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return []mend{here("ip addr", "shows the addresses of this machine: BindAddress has to be one of them, of the same family as the host's")}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return []mend{here("nft list ruleset", "shows the rule of this machine's own firewall that forbids it (or iptables -S OUTPUT)")}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return []mend{here("ulimit -n", "says how many files may be open: raise it, or lower --fanout")}
	}
	return nil
}

func (v *visit) mendListen(port uint16, server string) mend {
	return v.on(fmt.Sprintf("ss -ltn 'sport = :%d'", port), "shows whether somebody listens; if not, start "+server)
}

const sshServer = "its sshd (systemctl enable --now ssh), or say which port it is on: -o Port=2222"

// mendSSH is what mends a step of ssh. Most of its errors say so themselves.
func (v *visit) mendSSH(d *checkup, name string, err error, to destination) []mend {
	address, port := splitAddress(to.address)
	jump, forward := (*ssh.JumpError)(nil), (*ssh.ForwardError)(nil)
	log := v.on("journalctl -u ssh -u sshd -n 20", "says why")
	switch {
	case errors.As(err, &jump):
		return []mend{here(doctorOf(jump.First(), to), "looks at the jump host itself")}
	case errors.As(err, &forward) && errors.Is(err, syscall.ECONNREFUSED):
		return []mend{v.mendListen(port, sshServer)}
	case forward != nil && errors.Is(err, syscall.EHOSTUNREACH):
		return []mend{{forward.Jump, "getent hosts " + quoteWord(address) + "; ping " + quoteWord(address), "shows whether the jump host knows the host, and a way to it"}}
	case forward != nil:
		return []mend{{forward.Jump, "sshd -T | grep -i -e allowtcpforwarding -e permitopen", "shows what its sshd forwards"}}
	case to.jump != "" && name == stepConnect && to.jump == proxied:
		return []mend{here("", "run the ProxyCommand by hand")}
	case len(to.hops) > 0 && name == stepConnect:
		return []mend{{to.hops[len(to.hops)-1].Host, "ping " + quoteWord(address), "shows whether the jump host gets through to the host; if it does, a firewall drops packets to port " + strconv.Itoa(int(port))}}
	}
	switch name {
	case stepResolve:
		return []mend{mendName(address)}
	case stepConnect:
		return v.mendConnect(err, address, port, sshServer)
	case stepVersion:
		if to.jump == proxied {
			return []mend{here("", "run the ProxyCommand by hand: the first that it writes must be a line that begins with SSH-2.0")}
		}
		return []mend{log, v.on(fmt.Sprintf("ss -ltnp 'sport = :%d'", port), "shows what has the port")}
	case stepKeys:
		switch {
		case errors.Is(err, transport.ErrHostKey):
			return v.mendHostKey(err)
		case late(err):
			return []mend{here("ping -M do -s 1400 "+quoteWord(address)+"; ping "+quoteWord(address), "where the first fails and the second does not, large packets do not come through (MTU)"), v.on("uptime", "shows whether the processor has time for a key exchange")}
		case errors.Is(err, ssh.ErrNoCommon) && !d.legacy:
			return []mend{here("", "--legacy, if the server is old and you trust the network")}
		case errors.Is(err, ssh.ErrNoCommon):
			return []mend{v.on("sshd -T | grep -i -e kexalgorithms -e ciphers -e macs -e hostkeyalgorithms", "shows what the server offers")}
		}
		return []mend{log}
	case stepAuth:
		if late(err) {
			return []mend{v.on(log.Run, "a login waits for name servers (UseDNS), for PAM, or for a home directory on a server that does not answer")}
		}
		return []mend{here(copyID(to), "where a password lets you in; or name the key: --identity FILE"),
			v.on(log.Run, "says why; home, .ssh and authorized_keys must be writable by "+to.user+" alone")}
	case stepCommand:
		return []mend{v.on("getent passwd "+to.user, "shows the login shell; ForceCommand, command= and MaxSessions are in sshd_config and authorized_keys")}
	}
	return v.mendStatus(to, err)
}

// copyID is the command that has a host take our keys.
func copyID(to destination) string {
	address, port := splitAddress(to.address)
	command := "ssh-copy-id "
	if port != 0 && port != ssh.DefaultPort {
		command += fmt.Sprintf("-p %d ", port)
	}
	if len(to.hops) > 0 {
		command += "-o ProxyJump=" + quoteWord(to.jump) + " "
	}
	return command + quoteWord(to.user+"@"+address)
}

// doctorOf is the command that looks at a jump host, by way of those before it.
func doctorOf(jump string, to destination) string {
	i := slices.IndexFunc(to.hops, func(hop sshconfig.Jump) bool { return hop.Host == jump })
	if i < 0 { // ssh_config leads over it
		return "multi-rsh doctor " + quoteWord(jump)
	}
	command := "multi-rsh doctor "
	if i > 0 {
		var before []string
		for _, hop := range to.hops[:i] {
			before = append(before, hop.String())
		}
		command += "-J " + quoteWord(strings.Join(before, ",")) + " "
	}
	return command + quoteWord(to.hops[i].String())
}

// mendHostKey is for a host of which it is not sure that it is the right one.
func (v *visit) mendHostKey(err error) []mend {
	compare := v.on("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", "is the fingerprint to compare with (or ecdsa, rsa)")
	unknown, changed := (*hostkeys.UnknownError)(nil), (*hostkeys.ChangedError)(nil)
	switch {
	case errors.As(err, &unknown):
		return []mend{compare, here("multi-rsh doctor --host-keys ask "+quoteWord(v.Host), "takes the key, if it is the same")}
	case errors.As(err, &changed):
		v.own = append(v.own, fmt.Sprintf("%s:%d", changed.Line.File, changed.Line.Number), changed.Line.File+":LINE", strings.ToLower(changed.Name), "HOST")
		return []mend{compare, here("multi-rsh doctor --host-keys ask "+quoteWord(v.Host), "takes the new key, if it is the same and the old one has been removed (the command above)")}
	}
	return []mend{here("", "do not log in before you know who answers at "+v.Host)}
}
