package output

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"multirsh/runner"
	"multirsh/runner/hostlist"
)

// Stages keeps what the hosts of a ramp's stage wrote and how they ended, and the same of the stage before: what a person looks at before the
// next one begins.
//
//	Stage 1 of 3, 1 host: 1 ok               |   Stage 2 of 3, 9 hosts: 8 ok, 1 exit
//	  node001 (1)                            |     node[002-009] (8)
//	    nginx 1.24.0                         |       nginx 1.24.0
//	                                         | + node010 (1): exit 1
//	                                         |     nginx: configuration test failed
//
// Outputs are those of [Fold], standard error behind the rest. What one stage has and the other has not is marked, + in the later one, - in the
// one before. A host belongs to the stage in which its place in the run is.
type Stages struct {
	Ends      []int     // hosts of the run at the end of each stage, as runner.Ramp.Stages has them
	Outputs   bool      // are kept; else only which hosts failed
	Normalize Normalize // what may differ
	Memory    int64     // bytes of outputs to keep in memory, 0: DefaultFoldMemory
	TempDir   string    // where the file for more is made; empty: os.TempDir

	showing    sync.Mutex // held while outputs are read
	this, last *stage     // nil: it has not begun
}

// stage is what is known of one.
type stage struct {
	number, of int
	hosts      int
	outcomes   map[runner.Outcome]int
	failed     []string
	fold       *Fold // nil: outputs are not kept
}

// Event implements [runner.Sink]. An error is that of the file for outputs.
func (s *Stages) Event(e runner.Event) error {
	before, _ := slices.BinarySearch(s.Ends, e.Seq+1)
	if number := before + 1; s.this == nil || s.this.number != number {
		if e.Kind == runner.Finish && neverTried(e.Result) {
			return nil // the run has ended before it came to that stage
		}
		s.begin(number)
	}
	if e.Kind == runner.Finish {
		s.this.hosts++
		s.this.outcomes[e.Result.Outcome]++
		if e.Result.Outcome != runner.OK && !stoppedWithRun(e.Result) {
			s.this.failed = append(s.this.failed, e.Host.Name)
		}
	}
	if s.this.fold == nil {
		return nil
	}
	return s.this.fold.Event(e)
}

func (s *Stages) begin(number int) {
	s.last.forget()
	s.last, s.this = s.this, &stage{number: number, of: len(s.Ends), outcomes: map[runner.Outcome]int{}}
	if s.Outputs {
		memory := max(1, cmp.Or(s.Memory, DefaultFoldMemory)/2) // there are two of them
		s.this.fold = &Fold{Stderr: true, Normalize: s.Normalize, Memory: memory, TempDir: s.TempDir}
	}
}

// forget lets go of the outputs.
func (g *stage) forget() {
	if g != nil && g.fold != nil && g.fold.store != nil {
		g.fold.store.close()
		g.fold = nil
	}
}

// Close implements [runner.Sink]. What is being shown, to a terminal that takes nothing, is left to the end of the process.
func (s *Stages) Close() error {
	if s.showing.TryLock() {
		s.last.forget()
		s.this.forget()
		s.showing.Unlock()
	}
	return nil
}

// Failed is the latest stage, from 1, and its hosts that were not ok, folded and harmless to a terminal, "" for none. Those that were stopped with the
// run have not failed.
func (s *Stages) Failed() (stage int, hosts string) {
	if s.this == nil {
		return 0, ""
	}
	return s.this.number, harmless(hostlist.Fold(slices.Values(s.this.failed)))
}

// Show writes the outputs of the latest stage in full, as Fold does. It may be called when the hosts of the stage have ended.
func (s *Stages) Show(w Stream) error {
	s.showing.Lock()
	defer s.showing.Unlock()
	if s.this == nil || s.this.fold == nil || s.this.fold.store == nil {
		return nil
	}
	s.this.fold.Stream = w
	return s.this.fold.write()
}

// Compare writes both stages, of outputs and groups as much as fits in so many rows, 0: any number. They are side by side where the width has room
// for two columns. It may be called when the hosts of the stage have ended.
func (s *Stages) Compare(w Stream, rows int) error {
	s.showing.Lock()
	defer s.showing.Unlock()
	if s.this == nil {
		return nil
	}
	this, err := s.this.blocks()
	if err != nil {
		return err
	}
	var last []block
	if s.last != nil {
		if last, err = s.last.blocks(); err != nil {
			return err
		}
	}
	both := comparedStages{s.last, s.this, mark(this, last, '+', s.last != nil), mark(last, this, '-', true), w}
	var text []string
	for lines := blockLines; lines > 0; lines-- {
		if text = both.rows(lines); rows <= 0 || len(text) <= rows {
			break
		}
	}
	if rows > 0 && len(text) > rows {
		hidden := len(text) - max(1, rows-1)
		text = append(text[:len(text)-hidden], fmt.Sprintf("… and %d more lines", hidden))
	}
	_, err = io.WriteString(w.W, strings.Join(text, "\n")+"\n")
	return err
}

const (
	blockLines    = 8  // of an output, at most, beside another stage's
	columnsBeside = 40 // that each of two stages needs to stand beside the other
)

// block is a group of a stage's fold.
type block struct {
	key   blockKey
	mark  byte // ' ': the other stage has the same
	title string
	lines []string // the first of its output, harmless to a terminal
	more  bool     // lines than these
}

// blockKey is the same for groups that ended alike and wrote the same.
type blockKey struct {
	how ending
	cut bool
	sum [sha256.Size]byte
}

