//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"multirsh/transport/rsh/rshtest"
	"multirsh/transport/ssh/sshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call runs the program with ctx already ended, so that it stops as soon as it has started.
func call(args ...string) (code int, stdout, stderr string) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs strings.Builder
	code = run(ctx, append([]string{"fleetsim"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// A wrong call is one sentence and exit status 2, and nothing is served.
func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--hosts 0":                          "--hosts 0: the loopback network has room for 1 to 16711678",
		"--hosts 99999999":                   "--hosts 99999999: the loopback network has room for 1 to 16711678",
		"--hosts many":                       `invalid value "many" for flag -hosts: parse error`,
		"--port 65536":                       "--port 65536: a port is 1 to 65535, and 0 means any that is free",
		"--port -1":                          "--port -1: a port is 1 to 65535, and 0 means any that is free",
		"--for -1s":                          "--for -1s: it must be a time to come, as 30s",
		"--for 0s":                           "--for 0s: it must be a time to come, as 30s",
		"--behaviour sulk":                   `--behaviour: no behaviour "sulk": it is one of ok, stall,`,
		"--behaviour ok:95%":                 `--behaviour: the shares of "ok:95%" add up to 95%, not 100%`,
		"--daemon sshd":                      "--daemon sshd: it is redone or netkit",
		"--protocol telnet":                  "--protocol telnet: it is rsh or ssh",
		"--protocol ssh --any-port":          "--any-port is for --protocol rsh",
		"--protocol ssh --daemon redone":     "--daemon is for --protocol rsh",
		"--known-hosts f":                    "--known-hosts is for --protocol ssh",
		"--identity f":                       "--identity is for --protocol ssh",
		"--password-file f":                  "--password-file is for --protocol ssh",
		"--protocol ssh --behaviour error":   `--behaviour: no behaviour "error": it is one of ok, refuse,`,
		"--protocol ssh --shell /bin":        "--shell /bin: that is not a program",
		"--shell /etc/passwd":                "--shell /etc/passwd: that is not a program",
		"--shell /nonexistent":               "--shell /nonexistent: that is not a program",
		"--shell /bin":                       "--shell /bin: that is not a program",
		"--output hi":                        "--output, --output-bytes and --hold are for --fast",
		"--hold 1s":                          "--output, --output-bytes and --hold are for --fast",
		"--fast --hold -1s":                  "--hold -1s: a command cannot take less than no time",
		"--fast --output-bytes -1":           "--output-bytes -1: it cannot be less than 0",
		"--fast --output a --output-bytes 1": "--output and --output-bytes: choose one of them",
		"uptime":                             `no argument is wanted, and "uptime" is one`,
		"help":                               `no argument is wanted, and "help" is one`,
		"--nonsense":                         "flag provided but not defined: -nonsense",
	} {
		code, stdout, stderr := call(strings.Fields(args)...)
		if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "fleetsim: "+want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: status %d\nstdout %q\nstderr %q", args, code, stdout, stderr)
		}
	}
}

