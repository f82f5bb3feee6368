// Package groups asks the places where people keep groups of hosts: files of several programs, and commands.
//
//	File        lab: node[1-4]              ClusterShell  groups.conf and groups.d/*.yaml, several sources at once
//	Genders     genders(5)                  Dsh           a file a group, dsh's and pdsh's
//	Netgroup    getent netgroup             Ansible       an inventory, INI or YAML
//	Upcall      a command of yours
//	                 │
//	                 ▼ Source: Map, List; some have All, Reverse, Settings, Where
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
// Commands run in a process group of their own, without input, until ctx ends. The group is killed when the answer is there, so that
// nothing of it is left; a process that has made itself a session of its own lives on, but is not waited for.
//
// An [Upcall] has a program answer for groups. As entries of multi-rsh's configuration, for slurm's partitions, its running jobs, and consul's services:
//
//	[groups.source.slurm]                            # @slurm:PARTITION
//	map     = 'sinfo -h -o %N -p "$GROUP"'
//	all     = 'sinfo -h -o %N'
//	list    = 'sinfo -h -o %R'                       # %P would mark the default partition with a '*'
//	reverse = 'sinfo -h -N -o %R -n "$NODE"'
//	cache   = "1m"
//
//	[groups.source.job]                              # @job:NUMBER
//	map     = 'squeue -h -t R -o %N -j "$GROUP"'
//	list    = 'squeue -h -t R -o %i'
//	reverse = 'squeue -h -t R -o %i -w "$NODE"'
//
//	[groups.source.consul]                           # @consul:SERVICE
//	map     = 'consul catalog nodes -service="$GROUP" | awk "/^No nodes/ { exit } NR > 1 { print \$1 }"'
//	list    = 'consul catalog services'
//	all     = 'consul catalog nodes | awk "NR > 1 { print \$1 }"'
package groups

import (
	"context"
	"errors"
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

// Claimer is a Source whose groups are known by their names: such a group is its own where nobody names a source.
type Claimer interface {
	Claims(group string) bool
}

// Settler is a Source that says how hosts are reached.
type Settler interface {
	// Settings returns what the source sets. Of two for one host and key the first holds.
	Settings(ctx context.Context) ([]Setting, error)
}

// Locator is a Source that knows where the texts it has given are from, for errors about what they say.
type Locator interface {
	// Where is the place of the byte at offset in what Map returned for the group, or All if it is "*": FILE:LINE, or a command. Empty: not known.
	Where(group string, offset int) string
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
