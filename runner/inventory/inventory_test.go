package inventory_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
	"multirsh/runner/inventory"
	"multirsh/transport"
)

var transports = []string{"ssh", "rsh", "exec"}

func read(text string) (*inventory.Inventory, error) {
	return inventory.Read(strings.NewReader(text), "hosts.txt", transports)
}

func mustRead(tb testing.TB, text string) *inventory.Inventory {
	tb.Helper()
	inv, err := read(text)
	if err != nil {
		tb.Fatal(err)
	}
	return inv
}

func host(name string) transport.Host { return transport.Host{Name: name} }

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []transport.Host
	}{
		{"no final newline", "a\nb", []transport.Host{host("a"), host("b")}},
		{"CRLF", "a\r\n\r\n# c\r\nb\r\n", []transport.Host{host("a"), host("b")}},
		{"CR at the end", "a\nb\r", []transport.Host{host("a"), host("b")}},
		{"byte order mark", "\ufeffa\n", []transport.Host{host("a")}},
		{"comments", "# x\n  # y = z\n\n \t\na # b\n\t b\t# \xff\n", []transport.Host{host("a"), host("b")}},
		{"expressions", "n[1-3]!n2, m\n", []transport.Host{host("n1"), host("n3"), host("m")}},
		{"blanks between hosts", " a b,c  user=u \n", []transport.Host{{Name: "a", User: "u"}, {Name: "b", User: "u"}, {Name: "c", User: "u"}}},
		{"settings", "a transport=rsh\tuser=DOM\\u port=65535 # c\n", []transport.Host{{Name: "a", Transport: "rsh", User: "DOM\\u", Port: 65535}}},
		{"each host once", "a,n[1-2]\nn[2-3]\na\n", []transport.Host{host("a"), host("n1"), host("n2"), host("n3")}},
		{"same settings again", "n[1-2] port=5\nm\nn2 port=5\n", []transport.Host{{Name: "n1", Port: 5}, {Name: "n2", Port: 5}, host("m")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inv, err := read(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.Collect(inv.Hosts(transport.Host{}))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if inv.Len() != len(got) {
				t.Errorf("Len() = %d, want %d", inv.Len(), len(got))
			}
		})
	}
}

func TestReadErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "hosts.txt:1: the file ends here and has named no host"},
		{"# a\n\n", "hosts.txt:3: the file ends here and has named no host"},
		{"a\nn[3-1]\n", `hosts.txt:2: host expression "n[3-1]", column 3: 3-1 runs backwards: expected the lower number first`},
		{"a!a\n", "hosts.txt:1: a!a excludes all the hosts that it names"},
		{"a!b\n", `hosts.txt:1: host expression "a!b", column 3: this excludes nothing: b is not among the hosts`},
		{"a\nuser=x\n", "hosts.txt:2: user=x stands without hosts: write them before it, on the same line"},
		{"a user=x b\n", `hosts.txt:1: "b" stands after a setting: hosts come first, then settings such as user=ops`},
		{"a user=x user=y\n", "hosts.txt:1: user= is set twice on this line"},
		{"a color=red\n", `hosts.txt:1: there is no setting "color": there is transport=, user=, port=`},
		{"a Port=3\n", `hosts.txt:1: there is no setting "Port": there is transport=, user=, port=`},
		{"a transport=ssh2\n", `hosts.txt:1: there is no transport "ssh2": there is ssh, rsh, exec`},
		{"a transport=\n", `hosts.txt:1: there is no transport "": there is ssh, rsh, exec`},
		{"a user=\n", `hosts.txt:1: user="" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
		{"a user=-l\n", `hosts.txt:1: user="-l" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
		{"a user=$(id)\n", `hosts.txt:1: user="$(id)" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
		{"a user=\x1b[m\n", `hosts.txt:1: user="\x1b[m" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
		{"a port=0\n", `hosts.txt:1: port="0" is no TCP port: expected a number from 1 to 65535`},
		{"a port=65536\n", `hosts.txt:1: port="65536" is no TCP port: expected a number from 1 to 65535`},
		{"a port=+5\n", `hosts.txt:1: port="+5" is no TCP port: expected a number from 1 to 65535`},
		{"a port=5# no blank\n", `hosts.txt:1: port="5#" is no TCP port: expected a number from 1 to 65535`},
		{"a\rb\rc\n", "hosts.txt:1: there is a carriage return inside this line: end lines with LF or CRLF"},
		{"a\n\x7fELF\x02\x01\x00\x00", "hosts.txt:2: there is a NUL byte here: a hosts file is UTF-8 text"},
		{"\xff\xfea\x00\n\x00", "hosts.txt:1: there is a NUL byte here: a hosts file is UTF-8 text"},
		{"b\xfcro\n", `hosts.txt:1: host expression "b�ro", column 2: byte 0xfc is not UTF-8 text`},
		{"n[1-9]\nm user=x\n\nn[5-12] port=5\n", "hosts.txt:4: n5 has port=5 here, but no settings at hosts.txt:1: let one line set it"},
		{"a user=x transport=rsh\nb\na\n", "hosts.txt:3: a has no settings here, but transport=rsh user=x at hosts.txt:1: let one line set it"},
		{"a[1-6000000]\nb[1-6000000]\n", "hosts.txt:2: these are 12000000 hosts, and at most 10000000 are possible"},
		{strings.Repeat("a,", 1<<20), "hosts.txt:1: this line is longer than 1048576 bytes: give each group of hosts a line of its own"},
	} {
		_, err := read(tt.text)
		if err == nil {
			t.Errorf("%.40q: no error, want %s", tt.text, tt.want)
		} else if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("%.40q: -want +got:\n%s", tt.text, diff)
		}
	}
}

