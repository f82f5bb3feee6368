//go:build !linux

package sockdiag

import (
	"context"
	"errors"
	"fmt"
)

var errElsewhere = fmt.Errorf("sockdiag: the table of sockets is read on Linux only: %w", errors.ErrUnsupported)

// Table returns the TCP sockets of this network namespace that f wants. Only Linux has sock_diag(7).
func Table(f Filter) ([]Socket, error) { return nil, errElsewhere }

// FindOwners looks for the processes that hold sockets.
func FindOwners(context.Context) (Owners, error) { return Owners{}, errElsewhere }

// CanDestroy says what keeps this process from destroying sockets.
func CanDestroy() error { return errElsewhere }

// Destroy ends each of the sockets.
func Destroy([]Socket, func(Socket, error) bool) error { return errElsewhere }
