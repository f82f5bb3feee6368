package inventory_test

import (
	"fmt"
	"strings"
	"testing"

	"multirsh/runner/inventory"
	"multirsh/transport"
)

// fleet is a hosts file with a line for each of n hosts, as one that a program has written.
func fleet(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "node%d.example.com user=u%d addr=10.%d.%d.%d label=rack:r%d\n", i, i%3, i>>16, i>>8&255, i&255, i/40)
	}
	return b.String()
}

// The time for a line must not depend on the number of lines.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		text := fleet(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				inv := newInventory()
				if err := inv.Read(strings.NewReader(text), "hosts"); err != nil {
					b.Fatal(err)
				}
				if choose(b, inv, "*").Len() != n {
					b.Fatal()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/line")
		})
	}
}

// Files that repeat and contradict themselves in all ways take no more time for a line than others.
func BenchmarkCrowded(b *testing.B) {
	const n = 10_000
	for _, bb := range []struct {
		name, before string
		line         func(i int) string
		after        string
	}{
		{"the same line", "", func(int) string { return "n1 user=a\n" }, ""},
		{"labels of one host", "", func(i int) string { return fmt.Sprintf("n1 label=l%d:x\n", i%1000) }, ""},
		{"labels of one host and another", "", func(i int) string { return fmt.Sprintf("n1,m%d label=l%d:x\n", i, i%1000) }, ""},
		{"the same addresses", "", func(int) string { return "n[1-9] addr=a[1-9]\n" }, ""},
		{"ranges that overlap", "", func(i int) string { return fmt.Sprintf("n[%d-%d] user=a\n", i, i+1000) }, ""},
		{"ranges apart", "", func(i int) string { return fmt.Sprintf("n[%d0-%d9] user=a%d\n", i, i, i) }, ""},
		{"hosts of a range", "n[0-9999] user=a\n", func(i int) string { return fmt.Sprintf("n%d user=a port=5\n", i) }, ""},
		{"targets", "", func(i int) string { return fmt.Sprintf("root@n%d\n", i) }, ""},
		{"sections", "", func(i int) string { return fmt.Sprintf("[s%d] label=s:s%d\nn%d\n", i, i, i) }, ""},
		{"sections of the same hosts", "", func(i int) string { return fmt.Sprintf("[s%d] user=u\nn[1-99]\n", i) }, ""},
		{"sections in one", "[all] label=s:all\n", func(i int) string { return fmt.Sprintf("[s%d] label=s:s%d\nn%d\n[all:children]\ns%d\n", i, i, i, i) }, ""},
		{"hosts that settle it", "[a] user=a\nn[0-9999]\n[b] user=b\nn[0-9999]\n[c]\n", func(i int) string { return fmt.Sprintf("n%d user=c\n", i) }, ""},
		{"sections in sections", "", func(i int) string {
			text := fmt.Sprintf("[s%d] label=s:s%d\nn%d\n", i, i, i)
			if i%500 < 499 { // deep, and no deeper than can be
				text += fmt.Sprintf("[s%d:children]\ns%d\n", i, i+1)
			}
			return text
		}, ""},
	} {
		var text strings.Builder
		text.WriteString(bb.before)
		for i := range n {
			text.WriteString(bb.line(i))
		}
		text.WriteString(bb.after)
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				choose(b, read(b, text.String()), "x")
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/line")
		})
	}
}

// What a host costs when its turn comes, by what is set for it.
func BenchmarkHosts(b *testing.B) {
	const ranges = "node[0-99999].example.com"
	for _, bb := range []struct{ name, file string }{
		{"nothing set", "other user=x\n"},
		{"a line each", fleet(100_000)},
		{"one range", ranges + " user=ops port=22 transport=rsh\n"},
		{"a range, two sections, labels", ranges + " user=ops\n[a] label=a:b port=5\n" + ranges + "\n[b] label=c:d\n" + ranges + "\n"},
	} {
		inv := newInventory()
		mustRead(b, inv, bb.file)
		s := choose(b, inv, ranges)
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for range s.Hosts(transport.Host{}) {
					n++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/host")
		})
	}
}

// From the text to the first of a million hosts.
func BenchmarkFirstOfAMillion(b *testing.B) {
	for b.Loop() {
		inv := newInventory()
		mustRead(b, inv, "node[1-1000000] user=ops port=22\n[all] label=site:x\nnode[1-1000000]\n")
		if err := inv.Match("node[5-900000]", "config:1", inventory.Settings{Jump: "gate", Fanout: 8}); err != nil {
			b.Fatal(err)
		}
		for range choose(b, inv, "node[1-1000000]").Hosts(transport.Host{}) {
			break
		}
	}
}
