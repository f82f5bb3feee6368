//go:build unix

package fleet

import (
	"fmt"
	"strings"
	"testing"

	"multirsh/transport/rsh/rshtest"
)

func TestShares(t *testing.T) {
	s, err := ParseShares("ok:94.5%, stall=handshake:5%,reset=output:0.5%")
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range []uint64{0, 1, 42} {
		for _, n := range []int{200, 10_000, 100_000} {
			count := make(map[string]int)
			for host := 1; host <= n; host++ {
				count[s.Of(host, seed).String()]++
			}
			for name, share := range map[string]float64{"ok": .945, "stall=handshake": .05, "reset=output": .005} {
				if off := float64(count[name]) - share*float64(n); off < -4 || off > 4 {
					t.Errorf("seed %d, %d hosts: %d are %s", seed, n, count[name], name)
				}
			}
		}
	}
	same := true
	for host := 1; host <= 1000; host++ {
		if first, again := s.Of(host, 1), s.Of(host, 1); first != again {
			t.Fatalf("host %d has two behaviours", host)
		}
		same = same && s.Of(host, 1) == s.Of(host, 2)
	}
	if same {
		t.Error("the seed makes no difference")
	}
}

func TestSharesOfOne(t *testing.T) {
	for _, text := range []string{"ok", "stall=leader", "error=50,5: no", "huge=1k"} {
		s, err := ParseShares(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		want := rshtest.MustParseBehaviour(text)
		for host := 1; host < 100; host++ {
			if got := s.Of(host, 7); got != want {
				t.Errorf("%s: host %d is %v", text, host, got)
			}
		}
	}
	if b := (Shares[rshtest.Behaviour]{}).Of(1, 0); b != (rshtest.Behaviour{}) || fmt.Sprint(Shares[rshtest.Behaviour]{}) != "ok" {
		t.Errorf("the zero value is %v, %v", b, Shares[rshtest.Behaviour]{})
	}
}

func TestParseSharesErrors(t *testing.T) {
	for text, want := range map[string]string{
		"nonsense":             `no behaviour "nonsense"`,
		"ok:95%":               "add up to 95%, not 100%",
		"ok:95%,garbage:6%":    "add up to 101%, not 100%",
		"ok:95%,garbage":       `behaviour "garbage" has no share`,
		"ok:95%,garbage:5":     "a share is a percentage",
		"ok:100%,garbage:0%":   "a share is a percentage",
		"ok:NaN%":              "a share is a percentage",
		"ok:-5%,garbage:105%":  "a share is a percentage",
		"ok:50%,nonsense:50%":  `no behaviour "nonsense"`,
		"ok:50%,stall=tea:50%": `behaviour stall="tea"`,
	} {
		if _, err := ParseShares(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParseShares(f *testing.F) {
	for _, seed := range []string{"ok", "ok:95%,stall=handshake:5%", "ok:0.1%,garbage:99.9%", "error=x:100%", "error:100%", "error=%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShares(text)
		if err != nil {
			return
		}
		again, err := ParseShares(s.String())
		if err != nil {
			t.Fatalf("%q printed as %q: %v", text, s, err)
		}
		for host := 1; host < 50; host++ {
			if s.Of(host, 1) != again.Of(host, 1) {
				t.Fatalf("%q printed as %q: host %d differs", text, s, host)
			}
		}
	})
}
