//go:build unix && !linux

package testserver

import (
	"errors"
	"os"
)

// OpenTerminal opens a pseudo-terminal, on Linux only.
func OpenTerminal(columns, rows int) (master, slave *os.File, err error) {
	return nil, nil, errors.New("terminals are made on Linux only")
}

// ResizeTerminal tells a terminal its size.
func ResizeTerminal(*os.File, int, int) error { return nil }
