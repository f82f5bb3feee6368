package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var sameAddr = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// message builds a struct inet_diag_msg by the offsets of linux/inet_diag.h.
func message(family uint8, state State, local, remote netip.AddrPort) []byte {
	b := make([]byte, messageLen)
	b[0], b[1], b[2] = family, uint8(state), uint8(Keepalive)
	binary.BigEndian.PutUint16(b[4:], local.Port())
	binary.BigEndian.PutUint16(b[6:], remote.Port())
	copy(b[8:24], local.Addr().AsSlice())
	copy(b[24:40], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(b[40:], 3)
	binary.NativeEndian.PutUint32(b[52:], 1500)
	binary.NativeEndian.PutUint32(b[64:], 1000)
	binary.NativeEndian.PutUint32(b[68:], 4711)
	return b
}

func TestParse(t *testing.T) {
	addr := netip.MustParseAddrPort
	for _, tt := range []struct {
		name          string
		family        uint8
		local, remote string // on the wire
		want          Socket
	}{
		{"IPv4", afInet, "192.0.2.1:1023", "192.0.2.2:514",
			Socket{Local: addr("192.0.2.1:1023"), Remote: addr("192.0.2.2:514")}},
		{"IPv6", afInet6, "[2001:db8::1]:600", "[2001:db8::2]:514",
			Socket{IPv6: true, Local: addr("[2001:db8::1]:600"), Remote: addr("[2001:db8::2]:514")}},
		{"IPv4 over IPv6", afInet6, "[::ffff:192.0.2.1]:600", "[::ffff:192.0.2.2]:514",
			Socket{IPv6: true, Local: addr("192.0.2.1:600"), Remote: addr("192.0.2.2:514")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			want.State, want.Timer, want.Expires = Established, Keepalive, 1500*time.Millisecond
			want.Interface, want.UID, want.Inode = 3, 1000, 4711
			got, err := parse(message(tt.family, Established, addr(tt.local), addr(tt.remote)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, sameAddr); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	good := message(afInet, Listen, netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2"))
	if _, err := parse(good[:messageLen-1]); err == nil {
		t.Error("a message cut short was accepted")
	}
	good[0] = 1
	if _, err := parse(good); err == nil {
		t.Error("a message of address family 1 was accepted")
	}
}

func TestNames(t *testing.T) {
	for s, want := range map[State]string{Established: "ESTABLISHED", TimeWait: "TIME-WAIT", Bound: "BOUND", 0: "state 0", 99: "state 99"} {
		if got := s.String(); got != want {
			t.Errorf("State(%d) is %q, want %q", uint8(s), got, want)
		}
	}
	for tm, want := range map[Timer]string{NoTimer: "off", ZeroWindow: "persist", 9: "timer 9"} {
		if got := tm.String(); got != want {
			t.Errorf("Timer(%d) is %q, want %q", uint8(tm), got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message(afInet, Listen, netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2")))
	f.Add([]byte{afInet6})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b)
		if err == nil && (!s.Local.IsValid() || !s.Remote.IsValid()) {
			t.Errorf("parse(%x) has no addresses and no error", b)
		}
	})
}
