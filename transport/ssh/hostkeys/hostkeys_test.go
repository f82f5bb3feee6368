package hostkeys

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// signers are the hosts' keys of all tests: A, B and C are ed25519, E is ECDSA, R is RSA, CA and CB sign certificates, W is an
// RSA authority.
var signers = sync.OnceValue(func() map[string]ssh.Signer {
	s := map[string]ssh.Signer{}
	add := func(name string, key crypto.Signer) {
		signer, err := ssh.NewSignerFromSigner(key)
		if err != nil {
			panic(err)
		}
		s[name] = signer
	}
	for _, name := range []string{"A", "B", "C", "CA", "CB"} {
		seed := sha256.Sum256([]byte(name))
		add(name, ed25519.NewKeyFromSeed(seed[:]))
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	add("E", e)
	for _, name := range []string{"R", "W"} {
		r, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		add(name, r)
	}
	return s
})

func keyNamed(name string) ssh.PublicKey { return signers()[name].PublicKey() }

// keyText is a key as a known_hosts file has it.
func keyText(key ssh.PublicKey) string {
	return key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal())
}

// fill puts keys and hashed names into the text of a known_hosts file: {A} is a key, {#name} the name hashed, PORT a port.
func fill(text, port string) string {
	for name, signer := range signers() {
		text = strings.ReplaceAll(text, "{"+name+"}", keyText(signer.PublicKey()))
	}
	text = strings.ReplaceAll(text, "PORT", port)
	for {
		before, rest, found := strings.Cut(text, "{#")
		if !found {
			return text
		}
		name, after, _ := strings.Cut(rest, "}")
		text = before + newHashed(name).String() + after
	}
}

