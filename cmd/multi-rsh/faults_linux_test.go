package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// program is a file to run multi-rsh by.
func program(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "multi-rsh")
	if err := os.Symlink(self, name); err != nil {
		t.Fatal(err)
	}
	return name
}

// ended is the exit status of a command that has run.
func ended(t testing.TB, err error) int {
	t.Helper()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	} else if err != nil {
		return exit.ExitCode()
	}
	return exitOK
}

// onSmallDisk runs multi-rsh with @disk in its arguments for a directory of 256 KiB, which only it sees. What is there at the end is copied
// to left.
func onSmallDisk(t testing.TB, args ...string) (stdout, stderr string, status int, left string) {
	t.Helper()
	return onSmallDiskWith(t, nil, args...)
}

// onSmallDiskWith does so with more variables in the environment, in which @disk may stand, too.
func onSmallDiskWith(t testing.TB, environment []string, args ...string) (stdout, stderr string, status int, left string) {
	t.Helper()
	dir := t.TempDir()
	disk, left := filepath.Join(dir, "disk"), filepath.Join(dir, "left")
	for _, name := range []string{disk, left} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	unshare := []string{"--mount"}
	if os.Getuid() != 0 {
		unshare = append(unshare, "--map-root-user")
	}
	mount := []string{"sh", "-c", `mount -t tmpfs -o size=256k none "$0" || exit 77`, disk}
	if out, err := exec.Command("unshare", append(unshare, mount...)...).CombinedOutput(); err != nil {
		t.Skipf("a small disk cannot be mounted (%v: %s): install util-linux and run this as root", err, bytes.TrimSpace(out))
	}
	mount[2] += `; left=$1; shift; "$@"; status=$?; cp -R "$0/." "$left"; exit $status`
	command := append(append(unshare, mount...), left, program(t))
	for _, arg := range args {
		command = append(command, strings.ReplaceAll(arg, "@disk", disk))
	}
	var out, errs strings.Builder
	cmd := exec.Command("unshare", command...)
	cmd.Env = append(os.Environ(), "TMPDIR="+disk)
	for _, variable := range environment {
		cmd.Env = append(cmd.Env, strings.ReplaceAll(variable, "@disk", disk))
	}
	cmd.Stdout, cmd.Stderr = &out, &errs
	status = ended(t, cmd.Run())
	return out.String(), strings.ReplaceAll(errs.String(), disk, "@disk"), status, left
}

// Of three hosts, one after the other, n1 ends well. What n2 writes is too much for the disk, and then it would go on for a long time.
const fills = `head -c 50000 /dev/zero | tr '\0' x; echo; test %n = 0 && exit; seq 100000; exec sleep 1000`

func TestDiskFull(t *testing.T) {
	t.Parallel()
	const which = "3 hosts: 1 ok, 2 cancelled\ncancelled (1): n2\ncancelled, not begun (1): n3\nstopped 1\n"
	for _, test := range []struct {
		args []string
		want string // of standard error, a regular expression
	}{
		{[]string{"--json=@disk/run.jsonl"}, which + `multi-rsh: @disk/run\.jsonl cannot be written \(no space left on device\), so the run was stopped; 1 of 3 hosts were ok\n`},
		{[]string{"--outdir=@disk/out"}, which + `multi-rsh: .*@disk/out/n2.*no space left on device.*, so the run was stopped; 1 of 3 hosts were ok\n`},
		{[]string{"--fold", "--fold-memory=64k"}, which + `multi-rsh: outputs to fold that do not fit in 64 KiB of memory \(--fold-memory\) are kept in a file \(in TMPDIR\), and that failed: .*no space left on device, so the run was stopped; 1 of 3 hosts were ok\n`},
	} {
		t.Run(test.args[0], func(t *testing.T) {
			stdout, stderr, status, left := onSmallDisk(t, append(test.args, "-R", "exec", "-p1", "-w", "n[1-3]", fills)...)
			want := regexp.MustCompile("^" + regexp.QuoteMeta(which) + strings.TrimPrefix(test.want, which) + "$")
			if status != exitFailure || !want.MatchString(stderr) {
				t.Errorf("exit status %d, want %d; standard error:\n%s\nwant:\n%s", status, exitFailure, stderr, want)
			}
			if !strings.Contains(stdout, "xxxxx\n") { // a fold shows what it has
				t.Errorf("n1's line is not shown; standard output has %d bytes", len(stdout))
			}
			switch test.args[0] {
			case "--json=@disk/run.jsonl": // what could be written can be used
				cmd := exec.Command(program(t), "replay", "--fold", filepath.Join(left, "run.jsonl"))
				var out, errs strings.Builder
				cmd.Stdout, cmd.Stderr = &out, &errs
				if status := ended(t, cmd.Run()); status != exitHosts || !strings.Contains(errs.String(), "the record ends within this line") {
					t.Errorf("replay: exit status %d, want %d, and that the record ends within a line:\n%s", status, exitHosts, errs.String())
				}
				if !strings.Contains(out.String(), "n1 (1)\n---------------\nxxxxx") {
					t.Errorf("replay does not show what n1 wrote")
				}
			case "--outdir=@disk/out": // what has a host's name is whole
				if info, err := os.Stat(filepath.Join(left, "out", "n1")); err != nil || info.Size() != 50001 {
					t.Errorf("the file of n1: %v, %v", info, err)
				}
				if exists(t, left, "out/n2") || exists(t, left, "out/n3") {
					t.Error("n2 or n3 has a file")
				}
			}
		})
	}
}

