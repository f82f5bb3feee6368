package groups

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	"groups.conf.d/x.conf": "[extra]\nmap: echo extra-$GROUP $$HOME ${GROUP}x\n",
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
		if s.Name != "extra" { // which has no list
			got[s.Name] = told2(t, s)
		}
	}
	want := map[string]string{
		"local":   "web: web[1-4]\ndb: db1,db2\nall: web[1-4],db[1-2]\n* web[1-4],db[1-2]\n",
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
			if text, err := s.Map(t.Context(), "g"); err != nil || text != "extra-g "+os.Getenv("HOME")+" gx\n" {
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
	if s.Name != "rack" && s.Name != "row" {
		return told(tb, s.Source)
	}
	text, err := s.Map(tb.Context(), "a")
	if err != nil {
		tb.Fatal(err)
	}
	return "a: " + strings.TrimSpace(text) + "\n"
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
		{"[x]\nmap: y\nMAP: z\n", "", `DIR/groups.conf:3: map is there twice in [x]`},
		{"[x]\nmap: y\n[x]\nmap: y\n", "", `DIR/groups.conf:3: the section [x] is there twice`},
		{"[x]\nmap: y\ncache_time: soon\n", "", `DIR/groups.conf:1: [x] has cache_time "soon", which is no number of seconds`},
		{"[Main]\nautodir: $CFGDIR/groups.conf\n", "", `DIR/groups.conf: this is no directory, and groups.conf says that it is`},
		{"[Main]\nautodir: $CFGDIR\n", "- a\n", `DIR/f.yaml:1: sources: expected a mapping, as "name: …"`},
		{"[Main]\nautodir: $CFGDIR\n", "roles: x\n", `DIR/f.yaml:1: the groups of roles: expected a mapping, as "name: …"`},
		{"[Main]\nautodir: $CFGDIR\n", "roles:\n  a: {b: c}\n", `DIR/f.yaml:2: expected hosts, as "node[1-4]"`},
		{"[Main]\nautodir: $CFGDIR\n", "roles:\n  'a b': c\n", `DIR/f.yaml:2: "a b" is no name of a group`},
		{"[Main]\nautodir: $CFGDIR\n", "roles: {\n", `DIR/f.yaml: yaml: line 1: did not find expected node content`},
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

// ClusterShell's own reading of the same files.
func TestClusterShellOracle(t *testing.T) {
	nodeset, err := exec.LookPath("nodeset")
	if err != nil {
		t.Skip("nodeset is not installed; install clustershell")
	}
	dir := write(t, shell)
	sources, byDefault, err := ClusterShell([]string{dir + "/groups.conf"}, "")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), nodeset, args...)
		cmd.Env = append(os.Environ(), "CLUSTERSHELL_CFGDIR="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("nodeset %q: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	fold := func(texts ...string) string {
		if len(strings.Fields(strings.Join(texts, " "))) == 0 {
			return ""
		}
		return ask(append([]string{"-f"}, strings.Fields(strings.Join(texts, " "))...)...)
	}
	for _, s := range sources {
		if s.Name == "extra" {
			continue // prints what is no host
		}
		names, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := s.Map(t.Context(), name)
			if err != nil {
				t.Errorf("@%s:%s: %v", s.Name, name, err)
				continue
			}
			if text == "" {
				continue // and nodeset ends with a status of 1
			}
			if want := ask("-f", "@"+s.Name+":"+name); fold(text) != want {
				t.Errorf("@%s:%s is %q, and nodeset says %s", s.Name, name, text, want)
			}
			if s.Name == byDefault {
				if want := ask("-f", "@"+name); fold(text) != want {
					t.Errorf("@%s is %q, and nodeset says %s", name, text, want)
				}
			}
		}
	}
}

// genders(5) is read as libgenders does.
func TestGendersOracle(t *testing.T) {
	nodeattr, err := exec.LookPath("nodeattr")
	if err != nil {
		t.Skip("nodeattr is not installed; install genders")
	}
	path := filepath.Join(write(t, map[string]string{"genders": `# comment
n1,n2,n[4-6]  login,os=debian,rate=5%%
n3	os=sles
n3 compute # another line of it
n7
n[1-7] all
`}), "genders")
	s := Genders(path)
	names, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := s.Map(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), nodeattr, "-f", path, "-n", name).Output()
		if err != nil {
			t.Fatalf("nodeattr -n %s: %v", name, err)
		}
		want := strings.Fields(string(out))
		if got := names17(text); !slices.Equal(got, want) {
			t.Errorf("%s: %q is %q, and nodeattr says %q", name, text, got, want)
		}
	}
}

// names17 are the nodes n1 to n7 that a text names, in their order.
func names17(text string) []string {
	var got []string
	for _, n := range "1234567" {
		node := "n" + string(n)
		for _, item := range strings.Fields(text) {
			for _, part := range strings.FieldsFunc(strings.NewReplacer("n[4-6]", "n4,n5,n6", "n[1-7]", "n1,n2,n3,n4,n5,n6,n7").Replace(item), func(r rune) bool { return r == ',' }) {
				if part == node && !slices.Contains(got, node) {
					got = append(got, node)
				}
			}
		}
	}
	return got
}

func BenchmarkFile(b *testing.B) {
	var text strings.Builder
	for i := range 10_000 {
		text.WriteString("group" + strings.Repeat("x", i%7) + "-" + time.Duration(i).String() + ": node[1-64]\n")
	}
	path := filepath.Join(write(b, map[string]string{"f": text.String()}), "f")
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		if _, err := File(path).List(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
