package hostlist_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
)

var update = flag.Bool("update", false, "write testdata/refused.txt anew")

// What is no expression, or none where there are the groups, hosts and transports of testScope.
var refused = []string{
	// items
	"", " \n", ",", ",a", "a,,b", "a, ,b", "a,,", "a,&b", ".foo", "..", "a,.foo", "a;b", "$(id)", "a`b", "a=b", "node{1..3}", "a%h",
	"a\x00b", "a\x1b[1]", "a\u00a0b", "a\u202eb", "ab\xff", "a\\b", "(a)", strings.Repeat("x", 254), "n[1-9]" + strings.Repeat("x", 253),
	// brackets
	"foo[", "foo[1", "foo[1-", "foo[1,", "foo[1-2/", "foo]", "foo[1]]", "foo[[1]]", "[]", "foo[]", "foo[1,]", "foo[,1]", "foo[1, 2]", "foo[1 ]",
	"foo[3-1]", "foo[1,003-001]", "foo[9-011]", "foo[-1-3]", "foo[1--3]", "foo[1-3/0]", "foo[3/2]", "foo[1-3/x]", "foo[a-c]", "foo[1\xff]",
	"foo[123456789012345678]", "foo1234567890123456[10-12]", "[1-1000000000][1-10000000000]",
	// operators
	"!foo", "foo!", "foo,!", "foo!,bar", "foo!!bar", "foo !foo", "foo! foo", "foo, !foo", "foo,! foo", "-foo", "-", "a,-", "a,- b", "a,--b", "a!-b", "a&-b",
	"&a", "a&", "a&&b", "a &b", "a& b", "a^ b", "a^", "^", "a ^", "a,^,b", "a!&b", "a^!b", "a!^",
	// numbers of hosts
	"n[0-9999999999][0-9999999999]", "[1-99999999999999999][1-99999999999999999]", "a,n[1-10000001]", "n[1-6000000],m[1-6000000]",
	"n[1-6000000],m[1-6000000]!m[1-3]", "n[1-6000000]^m[1-6000000]", "n[1-6000000],m[1-6000000]!x", "@all[1-100001]",
	// exclusions of nothing
	"node[001-640]!node7", "node[001-640]!node[7-9]", "node[001-640],-node7", "Web1,web2!WEB1", "a.example.com!a", "a!a.example.com", "a,b!c", "a!a!a",
	"n[1-4]!n[5-9/2]", "a,a1!a2 b3!a1!b03!a1", "a!@empty", "a!@web", "a!/b/", "a,-/b/", "a!b*", "a,b&b!a,c",
	// addresses and networks
	"fe80::[1-3]", "fe80::zz", "::1%$(id)", "1::2::3", ":::", "[::1", "[::1]x", "[::1]]", "[::1][2]", "10.0.0.1/28", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/2x",
	"10.0.0.0/8", "0.0.0.0/0", "300.0.0.0/8", "10.0.0.[0-9]/28", "2001:db8::/64", "2001:db8::1/120", "2001:db8::/129", "fe80::%eth0/120", "n1/2",
	// targets
	"node1:0", "node1:65536", "node1:", "node1:x", "node1:22:23", ":22", "telnet:n1", "rsh:", "rsh:,n1", "rsh:root@", "rsh:/x/", "root@", "root@,a", "r$t@n1", "$@n1", "ro ot@@", "r*t@n1", "-u@n1",
	"root@root@n1", "a,b!root@b", "a,b&rsh:b", "a^b:22", "a,-b:22", "[::1]:x", "[::1]:", "rsh:n1,ssh:n1", "ops@@web,root@web2", "n[1-9]:22,n[5-7]:23!n5",
	// groups
	"@", "@,a", "@web[", "@web[1-3", "@nosuch", "@fail", "@we*", "@*x", "@a:b:c", "@a:", "@a@b", "@we=b", "@:web", "@we\u00a0b", "rsh:@", "@web:0", "@src:*:x",
	// wildcards, regular expressions, files
	"x*", "?", "*?[3-1]", "[1-2]*", "*[99]", "/", "//", "/a", "/a/b", "/etc/hosts", "web1/we/", "/[/", "a,/b(c/", "a,/x(?P<n/", "web1^/we/", "/a{2,1}/", "a,b /(/",
	"^nosuch", "^a\x01b", "^a\xff", "^loop",
}

// Every refusal, word for word, with its caret: people meet these first.
func TestRefused(t *testing.T) {
	var got strings.Builder
	for _, text := range refused {
		e, err := hostlist.Parse(text)
		if err == nil {
			_, err = e.Eval(testScope())
		}
		if err == nil {
			t.Errorf("%q is let through", text)
			continue
		}
		fmt.Fprintf(&got, "%q\n", text)
		if se := (*hostlist.SyntaxError)(nil); errors.As(err, &se) {
			if se.Expr != text {
				t.Errorf("%q: the error is of %q", text, se.Expr)
			}
			fmt.Fprintf(&got, "\t%s\n\t%s\n\n", strings.ReplaceAll(se.Caret(), "\n", "\n\t"), se.Msg)
		} else {
			fmt.Fprintf(&got, "\t%v\n\n", err)
		}
	}
	const golden = "testdata/refused.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("-want +got (go test -update writes it anew):\n%s", diff)
	}
}

var groupsOfTest = map[string]string{
	"@web": "web[1-3]", "@db": "db1,db2", "@empty": "", "@rack1": "n[1-2]", "@rack2": "n[2-4]", "@last.failed": "n3", "@src:web": "w[7-8]", "@*": "web[1-3],db[1-2],n[1-4]", "@src:*": "w[1-9]",
	"@a-b_c/d+e": "x",
}

// testScope has a few groups, files and hosts.
func testScope() *hostlist.Scope {
	hosts := func(text string) (*hostlist.List, error) {
		if text == "" {
			return new(hostlist.List), nil
		}
		return hostlist.Hosts(text)
	}
	return &hostlist.Scope{
		Transports: []string{"ssh", "rsh"},
		Group: func(g hostlist.GroupRef) (*hostlist.List, error) {
			text, ok := groupsOfTest[g.String()]
			if !ok {
				return nil, fmt.Errorf("there is no group %s", g)
			}
			return hosts(text)
		},
		All: func() (*hostlist.List, error) { return hosts("web[1-3],db[1-2],n[1-4],web1.example.com,münchen1") },
		File: func(name string) (*hostlist.List, error) {
			if name != "hosts.txt" && name != "/etc/multi-rsh/hosts" {
				return nil, fmt.Errorf("%s: no such file", name)
			}
			return hosts("f[1-3]")
		},
	}
}
