//go:build !linux

package rig

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"testing"

	"multirsh/transport"
)

var errNotLinux = fmt.Errorf("%w: it needs Linux", ErrUnavailable)

func enter()                       {}
func start(Config) (*Rig, error)   { return nil, errNotLinux }
func (r *Rig) close() error        { return nil }
func fetch(Daemon) (string, error) { return "", errNotLinux }

func join(ctx context.Context, _ int, name string, arg ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, arg...)
	cmd.Err = errNotLinux
	return cmd
}

// SetLink plugs the host's network cable (up) or pulls it: the host vanishes, without a word to anybody.
func (h *Host) SetLink(up bool) error { return errNotLinux }

// Kill sends a signal to the host's processes with that program name and says how many there were.
func (h *Host) Kill(name string, sig syscall.Signal) (int, error) { return 0, errNotLinux }

// Watch sees how TCP connections end, by their packets.
type Watch struct{}

// WatchClosings watches, from now on, the connections between the control side and all hosts.
func WatchClosings() (*Watch, error) { return nil, errNotLinux }

// WatchClosings watches, from now on, all that goes over the host's cable.
func (h *Host) WatchClosings() (*Watch, error) { return nil, errNotLinux }

// Closings are the connections whose first FIN or RST has been sent.
func (w *Watch) Closings() ([]Closing, error) { return nil, errNotLinux }

// Close ends the watch.
func (w *Watch) Close() error { return errNotLinux }

// StartHolder runs the test binary once more, to hold sessions: see Hold.
func StartHolder(t testing.TB, env string) (kill func()) {
	t.Helper()
	t.Skip(errNotLinux)
	return nil
}

// Hold has a session of "sleep 1000" on each of the addresses.
func Hold(transport.Transport, string, []string) { panic(errNotLinux) }
