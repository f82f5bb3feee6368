package groups

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shell is a configuration of ClusterShell with everything in it. CFGDIR and the like are ClusterShell's own words.
var shell = map[string]string{
	"groups.conf": `# of the site
[Main]
default: local
confdir: /no/such $CFGDIR/groups.conf.d
autodir: $CFGDIR/groups.d

[local]
map: sed -n 's/^$GROUP:\(.*\)/\1/p' $CFGDIR/groups
all: sed -n 's/^all:\(.*\)/\1/p' $CFGDIR/groups
list: sed -n 's/^\([0-9A-Za-z_-]*\):.*/\1/p' $CFGDIR/groups

[rack,row]
map = echo $SOURCE-$GROUP-[1-2]
list = echo a
      echo b
reverse = [ $NODE = rack-a-1 ] && echo a
cache_time = 60
`,
	"groups":               "web:web[1-4]\ndb:db1,db2\nall:web[1-4],db[1-2]\n",
	"groups.conf.d/x.conf": "[extra]\nmap: echo extra-$GROUP n$$HOME ${GROUP}x | tr / -\nlist: echo g h\n",
	"groups.d/site.yaml":   "roles:\n  adm: 'example0'\n  new: [ 'n[1-2]', 'n9' ]\n  none:\n  all: 'example[0-9]'\nnumbers:\n  '5': '7'\n",
	"groups.d/more.txt":    "\x00",
}

