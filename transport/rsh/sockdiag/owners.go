package sockdiag

// Process is a process that holds a socket.
type Process struct {
	PID  int
	Name string // the first 15 bytes of its program's name; it may be any bytes, as the process has the last word about it
}

// Owners is who holds sockets.
type Owners struct {
	ByInode map[uint32][]Process // by Socket.Inode, lowest process id first
	Hidden  int                  // processes whose files we may not look at, and which may hold what is missing
}
