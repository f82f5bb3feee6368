package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	gocmp "github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
	"multirsh/runner/inventory"
	"multirsh/transport"
)

var transports = []string{"ssh", "rsh", "exec"}

func newInventory() *inventory.Inventory {
	return inventory.New(inventory.Options{Transports: transports})
}

// read returns the inventory of a hosts file.
func read(tb testing.TB, text string) *inventory.Inventory {
	tb.Helper()
	inv := newInventory()
	if err := inv.Read(strings.NewReader(text), "hosts"); err != nil {
		tb.Fatal(err)
	}
	return inv
}

func choose(tb testing.TB, inv *inventory.Inventory, include ...string) *inventory.Selection {
	tb.Helper()
	s, err := inv.Select(tb.Context(), include, nil)
	if err != nil {
		tb.Fatalf("Select(%q): %v", include, err)
	}
	return s
}

// brief writes hosts as "name key=value …", a host a line.
func brief(s *inventory.Selection) string {
	var b strings.Builder
	for h := range s.Hosts(transport.Host{}) {
		b.WriteString(h.Name)
		for _, kv := range [][2]string{{"transport", h.Transport}, {"user", h.User}, {"addr", h.Addr}, {"jump", h.Jump}} {
			if kv[1] != "" {
				fmt.Fprintf(&b, " %s=%s", kv[0], kv[1])
			}
		}
		if h.Port != 0 {
			fmt.Fprintf(&b, " port=%d", h.Port)
		}
		for _, key := range slices.Sorted(maps.Keys(h.Vars)) {
			fmt.Fprintf(&b, " %s=%s", key, h.Vars[key])
		}
		if key, n := s.Fanout(h.Name); n > 0 {
			fmt.Fprintf(&b, " fanout=%d/%s", n, key)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func lines(all ...string) string {
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "\n") + "\n"
}

func wantText(tb testing.TB, what, got, want string) {
	tb.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		tb.Errorf("%s: -want +got:\n%s", what, diff)
	}
}

// What a hosts file says, with all of its hosts selected.
func TestHostsFile(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no final newline", "a\nb", lines("a", "b")},
		{"CRLF", "a\r\n\r\n# c\r\nb\r\n", lines("a", "b")},
		{"CR at the end", "a\nb\r", lines("a", "b")},
		{"byte order mark", "\ufeffa\n", lines("a")},
		{"comments", "# x\n  # y = z\n\n \t\na # b\n\t b\t# \xff\n", lines("a", "b")},
		{"expressions", "n[1-3]!n2, m\n", lines("n1", "n3", "m")},
		{"an expression in brackets", "[1-2][3-4]\n[::1] port=5\n[7]\n", lines("13", "14", "23", "24", "::1 port=5", "7")},
		{"blanks between hosts", " a b,c  user=u \n", lines("a user=u", "b user=u", "c user=u")},
		{"settings", "a transport=rsh\tuser=DOM\\u port=65535 jump=g@j1:22,[::1]:5 # c\n", lines("a transport=rsh user=DOM\\u jump=g@j1:22,[::1]:5 port=65535")},
		{"labels", "a label=rack:r1,row:7 label=name:x=y:z\n", lines("a label.name=x=y:z label.rack=r1 label.row=7")},
		{"labels of a line each", "a label=rack:r1\na label=row:7\nb label=rack:r1\n", lines("a label.rack=r1 label.row=7", "b label.rack=r1")},
		{"each host once", "a,n[1-2]\nn[2-3]\na\n", lines("a", "n1", "n2", "n3")},
		{"settings on several lines", "n[1-2] port=5\nm\nn2 port=5 user=u\nn[1-3] label=a:b\n",
			lines("n1 port=5 label.a=b", "n2 user=u port=5 label.a=b", "m", "n3 label.a=b")},
		{"a host beside a range", "n2 user=u\nn[1-3] user=u port=3\n", lines("n2 user=u port=3", "n1 user=u port=3", "n3 user=u port=3")},
		{"addresses", "n[1-3] addr=10.0.0.[7-9]\nm addr=[::1]\nx[1-2] addr=a,b\nn2 addr=10.0.0.8\nn[2-3] addr=10.0.0.[8-9]\n",
			lines("n1 addr=10.0.0.7", "n2 addr=10.0.0.8", "n3 addr=10.0.0.9", "m addr=::1", "x1 addr=a", "x2 addr=b")},
		{"a host named include", "include, port=5\nincluded\n", lines("include port=5", "included")},
		{"accounts of machines", "a user=pc1$\npc2$@b\n", lines("a user=pc1$", "b user=pc2$")},
		{"targets", "rsh:root@n[1-2]:514 label=a:b\n", lines("n1 transport=rsh user=root port=514 label.a=b", "n2 transport=rsh user=root port=514 label.a=b")},

		{"sections", "a\n[web] user=w # c\nw[1-2]\nb port=5\n[db]\nd\n[web] label=x:y\nw3\n",
			lines("a", "w1 user=w label.x=y", "w2 user=w label.x=y", "b user=w port=5 label.x=y", "d", "w3 user=w label.x=y")},
		{"a line beats its section", "[web] user=w port=1\na user=own\nb\n", lines("a user=own port=1", "b user=w port=1")},
		{"a section beats the one around it", "[all] user=o port=1\n[all:children]\nweb\n[web] user=i\na\n[all]\nb\n", lines("a user=i port=1", "b user=o port=1")},
		{"and the one around that", "[a] user=1\n[a:children]\nb\n[b] user=2 port=2\n[b:children]\nc\n[c] port=3\nx\n[b]\ny\n[a]\nz\n",
			lines("x user=2 port=3", "y user=2 port=2", "z user=1")},
		{"sections that agree", "[web] user=u\na\n[db] user=u\na\n", lines("a user=u")},
		{"a line settles what sections set", "[web] user=w\na user=own\n[db] user=d\na\n", lines("a user=own")},
		{"a range settles it, too", "[web] user=w\na[1-9]\n[db] user=d\na[2-3]\n[own]\na[1-9] user=own\n",
			lines("a1 user=own", "a2 user=own", "a3 user=own", "a4 user=own", "a5 user=own", "a6 user=own", "a7 user=own", "a8 user=own", "a9 user=own")},
		{"children in brackets", "[all] user=u\n[all:children]\nrack[1-2], @x\n[rack1]\na\n[rack2]\nb\n[x]\nc\n[y]\nd\n", lines("a user=u", "b user=u", "c user=u", "d")},
		{"groups on a line", "[web]\na,b,c\n[two]\n@web!b port=5\n@web&c user=u\n", lines("a port=5", "b", "c user=u port=5")},
		{"sections as a source", "[web]\na\n[two]\n@hosts:web port=5\n", lines("a port=5")},
		{"a group with an equal sign", "@os=debian,b user=u\n[os=debian]\na\n", lines("a user=u", "b user=u")},
		{"a target of a host that is excluded", "root@n[1-2]!n1\nn1 user=ops\n", lines("n2 user=root", "n1 user=ops")},
		{"a group with a target", "root@@web:22\n[web]\na\n", lines("a user=root port=22")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := choose(t, read(t, tt.text), "@*")
			wantText(t, tt.text, brief(s), tt.want)
			if n := strings.Count(tt.want, "\n"); s.Len() != n {
				t.Errorf("Len() = %d, want %d", s.Len(), n)
			}
		})
	}
}

