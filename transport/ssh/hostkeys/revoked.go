package hostkeys

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Revoked is what the files of RevokedHostKeys say: keys and certificates that no host may have, whatever its name. It is only read
// after ReadRevoked.
type Revoked struct {
	keys        map[string]Line   // by wire form
	sums        map[string]string // SHA-1 and SHA-256 of the wire forms of keys → file
	authorities []revokedBy
}

// revokedBy is the certificates of one authority that a KRL revokes.
type revokedBy struct {
	file    string
	signer  string // wire form of the authority's key; empty: whoever signed
	ids     map[string]bool
	serials []serials
	bitmaps []bitmap
}

type serials struct{ first, last uint64 }

type bitmap struct {
	first uint64
	bits  *big.Int
}

// maxRevoked bounds a file: 64 MiB are more than a million fingerprints.
const maxRevoked = 64 << 20

// ReadRevoked reads files of revoked keys, each with a public key a line or a KRL as ssh-keygen -k makes it (PROTOCOL.krl). As in OpenSSH there is an
// error, and with it no host to be believed, when one of them does not exist or cannot be understood to its end. No files: nil, which revokes nothing.
func ReadRevoked(files []string) (*Revoked, error) {
	if len(files) == 0 {
		return nil, nil
	}
	r := &Revoked{keys: map[string]Line{}, sums: map[string]string{}}
	for _, file := range files {
		if err := r.file(file); err != nil {
			return nil, fmt.Errorf("the list of revoked host keys cannot be read, so no host is believed: %w: mend the file, or name another one with RevokedHostKeys", err)
		}
	}
	return r, nil
}

func (r *Revoked) file(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRevoked+1))
	if err != nil {
		return err
	}
	if len(text) > maxRevoked {
		return fmt.Errorf("%s has more than %d MiB", name, maxRevoked>>20)
	}
	if krl, is := bytes.CutPrefix(text, []byte(krlMagic)); is {
		if err := r.krl(name, krl); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.Trim(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := r.line(line, Line{File: name, Number: number}); err != nil {
			return fmt.Errorf("%s:%d: %w", name, number, err)
		}
	}
	return nil
}

// line takes in a public key: type, key, comment.
func (r *Revoked) line(text string, at Line) error {
	typ, rest := field(text)
	encoded, _ := field(rest)
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || encoded == "" {
		return errors.New("here is no public key as in a .pub file")
	}
	if key, err := ssh.ParsePublicKey(blob); err == nil {
		blob = key.Marshal() // an RSA number can be written in more than one way
	}
	from := cursor{rest: blob}
	if inner := from.text(); string(inner) != typ || from.err != nil { // a kind of key that we do not know is as good as any other
		return fmt.Errorf("the key is damaged, or not the %.40q that the line says", typ)
	}
	r.keys[string(blob)] = at
	return nil
}

// Check says whether a host's key is revoked, in a certificate or not, its certificate, or the authority that signed it. name is for the
// *RevokedError alone.
func (r *Revoked) Check(name string, key ssh.PublicKey) error {
	if r == nil {
		return nil
	}
	plain, cert := split(key)
	if at, is := r.has(plain); is {
		return &RevokedError{Name: name, Key: plain, Line: at}
	}
	if cert == nil {
		return nil
	}
	if at, is := r.has(cert); is {
		return &RevokedError{Name: name, Key: plain, Certificate: cert, Line: at}
	}
	if at, is := r.has(cert.SignatureKey); is {
		return &RevokedError{Name: name, Key: cert.SignatureKey, Authority: true, Line: at}
	}
	for _, by := range r.authorities {
		if by.has(cert) {
			return &RevokedError{Name: name, Key: plain, Certificate: cert, Line: Line{File: by.file}}
		}
	}
	return nil
}

// has looks for the key itself and for its fingerprints.
func (r *Revoked) has(key ssh.PublicKey) (Line, bool) {
	blob := key.Marshal()
	at, is := r.keys[string(blob)]
	if !is {
		sum1, sum256 := sha1.Sum(blob), sha256.Sum256(blob)
		if at.File, is = r.sums[string(sum1[:])]; !is {
			at.File, is = r.sums[string(sum256[:])]
		}
	}
	return at, is
}

