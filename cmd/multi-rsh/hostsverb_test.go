package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
)

func TestReadExpression(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"a\nb c\n", "a\nb c"},
		{"# all of it", ""},
		{"#\n# one\na # two\nb,# three\nc#d\n", "\n\na \nb,\nc#d"},
		{"a\r\n#b\r\nc\r\n", "a\r\n\nc"},
	} {
		got, err := readExpression(strings.NewReader(tt.text))
		if err != nil || got.text != tt.want {
			t.Errorf("%q: %v, %v; want %q", tt.text, got, err, tt.want)
		}
	}
}

func TestReadFolded(t *testing.T) {
	for _, tt := range []struct {
		text, want string
		plain      bool
	}{
		{"", "", true},
		{" \n\t# none\n", "", true},
		{"n1 n3\nn2", "n[1-3]", true},
		{"n1,n2 , n3,", "n[1-3]", true},
		{"n2\r\nn1 # n9\r\n# n8\nn3,#n7\n", "n[1-3]", true},
		// from the first item on that is more than a name, the text stays
		{"n1 n2 n[3-4]!n1 n0", "n[1-2] n[3-4]!n1 n0", false},
		{"n1,n2!n1", "n1,n2!n1", false},
		{"n1 # no\nn2 -n1 # no", "n[1-2] -n1", false},
		{"n[1-2] # no\nn3", "n[1-2] \nn3", false},
		{"@web", "@web", false},
		{"n1 .n2", "n1 .n2", false},
		{"n1,n2#3", "n1,n2#3", false},
		{"n1 ::1", "n1 ::1", false},
		// an empty item stays one
		{",n1", ",n1", false},
		{"n1,,n2", "n1,,n2", false},
		{"n1\n,\n,n2", "n1,,n2", false},
		{"n1\n,n2", "n[1-2]", true},
		{strings.Repeat("x", 254), strings.Repeat("x", 254), false},
	} {
		for name, reader := range map[string]io.Reader{
			"whole":         strings.NewReader(tt.text),
			"byte by byte":  iotest.OneByteReader(strings.NewReader(tt.text)),
			"with its end":  iotest.DataErrReader(strings.NewReader(tt.text)),
			"half by halfs": iotest.HalfReader(strings.NewReader(tt.text)),
		} {
			got, err := readFolded(reader)
			if err != nil || got.text != tt.want || got.plain() != tt.plain {
				t.Errorf("%q, %s: %v, %v; want %q, plain %v", tt.text, name, got, err, tt.want, tt.plain)
			}
		}
	}
}