// write makes a file in a directory of its own.
func write(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func open(t testing.TB, user ...string) *DB {
	t.Helper()
	db, err := Open(user, nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// openText opens a file with this text, filled with port 2222.
func openText(t testing.TB, text string) *DB {
	t.Helper()
	return open(t, write(t, fill(text, "2222")))
}

// certificate is a host certificate for key A.
type certificate struct {
	signer     string   // "": CA
	principals []string // nil: the name that is checked
	user       bool
	expired    bool
	early      bool
	critical   string
	forged     bool // the signature is another one's
	weak       bool // signed with SHA-1
}

func (c *certificate) sign(t testing.TB, host string) ssh.Signer {
	t.Helper()
	now := time.Now()
	cert := &ssh.Certificate{
		Key: keyNamed("A"), CertType: ssh.HostCert, KeyId: "host A", Serial: 7, ValidPrincipals: c.principals,
		ValidAfter: uint64(now.Add(-2 * time.Hour).Unix()), ValidBefore: uint64(now.Add(2 * time.Hour).Unix()),
	}
	if c.principals == nil {
		cert.ValidPrincipals = []string{"other", host}
	}
	if c.user {
		cert.CertType = ssh.UserCert
	}
	if c.expired {
		cert.ValidBefore = uint64(now.Add(-time.Hour).Unix())
	}
	if c.early {
		cert.ValidAfter = uint64(now.Add(time.Hour).Unix())
	}
	if c.critical != "" {
		cert.CriticalOptions = map[string]string{c.critical: ""}
	}
	authority := signers()[cmp.Or(c.signer, "CA")]
	if c.weak {
		weak, err := ssh.NewSignerWithAlgorithms(signers()["W"].(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
		if err != nil {
			t.Fatal(err)
		}
		authority = weak
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	if c.forged {
		cert.Serial++
	}
	signer, err := ssh.NewCertSigner(cert, signers()["A"])
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// verdict is what Check's error says in a word, with the line that it names.
func verdict(err error) string {
	var unknown *UnknownError
	var changed *ChangedError
	var revoked *RevokedError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &unknown):
		return "unknown"
	case errors.As(err, &changed):
		return fmt.Sprintf("changed %d", changed.Line.Number)
	case errors.As(err, &revoked):
		return fmt.Sprintf("revoked %d", revoked.Line.Number)
	}
	return err.Error()
}

// checks is the table of what Check decides. TestSSH holds ssh(1) to the same, except where theirs says that it differs.
var checks = []struct {
	what  string
	lines string
	name  string // "": h
	key   string // "": A
	cert  *certificate
	want  string

	theirs string // what OpenSSH 9.2 decides, without a line; "": the same
}{
	{what: "nothing known", want: "unknown"},
	{what: "known", lines: "h {A}", want: "ok"},
	{what: "hashed", lines: "{#h} {A}", want: "ok"},
	{what: "hashed, another name", lines: "{#i} {A}", want: "unknown"},
	{what: "another host has the key", lines: "i {A}", want: "unknown"},
	{what: "list", lines: "g,h,i {A}", want: "ok"},
	{what: "empty names in a list", lines: ",h,, {A}", want: "ok"},
	{what: "upper case in the file", lines: "H {A}", want: "ok"},
	{what: "wildcard", lines: "*.example.org {A}", name: "h.example.org", want: "ok"},
	{what: "wildcard over dots", lines: "*.org {A}", name: "h.example.org", want: "ok"},
	{what: "wildcard in upper case", lines: "*.ORG {A}", name: "h.example.org", want: "ok"},
	{what: "wildcard needs the dot", lines: "*.example.org {A}", name: "example.org", want: "unknown"},
	{what: "question mark", lines: "web? {A}", name: "web1", want: "ok"},
	{what: "question mark is one character", lines: "web? {A}", name: "web12", want: "unknown"},
	{what: "negated", lines: "*.example.org,!h.example.org {A}", name: "h.example.org", want: "unknown"},
	{what: "negated in front", lines: "!h.example.org,*.example.org {A}", name: "h.example.org", want: "unknown"},
	{what: "negated for another", lines: "*.example.org,!i.example.org {A}", name: "h.example.org", want: "ok"},
	{what: "negation alone matches nothing", lines: "!i {A}", want: "unknown"},
	{what: "tabs, blanks and a comment", lines: " \th\t \t{A}  a comment", want: "ok"},
	{what: "CRLF", lines: "# c\r\n\r\nh {A}\r\n", want: "ok"},
	{what: "CRLF after a comment", lines: "h {A} c\r\n", want: "ok"},
	{what: "commented out", lines: "#h {A}", want: "unknown"},
	{what: "bad lines around it", lines: "h\nh ssh-ed25519\nh ssh-ed25519 AAAA\n@x h {A}\n|1|x|y {A}\nh {A}", want: "ok"},
	{what: "type does not fit the key", lines: "h ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIFHTb8qIW6fN9t6ZPsJ5tNvbbSxvZiMYmxsxvAu/qbZp", want: "unknown"},
	{what: "second of two", lines: "h {B}\nh {A}", want: "ok"},
	{what: "changed", lines: "h {B}", want: "changed 1"},
	{what: "changed, hashed", lines: "i {A}\n{#h} {B}", want: "changed 2"},
	{what: "changed, another type", lines: "h {E}", want: "changed 1"},
	{what: "changed, the same type is named", lines: "h {E}\nh {B}\nh {R}", want: "changed 2"},
	{what: "a plain and a hashed line", lines: "h {E}\n{#h} {A}", want: "ok"},
	{what: "RSA", lines: "h {R}", key: "R", want: "ok"},
	{what: "ECDSA", lines: "{#h} {E}", key: "E", want: "ok"},

	{what: "port", lines: "[127.0.0.1]:PORT {A}", name: "[127.0.0.1]:PORT", want: "ok"},
	{what: "port, hashed", lines: "{#[127.0.0.1]:PORT} {A}", name: "[127.0.0.1]:PORT", want: "ok"},
	{what: "port wildcard", lines: "[127.0.0.*]:* {A}", name: "[127.0.0.1]:PORT", want: "ok"},
	{what: "port, only the bare host is known", lines: "127.0.0.1 {A}", name: "[127.0.0.1]:PORT", want: "ok"},
	{what: "port, only the bare host is known, hashed", lines: "{#127.0.0.1} {A}", name: "[127.0.0.1]:PORT", want: "ok"},
	{what: "port, the bare host has another key", lines: "127.0.0.1 {B}", name: "[127.0.0.1]:PORT", want: "unknown"},
	{what: "port changed, the bare host has the key", lines: "127.0.0.1 {A}\n[127.0.0.1]:PORT {B}", name: "[127.0.0.1]:PORT", want: "changed 2"},
	{what: "port, certificate by the bare host's authority", lines: "@cert-authority 127.* {CA}", name: "[127.0.0.1]:PORT", cert: &certificate{}, want: "ok"},
	{what: "port, revoked for the bare host", lines: "@revoked 127.0.0.1 {A}", name: "[127.0.0.1]:PORT", want: "revoked 1", theirs: "unknown"},
	{what: "port, revoked for the bare host, known with the port", lines: "[127.0.0.1]:PORT {A}\n@revoked 127.0.0.1 {A}", name: "[127.0.0.1]:PORT", want: "revoked 2", theirs: "ok"},

	{what: "revoked", lines: "@revoked h {A}", want: "revoked 1"},
	{what: "revoked for all", lines: "@revoked * {A}", want: "revoked 1"},
	{what: "revoked after it is known", lines: "h {A}\n@revoked * {A}", want: "revoked 2"},
	{what: "revoked, hashed", lines: "@revoked {#h} {A}", want: "revoked 1"},
	{what: "revoked for another host", lines: "h {A}\n@revoked i {A}", want: "ok"},
	{what: "another key is revoked", lines: "h {A}\n@revoked * {B}", want: "ok"},
	{what: "a revoked key is not known", lines: "@revoked h {B}", want: "unknown"},

	{what: "certificate", lines: "@cert-authority h {CA}", cert: &certificate{}, want: "ok"},
	{what: "certificate, wildcard", lines: "@cert-authority *.org {CA}", name: "h.example.org", cert: &certificate{}, want: "ok"},
	{what: "certificate, hashed", lines: "@cert-authority {#h} {CA}", cert: &certificate{}, want: "ok"},
	{what: "certificate, authority for another name", lines: "@cert-authority *.org {CA}", cert: &certificate{}, want: "unknown"},
	{what: "certificate, another authority", lines: "@cert-authority h {CB}", cert: &certificate{}, want: "unknown"},
	{what: "certificate, second authority", lines: "@cert-authority h {CB}\n@cert-authority h {CA}", cert: &certificate{}, want: "ok"},
	{what: "certificate, another plain key is known", lines: "h {B}\n@cert-authority h {CA}", cert: &certificate{}, want: "ok"},
	{what: "certificate, the authority is a host's plain key", lines: "h {CA}", cert: &certificate{}, want: "changed 1"},
	{what: "certificate, no authority but the plain key", lines: "h {A}", cert: &certificate{}, want: "ok"},
	{what: "certificate for another name", lines: "@cert-authority h {CA}", cert: &certificate{principals: []string{"i"}}, want: "unknown"},
	{what: "certificate for another name, the plain key is known", lines: "@cert-authority h {CA}\nh {A}", cert: &certificate{principals: []string{"i"}}, want: "ok"},
	{what: "certificate for another name, another key is known", lines: "@cert-authority h {CA}\nh {B}", cert: &certificate{principals: []string{"i"}}, want: "changed 2"},
	{what: "certificate, pattern as principal", lines: "@cert-authority * {CA}", name: "h.example.org", cert: &certificate{principals: []string{"*.example.org"}}, want: "ok", theirs: "unknown"},
	{what: "certificate without principals", lines: "@cert-authority h {CA}", cert: &certificate{principals: []string{}}, want: "unknown", theirs: "ok"},
	{what: "certificate of a user", lines: "@cert-authority h {CA}", cert: &certificate{user: true}, want: "unknown"},
	{what: "certificate expired", lines: "@cert-authority h {CA}", cert: &certificate{expired: true}, want: "unknown"},
	{what: "certificate not yet valid", lines: "@cert-authority h {CA}", cert: &certificate{early: true}, want: "unknown"},
	{what: "certificate with a critical option", lines: "@cert-authority h {CA}", cert: &certificate{critical: "force-command"}, want: "unknown"},
	{what: "certificate forged", lines: "@cert-authority h {CA}", cert: &certificate{forged: true}, want: "unknown", theirs: "broken"},
	{what: "certificate signed with SHA-1", lines: "@cert-authority h {W}", cert: &certificate{weak: true}, want: "unknown"},
	{what: "certificate signed by RSA", lines: "@cert-authority h {W}", cert: &certificate{signer: "W"}, want: "ok"},
	{what: "certificate of a revoked authority", lines: "@cert-authority h {CA}\n@revoked * {CA}", cert: &certificate{}, want: "revoked 2"},
	{what: "certificate of a revoked authority, the plain key is known", lines: "h {A}\n@revoked * {CA}", cert: &certificate{}, want: "revoked 2"},
	{what: "certificate of a revoked key", lines: "@cert-authority h {CA}\n@revoked * {A}", cert: &certificate{}, want: "revoked 2"},
	{what: "plain key though an authority is known", lines: "@cert-authority h {CA}", want: "unknown"},
	{what: "plain key known beside an authority", lines: "@cert-authority h {CA}\nh {A}", want: "ok"},
	{what: "authority as the host's key", lines: "@cert-authority h {A}", want: "unknown"},
}

func TestCheck(t *testing.T) {
	for _, c := range checks {
		t.Run(c.what, func(t *testing.T) {
			name := fill(cmp.Or(c.name, "h"), "2222")
			key := keyNamed(cmp.Or(c.key, "A"))
			if c.cert != nil {
				host, _ := bareHost(name)
				key = c.cert.sign(t, host).PublicKey()
			}
			db := openText(t, c.lines)
			for _, when := range []string{"first", "again"} { // what the first has left behind changes nothing
				if got := verdict(db.Check(name, nil, key)); got != c.want {
					t.Errorf("%s: got %q, want %q", when, got, c.want)
				}
			}
			if name == "h" {
				if got := verdict(db.Check("H", nil, key)); c.cert == nil && got != c.want {
					t.Errorf("in upper case: got %q, want %q", got, c.want)
				}
			}
		})
	}
}

// The files count alike and in their order; a missing one is empty.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	user, global := write(t, fill("h {E}\ni {A}\n", "")), write(t, fill("h {A}\nj {B}\n@revoked * {C}\n", ""))
	db, err := Open([]string{user, filepath.Join(dir, "none")}, []string{filepath.Join(dir, "no", "ne"), global})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, key, want string }{
		{"h", "A", "ok"}, {"h", "E", "ok"}, {"h", "B", "changed 1"}, {"i", "A", "ok"}, {"j", "B", "ok"}, {"j", "A", "changed 2"}, {"i", "C", "revoked 3"},
	} {
		if got := verdict(db.Check(c.name, nil, keyNamed(c.key))); got != c.want {
			t.Errorf("%s with %s: got %q, want %q", c.name, c.key, got, c.want)
		}
	}
	if diff := gocmp.Diff([]string{ssh.KeyAlgoECDSA256, ssh.KeyAlgoED25519}, db.Algorithms("h")); diff != "" {
		t.Errorf("algorithms of h (-want +got):\n%s", diff)
	}

	if _, err := Open([]string{dir}, nil); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "UserKnownHostsFile") {
		t.Errorf("a directory: %v", err)
	}
	if db, err := Open(nil, nil); err != nil || verdict(db.Check("h", nil, keyNamed("A"))) != "unknown" {
		t.Errorf("no files: %v", err)
	}
}

func TestAlgorithms(t *testing.T) {
	const ed, ec = ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256
	rsaBoth := []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	join := func(lists ...[]string) (all []string) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	for _, c := range []struct {
		what, lines, name string
		want              []string
		known             bool
		whole             []string // after a Check that had to look at all lines; nil: the same as want
	}{
		{what: "nothing"},
		{what: "another host", lines: "i {A}"},
		{what: "in the order of the lines", lines: "h {R}\nh {A}\nh {B}\ni {E}", want: join(rsaBoth, []string{ed}), known: true},
		{what: "patterns among them", lines: "h {E}\n* {R}\nh {A}", want: join([]string{ec}, rsaBoth, []string{ed}), known: true},
		{what: "revoked", lines: "@revoked h {A}"},
		{what: "authority", lines: "h {A}\n@cert-authority * {W}", want: join(certAlgorithms, []string{ed}), known: true},
		{what: "authority alone", lines: "@cert-authority * {W}", want: certAlgorithms, known: true},
		{what: "hashed authority", lines: "@cert-authority {#h} {W}\n{#i} {A}\n{#i} {E}", want: certAlgorithms, known: true},
		{what: "hashed authority of another", lines: "@cert-authority {#i} {W}"},
		{what: "with a port", lines: "[h]:2222 {E}\nh {A}", name: "[h]:2222", want: []string{ec}, known: true},
		{what: "of the bare host", lines: "h {A}", name: "[h]:2222", want: []string{ed}},
		{what: "hashed, one type: no look at the names", lines: "{#h} {A}\n{#i} {B}", want: []string{ed}, known: true},
		{what: "hashed, one type: known or not", lines: "{#i} {A}\n{#j} {B}", want: []string{ed}, whole: []string{}},
		{what: "hashed, two types, one of them", lines: "{#i} {A}\n{#j} {B}\n{#h} {E}", want: []string{ec}, known: true},
		{what: "hashed, two types, both", lines: "{#h} {E}\n{#i} {A}\n{#j} {B}\n{#h} {A}", want: []string{ed}, known: true, whole: []string{ec, ed}},
		{what: "hashed, two types, neither", lines: "{#i} {E}\n{#j} {B}"},
		{what: "plain and hashed", lines: "h {E}\n{#h} {A}\n{#i} {R}", want: []string{ec}, known: true, whole: []string{ec, ed}},
	} {
		t.Run(c.what, func(t *testing.T) {
			name := cmp.Or(c.name, "h")
			db := openText(t, c.lines)
			if diff := gocmp.Diff(c.want, db.Algorithms(name)); diff != "" {
				t.Errorf("algorithms (-want +got):\n%s", diff)
			}
			if got := db.Known(name); got != c.known {
				t.Errorf("known: got %v, want %v", got, c.known)
			}
			if got := openText(t, c.lines).Known(name); got != c.known {
				t.Errorf("known, without Algorithms before it: got %v, want %v", got, c.known)
			}
			db.Check(name, nil, keyNamed("C"))
			whole := c.want
			if c.whole != nil {
				whole = append([]string(nil), c.whole...)
			}
			if diff := gocmp.Diff(whole, db.Algorithms(name)); diff != "" {
				t.Errorf("algorithms after all lines were looked at (-want +got):\n%s", diff)
			}
		})
	}
}

// A line that cannot be used is told by its place and its fault, and costs nothing but itself.
func TestSkipped(t *testing.T) {
	cert := (&certificate{}).sign(t, "h").PublicKey()
	file := write(t, fill(strings.Join([]string{
		"# comment", "", "h", "h ssh-ed25519", "@revoked h {A} fine", "@revoked", "@revokedh {A}", "@revoked @cert-authority h {A}",
		"h 1024 35 1234567890", "h ssh-ed25519 A?", "h ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "h ssh-xmss@openssh.com AAAAFXNzaC14bXNzQG9wZW5zc2guY29t",
		"|2|a|b {A}", "|1|AAAA|AAAA {A}", "{#h},{#i} {A}", "h " + keyText(cert), "h ssh-rsa " + strings.Fields(keyText(keyNamed("A")))[1], "h {A}", "h\x00i {A} \xff",
	}, "\n"), ""))
	db := open(t, file)
	var got []string
	for _, err := range db.Skipped() {
		got = append(got, strings.TrimPrefix(err.Error(), file))
	}
	want := []string{
		":3: a line is names, key type and key: here something is missing",
		":4: a line is names, key type and key: here something is missing",
		":6: a line is names, key type and key: here something is missing",
		`:7: the marker "@revokedh" is neither @cert-authority nor @revoked`,
		":8: a line has one marker",
		":9: the key is of SSH protocol 1, which is no more",
		":10: the key is damaged: it is not base64",
		`:11: the key of type "ssh-ed25519" is cut off, damaged or of a kind that is not supported`,
		`:12: the key of type "ssh-xmss@openssh.com" is cut off, damaged or of a kind that is not supported`,
		":13: the hashed name is damaged: it must be |1|salt|hash",
		":14: the hashed name is damaged: salt and hash must be 20 bytes each in base64",
		":15: the hashed name is damaged: it must be |1|salt|hash",
		":16: a certificate is no host key: give the key of its signer, with @cert-authority in front",
		`:17: the line says key type "ssh-rsa" but the key is ssh-ed25519`,
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("skipped (-want +got):\n%s", diff)
	}
	if got := verdict(db.Check("h", nil, keyNamed("A"))); got != "revoked 5" {
		t.Errorf("the good lines: got %q", got)
	}
}

func TestErrors(t *testing.T) {
	file := write(t, fill("o'h {B}\n*.org,!a {E}\n@revoked r {A}\n@revoked s {CA}\n@cert-authority c,s {CA}\n", ""))
	db := open(t, file)
	a, b, e, ca := Fingerprint(keyNamed("A")), Fingerprint(keyNamed("B")), Fingerprint(keyNamed("E")), Fingerprint(keyNamed("CA"))
	addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 22}
	late := (&certificate{expired: true}).sign(t, "c").PublicKey().(*ssh.Certificate)
	for _, c := range []struct {
		name string
		addr net.Addr
		key  ssh.PublicKey
		want string
	}{
		{"O'H", nil, keyNamed("A"), "the host key of O'H has changed: it is ssh-ed25519 " + a + " and was ssh-ed25519 " + b + " (" + file + ":1); " +
			`someone may be in between: only if you know why it changed, remove the old one: ssh-keygen -R 'o'\''h' -f '` + file + "'"},
		{"x.org", addr, keyNamed("A"), "the host key of x.org (192.0.2.1:22) has changed: it is ssh-ed25519 " + a + " and was ecdsa-sha2-nistp256 " + e +
			" (" + file + ":2); someone may be in between: only if you know why it changed, remove the old one: that line, which may hold for other hosts too"},
		{"u", addr, keyNamed("A"), "the host key of u (192.0.2.1:22) is not known: ssh-ed25519 " + a + "; compare the fingerprint with the host's own and accept it with --host-keys ask"},
		{"u", nil, late, "the host key of u is not known: ssh-ed25519 " + a + " (its certificate does not count: no @cert-authority line for it has the signer ssh-ed25519 " + ca +
			"); compare the fingerprint with the host's own and accept it with --host-keys ask"},
		{"c", nil, late, "the host key of c is not known: ssh-ed25519 " + a + ` (its certificate does not count: cert has expired; certificate "host A", serial 7, valid ` + validity(late) +
			"); compare the fingerprint with the host's own and accept it with --host-keys ask"},
		{"r", nil, keyNamed("A"), "the host key of r is revoked (ssh-ed25519 " + a + ", " + file + ":3): it may have been stolen, and the host needs a new one"},
		{"s", nil, late, "the authority that signed the host certificate of s is revoked (ssh-ed25519 " + ca + ", " + file + ":4): the host needs a certificate from another one"},
	} {
		if diff := gocmp.Diff(c.want, fmt.Sprint(db.Check(c.name, c.addr, c.key))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct {
		host string
		port uint16
		want string
	}{
		{"Web1.Example.ORG", 22, "web1.example.org"}, {"web1", 0, "web1"}, {"web1", 2222, "[web1]:2222"}, {"::1", 22, "::1"}, {"FE80::1%eth0", 24, "[fe80::1%eth0]:24"},
	} {
		got := Name(c.host, c.port)
		if got != c.want {
			t.Errorf("Name(%q, %d) = %q, want %q", c.host, c.port, got, c.want)
		}
		if host, with := bareHost(got); host != lower(c.host) || with != (c.port != 0 && c.port != 22) {
			t.Errorf("bareHost(%q) = %q, %v", got, host, with)
		}
	}
	if cert := (&certificate{}).sign(t, "h").PublicKey(); Fingerprint(cert) != Fingerprint(keyNamed("A")) {
		t.Error("the fingerprint of a certificate is not that of its key")
	}
}
