package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"multirsh/transport/rsh/sockdiag"
)

// stuck are the states that reap ends unless others are named; used are those that --force must be given for.
var (
	stuck = []sockdiag.State{sockdiag.TimeWait, sockdiag.FinWait2, sockdiag.CloseWait}
	used  = []sockdiag.State{sockdiag.Established, sockdiag.SynSent, sockdiag.SynRecv, sockdiag.NewSynRecv, sockdiag.Listen}
)

// risks are what may come of ending a socket, by state.
var risks = []struct {
	states []sockdiag.State
	text   string
}{
	{[]sockdiag.State{sockdiag.TimeWait},
		"TIME-WAIT keeps late packets of the old connection from a new one between the same ports. Without it a packet that was under way for long can do harm there, if it fits; with timestamps it is thrown away."},
	{[]sockdiag.State{sockdiag.FinWait1, sockdiag.FinWait2, sockdiag.Closing, sockdiag.LastAck},
		"The peer may not have all that was sent to it, and what it still sends is answered with a reset: a command that runs there may die at its next write."},
	{[]sockdiag.State{sockdiag.CloseWait},
		"In CLOSE-WAIT the process here gets an error from its next call, and what it had still to send is lost. The port stays bound until the process closes the socket."},
	{used,
		"These are in use: both ends lose their connection in the middle, and a service that listens stops to do so."},
}

// reap ends sockets.
func (q *portsQuery) reap() error {
	if err := q.reapable(); err != nil {
		return err
	}
	var p *portsPicture
	var chosen []sockdiag.Socket
	err := q.before(q.Signals(), func(ctx context.Context) (err error) {
		q.ctx = ctx
		p, chosen, err = q.toReap()
		return err
	})
	if err != nil || len(chosen) == 0 {
		return err
	}
	q.ctx = context.Background() // what has been begun is told
	return q.destroy(p, chosen)
}

// reapable looks at what --state, --force and --yes say together.
func (q *portsQuery) reapable() error {
	named := slices.DeleteFunc(slices.Clone(q.states), func(s sockdiag.State) bool { return !slices.Contains(used, s) })
	switch {
	case slices.Contains(q.states, sockdiag.Bound):
		return usagef("ports reap: a socket that is only bound belongs to its process alone; to free its port end that process")
	case len(named) > 0 && !q.is("force"):
		return usagef("ports reap: what is %s is in use; to end it all the same, give --force too", lookOf(named[0]).name)
	case q.is("force") && len(named) == 0:
		return usagef("--force is for sockets in use, and --state has to name them, as --state established")
	case q.is("json") && !q.is("yes"):
		return usagef("--json asks nothing, and nothing is ended unasked; give --yes too")
	}
	if len(q.states) == 0 {
		q.states = stuck
	}
	return nil
}

