package output

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner"
	"multirsh/transport"
)

// hostile are a host and an output that would like to be more than text in a page.
const hostile = `<script>document.title="owned"</script><img src=x onerror="document.title='owned'"></script><!--`

// fleet is a run of many hosts: some cannot be reached, some fail, some are slow, and there are ten outputs.
func fleet(hosts int) []runner.Event {
	begin := time.Date(2026, 3, 29, 1, 59, 59, 0, time.UTC)
	var list []runner.Event
	for i := range hosts {
		at := begin.Add(time.Duration(i) * time.Millisecond)
		h := transport.Host{Name: fmt.Sprintf("node%05d", i), Vars: map[string]string{"label.rack": fmt.Sprint("r", i/40)}}
		if i == 7 {
			h.Name = hostile
		}
		r := &runner.Result{Seq: i, Host: h, Outcome: runner.OK, Started: at, Running: at.Add(time.Duration(5+i%20) * time.Millisecond), Status: transport.Status{Known: true, Started: true}}
		took := 300*time.Millisecond + time.Duration(100*math.Sin(float64(i)))*time.Millisecond
		kernel := "6.1.0-25-amd64"
		switch {
		case i%97 == 0:
			r.Outcome, r.Running, r.Status = runner.Refused, time.Time{}, transport.Status{}
			r.Err = &transport.OpError{Phase: transport.PhaseConnect, Host: h.Name, Err: fmt.Errorf("nobody listens on 10.0.%d.%d:22", i/256, i%256)}
		case i%101 == 3:
			r.Outcome, r.Running, r.Status = runner.Timeout, time.Time{}, transport.Status{}
			r.Err = &transport.OpError{Phase: transport.PhaseConnect, Host: h.Name, Err: &transport.TimeoutError{After: 10 * time.Second, Limit: "--connect-timeout"}}
		case i%53 == 0:
			r.Outcome, r.Status.Code = runner.Exit, 1+i%3
		case i%211 == 5:
			took = 20 * time.Second
		case i%31 == 4:
			kernel = fmt.Sprintf("6.1.0-%d-amd64", 15+i%9)
		}
		r.Ended = at.Add(took)
		list = append(list, runner.Event{Kind: runner.Start, Time: at, Seq: i, Host: h})
		if !r.Running.IsZero() {
			text := fmt.Sprintf("Linux %s\n%s", kernel, strings.Repeat("a line of the output, the same on every host, of the usual length\n", 18))
			if i == 8 {
				text = hostile + "\x1b[31mred\u202e\xff\n"
			}
			list = append(list, runner.Event{Kind: runner.Stdout, Time: r.Ended, Seq: i, Host: h, Data: []byte(text)})
		}
		list = append(list, runner.Event{Kind: runner.Finish, Time: r.Ended, Seq: i, Host: h, Result: r})
	}
	return list
}

func fleetRecord(tb testing.TB, hosts int) string {
	return record(tb, Run{
		ID: "r1", Program: "1.0", Time: time.Date(2026, 3, 29, 1, 59, 59, 0, time.UTC),
		Command: "uname -r; echo \"$HOME\" </dev/null & " + hostile, Transport: "ssh", Fanout: 64, Hosts: hosts,
	}, fleet(hosts)...)
}

func writeReport(tb testing.TB, record string) string {
	tb.Helper()
	var b strings.Builder
	if err := WriteReport(&b, strings.NewReader(record), func(line int, why error) { tb.Errorf("line %d: %v", line, why) }); err != nil {
		tb.Fatal(err)
	}
	return b.String()
}

// pageData is what the page's script reads.
type pageData struct {
	Summary struct{ Hosts int }
	Endings [][2]string
	Errors  []string
	Labels  []string
	Names   []string
	Ending  []int
	Error   []int
	Label   []int
	Group   []int
	Connect []int
	Run     []int
	Groups  []struct {
		Ending                        int
		Hosts                         int
		Bytes                         int64
		Folded, Text, Diff, Why, Note string
	}
}

func dataOf(tb testing.TB, page string) *pageData {
	tb.Helper()
	blocks := regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*?)</script>`).FindAllStringSubmatch(page, -1)
	if len(blocks) != 1 {
		tb.Fatalf("the page has %d blocks of data", len(blocks))
	}
	d := new(pageData)
	if err := json.Unmarshal([]byte(blocks[0][1]), d); err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestReportData(t *testing.T) {
	d := dataOf(t, writeReport(t, record(t, Run{Command: "date"}, timed()...)))
	var got []string
	for i, name := range d.Names {
		line := name + ": " + d.Endings[d.Ending[i]][1]
		if d.Error[i] >= 0 {
			line += ": " + d.Errors[d.Error[i]]
		}
		if d.Connect[i] >= 0 {
			line += fmt.Sprintf(" (%d µs, %d µs)", d.Connect[i], d.Run[i])
		}
		if d.Label[i] >= 0 {
			line += " " + d.Labels[d.Label[i]]
		}
		if d.Group[i] >= 0 {
			line += fmt.Sprintf(" %q", d.Groups[d.Group[i]].Text)
		}
		got = append(got, line)
	}
	var b strings.Builder
	b.WriteString(strings.Join(got, "\n") + "\n\n")
	for _, g := range d.Groups {
		fmt.Fprintf(&b, "%s (%d): %s, %d bytes %s %s\n%s\n", g.Folded, g.Hosts, d.Endings[g.Ending][1], g.Bytes, g.Why, g.Note, g.Diff)
	}
	golden(t, "report.txt", b.String())
}

// Equal outputs are in the page once, whatever their number; of others there are differences.
func TestReportFleet(t *testing.T) {
	page := writeReport(t, fleetRecord(t, 2000))
	d := dataOf(t, page)
	if len(d.Names) != 2000 || d.Summary.Hosts != 2000 {
		t.Errorf("%d hosts, %d in the summary", len(d.Names), d.Summary.Hosts)
	}
	if len(page) > 300_000 {
		t.Errorf("a page of 2000 hosts has %d bytes", len(page))
	}
	hosts, diffs := 0, 0
	for _, g := range d.Groups {
		hosts += g.Hosts
		if g.Diff != "" {
			diffs++
			if !strings.HasPrefix(g.Diff, "--- the largest group\n+++ this output\n@@ ") {
				t.Errorf("a difference that begins with %.80q", g.Diff)
			}
		}
	}
	if hosts != 2000 || diffs < 9 {
		t.Errorf("groups of %d hosts, %d differences", hosts, diffs)
	}
}

// What comes from hosts cannot end the block that it is in, and is nowhere else.
func TestReportHostile(t *testing.T) {
	page := writeReport(t, fleetRecord(t, 20))
	if n := strings.Count(page, "<script"); n != 2 {
		t.Errorf("the page has %d scripts", n)
	}
	for _, never := range []string{"<img", "<!--", "\x1b", "\u202e", `onerror="`} {
		if strings.Contains(page, never) {
			t.Errorf("the page holds %q", never)
		}
	}
	d := dataOf(t, page)
	if d.Names[7] != hostile {
		t.Errorf("the host is called %q", d.Names[7])
	}
	if got, want := d.Groups[d.Group[8]].Text, hostile+"^[[31mred\\u202e\\xff\n"; got != want {
		t.Errorf("the output is %q, want %q", got, want)
	}
}

