package hostkeys

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// field cuts the first word off a line that does not begin with a blank.
func field(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// lower is tolower(3) of the C locale, which is how the programs that write these files do it.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for j, c := range b {
				if 'A' <= c && c <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// matchList says whether a comma list of patterns holds for a name: one matches and none of those with a ! in front does
// (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). Patterns see the whole name: *.org matches "a.org" and not "[a.org]:2222". Both in
// lower case.
func matchList(patterns, name string) bool {
	found := false
	for pattern := range strings.SplitSeq(patterns, ",") {
		if negated, is := strings.CutPrefix(pattern, "!"); is {
			if match(negated, name) {
				return false
			}
		} else if !found {
			found = match(pattern, name)
		}
	}
	return found
}

// match is that of one pattern: * stands for any number of characters, ? for one. It takes no longer than len(pattern) * len(s).
func match(pattern, s string) bool {
	p, i := 0, 0
	star, from := -1, 0 // the last * and where what it stands for ends, to try one more character
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// hashedName is HMAC-SHA1(salt, name): "|1|salt|hash".
type hashedName struct {
	salt, hash [sha1.Size]byte
	line       int32 // index into DB.lines
}

func parseHashed(s string) (h hashedName, err error) {
	parts := strings.Split(s, "|")
	if len(parts) != 4 || parts[1] != "1" {
		return h, errors.New("the hashed name is damaged: it must be |1|salt|hash")
	}
	for i, to := range []*[sha1.Size]byte{&h.salt, &h.hash} {
		b, err := base64.StdEncoding.Strict().DecodeString(parts[2+i])
		if err != nil || len(b) != len(to) {
			return h, errors.New("the hashed name is damaged: salt and hash must be 20 bytes each in base64")
		}
		copy(to[:], b)
	}
	return h, nil
}

func (h *hashedName) String() string {
	return "|1|" + base64.StdEncoding.EncodeToString(h.salt[:]) + "|" + base64.StdEncoding.EncodeToString(h.hash[:])
}

// A probe compares one name with many hashes. It is HMAC (RFC 2104) with both blocks in place, of which only the salt changes
// from line to line: a third of the time that crypto/hmac takes, and no allocation.
type probe struct {
	inner []byte
	outer [sha1.BlockSize + sha1.Size]byte
}

func newProbe(name string) *probe {
	p := &probe{inner: make([]byte, sha1.BlockSize, sha1.BlockSize+len(name))}
	for i := sha1.Size; i < sha1.BlockSize; i++ {
		p.inner[i], p.outer[i] = 0x36, 0x5c
	}
	p.inner = append(p.inner, name...)
	return p
}

func (p *probe) sum(salt *[sha1.Size]byte) [sha1.Size]byte {
	for i, b := range salt {
		p.inner[i], p.outer[i] = b^0x36, b^0x5c
	}
	sum := sha1.Sum(p.inner)
	copy(p.outer[sha1.BlockSize:], sum[:])
	return sha1.Sum(p.outer[:])
}

func (p *probe) matches(h *hashedName) bool { return p.sum(&h.salt) == h.hash }

// group is a set of hashed lines without a marker: those with one key, or those with one type of key.
type group struct {
	typ  string
	at   []int32      // indexes into DB.hashed, rising
	last atomic.Int32 // index into at: the line that was found last
}

// hashes is what is known of one name among the hashed lines: indexes into DB.hashed.
type hashes struct {
	name string

	mu     sync.Mutex
	found  []int32 // lines without a marker that are the name's
	whole  bool    // these are all
	marked []int32 // lines with a marker that are the name's, if tried
	tried  bool
}

func (db *DB) hashesOf(name string) *hashes {
	if len(db.hashed) == 0 {
		return &hashes{whole: true, tried: true}
	}
	db.askedMu.Lock()
	defer db.askedMu.Unlock()
	h := db.asked[name]
	if h == nil {
		h = &hashes{name: name}
		db.asked[name] = h
	}
	return h
}

// find looks for a line of the name in g. It begins where the last one was found and goes outward: hosts are mostly asked for
// in an order like that of the file, so that a few steps do where half of the lines would be tried otherwise.
func (h *hashes) find(db *DB, g *group) (int32, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.findLocked(db, g)
}

func (h *hashes) findLocked(db *DB, g *group) (int32, bool) {
	for _, at := range h.found {
		if _, in := slices.BinarySearch(g.at, at); in {
			return db.hashed[at].line, true
		}
	}
	if h.whole {
		return 0, false
	}
	p := newProbe(h.name)
	last := int(g.last.Load())
	for up, down := last, last-1; up < len(g.at) || down >= 0; up, down = up+1, down-1 {
		for _, i := range [2]int{up, down} {
			if i < 0 || i >= len(g.at) || !p.matches(&db.hashed[g.at[i]]) {
				continue
			}
			g.last.Store(int32(i))
			h.found = append(h.found, g.at[i])
			return db.hashed[g.at[i]].line, true
		}
	}
	return 0, false
}

// any looks for a line of the name with any key, the most frequent key type first.
func (h *hashes) any(db *DB) (int32, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range db.types {
		if i, found := h.findLocked(db, g); found {
			return i, true
		}
	}
	h.whole = true // there is none
	return 0, false
}

// all are the lines of the name without a marker.
func (h *hashes) all(db *DB) []int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.whole {
		h.found = h.found[:0]
		p := newProbe(h.name)
		for _, g := range db.types {
			for _, at := range g.at {
				if p.matches(&db.hashed[at]) {
					h.found = append(h.found, at)
				}
			}
		}
		h.whole = true
	}
	return db.linesOf(h.found)
}

// known are the lines that all would give, if that is known without trying them.
func (h *hashes) known(db *DB) ([]int32, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return db.linesOf(h.found), h.whole
}

// withMarker are the lines of the name with a marker: there are few, so that all are tried.
func (h *hashes) withMarker(db *DB) []int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.tried {
		p := newProbe(h.name)
		for _, at := range db.marked {
			if p.matches(&db.hashed[at]) {
				h.marked = append(h.marked, at)
			}
		}
		h.tried = true
	}
	return db.linesOf(h.marked)
}

func (db *DB) linesOf(hashed []int32) []int32 {
	lines := make([]int32, len(hashed))
	for i, at := range hashed {
		lines[i] = db.hashed[at].line
	}
	return lines
}
