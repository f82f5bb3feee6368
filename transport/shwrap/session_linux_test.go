package shwrap

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// These tests run the wrapper as in.rshd does: a login shell with the bootstrap as its -c argument, in a session of its own,
// whose fds 0 and 1 are one TCP connection and whose fd 2 is another (rsh-redone), or a pipe that is relayed to it (netkit),
// or the first one again.

func TestMain(m *testing.M) {
	// Orphans of the sessions become our children, so that waiting for a process group means that all of it is gone.
	const prSetChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		fmt.Fprintln(os.Stderr, "prctl:", errno)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// server is what a session runs on. The zero value is rsh-redone with bash, and /bin/sh as it is.
type server struct {
	login   string                   // name of the login shell
	sh      string                   // what stands in for /bin/sh
	relay   bool                     // netkit's way
	env     []string                 // instead of a usual one
	before  string                   // what the login shell does first
	attr    *syscall.SysProcAttr     // instead of a new session
	mangled func(line []byte) []byte // what arrives instead of the preamble
}

// logins are the login shells to try, impostors what might be /bin/sh.
var (
	logins    = []string{"bash", "dash", "csh", "tcsh", "fish", "zsh", "mksh", "busybox"}
	impostors = []string{"dash", "bash", "busybox", "mksh", "ksh93", "zsh"}
)

func lookPath(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s here: apt-get install csh tcsh fish zsh mksh ksh93u+m busybox", name)
	}
	return path
}

// impostor is a link called sh to the shell with that name, by which it knows how to behave.
func impostor(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shwrap") // t.TempDir has the test's name in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	link := filepath.Join(dir, "sh")
	if err := os.Symlink(lookPath(t, name), link); err != nil {
		t.Fatal(err)
	}
	return link
}

// eachServer runs f with every login shell, with everything that might be /bin/sh, and netkit's way.
func eachServer(t *testing.T, f func(t *testing.T, srv server)) {
	for _, name := range logins {
		t.Run("login="+name, func(t *testing.T) {
			t.Parallel()
			lookPath(t, name)
			f(t, server{login: name})
		})
	}
	for _, name := range impostors {
		t.Run("sh="+name, func(t *testing.T) {
			t.Parallel()
			f(t, server{sh: impostor(t, name)})
		})
	}
	t.Run("relay", func(t *testing.T) {
		t.Parallel()
		f(t, server{relay: true})
	})
}

// A session is the client's end of a running wrapper.
type session struct {
	t            testing.TB
	w            *Wrapper
	main, second *net.TCPConn
	pgid         int
	relayed      sync.WaitGroup

	stdout, stderr   *Channel
	out, err         bytes.Buffer
	rawOut, rawErr   bytes.Buffer
	outErrc, errErrc error // how the channels ended
}

// connection is a TCP connection: our end, and the other as a blocking file.
func connection(t testing.TB) (*net.TCPConn, *os.File) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := s.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), f
}