// toReap finds the sockets, shows them, and asks. No sockets: there are none, and that has been said.
func (q *portsQuery) toReap() (*portsPicture, []sockdiag.Socket, error) {
	if err := q.resolve(); err != nil {
		return nil, nil, err
	}
	p, err := q.read(q.olderThan > 0)
	if err != nil {
		return nil, nil, err
	}
	if q.olderThan > 0 {
		p.sockets = slices.DeleteFunc(p.sockets, func(s sockdiag.Socket) bool { return age(s, q.kernel) < q.olderThan })
		p.filter += fmt.Sprintf(", for %v or more", q.olderThan)
	}
	if q.is("json") {
		if len(p.sockets) > 0 {
			if err := sockdiag.CanDestroy(); err != nil {
				return nil, nil, cannotReap(err)
			}
			return p, p.sockets, nil
		}
		return p, nil, q.report(p, nil, nil)
	}
	out := newPrinter(q.ctx, q.Stdout, "")
	if len(p.sockets) == 0 {
		fmt.Fprintf(out, "nothing to end: no reserved port has a socket that is %s\n", p.filter)
		return p, nil, out.done()
	}
	view := q.view(out)
	view.picture(p)
	view.table(p, len(p.sockets))
	fmt.Fprintln(out)
	for _, risk := range risks {
		if slices.ContainsFunc(p.sockets, func(s sockdiag.Socket) bool { return slices.Contains(risk.states, s.State) }) {
			view.say("%s", risk.text)
		}
	}
	if err := out.done(); err != nil {
		return nil, nil, err
	}
	if err := sockdiag.CanDestroy(); err != nil {
		return nil, nil, cannotReap(err)
	}
	if q.is("yes") {
		return p, p.sockets, nil
	}
	answer, err := q.ask(q.ctx, fmt.Sprintf("End %s? [y/N] ", plural(len(p.sockets), "socket")), visible)
	switch {
	case errors.Is(err, errNoTerminal):
		return nil, nil, usagef("ports reap asks before it ends anything, and there is no terminal to ask on; --yes goes without")
	case err != nil && !errors.Is(err, io.EOF):
		return nil, nil, err
	}
	if word := strings.ToLower(strings.TrimSpace(answer)); word != "y" && word != "yes" {
		fmt.Fprintln(q.Stderr, "multi-rsh: nothing has been ended")
		return nil, nil, &ending{exitHosts}
	}
	return p, p.sockets, nil
}

func cannotReap(err error) error { return fmt.Errorf("nothing has been ended: %w", err) }

// age is how long a socket has been as it is. Where the kernel does not say since when, it is how long nothing has moved on the
// connection, which is never longer.
func age(s sockdiag.Socket, k kernel) time.Duration {
	switch {
	case s.State == sockdiag.TimeWait:
		return timeWait - s.Expires
	case s.State == sockdiag.FinWait2 && s.Timer == sockdiag.TimeWaitTimer:
		return k.finTimeout() - s.Expires
	}
	return s.Quiet
}

// destroy ends the sockets and says what has become of them.
func (q *portsQuery) destroy(p *portsPicture, sockets []sockdiag.Socket) error {
	var results []string
	var failed error
	err := sockdiag.Destroy(sockets, func(s sockdiag.Socket, err error) bool {
		switch {
		case err == nil:
			results = append(results, reaped)
		case errors.Is(err, sockdiag.ErrGone):
			results = append(results, gone)
		default:
			results = append(results, err.Error())
			if failed == nil {
				failed = fmt.Errorf("port %d, %s: %w", s.Local.Port(), lookOf(s.State).name, err)
			}
		}
		return !errors.Is(err, sockdiag.ErrNotPermitted) // nor are the others
	})
	if err != nil {
		return cannotReap(err)
	}
	return q.report(p, results, failed)
}

// What has become of a socket.
const (
	reaped = "ended"
	gone   = "gone" // by itself
)

func (q *portsQuery) report(p *portsPicture, results []string, failed error) error {
	numbers := map[string]int{}
	for _, r := range results {
		numbers[r]++
	}
	left := len(p.sockets) - numbers[reaped] - numbers[gone]
	out := newPrinter(q.ctx, q.Stdout, "")
	if q.is("json") {
		d := struct {
			Sockets []socketRecord `json:"sockets"`
			Ended   int            `json:"ended"`
			Gone    int            `json:"gone"`
			Failed  int            `json:"failed"`
		}{make([]socketRecord, len(p.sockets)), numbers[reaped], numbers[gone], left}
		for i, s := range p.sockets {
			d.Sockets[i] = p.record(s)
			if i < len(results) {
				d.Sockets[i].Result = results[i]
			}
		}
		out.json(d)
	} else {
		fmt.Fprintf(out, "%s ended", plural(numbers[reaped], "socket"))
		if n := numbers[gone]; n > 0 {
			fmt.Fprintf(out, ", %d had ended by then", n)
		}
		if left > 0 {
			fmt.Fprintf(out, ", %d left", left)
		}
		fmt.Fprintln(out)
	}
	if err := out.done(); err != nil {
		return err
	}
	return failed
}