func TestClusterShell(t *testing.T) {
	dir := write(t, shell)
	sources, byDefault, err := ClusterShell([]string{"/no/such/groups.conf", filepath.Join(dir, "groups.conf")}, filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	if byDefault != "local" {
		t.Errorf("the default is %q", byDefault)
	}
	got := map[string]string{}
	for _, s := range sources {
		got[s.Name] = told2(t, s)
	}
	want := map[string]string{
		"local":   "web: web[1-4]\ndb: db1,db2\nall: web[1-4],db[1-2]\n* web[1-4],db[1-2]\n",
		"extra":   "a: extra-a n" + strings.ReplaceAll(os.Getenv("HOME"), "/", "-") + " ax\n",
		"rack":    "a: rack-a-[1-2]\n",
		"row":     "a: row-a-[1-2]\n",
		"roles":   "adm: example0\nnew: n[1-2] n9\nnone: \nall: example[0-9]\n* example[0-9]\n",
		"numbers": "5: 7\n* 7\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, s := range sources {
		switch s.Name {
		case "extra":
			if text, err := s.Map(t.Context(), "g"); err != nil || text != "extra-g n"+strings.ReplaceAll(os.Getenv("HOME"), "/", "-")+" gx\n" {
				t.Errorf("extra: %q, %v", text, err)
			}
		case "rack":
			if names, err := s.Source.(Reverser).Reverse(t.Context(), "rack-a-1"); err != nil || !slices.Equal(names, []string{"a"}) {
				t.Errorf("reverse: %q, %v", names, err)
			}
		}
	}
}

// told2 is told for commands that answer to any name.
func told2(tb testing.TB, s Named) string {
	tb.Helper()
	if s.Name != "rack" && s.Name != "row" && s.Name != "extra" {
		return told(tb, s.Source)
	}
	return "a: " + strings.TrimSpace(mustMap(tb, s, "a")) + "\n"
}

func TestClusterShellPaths(t *testing.T) {
	env := map[string]string{"HOME": "/h", "CLUSTERSHELL_CFGDIR": "/c"}
	want := []string{"/etc/clustershell/groups.conf", "/h/.local/etc/clustershell/groups.conf", "/h/.config/clustershell/groups.conf", "/c/groups.conf"}
	if got := ClusterShellPaths(func(name string) string { return env[name] }); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	sources, byDefault, err := ClusterShell([]string{"/no/such/groups.conf"}, "")
	if sources != nil || byDefault != "" || err != nil {
		t.Errorf("no file: %v, %q, %v", sources, byDefault, err)
	}
}

// Later files go over earlier ones, section by section.
func TestClusterShellLayers(t *testing.T) {
	dir := write(t, map[string]string{
		"a/groups.conf": "[Main]\ndefault: x\n[x]\nmap: echo a\n[y]\nmap: echo a\n",
		"b/groups.conf": "[Main]\ndefault: y\n[y]\nmap: echo b\n",
	})
	sources, byDefault, err := ClusterShell([]string{dir + "/a/groups.conf", dir + "/b/groups.conf"}, "")
	if err != nil || byDefault != "y" || len(sources) != 2 {
		t.Fatalf("%v, %q, %v", sources, byDefault, err)
	}
	for _, s := range sources {
		text, err := s.Map(t.Context(), "g")
		if want := map[string]string{"x": "a", "y": "b"}[s.Name]; err != nil || strings.TrimSpace(text) != want {
			t.Errorf("%s: %q, %v, want %s", s.Name, text, err, want)
		}
	}
}

func TestClusterShellBad(t *testing.T) {
	for _, test := range []struct{ conf, yaml, want string }{
		{"[Main]\ndefault: x\n", "", `DIR/groups.conf: the default source "x" is none of those there`},
		{"[x]\nlist: y\n", "", `DIR/groups.conf:1: [x] has no map, the command that prints the hosts of $GROUP`},
		{"[x\n", "", `DIR/groups.conf:1: expected [SECTION], found "[x"`},
		{"map: y\n", "", `DIR/groups.conf:1: "map: y" stands before the first [SECTION]`},
		{"[x]\nmap\n", "", `DIR/groups.conf:2: expected KEY: VALUE, found "map"`},
		{"[x]\nmap: y\nMAP: z\n", "", `DIR/groups.conf:3: map is there twice in its section`},
		{"[x]\nmap: y\n[x]\nmap: y\n", "", `DIR/groups.conf:3: the section [x] is there twice, before at DIR/groups.conf:1`},
		{"[x]\nmap: y\ncache_time: soon\n", "", `DIR/groups.conf:1: [x] has cache_time "soon", which is no number of seconds`},
		{"[Main]\nautodir: $CFGDIR/groups.conf\n", "", `DIR/groups.conf: not a directory`},
		{"[Main]\nautodir: $CFGDIR\n", "- a\n", `DIR/f.yaml:1: the sources: expected a mapping, as "name: …"`},
		{"[Main]\nautodir: $CFGDIR\n", "roles: x\n", `DIR/f.yaml:1: the groups of "roles": expected a mapping, as "name: …"`},
		{"[Main]\nautodir: $CFGDIR\n", "roles:\n  a: {b: c}\n", `DIR/f.yaml:2: expected hosts, as "node[1-4]"`},
		{"[Main]\nautodir: $CFGDIR\n", "roles:\n  a: [b, [c]]\n", `DIR/f.yaml:2: expected hosts, as "node[1-4]"`},
		{"[Main]\nautodir: $CFGDIR\n", "roles: {\n", `DIR/f.yaml:1: did not find expected node content`},
		{"[Main]\nautodir: $CFGDIR\n", "roles: {a: b, a: c}\n", `DIR/f.yaml:1: the groups of "roles": "a" is there twice`},
		{"[Main]\nautodir: $CFGDIR\n", "roles: {a: b}\n---\nmore: {a: b}\n", `DIR/f.yaml:2: a second document begins here; one file is one document`},
		{"[Main]\nautodir: $CFGDIR\n[roles]\nmap: x\n", "\nroles: {a: b}\n", `DIR/groups.conf:3: there is a source "roles" already, from DIR/f.yaml:2; give one of them another name`},
		{"[Main]\nautodir: '$CFGDIR\n", "", `DIR/groups.conf: the directories "'$CFGDIR": the quote ' is never closed`},
	} {
		dir := write(t, map[string]string{"groups.conf": test.conf, "f.yaml": test.yaml})
		_, _, err := ClusterShell([]string{dir + "/groups.conf"}, "")
		if err == nil {
			t.Errorf("%q is let through", test.conf)
		} else if got := strings.ReplaceAll(err.Error(), dir, "DIR"); got != test.want {
			t.Errorf("\ngot  %s\nwant %s", got, test.want)
		}
	}
}

var shellINI = map[string]string{
	"a/groups.conf": "[Main]\ndefault: x\n[x]\nmap: echo a\nlist: echo from-a\n",
	"b/groups.conf": `
[DEFAULT]
list = echo from-default
[x]
map: pwd | tr / n
[w]
map = echo w
[y] and what follows
  map: echo 1
	  # no comment in between
    echo 2; # no comment behind

    echo 3
  LIST= printf '%s\n' one=two
; none either
`,
}

// What is not written in a later file is as in the earlier one, and commands are as configparser reads them.
func TestClusterShellINI(t *testing.T) {
	dir := write(t, shellINI)
	sources, byDefault, err := ClusterShell([]string{dir + "/a/groups.conf", dir + "/b/groups.conf"}, "")
	if err != nil || byDefault != "x" || len(sources) != 3 || sources[0].Name != "x" || sources[2].Name != "y" {
		t.Fatalf("%v, %q, %v", sources, byDefault, err)
	}
	list := func(s Source) string {
		names, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(names, " ")
	}
	for _, got := range [][2]string{
		{mustMap(t, sources[0], "g"), strings.ReplaceAll(dir+"/b", "/", "n") + "\n"}, // the directory of the last file
		{list(sources[0]), "from-a"},
		{list(sources[1]), "from-default"},
		{mustMap(t, sources[2], "g"), "1\n2\n3\n"},
		{list(sources[2]), "one=two"},
	} {
		if got[0] != got[1] {
			t.Errorf("got %q, want %q", got[0], got[1])
		}
	}
}

// A group that nobody can write after an @ is in nobody's way.
func TestClusterShellOddNames(t *testing.T) {
	dir := write(t, map[string]string{
		"groups.conf": "[Main]\nautodir: $CFGDIR $CFGDIR/. $CFGDIR/none\n", ".x.yaml": "- no\n",
		"f.yaml": "roles: &r\n  'a b': c\n  d: &d e\n  f: [g, *d]\nmore:\n  <<: *r\n  d: own\n",
	})
	sources, byDefault, err := ClusterShell([]string{dir + "/groups.conf"}, "")
	if err != nil || byDefault != "roles" || len(sources) != 2 {
		t.Fatalf("%v, %q, %v", sources, byDefault, err)
	}
	if got, want := told(t, sources[0].Source), "d: e\nf: g e\n* c e g e\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := told(t, sources[1].Source), "d: own\nf: g e\n* own c g e\n"; got != want {
		t.Errorf("what is merged: got %q, want %q", got, want)
	}
}

