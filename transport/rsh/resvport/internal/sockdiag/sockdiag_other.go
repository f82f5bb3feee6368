//go:build !linux

package sockdiag

import (
	"errors"
	"fmt"
)

// Table returns the TCP sockets of this network namespace that f wants. Only Linux has sock_diag(7).
func Table(f Filter) ([]Socket, error) {
	return nil, fmt.Errorf("sockdiag: the table of sockets is read on Linux only: %w", errors.ErrUnsupported)
}
