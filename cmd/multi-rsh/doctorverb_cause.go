package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"

	"multirsh/runner"
	"multirsh/transport"
	"multirsh/transport/rsh"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/ssh/hostkeys"
)

// conclude says how a visit has ended: which step was the first that failed, why, and what mends it.
func (v *visit) conclude(ctx context.Context, d *checkup, r *runner.Result) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.Outcome = r.Outcome
	if r.Outcome == runner.OK && !r.Status.Background || r.Err == nil && !r.Status.Known {
		v.healthy(r)
		return
	}
	to, err := d.where.of(ctx, v.host)
	if err != nil {
		to.address = v.host.Address()
	}
	switch {
	case r.Err != nil:
		v.fail(ctx, d, r, to)
	case r.Outcome == runner.Exit:
		v.undo(stepStatus)
		v.because(stepStatus, r.Ended, fmt.Sprintf("the command \"true\" ended with status %d: what the login shell does before it runs a command goes wrong", r.Status.Code),
			v.on("see what %s's shell reads at its start (.bashrc, .cshrc, .zshenv), and that /etc/passwd names a shell that is there", to.user))
	case r.Outcome == runner.Signal:
		v.undo(stepStatus)
		v.because(stepStatus, r.Ended, fmt.Sprintf("the command \"true\" was ended by SIG%s", r.Status.Signal), v.on("see its log, and limits of memory or time (limits.conf(5))"))
	default: // something is left in the background
		v.undo(stepClose)
		v.because(stepClose, r.Ended, "the command has ended, and something that the login started still holds the connection",
			v.on("have what %s's shell starts in the background take its output elsewhere: program >/dev/null 2>&1 </dev/null &", to.user))
	}
}

// healthy completes the steps of a visit on which nothing failed.
func (v *visit) healthy(r *runner.Result) {
	for i := range v.Steps {
		switch s := &v.Steps[i]; {
		case s.Step == stepStatus && r.Status.Known:
			s.Note = "exit " + strconv.Itoa(r.Status.Code)
		case s.Step == stepClose:
			s.Note = "by the host first: nothing stays here"
		}
	}
	for _, name := range []string{stepCommand, stepStatus} { // of which the bare protocol of rsh tells nothing
		if !v.reached(name) {
			at := len(v.Steps)
			if v.reached(stepClose) {
				at--
			}
			v.Steps = slices.Insert(v.Steps, at, step{Step: name, State: stepUnknown})
		}
	}
	if !v.reached(stepClose) {
		v.with(stepClose, stepUnknown)
		v.Steps[len(v.Steps)-1].Note = "the host did not close in time, so we reset: nothing stays here"
	}
}

// because notes the step that failed.
func (v *visit) because(name string, at time.Time, cause string, mend ...string) {
	v.Failed, v.Cause, v.Mend = name, cause, nil
	for _, text := range mend {
		if text != "" {
			v.Mend = append(v.Mend, text)
		}
	}
	if v.last.IsZero() { // it was over before it began
		v.last = at
	}
	v.add(name, stepFailed, max(0, at.Sub(v.last)), "")
	v.last = at
}

// on is what is to be done on the host.
func (v *visit) on(format string, args ...any) string {
	return "on " + v.Host + ": " + fmt.Sprintf(format, args...)
}

// here is what is to be done on this machine.
func here(format string, args ...any) string { return "here: " + fmt.Sprintf(format, args...) }

