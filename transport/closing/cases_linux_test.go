package closing

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"multirsh/transport/rsh/sockdiag"
)

// cases in the order of the table of all of them. Those with keeps have a line in it.
var cases = []struct {
	name  string
	keeps bool
	does  func(*lab)
}{
	{"they-close-first", true, func(l *lab) {
		c, s := l.connected()
		l.step("they close", s.close, "CLOSE-WAIT", "FIN-WAIT-2")
		l.keep("they closed, we have not yet")
		l.step("we read to the end of file", c.read, "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("we close", c.close, gone, "TIME-WAIT")
		l.keep("they close first")
	}},
	{"we-close-first", true, func(l *lab) {
		c, s := l.connected()
		l.step("we close", c.close, "FIN-WAIT-2", "CLOSE-WAIT")
		l.keep("we closed, they have not yet")
		l.step("they read to the end of file", s.read, "FIN-WAIT-2", "CLOSE-WAIT")
		l.step("they close", s.close, "TIME-WAIT", gone)
		l.keep("we close first")
	}},
	{"half-close", true, func(l *lab) {
		c, s := l.connected()
		l.step("our input is over: shutdown(2) for writing", c.shut, "FIN-WAIT-2", "CLOSE-WAIT")
		l.keep("we closed one direction, they have not yet")
		l.step("they answer", func() string { return s.write(10) }, "FIN-WAIT-2", "CLOSE-WAIT")
		l.step("they close", s.close, "TIME-WAIT", gone)
		l.step("we read", c.read, "TIME-WAIT", gone)
		l.step("we close", func() string { c.read(); return c.close() }, "TIME-WAIT", gone)
		l.keep("we close one direction first (rsh at the end of its input)")
	}},
	{"both-at-once", true, func(l *lab) {
		// Nobody sends again for so long that there is time to look; and each end keeps its descriptor, for the filters.
		for _, e := range []*end{l.here, l.there} {
			if err := e.slowly(6 * time.Second); err != nil {
				l.Fatal(err)
			}
		}
		c, s := l.connected()
		gates := func(of gate, ends ...*end) {
			for _, e := range ends {
				if err := e.gate(of); err != nil {
					l.Fatal(err)
				}
			}
		}
		gates(hold, l.here, l.there)
		l.step("both close; the two FINs are on their way", func() string { c.shut(); return s.shut() }, "FIN-WAIT-1", "FIN-WAIT-1")
		c.drops(true)
		l.step("ours arrives", func() string { gates(open, l.here); return "" }, "FIN-WAIT-1", "CLOSING")
		s.drops(false)
		l.step("theirs arrives; the acknowledgements are on their way", func() string { gates(open, l.there); return "" }, "CLOSING", "CLOSING")
		l.keep("both close at once, and have not heard the answer")
		c.takes()
		s.takes()
		l.step("they arrive", nil, "TIME-WAIT", "TIME-WAIT")
		c.close()
		s.close()
		l.keep("both close at once")
	}},
	{"listener-idle", true, func(l *lab) {
		ln := l.listener()
		ln.close()
		if ports := l.listening(); ports != 0 {
			l.Errorf("%d sockets still listen", ports)
		}
		l.await("closed", gone, gone)
		l.keep("a listener is closed, nothing pending")
	}},
	{"listener-pending", true, func(l *lab) {
		ln := l.listener()
		c := l.dial()
		l.step("we connect; they have not called accept(2)", nil, "ESTABLISHED", "ESTABLISHED")
		l.keep("connected, and not accepted yet")
		l.step("they close the listener", ln.close, gone, gone)
		l.keep("a listener is closed, connections pending (Linux)")
		l.step("we read", c.read, gone, gone)
	}},
	{"remote-dies", true, func(l *lab) {
		c, s := l.connected()
		kill := s.process()
		l.step("kill -9 there", kill, "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("we read", c.read, "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("we close", c.close, gone, "TIME-WAIT")
		l.keep("the remote process dies")
	}},
	{"remote-dies-unread", true, func(l *lab) {
		c, s := l.connected()
		l.step("we write", func() string { return c.write(10) }, "ESTABLISHED", "ESTABLISHED")
		kill := s.process()
		l.step("kill -9 there, before it has read that", kill, gone, gone)
		l.step("we read", c.read, gone, gone)
		l.keep("the remote process dies with input unread")
	}},
	{"remote-vanishes-idle", true, func(l *lab) {
		c, _ := l.connected()
		l.step("no cable any more", l.must(l.cut), "ESTABLISHED", "ESTABLISHED")
		l.keep("the remote host vanishes, nothing is sent")
		for _, o := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
			c.set(unix.IPPROTO_TCP, o, 1)
		}
		c.set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		l.step("keepalive is on, and has no answer", nil, gone, "ESTABLISHED")
		l.step("we read", c.read, gone, "ESTABLISHED")
		l.keep("the remote host vanishes, keepalive is on")
	}},
	{"remote-vanishes-sending", true, func(l *lab) {
		c, _ := l.connected()
		c.set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1000)
		l.step("no cable any more", l.must(l.cut), "ESTABLISHED", "ESTABLISHED")
		l.step("we write; it is sent again until TCP_USER_TIMEOUT is over", func() string { return c.write(10) }, gone, "ESTABLISHED")
		l.step("we read", c.read, gone, "ESTABLISHED")
		l.keep("the remote host vanishes, we send, TCP_USER_TIMEOUT is set")
	}},
	{"remote-vanishes-closing", true, func(l *lab) {
		if err := l.here.sysctl("tcp_orphan_retries", "3"); err != nil {
			l.Fatal(err)
		}
		c, _ := l.connected()
		l.step("no cable any more", l.must(l.cut), "ESTABLISHED", "ESTABLISHED")
		l.step("we close", c.close, "FIN-WAIT-1", "ESTABLISHED")
		l.keep("the remote host vanishes, we close")
		l.step("the FIN is sent again, tcp_orphan_retries times (3 in this case)", nil, gone, "ESTABLISHED")
		l.keep("the same, after the kernel has given up")
	}},
	{"remote-vanishes-closed", true, func(l *lab) {
		c, s := l.connected()
		l.step("they close", s.close, "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("no cable any more", l.must(l.cut), "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("we close", c.close, "LAST-ACK", "FIN-WAIT-2")
		l.keep("they close, and their host vanishes before we close")
	}},
	{"remote-restarts", true, func(l *lab) {
		c, s := l.connected()
		l.step("the power fails there, and comes back", s.vanish, "ESTABLISHED", gone)
		l.keep("the remote host restarts, nothing is sent")
		l.step("we write", func() string { return c.write(10) }, gone, gone)
		l.step("we read", c.read, gone, gone)
		l.keep("the remote host restarts, we send")
	}},
	{"local-dies", true, func(l *lab) {
		c, s := l.connected()
		kill := c.process()
		l.step("kill -9 here", kill, "FIN-WAIT-2", "CLOSE-WAIT")
		l.keep("our process dies, theirs goes on")
		l.step("they read", s.read, "FIN-WAIT-2", "CLOSE-WAIT")
		l.step("they close", s.close, "TIME-WAIT", gone)
		l.keep("our process dies, theirs closes")
	}},
	{"local-dies-linger", true, func(l *lab) {
		c, s := l.connected()
		c.linger(0)
		kill := c.process()
		l.step("kill -9 here", kill, gone, gone)
		l.step("they read", s.read, gone, gone)
		l.keep("our process dies, SO_LINGER {1, 0} is set")
	}},
	{"linger-reset", true, func(l *lab) {
		c, s := l.connected()
		c.linger(0)
		l.step("they write", func() string { return s.write(10) }, "ESTABLISHED", "ESTABLISHED")
		l.step("we close, SO_LINGER {1, 0} being set", c.close, gone, gone)
		l.step("they read", s.read, gone, gone)
		l.keep("we reset (SO_LINGER {1, 0})")
	}},
	{"linger2", true, func(l *lab) {
		c, _ := l.connected()
		c.set(unix.IPPROTO_TCP, unix.TCP_LINGER2, 20)
		l.step("we close, TCP_LINGER2 being 20", c.close, "FIN-WAIT-2", "CLOSE-WAIT")
		l.keep("we close first, TCP_LINGER2 is 20")
	}},
	{"linger2-over", true, func(l *lab) {
		c, s := l.connected()
		c.set(unix.IPPROTO_TCP, unix.TCP_LINGER2, 1)
		l.step("we close, TCP_LINGER2 being 1; it is over", c.close, gone, "CLOSE-WAIT")
		l.keep("we close first, TCP_LINGER2 is 1, and that is over")
		l.step("they write", func() string { return s.write(10) }, gone, gone)
		l.step("they write again", func() string { return s.write(10) }, gone, gone)
	}},
	{"linger2-none", true, func(l *lab) {
		c, s := l.connected()
		c.set(unix.IPPROTO_TCP, unix.TCP_LINGER2, -1)
		l.step("we write", func() string { return c.write(10) }, "ESTABLISHED", "ESTABLISHED")
		l.step("we close, TCP_LINGER2 being -1", c.close, gone, gone)
		l.step("they read", s.read, gone, gone)
		l.step("they read on", s.read, gone, gone)
		l.keep("we close first, TCP_LINGER2 is -1")
	}},
	{"reset-after-eof", true, func(l *lab) {
		c, s := l.connected()
		c.linger(0)
		l.step("they close", s.close, "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("we read to the end of file", c.read, "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("we close, SO_LINGER {1, 0} being set", c.close, gone, gone)
		l.keep("they close first, we reset after the end of file")
	}},
	{"byte-after-eof", true, func(l *lab) {
		c, s := l.connected()
		l.step("they close", s.close, "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("we read to the end of file", c.read, "CLOSE-WAIT", "FIN-WAIT-2")
		l.step("we write a byte, which nobody reads", func() string { return c.write(1) }, gone, gone)
		l.keep("they close first, we send a byte after the end of file")
	}},
	{"server-restart", false, (*lab).serverRestart},
	{"reuseaddr", false, (*lab).reuseaddr},
}

// cut is a host that is no more on the network: what either side sends is lost.
func (l *lab) cut() error {
	if err := l.here.gate(lose); err != nil {
		return err
	}
	return l.there.gate(lose)
}

// listening is how many sockets listen there.
func (l *lab) listening() (n int) {
	l.Helper()
	table, err := l.there.table()
	if err != nil {
		l.Fatal(err)
	}
	for _, s := range table {
		if s.State == sockdiag.Listen {
			n++
		}
	}
	return n
}

// serverRestart: who may listen on a port that the last server's connections are still in TIME-WAIT on.
func (l *lab) serverRestart() {
	c, s := l.connected()
	s.close()
	c.read()
	c.close()
	l.await("they close first", gone, "TIME-WAIT")
	bind := func(reuse bool) string {
		ln := l.there.socket(l)
		defer ln.drop()
		if reuse {
			ln.reuse()
		}
		if err := ln.bind(serverPort); err != nil {
			return "bind: " + told(err)
		}
		ln.listen(1)
		return "it listens"
	}
	l.table = fmt.Sprintf("| the server is started again, its old connection in TIME-WAIT | |\n|---|---|\n| without SO_REUSEADDR | %s |\n| with SO_REUSEADDR | %s |\n",
		bind(false), bind(true))
}

// reuseaddr: what a port that is in TIME-WAIT here is good for.
func (l *lab) reuseaddr() {
	var columns [2][]string
	for i := range columns {
		if i == 1 {
			other := newLab(l)
			other.portsAgain(&columns[i], "1")
		} else {
			l.portsAgain(&columns[i], "0")
		}
	}
	var b strings.Builder
	b.WriteString("| | `tcp_timestamps=0` | `tcp_timestamps=1` (the default) |\n|---|---|---|\n")
	for i, what := range []string{
		"the port is in TIME-WAIT here; bind without SO_REUSEADDR, same host",
		"with SO_REUSEADDR, same host",
		"with SO_REUSEADDR, another host",
		"with SO_REUSEADDR, the next port, same host",
		"so many sessions with one host from 8 ports, one after the other; we close first, no SO_REUSEADDR, rotation",
		"the same with SO_REUSEADDR, without rotation",
		"the same with SO_REUSEADDR and rotation",
		"they close first, SO_REUSEADDR, one port alone",
	} {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", what, columns[0][i], columns[1][i])
	}
	l.table = b.String()
}

func (l *lab) portsAgain(column *[]string, timestamps string) {
	l.Helper()
	for _, e := range []*end{l.here, l.there} {
		if err := e.sysctl("tcp_timestamps", timestamps); err != nil {
			l.Skipf("TCP timestamps cannot be set for one namespace: %v", err)
		}
	}
	another := netip.MustParseAddr("192.0.2.3")
	if err := l.there.alias(another); err != nil {
		l.Fatal(err)
	}
	ln := l.there.socket(l)
	ln.reuse()
	ln.check(unix.Bind(ln.fd, &unix.SockaddrInet4{Port: serverPort}))
	ln.listen(16)

	// session is one, from a port; it says what has gone wrong.
	session := func(port int, to netip.Addr, reuse, weFirst bool) string {
		c := l.here.socket(l)
		defer c.drop()
		if reuse {
			c.reuse()
		}
		if err := c.bind(port); err != nil {
			return "bind: " + told(err)
		}
		if err := c.connectTo(to, serverPort); err != nil {
			return "connect: " + told(err)
		}
		s := ln.accept()
		first, second, at := c, s, l.here
		if !weFirst {
			first, second, at = s, c, l.there
		}
		first.close()
		second.read()
		second.close()
		l.settle(at)
		return ""
	}
	const most = 100
	many := func(from, ports int, reuse, weFirst bool) string {
		for i := range most {
			if wrong := session(from+i%ports, l.there.addr, reuse, weFirst); wrong != "" {
				return fmt.Sprintf("%d, then %s", i, wrong)
			}
		}
		return fmt.Sprintf("%d and more", most)
	}
	if wrong := session(clientPort, l.there.addr, true, true); wrong != "" {
		l.Fatal(wrong)
	}
	*column = append(*column,
		orGood(session(clientPort, l.there.addr, false, true)),
		orGood(session(clientPort, l.there.addr, true, true)),
		orGood(session(clientPort, another, true, true)),
		orGood(session(clientPort+1, l.there.addr, true, true)),
		many(610, 8, false, true),
		many(620, 1, true, true),
		many(630, 8, true, true),
		many(640, 1, true, false))
}

func orGood(wrong string) string {
	if wrong == "" {
		return "connected"
	}
	return wrong
}

// settle waits until nothing is left of connections at an end but TIME-WAIT.
func (l *lab) settle(e *end) {
	l.Helper()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(patience); ; <-tick.C {
		table, err := e.table()
		if err != nil {
			l.Fatal(err)
		}
		open := 0
		for _, s := range table {
			if s.State != sockdiag.TimeWait && s.State != sockdiag.Listen {
				open++
			}
		}
		if open == 0 {
			return
		}
		if time.Now().After(until) {
			l.Fatalf("still there: %+v", table)
		}
	}
}
