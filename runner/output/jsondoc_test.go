package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"multirsh/runner"
	"multirsh/transport"
)

// documented is a field of docs/json.md.
type documented struct {
	kind   string // in the table's words
	always bool
}

// readDocument reads the tables of docs/json.md: fields by the type of line.
func readDocument(t *testing.T) map[string]map[string]documented {
	t.Helper()
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile(`^## ([a-z]+)$`)
	row := regexp.MustCompile("^\\| `([^`]+)` \\| ([a-z]+) \\| ([a-z0-9 ]*) ?\\| .*\\|$")
	doc := map[string]map[string]documented{}
	var fields map[string]documented
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := heading.FindStringSubmatch(line); m != nil {
			fields = map[string]documented{}
			doc[m[1]] = fields
		} else if m := row.FindStringSubmatch(line); m != nil {
			if _, twice := fields[m[1]]; twice {
				t.Errorf("docs/json.md describes %s twice", m[1])
			}
			fields[m[1]] = documented{kind: m[2], always: strings.TrimSpace(m[3]) == "always"}
		} else if strings.HasPrefix(line, "| `") {
			t.Errorf("docs/json.md has a row that is none: %s", line)
		}
	}
	return doc
}

// flatten puts the fields of a line under their names in the document.
func flatten(into map[string][]any, prefix string, value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, v := range value {
			switch {
			case prefix == "":
				flatten(into, key, v)
			case prefix == "labels" || prefix == "outcomes":
				flatten(into, prefix+".*", v)
			default:
				flatten(into, prefix+"."+key, v)
			}
		}
	case []any:
		for _, v := range value {
			flatten(into, prefix+"[]", v)
		}
	default:
		into[prefix] = append(into[prefix], value)
	}
}

// isKind tells whether a value is of a type in the document's words.
func isKind(kind string, value any) bool {
	switch v := value.(type) {
	case string:
		if kind == "time" {
			at, err := time.Parse(time.RFC3339Nano, v)
			return err == nil && at.Location() == time.UTC
		}
		return kind == "string"
	case float64:
		return kind == "number" || kind == "integer" && v == math.Trunc(v)
	case bool:
		return kind == "boolean"
	}
	return false
}

// Every field of a record is described in docs/json.md, as what it is; and every field that is described there is written.
func TestRecordDocument(t *testing.T) {
	doc := readDocument(t)
	list := timed()
	for i := range list {
		if list[i].Kind == runner.Start {
			list[i].Host.Addr, list[i].Host.Jump = "10.0.0.1", "gate"
			break
		}
	}
	list = append(list, retriedStory()...)
	list = append(list, output(runner.Stderr, 19, "\xff"), took(19, time.Millisecond, time.Hour))
	list[len(list)-2].Time = list[len(list)-1].Time
	list = append(list, stopped(time.Now())...)
	run := Run{ID: "r1", Program: "1.0", Time: time.Now(), Command: "date", Transport: "ssh", Fanout: 64, Hosts: 17}

	seen := map[string]map[string]bool{}
	for line := range strings.Lines(record(t, run, list...)) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatal(err)
		}
		kind := fmt.Sprint(object["type"])
		fields := doc[kind]
		if fields == nil {
			t.Errorf("the type %s is not described", kind)
			continue
		}
		if seen[kind] == nil {
			seen[kind] = map[string]bool{}
		}
		values := map[string][]any{}
		flatten(values, "", object)
		for name, of := range values {
			field, known := fields[name]
			if !known {
				t.Errorf("%s of %s is not described: %s", name, kind, line)
			}
			for _, value := range of {
				if known && !isKind(field.kind, value) {
					t.Errorf("%s of %s is %v, and described as %s", name, kind, value, field.kind)
				}
			}
			seen[kind][name] = true
		}
		for name, field := range fields {
			if field.always && values[name] == nil {
				t.Errorf("%s of %s is described as always there: %s", name, kind, line)
			}
		}
	}
	for kind, fields := range doc {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			if !seen[kind][name] {
				t.Errorf("%s of %s is described, and never written", name, kind)
			}
		}
	}

	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range order {
		if !strings.Contains(string(text), "`"+string(o)+"`") {
			t.Errorf("the outcome %s is not described", o)
		}
	}
}

// stopped are the events of a host whose command we have stopped, and which has confirmed that.
func stopped(at time.Time) []runner.Event {
	host := transport.Host{Name: "stopped"}
	err := &transport.OpError{Phase: transport.PhaseRun, Err: &runner.StopError{Cause: errors.New("interrupted"), Confirmed: true}}
	result := &runner.Result{Seq: 40, Host: host, Outcome: runner.Cancelled, Err: err, Tries: 1, Started: at, Running: at, Ended: at}
	return []runner.Event{{Kind: runner.Start, Time: at, Seq: 40, Host: host}, {Kind: runner.Finish, Time: at, Seq: 40, Host: host, Result: result}}
}
