package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"multirsh/transport/rsh"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/rsh/sockdiag"
)

// statsOption has the run account for its ports and connections.
var statsOption = &option{name: "stats", group: "More output", text: "at the end: what the run needed of ports"}

// shortAfter is how often it is looked whether the reserved ports run short.
const shortAfter = time.Second

// account is what a run has needed of reserved ports and connections.
type account struct {
	ports  *resvport.Allocator // nil: none
	before int                 // connections in TIME-WAIT to an rshd when it began
}

// account begins one.
func (r *reach) account() *account {
	a := &account{ports: r.ports}
	if a.ports != nil {
		a.before, _ = waitingForRsh()
	}
	return a
}

// waitingForRsh counts the connections of this machine to an rshd that it keeps in TIME-WAIT on a reserved port.
func waitingForRsh() (int, error) {
	table, err := sockdiag.Table(sockdiag.Filter{States: []sockdiag.State{sockdiag.TimeWait}, MinPort: resvport.First, MaxPort: resvport.Last})
	n := 0
	for _, s := range table {
		if s.Remote.Port() == rsh.DefaultPort {
			n++
		}
	}
	return n, err
}

// write says what the run has needed.
func (a *account) write(w io.Writer, r *reach) error {
	var b strings.Builder
	if a.ports != nil {
		s := a.ports.Stats()
		fmt.Fprintf(&b, "reserved ports: %d of %d used for %s, at most %d at once\n", s.Used, s.Ports, number(s.Dialled, "connection"), s.Peak)
		fmt.Fprintf(&b, "  passed over: %d at bind (another program has them), %d at connect (the kernel still knows the pair)\n", s.BindBusy, s.PairBusy)
		fmt.Fprintf(&b, "  waits: %d for a port, %d for a listener; %s lent\n", s.DialWaits, s.LeaseWaits, number(s.Leases, "listener"))
		if n, err := waitingForRsh(); err == nil {
			fmt.Fprintf(&b, "  left in TIME-WAIT here, by the kernel's table: %d (%d of all programs, %d before the run)\n", max(0, n-a.before), n, a.before)
		} else {
			fmt.Fprintf(&b, "  left in TIME-WAIT here: not known (%v)\n", err)
		}
	}
	if r.ssh != nil {
		s := r.ssh.Stats()
		fmt.Fprintf(&b, "ssh: %s, %d closed by the server first, %d reset; %d tries again after a server had dropped one\n",
			number(s.ClosedFirst+s.Reset, "connection"), s.ClosedFirst, s.Reset, s.Retries)
	}
	if b.Len() == 0 {
		b.WriteString("local commands need no ports\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// short is what is said when a host has had to wait for a reserved port; "": none has.
func (a *account) short() string {
	if a.ports == nil {
		return ""
	}
	s := a.ports.Stats()
	if s.DialWaits == 0 {
		return ""
	}
	return fmt.Sprintf("multi-rsh: reserved ports are short, and hosts wait for one: this run has %d of %d%s; multi-rsh ports doctor says more\n", s.InUse, s.Ports, otherHolders())
}

// otherHolders says what else has reserved ports.
func otherHolders() string {
	table, err := sockdiag.Table(sockdiag.Filter{MinPort: resvport.First, MaxPort: resvport.Last})
	if err != nil {
		return ""
	}
	ctx, stop := context.WithTimeout(context.Background(), shortAfter)
	defer stop()
	owners, _ := sockdiag.FindOwners(ctx)
	held, waiting := map[string]map[uint16]bool{}, map[uint16]bool{}
	note := func(who string, port uint16) {
		if held[who] == nil {
			held[who] = map[uint16]bool{}
		}
		held[who][port] = true
	}
	for _, s := range table {
		port := s.Local.Port()
		of := owners.ByInode[s.Inode]
		switch {
		case s.State == sockdiag.TimeWait, s.State == sockdiag.FinWait1, s.State == sockdiag.FinWait2:
			waiting[port] = true
		case s.Inode == 0 || len(of) > 0 && of[0].PID == os.Getpid():
		case len(of) == 0:
			note("processes of other users", port)
		default:
			note(fmt.Sprintf("%s (%d)", printable(of[0].Name, 0), of[0].PID), port)
		}
	}
	var words []string
	for _, who := range slices.SortedFunc(maps.Keys(held), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(held[b]), len(held[a])), cmp.Compare(a, b))
	}) {
		if len(words) == 3 {
			break
		}
		words = append(words, fmt.Sprintf("%s has %d", who, len(held[who])))
	}
	if len(waiting) > 0 {
		words = append(words, fmt.Sprintf("%d are closing or in TIME-WAIT, after a program that closed first", len(waiting)))
	}
	if len(words) == 0 {
		return ""
	}
	return ", " + strings.Join(words, ", ")
}