// Text of many chunks, in lines of all lengths: folded or not it means the same hosts.
func TestReadManyChunks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, odd := range []int{0, 10, 5000, 90_000} { // how many of the items are more than a name
		var text strings.Builder
		want := map[string]bool{}
		for i := range 100_000 {
			name := fmt.Sprintf("n%d", random.IntN(200_000))
			want[name] = true
			if random.IntN(100_000) < odd && i > 50_000 {
				name = strings.Replace(name, "n", "n[", 1) + "]"
			}
			text.WriteString(name)
			text.WriteString([]string{" ", ",", "\n", " # a comment, of some length\n", "\t \r\n", " , "}[random.IntN(6)])
		}
		folded, err := readFolded(strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		whole, err := readExpression(strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		sorted := slices.Sorted(func(yield func(string) bool) {
			for name := range want {
				if !yield(name) {
					return
				}
			}
		})
		for _, expr := range []*written{folded, whole} {
			list, err := hostlist.Hosts(expr.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(sorted, slices.Sorted(list.All())); diff != "" {
				t.Errorf("%d odd items: -want +got:\n%s", odd, diff)
			}
		}
		if folded.plain() != (odd == 0) {
			t.Errorf("%d odd items: plain = %v", odd, folded.plain())
		}
	}
}

func TestReadFails(t *testing.T) {
	for name, read := range map[string]func(io.Reader) (*written, error){"folded": readFolded, "whole": readExpression} {
		broken := io.MultiReader(strings.NewReader("n1 n2\n"), iotest.ErrReader(errors.New("input/output error")))
		if text, err := read(broken); err == nil || err.Error() != "standard input cannot be read: input/output error" {
			t.Errorf("%s: %v, %v", name, text, err)
		}
	}
	for _, err := range chunks(strings.NewReader(strings.Repeat("node1\n", 1<<18)), 1<<20) {
		if err != nil {
			if want := "standard input has more than 1 MB; that is no list of hosts"; err.Error() != want {
				t.Errorf("%v; want %s", err, want)
			}
			return
		}
	}
	t.Error("no limit to the input")
}

func TestSets(t *testing.T) {
	for _, tt := range []struct {
		names      string
		n          int
		roundRobin bool
		want       string
	}{
		{"a b c d e f g", 3, false, "a b c|d e|f g"},
		{"a b c d e f g", 3, true, "a d g|b e|c f"},
		{"a b", 5, false, "a|b"},
		{"a b", 5, true, "a|b"},
		{"a b", 1, false, "a b"},
		{"", 3, false, ""},
		{"", 3, true, ""},
	} {
		var got []string
		for _, set := range sets(strings.Fields(tt.names), tt.n, tt.roundRobin) {
			got = append(got, strings.Join(set, " "))
		}
		if got := strings.Join(got, "|"); got != tt.want {
			t.Errorf("%d sets of %q, round robin %v: %q, want %q", tt.n, tt.names, tt.roundRobin, got, tt.want)
		}
	}
}

// Each set of 2 of 4 is as likely as the others, and keeps the order.
func TestSample(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	times := map[string]int{}
	const rounds = 60_000
	for range rounds {
		var picked []string
		for name := range sample(slices.Values([]string{"a", "b", "c", "d"}), 4, 2, random.IntN) {
			picked = append(picked, name)
		}
		times[strings.Join(picked, "")]++
	}
	for _, set := range []string{"ab", "ac", "ad", "bc", "bd", "cd"} {
		if n := times[set]; n < rounds/6*9/10 || n > rounds/6*11/10 {
			t.Errorf("%s came %d times of %d, want about a sixth", set, n, rounds)
		}
	}
	if len(times) != 6 {
		t.Errorf("picked: %v", times)
	}
}

// The verb's page fits one screen, and shows every sub-command and option.
func TestHostsHelpFitsAScreen(t *testing.T) {
	var page bytes.Buffer
	if err := hostsLine.help(&page, hostsHelp); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(page.String(), "\n"), "\n")
	if len(lines) < 24 || len(lines) > 50 {
		t.Errorf("%d lines, want 24 to 50", len(lines))
	}
	for _, line := range lines {
		if len(line) > 80 {
			t.Errorf("%d columns, want at most 80: %s", len(line), line)
		}
	}
	for _, name := range hostsNames() {
		if !strings.Contains(page.String(), " multi-rsh hosts "+name+" ") {
			t.Errorf("%s is missing", name)
		}
	}
	for _, o := range hostsLine.options {
		if !strings.Contains(page.String(), " --"+o.name+" ") {
			t.Errorf("--%s is missing", o.name)
		}
	}
}

// The verb's manual describes every sub-command and option that exists, and no other.
func TestHostsManual(t *testing.T) {
	var want, got []string
	for _, name := range hostsNames() {
		want = append(want, "Cm "+name)
	}
	for _, o := range hostsLine.options {
		var item strings.Builder
		for _, letter := range o.letters {
			item.WriteString("Fl " + string(letter) + " , ")
		}
		item.WriteString("Fl Fl " + o.name)
		if o.arg != "" {
			item.WriteString(" Ar " + strings.ToLower(o.arg))
		}
		want = append(want, item.String())
	}
	_, description, _ := strings.Cut(string(hostsManual), "\n.Sh DESCRIPTION\n")
	description, _, _ = strings.Cut(description, "\n.Sh ")
	for line := range strings.Lines(description) {
		if item, isItem := strings.CutPrefix(line, ".It "); isItem {
			got = append(got, strings.TrimSpace(item))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in the tables, in the manual (-want +got):\n%s", diff)
	}
}

// Every sub-command and option is used in a script.
func TestHostsScriptsUseEverything(t *testing.T) {
	files, err := filepath.Glob("testdata/script/hosts*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for _, name := range hostsNames() {
		if !strings.Contains(all.String(), " multi-rsh hosts "+name+" ") {
			t.Errorf("no script uses %s", name)
		}
	}
	for _, o := range hostsLine.options {
		for _, letter := range o.letters {
			if !strings.Contains(all.String(), " -"+string(letter)) {
				t.Errorf("no script uses -%c", letter)
			}
		}
		if !strings.Contains(all.String(), " --"+o.name) {
			t.Errorf("no script uses --%s", o.name)
		}
	}
}

// nodeset is the peer; where it is installed both must agree.
func TestAgainstNodeset(t *testing.T) {
	nodeset, err := exec.LookPath("nodeset")
	if err != nil {
		t.Skip("nodeset is not installed: apt-get install clustershell")
	}
	dir := t.TempDir()
	write := func(name string, lines ...string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write("groups.yaml",
		"local:",
		"  all: 'node[1-20],login[1-2]'",
		"  compute: 'node[1-20]'",
		"  rack1: 'node[1-10]'",
		"  rack2: 'node[11-20]'",
		"  login: 'login[1-2]'",
		"racks:",
		"  r1: 'node[1-10]'")
	conf := write("groups.conf", "[Main]", "default: local", "autodir: "+dir)
	config := write("config.toml", "[groups]", `default = "local"`, "[groups.source.local]", fmt.Sprintf("clustershell = %q", conf))
	ours := func(args ...string) (string, int) {
		var stdout, stderr bytes.Buffer
		status := run(&env{
			Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Now: time.Now, Etc: dir,
			Args:    slices.Concat([]string{"hosts"}, args, []string{"--config", config}),
			Getenv:  func(string) string { return "" },
			Signals: func() <-chan os.Signal { return nil },
		})
		return stdout.String() + stderr.String(), status
	}
	theirs := func(args ...string) string {
		cmd := exec.Command(nodeset, append([]string{"--groupsconf=" + conf}, args...)...)
		text, err := cmd.Output()
		if err != nil {
			t.Fatalf("nodeset %q: %v", args, err)
		}
		return string(text)
	}
	same := func(text string) string { return text }
	sorted := func(text string) string { return strings.Join(slices.Sorted(strings.FieldsSeq(text)), " ") }
	for _, tt := range []struct {
		ours, theirs string // blanks part the arguments
		by           func(string) string
	}{
		{"expand node[1-3,7]", "-e node[1-3,7]", sorted},
		{"expand r[1-2]n[08-10/2]", "-e r[1-2]n[08-10/2]", sorted},
		{"expand node[1-9]!node[2-8]", "-e node[1-9]!node[2-8]", sorted},
		{"expand node[1-9]&node[5-12]", "-e node[1-9]&node[5-12]", sorted},
		{"expand node[1-9]^node[5-12]", "-e node[1-9]^node[5-12]", sorted},
		{"expand @rack1", "-e @rack1", sorted},
		{"expand node[1-3] -S :", "-S : -e node[1-3]", same},
		{"expand a,b&b", "-e a,b&b", same},
		{"fold node3 node1 node2 web1", "-f node3 node1 node2 web1", same},
		{"fold n[1-5] n8 n[7,9]", "-f n[1-5] n8 n[7,9]", same},
		{"fold dc1n2 dc2n2 dc1n1 dc2n1", "-f dc1n2 dc2n2 dc1n1 dc2n1", same},
		{"fold node[32-159] -x node33", "-f node[32-159] -x node33", same},
		{"fold node[32-159] -i node[0-7,20-21,32,156-159]", "-f node[32-159] -i node[0-7,20-21,32,156-159]", same},
		{"fold @rack1 @login", "-f @rack1 @login", same},
		{"fold @compute!@rack1", "-f @compute!@rack1", same},
		{"fold @racks:r1&node[3-30]", "-f @racks:r1&node[3-30]", same},
		{"fold node*&node[3-30]", "-f node*&node[3-30]", same},
		{"fold log*", "-f log*", same},
		{"fold -a", "-f -a", same},
		{"fold @*", "-f @*", same},
		{"count node[0-7,32-159] node[160-163]", "-c node[0-7,32-159] node[160-163]", same},
		{"count dc[1-2]n[100-199]", "-c dc[1-2]n[100-199]", same},
		{"count @login", "-c @login", same},
		{"count a&b", "-c a&b", same},
		{"list", "-l", sorted},
		{"list node1", "-l node1", sorted},
		{"list -A", "-L", func(text string) string { return sorted(strings.ReplaceAll(text, "@local:", "@")) }},
		{"list -s racks", "-s racks -l", same},
		{"regroup node[1-10]", "-r node[1-10]", same},
		{"regroup node[1-20]", "-r node[1-20]", same},
		{"regroup node[1-12]", "-r node[1-12]", same},
		{"regroup node[1-20] login[1-2]", "-r node[1-20] login[1-2]", same},
		{"regroup other", "-r other", same},
		{"regroup node[1-10] -s racks", "-s racks -r node[1-10]", same},
		{"split 3 node[1-10]", "--split=3 -f node[1-10]", same},
		{"split 20 node[1-4]", "--split=20 -f node[1-4]", same},
		{"split 3 --expand node[1-9]", "--split=3 -e node[1-9]", same},
		{"pick 2 node[1-10]", "--pick=2 -c node[1-10]", func(text string) string {
			if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
				return strconv.Itoa(n)
			}
			return strconv.Itoa(len(strings.Fields(text)))
		}},
		{"pick 40 --fold node[1-3]", "--pick=40 -f node[1-3]", same},
	} {
		got, status := ours(strings.Fields(tt.ours)...)
		if want := theirs(strings.Fields(tt.theirs)...); tt.by(got) != tt.by(want) || status != 0 {
			t.Errorf("hosts %s:\n%snodeset %s:\n%s", tt.ours, got, tt.theirs, want)
		}
	}
}

// Folded as it is read or not, the text means the same hosts, or is refused.
func FuzzReadFolded(f *testing.F) {
	for _, text := range []string{
		"n1 n2\nn3", "n2,n1 # n9\n#\nn[3-4]!n1 n1", "a,,b", "a\n,\nb", "a,#b\nc", "a#b", "b a&b", "a b^b c", "n1 -n1", "n1 n2 /2$/", "n01 n1 -/0/ # x",
		"::1 10.0.0.0/30", "a1 @web", "a\x00b", "\xff", "-a", ".a", "a.. _ 1", "a, \r\n b,",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		whole, err := readExpression(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		folded, err := readFolded(iotest.HalfReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		if whole.text == "" || folded.text == "" {
			if whole.text != folded.text {
				t.Fatalf("%q: read as %q, and folded as %q", text, whole.text, folded.text)
			}
			return
		}
		want, wantErr := hostlist.Hosts(whole.text)
		got, err := hostlist.Hosts(folded.text)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, and folded %v", text, wantErr, err)
		}
		if err != nil {
			folded.place(err, folded.text, 0)
			whole.place(wantErr, whole.text, 0)
			return
		}
		if want.Len() > 100_000 {
			return
		}
		if diff := cmp.Diff(slices.Sorted(want.All()), slices.Sorted(got.All())); diff != "" {
			t.Fatalf("%q: -whole +folded:\n%s", text, diff)
		}
		if folded.plain() && hostlist.Fold(want.All()) != folded.text {
			t.Fatalf("%q: %s, want %s", text, folded.text, hostlist.Fold(want.All()))
		}
	})
}