func (by *revokedBy) has(cert *ssh.Certificate) bool {
	if by.signer != "" && by.signer != string(cert.SignatureKey.Marshal()) {
		return false
	}
	if by.ids[cert.KeyId] {
		return true
	}
	n := cert.Serial
	if n == 0 { // what a certificate has whose authority does not number them
		return false
	}
	for _, s := range by.serials {
		if s.first <= n && n <= s.last {
			return true
		}
	}
	for _, b := range by.bitmaps {
		if n >= b.first && n-b.first < uint64(b.bits.BitLen()) && b.bits.Bit(int(n-b.first)) == 1 {
			return true
		}
	}
	return false
}

// The numbers of PROTOCOL.krl.
const (
	krlMagic   = "SSHKRL\n\x00"
	krlVersion = 1

	krlCertificates = 1
	krlKeys         = 2
	krlSHA1         = 3
	krlSHA256       = 5
	krlExtension    = 255

	krlSerials     = 0x20
	krlSerialRange = 0x21
	krlBitmap      = 0x22
	krlIDs         = 0x23
	krlExtended    = 0x39
)

var errDamaged = errors.New("the KRL is damaged or cut off")

// krl takes in a key revocation list, behind its magic.
func (r *Revoked) krl(file string, text []byte) error {
	from := &cursor{rest: text}
	if version := from.number(4); version != krlVersion && from.err == nil {
		return fmt.Errorf("this is a KRL of format version %d, and only version %d is known", version, krlVersion)
	}
	from.number(8) // the list's own version
	from.number(8) // its date
	from.number(8) // flags, of which there are none
	from.text()    // reserved
	from.text()    // comment
	for from.more() {
		kind := from.number(1)
		section := &cursor{rest: from.text(), err: from.err}
		switch kind {
		case krlCertificates:
			if err := r.certificates(file, section); err != nil {
				return err
			}
		case krlKeys:
			for section.more() {
				r.keys[string(section.text())] = Line{File: file}
			}
		case krlSHA1, krlSHA256:
			for section.more() {
				sum := section.text()
				if len(sum) != map[uint64]int{krlSHA1: sha1.Size, krlSHA256: sha256.Size}[kind] {
					return errDamaged
				}
				r.sums[string(sum)] = file
			}
		case krlExtension:
			if err := section.extension(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("the KRL has a section of type %d, which is not known: what it revokes would be let through", kind)
		}
		if section.err != nil {
			return section.err
		}
	}
	return from.err
}

// certificates takes in the certificates that one authority has revoked.
func (r *Revoked) certificates(file string, from *cursor) error {
	by := revokedBy{file: file, signer: string(from.text()), ids: map[string]bool{}}
	from.text() // reserved
	for from.more() {
		kind := from.number(1)
		section := &cursor{rest: from.text(), err: from.err}
		switch kind {
		case krlSerials:
			for section.more() {
				n := section.number(8)
				by.serials = append(by.serials, serials{n, n})
			}
		case krlSerialRange:
			s := serials{section.number(8), section.number(8)}
			if s.first > s.last {
				return errDamaged
			}
			by.serials = append(by.serials, s)
		case krlBitmap:
			by.bitmaps = append(by.bitmaps, bitmap{section.number(8), new(big.Int).SetBytes(section.text())})
		case krlIDs:
			for section.more() {
				by.ids[string(section.text())] = true
			}
		case krlExtended:
			if err := section.extension(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("the KRL has a section of type %#x for certificates, which is not known: what it revokes would be let through", kind)
		}
		if section.more() {
			return errDamaged
		}
		if section.err != nil {
			return section.err
		}
	}
	r.authorities = append(r.authorities, by)
	return from.err
}

// extension refuses an extension that must be understood. None is known.
func (from *cursor) extension() error {
	name := from.text()
	critical := from.number(1)
	from.text()
	if critical != 0 && from.err == nil {
		return fmt.Errorf("the KRL has the extension %.40q, which is critical and not known", name)
	}
	return nil
}

// cursor reads numbers and strings as SSH writes them (RFC 4251 section 5). After an error all that comes is empty.
type cursor struct {
	rest []byte
	err  error
}

func (c *cursor) more() bool { return len(c.rest) > 0 && c.err == nil }

func (c *cursor) take(n uint64) []byte {
	if c.err != nil || n > uint64(len(c.rest)) {
		c.rest, c.err = nil, errDamaged
		return nil
	}
	var bytes []byte
	bytes, c.rest = c.rest[:n], c.rest[n:]
	return bytes
}

// number reads one of so many bytes.
func (c *cursor) number(size int) uint64 {
	var whole [8]byte
	copy(whole[8-size:], c.take(uint64(size)))
	return binary.BigEndian.Uint64(whole[:])
}

func (c *cursor) text() []byte { return c.take(c.number(4)) }
