package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	screenRows    = 24
	screenColumns = 80
)

// vt is what of ECMA-48 a screen of 24 rows needs to show a run: CR, LF, BS, CUU, ED and EL. Rows that scroll off are kept.
type vt struct {
	rows    [][]byte // what is tested here is ASCII
	y, x    int
	text    string // that has come and is not dealt with: the begin of a sequence
	unknown []string
}

var controlSequence = regexp.MustCompile(`^\x1b\[([0-9;]*)([@-~])`)

func (v *vt) write(text string) {
	for v.text += text; v.text != ""; {
		if v.text[0] == '\x1b' {
			parts := controlSequence.FindStringSubmatch(v.text)
			if parts == nil {
				return
			}
			v.text = v.text[len(parts[0]):]
			v.control(parts[0], parts[1], parts[2])
			continue
		}
		v.put(v.text[0])
		v.text = v.text[1:]
	}
}

func (v *vt) control(sequence, number, what string) {
	n, err := strconv.Atoi(number)
	if err != nil {
		n = 1
	}
	switch {
	case what == "A":
		v.y = max(v.y-n, len(v.rows)-screenRows, 0)
	case (what == "J" || what == "K") && (number == "" || number == "0"):
		if v.y < len(v.rows) {
			v.rows[v.y] = v.rows[v.y][:min(v.x, len(v.rows[v.y]))]
		}
		for y := v.y + 1; what == "J" && y < len(v.rows); y++ {
			v.rows[y] = nil
		}
	default:
		v.unknown = append(v.unknown, sequence)
	}
}

func (v *vt) put(c byte) {
	switch c {
	case '\r':
		v.x = 0
		return
	case '\b':
		v.x = max(0, v.x-1)
		return
	case '\n':
		v.y++
	}
	if v.x == screenColumns && c != '\n' {
		v.y, v.x = v.y+1, 0
	}
	for len(v.rows) <= v.y {
		v.rows = append(v.rows, nil)
	}
	if c == '\n' {
		return
	}
	for len(v.rows[v.y]) <= v.x {
		v.rows[v.y] = append(v.rows[v.y], ' ')
	}
	v.rows[v.y][v.x] = c
	v.x++
}

// shown are the rows down to the last that is not empty.
func (v *vt) shown() []string {
	var rows []string
	for _, row := range v.rows {
		rows = append(rows, strings.TrimRight(string(row), " "))
	}
	for len(rows) > 0 && rows[len(rows)-1] == "" {
		rows = rows[:len(rows)-1]
	}
	return rows
}

// seen is multi-rsh as a person sees it on a terminal.
type seen struct {
	testing.TB
	vt
	keys *os.File
	cmd  *exec.Cmd
	all  string // that has come
}

