package hostlist_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"multirsh/runner/hostlist"
)

func BenchmarkFirstName(b *testing.B) {
	for b.Loop() {
		for range mustParse(b, "node[1-1000000]").All() {
			break
		}
	}
}

func BenchmarkExpandMillion(b *testing.B) {
	for _, expr := range []string{
		"node[1-1000000]", "node[1-1000000]!node7", "node[1-600000],node[500001-1000000]", "rack[1-1000]n[1-1000]", "[1-1000][1-1000]",
	} {
		b.Run(expr, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for range mustParse(b, expr).All() {
					n++
				}
				if n < 900_000 {
					b.Fatal(n)
				}
			}
		})
	}
}

// Two sets of a million hosts that have half of them in common, written as ranges: the text is read each time.
func BenchmarkAlgebra(b *testing.B) {
	for _, pair := range [][2]string{
		{"n[1-1000000]", "n[500001-1500000]"},
		{"r[1-1000]n[1-1000]", "r[501-1500]n[1-1000]"},
		{"r[1-1000]n[1-1000]", "r[1-1000]n[501-1500]"},
		{"n[1-1000000]b1", "n[500001-1500000]b1"},
		{"n[1-500000]b[1-2]", "n[250001-750000]b[1-2]"},
		{"[1-1000][1-1000]", "[501-1500][1-1000]"},
		{"[1-3000][1-3000]", "[1-3000]7"},
		{"n[1-1000000]5", "n[500001-1500000]5"},
		{"n[0-2000000/2]", "n[0-2000000/3]"},
	} {
		for _, op := range []string{"!", "&", "^"} {
			expr := pair[0] + op + pair[1]
			b.Run(expr, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if mustParse(b, expr).Len() == 0 {
						b.Fatal()
					}
				}
			})
		}
	}
}

// The same as names, in order and not. Reading them is a benchmark of its own.
func BenchmarkAlgebraOfNames(b *testing.B) {
	for _, pair := range [][2]string{
		{"n[1-1000000]", "n[500001-1500000]"},
		{"r[1-1000]n[1-1000]", "r[501-1500]n[1-1000]"},
	} {
		for _, shuffled := range []bool{false, true} {
			var lists [2]*hostlist.List
			var text string
			for i, expr := range pair {
				names := expand(mustParse(b, expr))
				if shuffled {
					rand.New(rand.NewPCG(5, uint64(i))).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
				}
				text = strings.Join(names, "\n")
				lists[i] = mustParse(b, text)
			}
			name := fmt.Sprintf("%s/shuffled=%t/", pair[0], shuffled)
			b.Run(name+"read", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if mustParse(b, text).Len() != 1_000_000 {
						b.Fatal()
					}
				}
			})
			for _, op := range []struct {
				sign string
				f    func(l, o *hostlist.List) *hostlist.List
				want int
			}{
				{"!", (*hostlist.List).Difference, 500_000},
				{"&", (*hostlist.List).Intersection, 500_000},
				{"^", (*hostlist.List).SymmetricDifference, 1_000_000},
			} {
				b.Run(name+op.sign, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if n := op.f(lists[0], lists[1]).Len(); n != op.want {
							b.Fatal(n)
						}
					}
				})
			}
			b.Run(name+"contains", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if l := lists[0].Union(); !l.Contains("n7") && !l.Contains("r7n7") {
						b.Fatal()
					}
				}
			})
		}
	}
}

// Items that are read one by one.
func BenchmarkMentions(b *testing.B) {
	letters := "abcdefghijklmnopqrstuvwxyz"
	for _, bm := range []struct {
		name string
		item func(i int) string
	}{
		{"a1,b2,c3", func(i int) string { return fmt.Sprintf(",%c%d", letters[i%26], i) }},
		{"words", func(i int) string {
			return fmt.Sprintf(",%c%c%c%c%c", letters[i%26], letters[i/26%26], letters[i/676%26], letters[i/17576%26], letters[i*7%26])
		}},
		{"n!n1!n2", func(i int) string { return fmt.Sprintf("!n%d", i) }},
		{"n!n1,m1", func(i int) string { return fmt.Sprintf("!n%d,m%d", i, i) }},
		{"r1n[1-4],r2n[1-4]", func(i int) string { return fmt.Sprintf(",r%dn[1-4]", i) }},
		{"n[1-1],n[1-2]", func(i int) string { return fmt.Sprintf(",n[1-%d]", i+1) }},
		{"!n[1-9],n[2-8]", func(i int) string { return fmt.Sprintf("!n[%d-%d],n[%d-%d]", i+1, 1000000-i, i+2, 999999-i) }},
	} {
		var text strings.Builder
		text.WriteString("n[0-1000000]")
		for i := range 100_000 {
			text.WriteString(bm.item(i))
		}
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if mustParse(b, text.String()).Len() == 0 {
					b.Fatal()
				}
			}
		})
	}
}
