package output

import (
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"multirsh/runner"
)

// Files writes what each host writes to a file of its own, byte for byte: standard output to DIR/HOST in one folder, standard error in another.
//
//	out/.node7.partial-1f0a…   while node7 is running
//	out/node7                  when it has ended, whatever became of it, empty if it wrote nothing
//
// So what has a host's name is whole, and takes the place of a file that was there. A host that the run never came to has no file, nor does
// it lose one of an earlier run. What is partial stays, under that name, when the run is killed or a disk is full. Nothing is synced to the disk.
//
// A file is named as its host is, with each byte that is no letter, no digit and none of ._-:@,=+~ as %XX, and so is a dot in the first place;
// a name of more than 200 bytes then is cut and gets a hash. The second host of one name gets HOST.2, as does one whose name differs only in
// its case, which some file systems do not tell apart. A file is opened within its folder alone, so no name or link leads out of it.
//
// No more than FilesAtOnce files are open at a time, however many hosts are running.
type Files struct {
	dirs   [2]*folder // of standard output and error; nil: not written
	run    string     // distinguishes the partial files of two runs
	names  map[int]string
	taken  map[uint64]struct{} // hashes of the names, in small letters: a collision only costs a ".2"
	twice  map[string]int      // of names that have come more than once, the last number
	seed   maphash.Seed
	files  map[channel]*file
	opened list.List // of *file, that which was used last in front
}

// FilesAtOnce is how many files Files has open at most, its folders included.
const FilesAtOnce = 64

// folder is where files go.
type folder struct {
	root *os.Root
	path string
}

// file is what a host writes to one of its streams.
type file struct {
	*folder
	name string
	made bool     // the partial file is there
	f    *os.File // nil: it is not open
	at   *list.Element
}

// OpenFiles makes the folders where they are missing. An empty one is of a stream that is not to be written. Both must not be the same.
func OpenFiles(outdir, errdir string) (*Files, error) {
	x := &Files{
		names: map[int]string{}, taken: map[uint64]struct{}{}, twice: map[string]int{}, files: map[channel]*file{},
		seed: maphash.MakeSeed(), run: rand.Text()[:12],
	}
	for i, dir := range [...]string{outdir, errdir} {
		if dir == "" {
			continue
		}
		if err := x.openDir(i, dir); err != nil {
			x.closeDirs()
			return nil, err
		}
	}
	if x.dirs[0] != nil && x.dirs[1] != nil && sameDir(outdir, errdir) {
		x.closeDirs()
		return nil, fmt.Errorf("standard output and standard error cannot both go to %s: a host has one file there", outdir)
	}
	return x, nil
}

func sameDir(a, b string) bool {
	one, err := os.Stat(a)
	other, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(one, other)
}

func (x *Files) openDir(i int, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	x.dirs[i] = &folder{root, dir}
	// That a folder cannot be written is said before anything runs.
	probe := &file{folder: x.dirs[i], name: "probe"}
	if err := probe.open(x.run); err != nil {
		return err
	}
	return errors.Join(probe.close(), x.dirs[i].failed(probe.partial(x.run), root.Remove(probe.partial(x.run))))
}

// Event implements [runner.Sink]. An error names the file and the cause.
func (x *Files) Event(e runner.Event) error {
	switch e.Kind {
	case runner.Stdout, runner.Stderr:
		dir := x.dirs[e.Kind-runner.Stdout]
		if dir == nil || len(e.Data) == 0 {
			return nil
		}
		return x.write(x.file(e, e.Kind), e.Data)
	case runner.Finish:
		if neverTried(e.Result) {
			return nil
		}
		for i, dir := range x.dirs {
			if dir == nil {
				continue
			}
			kind := runner.Stdout + runner.Kind(i)
			if err := x.finish(x.file(e, kind)); err != nil {
				return err
			}
			delete(x.files, channel{e.Seq, kind})
		}
		delete(x.names, e.Seq)
	}
	return nil
}

// Close implements [runner.Sink].
func (x *Files) Close() error {
	var errs []error
	for x.opened.Len() > 0 {
		errs = append(errs, x.shut(x.opened.Back().Value.(*file)))
	}
	x.closeDirs()
	return errors.Join(errs...)
}

