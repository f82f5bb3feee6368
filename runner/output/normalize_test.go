package output

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"multirsh/transport"
)

func TestParseNormalize(t *testing.T) {
	for text, want := range map[string]Normalize{
		"host":              {Host: true},
		"num,ip":            {Num: true, IP: true},
		"host, time,ip,num": {Host: true, Num: true, Time: true, IP: true},
		"num,num":           {Num: true},
	} {
		got, err := ParseNormalize(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"", `"", column 1: host, num, time or ip is expected here

^`},
		{"host,,num", `"host,,num", column 6: host, num, time or ip is expected here
host,,num
     ^`},
		{"host, nums", `"host, nums", column 7: there is no "nums"; host, num, time and ip can be disregarded
host, nums
      ^`},
	} {
		_, err := ParseNormalize(tt.text)
		if diff := cmp.Diff(tt.want, withCaret(t, err)); diff != "" {
			t.Errorf("%s: %s", tt.text, diff)
		}
	}
}

// withCaret is the text of an error and the place.
func withCaret(tb testing.TB, err error) string {
	tb.Helper()
	e := (*SyntaxError)(nil)
	if !errors.As(err, &e) {
		tb.Fatalf("%v is no SyntaxError", err)
	}
	return e.Error() + "\n" + e.Caret()
}