func TestFailure(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	code, stdout, stderr := call("--port", port)
	if code != exitFailure || stdout != "" || stderr != "fleetsim: port "+port+" is taken by another program: stop that, or choose another port\n" {
		t.Errorf("status %d, %q, %q", code, stdout, stderr)
	}
	file := filepath.Join(t.TempDir(), "none", "hosts")
	for _, option := range []string{"--hosts-file", "--known-hosts", "--identity", "--password-file"} {
		if code, _, stderr = call("--protocol", "ssh", "--port", "0", option, file); code != exitFailure || !strings.Contains(stderr, "no such file") {
			t.Errorf("%s: status %d, %q", option, code, stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	code, stdout, stderr := call("--help")
	if code != exitOK || stderr != "" {
		t.Errorf("status %d, %q", code, stderr)
	}
	rsh, ssh, _ := strings.Cut(stdout, "SSH hosts:")
	for _, d := range rshtest.Behaviours() {
		if !strings.Contains(rsh, "   "+d.Name+" ") {
			t.Errorf("no %s in\n%s", d.Name, rsh)
		}
	}
	for _, d := range sshtest.Behaviours() {
		if !strings.Contains(ssh, "   "+d.Name+" ") {
			t.Errorf("no %s in\n%s", d.Name, ssh)
		}
	}
}

// The first line says that the fleet is there; it serves until it is told to stop; the last line is its account.
func TestServes(t *testing.T) {
	for _, mode := range [][]string{nil, {"--fast", "--output", "served"}, {"--fast", "--output-bytes", "100"}} {
		hosts := filepath.Join(t.TempDir(), "hosts")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		r, w := io.Pipe()
		code := make(chan int, 1)
		go func() {
			code <- run(ctx, append([]string{"fleetsim", "--hosts", "300", "--port", "0", "--any-port", "--hosts-file", hosts}, mode...), w, io.Discard)
			w.Close()
		}()
		out := bufio.NewReader(r)
		line, err := out.ReadString('\n')
		var port int
		if _, scanErr := fmt.Sscanf(line, "fleetsim: 300 hosts on 127.1.0.1 to 127.1.1.44, port %d, behaviour ok", &port); scanErr != nil || err != nil {
			t.Fatalf("%q: %v, %v", line, scanErr, err)
		}
		if strings.Contains(line, "no command is run") != (mode != nil) {
			t.Errorf("%v: %q", mode, line)
		}
		list, err := os.ReadFile(hosts)
		first := fmt.Sprintf("127.1.0.1 port=%d\n", port)
		if err != nil || !strings.HasPrefix(string(list), first) || strings.Count(string(list), "\n") != 300 {
			t.Errorf("hosts file %.60q, %v", list, err)
		}
		conn, err := net.Dial("tcp4", net.JoinHostPort("127.1.1.44", fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "0\x00ann\x00ops\x00echo served\x00")
		got, err := io.ReadAll(conn)
		conn.Close()
		want := "\x00served\n"
		if len(mode) > 0 && mode[1] == "--output-bytes" {
			want = "\x00" + strings.Repeat("x", 63) + "\n" + strings.Repeat("x", 36)
		}
		if string(got) != want || err != nil {
			t.Errorf("%v: %q, %v", mode, got, err)
		}
		cancel()
		if line, _ = out.ReadString('\n'); !strings.HasPrefix(line, "fleetsim: 1 connections, 0 refused, at most 1 at once, ") {
			t.Errorf("%q", line)
		}
		if status := <-code; status != exitOK {
			t.Errorf("status %d", status)
		}
	}
}

// SSH hosts let in who has the key or the password that was written down, and show the key that known_hosts says.
func TestServesSSH(t *testing.T) {
	dir := t.TempDir()
	hosts, known := filepath.Join(dir, "hosts"), filepath.Join(dir, "known_hosts")
	identity, password := filepath.Join(dir, "key"), filepath.Join(dir, "password")
	for _, mode := range [][]string{nil, {"--fast", "--output", "served"}} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		r, w := io.Pipe()
		code := make(chan int, 1)
		go func() {
			code <- run(ctx, append([]string{"fleetsim", "--protocol", "ssh", "--hosts", "300", "--port", "0", "--hosts-file", hosts,
				"--known-hosts", known, "--identity", identity, "--password-file", password}, mode...), w, io.Discard)
			w.Close()
		}()
		out := bufio.NewReader(r)
		line, err := out.ReadString('\n')
		var port int
		if _, scanErr := fmt.Sscanf(line, "fleetsim: 300 SSH hosts on 127.1.0.1 to 127.1.1.44, port %d, behaviour ok", &port); scanErr != nil || err != nil {
			t.Fatalf("%q: %v, %v", line, scanErr, err)
		}
		if list, err := os.ReadFile(hosts); !strings.HasPrefix(string(list), fmt.Sprintf("127.1.0.1 port=%d\n", port)) {
			t.Errorf("hosts file %.60q, %v", list, err)
		}
		for _, name := range []string{identity, password} {
			if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
		}
		known, err := knownhosts.New(known)
		if err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(identity)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.ParsePrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := os.ReadFile(password)
		if err != nil {
			t.Fatal(err)
		}
		word := strings.TrimSpace(string(secret))
		answer := ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return []string{word}, nil })
		for name, auth := range map[string]ssh.AuthMethod{
			"key": ssh.PublicKeys(signer), "password": ssh.Password(word), "prompt": answer, "wrong password": ssh.Password("guess"),
		} {
			c, err := ssh.Dial("tcp4", net.JoinHostPort("127.1.1.44", fmt.Sprint(port)), &ssh.ClientConfig{
				User: "ann", HostKeyCallback: known, Auth: []ssh.AuthMethod{auth},
			})
			if (err == nil) != (name != "wrong password") {
				t.Errorf("%s: %v", name, err)
			}
			if err != nil {
				continue
			}
			x, err := c.NewSession()
			if err != nil {
				t.Error(err)
				continue
			}
			if got, err := x.Output("echo served"); string(got) != "served\n" || err != nil {
				t.Errorf("%v: %q, %v", mode, got, err)
			}
			c.Close()
		}
		cancel()
		if line, _ = out.ReadString('\n'); !strings.HasPrefix(line, "fleetsim: 4 connections, 0 refused, at most ") {
			t.Errorf("%q", line)
		}
		if status := <-code; status != exitOK {
			t.Errorf("status %d", status)
		}
	}
}

func TestFor(t *testing.T) {
	var out strings.Builder
	if code := run(context.Background(), []string{"fleetsim", "--port", "0", "--for", "1ms"}, &out, io.Discard); code != exitOK {
		t.Errorf("status %d", code)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%q", out.String())
	}
}
