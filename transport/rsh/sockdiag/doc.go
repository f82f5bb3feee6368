// Package sockdiag reads the kernel's table of TCP sockets: what ss(8) shows, without starting ss.
//
// The kernel answers over a netlink socket of its own, described in sock_diag(7). One dump request for each address family
// goes out; the kernel walks its tables (listeners, connections, TIME_WAIT, sockets that are only bound), drops what the
// filter refuses, and sends the rest in as many datagrams as it needs:
//
//	Table(Filter) ──► inet_diag_req_v2 + bytecode for the port range ──► kernel
//	[]Socket      ◄── inet_diag_msg, one for each socket             ◄──┘
//	   │
//	   ├── Socket.Inode  ──► Owners, which FindOwners has read from /proc/PID/fd
//	   └── Socket.Cookie ──► Destroy: SOCK_DESTROY, of this socket and no later one on the same ports
//
// A kernel that does not answer leaves /proc/net/tcp and tcp6, which Table then reads.
//
// The netlink socket belongs to the network namespace of the calling thread, and so does what it shows. No privilege is
// needed to read. The table is a snapshot of moving things: a socket may change state, or be shown twice or not at all, while the dump
// is under way. It is good for choosing and for showing; what bind(2) and connect(2) say is the truth.
//
// To see the conversation, set NLDEBUG=level=1 (mdlayher/netlink then prints every message), or run the program under
// strace -e trace=sendmsg,recvmsg, which decodes inet_diag. To see the same sockets by other means:
//
//	ss -tanoe 'sport >= :512 and sport <= :1023'
//
// Elsewhere than on Linux Table returns [errors.ErrUnsupported].
package sockdiag
