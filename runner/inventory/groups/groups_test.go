package groups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// write makes files below a new directory, which it returns. Those that begin with "#!" can be run.
func write(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// file makes a file of this name and returns its path.
func file(tb testing.TB, name, text string) string {
	tb.Helper()
	return filepath.Join(write(tb, map[string]string{name: text}), name)
}

// told is all that a source says: a line for each group, the hosts with blanks between, all hosts after a '*', and its settings.
func told(tb testing.TB, s Source) string {
	tb.Helper()
	ctx := tb.Context()
	names, err := s.List(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	for _, name := range names {
		text, err := s.Map(ctx, name)
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(strings.Fields(text), " "))
	}
	if all, is := s.(Aller); is {
		text, err := all.All(ctx)
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(&b, "* %s\n", strings.Join(strings.Fields(text), " "))
	}
	if set, is := s.(Settler); is {
		settings, err := set.Settings(ctx)
		if err != nil {
			tb.Fatal(err)
		}
		for _, s := range settings {
			fmt.Fprintf(&b, "%s %s=%s %s\n", strings.Join(strings.Fields(s.Hosts), " "), s.Key, s.Value, filepath.Base(s.Place))
		}
	}
	if text, err := s.Map(ctx, "no-such-group"); !errors.Is(err, ErrNoGroup) {
		tb.Errorf("no-such-group: %q, %v", text, err)
	}
	return b.String()
}

// mustMap is what Map says, which must be no error.
func mustMap(tb testing.TB, s Source, group string) string {
	tb.Helper()
	text, err := s.Map(tb.Context(), group)
	if err != nil {
		tb.Fatalf("%s: %v", group, err)
	}
	return text
}

// badFile is a file, and what is wrong with it: the error begins with its name, which is written FILE.
type badFile struct{ text, want string }

func testBadFiles(t *testing.T, ending string, source func(path string) Source, tests []badFile) {
	t.Helper()
	for _, test := range tests {
		path := file(t, "f"+ending, test.text)
		_, err := source(path).Map(t.Context(), "a")
		if got := strings.ReplaceAll(fmt.Sprint(err), path, "FILE"); got != test.want {
			t.Errorf("%q:\ngot  %s\nwant %s", test.text[:min(len(test.text), 80)], got, test.want)
		}
	}
}

// Nothing that is at the path of a file makes reading it hang, or take more memory than a file may have.
func TestRead(t *testing.T) {
	dir := write(t, map[string]string{"huge": "", "nul": "a: n1\nb: \x00\n", "latin1": "a: n1\n\nb: \xff\n", "utf16": "\xff\xfea\x00:\x00\n\x00", "bom": "\ufeffa: n1\r\nb: n2\r\n"})
	if err := os.Truncate(dir+"/huge", 100<<20); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/none":       "FILE: no such file or directory",
		dir:                 "FILE: this is a directory; name a file",
		dir + "/fifo":       "FILE: this is no regular file, so reading it might never end",
		"/dev/zero":         "FILE: this is no regular file, so reading it might never end",
		dir + "/huge":       "FILE: this file has more than 67108864 bytes: does it hold groups?",
		dir + "/nul":        "FILE:2: there is a NUL byte here: groups are read from UTF-8 text",
		dir + "/latin1":     "FILE:3: byte 0xff is not UTF-8 text",
		dir + "/utf16":      "FILE:1: there is a NUL byte here: groups are read from UTF-8 text",
		dir + "/nul/beyond": "FILE: not a directory",
	} {
		_, err := File(path).Map(t.Context(), "a")
		if got := strings.ReplaceAll(fmt.Sprint(err), path, "FILE"); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", path, got, want)
		}
	}
	if got, want := told(t, File(dir+"/bom")), "a: n1\nb: n2\n* n1 n2\n"; got != want {
		t.Errorf("a byte order mark and CRLF: got %q, want %q", got, want)
	}
}

