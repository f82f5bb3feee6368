package rig

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var compareAddrPort = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// inside runs f where sockets are the host's. They stay so when it has returned.
func inside(t *testing.T, h *Host, f func() error) {
	t.Helper()
	done := make(chan error)
	var enter func()
	enter = func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread() // but not the first thread, whose network is that of /proc/self
			another := make(chan struct{})
			go func() { defer close(another); enter() }()
			<-another
			return
		}
		done <- func() error {
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", h.PID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}
	go enter()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func closings(t *testing.T, w *Watch) []Closing {
	t.Helper()
	all, err := w.Closings()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// end closes a connection, with a FIN or a RST, and then the other end of it when that has noticed.
func end(first, second net.Conn, with string) {
	if with == "RST" {
		first.(*net.TCPConn).SetLinger(0)
	}
	first.Close()
	io.Copy(io.Discard, second)
	second.Close()
}

// Whoever closes first, in whichever direction the connection was made, is told, and with FIN it is who keeps TIME_WAIT.
func TestClosings(t *testing.T) {
	h := New(t, Config{}).Hosts[0]
	control, err := WatchClosings()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	cable, err := h.WatchClosings()
	if err != nil {
		t.Fatal(err)
	}
	defer cable.Close()

	ours, theirs := []netip.Addr{ControlAddr}, []netip.Addr{h.Addr(3)}
	if HasIPv6() {
		ours, theirs = append(ours, ControlAddr6), append(theirs, h.Addr6(0)) // IPv6 binds to addresses of cards alone
	}
	onControl := func(f func() error) {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	onHost := func(f func() error) { inside(t, h, f) }
	var want []Closing
	for _, direction := range []struct {
		addrs          []netip.Addr
		client, server func(func() error)
		clientsTable   func() ([]Socket, error)
		serversTable   func() ([]Socket, error)
	}{
		{theirs, onControl, onHost, Sockets, h.Sockets},
		{ours, onHost, onControl, h.Sockets, Sockets},
	} {
		for _, addr := range direction.addrs {
			var l net.Listener
			direction.server(func() (err error) {
				l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
				return err
			})
			for _, by := range []string{"client", "server"} {
				for _, with := range []string{"FIN", "RST"} {
					var client net.Conn
					direction.client(func() (err error) {
						client, err = net.DialTimeout("tcp", l.Addr().String(), patience)
						return err
					})
					server, err := l.Accept()
					if err != nil {
						t.Fatal(err)
					}
					io.WriteString(client, "question")
					server.Read(make([]byte, len("question"))) // else its close is a RST
					c := Closing{
						Client: netip.MustParseAddrPort(client.LocalAddr().String()),
						Server: netip.MustParseAddrPort(server.LocalAddr().String()),
						By:     by, With: with}
					want = append(want, c)
					first, second, table := client, server, direction.clientsTable
					local, remote := c.Client, c.Server
					if by == "server" {
						first, second, table = server, client, direction.serversTable
						local, remote = remote, local
					}
					end(first, second, with)
					if with == "FIN" {
						wait(t, "who closed first has TIME_WAIT", func() bool {
							all, err := table()
							return err == nil && slices.Contains(all, Socket{local, remote, "TIME_WAIT"})
						})
					}
				}
			}
			l.Close()
		}
	}
	for name, w := range map[string]*Watch{"control side": control, "cable": cable} {
		for range 2 {
			if got := closings(t, w); !slices.Equal(got, want) {
				t.Errorf("%s: %s", name, cmp.Diff(want, got, compareAddrPort))
			}
		}
	}
}

// Connections between two hosts are seen on their cables.
func TestClosingsBetweenHosts(t *testing.T) {
	r := New(t, Config{Hosts: 2})
	w, err := r.Hosts[1].WatchClosings()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var l net.Listener
	inside(t, r.Hosts[1], func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(r.Hosts[1].Addr(0), 0).String())
		return err
	})
	defer l.Close()
	var client net.Conn
	inside(t, r.Hosts[0], func() (err error) {
		client, err = net.DialTimeout("tcp", l.Addr().String(), patience)
		return err
	})
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	end(server, client, "FIN")
	got := closings(t, w)
	if len(got) != 1 || got[0].By != "server" || got[0].Client.Addr() != r.Hosts[0].Addr(0) || got[0].Server.Addr() != r.Hosts[1].Addr(0) {
		t.Errorf("%+v", got)
	}
}

// None is lost when many end at once.
func TestManyClosings(t *testing.T) {
	h := New(t, Config{}).Hosts[0]
	w, err := WatchClosings()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var l net.Listener
	inside(t, h, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(h.Addr(1), 0).String())
		return err
	})
	var work sync.WaitGroup
	defer work.Wait()
	defer l.Close()
	work.Go(func() {
		for {
			server, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer server.Close()
				server.SetDeadline(time.Now().Add(patience))
				order := make([]byte, 1)
				if server.Read(order); order[0] == 'w' {
					server.Read(order)
				}
			})
		}
	})
	const all, atOnce = 2000, 50
	done := make(chan error)
	for range atOnce {
		go func() {
			for i := range all / atOnce {
				done <- func() error {
					client, err := net.DialTimeout("tcp", l.Addr().String(), patience)
					if err != nil {
						return err
					}
					defer client.Close()
					client.SetDeadline(time.Now().Add(patience))
					if i%2 == 0 {
						_, err := io.WriteString(client, "w") // the server waits for us
						return err
					}
					if _, err := io.WriteString(client, "c"); err != nil {
						return err
					}
					_, err = io.Copy(io.Discard, client)
					return err
				}()
			}
		}()
	}
	for range all {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	by := make(map[string]int)
	for _, c := range closings(t, w) {
		by[c.By]++
	}
	if want := map[string]int{"client": all / 2, "server": all / 2}; !maps.Equal(by, want) {
		t.Error(cmp.Diff(want, by))
	}
}

