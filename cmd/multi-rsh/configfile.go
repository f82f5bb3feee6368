package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"multirsh/runner/inventory"
)

// configFile is what a configuration file says: defaults for options, settings for hosts, and where groups come from.
//
//	fanout = 128                    an option, by its long name
//	inventory = ["hosts"]           files are looked for beside the configuration
//
//	[[hosts]]                       settings for some hosts
//	match = "@rack1"
//	user = "ops"
//
//	[groups]
//	default = "slurm"
//
//	[groups.source.slurm]
//	map = "sinfo -h -o %N -p $GROUP"
type configFile struct {
	name    string
	options []fileOption
	hosts   []fileHosts
	groups  fileGroups
}

// fileOption is the default of an option.
type fileOption struct {
	*option
	as     string // what to call it in a message
	values []string
}

// fileHosts are the settings of a [[hosts]].
type fileHosts struct {
	place, match string
	set          inventory.Settings
}

// fileGroups is [groups].
type fileGroups struct {
	place   string // of the default
	byName  string // the default source; "": not said
	timeout time.Duration
	sources []fileSource
}

// fileSource is a [groups.source.NAME]: a kind of source, and what it needs.
type fileSource struct {
	place, name string
	kind        string   // a key of sourceKinds
	files       []string // of the kinds that have files; none: where they usually are
	upcall      map[string]string
	timeout     time.Duration
	cache       time.Duration
}

// maxConfig is far more than anybody writes.
const maxConfig = 1 << 20

// configFiles are those that hold: the user's before the machine's, or the one of --config.
func (e *env) configFiles(named string) ([]*configFile, error) {
	var files []*configFile
	switch named {
	case "none":
		return nil, nil
	case "":
		for _, dir := range e.configDirs() {
			f, err := readConfig(filepath.Join(dir, "config.toml"), e.Getenv("HOME"))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
		return files, nil
	}
	f, err := readConfig(named, e.Getenv("HOME"))
	if err != nil {
		return nil, err
	}
	return append(files, f), nil
}

// configDirs are the directories of ours, the user's and the machine's, whether they exist or not.
func (e *env) configDirs() (dirs []string) {
	if dir := e.userDir("XDG_CONFIG_HOME", ".config"); dir != "" {
		dirs = append(dirs, filepath.Join(dir, "multi-rsh"))
	}
	return append(dirs, filepath.Join(e.Etc, "multi-rsh"))
}

// userDir is a directory of the XDG Base Directory Specification; "": the user has none.
func (e *env) userDir(variable, underHome string) string {
	if dir := e.Getenv(variable); filepath.IsAbs(dir) { // any other is to be ignored, says the specification
		return dir
	}
	if home := e.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, underHome)
	}
	return ""
}

// readConfig reads a configuration file. Its errors are usageErrors, but for one that there is no such file.
func readConfig(name, home string) (*configFile, error) {
	text, err := readGuarded(name)
	if err != nil {
		return nil, err
	}
	root, err := readTable(text, name)
	if err != nil {
		return nil, usagef("%v", err)
	}
	dir, err := filepath.Abs(filepath.Dir(name)) // commands of groups run elsewhere
	if err != nil {
		return nil, usagef("%s: %v", name, err)
	}
	r := &configReader{configFile: configFile{name: name}, dir: dir, home: home}
	if err := r.root(root); err != nil {
		return nil, err
	}
	return &r.configFile, nil
}

