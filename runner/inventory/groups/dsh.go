package groups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// DshDirs are where dsh and pdsh look for files of groups: ~/.dsh/group, and the directories of DSHGROUP_PATH or else /etc/dsh/group.
func DshDirs(getenv func(string) string) []string {
	var dirs []string
	if home := getenv("HOME"); home != "" {
		dirs = append(dirs, filepath.Join(home, ".dsh/group"))
	}
	if path := getenv("DSHGROUP_PATH"); path != "" {
		return append(dirs, slices.DeleteFunc(strings.Split(path, ":"), func(dir string) bool { return dir == "" })...)
	}
	return append(dirs, "/etc/dsh/group")
}

// Dsh is directories that have a file for each group, as ~/.dsh/group and /etc/dsh/group; a group is in the first that has it. Lines
// hold hosts; '#' begins a comment, and "#include NAME", pdsh's, stands for the lines of another group, or of a file where NAME has a '/', which is
// looked for beside the one that names it.
func Dsh(dirs ...string) Source { return &dsh{dirs: dirs, groups: map[string]*dshGroup{}} }

type dsh struct {
	dirs   []string
	mu     sync.Mutex
	groups map[string]*dshGroup // read before
}

type dshGroup struct {
	passage
	files []string
	chain []string // while it is read: the files that include each other down to this place
}

func (d *dsh) Map(_ context.Context, group string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g := d.groups[group]; g != nil {
		return g.String(), nil
	}
	path, err := d.find(group)
	if err != nil {
		return "", err
	}
	g := new(dshGroup)
	if err := d.read(g, path); err != nil {
		return "", err
	}
	d.groups[group] = g
	return g.String(), nil
}

// find returns the file of a group.
func (d *dsh) find(group string) (string, error) {
	if !validName(group) || strings.ContainsRune(group, '/') || group[0] == '.' {
		return "", ErrNoGroup
	}
	for _, dir := range d.dirs {
		path := filepath.Join(dir, group)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
	}
	return "", ErrNoGroup
}

// read appends the hosts of a file.
func (d *dsh) read(g *dshGroup, path string) error {
	if slices.Contains(g.chain, path) {
		return fmt.Errorf("these files include each other: %s", strings.Join(append(g.chain, path), ", "))
	}
	g.chain = append(g.chain, path)
	defer func() { g.chain = g.chain[:len(g.chain)-1] }()
	if len(g.files) == maxFiles {
		return fmt.Errorf("more than %d files are included", maxFiles)
	}
	text, err := readText(path)
	if err != nil {
		return err
	}
	file := len(g.files)
	g.files = append(g.files, path)
	for number, line := range lines(text) {
		err := error(nil)
		if words := strings.Fields(line); len(words) > 1 && words[0] == "#include" && line[0] == '#' {
			name := beside(path, words[1])
			if !strings.ContainsRune(words[1], '/') {
				if name, err = d.find(words[1]); err != nil {
					err = fmt.Errorf("#include %s: %w", quote(words[1]), err)
				}
			}
			if err == nil {
				err = d.read(g, name)
			}
		} else if g.add(file, number, uncomment(line)); g.Len() > maxText {
			err = fmt.Errorf("the included files have more than %d bytes together", maxText)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, number, err)
		}
	}
	return nil
}

// maxFiles bounds what one group may include, each file counted as often as it is included.
const maxFiles = 1000

func (d *dsh) List(context.Context) ([]string, error) {
	seen := map[string]bool{}
	var names []string
	for _, dir := range d.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", dir, reason(err))
		}
		for _, e := range entries {
			name := e.Name()
			if !validName(name) || name[0] == '.' || seen[name] {
				continue
			}
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() {
				continue // also a link that leads nowhere
			}
			seen[name] = true
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (d *dsh) Where(group string, offset int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g := d.groups[group]; g != nil {
		return g.where(g.files, offset)
	}
	return ""
}
