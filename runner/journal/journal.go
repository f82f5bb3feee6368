// Package journal keeps the state of a run on disk, so that a run that was cut short goes on where it was.
//
//	DIR/20261123-041502-7f3a/      0700: one folder for each run; its name sorts by time
//	   journal                     0600: lines, only ever appended to, under flock(2) while the run goes on
//	   input                       what the command reads, if it reads something
//
//	Create ──► head, hosts…, run │ start, {waits, start,} result, … │ end        one process
//	Resume ──►                   │ resume, start, result, …         │ end        any number of later ones, one at a time
//	Load, List ──► Run, Info: of each host done, begun and not known how it ended, or not run
//
// A line is one JSON object that ends in a checksum of what stands before it, so a line that is damaged is never taken for another one:
// it is named, by its number, and the rest is used.
//
//	head    what to run: program, command, input's and command's digests, and what the caller needs to run it again
//	host    one for each host, in the order of the run, as the inventory had resolved it
//	run     the list of hosts is whole; process, boot
//	start   this host's turn has come; the command may be sent from here on
//	waits   it is not running after all: it was not started, or that try has failed and another one is to come
//	result  how it ended. Once for each host
//	end     the run is over, with its counts
//	resume  a later process goes on
//
// Fields of one name say what they say in the record of a run, docs/json.md; a string that is no UTF-8 is {"base64":"…"} in its place.
//
// # What is promised
//
// A start is in the kernel when [Journal.Event] returns, before the command is sent, and a result before any sink behind the journal shows it:
// whatever becomes of the process, kill -9 included, no host that had a result runs again, and one that was begun and
// has none counts as unknown and is not given out unless asked for. Lines reach the disk within a second (fsync(2) holds up nobody): if the machine itself dies,
// starts of its last second may be missing, of which [Run.Rebooted] warns.
//
// A host that was never started has no result here, though the runner gives it one (cancelled, skipped): it is for a later Resume.
//
// # The disk is full
//
// Event says so at a start, with a *[WriteError], when there is no room left for that host's result, too; those running have room for theirs
// (fallocate(2); where a file system has no such thing, a result may be the first that finds none). The caller stops starting hosts with
// runner.Runner.Drain, and keeps the error from the runner, which would stop those that are running.
//
//	func (s journaled) Event(e runner.Event) error {
//		if err := s.Journal.Event(e); err != nil {
//			s.runner.Drain(err)
//		}
//		return s.next.Event(e)
//	}
//
// # Who owns what
//
// The Journal owns its file, its lock and one goroutine that syncs; Close lets go of all three. The kernel lets go of the lock of a process that dies.
// Durations are the runner's, by the monotonic clock, and names of runs grow even while the clock is set back.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"multirsh/runner"
	"multirsh/transport"
)

// State is what is known of a host.
type State uint8

// The states of a host.
const (
	NotRun  State = iota // the command was not sent, or another try was to send it again
	Unknown              // it was begun, and there is no result
	Done                 // it has a result
)

func (s State) String() string {
	return [...]string{"not run", "unknown", "done"}[s]
}

// SyncEvery is how long a line may take to be on the disk.
const SyncEvery = time.Second

// Journal is the journal of a run that is going on. It is a [runner.Sink], to stand before those that show anything; its methods may
// be called from any goroutine. After an error that ends it, everything returns that error.
type Journal struct {
	ID     string
	Folder string
	Head   Head

	path   string
	file   *os.File
	fsync  func() error
	placed bool // the input and the names of all this are on the disk

	mu     sync.Mutex
	hosts  []Host // of a run that is resumed, as they were then; nil: of a new one
	order  []int  // the hosts given out, by the runner's Seq; nil: all, in their order
	states []State
	counts Counts
	why    string // the first host was not started
	line   []byte
	size   int64
	room   int64 // as far as this the file has its blocks
	dirty  bool
	full   error // no room for more hosts
	err    error // the end

	stop chan struct{}
	gone sync.WaitGroup
}

// WriteError is a journal that cannot be written.
type WriteError struct {
	Path string
	Err  error
}

func (e *WriteError) Error() string {
	return fmt.Sprintf("the journal %s cannot be written: %v", e.Path, e.Err)
}
func (e *WriteError) Unwrap() error { return e.Err }

// writeError is err without the path, which it would say twice.
func writeError(path string, err error) error {
	if in := (*fs.PathError)(nil); errors.As(err, &in) {
		err = in.Err
	}
	if in := (*os.LinkError)(nil); errors.As(err, &in) {
		err = in.Err
	}
	if in := (*os.SyscallError)(nil); errors.As(err, &in) {
		err = in.Err
	}
	return &WriteError{path, err}
}