// Crossed FINs and segments that come again, which no test can have from a real network at will.
func TestTracker(t *testing.T) {
	client, server := netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("10.0.0.2:22")
	up := func(flags byte, seq, ack, next uint32) segment { return segment{client, server, seq, ack, next, flags} }
	down := func(flags byte, seq, ack, next uint32) segment { return segment{server, client, seq, ack, next, flags} }
	const fin, rst = flagFIN | flagACK, flagRST | flagACK
	top := ^uint32(0)
	syn := up(flagSYN, top-10, 0, top-9)
	is := func(by, with string, both bool) Closing { return Closing{client, server, by, with, both} }
	for name, c := range map[string]struct {
		segments []segment
		want     []Closing
	}{
		"open":                  {[]segment{syn, down(flagSYN|flagACK, 1, top-9, 2)}, nil},
		"not seen from the SYN": {[]segment{up(fin, 1, 1, 2), down(fin, 1, 2, 2)}, nil},
		"refused":               {[]segment{syn, down(rst, 0, top-9, 0)}, []Closing{is("server", "RST", false)}},
		"FIN each, in turn":     {[]segment{syn, down(fin, 7, top, 8), up(fin, top, 8, 0)}, []Closing{is("server", "FIN", false)}},
		"FIN sent again": {[]segment{syn, down(fin, 7, top, 8), down(fin, 7, top, 8), up(fin, top, 8, 0)},
			[]Closing{is("server", "FIN", false)}},
		"FINs crossed, numbers wrapped": {[]segment{syn, up(fin, top, 7, 0), down(fin, 7, top, 8), down(flagACK, 8, 0, 8)},
			[]Closing{is("client", "FIN", true)}},
		"FIN, then RST": {[]segment{syn, down(fin, 7, top, 8), up(flagRST, top, 0, top)}, []Closing{is("server", "FIN", false)}},
		"SYN sent again": {[]segment{syn, down(rst, 0, top-9, 0), syn, down(rst, 0, top-9, 0)},
			[]Closing{is("server", "RST", false)}},
		"the port used again": {[]segment{syn, down(fin, 7, top, 8), up(flagSYN, 5, 0, 6), up(fin, 6, 1, 7)},
			[]Closing{is("server", "FIN", false), is("client", "FIN", false)}},
	} {
		tr := tracker{conns: make(map[ends]*tracked)}
		for _, s := range c.segments {
			tr.see(s)
		}
		if got := tr.closings(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %s", name, cmp.Diff(c.want, got, compareAddrPort))
		}
	}
}

func FuzzParseSegment(f *testing.F) {
	v4 := append([]byte{0x45, 0, 0, 45, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2},
		0x9c, 0x40, 0, 22, 0, 0, 0, 9, 0, 0, 0, 7, 0x50, flagFIN|flagACK, 0, 0, 0, 0, 0, 0)
	v6 := slices.Concat([]byte{0x60, 0, 0, 0, 0, 20, 6, 64}, bytes.Repeat([]byte{1}, 32), v4[20:])
	for packet, next := range map[string]uint32{string(v4): 15, string(v6): 10} { // 5 bytes and a FIN after 9, and a FIN alone
		if s, ok := parseSegment([]byte(packet)); !ok || s.seq != 9 || s.ack != 7 || s.next != next || s.to.Port() != 22 || s.from.Port() != 40000 {
			f.Errorf("%v, %+v, want next %d", ok, s, next)
		}
		f.Add([]byte(packet))
	}
	f.Add([]byte{0x4f})
	f.Fuzz(func(t *testing.T, packet []byte) {
		s, ok := parseSegment(packet)
		if ok && (len(packet) < 40 || s.from.Addr().Is4() != (packet[0]>>4 == 4)) {
			t.Errorf("%x became %+v", packet, s)
		}
	})
}
