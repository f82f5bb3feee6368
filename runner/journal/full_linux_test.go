package journal

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"multirsh/runner"
	"multirsh/transport"
)

// small mounts a disk of this size.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small disk cannot be mounted (%v): run this as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A disk becomes full during a run: no more hosts are started, and the results of those running are kept.
func TestDiskFull(t *testing.T) {
	dir := filepath.Join(small(t, "128k"), "runs")
	const n = 800
	j := create(t, dir, n)
	started, done, failed := 0, 0, error(nil)
	for ; failed == nil && started < n; started++ {
		if failed = j.Event(start(started)); failed != nil {
			break
		}
		if started >= 20 { // so many are running
			send(t, j, finish(done, 0))
			done++
		}
	}
	if !errors.Is(failed, syscall.ENOSPC) || !errors.As(failed, new(*WriteError)) || started < 50 {
		t.Fatalf("%d hosts, then %v", started, failed)
	}
	if want := fmt.Sprintf("the journal %s cannot be written: no space left on device", j.path); failed.Error() != want {
		t.Errorf("%v, want %s", failed, want)
	}
	if again := j.Event(start(started)); again != failed {
		t.Errorf("another start: %v", again)
	}
	send(t, j, skipped(started))
	for ; done < started; done++ {
		send(t, j, finish(done, 7))
	}
	closed(t, j)
	run, damaged := load(t, dir, Last)
	if want := strings.Repeat("x", started) + strings.Repeat("-", n-started); states(run) != want || len(damaged) > 0 || run.Why == "" {
		t.Errorf("%s, want %s; damaged %v", states(run), want, damaged)
	}
	t.Logf("%d of %d hosts", started, n)
}

// The same where room cannot be kept: what is on the disk is right.
func TestDiskFullNoRoom(t *testing.T) {
	dir := filepath.Join(small(t, "128k"), "runs")
	const n = 800
	j := create(t, dir, n)
	j.room = math.MaxInt64
	var failed error
	seq := 0
	for ; failed == nil; seq++ {
		if failed = j.Event(start(seq)); failed == nil {
			failed = j.Event(finish(seq, 0))
		}
	}
	for _, e := range []runner.Event{start(n - 1), finish(n-1, 0), skipped(n - 1)} {
		if err := j.Event(e); err != failed || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v after %v", err, failed)
		}
	}
	if err := j.Close(); err != failed {
		t.Error(err)
	}
	run, damaged := load(t, dir, Last)
	if got := states(run); len(damaged) > 0 || strings.Count(got, "x")+strings.Count(got, "?") < seq-1 || !run.Ended.IsZero() {
		t.Errorf("%d hosts were begun: %s, damaged %v", seq, got, damaged)
	}
	list, err := List(dir)
	if err != nil || list[0].Err != nil || list[0].Running {
		t.Error(list, err)
	}
}

// A disk that is too small from the first leaves nothing there.
func TestDiskFullAtOnce(t *testing.T) {
	dir := filepath.Join(small(t, "32k"), "runs")
	if _, err := Create(dir, Head{}, numbered(10_000), ""); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	input := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(input, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, Head{}, numbered(1), input); !errors.Is(err, syscall.ENOSPC) || !errors.As(err, new(*WriteError)) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestReadOnly(t *testing.T) {
	disk := small(t, "1m")
	dir := filepath.Join(disk, "runs")
	closed(t, create(t, dir, 3))
	if err := syscall.Mount("none", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, cannotCreate := Create(dir, Head{}, numbered(1), "")
	_, cannotSpool := Spool(dir)
	_, _, _, cannotResume := Resume(dir, Last)
	for _, err := range []error{cannotCreate, cannotSpool, cannotResume} {
		if !errors.As(err, new(*WriteError)) || !errors.Is(err, syscall.EROFS) {
			t.Error(err)
		}
	}
	if run, damaged := load(t, dir, Last); states(run) != "---" || len(damaged) > 0 {
		t.Error(states(run), damaged)
	}
	if list, err := List(dir); err != nil || len(list) != 1 || list[0].Err != nil {
		t.Error(list, err)
	}
}

// drained is a journal as it stands before the other sinks: when it cannot be written, no more hosts are started, and those running finish.
type drained struct {
	*Journal
	r *runner.Runner
}

func (s drained) Event(e runner.Event) error {
	if err := s.Journal.Event(e); err != nil {
		s.r.Drain(err)
	}
	return nil
}

// A runner with a journal on a disk that becomes full.
func TestDrain(t *testing.T) {
	dir := filepath.Join(small(t, "256k"), "runs")
	const n = 1500
	j := create(t, dir, n)
	r := &runner.Runner{Transport: instant{}, Fanout: 10}
	sum, err := r.Run(t.Context(), numbered(n), func(transport.Host) *transport.Command { return &transport.Command{} }, drained{j, r})
	run, damaged := load(t, dir, Last)
	c := run.Counts()
	if !errors.Is(err, syscall.ENOSPC) || len(damaged) > 0 || c.Open > 0 || c.Outcomes[runner.OK] != sum.Outcomes[runner.OK] || c.NotRun != sum.Outcomes[runner.Cancelled] || c.NotRun == 0 {
		t.Errorf("%v: %v of the runner, %+v of the journal, damaged %v", err, sum.Outcomes, c, damaged)
	}
}
