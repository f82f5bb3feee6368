// Command multi-rsh runs a command on many hosts at once. multi-rsh(1) and multi-rsh-hosts(1), which are
// embedded, describe its use.
//
// This package composes and does little else:
//
//	arguments, environment ─► options.go ─┐                 groupsources.go, hosts files
//	configuration ─► toml.go ─► configfile.go ─► config.go ─────────────┴─► hosts.go ─► the runner's hosts
//	                                                 └────► run.go: transports, sinks, signals ─► runner.Run ─► exit.go
//	                                                        dryrun.go: shows it instead
//
// The verb "multi-rsh hosts" asks the same inventory and runs nothing:
//
//	standard input ─► hostsverb_input.go ─┐
//	arguments ─► hostsverb.go ────────────┴─► hostlist, groups ─► hostsverb_output.go ─► standard output
//
// Only main touches the process; all below it takes streams, environment, clock and signals from an [env].
package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run(process())) }

// process is what the program sees when it is run.
func process() *env {
	signals := make(chan os.Signal, 8)
	return &env{
		Stdin:    os.Stdin,
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Args:     os.Args[1:],
		Getenv:   os.Getenv,
		Now:      time.Now,
		Etc:      "/etc",
		Terminal: func() (*os.File, error) { return os.OpenFile("/dev/tty", os.O_RDWR, 0) },
		Signals: func() <-chan os.Signal {
			// To be told of it is enough: the write that nobody reads fails, instead of ending the process. Ignoring it would
			// have the commands of -R exec ignore it too.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
			for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
				if !signal.Ignored(sig) { // by nohup(1), or by a shell that put us into the background: that stands
					signal.Notify(signals, sig)
				}
			}
			return signals
		},
	}
}
