package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/output"
	"multirsh/transport"
	"multirsh/transport/rsh/sockdiag"
)

var updatePorts = flag.Bool("update-ports", false, "rewrite the files in testdata/ports from what the program shows")

// golden compares with a file in testdata/ports.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata/ports", name)
	if *updatePorts {
		if err := os.WriteFile(name, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: -want +got:\n%s", name, diff)
	}
}

// everyState has sockets in every state, over IPv4 and IPv6, with and without processes, and ports that are blocked.
func everyState() *portsPicture {
	p := &portsPicture{
		time:    time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC),
		blocked: map[uint16]string{631: "/etc/bindresvport.blacklist", 636: "/etc/bindresvport.blacklist", 700: "net.ipv4.ip_local_reserved_ports", 701: "net.ipv4.ip_local_reserved_ports"},
		owners: sockdiag.Owners{Hidden: 2, ByInode: map[uint32][]sockdiag.Process{
			1: {{PID: 4711, Name: "multi-rsh"}},
			2: {{PID: 80, Name: "sshd\x1b[31m"}, {PID: 81, Name: "sshd"}},
			3: nil,
		}},
	}
	add := func(s sockdiag.Socket, local, remote string) {
		s.Local, s.Remote = netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)
		p.sockets = append(p.sockets, s)
	}
	add(sockdiag.Socket{State: sockdiag.Listen, Inode: 2}, "0.0.0.0:514", "0.0.0.0:0")
	add(sockdiag.Socket{State: sockdiag.SynRecv, Timer: sockdiag.Retransmit, Expires: time.Second}, "10.0.0.1:514", "10.0.0.9:1000")
	add(sockdiag.Socket{State: sockdiag.Listen, Inode: 2}, "0.0.0.0:631", "0.0.0.0:0")
	for i := range uint16(4) {
		add(sockdiag.Socket{State: sockdiag.Established, Inode: 1, Timer: sockdiag.Keepalive, Expires: time.Minute}, fmt.Sprintf("10.0.0.1:%d", 800+i), "10.0.0.7:514")
	}
	add(sockdiag.Socket{State: sockdiag.TimeWait, Timer: sockdiag.TimeWaitTimer, Expires: 58210 * time.Millisecond}, "10.0.0.1:803", "10.0.0.8:514")
	add(sockdiag.Socket{State: sockdiag.Bound, Inode: 1}, "0.0.0.0:1010", "0.0.0.0:0")
	add(sockdiag.Socket{State: sockdiag.SynSent, Inode: 1, Timer: sockdiag.Retransmit, Expires: time.Second}, "10.0.0.1:1011", "10.0.0.10:514")
	add(sockdiag.Socket{State: sockdiag.LastAck, Timer: sockdiag.Retransmit, Expires: time.Second}, "10.0.0.1:1012", "10.0.0.7:514")
	add(sockdiag.Socket{State: sockdiag.Closing, Timer: sockdiag.Retransmit, Expires: time.Second}, "10.0.0.1:1013", "10.0.0.7:514")
	add(sockdiag.Socket{State: sockdiag.FinWait1, Timer: sockdiag.Retransmit, Expires: time.Second}, "10.0.0.1:1014", "10.0.0.7:514")
	add(sockdiag.Socket{State: sockdiag.FinWait1, Timer: sockdiag.Retransmit, Expires: time.Second, Inode: 1}, "10.0.0.1:1015", "10.0.0.7:514")
	add(sockdiag.Socket{State: sockdiag.FinWait2, Timer: sockdiag.TimeWaitTimer, Expires: 30 * time.Second}, "10.0.0.1:1016", "10.0.0.7:514")
	add(sockdiag.Socket{State: sockdiag.FinWait2, Inode: 1}, "10.0.0.1:1017", "10.0.0.7:514")
	add(sockdiag.Socket{State: sockdiag.TimeWait, Timer: sockdiag.TimeWaitTimer, Expires: 50 * time.Millisecond}, "10.0.0.1:1018", "10.0.0.7:514")
	add(sockdiag.Socket{State: sockdiag.CloseWait, Inode: 3, UID: 1000, IPv6: true}, "[2001:db8:1111:2222:3333:4444:5555:6666]:1023", "[2001:db8:1111:2222:3333:4444:5555:7777]:514")
	p.total = len(p.sockets)
	return p
}