// A file is read once, whatever is asked and by however many.
func TestReadOnce(t *testing.T) {
	path := file(t, "f", "a: n1\n")
	s := File(path)
	if got := mustMap(t, s, "a"); got != "n1" {
		t.Errorf("%q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := mustMap(t, s, "a"); got != "n1" {
		t.Errorf("%q", got)
	}
	if _, err := File(path).List(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Each part of a text is found again in the line that it is from.
func TestWhere(t *testing.T) {
	dir := write(t, map[string]string{
		"groups":  "\nweb: w1,w2\nlab: l1\nweb: w3\n",
		"genders": "n1 web\n# none\nn2,n3 web,x=1\n",
		"dsh/web": "w1\n\n#include more\nw4\n", "dsh/more": "# none\nw2\nw3\n",
		"inv":      "[web]\nw1\n\nw[2:3]\n[all:children]\nweb\n",
		"inv.yaml": "web:\n  hosts:\n    w1:\n    w2:\n",
	})
	for _, test := range []struct {
		source      Source
		group, part string
		want        string
	}{
		{File(dir + "/groups"), "web", "w1", "groups:2"},
		{File(dir + "/groups"), "web", "w2", "groups:2"},
		{File(dir + "/groups"), "web", "w3", "groups:4"},
		{File(dir + "/groups"), "*", "l1", "groups:3"},
		{File(dir + "/groups"), "*", "w3", "groups:4"},
		{Genders(dir + "/genders"), "web", "n3", "genders:3"},
		{Genders(dir + "/genders"), "x=1", "n2", "genders:3"},
		{Genders(dir + "/genders"), "*", "n1", "genders:1"},
		{Dsh(dir + "/dsh"), "web", "w1", "dsh/web:1"},
		{Dsh(dir + "/dsh"), "web", "w3", "dsh/more:3"},
		{Dsh(dir + "/dsh"), "web", "w4", "dsh/web:4"},
		{Ansible(dir + "/inv"), "web", "w3", "inv:4"},
		{Ansible(dir + "/inv"), "all", "w1", "inv:2"},
		{Ansible(dir + "/inv.yaml"), "web", "w2", "inv.yaml:4"},
	} {
		var text string
		if test.group != "*" {
			text = mustMap(t, test.source, test.group)
		} else if all, err := test.source.(Aller).All(t.Context()); err != nil {
			t.Fatal(err)
		} else {
			text = all
		}
		at := strings.Index(text, test.part)
		if got := test.source.(Locator).Where(test.group, at); at < 0 || got != dir+"/"+test.want {
			t.Errorf("%s in %q: got %s, want %s", test.part, text, strings.TrimPrefix(got, dir+"/"), test.want)
		}
	}
}

// Files that would take hours if anything of their reading were quadratic, and gigabytes if lines could multiply without end.
func TestLarge(t *testing.T) {
	var attributes strings.Builder
	for i := range 300_000 {
		fmt.Fprintf(&attributes, ",a%d", i)
	}
	testBadFiles(t, "", File, []badFile{{strings.Repeat("b: n1\n", 4<<20), "there is no such group"}})
	testBadFiles(t, "", Genders, []badFile{
		{strings.Repeat(",", 32<<20) + "n1 a\n" + strings.Repeat("n2,", 400_000) + "n3 " + attributes.String()[1:], "FILE:2: with this line the groups of the file take more than 256 MB"},
		{strings.Repeat("[", 32<<20), `FILE:1: this '[' is never closed in "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…"`},
	})
	testBadFiles(t, ".ini", Ansible, []badFile{
		{strings.Repeat("[", 32<<20), fmt.Sprintf(`FILE:1: "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…" is no name of a host: it has %d bytes`, 32<<20)},
		{"[b]\n[c:children]\n" + strings.Repeat("b\n", 4<<20), "FILE:1000003: with this line the inventory has more than 1000000 children of groups"},
	})
	conf := file(t, "groups.conf", "[x]\nmap: y\n"+strings.Repeat(" z\n", 340_000))
	if sources, _, err := ClusterShell([]string{conf}, ""); err != nil || len(sources) != 1 {
		t.Errorf("%v, %v", sources, err)
	}
	if err := os.WriteFile(conf, []byte("[x]\nmap: y\n"+strings.Repeat(" z\n", 350_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ClusterShell([]string{conf}, ""); err == nil || err.Error() != conf+": this file has 1050011 bytes, and a configuration has at most 1048576" {
		t.Error(err)
	}
}

// A million lines for one group take no longer, line for line, than a few.
func BenchmarkFile(b *testing.B) {
	var text strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&text, "group%d: node%d\n", i%7, i)
	}
	path := file(b, "f", text.String())
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		if _, err := File(path).List(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
