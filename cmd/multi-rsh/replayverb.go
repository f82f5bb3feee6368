package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"multirsh/runner"
	"multirsh/runner/output"
)

// replayLine is the command line of "multi-rsh replay".
var replayLine = &commandLine{name: "multi-rsh replay", options: slices.Concat(slices.DeleteFunc(slices.Clone(viewOptions), func(o *option) bool {
	return o.name == "json" // it is there already
}), []*option{
	runLine.byLong("config"),
	{name: "help", letters: "h", action: true, group: "Other", text: "this page"},
})}

var replayHelp = helpPage{
	head: `multi-rsh replay shows a run again of which --json has made a record.

  multi-rsh replay [options] RUN.jsonl      (- is standard input)
`,
	foot: `Examples
  multi-rsh replay --diff run.jsonl
  zstdcat run.jsonl.zst | multi-rsh replay -q --outdir out -
`,
}

// reportLine is the command line of "multi-rsh report".
var reportLine = &commandLine{name: "multi-rsh report", options: []*option{
	{name: "output", letters: "o", arg: "FILE", once: true, group: "Result", text: "the page; else standard output"},
	{name: "help", letters: "h", action: true, group: "Other", text: "this page"},
}}

var reportHelp = helpPage{
	head: `multi-rsh report makes a page for a browser of a record that --json has made.
It is one file, which loads nothing from the network.

  multi-rsh report RUN.jsonl -o run.html    (- is standard input)
`,
	foot: `Examples
  multi-rsh --json=run.jsonl -g web uptime
  multi-rsh report run.jsonl -o run.html
`,
}

// about begins a verb that is about a record: it takes the arguments apart and opens the file, or has the help shown.
func (e *env) about(line *commandLine, page helpPage, args []string) (a *arguments, record io.ReadCloser, err error) {
	if len(args) == 0 {
		return nil, nil, line.help(e.Stdout, page)
	}
	if args, err = line.optionsFirst(args); err != nil {
		return nil, nil, err
	}
	if a, err = line.split(args, e.Getenv); err != nil {
		return nil, nil, err
	}
	switch {
	case a.action == "help":
		return nil, nil, line.help(e.Stdout, page)
	case len(a.words) != 1:
		return nil, nil, usagef("%s: it is for one record of a run, as --json=FILE makes it, and these are %d; name it, or - for standard input", strings.TrimPrefix(line.name, "multi-rsh "), len(a.words))
	}
	name := a.words[0]
	if name == "-" {
		return a, io.NopCloser(e.Stdin), nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, usagef("%s: %v", name, reason(err))
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = usagef("%s is a directory, and a record is a file", name)
	}
	if out, is := e.Stdout.(*os.File); is && err == nil && info.Mode().IsRegular() {
		if to, outErr := out.Stat(); outErr == nil && os.SameFile(info, to) {
			err = usagef("standard output is %s, the record that is to be read; send it to another file", name)
		}
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return a, file, nil
}

// damage tells of lines of a record that cannot be used.
type damage struct {
	*env
	name string // of the record
	n    int
}

// told is how many are told one by one.
const told = 20

func (d *damage) line(number int, why error) {
	d.n++
	switch {
	case why == output.ErrCut || why == output.ErrHeadless:
		fmt.Fprintf(d.Stderr, "multi-rsh: %s:%d: %v\n", d.name, number, why)
	case d.n <= told:
		fmt.Fprintf(d.Stderr, "multi-rsh: %s:%d: %v; the line is left out\n", d.name, number, why)
	}
}

// end is err or, where there is none, the error for what was left out; nil: nothing was.
func (d *damage) end(err error) error {
	if more := d.n - told; more > 0 {
		fmt.Fprintf(d.Stderr, "multi-rsh: %s: and %d more lines are left out\n", d.name, more)
	}
	if err == nil && d.n > 0 {
		err = &ending{exitHosts}
	}
	return err
}

// recordError is err, of the reading of a record, as the user is told it.
func recordError(name string, err error) error {
	if version := (*output.VersionError)(nil); errors.As(err, &version) || errors.Is(err, output.ErrNoRun) {
		return usagef("%s: %v", name, err)
	}
	path := (*fs.PathError)(nil)
	switch sink := (*runner.SinkError)(nil); {
	case err == nil || errors.Is(err, syscall.EPIPE):
		return err
	case errors.As(err, &sink):
		return errors.New(unwritten(sink.Err))
	case errors.As(err, &path) && path.Op == "write":
		return errors.New(unwritten(path))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// replayVerb is "multi-rsh replay": a recorded run as its views show it.
func (e *env) replayVerb(args []string) error {
	a, record, err := e.about(replayLine, replayHelp, args)
	if err != nil || a == nil {
		return err
	}
	defer record.Close()
	var values *cli.Context
	if values, _, err = e.settle(a); err != nil {
		return err
	}
	v, err := a.view(values)
	if err != nil {
		return err
	}
	name := a.words[0]
	stdout, stderr := e.streams(&v)
	list, err := e.sinks(&v, output.Run{}, stdout, stderr)
	if err != nil {
		return err
	}
	if v.summary != "none" {
		list = append(list, &output.Summary{Stream: stderr, JSON: v.summary == "json"})
	}
	d := &damage{env: e, name: name}
	_, err = output.Replay(record, output.Tee(list...), d.line)
	return d.end(recordError(name, err))
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	other, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(one, other)
}

// reportVerb is "multi-rsh report": a recorded run as a page for a browser.
func (e *env) reportVerb(args []string) error {
	a, record, err := e.about(reportLine, reportHelp, args)
	if err != nil || a == nil {
		return err
	}
	defer record.Close()
	values, err := a.values()
	if err != nil {
		return err
	}
	name, to := a.words[0], values.String("output")
	d := &damage{env: e, name: name}
	if to == "" || to == "-" {
		if isTerminal(e.Stdout) {
			return usagef("a page for a browser does not go to a terminal; write it to a file: multi-rsh report %s -o run.html", name)
		}
		return d.end(recordError(name, output.WriteReport(e.Stdout, record, d.line)))
	}
	if sameFile(to, name) {
		return usagef("%s %s is the record that is to be read; write another file", a.origin["output"], to)
	}
	return d.end(writeWhole(to, func(w io.Writer) error { return recordError(name, output.WriteReport(w, record, d.line)) }))
}

// writeWhole writes a file beside its name and renames it, so that a page that is there is whole. What is no plain file is written to as it is.
func writeWhole(name string, write func(io.Writer) error) error {
	cannot := func(err error) error { return fmt.Errorf("%s cannot be written: %w", name, reason(err)) }
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		file, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return cannot(err)
		}
		defer file.Close()
		return write(file)
	}
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return cannot(err)
	}
	err = write(file)
	if last := errors.Join(file.Chmod(0o644), file.Close()); err == nil && last != nil {
		err = cannot(last)
	}
	if err == nil {
		if err = os.Rename(file.Name(), name); err != nil {
			err = cannot(err)
		}
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}
