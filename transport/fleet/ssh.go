//go:build unix

package fleet

import (
	"bufio"
	"io"
	"time"

	"multirsh/transport"
	"multirsh/transport/shwrap"
	"multirsh/transport/ssh/sshtest"
)

// answer stands for all commands of SSH hosts under Fast.
func (f *Fleet) answer(e *sshtest.Exec) transport.Status {
	if e.Command == shwrap.Bootstrap {
		return f.answerWrapped(e)
	}
	if name := f.holdUp(e, nil); name != "" {
		return transport.Status{Known: true, Signal: name}
	}
	e.Stdout.Write(f.Output)
	return transport.Status{Known: true}
}

// answerWrapped answers a command of package shwrap.
func (f *Fleet) answerWrapped(e *sshtest.Exec) transport.Status {
	in := bufio.NewReader(e.Stdin)
	var line []byte
	err := bufio.ErrBufferFull
	for err == bufio.ErrBufferFull && len(line) < keepMax {
		var part []byte
		part, err = in.ReadSlice('\n')
		line = append(line, part...)
	}
	w, err := shwrap.Decode(line)
	if err == nil {
		_, err = io.CopyN(io.Discard, in, w.Input+int64(len(w.Go())))
	}
	if err != nil {
		return transport.Status{Known: true, Code: 1} // as the bootstrap, of which nothing was run
	}
	e.Stdout.Write(w.Leader())
	if !w.Merged {
		e.Stderr.Write(w.Leader())
	}
	status := 0
	if f.Hold > 0 {
		stop := make(chan struct{})
		f.wg.Go(func() { // ends with the session at the latest
			if _, err := in.ReadByte(); err == nil {
				close(stop)
			}
		})
		if f.holdUp(e, stop) != "" {
			status = 128 + 15
		}
	}
	if status == 0 {
		e.Stdout.Write(f.Output)
	}
	if !w.Merged {
		e.Stderr.Write(w.Trailer(status))
	}
	e.Stdout.Write(w.Trailer(status))
	return transport.Status{Known: true, Code: status}
}

// holdUp waits while a command seems to run. It returns the signal that ends it early.
func (f *Fleet) holdUp(e *sshtest.Exec, stop <-chan struct{}) (signal string) {
	if f.Hold == 0 {
		return ""
	}
	t := time.NewTimer(f.Hold)
	defer t.Stop()
	select {
	case <-t.C:
		return ""
	case name := <-e.Signals:
		return name
	case <-stop:
		return "TERM"
	case <-e.Gone:
		return "HUP"
	}
}
