package groups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// write makes files below a new directory, which it returns. An error that names a file is compared with DIR in its place.
func write(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// told is all that a source says: a line for each group, the hosts with blanks between, and its settings.
func told(tb testing.TB, s Source) string {
	tb.Helper()
	ctx := tb.Context()
	names, err := s.List(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	for _, name := range names {
		text, err := s.Map(ctx, name)
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(strings.Fields(text), " "))
	}
	if all, is := s.(Aller); is {
		text, err := all.All(ctx)
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(&b, "* %s\n", strings.Join(strings.Fields(text), " "))
	}
	if set, is := s.(Settler); is {
		settings, err := set.Settings(ctx)
		if err != nil {
			tb.Fatal(err)
		}
		for _, s := range settings {
			fmt.Fprintf(&b, "%s %s=%s %s\n", strings.Join(strings.Fields(s.Hosts), " "), s.Key, s.Value, filepath.Base(s.Place))
		}
	}
	if text, err := s.Map(ctx, "no-such-group"); !errors.Is(err, ErrNoGroup) {
		tb.Errorf("no-such-group: %q, %v", text, err)
	}
	return b.String()
}

func TestSources(t *testing.T) {
	dir := write(t, map[string]string{
		"groups": "# our groups\r\nlab: node[1-4] # the old ones\n\nweb: web1,web2\nlab: extra@lab\nempty:\nrack/1+a: @lab",
		"genders": `# nodes
node[1-4]	mgmt,os=debian,altname=%n-ib,rate=5%%
node2,node3   login
node9
`,
		"dsh/group/web":     "web1\nweb2 # the second\n#include more\n#a comment\n",
		"dsh/group/more":    "web[3-4]\n",
		"dsh/group/.hidden": "x\n",
		"etc/group/web":     "other\n",
		"etc/group/db":      "db1\n",
		"inventory": `
mail.example.com ansible_port=5555 ansible_host=192.0.2.50 other="a b # c"  # a comment
; another
badwolf.example.com:5309
[2001:db8::1]:22
2001:db8::2

[web]
www[01:50].example.com
www[1:9:2]-test ansible_user=ops
db-[a:d]
h#1

[site:children]
web
mail-servers
[site:vars]
ansible_user = site ops
proxy=x
[web:vars]
ansible_user=web
[all:vars]
ansible_port=2222
[mail-servers]
mail.example.com
[01:02]-rack
`,
		"inventory.yml": `
all:
  hosts:
    mail.example.com: {ansible_port: 5555}
  children:
    web:
      hosts:
        www[01:50].example.com:
        db1: {ansible_host: 192.0.2.1, ansible_user: &u ops}
      vars: {ansible_user: *u}
    site:
      children:
        web:
        lab: {hosts: {lab1: null}}
`,
	})
	for _, test := range []struct {
		name   string
		source Source
		want   string
	}{
		{"file", File(dir + "/groups"), `lab: node[1-4] extra@lab
web: web1,web2
empty:` + " " + `
rack/1+a: @lab
* node[1-4] extra@lab web1,web2 @lab
`},
		{"genders", Genders(dir + "/genders"), `mgmt: node[1-4]
os: node[1-4]
os=debian: node[1-4]
altname: node[1-4]
rate: node[1-4]
rate=5%: node[1-4]
login: node2,node3
* node[1-4] node2,node3 node9 node[1-4] node[1-4] node[1-4] node[1-4] node[1-4] node[1-4] node2,node3
`},
		{"dsh", Dsh(dir+"/none", dir+"/dsh/group", dir+"/etc/group"), `db: db1
more: web[3-4]
web: web1 web2 web[3-4]
`},
		{"ansible", Ansible(dir + "/inventory"), `ungrouped: badwolf.example.com [2001:db8::1] 2001:db8::2
web: www[01-50].example.com www[1-9/2]-test db-a db-b db-c db-d h
site: @web @mail-servers
mail-servers: mail.example.com [01-02]-rack
all: mail.example.com badwolf.example.com [2001:db8::1] 2001:db8::2 www[01-50].example.com www[1-9/2]-test db-a db-b db-c db-d h mail.example.com [01-02]-rack
* mail.example.com badwolf.example.com [2001:db8::1] 2001:db8::2 www[01-50].example.com www[1-9/2]-test db-a db-b db-c db-d h mail.example.com [01-02]-rack
mail.example.com port=5555 inventory:2
mail.example.com addr=192.0.2.50 inventory:2
badwolf.example.com port=5309 inventory:4
[2001:db8::1] port=22 inventory:5
www[1-9/2]-test user=ops inventory:10
@web user=web inventory:21
@site user=site ops inventory:18
@all port=2222 inventory:23
`},
		{"ansible, YAML", Ansible(dir + "/inventory.yml"), `ungrouped: mail.example.com
web: www[01-50].example.com db1
site: @web @lab
lab: lab1
all: mail.example.com www[01-50].example.com db1 lab1
* mail.example.com www[01-50].example.com db1 lab1
mail.example.com port=5555 inventory.yml:4
db1 addr=192.0.2.1 inventory.yml:9
db1 user=ops inventory.yml:9
@web user=ops inventory.yml:9
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, told(t, test.source)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a file has wrong is said with file and line.
func TestBadFiles(t *testing.T) {
	huge := filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(huge, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 100<<20); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		kind func(string) Source
		text string // of the file, or its path if it begins with '/'
		want string
	}{
		{File, "a: n1\nb n2\n", `FILE:2: expected GROUP: HOSTS, found "b n2"`},
		{File, "a b: n1\n", `FILE:1: expected GROUP: HOSTS, found "a b: n1"`},
		{File, "a: n1\nb: \x00\n", `FILE:2: there is a NUL byte here: groups are read from UTF-8 text`},
		{File, "a: n1\nb: \xff\n", `FILE:2: byte 0xff is not UTF-8 text`},
		{File, "/no/such", "FILE: no such file or directory"},
		{File, t.TempDir(), "FILE: this is a directory; name a file"},
		{File, fifo, "FILE: this is no regular file, so reading it might never end"},
		{File, huge, "FILE: this file has 104857600 bytes, and groups are read from at most 67108864"},
		{Genders, "n1 a,b c\n", `FILE:1: expected nodes and attributes, with commas and no blanks in them, found "n1 a,b c"`},
		{Genders, "n1 a,,b\n", `FILE:1: there is an attribute without a name in "a,,b"`},
		{Ansible, "[web]\nn1\n[web:kids]\n", `FILE:3: there is no [web:kids]: there is [web], [web:children] and [web:vars]`},
		{Ansible, "[site:children]\nweb\n", `FILE:2: there is no group "web", which site has as a child`},
		{Ansible, "[a]\nn1\n[a:children]\nb\n[b:children]\na\n", `FILE:6: these groups are children of each other: a, b, a`},
		{Ansible, "[a:children]\na\n", `FILE:2: these groups are children of each other: a, a`},
		{Ansible, "n[1:\n", `FILE:1: this '[' is never closed in "n[1:"`},
		{Ansible, "n[1-4]\n", `FILE:1: [1-4] is no range in "n[1-4]": expected [01:50], [1:9:2] or [a:f]`},
		{Ansible, "n[f:a]\n", `FILE:1: [f:a] is no range in "n[f:a]": expected [01:50], [1:9:2] or [a:f]`},
		{Ansible, "n[a:Z][a:Z][a:Z][a:Z]\n", `FILE:1: the ranges of "n[a:Z][a:Z][a:Z][a:Z]" make more than 100000 names`},
		{Ansible, "n1 word\n", `FILE:1: expected NAME=VALUE after the host, found "word"`},
		{Ansible, "n1 a='b\n", `FILE:1: the quote ' is never closed`},
		{Ansible, "[a:vars]\nx\n", `FILE:2: expected NAME=VALUE, found "x"`},
		{Ansible, "n1 ansible_host={{x}}\n", `FILE:1: ansible_host is the template "{{x}}", which only Ansible can fill in; have a command of the configuration run ansible-inventory`},
		{Ansible, "[b;d]\nn1\n", `FILE:1: "b;d" is no name of a group`},
		{Ansible, "#!/bin/sh\n", `FILE: this is a program that writes an inventory; have a command of the configuration run it`},
		{yamlFile, "all: {hosts: [a, b]}", `FILE.yml:1: hosts of the group all: expected a mapping, as "name: …"`},
		{yamlFile, "all:\n  kids: {}\n", `FILE.yml:2: there is no "kids" in a group: there is hosts, children and vars`},
		{yamlFile, "all:\n  hosts: {a: , a: }\n", `FILE.yml:2: hosts of the group all: "a" is there twice`},
		{yamlFile, "all: [\n", "FILE.yml: yaml: line 1: did not find expected node content"},
		{yamlFile, strings.Repeat("a: {children: {", 200) + strings.Repeat("}}", 200), "FILE.yml:1: groups are nested more than 100 deep here"},
		{yamlFile, "a: &a {children: {x: {}}}\n" + bomb(), "FILE.yml:2: the aliases of this file multiply to more entries than it has bytes"},
	} {
		path := test.text
		if !strings.HasPrefix(path, "/") {
			path = filepath.Join(write(t, map[string]string{"f": test.text}), "f")
		}
		_, err := test.kind(path).Map(t.Context(), "a")
		if got := strings.ReplaceAll(fmt.Sprint(err), path, "FILE"); got != test.want {
			t.Errorf("%q:\ngot  %s\nwant %s", test.text[:min(len(test.text), 80)], got, test.want)
		}
	}
}

// yamlFile is Ansible for a copy of the file that ends in .yml.
func yamlFile(path string) Source {
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path+".yml", data, 0o644)
	}
	if err != nil {
		panic(err)
	}
	return Ansible(path + ".yml")
}

