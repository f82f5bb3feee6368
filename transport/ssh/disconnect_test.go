package ssh

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestDisconnectLayout tells which way of closing is in effect. If it fails after a change of x/crypto/ssh, connections are closed by a
// reset, which leaves nothing here either but an error in the servers' logs: find the function's new place, or that it is exported now.
func TestDisconnectLayout(t *testing.T) {
	client, server := pair(t)
	defer client.Close()
	if transportOf(client) == nil {
		t.Fatalf("%v: closing is by reset", errNoDisconnect)
	}
	if err := disconnect(client); err != nil {
		t.Fatal(err)
	}
	// The server of package ssh closes when the packet comes, and says what came.
	err := server.Wait()
	if want := `ssh: disconnect, reason 11: "disconnected by user"`; err == nil || err.Error() != want {
		t.Errorf("the server saw %v, want %q", err, want)
	}
	if err := client.Wait(); !errors.Is(err, io.EOF) {
		t.Errorf("the client saw %v, want the end of file", err)
	}
}

// What is not a connection of package ssh, or is one no more, is no place to look into.
func TestDisconnectElsewhere(t *testing.T) {
	type other struct {
		ssh.Conn
		transport *int
	}
	for name, conn := range map[string]ssh.Conn{"none": nil, "value": other{}, "pointer": &other{transport: new(int)}, "nil inside": &other{}} {
		if err := disconnect(conn); !errors.Is(err, errNoDisconnect) {
			t.Errorf("%s: %v, want %v", name, err, errNoDisconnect)
		}
	}
}

// pair is a client and a server that are connected, without authentication.
func pair(t *testing.T) (client, server ssh.Conn) {
	t.Helper()
	_, signer := newKey(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan ssh.Conn, 1)
	go func() {
		defer close(accepted)
		c, err := l.Accept()
		if err != nil {
			return
		}
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(signer)
		s, channels, requests, err := ssh.NewServerConn(c, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		go func() {
			for n := range channels {
				n.Reject(ssh.Prohibited, "")
			}
		}()
		accepted <- s.Conn
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	go func() {
		for range channels {
		}
	}()
	server, ok := <-accepted
	if !ok {
		t.Fatal("the server came to no session")
	}
	return conn, server
}

func newKey(t testing.TB) (crypto.PrivateKey, ssh.Signer) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return private, signer
}
