package shwrap

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// These tests run the wrapper as in.rshd does: a login shell with the bootstrap as its -c argument, in a session of its own,
// whose fds 0 and 1 are one TCP connection and whose fd 2 is another (rsh-redone), or a pipe that is relayed to it (netkit),
// or the first one again.

// home is the login shells' home directory: some of them write there.
var home string

func TestMain(m *testing.M) {
	// Orphans of the sessions become our children, so that waiting for a process group means that all of it is gone.
	const prSetChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		fmt.Fprintln(os.Stderr, "prctl:", errno)
		os.Exit(1)
	}
	// What we were started with is not the sessions': a file at 10 hides what mksh keeps there.
	for fd := 3; fd < 256; fd++ {
		syscall.CloseOnExec(fd)
	}
	flag.Parse()
	flag.Set("test.parallel", "32") // most of the time is the second that a stop gives
	os.Exit(func() int {
		var err error
		if home, err = os.MkdirTemp("", "shwrap-home-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(home)
		code := m.Run()
		if err := goleak.Find(); code == 0 && err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
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

// argv has the login shell run text.
func (srv server) argv(t testing.TB, text string) []string {
	t.Helper()
	path := lookPath(t, cmp.Or(srv.login, "bash"))
	if srv.login == "busybox" {
		return []string{path, "sh", "-c", text}
	}
	return []string{path, "-c", text}
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
	reaped       atomic.Bool // the group is gone, and its number may be another's
	relayed      sync.WaitGroup

	grace *os.File // of eachScript: a line in it ends the second that a stop gives

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
	bootstrap, preamble := Bootstrap, x.w.Preamble()
	if srv.sh != "" {
		bootstrap = strings.ReplaceAll(bootstrap, "/bin/sh", srv.sh)
		_, script, _ := bytes.Cut(bytes.ReplaceAll(preamble, []byte("/bin/sh"), []byte(srv.sh)), []byte(" "))
		preamble = fmt.Appendf(nil, "%d %s", len(script)-1, script)
	}
	if srv.mangled != nil {
		preamble = srv.mangled(preamble)
	}
	argv, env := srv.argv(t, srv.before+bootstrap), srv.env
	if env == nil {
		env = []string{"PATH=/usr/bin:/bin", "HOME=" + home}
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
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Env: env, Dir: "/", Files: []*os.File{mainFile, mainFile, fd2}, Sys: attr,
	})
	if err != nil {
		t.Fatal(err)
	}
	x.pgid = p.Pid
	p.Release()
	// A session that hangs is ended, so that the test says what it saw.
	hung := make(chan []string, 1)
	stuck := time.AfterFunc(time.Minute, func() {
		hung <- x.members()
		x.kill()
		x.close()
	})
	t.Cleanup(func() {
		if !stuck.Stop() {
			t.Errorf("the session hung: %q", <-hung)
		}
		x.kill()
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
	x.read(x.main, x.stdout, func() bool { return strings.Contains(x.out.String(), text) })
}

// read reads a channel until enough says so.
func (x *session) read(from io.Reader, to *Channel, enough func() bool) {
	x.t.Helper()
	b := make([]byte, 1000)
	for !enough() {
		n, err := from.Read(b)
		to.Write(b[:n])
		if err != nil {
			x.t.Fatalf("%v, while waiting for output after %.300q", err, x.out.String())
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

// kill ends what there still is of the process group.
func (x *session) kill() {
	if !x.reaped.Load() {
		syscall.Kill(-x.pgid, syscall.SIGKILL)
	}
}

// gone waits until nothing is left of the process group.
func (x *session) gone() {
	for !x.reaped.Load() && x.reap() {
	}
}

// reap waits for the end of one child in the group and says whether there was one.
func (x *session) reap() bool {
	for {
		switch _, err := syscall.Wait4(-x.pgid, nil, 0, nil); {
		case err == nil:
			return true
		case err != syscall.EINTR:
			x.reaped.Store(true)
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

// Any text comes back from the printf of any shell, in a multibyte locale too.
func TestEncodedText(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var script, want []byte
	for n := range 200 {
		text := make([]byte, r.IntN(n+1))
		for i := range text {
			switch r.IntN(3) {
			case 0:
				text[i] = byte(1 + r.IntN(255))
			case 1:
				text[i] = "\\0'\"\n %c7é."[r.IntN(12)]
			default:
				text[i] = byte(' ' + r.IntN(95))
			}
		}
		script = append(script, openDecode[len("; "):]...)
		script = appendEncoded(script, string(text))
		script = append(script, closeDecode+"; printf '%s\\n' "+decodedText+"\n"...)
		want = append(append(want, text...), '\n')
	}
	for _, name := range impostors {
		for _, locale := range []string{"C", "C.UTF-8"} {
			t.Run(name+"/"+locale, func(t *testing.T) {
				sh := exec.Command(impostor(t, name))
				sh.Stdin = bytes.NewReader(script)
				sh.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=" + locale}
				got, err := sh.Output()
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					gots, wants := bytes.SplitAfter(got, []byte("\n")), bytes.SplitAfter(want, []byte("\n"))
					for i := range min(len(gots), len(wants)) {
						if !bytes.Equal(gots[i], wants[i]) {
							t.Fatalf("line %d: got %q, want %q", i, gots[i], wants[i])
						}
					}
					t.Errorf("got %d lines, want %d", len(gots), len(wants))
				}
			})
		}
	}
}

// What the command finds is what the login shell would have given it.
func TestSurroundings(t *testing.T) {
	const look = `pwd; umask; grep -E 'Sig(Ign|Blk)' /proc/self/status; env | sort; for fd in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$fd ] && echo fd=$fd; done`
	env := []string{"PATH=/usr/bin:/bin", "n=1", "s=2", "HOME=" + home, "odd=a b"}
	for _, input := range []int64{0, 1} {
		eachServer(t, func(t *testing.T, srv server) {
			srv.env = env
			file := filepath.Join(t.TempDir(), "look")
			if err := os.WriteFile(file, []byte(look), 0o600); err != nil {
				t.Fatal(err)
			}
			argv := srv.argv(t, "exec "+cmp.Or(srv.sh, "/bin/sh")+" '"+file+"'")
			plain := exec.Command(argv[0], argv[1:]...)
			plain.Env, plain.Dir = env, "/"
			want, _ := plain.Output()
			x := start(t, srv, Script{Line: look + "; exit 0", Input: input})
			if input > 0 {
				x.send([]byte("xgo\n"))
			}
			x.finish()
			x.ended(0)
			// Some shells set variables of their own; csh leaves files of its own open.
			strip := func(s string) string {
				var lines []string
				for line := range strings.Lines(s) {
					name, _, _ := strings.Cut(line, "=")
					if !strings.Contains(" _ SHLVL A__z REMOTEHOST fd ", " "+name+" ") {
						lines = append(lines, line)
					}
				}
				return strings.Join(lines, "")
			}
			if got := strip(x.out.String()); got != strip(string(want)) {
				t.Errorf("got\n%swant\n%s", got, strip(string(want)))
			}
			if got := x.out.String(); !strings.HasSuffix(got, "fd=0\nfd=1\nfd=2\n") {
				t.Errorf("these are open: %s", got)
			}
		})
	}
}

func TestNonceStaysHidden(t *testing.T) {
	t.Run("ps", func(t *testing.T) {
		eachServer(t, func(t *testing.T, srv server) {
			for _, input := range []int64{0, 1} {
				x := start(t, srv, Script{Line: "set -x; cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'; set", Input: input})
				if input > 0 {
					x.send([]byte("xgo\n"))
				}
				x.finish()
				x.ended(0)
				if s := x.out.String() + x.err.String(); strings.Contains(s, string(x.w.nonce[:])) {
					t.Errorf("the nonce is in the output")
				}
			}
		})
	})
	// bash takes its options from the environment: then the wrapper itself is traced.
	t.Run("SHELLOPTS", func(t *testing.T) {
		srv := server{login: "dash", sh: impostor(t, "bash"), env: []string{"PATH=/usr/bin:/bin", "HOME=" + home, "SHELLOPTS=xtrace"}}
		for _, input := range []int64{0, 1} {
			x := start(t, srv, Script{Line: "exit 3", Input: input})
			if input > 0 {
				x.send([]byte("xgo\n"))
			}
			x.finish()
			x.ended(3)
			if n := bytes.Count(x.rawErr.Bytes(), x.w.nonce[:]); n != 2 {
				t.Errorf("the nonce is %d times on stderr, want leader and trailer: %s", n, x.rawErr.String())
			}
		}
	})
}

func TestOutput(t *testing.T) {
	other := newWrapper(t, Script{})
	marks := fmt.Sprintf("%s%s%s", other.Leader(), other.Trailer(0), other.Leader())
	eachServer(t, func(t *testing.T, srv server) {
		x := start(t, srv, Script{Line: "for fd in 1 2; do cat <<@ >&$fd\n" + marks + "@\ndone; exit 5"})
		x.finish()
		x.ended(5)
		x.output(marks, marks)

		x = start(t, srv, Script{Line: "head -c 10000000 /dev/zero; head -c 1000000 /dev/zero >&2"})
		x.finish()
		x.ended(0)
		x.output(strings.Repeat("\x00", 10_000_000), strings.Repeat("\x00", 1_000_000))
	})
}

func TestMerged(t *testing.T) {
	eachServer(t, func(t *testing.T, srv server) {
		for _, input := range []int64{0, 1} {
			x := start(t, srv, Script{Line: "echo a; echo b >&2; exit 6", Merged: true, Input: input})
			if input > 0 {
				x.send([]byte("xgo\n"))
			}
			x.finish()
			x.ended(6)
			x.output("a\nb\n", "")
		}
	})
}

func TestNoise(t *testing.T) {
	for _, name := range logins {
		t.Run(name, func(t *testing.T) {
			x := start(t, server{login: name, before: "echo welcome; "}, Script{Line: "echo a"})
			x.finish()
			x.ended(0)
			x.output("welcome\na\n", "")
		})
	}
}

// Nothing is run of what did not arrive whole, and it is said why.
func TestNotStarted(t *testing.T) {
	short := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	for name, tt := range map[string]struct {
		srv   server
		noise string
	}{
		"cut off":         {server{mangled: short(1)}, "did not arrive whole"},
		"cut off early":   {server{mangled: short(100)}, "did not arrive whole"},
		"nothing":         {server{mangled: func([]byte) []byte { return nil }}, "did not arrive whole"},
		"a hole":          {server{mangled: func(b []byte) []byte { return bytes.Replace(b, []byte("1"), nil, 1) }}, "did not arrive whole"},
		"start-up reads":  {server{before: "read -n 30 x; "}, "did not arrive whole"},
		"no shell":        {server{sh: "/nonexistent/sh"}, "/nonexistent/sh"},
		"no printf":       {server{sh: impostor(t, "mksh"), env: []string{"PATH=/nonexistent", "HOME=" + home}}, "printf"},
		"no group":        {server{attr: &syscall.SysProcAttr{}}, "no process group"},
		"not the leader":  {server{before: "(", mangled: nil}, "syntax error"},
		"a child of it":   {server{before: "true | "}, "no process group"},
		"refused in text": {server{before: "echo Authentication failure >&2; exit 1; "}, "Authentication failure\n"},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, tt.srv, Script{Line: "echo ran\necho again"})
			x.main.CloseWrite()
			x.finish()
			x.unknown()
			if x.stdout.Started() || x.out.Len() > 0 {
				t.Errorf("started, output %q", x.out.String())
			}
			// With bytes left unread the text may be lost in the reset; the stderr channel has none.
			if got := string(x.stderr.Noise()); !strings.Contains(got, tt.noise) {
				t.Errorf("noise %q, want %q in it", got, tt.noise)
			}
		})
	}
}

// input is n bytes that hold whatever is on the wire, too.
func input(n int64) []byte {
	b := bytes.Repeat([]byte("go\nTERM\n\x00\xff\x1e a line, then no newline: 0123456789 "), int(n/40)+1)
	for i := 0; i < len(b); i += 1009 {
		b[i] = byte(i / 1009)
	}
	return b[:n]
}

// withInput starts s with the input on its way, and finishes it.
func withInput(t *testing.T, srv server, s Script, in []byte) *session {
	t.Helper()
	s.Input = int64(len(in))
	x := start(t, srv, s)
	var writing sync.WaitGroup
	writing.Go(func() {
		x.send(in)
		x.send(x.w.Go())
	})
	x.finish()
	writing.Wait()
	return x
}

func TestInput(t *testing.T) {
	for _, n := range []int64{0, 1, 5, block - 1, block, block + 1, 2 * block, 1 << 20} {
		t.Run(strconv.FormatInt(n, 10), func(t *testing.T) {
			in := input(n)
			eachServer(t, func(t *testing.T, srv server) {
				x := withInput(t, srv, Script{Line: "cat; exit 3"}, in)
				x.ended(3)
				x.output(string(in), "")
			})
		})
	}
}

func TestInputLong(t *testing.T) {
	in := input(100_000_000)
	x := withInput(t, server{}, Script{Line: "cat >&2; echo end"}, in)
	x.ended(0)
	x.output("end\n", string(in))
}

// The end comes whole although the command reads little or nothing of its input.
func TestInputUnread(t *testing.T) {
	in := input(1 << 20)
	for _, tt := range []struct{ line, stdout string }{
		{"echo a; exit 3", "a\n"},
		{"head -c 5; exit 3", string(in[:5])},
		{"exec <&-; echo a; exit 3", "a\n"},
		{"head -c 300000 /dev/zero; exit 3", strings.Repeat("\x00", 300_000)},
	} {
		t.Run(tt.line, func(t *testing.T) {
			eachServer(t, func(t *testing.T, srv server) {
				x := withInput(t, srv, Script{Line: tt.line}, in)
				x.output(tt.stdout, "")
				x.ended(3)
			})
		})
	}
}

// A client that dies in mid-input has the command killed: it never sees the end of half its input.
func TestInputCutOff(t *testing.T) {
	in := input(300_000)
	for _, tt := range []struct {
		name   string
		send   []byte
		linger int
	}{
		{"end of file", in[:200_000], -1},
		{"reset", in[:200_000], 0},
		{"nothing", nil, -1},
		{"all but go", in, -1},
		{"something else", append(bytes.Clone(in), "stop\n"...), -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachServer(t, func(t *testing.T, srv server) {
				file := filepath.Join(t.TempDir(), "complete")
				x := start(t, srv, Script{Line: "echo ready; cat >/dev/null; : >'" + file + "'", Input: int64(len(in))})
				x.until("ready")
				x.send(tt.send)
				x.main.SetLinger(tt.linger)
				x.main.Close()
				x.gone()
				if _, err := os.Stat(file); err == nil {
					t.Error("the command took half its input for the whole")
				}
			})
		})
	}
}

// tools makes a PATH with these scripts and the usual programs behind it.
func tools(t *testing.T, scripts map[string]string, rest string) []string {
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"PATH=" + dir + rest, "HOME=" + home}
}

func TestInputWithoutFullblock(t *testing.T) {
	srv := server{env: tools(t, map[string]string{"dd": `case "$*" in *iflag*) echo usage >&2; exit 1; esac; exec /bin/dd "$@"`}, ":/usr/bin:/bin")}
	in := input(150_000)
	x := withInput(t, srv, Script{Line: "cat"}, in)
	x.ended(0)
	x.output(string(in), "")
}

func TestInputWithoutTools(t *testing.T) {
	for name, scripts := range map[string]map[string]string{
		"no dd":         nil,
		"dd that fails": {"dd": "exit 1"},
		"dd that lies":  {"dd": "exit 0"},
		"dd that dies":  {"dd": "head -c 1; kill -KILL $$"},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, server{env: tools(t, scripts, "")}, Script{Line: "/bin/cat; echo complete", Input: 6})
			x.send([]byte("input\ngo\n"))
			x.finish()
			x.unknown()
			if strings.Contains(x.out.String(), "complete") {
				t.Error("the command took half its input for the whole")
			}
		})
	}
}

// eachScript runs f with sessions in which line runs: without input and with its input through, stopped by the end of the
// connection and not.
func eachScript(t *testing.T, srv server, line string, f func(t *testing.T, x *session)) {
	for name, s := range map[string]Script{
		"none":       {Line: line},
		"input":      {Line: line, Input: 1},
		"none,kill":  {Line: line, KillOnDisconnect: true},
		"input,kill": {Line: line, Input: 1, KillOnDisconnect: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// sleep is a line in a fifo, so that nothing depends on who is how fast. (ksh93 sleeps by itself.)
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			grace, err := os.OpenFile(fifo, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer grace.Close()
			srv := srv
			srv.env = tools(t, map[string]string{"sleep": "read x <'" + fifo + "'\n"}, ":/usr/bin:/bin")
			x := start(t, srv, s)
			x.grace = grace
			if s.Input > 0 {
				x.send([]byte("xgo\n"))
			}
			f(t, x)
		})
	}
}

// endGrace ends the second, as time would.
func (x *session) endGrace() {
	x.t.Helper()
	if _, err := x.grace.WriteString("\n"); err != nil {
		x.t.Error(err)
	}
}

func (x *session) stop(sig os.Signal) {
	x.t.Helper()
	b, err := Stop(sig)
	if err != nil {
		x.t.Fatal(err)
	}
	x.send(b)
}

func TestStopEnds(t *testing.T) {
	// It is tail, not a shell, that says ready: a shell has moments, before it runs a program, in which a signal is lost on it.
	file := filepath.Join(t.TempDir(), "ready")
	if err := os.WriteFile(file, []byte("ready\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, line string
		sig        os.Signal
		stdout     string
		status     int  // -1: killed together with the shell that would tell
		held       bool // a child holds the connection until it is killed
	}{
		{"TERM", "TAIL; :", syscall.SIGTERM, "ready\n", 143, false},
		{"exec", "exec TAIL", syscall.SIGTERM, "ready\n", 143, false},
		{"HUP", "exec TAIL", syscall.SIGHUP, "ready\n", 129, false},
		{"QUIT", "ulimit -c 0; exec TAIL", syscall.SIGQUIT, "ready\n", 131, false},
		{"INT", "exec TAIL", os.Interrupt, "ready\n", 130, false},
		{"KILL", "TAIL; :", os.Kill, "ready\n", -1, false},
		{"trapped", "trap 'echo bye; exit 7' TERM; TAIL & wait", syscall.SIGTERM, "ready\nbye\n", 7, false},
		{"ignored", "trap '' TERM; TAIL; :", syscall.SIGTERM, "ready\n", -1, false},
		{"child ignores", "(trap '' TERM; exec TAIL) & wait", syscall.SIGTERM, "ready\n", 143, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			eachServer(t, func(t *testing.T, srv server) {
				eachScript(t, srv, strings.ReplaceAll(tt.line, "TAIL", fmt.Sprintf("tail -f --pid=%d '%s'", os.Getpid(), file)), func(t *testing.T, x *session) {
					x.until("ready")
					x.stop(tt.sig)
					switch {
					case tt.held:
						x.read(x.main, x.stdout, func() bool { _, ok := x.stdout.Ended(); return ok })
						x.read(x.second, x.stderr, func() bool { _, ok := x.stderr.Ended(); return ok })
						x.endGrace()
						x.finish()
					case tt.status < 0:
						x.endGrace()
						x.finish()
					default:
						x.finish() // and not only when the second is over
						x.endGrace()
					}
					if got := x.out.String(); got != tt.stdout {
						t.Errorf("stdout: got %q, want %q", got, tt.stdout)
					}
					if tt.status < 0 {
						x.unknown()
					} else {
						x.ended(tt.status)
					}
				})
			})
		})
	}
}

// A command that writes faster than we read is stopped all the same.
func TestStopFlood(t *testing.T) {
	x := start(t, server{}, Script{Line: "yes ready >&2 & exec yes ready"})
	x.until("ready")
	x.stop(syscall.SIGTERM)
	for _, c := range []io.Reader{x.main, x.second} { // one after the other: we do not even read the second yet
		io.Copy(io.Discard, c)
	}
	x.gone()
}

// A stop that crosses the command's own end: one of both it is, told by a trailer.
func TestStopAtTheEnd(t *testing.T) {
	eachServer(t, func(t *testing.T, srv server) {
		told := []int{0, 143}
		if strings.HasSuffix(t.Name(), "/sh=ksh93") {
			told = append(told, 15) // see the known limits
		}
		for range 4 {
			eachScript(t, srv, "echo ready", func(t *testing.T, x *session) {
				x.until("ready")
				x.stop(syscall.SIGTERM)
				x.finish()
				x.endGrace()
				if status, ok := x.stdout.Ended(); !ok || !slices.Contains(told, status) {
					t.Errorf("status %d, %v; want one of %v", status, ok, told)
				}
				x.gone()
			})
		}
	})
}

// Input is in flight and the command does read: the reset of the main channel stops it.
func TestStopInMidInput(t *testing.T) {
	eachServer(t, func(t *testing.T, srv server) {
		x := start(t, srv, Script{Line: "trap '' TERM; echo ready; cat >/dev/null; sleep 1000", Input: 1 << 30})
		x.until("ready")
		x.send(input(100_000))
		x.main.SetLinger(0)
		x.main.Close()
		io.Copy(x.stderr, x.second)
		x.unknown()
	})
}

func TestKillOnDisconnect(t *testing.T) {
	for _, linger := range []int{-1, 0} {
		eachServer(t, func(t *testing.T, srv server) {
			for _, input := range []int64{0, 1} {
				x := start(t, srv, Script{Line: "trap '' TERM; echo ready; sleep 1000; sleep 1000", KillOnDisconnect: true, Input: input})
				if input > 0 {
					x.send([]byte("xgo\n"))
				}
				x.until("ready")
				x.main.SetLinger(linger)
				x.main.Close()
				x.gone()
			}
		})
	}
}

// Without it the command outlives its client, and nothing of the wrapper is left beside the shell that waits for it.
func TestLivesOn(t *testing.T) {
	for _, linger := range []int{-1, 0} {
		eachServer(t, func(t *testing.T, srv server) {
			for _, input := range []int64{0, 1} {
				dir := t.TempDir()
				fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "file")
				if err := syscall.Mkfifo(fifo, 0o600); err != nil {
					t.Fatal(err)
				}
				x := start(t, srv, Script{Line: "trap 'gone=yes' URG; echo ready; while [ ! $gone ]; do sleep 0.01; done; exec >/dev/null 2>&1; read x <'" + fifo + "'; echo $x >'" + file + "'", Input: input})
				if input > 0 {
					x.send([]byte("xgo\n"))
				}
				x.until("ready")
				x.main.SetLinger(linger)
				x.main.Close()
				if err := os.WriteFile(fifo, []byte("alive\n"), 0); err != nil { // opens when the command reads
					t.Fatal(err)
				}
				x.gone()
				if b, err := os.ReadFile(file); string(b) != "alive\n" {
					t.Errorf("the command did not go on: %q, %v", b, err)
				}
			}
		})
	}
}

