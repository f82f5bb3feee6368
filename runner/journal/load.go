package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"multirsh/runner"
	"multirsh/transport"
)

// Host is a host of a run and what is known of it.
type Host struct {
	transport.Host
	Seq    int
	State  State
	Tries  int            // that are known to have ended
	Result *runner.Result // of a host that is done; its errors are told by their texts, phases and stops alone
	Lost   bool           // its own line is damaged: no more than its name is known, if that. It cannot be run again
}

// Run is what a journal says.
type Run struct {
	ID      string
	Folder  string
	Head    Head
	Hosts   []Host    // by Seq
	PID     int       // of the process that was at it last
	Running bool      // it is at it still
	Ended   time.Time // when it came to its end; zero: it has not, yet or ever
	Why     string    // hosts were not started, if there are such

	// Rebooted says that the machine was started anew while the run had not come to its end: of its last second, starts may be missing.
	Rebooted bool

	headless error // why there is no Head
}

// Damage is a line of a journal that could not be used.
type Damage struct {
	Path string
	Line int // from 1
	Err  error

	// Seqs are the hosts that it can have been about. Since one of them may have begun there, they are Unknown where they would be NotRun, but if
	// a later line says so. Anyone tells that no host is found in it, so that any that is NotRun may have begun there.
	Seqs   []int
	Anyone bool
}

func (d Damage) Error() string { return fmt.Sprintf("%s:%d: %v", d.Path, d.Line, d.Err) }
func (d Damage) Unwrap() error { return d.Err }

// VersionError is a run that a later program has kept.
type VersionError struct {
	ID      string
	Version int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("run %s is of version %d and this program knows version %d: use the program that made it, or a newer one", e.ID, e.Version, Version)
}

// NameError is a name that does not say which run is meant.
type NameError struct {
	Name string
	Runs []string // that it could be; none: there is no such run
}

func (e *NameError) Error() string {
	const few = 5
	switch {
	case len(e.Runs) > few:
		return fmt.Sprintf("%q can be any of %d runs, %s and others", e.Name, len(e.Runs), strings.Join(e.Runs[:few], ", "))
	case len(e.Runs) > 0:
		return fmt.Sprintf("%q can be any of %s", e.Name, strings.Join(e.Runs, ", "))
	case e.Name == Last:
		return "there is no run yet"
	}
	return fmt.Sprintf("there is no run %q: multi-rsh runs lists those that there are", e.Name)
}

// Last is the name of the newest run.
const Last = "last"

// Find is the run that a name means: Last, a whole name, or the beginning of only one. An error is a *[NameError], or one of reading dir.
func Find(dir, name string) (id string, err error) {
	runs, err := names(dir)
	if err != nil {
		return "", err
	}
	if name == Last && len(runs) > 0 {
		return runs[0], nil
	}
	var found []string
	for _, run := range runs {
		if run == name {
			return run, nil
		}
		if name != "" && strings.HasPrefix(run, name) {
			found = append(found, run)
		}
	}
	if len(found) != 1 {
		return "", &NameError{name, found}
	}
	return found[0], nil
}

// Load reads the run that name means, see [Find]. Lines that cannot be used are in damaged, and the rest is used. A run that is going on is as it was
// when that was read. An error is a *[NameError], a *[VersionError], or one of reading.
func Load(dir, name string) (run *Run, damaged []Damage, err error) {
	id, err := Find(dir, name)
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, id, journalFile)
	f, err := openJournal(path, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	running := locked(f) // first: if it ends in between, its end is read
	run, damaged, _, err = read(f, path, id)
	if run != nil {
		if n := len(damaged); running && n > 0 && damaged[n-1].Err == errHalf {
			damaged = damaged[:n-1] // it is being written
		}
		run.Running = running
		run.Rebooted = run.Rebooted && !running
	}
	return run, damaged, err
}

// reader puts lines together to a run.
type reader struct {
	run     *Run
	path    string
	damaged []Damage
	suspect map[int]bool     // hosts of damaged lines that no later line was about
	names   map[string][]int // hosts by their names, made when it is needed
	begun   bool             // the list of hosts is over
	boot    string
}

// errHalf is a line that was not written to its end.
var errHalf = errors.New("the journal ends within this line")

