//go:build !linux

package resvport

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"
)

// Sharing one port between destinations and keeping a port without listening rest on what Linux does; elsewhere nothing of it was tried,
// and Check says so.

var errUnsupported = fmt.Errorf("connections from reserved ports are made on Linux only: %w", errors.ErrUnsupported)

func socketOptions(time.Duration) func(int) error { return func(int) error { return errUnsupported } }
func tryBind(uint16) error                        { return errUnsupported }
func hush(*net.TCPListener) error                 { return errUnsupported }
func speak(*net.TCPListener) error                { return errUnsupported }
func take(*net.TCPListener) *net.TCPConn          { return nil }
func hold(*net.TCPListener) error                 { return errUnsupported }
func openLocked(string) (*os.File, error)         { return nil, errUnsupported }
func ours(fs.FileInfo) bool                       { return false }
