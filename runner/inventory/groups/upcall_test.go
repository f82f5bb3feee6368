package groups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUpcall(t *testing.T) {
	dir := write(t, map[string]string{"hosts": "n1\nn2\n"})
	u := Upcall{
		Source:  "s",
		Map:     `case $GROUP in web) cat "$CFGDIR/hosts";; quote) echo "$SOURCE"-1;; input) cat; echo none;; empty) ;; esac`,
		All:     "echo all[1-3]",
		List:    "echo web, quote; echo @empty web input; echo x >>listed",
		Rev:     `echo web of-"$NODE"`,
		Dir:     dir,
		Timeout: time.Minute,
	}
	s := u.New()
	if diff := cmp.Diff("web: n1 n2\nquote: s-1\nempty: \ninput: none\n* all[1-3]\n", told(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if data, err := os.ReadFile(dir + "/listed"); string(data) != "x\n" {
		t.Errorf("the names were asked for more than once, or never: %q, %v", data, err)
	}
	if names, err := s.(Reverser).Reverse(t.Context(), "n1"); err != nil || !slices.Equal(names, []string{"web", "of-n1"}) {
		t.Errorf("reverse: %q, %v", names, err)
	}
	if got, want := s.(Locator).Where("*", 0), `"echo all[1-3]"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, u := range []Upcall{{Map: "echo n1"}, {Map: "echo n1", All: "echo n1"}, {Map: "echo n1", Rev: "echo g"}} {
		s := u.New()
		_, all := s.(Aller)
		_, reverse := s.(Reverser)
		_, where := s.(Locator)
		if all != (u.All != "") || reverse != (u.Rev != "") || !where {
			t.Errorf("%+v: Aller %v, Reverser %v, Locator %v", u, all, reverse, where)
		}
		if _, err := s.List(t.Context()); !errors.Is(err, ErrNoList) {
			t.Errorf("list without a command: %v", err)
		}
	}
}

// What ClusterShell puts into its commands is put into ours, and nothing of a name comes to be run.
func TestUpcallTemplate(t *testing.T) {
	u := Upcall{Source: "s", Map: `echo '$GROUP' ${GROUP}x $$GROUP $SOURCE $NONE.`, Rev: "echo g-$NODE", Dir: t.TempDir(), Template: true}
	if got, want := mustMap(t, u.New(), "g"), "g gx g s .\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	u.Map = "touch ran; echo $GROUP"
	for _, name := range []string{"x;y", "x$y", "x`y`", "x y", "x'y", `x"y`, "x\ny", "x|y", "x>y", "x&y", "x*", "-x", "x\\y", "x\u00a0y", ""} {
		if _, err := u.New().Map(t.Context(), name); !errors.Is(err, ErrNoGroup) {
			t.Errorf("%q: %v", name, err)
		}
		if names, err := u.New().(Reverser).Reverse(t.Context(), name); names != nil || err != nil {
			t.Errorf("%q: %q, %v", name, names, err)
		}
	}
	if _, err := os.Stat(u.Dir + "/ran"); err == nil {
		t.Error("a command was run for such a name")
	}
	if names, err := u.New().(Reverser).Reverse(t.Context(), "fe80::1%eth0"); len(names) != 0 || err == nil { // a group cannot be called g-fe80::1%eth0
		t.Errorf("%q, %v", names, err)
	}
}

func TestUpcallFails(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, test := range []struct {
		name, command, want string
		ctx                 context.Context
		timeout             time.Duration
	}{
		{"exit status", "echo no >&2; echo 'cannot reach\tslurmctld' >&2; exit 3", `"echo no >&2; echo 'cannot reach slurmctld' >&2; exit 3": exit status 3: cannot reach?slurmctld`, t.Context(), 0},
		{"exit status alone", "echo n1; exit 3", `"echo n1; exit 3": exit status 3`, t.Context(), 0},
		{"signal", "kill -SEGV $$", `"kill -SEGV $$": signal: segmentation fault`, t.Context(), 0},
		{"not there", "no-such-program", `"no-such-program": exit status 127: /bin/sh: 1: no-such-program: not found`, t.Context(), 0},
		{"hangs", "echo n1; sleep 1000", `"echo n1; sleep 1000": it was not done within 100ms`, t.Context(), 100 * time.Millisecond},
		{"hangs, and traps", "trap '' TERM INT HUP; sleep 1000 & wait", `"trap '' TERM INT HUP; sleep 1000 & wait": it was not done within 100ms`, t.Context(), 100 * time.Millisecond},
		{"late", "sleep 1000", `"sleep 1000": it was not done in time`, late, 0},
		{"cancelled", "sleep 1000", `"sleep 1000": context canceled`, cancelled, 0},
		{"endless", "cat /dev/zero", `"cat /dev/zero": it printed more than 67108864 bytes`, t.Context(), 0},
		{"endless errors", "yes oh no | head -c 6000000 >&2; exit 1", `"yes oh no | head -c 6000000 >&2; exit 1": exit status 1: oh no`, t.Context(), 0},
		{"binary", `printf 'n1\n\000'`, `"printf 'n1\\n\\000'": line 2 of what it printed: there is a NUL byte here: groups are read from UTF-8 text`, t.Context(), 0},
		{"prints nothing", "true", `there is no such group, or it is empty: "true" printed nothing`, t.Context(), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := Upcall{Map: test.command, Timeout: test.timeout}
			_, err := u.New().Map(test.ctx, "g")
			if got := fmt.Sprint(err); got != test.want {
				t.Errorf("\ngot  %s\nwant %s", got, test.want)
			}
			if test.ctx == late && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no context.DeadlineExceeded", err)
			}
		})
	}
	if _, err := (Upcall{Map: "x", List: "echo 'a b;c'"}).New().List(t.Context()); fmt.Sprint(err) != `"echo 'a b;c'" printed "b;c", which is no name of a group` {
		t.Errorf("a list of no names: %v", err)
	}
	if _, err := (Upcall{Map: "x", Dir: "/no/such"}).New().Map(t.Context(), "g"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// No child of a command holds anybody up or outlives the answer, whether it has the output open or not, and whether the command ended or was killed.
func TestUpcallLeavesNobody(t *testing.T) {
	for name, command := range map[string]string{
		"output open":     "sleep 1000 & echo $! >pid; echo n1",
		"output closed":   "sleep 1000 >/dev/null 2>&1 & echo $! >pid; echo n1",
		"killed":          "sleep 1000 & echo $! >pid; echo n1; wait",
		"killed, deeper":  "(sleep 1000 & echo $! >pid; wait) & wait",
		"too much output": "sleep 1000 & echo $! >pid; cat /dev/zero",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := Upcall{Map: command, Dir: t.TempDir(), Timeout: 3 * time.Second}
			text, err := u.New().Map(t.Context(), "g")
			if failed := strings.HasPrefix(name, "killed") || strings.HasPrefix(name, "too"); (err != nil) != failed || !failed && text != "n1\n" {
				t.Errorf("%q, %v", text, err)
			}
			data, err := os.ReadFile(filepath.Join(u.Dir, "pid"))
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
		})
	}
}