// read reads a journal. keep is the length of its whole lines: what is behind was not written to its end, and nothing has come of it.
func read(r io.Reader, path, id string) (run *Run, damaged []Damage, keep int64, err error) {
	x := &reader{run: &Run{ID: id, Folder: filepath.Dir(path)}, path: path, suspect: map[int]bool{}}
	in := newLines(r)
	for {
		line, err := in.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, 0, err
		}
		var why error
		switch {
		case in.long:
			why = fmt.Errorf("this line is longer than %d MiB", maxLine>>20)
		case in.number == 1:
			why = x.head(line)
		default:
			why = x.line(line, in.end)
		}
		if later := (*VersionError)(nil); errors.As(why, &later) {
			return nil, nil, 0, later
		}
		if why == nil {
			if !in.whole { // but for its newline
				in.end += int64(len(line))
			}
			continue
		}
		d := Damage{Path: path, Line: in.number, Err: why}
		if !in.whole {
			d.Err = errHalf
		} else if in.number > 1 && (in.long || errors.Is(why, errDamaged)) {
			d.Seqs = x.suspects(line)
			d.Anyone = len(d.Seqs) == 0
		}
		x.damaged = append(x.damaged, d)
	}
	if in.number == 0 || !x.begun {
		// No host begins before the list is whole, and no folder has its name before that.
		return nil, x.damaged, 0, fmt.Errorf("%s is damaged: it ends before its list of hosts does", path)
	}
	for seq := range x.suspect {
		if h := &x.run.Hosts[seq]; h.State == NotRun {
			h.State = Unknown
		}
	}
	x.run.Rebooted = x.run.Ended.IsZero() && x.boot != "" && x.boot != bootID()
	return x.run, x.damaged, in.end, nil
}

func (x *reader) head(line []byte) error {
	var version struct{ V int }
	var h headLine
	err := unseal(line)
	if err == nil {
		if json.Unmarshal(line, &version) == nil && version.V > Version {
			return &VersionError{x.run.ID, version.V} // whatever else has another meaning there
		}
		if err = json.Unmarshal(line, &h); err == nil && h.Type != "head" {
			err = errors.New("this is no head of a journal")
		}
	}
	if err != nil {
		x.run.headless = err
		return err
	}
	x.run.Head = Head{
		Program: h.Program, Time: h.Time, Argv: FromTexts(h.Argv), Config: h.Config, Command: string(h.Command), Settings: string(h.Settings),
		Parent: h.Parent, Digest: h.Digest,
	}
	if h.Input != nil {
		x.run.Head.InputSize, x.run.Head.InputSHA256 = h.Input.Size, h.Input.SHA256
	}
	return nil
}

// minHost is as long as a host's line is at least.
const minHost = 40

// line deals with a line that ends before the byte at.
func (x *reader) line(line []byte, at int64) error {
	e, err := parse(line)
	if err != nil {
		return err
	}
	switch e.Type {
	case "host":
		switch {
		case e.Seq == nil || *e.Seq < len(x.run.Hosts) || x.begun:
			return errors.New("a host is out of its place")
		case int64(*e.Seq) > at/minHost:
			return errors.New("hosts are missing before this one")
		}
		x.lose(*e.Seq)
		x.run.Hosts = append(x.run.Hosts, Host{Host: e.host(), Seq: *e.Seq})
		return nil
	case "run":
		switch {
		case x.begun:
			return errors.New("a second run begins here")
		case int64(e.Hosts) > at/minHost:
			return errors.New("hosts are missing before this line")
		}
		x.lose(e.Hosts)
		x.process(e)
		return nil
	case "resume":
		x.process(e)
		return nil
	case "end":
		x.run.Ended, x.run.Why = e.Time, string(e.Error)
		return nil
	case "start", "waits", "result":
		return x.event(e)
	}
	return nil // of a later program, which says nothing else by it
}

// lose has hosts without a line up to the one with that place. What was damaged before was in the list, and not the start of a host.
func (x *reader) lose(seq int) {
	for i := range x.damaged {
		x.damaged[i].Seqs, x.damaged[i].Anyone = nil, false
	}
	clear(x.suspect)
	for len(x.run.Hosts) < seq {
		x.run.Hosts = append(x.run.Hosts, Host{Seq: len(x.run.Hosts), Lost: true})
	}
}

func (x *reader) process(e *entry) {
	x.begun = true
	x.run.PID, x.boot = e.PID, e.Boot
	x.run.Ended, x.run.Why = time.Time{}, ""
}

func (x *reader) event(e *entry) error {
	if e.Seq == nil || *e.Seq < 0 || *e.Seq >= len(x.run.Hosts) {
		return fmt.Errorf("this %s is of no host of the run", e.Type)
	}
	x.begun = true // though the line that says so may be damaged
	h := &x.run.Hosts[*e.Seq]
	if h.Lost && h.Name == "" {
		h.Name = string(e.Host)
	}
	switch {
	case h.Name != string(e.Host):
		return fmt.Errorf("this %s is of %q, and host %d is %q", e.Type, string(e.Host), *e.Seq, h.Name)
	case h.State == Done:
		return fmt.Errorf("this %s of %q comes after its result", e.Type, h.Name)
	case e.Type == "result" && !slices.Contains(outcomes, e.Outcome):
		return fmt.Errorf("there is no outcome %q", e.Outcome)
	}
	delete(x.suspect, *e.Seq)
	switch e.Type {
	case "start":
		h.State = Unknown
	case "waits":
		h.State = NotRun
		h.Tries = max(h.Tries, e.Tries)
	case "result":
		h.State = Done
		h.Tries = e.Tries
		h.Result = e.result(h.Host)
	}
	return nil
}

