package journal

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"multirsh/runner"
	"multirsh/transport"
)

// Version is the version of the format. Fields and kinds of lines may be added to it; what changes a meaning is a new version.
const Version = 1

// Names in the folder of runs and in that of a run. What begins with a dot is on its way to be made or removed.
const (
	journalFile = "journal"
	inputFile   = "input"
	newPrefix   = ".new-"
	oldPrefix   = ".old-"
	spoolPrefix = ".spool-"
)

// Dir is where a user's runs are kept: below $XDG_STATE_HOME, or ~/.local/state without it (XDG Base Directory Specification). Empty
// if there is neither.
func Dir(xdgStateHome, home string) string {
	switch {
	case filepath.IsAbs(xdgStateHome):
		return filepath.Join(xdgStateHome, "multi-rsh", "runs")
	case filepath.IsAbs(home):
		return filepath.Join(home, ".local", "state", "multi-rsh", "runs")
	}
	return ""
}

// ErrNoDir is the error of Create and Spool without a directory.
var ErrNoDir = errors.New("there is no place for the journal: set HOME or XDG_STATE_HOME, or run without one (--no-journal)")

// Head says what is run. Strings may hold any bytes.
type Head struct {
	Program  string          // version of multi-rsh
	Time     time.Time       // when it began; zero: now
	Argv     []string        // as it was called
	Config   json.RawMessage // what the caller needs to run it again; nil: nothing
	Command  string          // byte for byte
	Settings string          // what else decides what a host does with the command: a part of the digest
	Parent   string          // the run of which this one repeats hosts

	// These are set by Create.
	InputSize   int64
	InputSHA256 string // of the input, hexadecimal; empty: there is none
	Digest      string
}

// Digest is what two runs have in common that do the same on a host: the SHA-256 of the command, the settings and the input's own one, hexadecimal.
func Digest(command, settings, inputSHA256 string) string {
	sum := sha256.New()
	for _, part := range [...]string{"multi-rsh", command, settings, inputSHA256} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		sum.Write(size[:])
		io.WriteString(sum, part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Spool makes an empty file in the folder of runs, for the input of the run that Create then makes: it is moved there, and stays open for who
// has it open. Who does not come to call Create removes it.
func Spool(dir string) (*os.File, error) {
	if dir == "" {
		return nil, ErrNoDir
	}
	if err := makeDir(dir); err != nil {
		return nil, writeError(dir, err)
	}
	f, err := os.CreateTemp(dir, spoolPrefix+"*")
	if err != nil {
		return nil, writeError(dir, err)
	}
	if err := lock(f); err != nil { // it is in use, which Prune goes by
		f.Close()
		os.Remove(f.Name())
		return nil, writeError(f.Name(), err)
	}
	return f, nil
}

// Create makes the journal of a new run in dir (see [Dir]), with the hosts in the order in which the runner gets them: the first one
// is its Seq 0. input is the path of a file with the command's input, or empty: one that Spool has made is moved, any other is copied. When
// Create returns, all of that is in the kernel, as every line later on. The caller closes the Journal, or has the runner do it.
//
// A run that cannot be recorded is a *[WriteError] or [ErrNoDir], and nothing is left of it.
func Create(dir string, head Head, hosts iter.Seq[transport.Host], input string) (*Journal, error) {
	if dir == "" {
		return nil, ErrNoDir
	}
	if err := makeDir(dir); err != nil {
		return nil, writeError(dir, err)
	}
	folder, err := os.MkdirTemp(dir, newPrefix+"*") // 0700
	if err != nil {
		return nil, writeError(dir, err)
	}
	j := &Journal{Head: head, counts: Counts{Outcomes: map[runner.Outcome]int{}}}
	if err := j.make(folder, hosts, input); err != nil {
		j.discard(folder)
		return nil, err
	}
	if err := j.name(dir, folder); err != nil {
		j.discard(folder)
		return nil, err
	}
	j.begin()
	return j, nil
}

func (j *Journal) discard(folder string) {
	if j.file != nil {
		j.file.Close()
	}
	for _, name := range ownFiles {
		os.Remove(filepath.Join(folder, name))
	}
	os.Remove(folder)
}

// make fills the folder, which has no name yet.
func (j *Journal) make(folder string, hosts iter.Seq[transport.Host], input string) (err error) {
	path := filepath.Join(folder, journalFile)
	if j.file, err = os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return writeError(path, err)
	}
	if err := lock(j.file); err != nil {
		return writeError(path, err)
	}
	if input != "" {
		if err := j.takeInput(folder, input); err != nil {
			return err
		}
	}
	if j.Head.Time.IsZero() {
		j.Head.Time = time.Now()
	}
	j.Head.Digest = Digest(j.Head.Command, j.Head.Settings, j.Head.InputSHA256)
	if j.line, err = appendHead(nil, &j.Head); err != nil {
		return err
	}
	w := bufio.NewWriterSize(j.file, 64<<10)
	put := func() bool {
		n, err := w.Write(j.line)
		j.size += int64(n)
		return err == nil
	}
	count := 0
	if put() {
		for host := range hosts {
			if j.line = appendHost(j.line[:0], count, host); !put() {
				break
			}
			count++
		}
	}
	j.line = appendProcess(j.line[:0], "run", os.Getpid(), count)
	put()
	if err := w.Flush(); err != nil { // the first error, whichever it was
		return writeError(path, err)
	}
	j.states = make([]State, count)
	j.counts.NotRun = count
	j.dirty = true
	return nil
}

// takeInput moves or copies the input into the folder and takes its digest.
func (j *Journal) takeInput(folder, input string) error {
	path := filepath.Join(folder, inputFile)
	from, err := os.Open(input)
	if err != nil {
		return fmt.Errorf("the input cannot be read: %w", err)
	}
	defer from.Close()
	sum := sha256.New()
	var to io.Writer = sum
	if filepath.Dir(input) == filepath.Dir(folder) && strings.HasPrefix(filepath.Base(input), spoolPrefix) {
		if err := os.Rename(input, path); err != nil {
			return writeError(path, err)
		}
	} else {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return writeError(path, err)
		}
		defer f.Close()
		to = io.MultiWriter(sum, f)
	}
	n, err := io.Copy(to, from)
	if in := (*fs.PathError)(nil); errors.As(err, &in) && in.Path == input {
		return fmt.Errorf("the input cannot be read: %w", err)
	} else if err != nil {
		return writeError(path, err)
	}
	j.Head.InputSize, j.Head.InputSHA256 = n, hex.EncodeToString(sum.Sum(nil))
	return nil
}

