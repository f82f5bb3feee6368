package sshconfig

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxDepth is how deep files may include each other: READCONF_MAX_DEPTH of OpenSSH.
const maxDepth = 16

const whitespace = " \t\r\n"

// A file is a list of blocks, of which the first one has no condition.
type file struct {
	name   string
	blocks []block

	// Which blocks may hold for a host, by their number: those whose Host line names it, and those that have to be asked.
	named map[string][]int
	asked []int
}

// A block is what stands under a Host or a Match line.
type block struct {
	condition condition
	at        *directive  // the Host or Match line; nil above the first one
	hosts     []string    // patterns of a Host line
	criteria  []criterion // of a Match line
	lines     []*directive
}

type condition uint8

const (
	always condition = iota
	onHost
	onMatch
)

// A directive is one line, checked, but not yet expanded for a target.
type directive struct {
	file *file
	line int
	name string // the keyword as it was written

	word  *keyword // nil: unknown, but an IgnoreUnknown may hold
	args  []string // without quotes
	rest  string   // the same as it was written, which is what a command is
	num   int      // args[0] as a port, a count or seconds
	jumps []Jump   // of ProxyJump
	files []*file  // of Include
}

// errorf is an error that names the line.
func (d *directive) errorf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if d.line == 0 {
		return fmt.Errorf("%s: %w", d.file.name, err)
	}
	return fmt.Errorf("%s:%d: %w", d.file.name, d.line, err)
}

// unknown is the error for a keyword that is none.
func (d *directive) unknown() error {
	return d.errorf("unknown keyword %s: correct it, or name it in an IgnoreUnknown line above", d.name)
}

// origin is what the rules for a file depend on.
type origin struct {
	user    bool // of the user rather than of the system: what it includes is relative to ~/.ssh, and may begin with ~
	guarded bool // nobody but the user and root may write to it
}

// A reader reads files into memory and checks them, all in the order in which ssh would.
type reader struct {
	sources Sources
	ignored []string // the patterns of every IgnoreUnknown so far
	final   bool     // Match final was seen
}

// option reads one -o. Its lines hold for every host, so they all go into the first block.
func (r *reader) option(into *file, text string) error {
	f := &file{name: "-o " + text}
	if err := r.line(f, text, 0, origin{user: true}, 0); err != nil {
		return err
	}
	if len(into.blocks) == 0 {
		into.blocks, into.asked = []block{{}}, []int{0}
	}
	into.blocks[0].lines = append(into.blocks[0].lines, f.blocks[0].lines...)
	return nil
}

// read reads one file and all that it includes. There is no error if there is no such file, and no file either.
func (r *reader) read(name string, from origin, depth int) (*file, error) {
	data, err := contents(name, from.guarded)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.As(err, new(*fs.PathError)) {
		return nil, fmt.Errorf("the ssh configuration cannot be read: %w: make it readable, or go without by -F none", err)
	}
	if err != nil {
		return nil, err
	}
	f := &file{name: name}
	for line := 1; len(data) > 0; line++ {
		var text string
		text, data, _ = strings.Cut(data, "\n")
		if err := r.line(f, text, line, from, depth); err != nil {
			return nil, err
		}
	}
	f.index()
	return f, nil
}

// contents reads a file. A directory is empty, as it is to ssh: an Include of a whole directory may meet one.
func contents(name string, guarded bool) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); guarded && ok {
		if stat.Uid != 0 && int(stat.Uid) != os.Getuid() {
			return "", fmt.Errorf("%s belongs to user %d, who could have it run anything as you: chown it to yourself", name, stat.Uid)
		}
		if stat.Mode&0o002 != 0 || stat.Mode&0o020 != 0 && !isPrivateGroup(stat.Gid, stat.Uid, "/etc/group") {
			return "", fmt.Errorf("%s may be written to by others, who could have it run anything as you: chmod go-w %[1]s", name)
		}
	}
	if info.IsDir() {
		return "", nil
	}
	data, err := io.ReadAll(f)
	return string(data), err
}

