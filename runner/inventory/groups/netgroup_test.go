package groups

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// fakeProgram puts a program of ours before the machine's.
func fakeProgram(t *testing.T, name, script string) {
	t.Helper()
	dir := write(t, map[string]string{name: "#!/bin/sh\n" + script})
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestNetgroup(t *testing.T) {
	fakeProgram(t, "getent", `case $2 in
lab) echo 'lab                   (n1,,) (n2,ops,example.com) (-,x,) (,y,) ( n3 ,,)';;
empty) echo 'empty';;
bad) echo 'bad (n1)';;
worse) echo 'worse (n1!n2,,)';;
broken) echo 'no nsswitch' >&2; exit 1;;
*) exit 2;;
esac
`)
	if got := mustMap(t, Netgroup(), "lab"); got != "n1\nn2\nn3" {
		t.Errorf("%q", got)
	}
	if got := mustMap(t, Netgroup(), "empty"); got != "" {
		t.Errorf("%q", got)
	}
	for group, want := range map[string]string{
		"none":   "there is no such group",
		"-x":     "there is no such group",
		"bad":    `"getent netgroup bad": expected (host,user,domain), found "(n1)"`,
		"worse":  `"getent netgroup worse": "n1!n2" is no name of a host, in (n1!n2,,)`,
		"broken": `"getent netgroup broken": exit status 1: no nsswitch`,
	} {
		if _, err := Netgroup().Map(t.Context(), group); fmt.Sprint(err) != want {
			t.Errorf("%s: %v, want %s", group, err, want)
		}
	}
	if _, err := Netgroup().List(t.Context()); !errors.Is(err, ErrNoList) {
		t.Errorf("list: %v", err)
	}
}

// The C library's own reading of /etc/netgroup, which the test has in a mount namespace of its own.
func TestNetgroupOracle(t *testing.T) {
	getent, err := exec.LookPath("getent")
	if err != nil {
		t.Skip("getent is not there; it comes with the C library")
	}
	dir := write(t, map[string]string{
		"etc/nsswitch.conf": "netgroup: files\npasswd: files\nhosts: files\n",
		"etc/passwd":        "root:x:0:0::/:/bin/sh\n",
		"etc/netgroup":      "inner (n3,,) (-,nobody,)\nlab (n1,,) (n2,ops,example.com) \\\n inner (,any,)\nempty\nround (n1,,) round2\nround2 (n2,,) round\n",
	})
	fakeProgram(t, "getent", fmt.Sprintf("exec unshare -m sh -c 'mount --bind %s/etc /etc && exec %s \"$@\"' sh \"$@\"\n", dir, getent))
	if out, err := exec.Command("getent", "passwd", "root").CombinedOutput(); err != nil {
		t.Skipf("a mount namespace is needed, so run this as root: %v: %s", err, out)
	}
	for group, want := range map[string]string{"lab": "n1 n2 n3", "inner": "n3", "round": "n1 n2"} {
		if got := strings.Join(strings.Fields(mustMap(t, Netgroup(), group)), " "); got != want {
			t.Errorf("%s: got %q, want %q", group, got, want)
		}
	}
	if _, err := Netgroup().Map(t.Context(), "none"); err != ErrNoGroup {
		t.Errorf("a netgroup that is not there: %v", err)
	}
}