// see starts multi-rsh in dir on a terminal of 80 by 24, on which are its streams unless change has others; nil changes nothing.
func see(t testing.TB, dir string, change func(*exec.Cmd), args ...string) *seen {
	t.Helper()
	keys, tty := pseudoTerminal(t)
	modes, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	modes.Lflag |= unix.ECHO | unix.ECHOCTL
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, modes); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: screenRows, Col: screenColumns}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t), append([]string{"-R", "exec"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "NO_COLOR=1", "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // Ctty is descriptor 0
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close() // what is shown ends with the program
	t.Cleanup(func() { cmd.Process.Kill() })
	return &seen{TB: t, keys: keys, cmd: cmd}
}

// more waits for what is shown next; false: the program has ended.
func (s *seen) more() bool {
	s.Helper()
	buf := make([]byte, 4096)
	n, err := s.keys.Read(buf)
	s.all += string(buf[:n])
	s.write(string(buf[:n]))
	if err != nil && !errors.Is(err, syscall.EIO) {
		s.Fatal(err)
	}
	return err == nil
}

// until waits for what is shown.
func (s *seen) until(what string, is func(rows []string) bool) {
	s.Helper()
	for !is(s.shown()) {
		if !s.more() {
			s.Fatalf("it ended before it showed %s:\n%s", what, strings.Join(s.shown(), "\n"))
		}
	}
}

// ends waits for the end of the program, which was well.
func (s *seen) ends() {
	s.Helper()
	for s.more() {
	}
	if err := s.cmd.Wait(); err != nil {
		s.Fatalf("%v:\n%s", err, strings.Join(s.shown(), "\n"))
	}
	if len(s.unknown) > 0 {
		s.Errorf("sequences that a terminal need not know: %q", s.unknown)
	}
}

// gates makes a fifo for each host, at which it waits, and returns what lets a host go on.
func gates(t testing.TB, hosts int) (dir string, open func(host int)) {
	t.Helper()
	dir = t.TempDir()
	gate := func(host int) string { return filepath.Join(dir, fmt.Sprintf("gate.n%d", host)) }
	for host := range hosts {
		if err := unix.Mkfifo(gate(host+1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, func(host int) {
		t.Helper()
		file, err := os.OpenFile(gate(host), os.O_WRONLY, 0) // waits for the host
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
}

// waits has a host say when it begins and when it ends.
const waits = "echo begin %h; read go <gate.%h; echo end %h"

// While hosts run the last two rows are the progress and all that they say scrolls above, in its order; at the end nothing of it is left.
func TestProgressOnTerminal(t *testing.T) {
	t.Parallel()
	const hosts, fanout = 30, 3
	dir, open := gates(t, hosts)
	s := see(t, dir, nil, "-p", strconv.Itoa(fanout), "-w", fmt.Sprintf("n[1-%d]", hosts), waits)

	want := []string{"n1: begin n1", "n2: begin n2", "n3: begin n3"} // rows above the progress
	facts := regexp.MustCompile(`^(\d+)/30 done, (\d+) running(, [0-9.]+/s)?(, [0-9hms]+ left)?$`)
	slowest := regexp.MustCompile(`^slowest: n\d+ [0-9ms]+(, n\d+ [0-9ms]+){0,2}$`)
	above := func(rows []string, done int) ([]string, bool) {
		n := len(rows) - 2
		if n < 0 {
			return nil, false
		}
		parts := facts.FindStringSubmatch(rows[n])
		return rows[:n], parts != nil && parts[1] == strconv.Itoa(done) && slowest.MatchString(rows[n+1])
	}
	shows := func(done int) {
		t.Helper()
		s.until(fmt.Sprintf("%d hosts done below %d lines", done, len(want)), func(rows []string) bool {
			rows, is := above(rows, done)
			return is && len(rows) >= len(want)
		})
		got, _ := above(s.shown(), done)
		sorted := slices.Clone(got)
		if slices.Sort(sorted); done == 0 && slices.Equal(sorted, want) { // they begin at the same time
			want = got
		}
		if !slices.Equal(got, want) {
			t.Fatalf("above the progress:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	shows(0)
	goesOn := func(host int) {
		open(host)
		want = append(want, fmt.Sprintf("n%d: end n%d", host, host))
		if next := host + fanout; next <= hosts {
			want = append(want, fmt.Sprintf("n%d: begin n%d", next, next))
		}
	}
	const half = 20
	for host := 1; host <= half; host++ {
		goesOn(host)
		shows(host)
	}

	// What a key asks for is above it, too, and the key is not left.
	if _, err := s.keys.WriteString(ctrlC); err != nil {
		t.Fatal(err)
	}
	s.until("the status above the progress", func(rows []string) bool {
		rows, is := above(rows, half)
		return is && len(rows) > 0 && rows[len(rows)-1] == "Ctrl-C again within a second stops"
	})
	got, _ := above(s.shown(), half)
	status := got[min(len(want), len(got)):]
	if !slices.Equal(got[:min(len(want), len(got))], want) || !regexp.MustCompile(
		`^20 of 30 hosts done \(20 ok\), 3 running, 7 waiting\n(running [0-9ms]+ \(\d\): n[0-9,\[\]-]+\n){1,3}Ctrl-C again`).MatchString(strings.Join(status, "\n")) {
		t.Fatalf("with a status:\n%s\nwant before it:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	want = slices.Clone(got)

	for host := half + 1; host <= hosts; host++ {
		goesOn(host)
		if host < hosts {
			shows(host)
		}
	}
	s.ends()
	rows := s.shown()
	summary := rows[min(len(want), len(rows)):]
	if !slices.Equal(rows[:len(rows)-len(summary)], want) || !regexp.MustCompile(`^30 hosts: 30 ok\ntook [0-9.a-zµ]+\nconnect: p50 .*\nrun: p50 .*(\nstragglers, .*)?$`).MatchString(
		strings.Join(summary, "\n")) {
		t.Errorf("at the end:\n%s\nwant before the summary:\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
	if s.x != 0 || s.y != len(rows) {
		t.Errorf("the cursor is at row %d, column %d; want the begin of row %d", s.y, s.x, len(rows))
	}
}

// While the process is suspended the terminal is the shell's, and nothing of the progress is there.
func TestSuspended(t *testing.T) {
	t.Parallel()
	dir, open := gates(t, 1)
	s := see(t, dir, nil, "-w", "n1", waits)
	progress := func(rows []string) bool {
		return len(rows) == 3 && rows[0] == "n1: begin n1" && strings.HasPrefix(rows[1], "0/1 done") && strings.HasPrefix(rows[2], "slowest: n1")
	}
	s.until("the progress", progress)
	for range 2 {
		if err := s.cmd.Process.Signal(syscall.SIGTSTP); err != nil {
			t.Fatal(err)
		}
		s.until("the line alone", func(rows []string) bool { return slices.Equal(rows, []string{"n1: begin n1"}) })
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("%v, status %#x, want stopped", err, status)
		}
		if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		s.until("the progress again", progress)
	}
	open(1)
	s.ends()
	if got, want := s.shown(), []string{"n1: begin n1", "n1: end n1"}; !slices.Equal(got, want) {
		t.Errorf("at the end:\n%s", strings.Join(got, "\n"))
	}
}

// Where there is to be no progress there is none: all that is written is what the command writes, however long it takes.
func TestNoProgress(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options []string
		change  func(*exec.Cmd)
	}{
		"none":             {options: []string{"--progress=none"}},
		"quiet":            {options: []string{"-q"}},
		"dumb":             {change: func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "TERM=dumb") }},
		"standard error":   {change: func(cmd *exec.Cmd) { cmd.Stderr = new(strings.Builder) }},
		"plain, and short": {options: []string{"--progress=plain"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Longer than it takes a progress to appear.
			s := see(t, t.TempDir(), test.change, append(test.options, "-w", "n1", "echo begin; sleep 1; echo end")...)
			s.ends()
			if want := "n1: begin\r\nn1: end\r\n"; s.all != want {
				t.Errorf("got %q, want %q", s.all, want)
			}
			if b, is := s.cmd.Stderr.(*strings.Builder); is && b.String() != "" {
				t.Errorf("standard error: %q", b)
			}
		})
	}
}

// A log gets a line every ten seconds.
func TestPlainProgress(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes ten seconds: run this without -short")
	}
	dir, open := gates(t, 3)
	cmd := exec.Command(program(t), "--progress=plain", "-p", "2", "-R", "exec", "-w", "n[1-3]", waits)
	cmd.Dir = dir
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewReader(stderr)
	got, err := lines.ReadString('\n')
	if err != nil || !regexp.MustCompile(`^multi-rsh: 0/3 done, 2 running, slowest: n[12] \d+s, n[12] \d+s\n$`).MatchString(got) {
		t.Fatalf("%q, %v; want how far it is", got, err)
	}
	for host := range 3 {
		open(host + 1)
	}
	rest, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	if status := ended(t, cmd.Wait()); status != exitOK || !strings.HasSuffix(string(rest), "3 hosts: 3 ok\n") {
		t.Errorf("exit status %d; standard error goes on with %q", status, rest)
	}
}

// What a host writes is not obeyed by the terminal, unless that is asked for, and gets byte for byte where there is none.
func TestControlCharactersOnTerminal(t *testing.T) {
	t.Parallel()
	const writes = `printf 'a\033[2Jb\rc\001\302\233\377\n'; printf '\033]0;x\007\n' >&2`
	const out, err = "a\x1b[2Jb\rc\x01\u009b\xff\n", "\x1b]0;x\x07\n"
	onTTY := strings.NewReplacer("\n", "\r\n").Replace // the line discipline's
	for name, test := range map[string]struct {
		options []string
		pipe    bool   // standard output is one
		want    string // on the terminal
	}{
		"escaped":  {want: onTTY(`n1: a^[[2Jb^Mc^A\u009b\xff` + "\n" + `n1: ^[]0;x^G` + "\n")},
		"a pipe":   {pipe: true, want: onTTY(`n1: ^[]0;x^G` + "\n")},
		"raw":      {options: []string{"--raw"}, want: onTTY("n1: " + out + "n1: " + err)},
		"raw pipe": {options: []string{"--raw"}, pipe: true, want: onTTY("n1: " + err)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var pipe strings.Builder
			s := see(t, t.TempDir(), func(cmd *exec.Cmd) {
				if test.pipe {
					cmd.Stdout = &pipe
				}
			}, append(test.options, "-q", "-w", "n1", writes)...)
			for s.more() {
			}
			if err := s.cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if !sameLines(s.all, test.want) {
				t.Errorf("on the terminal: %q, want %q", s.all, test.want)
			}
			if want := "n1: " + out; test.pipe && pipe.String() != want {
				t.Errorf("in the pipe: %q, want %q", pipe.String(), want)
			}
		})
	}
}

// sameLines tells whether the texts have the same lines: which of a host's two outputs comes first is chance.
func sameLines(a, b string) bool {
	return slices.Equal(slices.Sorted(strings.SplitSeq(a, "\n")), slices.Sorted(strings.SplitSeq(b, "\n")))
}

// What is made of a record is as harmless as a run, and a page is not for a terminal.
func TestRecordOnTerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const record = `{"type":"run","v":1,"hosts":1}
{"type":"start","seq":0,"host":"n1\u001b[2J","time":"2026-03-29T01:59:59Z"}
{"type":"output","seq":0,"host":"n1\u001b[2J","time":"2026-03-29T01:59:59Z","stream":"stdout","data":"a\u001b[2Jb\n"}
{"type":"result","seq":0,"host":"n1\u001b[2J","time":"2026-03-29T01:59:59Z","outcome":"refused","phase":"connect","error":"no\u001b[2J\u0007"}
`
	if err := os.WriteFile(filepath.Join(dir, "run.jsonl"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		status int
		want   string // shown, below which there may be more
	}{
		{[]string{"replay"}, exitOK, "n1^[[2J: a^[[2Jb\r\nn1^[[2J: refused"},
		{[]string{"replay", "--fold", "-q"}, exitOK, "---------------\r\nn1^[[2J (1): refused\r\n---------------\r\na^[[2Jb\r\n"},
		{[]string{"replay", "--diff", "--summary=json"}, exitOK, "n1^[[2J: refused: no?[2J?\r\n---------------\r\nn1^[[2J (1): refused\r\n---------------\r\na^[[2Jb\r\n"},
		{[]string{"replay", "--fold-live"}, exitOK, "n1^[[2J: a^[[2Jb\r\nn1^[[2J: refused"},
		{[]string{"report"}, exitUsage, "multi-rsh: a page for a browser does not go to a terminal; write it to a file: multi-rsh report run.jsonl -o run.html\r\n"},
	} {
		s := see(t, dir, func(cmd *exec.Cmd) { cmd.Args = append(append(cmd.Args[:1], test.args...), "run.jsonl") })
		for s.more() {
		}
		if status := ended(t, s.cmd.Wait()); status != test.status || !strings.HasPrefix(s.all, test.want) {
			t.Errorf("%q: exit status %d and %q, want %d and %q", test.args, status, s.all, test.status, test.want)
		}
		if strings.ContainsAny(s.all, "\x1b\a") {
			t.Errorf("%q: the terminal is told what to do: %q", test.args, s.all)
		}
	}
}
