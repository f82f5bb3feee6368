package auth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

const (
	// pipelined is how many requests x/crypto's client has in flight on one connection. The others wait here, where they can give up.
	pipelined = 32

	// An agent that owes an answer and gives none to anybody for this long is given up. Listing needs nobody; a signature may need a
	// person at the keyboard (ssh-add -c, a security key's touch), whom the connection's own deadline hurries soon enough.
	listPatience = 15 * time.Second
	signPatience = time.Minute
)

// sshAgent is the one connection to one ssh-agent. A signature that nobody waits for any more is still received: the protocol
// (draft-miller-ssh-agent) answers in order and cannot cancel.
type sshAgent struct {
	socket string
	listed chan struct{} // closed when keys and gone are what List made of it
	keys   []held
	slots  chan struct{}
	client agent.ExtendedAgent // set before listed is closed

	mu       sync.Mutex
	conn     net.Conn
	inFlight int
	patience time.Duration
	silence  *time.Timer // runs while an answer is due
	gone     error       // why nothing more comes from it; it names the agent
	requests sync.WaitGroup
}

// held is a key that an agent holds.
type held struct {
	public  ssh.PublicKey
	comment string
}

// agent gives the agent of a socket; the first caller connects and lists it, the others wait for that. An agent that cannot be
// reached is one whose lost() is an error; the error here is that of ctx.
func (w *Wallet) agent(ctx context.Context, socket string) (*sshAgent, error) {
	w.mu.Lock()
	a := w.agents[socket]
	if a == nil {
		a = &sshAgent{socket: socket, listed: make(chan struct{}), slots: make(chan struct{}, pipelined), patience: listPatience}
		a.silence = time.AfterFunc(time.Hour, a.tooSilent)
		a.silence.Stop()
		w.agents[socket] = a
		a.requests.Go(func() { a.open(w.options.NewAgent) })
	}
	w.mu.Unlock()
	select {
	case <-a.listed:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the ssh-agent at %s has not answered yet: %w", socket, context.Cause(ctx))
	}
}

// open connects and lists the keys.
func (a *sshAgent) open(dial func(string) (net.Conn, error)) {
	defer close(a.listed)
	conn, err := dial(a.socket)
	// A unix socket whose backlog is full refuses at once: other programs are connecting in a burst.
	for pause := time.Millisecond; errors.Is(err, syscall.EAGAIN) && pause < time.Second && a.lost() == nil; pause *= 2 {
		time.Sleep(pause)
		conn, err = dial(a.socket)
	}
	if err != nil {
		a.lose(fmt.Errorf("the ssh-agent at %s cannot be reached (%v): start one and ssh-add the key, or unset SSH_AUTH_SOCK", a.socket, cause(err)))
		return
	}
	a.mu.Lock()
	closed := a.gone != nil
	a.conn = conn
	a.mu.Unlock()
	if closed {
		conn.Close()
		return
	}
	a.client = agent.NewClient(watched{conn, a})

	var keys []*agent.Key
	err = a.do(context.Background(), func() (err error) {
		keys, err = a.client.List()
		return err
	})
	a.mu.Lock()
	a.patience = signPatience
	a.mu.Unlock()
	if err != nil {
		a.lose(fmt.Errorf("the ssh-agent at %s does not list its keys (%v): is it one?", a.socket, err))
		return
	}
	for _, k := range keys {
		// A type that x/crypto does not know could not be offered either.
		if public, err := ssh.ParsePublicKey(k.Blob); err == nil {
			a.keys = append(a.keys, held{public, k.Comment})
		}
	}
}

// lost says why nothing more can be had from the agent.
func (a *sshAgent) lost() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gone
}

