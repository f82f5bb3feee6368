package hostlist_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
)

func mustParse(tb testing.TB, expr string) *hostlist.List {
	tb.Helper()
	l, err := hostlist.Hosts(expr)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func expand(l *hostlist.List) []string { return slices.Collect(l.All()) }

func TestParse(t *testing.T) {
	for _, tt := range []struct{ expr, want string }{
		{"node1", "node1"},
		{"a,b c\td,\n e , f", "a b c d e f"},
		{"b,a,b,a", "b a"},
		{"a,", "a"},
		{" a , ", "a"},
		{"foo[00-3]", "foo00 foo01 foo02 foo03"},
		{"foo[08-11]", "foo08 foo09 foo10 foo11"},
		{"foo[98-101]", "foo98 foo99 foo100 foo101"},
		{"foo[098-101]", "foo098 foo099 foo100 foo101"},
		{"foo[00,0,000]", "foo00 foo0 foo000"},
		{"n[0-8/2]", "n0 n2 n4 n6 n8"},
		{"n[0-9/4]", "n0 n4 n8"},
		{"n[8-20/3]", "n8 n11 n14 n17 n20"},
		{"n[3,1-4,2]", "n3 n1 n2 n4"},
		{"n[0-8/2,0-8/3]", "n0 n2 n4 n6 n8 n3"},
		{"n[9-10,09-11]", "n9 n10 n09 n11"},
		{"r[1-2]n[1-2]x", "r1n1x r1n2x r2n1x r2n2x"},
		{"[1-2][3-4]", "13 14 23 24"},
		{"[1,11][1,11]", "11 111 1111"}, // 1·11 and 11·1 are one name
		{"1[1-2]1", "111 121"},
		{"10.0.0.[1-2]", "10.0.0.1 10.0.0.2"},
		{"n[1-5]!n3", "n1 n2 n4 n5"},
		{"n[1-5],!n3", "n1 n2 n4 n5"},
		{"n[1-5]!n[2-3]!n5,n2", "n1 n4 n2"},
		{"n[1-3],m!n2 n4", "n1 n3 m n4"},
		{"a!a", ""},
		{"a!a,a", "a"},
		{"n[1-3],n[2-5],n4,n[1-6]!n[4-5]", "n1 n2 n3 n6"},
		{"fe80::1%eth0,::1,[::1],[2001:db8::2]", "fe80::1%eth0 ::1 2001:db8::2"},
		{"münchen[1-2],東京1", "münchen1 münchen2 東京1"},
		{"Node1,node1", "Node1 node1"},
		{"host.example.com.", "host.example.com."},
	} {
		l, err := hostlist.Hosts(tt.expr)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.expr, err)
			continue
		}
		got := expand(l)
		if diff := cmp.Diff(strings.Fields(tt.want), got, cmp.Transformer("join", func(s []string) string { return strings.Join(s, " ") })); diff != "" {
			t.Errorf("Parse(%q), -want +got:\n%s", tt.expr, diff)
		}
		if l.Len() != len(got) {
			t.Errorf("Parse(%q).Len() = %d, want %d", tt.expr, l.Len(), len(got))
		}
	}
}