// clusterShellSays prints what ClusterShell itself makes of groups.conf files: the default source, and for each group of each source the nodes.
const clusterShellSays = `
import sys
from ClusterShell.NodeSet import NodeSet
from ClusterShell.NodeUtils import GroupResolverConfig
r = GroupResolverConfig(sys.argv[1:])
print("default", r.sources() and r.default_source_name)
for s in sorted(r.sources()):
    for g in sorted(r.grouplist(s)):
        if g != "none": # a group without a value, over which it stumbles
            print("@%s:%s" % (s, g), *sorted(NodeSet("@%s:%s" % (s, g), resolver=r)))
`

// ClusterShell's own reading of the same files.
func TestClusterShellOracle(t *testing.T) {
	nodeset, err := exec.LookPath("nodeset")
	if err != nil {
		t.Skip("nodeset is not installed: apt-get install clustershell")
	}
	script, err := os.ReadFile(nodeset)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(script), "\n")
	python, is := strings.CutPrefix(first, "#!") // the one that has the library
	if !is {
		t.Skipf("%s is no Python script, so nothing says which Python has ClusterShell; install the distribution's clustershell", nodeset)
	}
	for name, files := range map[string]map[string]string{"all": shell, "INI": shellINI} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, files)
			var paths []string
			for _, sub := range []string{"", "a/", "b/"} {
				if _, known := files[sub+"groups.conf"]; known {
					paths = append(paths, filepath.Join(dir, sub+"groups.conf"))
				}
			}
			out, err := exec.CommandContext(t.Context(), strings.TrimSpace(python), append([]string{"-c", clusterShellSays}, paths...)...).Output()
			if err != nil {
				t.Fatalf("%v: %s", err, err.(*exec.ExitError).Stderr)
			}
			sources, byDefault, err := ClusterShell(paths, "")
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			fmt.Fprintln(&b, "default", byDefault)
			slices.SortFunc(sources, func(x, y Named) int { return strings.Compare(x.Name, y.Name) })
			for _, s := range sources {
				names, err := s.List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(names)
				for _, name := range names {
					_, nodes, err := expandNodes(strings.Join(strings.Fields(mustMap(t, s, name)), ","), maxNodes)
					if err != nil {
						t.Fatal(err)
					}
					if slices.Sort(nodes); name != "none" {
						fmt.Fprintf(&b, "@%s:%s %s\n", s.Name, name, strings.Join(nodes, " "))
					}
				}
			}
			if diff := cmp.Diff(string(out), b.String()); diff != "" {
				t.Errorf("(-ClusterShell +ours):\n%s", diff)
			}
		})
	}
}