// start runs s on the server and sends the preamble.
func start(t testing.TB, srv server, s Script) *session {
	t.Helper()
	x := &session{t: t, w: newWrapper(t, s)}
	x.stdout, x.stderr = x.w.Stdout(&x.out), x.w.Stderr(&x.err)
	login, bootstrap, preamble := srv.login, Bootstrap, x.w.Preamble()
	if login == "" {
		login = "bash"
	}
	argv := []string{lookPath(t, login), "-c"}
	if login == "busybox" {
		argv = []string{argv[0], "sh", "-c"}
	}
	if srv.sh != "" {
		bootstrap = strings.ReplaceAll(bootstrap, "/bin/sh", srv.sh)
		_, script, _ := bytes.Cut(bytes.ReplaceAll(preamble, []byte("/bin/sh"), []byte(srv.sh)), []byte(" "))
		preamble = fmt.Appendf(nil, "%d %s", len(script)-1, script)
	}
	if srv.mangled != nil {
		preamble = srv.mangled(preamble)
	}
	env := srv.env
	if env == nil {
		env = []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent"}
	}
	attr := srv.attr
	if attr == nil {
		attr = &syscall.SysProcAttr{Setsid: true}
	}

	var mainFile, secondFile *os.File
	x.main, mainFile = connection(t)
	defer mainFile.Close()
	fd2 := mainFile
	if !s.Merged {
		x.second, secondFile = connection(t)
		fd2 = secondFile
		if srv.relay {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			x.relayed.Go(func() {
				io.Copy(secondFile, r)
				secondFile.Close()
				r.Close()
			})
			fd2 = w
		}
		defer fd2.Close()
	}
	p, err := os.StartProcess(argv[0], append(argv, srv.before+bootstrap), &os.ProcAttr{
		Env: env, Dir: "/", Files: []*os.File{mainFile, mainFile, fd2}, Sys: attr,
	})
	if err != nil {
		t.Fatal(err)
	}
	x.pgid = p.Pid
	p.Release()
	// A session that hangs is ended, so that the test says what it saw.
	stuck := time.AfterFunc(2*time.Minute, func() {
		t.Errorf("the session hung: %s", strings.Join(x.members(), ", "))
		syscall.Kill(-x.pgid, syscall.SIGKILL)
		x.close()
	})
	t.Cleanup(func() {
		stuck.Stop()
		syscall.Kill(-x.pgid, syscall.SIGKILL)
		x.close()
		x.gone()
	})
	x.send(preamble)
	return x
}

func (x *session) send(b []byte) {
	if _, err := x.main.Write(b); err != nil {
		x.t.Errorf("write: %v", err)
	}
}

// close ends the connections as a client that has no manners does.
func (x *session) close() {
	x.main.SetLinger(0)
	x.main.Close()
	if x.second != nil {
		x.second.SetLinger(0)
		x.second.Close()
	}
}

// until reads stdout until it holds text.
func (x *session) until(text string) {
	x.t.Helper()
	b := make([]byte, 32<<10)
	for !strings.Contains(x.out.String(), text) {
		n, err := x.main.Read(b)
		x.rawOut.Write(b[:n])
		x.stdout.Write(b[:n])
		if err != nil {
			x.t.Fatalf("%v, while waiting for %q in %q", err, text, x.out.String())
		}
	}
}

// finish reads both channels to their end.
func (x *session) finish() {
	x.t.Helper()
	var reading sync.WaitGroup
	reading.Go(func() {
		_, x.outErrc = io.Copy(io.MultiWriter(&x.rawOut, x.stdout), x.main)
		x.stdout.Close()
	})
	if x.second != nil {
		reading.Go(func() {
			_, x.errErrc = io.Copy(io.MultiWriter(&x.rawErr, x.stderr), x.second)
			x.stderr.Close()
		})
	}
	reading.Wait()
	x.relayed.Wait()
}

// members are the living processes of the session's process group.
func (x *session) members() (names []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // gone meanwhile
		}
		end := bytes.LastIndexByte(b, ')')
		if fields := strings.Fields(string(b[end+1:])); fields[2] == strconv.Itoa(x.pgid) && fields[0] != "Z" {
			names = append(names, string(b[bytes.IndexByte(b, '(')+1:end]))
		}
	}
	return names
}

// gone waits until nothing is left of the process group.
func (x *session) gone() {
	for x.reap() {
	}
}

// reap waits for the end of one child in the group and says whether there was one.
func (x *session) reap() bool {
	for {
		switch _, err := syscall.Wait4(-x.pgid, nil, 0, nil); {
		case err == nil:
			return true
		case err != syscall.EINTR:
			return false
		}
	}
}

// left waits until the group has no more living members than these.
func (x *session) left(want ...string) {
	x.t.Helper()
	for {
		got := x.members()
		if len(got) == len(want) && strings.Join(got, " ") == strings.Join(want, " ") {
			return
		}
		if !x.reap() {
			x.t.Errorf("left running: %q, want %q", got, want)
			return
		}
	}
}