// Every refusal, with the place of the caret (a byte offset) and the words that say what is wrong.
func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		expr   string
		offset int
		msg    string
	}{
		{"", 0, "found nothing"},
		{" \n", 2, "found nothing"},
		{",", 0, "empty item"},
		{",a", 0, "empty item"},
		{"a,,b", 2, "empty item"},
		{"a, ,b", 3, "empty item"},
		{"a,,", 2, "empty item"},
		{"foo[", 3, "never closed"},
		{"foo[1", 3, "never closed"},
		{"foo[1-", 3, "never closed"},
		{"foo[1,", 3, "never closed"},
		{"foo[1-2/", 3, "never closed"},
		{"foo]", 3, "without a '['"},
		{"foo[1]]", 6, "without a '['"},
		{"foo[[1]]", 4, "expected a number, found '['"},
		{"[]", 0, "empty brackets"},
		{"foo[1,]", 6, "expected a number, found ']'"},
		{"foo[,1]", 4, "expected a number, found ','"},
		{"foo[1, 2]", 6, "expected a number, found a blank"},
		{"foo[1 ]", 5, "found a blank"},
		{"foo[3-1]", 4, "3-1 runs backwards"},
		{"foo[1,003-001]", 6, "003-001 runs backwards"},
		{"foo[9-011]", 6, "padded to 3 digits and the low end to 1: pad both alike, as in 009-011"},
		{"foo[-1-3]", 4, "expected a number, found '-'"},
		{"foo[1--3]", 6, "expected a number, found '-'"},
		{"foo[1-3/0]", 8, "a step of 0"},
		{"foo[3/2]", 5, "needs a range before it"},
		{"foo[1-3/x]", 8, "expected a number, found 'x'"},
		{"foo[a-c]", 4, "expected a number, found 'a'"},
		{"foo[1\xff]", 5, "byte 0xff"},
		{"foo[123456789012345678]", 4, "at most 17 digits"},
		{"!foo", 0, "expected a host name first"},
		{"foo!", 4, "expected a host after '!'"},
		{"foo,!", 5, "expected a host after '!'"},
		{"foo!,bar", 4, "empty item"},
		{"foo!!bar", 4, "expected a host name first"},
		{"foo !foo", 4, "no blanks around"},
		{"foo! foo", 4, "no blanks around"},
		{"foo, !foo", 5, "no blanks around"},
		{"-foo", 0, "'-' excludes from the hosts before it"},
		{"a,-foo", 3, "foo is not among the hosts"},
		{".foo", 0, "does not begin with '.'"},
		{"..", 0, "does not begin with '.'"},
		{"@rack1", 0, "no groups here"},
		{"root@node1", 0, "transport, user and port mean nothing here"},
		{"^hosts.txt", 0, "no files are read here"},
		{"a&&b", 2, "'&' keeps some of the hosts before it"},
		{"/node/", 0, "chooses from all hosts"},
		{"10.0.0.1/28", 0, "10.0.0.1 is a host in the network 10.0.0.0/28"},
		{"node*", 0, "chooses from all hosts"},
		{"web?", 0, "chooses from all hosts"},
		{"node1:514", 0, "transport, user and port mean nothing here"},
		{"[::1]:514", 0, "transport, user and port mean nothing here"},
		{"fe80::[1-3]", 4, "two colons stand only in an IPv6 address"},
		{"a%h", 1, "'%' stands only in an IPv6 address"},
		{"::1%$(id)", 0, "two colons stand only"},
		{"a;b", 1, "';' cannot be part"},
		{"$(id)", 0, "'$' cannot be part"},
		{"a`b", 1, "'`' cannot be part"},
		{"a=b", 1, "'=' cannot be part"},
		{"node{1..3}", 4, "'{' cannot be part"},
		{"a\x00b", 1, "U+0000 cannot be part"},
		{"a\x1b[1]", 1, "U+001B cannot be part"},
		{"a\u00a0b", 1, "U+00A0 cannot be part"},
		{"a\u202eb", 1, "U+202E cannot be part"},
		{"ab\xff", 2, "byte 0xff is not UTF-8"},
		{strings.Repeat("x", 254), 0, "254 bytes long"},
		{"n[0-9999999999][0-9999999999]", 0, "this names 100000000000000000000 hosts, and at most 10000000"},
		{"a,n[1-10000001]", 2, "this names 10000001 hosts"},
		{"n[1-6000000],m[1-6000000]", 13, "with this the list has 12000000 hosts"},
		{"node[001-640]!node7", 14, "node7 is not among the hosts; did you mean node007?"},
		{"node[001-640]!node[7-9]", 14, "did you mean node007?"},
		{"Web1,web2!WEB1", 10, "did you mean Web1?"},
		{"a.example.com!a", 14, "did you mean a.example.com?"},
		{"a!a.example.com", 2, "did you mean a?"},
		{"a,b!c", 4, "this excludes nothing: c is not among the hosts"},
		{"a!a!a", 4, "this excludes nothing"},
		{"n[1-4]!n[5-9/2]", 7, "n5 is not among"},
	} {
		_, err := hostlist.Hosts(tt.expr)
		se, ok := err.(*hostlist.SyntaxError)
		if !ok {
			t.Errorf("Parse(%q) = %v, want a *SyntaxError", tt.expr, err)
			continue
		}
		if se.Offset != tt.offset || !strings.Contains(se.Msg, tt.msg) || se.Expr != tt.expr {
			t.Errorf("Parse(%q) = offset %d, %q; want offset %d and %q", tt.expr, se.Offset, se.Msg, tt.offset, tt.msg)
		}
	}
}

