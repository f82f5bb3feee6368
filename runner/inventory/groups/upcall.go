package groups

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Upcall is commands that answer for groups, run with /bin/sh -c. They find what they are asked for in the environment: GROUP, NODE, and SOURCE, the
// source's name. What a command prints is the answer; an exit status other than 0 is an error.
type Upcall struct {
	Source string // the name
	Map    string // prints the hosts of $GROUP
	All    string // prints all hosts; may be empty
	List   string // prints the names of all groups; may be empty
	Rev    string // prints the groups of $NODE; may be empty

	Dir     string        // where the commands run, and $CFGDIR; empty: here
	Timeout time.Duration // of one command; 0: that of the context alone

	// Cache is how long an answer is good for, on disk, below CacheDir. 0: no time at all.
	Cache    time.Duration
	CacheDir string

	// Template has $GROUP and the others put into the text of the commands too, as ClusterShell does, whose commands have them within
	// single quotes. Names have no character that means something to a shell.
	Template bool
}

// New returns the source, which is an Aller and a Reverser where there are commands for it.
func (u Upcall) New() Source {
	type (
		aller    struct{ upcallAll }
		reverser struct{ upcallReverse }
	)
	c := &upcall{u: u}
	all, rev := aller{upcallAll{c}}, reverser{upcallReverse{c}}
	switch {
	case u.All != "" && u.Rev != "":
		return struct {
			*upcall
			aller
			reverser
		}{c, all, rev}
	case u.All != "":
		return struct {
			*upcall
			aller
		}{c, all}
	case u.Rev != "":
		return struct {
			*upcall
			reverser
		}{c, rev}
	}
	return c
}

// upcall is an Upcall as a Source.
type upcall struct {
	u     Upcall
	mu    sync.Mutex
	names []string // what List returned
}

func (c *upcall) Map(ctx context.Context, group string) (string, error) {
	if !validName(group) {
		return "", ErrNoGroup
	}
	out, err := c.run(ctx, c.u.Map, "GROUP", group)
	if err != nil || strings.TrimSpace(out) != "" {
		return out, err
	}
	// Most commands say nothing about a group that does not exist, which is no group without hosts.
	if c.u.List == "" {
		return "", fmt.Errorf("%w, or it is empty: %q printed nothing", ErrNoGroup, c.u.Map)
	}
	names, err := c.List(ctx)
	if err != nil {
		return "", err
	}
	if !slices.Contains(names, group) {
		return "", ErrNoGroup
	}
	return "", nil
}

// List runs its command once: Map asks for the names too, for each group that has no hosts.
func (c *upcall) List(ctx context.Context) ([]string, error) {
	if c.u.List == "" {
		return nil, fmt.Errorf("%w: there is no command for that", ErrNoList)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names == nil {
		out, err := c.run(ctx, c.u.List, "", "")
		if err != nil {
			return nil, err
		}
		if c.names, err = groupNames(out, c.u.List); err != nil {
			return nil, err
		}
	}
	return slices.Clone(c.names), nil
}

// groupNames are the names that a command has printed, each once.
func groupNames(out, by string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for name := range strings.FieldsFuncSeq(out, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
		if name = strings.TrimPrefix(name, "@"); !validName(name) {
			return nil, fmt.Errorf("%s printed %s, which is no name of a group", quoteCommand(by), quote(name))
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
		if len(names) > maxGroups {
			return nil, fmt.Errorf("%s printed more than %d names of groups", quoteCommand(by), maxGroups)
		}
	}
	return names, nil
}

type upcallAll struct{ *upcall }

func (c upcallAll) All(ctx context.Context) (string, error) { return c.run(ctx, c.u.All, "", "") }

type upcallReverse struct{ *upcall }

func (c upcallReverse) Reverse(ctx context.Context, host string) ([]string, error) {
	if !plain(host) {
		return nil, nil // it is in no group, and its name could mean something to a shell
	}
	out, err := c.run(ctx, c.u.Rev, "NODE", host)
	if err != nil {
		return nil, err
	}
	return groupNames(out, c.u.Rev)
}

// Where is the command that answers for the group.
func (c *upcall) Where(group string, _ int) string {
	if group == "*" && c.u.All != "" {
		return quoteCommand(c.u.All)
	}
	return quoteCommand(c.u.Map)
}

// run runs a command, or takes its answer from the cache.
func (c *upcall) run(ctx context.Context, text, name, value string) (string, error) {
	env := []string{"SOURCE=" + c.u.Source}
	if c.u.Dir != "" {
		env = append(env, "CFGDIR="+c.u.Dir)
	}
	if name != "" {
		env = append(env, name+"="+value)
	}
	if c.u.Template {
		text = substitute(text, env)
	}
	entry := c.u.entry(append(env, text))
	if out, fresh := entry.read(); fresh {
		return out, nil
	}
	if c.u.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.u.Timeout, fmt.Errorf("it was not done within %v", c.u.Timeout))
		defer cancel()
	}
	out, err := runCommand(ctx, command{args: []string{"/bin/sh", "-c", text}, show: text, env: env, dir: c.u.Dir})
	if err != nil {
		return "", err
	}
	entry.keep(out)
	return out, nil
}

var variable = regexp.MustCompile(`\$\$|\$([A-Za-z_]\w*)|\$\{([A-Za-z_]\w*)\}`)

// substitute puts the variables of env into text, and "$" for "$$", as Python's string.Template does; other variables are the shell's.
func substitute(text string, env []string) string {
	return variable.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		name := strings.Trim(found, "${}")
		for _, e := range env {
			if value, is := strings.CutPrefix(e, name+"="); is {
				return value
			}
		}
		return found
	})
}
