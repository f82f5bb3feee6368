package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"multirsh/transport/rsh/sockdiag"
)

// explain says what the states mean that are found here, in all ports or in one.
func (q *portsQuery) explain() error {
	return q.before(q.Signals(), func(ctx context.Context) error {
		q.ctx = ctx
		p, err := q.read(false)
		if err != nil {
			return err
		}
		out := newPrinter(ctx, q.Stdout, "")
		view := q.view(out)
		if q.port != 0 {
			view.explainPort(p, q.port, q.kernel)
		} else {
			view.explainAll(p, q.kernel)
		}
		return out.done()
	})
}

// explainAll draws the states with the number of sockets in each, and then explains those that are not empty.
func (v *portsView) explainAll(p *portsPicture, k kernel) {
	v.headline(p, count(p.ports()))
	v.diagram(p, k)
	explained := false
	for at, l := range looks {
		var of []sockdiag.Socket
		for _, s := range p.sockets {
			if lookAt(s.State) == at {
				of = append(of, s)
			}
		}
		if len(of) > 0 {
			fmt.Fprintf(v.W, "\n%s: %s on %s\n", v.Paint(l.color, strings.ToUpper(l.name)), plural(len(of), "socket"), plural(portsOf(of), "port"))
			v.meaning(p, of, k)
			explained = true
		}
	}
	if !explained {
		fmt.Fprintln(v.W)
		v.say("No reserved port has a socket, so there is nothing to explain.")
	}
	v.blocked(p)
}

// explainPort explains one port.
func (v *portsView) explainPort(p *portsPicture, port uint16, k kernel) {
	by := p.blocked[port]
	found := slices.DeleteFunc(slices.Clone(p.sockets), func(s sockdiag.Socket) bool { return s.Local.Port() != port })
	switch {
	case len(found) == 0 && by == "":
		fmt.Fprintf(v.W, "port %d is free\n", port)
		v.say("Any program that may use reserved ports can take it.")
	case by != "":
		fmt.Fprintf(v.W, "port %d is blocked by %s\n", port, by)
		v.say("Programs that ask for just any reserved port leave it alone, multi-rsh among them; one that asks for this very port gets it.")
	default:
		fmt.Fprintf(v.W, "port %d has %s\n", port, plural(len(found), "socket"))
	}
	for _, s := range found {
		l := lookOf(s.State)
		fmt.Fprintf(v.W, "\n%s, %s\n", v.Paint(l.color, strings.ToUpper(l.name)), strings.TrimPrefix(peerOf(s), "on "))
		v.meaning(p, []sockdiag.Socket{s}, k)
	}
}

func portsOf(sockets []sockdiag.Socket) int {
	ports := map[uint16]bool{}
	for _, s := range sockets {
		ports[s.Local.Port()] = true
	}
	return len(ports)
}

// blocked says what blocks ports.
func (v *portsView) blocked(p *portsPicture) {
	by := map[string]int{}
	for _, name := range p.blocked {
		by[name]++
	}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range by {
			if !yield(name) {
				return
			}
		}
	}) {
		fmt.Fprintf(v.W, "\n%s: %s named in %s\n", v.Paint(looks[lookBlocked].color, "BLOCKED"), plural(by[name], "port"), name)
		v.say("Programs that ask for just any reserved port leave these alone, so that the services whose ports they are find them free.")
	}
}

// say writes a paragraph.
func (v *portsView) say(format string, args ...any) {
	width := 80
	if v.Width > 0 {
		width = min(width, max(v.Width, 30))
	}
	writeParagraph(v.W, fmt.Sprintf(format, args...), "  ", width)
}