// fail finds out which step it is that an error is about.
func (v *visit) fail(ctx context.Context, d *checkup, r *runner.Result, to destination) {
	err, phase := r.Err, r.Phase()
	if op := (*transport.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if v.routed != nil && !v.reached(stepConnect) {
		v.undo(stepPort) // of no use to anybody
		v.because(stepRoute, r.Ended, fmt.Sprintf("this machine knows no way to %v: %v", v.addrs[0].Addr(), v.routed),
			here("ip route get %v; then add the route, or bring up the interface that leads there", v.addrs[0].Addr()))
		return
	}
	name := stepOf[phase]
	switch {
	case name == "": // a policy's, which there is none of here, or the end of --timeout
		name = stepCommand
	case phase == transport.PhaseStart && v.Transport == "ssh" && !v.reached(stepAuth):
		name = stepAuth
	case v.Transport == "rsh" && v.reached(stepAuth) && phase == transport.PhaseHandshake:
		name = stepStderr
	}
	if name != stepClose {
		v.undo(stepClose) // the host has, before its time
	}
	if v.reached(name) && name != stepPort { // as a login that rsh-redone's rshd first accepts
		v.undo(name)
	}
	cause := err.Error()
	if v.Transport == "rsh" {
		v.failRsh(ctx, d, r, to, name, cause, err)
		return
	}
	v.because(name, r.Ended, cause, v.mendSSH(name, err, to)...)
}

// late says whether something has taken longer than it may.
func late(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// failRsh is fail for what rshd(8) does.
func (v *visit) failRsh(ctx context.Context, d *checkup, r *runner.Result, to destination, name, cause string, err error) {
	port := cmp.Or(v.host.Port, rsh.DefaultPort)
	switch name {
	case stepResolve:
		v.because(name, r.Ended, cause, mendName(v.host))
	case stepPort:
		mend := here("multi-rsh ports doctor")
		v.because(name, r.Ended, cause, mend)
	case stepConnect:
		v.because(name, r.Ended, cause, v.mendConnect(err, port, "its rshd (inetd, xinetd, or systemctl enable --now rsh.socket)")...)
	case stepStderr:
		v.because(name, r.Ended, cause, v.mendStderr(), here("--merge does without the channel"))
	case stepAuth:
		v.failLogin(ctx, d, r, to, cause, err)
	case stepCommand:
		v.because(name, r.Ended, cause, v.on("see that %s's login shell starts, and that there is a /bin/sh; --plain sends the bare command to what is no Unix", to.user))
	default:
		v.because(name, r.Ended, cause)
	}
}

// failLogin tells apart what rshd(8) checks before it answers.
func (v *visit) failLogin(ctx context.Context, d *checkup, r *runner.Result, to destination, cause string, err error) {
	v.undo(stepTaken)
	us := v.local.Addr().Unmap()
	if p := v.local.Port(); p != 0 && (p < resvport.First || p > resvport.Last) {
		v.because(stepTaken, r.Ended, fmt.Sprintf("the host is called from port %d, and accepts %d to %d alone", p, resvport.First, resvport.Last), here("multi-rsh ports doctor"))
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
	addName := v.on("echo '%v %s' >>/etc/hosts", us, entry)
	switch {
	case errors.Is(err, rsh.ErrNoName):
		v.with(stepTaken, stepUnknown)
		v.because(stepName, r.Ended, cause+" ("+lookup+")", addName)
	case errors.Is(err, rsh.ErrHungUp):
		v.with(stepTaken, stepUnknown)
		v.because(stepName, r.Ended, cause+" ("+lookup+")", addName,
			v.on("journalctl -t in.rshd -t rshd -n 5 (or /var/log/auth.log, daemon.log) says which of these it is"),
			"on the way: a router that translates addresses (NAT) must leave the source port below 1024")
	case late(err) && d.merge:
		v.noAnswer(r.Ended, cause+": the host has taken the connection and says nothing", entry)
	case late(err):
		v.silent = true
		v.with(stepTaken, stepUnknown)
		v.because(stepName, r.Ended, cause+": the host has taken the connection and says nothing, as when it looks for the name of our address at a name server that does not answer, or when its connection for stderr does not come through to us ("+lookup+")",
			addName, here("let connections from %s to ports %d-%d in, or use --merge", v.Host, resvport.First, resvport.Last))
	case errors.Is(err, transport.ErrAuth):
		v.with(stepTaken, stepOK)
		v.with(stepName, stepOK)
		mend := v.on("printf '%%s %%s\\n' %s %s >>~%s/.rhosts; chown %s ~%s/.rhosts; chmod 600 ~%s/.rhosts", entry, d.localName(), to.user, to.user, to.user, to.user)
		other := v.on("getent passwd %s shows whether there is such a user", to.user)
		if to.user == "root" {
			other = v.on("for root, netkit's in.rshd looks at .rhosts only with -h (inetd.conf), and PAM's pam_securetty and pam_rhosts may forbid it")
		}
		v.because(stepAuth, r.Ended, cause, mend, other)
	default:
		v.with(stepTaken, stepUnknown)
		v.with(stepName, stepUnknown)
		v.because(stepAuth, r.Ended, cause, v.on("see that it is an rshd that listens there: ss -ltnp 'sport = :%d'", cmp.Or(v.host.Port, rsh.DefaultPort)))
	}
}

// localName is the name that rsh gives the hosts.
func (d *checkup) localName() string {
	if t := d.plan.reach.rsh; t != nil {
		return t.LocalUser
	}
	return "USER"
}

// compare tells, with a second visit that asked for no stderr channel, which of two causes it is.
func (v *visit) compare(d *checkup, without *visit) {
	at := v.last
	switch {
	case without.reached(stepAuth):
		v.undo(stepTaken)
		v.with(stepTaken, stepOK)
		v.with(stepName, stepOK)
		v.with(stepAuth, stepOK)
		v.because(stepStderr, at, "the host lets us in when it is asked for no stderr channel (tried just now), so what does not come through is its connection to us for that channel",
			v.mendStderr(), here("--merge does without the channel"))
	case without.silent:
		v.undo(stepTaken)
		v.noAnswer(at, "the host has taken the connection and says nothing, with a stderr channel and without one (tried just now)",
			cmp.Or(d.names[v.local.Addr().Unmap()], machine()))
	default:
		if tail := without.tail(); tail != nil { // else it could not even be connected to now
			v.undo(stepTaken)
			v.Steps = append(v.Steps, tail...)
			v.Outcome, v.Failed, v.Cause, v.Mend = without.Outcome, without.Failed, without.Cause, without.Mend
		}
	}
}

// noAnswer is a host that does not find out the name of our address, which is to be called name there.
func (v *visit) noAnswer(at time.Time, what, name string) {
	us := v.local.Addr().Unmap()
	v.with(stepTaken, stepUnknown)
	v.because(stepName, at, what+": it is looking for the name of our address, and its name server does not answer",
		v.on("echo '%v %s' >>/etc/hosts", us, name), v.on("see that the name servers in /etc/resolv.conf answer: getent hosts %v", us))
}

// tail is the steps from the host's answer on.
func (v *visit) tail() []step {
	for i, s := range v.Steps {
		if s.Step == stepTaken {
			return v.Steps[i:]
		}
	}
	return nil
}

func (v *visit) mendStderr() string {
	return here("let connections in from %s's ports %d-%d to ports %d-%d of this machine, and see that its firewall lets them out", v.Host, resvport.First, resvport.Last, resvport.First, resvport.Last)
}

// mendName is for a name without an address.
func mendName(host transport.Host) string {
	return here("getent hosts %s; then mend the name, add it to /etc/hosts, or give the address in the hosts file (addr=...)", host.Address())
}

// mendConnect is for a host that cannot be connected to; server is what has to listen.
func (v *visit) mendConnect(err error, port uint16, server string) []string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return []string{v.on("ss -ltn 'sport = :%d' shows whether somebody listens; if not, start %s", port, server)}
	case errors.Is(err, syscall.ECONNRESET):
		return []string{v.on("journalctl -n 20 says who turned the connection away: hosts.allow(5), or a limit of inetd or sshd on connections")}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return []string{here("ping %s; ip neigh; the host is down, or something on the way turns packets back", v.host.Address())}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return []string{
			here("ping %s shows whether the host is up", v.host.Address()),
			v.on("if it is, a firewall there or on the way drops packets: let TCP to port %d in", port),
		}
	}
	return nil
}

// mendSSH is what mends a step of ssh. Most of its errors say so themselves.
func (v *visit) mendSSH(name string, err error, to destination) []string {
	at := to.user + "@" + v.Host
	address, port := splitAddress(to.address)
	switch name {
	case stepResolve:
		return []string{mendName(v.host)}
	case stepConnect:
		if to.jump != "" && to.jump != "(ProxyCommand)" {
			return []string{here("multi-rsh doctor %s looks at the jump host itself", to.jump)}
		}
		return v.mendConnect(err, port, "its sshd (systemctl enable --now ssh), or say which port it is on: -o Port=2222")
	case stepVersion:
		if to.jump == "(ProxyCommand)" {
			return []string{here("run the ProxyCommand by hand: the first that it writes must be a line that begins with SSH-2.0")}
		}
		return []string{v.on("journalctl -u ssh -n 5 says why it hangs up or does not answer, ss -ltnp what has the port")}
	case stepKeys:
		if errors.Is(err, transport.ErrHostKey) {
			return v.mendHostKey(err)
		}
		if late(err) {
			return []string{here("ping -M do -s 1400 %s, and ping alone: where the first fails, large packets do not come through (MTU)", address), v.on("uptime: a key exchange needs the processor")}
		}
		return []string{here("--legacy, if the server is old and you trust the network")}
	case stepAuth:
		if late(err) {
			return []string{v.on("journalctl -u ssh -n 5; a login waits for name servers (UseDNS), for PAM, or for a home directory on a server that does not answer")}
		}
		return []string{here("ssh-copy-id %s, where a password lets you in; or name the key: --identity FILE", at), v.on("journalctl -u ssh -n 5; home, .ssh and authorized_keys must be writable by %s alone", to.user)}
	case stepCommand:
		return []string{v.on("see %s's shell in /etc/passwd, and ForceCommand, command=, MaxSessions in sshd_config and authorized_keys", to.user)}
	}
	return nil
}

// mendHostKey is for a host of which it is not sure that it is the right one.
func (v *visit) mendHostKey(err error) []string {
	compare := v.on("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub (or ecdsa, rsa) is the fingerprint to compare with")
	unknown, changed := (*hostkeys.UnknownError)(nil), (*hostkeys.ChangedError)(nil)
	switch {
	case errors.As(err, &unknown):
		return []string{compare, here("multi-rsh doctor --host-keys ask %s", v.Host)}
	case errors.As(err, &changed):
		return []string{compare, here("if it is the same, remove the old key (the command above), then multi-rsh doctor --host-keys ask %s", v.Host)}
	}
	return []string{here("do not log in before you know who answers at %s", v.Host)}
}
