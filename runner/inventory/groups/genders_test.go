package groups

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGenders(t *testing.T) {
	s := Genders(file(t, "genders", `# nodes
node[1-4]	mgmt,os=debian,altname=%n-ib,rate=5%%,free=%%n
node2,,node3   login #late
node9
node[1-4] x.y/z
`))
	want := "mgmt: node[1-4]\nos: node[1-4]\naltname: node[1-4]\nrate: node[1-4]\nfree: node[1-4]\nlogin: node2,node3\nx.y/z: node[1-4]\n* node[1-4] node2,node3 node9 node[1-4]\n"
	if diff := cmp.Diff(want, told(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for group, want := range map[string]string{
		"os=debian":        "node[1-4]",
		"altname=node3-ib": "node3",
		"rate=5%":          "node[1-4]",
		"free=%n":          "node[1-4]",
	} {
		if got := mustMap(t, s, group); got != want {
			t.Errorf("%s: got %q, want %q", group, got, want)
		}
	}
	for _, group := range []string{"os=sles", "os=", "altname=node5-ib", "=debian", "node1"} {
		if text, err := s.Map(t.Context(), group); err != ErrNoGroup {
			t.Errorf("%s: %q, %v", group, text, err)
		}
	}
	for _, group := range []string{"mgmt--login", "mgmt&&login", "~login"} {
		_, err := s.Map(t.Context(), group)
		if !errors.Is(err, ErrNoGroup) || !strings.Contains(err.Error(), "@a!@b for a--b") {
			t.Errorf("%s: %v", group, err)
		}
	}
}

// -a leaves out what pdsh's -a leaves out.
func TestGendersAllSkip(t *testing.T) {
	s := Genders(file(t, "genders", "n[1-4] compute\nn2,m1 pdsh_all_skip\nn5 all\n"))
	if got, want := told(t, s), "compute: n[1-4]\npdsh_all_skip: n2,m1\nall: n5\n* n1,n3,n4 n5\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

var badGenders = []badFile{
	{"n1 a\nn1 b c\n", `FILE:2: expected nodes and attributes, with commas and no blanks in them, found "n1 b c"`},
	{"n1 a,,b\n", `FILE:1: there is an attribute without a name in "a,,b"`},
	{"n1 a,\n", `FILE:1: there is an attribute without a name in "a,"`},
	{"n1 =v\n", `FILE:1: there is an attribute without a name in "=v"`},
	{"n1 a=\n", `FILE:1: the attribute "a" has no value after its '='`},
	{"n1 a=1\n\nn[1-2] a=2\n", `FILE:3: "n1" has the attribute "a" already, from line 1`},
	{"n2,n1 a,a\n", `FILE:1: "n2" has the attribute "a" already, from line 1`},
	{"n[3-1] a\n", `FILE:1: "3-1" is no range of numbers in "n[3-1]": expected [7] or [1-64]`},
	{"n[1-8/2] a\n", `FILE:1: "1-8/2" is no range of numbers in "n[1-8/2]": expected [7] or [1-64]`},
}

func TestGendersBad(t *testing.T) {
	testBadFiles(t, "", Genders, badGenders)
	testBadFiles(t, "", Genders, []badFile{ // libgenders takes these for names, and a host expression would mean something else
		{"n[1-2 a\n", `FILE:1: this '[' is never closed in "n[1-2"`},
		{"n[1,2 a\n", `FILE:1: this '[' is never closed in "n[1,2"`},
		{"n1,-n2 a\n", `FILE:1: "-n2" is no name of a node`},
		{"n1!n2 a\n", `FILE:1: "n1!n2" is no name of a node`},
		{"root@n2 a\n", `FILE:1: "root@n2" is no name of a node`},
		{"r[1-2]n[1-2] a\n", `FILE:1: "r[1-2]n[1-2]" is no name of a node: expected letters, digits, '-', '_' and '.', and at most one pair of brackets`},
		{", a\n", `FILE:1: there is no node before the attributes in ", a"`},
		{"n[0-999999] a\nn1 b\n", `FILE:2: with this line the file names more than 1000000 nodes`},
		{"n[0-99999999999] a\n", `FILE:1: with this line the file names more than 1000000 nodes`},
	})
}

// genders(5) is read as libgenders does.
func TestGendersOracle(t *testing.T) {
	nodeattr, err := exec.LookPath("nodeattr")
	if err != nil {
		t.Skip("nodeattr is not installed: apt-get install genders")
	}
	ask := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), nodeattr, args...).Output()
		return string(out), err
	}
	path := file(t, "genders", `# comment
n1,n2,,n[04-6]x  login,os=debian,rate=5%%,own=e%n,free=%%n,odd=%h,two=1=2
n3	os=sles#late
n3 compute # another line of it
n7
,n[08-101]
n1,n2,n3,n7,n[08-101] all
`)
	s := Genders(path)
	names, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listed, err := ask("-f", path, "-l")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Fields(listed); !slices.Equal(slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(want))) {
		t.Errorf("List is %q, and nodeattr -l says %q", names, want)
	}
	for _, group := range append(names, "os=debian", "os=sles", "os=x", "rate=5%", "own=en2", "own=en9", "free=%n", "odd=%h", "two=1=2", "none") {
		text, err := s.Map(t.Context(), group)
		if err != nil && err != ErrNoGroup {
			t.Fatal(err)
		}
		out, err := ask("-f", path, "-n", group)
		if err != nil {
			t.Fatalf("nodeattr -n %s: %v", group, err)
		}
		_, got, err := expandNodes(strings.ReplaceAll(text, "\n", ","), maxNodes)
		if want := strings.Fields(out); err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%s is %q, %v, and nodeattr says %q", group, got, err, want)
		}
	}
	for _, bad := range badGenders {
		if out, err := ask("-f", file(t, "genders", bad.text), "-A"); err == nil {
			t.Errorf("%q is good for nodeattr, which says %q", bad.text, out)
		}
	}
}
