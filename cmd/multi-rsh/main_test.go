package main

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// The test binary is the program when it is called by its name: in the scripts, and in tests that need a process to signal. It
// does not see the configuration of the user or of the machine: TEST_ETC is to it what /etc is to the program, and who does
// not set it wants none.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_ETC") == "" {
		os.Setenv("MULTI_RSH_CONFIG", "none")
	}
	testscript.Main(m, map[string]func(){"multi-rsh": func() {
		e := process()
		e.Etc = cmp.Or(os.Getenv("TEST_ETC"), "/no-etc")
		os.Exit(run(e))
	}})
}

// The scripts show every option, exit status and mistake, on local commands (-R exec) and, in ssh*.txtar, on an sshd of
// package sshtest. Beside testscript's own commands they have sshCommands and
//
//	exits N program args...    run it, and expect exit status N
//
// UPDATE_SCRIPTS=1 has the files that they compare rewritten from what the program said.
func TestScript(t *testing.T) {
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"exits": func(script *testscript.TestScript, negated bool, args []string) {
			if negated || len(args) < 2 {
				script.Fatalf("usage: exits status program [args...]")
			}
			want, err := strconv.Atoi(args[0])
			script.Check(err)
			got := 0
			if err := script.Exec(args[1], args[2:]...); err != nil {
				exit := (*exec.ExitError)(nil)
				if !errors.As(err, &exit) {
					script.Fatalf("%v", err)
				}
				got = exit.ExitCode()
			}
			if got != want {
				script.Fatalf("exit status %d, want %d", got, want)
			}
		},
	}
	maps.Copy(commands, sshCommands)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(script *testscript.Env) error {
			for _, o := range runLine.options {
				if v := o.variable(); v != "" {
					script.Setenv(v, "")
				}
			}
			script.Setenv("WCOLL", "")
			script.Setenv("HOME", script.WorkDir+"/home")
			script.Setenv("TEST_ETC", script.WorkDir+"/etc")
			script.Setenv("MULTI_RSH_SSH_CONFIG", "none")
			script.Setenv("GORACE", "atexit_sleep_ms=10") // else each program of a -race test sleeps for a second at its end
			script.Setenv("XDG_STATE_HOME", script.WorkDir)
			return nil
		},
		Cmds: commands,
	})
}

// Every option is used in a script.
func TestScriptsUseEveryOption(t *testing.T) {
	var all strings.Builder
	files, err := os.ReadDir("testdata/script")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile("testdata/script/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		all.Write(txtar.Parse(text).Comment) // without the files, in which are our own pages
	}
	for _, o := range runLine.options {
		for _, letter := range o.letters {
			if !strings.Contains(all.String(), " -"+string(letter)) {
				t.Errorf("no script uses -%c", letter)
			}
		}
		if !regexp.MustCompile(` --` + o.name + `[ =\n]`).MatchString(all.String()) {
			t.Errorf("no script uses --%s", o.name)
		}
	}
}
