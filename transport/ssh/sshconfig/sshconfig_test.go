package sshconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// home makes a home directory and a directory of the system, with files in them by their paths below either.
func home(t testing.TB, files map[string]string) Sources {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return Sources{Home: filepath.Join(dir, "home"), System: filepath.Join(dir, "etc/ssh_config"), LocalUser: "me", LocalHost: "here.example"}
}

func TestSources(t *testing.T) {
	s := home(t, map[string]string{
		"home/.ssh/config":        "User a\nInclude conf.d/*\nInclude ~/more",
		"home/.ssh/conf.d/1":      "Port 1",
		"home/more":               "IdentityFile ~/%L/%u\nBindInterface i",
		"etc/ssh_config":          "User b\nInclude ssh_config.d/*.conf\nSendEnv LANG",
		"etc/ssh_config.d/1.conf": "BindAddress 192.0.2.1\nBindInterface j\nPort 2",
		"file":                    "User c",
	})
	for _, c := range []struct {
		name, file, want string
	}{
		{"both files", "", `
			user a
			port 1
			identityfile ` + s.Home + `/here/me
			bindaddress 192.0.2.1
			bindinterface i
			sendenv LANG`},
		{"no file", "none", "user me\nport 22\nsendenv"},
		{"another file", filepath.Join(s.Home, "../file"), "user c\nport 22\nsendenv"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s
			s.File = c.file
			got, err := settings(t, s, Target{Host: "h"})
			if err != nil {
				t.Fatal(err)
			}
			compare(t, dump(got), parseDump(c.want), "the expectation")
		})
	}

	t.Run("missing files", func(t *testing.T) {
		if _, err := Read(home(t, nil)); err != nil {
			t.Error(err)
		}
	})
	t.Run("a missing file that was asked for", func(t *testing.T) {
		s := s
		s.File = filepath.Join(s.Home, "nothing")
		wantError(t, s, s.File+" does not exist: correct -F")
	})
	t.Run("no home in the system's files", func(t *testing.T) {
		wantError(t, home(t, map[string]string{"etc/ssh_config": "Include ~/x"}), "etc/ssh_config:1: Include ~/x: the system has no home directory")
	})
	t.Run("nothing given", func(t *testing.T) {
		var s Sources
		if err := s.complete(); err != nil {
			t.Skipf("this user needs a line in /etc/passwd: %v", err)
		}
		if s.Home == "" || s.LocalUser == "" || s.LocalHost == "" || s.System != "/etc/ssh/ssh_config" {
			t.Errorf("%+v", s)
		}
	})
}

func wantError(t *testing.T, s Sources, want string) {
	t.Helper()
	if _, err := Read(s); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one with %q", err, want)
	}
}

// Who may write to a file of the user's may have ssh run any command.
func TestPermissions(t *testing.T) {
	files := map[string]string{"home/.ssh/config": "Include more", "home/.ssh/more": "Port 1", "etc/ssh_config": "Port 2"}
	for _, c := range []struct {
		name    string
		mode    os.FileMode
		refused bool
	}{
		{"home/.ssh/config", 0o644, false},
		{"home/.ssh/config", 0o602, true},
		{"home/.ssh/more", 0o606, true},
		{"etc/ssh_config", 0o666, false}, // the system's own business
	} {
		t.Run(fmt.Sprintf("%s %#o", c.name, c.mode), func(t *testing.T) {
			s := home(t, files)
			name := filepath.Join(s.Home, "..", c.name)
			if err := os.Chmod(name, c.mode); err != nil {
				t.Fatal(err)
			}
			if c.refused {
				wantError(t, s, "may be written to by others, who could have it run anything as you: chmod go-w "+name)
			} else if _, err := Read(s); err != nil {
				t.Error(err)
			}
			s.File = filepath.Join(s.Home, ".ssh/config") // what -F names is the user's own choice, but not what it includes
			if _, err := Read(s); (err != nil) != (c.name == "home/.ssh/more") {
				t.Errorf("by -F: %v", err)
			}
		})
	}
	t.Run("of another user", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("giving a file away needs root: run the tests as root")
		}
		s := home(t, files)
		if err := os.Chown(filepath.Join(s.Home, ".ssh/config"), 12345, 0); err != nil {
			t.Fatal(err)
		}
		wantError(t, s, "belongs to user 12345")
	})
	t.Run("of a group of several", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("giving a file away needs root: run the tests as root")
		}
		s := home(t, files)
		name := filepath.Join(s.Home, ".ssh/config")
		if err := errors.Join(os.Chown(name, 0, 12345), os.Chmod(name, 0o660)); err != nil {
			t.Fatal(err)
		}
		wantError(t, s, "chmod go-w "+name)
	})
}