// suspects is the hosts that a damaged line can have been about: by their places and by their names, of which one may be wrong. Such a host
// may have begun here.
func (x *reader) suspects(line []byte) []int {
	if x.names == nil {
		x.names = map[string][]int{}
		for _, h := range x.run.Hosts {
			x.names[h.Name] = append(x.names[h.Name], h.Seq)
		}
	}
	var seqs []int
	for rest := line; ; {
		_, after, found := bytes.Cut(rest, []byte(`"seq":`))
		if !found {
			break
		}
		rest = after
		digits := after[:len(after)-len(bytes.TrimLeft(after, "0123456789"))]
		if seq, err := strconv.Atoi(string(digits)); err == nil && seq < len(x.run.Hosts) {
			seqs = append(seqs, seq)
		}
	}
	for rest := line; ; {
		_, after, found := bytes.Cut(rest, []byte(`"host":`))
		if !found {
			break
		}
		rest = after
		var name Text
		if json.NewDecoder(bytes.NewReader(after)).Decode(&name) == nil {
			seqs = append(seqs, x.names[string(name)]...)
		}
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	for _, seq := range seqs {
		x.suspect[seq] = true
	}
	return seqs
}

// outcomes are those of a result.
var outcomes = []runner.Outcome{
	runner.OK, runner.Exit, runner.Signal, runner.Timeout, runner.Refused, runner.Unreachable, runner.DNS, runner.HostKey, runner.Auth,
	runner.Protocol, runner.NoPorts, runner.Cancelled, runner.Skipped, runner.Unknown,
}

// Input is the file with the command's input; empty: there is none.
func (r *Run) Input() string {
	if r.Head.InputSHA256 == "" {
		return ""
	}
	return filepath.Join(r.Folder, inputFile)
}

// Counts counts the hosts.
func (r *Run) Counts() Counts {
	c := Counts{Outcomes: map[runner.Outcome]int{}}
	for _, h := range r.Hosts {
		switch h.State {
		case NotRun:
			c.NotRun++
		case Unknown:
			c.Open++
		case Done:
			c.Outcomes[h.Result.Outcome]++
		}
	}
	return c
}

// Words for hosts of a run, beside the outcomes.
const (
	Failed   = "failed" // begun, and not known to be ok
	NotBegun = "notrun" // not started, or waiting for another try
	NotOK    = "notok"  // failed and notrun: what is left to be done
	Every    = "all"    // of the run
)

// OutcomeError is a word that names no hosts of a run.
type OutcomeError struct{ Word string }

func (e *OutcomeError) Error() string {
	return fmt.Sprintf("%q is no outcome: there are %s", e.Word, strings.Join(Words(), ", "))
}

// Words are those that [Run.Select] takes.
func Words() []string {
	all := []string{Failed, NotBegun, NotOK, Every}
	for _, o := range outcomes {
		all = append(all, string(o))
	}
	return all
}

// Select is the hosts that a word means: an outcome, of which unknown has those begun without a result, too; Failed, NotBegun, NotOK, Every. An
// error is an *[OutcomeError].
func (r *Run) Select(word string) ([]Host, error) {
	var want func(h *Host) bool
	switch outcome := runner.Outcome(word); {
	case word == Every:
		want = func(*Host) bool { return true }
	case word == NotBegun:
		want = func(h *Host) bool { return h.State == NotRun }
	case word == NotOK:
		want = func(h *Host) bool { return h.State != Done || h.Result.Outcome != runner.OK }
	case word == Failed:
		want = func(h *Host) bool { return h.State == Unknown || h.State == Done && h.Result.Outcome != runner.OK }
	case slices.Contains(outcomes, outcome):
		want = func(h *Host) bool {
			return h.State == Done && h.Result.Outcome == outcome || h.State == Unknown && outcome == runner.Unknown
		}
	default:
		return nil, &OutcomeError{word}
	}
	var hosts []Host
	for i := range r.Hosts {
		if want(&r.Hosts[i]) {
			hosts = append(hosts, r.Hosts[i])
		}
	}
	return hosts, nil
}

// Hosts is the names of the hosts that a word means (see [Run.Select]) of the run that a name means: each once, in their order, and those of which
// none is known left out. It is the source of the groups @last.failed and @RUN.timeout; read it before this run's own Create, which would be the last one.
func Hosts(dir, run, word string) ([]string, error) {
	r, _, err := Load(dir, run)
	if err != nil {
		return nil, err
	}
	hosts, err := r.Select(word)
	if err != nil {
		return nil, err
	}
	var list []string
	seen := map[string]bool{"": true}
	for _, h := range hosts {
		if !seen[h.Name] {
			seen[h.Name] = true
			list = append(list, h.Name)
		}
	}
	return list, nil
}

// Resume goes on with the run that name means, see [Find]. While another process is at it, or was first, the error is a *[BusyError]. A run of which the head is
// damaged, or whose input is not what it was, is not gone on with. The caller closes the Journal, or has the runner do it.
func Resume(dir, name string) (j *Journal, run *Run, damaged []Damage, err error) {
	id, err := Find(dir, name)
	if err != nil {
		return nil, nil, nil, err
	}
	folder := filepath.Join(dir, id)
	path := filepath.Join(folder, journalFile)
	f, err := openJournal(path, os.O_RDWR|os.O_APPEND)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || isReadOnly(err) {
			err = writeError(path, err)
		}
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			j = nil
		}
	}()
	if err := take(f, path, id); err != nil {
		return nil, nil, nil, err
	}
	run, damaged, keep, err := read(f, path, id)
	switch {
	case err != nil:
		return nil, nil, damaged, err
	case run.headless != nil:
		return nil, run, damaged, fmt.Errorf("run %s cannot be resumed: %s:1, which says what to run: %w", id, path, run.headless)
	}
	if err := run.CheckInput(); err != nil {
		return nil, run, damaged, err
	}
	j = &Journal{ID: id, Folder: folder, Head: run.Head, path: path, file: f, size: keep, hosts: run.Hosts, counts: run.Counts()}
	for _, h := range run.Hosts {
		j.states = append(j.states, h.State)
	}
	if err := j.appendResume(); err != nil {
		return nil, run, damaged, err
	}
	j.begin()
	return j, run, damaged, nil
}