// isPrivateGroup is whether a group is that of one user alone: it has the user's name and no other member. Where every user has such
// a group files are often writable to it, and Debian's ssh takes them, too.
func isPrivateGroup(gid, uid uint32, database string) bool {
	owner, err := user.LookupId(strconv.Itoa(int(uid)))
	if err != nil {
		return false
	}
	groups, err := os.ReadFile(database)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(groups)) { // group(5): name, password, number, members
		group := strings.Split(strings.TrimSpace(line), ":")
		if len(group) == 4 && group[2] == strconv.Itoa(int(gid)) {
			return group[0] == owner.Username && (group[3] == "" || group[3] == owner.Username)
		}
	}
	return false
}

// index sorts the blocks by how they are found.
func (f *file) index() {
	f.named = map[string][]int{}
	for i := range f.blocks {
		b := &f.blocks[i]
		if b.condition != onHost || slices.ContainsFunc(b.hosts, isPattern) {
			f.asked = append(f.asked, i)
			continue
		}
		for _, host := range b.hosts {
			if of := f.named[host]; len(of) == 0 || of[len(of)-1] != i {
				f.named[host] = append(of, i)
			}
		}
	}
}

// candidates calls visit for each block that may hold for host, in the order of the file, until visit fails.
func (f *file) candidates(host string, visit func(*block) error) error {
	asked, named := f.asked, f.named[host]
	for len(asked)+len(named) > 0 {
		from := &asked
		if len(asked) == 0 || len(named) > 0 && named[0] < asked[0] {
			from = &named
		}
		if err := visit(&f.blocks[(*from)[0]]); err != nil {
			return err
		}
		*from = (*from)[1:]
	}
	return nil
}

// line reads one line into the last block of f, or begins another one.
func (r *reader) line(f *file, text string, number int, from origin, depth int) error {
	if len(f.blocks) == 0 {
		f.blocks = []block{{}}
	}
	text = strings.Trim(strings.TrimRight(text, whitespace+"\f"), whitespace)
	if text == "" || text[0] == '#' {
		return nil
	}
	d := &directive{file: f, line: number}
	d.name, d.rest = cutKeyword(text)
	if d.rest == "" {
		return d.errorf("%s says nothing: add what it is to be, or remove the line", d.name)
	}
	var closed bool
	if d.args, closed = fields(d.rest); !closed {
		return d.errorf("%s has a quote that is not closed", d.name)
	}
	d.word = keywords[strings.ToLower(d.name)]
	if d.word == nil {
		if !slices.ContainsFunc(r.ignored, func(list string) bool { return ignores(list, d.name) }) {
			return d.unknown()
		}
		f.add(d)
		return nil
	}
	if slot := d.word.slot; number == 0 && (slot == slotHost || slot == slotMatch || slot == slotInclude) {
		return d.errorf("%s belongs in a file: write one and name it with -F", d.word.name)
	}
	if d.word.check != nil {
		if err := d.word.check(d); err != nil {
			return d.errorf("%s: %w", d.word.name, err)
		}
	}
	switch d.word.slot {
	case slotHost:
		f.blocks = append(f.blocks, block{condition: onHost, at: d, hosts: d.args})
		return nil
	case slotMatch:
		criteria, err := parseMatch(d)
		if err != nil {
			return d.errorf("Match: %w", err)
		}
		for _, criterion := range criteria {
			r.final = r.final || criterion.kind == matchFinal && !criterion.negated
		}
		f.blocks = append(f.blocks, block{condition: onMatch, at: d, criteria: criteria})
		return nil
	case slotInclude:
		if err := r.include(d, from, depth); err != nil {
			return err
		}
	case slotIgnoreUnknown:
		r.ignored = append(r.ignored, d.args[0])
	}
	f.add(d)
	return nil
}

