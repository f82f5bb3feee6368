// Package hostkeys says who the hosts are: the known_hosts files of sshd(8), read once, indexed, asked many times, added to at
// the end.
//
//	known_hosts files ── Open ──► DB ◄── Accept ── the keys that the user has agreed to
//	                              │                 └──► memory, and one append to the first user file
//	        Algorithms(name) ◄────┤
//	   what to offer the host     │
//	                              ▼
//	         Check(name, key) ──► nil | *UnknownError | *ChangedError | *RevokedError
//
// The answers are OpenSSH's, with the few differences that Check names. What differs is the cost: ssh reads the files anew for
// each host, and a hashed line (|1|salt|hash) takes an HMAC to compare with a name. Here the lines are found by the key that
// the host has shown: a host that is known costs one HMAC, whatever the size of the file, unless hosts share a key. All hashed
// lines are tried for a name only when no line with its key is the name's, once, and what was found is remembered.
//
//	byName    name ─► lines                  plain names
//	patterns  lines with * ? or !            tried one by one
//	keys      key ─► its hashed lines        one HMAC a line
//	types     key type ─► its hashed lines   for Algorithms, searched outward from the last line found
//
// A Revoked is beside it: the files of RevokedHostKeys, which are for all names and stronger than what the DB says.
//
// A DB belongs to a run and is safe for use by many goroutines. It holds no file open and no goroutine.
package hostkeys

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// DB is what the known_hosts files say. Open makes one.
type DB struct {
	user string // the file that Accept adds to; empty: none

	mu       sync.RWMutex // held for writing by Accept alone
	counted  counted      // of the user file
	lines    []line
	keys     []knownKey
	byBlob   map[string]int32   // wire form of a key → index into keys
	byName   map[string][]int32 // lower case → indexes into lines, rising
	patterns []int32            // lines whose names hold * ? or !
	hashed   []hashedName
	marked   []int32  // indexes into hashed: the lines with a marker, of which there are few
	types    []*group // the other hashed lines by key type, the most frequent first
	skipped  []error

	askedMu sync.Mutex
	asked   map[string]*hashes // what is known of a name among the hashed lines
}

// line is a line of a known_hosts file. A line with a hashed name has no names.
type line struct {
	file    string
	number  int32
	key     int32
	marker  marker
	pattern bool   // names hold * ? or !
	names   string // of a pattern, lower case
}

type marker uint8

const (
	plain     marker = iota
	authority        // @cert-authority: the key signs host certificates
	revoked          // @revoked
)

// knownKey is a key that some line holds.
type knownKey struct {
	blob  string // RFC 4253 section 6.6
	typ   string
	lines *group // hashed lines without a marker; nil: none
}

// Open reads the known_hosts files, the user's before the global ones. A file that does not exist is empty; a line that cannot
// be used is skipped and listed by Skipped. The first user file is the one that Accept adds to.
func Open(user, global []string) (*DB, error) {
	files := slices.Concat(user, global)
	texts := make([]string, len(files))
	lines := 0
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the known host keys cannot be read: %w; mend the file or name another with UserKnownHostsFile or GlobalKnownHostsFile", err)
		}
		texts[i] = string(text)
		lines += strings.Count(texts[i], "\n") + 1
	}
	db := &DB{
		lines: make([]line, 0, lines), keys: make([]knownKey, 0, lines), byBlob: make(map[string]int32, lines),
		byName: map[string][]int32{}, asked: map[string]*hashes{},
	}
	if len(user) > 0 {
		db.user = user[0]
	}
	for i, file := range files {
		db.read(file, texts[i])
	}
	db.sortTypes()
	return db, nil
}

// Skipped lists the lines that could not be used, each as FILE:LINE and the reason, in the order of the files.
func (db *DB) Skipped() []error { return db.skipped }

// Known says whether a key or a certificate authority is known for this very name. For a "[host]:port" Check may be content with
// the key of the bare host, which Known does not look at.
func (db *DB) Known(name string) bool {
	db.mu.RLock()
	defer db.mu.RUnlock()
	name = lower(name)
	for _, i := range db.unhashed(name) {
		if db.lines[i].marker != revoked {
			return true
		}
	}
	h := db.hashesOf(name)
	if _, found := h.any(db); found {
		return true
	}
	return slices.ContainsFunc(h.withMarker(db), func(i int32) bool { return db.lines[i].marker == authority })
}

