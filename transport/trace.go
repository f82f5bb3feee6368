package transport

import (
	"context"
	"net/netip"
)

// PhaseStderr is of traces alone: the channel for standard error that rshd(8) opens to us, which errors count to the handshake.
const PhaseStderr Phase = "stderr"

// Passed is a phase of a session that is over.
type Passed struct {
	Phase Phase
	Note  string           // what is known then, in few words: a port, both ends of a connection, a version, a fingerprint
	Addrs []netip.AddrPort // of PhaseResolve: where the host may be reached, and will be tried; nil: nobody here has to know
	Err   error            // of PhaseConnect: why one of several addresses could not be connected to, and the next is tried; else nil: it went well
}

// Trace is told how far a session has come, at the moment when each phase is passed; a phase begins when the one before it is. It is
// called by the session's goroutines, one after the other or at once, and must not block. A phase that is tried again may be passed again.
// The last one, PhaseClose, is passed when the host has closed all connections first: for ssh that is behind Wait, and Shutdown waits for it.
type Trace func(Passed)

type traceKey struct{}

// WithTrace makes a context for Start whose session is traced, from its start to its close.
func WithTrace(ctx context.Context, t Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceOf is the trace that a context carries. Where it carries none, what is passed is told to nobody.
func TraceOf(ctx context.Context) Trace {
	t, _ := ctx.Value(traceKey{}).(Trace)
	return t
}

// Pass tells that a phase has been passed; nothing happens where t is nil.
func (t Trace) Pass(phase Phase, note string) {
	if t != nil {
		t(Passed{Phase: phase, Note: note})
	}
}