// What cannot be written from the begin on.
func TestDeviceFull(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(program(t), "--json=/dev/full", "-R", "exec", "-p1", "-w", "n[1-3]", "touch "+filepath.Join(t.TempDir(), "ran-%h"))
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	const want = "3 hosts: 3 cancelled\ncancelled, not begun (3): n[1-3]\n" +
		"multi-rsh: /dev/full cannot be written (no space left on device), so the run was stopped; 0 of 3 hosts were ok\n"
	if status := ended(t, cmd.Run()); status != exitFailure || stderr.String() != want {
		t.Errorf("exit status %d, standard error:\n%s\nwant %d:\n%s", status, stderr, exitFailure, want)
	}
}

// A reader as head(1) goes: every view ends then, and says so in one sentence.
func TestReaderGone(t *testing.T) {
	t.Parallel()
	for _, view := range []string{"--no-labels", "--fold", "--diff", "--fold-live", "--json"} {
		t.Run(view, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			stderr := new(strings.Builder)
			cmd := exec.Command(program(t), view, "-R", "exec", "-w", "n[1-3]", "seq 100000")
			cmd.Stdout, cmd.Stderr = w, stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if _, err := r.Read(make([]byte, 10)); err != nil {
				t.Error(err)
			}
			r.Close()
			status := ended(t, cmd.Wait())
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			const want = "multi-rsh: nobody reads the output any more, so the run was stopped; "
			if last := lines[len(lines)-1]; status != exitFailure || !strings.HasPrefix(last, want) || strings.Count(stderr.String(), "nobody reads") != 1 {
				t.Errorf("exit status %d, want %d and the last line %q; standard error:\n%s", status, exitFailure, want, stderr)
			}
		})
	}
}

// maxResident is what the program, a test binary, may have in memory at most, in KiB.
const maxResident = 100 << 10

// reads runs the program and hands what it writes to take, a piece at a time.
func reads(t testing.TB, take func([]byte), size int, args ...string) (stderr string) {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	for buf := make([]byte, size); ; {
		n, err := out.Read(buf)
		take(buf[:n])
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if status := ended(t, cmd.Wait()); status != exitOK {
		t.Fatalf("exit status %d:\n%s", status, &errs)
	}
	resident := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	t.Logf("%d MiB of memory at most", resident>>10)
	if resident > maxResident {
		t.Errorf("%d MiB of memory, want at most %d", resident>>10, maxResident>>10)
	}
	return errs.String()
}

// A host sends 5 GB without a newline: they come out, broken into lines, and memory stays flat.
func TestEndlessLine(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("5 GB take seconds, and it is about memory: run this without -short and -race")
	}
	const size = 5_000_000_000
	zeros, labels := 0, 0
	stderr := reads(t, func(p []byte) {
		zeros += bytes.Count(p, []byte{0})
		labels += bytes.Count(p, []byte{'\n'})
	}, 1<<20, "-R", "exec", "-w", "n1", fmt.Sprintf("head -c %d /dev/zero", size))
	if zeros != size {
		t.Errorf("%d bytes have come, want %d", zeros, size)
	}
	if want := size>>20 + 1; labels != want {
		t.Errorf("%d lines, want %d, of 1 MiB each", labels, want)
	}
	if want := "n1: a line has no end within 1 MiB, so it is broken there\n"; stderr != want {
		t.Errorf("standard error:\n%s\nwant:\n%s", stderr, want)
	}

	// Alone and without labels it is passed on as it is.
	zeros, labels = 0, 0
	stderr = reads(t, func(p []byte) {
		zeros += bytes.Count(p, []byte{0})
		labels += len(p)
	}, 1<<20, "-R", "exec", "-N", "-w", "n1", fmt.Sprintf("head -c %d /dev/zero", size/10))
	if zeros != size/10 || labels != size/10 || stderr != "" {
		t.Errorf("%d bytes and of them %d zeros have come, want %d; standard error:\n%s", labels, zeros, size/10, stderr)
	}
}

// A hundred hosts send 10 MB each to a reader that is slower than they are: they are held up, and what they have sent waits with them and
// not in memory.
func TestSlowReader(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("1 GB takes seconds, and it is about memory: run this without -short and -race")
	}
	const hosts, size = 100, 10_000_000
	line := strings.Repeat("x", 99)
	bytesOf, lines := 0, 0
	stderr := reads(t, func(p []byte) {
		// The slowness: a look at each byte, and no more in a read than a tenth of what a pipe holds.
		for _, c := range p {
			switch c {
			case 'x':
				bytesOf++
			case '\n':
				lines++
			}
		}
	}, 6<<10, "-R", "exec", "-q", "-w", fmt.Sprintf("n[1-%d]", hosts), fmt.Sprintf("yes %s | head -c %d", line, size))
	if want := hosts * size / 100; lines != want || bytesOf != want*99 || stderr != "" {
		t.Errorf("%d lines with %d bytes, want %d with %d; standard error:\n%s", lines, bytesOf, want, want*99, stderr)
	}
}
