package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"multirsh/runner/inventory"
	"multirsh/runner/inventory/groups"
)

var sourceName = regexp.MustCompile(`^[\pL\pN_][\pL\pN_-]*$`)

// sourceKinds are the keys that a [groups.source.NAME] has for where its groups are, beside the commands of an upcall.
var sourceKinds = []string{"file", "genders", "dsh", "netgroup", "ansible", "clustershell"}

// groupSources are the sources of groups: those of the configuration, and those that are there because the files of other programs
// are. None of them is asked for anything yet.
func (e *env) groupSources(c *choice) (inventory.Options, error) {
	options := inventory.Options{Transports: transportNames, Dup: c.dup}
	add := func(name string, source groups.Source) bool {
		if slices.ContainsFunc(options.Sources, func(s inventory.Named) bool { return s.Name == name }) {
			return false
		}
		options.Sources = append(options.Sources, inventory.Named{Name: name, Source: source})
		return true
	}
	for _, f := range c.files {
		options.Timeout = cmp.Or(options.Timeout, f.groups.timeout)
		for _, s := range f.groups.sources {
			named, err := e.configured(s)
			if err != nil {
				return options, err
			}
			for _, n := range named {
				add(n.Name, n.Source)
			}
		}
	}
	byDefault := e.foundSources(add)
	add(runsSource, pastRuns{e.runsDir()})
	for _, f := range c.files {
		if f.groups.byName == "" {
			continue
		}
		names := []string{inventory.SectionsSource}
		for _, s := range options.Sources {
			names = append(names, s.Name)
		}
		if !slices.Contains(names, f.groups.byName) {
			return options, usagef("%s: there is no source of groups %s%s", f.groups.place, f.groups.byName, meant(f.groups.byName, names, "; there is "+strings.Join(names, ", ")))
		}
		byDefault = f.groups.byName
		break
	}
	if byDefault != inventory.SectionsSource { // those are asked first anyway
		options.Default = byDefault
	}
	return options, nil
}

// foundSources adds the sources that the machine or the user has for other programs, and returns which of them is the default.
func (e *env) foundSources(add func(string, groups.Source) bool) (byDefault string) {
	all, first, err := groups.ClusterShell(e.clusterShellPaths(), e.groupCache())
	if err != nil {
		// It may be nothing to this run.
		all, first = []inventory.Named{{Name: "clustershell", Source: broken{err}}}, "clustershell"
	}
	for _, s := range all {
		add(s.Name, s.Source)
	}
	byDefault = first
	if isThere(e.genders()) {
		add("genders", groups.Genders(e.genders()))
		byDefault = cmp.Or(byDefault, "genders")
	}
	if dirs := slices.DeleteFunc(e.dshDirs(), func(dir string) bool { return !isThere(dir) }); len(dirs) > 0 {
		add("dsh", groups.Dsh(dirs...))
		byDefault = cmp.Or(byDefault, "dsh")
	}
	if _, err := exec.LookPath("getent"); err == nil {
		add("netgroup", groups.Netgroup())
	}
	return byDefault
}

// configured makes the sources of a [groups.source.NAME], of which only clustershell can be several.
func (e *env) configured(s fileSource) ([]inventory.Named, error) {
	one := func(source groups.Source) ([]inventory.Named, error) {
		return []inventory.Named{{Name: s.name, Source: source}}, nil
	}
	switch s.kind {
	case "upcall":
		return one(groups.Upcall{
			Source: s.name, Map: s.upcall["map"], All: s.upcall["all"], List: s.upcall["list"], Rev: s.upcall["reverse"],
			Timeout: s.timeout, Cache: s.cache, CacheDir: e.groupCache(),
		}.New())
	case "file":
		return one(groups.File(s.files[0]))
	case "ansible":
		return one(groups.Ansible(s.files[0]))
	case "genders":
		if len(s.files) == 0 {
			s.files = []string{e.genders()}
		}
		return one(groups.Genders(s.files[0]))
	case "netgroup":
		return one(groups.Netgroup())
	case "dsh":
		if len(s.files) == 0 {
			s.files = e.dshDirs()
		}
		return one(groups.Dsh(s.files...))
	}
	if len(s.files) == 0 {
		s.files = e.clusterShellPaths()
	}
	all, first, err := groups.ClusterShell(s.files, e.groupCache())
	switch {
	case err != nil:
		return one(broken{err})
	case len(all) == 0:
		return nil, usagef("%s: there is no %s", s.place, strings.Join(s.files, " and no "))
	}
	for i := range all {
		if all[i].Name == first {
			all[i].Name = s.name
		}
	}
	return all, nil
}

// broken is a source that cannot be had.
type broken struct{ err error }

func (b broken) Map(context.Context, string) (string, error) { return "", b.err }
func (b broken) List(context.Context) ([]string, error)      { return nil, b.err }

// groupCache is where the answers of commands are kept; "": nowhere.
func (e *env) groupCache() string {
	if dir := e.userDir("XDG_CACHE_HOME", ".cache"); dir != "" {
		return filepath.Join(dir, "multi-rsh", "groups")
	}
	return ""
}

func (e *env) clusterShellPaths() []string { return e.below(groups.ClusterShellPaths(e.Getenv)) }

func (e *env) dshDirs() []string { return e.below(groups.DshDirs(e.Getenv)) }

func (e *env) genders() string { return filepath.Join(e.Etc, "genders") }

// below has the paths in /etc begin where /etc is.
func (e *env) below(paths []string) []string {
	for i, path := range paths {
		if name, is := strings.CutPrefix(path, "/etc/"); is {
			paths[i] = filepath.Join(e.Etc, name)
		}
	}
	return paths
}

// isThere is true, too, for what cannot be looked at: to read it then says why.
func isThere(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR)
}