func (f *file) add(d *directive) {
	last := &f.blocks[len(f.blocks)-1]
	last.lines = append(last.lines, d)
}

// include reads all files that an Include line names. None at all is no error.
func (r *reader) include(d *directive, from origin, depth int) error {
	for _, arg := range d.args {
		if i := strings.IndexByte(arg, '%'); i >= 0 && i+1 < len(arg) && strings.IndexByte(allTokens, arg[i+1]) >= 0 {
			return d.errorf("Include: files are read before there is a host: instead of %s write one Include under each Host", arg[i:i+2])
		}
		if arg[0] == '~' && !from.user {
			return d.errorf("Include %s: the system has no home directory: write the path out", arg)
		}
		dir, rest, err := splitTilde(arg, r.sources.Home)
		if err != nil {
			return d.errorf("Include: %w", err)
		}
		if rest, err = expand(rest, variables, "", nil); err != nil {
			return d.errorf("Include: %w", err)
		}
		path := dir + rest
		switch {
		case strings.HasPrefix(path, "/"):
		case from.user:
			path = filepath.Join(r.sources.Home, ".ssh", path)
		default:
			path = filepath.Join(filepath.Dir(r.sources.System), path)
		}
		for _, name := range glob(path) {
			if depth == maxDepth {
				return d.errorf("Include: files include each other more than %d deep: break the circle", maxDepth)
			}
			f, err := r.read(name, origin{user: from.user, guarded: true}, depth+1)
			if err != nil {
				return err
			}
			if f != nil {
				d.files = append(d.files, f)
			}
		}
	}
	return nil
}

// glob lists the files that a pattern names, in order, by the rules of glob(3): a wildcard matches no dot at the beginning of a
// name, [!a] is any character but a, and a pattern that is none is a name.
func glob(pattern string) []string {
	names, err := filepath.Glob(strings.ReplaceAll(pattern, "[!", "[^"))
	if err != nil {
		return []string{pattern}
	}
	parts := strings.Split(filepath.Clean(pattern), "/")
	return slices.DeleteFunc(names, func(name string) bool {
		for i, part := range strings.Split(filepath.Clean(name), "/") {
			if i < len(parts) && strings.HasPrefix(part, ".") && !strings.HasPrefix(parts[i], ".") {
				return true
			}
		}
		return false
	})
}

// cutKeyword cuts a line behind its keyword and the space, or the one '=', that follows.
func cutKeyword(text string) (keyword, rest string) {
	if text[0] == '"' {
		if keyword, rest, ok := strings.Cut(text[1:], `"`); ok {
			return keyword, strings.TrimLeft(rest, whitespace)
		}
	}
	end := strings.IndexAny(text, whitespace+"=")
	if end < 0 {
		return text, ""
	}
	keyword, rest = text[:end], strings.TrimLeft(text[end:], whitespace)
	rest = strings.TrimPrefix(rest, "=")
	return keyword, strings.TrimLeft(rest, whitespace)
}

// fields splits what follows a keyword at spaces outside of quotes, of either kind, up to a word that begins with '#'. A backslash
// is one unless it stands before a quote, a backslash or, outside of quotes, a space. False: a quote is not closed.
func fields(s string) (args []string, closed bool) {
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' {
			i++
			continue
		}
		if s[i] == '#' {
			break
		}
		var arg strings.Builder
		quote := byte(0)
	word:
		for ; i < len(s); i++ {
			switch c := s[i]; {
			case c == '\\' && i+1 < len(s) && (strings.IndexByte(`'"\`, s[i+1]) >= 0 || quote == 0 && s[i+1] == ' '):
				i++
				arg.WriteByte(s[i])
			case quote == 0 && (c == ' ' || c == '\t'):
				break word
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
			case quote != 0 && c == quote:
				quote = 0
			default:
				arg.WriteByte(c)
			}
		}
		if quote != 0 {
			return nil, false
		}
		args = append(args, arg.String())
	}
	return args, true
}
