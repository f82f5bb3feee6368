//go:build unix

// Fleetsim serves a simulated fleet of rsh or SSH hosts on the loopback addresses 127.1.0.1, 127.1.0.2 … of this machine, for people,
// demonstrations and benchmarks. See package fleet for what the hosts do.
//
//	fleetsim --hosts 10000 --hosts-file hosts.txt &
//	multi-rsh -R rsh -l hosts.txt uname -n
//
//	fleetsim --protocol ssh --hosts 5000 --hosts-file hosts.txt --known-hosts known_hosts --identity key &
//	multi-rsh -o UserKnownHostsFile=known_hosts -i key -l hosts.txt uname -n
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	if code == exitUsage {
		fmt.Fprintln(os.Stderr, "fleetsim: see fleetsim --help")
	}
	os.Exit(code)
}
