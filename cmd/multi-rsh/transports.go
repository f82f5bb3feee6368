package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"multirsh/transport"
	"multirsh/transport/execcmd"
	"multirsh/transport/rsh"
	"multirsh/transport/rsh/resvport"
)

// transports makes those that the hosts are reached by, and lets each say what it cannot do before anything is run. The
// function that it returns is for the end of the run.
func transports(c *config, hosts *selection, getenv func(string) string) (_ transport.Transport, close func() error, _ error) {
	if err := enoughFiles(c, hosts); err != nil {
		return nil, nil, err
	}
	mux := &transport.Mux{Named: map[string]transport.Transport{}}
	close = func() error { return nil }
	if hosts.by["exec"] {
		if err := execcmd.Validate(c.command); err != nil {
			return nil, nil, usagef("%v", err)
		}
		mux.Named["exec"] = &execcmd.Transport{Merge: c.merge}
	}
	if hosts.by["rsh"] {
		local, err := localUser()
		if err != nil {
			return nil, nil, err
		}
		ports := &resvport.Allocator{State: resvport.StatePath(getenv("XDG_STATE_HOME"), getenv("HOME"))}
		r := &rsh.Transport{
			Ports: ports, LocalUser: local, User: c.user, ConnectTimeout: c.connectTimeout,
			Merge: c.merge, Plain: c.plain, KillOnDisconnect: c.killOnDisconnect,
		}
		if err := r.CheckLine(c.command); err != nil {
			return nil, nil, usagef("%v", err)
		}
		if c.user != "" {
			if err := rsh.CheckUser(c.user); err != nil {
				return nil, nil, usagef("%v", err)
			}
		}
		if err := ports.Check(); err != nil {
			return nil, nil, err
		}
		mux.Named["rsh"], close = r, ports.Close
	}
	return mux, close, nil
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
// cannot carry: its hosts would fail one by one, for no reason of theirs.
func enoughFiles(c *config, hosts *selection) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	atOnce := uint64(min(c.fanout, hosts.count))
	if need := filesFor(atOnce, hosts); need > uint64(limit.Cur) {
		return usagef("%d hosts at once need about %d open files, and the limit is %d; raise it (ulimit -n %d) or lower --fanout",
			atOnce, need, limit.Cur, need)
	}
	return nil
}

// filesFor is about how many files n sessions at once have open.
func filesFor(n uint64, hosts *selection) uint64 {
	const ours = 32
	if hosts.by["exec"] {
		return 4*n + ours // two or three pipes and a pidfd
	}
	return 2*n + min(n, 250) + ours // two connections, and the listeners
}