// The examples of the package's comment, with programs that answer as slurm's and consul's do.
func TestExamples(t *testing.T) {
	fakeProgram(t, "sinfo", `case "$*" in
"-h -o %N -p batch") echo 'node[1-4],gpu[1-2]';;
"-h -o %N") echo 'node[1-8],gpu[1-2]';;
"-h -o %R") printf 'batch\ndebug\n';;
"-h -N -o %R -n node1") printf 'batch\ndebug\n';;
*-p*) ;; # of a partition that is not there it says nothing
*) exit 1;;
esac
`)
	fakeProgram(t, "squeue", `case "$*" in
"-h -t R -o %N -j 4711") echo 'node[1-4]';;
"-h -t R -o %i") printf '4711\n4712_3\n';;
"-h -t R -o %i -w node1") echo 4711;;
*) echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1;;
esac
`)
	fakeProgram(t, "consul", `case "$*" in
"catalog nodes -service=web") printf 'Node  ID        Address    DC\nweb1  1a2b3c4d  192.0.2.1  dc1\nweb2  1a2b3c4e  192.0.2.2  dc1\n';;
"catalog nodes -service="*) echo "No nodes match the given query - try expanding your search";;
"catalog nodes") printf 'Node  ID        Address    DC\ndb1   1a2b3c4d  192.0.2.1  dc1\nweb1  1a2b3c4d  192.0.2.1  dc1\nweb2  1a2b3c4e  192.0.2.2  dc1\n';;
"catalog services") printf 'consul\nweb\n';;
*) exit 1;;
esac
`)
	examples := readExamples(t)
	for name, want := range map[string]string{
		"slurm":  "batch: node[1-4],gpu[1-2]\ndebug: \n* node[1-8],gpu[1-2]\n",
		"consul": "consul: \nweb: web1 web2\n* db1 web1 web2\n",
	} {
		if diff := cmp.Diff(want, told(t, examples[name].New())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if names, err := examples["slurm"].New().(Reverser).Reverse(t.Context(), "node1"); err != nil || !slices.Equal(names, []string{"batch", "debug"}) {
		t.Errorf("slurm, reverse: %q, %v", names, err)
	}
	jobs := examples["job"].New()
	if got := mustMap(t, jobs, "4711"); got != "node[1-4]\n" {
		t.Errorf("a job: %q", got)
	}
	if names, err := jobs.List(t.Context()); err != nil || !slices.Equal(names, []string{"4711", "4712_3"}) {
		t.Errorf("jobs: %q, %v", names, err)
	}
	if names, err := jobs.(Reverser).Reverse(t.Context(), "node1"); err != nil || !slices.Equal(names, []string{"4711"}) {
		t.Errorf("jobs of a node: %q, %v", names, err)
	}
	if _, err := jobs.Map(t.Context(), "1"); err == nil || !strings.HasSuffix(err.Error(), "exit status 1: slurm_load_jobs error: Invalid job id specified") {
		t.Errorf("no job: %v", err)
	}
}

// readExamples reads the sources that the package's comment has as examples, word for word.
func readExamples(t *testing.T) map[string]Upcall {
	t.Helper()
	data, err := os.ReadFile("groups.go")
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string]Upcall{}
	name := ""
	for _, line := range lines(string(data)) {
		line, is := strings.CutPrefix(line, "//\t")
		if !is {
			name = ""
			continue
		}
		if header, is := strings.CutPrefix(line, "[groups.source."); is {
			name, _, _ = strings.Cut(header, "]")
			examples[name] = Upcall{Source: name}
			continue
		}
		key, value, is := strings.Cut(line, "=")
		if name == "" || !is {
			continue
		}
		value, _, _ = strings.Cut(value, "'   ")            // and a comment
		value = strings.Trim(strings.TrimSpace(value), "'") // TOML's literal strings
		u := examples[name]
		switch strings.TrimSpace(key) {
		case "map":
			u.Map = value
		case "all":
			u.All = value
		case "list":
			u.List = value
		case "reverse":
			u.Rev = value
		}
		examples[name] = u
	}
	return examples
}