// begin has the journal go on with the file, which holds size bytes: the lock is had, and nothing has been written by us.
func (j *Journal) begin() {
	j.stop = make(chan struct{})
	if j.fsync == nil {
		j.fsync = j.file.Sync
	}
	j.gone.Go(j.syncs)
}

// syncs has what was written on the disk within SyncEvery.
func (j *Journal) syncs() {
	tick := time.NewTicker(SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-j.stop:
			return
		case <-tick.C:
			j.sync()
		}
	}
}

func (j *Journal) sync() {
	j.mu.Lock()
	due := j.dirty && j.err == nil
	j.dirty = false
	j.mu.Unlock()
	if !due {
		return
	}
	err := j.fsync()
	if err == nil && !j.placed {
		err = j.settle()
	}
	if err != nil {
		j.mu.Lock()
		j.fail(err)
		j.mu.Unlock()
	}
}

// settle has the input on the disk, and the names by which all of it is found.
func (j *Journal) settle() error {
	j.placed = true
	if input := j.Input(); input != "" {
		if err := syncPath(input); err != nil {
			return err
		}
	}
	syncPath(j.Folder) // not every file system can do that with a folder
	syncPath(filepath.Dir(j.Folder))
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// fail ends the journal. The file is cut to its last whole line.
func (j *Journal) fail(err error) error {
	if j.err == nil {
		j.err = writeError(j.path, err)
		j.file.Truncate(j.size) // if that fails, too, then a reader finds half a line
	}
	return j.err
}

// write appends the line.
func (j *Journal) write() error {
	n, err := j.file.Write(j.line)
	if err != nil {
		return j.fail(err)
	}
	j.size += int64(n)
	j.dirty = true
	return nil
}

// Event implements [runner.Sink]. Of a start that it has returned nil for, the record outlives the process; the runner sends the command
// only after that. A start that fails leaves the host as it was: not run.
func (j *Journal) Event(e runner.Event) error {
	switch e.Kind {
	case runner.Start, runner.Restart:
		return j.start(e)
	case runner.Again:
		return j.waits(e)
	case runner.Finish:
		if e.Result.Tries == 0 {
			return j.waits(e)
		}
		return j.result(e)
	}
	return nil
}

// place is the host's own place in the list. The hosts of a resumed run are counted anew by the runner.
func (j *Journal) place(e runner.Event) (int, error) {
	if j.err != nil {
		return 0, j.err
	}
	seq := e.Seq
	if j.hosts != nil {
		if seq < 0 || seq >= len(j.order) || j.hosts[j.order[seq]].Name != e.Host.Name {
			return 0, fmt.Errorf("host %d, %q, is none of those that the journal of run %s has given out", e.Seq, e.Host.Name, j.ID)
		}
		seq = j.order[seq]
	}
	if seq < 0 || seq >= len(j.states) {
		return 0, fmt.Errorf("the journal of run %s has no host %d, %q", j.ID, e.Seq, e.Host.Name)
	}
	if j.states[seq] == Done {
		return 0, fmt.Errorf("host %q has its result in the journal of run %s", e.Host.Name, j.ID)
	}
	return seq, nil
}

func (j *Journal) start(e runner.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	seq, err := j.place(e)
	switch {
	case err != nil:
		return err
	case j.reserve() != nil:
		return j.full
	}
	j.open("start", seq, e)
	j.line = seal(j.line)
	if err := j.write(); err != nil {
		return err
	}
	if j.states[seq] == NotRun {
		j.states[seq] = Unknown
		j.counts.NotRun--
		j.counts.Open++
	}
	return nil
}

// waits notes that a host which may have a start is not running. One that was unknown when the run was resumed stays so: what an earlier process has
// begun there is not undone by our not coming to it.
func (j *Journal) waits(e runner.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.why == "" && e.Kind == runner.Finish && e.Result.Err != nil {
		j.why = e.Result.Err.Error()
	}
	seq, err := j.place(e)
	if err != nil || j.states[seq] == NotRun || j.hosts != nil && j.hosts[seq].State == Unknown {
		return err
	}
	j.open("waits", seq, e)
	if e.Kind == runner.Again {
		j.outcome(e.Result)
	}
	j.line = seal(j.line)
	if err := j.write(); err != nil {
		return err
	}
	j.states[seq] = NotRun
	j.counts.NotRun++
	j.counts.Open--
	return nil
}

func (j *Journal) result(e runner.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	seq, err := j.place(e)
	if err != nil {
		return err
	}
	j.open("result", seq, e)
	j.outcome(e.Result)
	j.line = seal(j.line)
	if err := j.write(); err != nil {
		return err
	}
	if j.states[seq] == Unknown {
		j.counts.Open--
	} else {
		j.counts.NotRun--
	}
	j.states[seq] = Done
	j.counts.Outcomes[e.Result.Outcome]++
	return nil
}

// open begins a line about a host.
func (j *Journal) open(kind string, seq int, e runner.Event) {
	j.line = append(append(append(j.line[:0], `{"type":"`...), kind...), `","seq":`...)
	j.line = strconv.AppendInt(j.line, int64(seq), 10)
	j.line = appendText(append(j.line, `,"host":`...), e.Host.Name)
	j.line = appendTime(append(j.line, `,"time":`...), e.Time)
}

// maxError is as much as is kept of an error's text, which may quote the host.
const maxError = 4 << 10

// short cuts an error's text, not within a character.
func short(text string) string {
	if len(text) <= maxError {
		return text
	}
	end := maxError
	for end > maxError-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// outcome writes how a try ended.
func (j *Journal) outcome(r *runner.Result) {
	b := appendString(append(j.line, `,"outcome":`...), string(r.Outcome))
	if r.Status.Known {
		if r.Status.Signal != "" {
			b = appendText(append(b, `,"signal":`...), r.Status.Signal)
		} else {
			b = strconv.AppendInt(append(b, `,"code":`...), int64(r.Status.Code), 10)
		}
	}
	if phase := r.Phase(); phase != "" {
		b = appendString(append(b, `,"phase":`...), string(phase))
	}
	if err := r.Err; err != nil {
		if op, is := err.(*transport.OpError); is {
			err = op.Err
		}
		b = appendText(append(b, `,"error":`...), short(err.Error()))
		if stop := (*runner.StopError)(nil); errors.As(err, &stop) {
			b = strconv.AppendBool(append(b, `,"confirmed":`...), stop.Confirmed)
		}
	}
	for _, flag := range [...]struct {
		field string
		set   bool
	}{{`,"ran":true`, r.Status.Started}, {`,"ended":true`, r.Status.Ended}, {`,"background":true`, r.Status.Background}} {
		if flag.set {
			b = append(b, flag.field...)
		}
	}
	b = strconv.AppendInt(append(b, `,"tries":`...), int64(r.Tries), 10)
	b = appendTime(append(b, `,"started":`...), r.Started)
	accepted := r.Started
	if !r.Running.IsZero() {
		accepted = r.Running
		b = appendSeconds(append(b, `,"connect":`...), accepted.Sub(r.Started))
	}
	j.line = appendSeconds(append(b, `,"run":`...), r.Ended.Sub(accepted))
}

// Room is kept for a result of each host that is running, and got in steps.
const (
	roomResult = 512
	roomStep   = 64 << 10
)

// reserve has room for the next host's lines and the results of those running. An error is in j.full, too, and ends no more than the starts.
func (j *Journal) reserve() error {
	need := j.size + int64(j.counts.Open+4)*roomResult
	if j.full != nil || need <= j.room {
		return j.full
	}
	err := allocate(j.file, need+roomStep)
	if isFull(err) {
		if err = allocate(j.file, need); isFull(err) {
			j.full = writeError(j.path, err)
			return j.full
		}
		j.room = need
		return nil
	}
	j.room = need + roomStep
	if err != nil { // this file system has no such thing
		j.room = math.MaxInt64
	}
	return nil
}

// Counts is how many hosts of a run are in which state.
type Counts struct {
	Outcomes map[runner.Outcome]int // of those with a result
	Open     int                    // begun, without a result
	NotRun   int
}

// Discard takes back a run that Create has made and of which no host has begun: it is removed. It stands for Close.
func (j *Journal) Discard() {
	close(j.stop)
	j.gone.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = fs.ErrClosed
	}
	gone := filepath.Join(filepath.Dir(j.Folder), oldPrefix+j.ID) // at one stroke; what is left of it, Prune removes
	if os.Rename(j.Folder, gone) == nil {
		removeFiles(gone)
	}
	j.file.Close()
}

// Close implements [runner.Sink]: it writes the end of the run, has all of it on the disk, and lets go of the lock.
func (j *Journal) Close() error {
	close(j.stop)
	j.gone.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.line = appendEnd(j.line[:0], &j.counts, j.why)
		if j.write() == nil {
			err := j.fsync()
			if err == nil && !j.placed {
				err = j.settle()
			}
			if err != nil {
				j.fail(err)
			}
		}
	}
	j.file.Truncate(j.size) // gives back the room that was not needed; nothing is lost if it stays
	if err := j.file.Close(); err != nil && j.err == nil {
		j.fail(err)
	}
	if j.err != nil {
		return j.err
	}
	j.err = fs.ErrClosed
	return nil
}
