//go:build unix

package rshtest

import (
	"bytes"
	"io"
	"regexp"
)

// The marks of package shwrap, as they look on the wire: the byte 0x1e, 32 hexadecimal digits, then "+" for the leader or "-" and
// the exit status for the trailer, then a newline. They are told by their look alone, so that this package needs to know
// nothing else of the wrapper.
var (
	mark = regexp.MustCompile(`\x1e[0-9a-f]{32}(\+|-[0-9]{1,3})\n`)
	// partial is what may still become a mark, at the end of what has been read.
	partial = regexp.MustCompile(`\x1e([0-9a-f]{0,31}|[0-9a-f]{32}(\+?|-[0-9]{0,3}))$`)
)

const (
	nonceLen = 32
	markMax  = 1 + nonceLen + len("-255\n")
)

type piece uint8

const (
	output piece = iota
	leader
	trailer
)

// pieces reads r to its end and hands it on in pieces, none lost: ordinary output, the leader, the trailer. The first leader
// fixes the nonce; what looks like a mark with another one is output. It returns emit's error or r's, nil at end of file.
// The bytes are valid only during the call.
func pieces(r io.Reader, emit func(piece, []byte) error) error {
	var nonce []byte
	buf := make([]byte, 0, 32<<10)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		rest := buf
		for len(rest) > 0 {
			kind, from, to := nextMark(rest, nonce)
			if to < 0 {
				// Hold back what may be the beginning of a mark, unless nothing more comes.
				from = len(rest)
				if err == nil {
					tail := rest[max(0, len(rest)-markMax):]
					if at := partial.FindIndex(tail); at != nil {
						from = len(rest) - len(tail) + at[0]
					}
				}
			}
			if from > 0 {
				if err := emit(output, rest[:from]); err != nil {
					return err
				}
			}
			if to < 0 {
				rest = rest[from:]
				break
			}
			if nonce == nil {
				nonce = bytes.Clone(rest[from+1 : from+1+nonceLen])
			}
			if err := emit(kind, rest[from:to]); err != nil {
				return err
			}
			rest = rest[to:]
		}
		buf = buf[:copy(buf[:cap(buf)], rest)]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// nextMark finds the first leader in b when nonce is nil, else the first mark with that nonce; to is -1 when there is none.
func nextMark(b, nonce []byte) (kind piece, from, to int) {
	for base := 0; ; {
		at := mark.FindSubmatchIndex(b[base:])
		if at == nil {
			return output, 0, -1
		}
		from, to, sign := base+at[0], base+at[1], b[base+at[2]]
		switch {
		case nonce == nil && sign == '+':
			return leader, from, to
		case nonce != nil && bytes.Equal(nonce, b[from+1:from+1+nonceLen]):
			if sign == '+' {
				return leader, from, to
			}
			return trailer, from, to
		}
		base = to
	}
}
