package hostkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func accept(t testing.TB, db *DB, hash bool, entries ...Entry) {
	t.Helper()
	if err := db.Accept(entries, hash); err != nil {
		t.Fatal(err)
	}
}

func TestAccept(t *testing.T) {
	a, b, e := keyNamed("A"), keyNamed("B"), keyNamed("E")
	cert := (&certificate{}).sign(t, "web4").PublicKey()
	file := write(t, fill("web1 {A}", "")) // without a newline at its end
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	db := open(t, file)
	db.Check("web2", nil, a) // unknown: remembered, and to be forgotten

	entries := []Entry{
		{[]string{"web1", "WEB2", "[web2]:2222"}, a}, // web1 is known
		{[]string{"web2"}, a},                        // twice
		{[]string{"web3"}, e}, {[]string{"web3"}, b}, // both
		{[]string{"web4"}, cert},
		{[]string{"web1"}, a},
	}
	want := fill("web1 {A}\nweb2,[web2]:2222 {A}\nweb3 {E}\nweb3 {B}\nweb4 {A}\n", "")
	for range 2 { // the second finds all of them known
		accept(t, db, false, entries...)
		if diff := gocmp.Diff(want, read(t, file)); diff != "" {
			t.Errorf("the file (-want +got):\n%s", diff)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, db := range []*DB{db, open(t, file)} { // in memory as in the file
		for _, c := range []struct {
			name string
			key  ssh.PublicKey
			want string
		}{
			{"web1", a, "ok"}, {"web2", a, "ok"}, {"[web2]:2222", a, "ok"}, {"web3", b, "ok"}, {"web3", e, "ok"}, {"web4", a, "ok"},
			{"web2", b, "changed 2"}, {"web3", a, "changed 4"}, {"web4", b, "changed 5"},
		} {
			if got := verdict(db.Check(c.name, nil, c.key)); got != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
		}
	}
}

func TestAcceptHashed(t *testing.T) {
	file := write(t, fill("{#web1} {A}\n", ""))
	db := open(t, file)
	if got := verdict(db.Check("web2", nil, keyNamed("E"))); got != "unknown" {
		t.Fatal(got)
	}
	accept(t, db, true, Entry{[]string{"web2", "192.0.2.2"}, keyNamed("E")})
	text := read(t, file)
	if !regexp.MustCompile(`^(\|1\|[A-Za-z0-9+/]{27}=\|[A-Za-z0-9+/]{27}= [a-z0-9-]+ [A-Za-z0-9+/=]+\n){3}$`).MatchString(text) {
		t.Errorf("not three hashed lines:\n%s", text)
	}
	for _, db := range []*DB{db, open(t, file)} {
		for name, want := range map[string]string{"web1": "changed 1", "web2": "ok", "192.0.2.2": "ok", "web3": "unknown"} {
			if got := verdict(db.Check(name, nil, keyNamed("E"))); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	}
}

// Each line is known by its number, also behind what others have added, and in a file that others have made anew.
func TestAcceptNumbersLines(t *testing.T) {
	file := write(t, fill("a {A}\n\n# b\nc {A}", ""))
	db := open(t, file)
	others := ""
	for _, c := range []struct {
		what   string
		others func()
		name   string
		want   string
	}{
		{"after a line without an end", func() {}, "n1", "changed 5"},
		{"the next", func() {}, "n2", "changed 6"},
		{"after another's", func() { others = read(t, file) + fill("o {A}\np {A}\n", "") }, "n3", "changed 9"},
		{"after another's without an end", func() { others = read(t, file) + "q" }, "n4", "changed 11"},
		{"in a shorter file", func() { others = "# new\n" }, "n5", "changed 2"},
		{"in an empty file", func() { others = "" }, "n6", "changed 1"},
	} {
		others = read(t, file)
		c.others()
		if err := os.WriteFile(file, []byte(others), 0o600); err != nil {
			t.Fatal(err)
		}
		accept(t, db, false, Entry{[]string{c.name}, keyNamed("B")})
		for _, db := range []*DB{db, open(t, file)} {
			if got := verdict(db.Check(c.name, nil, keyNamed("E"))); got != c.want {
				t.Errorf("%s: got %q, want %q", c.what, got, c.want)
			}
		}
	}
}

// What must not be accepted is not, and neither is what stands beside it.
func TestAcceptRefuses(t *testing.T) {
	const text = "h {A}\n@revoked * {C}\n"
	for _, c := range []struct {
		what string
		bad  Entry
		want string
	}{
		{"a change", Entry{[]string{"h"}, keyNamed("B")}, "changed 1"},
		{"a revoked key", Entry{[]string{"i"}, keyNamed("C")}, "revoked 2"},
		{"a second line", Entry{[]string{"i ssh-ed25519 AAAA\nj"}, keyNamed("A")}, "HostKeyAlias"},
		{"two names in one", Entry{[]string{"i,j"}, keyNamed("A")}, "HostKeyAlias"},
		{"a pattern", Entry{[]string{"*"}, keyNamed("A")}, "HostKeyAlias"},
		{"a negation", Entry{[]string{"!i"}, keyNamed("A")}, "HostKeyAlias"},
		{"a comment", Entry{[]string{"#i"}, keyNamed("A")}, "HostKeyAlias"},
		{"a marker", Entry{[]string{"@revoked"}, keyNamed("A")}, "HostKeyAlias"},
		{"no name", Entry{[]string{""}, keyNamed("A")}, "HostKeyAlias"},
	} {
		file := write(t, fill(text, ""))
		db := open(t, file)
		if got := verdict(db.Accept([]Entry{{[]string{"k"}, keyNamed("A")}, c.bad}, false)); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
		if got := read(t, file); got != fill(text, "") {
			t.Errorf("%s: the file is now:\n%s", c.what, got)
		}
		if db.Known("k") {
			t.Errorf("%s: the entry beside it was accepted", c.what)
		}
	}
}

// The file and its directory are made as ssh(1) makes them.
func TestAcceptMakesFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), ".ssh")
	db := open(t, filepath.Join(dir, "known_hosts"), filepath.Join(dir, "known_hosts2"))
	accept(t, db, false, Entry{[]string{"h"}, keyNamed("A")})
	for path, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, filepath.Join(dir, "known_hosts"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, info, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "known_hosts2")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second file: %v", err)
	}
}

