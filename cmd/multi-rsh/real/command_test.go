//go:build linux

package real

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"multirsh/transport/rig"
)

// A local script on real hosts: its arguments, its input, its status, a stop, and nothing of it left behind.
func TestScriptReal(t *testing.T) {
	r := hosts(t)
	onHosts(t, r, func(args ...string) outcome { return rsh(t, args...) })
	nothingLeft(t, r)
}

func TestScriptOverSSH(t *testing.T) {
	r := sshRig(t, 2)
	cfg := sshConfig(t, knownHosts(r, 1, 0))
	onHosts(t, r, func(args ...string) outcome { return run(t, "multi-rsh", overSSH(cfg, args...)...) })
}

// Whatever the login shell is, a script runs, with its arguments, its input and its status.
func TestScriptLoginShells(t *testing.T) {
	r := sshRig(t, 1)
	cfg := sshConfig(t, knownHosts(r, 0, 0))
	dir := t.TempDir()
	script, input := filepath.Join(dir, "tool.sh"), filepath.Join(dir, "input")
	for name, text := range map[string]string{script: "#!/bin/sh -e\nprintf '<%s>' \"$@\"; cat; exit 7\n", input: "in\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, shell := range rig.Shells() {
		t.Run(shell.Name, func(t *testing.T) {
			user := rig.ShellUser(t, shell.Name)
			o := run(t, "multi-rsh", "-R", "ssh", "-F", cfg, "-u", user, "-q", "-N", "-S", "-w", r.Hosts[0].Name, "--input", input, "--script", script, "a b", "it's", "$HOME", "")
			if want := "<a b><it's><$HOME><>in\n"; o.code != 7 || o.stdout != want {
				t.Errorf("%v\n%q, want %q", o, o.stdout, want)
			}
		})
	}
}

func onHosts(t *testing.T, r *rig.Rig, run func(args ...string) outcome) {
	t.Helper()
	dir, all, n := t.TempDir(), addresses(r, 1), len(r.Hosts)
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	filler := strings.Repeat("# not a line of any use to anybody, but a good many of them\n", 20000) // more than a pipe holds
	tool := write("tool.sh", "#!/bin/sh\n"+filler+`printf '<%s>' "$@"; wc -c; exit 9`+"\n")
	input := write("input", strings.Repeat("0123456789abcde\n", 1<<14))
	words := []string{"a b", "it's", "", "$HOME `id`", "back\\slash\\n", "two\nlines", "{x} \"*\" ;&|<>!#~"}
	want := "<" + strings.Join(words, "><") + ">"

	o := run(append([]string{"-q", "-N", "-p", "1", "-w", all, "--script", tool}, words...)...)
	if got := strings.Count(o.stdout, want+"0\n"); o.code != 1 || got != n {
		t.Errorf("%d of %d with all words and no input\n%v\n%q", got, n, o, tail(o.stdout))
	}
	o = run("-N", "-w", all, "--input", input, "--subst", "--script", tool, "{host}")
	if got := strings.Count(o.stdout, ">262144\n"); o.code != 1 || got != n || !strings.Contains(o.stderr, fmt.Sprintf("exit 9 (%d)", n)) {
		t.Errorf("%d of %d with the whole input\n%v\n%s", got, n, o, tail(o.stdout))
	}
	for _, h := range r.Hosts {
		if !strings.Contains(o.stdout, fmt.Sprintf("<%v>262144\n", h.Addr(1))) {
			t.Errorf("no %v in\n%s", h.Addr(1), tail(o.stdout))
		}
	}
	o = run(append([]string{"-q", "-N", "-p", "1", "-w", all, "--argv", "--", "printf", "<%s>"}, words...)...)
	if got := strings.Count(o.stdout, want); o.code != 0 || got != n {
		t.Errorf("%d of %d with all words\n%v\n%q", got, n, o, tail(o.stdout))
	}

	// A stop reaches it, and takes its file away.
	slow := write("slow.sh", "echo $0; exec 2>&-; sleep 1007\n")
	o = run("-q", "-N", "-t", "3", "-w", all, "--script", slow)
	kept := strings.Fields(o.stdout)
	if o.code != 1 || len(kept) != n {
		t.Fatalf("%d of %d began\n%v\n%s", len(kept), n, o, o.stdout)
	}
	if got := sleepers(t, r, "1007"); got != 0 {
		t.Errorf("%d commands still run", got)
	}
	for _, file := range kept { // the hosts share our /tmp, or have one each: then it is not here anyway
		until(t, "the script's directory is gone", func() bool {
			_, err := os.Stat(filepath.Dir(file))
			return os.IsNotExist(err)
		})
	}
}
