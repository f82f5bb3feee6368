package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"multirsh/runner"
	"multirsh/runner/journal"
)

// runsLine is the command line of "multi-rsh runs".
var runsLine = &commandLine{name: "multi-rsh runs", options: []*option{
	{name: "json", letters: "j", group: "Result", text: "one JSON document"},
	{name: "help", letters: "h", action: true, group: "Other", text: "this page"},
}}

var runsHelp = helpPage{
	head: `multi-rsh runs lists the runs that can be resumed or retried, the newest first,
or says of one of them how each host ended. The last ` + strconv.Itoa(journal.Keep) + ` runs are kept.

  multi-rsh runs [options]
  multi-rsh runs [options] RUN        (RUN: last, a name, or its beginning)

Its hosts are groups, too: -g last.failed, -w @20261123-0415.timeout; there are
notok, failed, notrun, all, and the outcomes.
`,
	foot: `Examples
  multi-rsh runs last
  multi-rsh resume last
  multi-rsh retry last --only timeout
`,
}

// The states of a run.
const (
	running  = "running" // a process is at it
	finished = "done"    // each host has a result
	cutShort = "open"    // hosts are left
)

// runRow is a run in the JSON document of "multi-rsh runs".
type runRow struct {
	ID       string                 `json:"id"`
	Time     time.Time              `json:"time"`
	State    string                 `json:"state"`
	PID      int                    `json:"pid,omitempty"` // of a run that goes on
	Ended    *time.Time             `json:"ended,omitempty"`
	Hosts    int                    `json:"hosts"`
	Outcomes map[runner.Outcome]int `json:"outcomes"`
	Open     int                    `json:"open"`   // begun, and no end is known
	NotRun   int                    `json:"notrun"` // not begun
	Command  string                 `json:"command"`
	Digest   string                 `json:"digest"`
	Parent   string                 `json:"parent,omitempty"`
	Program  string                 `json:"program"`
	Error    string                 `json:"error,omitempty"`
	List     []runHost              `json:"list,omitempty"` // of one run that is named
}

// runHost is a host of a run.
type runHost struct {
	Host    string         `json:"host"`
	State   string         `json:"state"` // done, unknown, not run
	Outcome runner.Outcome `json:"outcome,omitempty"`
	Code    *int           `json:"code,omitempty"`
	Error   string         `json:"error,omitempty"`
}

func newRow(i *journal.Info) runRow {
	r := runRow{
		ID: i.ID, Time: i.Head.Time, State: cutShort, PID: i.PID, Outcomes: i.Counts.Outcomes, Open: i.Counts.Open, NotRun: i.Counts.NotRun,
		Hosts: i.Counts.Open + i.Counts.NotRun, Command: titleOf(&i.Head), Digest: i.Head.Digest, Parent: i.Head.Parent, Program: i.Head.Program,
	}
	if !i.Ended.IsZero() {
		r.Ended = &i.Ended
	}
	for _, n := range r.Outcomes {
		r.Hosts += n
	}
	switch {
	case i.Running:
		r.State = running
	case r.Open+r.NotRun == 0:
		r.State = finished
	}
	if i.Err != nil {
		r.Error = i.Err.Error()
	}
	return r
}

// titleOf is what a run's command is called.
func titleOf(h *journal.Head) string {
	var call callOptions
	if json.Unmarshal(h.Config, &call) == nil && call.Title != "" {
		return string(call.Title)
	}
	return h.Command
}

// runsVerb is "multi-rsh runs".
func (e *env) runsVerb(args []string) error {
	args, err := runsLine.optionsFirst(args)
	if err != nil {
		return err
	}
	a, err := runsLine.split(args, func(string) string { return "" })
	switch {
	case err != nil:
		return err
	case a.action == "help":
		return runsLine.help(e.Stdout, runsHelp)
	case len(a.words) > 1:
		return usagef("runs: it tells of all runs or of one, and these are %d; name one", len(a.words))
	}
	values, err := a.values()
	if err != nil {
		return err
	}
	if len(a.words) == 1 {
		return e.showRun(a.words[0], values.Bool("json"))
	}
	list, err := journal.List(e.runsDir())
	if err != nil {
		return err
	}
	rows := make([]runRow, 0, len(list))
	for i := range list {
		rows = append(rows, newRow(&list[i]))
	}
	if values.Bool("json") {
		return e.document(map[string]any{"runs": rows})
	}
	return e.listRuns(rows)
}

