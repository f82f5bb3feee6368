package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"multirsh/runner"
	"multirsh/transport"
)

// sample is a journal with everything that one can have, of ten hosts.
func sample(t testing.TB) []byte {
	dir := t.TempDir()
	j := create(t, dir, 10)
	again := finish(3, 0)
	again.Kind, again.Result.Outcome, again.Result.Err = runner.Again, runner.Refused, errors.New("connection refused")
	for _, e := range []runner.Event{
		start(0), start(1), start(3), finish(1, 0), start(2), finish(0, 3), skipped(2), again, start(5), event(runner.Restart, 3, "node0003"), start(4), finish(4, 255),
	} {
		send(t, j, e)
	}
	closed(t, j)
	j, _, _, err := Resume(dir, Last)
	if err != nil {
		t.Fatal(err)
	}
	rest := j.Rest(nil)
	for seq, want := range []string{"node0002", "node0006", "node0007"} {
		e := start(seq)
		if e.Host = rest[seq]; e.Host.Name != want {
			t.Fatalf("%s, want %s", e.Host.Name, want)
		}
		send(t, j, e)
		if seq < 2 {
			end := finish(seq, 0)
			end.Host = e.Host
			send(t, j, end)
		}
	}
	closed(t, j)
	text, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func readAll(text []byte) (*Run, []Damage, int64, error) {
	return read(bytes.NewReader(text), "/runs/20261123-041502-7f3a/journal", "20261123-041502-7f3a")
}

// begins is the offset from which the list of hosts is whole.
func begins(t testing.TB, text []byte) int {
	i := bytes.Index(text, []byte(`{"type":"run"`))
	if i < 0 {
		t.Fatal("no run")
	}
	return i + bytes.IndexByte(text[i:], '\n')
}

// know is what whole lines say of the hosts, by another way than reader's.
func know(t testing.TB, text []byte) []State {
	known := make([]State, 10)
	for line := range bytes.Lines(text) {
		e, err := parse(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			continue
		}
		switch e.Type {
		case "start":
			known[*e.Seq] = Unknown
		case "waits":
			known[*e.Seq] = NotRun
		case "result":
			known[*e.Seq] = Done
		}
	}
	return known
}

// A journal is cut off at each of its bytes: what was written before is known, and no more.
func TestCutOff(t *testing.T) {
	text := sample(t)
	whole, _, _, err := readAll(text)
	if err != nil || states(whole) != "xxx?x?xx"[:6]+"x?--" {
		t.Fatal(states(whole), err)
	}
	first := begins(t, text)
	dir := t.TempDir()
	folder := filepath.Join(dir, "20261123-041502-7f3a")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, journalFile)
	for size := range len(text) + 1 {
		run, damaged, _, err := readAll(text[:size])
		if size < first {
			if err == nil {
				t.Fatalf("%d bytes: hosts are missing, and that is no error", size)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		var got []State
		for i, h := range run.Hosts {
			got = append(got, h.State)
			if h.State == Done && h.Result.Outcome != whole.Hosts[i].Result.Outcome {
				t.Errorf("%d bytes: %s is %s", size, h.Name, h.Result.Outcome)
			}
		}
		if diff := cmp.Diff(know(t, text[:size]), got); diff != "" {
			t.Errorf("%d bytes (-want +got):\n%s", size, diff)
		}
		half := size > 0 && text[size-1] != '\n' && (size == len(text) || text[size] != '\n')
		if half != (len(damaged) == 1) || half && damaged[0].Line != bytes.Count(text[:size], []byte("\n"))+1 {
			t.Errorf("%d bytes: damaged %v", size, damaged)
		}

		if size%31 != 0 && size != len(text) && text[size] != '\n' {
			continue // files take their time
		}
		if err := os.WriteFile(path, text[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		j, _, _, err := Resume(dir, Last)
		if err != nil {
			t.Fatal(err)
		}
		rest := j.Rest(nil)
		if len(rest) != strings.Count(states(run), "-") {
			t.Errorf("%d bytes: %d hosts are given out of %s", size, len(rest), states(run))
		}
		closed(t, j)
		resumed, damaged := load(t, dir, Last)
		if states(resumed) != states(run) || len(damaged) > 0 {
			t.Errorf("%d bytes: %s before, %s after; damaged %v", size, states(run), states(resumed), damaged)
		}
	}
}

// Each byte of a journal is changed: no result comes of that, one or two are lost, and no host that had begun is one that was not run, unless that is said.
func TestDamaged(t *testing.T) {
	text := sample(t)
	whole, _, _, err := readAll(text)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(text)
	for at := range text {
		for _, c := range []byte{text[at] ^ 1, []byte{text[at] ^ 0x80, 0, '\n', '"', '7'}[at%5]} {
			if c == text[at] {
				continue
			}
			bad[at] = c
			run, damaged, _, err := readAll(bad)
			bad[at] = text[at]
			line := bytes.Count(text[:at], []byte("\n")) + 1
			if at == len(text)-1 && run != nil && len(damaged) == 1 {
				continue // the end of the journal: half a line now
			}
			if len(damaged) == 0 || damaged[0].Line != line {
				t.Fatalf("byte %d is %q, and damaged is %v", at, c, damaged)
			}
			if err != nil {
				if at >= begins(t, text) || at < begins(t, text)-200 {
					t.Fatalf("byte %d is %q: %v", at, c, err)
				}
				continue
			}
			lost := 0
			for i, h := range run.Hosts {
				was := whole.Hosts[i]
				switch {
				case h.State == Done && was.State != Done:
					t.Fatalf("byte %d is %q, and %s has a result", at, c, was.Name)
				case h.State == Done:
					if diff := cmp.Diff(was.Result, h.Result, cmpopts.IgnoreFields(runner.Result{}, "Err", "Host")); diff != "" {
						t.Fatalf("byte %d is %q: the result of %s is (-want +got)\n%s", at, c, was.Name, diff)
					}
				case was.State == Done:
					lost++
				}
				if h.State == NotRun && was.State != NotRun && !slices.ContainsFunc(damaged, func(d Damage) bool { return d.Anyone }) {
					t.Fatalf("byte %d is %q: %s is not run, and was %v; damaged %v", at, c, was.Name, was.State, damaged)
				}
				if h.Host.Name != was.Host.Name && !h.Lost {
					t.Fatalf("byte %d is %q: %q is %q", at, c, was.Name, h.Name)
				}
			}
			if lost > 2 {
				t.Fatalf("byte %d is %q: %d results are lost", at, c, lost)
			}
		}
	}
}

// edit writes a journal's text changed, and gives its folder of runs.
func edit(t *testing.T, text []byte, old, new string) string {
	t.Helper()
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("no %q", old)
	}
	dir := t.TempDir()
	folder := filepath.Join(dir, "20261123-041502-7f3a")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, journalFile), bytes.Replace(text, []byte(old), []byte(new), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// resealed is the text with the line that begins with prefix changed, and its checksum right.
func resealed(t *testing.T, text []byte, prefix, old, new string) []byte {
	t.Helper()
	var out []byte
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte(prefix)) {
			if !bytes.Contains(line, []byte(old)) {
				t.Fatalf("no %q in %s", old, line)
			}
			line = line[:bytes.LastIndex(line, []byte(crcKey))]
			line = seal(bytes.Replace(line, []byte(old), []byte(new), 1))
			prefix = "\x00" // one is enough
		}
		out = append(out, line...)
	}
	return out
}

func TestLoadErrors(t *testing.T) {
	text := sample(t)
	t.Run("later version", func(t *testing.T) {
		dir := edit(t, resealed(t, text, `{"type":"head"`, `"v":1`, `"v":2`), "head", "head")
		later := (*VersionError)(nil)
		for _, f := range []func() error{
			func() error { _, _, err := Load(dir, Last); return err },
			func() error { _, _, _, err := Resume(dir, Last); return err },
			func() error { list, _ := List(dir); return list[0].Err },
		} {
			if err := f(); !errors.As(err, &later) || later.Version != 2 {
				t.Error(err)
			}
		}
	})
	t.Run("no head", func(t *testing.T) {
		dir := edit(t, text, "uptime", "reboot")
		if run, damaged := load(t, dir, Last); states(run) != "xxx?x?x?--" || len(damaged) != 1 || damaged[0].Line != 1 {
			t.Error(states(run), damaged)
		}
		if _, _, _, err := Resume(dir, Last); err == nil || !strings.Contains(err.Error(), "journal:1, which says what to run: this line is damaged") {
			t.Error(err)
		}
		if list, err := List(dir); err != nil || list[0].Err != nil || list[0].Counts.NotRun != 2 {
			t.Error(list, err)
		}
	})
	t.Run("a host's line", func(t *testing.T) {
		dir := edit(t, text, `"host":"node0006"`, `"host":"node0666"`)
		j, run, damaged, err := Resume(dir, Last)
		if err != nil || len(damaged) != 1 || damaged[0].Seqs != nil || damaged[0].Anyone || !run.Hosts[6].Lost || run.Hosts[6].State != Done {
			t.Fatal(run, damaged, err)
		}
		closed(t, j)
		dir = edit(t, text, `"host":"node0009"`, `"host":"node0999"`)
		if j, _, _, err = Resume(dir, Last); err != nil {
			t.Fatal(err)
		}
		if rest := j.Rest(nil); len(rest) != 1 || rest[0].Name != "node0008" {
			t.Errorf("given out: %v", rest)
		}
		closed(t, j)
		if names, err := Hosts(dir, Last, NotBegun); err != nil || len(names) != 1 {
			t.Error(names, err)
		}
	})
	t.Run("lines that contradict", func(t *testing.T) {
		for _, c := range []struct{ prefix, old, new, want string }{
			{`{"type":"result","seq":1`, `"seq":1`, `"seq":9`, `this result is of "node0001", and host 9 is "node0009"`},
			{`{"type":"result","seq":1`, `"seq":1`, `"seq":10`, `this result is of no host of the run`},
			{`{"type":"result","seq":1`, `"seq":1`, `"seq":-1`, `this result is of no host of the run`},
			{`{"type":"result","seq":1`, `"ok"`, `"okay"`, `there is no outcome "okay"`},
			{`{"type":"start","seq":4`, `"seq":4,"host":"node0004"`, `"seq":1,"host":"node0001"`, `this start of "node0001" comes after its result`},
			{`{"type":"host","seq":4`, `"seq":4`, `"seq":400000`, `hosts are missing before this one`},
			{`{"type":"host","seq":4`, `"seq":4`, `"seq":3`, `a host is out of its place`},
			{`{"type":"resume"`, `resume`, `run`, `a second run begins here`},
			{`{"type":"run"`, `"hosts":10`, `"hosts":1000000000`, `hosts are missing before this line`},
			{`{"type":"result","seq":1`, `"seq":1`, `"seq":"1"`, `this is no line of a journal: `},
		} {
			_, damaged, _, _ := readAll(resealed(t, text, c.prefix, c.old, c.new))
			if len(damaged) == 0 || !strings.HasPrefix(damaged[0].Err.Error(), c.want) {
				t.Errorf("%s: damaged %v, want %s", c.new, damaged, c.want)
			}
		}
		if run, damaged, _, err := readAll(resealed(t, text, `{"type":"resume"`, `resume`, `tea`)); err != nil || len(damaged) > 0 || states(run) != "xxx?x?x?--" {
			t.Errorf("a kind of line that is to come: %v, %v", damaged, err)
		}
	})
	t.Run("long", func(t *testing.T) {
		at := begins(t, text) + 1
		long := slices.Concat(text[:at], bytes.Repeat([]byte("x"), maxLine+10), []byte("\n"), text[at:])
		run, damaged, _, err := readAll(long)
		if err != nil || len(damaged) != 1 || !damaged[0].Anyone || states(run) != "xxx?x?x?--" {
			t.Error(damaged, err)
		}
	})
	t.Run("rebooted", func(t *testing.T) {
		if bootID() == "" {
			t.Skip("this system does not tell its boots apart")
		}
		cut := text[:bytes.LastIndex(text, []byte(`{"type":"end"`))]
		run, _, _, err := readAll(resealed(t, cut, `{"type":"resume"`, bootID(), "another"))
		if err != nil || !run.Rebooted {
			t.Error(run, err)
		}
		if run, _, _, err := readAll(cut); err != nil || run.Rebooted {
			t.Error(run, err)
		}
	})
	t.Run("not a file", func(t *testing.T) {
		dir := edit(t, text, "head", "head")
		path := filepath.Join(dir, "20261123-041502-7f3a", journalFile)
		if err := errors.Join(os.Rename(path, filepath.Join(dir, "other")), os.Symlink("../other", path)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(dir, Last); err == nil {
			t.Error("a link was followed")
		}
		if list, err := List(dir); err != nil || len(list) != 1 || list[0].Err == nil {
			t.Error(list, err)
		}
	})
}

// Names that say which run is meant, and those that do not.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	none := (*NameError)(nil)
	if _, err := Find(filepath.Join(dir, "none"), Last); !errors.As(err, &none) || err.Error() != "there is no run yet" {
		t.Error(err)
	}
	for _, id := range []string{"20261123-041502-7f3a", "20261123-041502-7f3b", "20251123-041502-0000"} {
		if err := os.Mkdir(filepath.Join(dir, id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(dir, "20271123-041502-7f3a"), nil, 0o600)
	os.Symlink("20261123-041502-7f3a", filepath.Join(dir, "20281123-041502-7f3a"))
	for name, want := range map[string]string{
		"last": "20261123-041502-7f3b", "2025": "20251123-041502-0000", "20261123-041502-7f3a": "20261123-041502-7f3a",
		"2026": `"2026" can be any of 20261123-041502-7f3b, 20261123-041502-7f3a`, "2027": `there is no run "2027": multi-rsh runs lists those that there are`,
		"": `there is no run "": multi-rsh runs lists those that there are`, "../x": `there is no run "../x": multi-rsh runs lists those that there are`,
	} {
		got, err := Find(dir, name)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// FuzzLoad reads anything; with sealed, each line has a checksum that is right.
func FuzzLoad(f *testing.F) {
	text := sample(f)
	f.Add(text, false)
	var bare []byte
	for line := range bytes.Lines(text) {
		bare = append(append(bare, line[:bytes.LastIndex(line, []byte(crcKey))]...), '\n')
	}
	f.Add(bare, true)
	f.Fuzz(func(t *testing.T, text []byte, sealed bool) {
		if sealed {
			var out []byte
			for line := range bytes.Lines(text) {
				out = append(out, seal(slices.Clone(bytes.TrimSuffix(line, []byte("\n"))))...)
			}
			text = out
		}
		run, damaged, keep, err := readAll(text)
		for _, d := range damaged {
			if d.Line < 1 || d.Line > bytes.Count(text, []byte("\n"))+1 || d.Err == nil {
				t.Errorf("%+v", d)
			}
		}
		if err != nil {
			return
		}
		if keep < 0 || keep > int64(len(text)) {
			t.Errorf("%d bytes of %d are to be kept", keep, len(text))
		}
		c := run.Counts()
		all := c.NotRun + c.Open
		for outcome, n := range c.Outcomes {
			if all += n; !slices.Contains(outcomes, outcome) {
				t.Errorf("outcome %q", outcome)
			}
		}
		if all != len(run.Hosts) {
			t.Errorf("%d hosts are counted of %d", all, len(run.Hosts))
		}
		for i, h := range run.Hosts {
			if h.Seq != i || (h.State == Done) != (h.Result != nil) {
				t.Errorf("host %d: %+v", i, h)
			}
		}
		// What is kept says the same, but for lines that were not written to their end.
		run2, _, keep2, err := readAll(text[:keep])
		if err != nil || keep2 != keep || states(run2) != states(run) {
			t.Errorf("%s from %d bytes, %s from %d: %v", states(run), keep, states(run2), keep2, err)
		}
	})
}

// FuzzText: any string comes back, in a line that is JSON.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "node7", "a\xffb", "\x00\n\"\\", "\u2028\ufffd", `{"base64":"eA=="}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line := bytes.TrimSuffix(appendHost(nil, 7, numberedHost(s)), []byte("\n"))
		if !json.Valid(line) || bytes.ContainsAny(line, "\n") {
			t.Fatalf("%q", line)
		}
		e, err := parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(numberedHost(s), e.host()); diff != "" {
			t.Error(diff)
		}
	})
}

func numberedHost(s string) transport.Host {
	return transport.Host{Name: s, Addr: s, User: s, Jump: s, Transport: s, Port: 22, Vars: map[string]string{s: s}}
}
