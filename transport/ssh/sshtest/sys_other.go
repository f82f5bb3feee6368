//go:build unix && !linux

package sshtest

import "net"

// clientEnded and answered cannot be told here: who was first is then what reads have shown.
func clientEnded(*net.TCPConn) bool { return false }
func answered(*net.TCPConn) bool    { return false }
