package rig

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Closing is how a TCP connection came to its end, as its packets tell it. The side that sent the first FIN is the one that
// keeps the connection in TIME_WAIT (RFC 9293, section 3.6); after a RST nobody does.
type Closing struct {
	Client, Server netip.AddrPort // who connected, and to whom
	By             string         // whose FIN or RST was first: "client" or "server"
	With           string         // "FIN" or "RST"
	Both           bool           // the other side's FIN was sent before the first one had arrived: both keep TIME_WAIT
}

// tracker follows connections from SYN to FIN or RST.
type tracker struct {
	closed []Closing // in the order of their ends
	conns  map[ends]*tracked
}

// ends are the two ends of a connection: who connected first.
type ends struct{ client, server netip.AddrPort }

type tracked struct {
	isn    uint32 // the client's initial sequence number
	closed int    // index in tracker.closed; -1: it is open
	end    uint32 // what acknowledges the first FIN
}

// segment is what matters of a TCP segment.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	next     uint32 // the sequence number after it
	flags    byte
}

// Flags of TCP, RFC 9293, section 3.1.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	_
	flagACK
)

// parseSegment reads an IP packet with a TCP segment, as far as its headers. It must not be a fragment.
func parseSegment(b []byte) (s segment, ok bool) {
	if len(b) == 0 {
		return s, false
	}
	var from, to netip.Addr
	var tcp []byte
	var length int // of the TCP segment, header and data
	switch b[0] >> 4 {
	case 4: // RFC 791, section 3.1
		header := int(b[0]&15) * 4
		if header < 20 || len(b) < header || b[9] != protocolTCP {
			return s, false
		}
		from, to = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		tcp, length = b[header:], int(binary.BigEndian.Uint16(b[2:]))-header
	case 6: // RFC 8200, section 3; the kernel sends no extension headers with TCP
		const header = 40
		if len(b) < header || b[6] != protocolTCP {
			return s, false
		}
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		tcp, length = b[header:], int(binary.BigEndian.Uint16(b[4:]))
	}
	if len(tcp) < 20 {
		return s, false
	}
	s = segment{
		from:  netip.AddrPortFrom(from, binary.BigEndian.Uint16(tcp)),
		to:    netip.AddrPortFrom(to, binary.BigEndian.Uint16(tcp[2:])),
		seq:   binary.BigEndian.Uint32(tcp[4:]),
		ack:   binary.BigEndian.Uint32(tcp[8:]),
		flags: tcp[13],
	}
	s.next = s.seq + uint32(length-int(tcp[12]>>4)*4)
	if s.flags&flagFIN != 0 {
		s.next++
	}
	return s, true
}

const protocolTCP = 6

// see takes the connections' segments in the order in which they went over the wire. Those with neither SYN, FIN nor RST do not
// matter, nor do connections whose SYN it has not seen.
func (t *tracker) see(s segment) {
	if s.flags&(flagSYN|flagACK) == flagSYN {
		e := ends{s.from, s.to}
		if c := t.conns[e]; c == nil || c.isn != s.seq { // else it is sent again
			t.conns[e] = &tracked{isn: s.seq, closed: -1}
		}
		return
	}
	if s.flags&(flagFIN|flagRST) == 0 {
		return
	}
	e, by := ends{s.from, s.to}, "client"
	c := t.conns[e]
	if c == nil {
		e, by = ends{s.to, s.from}, "server"
		if c = t.conns[e]; c == nil {
			return
		}
	}
	if c.closed < 0 {
		with := "FIN"
		if s.flags&flagRST != 0 {
			with = "RST"
		}
		c.closed, c.end = len(t.closed), s.next
		t.closed = append(t.closed, Closing{Client: e.client, Server: e.server, By: by, With: with})
		return
	}
	first := &t.closed[c.closed]
	if s.flags&flagFIN != 0 && first.With == "FIN" && by != first.By && int32(s.ack-c.end) < 0 {
		first.Both = true
	}
}

// closings is a copy of what has been seen.
func (t *tracker) closings() []Closing { return slices.Clone(t.closed) }