// mark marks those blocks that the other stage has not.
func mark(blocks, others []block, as byte, marks bool) []block {
	for i := range blocks {
		b := &blocks[i]
		if b.mark = ' '; marks && !slices.ContainsFunc(others, func(o block) bool { return o.key == b.key }) {
			b.mark = as
		}
	}
	return blocks
}

// blocks are the groups of the stage, in the order of their showing.
func (g *stage) blocks() (blocks []block, err error) {
	if g.fold == nil || g.fold.store == nil {
		return nil, nil
	}
	out := g.fold.newFolded()
	for _, group := range g.fold.sorted() {
		b := block{key: blockKey{how: group.how, cut: group.cut}, title: out.title(group, "")}
		if b.key.sum, err = g.fold.digest(group); err != nil {
			return nil, err
		}
		if b.lines, b.more, err = g.fold.head(group); err != nil {
			return nil, err
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// digest is the sum of a group's output, or of what is left of it to be compared.
func (f *Fold) digest(g *group) (sum [sha256.Size]byte, err error) {
	h := &folding{raw: sha256.New(), names: g.names}
	if f.norm == nil {
		err = f.store.write(h.raw, g.end)
		return [sha256.Size]byte(h.raw.Sum(nil)), err
	}
	h.key, h.parts = sha256.New(), make(replacements, partRegexps+len(f.norm.Regexps))
	err = f.store.write(writing(func(p []byte) { f.compare(h, p) }), g.end)
	if len(h.line) > 0 {
		f.compareLine(h, h.line)
	}
	f.store.memory -= int64(cap(h.line))
	return [sha256.Size]byte(h.key.Sum(nil)), err
}

var errEnough = errors.New("no more is needed")

// head is the first lines of a group's output.
func (f *Fold) head(g *group) (lines []string, more bool, err error) {
	const longest = 4 << 10 // no column shows as much
	var line []byte
	end := func() {
		line = line[:len(line)-partial(line)]
		lines = append(lines, strings.ReplaceAll(harmless(string(line)), "\t", "    "))
		line = line[:0]
	}
	err = f.store.write(writerUntil(func(p []byte) error {
		for len(p) > 0 {
			if len(lines) == blockLines {
				more = true
				return errEnough
			}
			n := bytes.IndexByte(p, '\n')
			part := p
			if n >= 0 {
				part = p[:n]
			}
			line = append(line, part[:min(len(part), longest-len(line))]...)
			if p = p[len(part):]; n >= 0 {
				p = p[1:]
				end()
			}
		}
		return nil
	}), g.end)
	if err == errEnough {
		err = nil
	}
	if len(line) > 0 {
		end()
	}
	return lines, more, err
}

type writing func(p []byte)

func (f writing) Write(p []byte) (int, error) { f(p); return len(p), nil }

type writerUntil func(p []byte) error

func (f writerUntil) Write(p []byte) (int, error) { return len(p), f(p) }

// comparedStages are two stages to be shown.
type comparedStages struct {
	last, this         *stage // last nil: there is none
	thisBlock, lastOne []block
	Stream
}

// rows are the lines of both stages, of each output so many at most.
func (c *comparedStages) rows(lines int) []string {
	if c.last == nil {
		return c.stacked(c.this, c.thisBlock, lines)
	}
	column := (c.Width - len(" | ") - 1) / 2 // in the last column some terminals break the line
	if column < columnsBeside {
		return append(c.stacked(c.last, c.lastOne, lines), c.stacked(c.this, c.thisBlock, lines)...)
	}
	var text []string
	row := func(left, right string, paint Color) {
		left, right = cutTo(left, column), cutTo(right, column)
		if paint != NoColor {
			right = c.Paint(paint, right)
		}
		text = append(text, strings.TrimRight(left+strings.Repeat(" ", column-columns(left))+" | "+right, " "))
	}
	pair := func(left, right []string, paint Color) {
		for i := range max(len(left), len(right)) {
			var l, r string
			if i < len(left) {
				l = left[i]
			}
			if i < len(right) {
				r = right[i]
			}
			row(l, r, paint)
		}
	}
	row(c.last.title(), c.this.title(), NoColor)
	for _, b := range c.thisBlock {
		var left []string
		paint := NoColor
		if i := slices.IndexFunc(c.lastOne, func(o block) bool { return o.key == b.key }); i >= 0 {
			left = c.lastOne[i].rows(lines)
		} else {
			paint = colorOf(b.key.how.outcome)
		}
		pair(left, b.rows(lines), paint)
	}
	for _, b := range c.lastOne {
		if b.mark != ' ' {
			pair(b.rows(lines), nil, NoColor)
		}
	}
	return text
}

// stacked are the lines of one stage alone.
func (c *comparedStages) stacked(g *stage, blocks []block, lines int) []string {
	text := []string{g.title()}
	for _, b := range blocks {
		text = append(text, b.rows(lines)...)
	}
	if c.Width > 0 {
		for i := range text {
			text[i] = cutTo(text[i], max(20, c.Width-1))
		}
	}
	return text
}

func (g *stage) title() string {
	return fmt.Sprintf("Stage %d of %d, %s: %s", g.number, g.of, number(g.hosts, "host"), counts(g.outcomes))
}

// rows are the lines of the block, of its output so many at most.
func (b *block) rows(lines int) []string {
	text := []string{string(b.mark) + " " + b.title}
	for _, line := range b.lines[:min(lines, len(b.lines))] {
		text = append(text, "    "+line)
	}
	if b.more || len(b.lines) > lines {
		text = append(text, "    …")
	}
	return text
}

// cutTo is the text in so many columns at most.
func cutTo(text string, width int) string {
	if columns(text) <= width {
		return text
	}
	runes := []rune(text)
	for len(runes) > 0 && columns(string(runes)) > width-1 {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}