func TestIsPrivateGroup(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skipf("this user needs a line in /etc/passwd: %v", err)
	}
	for _, c := range []struct {
		groups string
		want   bool
	}{
		{me.Username + ":x:77:\n", true},
		{"other:x:76:\n" + me.Username + ":x:77:" + me.Username, true},
		{me.Username + ":x:77:other\n", false},
		{me.Username + ":x:77:" + me.Username + ",other\n", false},
		{"staff:x:77:\n", false},
		{me.Username + ":x:76:\n", false},
	} {
		database := filepath.Join(t.TempDir(), "group")
		write(t, database, c.groups)
		if got := isPrivateGroup(77, uint32(os.Getuid()), database); got != c.want {
			t.Errorf("%q: %v", c.groups, got)
		}
	}
	if isPrivateGroup(77, uint32(os.Getuid()), "/nonexistent") {
		t.Error("a group that nobody knows")
	}
}

func TestTargetTokens(t *testing.T) {
	s := home(t, map[string]string{"home/.ssh/config": "ProxyJump a,b@%h-gate\nIdentityFile /%j/%C"})
	got, err := settings(t, s, Target{Host: "h", User: "u", Port: 7})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Jump{{Host: "a"}, {User: "b", Host: "h-gate"}}, got.ProxyJump); diff != "" {
		t.Error(diff)
	}
	// printf here.exampleh7u%%h-gate | sha1sum
	if diff := cmp.Diff([]string{"/%h-gate/7be25ffd42d2c98082f30eb8da11e536e95d7a6c"}, got.IdentityFiles); diff != "" {
		t.Error(diff)
	}
}

// execConfig is a configuration with one Match exec line.
func execConfig(t *testing.T, command string) *Config {
	t.Helper()
	t.Setenv("SHELL", "/bin/sh")
	c, err := Read(home(t, map[string]string{"home/.ssh/config": "Match exec \"" + command + "\"\nPort 1"}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// One command runs once, however many targets ask for it at the same time.
func TestExecOnce(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	c := execConfig(t, "echo %h >>"+log+"; test %h != b")
	var wg sync.WaitGroup
	for range 20 {
		for host, port := range map[string]uint16{"a": 1, "b": 22} {
			wg.Go(func() {
				s, err := c.For(t.Context(), Target{Host: host})
				if err != nil {
					t.Error(err)
				} else if s.Port != port {
					t.Errorf("%s: port %d, want %d", host, s.Port, port)
				}
			})
		}
	}
	wg.Wait()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	ran := strings.Fields(string(text))
	slices.Sort(ran)
	if diff := cmp.Diff([]string{"a", "b"}, ran); diff != "" {
		t.Error(diff)
	}
}

func TestExecLimit(t *testing.T) {
	c := execConfig(t, "sleep 1000")
	c.execs.limit = time.Millisecond
	_, err := c.For(t.Context(), Target{Host: "h"})
	if err == nil || !strings.Contains(err.Error(), `config:1: Match: exec "sleep 1000" was not done within 1ms`) {
		t.Errorf("error %v", err)
	}
}

// fifos makes named pipes.
func fifos(t *testing.T, names ...string) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Skipf("this needs a file system with named pipes: set TMPDIR to one: %v", err)
		}
		paths = append(paths, path)
	}
	return paths
}

