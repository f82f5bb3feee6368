package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"syscall"

	"multirsh/runner/hostlist"
)

// printer writes the result of a verb. An error of a write is kept, and every later write does nothing; done tells it.
type printer struct {
	*bufio.Writer
	separator string // "": what each text has of its own
}

func newPrinter(ctx context.Context, w io.Writer, separator string) *printer {
	return &printer{bufio.NewWriterSize(untilStopped{ctx, w}, 64<<10), separator}
}

// untilStopped writes until somebody stops us, even if nobody takes what is written.
type untilStopped struct {
	ctx context.Context
	w   io.Writer
}

func (u untilStopped) Write(p []byte) (n int, err error) {
	written := 0 // n may be read when the write is left behind
	err = unlessStopped(u.ctx, func() (err error) {
		written, err = u.w.Write(p)
		return err
	})
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return written, err
}

// done writes what is left, and tells whether all could be written.
func (p *printer) done() error {
	switch err := p.Flush(); {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPIPE): // as of head(1), which has seen enough: SIGPIPE would have ended us
		return &ending{128 + int(syscall.SIGPIPE)}
	default:
		return fmt.Errorf("the output cannot be written: %w", reason(err))
	}
}

// names writes names, a name a line. No name is no line.
func (p *printer) names(names iter.Seq[string]) { p.joined(names, cmp.Or(p.separator, "\n")) }

// joined writes names with a separator between them. An end of line or a NUL ends each name, as read and xargs -0 want it.
func (p *printer) joined(names iter.Seq[string], separator string) {
	ends := separator == "\n" || separator == "\x00"
	first := true
	for name := range names {
		if !first && !ends {
			p.WriteString(separator)
		}
		p.WriteString(name)
		if ends {
			p.WriteString(separator)
		}
		first = false
	}
	if !first && !ends {
		p.WriteByte('\n')
	}
}

// folded writes a folded set as a line. No host is no line.
func (p *printer) folded(text string) {
	switch {
	case text == "":
	case p.separator == "":
		p.WriteString(text)
		p.WriteByte('\n')
	default:
		p.names(items(text))
	}
}

// items are the items of a folded set: commas are between them, and within the brackets of one.
func items(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		inside, start := false, 0
		for i := range len(text) {
			switch text[i] {
			case '[':
				inside = true
			case ']':
				inside = false
			case ',':
				if !inside {
					if !yield(text[start:i]) {
						return
					}
					start = i + 1
				}
			}
		}
		if text != "" {
			yield(text[start:])
		}
	}
}

// jsonNames writes names as the member "hosts" of a JSON object, with their number before it. A host name has no character
// that JSON would have escaped.
func (p *printer) jsonNames(count int, names iter.Seq[string]) {
	fmt.Fprintf(p, `{"count":%d,"hosts":[`, count)
	first := true
	for name := range names {
		if !first {
			p.WriteByte(',')
		}
		p.WriteByte('"')
		p.WriteString(name)
		p.WriteByte('"')
		first = false
	}
	p.WriteString("]}\n")
}

// json writes a value as one line.
func (p *printer) json(value any) {
	encoder := json.NewEncoder(p)
	encoder.SetEscapeHTML(false) // '&' may be part of a group's name
	encoder.Encode(value)        // fails only where the writer does, which keeps it
}

// hostSet is a set of hosts in JSON, with what was asked for.
type hostSet struct {
	Count  int      `json:"count"`
	Hosts  []string `json:"hosts,omitempty"`
	Folded *string  `json:"folded,omitempty"`
}

// hostSets is what became of a set.
type hostSets struct {
	Count int       `json:"count"`
	Sets  []hostSet `json:"sets"`
}

// hostGroups are groups in JSON.
type hostGroups struct {
	Groups []hostGroup `json:"groups"`
}

// hostGroup is a group, as an expression has it. What it has in it is there only where that was asked for.
type hostGroup struct {
	Group  string  `json:"group"`
	Count  *int    `json:"count,omitempty"`
	Total  *int    `json:"total,omitempty"` // where Count and Folded are about some of its hosts
	Folded *string `json:"folded,omitempty"`
}

// describe says what the group has in it: all of its members, or those that are among hosts.
func (g *hostGroup) describe(members, hosts *hostlist.List) {
	total := members.Len()
	if hosts != nil {
		g.Total = &total
		members = members.Intersection(hosts)
	}
	count, folded := members.Len(), hostlist.Fold(members.All())
	g.Count, g.Folded = &count, &folded
}

// groups writes groups that have been described, a row each.
func (p *printer) groups(groups hostGroups) error {
	rows := columns{w: p}
	for _, g := range groups.Groups {
		count := strconv.Itoa(*g.Count)
		if g.Total != nil {
			count += "/" + strconv.Itoa(*g.Total)
		}
		if err := rows.add(g.Group, count, *g.Folded); err != nil {
			return err
		}
	}
	return rows.flush()
}

// escapes are those of printf(1) that the shell's quotes would keep one from writing otherwise.
var escapes = map[byte]byte{'n': '\n', 't': '\t', '0': 0, '\\': '\\'}

// unescape reads the value of --separator, which was written as `as`.
func unescape(as, text string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' {
			i++
			known := false
			if i < len(text) {
				c, known = escapes[text[i]]
			}
			if !known {
				return "", usagef(`%s '%s': after a backslash comes n (newline), t (tab), 0 (NUL) or another backslash`, as, text)
			}
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// sample yields n of total values, each set of n as likely as any other, in the order in which they come. Which it is depends on what
// random says alone: a number from 0 below its argument.
func sample[T any](values iter.Seq[T], total, n int, random func(int) int) iter.Seq[T] {
	return func(yield func(T) bool) {
		left, wanted := total, n
		for value := range values {
			if wanted == 0 {
				return
			}
			if random(left) < wanted { // Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm S
				wanted--
				if !yield(value) {
					return
				}
			}
			left--
		}
	}
}

// sets makes n sets of the names, or as many as there are names: of names that follow each other, or of every n-th one. Their
// sizes are as even as possible, the larger ones first.
func sets(names []string, n int, roundRobin bool) [][]string {
	n = min(n, len(names))
	sets := make([][]string, n)
	rest := names
	for i := range sets {
		size := (len(rest) + n - i - 1) / (n - i)
		if !roundRobin {
			sets[i], rest = rest[:size], rest[size:]
			continue
		}
		for at := i; at < len(names); at += n {
			sets[i] = append(sets[i], names[at])
		}
	}
	return sets
}