// Input is the file with the command's input; empty: there is none.
func (j *Journal) Input() string {
	if j.Head.InputSHA256 == "" {
		return ""
	}
	return filepath.Join(j.Folder, inputFile)
}

// name gives the folder the next name. A folder under its name is complete, so whoever finds it can read it; and since
// rename(2) takes no name that is in use, of two processes the second goes on to a later one.
func (j *Journal) name(dir, folder string) error {
	for {
		runs, err := names(dir)
		if err != nil {
			return writeError(dir, err)
		}
		j.ID = nextID(time.Now(), runs)
		j.Folder = filepath.Join(dir, j.ID)
		j.path = filepath.Join(j.Folder, journalFile)
		if err = os.Rename(folder, j.Folder); err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrExist) { // which ENOTEMPTY is
			return writeError(j.Folder, err)
		}
	}
}

// idTime is the first part of a run's name, in UTC.
const idTime = "20060102-150405"

// validID tells whether a name is one of ours: 20261123-041502-7f3a.
func validID(name string) bool {
	_, _, ok := parseID(name)
	return ok
}

func parseID(name string) (second time.Time, n uint16, ok bool) {
	if len(name) != len(idTime)+5 || name[len(idTime)] != '-' {
		return second, 0, false
	}
	second, err := time.Parse(idTime, name[:len(idTime)])
	if err != nil {
		return second, 0, false
	}
	low := name[len(idTime)+1:]
	v, err := strconv.ParseUint(low, 16, 16)
	return second, uint16(v), err == nil && low == strings.ToLower(low)
}

func formatID(second time.Time, n uint16) string {
	return fmt.Sprintf("%s-%04x", second.Format(idTime), n)
}

// nextID is a name behind all of those that there are (newest first): of the time now, or, if that is not later, of the newest of them. So the
// newest run has the last name, though two begin in one second or the clock has been set back.
func nextID(now time.Time, runs []string) string {
	var random [2]byte
	rand.Read(random[:])                                // never fails
	some := binary.BigEndian.Uint16(random[:]) & 0x7fff // there is always room above
	second := now.UTC().Truncate(time.Second)
	if len(runs) > 0 {
		newest, n, _ := parseID(runs[0])
		switch {
		case newest.Before(second):
		case n == 0xffff:
			second = newest.Add(time.Second)
		default:
			return formatID(newest, n+1+uint16(int(some)%min(16, 0xffff-int(n))))
		}
	}
	return formatID(second, some)
}

// names is the runs in dir, newest first: folders with a name of ours. A link is none.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var runs []string
	for _, e := range entries {
		if e.IsDir() && validID(e.Name()) {
			runs = append(runs, e.Name())
		}
	}
	slices.Reverse(runs) // ReadDir sorts
	return runs, nil
}

// makeDir makes the folder of runs, below the user's own folders only: under sudo with the user's $HOME, root must not leave folders
// there that the user cannot write.
func makeDir(dir string) error {
	for up := dir; ; up = filepath.Dir(up) {
		info, err := os.Stat(up)
		if errors.Is(err, fs.ErrNotExist) && up != filepath.Dir(up) {
			continue
		}
		if err != nil {
			return err
		}
		if !ours(info) {
			return fmt.Errorf("%s belongs to another user", up)
		}
		return os.MkdirAll(dir, 0o700)
	}
}
