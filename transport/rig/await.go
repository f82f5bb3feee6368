package rig

import (
	"fmt"
	"testing"
	"time"
)

// Patience is when a test that waits for the kernel or for a host calls it a hang. It is shorter than TIME_WAIT and FIN_WAIT_2 last,
// so that waiting hides neither.
const Patience = 45 * time.Second

// Until waits until there is no objection any more. Neither the kernel nor a far process tells when a socket or a process has gone,
// so it looks again and again.
func Until(t testing.TB, what string, objection func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(Patience); ; <-tick.C {
		o := objection()
		if o == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %s", what, o)
		}
	}
}

// AwaitProcesses waits until the host has n processes of that name.
func (h *Host) AwaitProcesses(t testing.TB, name string, n int) {
	t.Helper()
	Until(t, name+" on the host", func() string {
		all, err := h.Processes(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == n {
			return ""
		}
		return fmt.Sprintf("%d processes, want %d: %+v", len(all), n, all)
	})
}