// fileErrors are texts that are no hosts files, and what is wrong with them. They are found when the file is read, or when hosts are selected.
var fileErrors = []struct{ text, want string }{
	{"", "hosts: no line here names a host, so there are none to choose from"},
	{"# a\n\n", "hosts: no line here names a host, so there are none to choose from"},
	{"a\nn[3-1]\n", `hosts:2: host expression "n[3-1]", column 3: 3-1 runs backwards: expected the lower number first`},
	{"a!a\n", "hosts:1: a!a excludes all the hosts that it names"},
	{"a\nuser=x\n", "hosts:2: user=x stands without hosts: write them before it, on the same line"},
	{"a user=x b\n", `hosts:1: "b" stands after a setting: hosts come first, then settings such as user=ops`},
	{"a user=x user=y\n", "hosts:1: this line sets user=x and user=y: leave one of them out"},
	{"a label=r:1 label=r:2\n", "hosts:1: this line sets label=r:1 and label=r:2: leave one of them out"},
	{"a color=red\n", `hosts:1: there is no setting "color": there is transport=, user=, port=, addr=, jump=, label=`},
	{"a Port=3\n", `hosts:1: there is no setting "Port": there is transport=, user=, port=, addr=, jump=, label=`},
	{"a po_rt=3\n", `hosts:1: host expression "a po_rt=3", column 8: '=' cannot be part of a host name: expected letters, digits, '-', '_', '.' or '['`},
	{"b,x$y@a\n", `hosts:1: host expression "b,x$y@a", column 4: '$' cannot be part of a user name before '@'`},
	{"a user=x$y\n", `hosts:1: user="x$y" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
	{"a transport=ssh2\n", `hosts:1: there is no transport "ssh2": there is ssh, rsh, exec`},
	{"a transport=\n", `hosts:1: there is no transport "": there is ssh, rsh, exec`},
	{"a user=\n", `hosts:1: user="" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
	{"a user=-l\n", `hosts:1: user="-l" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
	{"a user=$\n", `hosts:1: user="$" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
	{"a user=u$$\n", `hosts:1: user="u$$" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
	{"a user=$(id)\n", `hosts:1: user="$(id)" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
	{"a user=\x1b[m\n", `hosts:1: user="\x1b[m" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
	{"a port=0\n", `hosts:1: port="0" is no TCP port: expected a number from 1 to 65535`},
	{"a port=65536\n", `hosts:1: port="65536" is no TCP port: expected a number from 1 to 65535`},
	{"a port=+5\n", `hosts:1: port="+5" is no TCP port: expected a number from 1 to 65535`},
	{"a port=5# no blank\n", `hosts:1: port="5#" is no TCP port: expected a number from 1 to 65535`},
	{"a jump=-oProxyCommand=x\n", `hosts:1: jump="-oProxyCommand=x" is no way to a host: expected [user@]host[:port], more than one with commas between them, or none`},
	{"a jump=\n", `hosts:1: jump="" is no way to a host: expected [user@]host[:port], more than one with commas between them, or none`},
	{"a label=rack\n", "hosts:1: label=rack says no value: write label=NAME:VALUE, as label=rack:r1"},
	{"a label=rack:\n", "hosts:1: label rack is empty: write label=NAME:VALUE, as label=rack:r1"},
	{"a label=:r\n", `hosts:1: "" is no name for a label: expected letters, digits, '_', '-' and '.'`},
	{"a label=ra/ck:r\n", `hosts:1: "ra/ck" is no name for a label: expected letters, digits, '_', '-' and '.'`},
	{"a label=rack:\x1b[m\n", `hosts:1: label rack has the value "\x1b[m": expected text that can be printed`},
	{"a label=rack:\xff\n", `hosts:1: label rack has the value "\xff": expected text that can be printed`},
	{manyLabels(), "hosts:1001: with l1000 there are more than 1000 names of labels: a label's name is a kind of thing, as rack, and what differs is its value"},
	{"n[1-3] addr=10.0.0.[1-2]\n", "hosts:1: addr=10.0.0.[1-2] has 2 addresses for 3 hosts: give each host one of its own, as in n[1-3] addr=10.0.0.[1-3]"},
	{"n[1-3] addr=10.0.0.1\n", "hosts:1: addr=10.0.0.1 has 1 address for 3 hosts: give each host one of its own, as in n[1-3] addr=10.0.0.[1-3]"},
	{"n addr=10.0.0.[\n", `hosts:1: addr=10.0.0.[: host expression "10.0.0.[", column 8: this '[' is never closed: expected ']'`},
	{"n addr=\n", `hosts:1: addr=: host expression "", column 1: expected a host name, found nothing`},

	{"a\rb\rc\n", "hosts:1: there is a carriage return inside this line: end lines with LF or CRLF"},
	{"# old Macintosh\ra\rb\n", "hosts:1: there is a carriage return inside this line: end lines with LF or CRLF"},
	{"a\n\x7fELF\x02\x01\x00\x00", "hosts:2: there is a NUL byte here: a hosts file is UTF-8 text"},
	{"\xff\xfea\x00\n\x00", "hosts:1: this is UTF-16: save the file as UTF-8"},
	{"\xfe\xff\x00a\x00\n", "hosts:1: this is UTF-16: save the file as UTF-8"},
	{"b\xfcro\n", `hosts:1: host expression "b�ro", column 2: byte 0xfc is not UTF-8 text`},
	{"# c\n" + strings.Repeat("a,", 1<<20), "hosts:2: this line is longer than 1048576 bytes: give each group of hosts a line of its own"},

	{"n[1-9]\nm user=x\n\nn[5-12] port=5\nn[6-7] port=6", "hosts:5: n6 has port=6 here, but port=5 at hosts:4: let one line set it"},
	{"a user=x transport=rsh\nb\na user=y\n", "hosts:3: a has user=y here, but user=x at hosts:1: let one line set it"},
	{"a user=x\na port=1\n[s]\nn,a user=y\n", "hosts:4: a has user=y here, but user=x at hosts:1: let one line set it"},
	{"n,a user=y\na user=x\n", "hosts:2: a has user=x here, but user=y at hosts:1: let one line set it"},
	{"a label=r:1\na label=r:2\n", "hosts:2: a has label=r:2 here, but label=r:1 at hosts:1: let one line set it"},
	{"n[1-2] addr=10.0.0.[1-2]\nn2 addr=10.0.0.3\n", "hosts:2: n2 has addr=10.0.0.3 here, but addr=10.0.0.2 at hosts:1: let one line set it"},
	{"n[1-2] addr=10.0.0.[1-2]\nn[2-3] addr=10.0.0.[3-4]\n", "hosts:2: n2 has addr=10.0.0.3 here, but addr=10.0.0.2 at hosts:1: let one line set it"},
	{"root@a user=ops\n", "hosts:1: a has user=root here, but user=ops at hosts:1: let one line set it"},
	{"a[1-6000000]\nb[1-6000000]\n", "@* has 12000000 hosts, and at most 10000000 are possible"},

	{"[web\na\n", `hosts:1: host expression "[web", column 2: expected a number, found 'w'`},
	{"[web] a\n", "hosts:1: a stands after [web]: hosts of a section go on lines of their own"},
	{"[web:vars]\n", "hosts:1: settings of a section stand after its name, as in [web] user=ops"},
	{"[web:kids]\n", "hosts:1: [web:kids] is no section: it is [web] before hosts, and [web:children] before names of groups"},
	{"[web:children] user=a\n", "hosts:1: user=a stands after [web:children]: write it after [web]"},
	{"[w b]\n", "hosts:1: [w b] is no section: a group's name has letters, digits, '_', '-', '.', '+' and '/'"},
	{"[]\n", `hosts:1: host expression "[]", column 1: empty brackets: expected numbers, as in [1-8,12]`},
	{"[web] color=red\n", `hosts:1: there is no setting "color": there is transport=, user=, port=, addr=, jump=, label=`},
	{"[web] addr=10.0.0.1\na\n", "hosts:1: addr= is for hosts, and these are a section's: write it on their own lines"},
	{"[web:children]\ndb user=a\n[db]\n", "hosts:2: user=a is set here, where groups are named: write it after [web]"},
	{"[web:children]\ndb!x\n[db]\n", "hosts:2: db!x stands where [web:children] has names of groups: as rack1, rack[1-3] or SOURCE:GROUP"},
	{"[web:children]\nrakc1\n[rack1]\na\n", "hosts:2: there is no section [rakc1]; did you mean rack1?"},
	{"[web:children]\nx:y\n", `hosts:2: there is no source of groups "x": there is hosts`},
	{"[a:children]\nb\n[b:children]\nc\n[c:children]\na\n", "hosts:6: [a] is in itself: [a] > [b] > [c] > [a]"},
	{"[a:children]\na\n", "hosts:2: [a] is in itself: [a] > [a]"},
	{"[a]\nx\n@b\n[b]\n@a!x\n", "hosts:5: [a] is in itself: [a] > [b] > [a]"},
	{"[a]\nx\n@*\n", "hosts:3: @* is in itself: @* > @*"},
	{deepSections(), "hosts:2002: [s1001]: groups are in groups more than 1000 deep"},
	{"x\n@rakc1\n[rack1]\na\n", `hosts:2: there is no group "rakc1"; did you mean rack1?`},
	{"n*\n", `hosts:1: in a hosts file this would select from the hosts of the hosts files themselves: name them, or name a group`},
	{"[web] user=w\na\n[db] user=d\na\n", "hosts:3: a has user=d as a host of [db], but user=w as a host of [web] at hosts:1: set it on a line of the host's own"},
	{"[web] user=w\na\n[web] user=d\n", "hosts:3: a has user=d as a host of [web], but user=w as a host of [web] at hosts:1: set it on a line of the host's own"},

	{"a\ninclude\n", "hosts:2: include names no file: write include FILE"},
	{"a\ninclude no such file # c\n", "hosts:2: include no such file: no such file or directory"},
	{"a\ninclude [\n", "hosts:2: include [: this is no pattern for file names: a '[' is not closed"},
	{"a\ninclude nosuchdir/*\n", "hosts:2: include nosuchdir/*: nosuchdir: no such file or directory"},
}

func manyLabels() string {
	var b strings.Builder
	for i := range 1001 {
		fmt.Fprintf(&b, "a label=l%d:x\n", i)
	}
	return b.String()
}

func deepSections() string {
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, "[s%d:children]\ns%d\n", i, i+1)
	}
	return b.String() + "[s2000]\na\n"
}

// tryRead returns the first error of reading and selecting all.
func tryRead(r io.Reader) error {
	inv := newInventory()
	if err := inv.Read(r, "hosts"); err != nil {
		return err
	}
	_, err := inv.Select(context.Background(), []string{"@*"}, nil)
	return err
}

func TestHostsFileErrors(t *testing.T) {
	for _, tt := range fileErrors {
		err := tryRead(strings.NewReader(tt.text))
		if err == nil {
			t.Errorf("%.40q: no error, want %s", tt.text, tt.want)
		} else if diff := gocmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("%.60q: -want +got:\n%s", tt.text, diff)
		}
	}
}

func TestCaretOfAFile(t *testing.T) {
	err := newInventory().Read(strings.NewReader("a\n  m,n[3-1] user=x\n"), "hosts")
	var se *hostlist.SyntaxError
	if !errors.As(err, &se) {
		t.Fatalf("%v wraps no *SyntaxError", err)
	}
	wantText(t, "Caret", se.Caret(), "m,n[3-1]\n    ^")
}

// endless is a line that does not end, or a file.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(b []byte) (int, error) {
	for n := 0; n < len(b); {
		c := copy(b[n:], e.text[e.at:])
		n, e.at = n+c, (e.at+c)%len(e.text)
	}
	return len(b), nil
}

// None of these readers comes to an end; reading them must.
func TestReadIsBounded(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"\x00", "hosts:1: there is a NUL byte"},
		{"x", "hosts:1: this line is longer than 1048576 bytes"},
		{"\x89PNG\r\n\x1a\n", "hosts:1: host expression"},
		{"\n", "hosts:11000001: the file has more than 11000000 lines"},
		{"#" + strings.Repeat("c", 1<<19-2) + "\n", "hosts:1025: the file is longer than 536870912 bytes"},
	} {
		err := newInventory().Read(&endless{text: tt.text}, "hosts")
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("endless %.9q: error %v, want %q", tt.text, err, tt.want)
		}
	}
	for name, text := range map[string]string{
		"100 MB of noise": "\x01\x02\x03" + strings.Repeat("~", 1<<10) + "\n",
		"a line of them":  "~",
	} {
		if err := newInventory().Read(io.LimitReader(&endless{text: text}, 100<<20), "hosts"); err == nil || !strings.HasPrefix(err.Error(), "hosts:1: ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestReadUnreadable(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(errors.New("disk on fire")))
	if err := newInventory().Read(broken, "-"); err == nil || err.Error() != "-:3: disk on fire" {
		t.Errorf("a failing disk: %v", err)
	}
	inv := newInventory()
	if err := inv.Read(iotest.OneByteReader(strings.NewReader("a\nb\n")), "-"); err != nil || choose(t, inv, "@*").Len() != 2 {
		t.Errorf("byte by byte: %v", err)
	}
}

// tree writes files into a directory, and returns it.
func tree(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func TestInclude(t *testing.T) {
	dir := tree(t, map[string]string{
		"hosts":        "a\n[web] user=w\nw1\ninclude sub/*.hosts # c\ninclude other file\nw2\n",
		"sub/1.hosts":  "b\n[in] port=5\nc\ninclude ../other file\n",
		"sub/2.hosts":  "d\n[web]\ne\n",
		"sub/3.text":   "not me",
		"other file":   "f\n[all:children]\nweb, in\n[all] label=x:y\n",
		"empty/.keep":  "",
		"globs":        "include empty/*.hosts\na\n",
		"again":        "include globs\ninclude globs\ninclude sub/../globs\nb\n",
		"indirect/one": "include ../indirect/two\nx\n",
		"indirect/two": "y\n",
	})
	inv := newInventory()
	for range 2 { // the second time does nothing
		if err := inv.ReadFile(filepath.Join(dir, "hosts")); err != nil {
			t.Fatal(err)
		}
	}
	wantText(t, "hosts", brief(choose(t, inv, "@*")), lines("a", "w1 user=w label.x=y", "b", "c port=5 label.x=y", "f", "d", "e user=w label.x=y", "w2 user=w label.x=y"))
	inv = newInventory()
	for _, name := range []string{"again", "indirect/one"} {
		if err := inv.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	wantText(t, "more files", brief(choose(t, inv, "@*")), lines("a", "b", "y", "x"))
}

// Whatever stands where a file is expected: an error that names it, and the place that asked for it.
func TestNotAFile(t *testing.T) {
	dir := tree(t, map[string]string{
		"self":      "a\ninclude self\n",
		"one":       "a\ninclude two\n",
		"two":       "include ./one\n",
		"dir/file":  "a\n",
		"to dir":    "include dir\n",
		"to fifo":   "a\n\ninclude fifo\n",
		"glob":      "include dir*\n",
		"binary":    "a\n\x00\n",
		"to binary": "include binary\n",
	})
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	deep := ""
	for i := range 200 {
		deep = fmt.Sprintf("deep%d", i)
		if err := os.WriteFile(filepath.Join(dir, deep), fmt.Appendf(nil, "include deep%d\n", i+1), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, tt := range []struct{ path, want string }{
		{"none", "none: no such file or directory"},
		{"dir", "dir: this is a directory: name a hosts file, or its files as in DIRECTORY/*"},
		{"fifo", "fifo: this is a FIFO, where a hosts file is expected"},
		{"/dev/zero", "/dev/zero: this is a device, where a hosts file is expected"},
		{"self", "self:2: include self: the file includes itself: self > self"},
		{"one", "two:1: include one: the file includes itself: one > two > one"},
		{"to dir", "to dir:1: include dir: this is a directory: name a hosts file, or its files as in DIRECTORY/*"},
		{"glob", "glob:1: include dir: this is a directory: name a hosts file, or its files as in DIRECTORY/*"},
		{"to fifo", "to fifo:3: include fifo: this is a FIFO, where a hosts file is expected"},
		{"to binary", "binary:2: there is a NUL byte here: a hosts file is UTF-8 text"},
		{"deep0", "deep100:1: include deep101: files are included in files more than 100 deep"},
	} {
		if err := newInventory().ReadFile(tt.path); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.path, err, tt.want)
		}
	}
	r, w, err := os.Pipe() // as bash makes one of <(command)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	io.WriteString(w, "a\n")
	w.Close()
	inv := newInventory()
	if err := inv.ReadFile(fmt.Sprintf("/dev/fd/%d", r.Fd())); err != nil {
		t.Errorf("a pipe of the shell: %v", err)
	} else {
		wantText(t, "pipe", brief(choose(t, inv, "@*")), lines("a"))
	}
}