func TestCaret(t *testing.T) {
	long := strings.Repeat("host,", 100)
	for _, tt := range []struct{ expr, want string }{
		{"foo[3-1]", "foo[3-1]\n    ^"},
		{"foo!", "foo!\n    ^"},
		{"münchen[1", "münchen[1\n       ^"},
		{"東京,a,,b", "東京,a,,b\n       ^"},           // two columns each
		{"cafe\u0301,,b", "cafe\u0301,,b\n     ^"}, // a combining accent takes none
		{"a\tb\t,,", "a b ,,\n     ^"},
		{"a\x1b[31m", "a\ufffd[31m\n ^"},
		{long + "@x," + long, "…" + strings.Repeat("host,", 10) + "@x,host,host,host,host,h…\n" + strings.Repeat(" ", 51) + "^"},
	} {
		_, err := hostlist.Hosts(tt.expr)
		se, ok := err.(*hostlist.SyntaxError)
		if !ok {
			t.Errorf("Parse(%q) = %v, want a *SyntaxError", tt.expr, err)
			continue
		}
		if diff := cmp.Diff(tt.want, se.Caret()); diff != "" {
			t.Errorf("Parse(%q): caret, -want +got:\n%s", tt.expr, diff)
		}
	}
	_, err := hostlist.Hosts("münchen[3-1]")
	if got, want := err.Error(), `host expression "münchen[3-1]", column 9: 3-1 runs backwards: expected the lower number first`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestExclude(t *testing.T) {
	for _, tt := range []struct {
		list    string
		exclude []string
		want    string // or the error's words
		fails   bool
	}{
		{"n[1-5]", []string{"n3"}, "n1 n2 n4 n5", false},
		{"n[1-5]", []string{"n[1-10]!n5"}, "n5", false},
		{"n[1-5]", []string{"n[1-3]", "n[2-4]"}, "n5", false}, // judged against the list as it was
		{"n[1-5],m", []string{"m n1,n[1-2]"}, "n3 n4 n5", false},
		{"n[1-5]", []string{"n1", "n7"}, "n7 is not among the hosts", true},
		{"n[1-5]", []string{"n1,m"}, "m is not among the hosts", true},
		{"n[01-05]", []string{"n1"}, "did you mean n01?", true},
		{"n[1-5]", []string{"n["}, "never closed", true},
		{"1,11,111,7", []string{"[1,11][1,11]"}, "1 7", false},
	} {
		l := mustParse(t, tt.list)
		err := l.Exclude(tt.exclude...)
		if tt.fails {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q without %q: error %v, want %q", tt.list, tt.exclude, err, tt.want)
			}
			if diff := cmp.Diff(expand(mustParse(t, tt.list)), expand(l)); diff != "" {
				t.Errorf("%q without %q: changed in spite of the error:\n%s", tt.list, tt.exclude, diff)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q without %q: %v", tt.list, tt.exclude, err)
		} else if got := strings.Join(expand(l), " "); got != tt.want || l.Len() != len(expand(l)) {
			t.Errorf("%q without %q = %q (Len %d), want %q", tt.list, tt.exclude, got, l.Len(), tt.want)
		}
	}
}

func TestUnion(t *testing.T) {
	var l hostlist.List
	exprs := []string{"b,n[1-3]", "n[2-5]!n4,b", "n4,c"}
	for i, expr := range exprs {
		if err := l.AddTagged(mustParse(t, expr), i); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for name, tag := range l.Tagged() {
		got = append(got, fmt.Sprint(name, ":", tag))
	}
	if diff := cmp.Diff([]string{"b:0", "n1:0", "n2:0", "n3:0", "n5:1", "n4:2", "c:2"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got = nil
	for name, tag := range l.Overlap(mustParse(t, "x,c,n[3-9]")) {
		got = append(got, fmt.Sprint(name, ":", tag))
	}
	if diff := cmp.Diff([]string{"c:2", "n3:0", "n4:2", "n5:1"}, got); diff != "" {
		t.Errorf("Overlap, -want +got:\n%s", diff)
	}
	// What is taken from the union must not be taken from its parts.
	part := mustParse(t, "n[1-3]")
	var u hostlist.List
	if err := u.AddTagged(part, 0); err != nil {
		t.Fatal(err)
	}
	if err := u.Exclude("n2"); err != nil {
		t.Fatal(err)
	}
	if !part.Contains("n2") || u.Contains("n2") {
		t.Error("an exclusion from a union reached the part")
	}
	if err := u.AddTagged(mustParse(t, "m[1-9999999]"), 0); err == nil || !strings.Contains(err.Error(), "10000001 hosts") {
		t.Errorf("union of too many hosts: %v", err)
	}
}

// model is the plainest thing that an expression can mean.
type model []string

func (m model) add(names []string) model {
	for _, n := range names {
		if !slices.Contains(m, n) {
			m = append(m, n)
		}
	}
	return m
}

func (m model) drop(names []string) model {
	return slices.DeleteFunc(m, func(n string) bool { return slices.Contains(names, n) })
}

// Random sequences of unions and exclusions that overlap in all ways, against the model.
func TestAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	number := func() string { return fmt.Sprintf("%0*d", 1+r.IntN(2), r.IntN(12)) }
	item := func() string {
		var b strings.Builder
		b.WriteString([]string{"", "a", "b"}[r.IntN(3)])
		for range 1 + r.IntN(2) {
			switch lo := r.IntN(12); r.IntN(4) {
			case 0:
				b.WriteString(number())
			case 1:
				fmt.Fprintf(&b, "[%d-%d]", lo, lo+r.IntN(8))
			case 2:
				fmt.Fprintf(&b, "[%02d-%02d/%d]", lo, lo+r.IntN(8), 1+r.IntN(3))
			case 3:
				fmt.Fprintf(&b, "[%s,%s,%s]", number(), number(), number())
			}
			b.WriteString([]string{"", "", "x", "1"}[r.IntN(4)])
		}
		return b.String()
	}
	for range 3000 {
		l := new(hostlist.List)
		var m model
		var history []string
		for range 1 + r.IntN(8) {
			it := item()
			names := expand(mustParse(t, it))
			if r.IntN(3) > 0 {
				history = append(history, "+"+it)
				if err := l.AddTagged(mustParse(t, it), 0); err != nil {
					t.Fatal(err)
				}
				m = m.add(names)
			} else {
				history = append(history, "-"+it)
				n := len(m)
				m = m.drop(names)
				if err := l.Exclude(it); (err != nil) != (len(m) == n) {
					t.Fatalf("%v: error %v, but %d of %d hosts are left", history, err, len(m), n)
				}
			}
			if diff := cmp.Diff([]string(m), expand(l)); (len(m) > 0 || l.Len() > 0) && diff != "" {
				t.Fatalf("%v: -want +got:\n%s", history, diff)
			}
			if l.Len() != len(m) {
				t.Fatalf("%v: Len() = %d, want %d", history, l.Len(), len(m))
			}
			for _, n := range names {
				if l.Contains(n) != slices.Contains(m, n) {
					t.Fatalf("%v: Contains(%q) = %v", history, n, l.Contains(n))
				}
			}
		}
		checkFold(t, expand(l))
	}
}

// More patterns of one shape than are kept as patterns.
func TestManyAlike(t *testing.T) {
	var expr, except []string
	for i := range 600 {
		expr = append(expr, fmt.Sprintf("r%dn[1-4]", i), fmt.Sprintf("r%dn[3-5]", i))
		except = append(except, fmt.Sprintf("r%dn[2-3]", i))
	}
	l := mustParse(t, strings.Join(expr, ","))
	if err := l.AddTagged(mustParse(t, "n[1-1000]"), 0); err != nil {
		t.Fatal(err)
	}
	if l.Len() != 4000 || len(expand(l)) != 4000 {
		t.Fatalf("%d hosts by Len, %d by All, want 4000", l.Len(), len(expand(l)))
	}
	for i := range 200 {
		except = append(except, fmt.Sprintf("n[%d-%d]", 5*i+1, 5*i+2))
	}
	if err := l.Exclude(except...); err != nil {
		t.Fatal(err)
	}
	if l.Len() != 2400 || len(expand(l)) != 2400 {
		t.Fatalf("%d hosts by Len, %d by All after the exclusions, want 2400", l.Len(), len(expand(l)))
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"node[001-640]!node007", "r[1-3]n[1-4],a b", "[1,11][1,11]x", "n[0-8/2],!n4", "fe80::1%eth0,[::1]", "a[", "東京[1-", "foo[9-011]",
		"n[1-3,2]!n[2-9],n2", "a1,a01,a001", ",,", "a!", "x[00-3]-y[7]z",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		l, err := hostlist.Hosts(expr)
		if err != nil {
			se, ok := err.(*hostlist.SyntaxError)
			if !ok || se.Offset < 0 || se.Offset > len(expr) || se.Msg == "" {
				t.Fatalf("Parse(%q) = %#v", expr, err)
			}
			if caret := se.Caret(); strings.Count(caret, "\n") != 1 || !utf8.ValidString(caret) || len(se.Error()) > 1000 {
				t.Fatalf("Parse(%q): caret %q", expr, caret)
			}
			return
		}
		if l.Len() > 2000 {
			return
		}
		names := expand(l)
		if l.Len() != len(names) {
			t.Fatalf("Parse(%q): Len() = %d, All has %d", expr, l.Len(), len(names))
		}
		seen := map[string]bool{}
		for _, n := range names {
			if seen[n] || !l.Contains(n) {
				t.Fatalf("Parse(%q): %q twice or not contained", expr, n)
			}
			seen[n] = true
			if diff := cmp.Diff([]string{n}, expand(mustParse(t, n))); diff != "" {
				t.Fatalf("Parse(%q) has the name %q, which is no name:\n%s", expr, n, diff)
			}
		}
		checkFold(t, names)
	})
}

func TestFirstNameIsLazy(t *testing.T) {
	// Counted in memory, not in time: a list that made its names beforehand would need megabytes.
	got := testing.AllocsPerRun(10, func() {
		for name := range mustParse(t, "node[1-1000000]!node3").All() {
			if name != "node1" {
				t.Fatal(name)
			}
			break
		}
	})
	if got > 100 {
		t.Errorf("%v allocations until the first of a million names", got)
	}
}

func BenchmarkFirstName(b *testing.B) {
	for b.Loop() {
		for range mustParse(b, "node[1-1000000]").All() {
			break
		}
	}
}

func BenchmarkExpandMillion(b *testing.B) {
	for _, expr := range []string{"node[1-1000000]", "node[1-1000000]!node7", "node[1-600000],node[500001-1000000]", "rack[1-1000]n[1-1000]"} {
		b.Run(expr, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for range mustParse(b, expr).All() {
					n++
				}
				if n < 999_999 {
					b.Fatal(n)
				}
			}
		})
	}
}

func BenchmarkPlainNames100k(b *testing.B) {
	expr := strings.Join(expand(mustParse(b, "node[1-100000]")), ",")
	b.ReportAllocs()
	for b.Loop() {
		if mustParse(b, expr).Len() != 100_000 {
			b.Fatal()
		}
	}
}
