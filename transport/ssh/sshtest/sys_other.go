//go:build unix && !linux

package sshtest

import (
	"errors"
	"net"
	"os"
)

// clientEnded and answered cannot be told here: who was first is then what reads have shown.
func clientEnded(*net.TCPConn) bool { return false }
func answered(*net.TCPConn) bool    { return false }

func openPty(Size) (master, slave *os.File, err error) {
	return nil, nil, errors.New("terminals are made on Linux only")
}

func resize(*os.File, Size) error { return nil }
