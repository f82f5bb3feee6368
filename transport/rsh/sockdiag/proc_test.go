package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hexWords writes an address as /proc/net/tcp has it: each word of 32 bits as a number of this machine's.
func hexWords(a netip.Addr) (text string) {
	for b := a.AsSlice(); len(b) > 0; b = b[4:] {
		text += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b))
	}
	return text
}

func TestParseProc(t *testing.T) {
	a4, b4, mapped := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("::ffff:10.0.0.2")
	text := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: " + hexWords(a4) + ":0258 " + hexWords(b4) + ":0202 06 00000000:00000000 03:00001170 00000000     0        0 0 3 0000000000000000\n" +
		"   1: " + hexWords(netip.IPv6Unspecified()) + ":0202 " + hexWords(netip.IPv6Unspecified()) + ":0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n" +
		"   2: " + hexWords(mapped) + ":0259 " + hexWords(mapped) + ":0202 01 00000000:00000000 02:00000064 00000000     0        0 12 1 0\n" +
		"   3: " + hexWords(a4) + ":0050 " + hexWords(b4) + ":1000 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0\n"
	got, err := parseProc(strings.NewReader(text), Filter{MinPort: 512, MaxPort: 1023})
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom
	want := []Socket{
		{State: TimeWait, Local: at(a4, 600), Remote: at(b4, 514), Timer: TimeWaitTimer, Expires: 44640 * time.Millisecond},
		{State: Listen, IPv6: true, Local: at(netip.IPv6Unspecified(), 514), Remote: at(netip.IPv6Unspecified(), 0), UID: 1000, Inode: 4711},
		{State: Established, IPv6: true, Local: at(b4, 601), Remote: at(b4, 514), Timer: Keepalive, Expires: time.Second, Inode: 12},
	}
	if diff := cmp.Diff(want, got, sameAddr); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, line := range []string{"x", strings.Repeat("1 ", 12), "0: 00:0 00:0 01 0:0 0:0 0 0 0 0", "0: 00000000:FFFFF 00000000:0 01 0:0 0:0 0 0 0 0"} {
		if got, err := parseProc(strings.NewReader("heading\n"+line+"\n"), Filter{}); err == nil {
			t.Errorf("%q is %+v", line, got)
		}
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add("0: 0100007F:0202 0100007F:9C40 06 00000000:00000000 03:00001770 00000000 0 0 0 3")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := parseProcLine(line)
		if err == nil && (!s.Local.IsValid() || !s.Remote.IsValid() || s.State > 31) {
			t.Errorf("%q is %+v and no error", line, s)
		}
	})
}
