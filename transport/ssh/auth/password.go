package auth

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// secret is the run's one password and what the hosts have said to it. A host that comes first for its user, the trier,
// tries it while the others wait; a refusal, on whatever host and for whatever user, ends its use.
type secret struct {
	ask func() (string, error) // nil: there is no password

	mu      sync.Mutex
	asked   bool
	value   string
	failed  error           // of ask
	good    map[string]bool // users whom it has let in somewhere
	trial   *trial          // nil: nobody is trying it
	refused string          // host that has refused it; empty: none has
}

type trial struct {
	host string
	over chan struct{}
}

// verdict is what a host has said to the password.
type verdict int

const (
	none     verdict = iota // nothing: the connection ended for another reason, or the host wants to know more
	accepted                // it let us in, or said that it was half the way
	denied
)

// take gives the password to a host that is about to be told it, once it is this host's turn. Whoever gets it must report.
func (s *secret) take(ctx context.Context, user, host string) (string, *trial, error) {
	for {
		s.mu.Lock()
		switch {
		case s.refused != "":
			defer s.mu.Unlock()
			return "", nil, fmt.Errorf("the password was refused on %s and is tried on no other host, so that no account gets locked: run again with the right one", s.refused)
		case s.failed != nil:
			defer s.mu.Unlock()
			return "", nil, s.failed
		case s.good[user]:
			defer s.mu.Unlock()
			return s.value, nil, nil
		case s.trial == nil:
			t := &trial{host, make(chan struct{})}
			s.trial = t
			asked := s.asked
			s.mu.Unlock()
			if !asked {
				value, err := s.ask()
				s.mu.Lock()
				s.asked, s.value = true, value
				if err != nil {
					s.failed = fmt.Errorf("there is no password (%w)", err)
				}
				s.mu.Unlock()
				if err != nil {
					s.report(user, host, t, none)
					continue
				}
			}
			return s.value, t, nil
		}
		t := s.trial
		s.mu.Unlock()
		select {
		case <-t.over:
		case <-ctx.Done():
			return "", nil, fmt.Errorf("%s had not yet answered to the password, which the other hosts wait for (%w)", t.host, context.Cause(ctx))
		}
	}
}

// report tells what a host has said to the password, and ends its trial if it had one.
func (s *secret) report(user, host string, t *trial, v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case v == denied && s.refused == "":
		s.refused = host
	case v == accepted:
		if s.good == nil {
			s.good = map[string]bool{}
		}
		s.good[user] = true
	}
	if t != nil && s.trial == t {
		s.trial = nil
		close(t.over)
	}
}

// oneTime says whether a prompt is for something that no password is: sent there, it would be a failed login and might be shown.
func oneTime(prompt string) bool {
	prompt = strings.ToLower(prompt)
	for _, word := range []string{"code", "otp", "token", "one-time", "one time", "verification", "challenge", "response", "new password", "(current)", "current password"} {
		if strings.Contains(prompt, word) {
			return true
		}
	}
	return false
}
