package runner

import (
	"context"
	"fmt"
	"testing"

	"multirsh/transport"
)

// instant is a transport whose commands end at once.
type instant struct{}

func (instant) Start(context.Context, transport.Host, *transport.Command) (transport.Session, error) {
	return instantSession{}, nil
}
func (instant) Shutdown(context.Context) {}

type instantSession struct{ transport.Session }

func (instantSession) Wait(context.Context) (transport.Status, error) {
	return transport.Status{Known: true, Started: true}, nil
}

// nowhere is a sink that takes all.
type nowhere struct{}

func (nowhere) Event(Event) error { return nil }
func (nowhere) Close() error      { return nil }

func benchmarkRun(b *testing.B, r *Runner, racks int) {
	line := &transport.Command{Line: "true"}
	b.ReportAllocs()
	hosts := func(yield func(transport.Host) bool) {
		for i := range b.N {
			if !yield(transport.Host{Name: "n", User: rackNames[i%racks]}) {
				return
			}
		}
	}
	if _, err := r.Run(b.Context(), hosts, func(transport.Host) *transport.Command { return line }, nowhere{}); err != nil {
		b.Fatal(err)
	}
}

var rackNames = func() (names [1000]string) {
	for i := range names {
		names[i] = fmt.Sprint("rack", i)
	}
	return names
}()

// BenchmarkRun is the runner's own cost for one host.
func BenchmarkRun(b *testing.B) {
	byRack := func(h transport.Host) []Limit { return []Limit{{h.User, 2}} }
	b.Run("unlimited", func(b *testing.B) { benchmarkRun(b, &Runner{Transport: instant{}}, 1) })
	b.Run("one rack", func(b *testing.B) { benchmarkRun(b, &Runner{Transport: instant{}, Limits: byRack}, 1) })
	b.Run("1000 racks", func(b *testing.B) { benchmarkRun(b, &Runner{Transport: instant{}, Limits: byRack}, len(rackNames)) })
}
