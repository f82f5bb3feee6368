package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"multirsh/runner/output"
	"multirsh/transport"
	"multirsh/transport/execcmd"
	"multirsh/transport/rsh"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/ssh"
)

// reach is how the hosts of a run are reached.
type reach struct {
	transport.Mux
	rsh   *rsh.Transport      // nil: no host is reached by it
	ssh   *ssh.Transport      // nil: no host is reached by it
	ports *resvport.Allocator // of rsh; nil: no host is reached by it
}

// transports makes those that the hosts are reached by, and lets each say what it cannot do before anything is run.
func (e *env) transports(c *config, hosts *selection) (*reach, error) {
	for name := range hosts.by {
		if files := filesOf[name]; files != nil {
			if err := enoughFiles(c, hosts, files); err != nil {
				return nil, err
			}
		}
	}
	r := &reach{Mux: transport.Mux{Named: map[string]transport.Transport{}}}
	if hosts.by["exec"] {
		if err := execcmd.Validate(c.command); err != nil {
			return nil, usagef("%v", err)
		}
		local := &execcmd.Transport{Merge: c.merge}
		if c.past != nil {
			local.Dir = c.past.dir
		}
		r.Named["exec"] = local
	}
	if hosts.by["ssh"] {
		t, err := e.newSSH(c)
		if err != nil {
			return nil, err
		}
		r.Named["ssh"], r.ssh = t, t
	}
	if hosts.by["rsh"] {
		local, err := localUser()
		if err != nil {
			return nil, err
		}
		ports := &resvport.Allocator{State: resvport.StatePath(e.Getenv("XDG_STATE_HOME"), e.Getenv("HOME"))}
		t := &rsh.Transport{
			Ports: ports, LocalUser: local, User: c.user, ConnectTimeout: c.connectTimeout,
			Merge: c.merge, Plain: c.plain, KillOnDisconnect: c.killOnDisconnect,
		}
		if err := t.CheckLine(c.command); err != nil {
			return nil, usagef("%v", err)
		}
		if c.user != "" {
			if err := rsh.CheckUser(c.user); err != nil {
				return nil, usagef("%v", err)
			}
		}
		if !c.explain {
			if err := ports.Check(); err != nil {
				return nil, err
			}
		}
		r.Named["rsh"], r.rsh, r.ports = t, t, ports
	}
	return r, nil
}

// close lets go of the reserved ports.
func (r *reach) close() {
	if r.ports != nil {
		r.ports.Close()
	}
}

// portsInUse is what tells how many of the reserved ports are in use, and of how many; nil: none is needed.
func (r *reach) portsInUse() func() (used, of int) {
	if r.ports == nil {
		return nil
	}
	return func() (used, of int) {
		s := r.ports.Stats()
		return s.InUse, s.Ports
	}
}

// retries is how many connections were tried again because a server had dropped them.
func (r *reach) retries() int {
	if r.ssh == nil {
		return 0
	}
	return r.ssh.Stats().Retries
}

// localUser is the name that rsh tells the hosts. They trust it, so it is that of our user ID and not what the environment says.
func localUser() (string, error) {
	id := strconv.Itoa(os.Getuid())
	who, err := user.LookupId(id)
	if err != nil {
		return "", fmt.Errorf("rsh tells the hosts who calls, and user ID %s has no name here: add it to /etc/passwd", id)
	}
	return who.Username, nil
}

// enoughFiles refuses a fan-out that the limit of open files (RLIMIT_NOFILE, which the runtime has raised as far as it may)
// cannot carry: its hosts would fail one by one, for no reason of theirs. The transport says about how many files so many sessions have open.
func enoughFiles(c *config, hosts *selection, files func(sessions int) int) error {
	const ours = 32
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	atOnce := min(c.fanout, hosts.count)
	need := files(atOnce) + ours
	if c.outdir != "" || c.errdir != "" {
		need += output.FilesAtOnce
	}
	if uint64(need) > uint64(limit.Cur) {
		return usagef("%d hosts at once need about %d open files, and the limit is %d; raise it (ulimit -n %d) or lower --fanout",
			atOnce, need, limit.Cur, need)
	}
	return nil
}

// filesOf is what transport's own sessions have open. Of ssh it is known when its hosts have been prepared.
var filesOf = map[string]func(sessions int) int{
	"exec": func(n int) int { return 4 * n },           // two or three pipes and a pidfd
	"rsh":  func(n int) int { return 2*n + behind(n) }, // two connections, and the listeners
}

// behind is how many connections close behind so many sessions.
func behind(sessions int) int { return min(sessions, 250) }