func (e *env) document(value any) error {
	encoder := json.NewEncoder(e.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// listRuns writes a row for each run, the command cut to what the terminal has left.
func (e *env) listRuns(rows []runRow) error {
	stdout, _ := e.streams(&view{color: "never"})
	table := columns{w: e.Stdout}
	if len(rows) == 0 {
		_, err := fmt.Fprintf(e.Stderr, "no runs in %s\n", e.runsDir())
		return err
	}
	const before = 64 // columns before the command, as a rule
	table.add("RUN", "BEGAN", "STATE", "HOSTS", "OK", "NOT OK", "LEFT", "COMMAND")
	for _, r := range rows {
		if r.Error != "" {
			table.add(r.ID, "", "damaged", "", "", "", "", printable(r.Error, stdout.Width-before))
			continue
		}
		failed := r.Hosts - r.Open - r.NotRun - r.Outcomes[runner.OK]
		state := r.State
		if r.PID > 0 {
			state += fmt.Sprintf(" (%d)", r.PID)
		}
		table.add(r.ID, r.Time.Local().Format("Jan _2 15:04"), state, strconv.Itoa(r.Hosts), strconv.Itoa(r.Outcomes[runner.OK]),
			strconv.Itoa(failed), strconv.Itoa(r.Open+r.NotRun), printable(r.Command, stdout.Width-before))
	}
	return table.flush()
}

// printable is the text in one line that does nothing to a terminal, of at most so many columns, if that is more than a few.
func printable(text string, width int) string {
	text = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if width >= 8 && utf8.RuneCountInString(text) > width {
		return string([]rune(text)[:width-1]) + "…"
	}
	return text
}

// showRun tells of one run.
func (e *env) showRun(name string, asJSON bool) error {
	run, damaged, err := journal.Load(e.runsDir(), name)
	e.tellDamage(damaged)
	if err != nil {
		return pastError(err)
	}
	row := newRow(&journal.Info{ID: run.ID, Head: run.Head, Counts: run.Counts(), Running: run.Running, Ended: run.Ended})
	if run.Running {
		row.PID = run.PID
	}
	if asJSON {
		for _, h := range run.Hosts {
			row.List = append(row.List, newRunHost(&h))
		}
		return e.document(row)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "run %s: %s\n", run.ID, printable(titleOf(&run.Head), 0))
	fmt.Fprintf(&b, "began %s", run.Head.Time.Local().Format(time.DateTime))
	switch {
	case run.Running:
		fmt.Fprintf(&b, ", goes on in process %d", run.PID)
	case run.Ended.IsZero():
		b.WriteString(", was cut off")
	default:
		fmt.Fprintf(&b, ", ended %s", run.Ended.Local().Format(time.DateTime))
	}
	b.WriteByte('\n')
	if row.Parent != "" {
		fmt.Fprintf(&b, "again: hosts of run %s\n", row.Parent)
	}
	var call callOptions
	if json.Unmarshal(run.Head.Config, &call) == nil && len(call.Options) > 0 {
		fmt.Fprintf(&b, "options: %s\n", printable(strings.Join(journal.FromTexts(call.Options), " "), 0))
	}
	if run.Head.InputSHA256 != "" {
		fmt.Fprintf(&b, "input of %d bytes: %s\n", run.Head.InputSize, run.Input())
	}
	ok := row.Outcomes[runner.OK]
	fmt.Fprintf(&b, "%s: %d ok, %d not ok, %d begun and not known to have ended, %d not run\n", number(row.Hosts, "host"), ok, row.Hosts-row.Open-row.NotRun-ok, row.Open, row.NotRun)
	groups := map[string][]journal.Host{}
	for _, h := range run.Hosts {
		word := h.State.String()
		switch h.State {
		case journal.Done:
			word = string(h.Result.Outcome)
		case journal.Unknown:
			word = "begun, and it is not known how it ended"
		}
		groups[word] = append(groups[word], h)
	}
	words := slices.SortedFunc(maps.Keys(groups), func(a, b string) int { return len(groups[b]) - len(groups[a]) })
	for _, word := range words {
		fmt.Fprintf(&b, "%s (%d): %s\n", word, len(groups[word]), foldedPast(groups[word]))
	}
	if run.Why != "" {
		fmt.Fprintf(&b, "some were not begun: %s\n", printable(run.Why, 0))
	}
	if row.State == cutShort {
		fmt.Fprintf(&b, "multi-rsh resume %s goes on with it\n", run.ID)
	}
	_, err = e.Stdout.Write([]byte(b.String()))
	return err
}

func newRunHost(h *journal.Host) runHost {
	to := runHost{Host: h.Name, State: h.State.String()}
	if r := h.Result; r != nil {
		to.Outcome = r.Outcome
		if r.Status.Known && r.Status.Signal == "" {
			to.Code = &r.Status.Code
		}
		if r.Err != nil {
			to.Error = r.Err.Error()
		}
	}
	return to
}