// substitutions are tried here and, with its -E, in sed.
var substitutions = []struct{ expr, line, want string }{
	{"s/a/b/", "banana", "bbnana"},
	{"s/a/b/g", "banana", "bbnbnb"},
	{"s/A/b/gi", "banana", "bbnbnb"},
	{"s/x//", "banana", "banana"},
	{"s/an//g", "banana", "ba"},
	{"s|/usr|/opt|", "/usr/usr", "/opt/usr"},
	{`s/\/usr/\/opt/`, "/usr/usr", "/opt/usr"},
	{"s/[/]usr/x/", "/usr", "x"},
	{"s/[^]/]+/x/", "a/b", "x/b"},
	{"s/[[:digit:]/]+/x/", "a1/2b", "axb"},
	{"s,[0-9]+ ms,N ms,g", "12 ms, 3 ms", "N ms, N ms"},
	{`s/([a-z]+) ([a-z]+)/\2 \1/`, "hello world", "world hello"},
	{`s/[a-z]+/<&>/g`, "hello world", "<hello> <world>"},
	{`s/o/\&\\/`, "hello", `hell&\`},
	{`s/(a)|b/[\1]/g`, "ab", "[a][]"},
	{`s/$/!/`, "end", "end!"},
	{`s/^/> /g`, "begin", "> begin"},
	{`s/x*/-/g`, "abc", "-a-b-c-"},
	{`s/a\.b/x/`, "aab a.b", "aab x"},
	{`s/\\/x/`, `a\b`, "axb"},
	{"sxaxbx", "banana", "bbnana"},
	{`s/ä+/ü/`, "xäay", "xüay"},
	{`s&a&b\&&`, "a", "b&"},
}

func TestRegexp(t *testing.T) {
	sed, err := exec.LookPath("sed")
	if version, _ := exec.Command("sed", "--version").Output(); err != nil || !strings.Contains(string(version), "GNU") {
		t.Log("the cases are not tried in sed: there is no GNU sed")
		sed = ""
	}
	for _, tt := range substitutions {
		r := mustRegexp(t, tt.expr)
		if got := string(r.apply(nil, []byte(tt.line), func([]byte) {})); got != tt.want {
			t.Errorf("%s makes %q of %q, want %q", tt.expr, got, tt.line, tt.want)
		}
		if r.String() != tt.expr {
			t.Errorf("%s is shown as %s", tt.expr, r)
		}
		if sed == "" {
			continue
		}
		cmd := exec.Command(sed, "-E", tt.expr)
		cmd.Env = append(cmd.Environ(), "LC_ALL=C.UTF-8")
		cmd.Stdin = strings.NewReader(tt.line + "\n")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != tt.want+"\n" {
			t.Errorf("sed -E '%s' makes %q of %q (%v), want %q", tt.expr, out, tt.line, err, tt.want)
		}
	}
}

// TestRegexpDelimiter: what is escaped because it is the delimiter is no operator (POSIX). GNU sed makes it one.
func TestRegexpDelimiter(t *testing.T) {
	if got := string(mustRegexp(t, `s|a\|b|x|`).apply(nil, []byte("b a|b"), func([]byte) {})); got != "b x" {
		t.Errorf("%q", got)
	}
}

func TestRegexpErrors(t *testing.T) {
	for _, tt := range []struct {
		text string
		at   int
		msg  string
	}{
		{"", 0, "a substitution is expected"},
		{"y/a/b/", 0, "a substitution is expected"},
		{"s", 1, "a slash is expected here"},
		{`s\a\b\`, 1, "a backslash cannot"},
		{"s/a", 3, "/ is expected, and then"},
		{`s/a\/b`, 6, "/ is expected, and then"},
		{"s/a/b", 5, "/ is expected at the end"},
		{"s/a/b/gx", 7, "there is no flag 'x'"},
		{"s//b/", 2, "a regular expression is expected"},
		{"s/ab(c/x/", 2, "missing closing )"},
		{"s/ab[c/x/", 4, "missing closing ]"},
		{"s/ab/[/x/", 7, "there is no flag 'x'"},
		{"s/ab**/x/", 4, "invalid nested repetition operator"},
		{`s/ab(?=c)/x/`, 4, "invalid or unsupported Perl syntax"},
		{`s/(a)/\2/`, 6, "the regular expression has no group 2"},
		{`s/a/b\q/`, 5, "after a backslash"},
		{"s/a/\n/", 4, "a substitution is within one line"},
		{"s/\xff/a/", 0, "this is not UTF-8"},
	} {
		_, err := ParseRegexp(tt.text)
		e := (*SyntaxError)(nil)
		if !errors.As(err, &e) || e.Offset != tt.at || !strings.HasPrefix(e.Msg, tt.msg) {
			t.Errorf("%q: %+v, want %q at %d", tt.text, e, tt.msg, tt.at)
		}
	}
	_, err := ParseRegexp("s/[0-9+/N/")
	if diff := cmp.Diff("\"s/[0-9+/N/\", column 3: missing closing ]\ns/[0-9+/N/\n  ^", withCaret(t, err)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseRegexp(f *testing.F) {
	for _, s := range substitutions {
		f.Add(s.expr, s.line)
	}
	f.Add("s/[/x/", "[")
	f.Add(`s/\`, "")
	f.Add("s/(((a)*)*)*/\\3/g", "aaaaaaaaaab")
	f.Fuzz(func(t *testing.T, text, line string) {
		r, err := ParseRegexp(text)
		if err != nil {
			e := (*SyntaxError)(nil)
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) || e.Msg == "" {
				t.Errorf("%q: %+v", text, err)
			} else if caret := e.Caret(); strings.Count(caret, "\n") != 1 {
				t.Errorf("%q: %q", text, caret)
			}
			return
		}
		if !utf8.ValidString(text) {
			t.Errorf("%q is accepted", text)
		}
		n := &Normalize{Regexps: []*Regexp{r}, Host: true, IP: true, Time: true, Num: true}
		x := newNormalizer(n)
		line, _, _ = strings.Cut(line, "\n")
		parts := make(replacements, partRegexps+1)
		names := []string{"node1"}
		got := string(x.appendLine([]byte("> "), []byte(line+"\n"), names, parts))
		if !strings.HasPrefix(got, "> ") || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") {
			t.Errorf("%q makes %q of %q", text, got, line)
		}
		if !r.re.MatchString(line) && parts[partRegexps] != 0 {
			t.Errorf("%q replaces something in %q, where it does not match", text, line)
		}
	})
}

func TestNormalize(t *testing.T) {
	all := Normalize{Host: true, IP: true, Time: true, Num: true}
	node := transport.Host{Name: "node1.example.com", Addr: "192.0.2.7"}
	for _, tt := range []struct {
		n          Normalize
		line, want string // H, I, T and N in braces are the marks
	}{
		{Normalize{Host: true}, "node1.example.com node1 NODE1.Example.com 192.0.2.7 node10 xnode1 node1-eth0", "{H} {H} {H} {H} node10 xnode1 node1-eth0"},
		{Normalize{Host: true}, "node1.cluster node1: /node1/ user@node1", "{H}.cluster {H}: /{H}/ user@{H}"},
		{Normalize{Num: true}, "eth0 12 1.5 0x7fFF 3.", "eth{N} {N} {N} {N} {N}."},
		{Normalize{Num: true}, "v1.2.3 -7 0xyz", "v{N}.{N} -{N} {N}xyz"},
		{Normalize{IP: true}, "10.0.0.1 10.0.0.1:22 (10.0.0.1). 10.0.0.1/24 256.1.1.1 1.2.3 1.2.3.4.5 a10.0.0.1", "{I} {I}:22 ({I}). {I}/24 256.1.1.1 1.2.3 1.2.3.4.5 a10.0.0.1"},
		{Normalize{IP: true}, "::1 fe80::1%eth0 [2001:db8::7]:22 ::ffff:1.2.3.4, 2001:db8::1.", "{I} {I}%eth0 [{I}]:22 {I}, {I}."},
		{Normalize{IP: true}, "std::abs(x) 12:34:56 dead:beef a:b a::b", "std::abs(x) 12:34:56 dead:beef a:b {I}"},
		{Normalize{Time: true}, "12:34:56 7:05 24:00 12:60 at 23:59:60.123, 5:00 PM 5:00pm", "{T} {T} 24:00 12:60 at {T}, {T} {T}"},
		{Normalize{Time: true}, "2025-11-23T00:34:12Z 2025-11-23T00:34:12.5+01:00 2025-11-23 00:34:12 +0100 2025/11/23 2025-13-01 20251123T003412Z", "{T} {T} {T} {T} 2025-13-01 {T}"},
		{Normalize{Time: true}, "Sun Nov 23 00:34:12 UTC 2025|Sun, 23 Nov 2025 00:34:12 GMT|Nov  3 01:02:03 host|Sun 23 Nov 2025 12:34:56 AM CET", "{T}|{T}|{T} host|{T}"},
		{Normalize{Time: true}, "-rw-r--r-- 1 root 12 Jan  2  2006 f|Jan 12 15:04 g|[10/Oct/2000:13:55:36 -0700]", "-rw-r--r-- 1 root 12 {T} f|{T} g|[{T}]"},
		{Normalize{Time: true}, "May I? Marching 3 Sunny 12:00:01x 00:11:22:33:44:55 Maybe", "May I? Marching 3 Sunny 12:00:01x 00:11:22:33:44:55 Maybe"},
		{all, "node1 10.0.0.1 12:00 7 ", "{H} {I} {T} {N} "},
		{all, "", ""},
	} {
		want := strings.NewReplacer("{H}", "\x00h", "{I}", "\x00i", "{T}", "\x00t", "{N}", "\x00n").Replace(tt.want)
		x := newNormalizer(&tt.n)
		got := string(x.appendLine(nil, []byte(tt.line), hostNames(&node), make(replacements, partRegexps)))
		if got != want {
			t.Errorf("%q becomes\n%q, want\n%q", tt.line, got, want)
		}
	}
}

func TestHostNames(t *testing.T) {
	for _, tt := range []struct {
		host transport.Host
		want []string
	}{
		{transport.Host{Name: "node1"}, []string{"node1"}},
		{transport.Host{Name: "node1.example.com", Addr: "10.0.0.1"}, []string{"node1.example.com", "10.0.0.1", "node1"}},
		{transport.Host{Name: "10.0.0.1", Addr: "10.0.0.1"}, []string{"10.0.0.1"}},
		{transport.Host{Name: "fe80::1"}, []string{"fe80::1"}},
	} {
		if diff := cmp.Diff(tt.want, hostNames(&tt.host)); diff != "" {
			t.Errorf("%v: %s", tt.host, diff)
		}
	}
}

func BenchmarkNormalize(b *testing.B) {
	line := []byte("Nov 23 00:34:12 node001 sshd[12345]: Accepted publickey for root from 10.1.2.3 port 51234 ssh2: ED25519\n")
	for _, n := range []Normalize{{Num: true}, {Host: true}, {IP: true}, {Time: true}, {Host: true, IP: true, Time: true, Num: true}} {
		b.Run(fmt.Sprintf("host=%v,ip=%v,time=%v,num=%v", n.Host, n.IP, n.Time, n.Num), func(b *testing.B) {
			x, parts, names := newNormalizer(&n), make(replacements, partRegexps), []string{"node001"}
			var dst []byte
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				dst = x.appendLine(dst[:0], line, names, parts)
			}
		})
	}
}
