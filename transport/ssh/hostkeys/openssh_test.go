package hostkeys

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// program is the path of one of OpenSSH's; the test is skipped without it.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: with the package openssh-client this test compares us with it", name)
	}
	return path
}

// run gives the standard output; a failure with output on standard error fails the test.
func run(t testing.TB, path string, args ...string) string {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "LC_ALL=C"}
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(exit.Stderr) == 0 {
		err = nil // ssh-keygen -F that finds nothing
	} else if err != nil && exit != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// found are the lines that are a name's, as the marker and the line number: "1", "CA 2", "REVOKED 3".
func found(db *DB, name string) []string {
	h := db.hashesOf(name)
	lines := map[int32]bool{}
	for _, list := range [][]int32{db.unhashed(name), h.all(db), h.withMarker(db)} {
		for _, i := range list {
			lines[i] = true
		}
	}
	var all []string
	for i := range db.lines {
		if lines[int32(i)] {
			all = append(all, [...]string{"", "CA ", "REVOKED "}[db.lines[i].marker]+strconv.Itoa(int(db.lines[i].number)))
		}
	}
	return all
}

var foundLine = regexp.MustCompile(`(?m)^# Host .* found: line (\d+) ?(CA|REVOKED)?`)

// ssh-keygen -F finds the same lines as we, in a file as written and hashed by ssh-keygen -H.
func TestSSHKeygenFinds(t *testing.T) {
	keygen := program(t, "ssh-keygen")
	names := []string{
		"h", "web1", "web12", "web1.example.org", "a.b.example.org", "example.org", "x", "[web1]:2222", "[h]:22", "192.0.2.7", "192.0.2.70", "[192.0.2.7]:24",
		"fe80::1%eth0", "[::1]:2222", "::1", "a*b", "no", "[web9]:2200", "db-3", "db-33",
	}
	const text = `# a comment
h {A}
h,web1 {E}
web1.example.org,192.0.2.7 {B}
*.example.org {R}
*.example.org,!a.* {A} with a comment
!web1*,* {B}
web? {C}
[web1]:2222,[h]:22 {A}
[web*]:22?? {B}
192.0.2.* {E}
fe80::1%eth0,::1,[::1]:2222 {A}
@cert-authority *.org,web1 {CA}
@revoked * {CB}
  	db-?	{A}
DB-3,WEB1 {R}
h,h,h {C}
,x,, {C}
a**b,**,*?* {C}
{#web1} {A}
@revoked {#web12} {B}
`
	for _, hashed := range []bool{false, true} {
		file := write(t, fill(text, ""))
		if hashed {
			run(t, keygen, "-H", "-f", file)
			if n := strings.Count(read(t, file), "|1|"); n < 12 {
				t.Fatalf("ssh-keygen -H has hashed %d lines only", n)
			}
		}
		db := open(t, file)
		for _, err := range db.Skipped() {
			t.Error(err)
		}
		for _, name := range names {
			var want []string
			for _, m := range foundLine.FindAllStringSubmatch(run(t, keygen, "-F", name, "-f", file), -1) {
				want = append(want, strings.TrimLeft(m[2]+" "+m[1], " "))
			}
			if diff := gocmp.Diff(want, found(db, name)); diff != "" {
				t.Errorf("lines of %s, hashed %v (-ssh-keygen +ours):\n%s", name, hashed, diff)
			}
		}
	}
}

// What we write ssh-keygen reads, fingerprints are the same, and the mend of a ChangedError mends.
func TestSSHKeygenReadsOurs(t *testing.T) {
	keygen, shell := program(t, "ssh-keygen"), program(t, "sh")
	for _, hash := range []bool{false, true} {
		file := write(t, fill("other {C}", ""))
		db := open(t, file)
		const name = "[web1.example.org]:2222"
		accept(t, db, hash, Entry{[]string{name, "web1"}, keyNamed("A")}, Entry{[]string{"web2"}, keyNamed("R")})
		for _, c := range []struct{ name, key string }{{name, "A"}, {"web1", "A"}, {"web2", "R"}, {"other", "C"}} {
			out := run(t, keygen, "-l", "-F", c.name, "-f", file)
			if got := regexp.MustCompile(`SHA256:[A-Za-z0-9+/]+`).FindAllString(out, -1); len(got) != 1 || got[0] != Fingerprint(keyNamed(c.key)) {
				t.Errorf("hash %v: %s: ssh-keygen finds %q, want %s", hash, c.name, out, Fingerprint(keyNamed(c.key)))
			}
		}

		err := db.Check(name, nil, keyNamed("B"))
		if !strings.HasPrefix(verdict(err), "changed") {
			t.Fatal(err)
		}
		_, mend, _ := strings.Cut(err.Error(), "remove the old one: ")
		run(t, shell, "-c", mend+" 2>&1")
		db = open(t, file)
		if got := verdict(db.Check(name, nil, keyNamed("B"))); got != "unknown" {
			t.Errorf("hash %v: after %s: %s", hash, mend, got)
		}
		if got := verdict(db.Check("web2", nil, keyNamed("R"))); got != "ok" {
			t.Errorf("hash %v: after %s: the other host: %s", hash, mend, got)
		}
	}
}