// The end is told although a child goes on, and nothing of the wrapper is left beside it.
func TestBackground(t *testing.T) {
	t.Run("lets go", func(t *testing.T) {
		eachServer(t, func(t *testing.T, srv server) {
			eachScript(t, srv, "/bin/sleep 1000 </dev/null >/dev/null 2>&1 & echo a; exit 2", func(t *testing.T, x *session) {
				x.finish()
				x.output("a\n", "")
				x.left("sleep")
				x.kill()
				x.ended(2)
			})
		})
	})
	t.Run("holds on", func(t *testing.T) {
		eachServer(t, func(t *testing.T, srv server) {
			eachScript(t, srv, "echo a; /usr/bin/yes b & exit 2", func(t *testing.T, x *session) {
				x.read(x.main, x.stdout, func() bool { return x.stdout.Late() > 0 })
				if status, _ := x.stdout.Ended(); status != 2 || !strings.HasPrefix(x.out.String(), "a\n") {
					t.Errorf("status %d, stdout %.100q", status, x.out.String())
				}
				x.left("yes")
			})
		})
	})
}

// However many processes the user may still start, a status is told only of a command that ran, with its whole input.
func TestForkFails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: only another user's number of processes can be limited without harm")
	}
	uid := uint32(1_000_000_000 + os.Getpid()) // nobody else's
	told := 0
	for _, name := range []string{"dash", "busybox"} { // bash and mksh try again for half a minute
		for processes := 1; processes <= 8; processes++ {
			for _, n := range []int64{0, 6} {
				t.Run(fmt.Sprintf("%s/%d/%d", name, n, processes), func(t *testing.T) {
					srv := server{
						login:  "bash",
						before: fmt.Sprintf("ulimit -u %d; ", processes),
						attr:   &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}},
					}
					if name != "dash" {
						srv.sh = impostor(t, name)
						os.Chmod(filepath.Dir(srv.sh), 0o755)
					}
					x := start(t, srv, Script{Line: "cat; echo ran", Input: n})
					want := "ran\n"
					if n > 0 {
						x.send([]byte("input\ngo\n"))
						want = "input\nran\n"
					}
					x.finish()
					x.gone()
					if status, ok := x.stdout.Ended(); ok && status == 0 {
						told++
						if x.out.String() != want {
							t.Errorf("status 0 for output %q", x.out.String())
						}
					}
				})
			}
		}
	}
	if told == 0 {
		t.Error("no session came through")
	}
}
