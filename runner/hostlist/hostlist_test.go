package hostlist_test

import (
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

// The hosts of expressions, with the groups, files and hosts of testScope.
func TestExpand(t *testing.T) {
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
		{"n16[1-4]56", "n16156 n16256 n16356 n16456"},
		{"n[1-2]0[8-10]", "n108 n109 n1010 n208 n209 n2010"},
		{"10.0.0.[1-2]", "10.0.0.1 10.0.0.2"},
		{"fe80::1%eth0,::1,[::1],[2001:db8::2],2001:DB8::2", "fe80::1%eth0 ::1 2001:db8::2 2001:DB8::2"},
		{"münchen[1-2],東京1", "münchen1 münchen2 東京1"},
		{"Node1,node1", "Node1 node1"},
		{"host.example.com.", "host.example.com."},
		{"a1,a01,a001,a1", "a1 a01 a001"},
		{"x123456789012345678 x0123456789012345678", "x123456789012345678 x0123456789012345678"},
		{"x[123456789012345]67", "x12345678901234567"},
		{"x1234567890123456[10]", "x123456789012345610"},
		{"[99999999999999998-99999999999999999]", "99999999999999998 99999999999999999"},
		{"n[0-99999999999999999/50000000000000000]", "n0 n50000000000000000"},

		// operators, from left to right
		{"n[1-5]!n3", "n1 n2 n4 n5"},
		{"n[1-5],!n3", "n1 n2 n4 n5"},
		{"n[1-5],-n3 -n[4-9]", "n1 n2"},
		{"n[1-5]!n[2-3]!n5,n2", "n1 n4 n2"},
		{"n[1-3],m!n2 n4", "n1 n3 m n4"},
		{"a!a", ""},
		{"a!a,a", "a"},
		{"n[1-3],n[2-5],n4,n[1-6]!n[4-5]", "n1 n2 n3 n6"},
		{"foo,bar&foo", "foo"},
		{"n5,n[1-4]&n[3-9]", "n5 n3 n4"},
		{"n[1-3]&m", ""},
		{"n[1-3]&m,n2", "n2"},
		{"a,b,c&c,a&b,a,d", "a d"}, // ((a,b,c & c),a & b),a,d
		{"n[1-4]^n[3-6]", "n1 n2 n5 n6"},
		{"n[1-4]^n[3-6]^n[1-9]", "n3 n4 n7 n8 n9"},
		{"a^a", ""},
		{"a^a^a", "a"},
		{"r[1-2]n[1-3]!r2n[1-2]", "r1n1 r1n2 r1n3 r2n3"},
		{"r[1-3]n[1-3]!r2n2", "r1n1 r1n2 r1n3 r2n1 r2n3 r3n1 r3n2 r3n3"},
		{"r[1-2]n[1-2],m,r[1-3]n1", "r1n1 r1n2 r2n1 r2n2 m r3n1"},
		{"n[1-9/2]^n[1-9]", "n2 n4 n6 n8"},
		{"n[0-10/2]!n[0-10/4]", "n2 n6 n10"},
		{"n[0-12/2]&n[0-12/3]", "n0 n6 n12"},

		// groups
		{"@web", "web1 web2 web3"},
		{"@rack[1-2]", "n1 n2 n3 n4"},
		{"@rack[2,1]", "n2 n3 n4 n1"},
		{"@src:web,@last.failed,@a-b_c/d+e", "w7 w8 n3 x"},
		{"@*", "web1 web2 web3 db1 db2 n1 n2 n3 n4"},
		{"@src:*!@src:web", "w1 w2 w3 w4 w5 w6 w9"},
		{"@web,@db&web[2-3]^n1", "web2 web3 n1"},
		{"@empty,a", "a"},
		{"@empty", ""},

		// files
		{"^hosts.txt", "f1 f2 f3"},
		{"a ^hosts.txt,^/etc/multi-rsh/hosts", "a f1 f2 f3"},
		{"f[1-9]!^hosts.txt", "f4 f5 f6 f7 f8 f9"},
		{"f[2-4]^^hosts.txt", "f4 f1"},
		{"f[2-4]&^hosts.txt", "f2 f3"},

		// wildcards and regular expressions
		{"*", "web1 web2 web3 db1 db2 n1 n2 n3 n4 web1.example.com münchen1"},
		{"web*", "web1 web2 web3 web1.example.com"},
		{"web?", "web1 web2 web3"},
		{"???", "db1 db2"},
		{"m?nchen1", "münchen1"},
		{"*[2-3]", "web2 web3 db2 n2 n3"},
		{"?[2-3]", "n2 n3"},
		{"*e*", "web1 web2 web3 web1.example.com münchen1"},
		{"n9,n*", "n9 n1 n2 n3 n4"},
		{"web1^web?", "web2 web3"},
		{"x[1-12]!x1*", "x2 x3 x4 x5 x6 x7 x8 x9"}, // of what stands before it, whatever else there is
		{"x[1-12]&x?", "x1 x2 x3 x4 x5 x6 x7 x8 x9"},
		{"x[1-3]&y*", ""},
		{"/^web.$/", "web1 web2 web3"},
		{"/example\\.com/,a", "web1.example.com a"},
		{"/e/!/[bx]/", "münchen1"},
		{"/n{1,2}[1, 2]/", "n1 n2 münchen1"},
		{"foo[0-20] -/[1-9]$/", "foo0 foo10 foo20"},
		{"foo[0-20],/[1-9]$/,foo0", "foo1 foo2 foo3 foo4 foo5 foo6 foo7 foo8 foo9 foo11 foo12 foo13 foo14 foo15 foo16 foo17 foo18 foo19 foo0"},
		{"foo[0-4]&/[12]/", "foo1 foo2"},
		{"foo[0-4]!/[12]/", "foo0 foo3 foo4"},
		{"r[1-2]n[1-2] /2/ -/1$/", "r1n2 r2n2"},
		{"a,b,/x/", ""},

		// networks
		{"10.1.0.0/30", "10.1.0.1 10.1.0.2"},
		{"10.1.0.4/31,10.1.0.9/32", "10.1.0.4 10.1.0.5 10.1.0.9"},
		{"10.1.0.8/29!10.1.0.[9-13]", "10.1.0.14"},
		{"2001:db8::/126", "2001:db8:: 2001:db8::1 2001:db8::2 2001:db8::3"},
		{"[2001:db8::fffe/127],::1/128", "2001:db8::fffe 2001:db8::ffff ::1"},
	} {
		e, err := hostlist.Parse(tt.expr)
		if err != nil {
			t.Errorf("%q: %v", tt.expr, err)
			continue
		}
		s, err := e.Eval(testScope())
		if err != nil {
			t.Errorf("%q: %v", tt.expr, err)
			continue
		}
		if got := strings.Join(expand(s.Hosts), " "); got != tt.want || s.Targets != nil {
			t.Errorf("%q = %s, %v\nwant %s", tt.expr, got, s.Targets, tt.want)
		} else if s.Hosts.Len() != len(strings.Fields(got)) {
			t.Errorf("%q: Len() = %d: %s", tt.expr, s.Hosts.Len(), got)
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

func FuzzParse(f *testing.F) {
	for _, text := range refused {
		f.Add(text)
	}
	for _, text := range []string{
		"node[001-640]!node007", "r[1-3]n[1-4],a b", "[1,11][1,11]x", "n[0-8/2],!n4", "fe80::1%eth0,[::1]", "東京[1-2]", "n[1-3,2]!n[2-9],n2", "a1,a01,a001",
		"x[00-3]-y[7]z", "rsh:root@@web:22,@src:*&w*", "10.1.0.0/28!10.1.0.[1-3]", "[2001:db8::/126]:22", "*&/e|1/!web1^n[1-9/3],-n7 ^hosts.txt", `/\/|[,! ]/,a`, "@rack[1-2]^@last.failed,",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := hostlist.Parse(text)
		if err != nil {
			checkRefusal(t, text, err)
			return
		}
		scope := testScope()
		s, err := e.Eval(scope)
		if err != nil {
			if !strings.Contains(err.Error(), "there is no group @") && !strings.Contains(err.Error(), ": no such file") {
				checkRefusal(t, text, err)
			}
			return
		}
		if _, err := e.Exclude(mustParse(t, "a,n[1-12],web[1-3].example.com"), scope); err != nil && !strings.Contains(err.Error(), "there is no group @") && !strings.Contains(err.Error(), ": no such file") {
			checkRefusal(t, text, err)
		}
		if s.Hosts.Len() > 2000 {
			return
		}
		names := expand(s.Hosts)
		if s.Hosts.Len() != len(names) {
			t.Fatalf("%q: Len() = %d, All has %d", text, s.Hosts.Len(), len(names))
		}
		seen := map[string]bool{}
		for _, n := range names {
			if seen[n] || !s.Hosts.Contains(n) {
				t.Fatalf("%q: %q twice or not contained", text, n)
			}
			seen[n] = true
			if diff := cmp.Diff([]string{n}, expand(mustParse(t, n))); diff != "" {
				t.Fatalf("%q has the name %q, which is no name:\n%s", text, n, diff)
			}
		}
		checkFold(t, names)
	})
}

// checkRefusal checks what every error of an expression has.
func checkRefusal(t *testing.T, text string, err error) {
	t.Helper()
	se, ok := err.(*hostlist.SyntaxError)
	if !ok || se.Expr != text || se.Offset < 0 || se.Offset > len(text) || se.Msg == "" || !utf8.ValidString(se.Msg) {
		t.Fatalf("%q: error %#v", text, err)
	}
	if caret := se.Caret(); strings.Count(caret, "\n") != 1 || !utf8.ValidString(caret) || strings.Contains(se.Error(), "\n") {
		t.Fatalf("%q: caret %q", text, caret)
	}
}