// writeParagraph writes words in lines of at most width columns, each behind indent.
func writeParagraph(w io.Writer, text, indent string, width int) {
	line := indent
	for word := range strings.FieldsSeq(text) {
		if line != indent && len([]rune(line))+1+len([]rune(word)) > width {
			fmt.Fprintln(w, line)
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	if line != indent {
		fmt.Fprintln(w, line)
	}
}

// diagram is the closing half of the state diagram of RFC 9293, figure 5, with the number of sockets in each state. A terminal that is too
// narrow for it goes without.
func (v *portsView) diagram(p *portsPicture, k kernel) {
	numbers := map[string]int{}
	for _, s := range p.sockets {
		numbers[lookOf(s.State).name]++
	}
	box := func(name string, width int) string {
		text := fmt.Sprintf("%s %d", strings.ToUpper(name), numbers[name])
		pad := strings.Repeat(" ", max(0, width-len(text)))
		if l := looks[slices.IndexFunc(looks, func(l look) bool { return l.name == name })]; numbers[name] > 0 {
			text = v.Paint(l.color, text)
		}
		return text + pad
	}
	drawing := fmt.Sprintf(`
  %s   %s   %s
           │ answered       │ the handshake is over
           └───────┬────────┘
                   ▼
            %s
  we close first   │    they close first
       ┌───────────┴─────────────────┐
       ▼                             ▼
  %s      %s our program has to close
       │  └ both at once ─┐          │
       ▼                  ▼          ▼
  %s %s%s their kernel: about %s
       │ they close       │          │
       ▼                  │          ▼
  %s◄─┘        the port is free
       │ %s
       ▼
  the port is free
`,
		box("syn-sent", 12), box("syn-received", 16), box("listen", 0),
		box("established", 0),
		box("fin-wait-1", 23), box("close-wait", 14),
		box("fin-wait-2", 18), box("closing", 10), box("last-ack", 12), about(k.orphanGivesUp()),
		box("time-wait", 23), about(timeWait))
	for line := range strings.Lines(colors.ReplaceAllString(drawing, "")) {
		if v.Width > 0 && utf8.RuneCountInString(line)-1 > v.Width {
			return
		}
	}
	io.WriteString(v.W, drawing)
}

// meaning says of sockets in one state what the state is, who has to act, and when it goes.
func (v *portsView) meaning(p *portsPicture, of []sockdiag.Socket, k kernel) {
	held, orphans := 0, 0
	for _, s := range of {
		if s.Inode == 0 {
			orphans++
		} else {
			held++
		}
	}
	shortest, longest := of[0].Expires, of[0].Expires
	for _, s := range of {
		shortest, longest = min(shortest, s.Expires), max(longest, s.Expires)
	}
	goes := fmt.Sprintf("It goes in %s", tenths(shortest))
	if len(of) > 1 {
		goes = fmt.Sprintf("The first goes in %s, the last in %s", tenths(shortest), tenths(longest))
	}
	who := v.holders(p, of)
	switch of[0].State {
	case sockdiag.TimeWait:
		v.say("Both ends have closed, and ours did so first. Nobody has to act, and nobody can be asked to: for %s the kernel keeps the pair of addresses and ports, "+
			"so that late packets of this connection do not get into the next. %s. Linux has no setting for that time.", about(timeWait), goes)
		if k.tcp("tcp_timestamps", 1) != 0 {
			v.say("The port is not lost meanwhile: with SO_REUSEADDR it serves other hosts at once, and the same host too if it uses TCP timestamps, as this machine does. "+
				"A program that does neither, as rsh(1), finds it taken. To be rid of them: close last, as multi-rsh does, or %q.", "multi-rsh ports reap")
		} else {
			v.say("With SO_REUSEADDR the port serves other hosts at once; the same host not before that time is over, since net.ipv4.tcp_timestamps is 0 here. " +
				"A program without SO_REUSEADDR, as rsh(1), finds it taken.")
		}
	case sockdiag.FinWait1:
		v.say("We have closed first, and the peer's kernel has not confirmed it: it is slow, gone, or its window is full. Its kernel has to act. ")
		if orphans > 0 {
			v.say("%d without a process: our kernel gives up after some %s (tcp_orphan_retries) and forgets the connection.", orphans, about(k.orphanGivesUp()))
		}
		if held > 0 {
			v.say("%d with one, %s: our kernel gives up after some %s (tcp_retries2).", held, who, about(givesUp(k.tcp("tcp_retries2", 15), firstAgain)))
		}
	case sockdiag.FinWait2:
		v.say("We have closed first, the peer's kernel has confirmed it, and the program there has not closed its end. It has to act; a command that still runs is such a program. ")
		if orphans > 0 {
			v.say("%d without a process: our kernel forgets such a connection after %s (tcp_fin_timeout), unless data come.", orphans, about(k.finTimeout()))
		}
		if held > 0 {
			v.say("%d with one, %s, which has closed one direction and may still read: that lasts as long as both ends like.", held, who)
		}
	case sockdiag.Closing:
		v.say("Both ends closed at the same moment; the peer's kernel has to confirm our FIN. Then it is TIME-WAIT for %s, at both ends. If no answer comes we give up after some %s.", about(timeWait), about(k.orphanGivesUp()))
	case sockdiag.CloseWait:
		v.say("The peer has closed, and the program here has not. The program has to act: %s. The kernel waits for it without end, so a port that stays in this state for long is that program's mistake, "+
			"and restarting the program frees it.", who)
	case sockdiag.LastAck:
		v.say("The peer closed first and we did so too; its kernel has to confirm it, and then the port is free at once. If no answer comes we give up after some %s (tcp_orphan_retries).", about(k.orphanGivesUp()))
	case sockdiag.Established:
		v.say("In use, by %s. It ends when either end closes, and whoever closes first keeps the TIME-WAIT.", who)
		watched := 0
		for _, s := range of {
			if s.Timer == sockdiag.Keepalive {
				watched++
			}
		}
		if silent := len(of) - watched; silent > 0 {
			v.say("For %s no keepalive is running now: if the peer vanished while neither end sends, nobody would notice.", plural(silent, "connection"))
		}
	case sockdiag.SynSent:
		v.say("We have asked for the connection and have no answer yet; the peer has to act. %s gets ETIMEDOUT after some %s (tcp_syn_retries), or when its own patience ends.", who, about(givesUp(k.tcp("tcp_syn_retries", 6), firstSYNAgain)))
	case sockdiag.SynRecv, sockdiag.NewSynRecv:
		v.say("Somebody has asked us for a connection, and has not confirmed our answer; the peer has to act. We give up after some %s (tcp_synack_retries).", about(givesUp(k.tcp("tcp_synack_retries", 5), firstSYNAgain)))
	case sockdiag.Listen:
		v.say("A service, or the wait for a stderr channel of rsh: %s. While it listens, no program can connect from this port. It ends when that program closes it.", who)
	case sockdiag.Bound, sockdiag.Closed:
		v.say("Bound to the port, and neither listening nor connected: %s is about to use it, or has it from a connection that was reset. It has to connect or to close; nothing else ends it.", who)
	}
}

func tenths(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// holders names the processes of sockets, with the most sockets first.
func (v *portsView) holders(p *portsPicture, of []sockdiag.Socket) string {
	const few = 3
	numbers := map[string]int{}
	for _, s := range of {
		if s.Inode != 0 {
			owner, _ := v.owner(p, s)
			numbers[owner]++
		}
	}
	names := make([]string, 0, len(numbers))
	for name := range numbers {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if numbers[a] != numbers[b] {
			return numbers[b] - numbers[a]
		}
		return strings.Compare(a, b)
	})
	if len(names) == 0 {
		return "the kernel"
	}
	if len(names) > few {
		return fmt.Sprintf("%s and %d other programs", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// usable is how many ports a run may take: those that are neither blocked nor listened on.
func (p *portsPicture) usable() int {
	taken := map[uint16]bool{}
	for port := range p.blocked {
		taken[port] = true
	}
	for _, s := range p.sockets {
		if s.State == sockdiag.Listen {
			taken[s.Local.Port()] = true
		}
	}
	return rangeSize - len(taken)
}
