package hostlist_test

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"multirsh/runner/hostlist"
)

// What the test suites of other programs expect. The file says where we differ, and why.
func TestPeers(t *testing.T) {
	f, err := os.Open("testdata/peers.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		n++
		field := strings.Split(s.Text(), "\t")
		kind, expr, want, source := field[0], field[1], field[2], field[3]
		if len(field) == 6 {
			want = field[4]
		}
		t.Run(expr, func(t *testing.T) {
			expr, exclude, minus := strings.Cut(expr, " -x ")
			l, err := hostlist.Hosts(expr)
			if err == nil && minus {
				err = l.Exclude(exclude)
			}
			got := ""
			switch {
			case err != nil:
				got = "ERROR"
			case kind == "error":
				got = "ok"
			case kind == "count":
				got = strconv.Itoa(l.Len())
			case kind == "expand":
				names := expand(l)
				if !strings.Contains(source, "(pdsh)") {
					slices.Sort(names)
					sorted := strings.Split(want, ",")
					slices.Sort(sorted)
					want = strings.Join(sorted, ",")
				}
				got = strings.Join(names, ",")
			default:
				got = checkFold(t, expand(l))
			}
			if got != want {
				t.Errorf("%s %q = %q (%v), want %q; %s", kind, expr, got, err, want, source)
			}
		})
	}
	if n < 200 {
		t.Errorf("only %d rows", n)
	}
}
