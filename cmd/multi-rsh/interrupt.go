package main

import (
	"os"
	"syscall"
	"time"
)

// twice is how soon the second Ctrl-C must follow the first to stop the run.
const twice = time.Second

// interrupts turns signals into what they ask of a run.
//
//	on a terminal    Ctrl-C ─► status ── Ctrl-C within a second ─► stop ── Ctrl-C ─► kill
//	without one      SIGINT ─► stop ── SIGINT ─► kill
//	always           SIGTERM, SIGHUP ─► stop        SIGQUIT (Ctrl-\) ─► kill
//
// A second SIGTERM or SIGHUP asks for nothing more: a closing terminal often sends both, twice.
type interrupts struct {
	terminal bool
	status   func()               // shows how far the run is
	stop     func(cause *stopped) // politely; the first cause counts
	kill     func(cause *stopped) // at once

	stopping bool
	first    time.Time // the last Ctrl-C that showed the status
}

func (i *interrupts) take(signal os.Signal, now time.Time) {
	cause := &stopped{signal}
	switch {
	case signal == syscall.SIGQUIT || signal == os.Interrupt && i.stopping:
		i.stopping = true
		i.kill(cause)
	case signal == os.Interrupt && i.terminal && (i.first.IsZero() || now.Sub(i.first) > twice):
		i.first = now
		i.status()
	default:
		i.stopping = true
		i.stop(cause)
	}
}
