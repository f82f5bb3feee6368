package output

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"slices"
)

// store keeps the outputs of many hosts, and what the beginnings of several have in common once. It is a tree of pieces: an output is the
// bytes from the root down to its end, and where two outputs part, so do the branches.
//
//	root ── "Linux 6.1" ─┬─ "2-amd64\n"      ◄── node[1-9] ended here
//	                     └─ "8-arm64\nup" …  ◄── node10 is here
//
// A host follows the tree as its bytes arrive, and they are kept only where nobody has sent the same before. So nothing is kept twice, not even
// while the hosts are running, and two outputs are equal if, and only if, they end at the same piece: nothing has to be compared in the end.
//
// When the pieces take more than limit bytes, the oldest go to a file without a name, and are read from there.
type store struct {
	limit int64
	dir   string // of the file; empty: os.TempDir

	root   piece
	memory int64 // bytes of pieces, and of lines that are held back
	oldest *piece
	newest *piece

	file    *os.File
	size    int64   // of file
	free    []int64 // offsets of whole pieces there that nobody needs any more
	scratch []byte
	err     error // of the file: there is no limit any more
}

const (
	pieceSize = 64 << 10 // bytes of a piece, at most: less is read for a small difference
	pieceCost = 160      // memory of a piece without its bytes, about
	spoolSize = 256 << 10
)

// piece is a run of bytes of outputs. Those that may follow it are its children, of which no two begin with the same byte.
type piece struct {
	parent   *piece
	children []*piece
	newer    *piece // of those in memory
	older    *piece
	data     []byte // nil: they are in the file
	start    int64  // bytes of the output before it
	at       int64  // where in the file
	size     int32
	uses     int32 // hosts that are at it, and groups
	first    byte
	last     bool // outputs end with it, so it cannot grow
	inMemory bool
}

func (p *piece) end() int64 { return p.start + int64(p.size) }

func (p *piece) child(first byte) *piece {
	for _, c := range p.children {
		if c.first == first {
			return c
		}
	}
	return nil
}

// cursor is how far an output has come: pos bytes, which are those down to the piece at or to one above it, since a piece can be split
// below a cursor. Its zero value is the empty output.
type cursor struct {
	at  *piece
	pos int64
}

// settle moves the cursor to the piece that has its last byte.
func (s *store) settle(c *cursor) {
	if c.at == nil {
		c.at = &s.root
		c.at.uses++
	}
	for c.pos <= c.at.start && c.at.parent != nil {
		s.move(c, c.at.parent)
	}
}

func (s *store) move(c *cursor, to *piece) {
	from := c.at
	to.uses++
	c.at = to
	s.leave(from)
}

// leave says that a host or group does not need the piece any more. It goes if nobody else does, and those above in their turn.
func (s *store) leave(p *piece) {
	p.uses--
	for p.uses == 0 && len(p.children) == 0 && p.parent != nil {
		if p.inMemory {
			s.unlist(p)
			s.memory -= int64(cap(p.data))
		} else if p.size == pieceSize {
			s.free = append(s.free, p.at)
		}
		s.memory -= pieceCost
		parent := p.parent
		i := slices.Index(parent.children, p)
		parent.children = slices.Delete(parent.children, i, i+1)
		p = parent
	}
}

// add appends data to the output that the cursor is at the end of.
func (s *store) add(c *cursor, data []byte) error {
	if s.err != nil {
		return s.err
	}
	s.settle(c)
	for len(data) > 0 {
		if p := c.at; c.pos == p.end() {
			if next := p.child(data[0]); next != nil {
				s.move(c, next)
			} else {
				data = data[s.grow(c, data):]
				continue
			}
		}
		n, err := s.follow(c, data)
		if err != nil {
			return err
		}
		c.pos += int64(n)
		if data = data[n:]; len(data) > 0 && c.pos < c.at.end() {
			head, err := s.split(c.at, int(c.pos-c.at.start))
			if err != nil {
				return err
			}
			s.move(c, head)
		}
	}
	return s.spool()
}

// follow returns how many of the bytes are those that the piece goes on with, after the cursor.
func (s *store) follow(c *cursor, data []byte) (int, error) {
	off := int(c.pos - c.at.start)
	data = data[:min(len(data), int(c.at.size)-off)]
	have, err := s.read(c.at, off, len(data))
	if err != nil {
		return 0, err
	}
	return common(have, data), nil
}

// common is the number of bytes that two slices of the same length begin with alike.
func common(a, b []byte) int {
	if bytes.Equal(a, b) {
		return len(a)
	}
	i := 0
	for ; i+8 <= len(a); i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for a[i] == b[i] {
		i++
	}
	return i
}

// grow puts data after the piece that the cursor is at the end of, and returns how many bytes had room.
func (s *store) grow(c *cursor, data []byte) int {
	p := c.at
	if p.inMemory && !p.last && len(p.children) == 0 && p.size < pieceSize {
		data = data[:min(len(data), pieceSize-int(p.size))]
		before := cap(p.data)
		p.data = append(p.data, data...)
		s.memory += int64(cap(p.data) - before)
		p.size += int32(len(data))
	} else {
		data = data[:min(len(data), pieceSize)]
		next := &piece{parent: p, data: bytes.Clone(data), start: p.end(), size: int32(len(data)), first: data[0]}
		p.children = append(p.children, next)
		s.memory += pieceCost + int64(cap(next.data))
		s.list(next)
		s.move(c, next)
	}
	c.pos += int64(len(data))
	return len(data)
}

