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

// ClusterShellPaths are where ClusterShell looks for its groups.conf, the weightiest last: groups.conf(5) of 1.10.
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

// ClusterShell reads ClusterShell's configuration of groups: those of the groups.conf files that there are, values of later ones going over those of
// earlier ones, with the *.conf of their confdir and the *.yaml of their autodir, where files that only others may read are passed over. It returns the
// sources and the name of the default one; neither if there is no groups.conf.
//
// The commands run in the directory of their file. A cache_time is heeded where it is written and cacheDir is not empty; ClusterShell's hour, which holds
// for one process, is not the default here.
func ClusterShell(paths []string, cacheDir string) (sources []Named, byDefault string, err error) {
	c := &clusterShell{cacheDir: cacheDir, places: map[string]string{}}
	sections, dir, err := readLayers(paths)
	if err != nil || dir == "" {
		return nil, "", err
	}
	main := map[string]string{}
	if s := sections.section("Main"); s != nil {
		main = s.values
	}
	if err := c.confdir(cmp.Or(main["groupsdir"], main["confdir"]), dir); err != nil {
		return nil, "", err
	}
	if err := c.autodir(main["autodir"], dir); err != nil {
		return nil, "", err
	}
	for _, s := range sections {
		if err := c.commands(s, dir); err != nil {
			return nil, "", err
		}
	}
	byDefault = main["default"]
	if byDefault != "" && c.places[byDefault] == "" {
		return nil, "", fmt.Errorf("%s: the default source %q is none of those there", filepath.Join(dir, "groups.conf"), byDefault)
	}
	if byDefault == "" && len(c.sources) > 0 {
		byDefault = c.sources[0].Name
	}
	return c.sources, byDefault, nil
}

// readLayers reads the groups.conf files that there are, as one. The directory is that of the last.
func readLayers(paths []string) (sections ini, dir string, err error) {
	for _, path := range paths {
		read, err := readINI(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		sections, dir = sections.over(read), filepath.Dir(path)
	}
	return sections.settled(), dir, nil
}

type clusterShell struct {
	sources  []Named
	places   map[string]string // of the sources: file:line
	cacheDir string
}

// add adds a source.
func (c *clusterShell) add(name, place string, s Source) error {
	if before := c.places[name]; before != "" {
		return fmt.Errorf("%s: there is a source %s already, from %s; give one of them another name", place, quote(name), before)
	}
	c.places[name] = place
	c.sources = append(c.sources, Named{name, s})
	return nil
}

// files are the files with this ending in the directories that a value of [Main] names, those that there are, each once.
func files(value, cfgdir, ending string) ([]string, error) {
	words, err := shellWords(value)
	if err != nil {
		return nil, fmt.Errorf("%s: the directories %s: %w", filepath.Join(cfgdir, "groups.conf"), quote(value), err)
	}
	var dirs, paths []string
	for _, dir := range words {
		dir = filepath.Clean(substitute(dir, []string{"CFGDIR=" + cfgdir}))
		if slices.Contains(dirs, dir) {
			continue
		}
		dirs = append(dirs, dir)
		entries, err := os.ReadDir(dir) // sorted
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, reason(err))
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ending) && name[0] != '.' {
				paths = append(paths, filepath.Join(dir, name))
			}
		}
	}
	return paths, nil
}

// confdir reads further files of commands.
func (c *clusterShell) confdir(value, cfgdir string) error {
	paths, err := files(value, cfgdir, ".conf")
	if err != nil {
		return err
	}
	for _, path := range paths {
		sections, err := readINI(path)
		if errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		for _, s := range sections.settled() {
			if err := c.commands(s, filepath.Dir(path)); err != nil {
				return err
			}
		}
	}
	return nil
}

// commands makes the sources of a section, which are several if its name is a list.
func (c *clusterShell) commands(s section, dir string) error {
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
		name = strings.TrimSpace(name)
		u := Upcall{
			Source: name, Map: s.values["map"], All: s.values["all"], List: s.values["list"], Rev: s.values["reverse"],
			Dir: dir, Cache: cache, CacheDir: c.cacheDir, Template: true,
		}
		if err := c.add(name, s.place, u.New()); err != nil {
			return err
		}
	}
	return nil
}

// autodir reads files of sources, in each of them groups, and their hosts.
func (c *clusterShell) autodir(value, cfgdir string) error {
	paths, err := files(value, cfgdir, ".yaml")
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
		sources, err := root.pairs("the sources")
		if err != nil {
			return err
		}
		for _, s := range sources {
			groups, err := s.value.pairs("the groups of " + quote(s.key))
			if err != nil {
				return err
			}
			t := &table{path: path}
			for _, g := range groups {
				texts, err := g.value.texts()
				if err != nil {
					return err
				}
				t.group(g.key) // also one without hosts
				for _, hosts := range texts {
					if err := t.add(g.key, hosts.Line, hosts.Value); err != nil {
						return err
					}
				}
			}
			if err := c.add(s.key, fmt.Sprintf("%s:%d", path, s.line), once(func() (*table, error) { return t, nil })); err != nil {
				return err
			}
		}
	}
	return nil
}
