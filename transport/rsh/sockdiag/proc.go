package sockdiag

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// parseProc reads /proc/net/tcp or tcp6 as proc_net_tcp.rst in the kernel's documentation describes it: a heading, then a socket
// a line, whose first fields are
//
//	sl: local:port remote:port state tx:rx timer:expires retransmits uid timeout inode …
//
// An address is hexadecimal, in words of 32 bits in the machine's own order of bytes.
func parseProc(r io.Reader, f Filter) ([]Socket, error) {
	var sockets []Socket
	lines := bufio.NewScanner(r)
	lines.Scan() // the heading
	for lines.Scan() {
		s, err := parseProcLine(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("sockdiag: /proc/net/tcp has the line %q: %w", lines.Text(), err)
		}
		if f.wants(s) {
			sockets = append(sockets, s)
		}
	}
	return sockets, lines.Err()
}

// userHZ is how many ticks a second has in what the kernel tells programs, everywhere but on Alpha and IA-64.
const userHZ = 100

func parseProcLine(line string) (s Socket, err error) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return s, fmt.Errorf("it has %d fields", len(fields))
	}
	number := func(text string, base, bits int) uint64 {
		n, e := strconv.ParseUint(text, base, bits)
		if e != nil && err == nil {
			err = e
		}
		return n
	}
	address := func(text string) netip.AddrPort {
		host, port, _ := strings.Cut(text, ":")
		raw, e := hex.DecodeString(host)
		if e == nil && len(raw) != 4 && len(raw) != 16 {
			e = fmt.Errorf("the address %q is neither IPv4 nor IPv6", host)
		}
		if e != nil {
			err = e
			return netip.AddrPort{}
		}
		s.IPv6 = len(raw) == 16
		for word := raw; len(word) > 0; word = word[4:] {
			binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
		}
		addr, _ := netip.AddrFromSlice(raw)
		return netip.AddrPortFrom(addr.Unmap(), uint16(number(port, 16, 16)))
	}
	s.Local, s.Remote = address(fields[1]), address(fields[2])
	s.State = State(number(fields[3], 16, 5))
	timer, ticks, _ := strings.Cut(fields[5], ":")
	s.Timer = Timer(number(timer, 16, 8))
	s.Expires = time.Duration(number(ticks, 16, 32)) * time.Second / userHZ
	s.UID = uint32(number(fields[7], 10, 32))
	s.Inode = uint32(number(fields[9], 10, 32))
	return s, err
}