// bomb is a file whose aliases double with each line.
func bomb() string {
	var b strings.Builder
	for i := range 25 {
		name, before := 'b'+rune(i), 'a'+rune(i)
		fmt.Fprintf(&b, "%c: &%c {children: {x%d: *%c, y%d: *%c}}\n", name, name, i, before, i, before)
	}
	return b.String()
}

func TestDshCycle(t *testing.T) {
	dir := write(t, map[string]string{"a": "#include b\n", "b": "n1\n#include a\n", "c": "#include none\n"})
	for group, want := range map[string]string{
		"a": "DIR/a:1: DIR/b:2: these files include each other: DIR/a, DIR/b, DIR/a",
		"c": "DIR/c:1: DIR/none: no such file or directory",
	} {
		_, err := Dsh(dir).Map(t.Context(), group)
		if got := strings.ReplaceAll(fmt.Sprint(err), dir, "DIR"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if _, err := Dsh(dir).Map(t.Context(), "../"+filepath.Base(dir)+"/a"); !errors.Is(err, ErrNoGroup) {
		t.Errorf("a name with a path in it: %v", err)
	}
}

// A file is read once, whatever is asked and by however many.
func TestReadOnce(t *testing.T) {
	path := filepath.Join(write(t, map[string]string{"f": "a: n1\n"}), "f")
	s := File(path)
	if _, err := s.Map(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if text, err := s.Map(t.Context(), "a"); err != nil || text != "n1" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := File(path).List(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestUpcall(t *testing.T) {
	dir := write(t, map[string]string{"hosts": "n1\nn2\n"})
	u := Upcall{
		Source:  "s",
		Map:     `case $GROUP in web) cat "$CFGDIR/hosts";; quote) echo "$SOURCE"-1;; empty) ;; esac`,
		All:     "echo all[1-3]",
		List:    "echo web, quote; echo @empty web",
		Rev:     `echo web of-"$NODE"`,
		Dir:     dir,
		Timeout: time.Minute,
	}
	s := u.New()
	if diff := cmp.Diff("web: n1 n2\nquote: s-1\nempty: \n* all[1-3]\n", told(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if names, err := s.(Reverser).Reverse(t.Context(), "n1"); err != nil || !slices.Equal(names, []string{"web", "of-n1"}) {
		t.Errorf("reverse: %q, %v", names, err)
	}
	for _, u := range []Upcall{{Map: "echo n1"}, {Map: "echo n1", All: "echo n1"}, {Map: "echo n1", Rev: "echo g"}} {
		s := u.New()
		_, all := s.(Aller)
		_, reverse := s.(Reverser)
		if all != (u.All != "") || reverse != (u.Rev != "") {
			t.Errorf("%+v: Aller %v, Reverser %v", u, all, reverse)
		}
		if _, err := s.List(t.Context()); !errors.Is(err, ErrNoList) {
			t.Errorf("list without a command: %v", err)
		}
	}
	// Nothing of a name comes to be run.
	if _, err := (Upcall{Map: "echo $GROUP", Template: true}).New().Map(t.Context(), "x;echo$IFS'y"); !errors.Is(err, ErrNoGroup) {
		t.Errorf("a name that is a command: %v", err)
	}
}

func TestUpcallFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name, command, want string
		ctx                 context.Context
		timeout             time.Duration
	}{
		{"exit status", "echo no >&2; echo 'cannot reach\tslurmctld' >&2; exit 3", `"echo no >&2; echo 'cannot reach slurmctld' >&2; exit 3": exit status 3: cannot reach?slurmctld`, t.Context(), 0},
		{"not there", "no-such-program", `"no-such-program": exit status 127: /bin/sh: 1: no-such-program: not found`, t.Context(), 0},
		{"hangs", "echo n1; sleep 1000", `"echo n1; sleep 1000": it was not done within 300ms`, t.Context(), 300 * time.Millisecond},
		{"cancelled", "sleep 1000", `"sleep 1000": context canceled`, ctx, 0},
		{"endless", "cat /dev/zero", `"cat /dev/zero": it printed more than 67108864 bytes`, t.Context(), 0},
		{"binary", `printf 'n1\n\000'`, `"printf 'n1\\n\\000'": line 2 of what it printed: there is a NUL byte here: groups are read from UTF-8 text`, t.Context(), 0},
		{"prints nothing", "true", `there is no such group, or it is empty: "true" printed nothing`, t.Context(), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := Upcall{Map: test.command, Timeout: test.timeout}
			_, err := u.New().Map(test.ctx, "g")
			if got := fmt.Sprint(err); got != test.want {
				t.Errorf("\ngot  %s\nwant %s", got, test.want)
			}
		})
	}
	if _, err := (Upcall{Map: "x", List: "echo 'a b;c'"}).New().List(t.Context()); err == nil || err.Error() != `"echo 'a b;c'" printed "b;c", which is no name of a group` {
		t.Errorf("a list of no names: %v", err)
	}
}

// A child that keeps the output open holds nobody up, and does not outlive the answer.
func TestUpcallLeavesNobody(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	text, err := Upcall{Map: "sleep 1000 & echo $! >" + pid + "; echo n1"}.New().Map(t.Context(), "g")
	if err != nil || strings.TrimSpace(text) != "n1" {
		t.Fatalf("%q, %v", text, err)
	}
	data, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	// It has been killed; whoever inherits it reaps it.
	for range 1000 {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(data)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		exec.Command("sleep", "0.01").Run()
	}
	t.Error("the child of the command is still there")
}

func TestUpcallCache(t *testing.T) {
	dir := write(t, map[string]string{"n": ""})
	count := func() int {
		data, err := os.ReadFile(dir + "/n")
		if err != nil {
			t.Fatal(err)
		}
		return len(data)
	}
	u := Upcall{Source: "s", Map: "printf x >>n; echo $GROUP", Dir: dir, Cache: time.Hour, CacheDir: dir + "/cache/groups"}
	ask := func(group string) {
		t.Helper()
		if text, err := u.New().Map(t.Context(), group); err != nil || text != group+"\n" {
			t.Errorf("%s: %q, %v", group, text, err)
		}
	}
	ask("a")
	ask("a")
	if n := count(); n != 1 {
		t.Errorf("asked twice for one group, the command ran %d times", n)
	}
	ask("b")
	if n := count(); n != 2 {
		t.Errorf("another group: %d runs, want 2", n)
	}
	entries, err := os.ReadDir(u.CacheDir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		path := filepath.Join(u.CacheDir, e.Name())
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	ask("a")
	if n := count(); n != 3 {
		t.Errorf("an old answer: %d runs, want 3", n)
	}
	u.Map = "printf x >>n; exit 1"
	u.New().Map(t.Context(), "a")
	u.New().Map(t.Context(), "a")
	if n := count(); n != 5 {
		t.Errorf("a failure is no answer to keep: %d runs, want 5", n)
	}
	u.Map, u.CacheDir = "printf x >>n; echo $GROUP", "/proc/nowhere"
	ask("a") // and no cache is no error
}

// Netgroups come from a getent of ours: the machine's has none.
func TestNetgroup(t *testing.T) {
	dir := write(t, map[string]string{"getent": `#!/bin/sh
case $2 in
lab) echo 'lab                   (n1,,) (n2,ops,example.com) (-,x,) (,y,)';;
bad) echo 'bad (n1)';;
broken) echo 'no nsswitch' >&2; exit 1;;
*) exit 2;;
esac
`})
	if err := os.Chmod(dir+"/getent", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if text, err := Netgroup().Map(t.Context(), "lab"); err != nil || text != "n1\nn2" {
		t.Errorf("%q, %v", text, err)
	}
	for group, want := range map[string]string{
		"none":   "there is no such group",
		"-x":     "there is no such group",
		"bad":    `getent netgroup bad: expected (host,user,domain), found "(n1)\n"`,
		"broken": `"getent netgroup broken": exit status 1: no nsswitch`,
	} {
		if _, err := Netgroup().Map(t.Context(), group); fmt.Sprint(err) != want {
			t.Errorf("%s: %v, want %s", group, err, want)
		}
	}
	if _, err := Netgroup().List(t.Context()); !errors.Is(err, ErrNoList) {
		t.Errorf("list: %v", err)
	}
}

// The examples of the package's comment, with programs that answer as slurm's and consul's do.
func TestExamples(t *testing.T) {
	dir := write(t, map[string]string{
		"sinfo": `#!/bin/sh
case "$*" in
"-h -o %N -p batch") echo 'node[1-4],gpu[1-2]';;
"-h -o %N") echo 'node[1-8],gpu[1-2]';;
"-h -o %R") printf 'batch\ndebug\n';;
"-h -N -o %R -n node1") printf 'batch\ndebug\n';;
esac
`,
		"consul": `#!/bin/sh
case "$*" in
"catalog nodes -service=web") printf 'Node  ID        Address    DC\nweb1  1a2b3c4d  192.0.2.1  dc1\nweb2  1a2b3c4e  192.0.2.2  dc1\n';;
"catalog services") printf 'consul\nweb\n';;
esac
`})
	for _, name := range []string{"sinfo", "consul"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	slurm := Upcall{Map: `sinfo -h -o %N -p "$GROUP"`, All: `sinfo -h -o %N`, List: `sinfo -h -o %R`, Rev: `sinfo -h -N -o %R -n "$NODE"`}.New()
	if diff := cmp.Diff("batch: node[1-4],gpu[1-2]\ndebug: \n* node[1-8],gpu[1-2]\n", told(t, slurm)); diff != "" {
		t.Errorf("slurm (-want +got):\n%s", diff)
	}
	if names, err := slurm.(Reverser).Reverse(t.Context(), "node1"); err != nil || !slices.Equal(names, []string{"batch", "debug"}) {
		t.Errorf("slurm, reverse: %q, %v", names, err)
	}
	consul := Upcall{Map: `consul catalog nodes -service="$GROUP" | awk "NR > 1 { print \$1 }"`, List: `consul catalog services`}.New()
	if diff := cmp.Diff("consul: \nweb: web1 web2\n", told(t, consul)); diff != "" {
		t.Errorf("consul (-want +got):\n%s", diff)
	}
}

func FuzzFiles(f *testing.F) {
	f.Add("lab: node[1-4]\n[web]\nwww[01:50] ansible_port=22\n[a:children]\nweb\n")
	f.Add("all:\n  hosts: {a: {ansible_user: x}}\n  children: {web: {hosts: {b: }}}\n")
	f.Add("node[1-4] mgmt,os=debian\n[Main]\ndefault: x\n[x]\nmap: y\n z\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := write(t, map[string]string{"f": text, "f.yml": text, "groups.conf": text})
		for _, s := range []Source{File(dir + "/f"), Genders(dir + "/f"), Ansible(dir + "/f"), Ansible(dir + "/f.yml"), Dsh(dir)} {
			names, err := s.List(t.Context())
			if err != nil {
				continue
			}
			for _, name := range names {
				if _, err := s.Map(t.Context(), name); errors.Is(err, ErrNoGroup) {
					t.Errorf("a group that is listed, %q, is none", name)
				}
			}
		}
		ClusterShell([]string{dir + "/groups.conf"}, "")
	})
}
