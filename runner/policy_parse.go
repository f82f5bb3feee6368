package runner

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseShare reads a number of hosts, as 5, or a percentage of them, as 10%.
func ParseShare(text string) (Share, error) {
	digits, percent := strings.CutSuffix(text, "%")
	n, err := parseCount(digits)
	switch {
	case err != nil:
		return Share{}, fmt.Errorf("%q is neither a number of hosts, as 5, nor a percentage of them, as 10%%", text)
	case n == 0:
		return Share{}, fmt.Errorf("%q is no host: the least is 1", text)
	case percent && n > 100:
		return Share{}, fmt.Errorf("%q is more than all hosts: the most is 100%%", text)
	case percent:
		return Share{Percent: n}, nil
	}
	return Share{N: n}, nil
}

// parseCount reads digits alone: no sign, no space.
func parseCount(digits string) (int, error) {
	n, err := strconv.ParseUint(digits, 10, 31)
	return int(n), err
}

// ParseMaxFail reads how many hosts may fail until the run stops: a Share. The fifth failure ends a run with 5.
func ParseMaxFail(text string) (Share, error) {
	s, err := ParseShare(text)
	if n, is := parseCount(strings.TrimSuffix(text, "%")); is == nil && n == 0 {
		return Share{}, fmt.Errorf("%q would end the run before it begins: 1 ends it with the first host that fails", text)
	}
	return s, err
}

// ParseRamp reads the stages of a ramp, as 1,10,10%,100%.
func ParseRamp(text string) (Ramp, error) {
	var r Ramp
	for part := range strings.SplitSeq(text, ",") {
		s, err := ParseShare(part)
		if err != nil {
			return nil, err
		}
		r = append(r, s)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return r, nil
}

// ParseRate reads hosts per second, as 10, 10/s or 0.5/s, or per minute or hour, as 30/m.
func ParseRate(text string) (Rate, error) {
	number, unit, given := strings.Cut(text, "/")
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if !given {
		per = time.Second
	}
	hosts, err := strconv.ParseFloat(number, 64)
	if err != nil || per == 0 || strings.Trim(number, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is no rate: hosts per second, as 10/s or 0.5/s, or per minute or hour, as 30/m", text)
	}
	// Beyond these it is a slip, and what is said of it would not be true: nobody starts a million a second.
	rate := Rate(hosts / per.Seconds())
	switch {
	case hosts == 0:
		return 0, fmt.Errorf("%q is no rate: no host would ever start", text)
	case rate.Interval() > 24*time.Hour:
		return 0, fmt.Errorf("%q is no rate: it is less than a host a day", text)
	case rate > 1e6:
		return 0, fmt.Errorf("%q is no rate: it is more than a million hosts a second", text)
	}
	return rate, nil
}

// ParseRetryOn reads the outcomes that are tried again, as refused,unreachable,dns.
func ParseRetryOn(text string) ([]Outcome, error) {
	var on []Outcome
	for word := range strings.SplitSeq(text, ",") {
		o := Outcome(word)
		if !slices.Contains(outcomes, o) {
			return nil, fmt.Errorf("there is no outcome %q; those that can be tried again are %s", word, retryables())
		}
		if err := retryable(o); err != nil {
			return nil, err
		}
		if !slices.Contains(on, o) {
			on = append(on, o)
		}
	}
	return on, nil
}

func retryables() string {
	var words []string
	for _, o := range outcomes {
		if retryable(o) == nil {
			words = append(words, string(o))
		}
	}
	return strings.Join(words, ", ")
}
