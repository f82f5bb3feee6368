package shwrap

import (
	"bytes"
	"io"
)

// maxNoise is how much may come before the leader and be held.
const maxNoise = 64 << 10

// A Channel reads one channel of a session off the wire: what is written to it is what came, in pieces of any size, and it
// writes the command's output to its destination, byte for byte. It is for one goroutine.
//
// What comes before the leader is the login shell's: a line printed by a start-up file, or why there is no session. It is held
// back, goes to the destination before the output if the leader comes, as it would without this package, and is Noise if
// it does not. Who says more than 64 KiB without a leader does not speak this protocol: then all of it is output at once.
//
// A Write neither copies nor allocates, but for what may be the beginning of a mark and for noise.
type Channel struct {
	dst   io.Writer
	mark  [markLen]byte // of the leader, then of the trailer
	state state
	held  []byte            // noise, or the beginning of what may be a mark; in buf while it fits, as the latter does
	buf   [2 * maxMark]byte // room for it to become one

	overrun bool // more than maxNoise came
	status  int
	late    int64
}

type state uint8

const (
	waiting state = iota // for the leader
	running              // for the trailer
	ended
)

// Stdout is the reader of the main channel. The output goes to dst, which may be nil.
func (w *Wrapper) Stdout(dst io.Writer) *Channel { return w.channel(dst) }

// Stderr is the reader of the stderr channel of a session that is not Merged.
func (w *Wrapper) Stderr(dst io.Writer) *Channel { return w.channel(dst) }

func (w *Wrapper) channel(dst io.Writer) *Channel {
	if dst == nil {
		dst = io.Discard
	}
	c := &Channel{dst: dst}
	copy(c.mark[:], w.mark('+'))
	return c
}

// Started says whether the leader has come: the command has begun.
func (c *Channel) Started() bool { return c.state != waiting }

// Ended says whether the trailer has come, and the exit status in it: all of the command's output on this channel has been
// written.
func (c *Channel) Ended() (status int, ok bool) { return c.status, c.state == ended }

// Late is how many bytes came after the trailer. They are a background child's and were dropped.
func (c *Channel) Late() int64 { return c.late }

// Noise is what came before a leader that has not come yet. It is valid until the next call.
func (c *Channel) Noise() []byte {
	if c.state != waiting || c.overrun {
		return nil
	}
	return c.held
}

// Write takes what came. Its error is the destination's.
func (c *Channel) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		var err error
		if p, err = c.step(p); err != nil {
			return n - len(p), err
		}
	}
	return n, nil
}

// Close is for the end of the channel: what was held because a mark might have begun with it is output, if the command
// has begun. Noise stays.
func (c *Channel) Close() error {
	if c.state == waiting && !c.overrun || len(c.held) == 0 {
		return nil
	}
	held := c.held
	c.held = nil
	_, err := c.dst.Write(held)
	return err
}

// step takes some of p and returns the rest.
func (c *Channel) step(p []byte) (rest []byte, err error) {
	switch {
	case c.state == ended:
		c.late += int64(len(p))
		return nil, nil
	case len(c.held) == 0:
		begin, end, whole := c.find(p)
		if !whole && c.state == waiting && !c.overrun {
			return nil, c.hold(p)
		}
		return p[end:], c.take(p, begin, end, whole)
	case c.state == waiting && !c.overrun:
		return c.noise(p)
	}

	// What is held may begin a mark. Look at it together with as much of p as completes one.
	held := len(c.held)
	joined := append(c.held, p[:min(len(p), maxMark)]...) // in buf
	begin, end, whole := c.find(joined)
	if begin >= held { // it does not
		c.held = c.held[:0]
		_, err := c.dst.Write(joined[:held])
		return p, err
	}
	return p[end-held:], c.take(joined, begin, end, whole)
}

// noise is step while noise is held.
func (c *Channel) noise(p []byte) (rest []byte, err error) {
	old := max(0, len(c.held)-maxMark) // no mark begins before
	if err := c.hold(p); err != nil || c.overrun {
		return nil, err
	}
	begin, end, whole := c.find(c.held[old:])
	if !whole {
		return nil, nil
	}
	held := c.held
	return p[len(p)-(len(held)-old-end):], c.take(held[:old+end], old+begin, old+end, true)
}

// hold keeps p as noise. If that is too much it stops holding.
func (c *Channel) hold(p []byte) error {
	if c.held == nil {
		c.held = c.buf[:0]
	}
	c.held = append(c.held, p...)
	if len(c.held) <= maxNoise {
		return nil
	}
	c.overrun = true
	held := c.held
	c.held = nil
	_, err := c.Write(held)
	return err
}

// take writes what comes before the mark at p[begin:end] and accepts or, if it is not whole, holds it.
func (c *Channel) take(p []byte, begin, end int, whole bool) error {
	if begin > 0 {
		if _, err := c.dst.Write(p[:begin]); err != nil {
			return err
		}
	}
	if !whole {
		c.held = append(c.buf[:0], p[begin:end]...)
		return nil
	}
	c.held = nil
	if c.state == waiting {
		c.state = running
		c.mark[markLen-1] = '-'
		return nil
	}
	c.state = ended
	for _, digit := range p[begin+markLen : end-1] {
		c.status = 10*c.status + int(digit-'0')
	}
	if c.status > 255 { // ksh93 says 256+n for signal n
		c.status -= 128
	}
	return nil
}

// find looks for the first mark: p[begin:end], or, if it is not whole, what at the end of p may become one. That is empty
// if there is none.
func (c *Channel) find(p []byte) (begin, end int, whole bool) {
	for {
		i := bytes.Index(p[begin:], c.mark[:])
		if i < 0 {
			break
		}
		begin += i
		switch n := c.rest(p[begin+markLen:]); {
		case n > 0:
			return begin, begin + markLen + n, true
		case n == 0:
			return begin, len(p), false
		}
		begin++
	}
	// The record separator is in the mark but once.
	begin = max(begin, len(p)-markLen+1)
	i := bytes.LastIndexByte(p[begin:], recordSeparator)
	if i < 0 || !bytes.HasPrefix(c.mark[:], p[begin+i:]) {
		return len(p), len(p), false
	}
	return begin + i, len(p), false
}

// rest is the length of what follows c.mark at the beginning of p; 0 if p is too short to tell, less if it is no mark.
func (c *Channel) rest(p []byte) int {
	digits := 0
	if c.state != waiting {
		for digits < len(p) && digits < 3 && '0' <= p[digits] && p[digits] <= '9' {
			digits++
		}
	}
	switch {
	case digits == len(p):
		return 0
	case p[digits] != '\n' || c.state != waiting && digits == 0:
		return -1
	}
	return digits + 1
}
