package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner"
	"multirsh/transport"
)

func openFiles(tb testing.TB, outdir, errdir string) *Files {
	tb.Helper()
	f, err := OpenFiles(outdir, errdir)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// tree is all that is in a folder: names and contents. The suffix of partial files is left out.
func tree(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if entry.IsDir() {
			got[name+"/"] = ""
			return err
		}
		data, err := os.ReadFile(path)
		name, _, partial := strings.Cut(name, ".partial-")
		if partial {
			name += ".partial"
		}
		got[name] = string(data)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

// named makes the events those of another host.
func named(seq int, name string, list ...runner.Event) []runner.Event {
	for i := range list {
		list[i].Seq, list[i].Host = seq, transport.Host{Name: name}
		if r := list[i].Result; r != nil {
			r.Seq, r.Host = seq, list[i].Host
		}
	}
	return list
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	out, err := filepath.Join(dir, "new", "out"), filepath.Join(dir, "err")
	feed(t, openFiles(t, out, err), story()...)
	wantOut := map[string]string{
		"node001": "one\ntwo\nthree\nfour\nfi", "node002": "xy",
		"node004": "", "node005": "", "node006": "", "node007": "", "node008": "", "node009": "", "node010": "",
		"node011": "", "node012": "", "node013": "", "node016": "", "node017": "",
	}
	if diff := cmp.Diff(wantOut, tree(t, out)); diff != "" {
		t.Errorf("out (-want +got):\n%s", diff)
	}
	wantErr := map[string]string{"node001": "warning", "node002": "\n\nafter empty lines\n"}
	for name := range wantOut {
		wantErr[name] += ""
	}
	if diff := cmp.Diff(wantErr, tree(t, err)); diff != "" {
		t.Errorf("err (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"err/", "new/", "out/"}, dirs(t, dir)); diff != "" {
		t.Errorf("folders (-want +got):\n%s", diff)
	}
}

func dirs(tb testing.TB, dir string) (list []string) {
	for name := range tree(tb, dir) {
		if strings.HasSuffix(name, "/") {
			list = append(list, filepath.Base(name)+"/")
		}
	}
	slices.Sort(list)
	return list
}

// One stream alone.
func TestFilesOneStream(t *testing.T) {
	for _, test := range []struct{ out, err, want string }{{"d", "", "o"}, {"", "d", "e"}} {
		t.Chdir(t.TempDir())
		feed(t, openFiles(t, test.out, test.err), output(runner.Stdout, 1, "o"), output(runner.Stderr, 1, "e"), ok(1))
		if diff := cmp.Diff(map[string]string{"d/": "", "d/node001": test.want}, tree(t, ".")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// A file has its name when its host has ended, and until then what was there before is untouched.
func TestFilesPartial(t *testing.T) {
	dir := t.TempDir()
	old := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"node001", "node002", "node003"} {
		old(name)
	}
	f := openFiles(t, dir, "")
	for _, step := range []struct {
		event runner.Event
		want  map[string]string
	}{
		{output(runner.Stdout, 1, "new"), map[string]string{"node001": "old", "node002": "old", "node003": "old", ".node001.partial": "new"}},
		{output(runner.Stdout, 2, "half"), map[string]string{"node001": "old", "node002": "old", "node003": "old", ".node001.partial": "new", ".node002.partial": "half"}},
		{exit(1, 3), map[string]string{"node001": "new", "node002": "old", "node003": "old", ".node002.partial": "half"}},
		{finish(3, runner.Result{Outcome: runner.Skipped, Err: runner.ErrFailFast}), map[string]string{"node001": "new", "node002": "old", "node003": "old", ".node002.partial": "half"}},
	} {
		if err := f.Event(step.event); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, tree(t, dir)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir)[".node002.partial"]; got != "half" {
		t.Errorf("of the host that has not ended there is %q", got)
	}
}

// Every host has a file of its own, whatever it is called.
func TestFileNames(t *testing.T) {
	for _, test := range []struct {
		hosts, want []string
	}{
		{[]string{"web1", "10.0.0.1", "user@host:22", "a-b_c"}, []string{"web1", "10.0.0.1", "user@host:22", "a-b_c"}},
		{[]string{"fe80::1%eth0"}, []string{"fe80::1%25eth0"}},
		{[]string{"", ".", "..", "...", ".ssh"}, []string{"%", "%2E", "%2E.", "%2E..", "%2Essh"}},
		{[]string{"/etc/passwd", "../../x", "a/b", `a\b`}, []string{"%2Fetc%2Fpasswd", "%2E.%2F..%2Fx", "a%2Fb", "a%5Cb"}},
		{[]string{"a\x00b", "\n", "é", "\xff", "a b", "*", "$(id)", "-rf"}, []string{"a%00b", "%0A", "%C3%A9", "%FF", "a%20b", "%2A", "%24%28id%29", "-rf"}},
		{[]string{"a", "a", "a", "A", "b"}, []string{"a", "a.2", "a.3", "A.4", "b"}},
		{[]string{"a.2", "a", "a", "a"}, []string{"a.2", "a", "a.3", "a.4"}},
		{[]string{"a", "a", "a.2"}, []string{"a", "a.2", "a.2.2"}},
		{[]string{"a%2E", "a."}, []string{"a%252E", "a."}},
	} {
		dir := t.TempDir()
		f := openFiles(t, dir, "")
		want := map[string]string{}
		for i, name := range test.hosts {
			feedMore(t, f, named(i, name, output(runner.Stdout, 0, fmt.Sprint(i)), ok(0))...)
			want[test.want[i]] = fmt.Sprint(i)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
			t.Errorf("hosts %q (-want +got):\n%s", test.hosts, diff)
		}
	}
}

// Names too long for a file are cut, and still apart.
func TestFileNamesLong(t *testing.T) {
	dir, long := t.TempDir(), strings.Repeat("x", 300)
	f := openFiles(t, dir, "")
	feedMore(t, f, slices.Concat(named(1, long, ok(1)), named(2, long+"y", ok(2)), named(3, long, ok(3)))...)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got := tree(t, dir)
	for name := range got {
		if !strings.HasPrefix(name, long[:maxFileName-34]+"%~") {
			t.Errorf("a long name has become %q", name)
		}
	}
	if len(got) != 3 {
		t.Errorf("%d files of three hosts", len(got))
	}
}

func feedMore(tb testing.TB, s runner.Sink, list ...runner.Event) {
	tb.Helper()
	for _, e := range list {
		if err := s.Event(e); err != nil {
			tb.Fatal(err)
		}
	}
}

// Links that lie in the folder lead nowhere: they are replaced.
func TestFilesLink(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "node001")); err != nil {
		t.Fatal(err)
	}
	feed(t, openFiles(t, dir, ""), output(runner.Stdout, 1, "new"), ok(1))
	data, err := os.ReadFile(secret)
	if diff := cmp.Diff(map[string]string{"node001": "new"}, tree(t, dir)); diff != "" || err != nil || string(data) != "secret" {
		t.Errorf("the link's target holds %q (%v); the folder -want +got:\n%s", data, err, diff)
	}
}

// More hosts write at once than files are open.
func TestFilesFewOpen(t *testing.T) {
	const hosts = 5 * FilesAtOnce
	dir := t.TempDir()
	out, err := filepath.Join(dir, "o"), filepath.Join(dir, "e")
	f := openFiles(t, out, err)
	before := openCount(t)
	for range 3 {
		for seq := range hosts {
			feedMore(t, f, output(runner.Stdout, seq, "out\n"), output(runner.Stderr, seq, "err\n"))
		}
		if n := openCount(t) - before + 2; n > FilesAtOnce {
			t.Errorf("%d files are open, folders included, and %d is the most", n, FilesAtOnce)
		}
	}
	for seq := range hosts {
		feedMore(t, f, ok(seq))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dir, want string }{{out, "out\nout\nout\n"}, {err, "err\nerr\nerr\n"}} {
		got := tree(t, test.dir)
		if len(got) != hosts {
			t.Errorf("%d files, want %d", len(got), hosts)
		}
		for name, data := range got {
			if data != test.want {
				t.Errorf("%s/%s holds %q", test.dir, name, data)
			}
		}
	}
	if n := openCount(t) - before + 2; n > 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

// openCount is how many files this process has open.
func openCount(tb testing.TB) int {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skip("open files are counted in /proc, which only Linux has")
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(entries)
}

// What cannot work is said before anything runs, with the path and the cause.
func TestOpenFilesErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	before := 0
	if runtime.GOOS == "linux" {
		before = openCount(t)
	}
	for _, test := range []struct{ out, err, want string }{
		{file, "", "mkdir " + file + ": not a directory"},
		{"", file, "mkdir " + file + ": not a directory"},
		{filepath.Join(file, "x"), "", "mkdir " + file + ": not a directory"},
		{dir, dir + "/.", "standard output and standard error cannot both go to " + dir + ": a host has one file there"},
	} {
		if f, err := OpenFiles(test.out, test.err); err == nil || err.Error() != test.want {
			t.Errorf("OpenFiles(%q, %q): %v, %v, want %s", test.out, test.err, f, err, test.want)
		}
	}
	if runtime.GOOS == "linux" && openCount(t) != before {
		t.Error("a folder was left open")
	}
	if diff := cmp.Diff(map[string]string{"file": ""}, tree(t, dir)); diff != "" {
		t.Errorf("something was left (-want +got):\n%s", diff)
	}
}

// A host's file cannot take the place of a folder, and that is said.
func TestFilesInTheWay(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "node001", "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	f := openFiles(t, dir, "")
	defer f.Close()
	err := f.Event(ok(1))
	if want := filepath.Join(dir, "node001") + ": "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want one that begins with %s", err, want)
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		t.Errorf("%v names the path twice", err)
	}
}

// Whatever a host is called, its file lies in the folder, and no other host has it.
func FuzzFileName(f *testing.F) {
	for _, name := range []string{"", ".", "..", "../x", "/", "a/../../b", "a\x00", strings.Repeat("é", 200), "%", "a.2", ".a.partial-b", "%~"} {
		f.Add(name, name+"x")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		a, b := fileName(one), fileName(two)
		for _, name := range []string{a, b} {
			if !filepath.IsLocal(name) || filepath.Base(name) != name || name[0] == '.' || len(name) > maxFileName {
				t.Errorf("the file %q of %q or %q", name, one, two)
			}
			for i := range len(name) {
				if c := name[i]; !safe[c] && c != '%' {
					t.Errorf("%q has the byte %q", name, c)
				}
			}
		}
		if one != two && a == b {
			t.Errorf("%q and %q both have %q", one, two, a)
		}
	})
}

func BenchmarkFiles(b *testing.B) {
	f := openFiles(b, b.TempDir(), "")
	defer f.Close()
	data := strings.Repeat("x", 1000)
	seq := 0
	for b.Loop() {
		seq++
		feedMore(b, f, output(runner.Stdout, seq, data), ok(seq))
	}
}
