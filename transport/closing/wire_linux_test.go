package closing

import (
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Flags of TCP, RFC 9293, section 3.1.
const (
	flagFIN = 1
	flagSYN = 2
	flagRST = 4
)

// wire sees what passes one end's card. The kernel keeps it until it is asked for.
type wire struct {
	fd   int // a packet(7) socket
	seen map[segment]bool
}

// segment is what two copies of a segment have in common.
type segment struct {
	outgoing bool
	ports    [4]byte
	seq      uint32
	kind     string
}

func newWire(t testing.TB, e *end) *wire {
	t.Helper()
	w := &wire{seen: make(map[segment]bool)}
	err := e.do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			err = unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: e.card})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// passed tells what has passed since it was last asked: data, FIN and RST, and each but once, however often it was sent.
func (w *wire) passed(t testing.TB) string {
	t.Helper()
	var all []string
	buf := make([]byte, 128)
	for {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return strings.Join(all, ", ")
		}
		if err != nil {
			t.Fatal(err)
		}
		b := buf[:n]
		kind := from.(*unix.SockaddrLinklayer).Pkttype
		if len(b) < 40 || b[0]>>4 != 4 || b[9] != unix.IPPROTO_TCP || kind == unix.PACKET_OTHERHOST {
			continue
		}
		tcp := b[int(b[0]&15)*4:]
		data := int(binary.BigEndian.Uint16(b[2:])) - int(b[0]&15)*4 - int(tcp[12]>>4)*4
		s := segment{outgoing: kind == unix.PACKET_OUTGOING, ports: [4]byte(tcp), seq: binary.BigEndian.Uint32(tcp[4:])}
		switch flags := tcp[13]; {
		case flags&flagRST != 0:
			s.kind = "RST"
		case flags&flagFIN != 0:
			s.kind = "FIN"
		case data > 0:
			s.kind = "data"
		default:
			continue
		}
		if w.seen[s] {
			continue
		}
		w.seen[s] = true
		arrow := "←"
		if s.outgoing {
			arrow = "→"
		}
		all = append(all, arrow+" "+s.kind)
	}
}

// networkOrder is htons(3).
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
