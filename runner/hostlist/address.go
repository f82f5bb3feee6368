package hostlist

import (
	"net/netip"
	"strconv"
	"strings"
)

// maxPrefix is the most addresses that an IPv6 prefix may have: each is a name of its own shape.
const maxPrefix = 1 << 16

// ipv6 takes an IPv6 address, in brackets or not, and the length of a prefix, which is -1 where there is none.
func ipv6(word string) (addr netip.Addr, length int, ok bool) {
	if strings.HasPrefix(word, "[") && strings.HasSuffix(word, "]") {
		word = word[1 : len(word)-1]
	}
	length = -1
	if before, after, cut := strings.Cut(word, "/"); cut {
		n, err := strconv.ParseUint(after, 10, 8)
		if err != nil || n > 128 || strings.Contains(before, "%") {
			return addr, 0, false
		}
		word, length = before, int(n)
	}
	addr, err := netip.ParseAddr(word)
	if err != nil || !addr.Is6() {
		return addr, 0, false
	}
	for _, r := range addr.Zone() {
		if !inName(r) {
			return addr, 0, false
		}
	}
	return addr, length, true
}

// address reads an address or a network, if word begins with one: 10.1.0.0/28, fe80::1%eth0, [2001:db8::/120]. An IPv4
// address alone is a name like others. It leaves what may follow brackets.
func (p *parser) address(t *term, word string) (is bool, err error) {
	start := p.pos
	if before, after, ok := strings.Cut(word, "/"); ok {
		if addr, err := netip.ParseAddr(before); err == nil && addr.Is4() {
			after, _, _ = strings.Cut(after, ":")
			length, err := strconv.ParseUint(after, 10, 8)
			if err != nil || length > 32 {
				return true, p.fail(p.pos+len(before)+1, "expected the length of the prefix, a number from 0 to 32")
			}
			p.pos += len(before) + 1 + len(after)
			return true, p.network4(t, start, addr, int(length))
		}
	}
	if i := strings.IndexByte(word, ']'); i >= 0 && word[0] == '[' {
		word = word[:i+1]
	}
	addr, length, ok := ipv6(word)
	if !ok {
		return false, nil
	}
	p.pos += len(word)
	if length < 0 {
		t.entries = []entry{{shape: strings.Trim(word, "[]")}}
		return true, nil
	}
	return true, p.network6(t, start, addr, length)
}

// masked refuses an address that has bits set beyond the prefix: it is not clear whether the host or the network is meant.
func (p *parser) masked(start int, addr netip.Addr, length int) error {
	if network := netip.PrefixFrom(addr, length).Masked(); network.Addr() != addr {
		return p.fail(start, "%s is a host in the network %s: write the network for all of its hosts, or the address alone", addr, network)
	}
	return nil
}

// network4 makes the names of the hosts of an IPv4 network: without the network's own address and the broadcast address,
// where it has them (RFC 3021).
func (p *parser) network4(t *term, start int, addr netip.Addr, length int) error {
	if err := p.masked(start, addr, length); err != nil {
		return err
	}
	n := 1 << (32 - length)
	lo, hi := addr.As4(), addr.As4()
	for i := length; i < 32; i++ {
		hi[i/8] |= 0x80 >> (i % 8)
	}
	if length < 31 {
		n -= 2
		lo[3]++
		hi[3]--
	}
	if n > MaxHosts {
		return p.fail(start, "this names %d hosts, and at most %d are possible", n, MaxHosts)
	}
	t.entries = []entry{{shape: gap + "." + gap + "." + gap + "." + gap, root: between(lo[:], hi[:])}}
	return nil
}

// between makes the tree of the addresses from lo to hi.
func between(lo, hi []byte) *node {
	t := new(node)
	add := func(from, to int, below *node) {
		if from <= to {
			for _, s := range appendRange(nil, uint64(from), uint64(to), 1, 1) {
				t.add(s, 1, below)
			}
		}
	}
	first, last := int(lo[0]), int(hi[0])
	switch {
	case len(lo) == 1:
		add(first, last, nil)
	case first == last:
		add(first, last, between(lo[1:], hi[1:]))
	default:
		zeros, ones := []byte{0, 0, 0}[:len(lo)-1], []byte{255, 255, 255}[:len(lo)-1]
		add(first, first, between(lo[1:], ones))
		add(first+1, last-1, between(zeros, ones))
		add(last, last, between(zeros, hi[1:]))
	}
	return t
}

// network6 makes the names of all addresses of an IPv6 network.
func (p *parser) network6(t *term, start int, addr netip.Addr, length int) error {
	if err := p.masked(start, addr, length); err != nil {
		return err
	}
	if length < 112 {
		return p.fail(start, "this names 2^%d hosts, and at most %d are possible in an IPv6 network: expected /112 or longer", 128-length, maxPrefix)
	}
	for n := 1 << (128 - length); n > 0; n-- {
		t.entries = append(t.entries, entry{shape: addr.String()})
		addr = addr.Next()
	}
	return nil
}