// take locks a journal that may be another's or be removed at this moment.
func take(f *os.File, path, id string) error {
	if err := lock(f); err == errLocked {
		busy := &BusyError{ID: id}
		if run, _, _, err := read(f, path, id); err == nil {
			busy.PID = run.PID
		}
		return busy
	} else if err != nil {
		return writeError(path, err)
	}
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Lstat(path); err != nil || !os.SameFile(ours, there) {
		return &NameError{Name: id}
	}
	return nil
}

// appendResume cuts off what was not written to its end, and writes the line with which this process begins.
func (j *Journal) appendResume() error {
	if err := j.file.Truncate(j.size); err != nil {
		return j.fail(err)
	}
	if last := make([]byte, 1); j.size > 0 {
		if _, err := j.file.ReadAt(last, j.size-1); err != nil {
			return j.fail(err)
		}
		if last[0] != '\n' { // a line that is whole but for that
			j.line = append(j.line, '\n')
			if err := j.write(); err != nil {
				return err
			}
		}
	}
	j.line = appendProcess(j.line[:0], "resume", os.Getpid(), j.counts.NotRun)
	return j.write()
}

// Rest gives out the hosts that are to be run, in their order: of those without a result the ones that want asks for, or, if it is nil, those that are NotRun. They
// are the hosts that the runner must get, all of them and in this order. Call it once.
func (j *Journal) Rest(want func(Host) bool) []transport.Host {
	j.mu.Lock()
	defer j.mu.Unlock()
	var hosts []transport.Host
	for i, h := range j.hosts {
		if h.State == Done || h.Lost || want == nil && h.State != NotRun || want != nil && !want(h) {
			continue
		}
		j.order = append(j.order, i)
		hosts = append(hosts, h.Host)
	}
	return hosts
}

// InputError is a run whose input is not what it was when the run began.
type InputError struct {
	Path string
	Err  error // nil: it is another one
}

func (e *InputError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the input of the run cannot be read: %v", e.Err)
	}
	return fmt.Sprintf("the input of the run, %s, has changed since it began: hosts would get two different ones", e.Path)
}
func (e *InputError) Unwrap() error { return e.Err }

// CheckInput sees to it that the input is still what it was when the run began; if not, the error is an *[InputError].
func (r *Run) CheckInput() error {
	if r.Head.InputSHA256 == "" {
		return nil
	}
	path := filepath.Join(r.Folder, inputFile)
	f, err := openJournal(path, os.O_RDONLY)
	if err != nil {
		return &InputError{path, err}
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return &InputError{path, err}
	}
	if hex.EncodeToString(sum.Sum(nil)) != r.Head.InputSHA256 {
		return &InputError{Path: path}
	}
	return nil
}
