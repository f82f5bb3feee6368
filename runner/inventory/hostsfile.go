package inventory

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"multirsh/runner/hostlist"
)

// Bounds on hosts files, so that a wrong file is an error and not an endless wait. The longest possible list of hosts, a name a line, is
// well within them.
const (
	maxLine    = 1 << 20
	maxFile    = 512 << 20
	maxLines   = hostlist.MaxHosts + hostlist.MaxHosts/10 // with room for comments
	maxInclude = 100                                      // files in files
)

// book is hosts files that are read as one: those of the inventory, or that of a ^FILE with what it includes.
type book struct {
	all      *node // its hosts: its parts are all lines, in their order
	sections map[string]*node
	order    []*node         // the sections, in the order of their first appearance
	files    map[string]bool // those that have been read, by their true names
	names    []string        // and those that have been asked for
}

func newBook(what string) *book {
	b := &book{all: &node{what: what}, sections: map[string]*node{}, files: map[string]bool{}}
	b.all.book = b
	return b
}

// section is the one of a name, made where there is none.
func (b *book) section(name string) *node {
	n := b.sections[name]
	if n == nil {
		n = &node{what: "[" + name + "]", name: name, book: b}
		b.sections[name] = n
		b.order = append(b.order, n)
	}
	return n
}

// part is hosts that one line names, or many lines that set nothing.
type part struct {
	at      place
	dir     string         // where a ^FILE is looked for
	expr    *hostlist.Expr // nil: there are plain names alone
	name    string         // where it is one host: that
	hosts   *hostlist.List // nil: the expression has not been evaluated
	plain   *gathered      // hosts of lines that set nothing
	set     []setting
	targets []claim
	child   bool // a line of [group:children]
	decides bool // it may set something, so it is evaluated whichever hosts are selected
}

// gathered are hosts in their order, from names and lists.
type gathered struct {
	names []string // the last ones
	lists []*hostlist.List
}

// add adds what a part has, which has been evaluated.
func (g *gathered) add(hosts *hostlist.List) {
	g.flush()
	g.lists = append(g.lists, hosts)
}

func (g *gathered) flush() {
	if len(g.names) > 0 {
		g.lists = append(g.lists, hostlist.Of(slices.Values(g.names)))
		g.names = nil
	}
}

func (g *gathered) list() *hostlist.List {
	g.flush()
	all := union(g.lists)
	g.lists = append(g.lists[:0], all)
	return all
}

func union(lists []*hostlist.List) *hostlist.List {
	switch len(lists) {
	case 0:
		return new(hostlist.List)
	case 1:
		return lists[0]
	}
	return lists[0].Union(lists[1:]...)
}

// isPlain reports whether an expression is one name of ordinary characters, as nearly all are in long files.
func isPlain(text string) bool {
	if text == "" || len(text) > 253 || text[0] == '-' || text[0] == '.' {
		return false
	}
	for i := range len(text) {
		if !plainBytes[text[i]] {
			return false
		}
	}
	return true
}

var plainBytes = func() (set [256]bool) {
	for _, c := range []byte(letters + "0123456789-_.") {
		set[c] = true
	}
	return set
}()

// reader reads one file into a book.
type reader struct {
	*Inventory
	book     *book
	name     string
	dir      string // what it includes is looked for here
	line     int
	within   []string // the files that include this one, and this one, by their true names
	names    []string // and as errors name them
	section  *node    // the one that lines belong to now; nil: none
	children bool     // the lines name groups
	words    []string // of the line
	last     *part    // where hosts go that no setting is for; nil: a new one
}

func (r *reader) at() place { return place{r.name, r.line} }

// ReadFile reads a hosts file into the inventory, before hosts are selected. A file that has been read already is not read again. Errors
// begin with the file's name and, where there is one, the line, and wrap a *hostlist.SyntaxError where an expression is at fault.
func (inv *Inventory) ReadFile(path string) error {
	inv.main.names = append(inv.main.names, path)
	return (&reader{Inventory: inv, book: inv.main}).file(path, "")
}

// Read reads a hosts file from r, to its end, into the inventory. The name is for errors, as with ReadFile; what it includes is
// looked for in the current directory.
func (inv *Inventory) Read(r io.Reader, name string) error {
	inv.main.names = append(inv.main.names, name)
	return (&reader{Inventory: inv, book: inv.main, name: name}).read(r)
}

