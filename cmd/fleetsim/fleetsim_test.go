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

	"multirsh/transport/rsh/rshtest"
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
	if code, _, stderr = call("--port", "0", "--hosts-file", file); code != exitFailure || !strings.Contains(stderr, "no such file") {
		t.Errorf("status %d, %q", code, stderr)
	}
}

func TestHelp(t *testing.T) {
	code, stdout, stderr := call("--help")
	if code != exitOK || stderr != "" {
		t.Errorf("status %d, %q", code, stderr)
	}
	for _, d := range rshtest.Behaviours() {
		if !strings.Contains(stdout, "   "+d.Name+" ") {
			t.Errorf("no %s in\n%s", d.Name, stdout)
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

func TestFor(t *testing.T) {
	var out strings.Builder
	if code := run(context.Background(), []string{"fleetsim", "--port", "0", "--for", "1ms"}, &out, io.Discard); code != exitOK {
		t.Errorf("status %d", code)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%q", out.String())
	}
}
