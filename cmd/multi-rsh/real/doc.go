// Package real holds the tests and benchmarks of the whole program: the built binary against real in.rshd hosts (package
// rig) and against a simulated fleet, as a user runs it, beside pdsh where that is installed.
//
//	go test ./cmd/multi-rsh/real                                  the promises, on a small rig
//	go test ./cmd/multi-rsh/real -run TestNumbers -numbers FILE   the benchmark table; "make bench" does this
package real