func (x *Files) closeDirs() {
	for _, dir := range x.dirs {
		if dir != nil {
			dir.root.Close()
		}
	}
}

// file is that of the event's host and the stream.
func (x *Files) file(e runner.Event, kind runner.Kind) *file {
	ch := channel{e.Seq, kind}
	f := x.files[ch]
	if f == nil {
		name, known := x.names[e.Seq]
		if !known {
			name = x.unique(fileName(e.Host.Name))
			x.names[e.Seq] = name
		}
		f = &file{folder: x.dirs[kind-runner.Stdout], name: name}
		x.files[ch] = f
	}
	return f
}

// unique is the name, or if it is taken the name with a number.
func (x *Files) unique(name string) string {
	lower := strings.ToLower(name)
	for n, unique := x.twice[lower], name; ; {
		h := maphash.String(x.seed, strings.ToLower(unique))
		if _, taken := x.taken[h]; !taken {
			x.taken[h] = struct{}{}
			return unique
		}
		n = max(2, n+1)
		x.twice[lower] = n
		unique = name + "." + strconv.Itoa(n)
	}
}

// ready opens the file if it is not open, and closes another one if there are too many.
func (x *Files) ready(f *file) error {
	if f.f != nil {
		x.opened.MoveToFront(f.at)
		return nil
	}
	if x.opened.Len() >= FilesAtOnce-len(x.dirs) {
		if err := x.shut(x.opened.Back().Value.(*file)); err != nil {
			return err
		}
	}
	if err := f.open(x.run); err != nil {
		return err
	}
	f.at = x.opened.PushFront(f)
	return nil
}

// shut closes the file.
func (x *Files) shut(f *file) error {
	x.opened.Remove(f.at)
	return f.close()
}

func (x *Files) write(f *file, data []byte) error {
	if err := x.ready(f); err != nil {
		return err
	}
	_, err := f.f.Write(data)
	return f.failed(f.name, err)
}

// finish gives the file its name.
func (x *Files) finish(f *file) error {
	if !f.made {
		if err := x.ready(f); err != nil {
			return err
		}
	}
	if f.f != nil {
		if err := x.shut(f); err != nil {
			return err
		}
	}
	return f.failed(f.name, f.root.Rename(f.partial(x.run), f.name))
}

func (f *file) partial(run string) string { return "." + f.name + ".partial-" + run }

func (f *file) open(run string) (err error) {
	flags := os.O_WRONLY | os.O_APPEND
	if !f.made {
		flags |= os.O_CREATE | os.O_EXCL
	}
	name := f.partial(run)
	if f.f, err = f.root.OpenFile(name, flags, 0o666); err != nil {
		return f.failed(name, err)
	}
	f.made = true
	return nil
}

func (f *file) close() error {
	err := f.f.Close()
	f.f = nil
	return f.failed(f.name, err)
}

// failed is the error, if there is one, with the whole path of its file.
func (d *folder) failed(name string, err error) error {
	if err == nil {
		return nil
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	if link := (*os.LinkError)(nil); errors.As(err, &link) {
		err = link.Err
	}
	return fmt.Errorf("%s: %w", filepath.Join(d.path, name), err)
}

// maxFileName is where a name is cut, in bytes: a number, and what makes it a partial one, still fit into 255.
const maxFileName = 200

// fileName is a file's name for a host of any name, described at Files. No two hosts have the same.
func fileName(host string) string {
	if host == "" {
		return "%" // no other name has it without digits
	}
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(host) {
		if c := host[i]; safe[c] && !(c == '.' && i == 0) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	if b.Len() <= maxFileName {
		return b.String()
	}
	sum := sha256.Sum256([]byte(host))
	tail := "%~" + hex.EncodeToString(sum[:16])
	return b.String()[:maxFileName-len(tail)] + tail
}

// safe are the characters that stand for themselves in the name of a file.
var safe = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = isDigit(b) || 'a' <= b|0x20 && b|0x20 <= 'z' || strings.IndexByte("._-:@,=+~", b) >= 0
	}
	return t
}()