// file reads a file, which another one includes at a place unless that is empty.
func (r *reader) file(path, included string) error {
	in := &reader{Inventory: r.Inventory, book: r.book, name: path, dir: filepath.Dir(path)}
	id := identity(path)
	in.within, in.names = append(slices.Clip(r.within), id), append(slices.Clip(r.names), path)
	fail := func(err error) error {
		if included != "" {
			return fmt.Errorf("%s: include %s: %w", included, path, err)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case slices.Contains(r.within, id):
		return fail(fmt.Errorf("the file includes itself: %s", strings.Join(in.names[slices.Index(r.within, id):], " > ")))
	case r.book.files[id]:
		return nil
	case len(r.within) > maxInclude:
		return fail(fmt.Errorf("files are included in files more than %d deep", maxInclude))
	}
	f, err := open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	r.book.files[id] = true
	return in.read(f)
}

// identity is the same for all names of a file but hard links.
func identity(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path
}

// open opens a file, and nothing that could keep us waiting: but a pipe that the caller's shell has made for us is as good as a file.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for its writer
	if err != nil {
		return nil, reason(err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = reason(err)
	case info.IsDir():
		err = errors.New("this is a directory: name a hosts file, or its files as in DIRECTORY/*")
	case !info.Mode().IsRegular() && path != os.DevNull && !isOpen(path):
		err = fmt.Errorf("this is %s, where a hosts file is expected", kind(info.Mode()))
	default:
		return f, nil
	}
	f.Close()
	return nil, err
}

// isOpen reports whether path stands for a file that we were started with.
func isOpen(path string) bool {
	return path == "/dev/stdin" || strings.HasPrefix(path, "/dev/fd/") || strings.HasPrefix(path, "/proc/self/fd/")
}

func kind(mode fs.FileMode) string {
	switch mode.Type() {
	case fs.ModeNamedPipe:
		return "a FIFO"
	case fs.ModeSocket:
		return "a socket"
	}
	return "a device"
}

// reason is an error without the operation and the path, which are said before it.
func reason(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

var (
	errNUL   = errors.New("there is a NUL byte here: a hosts file is UTF-8 text")
	errUTF16 = errors.New("this is UTF-16: save the file as UTF-8")
)

// read reads a file to its end.
func (r *reader) read(src io.Reader) error {
	r.stale = true
	scan, size := bufio.NewScanner(src), 0
	scan.Buffer(make([]byte, 0, 1<<16), maxLine)
	scan.Split(func(data []byte, end bool) (int, []byte, error) {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line = data[:i]
		}
		switch {
		case r.line == 0 && (bytes.HasPrefix(line, []byte("\xff\xfe")) || bytes.HasPrefix(line, []byte("\xfe\xff"))):
			return 0, nil, errUTF16
		case bytes.IndexByte(line, 0) >= 0:
			return 0, nil, errNUL
		}
		return bufio.ScanLines(data, end)
	})
	for scan.Scan() {
		text := scan.Text()
		if r.line == 0 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		if r.line++; r.line > maxLines {
			return fmt.Errorf("%s: the file has more than %d lines: is this a hosts file?", r.at(), maxLines)
		}
		if size += len(text) + 1; size > maxFile {
			return fmt.Errorf("%s: the file is longer than %d bytes: is this a hosts file?", r.at(), maxFile)
		}
		if err := r.text(text); err != nil {
			return err
		}
	}
	r.line++
	switch err := scan.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s: this line is longer than %d bytes: give each group of hosts a line of its own", r.at(), maxLine)
	case err != nil:
		return fmt.Errorf("%s: %w", r.at(), reason(err))
	}
	return nil
}

// text reads a line. Its errors have the place.
func (r *reader) text(text string) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", r.at(), fmt.Errorf(format, args...))
	}
	if strings.IndexByte(text, '\r') >= 0 {
		return fail("there is a carriage return inside this line: end lines with LF or CRLF")
	}
	hosts, words := cut(text, r.words[:0])
	r.words = words
	if name, is := directive(hosts, text); is {
		return r.include(name)
	}
	if head, rest, is := header(hosts); is {
		if rest != "" {
			return fail("%s stands after [%s]: hosts of a section go on lines of their own", rest, head)
		}
		if err := r.begin(head, words); err != nil {
			return fail("%w", err)
		}
		return nil
	}
	var err error
	switch {
	case hosts == "" && len(words) == 0:
	case hosts == "":
		return fail("%s stands without hosts: write them before it, on the same line", words[0])
	case r.children && len(words) > 0:
		return fail("%s is set here, where groups are named: write it after [%s]", words[0], r.section.name)
	case r.children:
		err = r.groups(hosts)
	default:
		err = r.hosts(hosts, words)
	}
	if err != nil {
		return fail("%w", err)
	}
	return nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// cut takes a line apart: the expression without blanks around it, and the words from the first that is a setting, which it appends
