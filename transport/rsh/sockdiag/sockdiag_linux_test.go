package sockdiag

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"
)

// TestDump holds a conversation with a kernel of the test's own.
func TestDump(t *testing.T) {
	v4 := message(afInet, Listen, netip.MustParseAddrPort("192.0.2.1:600"), netip.MustParseAddrPort("0.0.0.0:0"))
	v6 := message(afInet6, TimeWait, netip.MustParseAddrPort("[2001:db8::1]:601"), netip.MustParseAddrPort("[2001:db8::2]:514"))
	gone := message(afInet, TimeWait, netip.MustParseAddrPort("192.0.2.1:0"), netip.MustParseAddrPort("192.0.2.2:514")) // while the kernel looked
	var families []uint8
	kernel := func(reqs []netlink.Message) ([]netlink.Message, error) {
		req := reqs[0]
		if req.Header.Type != unix.SOCK_DIAG_BY_FAMILY || req.Header.Flags != netlink.Request|netlink.Dump {
			t.Errorf("header %+v", req.Header)
		}
		attrs, err := netlink.UnmarshalAttributes(req.Data[requestLen:])
		if err != nil {
			t.Fatal(err)
		}
		// sport >= 512, else refuse; sport <= 1023, else refuse: on a little-endian machine
		wantCode := []byte{opSourceGE, 8, 20, 0, 0, 0, 0, 2, opSourceLE, 8, 12, 0, 0, 0, 0xff, 3}
		if len(attrs) != 1 || attrs[0].Type != reqBytecode || !slices.Equal(attrs[0].Data, wantCode) {
			t.Errorf("filter %+v, want %v", attrs, wantCode)
		}
		if got := req.Data[4]; got != 1<<TimeWait || req.Data[5] != 1<<(Listen-8) {
			t.Errorf("states %x", req.Data[4:8])
		}
		families = append(families, req.Data[0])
		m := netlink.Message{Header: req.Header, Data: v4}
		if req.Data[0] == afInet6 {
			m.Data = v6
		}
		return nltest.Multipart([]netlink.Message{m, {Header: req.Header, Data: gone}, {Header: req.Header}})
	}
	conn := nltest.Dial(kernel)
	defer conn.Close()
	got, err := dump(conn, Filter{States: []State{TimeWait, Listen}, MinPort: 512, MaxPort: 1023})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(families, []uint8{afInet, afInet6}) {
		t.Errorf("asked for families %v", families)
	}
	if len(got) != 2 || got[0].State != Listen || got[1].State != TimeWait || !got[1].IPv6 {
		t.Errorf("got %+v", got)
	}
}

func TestDumpError(t *testing.T) {
	conn := nltest.Dial(func(reqs []netlink.Message) ([]netlink.Message, error) {
		reqs[0].Header.Flags = 0 // in an error, the bits of Dump mean something else
		return nltest.Error(int(unix.EPERM), reqs)
	})
	defer conn.Close()
	if _, err := dump(conn, Filter{}); !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v, want EPERM", err)
	}
	short := nltest.Dial(func(reqs []netlink.Message) ([]netlink.Message, error) {
		return nltest.Multipart([]netlink.Message{{Header: reqs[0].Header, Data: []byte{1}}, {Header: reqs[0].Header}})
	})
	defer short.Close()
	if _, err := dump(short, Filter{}); !errors.Is(err, errShort) {
		t.Errorf("error %v, want %v", err, errShort)
	}
}

// TestTable reads the real table: a listener and both ends of a connection to it.
func TestTable(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			ln, err := net.Listen(network, map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
			if err != nil {
				t.Skipf("no %s loopback here: %v", network, err)
			}
			defer ln.Close()
			c, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			server, client := ln.Addr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()

			got, err := Table(Filter{MinPort: server.Port(), MaxPort: server.Port()})
			if err != nil {
				t.Fatal(err)
			}
			got = slices.DeleteFunc(got, func(s Socket) bool { return s.Local != server })
			slices.SortFunc(got, func(a, b Socket) int { return cmp.Compare(a.State, b.State) })
			for i := range got {
				if got[i].Inode == 0 {
					t.Errorf("no inode: %+v", got[i])
				}
				got[i].Inode, got[i].Cookie, got[i].Timer, got[i].Expires = 0, 0, 0, 0
			}
			uid, v6 := uint32(unix.Getuid()), network == "tcp6"
			want := []Socket{
				{State: Established, IPv6: v6, Local: server, Remote: client, UID: uid},
				{State: Listen, IPv6: v6, Local: server, Remote: netip.AddrPortFrom(map[bool]netip.Addr{
					false: netip.IPv4Unspecified(), true: netip.IPv6Unspecified()}[v6], 0), UID: uid},
			}
			same := gocmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
			if diff := gocmp.Diff(want, got, same); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestTableAsSS compares the table of listeners, which stands still, with what ss shows.
func TestTableAsSS(t *testing.T) {
	ss, err := exec.LookPath("ss")
	if err != nil {
		t.Skip("ss is not installed (apt-get install iproute2)")
	}
	for _, f := range []Filter{{MinPort: 1, MaxPort: 1023}, {MinPort: 1024}, {MaxPort: 40000}} {
		f.States = []State{Listen}
		args := []string{"-Htan", "state", "listening"}
		if f.MinPort > 0 {
			args = append(args, "sport", ">=", ":"+itoa(f.MinPort))
		}
		if f.MaxPort > 0 {
			args = append(args, "sport", "<=", ":"+itoa(f.MaxPort))
		}
		ports := func() (ours, theirs []string) {
			table, err := Table(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range table {
				ours = append(ours, itoa(s.Local.Port()))
			}
			out, err := exec.Command(ss, args...).Output()
			if err != nil {
				t.Fatalf("ss %q: %v", args, err)
			}
			for line := range strings.Lines(string(out)) {
				local := strings.Fields(line)[2] // Recv-Q, Send-Q, local
				theirs = append(theirs, local[strings.LastIndexByte(local, ':')+1:])
			}
			slices.Sort(ours)
			slices.Sort(theirs)
			return ours, theirs
		}
		// Other programs may start or stop listening between the two readings.
		var diff string
		for range 5 {
			ours, theirs := ports()
			if diff = gocmp.Diff(theirs, ours); diff == "" {
				break
			}
		}
		if diff != "" {
			t.Errorf("ss %q and %+v differ (-ss +table):\n%s", args, f, diff)
		}
	}
}

func itoa(p uint16) string { return strconv.Itoa(int(p)) }

func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		if _, err := Table(Filter{States: []State{Listen}, MinPort: 512, MaxPort: 1023}); err != nil {
			b.Fatal(err)
		}
	}
}