// readGuarded refuses a file that others could have written: it may say which commands we run here.
func readGuarded(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for its writer
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "", fs.ErrNotExist
	} else if err != nil {
		return "", usagef("%s: %v; --config none goes without", name, reason(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", usagef("%s: %v", name, reason(err))
	}
	if info.IsDir() {
		return "", usagef("%s: this is a directory; name a configuration file", name)
	}
	if !info.Mode().IsRegular() && name != os.DevNull && !strings.HasPrefix(name, "/dev/fd/") && name != "/dev/stdin" { // as <(command) is
		return "", usagef("%s: this is no regular file, so reading it might never end; name a configuration file", name)
	}
	if stat, is := info.Sys().(*syscall.Stat_t); is && info.Mode().IsRegular() {
		if stat.Uid != 0 && int(stat.Uid) != os.Getuid() {
			return "", usagef("%s belongs to user %d, who could have it run anything as you: chown it to yourself", name, stat.Uid)
		}
		if info.Mode()&0o022 != 0 {
			return "", usagef("%s may be written to by others, who could have it run anything as you: chmod go-w %[1]s", name)
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return "", usagef("%s: %v", name, reason(err))
	}
	if len(text) > maxConfig {
		return "", usagef("%s has more than %d bytes, so it is no configuration; hosts belong in a hosts file", name, maxConfig)
	}
	return string(text), nil
}

// configReader makes a configFile of a table. All of its errors are usageErrors that begin with the place.
type configReader struct {
	configFile
	dir, home string // what relative names are relative to, and what ~ is
}

func (r *configReader) place(line int) string { return fmt.Sprintf("%s:%d", r.name, line) }

func (r *configReader) errorf(line int, format string, args ...any) error {
	return usagef("%s: %s", r.place(line), fmt.Sprintf(format, args...))
}

func (r *configReader) root(t *table) error {
	for _, e := range t.entries {
		var err error
		switch o := runLine.byLong(e.key); {
		case e.key == "hosts" && (e.many || e.value == nil):
			err = r.hostTables(e)
		case e.key == "groups":
			err = r.groupTable(e)
		case o == nil || o.action:
			err = r.errorf(e.line, "there is no setting %s%s", e.key, r.nearest(e.key))
		default:
			err = r.option(e, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nearest names the setting that was meant, or where to find them.
func (r *configReader) nearest(key string) string {
	names := []string{"hosts", "groups"}
	for _, o := range runLine.options {
		if o.variable() != "" && !o.once {
			names = append(names, o.name)
		}
	}
	return meant(key, names, "; multi-rsh --man lists them under CONFIGURATION")
}

// meant is the end of a message about an unknown key: the one that was meant, or else.
func meant(key string, known []string, otherwise string) string {
	if best := nearest(strings.ReplaceAll(strings.ToLower(key), "_", "-"), known); best != "" {
		return "; did you mean " + best + "?"
	}
	return otherwise
}

func (r *configReader) option(e *entry, o *option) error {
	switch {
	case o.weakens && e.value != false:
		return notHeeded(r.place(e.line)+": "+e.key, o.usage())
	case o.once:
		return r.errorf(e.line, "%s is about one run, so it is no setting; remove it, and write %s where you mean it", e.key, o.usage())
	}
	values, err := r.values(e, o)
	if err != nil {
		return err
	}
	r.options = append(r.options, fileOption{o, r.place(e.line) + ": " + e.key, values})
	return nil
}

// values are an option's as texts, which is how all options are checked.
func (r *configReader) values(e *entry, o *option) ([]string, error) {
	if o.arg == "" {
		on, is := e.value.(bool)
		if !is {
			return nil, r.errorf(e.line, "%s is a switch: write %[1]s = true or %[1]s = false, without quotes", e.key)
		}
		return []string{strconv.FormatBool(on)}, nil
	}
	list, isList := e.value.([]any)
	if !isList {
		list = []any{e.value}
	} else if !o.many {
		return nil, r.errorf(e.line, "%s has one value, and this is a list; write %[1]s = %q", e.key, o.arg)
	}
	var values []string
	for _, v := range list {
		text, err := r.text(e, v)
		if err != nil {
			return nil, err
		}
		if o.arg == "FILE" {
			text = r.path(text)
		}
		values = append(values, text)
	}
	return values, nil
}

// text is a string or a number as text.
func (r *configReader) text(e *entry, value any) (string, error) {
	switch v := value.(type) {
	case string:
		if v == "" {
			return "", r.errorf(e.line, "%s is empty; remove it, or say what it is to be", e.key)
		}
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	}
	return "", r.errorf(e.line, "%s is a text or a number, and this is %s", e.key, kindOf(value))
}

// kindOf names what stands where something else should.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "a table"
	case string:
		return "a text"
	case int64, float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	}
	return "a date"
}

// path is a file's name: no shell has seen it, and a relative one is meant from where it stands.
func (r *configReader) path(name string) string {
	switch rest, ofHome := strings.CutPrefix(name, "~/"); {
	case ofHome && r.home != "":
		return filepath.Join(r.home, rest)
	case name == "none" || strings.HasPrefix(name, "~") || filepath.IsAbs(name):
		return name
	}
	return filepath.Join(r.dir, name)
}

// str is the text that stands under a key, and number its whole number of at least 1.
func (r *configReader) str(e *entry) (string, error) {
	text, is := e.value.(string)
	if !is {
		return "", r.errorf(e.line, "%s is a text, and this is %s; write %[1]s = \"...\"", e.key, kindOf(e.value))
	}
	if text == "" {
		return "", r.errorf(e.line, "%s is empty; remove it, or say what it is to be", e.key)
	}
	return text, nil
}

func (r *configReader) number(e *entry, most int64, example string) (int, error) {
	n, is := e.value.(int64)
	if !is || n < 1 || n > most {
		upTo := ""
		if most < 1<<31-1 {
			upTo = fmt.Sprintf(" to %d", most)
		}
		return 0, r.errorf(e.line, "%s is a whole number from 1%s, without quotes, as %[1]s = %[3]s", e.key, upTo, example)
	}
	return int(n), nil
}

func (r *configReader) time(e *entry) (time.Duration, error) {
	text, err := r.text(e, e.value)
	if err != nil {
		return 0, err
	}
	duration, err := parseTime(text)
	if err != nil {
		return 0, r.errorf(e.line, "%s = %q: %v", e.key, text, err)
	}
	return duration, nil
}

var hostKeysOfConfig = []string{"match", "transport", "user", "port", "addr", "jump", "label", "fanout"}

func (r *configReader) hostTables(e *entry) error {
	if !e.many {
		return r.errorf(e.line, "there may be several of these; write [[hosts]], with two brackets")
	}
	before := ""
	for i, t := range e.tables {
		var h fileHosts
		for _, e := range t.entries {
			if err := r.hostKey(&h, e); err != nil {
				return err
			}
		}
		if h.match == "" {
			return r.errorf(t.line, `this [[hosts]] says of no host that it is meant; add match = "@rack1" or the like`)
		}
		place := h.place
		if place == before { // as those of inline tables can be; a fan-out goes by its place
			h.place = fmt.Sprintf("%s, table %d", place, i+1)
		}
		before = place
		r.hosts = append(r.hosts, h)
	}
	return nil
}

func (r *configReader) hostKey(h *fileHosts, e *entry) (err error) {
	switch e.key {
	case "match":
		h.place = r.place(e.line)
		h.match, err = r.str(e)
	case "transport":
		if h.set.Transport, err = r.str(e); err == nil && !slices.Contains(transportNames, h.set.Transport) {
			err = r.errorf(e.line, "there is no transport %q; it is ssh, rsh or exec", h.set.Transport)
		}
	case "user":
		h.set.User, err = r.str(e)
	case "addr":
		h.set.Addr, err = r.str(e)
	case "jump":
		h.set.Jump, err = r.str(e)
	case "fanout":
		h.set.Fanout, err = r.number(e, 1<<31-1, "8")
	case "port":
		var port int
		port, err = r.number(e, 65535, "22")
		h.set.Port = uint16(port)
	case "label":
		h.set.Labels, err = r.labels(e)
	default:
		err = r.unknown(e, "[[hosts]]", hostKeysOfConfig)
	}
	return err
}

// unknown is about a key that a section does not have. Those of options are often written below a section by mistake, where TOML
// has them belong to it.
func (r *configReader) unknown(e *entry, section string, known []string) error {
	if o := runLine.byLong(e.key); o != nil && !o.action {
		return r.errorf(e.line, "%s is a setting of the run, and %s has none of that name; move it up, before the first line that begins with '['", e.key, section)
	}
	return r.errorf(e.line, "there is no %s in %s%s", e.key, section, meant(e.key, known, ": there is "+strings.Join(known, ", ")))
}

func (r *configReader) labels(e *entry) (map[string]string, error) {
	if e.tables == nil || e.many {
		return nil, r.errorf(e.line, `label is a table, as label = {rack = "r1"}, and this is %s`, kindOf(e.value))
	}
	labels := map[string]string{}
	for _, l := range e.tables[0].entries {
		value, err := r.text(l, l.value)
		if err != nil {
			return nil, err
		}
		labels[l.key] = value
	}
	return labels, nil
}

func (r *configReader) groupTable(e *entry) error {
	if e.tables == nil || e.many {
		return r.errorf(e.line, "groups is a section; write [groups]")
	}
	for _, e := range e.tables[0].entries {
		var err error
		switch e.key {
		case "default":
			r.groups.place = r.place(e.line)
			r.groups.byName, err = r.str(e)
		case "timeout":
			r.groups.timeout, err = r.time(e)
		case "source":
			err = r.sources(e)
		default:
			err = r.unknown(e, "[groups]", []string{"default", "timeout", "source"})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *configReader) sources(e *entry) error {
	if e.tables == nil || e.many {
		return r.errorf(e.line, "write each source as a section, as [groups.source.slurm]")
	}
	for _, e := range e.tables[0].entries {
		if e.tables == nil || e.many {
			return r.errorf(e.line, "write each source as a section, as [groups.source.%s]", e.key)
		}
		if !sourceName.MatchString(e.key) || e.key == inventory.SectionsSource {
			return r.errorf(e.line, "%q is no name for a source: letters, digits, '_' and '-', and not %q, which are the sections of the hosts files", e.key, inventory.SectionsSource)
		}
		if err := r.source(e.key, e.tables[0]); err != nil {
			return err
		}
	}
	return nil
}

// upcallKeys are the commands of a source of commands; the first is the one that it must have.
var upcallKeys = []string{"map", "all", "list", "reverse"}

// source reads a [groups.source.NAME]: one of the kinds, or the commands of an upcall.
func (r *configReader) source(name string, t *table) error {
	s := fileSource{place: r.place(t.line), name: name, upcall: map[string]string{}}
	section := "[groups.source." + name + "]"
	known := slices.Concat(upcallKeys, []string{"timeout", "cache"}, sourceKinds)
	for _, e := range t.entries {
		var err error
		switch {
		case slices.Contains(upcallKeys, e.key):
			s.upcall[e.key], err = r.str(e)
		case e.key == "timeout":
			s.timeout, err = r.time(e)
		case e.key == "cache":
			s.cache, err = r.time(e)
		case slices.Contains(sourceKinds, e.key):
			if s.kind != "" {
				return r.errorf(e.line, "%s is one source, and %s and %s are two; write a section for each", section, s.kind, e.key)
			}
			s.kind = e.key
			s.files, err = r.sourceFiles(e)
		default:
			err = r.unknown(e, section, known)
		}
		if err != nil {
			return err
		}
	}
	switch commands := len(s.upcall) > 0; {
	case commands && s.kind != "":
		return r.errorf(t.line, "%s is one source, and %s and commands are two; write a section for each", section, s.kind)
	case !commands && s.kind == "":
		return r.errorf(t.line, "%s does not say where its groups are; add map = \"COMMAND\", or one of %s", section, strings.Join(sourceKinds, ", "))
	case commands && s.upcall["map"] == "":
		return r.errorf(t.line, "%s has no map, the command that prints the hosts of the group $GROUP; add map = \"COMMAND\"", section)
	case !commands && (s.timeout != 0 || s.cache != 0):
		return r.errorf(t.line, "timeout and cache are for commands, and %s is %s", section, s.kind)
	case commands:
		s.kind = "upcall"
	}
	r.groups.sources = append(r.groups.sources, s)
	return nil
}

// sourceFiles are the files of a kind, and true says that they are where they usually are.
func (r *configReader) sourceFiles(e *entry) ([]string, error) {
	switch v := e.value.(type) {
	case bool:
		if v && e.key != "file" && e.key != "ansible" {
			return nil, nil
		}
	case string:
		if v != "" && e.key != "netgroup" {
			return []string{r.path(v)}, nil
		}
	case []any:
		var files []string
		for _, v := range v {
			if name, is := v.(string); is && name != "" {
				files = append(files, r.path(name))
			}
		}
		if len(files) == len(v) && len(files) > 0 && (e.key == "dsh" || e.key == "clustershell") {
			return files, nil
		}
	}
	switch e.key {
	case "netgroup":
		return nil, r.errorf(e.line, "netgroups come from getent; write netgroup = true")
	case "file", "ansible":
		return nil, r.errorf(e.line, "%s is the name of a file, as %[1]s = %q", e.key, map[string]string{"file": "lab.groups", "ansible": "inventory.ini"}[e.key])
	}
	return nil, r.errorf(e.line, "%s is the name of a file, or true for the usual place", e.key)
}
