package sockdiag

import "errors"

// Why a socket could not be destroyed. Errors of [Destroy] and [CanDestroy] wrap one of them, or the kernel's own.
var (
	// ErrGone is of a socket that has ended by itself, or gone on to another state as another socket.
	ErrGone = errors.New("it had ended already")

	// ErrNoDestroy is of a kernel that cannot do it at all.
	ErrNoDestroy = errors.New("this kernel was built without CONFIG_INET_DIAG_DESTROY, so it ends no sockets of other programs")

	// ErrNotThis is of a kernel that does it, but for no socket in such a state.
	ErrNotThis = errors.New("this kernel does not end a socket in this state")

	// ErrNotPermitted is of a process without CAP_NET_ADMIN in the network namespace.
	ErrNotPermitted = errors.New("only a process with CAP_NET_ADMIN may end sockets: run it as root")
)
