// Package real holds the tests and benchmarks of the whole program: the built binary against real hosts with in.rshd or sshd
// (package rig) and against simulated fleets, as a user runs it, beside pdsh, clush and parallel-ssh where those are installed.
//
//	go test ./cmd/multi-rsh/real                                      the promises, on a small rig
//	go test ./cmd/multi-rsh/real -run TestNumbers -numbers FILE       the benchmark tables; "make bench" does this
//	go test ./cmd/multi-rsh/real -run TestNumbers/ssh -numbers FILE   that of ssh alone (or rsh, hosts); the others in FILE stay
package real
