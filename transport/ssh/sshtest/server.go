//go:build unix

// Package sshtest is an sshd for tests: the server's half of SSH from golang.org/x/crypto/ssh, which really runs commands with a
// shell, and misbehaves on request. It runs in the process of the test or, as package fleet does, stands for many hosts.
//
//	client                               Server
//	  │ connect ───────────────────────────► Serve accepts, one goroutine for each connection, three more of the library's
//	  │ ◄═ version, keys, authentication ═► ServerConfig with callbacks: Users (keys, certificates, passwords, prompts)
//	  │ session: env, pty, exec ───────────► SHELL -c LINE in a session of its own, or Answer, which stands for all commands
//	  │ ◄═ input, stdout, stderr, signals ══►   pipes (a pty); a signal goes to the command's process group
//	  │ ◄──────── exit-status, EOF, CLOSE ──    when the command has ended; EOF and CLOSE when nobody holds its output any more
//	  │ direct-tcpip ──────────────────────► connects there and passes both directions on (the client's jump host)
//	  │ DISCONNECT ────────────────────────► closes first
//
// A [Behaviour] says where a connection departs from that.
//
// Who closes: as sshd, the server closes its end (FIN) as soon as it has read the client's DISCONNECT or end of file, and then
// waits, with a deadline, for the client's end, so that it can tell who was first ([Connection].First). What it keeps in TIME_WAIT
// is on its own port; listeners have SO_REUSEADDR from package net, so the next server gets the port, and Linux gives the client's
// port free for the next connection. [Server.Close] resets what is left, kills every process group that the server has started and
// returns when all of it is gone, goroutines and processes.
//
// A command lives on when its connection ends, as under sshd: it gets a SIGPIPE when it next writes, or a SIGHUP with its pty.
//
// No user of the system is looked up: commands run as the user that runs the server. Never let it listen where a stranger can
// connect.
//
// What [Server.Record] keeps of each connection, and [Server.Account] of all, is for tests to check the client by.
package sshtest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/testserver"
)

// Server is an sshd. The zero value is a good one, with an ed25519 host key of its own and /bin/sh, that lets everybody in. Its
// fields must not change once it serves.
type Server struct {
	Behaviour Behaviour                            // of every connection
	Behave    func(local netip.AddrPort) Behaviour // chooses by the address that the client connected to; nil: Behaviour

	HostKeys []ssh.Signer // host certificates too (ssh.NewCertSigner); empty: a new ed25519 key
	Crypto   ssh.Config   // algorithms; the zero value: the library's own

	Users  map[string]User // by name; "" is everyone not named. Nil: everybody is let in without authentication
	Banner string          // shown before the authentication; empty: none

	// MaxAuthTries and MaxSessions are as in sshd_config(5). Zero: sshd's 6 and 10.
	MaxAuthTries, MaxSessions int

	Shell string   // login shell; empty: /bin/sh
	Dir   string   // where commands run; empty: the directory of this process
	Env   []string // environment of commands; nil: that of this process. What sshd sets (USER, SSH_CONNECTION …) and the client's come on top

	// Answer stands for all commands: it is called instead of the shell, and its Status is the command's (not Known: no exit status
	// is sent). It must return soon after Exec.Gone. Nil: commands really run.
	Answer func(*Exec) transport.Status

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // for direct-tcpip; nil: net.Dialer

	Patience time.Duration // how long a close waits for the client's end of file; zero: 10 s
	Grace    time.Duration // sshd_config(5)'s LoginGraceTime; zero: 2 minutes

	Record bool        // keep a transcript of each connection, for Connections and Wait
	Log    *log.Logger // one line for each connection that does not go as sshd means it to; nil: silent

	once    sync.Once
	initErr error
	core    *testserver.Server
	keys    []ssh.Signer
	config  *ssh.ServerConfig // shared; each connection serves with a shallow copy

	otherKey                     ssh.Signer // of nobody here
	byKey, byPassword, byPrompts bool       // methods that some user has

	seen testserver.Watched[seen]
}

// seen is what a server has seen.
type seen struct {
	account Account
	over    []Connection
}

// User is how one may log in. A user with nothing in it cannot.
type User struct {
	Keys     []ssh.PublicKey
	CAs      []ssh.PublicKey // whose certificates with the user's name among the principals are good
	Password string          // for the method "password"; empty: not possible
	Prompts  []Prompt        // for the method "keyboard-interactive", all asked at once; empty: not possible
	Second   bool            // a key is not enough: a password or the prompts must follow
}

