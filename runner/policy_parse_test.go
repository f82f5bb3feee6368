package runner

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// parses checks a table of texts, each with what is read, or with a part of the error.
func parses[T any](t *testing.T, parse func(string) (T, error), right map[string]T, wrong map[string]string) {
	t.Helper()
	for text, want := range right {
		got, err := parse(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", text, err, diff)
		}
	}
	for text, want := range wrong {
		if got, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, error %v, want one with %q", text, got, err, want)
		}
	}
}

func TestParseShare(t *testing.T) {
	parses(t, ParseShare, map[string]Share{"1": {N: 1}, "0640": {N: 640}, "1%": {Percent: 1}, "100%": {Percent: 100}}, map[string]string{
		"": "neither", "%": "neither", "-1": "neither", "+1": "neither", " 1": "neither", "1 %": "neither", "1.5%": "neither", "5%%": "neither", "ten": "neither",
		"99999999999999999999": "neither", "1_000": "neither", "0": "the least is 1", "0%": "the least is 1", "120%": "the most is 100%", "101%": "the most is 100%",
	})
}

func TestParseMaxFail(t *testing.T) {
	parses(t, ParseMaxFail, map[string]Share{"5": {N: 5}, "10%": {Percent: 10}}, map[string]string{
		"0": "1 ends it with the first", "0%": "1 ends it with the first", "120%": "the most is 100%", "x": "neither",
	})
}

func TestParseRamp(t *testing.T) {
	parses(t, ParseRamp, map[string]Ramp{
		"100%":          {{Percent: 100}},
		"1,10,10%,100%": {{N: 1}, {N: 10}, {Percent: 10}, {Percent: 100}},
		"50,1%,60,100%": {{N: 50}, {Percent: 1}, {N: 60}, {Percent: 100}},
		"5,6":           {{N: 5}, {N: 6}}, // whether that is all depends on how many there are
	}, map[string]string{
		"": "neither", "1,,3": "neither", "1,": "neither", "10,5": "goes from 10 to 5", "5,5": "goes from 5 to 5", "10%,5%": "goes from 10% to 5%",
		"5,10%,4,100%": "goes from 5 to 4", "1,100%,100%": "goes", "100%,5": "goes on after 100%", "0,100%": "the least is 1", "1,120%": "the most is 100%",
	})
}

func TestParseRate(t *testing.T) {
	parses(t, ParseRate, map[string]Rate{"10": 10, "10/s": 10, "0.5/s": .5, ".5": .5, "30/m": .5, "3600/h": 1, "1000000": 1e6}, map[string]string{
		"": "no rate", "/s": "no rate", "10/": "no rate", "10/d": "no rate", "10/s/s": "no rate", "-1": "no rate", "+1": "no rate", "1e3": "no rate", "inf": "no rate", "NaN": "no rate", "0x10": "no rate",
		"1_0": "no rate", " 1": "no rate", "1.2.3": "no rate", "0": "no host would ever start", "0.0/s": "no host would ever start", "0.01/h": "less than a host a day", "1000001": "more than a million",
		strings.Repeat("9", 400): "no rate",
	})
	for text, want := range map[string]time.Duration{"10": 100 * time.Millisecond, "30/m": 2 * time.Second, "1000000/s": time.Microsecond} {
		if r, _ := ParseRate(text); r.Interval() != want {
			t.Errorf("%s: one in %v, want %v", text, r.Interval(), want)
		}
	}
}

func TestParseRetryOn(t *testing.T) {
	parses(t, ParseRetryOn, map[string][]Outcome{"refused": {Refused}, "dns,timeout,dns": {DNS, Timeout}, "exit": {Exit}}, map[string]string{
		"": "no outcome", "Refused": "no outcome", "dns,": "no outcome", "dns timeout": "no outcome", "ok": "not tried again", "refused,skipped": "not tried again", "cancelled": "not tried again",
	})
	if _, err := ParseRetryOn("x"); !strings.Contains(err.Error(), "exit, signal, timeout, refused,") || strings.Contains(err.Error(), "ok") {
		t.Error(err)
	}
}

func TestShareOf(t *testing.T) {
	for _, test := range []struct {
		Share
		total, want int
	}{
		{Share{N: 5}, 3, 5}, {Share{Percent: 1}, 1, 1}, {Share{Percent: 10}, 640, 64}, {Share{Percent: 10}, 641, 65}, {Share{Percent: 33}, 100, 33}, {Share{Percent: 7}, 300, 21},
		{Share{Percent: 100}, 1 << 62, 1 << 62}, {Share{Percent: 100}, 99, 99}, {Share{Percent: 50}, 1, 1}, {Share{}, 9, 0},
	} {
		if got := test.Of(test.total); got != test.want {
			t.Errorf("%v of %d: %d, want %d", test.Share, test.total, got, test.want)
		}
	}
}

// What is read is written as it was meant, and its stages ascend to the total or are an error.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"1,10,10%,100%", "10,5", "120%", "0", "5", "100%,5", "30/m", "1e9", "0.5/s", "refused,dns", ",", "%"} {
		f.Add(text, 640)
	}
	f.Fuzz(func(t *testing.T, text string, total int) {
		if s, err := ParseShare(text); err == nil {
			again, err := ParseShare(s.String())
			if err != nil || again != s {
				t.Errorf("%q is read as %v, and that as %v, %v", text, s, again, err)
			}
			if n := s.Of(total); total > 0 && (n < 1 || s.Percent > 0 && n > total) {
				t.Errorf("%v of %d is %d", s, total, n)
			}
		}
		if r, err := ParseRamp(text); err == nil {
			again, err := ParseRamp(r.String())
			if diff := cmp.Diff(r, again); err != nil || diff != "" {
				t.Errorf("%q is read as %v, and that as %v, %v", text, r, again, err)
			}
			ends, err := r.Stages(total)
			if err == nil && (len(ends) == 0 || ends[len(ends)-1] != total || ends[0] < 1 || !slices.IsSorted(ends) || len(slices.Compact(slices.Clone(ends))) != len(ends)) {
				t.Errorf("%v of %d: %v", r, total, ends)
			}
		}
		if r, err := ParseRate(text); err == nil && (r.Interval() < time.Microsecond || r.Interval() > 24*time.Hour) {
			t.Errorf("%q: one in %v", text, r.Interval())
		}
		if on, err := ParseRetryOn(text); err == nil {
			if err := (&Retry{Tries: 1, On: on, Started: true}).check(); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
		ParseMaxFail(text)
	})
}
