package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"multirsh/runner"
	"multirsh/runner/output"
)

// viewOptions say how a run is shown and what is made of its output: of a run, and of "multi-rsh replay". Those of the group Output are on
// the first page of the help.
var viewOptions = []*option{
	{name: "fold", letters: "b", group: "Output", text: "equal outputs once, at the end; or -B, --diff"},
	{name: "no-labels", letters: "N", group: "Output", text: "no 'host: ' before the lines"},
	{name: "quiet", letters: "q", group: "Output", text: "only what the commands write, and no summary"},
	{name: "json", arg: "FILE", unless: "-", once: true, group: "Output", text: "a record as JSON lines; without FILE on stdout"},

	{name: "fold-stderr", letters: "B", group: "More output", text: "folded with what goes to standard error"},
	{name: "diff", group: "More output", text: "the largest group, and in what others differ"},
	{name: "live", group: "More output", text: "with --fold: the lines as they come, too"},
	{name: "fold-live", group: "More output", text: "equal lines once, when all hosts have sent them"},
	{name: "normalize", arg: "WHAT", group: "More output", text: "folds disregard host, num, time, ip (with commas)"},
	{name: "fold-regexp", arg: "S/RE/X/", many: true, group: "More output", text: "folds compare lines after this; repeatable"},
	{name: "fold-memory", arg: "SIZE", group: "More output", text: "for outputs; more goes to a file in TMPDIR (256M)"},
	{name: "outdir", arg: "DIR", once: true, group: "More output", text: "each host's standard output to a file there"},
	{name: "errdir", arg: "DIR", once: true, group: "More output", text: "each host's standard error to a file there"},
	{name: "summary", arg: "HOW", group: "More output", text: "text, json, or none"},
	{name: "color", arg: "WHEN", group: "More output", text: "auto, always, or never"},
	{name: "raw", weakens: true, group: "More output", text: "control characters of hosts reach the terminal"},
}

// view is how a run is shown.
type view struct {
	lines      bool // as they come
	fold       bool
	foldLive   bool
	foldStderr bool
	diff       bool
	normalize  output.Normalize
	foldMemory int64 // 0: the package's own

	json           string // a record to this file, "-": standard output; "": none
	outdir, errdir string

	summary, color       string // as the options have it, never ""
	noLabels, quiet, raw bool
}

// view reads the options.
func (a *arguments) view(ctx *cli.Context) (view, error) {
	v := view{
		fold: ctx.Bool("fold"), foldLive: ctx.Bool("fold-live"), foldStderr: ctx.Bool("fold-stderr"), diff: ctx.Bool("diff"),
		json: ctx.String("json"), outdir: ctx.String("outdir"), errdir: ctx.String("errdir"),
		noLabels: ctx.Bool("no-labels"), quiet: ctx.Bool("quiet"), raw: ctx.Bool("raw"),
	}
	for _, step := range []func() error{
		func() error { return a.normalize(ctx, &v) },
		func() (err error) { v.foldMemory, err = a.size(ctx, "fold-memory"); return err },
		func() (err error) {
			v.summary, err = a.oneOf(ctx, "summary", "how the end is told", "text", "json", "none")
			return err
		},
		func() (err error) {
			v.color, err = a.oneOf(ctx, "color", "when there are colours", "auto", "always", "never")
			return err
		},
	} {
		if err := step(); err != nil {
			return v, err
		}
	}
	about := "" // an option that is about folds
	for _, name := range []string{"fold-stderr", "diff", "normalize", "fold-regexp"} {
		if a.origin[name] != "" && (ctx.Bool(name) || name == "normalize" || name == "fold-regexp") {
			about = a.origin[name]
		}
	}
	v.fold = v.fold || about != "" && !v.foldLive
	live := ctx.Bool("live")
	v.lines = live || !v.fold && !v.foldLive && v.json != "-"
	switch {
	case live && v.foldLive:
		return v, usagef("%s and %s both show lines as they come; give one of them", a.origin["live"], a.origin["fold-live"])
	case live && !v.fold:
		return v, usagef("%s is for a run that is also folded at its end, with --fold; without that lines are shown as they come", a.origin["live"])
	case v.diff && !v.fold:
		return v, usagef("%s is about folds at the end; give --fold beside %s", a.origin["diff"], a.origin["fold-live"])
	case v.json == "-" && (v.fold || v.foldLive):
		return v, usagef("%s without a file is all that goes to standard output; for both write --json=FILE", a.origin["json"])
	case v.noLabels && v.foldLive && a.byHand("no-labels"):
		return v, usagef("%s leaves out whose line it is, which is what %s tells; leave one of them out", a.origin["no-labels"], a.origin["fold-live"])
	case v.quiet && a.byHand("summary") && v.summary != "none":
		return v, usagef("%s leaves out the summary that %s asks for; leave one of them out", a.origin["quiet"], a.origin["summary"])
	}
	if v.quiet {
		v.summary = "none"
	}
	return v, nil
}

// byHand tells whether an option was written on the command line.
func (a *arguments) byHand(name string) bool { return strings.HasPrefix(a.origin[name], "-") }