// certAlgorithms are those of host certificates, in OpenSSH's order. A @cert-authority line does not tell which of them a host
// has.
var certAlgorithms = []string{
	ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
}

// Algorithms are the host key algorithms to offer first to the host of this name, so that it shows a key that can be checked:
// those of certificates if a @cert-authority line holds for it, then those of its known keys in the order of the lines, RSA as
// rsa-sha2-512 and rsa-sha2-256. Nil: nothing is known. The caller leaves out what it does not allow (ssh-dss) and appends the
// rest of what it does: a host may have got a new kind of key, and Check must see it.
//
// With hashed names the answer may be one known type instead of all, or the one type that every hashed line has, known or not:
// to know better would take an HMAC for each line. After a *ChangedError the answer is complete. If it then is another than the
// one that was offered, the host may have a known key of that kind: another handshake tells.
func (db *DB) Algorithms(name string) []string {
	db.mu.RLock()
	defer db.mu.RUnlock()
	name = lower(name)
	algorithms := db.algorithms(name)
	if algorithms == nil {
		if host, with := bareHost(name); with {
			algorithms = db.algorithms(host)
		}
	}
	return algorithms
}

func (db *DB) algorithms(name string) []string {
	lines := slices.Clone(db.unhashed(name))
	h := db.hashesOf(name)
	lines = append(lines, h.withMarker(db)...)
	var guess []string
	known, whole := h.known(db)
	lines = append(lines, known...)
	if whole {
		// That is all there is.
	} else if len(db.types) == 1 {
		guess = []string{db.types[0].typ}
	} else if !slices.ContainsFunc(lines, func(i int32) bool { return db.lines[i].marker == plain }) {
		if i, found := h.any(db); found {
			lines = append(lines, i)
		}
	}
	slices.Sort(lines)

	var types, algorithms []string
	for _, i := range lines {
		switch l := &db.lines[i]; l.marker {
		case authority:
			algorithms = certAlgorithms
		case plain:
			types = append(types, db.keys[l.key].typ)
		}
	}
	algorithms = slices.Clone(algorithms)
	for _, typ := range append(types, guess...) {
		names := []string{typ}
		if typ == ssh.KeyAlgoRSA {
			names = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		if !slices.Contains(algorithms, names[0]) {
			algorithms = append(algorithms, names...)
		}
	}
	return algorithms
}

// Check says whether key is the one of the host of this name (see Name; a HostKeyAlias is passed as the name): nil, an
// *UnknownError, a *ChangedError or a *RevokedError. addr is for the errors alone, may be nil, and is not looked up: as in
// OpenSSH without CheckHostIP.
//
// As OpenSSH does it:
//   - The lines of all files count alike. @revoked is stronger than all others, for the host's key and for the one that signed
//     its certificate, but only for the names on its line.
//   - A key that no line has for the name is a change if there is another key for it, of whatever type; only without any it is
//     unknown.
//   - Where nothing is known for "[host]:port", a line for the bare host will do.
//   - A certificate holds if a @cert-authority line for the name has its signer, and principals, validity and signature are
//     right and it has no critical options. One that does not hold is nothing: the key in it is checked as if it had come
//     alone, and so is the plain key of a host that a @cert-authority line names.
//
// Where OpenSSH's versions differ, as the newest (10.3): principals may hold * and ?, and a certificate without any holds for
// no name. Stricter than OpenSSH: a revocation of the bare host's key holds for "[host]:port" too. A signature of a certificate
// with SHA-1 (ssh-rsa) or DSA never counts, as with CASignatureAlgorithms unset; for a shorter list of the user's, check the
// certificate's Key instead of the certificate.
func (db *DB) Check(name string, addr net.Addr, key ssh.PublicKey) error {
	db.mu.RLock()
	defer db.mu.RUnlock()
	names := []string{lower(name)}
	host, withPort := bareHost(name)
	if withPort {
		names = append(names, lower(host))
	}

	key, cert := split(key)
	blob := string(key.Marshal())
	for _, n := range names {
		if i, found := db.find(n, blob, revoked); found {
			return &RevokedError{Name: name, Key: key, Line: db.where(i)}
		}
	}

	var refused error // why the certificate does not count
	if cert != nil {
		signer := string(cert.SignatureKey.Marshal())
		var signed bool
		for _, n := range names {
			if i, found := db.find(n, signer, revoked); found {
				return &RevokedError{Name: name, Key: cert.SignatureKey, Authority: true, Line: db.where(i)}
			}
			_, found := db.find(n, signer, authority)
			signed = signed || found
		}
		if !signed {
			refused = fmt.Errorf("no @cert-authority line for it has the signer %s", describe(cert.SignatureKey))
		} else if refused = checkCertificate(cert, host); refused == nil {
			return nil
		}
	}

	if _, found := db.find(names[0], blob, plain); found {
		return nil
	}
	known := db.all(names[0])
	if len(known) == 0 {
		if withPort {
			if _, found := db.find(names[1], blob, plain); found {
				return nil
			}
		}
		return &UnknownError{Name: name, Addr: addr, Key: key, Certificate: refused}
	}
	changed := known[0]
	for _, i := range known {
		if db.keys[db.lines[i].key].typ == key.Type() {
			changed = i
			break
		}
	}
	return &ChangedError{Name: name, Addr: addr, Key: key, Line: db.where(changed)}
}

// find looks for a line with this name, key and marker.
func (db *DB) find(name, blob string, m marker) (int32, bool) {
	k, known := db.byBlob[blob]
	if !known {
		return 0, false
	}
	for _, i := range db.unhashed(name) {
		if l := &db.lines[i]; l.key == k && l.marker == m {
			return i, true
		}
	}
	h := db.hashesOf(name)
	if m == plain {
		if g := db.keys[k].lines; g != nil {
			return h.find(db, g)
		}
		return 0, false
	}
	for _, i := range h.withMarker(db) {
		if l := &db.lines[i]; l.key == k && l.marker == m {
			return i, true
		}
	}
	return 0, false
}

// all are the lines with a key for this name, in order. Here every hashed line is tried.
func (db *DB) all(name string) []int32 {
	lines := slices.Concat(db.unhashed(name), db.hashesOf(name).all(db))
	lines = slices.DeleteFunc(lines, func(i int32) bool { return db.lines[i].marker != plain })
	slices.Sort(lines)
	return lines
}

// unhashed are the lines, whatever their markers, whose plain names or patterns hold for this one. Not to be written to.
func (db *DB) unhashed(name string) []int32 {
	lines := db.byName[name]
	own := false
	for _, i := range db.patterns {
		if matchList(db.lines[i].names, name) {
			if !own {
				lines, own = slices.Clone(lines), true
			}
			lines = append(lines, i)
		}
	}
	if own {
		slices.Sort(lines)
	}
	return lines
}

func (db *DB) where(i int32) Line {
	l := &db.lines[i]
	key, err := ssh.ParsePublicKey([]byte(db.keys[l.key].blob))
	if err != nil {
		panic("hostkeys: a key that was read is no key: " + err.Error()) // addKey keeps only what was parsed
	}
	return Line{File: l.file, Number: int(l.number), Key: key, Pattern: l.pattern}
}

// read takes in one file. Lines end with LF or CRLF.
func (db *DB) read(file, text string) {
	for number := int32(1); text != ""; number++ {
		var s string
		s, text, _ = strings.Cut(text, "\n")
		s = strings.Trim(strings.TrimSuffix(s, "\r"), " \t")
		if s == "" || s[0] == '#' {
			continue
		}
		if err := db.readLine(file, number, s); err != nil {
			db.skipped = append(db.skipped, fmt.Errorf("%s:%d: %w", file, number, err))
		}
	}
}

// readLine takes in one line that is neither empty nor a comment: [marker] names type key [comment].
func (db *DB) readLine(file string, number int32, s string) error {
	l := line{file: file, number: number}
	names, rest := field(s)
	if names[0] == '@' {
		switch names {
		case "@cert-authority":
			l.marker = authority
		case "@revoked":
			l.marker = revoked
		default:
			return fmt.Errorf("the marker %.40q is neither @cert-authority nor @revoked", names)
		}
		if names, rest = field(rest); strings.HasPrefix(names, "@") {
			return errors.New("a line has one marker")
		}
	}
	typ, rest := field(rest)
	base64Key, _ := field(rest)
	if base64Key == "" {
		return errors.New("a line is names, key type and key: here something is missing")
	}

	var hash hashedName
	isHashed := names[0] == '|'
	if isHashed {
		var err error
		if hash, err = parseHashed(names); err != nil {
			return err
		}
	}
	var err error
	if l.key, err = db.addKey(typ, base64Key); err != nil {
		return err
	}
	if isHashed {
		db.addHashed(l, hash)
	} else {
		db.addNames(l, lower(names))
	}
	return nil
}

// addKey parses a key and gives its index; the same key is kept once.
func (db *DB) addKey(typ, text string) (int32, error) {
	if strings.Trim(typ, "0123456789") == "" {
		return 0, errors.New("the key is of SSH protocol 1, which is no more")
	}
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return 0, errors.New("the key is damaged: it is not base64")
	}
	if i, known := db.byBlob[string(blob)]; known && db.keys[i].typ == typ {
		return i, nil
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return 0, fmt.Errorf("the key of type %.40q is cut off, damaged or of a kind that is not supported", typ)
	}
	if key.Type() != typ {
		return 0, fmt.Errorf("the line says key type %.40q but the key is %s", typ, key.Type())
	}
	if _, is := key.(*ssh.Certificate); is {
		return 0, errors.New("a certificate is no host key: give the key of its signer, with @cert-authority in front")
	}
	return db.internKey(key), nil
}

