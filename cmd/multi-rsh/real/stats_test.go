//go:build linux

package real

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A run accounts for its ports, as the kernel's table has them.
func TestStatsReal(t *testing.T) {
	r := hosts(t)
	o := rsh(t, "--stats", "-w", addresses(r, 8), "echo ok")
	want := regexp.MustCompile(`(?m)^reserved ports: ([1-9][0-9]*) of ([0-9]+) used for 32 connections, at most ([1-9][0-9]*) at once\n` +
		`  passed over: [0-9]+ at bind \(another program has them\), [0-9]+ at connect \(the kernel still knows the pair\)\n` +
		`  waits: [0-9]+ for a port, [0-9]+ for a listener; 32 listeners lent\n` +
		`  left in TIME-WAIT here, by the kernel's table: 0 \(`)
	if o.code != 0 || !want.MatchString(o.stderr) {
		t.Errorf("%v\nwant %v", o, want)
	}
	if m := want.FindStringSubmatch(o.stderr); m != nil {
		n := func(i int) int { v, _ := strconv.Atoi(m[i]); return v }
		if used, all, most := n(1), n(2), n(3); most > used || used > all {
			t.Errorf("%d used of %d, %d at once", used, all, most)
		}
	}
	nothingLeft(t, r)
}

// Who closed first over ssh is counted, and the packets say the same.
func TestStatsSSH(t *testing.T) {
	r := sshRig(t, 2)
	cfg := sshConfig(t, knownHosts(r, 20, 0))
	var o outcome
	all := closings(t, func() { o = run(t, "multi-rsh", overSSH(cfg, "--stats", "-w", addresses(r, 20), "true")...) })
	if o.code != 0 || !strings.Contains(o.stderr, "ssh: 40 connections, 40 closed by the server first, 0 reset; 0 tries again") {
		t.Error(o)
	}
	if n := serverFirst(all); len(all) != 40 || n != 40 {
		t.Errorf("%d closings, %d by the server first", len(all), n)
	}
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
