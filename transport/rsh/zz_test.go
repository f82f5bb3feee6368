package rsh

import (
	"testing"

	"multirsh/transport/rsh/resvport"
	"multirsh/transport/rsh/rshtest"
)

func TestZZ(t *testing.T) {
	for range 20 {
		tr := client(t)
		host := serve(t, &rshtest.Server{Shell: "/bin/false"})
		for range 50 {
			run(t, tr, host, line)
		}
		tr.Ports.Close()
		table, _ := resvport.Table()
		for _, s := range table {
			t.Logf("%v %v %v ino %d %v %v", s.State, s.Local, s.Remote, s.Inode, s.Timer, s.Expires)
		}
	}
}
