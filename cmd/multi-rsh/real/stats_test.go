package real

import (
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A run accounts for its ports, as the kernel's table has them.
func TestStatsReal(t *testing.T) {
	r := hosts(t)
	o := rsh(t, "--stats", "-w", addresses(r, 8), "echo ok")
	want := regexp.MustCompile(`(?m)^reserved ports: 32 connections, at most [1-9][0-9]* of [0-9]+ in use at once\n` +
		`  passed over: [0-9]+ at bind \(another program has them\), [0-9]+ at connect \(the kernel still knows the pair\)\n` +
		`  waits: [0-9]+ for a port, [0-9]+ for a listener; 32 listeners lent\n` +
		`  left in TIME-WAIT here, by the kernel's table: 0 \(`)
	if o.code != 0 || !want.MatchString(o.stderr) {
		t.Errorf("%v\nwant %v", o, want)
	}
	nothingLeft(t, r)
}

// Where others have the ports, a host waits, and it is said who has them.
func TestShortReal(t *testing.T) {
	r := hosts(t)
	held := 0
	for port := 512; port <= 1023; port++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if unix.Bind(fd, &unix.SockaddrInet4{Port: port}) == nil {
			held++
		}
	}
	if held < 500 {
		t.Fatalf("%d of 512 ports could be had", held)
	}
	o := rsh(t, "--connect-timeout", "4", "-w", r.Hosts[0].Addr(1).String(), "echo ok")
	want := regexp.MustCompile(`multi-rsh: reserved ports are short, and hosts wait for one: this run has [0-9]+ of [0-9]+, .* \([0-9]+\) has [0-9]+`)
	if o.code != 1 || len(want.FindAllString(o.stderr, -1)) != 1 || !strings.Contains(o.stderr, "timeout port: ") {
		t.Error(o)
	}
}
