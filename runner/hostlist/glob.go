package hostlist

import (
	"bytes"
	"math/bits"
	"unicode/utf8"
)

// glob is a name with wildcards: '*' is any text, '?' one character, and brackets are their numbers.
type glob []piece

// match reports whether name is one of the glob's. It goes through the pieces once, with all the places in name at which
// the text matched so far can end, so that no glob is slow.
func (g glob) match(name []byte) bool {
	if len(name) > maxName || g[0].wild == 0 && g[0].spans == nil && !bytes.HasPrefix(name, []byte(g[0].text)) {
		return false
	}
	var at, next places
	at.add(0)
	for _, pc := range g {
		next = places{}
		for i := at.next(0); i >= 0; i = at.next(i + 1) {
			switch {
			case pc.wild == '*':
				for ; i <= len(name); i++ {
					next.add(i)
				}
			case pc.wild == '?':
				if _, n := utf8.DecodeRune(name[i:]); n > 0 {
					next.add(i + n)
				}
			case pc.spans == nil:
				if bytes.HasPrefix(name[i:], []byte(pc.text)) {
					next.add(i + len(pc.text))
				}
			default:
				v := uint64(0)
				for j := i; j < len(name) && j-i < maxDigits && isDigit(name[j]); j++ {
					v = 10*v + uint64(name[j]-'0')
					c := makeCoord(v, j+1-i)
					for _, s := range pc.spans {
						if s.has(c) {
							next.add(j + 1)
						}
					}
				}
			}
		}
		at = next
	}
	return at.has(len(name))
}

// places is a set of places in a name, its end included.
type places [maxName/64 + 1]uint64

func (p *places) add(i int)      { p[i/64] |= 1 << (i % 64) }
func (p *places) has(i int) bool { return p[i/64]>>(i%64)&1 == 1 }

// next returns the first place from i on, -1 if there is none.
func (p *places) next(i int) int {
	for word := i / 64; word < len(p); word++ {
		if rest := p[word] >> (i % 64); rest != 0 {
			return i + bits.TrailingZeros64(rest)
		}
		i = (word + 1) * 64
	}
	return -1
}