// What a command has started is killed with it.
func TestExecIsKilled(t *testing.T) {
	fifo := fifos(t, "fifo")[0]
	c := execConfig(t, "sleep 1000 >"+fifo+" & wait")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.For(ctx, Target{Host: "h"})
		done <- err
	}()
	f, err := os.Open(fifo) // when the child has it open
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := io.ReadAll(f); err != nil { // ends when nobody has it open any more
		t.Error(err)
	}
}

// A target that is given up does not decide for the others.
func TestExecCancel(t *testing.T) {
	paths := fifos(t, "begun", "proceed")
	begun, proceed := paths[0], paths[1]
	c := execConfig(t, "echo >"+begun+"; read x <"+proceed)
	gaveUp := errors.New("given up")
	ctx, cancel := context.WithCancelCause(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.For(ctx, Target{Host: "h"})
		first <- err
	}()
	if _, err := os.ReadFile(begun); err != nil { // ends when the command has begun
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		s, err := c.For(t.Context(), Target{Host: "h"})
		if err == nil && s.Port != 1 {
			err = fmt.Errorf("port %d", s.Port)
		}
		second <- err
	}()
	cancel(gaveUp)
	if err := <-first; !errors.Is(err, gaveUp) {
		t.Errorf("the first: %v", err)
	}
	if _, err := os.ReadFile(begun); err != nil { // the second runs it anew
		t.Fatal(err)
	}
	if err := os.WriteFile(proceed, []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
	// And its result stays.
	if _, err := c.For(t.Context(), Target{Host: "h"}); err != nil {
		t.Error(err)
	}
}

func TestExecShell(t *testing.T) {
	c := execConfig(t, "true")
	t.Setenv("SHELL", "/nonexistent/shell")
	if _, err := c.For(t.Context(), Target{Host: "h"}); err == nil || !strings.Contains(err.Error(), "/nonexistent/shell") {
		t.Errorf("error %v", err)
	}
}

// random makes configurations out of pieces that act on each other, for which no expectation is written down: only ssh -G knows.
func random(number uint64) string {
	next := func(n uint64) uint64 { // Knuth's linear generator, so that a number means the same configuration for ever
		number = number*6364136223846793005 + 1442695040888963407
		return number >> 33 % n
	}
	pick := func(of ...string) string { return of[next(uint64(len(of)))] }
	var out strings.Builder
	for range 2 + next(12) {
		switch next(5) {
		case 0:
			out.WriteString("Host " + pick("*", "h", "x", "h.example", "*.example", "!h *", "* !x", "x h", "h?example") + "\n")
		case 1:
			out.WriteString("Match " + pick("", "", "!") + pick("host h", "host *.example", "originalhost h", "user a", "user b,root", "localuser root",
				"host H,!x", "originalhost *,!h", "exec \"test %h = h\"", "exec \"test %p = 1\"", "final", "canonical", "all"))
			if next(4) == 0 {
				out.WriteString(" " + pick("user a", "host h", "final", "!canonical"))
			}
			out.WriteString("\n")
		default:
			out.WriteString(pick("User a", "User b", "Port 1", "Port=2", "HostName %h.example", "HostName x", "IdentityFile ~/%h", "IdentityFile none",
				"SendEnv A B", "SendEnv -A", "SetEnv A=1", "ProxyJump a,b", "ProxyJump none", "ProxyCommand c %h", "HostKeyAlias K", "BindAddress 1",
				"UserKnownHostsFile none", "UserKnownHostsFile /%k /%r", "CertificateFile ~/c", "ConnectTimeout 5", "CanonicalizeHostname no",
				"IdentityAgent none", "StrictHostKeyChecking no", "ForwardAgent yes", "Compression no") + "\n")
		}
	}
	return strings.ReplaceAll(out.String(), "!final", "!canonical") // a wish for a second pass only to older versions of ssh
}

func TestBlocksAreFoundInOrder(t *testing.T) {
	var config strings.Builder
	for i := range 50 {
		fmt.Fprintf(&config, "Host h%d all-%d\nSendEnv N%d\nHost h%d*\nSendEnv P%d\n", i%10, i, i, i%10, i)
	}
	c, err := Read(home(t, map[string]string{"home/.ssh/config": config.String()}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		s, err := c.For(t.Context(), Target{Host: fmt.Sprintf("h%d", i)})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for j := i; j < 50; j += 10 {
			want = append(want, fmt.Sprintf("N%d", j), fmt.Sprintf("P%d", j))
		}
		if diff := cmp.Diff(want, s.SendEnv); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, c := range cases {
		f.Add(c.config, "h")
	}
	f.Add("Match host=a,!b user = x final\nHost \"a b\" c\\ d 'e'\nInclude x [!a\nProxyJump ssh://u@[::1]:1/,%r@%h", "H.example")
	f.Add("Include y\nMatch all\nInclude y", "%h")
	f.Fuzz(func(t *testing.T, config, host string) {
		lower := strings.ToLower(config)
		if strings.Contains(lower, "exec") || strings.ContainsAny(config, "/~$") {
			return // no commands, and no files but our own
		}
		c, err := Read(home(t, map[string]string{"home/.ssh/config": config, "home/.ssh/y": "Host h\nPort 1"}))
		if err != nil {
			if !strings.Contains(err.Error(), "/config:") && !strings.Contains(err.Error(), "/.ssh/") {
				t.Errorf("%v names no file", err)
			}
			return
		}
		for range 2 { // the first one leaves nothing behind
			s, err := c.For(t.Context(), Target{Host: host})
			if err != nil {
				if !strings.Contains(err.Error(), "/config:") {
					t.Errorf("%v names no line", err)
				}
				continue
			}
			if s.Port == 0 || s.User == "" || s.ConnectionAttempts < 1 || s.ProxyCommand != "" && s.ProxyJump != nil {
				t.Errorf("%+v", s)
			}
		}
	})
}

// hostBlocks is a configuration of n hosts with two lines each, and something for all of them.
func hostBlocks(b *testing.B, n int) *Config {
	var config strings.Builder
	for i := range n {
		fmt.Fprintf(&config, "Host node%d node%[1]d.example.com\n\tHostName 192.0.2.%d\n\tUser admin\n", i, i%256)
	}
	config.WriteString("Host *.example.com !gate*\n\tProxyJump gate.example.com\nHost *\n\tIdentityFile ~/.ssh/fleet\n\tServerAliveInterval 15\n")
	c, err := Read(home(b, map[string]string{"home/.ssh/config": config.String()}))
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkFor(b *testing.B) {
	for _, blocks := range []int{0, 200, 10000} {
		b.Run(fmt.Sprintf("%d blocks", blocks), func(b *testing.B) {
			c := hostBlocks(b, blocks)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := c.For(b.Context(), Target{Host: fmt.Sprintf("node%d.example.com", i%max(blocks, 1))}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestParseJump(t *testing.T) {
	for text, want := range map[string]string{
		"none":                        "",
		"a":                           "a",
		"u@a:22,ssh://b:2222,[::1]:7": "u@a:22 b:2222 [::1]:7",
		"%r@gate.%n":                  "%r@gate.%n",
		"":                            "error: is not [user@]host[:port]",
		"a,":                          "error: is not [user@]host[:port]",
		"a b":                         "error: has a blank",
		"-oProxyCommand=x":            "error: begins with a dash",
		"u x@a":                       "error: has a blank",
		"a%q":                         `error: "%q" is no token`,
		"[fe80::1%eth0]":              `error: write %% for a %`,
		"a:0":                         "error: is no port",
	} {
		hops, err := ParseJump(text)
		got := strings.Trim(fmt.Sprint(hops), "[]")
		if want, bad := strings.CutPrefix(want, "error: "); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v, want one with %q", text, err, want)
			}
		} else if err != nil || strings.Trim(want, "[]") != got {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}