// split breaks p after n bytes. It returns the new piece with those; p is the rest, so that what is at the end of p stays there.
func (s *store) split(p *piece, n int) (*piece, error) {
	head := &piece{parent: p.parent, children: []*piece{p}, start: p.start, at: p.at, size: int32(n), first: p.first}
	if p.inMemory {
		s.memory -= int64(cap(p.data))
		head.data, p.data = bytes.Clone(p.data[:n]), bytes.Clone(p.data[n:]) // so that each can go alone
		s.memory += int64(cap(head.data) + cap(p.data))
		s.list(head)
		p.first = p.data[0]
	} else {
		second, err := s.read(p, n, 1)
		if err != nil {
			return nil, err
		}
		p.first = second[0]
		p.at += int64(n)
	}
	s.memory += pieceCost
	siblings := p.parent.children
	siblings[slices.Index(siblings, p)] = head
	p.parent = head
	p.start += int64(n)
	p.size -= int32(n)
	return head, nil
}

// finish says that the output ends here, and returns the piece it ends with, which is that of no other output. The cursor, and all that it
// leads to, stays until leave is called with the piece.
func (s *store) finish(c *cursor) (*piece, error) {
	s.settle(c)
	if c.pos < c.at.end() {
		head, err := s.split(c.at, int(c.pos-c.at.start))
		if err != nil {
			return nil, err
		}
		s.move(c, head)
	}
	p := c.at
	if !p.last {
		p.last = true
		if spare := cap(p.data) - len(p.data); spare > cap(p.data)/4 {
			s.memory -= int64(cap(p.data))
			p.data = bytes.Clone(p.data)
			s.memory += int64(cap(p.data))
		}
	}
	return p, nil
}

// write writes the output that ends with p.
func (s *store) write(w io.Writer, p *piece) error {
	var path []*piece
	for ; p.parent != nil; p = p.parent {
		path = append(path, p)
	}
	for _, p := range slices.Backward(path) {
		data, err := s.read(p, 0, int(p.size))
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// lastByte is the last of the output that ends with p and is not empty.
func (s *store) lastByte(p *piece) (byte, error) {
	data, err := s.read(p, int(p.size)-1, 1)
	if err != nil {
		return 0, err
	}
	return data[0], nil
}

// list puts a piece to those in memory, as the newest.
func (s *store) list(p *piece) {
	p.inMemory = true
	p.older = s.newest
	if p.older != nil {
		p.older.newer = p
	} else {
		s.oldest = p
	}
	s.newest = p
}

func (s *store) unlist(p *piece) {
	p.inMemory = false
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		s.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		s.newest = p.older
	}
	p.older, p.newer = nil, nil
}

// read returns n bytes of the piece from off on, valid until the next call.
func (s *store) read(p *piece, off, n int) ([]byte, error) {
	if p.inMemory {
		return p.data[off : off+n], nil
	}
	s.scratch = slices.Grow(s.scratch[:0], n)[:n]
	if _, err := s.file.ReadAt(s.scratch, p.at+int64(off)); err != nil {
		s.err = s.spoolError(err)
		return nil, s.err
	}
	return s.scratch, nil
}

// spool moves the oldest pieces to the file when all of them take more than the limit, and until they take an eighth less.
func (s *store) spool() error {
	if s.memory <= s.limit || s.oldest == nil || s.err != nil {
		return s.err
	}
	if s.file == nil {
		if s.file, s.err = os.CreateTemp(s.dir, "multi-rsh-fold-*"); s.err == nil {
			s.err = os.Remove(s.file.Name())
		}
		if s.err != nil {
			s.err = s.spoolError(s.err)
			return s.err
		}
	}
	for s.memory > s.limit-s.limit/8 && s.oldest != nil {
		if err := s.spoolSome(); err != nil {
			s.err = s.spoolError(err)
			return s.err
		}
	}
	return nil
}

// spoolSome moves the oldest piece, or so many small ones as are worth a write. Only when they have been written they go.
func (s *store) spoolSome() error {
	if p := s.oldest; p.size == pieceSize {
		at, n := s.size, len(s.free)
		if n > 0 {
			at = s.free[n-1]
		}
		if _, err := s.file.WriteAt(p.data, at); err != nil {
			return err
		}
		if n > 0 {
			s.free = s.free[:n-1]
		} else {
			s.size += pieceSize
		}
		s.spooled(p, at)
		return nil
	}
	batch, saved := s.scratch[:0], int64(0)
	for p := s.oldest; p != nil && p.size < pieceSize && len(batch) < spoolSize && s.memory-saved > s.limit-s.limit/8; p = p.newer {
		batch = append(batch, p.data...)
		saved += int64(cap(p.data))
	}
	s.scratch = batch
	if _, err := s.file.WriteAt(batch, s.size); err != nil {
		return err
	}
	for n := int64(len(batch)); n > 0; {
		p := s.oldest
		n -= int64(p.size)
		s.spooled(p, s.size)
		s.size += int64(p.size)
	}
	return nil
}

func (s *store) spooled(p *piece, at int64) {
	s.memory -= int64(cap(p.data))
	s.unlist(p)
	p.data, p.at = nil, at
}

func (s *store) spoolError(err error) error {
	return fmt.Errorf("outputs to fold that do not fit in %s of memory (--fold-memory) are kept in a file (in TMPDIR), and that failed: %w", size(s.limit), err)
}

// giveUp says that little more comes, and that it is to be kept in memory even if the file has failed.
func (s *store) giveUp() { s.limit, s.err = math.MaxInt64, nil }

// close lets go of the file.
func (s *store) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// size is a number of bytes for people.
func size(n int64) string {
	for i, unit := range []string{"GiB", "MiB", "KiB"} {
		if one := int64(1) << (30 - 10*i); n >= one {
			return fmt.Sprintf("%.4g %s", float64(n)/float64(one), unit)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
