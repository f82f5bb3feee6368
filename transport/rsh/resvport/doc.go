// Package resvport makes TCP connections from reserved ports without ever running out of them.
//
// rshd(8) believes who calls only from a source port between 512 and 1023 (rcmd(3)), and a client in C holds one or two of those
// 512 ports for each host, and for a minute longer when it closes first. But a connection is four numbers, not one: the same
// local port may be connected to any number of hosts at once, provided that every socket on it says SO_REUSEADDR. So
// what is scarce is not ports but pairs of a port and a destination, 500 for each destination. An [Allocator] hands
// those out:
//
//	                        ┌────────────── book ──────────────┐
//	Dial(ctx, dst) ──take──►│ for each destination:            │
//	  │  ▲                  │   fresh ─► out ─► rest (a queue, │
//	  │  └── pass over ─────│            ▲    least recently   │
//	  │  EADDRINUSE (bind)  │            └─── used first)      │
//	  │  EADDRNOTAVAIL      │ for each port: users, blocked    │
//	  ▼    (connect)        └──────▲────────────────────▲──────┘
//	*Conn ──Close: give back───────┘                    │ a listener's port is nobody else's
//	                                                    │
//	Lease(ctx, local) ──► *Listener ──Accept──► the host's connection back; the port serves the next session
//	                          ├─ Return: it cannot come any more; the port serves the next session
//	                          └─ Release: it never came; the port is retired for a minute
//
// # Choosing
//
// A pair is never used twice at once, and of several the one used least recently comes first: a pair that has just been used may
// linger in TIME-WAIT somewhere, and where TCP timestamps are off the kernel then refuses it. Destinations that are
// visited once share a window of 16 ports, so that a run leaves the rest of the range to other programs; one that
// comes again and again goes on through the whole range. Where the window begins is carried from process to process in a small
// file (see [StatePath]), or random.
//
// What this package knows of other programs is a hint: ports named in /etc/bindresvport.blacklist and
// net.ipv4.ip_local_reserved_ports and those that listen when the first port is asked for are left alone. The truth is what
// bind(2) and connect(2) say, and a port that they refuse costs a retry, not a failure. If nothing is left for a destination, Dial
// waits for a Close, or asks the kernel again every 0.1 to 0.2 s, as long as its context lasts.
//
// # Leaving nothing behind
//
// Every socket has SO_LINGER{1,0} before it connects: closing it, or killing the process, resets the connection and leaves no
// TIME-WAIT, FIN-WAIT or LAST-ACK on the port. The user of a connection takes the option off for a close after end of file.
// Keepalive and TCP_USER_TIMEOUT end connections to hosts that vanish.
//
// # Listeners
//
// rshd connects back, to a port that the client names, for standard error. Which session such a connection belongs to cannot be told from
// its address (a host with several answers from any of them), so a listener serves one session at a time, but only until
// the connection is there: 16 listeners do for any number of near hosts. For far ones the pool grows to half of the
// range: at a round trip of 200 ms, where a lease lasts about 400 ms, 250 listeners set up 600 sessions a second.
//
// A port listens exactly while it is lent. Between two leases the socket stays bound but does not listen: a connection that is
// pending when the lease ends is reset, and one that comes too early is refused. A host that has answered or hung up connects back
// no more, so its lease is returned. Any other lease that ends without its connection retires the port, bound and deaf,
// and without SO_REUSEADDR so that other processes cannot have it either: a connect back that comes late meets nobody.
// That lasts 60 s, or less only when more than half of the pool is retired and a session waits for a listener.
// Listeners without a lease are closed after a second.
//
// # Who owns what
//
// The caller owns the [Conn] and the accepted connections, and closes them. The Allocator owns the listeners; its Close closes
// them. It starts no goroutines but the timer's that closes listeners. No lock is held during a system call.
//
// To see what goes on: [Allocator.Stats] for this process, [Table] or "ss -tanoe 'sport >= :512 and sport <= :1023'" for the machine.
package resvport
