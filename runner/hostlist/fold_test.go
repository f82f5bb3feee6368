package hostlist_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
)

func checkFold(tb testing.TB, names []string) string {
	tb.Helper()
	text := hostlist.Fold(slices.Values(names))
	if len(names) == 0 {
		if text != "" {
			tb.Fatalf("Fold of nothing = %q", text)
		}
		return text
	}
	want := slices.Compact(slices.Sorted(slices.Values(names)))
	got := slices.Sorted(mustParse(tb, text).All())
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Fatalf("Fold(%q) = %q, which is another set; -want +got:\n%s", names, text, diff)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(want), func(i, j int) { want[i], want[j] = want[j], want[i] })
	if again := hostlist.Fold(slices.Values(want)); again != text {
		tb.Fatalf("Fold depends on the order: %q and %q", text, again)
	}
	return text
}

func TestFold(t *testing.T) {
	for _, tt := range []struct{ names, want string }{
		{"", ""},
		{"foo", "foo"},
		{"node1", "node1"},
		{"node007 node001 node002 node003 node003", "node[001-003,007]"},
		{"foo0 foo01 foo2 foo03", "foo[0,01,2,03]"},
		{"a1 a01 a001", "a[1,01,001]"},
		{"n8 n9 n10 n11", "n[8-11]"},
		{"n08 n09 n10 n11", "n[08-11]"},
		{"n9 n09 n10", "n[9,09-10]"},
		{"n99 n100 n099", "n[99,099-100]"},
		{"n99 n100 n101", "n[99-101]"},
		{"n0 n00 n1 n01", "n[0-1,00-01]"},
		{"web2 web1 db1 foo foo2 foo10", "db1,foo,foo[2,10],web[1-2]"},
		{"r1n1 r1n2 r2n1 r2n2 r3n1", "r[1-2]n[1-2],r3n1"},
		{"n1-ib0 n2-ib0", "n[1-2]-ib0"},
		{"10.0.0.1 10.0.0.2 10.0.1.1 10.0.1.2", "10.0.[0-1].[1-2]"},
		{"::1 ::2 fe80::1%eth0", "::1,::2,fe80::1%eth0"},
		{"x12345678901234567 x12345678901234568", "x[12345678901234567-12345678901234568]"},
		{"x123456789012345678 x123456789012345679", "x123456789012345678,x123456789012345679"},
		{"x123456789012345678-1 x123456789012345678-2", "x123456789012345678-[1-2]"},
		{"münchen1 münchen2", "münchen[1-2]"},
	} {
		if got := checkFold(t, strings.Fields(tt.names)); got != tt.want {
			t.Errorf("Fold(%s) = %s, want %s", tt.names, got, tt.want)
		}
	}
}

// Every set of valid names comes back from its folded form: no name is ever altered.
func FuzzFold(f *testing.F) {
	f.Add("a1 a01 a001 a2 a02 a10 a010")
	f.Add("r1n1 r1n2 r2n1 r02n1 r2n01 r3")
	f.Add("0 00 9 09 10 010 99 099 100")
	f.Add("10.0.0.1 10.0.0.2 10.0.1.1 ::1 ::2")
	f.Add("123456789012345678 123456789012345679 x1-99999999999999999")
	f.Fuzz(func(t *testing.T, text string) {
		var names []string
		for _, n := range strings.Fields(text) {
			l, err := hostlist.Hosts(n)
			if err == nil && l.Len() == 1 && expand(l)[0] == n {
				names = append(names, n)
			}
		}
		checkFold(t, names)
	})
}

func BenchmarkFold(b *testing.B) {
	for _, bm := range []struct{ name, expr string }{
		{"100k", "n[1-100000]"},
		{"1M", "n[1-1000000]"},
		{"100k-2d", "rack[1-250]n[1-400]"},
		{"100k-2d-holes", "rack[1-300]n[1-400]"}, // one in six is left out
	} {
		names := expand(mustParse(b, bm.expr))
		rand.New(rand.NewPCG(5, 6)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		if strings.HasSuffix(bm.name, "holes") {
			names = names[:100_000]
		}
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if hostlist.Fold(slices.Values(names)) == "" {
					b.Fatal()
				}
			}
		})
	}
}

// A name that no expression can hold, as a damaged file may, is shown all the same.
func TestFoldZeroByte(t *testing.T) {
	got := hostlist.Fold(slices.Values([]string{"a1", "a\x00", "\x00", "a2\x00"}))
	if want := "a1,a2\ufffd,a\ufffd,\ufffd"; got != want {
		t.Errorf("Fold = %q, want %q", got, want)
	}
}
