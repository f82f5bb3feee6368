package hostkeys

import (
	"crypto/hmac"
	"crypto/sha1"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Whatever a file holds, each line is either used or listed, and what is used is found again by name and key.
func FuzzRead(f *testing.F) {
	for _, c := range checks {
		f.Add(fill(c.lines, "2222"))
	}
	f.Add("h ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQ==\n|1|||\n@revoked |1| x\n@\n,!,*? a b\n\x00 \r\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		db := open(t)
		db.read("file", text)
		db.sortTypes()
		want := 0
		for _, s := range strings.Split(text, "\n") {
			if s = strings.Trim(strings.TrimSuffix(s, "\r"), " \t"); s != "" && s[0] != '#' {
				want++
			}
		}
		if got := len(db.lines) + len(db.skipped); got != want {
			t.Fatalf("%d lines used and %d listed, of %d", len(db.lines), len(db.skipped), want)
		}
		for name, lines := range db.byName {
			for _, i := range lines {
				l := db.lines[i]
				key, err := ssh.ParsePublicKey([]byte(db.keys[l.key].blob))
				if err != nil {
					t.Fatal(err)
				}
				// A negated pattern on another line cannot take back what this one says.
				if got := verdict(db.Check(name, nil, key)); l.marker == plain && got != "ok" && !strings.HasPrefix(got, "revoked") {
					t.Fatalf("%q of line %d: %s", name, l.number, got)
				} else if l.marker == revoked && !strings.HasPrefix(got, "revoked") {
					t.Fatalf("%q of line %d is revoked: %s", name, l.number, got)
				}
				if l.marker != revoked && (!db.Known(name) || len(db.Algorithms(name)) == 0) {
					t.Fatalf("%q of line %d: known %v, algorithms %v", name, l.number, db.Known(name), db.Algorithms(name))
				}
			}
		}
		db.Check("h", nil, keyNamed("A"))
		db.Check("[h]:2222", nil, keyNamed("R"))
	})
}

// A pattern is what a regular expression makes of it.
func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{{"*", ""}, {"a*b*c", "aXbXbc"}, {"**?", "ab"}, {"[h*]:22", "[h1]:22"}, {"a?*", "a"}, {"*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		for _, b := range []byte(pattern + s) {
			if b >= 0x80 {
				t.Skip("regexp goes by runes, known_hosts by bytes")
			}
		}
		re := regexp.MustCompile(`(?s)\A` + strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern)) + `\z`)
		if got, want := match(pattern, s), re.MatchString(s); got != want {
			t.Errorf("match(%q, %q) = %v, want %v", pattern, s, got, want)
		}
	})
}

// A name is refused, or it is what is read back, and nothing else is.
func FuzzAccept(f *testing.F) {
	for _, s := range []string{"h", "[h]:22", "::1", "a b", "a\nb ssh-ed25519 AAAA", "a,b", "*", "!a", "#a", "|1|a|b", "@revoked", "é", "", "a\r", "other", "OTHER", "a\x00b", "\u00a0"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, name string, hash bool) {
		before := fill("other {B}\n", "")
		file := write(t, before)
		db := open(t, file)
		if err := db.Accept([]Entry{{[]string{name}, keyNamed("A")}}, hash); err != nil {
			if text, _ := os.ReadFile(file); string(text) != before {
				t.Fatalf("refused (%v), and yet the file is now %q", err, text)
			}
			return
		}
		again := open(t, file)
		if len(again.lines) != 2 || len(again.skipped) != 0 || again.lines[1].marker != plain || again.lines[1].pattern {
			t.Fatalf("read back: %+v, %v", again.lines, again.skipped)
		}
		for _, db := range []*DB{db, again} {
			if got := verdict(db.Check(name, nil, keyNamed("A"))); got != "ok" {
				t.Fatalf("%q: %s", name, got)
			}
			if got := verdict(db.Check("other", nil, keyNamed("A"))); got != "changed 1" {
				t.Fatalf("the other host: %s", got)
			}
		}
	})
}

// The shortened HMAC is HMAC-SHA1.
func FuzzHash(f *testing.F) {
	f.Add("web1.example.org", []byte("01234567890123456789"))
	f.Fuzz(func(t *testing.T, name string, salt []byte) {
		var s [sha1.Size]byte
		copy(s[:], salt)
		mac := hmac.New(sha1.New, s[:])
		mac.Write([]byte(name))
		if got := newProbe(name).sum(&s); string(got[:]) != string(mac.Sum(nil)) {
			t.Errorf("HMAC of %q with %x is %x", name, s, got)
		}
	})
}