func (db *DB) internKey(key ssh.PublicKey) int32 {
	blob := string(key.Marshal()) // not what the file has: an RSA number can be written in more than one way
	i, known := db.byBlob[blob]
	if !known {
		i = int32(len(db.keys))
		db.keys = append(db.keys, knownKey{blob: blob, typ: key.Type()})
		db.byBlob[blob] = i
	}
	return i
}

// addNames adds a line with plain names or patterns, in lower case.
func (db *DB) addNames(l line, names string) {
	i := int32(len(db.lines))
	if strings.ContainsAny(names, "*?!") {
		l.pattern, l.names = true, names
		db.patterns = append(db.patterns, i)
	} else {
		for name := range strings.SplitSeq(names, ",") {
			if known := db.byName[name]; len(known) == 0 || known[len(known)-1] != i {
				db.byName[name] = append(known, i)
			}
		}
	}
	db.lines = append(db.lines, l)
}

// addHashed adds a line with a hashed name.
func (db *DB) addHashed(l line, hash hashedName) {
	hash.line = int32(len(db.lines))
	at := int32(len(db.hashed))
	db.lines = append(db.lines, l)
	db.hashed = append(db.hashed, hash)
	if l.marker != plain {
		db.marked = append(db.marked, at)
		return
	}
	key := &db.keys[l.key]
	if key.lines == nil {
		key.lines = &group{typ: key.typ}
	}
	key.lines.at = append(key.lines.at, at)
	t := slices.IndexFunc(db.types, func(g *group) bool { return g.typ == key.typ })
	if t < 0 {
		t = len(db.types)
		db.types = append(db.types, &group{typ: key.typ})
	}
	db.types[t].at = append(db.types[t].at, at)
}

