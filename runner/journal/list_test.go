package journal

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// aged makes all in dir older than what Prune takes for half made.
func aged(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		then := time.Now().Add(-2 * stale)
		if err := os.Chtimes(filepath.Join(dir, e.Name()), then, then); err != nil {
			t.Fatal(err)
		}
	}
}

func ids(t *testing.T, dir string) []string {
	t.Helper()
	list, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, info := range list {
		all = append(all, info.ID)
	}
	return all
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	if list, err := List(filepath.Join(dir, "none")); err != nil || list != nil {
		t.Error(list, err)
	}
	ended := create(t, dir, 3)
	send(t, ended, start(0))
	send(t, ended, finish(0, 0))
	closed(t, ended)
	running := create(t, dir, 5)
	send(t, running, start(2))
	broken := create(t, dir, 4)
	if err := os.Truncate(broken.path, 100); err != nil {
		t.Fatal(err)
	}
	defer broken.Close()
	list, err := List(dir)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	if got := []string{list[0].ID, list[1].ID, list[2].ID}; !slices.Equal(got, []string{broken.ID, running.ID, ended.ID}) {
		t.Errorf("%v", got)
	}
	if list[0].Err == nil || !strings.Contains(list[0].Err.Error(), "it ends before its list of hosts does") {
		t.Errorf("%+v", list[0])
	}
	if i := list[1]; !i.Running || i.PID != os.Getpid() || i.Counts.Open != 1 || i.Counts.NotRun != 4 || !i.Ended.IsZero() || i.Head.Command != "uptime" {
		t.Errorf("%+v", i)
	}
	if i := list[2]; i.Running || i.PID != 0 || i.Counts.Outcomes["ok"] != 1 || i.Counts.NotRun != 2 || i.Ended.IsZero() || i.Head.Command != "uptime" {
		t.Errorf("%+v", i)
	}
	closed(t, running)
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	if err := Prune(filepath.Join(dir, "none"), 0); err != nil {
		t.Error(err)
	}
	var made []*Journal
	for range 6 {
		made = append(made, create(t, dir, 1))
	}
	for i, j := range made {
		if i != 1 { // which goes on
			closed(t, j)
		}
	}
	id := func(i int) string { return made[i].ID }
	write := func(name string) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(id(2) + "/notes") // the user's own
	write("README")
	write("20011123-041502-7f3a") // a file with a name of ours
	write("elsewhere/journal")
	if err := os.Symlink("elsewhere", filepath.Join(dir, "20021123-041502-7f3a")); err != nil {
		t.Fatal(err)
	}
	write(newPrefix + "1/" + journalFile)
	write(newPrefix + "2/" + journalFile)
	write(newPrefix + "2/notes")
	write(oldPrefix + "x/" + inputFile)
	write(spoolPrefix + "1")
	aged(t, dir)
	write(newPrefix + "3/" + journalFile) // just begun
	spool, err := Spool(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	then := time.Now().Add(-2 * stale)
	if err := os.Chtimes(spool.Name(), then, then); err != nil {
		t.Fatal(err)
	}
	if err := Prune(dir, 2); err != nil {
		t.Error(err)
	}
	var got []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := []string{
		newPrefix + "2", newPrefix + "3", filepath.Base(spool.Name()), "20011123-041502-7f3a", "20021123-041502-7f3a", id(1), id(2), id(4), id(5), "README", "elsewhere",
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{id(5), id(4), id(2), id(1)}, ids(t, dir)); diff != "" {
		t.Error(diff)
	}
	closed(t, made[1])
	if _, _, err := Load(dir, id(0)); err == nil {
		t.Error("it was removed")
	}
}

// A run that is removed while it is opened is gone, and not gone on with.
func TestResumeRemoved(t *testing.T) {
	dir := t.TempDir()
	j := create(t, dir, 1)
	closed(t, j)
	f, err := openJournal(j.path, os.O_RDWR|os.O_APPEND)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Prune(dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := take(f, j.path, j.ID); !errors.As(err, new(*NameError)) {
		t.Error(err)
	}
}

// Who looks does not get in the way of who works.
func TestLookAndLock(t *testing.T) {
	dir := t.TempDir()
	closed(t, create(t, dir, 1))
	stop, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-stop:
				return
			default:
				List(dir)
			}
		}
	}()
	for range 50 {
		j, _, _, err := Resume(dir, Last)
		if err != nil {
			t.Fatal(err)
		}
		closed(t, j)
	}
	close(stop)
	<-gone
}

