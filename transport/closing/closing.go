// Package closing is a laboratory: it closes TCP connections in every way that a system administrator meets, between two real kernels'
// worth of network, and looks at what both ends keep. It has tests only.
//
//	network namespace "here"                          network namespace "there"
//	192.0.2.1, a thread of the test ── veth, a gate in each direction ── 192.0.2.2, another thread
//	     │  sockets, inet_diag, packets                                       │  sockets, inet_diag
//	     └──────────────────────────► a case: steps and states ◄─────────────┘
//	                                       │
//	                                       ▼ go test ./transport/closing -update
//	                                  docs/closing.md, the tables
//
// Each case has a pair of namespaces of its own, with the kernel's default settings whatever the machine's are. A namespace
// belongs to a thread and has neither name nor file: with the thread and its sockets it is gone.
//
// The tests compare what they saw with docs/closing.md, whose text between the tables is written by hand. Times in it are the kernel's
// own timers, rounded up to a round number, so that a slow machine sees the same.
package closing