// A symbolic link stays one, and /dev/null is written to, not replaced.
func TestAcceptKeepsWhatTheFileIs(t *testing.T) {
	file := write(t, "")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, os.DevNull} {
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		db := open(t, path)
		accept(t, db, false, Entry{[]string{"h"}, keyNamed("A")})
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s is another file now: %v, %v", path, after, err)
		}
		if got := verdict(db.Check("h", nil, keyNamed("A"))); got != "ok" {
			t.Errorf("%s: in memory: %s", path, got)
		}
	}
	if got := read(t, file); got != fill("h {A}\n", "") {
		t.Errorf("behind the link: %q", got)
	}
}

// Keys hold for the run where there is no file, or none that can be written.
func TestAcceptInMemory(t *testing.T) {
	none := open(t)
	accept(t, none, true, Entry{[]string{"h"}, keyNamed("A")})
	if err := none.Check("h", nil, keyNamed("B")); verdict(err) != "changed 1" || !strings.Contains(err.Error(), "accepted in this run") {
		t.Errorf("no file: %v", err)
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "file", "known_hosts")
	db := open(t, file)
	if err := os.WriteFile(filepath.Dir(file), nil, 0o600); err != nil { // where the directory should be made
		t.Fatal(err)
	}
	err := db.Accept([]Entry{{[]string{"h"}, keyNamed("A")}}, false)
	if w := (*WriteError)(nil); !errors.As(err, &w) || w.File != file || !strings.Contains(err.Error(), "UserKnownHostsFile") {
		t.Errorf("a file that cannot be made: %v", err)
	}
	if got := verdict(db.Check("h", nil, keyNamed("A"))); got != "ok" {
		t.Errorf("in memory: %s", got)
	}
}

// Processes that append at the same moment lose nothing of each other's. A DB for each stands for a process: they share the
// file alone.
func TestAcceptBesideOthers(t *testing.T) {
	file := write(t, fill("first {A}", ""))
	const writers, each = 8, 25
	var group sync.WaitGroup
	for w := range writers {
		db := open(t, file)
		group.Go(func() {
			for i := range each {
				name := fmt.Sprintf("h%d-%d", w, i)
				if err := db.Accept([]Entry{{[]string{name}, keyNamed("B")}, {[]string{name + "b"}, keyNamed("E")}}, w%2 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	db := open(t, file)
	for _, err := range db.Skipped() {
		t.Error(err)
	}
	if got, want := len(db.lines), 1+writers*each*2; got != want {
		t.Errorf("%d lines, want %d", got, want)
	}
	for w := range writers {
		for i := range each {
			name := fmt.Sprintf("h%d-%d", w, i)
			if err := errors.Join(db.Check(name, nil, keyNamed("B")), db.Check(name+"b", nil, keyNamed("E"))); err != nil {
				t.Error(err)
			}
		}
	}
}

// Checks go on while keys are accepted; the race detector is the judge.
func TestConcurrent(t *testing.T) {
	var text bytes.Buffer
	for i := range 200 {
		fmt.Fprintf(&text, "{#h%d} {A}\nh%d {E}\n{#h%d} {E}\n", i, i, i)
	}
	db := openText(t, text.String())
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range 50 {
				n := (i*7 + w) % 210
				name, want := fmt.Sprintf("h%d", n), "ok"
				if n >= 200 {
					want = "unknown"
				}
				db.Algorithms(name)
				if got := verdict(db.Check(name, nil, keyNamed("A"))); got != want || db.Known(name) != (want == "ok") {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
				if err := db.Accept([]Entry{{[]string{fmt.Sprintf("n%d-%d", w, i)}, keyNamed("B")}}, true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
