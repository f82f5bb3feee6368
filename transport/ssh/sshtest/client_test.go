//go:build unix

package sshtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waiting for what must happen: long enough for any machine.
const patience = 30 * time.Second

// newServer starts s, with transcripts, and closes it with the test.
func newServer(tb testing.TB, s *Server) netip.AddrPort {
	tb.Helper()
	s.Record = true
	addr, err := s.Start("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
		if a := s.Account(); a.Now != 0 || a.SessionsNow != 0 || a.ForwardsNow != 0 || a.Handshakes != 0 {
			tb.Errorf("after Close: %+v", a)
		}
	})
	return addr
}

// serve starts a good server but for its behaviour.
func serve(tb testing.TB, behaviour string) (*Server, netip.AddrPort) {
	tb.Helper()
	s := &Server{Behaviour: MustParseBehaviour(behaviour)}
	return s, newServer(tb, s)
}

// client is a plain client of x/crypto's.
type client struct {
	*ssh.Client
	tb  testing.TB
	tcp *net.TCPConn
}

// handshake connects as config says. Nothing in these tests waits longer than patience for the server.
func handshake(tb testing.TB, addr netip.AddrPort, config ssh.ClientConfig) (*client, error) {
	tb.Helper()
	if config.User == "" {
		config.User = "ann"
	}
	if config.HostKeyCallback == nil {
		config.HostKeyCallback = ssh.InsecureIgnoreHostKey()
	}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c, channels, requests, err := ssh.NewClientConn(conn, addr.String(), &config)
	if err != nil {
		return nil, err
	}
	return &client{ssh.NewClient(c, channels, requests), tb, conn.(*net.TCPConn)}, nil
}

// dial is handshake that must do.
func dial(tb testing.TB, addr netip.AddrPort) *client {
	tb.Helper()
	c, err := handshake(tb, addr, ssh.ClientConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// session opens one.
func (c *client) session() *ssh.Session {
	c.tb.Helper()
	x, err := c.NewSession()
	if err != nil {
		c.tb.Fatal(err)
	}
	return x
}

// run runs a command and returns its two outputs and Wait's error.
func (c *client) run(command string) (out, errs string, err error) {
	c.tb.Helper()
	x := c.session()
	defer x.Close()
	var o, e bytes.Buffer
	x.Stdout, x.Stderr = &o, &e
	err = x.Run(command)
	return o.String(), e.String(), err
}

//go:linkname writePacket golang.org/x/crypto/ssh.(*handshakeTransport).writePacket
func writePacket(transport unsafe.Pointer, packet []byte) error

// disconnect sends SSH_MSG_DISCONNECT, RFC 4253 section 11.1, for which the library has no call.
func (c *client) disconnect() {
	c.tb.Helper()
	field := reflect.ValueOf(c.Conn).Elem().FieldByName("transport")
	if field.Kind() == reflect.Interface {
		field = field.Elem()
	}
	p := binary.BigEndian.AppendUint32([]byte{1}, 11)
	p = append(p, ssh.Marshal(struct{ Text, Lang string }{Text: "disconnected by user"})...)
	if err := writePacket(field.UnsafePointer(), p); err != nil {
		c.tb.Error(err)
	}
}

// one waits for the server's only connection to be over.
func one(tb testing.TB, s *Server) Connection {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := s.Wait(ctx, 1)
	if err != nil {
		tb.Fatal(err)
	}
	if len(all) != 1 {
		tb.Fatalf("%d connections", len(all))
	}
	return all[0]
}

// until waits for the server's account.
func until(tb testing.TB, s *Server, wanted func(Account) bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if a, err := s.Until(ctx, wanted); err != nil {
		tb.Fatalf("%v: %+v", err, a)
	}
}

// raw connects without SSH.
func raw(tb testing.TB, addr netip.AddrPort) *net.TCPConn {
	tb.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// channel opens a session without the library's Session, and asks for a command.
func (c *client) channel() *channel {
	c.tb.Helper()
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		c.tb.Fatal(err)
	}
	return &channel{Channel: ch, requests: requests, tb: c.tb}
}

// channel is a session as it comes off the wire.
type channel struct {
	ssh.Channel
	requests <-chan *ssh.Request
	tb       testing.TB
}

// exec asks for a command, and tells the reply.
func (c *channel) exec(command string) (bool, error) {
	return c.SendRequest("exec", true, ssh.Marshal(struct{ Line string }{command}))
}

// ends are the requests and the output until the channel's end.
func (c *channel) ends() (requests []string, out string) {
	c.tb.Helper()
	var all sync.WaitGroup
	all.Go(func() { io.Copy(io.Discard, c.Stderr()) })
	all.Go(func() {
		for r := range c.requests {
			requests = append(requests, c.name(r))
		}
	})
	b, err := io.ReadAll(c)
	if err != nil {
		c.tb.Error(err)
	}
	c.Close()
	all.Wait()
	return requests, string(b)
}

// name is a request as "exit-status 3".
func (c *channel) name(r *ssh.Request) string {
	switch r.Type {
	case "exit-status":
		return r.Type + " " + string('0'+r.Payload[3])
	case "exit-signal":
		var m struct {
			Name string
			Rest []byte `ssh:"rest"`
		}
		ssh.Unmarshal(r.Payload, &m)
		return r.Type + " " + m.Name
	}
	return r.Type
}

// exitCode is the exit status in Wait's error.
func exitCode(err error) int {
	if exit := (*ssh.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitStatus()
	}
	return -1
}