// oneOf reads an option that has a few values, of which the first is meant where none is given.
func (a *arguments) oneOf(ctx *cli.Context, name, what string, values ...string) (string, error) {
	text := ctx.String(name)
	switch {
	case text == "":
		return values[0], nil
	case slices.Contains(values, text):
		return text, nil
	}
	return "", usagef("%s %s: %s is %s", a.origin[name], text, what, enumerate(values))
}

func (a *arguments) normalize(ctx *cli.Context, v *view) (err error) {
	if text := ctx.String("normalize"); text != "" {
		if v.normalize, err = output.ParseNormalize(text); err != nil {
			return a.syntaxError("normalize", err)
		}
	}
	for _, text := range ctx.StringSlice("fold-regexp") {
		re, err := output.ParseRegexp(text)
		if err != nil {
			return a.syntaxError("fold-regexp", err)
		}
		v.normalize.Regexps = append(v.normalize.Regexps, re)
	}
	return nil
}

// syntaxError is a mistake within the value of an option, with the place.
func (a *arguments) syntaxError(name string, err error) error {
	caret := ""
	if e := (*output.SyntaxError)(nil); errors.As(err, &e) {
		caret = "\n" + e.Caret()
	}
	return usagef("%s: %v%s", a.origin[name], err, caret)
}

var byteSize = regexp.MustCompile(`^([0-9]{1,15})([kKmMgGtT]?)(i?[bB])?$`)

// size reads a number of bytes; 0 where the option is not given.
func (a *arguments) size(ctx *cli.Context, name string) (int64, error) {
	text := ctx.String(name)
	if text == "" {
		return 0, nil
	}
	if parts := byteSize.FindStringSubmatch(text); parts != nil {
		n, err := strconv.ParseInt(parts[1], 10, 64)
		shift := 10 * (1 + strings.Index("kmgt", strings.ToLower(parts[2])))
		if parts[2] == "" {
			shift = 0
		}
		if err == nil && n > 0 && n <= 1<<(62-shift) {
			return n << shift, nil
		}
	}
	return 0, usagef("%s %q: this is a number of bytes above 0, as 64M or 2G", a.origin[name], text)
}

// streams are standard output and error as the view has them.
func (e *env) streams(v *view) (stdout, stderr output.Stream) {
	stream := func(w io.Writer) output.Stream {
		s := output.Stream{W: w}
		file, is := terminal(w)
		if is {
			s.Escape = !v.raw
			s.Width, _, _ = term.GetSize(int(file.Fd())) // 0 where it does not know
		}
		s.Color = output.Colors(v.color, is, e.Getenv)
		return s
	}
	return stream(e.Stdout), stream(e.Stderr)
}

// sinks are those that show and keep a run's events, beside its summary. Files that they write are open then, so that what cannot
// be written is said before anything is run. The caller closes what is in the list.
func (e *env) sinks(v *view, run output.Run, stdout, stderr output.Stream) (list []runner.Sink, err error) {
	defer func() {
		if err != nil {
			output.Tee(list...).Close()
		}
	}()
	lines := &output.Lines{Stdout: stdout, Stderr: stderr, NoLabels: v.noLabels, Quiet: v.quiet, Summarized: v.summary == "text"}
	list = append(list, &without{lines, !v.lines, !v.lines && (v.foldStderr || v.json == "-")})
	if v.foldLive {
		list = append(list, &output.FoldLive{Stream: stdout, Notices: stderr.W, Stderr: v.foldStderr, Normalize: v.normalize, Memory: v.foldMemory})
	}
	if v.fold {
		list = append(list, &output.Fold{Stream: stdout, Stderr: v.foldStderr, Normalize: v.normalize, Diff: v.diff, Memory: v.foldMemory, TempDir: e.Getenv("TMPDIR")})
	}
	switch v.json {
	case "":
	case "-":
		list = append(list, &output.Record{W: stdout.W, Run: run})
	default:
		file, err := os.OpenFile(v.json, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
		if err != nil {
			return list, fmt.Errorf("the record cannot be written, and nothing has been run: %w", err)
		}
		list = append(list, &recordFile{output.Record{W: file, Run: run}, file})
	}
	if v.outdir != "" || v.errdir != "" {
		files, err := output.OpenFiles(v.outdir, v.errdir)
		if err != nil {
			return list, fmt.Errorf("the folder for the hosts' files cannot be used, and nothing has been run: %w", err)
		}
		list = append(list, files)
	}
	return list, nil
}

// recordFile is a record in a file of its own.
type recordFile struct {
	output.Record
	file *os.File
}

// Close implements runner.Sink.
func (r *recordFile) Close() error { return errors.Join(r.Record.Close(), r.file.Close()) }

// without is a sink that is not shown some of the hosts' output.
type without struct {
	runner.Sink
	stdout, stderr bool // is what is left out
}

// Event implements runner.Sink.
func (w *without) Event(e runner.Event) error {
	if w.stdout && e.Kind == runner.Stdout || w.stderr && e.Kind == runner.Stderr {
		return nil
	}
	return w.Sink.Event(e)
}
