// Package groups asks the places where people keep groups of hosts: files of several programs, and commands.
//
//	File        lab: node[1-4]              ClusterShell  groups.conf and groups.d/*.yaml, several sources at once
//	Genders     genders(5)                  Dsh           a file a group, dsh's and pdsh's
//	Netgroup    getent netgroup             Ansible       an inventory, INI or YAML
//	Upcall      a command of yours
//	                 │
//	                 ▼ Source: Map, List; some have All, Reverse, Settings
//	       texts: host expressions, which package inventory reads
//
// A source gives texts and understands none of them: a text is a host expression of package hostlist, whose items may be parted by
// blanks and newlines, and may hold @GROUP for another group of the same source. So cycles are found by who reads them.
//
// Files are read when they are first asked for, once, whole, and within bounds: what is no text, or larger than a list of hosts can be, is an
// error that names the file and the line. The methods may be called by many goroutines.
//
// # Commands
//
// An [Upcall] has sinfo(1) or consul answer for groups; as an entry of multi-rsh's configuration:
//
//	[groups.source.slurm]                            # @slurm:PARTITION
//	map     = 'sinfo -h -o %N -p "$GROUP"'
//	all     = 'sinfo -h -o %N'
//	list    = 'sinfo -h -o %R'
//	reverse = 'sinfo -h -N -o %R -n "$NODE"'
//	cache   = "1m"
//
//	[groups.source.consul]                           # @consul:SERVICE
//	map     = 'consul catalog nodes -service="$GROUP" | awk "NR > 1 { print \$1 }"'
//	list    = 'consul catalog services'
//	all     = 'consul catalog nodes | awk "NR > 1 { print \$1 }"'
package groups

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// Source answers for groups.
type Source interface {
	// Map returns the hosts of a group; the error is ErrNoGroup where there is no such group.
	Map(ctx context.Context, group string) (string, error)

	// List returns the names of all groups, in an order that is the same each time. ErrNoList where they cannot be listed.
	List(ctx context.Context) ([]string, error)
}

// Aller is a Source that knows all of its hosts by another way than to ask for each group.
type Aller interface {
	All(ctx context.Context) (string, error)
}

// Reverser is a Source that knows the groups of a host by another way than to ask for each group.
type Reverser interface {
	Reverse(ctx context.Context, host string) ([]string, error)
}

// Settler is a Source that says how hosts are reached.
type Settler interface {
	// Settings returns what the source sets. Of two for one host and key the first holds.
	Settings(ctx context.Context) ([]Setting, error)
}

// Setting is one word of a hosts file, for some hosts: Key is "addr", "port" or "user".
type Setting struct {
	Hosts      string // as from Map
	Key, Value string
	Place      string // file:line
}

// Named is a source and what it is called, before the colon in @NAME:GROUP.
type Named struct {
	Name string
	Source
}

// Errors of sources; they are wrapped, so ask with errors.Is.
var (
	ErrNoGroup = errors.New("there is no such group")
	ErrNoList  = errors.New("its groups cannot be listed")
)

// table is the groups of a file, in its order.
type table struct {
	names    []string
	texts    map[string]string
	all      string // hosts that are in no group besides
	settings []Setting
}

// add adds hosts to a group, which it makes if there is none.
func (t *table) add(group, text string) {
	before, known := t.texts[group]
	if !known {
		if t.texts == nil {
			t.texts = map[string]string{}
		}
		t.names = append(t.names, group)
	}
	if before != "" && text != "" {
		before += "\n"
	}
	t.texts[group] = before + text
}

// static is a Source that is a table, loaded when it is first asked for.
type static func() (*table, error)

func once(load func() (*table, error)) Source { return static(sync.OnceValues(load)) }

func (s static) Map(_ context.Context, group string) (string, error) {
	t, err := s()
	if err != nil {
		return "", err
	}
	text, known := t.texts[group]
	if !known {
		return "", ErrNoGroup
	}
	return text, nil
}

func (s static) List(context.Context) ([]string, error) {
	t, err := s()
	if err != nil {
		return nil, err
	}
	return t.names, nil
}

// All is the hosts of the group "all" where the file has one, as ClusterShell has it, else of every group.
func (s static) All(context.Context) (string, error) {
	t, err := s()
	if err != nil {
		return "", err
	}
	if text, known := t.texts["all"]; known {
		return text, nil
	}
	texts := []string{t.all}
	for _, name := range t.names {
		texts = append(texts, t.texts[name])
	}
	return strings.Join(texts, "\n"), nil
}

func (s static) Settings(context.Context) ([]Setting, error) {
	t, err := s()
	if err != nil {
		return nil, err
	}
	return t.settings, nil
}
