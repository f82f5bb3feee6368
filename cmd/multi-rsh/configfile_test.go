package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// writeConfig writes a user's configuration and returns the environment of the user.
func writeConfig(t testing.TB, text string) (environment map[string]string, name string) {
	t.Helper()
	home := t.TempDir()
	name = filepath.Join(home, ".config", "multi-rsh", "config.toml")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"HOME": home}, name
}

// The command line goes before the environment, this before the configuration, and one that is settled needs no other.
func TestConfigurePrecedence(t *testing.T) {
	const text = `fanout = 5
user = "ops"
merge = true
timeout = 1.5
connect-timeout = "2m"
inventory = ["a", "/b", "~/c"]
limit-by = "rack=2"
askpass-command = "pass x"
ssh-config = "none"
legacy = false
`
	for _, test := range []struct {
		args []string
		env  map[string]string
		want func(c *config)
	}{
		{args: []string{"id", "h1"}, want: func(c *config) {}},
		{args: []string{"-p6", "--merge=no", "--limit-by", "row=3", "--limit-by", "rack=1", "id", "h1"}, want: func(c *config) {
			c.fanout, c.merge, c.limits = 6, false, []labelLimit{{"row", 3}, {"rack", 1}}
		}},
		{args: []string{"-p6", "id", "h1"}, env: map[string]string{"MULTI_RSH_FANOUT": "7", "MULTI_RSH_USER": "me"}, want: func(c *config) {
			c.fanout, c.user = 6, "me"
		}},
		{args: []string{"--inventory=/x", "--inventory", "y", "id", "h1"}, want: func(c *config) { c.inventory = []string{"/x", "y"} }},
		{args: []string{"--ask-pass", "id", "h1"}, want: func(c *config) { c.askPass, c.askpassCommand = true, "" }},
		{args: []string{"id", "h1"}, env: map[string]string{"MULTI_RSH_ASK_PASS": "1"}, want: func(c *config) { c.askPass, c.askpassCommand = true, "" }},
	} {
		environment, name := writeConfig(t, text)
		dir := filepath.Dir(name)
		want := base(func(c *config) {
			c.fanout, c.user, c.merge, c.timeout, c.connectTimeout = 5, "ops", true, 1500*time.Millisecond, 2*time.Minute
			c.inventory = []string{dir + "/a", "/b", environment["HOME"] + "/c"}
			c.limits = []labelLimit{{"rack", 2}}
			c.askpassCommand, c.sshConfig = "pass x", "none"
		})
		test.want(want)
		for name, value := range test.env {
			environment[name] = value
		}
		got, err := configureWith(environment, test.args...)
		if err != nil {
			t.Errorf("%q %v: %v", test.args, test.env, err)
			continue
		}
		got.files = nil
		if diff := diffConfigs(want, got); diff != "" {
			t.Errorf("%q %v (-want +got):\n%s", test.args, test.env, diff)
		}
	}
}