func TestCaretOfAFile(t *testing.T) {
	_, err := read("a\n  m,n[3-1] user=x\n")
	var se *hostlist.SyntaxError
	if !errors.As(err, &se) {
		t.Fatalf("%v wraps no *SyntaxError", err)
	}
	if diff := cmp.Diff("m,n[3-1]\n    ^", se.Caret()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// endless is a line that does not end, or a file.
type endless string

func (e endless) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], e)
	}
	return n, nil
}

// None of these readers comes to an end; reading them must.
func TestReadIsBounded(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"\x00", "NUL byte"},
		{"x", "longer than 1048576 bytes"},
		{"# " + strings.Repeat("c", 1<<20-3) + "\n", "hosts.txt:513: the file is longer than 536870912 bytes"},
	} {
		_, err := inventory.Read(endless(tt.text), "hosts.txt", transports)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("endless %.9q: error %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestReadUnreadable(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := inventory.Read(dir, "hosts.d", transports); err == nil || !strings.HasPrefix(err.Error(), "hosts.d:1: read ") {
		t.Errorf("a directory: %v", err)
	}
	broken := io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(errors.New("disk on fire")))
	if _, err := inventory.Read(broken, "-", transports); err == nil || err.Error() != "-:3: disk on fire" {
		t.Errorf("a failing disk: %v", err)
	}
	inv, err := inventory.Read(iotest.OneByteReader(strings.NewReader("a\nb\n")), "-", transports)
	if err != nil || inv.Len() != 2 {
		t.Errorf("byte by byte: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	inv := mustRead(t, "node[1-3] port=2222\nlogin user=root\n")
	if err := inv.Add("node2,x", "[::1]", "login"); err != nil {
		t.Fatal(err)
	}
	if err := inv.Exclude("node1", "node[1-2]"); err != nil {
		t.Fatal(err)
	}
	want := []transport.Host{
		{Name: "node3", User: "ops", Transport: "rsh", Port: 2222},
		{Name: "login", User: "root", Transport: "rsh", Port: 514},
		{Name: "x", User: "ops", Transport: "rsh", Port: 514},
		{Name: "::1", User: "ops", Transport: "rsh", Port: 514},
	}
	got := slices.Collect(inv.Hosts(transport.Host{User: "ops", Transport: "rsh", Port: 514}))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	var alone inventory.Inventory
	if alone.Len() != 0 {
		t.Errorf("the zero inventory has %d hosts", alone.Len())
	}
	if err := alone.Add("n[1-1000000]", "n5"); err != nil || alone.Len() != 1_000_000 {
		t.Errorf("%v, %d hosts", err, alone.Len())
	}
	var se *hostlist.SyntaxError
	if err := alone.Add("n["); !errors.As(err, &se) {
		t.Errorf("Add: %v, want a *SyntaxError", err)
	}
	if err := alone.Exclude("n05"); !errors.As(err, &se) || !strings.Contains(se.Msg, "did you mean n5?") {
		t.Errorf("Exclude: %v, want the near miss", err)
	}
}

// hosts.example is what newcomers copy.
func TestHostsExample(t *testing.T) {
	f, err := os.Open("../../hosts.example")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inv, err := inventory.Read(f, "hosts.example", transports)
	if err != nil {
		t.Fatal(err)
	}
	var want []transport.Host
	for _, name := range []string{"login", "192.0.2.10", "2001:db8::10", "web1", "web2", "db1"} {
		want = append(want, host(name))
	}
	for i := 1; i <= 16; i++ {
		want = append(want, host(fmt.Sprintf("node%03d", i)))
	}
	for _, i := range []int{1, 2, 7, 10, 12, 14} {
		want = append(want, host(fmt.Sprintf("gpu%d", i)))
	}
	for r := 1; r <= 2; r++ {
		for n := 1; n <= 4; n++ {
			want = append(want, host(fmt.Sprintf("rack%dn%d-mgmt", r, n)))
		}
	}
	want = append(want, host("disk1"), host("disk2"), host("disk4"),
		transport.Host{Name: "bastion", User: "ops", Port: 2222, Transport: "ssh"},
		transport.Host{Name: "switch1", User: "admin", Transport: "rsh"}, transport.Host{Name: "switch2", User: "admin", Transport: "rsh"},
		transport.Host{Name: "old-printer", Port: 1514},
		transport.Host{Name: "build1.example.com", User: "ci"}, transport.Host{Name: "build2.example.com", User: "ci"})
	if diff := cmp.Diff(want, slices.Collect(inv.Hosts(transport.Host{}))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("\ufeffa,n[1-3] user=x # c\r\nb port=3\n")
	f.Add("a\na user=x\n")
	f.Add("a transport=rsh=x #\x00")
	f.Fuzz(func(t *testing.T, text string) {
		inv, err := read(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "hosts.txt:") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("Read(%q): %v", text, err)
			}
			return
		}
		if inv.Len() == 0 {
			t.Fatalf("Read(%q): no hosts and no error", text)
		}
		if inv.Len() > 2000 {
			return
		}
		seen := map[string]bool{}
		for h := range inv.Hosts(transport.Host{}) {
			if h.Name == "" || seen[h.Name] {
				t.Fatalf("Read(%q): %q is empty or there twice", text, h.Name)
			}
			seen[h.Name] = true
		}
		if len(seen) != inv.Len() {
			t.Fatalf("Read(%q): Len() = %d, but there are %d", text, inv.Len(), len(seen))
		}
	})
}

func BenchmarkRead100k(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "node%d.example.com user=u%d\n", i, i%3)
	}
	b.ReportAllocs()
	for b.Loop() {
		if mustRead(b, text.String()).Len() != 100_000 {
			b.Fatal()
		}
	}
}
