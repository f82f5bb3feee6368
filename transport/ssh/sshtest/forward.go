//go:build unix

package sshtest

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// forward serves a direct-tcpip channel, RFC 4254 section 7.2: it connects and passes both directions on.
func (x *conn) forward(c ssh.NewChannel) {
	var to struct {
		Host     string
		Port     uint32
		From     string
		FromPort uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &to); err != nil {
		c.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	addr := net.JoinHostPort(to.Host, strconv.FormatUint(uint64(to.Port), 10))
	x.mu.Lock()
	x.rec.Forwards = append(x.rec.Forwards, addr)
	x.mu.Unlock()
	target, err := x.dial(addr)
	if err != nil {
		// sshd's message is the error alone.
		if no := syscall.Errno(0); errors.As(err, &no) {
			err = no
		}
		c.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer target.Close()
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	x.srv.count(func(a *Account) { a.Forwards++; a.ForwardsNow++ })
	defer x.srv.count(func(a *Account) { a.ForwardsNow-- })

	join(channel, requests, target)
}

// join passes a channel and a connection on to each other until both have ended, and closes both.
func join(channel ssh.Channel, requests <-chan *ssh.Request, c net.Conn) {
	defer c.Close()
	var both sync.WaitGroup
	both.Go(func() {
		pass(c, channel)
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		// The client's end of file leaves the other direction open, its close does not.
		for r := range requests {
			r.Reply(false, nil)
		}
		c.Close()
	})
	pass(channel, c)
	channel.CloseWrite()
	channel.Close()
	both.Wait()
}

// dial connects to addr for the client, as long as that is there.
func (x *conn) dial(addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(x.srv.core.Context())
	defer cancel()
	x.work.Go(func() {
		select {
		case <-x.wire.over:
			cancel()
		case <-ctx.Done():
		}
	})
	if x.srv.Dial != nil {
		return x.srv.Dial(ctx, "tcp", addr)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// pass copies with a buffer that a thousand channels can have each.
func pass(to io.Writer, from io.Reader) {
	io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 8<<10))
}