// server shows every client the host key and turns it away.
func server(t testing.TB, key ssh.Signer) *net.TCPAddr {
	t.Helper()
	config := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errors.New("no") }}
	config.AddHostKey(key)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			ssh.NewServerConn(conn, config) // until the client is gone
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().(*net.TCPAddr)
}

// ssh(1) decides as Check does, for each row of its table.
func TestSSH(t *testing.T) {
	program := program(t, "ssh")
	if testing.Short() {
		t.Skip("it runs ssh(1) once for each row of the table, some 4 s: run this without -short")
	}
	version, _ := exec.Command(program, "-V").CombinedOutput()
	if !bytes.HasPrefix(version, []byte("OpenSSH_9.")) {
		t.Skipf("the table says what OpenSSH 9 decides, and this is %s", version)
	}
	for _, c := range checks {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			name, host := cmp.Or(c.name, "h"), cmp.Or(c.name, "h")
			if strings.HasSuffix(name, "PORT") {
				host, _ = bareHost(name)
			}
			signer := signers()[cmp.Or(c.key, "A")]
			if c.cert != nil {
				signer = c.cert.sign(t, host)
			}
			addr := server(t, signer)
			args := []string{"-F", "none", "-p", strconv.Itoa(addr.Port), "-l", "nobody",
				"-o", "UserKnownHostsFile=" + write(t, fill(c.lines, strconv.Itoa(addr.Port))), "-o", "GlobalKnownHostsFile=/dev/null",
				"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "PubkeyAuthentication=no", "-o", "KexAlgorithms=curve25519-sha256",
				"-o", "IdentityAgent=none", "-o", "ConnectTimeout=20"}
			if name == host {
				args = append(args, "-o", "HostKeyAlias="+name)
			}
			cmd := exec.Command(program, append(args, "127.0.0.1", "true")...)
			cmd.Env = []string{"HOME=" + t.TempDir(), "LC_ALL=C"}
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatal("the server has let it in")
			}
			got := fmt.Sprintf("nothing that is understood: %s", out)
			for _, says := range []struct{ text, verdict string }{ // what comes first is what counts
				{"Permission denied", "ok"},
				{"REMOTE HOST IDENTIFICATION HAS CHANGED", "changed"},
				{"host key is known for", "unknown"},
				{"REVOKED HOST KEY DETECTED", "revoked"},
				{"incorrect signature", "broken"},
			} {
				if bytes.Contains(out, []byte(says.text)) {
					got = says.verdict
					break
				}
			}
			ours, _, _ := strings.Cut(c.want, " ")
			if want := cmp.Or(c.theirs, ours); got != want {
				t.Errorf("ssh: %s, want %s\n%s", got, want, out)
			}
			if c.theirs == ours {
				t.Error("the row says that ssh differs, and then does not")
			}
		})
	}
}

// The line that we write for a new host is the one that ssh(1) writes.
func TestSSHWritesTheSame(t *testing.T) {
	program := program(t, "ssh")
	addr := server(t, signers()["A"])
	theirs, ours := t.TempDir()+"/known_hosts", t.TempDir()+"/known_hosts"
	cmd := exec.Command(program, "-F", "none", "-p", strconv.Itoa(addr.Port), "-l", "nobody", "-o", "UserKnownHostsFile="+theirs, "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "HashKnownHosts=no", "-o", "BatchMode=yes", "-o", "PubkeyAuthentication=no", "-o", "IdentityAgent=none", "127.0.0.1", "true")
	cmd.Env = []string{"HOME=" + t.TempDir(), "LC_ALL=C"}
	out, _ := cmd.CombinedOutput() // it is turned away after it has written
	if _, err := os.Stat(theirs); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	accept(t, open(t, ours), false, Entry{[]string{Name("127.0.0.1", uint16(addr.Port))}, keyNamed("A")})
	if diff := gocmp.Diff(read(t, theirs), read(t, ours)); diff != "" {
		t.Errorf("the file that ssh makes and ours (-ssh +ours):\n%s", diff)
	}
}
