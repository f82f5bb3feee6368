package hostlist_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
)

// peerCase is a row of testdata/peers.tsv.
type peerCase struct {
	kind, whose, expr, want, source string
	ours, reason                    string // where we differ on purpose
}

func peerCases(t *testing.T) []peerCase {
	t.Helper()
	f, err := os.Open("testdata/peers.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []peerCase
	s := bufio.NewScanner(f)
	for s.Scan() {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		field := strings.Split(s.Text(), "\t")
		if len(field) != 5 && len(field) != 7 {
			t.Fatalf("a row of %d fields: %s", len(field), s.Text())
		}
		field = append(field, "", "")
		c := peerCase{field[0], field[1], field[2], field[3], field[4], field[5], field[6]}
		if len(field) == 7 { // nothing differs
			c.ours = c.want
		} else if c.ours == c.want || c.reason == "" {
			t.Fatalf("a difference that is none, or has no reason: %s", s.Text())
		}
		cases = append(cases, c)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 254 {
		t.Fatalf("%d rows, want 254", len(cases))
	}
	return cases
}

// sorted makes names comparable where their order does not matter.
func sorted(names string) string {
	list := strings.Split(names, ",")
	slices.Sort(list)
	return strings.Join(list, ",")
}

// What the test suites of other programs expect. The file says where we differ, and why.
func TestPeers(t *testing.T) {
	for _, c := range peerCases(t) {
		t.Run(c.expr, func(t *testing.T) {
			l, err := hostsOfOptions(c.expr)
			got, want := "", c.ours
			switch {
			case err != nil:
				got = "ERROR"
			case c.kind == "error":
				got = "ok"
			case c.kind == "count":
				got = strconv.Itoa(l.Len())
			case c.kind == "expand":
				got = strings.Join(expand(l), ",")
				if c.whose != "pdsh" {
					got, want = sorted(got), sorted(want)
				}
			default:
				got = checkFold(t, expand(l))
			}
			if got != want {
				t.Errorf("%s %q = %q (%v), want %q; %s", c.kind, c.expr, got, err, want, c.source)
			}
		})
	}
}

// hostsOfOptions reads "EXPR -wEXPR -x EXPR" as the command line of pdsh does.
func hostsOfOptions(text string) (*hostlist.List, error) {
	var exclude []string
	if before, x, ok := strings.Cut(text, " -x"); ok {
		text, exclude = before, []string{strings.TrimSpace(x)}
	}
	e, err := hostlist.Parse(strings.ReplaceAll(text, " -w", ","))
	if err != nil {
		return nil, err
	}
	s, err := e.Eval(nil)
	if err != nil {
		return nil, err
	}
	l := s.Hosts
	for _, x := range exclude {
		e, err := hostlist.Parse(x)
		if err != nil {
			return nil, err
		}
		if l, err = e.Exclude(l, nil); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// The same table, read by the programs that it is about, where they are installed. flux is in no package of Debian.
func TestPeersThemselves(t *testing.T) {
	cases := peerCases(t)
	of := func(whose string) []peerCase {
		return slices.DeleteFunc(slices.Clone(cases), func(c peerCase) bool { return c.whose != whose })
	}
	check := func(t *testing.T, c peerCase, got string) {
		t.Helper()
		want := c.want
		if c.kind == "expand" && c.whose == "clush" {
			got, want = sorted(got), sorted(want)
		}
		if got != want {
			t.Errorf("%s %q = %q, and the table says %q; %s", c.kind, c.expr, got, want, c.source)
		}
	}
	t.Run("clustershell", func(t *testing.T) {
		rows := of("clush")
		for i, got := range clusterShell(t, `
for line in sys.stdin:
	kind, expr = line.rstrip("\n").split("\t")
	try:
		n = NodeSet(expr)
		print(len(n) if kind == "count" else ",".join(n) if kind == "expand" else str(n))
	except NodeSetException:
		print("ERROR")
`, slices.Collect(func(yield func(string) bool) {
			for _, c := range rows {
				if !yield(c.kind + "\t" + c.expr) {
					return
				}
			}
		})) {
			check(t, rows[i], got)
		}
	})
	t.Run("pdsh", func(t *testing.T) {
		pdsh := need(t, "pdsh", "pdsh")
		for _, c := range of("pdsh") {
			check(t, c, pdshHosts(t, pdsh, strings.Fields(c.expr)...))
		}
	})
	t.Run("dshbak", func(t *testing.T) {
		dshbak := need(t, "dshbak", "pdsh")
		for _, c := range of("dshbak") {
			cmd := exec.Command(dshbak, "-c")
			cmd.Stdin = strings.NewReader(strings.ReplaceAll(c.expr, ",", ": x\n") + ": x\n")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			check(t, c, strings.Split(string(out), "\n")[1]) // between two lines of dashes
		}
	})
}

// What Fold writes can be pasted: pdsh and nodeset read it as the same names.
func TestFoldReadByPeers(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	var sets [][]string
	for range 300 {
		var names []string
		for range 1 + r.IntN(40) {
			names = append(names, []func() string{
				func() string { return fmt.Sprintf("n%d", r.IntN(30)) },
				func() string { return fmt.Sprintf("n%03d", 90+r.IntN(30)) },
				func() string { return fmt.Sprintf("r%dn%d", r.IntN(4), r.IntN(12)) },
				func() string { return fmt.Sprintf("10.0.%d.%d", r.IntN(3), r.IntN(20)) },
				func() string { return fmt.Sprintf("row%d-rack%02d-n%d.example.com", r.IntN(2), r.IntN(3), r.IntN(4)) },
				func() string { return []string{"login", "a-b", "db1x"}[r.IntN(3)] },
			}[r.IntN(6)]())
		}
		slices.Sort(names)
		sets = append(sets, slices.Compact(names))
	}
	check := func(t *testing.T, i int, text, got string) {
		t.Helper()
		if diff := cmp.Diff(strings.Join(sets[i], ","), sorted(got)); diff != "" {
			t.Errorf("%s, -want +got:\n%s", text, diff)
		}
	}
	var texts []string
	for _, names := range sets {
		texts = append(texts, hostlist.Fold(slices.Values(names)))
	}
	t.Run("clustershell", func(t *testing.T) {
		for i, got := range clusterShell(t, `
for line in sys.stdin:
	print(",".join(NodeSet(line.rstrip("\n"))))
`, texts) {
			check(t, i, texts[i], got)
		}
	})
	t.Run("pdsh", func(t *testing.T) {
		pdsh := need(t, "pdsh", "pdsh")
		for i, text := range texts[:40] { // a process each
			check(t, i, text, pdshHosts(t, pdsh, text))
		}
	})
}

func need(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed: apt-get install %s", program, debian)
	}
	return path
}

// pdshHosts returns the hosts of the words after -w, or ERROR where pdsh refuses them.
func pdshHosts(t *testing.T, pdsh string, words ...string) string {
	t.Helper()
	cmd := exec.Command(pdsh, append([]string{"-Q", "-w"}, words...)...)
	out, err := cmd.Output() // status 1 in any case
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	_, hosts, ok := strings.Cut(string(out), "-- Target nodes --\n")
	if !ok {
		return "ERROR"
	}
	return strings.TrimSuffix(hosts, "\n")
}

// clusterShell runs a Python script over the lines with what nodeset is made of, for nodeset itself takes a process for each
// expression, and a tenth of a second to start. The script prints a line for each.
func clusterShell(t *testing.T, script string, lines []string) []string {
	t.Helper()
	nodeset, err := os.ReadFile(need(t, "nodeset", "clustershell"))
	if err != nil {
		t.Fatal(err)
	}
	python, _, _ := strings.Cut(strings.TrimPrefix(string(nodeset), "#!"), "\n")
	cmd := exec.Command("env", append([]string{"-i", "HOME=/nonexistent"}, append(strings.Fields(python), "-c",
		"import sys\nfrom ClusterShell.NodeSet import NodeSet, NodeSetException\n"+script)...)...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(got) != len(lines) {
		t.Fatalf("%d lines for %d expressions", len(got), len(lines))
	}
	return got
}
