package rig

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Enter()
	goleak.VerifyTestMain(m)
}

// patience bounds what should happen soon; a test that needs it all has failed.
const patience = time.Minute

// answer is all that came back for a command.
type answer struct {
	Status         string // what came before the output: "0", or "1" and then Stdout is the error; "" if nothing came
	Stdout, Stderr string
}

// rcmd runs a command as rcmd(3) does: from a reserved port, and with a second connection for stderr that the host makes to
// another reserved port of ours. Both are read to their end.
func rcmd(host netip.Addr, user, command string, stderr bool) (a answer, err error) {
	deadline := time.Now().Add(patience)
	var listener *net.TCPListener
	port := 0
	if stderr {
		listener, err = onReservedPort(func(p int) (*net.TCPListener, error) {
			return net.ListenTCP("tcp", &net.TCPAddr{Port: p})
		})
		if err != nil {
			return a, err
		}
		defer listener.Close()
		listener.SetDeadline(deadline)
		port = listener.Addr().(*net.TCPAddr).Port
	}
	conn, err := onReservedPort(func(p int) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: p}, Deadline: deadline, Control: shareAddress}
		return d.Dial("tcp", netip.AddrPortFrom(host, 514).String())
	})
	if err != nil {
		return a, err
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(conn, "%d\x00tester\x00%s\x00%s\x00", port, user, command); err != nil {
		return a, err
	}
	var second sync.WaitGroup
	if stderr {
		second.Go(func() {
			c, err := listener.Accept()
			if err != nil {
				return // the host refused before it came to this
			}
			defer c.Close()
			c.SetDeadline(deadline)
			text, _ := io.ReadAll(c)
			a.Stderr = string(text)
		})
	}
	all, err := io.ReadAll(conn)
	if listener != nil {
		listener.Close()
	}
	second.Wait()
	if len(all) > 0 {
		a.Status, a.Stdout = fmt.Sprint(all[0]), string(all[1:])
	}
	return a, err
}

// lastPort makes reserved ports be used in turn.
var lastPort atomic.Int32

func onReservedPort[T any](use func(port int) (T, error)) (v T, err error) {
	for range 512 {
		v, err = use(512 + int(lastPort.Add(1)%512))
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	return v, err
}

// shareAddress lets one port of ours be used for many hosts.
func shareAddress(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) }); e != nil {
		return e
	}
	return err
}

// eachDaemon runs a test against one host of each.
func eachDaemon(t *testing.T, cfg Config, test func(t *testing.T, h *Host)) {
	cfg.Hosts, cfg.Daemon = 2, Both
	r := New(t, cfg)
	for _, h := range r.Hosts {
		t.Run(string(h.Daemon), func(t *testing.T) {
			test(t, h)
			if t.Failed() {
				log, _ := h.Log()
				t.Logf("the host's log:\n%s", log)
			}
		})
	}
}

func TestShells(t *testing.T) {
	eachDaemon(t, Config{}, func(t *testing.T, h *Host) {
		for _, s := range Shells() {
			t.Run(s.Name, func(t *testing.T) {
				user := ShellUser(t, s.Name)
				for _, addr := range []netip.Addr{h.Addr(0), h.Addr(7), h.Addr6(0), h.Addr6(7)} {
					if addr.Is6() && !HasIPv6() {
						continue
					}
					got, err := rcmd(addr, user, "echo out; sh -c 'echo err >&2'; hostname; pwd", true)
					want := answer{"0", "out\n" + h.Name + "\n/run/rig/home/" + user + "\n", "err\n"}
					if err != nil || got != want {
						t.Errorf("%v: %v\n%s", addr, err, cmp.Diff(want, got))
					}
				}
			})
		}
	})
}

// What the daemons say to a user without .rhosts, word for word.
func TestAuthenticationFailure(t *testing.T) {
	want := map[Daemon]answer{
		Redone: {"0", "Authentication failure\n", ""},
		Netkit: {"1", "Permission denied.\n", ""},
	}
	eachDaemon(t, Config{}, func(t *testing.T, h *Host) {
		got, err := rcmd(h.Addr(1), NoRhosts, "echo out", true)
		if err != nil || got != want[h.Daemon] {
			t.Errorf("%v\n%s", err, cmp.Diff(want[h.Daemon], got))
		}
	})
}

func TestHostsEquiv(t *testing.T) {
	eachDaemon(t, Config{HostsEquiv: "ctl " + NoRhosts + "\nctl tester\n"}, func(t *testing.T, h *Host) {
		got, err := rcmd(h.Addr(1), NoRhosts, "echo out", true)
		want := answer{"0", "out\n", ""}
		if err != nil || got != want {
			t.Errorf("%v\n%s", err, cmp.Diff(want, got))
		}
	})
}