// Prompt is one question of keyboard-interactive and the answer it must have.
type Prompt struct {
	Question, Answer string
	Echo             bool
}

// Account is what a server has seen of all connections. Now and Most count connections that are being served.
type Account struct {
	Connections, Now, Most         int
	Handshakes, MostHandshakes     int // now and at most at once: accepted and not yet let in
	Logins                         int // let in
	Sessions, SessionsNow          int // session channels opened
	Forwards, ForwardsNow          int // direct-tcpip channels opened
	Keepalives                     int // keepalive@openssh.com requests
	Stalled                        int // connections that have reached the phase of stall
	ServerFirst, ClientFirst, Lost int // connections that are over, by First; Lost: neither is known
}

// Connection is the transcript of one connection.
type Connection struct {
	Client, Server netip.AddrPort
	Behaviour      Behaviour
	ClientVersion  string                   // as "SSH-2.0-Go"; empty: not read to its end
	Algorithms     ssh.NegotiatedAlgorithms // agreed in the first key exchange, when the user was let in
	User           string                   // as the last attempt to authenticate had it
	Offered        []string                 // the keys that were offered, in order, as "SHA256:…"
	Attempts       []Attempt                // in order; a key that was offered and would do is none
	LoggedIn       bool
	Sessions       []Session // in the order in which they ended
	Forwards       []string  // destinations of direct-tcpip, as "host:port", in order
	Disconnect     string    // the reason of the client's SSH_MSG_DISCONNECT, as "11: disconnected by user"; empty: it sent none
	First          Side      // who closed first
	End            error     // how the client's side ended: io.EOF, an error that wraps ECONNRESET; nil: it had not when we let go
	Err            error     // why no user was let in; nil: one was
}

// Side is one end of a connection.
type Side string

// The sides.
const (
	ServerSide Side = "server"
	ClientSide Side = "client"
)

// Attempt is one answered attempt to authenticate.
type Attempt struct {
	Method string // of RFC 4252: none, publickey, password, keyboard-interactive
	OK     bool   // it was good, be it as the first of two
}

// Session is the transcript of one session channel.
type Session struct {
	Command string
	Env     []string // NAME=value, as the client sent them
	Pty     *Pty     // nil: none was asked for
	Agent   bool     // the client's agent was forwarded
	Signals []string // that the client sent, as "TERM"
	Input   int64    // bytes read of the client's input
	Status  transport.Status
}

// Pty is a terminal that was asked for.
type Pty struct {
	Term  string
	Sizes []Size // at first and after each change
}

// Size is a terminal's.
type Size struct{ Columns, Rows int }

// NewKey makes an ed25519 key.
func NewKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromSigner(private)
}

// KnownHosts is the line for a known_hosts file that makes key the host key of names: "[host]:port" where the port is not 22,
// patterns such as "[127.*]:2222" too.
func KnownHosts(key ssh.PublicKey, names ...string) string {
	return strings.Join(names, ",") + " " + key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal()) + "\n"
}

func (s *Server) init() error {
	s.once.Do(func() {
		s.core = testserver.New(s.begin, s.Log)
		own, err := NewKey()
		other, otherErr := NewKey()
		if s.initErr = errors.Join(err, otherErr); s.initErr != nil {
			return
		}
		if s.keys = s.HostKeys; len(s.keys) == 0 {
			s.keys = []ssh.Signer{own}
		}
		s.otherKey = other
		s.config = s.newConfig(s.keys)
		for _, u := range s.Users {
			s.byKey = s.byKey || len(u.Keys) > 0 || len(u.CAs) > 0
			s.byPassword = s.byPassword || u.Password != ""
			s.byPrompts = s.byPrompts || len(u.Prompts) > 0
		}
	})
	return s.initErr
}

// newConfig is what connections have in common.
func (s *Server) newConfig(keys []ssh.Signer) *ssh.ServerConfig {
	c := &ssh.ServerConfig{Config: s.Crypto, ServerVersion: serverVersion, MaxAuthTries: s.MaxAuthTries, NoClientAuth: true}
	for _, k := range keys {
		c.AddHostKey(k)
	}
	return c
}

const serverVersion = "SSH-2.0-sshtest"

// HostKey is the first host key.
func (s *Server) HostKey() ssh.PublicKey {
	if s.init() != nil {
		return nil
	}
	return s.keys[0].PublicKey()
}

