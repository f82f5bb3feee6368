package groups

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ClusterShellPaths are where ClusterShell looks for its groups.conf, the weightiest last.
func ClusterShellPaths(getenv func(string) string) []string {
	home := getenv("HOME")
	dirs := []string{"/etc/clustershell"}
	if home != "" {
		dirs = append(dirs, filepath.Join(home, ".local/etc/clustershell"))
	}
	if config := getenv("XDG_CONFIG_HOME"); config != "" {
		dirs = append(dirs, filepath.Join(config, "clustershell"))
	} else if home != "" {
		dirs = append(dirs, filepath.Join(home, ".config/clustershell"))
	}
	if dir := getenv("CLUSTERSHELL_CFGDIR"); dir != "" {
		dirs = append(dirs, dir)
	}
	for i, dir := range dirs {
		dirs[i] = filepath.Join(dir, "groups.conf")
	}
	return dirs
}

// ClusterShell reads ClusterShell's configuration of groups: those of the groups.conf files that there are, later ones going over earlier
// ones, with the *.conf of their confdir and the *.yaml of their autodir. It returns the sources and the name of the default one; neither if there is no
// file. The cache_time of a source is heeded if cacheDir is not empty; ClusterShell's hour, which holds for one process, is not the default here.
func ClusterShell(paths []string, cacheDir string) (sources []Named, byDefault string, err error) {
	c := &clusterShell{cacheDir: cacheDir, main: map[string]string{}}
	var sections []section
	dir := ""
	for _, path := range paths {
		text, err := readText(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		read, err := readINI(path, text)
		if err != nil {
			return nil, "", err
		}
		dir = filepath.Dir(path)
		for _, s := range read {
			if s.name == "Main" {
				for key, value := range s.values {
					c.main[key] = value
				}
				continue
			}
			sections = append(slices.DeleteFunc(sections, func(before section) bool { return before.name == s.name }), s)
		}
	}
	if dir == "" {
		return nil, "", nil
	}
	if err := c.parts(dir); err != nil {
		return nil, "", err
	}
	if err := c.yaml(dir); err != nil {
		return nil, "", err
	}
	for _, s := range sections {
		if err := c.section(s, dir); err != nil {
			return nil, "", err
		}
	}
	byDefault = c.main["default"]
	if byDefault != "" && !slices.ContainsFunc(c.sources, func(n Named) bool { return n.Name == byDefault }) {
		return nil, "", fmt.Errorf("%s: the default source %q is none of those there", filepath.Join(dir, "groups.conf"), byDefault)
	}
	if byDefault == "" && len(c.sources) > 0 {
		byDefault = c.sources[0].Name
	}
	return c.sources, byDefault, nil
}

type clusterShell struct {
	main     map[string]string
	sources  []Named
	cacheDir string
}

// dirs are the directories that a setting of [Main] names, those that there are, each once.
func (c *clusterShell) dirs(value, cfgdir string) ([]string, error) {
	var dirs []string
	for _, dir := range strings.Fields(value) {
		dir = filepath.Clean(substitute(strings.Trim(dir, `"'`), []string{"CFGDIR=" + cfgdir}))
		switch info, err := os.Stat(dir); {
		case errors.Is(err, fs.ErrNotExist) || slices.Contains(dirs, dir):
		case err != nil:
			return nil, fmt.Errorf("%s: %w", dir, reason(err))
		case !info.IsDir():
			return nil, fmt.Errorf("%s: this is no directory, and groups.conf says that it is", dir)
		default:
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// files are the files of the directories with this ending, those that we may read.
func files(dirs []string, ending string) ([]string, error) {
	var paths []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir) // sorted
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, reason(err))
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); strings.HasSuffix(path, ending) && e.Name()[0] != '.' {
				paths = append(paths, path)
			}
		}
	}
	return paths, nil
}

// parts reads the *.conf of the confdirs.
func (c *clusterShell) parts(cfgdir string) error {
	dirs, err := c.dirs(cmp.Or(c.main["groupsdir"], c.main["confdir"]), cfgdir)
	if err != nil {
		return err
	}
	paths, err := files(dirs, ".conf")
	if err != nil {
		return err
	}
	for _, path := range paths {
		text, err := readText(path)
		if errors.Is(err, fs.ErrPermission) {
			continue // as ClusterShell does: some are for root alone
		}
		if err != nil {
			return err
		}
		read, err := readINI(path, text)
		if err != nil {
			return err
		}
		for _, s := range read {
			if err := c.section(s, filepath.Dir(path)); err != nil {
				return err
			}
		}
	}
	return nil
}

// section makes the sources of a section of commands.
func (c *clusterShell) section(s section, dir string) error {
	if s.name == "Main" {
		return nil
	}
	if s.values["map"] == "" {
		return fmt.Errorf("%s: [%s] has no map, the command that prints the hosts of $GROUP", s.place, s.name)
	}
	var cache time.Duration
	if text := s.values["cache_time"]; text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds >= 0 && seconds < 1e9) {
			return fmt.Errorf("%s: [%s] has cache_time %s, which is no number of seconds", s.place, s.name, quote(text))
		}
		cache = time.Duration(seconds * float64(time.Second))
	}
	for name := range strings.SplitSeq(s.name, ",") {
		c.add(name, Upcall{
			Source: name, Map: s.values["map"], All: s.values["all"], List: s.values["list"], Rev: s.values["reverse"],
			Dir: dir, Cache: cache, CacheDir: c.cacheDir, Template: true,
		}.New())
	}
	return nil
}

// add adds a source; a later one of the same name takes the place of the earlier.
func (c *clusterShell) add(name string, s Source) {
	for i := range c.sources {
		if c.sources[i].Name == name {
			c.sources[i].Source = s
			return
		}
	}
	c.sources = append(c.sources, Named{name, s})
}

// yaml reads the *.yaml of the autodirs: sources, in each of them groups, and their hosts.
func (c *clusterShell) yaml(cfgdir string) error {
	dirs, err := c.dirs(c.main["autodir"], cfgdir)
	if err != nil {
		return err
	}
	paths, err := files(dirs, ".yaml")
	if err != nil {
		return err
	}
	for _, path := range paths {
		root, err := readYAML(path)
		if errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		sources, err := root.pairs("sources")
		if err != nil {
			return err
		}
		for _, s := range sources {
			groups, err := s.value.pairs("the groups of " + s.key)
			if err != nil {
				return err
			}
			t := new(table)
			for _, g := range groups {
				texts, err := g.value.texts()
				if err != nil {
					return err
				}
				if !validName(g.key) {
					return g.value.errorf("%s is no name of a group", quote(g.key))
				}
				t.add(g.key, strings.Join(texts, "\n"))
			}
			c.add(s.key, once(func() (*table, error) { return t, nil }))
		}
	}
	return nil
}
