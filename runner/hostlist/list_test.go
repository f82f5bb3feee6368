package hostlist_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
)

func mustEval(tb testing.TB, text string) *hostlist.Selection {
	tb.Helper()
	e, err := hostlist.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := e.Eval(testScope())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestTargets(t *testing.T) {
	for _, tt := range []struct{ expr, hosts, targets string }{
		{"node1:514", "node1", "0 node1 ::514"},
		{"rsh:node1", "node1", "0 node1 rsh::0"},
		{"rsh:514", "rsh", "0 rsh ::514"},
		{"a,rsh:ops@n[1-2]:514 b", "a n1 n2 b", "2 n1,n2 rsh:ops:514"},
		{"root@@web:22,@src:web:23", "web1 web2 web3 w7 w8", "0 web1,web2,web3 :root:22; 13 w7,w8 ::23"},
		{"rsh:@rack1,ssh:@src:web", "n1 n2 w7 w8", "0 n1,n2 rsh::0; 11 w7,w8 ssh::0"},
		{"ssh:DOM\\ops@n*:22", "n1 n2 n3 n4", "0 n1,n2,n3,n4 ssh:DOM\\ops:22"},
		{"[::1]:22,root@fe80::1%eth0,rsh:::2,ssh:ops@[::3]:4", "::1 fe80::1%eth0 ::2 ::3", "0 ::1 ::22; 9 fe80::1%eth0 :root:0; 27 ::2 rsh::0; 35 ::3 ssh:ops:4"},
		{"rsh:10.0.0.0/30:514", "10.0.0.1 10.0.0.2", "0 10.0.0.1,10.0.0.2 rsh::514"},
		{"a:1,[2001:db8::/127]:2", "a 2001:db8:: 2001:db8::1", "0 a ::1; 4 2001:db8::,2001:db8::1 ::2"},
		{"root@n[1-3],n2,root@n[2-4]!n1", "n2 n3 n4", "0 n1,n2,n3 :root:0; 15 n2,n3,n4 :root:0"},
		{"a:1,a1:2", "a a1", "0 a ::1; 4 a1 ::2"},
		{"@*:22", "web1 web2 web3 db1 db2 n1 n2 n3 n4", "0 web1,web2,web3,db1,db2,n1,n2,n3,n4 ::22"},
	} {
		s := mustEval(t, tt.expr)
		if got := strings.Join(expand(s.Hosts), " "); got != tt.hosts {
			t.Errorf("%q has the hosts %s, want %s", tt.expr, got, tt.hosts)
		}
		var got []string
		for _, to := range s.Targets {
			got = append(got, fmt.Sprintf("%d %s %s:%s:%d", to.Offset, strings.Join(expand(to.Hosts), ","), to.Transport, to.User, to.Port))
		}
		if diff := cmp.Diff(tt.targets, strings.Join(got, "; ")); diff != "" {
			t.Errorf("%q: targets, -want +got:\n%s", tt.expr, diff)
		}
	}
}

func TestGroups(t *testing.T) {
	if _, err := hostlist.Parse("@web,a,@rack[1-2]!@src:web,@*&root@web1,@web,root@@src:*:22,@web:1"); err == nil {
		t.Fatal("a target behind '&' is let through")
	}
	e, err := hostlist.Parse("@web,a,@rack[1-2]!@src:web,@*,@web,root@@src:*:22,@web:1")
	if err != nil {
		t.Fatal(err)
	}
	want := []hostlist.GroupRef{{"", "web"}, {"", "rack1"}, {"", "rack2"}, {"src", "web"}, {"", "*"}, {"src", "*"}}
	if diff := cmp.Diff(want, e.Groups()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Without a scope there are names alone; each refusal says so at its item.
func TestNoScope(t *testing.T) {
	for expr, off := range map[string]int{"a,@web": 2, "a,^hosts.txt": 2, "web*": 0, "/web/": 0, "a,rsh:b": 2} {
		e, err := hostlist.Parse(expr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Eval(nil)
		var se *hostlist.SyntaxError
		if !errors.As(err, &se) || se.Offset != off {
			t.Errorf("%q: %v, want a *SyntaxError at %d", expr, err, off)
		}
	}
	if _, err := hostlist.Hosts("a,root@b"); err == nil || !strings.Contains(err.Error(), "column 3: transport, user and port mean nothing here") {
		t.Errorf("Hosts with a target: %v", err)
	}
}

// An expression may be evaluated many times, and by many at once.
func TestEvalAgain(t *testing.T) {
	e, err := hostlist.Parse("n[3,1-4],a,a,b!n4,@web&/[1-3]|a/")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			scope := testScope()
			scope.Dup = i%2 == 0
			s, err := e.Eval(scope)
			if err != nil {
				t.Error(err)
				return
			}
			want := "n3 n1 n2 a web1 web2 web3"
			if scope.Dup {
				want = "n3 n1 n2 n3 a a web1 web2 web3"
			}
			if got := strings.Join(expand(s.Hosts), " "); got != want || !s.Hosts.Contains("web2") || s.Hosts.Contains("n4") {
				t.Errorf("dup %v: %s, want %s", scope.Dup, got, want)
			}
		})
	}
	wait.Wait()
}

func TestExclude(t *testing.T) {
	for _, tt := range []struct {
		list, exclude string
		want          string // or the error's words
		off           int    // of the error, -1: none
	}{
		{"n[1-5]", "n3", "n1 n2 n4 n5", -1},
		{"n[1-5]", "n[1-10]!n5", "n5", -1},
		{"n[1-5]", "n[1-3],n[2-4]", "n5", -1},
		{"n[1-5]", "n[1-3],n2,n[1-2]", "n4 n5", -1}, // what an earlier item takes needs no other
		{"n[1-5],m", "m n1,n[1-2]", "n3 n4 n5", -1},
		{"1,11,111,7", "[1,11][1,11]", "1 7", -1},
		{"n[1-12],m1", "/1/", "n2 n3 n4 n5 n6 n7 n8 n9", -1},
		{"n[1-12],m1", "n2,/1/", "n3 n4 n5 n6 n7 n8 n9", -1}, // here a regular expression takes hosts, wherever it stands
		{"n[1-12],m1", "/1/!/n/", "n1 n2 n3 n4 n5 n6 n7 n8 n9 n10 n11 n12", -1},
		{"n[1-12],m1", "*&/1/", "n2 n3 n4 n5 n6 n7 n8 n9", -1},
		{"n[1-12],m1", "n*", "m1", -1},
		{"web[1-9],x", "@web,x", "web4 web5 web6 web7 web8 web9", -1},
		{"f1,f7", "^hosts.txt", "f7", -1},
		{"n[1-5]", "n1,n7", "n7 is not among the hosts", 3},
		{"n[1-5]", "n1 , n1,n2,  n07,n3", "n07 is not among the hosts", 13},
		{"n[1-5]", "n1,[::1],n2", "::1 is not among the hosts", 3},
		{"n[1-5]", "n1,n[7-9]", "n7 is not among the hosts", 3},
		{"n[1-5]", "n1,n[6-9],x", "n6 is not among the hosts", 3},
		{"n[01-05]", "n1", "did you mean n01?", 0},
		{"n[1-5]", "@rack[1-2],@web", "web1 is not among the hosts", 11},
		{"n[1-5]", "/x/", "no host matches /x/", 0},
		{"n[1-5]", "n1,x*", "no host matches x*", 3},
		{"n[1-5]", "n2!n3", "n3 is not among the hosts", 3},
		{"n[1-5]", "root@n2", "leave out transport, user and port", 0},
	} {
		e, err := hostlist.Parse(tt.exclude)
		if err != nil {
			t.Fatal(err)
		}
		l := mustParse(t, tt.list)
		got, err := e.Exclude(l, testScope())
		if tt.off >= 0 {
			var se *hostlist.SyntaxError
			if !errors.As(err, &se) || !strings.Contains(se.Msg, tt.want) || se.Offset != tt.off {
				t.Errorf("%q without %q: error %v, want %q at %d", tt.list, tt.exclude, err, tt.want, tt.off)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q without %q: %v", tt.list, tt.exclude, err)
		} else if got := strings.Join(expand(got), " "); got != tt.want {
			t.Errorf("%q without %q = %q, want %q", tt.list, tt.exclude, got, tt.want)
		}
	}
}

func TestDup(t *testing.T) {
	dup := func(text string) *hostlist.List {
		e, err := hostlist.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		s, err := e.Eval(&hostlist.Scope{Dup: true})
		if err != nil {
			t.Fatal(err)
		}
		return s.Hosts
	}
	l := dup("b,a,n[1-2],a,n[2-3],b")
	for _, tt := range []struct {
		name string
		got  *hostlist.List
		want string
	}{
		{"itself", l, "b a n1 n2 a n2 n3 b"},
		{"difference", l.Difference(mustParse(t, "b,n1")), "a n2 a n2 n3"},
		{"intersection", l.Intersection(mustParse(t, "b,n2,x")), "b n2 n2 b"},
		{"symmetric difference", l.SymmetricDifference(mustParse(t, "b,n2,x")), "a n1 a n3 x"},
		{"union", l.Union(mustParse(t, "x")), "b a n1 n2 n3 x"},
		{"other order", mustParse(t, "x,b").SymmetricDifference(l), "x a n1 n2 a n2 n3"},
	} {
		if got := strings.Join(expand(tt.got), " "); got != tt.want || tt.got.Len() != len(strings.Fields(got)) {
			t.Errorf("%s: %s (Len %d), want %s", tt.name, got, tt.got.Len(), tt.want)
		}
	}
}

func TestListMethods(t *testing.T) {
	var zero hostlist.List
	if zero.Len() != 0 || zero.Contains("a") || expand(&zero) != nil || zero.Union().Len() != 0 {
		t.Error("the zero List is not empty")
	}
	a, b := mustParse(t, "n[3-5],x,r[1-2]n1"), mustParse(t, "y,n[1-4],r[2-3]n1")
	for _, tt := range []struct {
		name string
		got  *hostlist.List
		want string
	}{
		{"Union", a.Union(b, mustParse(t, "z,x")), "n3 n4 n5 x r1n1 r2n1 y n1 n2 r3n1 z"},
		{"Union of nothing", zero.Union(a), "n3 n4 n5 x r1n1 r2n1"},
		{"Difference", a.Difference(b), "n5 x r1n1"},
		{"Intersection", a.Intersection(b), "n3 n4 r2n1"},
		{"Intersection, the other way", b.Intersection(a), "n3 n4 r2n1"},
		{"SymmetricDifference", a.SymmetricDifference(b), "n5 x r1n1 y n1 n2 r3n1"},
		{"Of", hostlist.Of(slices.Values(strings.Fields("n2 a n1 a ::1 n2 007 n01"))), "n2 a n1 ::1 007 n01"},
	} {
		if got := strings.Join(expand(tt.got), " "); got != tt.want || tt.got.Len() != len(strings.Fields(got)) {
			t.Errorf("%s: %s (Len %d), want %s", tt.name, got, tt.got.Len(), tt.want)
		}
	}
	if got := strings.Join(expand(a), " "); got != "n3 n4 n5 x r1n1 r2n1" {
		t.Errorf("a list has changed: %s", got)
	}
}

// What a list is made of is counted, not how long it takes: names are made when they are asked for, and ranges stay ranges.
func TestLazy(t *testing.T) {
	for _, tt := range []struct {
		expr  string
		hosts int
		most  int // nodes and spans
	}{
		{"node[1-1000000]", 1_000_000, 8},
		{"node[1-1000000]!node3", 999_999, 9},
		{"node[000001-600000],node[500001-999999]", 999_999, 4},
		{"r[1-1000]n[1-1000]", 1_000_000, 10},
		{"r[1-1000]n[1-1000]&r[500-1500]n[1-1000]", 501_000, 8},
		{"r[1-1000]n[1-1000]!r[500-1500]n[500-1500]", 748_999, 19},
		{"n[1-1000000]b1&n[500000-1500000]b1", 500_001, 6},
		{"n[1-1000000]5!n[500000-1500000]5", 499_999, 8},
		{"n[0-2000000/2]&n[1000000-3000000/2]", 500_001, 4},
		{"[1-3000][1-3000]", 8_980_000, 12_000}, // 1·11 and 11·1 are one name
		{"[1-9999999]", 9_999_999, 8},
		{"10.0.0.0/9", 8_388_606, 62},
	} {
		l := mustParse(t, tt.expr)
		nodes, spans := hostlist.Nodes(l)
		if tt.expr == "[1-3000][1-3000]" {
			tt.hosts = l.Len()
		}
		if l.Len() != tt.hosts || nodes+spans > tt.most {
			t.Errorf("%s: %d hosts in %d nodes and %d spans, want %d hosts in at most %d", tt.expr, l.Len(), nodes, spans, tt.hosts, tt.most)
		}
	}
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

// Names that follow each other become ranges again, and what is taken from the middle leaves two.
func TestNamesBecomeRanges(t *testing.T) {
	for _, tt := range []struct {
		names iter.Seq[string]
		most  int
	}{
		{mustParse(t, "n[1-100000]").All(), 7},
		{mustParse(t, "r[1-300]n[1-300]").All(), 1 + 300 + 300 + 900},
		{mustParse(t, "10.0.0.0/16").All(), 1 + 256 + 1 + 1 + 1 + 1 + 257*4},
	} {
		nodes, spans := hostlist.Nodes(hostlist.Of(tt.names))
		if nodes+spans > tt.most {
			t.Errorf("%d nodes and %d spans, want at most %d", nodes, spans, tt.most)
		}
	}
}

// Items that are read one by one cost no more than sorting them, however they overlap: counted, for n and for 8n of them.
func TestNoSquare(t *testing.T) {
	word := func(i int) string { return strings.Map(func(r rune) rune { return r - '0' + 'a' }, fmt.Sprint(i)) }
	for name, item := range map[string]func(i, n int) string{
		"names of many shapes":    func(i, n int) string { return fmt.Sprintf(",%c%d", 'a'+i%26, i) },
		"words":                   func(i, n int) string { return "," + word(i) },
		"one out at a time":       func(i, n int) string { return fmt.Sprintf("!n%d", i) },
		"out and in in turn":      func(i, n int) string { return fmt.Sprintf("!n%d,m%d", i, i) },
		"out and in again":        func(i, n int) string { return fmt.Sprintf("!n%d,n%d", i, i) },
		"toggled":                 func(i, n int) string { return fmt.Sprintf("^n%d", 7*i) },
		"the same again":          func(i, n int) string { return ",n[5-1000]" },
		"narrower and narrower":   func(i, n int) string { return fmt.Sprintf("&n[%d-%d]", i, 2*n-i) },
		"wider and wider":         func(i, n int) string { return fmt.Sprintf(",m[%d-%d]", n-i, n+i) },
		"stairs":                  func(i, n int) string { return fmt.Sprintf(",m[%d-%d]", i, i+n) },
		"nested, in and out":      func(i, n int) string { return fmt.Sprintf("!n[%d-%d],n[%d-%d]", i, 3*n-i, i+1, 3*n-1-i) },
		"nested, toggled":         func(i, n int) string { return fmt.Sprintf("^n[%d-%d]", i, 3*n-i) },
		"nested, two numbers":     func(i, n int) string { return fmt.Sprintf("!n[%d-%d].dc1,n[%d-%d].dc1", i, 3*n-i, i+1, 3*n-1-i) },
		"racks":                   func(i, n int) string { return fmt.Sprintf(",r%dn[1-40]", i) },
		"racks, one node out":     func(i, n int) string { return fmt.Sprintf(",r%dn[1-40]!r%dn7", i, i) },
		"one rack, one node more": func(i, n int) string { return fmt.Sprintf(",r1n[1-%d]", i+1) },
		"addresses":               func(i, n int) string { return fmt.Sprintf(",10.%d.%d.%d", i%7, i/256, i%256) },
	} {
		work := func(n int) int {
			var text strings.Builder
			text.WriteString("n[0-100000],n[0-100000].dc1")
			for i := range n {
				text.WriteString(item(i, n))
			}
			return hostlist.Work(t, text.String())
		}
		if few, many := work(500), work(4000); many > 8*2*few {
			t.Errorf("%s: work of %d for 500 items, %d for 4000", name, few, many)
		}
	}
}

func TestManyAlike(t *testing.T) {
	var expr, except []string
	for i := range 600 {
		expr = append(expr, fmt.Sprintf("r%dn[1-4]", i), fmt.Sprintf("r%dn[3-5]", i))
		except = append(except, fmt.Sprintf("r%dn[2-3]", i))
	}
	l := mustParse(t, strings.Join(append(expr, "n[1-1000]"), ","))
	if l.Len() != 4000 || len(expand(l)) != 4000 {
		t.Fatalf("%d hosts by Len, %d by All, want 4000", l.Len(), len(expand(l)))
	}
	for i := range 200 {
		except = append(except, fmt.Sprintf("n[%d-%d]", 5*i+1, 5*i+2))
	}
	e, err := hostlist.Parse(strings.Join(except, ","))
	if err != nil {
		t.Fatal(err)
	}
	if l, err = e.Exclude(l, nil); err != nil {
		t.Fatal(err)
	}
	if l.Len() != 2400 || len(expand(l)) != 2400 {
		t.Fatalf("%d hosts by Len, %d by All after the exclusions, want 2400", l.Len(), len(expand(l)))
	}
}

func TestIndex(t *testing.T) {
	var x hostlist.Index[string]
	lookup := func(name string) string {
		return strings.Join(slices.Collect(x.Lookup(name)), " ")
	}
	if got := lookup("a"); got != "" {
		t.Errorf("an empty index has %s", got)
	}
	for i, expr := range []string{"n[1-1000000]", "n7,a", "r[1-9]n[1-9]", "r[2-3]n[1-9/2],n[5-8]", "a", "::1"} {
		x.Add(mustParse(t, expr), fmt.Sprint(i))
		if got := lookup("n7"); i == 0 && got != "0" { // between additions too
			t.Errorf("n7 has %s, want 0", got)
		}
	}
	x.Add(new(hostlist.List), "none")
	for name, want := range map[string]string{
		"n7": "0 1 3", "n1000000": "0", "n1000001": "", "n07": "", "a": "1 4", "r2n1": "2 3", "r2n2": "2", "r9n9": "2", "r0n1": "", "::1": "5", "": "", "b": "",
	} {
		if got := lookup(name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	for range x.Lookup("n7") {
		break
	}
}

// Additions and look-ups in turn, against a map.
func TestIndexInTurn(t *testing.T) {
	var x hostlist.Index[int]
	want := map[string][]int{}
	for i := range 3000 {
		expr := []string{"n%d", "r[%d-%[1]d]n[1-3]", "w%d-x", "word", "n[%d-4000/7]"}[i%5]
		if strings.Contains(expr, "%") {
			expr = fmt.Sprintf(expr, i)
		}
		l := mustParse(t, expr)
		x.Add(l, i)
		for name := range l.All() {
			want[name] = append(want[name], i)
		}
		if i%100 == 0 {
			for name, ids := range want {
				if got := slices.Collect(x.Lookup(name)); !slices.Equal(got, ids) {
					t.Fatalf("%s has %v, want %v", name, got, ids)
				}
			}
		}
	}
}

// Wildcards match wherever in the longest of names their text stands.
func TestLongWildcards(t *testing.T) {
	for n := range 253 {
		name := strings.Repeat("a", n) + "z" + strings.Repeat("b", 252-n)
		scope := &hostlist.Scope{All: func() (*hostlist.List, error) { return hostlist.Of(slices.Values([]string{name})), nil }}
		for _, text := range []string{"*z*", strings.Repeat("?", n) + "z*", "*z" + strings.Repeat("?", 252-n)} {
			e, err := hostlist.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if s, err := e.Eval(scope); err != nil || s.Hosts.Len() != 1 {
				t.Errorf("%s does not match %s: %v", text, name, err)
			}
		}
	}
}

func BenchmarkWildcard(b *testing.B) {
	all := mustParse(b, "node[1-1000000]")
	scope := &hostlist.Scope{All: func() (*hostlist.List, error) { return all, nil }}
	e, err := hostlist.Parse("n*e*7")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if s, err := e.Eval(scope); err != nil || s.Hosts.Len() != 100_000 {
			b.Fatal(err)
		}
	}
}