// to settings.
func cut(text string, settings []string) (expr string, _ []string) {
	hosts := -1 // where they end
	for i := 0; i < len(text); {
		if isBlank(text[i]) {
			i++
			continue
		}
		if text[i] == '#' {
			text = text[:i]
			break
		}
		start := i
		for i < len(text) && !isBlank(text[i]) {
			i++
		}
		if word := text[start:i]; hosts >= 0 || isSetting(word) {
			if hosts < 0 {
				hosts = start
			}
			settings = append(settings, word)
		}
	}
	if hosts < 0 {
		hosts = len(text)
	}
	return strings.Trim(text[:hosts], " \t"), settings
}

// isSetting reports whether a word is KEY=VALUE. A group may have an equal sign in its name, but that does not follow letters alone.
func isSetting(word string) bool {
	i := strings.IndexByte(word, '=')
	return i > 0 && strings.Trim(word[:i], letters) == ""
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// directive is the name of the file that a line includes. It may have blanks and equal signs in it.
func directive(hosts, text string) (name string, is bool) {
	const word = "include"
	if !strings.HasPrefix(hosts, word) || len(hosts) > len(word) && !isBlank(hosts[len(word)]) {
		return "", false
	}
	text = strings.TrimLeft(text, " \t")[len(word):]
	for i := range len(text) {
		if text[i] == '#' && isBlank(text[i-1]) {
			text = text[:i]
			break
		}
	}
	return strings.Trim(text, " \t"), true
}

// header takes the name out of a section's first line, and what stands after it. A set of numbers and an IPv6 address are hosts.
func header(hosts string) (name, rest string, is bool) {
	if hosts == "" || hosts[0] != '[' {
		return "", "", false
	}
	name, rest, is = strings.Cut(hosts[1:], "]")
	if !is || rest != "" && !isBlank(rest[0]) || strings.Trim(name, "0123456789-,/") == "" {
		return "", "", false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", "", false
	}
	return name, strings.TrimLeft(rest, " \t"), true
}

// begin begins a section.
func (r *reader) begin(head string, words []string) error {
	name, what, isMore := strings.Cut(head, ":")
	switch {
	case r.book.sections[name] == nil && !isGroup(name):
		return fmt.Errorf("[%s] is no section: a group's name has letters, digits, '_', '-', '.', '+' and '/'", head)
	case isMore && what == "vars":
		return fmt.Errorf("settings of a section stand after its name, as in [%s] user=ops", name)
	case isMore && what != "children":
		return fmt.Errorf("[%s] is no section: it is [%s] before hosts, and [%[2]s:children] before names of groups", head, name)
	case isMore && len(words) > 0:
		return fmt.Errorf("%s stands after [%s]: write it after [%s]", words[0], head, name)
	}
	r.section, r.children, r.last = r.book.section(name), isMore, nil
	set, err := r.parseSettings(words)
	if err != nil {
		return err
	}
	if find(set, keyAddr) != nil {
		return errors.New("addr= is for hosts, and these are a section's: write it on their own lines")
	}
	if len(set) > 0 {
		r.section.set = append(r.section.set, claim{at: r.at(), group: r.section, set: set})
	}
	return nil
}

// isGroup reports whether a group of this name can be written in an expression.
func isGroup(name string) bool {
	e, err := hostlist.Parse("@" + name)
	return err == nil && slices.Equal(e.Groups(), []hostlist.GroupRef{{Name: name}}) && name != "*"
}

// groups reads a line of [group:children]: names of groups, with blanks or commas between them.
func (r *reader) groups(text string) error {
	inside := false // brackets
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool {
		inside = c == '[' || inside && c != ']'
		return !inside && (c == ' ' || c == '\t' || c == ',')
	}) {
		name := strings.TrimPrefix(word, "@")
		e, err := hostlist.Parse("@" + name)
		switch {
		case err != nil:
			return err
		case strings.ContainsAny(name, "!&^*?@ ") || len(e.Groups()) == 0:
			return fmt.Errorf("%s stands where [%s:children] has names of groups: as rack1, rack[1-3] or SOURCE:GROUP", word, r.section.name)
		}
		r.add(&part{at: r.at(), expr: e, child: true})
	}
	return nil
}