// The user's file goes before the machine's, and --config takes the place of both.
func TestConfigFiles(t *testing.T) {
	environment, name := writeConfig(t, "fanout = 5\n")
	etc := t.TempDir()
	machine := filepath.Join(etc, "multi-rsh", "config.toml")
	if err := os.MkdirAll(filepath.Dir(machine), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(machine, []byte("fanout = 6\nuser = 'ops'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		home   string
		fanout int
		user   string
	}{
		{[]string{"id", "h1"}, environment["HOME"], 5, "ops"},
		{[]string{"id", "h1"}, "", 6, "ops"},
		{[]string{"--config", "none", "id", "h1"}, environment["HOME"], 64, ""},
		{[]string{"--config", name, "id", "h1"}, environment["HOME"], 5, ""},
	} {
		e := testEnv(map[string]string{"HOME": test.home}, test.args...)
		e.Etc = etc
		c, err := e.configure()
		if err != nil {
			t.Fatalf("%q: %v", test.args, err)
		}
		if c.fanout != test.fanout || c.user != test.user {
			t.Errorf("%q, HOME=%s: fan-out %d, user %q, want %d, %q", test.args, test.home, c.fanout, c.user, test.fanout, test.user)
		}
	}
}

// A mistake in a configuration is answered with its place, and what to write instead. CONFIG stands for the file.
func TestConfigRefuses(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"fanout = \n", `CONFIG:1: expected value but found '\n' instead`},
		{"a = 1\na = 2\n", `CONFIG:2: Key 'a' has already been defined.`},
		{"\n# x\nfanot = 3\n", `CONFIG:3: there is no setting fanot; did you mean fanout?`},
		{"connect_timeout = 3\n", `CONFIG:1: there is no setting connect_timeout; did you mean connect-timeout?`},
		{"host = 3\n", `CONFIG:1: there is no setting host; did you mean hosts?`},
		{"a = 3\n", `CONFIG:1: there is no setting a; multi-rsh --man lists them under CONFIGURATION`},
		{"zzzzzz = 3\n", `CONFIG:1: there is no setting zzzzzz; multi-rsh --man lists them under CONFIGURATION`},
		{"help = true\n", `CONFIG:1: there is no setting help; multi-rsh --man lists them under CONFIGURATION`},
		{"legacy = true\n", `CONFIG:1: legacy is not heeded: ` + byHandAlone + `; remove it, and write --legacy where you mean it`},
		{"all = true\n", `CONFIG:1: all is not heeded: ` + byHandAlone + `; remove it, and write --all where you mean it`},
		{"all = false\n", `CONFIG:1: all is about one run, so it is no setting; remove it, and write --all where you mean it`},
		{"ssh-option = 'Port=1'\n", `CONFIG:1: ssh-option is not heeded: ` + byHandAlone + `; remove it, and write --ssh-option KEY=VALUE where you mean it`},
		{"hosts = 'n1'\n", `CONFIG:1: hosts is about one run, so it is no setting; remove it, and write --hosts EXPR where you mean it`},
		{"pick = 3\n", `CONFIG:1: pick is about one run, so it is no setting; remove it, and write --pick N where you mean it`},
		{"host-keys = 'insecure-ignore'\n", `CONFIG:1: host-keys=insecure-ignore is not heeded: ` + byHandAlone + `; remove it, and write --host-keys insecure-ignore where you mean it`},

		{"fanout = 0\n", `CONFIG:1: fanout "0": this is how many hosts run at once, a whole number from 1, as 64`},
		{"fanout = true\n", `CONFIG:1: fanout is a text or a number, and this is true or false`},
		{"fanout = [3]\n", `CONFIG:1: fanout has one value, and this is a list; write fanout = "N"`},
		{"user = 1979-05-27\n", `CONFIG:1: user is a text or a number, and this is a date`},
		{"[user]\n", `CONFIG:1: user is a text or a number, and this is a table`},
		{"user = ''\n", `CONFIG:1: user is empty; remove it, or say what it is to be`},
		{"user = '-x'\n", `CONFIG:1: user "-x": a user's name does not begin with a dash, and has no blanks in it and nothing that a shell gives a meaning`},
		{"user = 'a$b'\n", `CONFIG:1: user "a$b": a user's name does not begin with a dash, and has no blanks in it and nothing that a shell gives a meaning`},
		{"merge = 'yes'\n", `CONFIG:1: merge is a switch: write merge = true or merge = false, without quotes`},
		{"timeout = 'soon'\n", `CONFIG:1: timeout "soon": ` + timeHint},
		{"transport = 'rhs'\n", `CONFIG:1: transport rhs: there is no such transport; it is ssh, rsh or exec`},
		{"limit-by = ['rack']\n", `CONFIG:1: limit-by "rack": this is a label and how many of the hosts with the same value of it run at once, as rack=2`},

		{"[hosts]\nmatch = 'x'\n", `CONFIG:1: there may be several of these; write [[hosts]], with two brackets`},
		{"fanout = 3\n[[hosts]]\nuser = 'x'\n", `CONFIG:2: this [[hosts]] says of no host that it is meant; add match = "@rack1" or the like`},
		{"[[hosts]]\nmatch = 'x'\nusr = 'x'\n", `CONFIG:3: there is no usr in [[hosts]]; did you mean user?`},
		{"[[hosts]]\nmatch = 'x'\ncolour = 'x'\n", `CONFIG:3: there is no colour in [[hosts]]: there is match, transport, user, port, addr, jump, label, fanout`},
		{"[[hosts]]\nmatch = 'x'\nmerge = true\n", `CONFIG:3: merge is a setting of the run, and [[hosts]] has none of that name; move it up, before the first line that begins with '['`},
		{"[[hosts]]\nmatch = 1\n", `CONFIG:2: match is a text, and this is a number; write match = "..."`},
		{"[[hosts]]\nmatch = 'x'\nport = '22'\n", `CONFIG:3: port is a whole number from 1 to 65535, without quotes, as port = 22`},
		{"[[hosts]]\nmatch = 'x'\nport = 65536\n", `CONFIG:3: port is a whole number from 1 to 65535, without quotes, as port = 22`},
		{"[[hosts]]\nmatch = 'x'\nfanout = 0\n", `CONFIG:3: fanout is a whole number from 1, without quotes, as fanout = 8`},
		{"[[hosts]]\nmatch = 'x'\ntransport = 'telnet'\n", `CONFIG:3: there is no transport "telnet"; it is ssh, rsh or exec`},
		{"[[hosts]]\nmatch = 'x'\nlabel = 'r1'\n", `CONFIG:3: label is a table, as label = {rack = "r1"}, and this is a text`},
		{"[[hosts]]\nmatch = 'x'\n[hosts.label]\nrack = true\n", `CONFIG:4: rack is a text or a number, and this is true or false`},

		{"groups = 3\n", `CONFIG:1: groups is a section; write [groups]`},
		{"[groups]\nfanout = 3\n", `CONFIG:2: fanout is a setting of the run, and [groups] has none of that name; move it up, before the first line that begins with '['`},
		{"[groups]\ndefalt = 'x'\n", `CONFIG:2: there is no defalt in [groups]; did you mean default?`},
		{"[groups]\ntimeout = -1\n", `CONFIG:2: timeout = "-1": a time is a number of seconds above 0 or as 2m, 1h30m, 500ms`},
		{"[groups.source]\nx = 'y'\n", `CONFIG:2: write each source as a section, as [groups.source.x]`},
		{"[groups.source.hosts]\nmap = 'y'\n", `CONFIG:1: "hosts" is no name for a source: letters, digits, '_' and '-', and not "hosts", which are the sections of the hosts files`},
		{"[groups.source.'a b']\nmap = 'y'\n", `CONFIG:1: "a b" is no name for a source: letters, digits, '_' and '-', and not "hosts", which are the sections of the hosts files`},
		{"\n[groups.source.x]\n", `CONFIG:2: [groups.source.x] does not say where its groups are; add map = "COMMAND", or one of file, genders, dsh, netgroup, ansible, clustershell`},
		{"[groups.source.x]\nlist = 'y'\n", `CONFIG:1: [groups.source.x] has no map, the command that prints the hosts of the group $GROUP; add map = "COMMAND"`},
		{"[groups.source.x]\nmapp = 'y'\n", `CONFIG:2: there is no mapp in [groups.source.x]; did you mean map?`},
		{"[groups.source.x]\nmap = 'y'\nfile = 'z'\n", `CONFIG:1: [groups.source.x] is one source, and file and commands are two; write a section for each`},
		{"[groups.source.x]\ngenders = 'y'\nfile = 'z'\n", `CONFIG:3: [groups.source.x] is one source, and genders and file are two; write a section for each`},
		{"[groups.source.x]\nfile = 'z'\ncache = 3\n", `CONFIG:1: timeout and cache are for commands, and [groups.source.x] is file`},
		{"[groups.source.x]\nfile = true\n", `CONFIG:2: file is the name of a file, as file = "lab.groups"`},
		{"[groups.source.x]\nnetgroup = 'y'\n", `CONFIG:2: netgroups come from getent; write netgroup = true`},
		{"[groups.source.x]\ngenders = 3\n", `CONFIG:2: genders is the name of a file, or true for the usual place`},
		{"a = '" + strings.Repeat("x", maxConfig) + "'", `CONFIG has more than 1048576 bytes, so it is no configuration; hosts belong in a hosts file`},
	} {
		environment, name := writeConfig(t, test.text)
		_, err := configureWith(environment, "id", "h1")
		if err == nil {
			t.Errorf("%.80q: accepted", test.text)
			continue
		}
		if _, is := err.(*usageError); !is {
			t.Errorf("%.80q: no usageError: %v", test.text, err)
		}
		if diff := cmp.Diff(test.want, strings.ReplaceAll(err.Error(), name, "CONFIG")); diff != "" {
			t.Errorf("%.80q (-want +got):\n%s", test.text, diff)
		}
	}
}

