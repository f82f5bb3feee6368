package hostlist_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
)

// digits finds the runs of digits, and items the items of a folded text.
var (
	digits = regexp.MustCompile(`[0-9]+`)
	items  = regexp.MustCompile(`(\[[^]]*\]|[^,])+`)
)

// checkFold folds the names and returns the text, which is read back as they are, names none twice, does not depend on their
// order, and is no longer than what comes of joining the names that differ in one number alone.
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
	n := 0
	for _, it := range items.FindAllString(text, -1) {
		n += mustParse(tb, it).Len()
	}
	if n != len(want) {
		tb.Fatalf("the items of %q have %d names in all, and it has %d", text, n, len(want))
	}
	if same := digits.ReplaceAllString(want[0], "#"); strings.Count(same, "#") > 1 && !slices.ContainsFunc(want, func(name string) bool {
		return digits.ReplaceAllString(name, "#") != same
	}) {
		for d := range strings.Count(same, "#") {
			if joined := joinOne(want, d); len(text) > len(joined) {
				tb.Fatalf("Fold(%q) = %q, which is longer than %q", names, text, joined)
			}
		}
	}
	return text
}

// joinOne folds names that differ in their d-th number alone.
func joinOne(names []string, d int) string {
	groups := map[string][]string{}
	for _, name := range names {
		at := digits.FindAllStringIndex(name, -1)[d]
		key := name[:at[0]] + "#" + name[at[1]:]
		groups[key] = append(groups[key], name)
	}
	var texts []string
	for _, group := range groups {
		texts = append(texts, hostlist.Fold(slices.Values(group)))
	}
	return strings.Join(texts, ",")
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
		{"r1n1 r1n2 r2n1 r2n2 r2n3", "r1n[1-2],r2n[1-3]"},                         // the last dimension first, as it is as short
		{"r1n1 r2n1 r3n1 r2n2 r3n2 r4n2 r1n3 r4n3", "r[1-3]n1,r[1,4]n3,r[2-4]n2"}, // the first dimension first
		{"a1b1c1 a1b1c2 a1b2c1 a1b2c2 a2b1c1 a2b1c2 a2b2c1 a2b2c2", "a[1-2]b[1-2]c[1-2]"},
		{"r1n1 r1n2 r2n1 r2n2 r5n7 r6n7 r9n1 r9n2 r9n7", "r[1-2,9]n[1-2],r[5-6,9]n7"}, // r9 goes to two others
		{"r01n1 r1n1 r01n01 r1n01", "r[1,01]n[1,01]"},
		{"n1-ib0 n2-ib0", "n[1-2]-ib0"},
		{"n0 n2 n4 n6 n8", "n[0,2,4,6,8]"}, // no steps
		{"a_1 a-1 a.1 aa1 a10 a9", "a-1,a.1,a[9-10],a_1,aa1"},
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

// Sets in which boxes are many and overlap in all ways.
func FuzzFoldBoxes(f *testing.F) {
	f.Add([]byte("\x11\x12\x21\x22\x57\x67\x91\x92\x97"), uint8(0))
	f.Add([]byte("\x11\x12\x21\x22\x23"), uint8(1))
	r := rand.New(rand.NewPCG(7, 8))
	for _, density := range []int{2, 6, 20} {
		var cells []byte
		for i := range 256 {
			if r.IntN(density) > 0 {
				cells = append(cells, byte(i))
			}
		}
		for shape := range 4 {
			f.Add(cells, uint8(shape))
		}
	}
	f.Fuzz(func(t *testing.T, cells []byte, shape uint8) {
		var names []string
		for _, c := range cells {
			a, b, c, d := c>>6, c>>4&3, c>>2&3, c&3
			switch shape % 4 {
			case 0:
				names = append(names, fmt.Sprintf("r%dn%d", 4*a+b, 4*c+d))
			case 1:
				names = append(names, fmt.Sprintf("r%dc%dn%d", a, b, 4*c+d))
			case 2:
				names = append(names, fmt.Sprintf("%d.%d.%d.%d", a, b, c, d))
			case 3:
				names = append(names, fmt.Sprintf("r%0*dn%0*d-ib0", a, 8+b, c, 8+d)) // 8 9 10 11, 08 09 …
			}
		}
		checkFold(t, names)
	})
}

func BenchmarkFold(b *testing.B) {
	for _, bm := range []struct {
		name, expr string
		keep       float64 // this part of the names
	}{
		{"1M", "n[1-1000000]", 1},
		{"1M-half", "n[1-2000000]", 0.5},
		{"100k-2d", "rack[1-250]n[1-400]", 1},
		{"100k-2d-holes", "rack[1-300]n[1-400]", 5. / 6},
		{"1M-2d", "rack[1-1000]n[1-1000]", 1},
		{"1M-2d-tall", "r[1-500000]n[1-4]", 0.5},
		{"1M-3d-holes", "row[1-100]rack[1-100]n[1-100]", 0.99},
		{"1M-3d-sparse", "row[1-215]rack[1-215]n[1-215]", 0.1},
		{"1M-addresses", "10.[0-15].[0-255].[0-255]", 0.95},
		{"1M-long", "ip-10-[0-15]-[0-255]-[0-255].eu-central-1.compute.internal", 0.95},
	} {
		r := rand.New(rand.NewPCG(5, 6))
		var names []string
		for name := range mustParse(b, bm.expr).All() {
			if r.Float64() < bm.keep {
				names = append(names, name)
			}
		}
		benchmarkFold(b, bm.name, names)
	}
	var pairs, words []string
	for i := range 1_000_000 {
		pairs = append(pairs, fmt.Sprintf("r%dn%d", i, i))
		words = append(words, strings.Map(func(r rune) rune { return r - '0' + 'a' }, fmt.Sprintf("%09d", i))+"1")
	}
	benchmarkFold(b, "1M-2d-diagonal", pairs)
	benchmarkFold(b, "1M-shapes", words)
}

func benchmarkFold(b *testing.B, name string, names []string) {
	rand.New(rand.NewPCG(5, 6)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if hostlist.Fold(slices.Values(names)) == "" {
				b.Fatal()
			}
		}
	})
}

// A name that no expression can hold, as a damaged file may, is shown all the same.
func TestFoldZeroByte(t *testing.T) {
	got := hostlist.Fold(slices.Values([]string{"a1", "a\x00", "\x00", "a2\x00"}))
	if want := "a1,a2\ufffd,a\ufffd,\ufffd"; got != want {
		t.Errorf("Fold = %q, want %q", got, want)
	}
}
