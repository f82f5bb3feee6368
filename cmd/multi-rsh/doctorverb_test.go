package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner"
	"multirsh/runner/output"
	"multirsh/transport"
)

// A host of which one address cannot be reached has a way to it all the same.
func TestRouteOfMany(t *testing.T) {
	nowhere, here := netip.MustParseAddrPort("[fe80::1]:514"), netip.MustParseAddrPort("127.0.0.1:514") // link-local without an interface
	for _, tt := range []struct {
		addrs []netip.AddrPort
		want  bool
	}{
		{[]netip.AddrPort{nowhere, here}, true},
		{[]netip.AddrPort{nowhere}, false},
	} {
		v := new(visit)
		v.begin()
		v.passed(transport.Passed{Phase: transport.PhaseResolve, Addrs: tt.addrs})
		if got := v.reached(stepRoute); got != tt.want || got == (v.routed != nil) {
			t.Errorf("%v: a way is %v (%v), want %v", tt.addrs, got, v.routed, tt.want)
		}
	}
}

// The time of an address that is tried in vain is the connect's, and not the next reserved port's.
func TestTimeInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &visit{Transport: "rsh"}
		v.begin()
		for _, p := range []struct {
			after time.Duration
			transport.Passed
		}{
			{0, transport.Passed{Phase: transport.PhaseResolve, Note: "n1"}},
			{time.Millisecond, transport.Passed{Phase: transport.PhasePort, Note: "1023"}},
			{5 * time.Second, transport.Passed{Phase: transport.PhaseConnect, Note: "10.0.0.1", Err: errors.New("no answer")}},
			{time.Millisecond, transport.Passed{Phase: transport.PhasePort, Note: "1022"}},
			{time.Second, transport.Passed{Phase: transport.PhaseConnect, Note: "127.0.0.1:1022 to 10.0.0.2:514"}},
		} {
			time.Sleep(p.after)
			v.passed(p.Passed)
		}
		time.Sleep(time.Second)
		v.ended = time.Now()
		v.because(stepAuth, "")
		v.tell()
		var got []string
		for _, s := range v.Steps {
			text := s.Step
			if s.MS != nil {
				text += fmt.Sprint(" ", *s.MS)
			}
			got = append(got, strings.TrimSpace(text+" "+s.Note))
		}
		want := []string{"resolve 0 n1", "reserved port 2 1023, 1022", "connect 6000 127.0.0.1:1022 to 10.0.0.2:514, after 10.0.0.1 in vain", "port accepted", "reverse name", "authorisation 1000"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if v.local.Port() != 1022 {
			t.Errorf("our end is %v", v.local)
		}
	})
}

// Where nothing has been said of --timeout, a host that takes too long is not told that it was that.
func TestOwnMinute(t *testing.T) {
	host := transport.Host{Name: "h1", Transport: "rsh"}
	for said, want := range map[time.Duration]string{
		0:           "not done within 1m0s (as long as doctor waits; --timeout says otherwise)",
		time.Minute: "not done within 1m0s (--timeout, for all of it)",
	} {
		d := &checkup{config: &config{timeout: said}, where: &destinations{}}
		v := &visit{Host: "h1", Transport: "rsh", host: host}
		v.conclude(t.Context(), d, &runner.Result{Host: host, Outcome: runner.Timeout, Err: &transport.OpError{Phase: transport.PhaseRun, Host: "h1",
			Err: &runner.StopError{Cause: &transport.TimeoutError{After: time.Minute, Limit: "--timeout, for all of it"}, Confirmed: true}}})
		if v.Cause != want || v.Failed != stepStatus {
			t.Errorf("%v: %s: %q, want %q", said, v.Failed, v.Cause, want)
		}
	}
}

// The step that was interrupted is the one behind the last that was passed.
func TestNextStep(t *testing.T) {
	for _, tt := range []struct {
		transport string
		passed    []transport.Phase
		want      string
	}{
		{"ssh", nil, stepResolve},
		{"ssh", []transport.Phase{transport.PhaseResolve}, stepConnect},
		{"ssh", []transport.Phase{transport.PhaseResolve, transport.PhaseConnect}, stepVersion},
		{"ssh", []transport.Phase{transport.PhaseResolve, transport.PhaseConnect, transport.PhaseClose}, stepClose},
		{"rsh", []transport.Phase{transport.PhaseResolve}, stepPort},
		{"rsh", []transport.Phase{transport.PhaseResolve, transport.PhasePort, transport.PhaseConnect, transport.PhasePort}, stepTaken},
	} {
		v := &visit{Transport: tt.transport}
		v.begin()
		for _, phase := range tt.passed {
			v.passed(transport.Passed{Phase: phase})
		}
		if got := v.next(); got != tt.want {
			t.Errorf("%s after %v: %s, want %s", tt.transport, tt.passed, got, tt.want)
		}
	}
}

// On a narrow terminal words are wrapped, and commands are not: they are to be copied.
func TestMendsAreWhole(t *testing.T) {
	var b strings.Builder
	command := "echo " + strings.Repeat("x", 100) + " >>/etc/hosts"
	v := &visit{Host: "h1", Transport: "rsh", own: []string{"h1", "HOST"}}
	v.because(stepName, strings.Repeat("why ", 30), v.on(command, strings.Repeat("word ", 30)), here("", strings.Repeat("text ", 30)), mend{Text: "on the way"})
	v.tell()
	(&checkupView{output.Stream{W: &b, Width: 60}}).write([]*visit{v})
	if !strings.Contains(b.String(), "\n  mend:  on h1: "+command+"\n           word word") || !strings.Contains(b.String(), "\n  mend:  on the way\n") {
		t.Errorf("%s", b.String())
	}
	for line := range strings.Lines(b.String()) {
		if !strings.Contains(line, command) && len(line) > 61 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
