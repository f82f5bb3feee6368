package closing

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"multirsh/transport/rsh/sockdiag"
)

var update = flag.Bool("update", false, "rewrite the tables of "+page)

const page = "../../docs/closing.md"

// The ports: of a server there, and of a client here.
const (
	serverPort = 514
	clientPort = 600
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab is one case at work.
type lab struct {
	testing.TB
	here, there *end
	wire        *wire
	rows        []string
	table       string     // in the place of rows
	keeps       [][]string // for the table of all cases
	last        [2]view    // of the latest step
}

// newLab makes the two ends. The test is skipped where it cannot.
func newLab(t testing.TB) *lab {
	t.Helper()
	here, err := newEnd(t, "here", "192.0.2.1", 1)
	if err != nil {
		t.Skip(err)
	}
	there, err := newEnd(t, "there", "192.0.2.2", 2)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		for _, e := range []*end{here, there} {
			if e.links != nil {
				e.links.Close()
			}
		}
	})
	err = cable(here, there)
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EROFS), errors.Is(err, unix.EOPNOTSUPP):
		t.Skipf("two namespaces cannot be joined here (it needs root, the module veth and a writable /proc/sys): %v", err)
	case err != nil:
		t.Fatal(err)
	}
	return &lab{TB: t, here: here, there: there, wire: newWire(t, here)}
}

// listener listens there.
func (l *lab) listener() *sock {
	l.Helper()
	s := l.there.socket(l)
	s.reuse()
	s.check(s.bind(serverPort))
	s.listen(16)
	return s
}

// dial connects from here, with SO_REUSEADDR.
func (l *lab) dial() *sock {
	l.Helper()
	c := l.here.socket(l)
	c.reuse()
	c.check(c.bind(clientPort))
	c.check(c.connect(serverPort))
	return c
}

// connected is both ends of a connection, and its first row.
func (l *lab) connected() (here, there *sock) {
	l.Helper()
	ln := l.listener()
	here = l.dial()
	there = ln.accept()
	ln.close()
	l.step("connected", nil, "ESTABLISHED", "ESTABLISHED")
	return here, there
}

// view is what the kernel says of one end of the connection; the zero value is that there is none.
type view struct {
	state  sockdiag.State
	held   bool // by a process
	timer  sockdiag.Timer
	within time.Duration // the timer's, as a round number
}

const gone = "—"

// look finds the end's socket of the connection.
func (l *lab) look(e *end) (v view) {
	l.Helper()
	table, err := e.table()
	if err != nil {
		l.Fatal(err)
	}
	local, remote := netip.AddrPortFrom(l.here.addr, clientPort), netip.AddrPortFrom(l.there.addr, serverPort)
	if e == l.there {
		local, remote = remote, local
	}
	for _, s := range table {
		if s.Local == local && s.Remote == remote && s.State != sockdiag.Closed && s.State != sockdiag.Bound {
			v = view{state: s.State, held: s.Inode != 0, timer: s.Timer}
			for _, v.within = range []time.Duration{5 * time.Second, 20 * time.Second, 60 * time.Second, 120 * time.Second} {
				if s.Expires <= v.within {
					break
				}
			}
		}
	}
	return v
}

func (v view) String() string {
	if v == (view{}) {
		return gone
	}
	holder := "kernel"
	switch {
	case v.held:
		holder = "process"
	case v.state == sockdiag.Established:
		holder = "listener's queue"
	}
	if v.timer == sockdiag.TimeWaitTimer {
		holder += fmt.Sprintf(", %.0f s", v.within.Seconds())
	}
	return fmt.Sprintf("%s (%s)", v.state, holder)
}