// add adds a part to the book and to its section.
func (r *reader) add(p *part) {
	r.book.all.parts = append(r.book.all.parts, p)
	if r.section != nil {
		r.section.parts = append(r.section.parts, p)
	}
	r.last = nil
}

// hosts reads a line of hosts.
func (r *reader) hosts(text string, words []string) error {
	set, err := r.parseSettings(words)
	if err != nil {
		return err
	}
	p := &part{at: r.at(), set: set}
	if isPlain(text) {
		if p.name = text; len(set) == 0 {
			names := &r.plain().plain.names
			*names = append(*names, text)
			return nil
		}
		r.add(p)
		return p.settle(nil)
	}
	e, err := hostlist.Parse(text)
	if err != nil {
		return err
	}
	p.dir, p.expr = r.dir, e
	if len(e.Groups()) > 0 {
		p.decides = len(set) > 0 || decides(text)
		r.add(p)
		return nil
	}
	file := false
	s, err := e.Eval(&hostlist.Scope{
		Transports: r.options.Transports,
		All:        noWildcards,
		File:       func(string) (*hostlist.List, error) { file = true; return nil, errors.ErrUnsupported },
	})
	switch {
	case file: // it is read when hosts are selected
		p.decides = true
		r.add(p)
		return nil
	case err != nil:
		return err
	}
	if p.targets, err = r.claims(p.at, s.Hosts, s.Targets); err != nil {
		return err
	}
	if s.Hosts.Len() == 0 {
		return fmt.Errorf("%s excludes all the hosts that it names", text)
	}
	if len(p.set) == 0 && len(p.targets) == 0 {
		r.plain().plain.add(s.Hosts)
		return nil
	}
	r.add(p)
	return p.settle(s.Hosts)
}

// plain is the part for hosts of lines that set nothing.
func (r *reader) plain() *part {
	if r.last == nil {
		p := &part{at: r.at(), plain: new(gathered)}
		r.add(p)
		r.last = p
	}
	return r.last
}

func noWildcards() (*hostlist.List, error) {
	return nil, errors.New("in a hosts file this would select from the hosts of the hosts files themselves: name them, or name a group")
}

// settle gives p the hosts that have been found, unless it is a plain name, and fits its settings to them.
func (p *part) settle(hosts *hostlist.List) error {
	n := 1
	if hosts != nil {
		n = hosts.Len()
	}
	for i := range p.set {
		if err := p.set[i].fit(n, hosts); err != nil {
			return err
		}
	}
	if p.hosts = hosts; hosts != nil && n == 1 {
		for p.name = range hosts.All() {
		}
	}
	return nil
}

var (
	ofSource = regexp.MustCompile(`(^|[\s,!&^-])@[^\s,!&^:@\d][^\s,!&^:@]*:`)
	mayBe    = regexp.MustCompile(`[^\s,!&^-]@|[:^]`)
)

// decides reports whether an expression may have targets or files in it: there is a colon that follows no source, an at sign that begins no
// group, or a circumflex.
func decides(text string) bool { return mayBe.MatchString(ofSource.ReplaceAllString(text, "$1@")) }

// literal has the characters of a file's name that Glob would take for more.
var literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// include reads the files that a line includes. They begin outside of all sections, and leave ours as it is.
func (r *reader) include(name string) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", r.at(), fmt.Errorf(format, args...))
	}
	if name == "" {
		return fail("include names no file: write include FILE")
	}
	r.last = nil
	path := name
	within := "" // the directory
	if !filepath.IsAbs(path) {
		within = r.dir
		path = filepath.Join(within, name)
	}
	paths := []string{path}
	if strings.ContainsAny(name, "*?[") {
		var err error
		if paths, err = filepath.Glob(filepath.Join(literal.Replace(within), name)); err != nil {
			return fail("include %s: this is no pattern for file names: a '[' is not closed", name)
		}
		if len(paths) == 0 {
			if _, err := os.ReadDir(filepath.Dir(path)); err != nil {
				return fail("include %s: %s: %w", name, filepath.Dir(path), reason(err))
			}
		}
	}
	for _, path := range paths {
		if err := r.file(path, r.at().String()); err != nil {
			return err
		}
	}
	return nil
}
