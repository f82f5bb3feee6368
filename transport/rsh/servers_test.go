package rsh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"multirsh/transport"
	"multirsh/transport/fleet"
	"multirsh/transport/rig"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/rsh/rshtest"
)

// kept is what the table has of connections on ports: by state, of those of an end whose local port is one of them.
func kept(t testing.TB, of func(port uint16) bool) map[string]int {
	t.Helper()
	table, err := rig.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	states := make(map[string]int)
	for _, s := range table {
		if s.State != "LISTEN" && s.Remote.Port() != 0 && of(s.Local.Port()) {
			states[s.State]++
		}
	}
	return states
}

func isReserved(port uint16) bool { return resvport.First <= port && port <= resvport.Last }

// sessions runs n of them, 32 at once.
func sessions(t testing.TB, n int, session func(i int) error) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(32)
	for i := range n {
		g.Go(func() error { return session(i) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// rcmd is a session as rcmd(3)'s callers have it: to the end of file on both channels, then a plain close, with no regard for
// the host's reserved port.
func rcmd(t testing.TB, host transport.Host, next *atomic.Uint32, command string) (stdout, stderr string, err error) {
	reserved := func(try func(port int) error) error {
		for range 512 {
			err := try(512 + int(next.Add(1)%512))
			if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
				return err
			}
		}
		return errors.New("all ports in use")
	}
	var l *net.TCPListener
	err = reserved(func(port int) (err error) {
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		return err
	})
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	var conn net.Conn
	err = reserved(func(port int) (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
		conn, err = d.Dial("tcp4", net.JoinHostPort(host.Addr, fmt.Sprint(host.Port)))
		return err
	})
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%d\x00root\x00root\x00%s\x00", l.Addr().(*net.TCPAddr).Port, command)
	back, err := l.Accept()
	if err != nil {
		return "", "", err
	}
	defer back.Close()
	var out, errs []byte
	var outErr, errsErr error
	var wg sync.WaitGroup
	wg.Go(func() { out, outErr = io.ReadAll(conn) })
	wg.Go(func() { errs, errsErr = io.ReadAll(back) })
	wg.Wait()
	return string(out), string(errs), errors.Join(outErr, errsErr)
}

// After 1,000 sessions, each of which has used reserved ports at both ends, neither end has one left: only the server's own port is in
// TIME_WAIT. That holds for our client with every server; for a client that does not help, where the server shares its ports.
func TestServersKeepNoReservedPort(t *testing.T) {
	needPorts(t)
	const n = 1000
	simulated := func(fast bool) func(testing.TB) []transport.Host {
		return func(t testing.TB) (hosts []transport.Host) {
			f := &fleet.Fleet{Hosts: 50, Fast: fast, Output: []byte("ok\n")}
			port, err := f.Start()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			for i := 1; i <= f.Hosts; i++ {
				hosts = append(hosts, transport.Host{Name: fleet.Name(i), Addr: fleet.Addr(i).String(), Port: port})
			}
			return hosts
		}
	}
	one := func(daemon rshtest.Daemon, shared bool) func(testing.TB) []transport.Host {
		return func(t testing.TB) []transport.Host {
			return []transport.Host{serve(t, &rshtest.Server{Daemon: daemon, SharedPorts: shared})}
		}
	}
	for _, server := range []struct {
		name     string
		start    func(testing.TB) []transport.Host
		unhelped bool // the server keeps no reserved port without the client's help
	}{
		{"rshtest", one(rshtest.Redone, false), false},
		{"rshtest, ports shared", one(rshtest.Redone, true), true},
		{"rshtest as netkit, ports shared", one(rshtest.Netkit, true), true},
		{"fleet", simulated(false), true},
		{"fast fleet", simulated(true), true},
	} {
		check := func(t *testing.T, hosts []transport.Host, session func(i int) error) {
			before := kept(t, isReserved)
			sessions(t, n, session)
			rig.Until(t, "the reserved ports", func() string {
				if after := kept(t, isReserved); len(after) > 0 {
					return fmt.Sprintf("kept after %d sessions: %v (before: %v)", n, after, before)
				}
				return ""
			})
			own := kept(t, func(port uint16) bool { return port == hosts[0].Port })
			t.Logf("on the server's own port: %v", own)
			delete(own, "TIME_WAIT")
			if len(own) > 0 {
				t.Errorf("on the server's own port: %v", own)
			}
		}
		t.Run(server.name+", our client", func(t *testing.T) {
			hosts := server.start(t)
			tr := client(t)
			tr.Plain = !strings.HasPrefix(server.name, "fast") // a shell less
			check(t, hosts, func(i int) error {
				s, err := tr.Start(context.Background(), hosts[i%len(hosts)], &transport.Command{Line: "echo ok"})
				if err != nil {
					return err
				}
				_, err = s.Wait(context.Background())
				return err
			})
			tr.Shutdown(context.Background())
		})
		if !server.unhelped {
			continue
		}
		t.Run(server.name+", plain client", func(t *testing.T) {
			hosts := server.start(t)
			var next atomic.Uint32
			check(t, hosts, func(i int) error {
				out, _, err := rcmd(t, hosts[i%len(hosts)], &next, "echo ok; echo no >&2")
				if err == nil && out != "\x00ok\n" {
					err = fmt.Errorf("%q", out)
				}
				return err
			})
		})
	}
}

// What keeps a port, for comparison: a server like a real one and a client that does not help it.
func TestUnhelpedServerKeepsItsPort(t *testing.T) {
	needPorts(t)
	host := serve(t, new(rshtest.Server))
	var next atomic.Uint32
	const n = 20
	sessions(t, n, func(int) error { _, _, err := rcmd(t, host, &next, "true"); return err })
	rig.Until(t, "TIME_WAIT", func() string {
		if after := kept(t, isReserved); after["TIME_WAIT"] != n || len(after) != 1 {
			return fmt.Sprintf("%v, want %d in TIME_WAIT", after, n)
		}
		return ""
	})
}

// However late the client reads, the reset behind the end of a stderr channel costs it nothing.
func TestSharedPortsLoseNothing(t *testing.T) {
	needPorts(t)
	for _, daemon := range []rshtest.Daemon{rshtest.Redone, rshtest.Netkit} {
		host := serve(t, &rshtest.Server{Daemon: daemon, SharedPorts: true})
		var next atomic.Uint32
		const size = 3 << 20
		_, errs, err := rcmd(t, host, &next, fmt.Sprintf("head -c %d /dev/zero >&2", size))
		if err != nil || len(errs) != size {
			t.Errorf("daemon %d: %d bytes of %d, %v", daemon, len(errs), size, err)
		}
	}
}
