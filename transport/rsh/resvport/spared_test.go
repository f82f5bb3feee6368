package resvport

import (
	"fmt"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBlacklist(t *testing.T) {
	const text = "#\n# ports of others\n#\n631\t# cups\n 636\n\n921 #\n99999\n-1\ncups\n700-710\n873"
	if diff := cmp.Diff([]uint16{631, 636, 921, 873}, parseBlacklist(text)); diff != "" {
		t.Error(diff)
	}
}

func TestParseReserved(t *testing.T) {
	for text, want := range map[string][][2]uint16{
		"\n":                     nil,
		"631\n":                  {{631, 631}},
		"80,600-610,1000-2000\n": {{80, 80}, {600, 610}, {1000, 2000}},
		"610-600,x,70000,1-2-3":  nil,
	} {
		if diff := cmp.Diff(want, parseReserved(text)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func FuzzParseBlacklist(f *testing.F) {
	f.Add("631\t# cups\n")
	f.Fuzz(func(t *testing.T, s string) {
		again := ""
		ports := parseBlacklist(s)
		for _, p := range ports {
			again += fmt.Sprintln(p)
		}
		if diff := cmp.Diff(ports, parseBlacklist(again)); diff != "" {
			t.Errorf("%q: %s", s, diff)
		}
	})
}

func FuzzParseReserved(f *testing.F) {
	f.Add("80,600-610\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range parseReserved(s) {
			if r[0] > r[1] {
				t.Errorf("%q: %v", s, r)
			}
		}
	})
}

// TestShellWord asks a shell.
func TestShellWord(t *testing.T) {
	for _, word := range []string{"/usr/bin/multi-rsh", "/a b/c", "it's", `"\$x`, "*"} {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+shellWord(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q became %q, %v", word, out, err)
		}
	}
	if got := shellWord("/usr/bin/multi-rsh"); got != "/usr/bin/multi-rsh" {
		t.Errorf("needless quotes: %s", got)
	}
}