// sortTypes puts the most frequent key type first, where Algorithms will look first.
func (db *DB) sortTypes() {
	slices.SortStableFunc(db.types, func(a, b *group) int { return cmp.Compare(len(b.at), len(a.at)) })
}

// Name is how known_hosts files name a host: "host" on port 22 or 0, else "[host]:port", in lower case.
func Name(host string, port uint16) string {
	host = lower(host)
	if port == 0 || port == 22 {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(int(port))
}

// bareHost gives the host of a name, and whether it was in a "[host]:port".
func bareHost(name string) (string, bool) {
	if end := strings.LastIndex(name, "]:"); end > 0 && name[0] == '[' {
		return name[1:end], true
	}
	return name, false
}

// Fingerprint is what ssh-keygen -l shows of a key, "SHA256:…"; for a certificate, that of the key in it.
func Fingerprint(key ssh.PublicKey) string {
	key, _ = split(key)
	return ssh.FingerprintSHA256(key)
}

// describe is the type and the fingerprint.
func describe(key ssh.PublicKey) string { return key.Type() + " " + Fingerprint(key) }

// split gives the key that a host has proved to have, and the certificate around it, if there is one.
func split(key ssh.PublicKey) (ssh.PublicKey, *ssh.Certificate) {
	if cert, is := key.(*ssh.Certificate); is {
		return cert.Key, cert
	}
	return key, nil
}