// Start listens at addr, as "127.0.0.1:0", and serves in the background until Close. It returns the address it listens at, or,
// for the behaviour refuse, the one that it keeps from listening.
func (s *Server) Start(addr string) (netip.AddrPort, error) {
	if err := s.init(); err != nil {
		return netip.AddrPort{}, err
	}
	if s.Behaviour.Kind == refuse && s.Behave == nil {
		return s.holdAddress(addr)
	}
	return s.core.Start(addr)
}

// holdAddress takes an address and does not listen at it, so that the kernel refuses connections and gives it to nobody else.
func (s *Server) holdAddress(addr string) (netip.AddrPort, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	socket, err := bound(at)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !s.core.Own(socket) {
		return netip.AddrPort{}, net.ErrClosed
	}
	return at, nil
}

// bound is a TCP socket bound to an address.
func bound(at netip.AddrPort) (*os.File, error) {
	family, sa := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().Unmap().As4()})
	if !at.Addr().Unmap().Is4() {
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	socket := os.NewFile(uintptr(fd), at.String())
	if err := syscall.Bind(fd, sa); err != nil {
		socket.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	return socket, nil
}

// Serve serves the connections of l, which must be TCP, until Close, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.init(); err != nil {
		l.Close()
		return err
	}
	return s.core.Serve(l)
}

// ServeConn serves one connection that someone else has accepted, and returns when it is over. It closes c.
func (s *Server) ServeConn(c *net.TCPConn) {
	if s.init() != nil {
		c.Close()
		return
	}
	s.core.ServeConn(c)
}

// begin counts a connection in.
func (s *Server) begin(c *net.TCPConn) func() {
	x := &conn{srv: s, wire: newWire(c, s.core.Context())}
	if !s.core.Enter(x.wire) {
		return nil
	}
	s.count(func(a *Account) {
		x.number = a.Connections
		a.Connections++
		a.Now++
		a.Most = max(a.Most, a.Now)
		a.Handshakes++
		a.MostHandshakes = max(a.MostHandshakes, a.Handshakes)
	})
	return x.serve
}

// leave counts a connection out.
func (s *Server) leave(x *conn) {
	s.seen.Change(func(now *seen) {
		a := &now.account
		a.Now--
		if !x.rec.LoggedIn {
			a.Handshakes--
		}
		switch x.rec.First {
		case ServerSide:
			a.ServerFirst++
		case ClientSide:
			a.ClientFirst++
		default:
			a.Lost++
		}
		if s.Record {
			now.over = append(now.over, x.rec)
		}
	})
	s.core.Leave(x.wire)
}

// count changes the account.
func (s *Server) count(change func(*Account)) {
	s.seen.Change(func(now *seen) { change(&now.account) })
}

// Close stops listening, resets every connection, kills every process group that it has started and waits until its goroutines
// and processes are gone. The error names process groups that would not go.
func (s *Server) Close() error {
	if err := s.init(); err != nil {
		return err
	}
	return s.core.Close()
}

// Account tells what the server has seen so far.
func (s *Server) Account() Account { return s.seen.Value().account }

// Until waits until the account is as wanted, or returns the cause when ctx ends first. It tells the account then.
func (s *Server) Until(ctx context.Context, wanted func(Account) bool) (Account, error) {
	now, err := s.seen.Until(ctx, func(now seen) bool { return wanted(now.account) })
	return now.account, err
}

// Connections returns the transcripts of the connections that are over, in the order in which they ended. Nil without Record.
func (s *Server) Connections() []Connection { return slices.Clone(s.seen.Value().over) }

// Wait returns the transcripts once n connections are over, or what there is and the cause when ctx ends first.
func (s *Server) Wait(ctx context.Context, n int) ([]Connection, error) {
	now, err := s.seen.Until(ctx, func(now seen) bool { return len(now.over) >= n })
	return slices.Clone(now.over), err
}

func (s *Server) behaviour(local netip.AddrPort) Behaviour {
	if s.Behave != nil {
		return s.Behave(local)
	}
	return s.Behaviour
}

// user finds a user by name.
func (s *Server) user(name string) (User, bool) {
	u, ok := s.Users[name]
	if !ok {
		u, ok = s.Users[""]
	}
	return u, ok
}

func contains(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	wire := key.Marshal()
	return slices.ContainsFunc(keys, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), wire) })
}