func users(uid uint32) string { return map[uint32]string{0: "root", 1000: "alice"}[uid] }

// The picture at 80 columns, with colours and without, on a narrow terminal, and in a file.
func TestPortsPicture(t *testing.T) {
	for name, view := range map[string]portsView{
		"80":       {Stream: output.Stream{Width: 80}},
		"80-color": {Stream: output.Stream{Width: 80, Color: true}},
		"40":       {Stream: output.Stream{Width: 40}},
		"file":     {},
	} {
		var text bytes.Buffer
		view.W, view.name = &text, users
		p := everyState()
		view.picture(p)
		view.table(p, len(p.sockets))
		golden(t, name, text.Bytes())
		plain := sgr.ReplaceAllString(text.String(), "")
		for line := range strings.Lines(plain) {
			if width := len([]rune(strings.TrimSuffix(line, "\n"))); view.Width > 40 && width > view.Width {
				t.Errorf("%s: %d columns: %s", name, width, line)
			}
		}
		if view.Color {
			without, err := os.ReadFile("testdata/ports/80")
			if err != nil || plain != string(without) {
				t.Errorf("colours change more than colours: %v", err)
			}
		}
		if bytes.Contains(text.Bytes(), []byte("sshd\x1b")) {
			t.Error("the name of a process reaches the terminal as it is")
		}
	}
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// The letters are one for each state, and every state of the kernel's has a look.
func TestLooks(t *testing.T) {
	seen := map[byte]bool{}
	for _, l := range looks {
		if seen[l.letter] {
			t.Errorf("%c stands for two states", l.letter)
		}
		seen[l.letter] = true
	}
	for s := sockdiag.Established; s <= sockdiag.Bound; s++ {
		if !slices.ContainsFunc(looks, func(l look) bool { return slices.Contains(l.states, s) }) {
			t.Errorf("%v has no look", s)
		}
	}
	for _, name := range []string{"time-wait", "TIME_WAIT", " Time-Wait "} {
		if got, err := parseStates("-s", name); err != nil || !slices.Equal(got, []sockdiag.State{sockdiag.TimeWait}) {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}

func TestPortsExplain(t *testing.T) {
	var text bytes.Buffer
	view := portsView{Stream: output.Stream{W: &text}, name: users}
	p := everyState()
	nowhere := kernel{t.TempDir()} // as Linux has it
	view.explainAll(p, nowhere)
	golden(t, "explain", text.Bytes())
	text.Reset()
	for _, port := range []uint16{803, 700, 631, 512} {
		view.explainPort(p, port, nowhere)
		fmt.Fprintln(&text)
	}
	golden(t, "explain-port", text.Bytes())
	text.Reset()
	view.explainAll(&portsPicture{}, nowhere)
	golden(t, "explain-nothing", text.Bytes())

	for width, drawn := range map[int]bool{80: true, 71: true, 60: false} {
		text.Reset()
		view := portsView{Stream: output.Stream{W: &text, Width: width, Color: true}, name: users}
		view.explainAll(p, nowhere)
		if got := strings.Contains(text.String(), "└──"); got != drawn {
			t.Errorf("%d columns: the diagram is drawn: %v", width, got)
		}
		for line := range strings.Lines(colors.ReplaceAllString(text.String(), "")) {
			if utf8.RuneCountInString(line)-1 > width {
				t.Errorf("%d columns: a line is too long: %q", width, line)
			}
		}
	}
}

// A socket that is seen twice counts once, as it was seen last; listeners that share a port are two.
func TestByPort(t *testing.T) {
	at := netip.MustParseAddrPort
	listen := sockdiag.Socket{State: sockdiag.Listen, Local: at("0.0.0.0:514"), Remote: at("0.0.0.0:0")}
	table := []sockdiag.Socket{
		{State: sockdiag.FinWait2, Local: at("10.0.0.1:600"), Remote: at("10.0.0.2:514")},
		listen, listen,
		{State: sockdiag.TimeWait, Local: at("10.0.0.1:600"), Remote: at("10.0.0.2:514")},
		{State: sockdiag.Established, Local: at("10.0.0.1:600"), Remote: at("10.0.0.3:514")},
	}
	var got []sockdiag.State
	for _, s := range byPort(table) {
		got = append(got, s.State)
	}
	if want := []sockdiag.State{sockdiag.Listen, sockdiag.Listen, sockdiag.TimeWait, sockdiag.Established}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A screen never has more rows than the terminal, whatever has to be shown, and what clears the old one takes nothing of it.
func TestFrame(t *testing.T) {
	for _, rows := range []int{1, 5, 16, 24, 50, 200} {
		for _, columns := range []int{1, 10, 22, 40, 80, 200} {
			got := frame(everyState(), &portsView{Stream: output.Stream{Width: columns, Color: true}, name: users}, rows)
			if n := bytes.Count(got, []byte("\n")) + 1; n > rows {
				t.Errorf("%d rows on a terminal of %d", n, rows)
			}
			// Each line comes behind what clears it, and nothing else is cleared.
			drawn, is := strings.CutPrefix(string(colors.ReplaceAll(got, nil)), home)
			if !is {
				t.Errorf("%q", got)
			}
			for line := range strings.SplitSeq(strings.TrimSuffix(drawn, "\r\n"+clearRest), "\r\n") {
				text, is := strings.CutPrefix(line, clearLine)
				if !is || strings.ContainsRune(text, 0x1b) || utf8.RuneCountInString(text) > columns {
					t.Errorf("%d by %d: %q", columns, rows, line)
				}
			}
		}
	}
}

func TestAge(t *testing.T) {
	k := kernel{t.TempDir()}
	for _, tt := range []struct {
		s    sockdiag.Socket
		want time.Duration
	}{
		{sockdiag.Socket{State: sockdiag.TimeWait, Timer: sockdiag.TimeWaitTimer, Expires: 58 * time.Second}, 2 * time.Second},
		{sockdiag.Socket{State: sockdiag.FinWait2, Timer: sockdiag.TimeWaitTimer, Expires: 59 * time.Second}, time.Second},
		{sockdiag.Socket{State: sockdiag.FinWait2, Quiet: time.Minute}, time.Minute},
		{sockdiag.Socket{State: sockdiag.CloseWait, Quiet: time.Hour, Timer: sockdiag.Keepalive, Expires: time.Second}, time.Hour},
	} {
		if got := age(tt.s, k); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.s, got, tt.want)
		}
	}
}

// As the kernel's own documentation has it (ip-sysctl.rst): tcp_retries2 of 15 is 924.6 seconds, tcp_syn_retries of 6 is 127, of
// tcp_synack_retries 5 is 63.
func TestGivesUp(t *testing.T) {
	for _, tt := range []struct {
		n           int
		first, want time.Duration
	}{
		{15, firstAgain, 924600 * time.Millisecond}, {8, firstAgain, 102200 * time.Millisecond}, {0, firstAgain, 200 * time.Millisecond},
		{6, firstSYNAgain, 127 * time.Second}, {5, firstSYNAgain, 63 * time.Second},
	} {
		if got := givesUp(tt.n, tt.first); got != tt.want {
			t.Errorf("%d times from %v on: %v, want %v", tt.n, tt.first, got, tt.want)
		}
	}
}

// settings writes what the kernel says of itself.
func settings(t *testing.T, files map[string]string) kernel {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return kernel{dir}
}

// healthy is a machine where everything is as it should be.
func healthy(t *testing.T) *examination {
	return &examination{
		p: &portsPicture{}, etc: "/etc", fanout: 64, files: 1024,
		permit: func() error { return nil },
		view:   &portsView{name: users},
		k: settings(t, map[string]string{
			"sys/net/ipv4/ip_unprivileged_port_start":              "1024\n",
			"sys/net/ipv4/tcp_timestamps":                          "1\n",
			"sys/net/ipv4/tcp_fin_timeout":                         "60\n",
			"sys/net/ipv4/tcp_tw_reuse":                            "2\n",
			"sys/net/ipv4/tcp_max_tw_buckets":                      "131072\n",
			"sys/net/netfilter/nf_conntrack_max":                   "262144\n",
			"sys/net/netfilter/nf_conntrack_count":                 "10\n",
			"sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait": "120\n",
			"thread-self/net/sockstat":                             "sockets: used 5\nTCP: inuse 1 orphan 0 tw 17 alloc 2 mem 0\n",
			"thread-self/net/netstat":                              "TcpExt: SyncookiesSent TW TCPTimeWaitOverflow\nTcpExt: 1 2 0\nIpExt: InNoRoutes\nIpExt: 0\n",
		}),
	}
}

// set changes a setting of the machine.
func (x *examination) set(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(x.k.proc, name), []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Each trouble is found, is the only one, and has its remedy.
func TestDoctor(t *testing.T) {
	sockets := func(n int, s sockdiag.Socket) func(*examination) {
		return func(x *examination) {
			for i := range n {
				s.Local = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(512+i))
				s.Remote = netip.MustParseAddrPort("10.0.0.7:514")
				if s.State == sockdiag.Listen {
					s.Remote = netip.MustParseAddrPort("0.0.0.0:0")
				}
				x.p.sockets = append(x.p.sockets, s)
			}
		}
	}
	setting := func(name, value string) func(*examination) {
		return func(x *examination) { x.set(t, name, value) }
	}
	ipv4 := func(name, value string) func(*examination) { return setting("sys/net/ipv4/"+name, value) }
	for _, tt := range []struct {
		name            string
		trouble         func(*examination)
		severity, check string
		text, command   string // parts of them
	}{
		{"denied", func(x *examination) { x.permit = func() error { return fmt.Errorf("%w: no", transport.ErrPorts) } },
			"error", "permission", "CAP_NET_BIND_SERVICE", "sudo setcap cap_net_bind_service=+ep "},
		{"no port", func(x *examination) { x.permit = func() error { return errors.New("each is listened on") } },
			"error", "permission", "each is listened on", ""},
		{"unprivileged", ipv4("ip_unprivileged_port_start", "0"),
			"warning", "unprivileged ports", "proves nothing", "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=1024"},
		{"half blocked", func(x *examination) {
			x.p.blocked = map[uint16]string{}
			for i := range uint16(300) {
				x.p.blocked[512+i] = "net.ipv4.ip_local_reserved_ports"
			}
		}, "warning", "range", "212 of the 512 ports can be used: 300 blocked by net.ipv4.ip_local_reserved_ports", "sysctl net.ipv4.ip_local_reserved_ports"},
		{"all blocked", func(x *examination) {
			x.p.blocked = map[uint16]string{}
			for i := range uint16(512) {
				x.p.blocked[512+i] = "/etc/bindresvport.blacklist"
			}
		}, "error", "range", "0 of the 512", "cat /etc/bindresvport.blacklist"},
		{"services", func(x *examination) {
			sockets(2, sockdiag.Socket{State: sockdiag.Listen, Inode: 1})(x)
			x.p.owners.ByInode = map[uint32][]sockdiag.Process{1: {{PID: 7, Name: "inetd"}}}
			x.p.blocked = map[uint16]string{512: "/etc/bindresvport.blacklist"}
		}, "note", "services", "513 (inetd (7))", `printf '%s\n' 513 | sudo tee -a /etc/bindresvport.blacklist`},
		{"time-wait, some", sockets(10, sockdiag.Socket{State: sockdiag.TimeWait}),
			"note", "who closes first", "10 to port 514 (rsh)", "multi-rsh ports reap --state time-wait"},
		{"time-wait of a service", func(x *examination) {
			sockets(1, sockdiag.Socket{State: sockdiag.Listen})(x)
			for range 300 {
				x.p.sockets = append(x.p.sockets, sockdiag.Socket{State: sockdiag.TimeWait,
					Local: netip.MustParseAddrPort("10.0.0.1:512"), Remote: netip.MustParseAddrPort("10.0.0.7:1023")})
			}
		}, "note", "services", "512 (kernel)", "512"},
		{"time-wait, many", sockets(130, sockdiag.Socket{State: sockdiag.TimeWait}),
			"warning", "who closes first", "130 connections", "multi-rsh ports reap --state time-wait"},
		{"time-wait, and a culprit", func(x *examination) {
			sockets(500, sockdiag.Socket{State: sockdiag.TimeWait})(x)
			x.p.sockets = append(x.p.sockets, sockdiag.Socket{State: sockdiag.Established, Inode: 1,
				Local: netip.MustParseAddrPort("10.0.0.1:1022"), Remote: netip.MustParseAddrPort("10.0.0.9:514")})
			x.p.owners.ByInode = map[uint32][]sockdiag.Process{1: {{PID: 7, Name: "rsh"}}}
		}, "error", "who closes first", "500 to port 514 (rsh), where rsh (7) is connected now", "multi-rsh ports reap --state time-wait"},
		{"close-wait", sockets(1, sockdiag.Socket{State: sockdiag.CloseWait, Inode: 9, UID: 1000}),
			"warning", "sockets left open", "1 connection (on 1 port) closed by the peer, and not by the program here: user alice", "multi-rsh ports reap --state close-wait"},
		{"no answer", sockets(3, sockdiag.Socket{State: sockdiag.LastAck, Timer: sockdiag.Retransmit}),
			"note", "hosts that do not answer", "wait for 1 host", "multi-rsh ports reap --state fin-wait-1,last-ack,closing"},
		{"timestamps", ipv4("tcp_timestamps", "0"), "warning", "timestamps", "EADDRNOTAVAIL", "sudo sysctl -w net.ipv4.tcp_timestamps=1"},
		{"fin timeout", ipv4("tcp_fin_timeout", "600"), "warning", "FIN-WAIT-2", "600", "sudo sysctl -w net.ipv4.tcp_fin_timeout=60"},
		{"buckets full", ipv4("tcp_max_tw_buckets", "18"), "warning", "TIME-WAIT table", "17 connections", "sudo sysctl -w net.ipv4.tcp_max_tw_buckets=65536"},
		{"buckets were full", setting("thread-self/net/netstat", "TcpExt: A TCPTimeWaitOverflow\nTcpExt: 1 3"),
			"note", "TIME-WAIT table", "3 times", "sudo sysctl -w net.ipv4.tcp_max_tw_buckets=262144"},
		{"conntrack full", setting("sys/net/netfilter/nf_conntrack_count", "260000"), "warning", "connection tracking", "260000 of 262144", "nf_conntrack_max=524288"},
		{"conntrack slow", setting("sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", "600"), "note", "connection tracking", "600 s", "timeout_time_wait=60"},
		{"files", func(x *examination) { x.fanout = 5000 }, "warning", "open files", "--fanout 480", "ulimit -n 10064"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := healthy(t)
			tt.trouble(x)
			found := x.examine()
			first := found[0]
			if first.Severity != tt.severity || first.Check != tt.check || !strings.Contains(first.Text, tt.text) ||
				!strings.Contains(first.Command, tt.command) || tt.command == "" && first.Command != "" {
				t.Errorf("%+v", first)
			}
			for _, f := range found[1:] {
				if f.Severity != "ok" {
					t.Errorf("and also: %+v", f)
				}
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		found := healthy(t).examine()
		for _, f := range found {
			if f.Severity != "ok" || f.Command != "" {
				t.Errorf("%+v", f)
			}
		}
		var text bytes.Buffer
		(&portsView{Stream: output.Stream{W: &text}}).findings(found)
		golden(t, "doctor", text.Bytes())
	})
}

// The verb's page fits one screen, and it and the manual show every sub-command and option.
func TestPortsHelpAndManual(t *testing.T) {
	var page bytes.Buffer
	if err := portsLine.help(&page, portsHelp); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(page.String(), "\n"), "\n")
	if len(lines) < 24 || len(lines) > 50 {
		t.Errorf("%d lines, want 24 to 50", len(lines))
	}
	for _, line := range lines {
		if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	for _, o := range portsLine.options {
		if !strings.Contains(page.String(), " --"+o.name+" ") {
			t.Errorf("the help has no --%s", o.name)
		}
		item := "Fl Fl " + o.name
		if o.arg != "" {
			item += " Ar " + strings.ToLower(o.arg)
		}
		for _, letter := range slices.Backward([]rune(o.letters)) {
			item = "Fl " + string(letter) + " , " + item
		}
		if !bytes.Contains(portsManual, []byte("\n.It "+item+"\n")) {
			t.Errorf("the manual has no %q", item)
		}
	}
	for _, c := range portsCommands[1:] {
		if !strings.Contains(page.String(), "multi-rsh ports "+c.usage()+" ") || !bytes.Contains(portsManual, []byte("\n.It Cm "+c.name+"\n")) {
			t.Errorf("%s is missing", c.name)
		}
	}
	for _, l := range looks[2:] {
		if !bytes.Contains(portsManual, []byte(l.name)) {
			t.Errorf("the manual does not name the state %s", l.name)
		}
	}
	checkRenders(t, portsManual)
}