// keepsFor says how long the end is kept.
func (v view) keepsFor() string {
	switch {
	case v == view{}:
		return gone
	case v.timer == sockdiag.TimeWaitTimer:
		return fmt.Sprintf("%.0f s", v.within.Seconds())
	case v.state == sockdiag.FinWait1, v.state == sockdiag.Closing, v.state == sockdiag.LastAck:
		return "until the peer answers, or the kernel gives up"
	case v.held:
		return "as long as its process wants"
	}
	return "until accept(2), or the listener ends"
}

// step does something, awaits the states that both ends come to by it, and writes down what was seen.
func (l *lab) step(what string, do func() string, here, there string) {
	l.Helper()
	told := ""
	if do != nil {
		told = do()
	}
	l.await(what, here, there)
	l.rows = append(l.rows, fmt.Sprintf("| %s | %s | %s | %v | %v |", what, orNone(l.wire.passed(l)), orNone(told), l.last[0], l.last[1]))
}

func orNone(s string) string {
	if s == "" {
		return " "
	}
	return s
}

// await waits until both ends are in these states. Nobody tells when the kernel gets there.
func (l *lab) await(what, here, there string) {
	l.Helper()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(patience); ; <-tick.C {
		l.last = [2]view{l.look(l.here), l.look(l.there)}
		if l.last[0].is(here) && l.last[1].is(there) {
			return
		}
		if time.Now().After(until) {
			l.Fatalf("%s: here %v, there %v; want %s, %s\n%s", what, l.last[0], l.last[1], here, there, strings.Join(l.rows, "\n"))
		}
	}
}

func (v view) is(state string) bool {
	if v == (view{}) {
		return state == gone
	}
	return v.state.String() == state
}

// keep writes the latest states down for the table of all cases.
func (l *lab) keep(what string) {
	l.keeps = append(l.keeps, []string{what, l.last[0].keptAs(), l.last[0].keepsFor(), l.last[1].keptAs(), l.last[1].keepsFor()})
}

// keptAs is the state alone.
func (v view) keptAs() string {
	if v == (view{}) {
		return "nothing"
	}
	return v.state.String()
}

// must turns what has no word for the process into what step takes.
func (l *lab) must(f func() error) func() string {
	return func() string {
		l.Helper()
		if err := f(); err != nil {
			l.Fatal(err)
		}
		return ""
	}
}

// document is docs/closing.md while the cases run side by side.
var document struct {
	sync.Mutex
	text string
}

func readPage(t testing.TB) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	document.text = string(b)
}

// compare holds a part of the page against what was seen, or puts that there.
func compare(t testing.TB, name, got string) {
	t.Helper()
	document.Lock()
	defer document.Unlock()
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
	before, rest, ok := strings.Cut(document.text, begin)
	want, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Errorf("%s has no lines %q and %q; between them belongs:\n%s", page, begin, end, got)
		return
	}
	if *update {
		document.text = before + begin + got + end + after
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is not what is seen here (go test -update writes that): -page +seen\n%s", page, diff)
	}
}

// TestClosing goes through all cases, side by side, and holds the page against them.
func TestClosing(t *testing.T) {
	readPage(t)
	keeps := make([][][]string, len(cases))
	skipped := false
	t.Run("case", func(t *testing.T) {
		for i, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				c.does(l)
				keeps[i] = l.keeps
				switch {
				case l.table != "":
					compare(t, c.name, l.table)
				case l.rows != nil:
					compare(t, c.name, "| what happens | on the wire | the process is told | here | there |\n|---|---|---|---|---|\n"+strings.Join(l.rows, "\n")+"\n")
				}
			})
		}
	})
	var b strings.Builder
	b.WriteString("| case | we keep | how long | they keep | how long |\n|---|---|---|---|---|\n")
	for i, rows := range keeps {
		skipped = skipped || rows == nil && cases[i].keeps
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(r, " | "))
		}
	}
	switch {
	case t.Failed():
	case skipped:
		t.Skip("not all cases ran, so there is no table of all of them")
	default:
		compare(t, "who-keeps-what", b.String())
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(page, []byte(document.text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