// The places of [[hosts]] are those of their matches, and no two are the same.
func TestConfigPlaces(t *testing.T) {
	_, name := writeConfig(t, "[[hosts]]\n\nmatch = 'a'\n[[hosts]]\nuser = 'x'\nmatch = 'b'\n")
	_, inline := writeConfig(t, "\nhosts = [{match = 'a'}, {match = 'b'}, {match = 'c'}]\n")
	var got []string
	for _, name := range []string{name, inline} {
		f, err := readConfig(name, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range f.hosts {
			got = append(got, strings.ReplaceAll(h.place, name, "CONFIG")+" "+h.match)
		}
	}
	if diff := cmp.Diff([]string{"CONFIG:3 a", "CONFIG:6 b", "CONFIG:2 a", "CONFIG:2, table 2 b", "CONFIG:2, table 3 c"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Whoever may write to the file could have us run anything.
func TestConfigOfOthers(t *testing.T) {
	environment, name := writeConfig(t, "fanout = 3\n")
	for _, mode := range []os.FileMode{0o620, 0o602} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		want := name + " may be written to by others, who could have it run anything as you: chmod go-w " + name
		if _, err := configureWith(environment, "id", "h1"); err == nil || err.Error() != want {
			t.Errorf("mode %o: %v, want %s", mode, err, want)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root can give a file to somebody else: run this as root")
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	want := name + " belongs to user 12345, who could have it run anything as you: chown it to yourself"
	if _, err := configureWith(environment, "id", "h1"); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// What is no file is not waited for, but for what a shell has opened for us.
func TestConfigIsNoFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fifo, "/dev/zero", "/dev/tty"} {
		if _, err := readConfig(name, ""); err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s: %v, want an error with the name", name, err)
		}
	}
	if f, err := readConfig(os.DevNull, ""); err != nil || len(f.options) > 0 {
		t.Errorf("%s: %v", os.DevNull, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("fanout = 3\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if f, err := readConfig(fmt.Sprintf("/dev/fd/%d", r.Fd()), ""); err != nil || len(f.options) != 1 {
		t.Errorf("a pipe of the shell's: %v", err)
	}
}

// Whatever a configuration says, it is understood or refused with a sentence of ours.
func FuzzConfig(f *testing.F) {
	f.Add("fanout = 3\nmerge = true\n[[hosts]]\nmatch = 'a'\nport = 3\nlabel.a = 'b'\n")
	f.Add("[groups]\ndefault = 'x'\n[groups.source.x]\nmap = 'y'\ncache = 3\n")
	f.Add("hosts = [{match = 'a'}]\ngroups.source = {x = {dsh = ['a', 'b']}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := readTable(text, "x")
		if err != nil {
			return
		}
		r := &configReader{configFile: configFile{name: "x"}}
		if err := r.root(root); err != nil && !strings.HasPrefix(err.Error(), "x:") {
			t.Errorf("without its place: %v", err)
		}
	})
}
