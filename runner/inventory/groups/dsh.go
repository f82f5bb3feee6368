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
)

// Dsh is directories that have a file for each group, as ~/.dsh/group and /etc/dsh/group; a group is in the first that has it. Lines
// hold hosts; '#' begins a comment, and "#include FILE", pdsh's, stands for the lines of that file, which is looked for beside the one that names it.
func Dsh(dirs ...string) Source { return dsh(dirs) }

type dsh []string

func (d dsh) Map(_ context.Context, group string) (string, error) {
	if !validName(group) || strings.ContainsRune(group, '/') || group[0] == '.' {
		return "", ErrNoGroup
	}
	for _, dir := range d {
		path := filepath.Join(dir, group)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var b strings.Builder
		if err := d.read(&b, path, nil); err != nil {
			return "", err
		}
		return b.String(), nil
	}
	return "", ErrNoGroup
}

// read appends the hosts of a file, which those of chain have included.
func (d dsh) read(b *strings.Builder, path string, chain []string) error {
	if slices.Contains(chain, path) {
		return fmt.Errorf("these files include each other: %s", strings.Join(append(chain, path), ", "))
	}
	chain = append(chain, path)
	text, err := readText(path)
	if err != nil {
		return err
	}
	for i, line := range strings.Split(text, "\n") {
		if name, is := strings.CutPrefix(line, "#include"); is && name != strings.TrimLeft(name, " \t") {
			if err := d.read(b, beside(path, strings.TrimSpace(name)), chain); err != nil {
				return fmt.Errorf("%s:%d: %w", path, i+1, err)
			}
		} else if line = uncomment(line); line != "" {
			if b.Len() > maxText {
				return fmt.Errorf("%s:%d: the included files are longer than %d bytes together", path, i+1, maxText)
			}
			b.WriteString(line)
			b.WriteByte('\n')
		}
	}
	return nil
}

func (d dsh) List(context.Context) ([]string, error) {
	var names []string
	for _, dir := range d {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", dir, reason(err))
		}
		for _, e := range entries {
			name := e.Name()
			if validName(name) && name[0] != '.' && !e.IsDir() && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}
