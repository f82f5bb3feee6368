package main

import (
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"multirsh/runner"
)

// policyOptions say when a run goes on, how fast, and what is tried again.
var policyOptions = []*option{
	{name: "idle-timeout", arg: "TIME", group: "Policies", text: "until a command that runs writes something"},
	{name: "deadline", arg: "TIME", group: "Policies", text: "for the whole run; the hosts left are skipped"},
	{name: "max-fail", arg: "N", group: "Policies", text: "start no more when N, or N%, were not ok"},
	{name: "kill", group: "Policies", text: "with --max-fail: stop what is running, too"},
	{name: "ramp", arg: "LIST", group: "Policies", text: "in stages: 1,10,10%,100%; ends where a stage fails"},
	{name: "ramp-pause", group: "Policies", text: "with --ramp: ask before each stage but the first"},
	{name: "rate", arg: "N/s", group: "Policies", text: "so many hosts are started a second (or /m, /h)"},
	{name: "delay", arg: "TIME", group: "Policies", text: "between the starts of two hosts, at least"},
	{name: "retry", arg: "N", group: "Policies", text: "so many more tries where the command has not begun"},
	{name: "retry-on", arg: "LIST", group: "Policies", text: "of these (refused,unreachable,dns,timeout)"},
	{name: "retry-started", group: "Policies", text: "also when it has begun: it may run twice"},

	{name: "exit", arg: "HOW", group: "Policies", text: "any: with 1 where a host is not ok; max: as -S"},
	{name: "no-journal", group: "Policies", text: "keep no state of the run, to resume or retry it"},
}

// policies are those of a run, as runner.Runner has them.
type policies struct {
	idleTimeout, deadline, delay time.Duration
	maxFail                      runner.Share
	maxFailKill                  bool
	ramp                         runner.Ramp
	rampPause                    bool
	rampAs, rampPauseAs          string // what to call the options
	rate                         runner.Rate
	retry                        runner.Retry
}

// policies reads the options.
func (a *arguments) policies(ctx *cli.Context) (p policies, err error) {
	p.rampPause, p.rampAs, p.rampPauseAs = ctx.Bool("ramp-pause"), a.origin["ramp"], a.origin["ramp-pause"]
	p.maxFailKill, p.retry.Started = ctx.Bool("kill"), ctx.Bool("retry-started")
	for _, step := range []func() error{
		func() error { return a.duration(ctx, "idle-timeout", &p.idleTimeout) },
		func() error { return a.duration(ctx, "deadline", &p.deadline) },
		func() error { return a.duration(ctx, "delay", &p.delay) },
		func() error { return parsed(a, ctx, "max-fail", runner.ParseMaxFail, &p.maxFail) },
		func() error { return parsed(a, ctx, "ramp", runner.ParseRamp, &p.ramp) },
		func() error { return parsed(a, ctx, "rate", runner.ParseRate, &p.rate) },
		func() error { return parsed(a, ctx, "retry-on", runner.ParseRetryOn, &p.retry.On) },
		func() error {
			return parsed(a, ctx, "retry", func(text string) (int, error) {
				n, err := strconv.ParseUint(text, 10, 16)
				if err != nil {
					return 0, usagef("%q: this is how many more tries a host has, a whole number from 0", text)
				}
				return int(n), nil
			}, &p.retry.Tries)
		},
	} {
		if err := step(); err != nil {
			return p, err
		}
	}
	if err := (&runner.Runner{Retry: p.retry}).Check(); err != nil {
		return p, usagef("%s %v", a.origin["retry-on"], err)
	}
	switch {
	case p.maxFailKill && p.maxFail.IsZero() && a.byHand("kill"):
		return p, usagef("%s is for %s, which is not given: name how many hosts may fail, as --max-fail 5", a.origin["kill"], "--max-fail")
	case p.rampPause && len(p.ramp) == 0 && a.byHand("ramp-pause"):
		return p, usagef("%s is for %s, which is not given: name the stages, as --ramp 1,10%%,100%%", a.origin["ramp-pause"], "--ramp")
	case p.retry.Tries == 0 && a.byHand("retry-on"):
		return p, usagef("%s says what is tried again, and not how often; give --retry N too", a.origin["retry-on"])
	case p.retry.Tries == 0 && a.byHand("retry-started") && p.retry.Started:
		return p, usagef("%s is for --retry, which is not given: name how many more tries a host has, as --retry 2", a.origin["retry-started"])
	}
	if err := (&runner.Runner{Retry: p.retry}).Check(); err != nil {
		return p, usagef("%s %v", a.origin["retry-on"], err)
	}
	return p, nil
}

// check finds policies that can never be met by so many hosts.
func (p *policies) check(total int) error {
	if _, err := p.ramp.Stages(total); err != nil {
		return usagef("%s %v", p.rampAs, err)
	}
	return nil
}

// parsed reads the value of an option, if it is given.
func parsed[T any](a *arguments, ctx *cli.Context, name string, parse func(string) (T, error), into *T) error {
	text := ctx.String(name)
	if text == "" {
		return nil
	}
	value, err := parse(text)
	if err != nil {
		return usagef("%s %v", a.origin[name], err)
	}
	*into = value
	return nil
}

func (a *arguments) duration(ctx *cli.Context, name string, into *time.Duration) error {
	return parsed(a, ctx, name, func(text string) (time.Duration, error) {
		d, err := parseTime(text)
		if err != nil {
			err = usagef("%q: %v", text, err)
		}
		return d, err
	}, into)
}

// apply gives the policies, which have been checked, to the runner.
func (p *policies) apply(r *runner.Runner, total int, wrapped bool) {
	r.Total = total
	r.IdleTimeout, r.Deadline, r.Delay, r.Rate = p.idleTimeout, p.deadline, p.delay, p.rate
	r.MaxFail, r.MaxFailKill, r.Ramp, r.Retry = p.maxFail, p.maxFailKill, p.ramp, p.retry
	r.Retry.Wrapped = wrapped
}
