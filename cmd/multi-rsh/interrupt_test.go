package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestInterrupts(t *testing.T) {
	const (
		tty  = true
		pipe = false
	)
	type event struct {
		signal os.Signal
		after  time.Duration
	}
	const soon, late = 300 * time.Millisecond, 2 * time.Second
	for _, test := range []struct {
		name     string
		terminal bool
		events   []event
		want     string
	}{
		{"once", tty, []event{{os.Interrupt, 0}}, "status"},
		{"twice within a second", tty, []event{{os.Interrupt, 0}, {os.Interrupt, soon}}, "status stop:interrupted"},
		{"exactly a second", tty, []event{{os.Interrupt, 0}, {os.Interrupt, time.Second}}, "status stop:interrupted"},
		{"again later", tty, []event{{os.Interrupt, 0}, {os.Interrupt, late}, {os.Interrupt, soon}}, "status status stop:interrupted"},
		{"three times", tty, []event{{os.Interrupt, 0}, {os.Interrupt, soon}, {os.Interrupt, late}}, "status stop:interrupted kill:interrupted"},
		{"no terminal", pipe, []event{{os.Interrupt, 0}}, "stop:interrupted"},
		{"no terminal, twice", pipe, []event{{os.Interrupt, 0}, {os.Interrupt, late}}, "stop:interrupted kill:interrupted"},
		{"terminated", tty, []event{{syscall.SIGTERM, 0}}, "stop:terminated"},
		{"terminated, then Ctrl-C", tty, []event{{syscall.SIGTERM, 0}, {os.Interrupt, soon}}, "stop:terminated kill:interrupted"},
		{"the terminal closes", tty, []event{{syscall.SIGHUP, 0}, {syscall.SIGHUP, 0}, {syscall.SIGTERM, soon}},
			"stop:terminated, since the terminal is gone stop:terminated, since the terminal is gone stop:terminated"},
		{"Ctrl-backslash", tty, []event{{syscall.SIGQUIT, 0}}, "kill:interrupted"},
		{"Ctrl-backslash, no terminal", pipe, []event{{syscall.SIGQUIT, 0}}, "kill:interrupted"},
	} {
		var got []string
		i := interrupts{
			terminal: test.terminal,
			status:   func() { got = append(got, "status") },
			stop:     func(cause *stopped) { got = append(got, "stop:"+cause.Error()) },
			kill:     func(cause *stopped) { got = append(got, "kill:"+cause.Error()) },
		}
		now := time.Unix(1e9, 0)
		for _, event := range test.events {
			now = now.Add(event.after)
			i.take(event.signal, now)
		}
		if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}