func TestNextID(t *testing.T) {
	now := time.Date(2026, 11, 23, 4, 15, 2, 999, time.FixedZone("", 3600))
	for _, c := range []struct{ newest, from, to string }{
		{"", "20261123-031502-0000", "20261123-031502-7fff"},
		{"20261123-031501-ffff", "20261123-031502-0000", "20261123-031502-7fff"},
		{"20261123-031502-7f3a", "20261123-031502-7f3b", "20261123-031502-7f4a"},
		{"20261123-031502-fffe", "20261123-031502-ffff", "20261123-031502-ffff"},
		{"20261123-031502-ffff", "20261123-031503-0000", "20261123-031503-7fff"},
		{"20271231-235959-0001", "20271231-235959-0002", "20271231-235959-0011"}, // the clock was set back
		{"20271231-235959-ffff", "20280101-000000-0000", "20280101-000000-7fff"},
	} {
		var runs []string
		if c.newest != "" {
			runs = []string{c.newest, "20000101-000000-0000"}
		}
		for range 100 {
			if id := nextID(now, runs); id < c.from || id > c.to || !validID(id) {
				t.Errorf("after %s: %s, want %s to %s", c.newest, id, c.from, c.to)
			}
		}
	}
	for _, id := range []string{"", "last", "20261123-031502-7F3A", "20261123-031502-7f3", "20261323-031502-7f3a", "20261123-031502_7f3a", "20261123-031502-+f3a", "20261123-031502-7f3a/"} {
		if validID(id) {
			t.Errorf("%q is an ID", id)
		}
	}
}

// Runs that begin at one moment all get names.
func TestCreateAtOnce(t *testing.T) {
	dir := t.TempDir()
	const n = 8
	made := make(chan *Journal, n)
	for range n {
		go func() {
			j, err := Create(dir, Head{}, numbered(3), "")
			if err != nil {
				t.Error(err)
			}
			made <- j
		}()
	}
	for range n {
		if j := <-made; j != nil {
			closed(t, j)
		}
	}
	if got := ids(t, dir); len(got) != n {
		t.Errorf("%v", got)
	}
}

func TestDir(t *testing.T) {
	for _, c := range [][3]string{
		{"/state", "/home/u", "/state/multi-rsh/runs"}, {"", "/home/u", "/home/u/.local/state/multi-rsh/runs"},
		{"relative", "/home/u", "/home/u/.local/state/multi-rsh/runs"}, {"", "", ""}, {"", "relative", ""},
	} {
		if got := Dir(c[0], c[1]); got != c[2] {
			t.Errorf("Dir(%q, %q) = %q", c[0], c[1], got)
		}
	}
	if _, err := Create("", Head{}, numbered(1), ""); !errors.Is(err, ErrNoDir) {
		t.Error(err)
	}
	if _, err := Spool(""); !errors.Is(err, ErrNoDir) {
		t.Error(err)
	}
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(filepath.Join(file, "runs"), Head{}, numbered(1), ""); !errors.As(err, new(*WriteError)) || !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	if _, err := Create(dir, Head{Config: []byte("{")}, numbered(1), ""); err == nil || !strings.Contains(err.Error(), "no JSON") {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	if os.Getuid() != 0 {
		t.Skip("only root can make a folder another user's: run this as root")
	}
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(filepath.Join(dir, "runs"), Head{}, numbered(1), ""); err == nil || !strings.Contains(err.Error(), dir+" belongs to another user") {
		t.Error(err)
	}
}
