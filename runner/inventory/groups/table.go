package groups

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// passage is host expressions, one below the other, and where each is from.
type passage struct {
	strings.Builder
	marks []mark
}

// mark is where the text from an offset on is from: a line of one of a source's files.
type mark struct{ offset, file, line int32 }

// add adds what a line of a file says.
func (t *passage) add(file, line int, hosts string) {
	if hosts == "" {
		return
	}
	if t.Len() > 0 {
		t.WriteByte('\n')
	}
	if n := len(t.marks); n == 0 || t.marks[n-1].file != int32(file) || t.marks[n-1].line != int32(line) {
		t.marks = append(t.marks, mark{int32(t.Len()), int32(file), int32(line)})
	}
	t.WriteString(hosts)
}

// join adds another text.
func (t *passage) join(more *passage) {
	if more.Len() == 0 {
		return
	}
	if t.Len() > 0 {
		t.WriteByte('\n')
	}
	for _, m := range more.marks {
		m.offset += int32(t.Len())
		t.marks = append(t.marks, m)
	}
	t.WriteString(more.String())
}

// where is the place that the byte at offset is from.
func (t *passage) where(files []string, offset int) string {
	i, found := slices.BinarySearchFunc(t.marks, offset, func(m mark, offset int) int { return cmp.Compare(int(m.offset), offset) })
	if !found {
		i-- // the one that begins before it
	}
	if i < 0 {
		return files[0]
	}
	return fmt.Sprintf("%s:%d", files[t.marks[i].file], t.marks[i].line)
}

// table is the groups of a file, in its order.
type table struct {
	path     string
	names    []string
	texts    map[string]*passage
	all      *passage // all hosts, where that is not what the group "all" or else all groups have
	settings []Setting
	size     int // of all that has been added, and what it costs to keep it apart
}

// maxTable bounds what the groups of a file take: a line that gives many hosts to many groups makes more of it than the file has.
const maxTable = 4 * maxText

// add adds what a line says to a group, which it makes if there is none.
func (t *table) add(group string, line int, hosts string) error {
	if t.size += 16 + len(hosts); t.texts[group] == nil {
		t.size += 256 + len(group)
	}
	if t.size > maxTable {
		return fmt.Errorf("%s:%d: with this line the groups of the file take more than %d MB", t.path, line, maxTable>>20)
	}
	t.group(group).add(0, line, hosts)
	return nil
}

// group returns the text of a group, which it makes if there is none.
func (t *table) group(name string) *passage {
	g := t.texts[name]
	if g == nil {
		if t.texts == nil {
			t.texts = map[string]*passage{}
		}
		g = new(passage)
		t.texts[name] = g
		t.names = append(t.names, name)
	}
	return g
}

// static is a Source that is a table, loaded when it is first asked for.
type static struct {
	load func() (*table, error)
	all  func() (*passage, error)
}

func once(load func() (*table, error)) static {
	load = sync.OnceValues(load)
	return static{load, sync.OnceValues(func() (*passage, error) {
		t, err := load()
		if err != nil {
			return nil, err
		}
		if t.all != nil {
			return t.all, nil
		}
		if all, known := t.texts["all"]; known {
			return all, nil
		}
		all := new(passage)
		for _, name := range t.names {
			all.join(t.texts[name])
		}
		return all, nil
	})}
}

func (s static) Map(_ context.Context, group string) (string, error) {
	t, err := s.load()
	if err != nil {
		return "", err
	}
	g := t.texts[group]
	if g == nil {
		return "", ErrNoGroup
	}
	return g.String(), nil
}

// List leaves out what cannot be written after an @.
func (s static) List(context.Context) ([]string, error) {
	t, err := s.load()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(t.names), func(name string) bool { return !validName(name) }), nil
}

// All is the hosts of the group "all" where the file has one, as ClusterShell has it, else of every group.
func (s static) All(context.Context) (string, error) {
	all, err := s.all()
	if err != nil {
		return "", err
	}
	return all.String(), nil
}

func (s static) Settings(context.Context) ([]Setting, error) {
	t, err := s.load()
	if err != nil {
		return nil, err
	}
	return t.settings, nil
}

func (s static) Where(group string, offset int) string {
	t, err := s.load()
	if err != nil {
		return ""
	}
	g := t.texts[group]
	if group == "*" {
		g, _ = s.all()
	}
	if g == nil {
		return t.path
	}
	return g.where([]string{t.path}, offset)
}