// ended checks that the command ended with that status, the remote end closed cleanly and nothing is left there.
func (x *session) ended(status int) {
	x.t.Helper()
	check := func(name string, c *Channel, err error) {
		x.t.Helper()
		got, ok := c.Ended()
		if !ok || err != nil || status >= 0 && got != status {
			x.t.Errorf("%s: status %d, trailer seen: %v, end: %v; want status %d. stdout %.300q, stderr %.300q, noise %.300q",
				name, got, ok, err, status, x.out.String(), x.err.String(), c.Noise())
		}
		if c.Late() != 0 {
			x.t.Errorf("%s: %d bytes after the trailer", name, c.Late())
		}
	}
	check("stdout", x.stdout, x.outErrc)
	if x.second != nil {
		check("stderr", x.stderr, x.errErrc)
	}
	x.gone()
}

// unknown checks that no channel claims to know how the command ended, and that nothing is left.
func (x *session) unknown() {
	x.t.Helper()
	for _, c := range []*Channel{x.stdout, x.stderr} {
		if status, ok := c.Ended(); ok {
			x.t.Errorf("trailer with status %d; stdout %.300q, stderr %.300q", status, x.out.String(), x.err.String())
		}
	}
	x.gone()
}

// output checks what the command wrote.
func (x *session) output(stdout, stderr string) {
	x.t.Helper()
	if got := x.out.String(); got != stdout {
		x.t.Errorf("stdout: got %d bytes %.300q, want %d bytes %.300q", len(got), got, len(stdout), stdout)
	}
	if got := x.err.String(); got != stderr {
		x.t.Errorf("stderr: got %.300q, want %.300q", got, stderr)
	}
}

func TestCommands(t *testing.T) {
	heredoc := func(text string) string { return "cat <<'@'\n" + text + "\n@\n" }
	var every []byte
	for c := 1; c < 256; c++ {
		every = append(every, byte(c))
	}
	long := strings.Repeat("long text, ", 1+MaxLine/11)
	full := heredoc("")
	full = heredoc(long[:MaxLine-len(full)])
	for _, tt := range []struct {
		line           string
		stdout, stderr string
		status         int // -1: any
	}{
		{"true", "", "", 0},
		{"", "", "", 0},
		{"echo out; echo err >&2", "out\n", "err\n", 0},
		{"printf 'no newline'; exit 3", "no newline", "", 3},
		{"exit 137", "", "", 137},
		{"exit 143", "", "", 143},
		{"exit 255", "", "", 255},
		{"kill -TERM $$", "", "", 143},
		{"kill -KILL $$", "", "", 137},
		{"echo a # comment", "a\n", "", 0},
		{"echo a; : &", "a\n", "", 0},
		{"exec echo a", "a\n", "", 0},
		{"exec sh -c 'exit 9'", "", "", 9},
		{"set -e; echo a; false; echo b", "a\n", "", 1},
		{"trap 'echo end' 0; exit 4", "end\n", "", 4},
		{"echo $0 $#", "", "", -1},
		{"read x && echo $x; echo $?", "1\n", "", 0},
		{"echo ${#mr_n}${#mr_s}${#mr_w}; env | grep mr_", "000\n", "", 1},
		{`printf %s 'q"uo"te\! $x ` + "`y` \t" + `~ * ? [a] {b,c} ; & | < > ( ) # % ^ !! !x'`, `q"uo"te\! $x ` + "`y` \t" + `~ * ? [a] {b,c} ; & | < > ( ) # % ^ !! !x`, "", 0},
		{`printf %s "don't"`, "don't", "", 0},
		{"echo a\n\n\techo b\n\n", "a\nb\n", "", 0},
		{"echo a\\\n", "a\n", "", 0},
		{heredoc("\xff\xfe é \xc3"), "\xff\xfe é \xc3\n", "", 0},
		{heredoc(string(every)), string(every) + "\n", "", 0},
		{heredoc(long[:100_000]), long[:100_000] + "\n", "", 0},
		{full, full[len("cat <<'@'\n") : len(full)-len("@\n")], "", 0},
	} {
		t.Run(fmt.Sprintf("%.30q", tt.line), func(t *testing.T) {
			eachServer(t, func(t *testing.T, srv server) {
				x := start(t, srv, Script{Line: tt.line})
				x.finish()
				x.ended(tt.status)
				if tt.status >= 0 {
					x.output(tt.stdout, tt.stderr)
				}
			})
		})
	}
}