// A page has its bounds, and says what is left out.
func TestReportBounds(t *testing.T) {
	long := strings.Repeat("é", maxReportText)
	d := dataOf(t, writeReport(t, record(t, Run{}, append(named(1, "a", output(runner.Stdout, 1, "x"+long), ok(1)), named(2, "b", output(runner.Stdout, 1, "y\n"), ok(1))...)...)))
	if g := d.Groups[d.Group[0]]; g.Text != "x"+long[:maxReportText-2] || g.Note != "256 KiB of this output are left out here; they are in the record." {
		t.Errorf("%d bytes of %d, and %q", len(g.Text), g.Bytes, g.Note)
	}
	if g := d.Groups[d.Group[1]]; g.Text != "y\n" || g.Why != "no line in common with the largest group" {
		t.Errorf("the other output: %+v", g)
	}

	var list []runner.Event
	for i := range maxReportTexts/maxReportText + 10 {
		list = append(list, output(runner.Stdout, i, fmt.Sprint(i)+long), ok(i))
	}
	page := writeReport(t, record(t, Run{}, list...))
	d = dataOf(t, page)
	last := d.Groups[len(d.Groups)-1]
	if last.Text != "" || last.Note == "" || len(page) > maxReportTexts+1<<20 {
		t.Errorf("a page of %d bytes, the last output with %d: %q", len(page), len(last.Text), last.Note)
	}
}

func TestReportDamaged(t *testing.T) {
	text := fleetRecord(t, 30)
	lines := strings.SplitAfter(text, "\n")
	lines[3] = "garbage\n"
	damage := 0
	var b strings.Builder
	err := WriteReport(&b, strings.NewReader(strings.Join(lines[:60], "")), func(int, error) { damage++ })
	if err != nil || damage != 2 {
		t.Fatalf("%v, damage %d", err, damage)
	}
	for _, want := range []string{"1 line of the record could not be used.", "The record ends early: the run was to have 30 hosts."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page does not say: %s", want)
		}
	}

	page := writeReport(t, record(t, Run{}))
	if d := dataOf(t, page); len(d.Names) != 0 || !strings.Contains(page, "0 hosts") {
		t.Errorf("of no record: %+v", d)
	}
}

func TestReportErrors(t *testing.T) {
	never := func(line int, why error) { t.Errorf("line %d: %v", line, why) }
	full := writerFunc(func(p []byte) (int, error) { return 0, syscall.ENOSPC })
	if err := WriteReport(full, strings.NewReader(fleetRecord(t, 3)), never); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	if err := WriteReport(io.Discard, strings.NewReader(`{"type":"run","v":2}`), never); !errors.As(err, new(*VersionError)) {
		t.Errorf("a later version: %v", err)
	}
	if err := WriteReport(io.Discard, failing{io.ErrUnexpectedEOF}, never); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a record that cannot be read: %v", err)
	}
}

// Whatever the record, the page is made, its data are JSON, and it has two scripts.
func FuzzReport(f *testing.F) {
	f.Add(record(f, Run{Command: "date"}, timed()...))
	f.Add(fleetRecord(f, 10))
	f.Fuzz(func(t *testing.T, text string) {
		var b bytes.Buffer
		err := WriteReport(&b, strings.NewReader(text), func(int, error) {})
		if errors.As(err, new(*VersionError)) || errors.Is(err, ErrNoRun) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		d := dataOf(t, b.String())
		want := []int{len(d.Names), len(d.Names), len(d.Names), len(d.Names), len(d.Names), len(d.Names)}
		if diff := cmp.Diff(want, []int{len(d.Ending), len(d.Error), len(d.Label), len(d.Group), len(d.Connect), len(d.Run)}); diff != "" {
			t.Errorf("columns of other lengths:\n%s", diff)
		}
		if n := bytes.Count(bytes.ToLower(b.Bytes()), []byte("<script")); n != 2 {
			t.Errorf("%d scripts", n)
		}
	})
}

func BenchmarkReport(b *testing.B) {
	text := fleetRecord(b, 10_000)
	for b.Loop() {
		if err := WriteReport(io.Discard, strings.NewReader(text), func(int, error) {}); err != nil {
			b.Fatal(err)
		}
	}
}
