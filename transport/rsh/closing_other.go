//go:build !linux

package rsh

// isClosed does without the host's answer where the state of a connection cannot be asked for.
func isClosed(uintptr) bool { return true }
