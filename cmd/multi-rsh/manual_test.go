package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// section is the part of the manual under a heading.
func section(t testing.TB, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(string(manual), "\n.Sh "+heading+"\n")
	if !found {
		t.Fatalf("the manual has no section %s", heading)
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	return text
}

// The manual describes every option that exists, with its letters and its value, and no other.
func TestManualOptions(t *testing.T) {
	var want, got []string
	for _, o := range runLine.options {
		var item strings.Builder
		for _, letter := range o.letters {
			item.WriteString("Fl " + string(letter) + " , ")
		}
		item.WriteString("Fl Fl " + o.name)
		switch arg := "Ar " + strings.ToLower(o.arg); {
		case o.unless != "":
			item.WriteString(" Ns Op = Ns " + arg)
		case o.arg != "":
			item.WriteString(" " + arg)
		}
		want = append(want, item.String())
	}
	for line := range strings.Lines(section(t, "DESCRIPTION")) {
		if item, isItem := strings.CutPrefix(line, ".It "); isItem {
			got = append(got, strings.TrimSpace(item))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("options in the table, in the manual (-want +got):\n%s", diff)
	}
}

func TestManualEnvironment(t *testing.T) {
	var want, got []string
	for _, o := range runLine.options {
		if v := o.variable(); v != "" {
			want = append(want, v+" --"+o.name)
		}
	}
	for _, match := range regexp.MustCompile(`\.It Ev (MULTI_RSH_\w+)\n\.Fl Fl ([\w-]+)`).FindAllStringSubmatch(section(t, "ENVIRONMENT"), -1) {
		got = append(got, match[1]+" --"+match[2])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("variables in the table, in the manual (-want +got):\n%s", diff)
	}
}

func TestManualExitStatus(t *testing.T) {
	items := func(text string) (items []string) {
		for _, match := range regexp.MustCompile(`(?m)^\.It (.*)$`).FindAllStringSubmatch(text, -1) {
			items = append(items, match[1])
		}
		return items
	}
	always, withS, found := strings.Cut(section(t, "EXIT STATUS"), "\n.Fl S ,\n")
	if !found {
		t.Fatal("the manual does not say what -S does to the exit status")
	}
	number := func(codes ...int) (texts []string) {
		for _, code := range codes {
			texts = append(texts, strconv.Itoa(code))
		}
		return texts
	}
	if diff := cmp.Diff(number(exitOK, exitHosts, exitUsage, exitFailure, exitInterrupted, exitTerminated), items(always)); diff != "" {
		t.Errorf("exit statuses (-code +manual):\n%s", diff)
	}
	want := append([]string{"1 to 255", "128+n"}, number(exitTimeout, exitNoConnect, exitUnknown)...)
	if diff := cmp.Diff(want, items(withS)); diff != "" {
		t.Errorf("exit statuses with -S (-code +manual):\n%s", diff)
	}
}

// The pages are free of warnings in both of the renderers that systems have.
func TestManualRenders(t *testing.T) {
	t.Run("multi-rsh.1", func(t *testing.T) { checkRenders(t, manual) })
	t.Run("multi-rsh-hosts.1", func(t *testing.T) { checkRenders(t, hostsManual) })
	t.Run("multi-rsh-doctor.1", func(t *testing.T) { checkRenders(t, doctorManual) })
}

func checkRenders(t *testing.T, page []byte) {
	renderers := [][]string{{"mandoc", "-Tlint", "-Wwarning"}, {"groff", "-mdoc", "-ww", "-z", "-Tutf8"}}
	missing := 0
	for _, renderer := range renderers {
		if _, err := exec.LookPath(renderer[0]); err != nil {
			missing++
			continue
		}
		cmd := exec.Command(renderer[0], renderer[1:]...)
		cmd.Stdin = bytes.NewReader(page)
		said, err := cmd.CombinedOutput()
		// mandoc's own database may be out of date: that says nothing about the page.
		complaints := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(said)), "\n"), func(line string) bool {
			return line == "" || strings.Contains(line, "outdated mandoc.db")
		})
		if len(complaints) > 0 {
			t.Errorf("%s: %v\n%s", renderer[0], err, strings.Join(complaints, "\n"))
		}
	}
	if missing == len(renderers) {
		t.Skip("neither mandoc nor groff is installed: apt-get install mandoc")
	}
}

// example writes the file that a section of the manual shows.
func example(t testing.TB, heading, name string) string {
	t.Helper()
	_, text, found := strings.Cut(section(t, heading), "\n.Bd -literal -offset indent\n")
	text, _, ended := strings.Cut(text, "\n.Ed\n")
	if !found || !ended {
		t.Fatalf("the manual shows no file in %s", heading)
	}
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, `\e`, `\`)), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// The hosts file in the manual is one.
func TestManualHostsFile(t *testing.T) {
	name := example(t, "HOSTS FILES", "hosts")
	included := filepath.Join(filepath.Dir(name), "hosts.d")
	if err := os.Mkdir(included, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(included, "more"), []byte("more[1-2]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := testEnv(nil, "-l", name, "true")
	c, err := e.configure()
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := e.selectHosts(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if hosts.count != 28 || !hosts.by["ssh"] || !hosts.by["rsh"] {
		t.Errorf("%d hosts, by %v", hosts.count, hosts.by)
	}
}

// The configuration in the manual is one.
func TestManualConfiguration(t *testing.T) {
	f, err := readConfig(example(t, "CONFIGURATION", "config.toml"), "/home/ops")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.options) != 4 || len(f.hosts) != 2 || len(f.groups.sources) != 4 {
		t.Errorf("%d options, %d [[hosts]], %d sources", len(f.options), len(f.hosts), len(f.groups.sources))
	}
}

// Each page of the help fits one screen, and those of a run together show every option of it.
func TestHelpFitsAScreen(t *testing.T) {
	var all strings.Builder
	check := func(name string, l *commandLine, page helpPage) {
		var text bytes.Buffer
		if err := l.help(&text, page); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
		if len(lines) > 50 {
			t.Errorf("%s: %d lines, want at most 50", name, len(lines))
		}
		for _, line := range lines {
			if len(line) > 80 {
				t.Errorf("%s: %d columns, want at most 80: %s", name, len(line), line)
			}
		}
		if l == runLine {
			all.Write(text.Bytes())
		}
	}
	check("--help", runLine, runHelp)
	for topic, page := range helpTopics {
		check("--help "+topic, runLine, page)
	}
	check("replay --help", replayLine, replayHelp)
	check("report --help", reportLine, reportHelp)
	check("doctor --help", doctorLine, doctorHelp)
	for _, o := range runLine.options {
		if !strings.Contains(all.String(), " "+o.usage()+" ") {
			t.Errorf("--%s is missing", o.name)
		}
	}
}
