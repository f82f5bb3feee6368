package fleet

import (
	"bytes"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"multirsh/transport/shwrap"
)

// FuzzEngine: whatever a client sends, and however it is cut into packets, the engine gives the same answer and keeps within
// its bounds.
func FuzzEngine(f *testing.F) {
	w, err := shwrap.New(shwrap.Script{Line: "cat", Input: 3, Merged: true})
	if err != nil {
		f.Fatal(err)
	}
	whole := "\x00ann\x00ops\x00" + shwrap.Bootstrap + "\x00" + string(w.Preamble()) + "abc" + string(w.Go())
	for _, seed := range []string{whole, whole[:len(whole)-2], "\x00ann\x00ops\x00true\x00rest", "x\x00", "00\x00\x00\x00\x00", "123456"} {
		f.Add([]byte(seed), uint(len(seed)/2))
	}
	e := &engine{
		fleet: &Fleet{Output: []byte("ok\n")}, buf: make([]byte, 64<<10), scratch: make([]byte, 0, 16<<10),
		conns: make([]*conn, 4096),
	}
	answer := func(t *testing.T, parts ...[]byte) string {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := &conn{main: fds[0], stderr: -1, polled: true}
		e.watch(c.main, c)
		var in []byte
		for _, p := range parts {
			in = bytes.Clone(e.step(c, append(in, p...)))
		}
		e.close(c)
		client := os.NewFile(uintptr(fds[1]), "client")
		defer client.Close()
		out, err := io.ReadAll(client)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		if field, _, _ := bytes.Cut(in, []byte{0}); len(bytes.Trim(field, "0")) > 0 && len(field) <= 5 {
			return // it would connect back
		}
		at := cut % uint(len(in)+1)
		if one, two := answer(t, in), answer(t, in[:at], in[at:]); one != two {
			t.Errorf("in one piece %q, cut at %d %q", one, at, two)
		}
	})
}