// lose gives the agent up, for the first reason that comes, and ends every request that waits for it.
func (a *sshAgent) lose(why error) {
	a.mu.Lock()
	if a.gone == nil {
		a.gone = why
	}
	conn := a.conn
	a.silence.Stop()
	a.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

func (a *sshAgent) tooSilent() {
	a.mu.Lock()
	due, patience := a.inFlight > 0, a.patience
	a.mu.Unlock()
	if due {
		a.lose(fmt.Errorf("the ssh-agent at %s has not answered for %v: restart it", a.socket, patience))
	}
}

// close ends the connection and waits for every goroutine.
func (a *sshAgent) close() {
	a.lose(fmt.Errorf("the ssh-agent at %s: the run is over", a.socket))
	<-a.listed
	if a.client != nil {
		// Fails at once. An agent that answered what nobody asked has x/crypto's reader wait for a request to give that answer
		// to: this one lets it go.
		a.client.List()
	}
	a.requests.Wait()
}

// do has the client make one request, which it does without a context: when ctx ends first, the answer is not waited for here.
func (a *sshAgent) do(ctx context.Context, request func() error) error {
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return a.unanswered(ctx)
	}
	a.mu.Lock()
	if gone := a.gone; gone != nil {
		a.mu.Unlock()
		<-a.slots
		return gone
	}
	a.inFlight++
	if a.inFlight == 1 {
		a.silence.Reset(a.patience)
	}
	answer := make(chan error, 1)
	a.requests.Go(func() {
		err := request()
		a.mu.Lock()
		if a.inFlight--; a.inFlight == 0 || a.gone != nil {
			a.silence.Stop()
		} else {
			a.silence.Reset(a.patience)
		}
		if err != nil && a.gone != nil {
			err = a.gone
		}
		a.mu.Unlock()
		<-a.slots
		answer <- err
	})
	a.mu.Unlock()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return a.unanswered(ctx)
	}
}

func (a *sshAgent) unanswered(ctx context.Context) error {
	return fmt.Errorf("the ssh-agent at %s has not answered yet (%w): is somebody to confirm or touch a key?", a.socket, context.Cause(ctx))
}

// sign has the agent sign with a key it holds.
func (a *sshAgent) sign(ctx context.Context, public ssh.PublicKey, data []byte, algorithm string) (*ssh.Signature, error) {
	var flags agent.SignatureFlags
	switch algorithm {
	case ssh.KeyAlgoRSASHA256:
		flags = agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		flags = agent.SignatureFlagRsaSha512
	}
	got := make(chan *ssh.Signature, 1)
	err := a.do(ctx, func() error {
		sig, err := a.client.SignWithFlags(public, data, flags)
		got <- sig
		return err
	})
	switch {
	case err == nil:
	case ctx.Err() != nil || a.lost() != nil:
		return nil, err
	default:
		return nil, fmt.Errorf("the ssh-agent at %s refused to sign with it (%v): is the agent locked, or the key's use restricted or not confirmed?", a.socket, err)
	}
	sig := <-got
	if sig.Format != algorithm {
		return nil, fmt.Errorf("the ssh-agent at %s answered with a %q signature where %q was asked for: do without it by IdentityAgent=none and the key's file", a.socket, sig.Format, algorithm)
	}
	return sig, nil
}

func (a *sshAgent) lied() error {
	return fmt.Errorf("the ssh-agent at %s made a wrong signature: restart it, or do without it by IdentityAgent=none and the key's file", a.socket)
}

// watched is an agent's connection as x/crypto's client has it. Its one reader notices an agent's death when it happens, not at the next
// request, unless a request is written first.
type watched struct {
	net.Conn
	a *sshAgent
}

func (c watched) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.note(err)
	return n, err
}

func (c watched) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.note(err)
	return n, err
}

func (c watched) note(err error) {
	if err != nil {
		c.a.lose(fmt.Errorf("the ssh-agent at %s has gone (%v): start it again, or name the keys' files with -i", c.a.socket, cause(err)))
	}
}

// cause is an error without the words that net puts before it: the message around it has said them.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys syscall.Errno
	if errors.As(err, &sys) {
		return sys
	}
	return err
}
