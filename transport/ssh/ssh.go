// Package ssh runs commands over SSH 2 (RFC 4251 to 4254), and has the server close first.
//
//	         sshconfig ── Settings ─┐            hostkeys: is it the host we know     auth: who we are
//	                                ▼                     ▼                            ▼
//	Start ─► route ─► resolve ─► admission ─► dial ─► version ─► key exchange ─► authentication ─► channel, exec ─► session
//	          │                   │  from here the connect clock runs; what a server drops before its version is tried again
//	          └─ jump host: one connection for all hosts behind it; ProxyCommand: a process
//
//	session: Wait ─ output, exit status ─► result ─► behind it: DISCONNECT ─► the server's end of file ─► close
//
// What a Host says of itself goes before ssh_config, and before the options of the command line: they are for all hosts. Its Name is what Host
// lines are compared with, its Addr stands for HostName, and as in ssh(1) known_hosts is asked for that, or for HostKeyAlias where
// ssh_config has one for the Name. Its Jump is ssh's -J, and "none" there leaves a ProxyCommand out, too. Jump hosts
// themselves are as ssh_config has them. Hosts whose ways are the same share the connections to their jump hosts, whoever named them.
//
// Who closes, and how, is the point of this program. The client that closes first keeps a TIME_WAIT for each host, as ssh(1) does. So we
// say SSH_MSG_DISCONNECT and read on until the server has closed. SO_LINGER{1,0} stands from the dial on, so that whatever
// else ends a connection, kill -9 included, leaves nothing here; it is taken off only after the server's end of file. See "Closing" in docs/design.md.
//
// A session owns its connection and its goroutines: the library's three, one that answers the server's requests, one for each of
// stderr, the channel's requests and, while there is some, the input; behind a jump host two more pass its bytes on. Wait ends the session's own; the connection's end with it, a moment
// later and behind the caller's slot, which Shutdown waits for.
package ssh

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/shwrap"
	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/hostkeys"
	"multirsh/transport/ssh/sshconfig"
)

// Defaults of the zero Transport.
const (
	DefaultConnectTimeout = 10 * time.Second
	DefaultRetries        = 3
	DefaultPort           = 22
)

// closeTimeout is how long a server may take to close after our DISCONNECT.
const closeTimeout = 2 * time.Second

// Terminal is the pseudo-terminal to ask for (RFC 4254 section 6.2).
type Terminal struct {
	Type          string // as $TERM
	Columns, Rows int
}

// Transport runs commands by SSH. Config and Wallet must be set.
type Transport struct {
	Config     *sshconfig.Config
	JumpConfig *sshconfig.Config // of jump hosts, to which -J and -o do not apply, as in ssh(1); nil: Config
	Wallet     *auth.Wallet      // the caller closes it, after Shutdown

	User           string        // on hosts that name none; empty: ssh_config's, else our own
	HostKeys       Policy        // what to do about unknown host keys
	ConnectTimeout time.Duration // from the dial to the accepted command; 0: ssh_config's ConnectTimeout, else DefaultConnectTimeout
	Retries        int           // of connections that the server drops before its version line; 0: DefaultRetries, negative: none
	Legacy         bool          // offer what old servers need, too: see legacy
	Merge          bool          // stderr comes with stdout, in its place: below the wrapper, but for what a terminal merges anyway
	Shell          bool          // the command is run as rsh runs it, by /bin/sh below package shwrap, which gives a stop that reaches the whole group
	Plain          bool          // the command as it is, even where the server cannot stop the whole of it; without Shell and Merge
	Terminal       *Terminal     // nil: none
	ForwardAgent   bool          // even where ssh_config does not say so

	// KillOnDisconnect has the command killed when we vanish: below the wrapper, within the login shell unless Shell is set. Not with Plain.
	KillOnDisconnect bool

	// Warn is told what does not keep a host from its run; nil: nobody is. It may be called from several goroutines at once.
	Warn func(error)

	// LookupNetIP resolves names; nil: net.DefaultResolver.
	LookupNetIP func(ctx context.Context, network, host string) ([]netip.Addr, error)

	once     sync.Once
	admitted chan struct{} // handshakes at once: the processors are busy with them
	servers  gates         // handshakes at once to one server
	lookups  chan struct{} // names looked up at once
	unasked  unasked       // hosts that have not told their keys before the run
	files    files
	stores   once[*hostkeys.DB]
	revoked  once[*hostkeys.Revoked]
	hops     hops
	closing  closing
	stats    struct{ retries, closedFirst, reset atomic.Int64 }
}

// Stats counts, over the life of a Transport.
type Stats struct {
	Retries     int // connections tried again because a server had dropped them
	ClosedFirst int // connections that the server closed first
	Reset       int // connections that we had to reset after the login
}

// Stats says what has been counted so far.
func (t *Transport) Stats() Stats {
	return Stats{int(t.stats.retries.Load()), int(t.stats.closedFirst.Load()), int(t.stats.reset.Load())}
}

const (
	// perProcessor is how many handshakes a processor has in hand at once. Each needs 3 to 5 ms of it and many round trips, so that near
	// hosts keep it busy with a few of them and far ones with many; all together they take less than half a second.
	perProcessor = 64
	// perServer is below sshd's MaxStartups (10:30:100), from which on it drops connections at random.
	perServer = 8
	// maxLookups spares the name server, and our open files: a lookup takes two sockets. Even a far server answers a thousand
	// names a second so, and with one that is dead a thousand names take a minute or two.
	maxLookups = 128
)

func (t *Transport) warn(err error) {
	if t.Warn != nil {
		t.Warn(err)
	}
}

func (t *Transport) init() {
	t.once.Do(func() {
		t.admitted = make(chan struct{}, perProcessor*runtime.GOMAXPROCS(0))
		t.lookups = make(chan struct{}, maxLookups)
	})
}

// CheckLine says whether a command can be sent at all, before anything runs.
func (t *Transport) CheckLine(line string) error {
	if strings.Contains(line, "\x00") {
		return fmt.Errorf("the command holds a NUL, which no shell takes")
	}
	if t.Shell {
		_, err := shwrap.New(shwrap.Script{Line: line})
		return err
	}
	if len(line) > maxLine {
		return fmt.Errorf("the command has %d bytes, and an SSH packet holds %d", len(line), maxLine)
	}
	return nil
}

// maxLine is what fits into a packet of 32 KiB (RFC 4253 section 6.1) with some room; sshd takes more, others need not.
const maxLine = 32<<10 - 256

// Start implements transport.Transport.
func (t *Transport) Start(ctx context.Context, host transport.Host, cmd *transport.Command) (transport.Session, error) {
	t.init()
	var (
		s     *session
		phase transport.Phase
		err   error
	)
	// On a goroutine of its own: a login needs a deep stack, and a goroutine keeps what its stack has grown to.
	started := make(chan struct{})
	go func() {
		defer close(started)
		s, phase, err = t.start(ctx, host, cmd)
	}()
	<-started
	if err != nil {
		return nil, &transport.OpError{Phase: phase, Host: host.Name, Err: err}
	}
	return s, nil
}

func (t *Transport) start(ctx context.Context, host transport.Host, cmd *transport.Command) (*session, transport.Phase, error) {
	settings, err := t.settings(ctx, host)
	if err != nil {
		return nil, transport.PhaseResolve, &SettingsError{err}
	}
	var s *session
	verify, err := t.verifier(settings)
	if err != nil {
		return nil, transport.PhaseKeyExchange, &SettingsError{err}
	}
	phase, err := t.connect(ctx, settings, verify, func(c *client) (err error) {
		if s, err = t.open(c, host.Name, cmd); err == nil {
			c.trace.Pass(transport.PhaseStart, "")
		}
		return err
	})
	if err != nil && s != nil { // too late
		go ssh.DiscardRequests(s.requests) // nobody else reads them, and the connection cannot end with some of them waiting
	}
	return s, phase, err
}

// settings are what ssh_config and the options say of a host.
func (t *Transport) settings(ctx context.Context, host transport.Host) (*sshconfig.Settings, error) {
	target := sshconfig.Target{Host: host.Name, HostName: host.Addr, User: host.User, Port: host.Port, Jump: host.Jump}
	if target.User == "" {
		target.User = t.User
	}
	return t.Config.For(ctx, target)
}

// connectTimeout is how long a host may take to accept the command, and who says so.
func (t *Transport) connectTimeout(s *sshconfig.Settings) *transport.TimeoutError {
	switch {
	case t.ConnectTimeout > 0:
		return &transport.TimeoutError{After: t.ConnectTimeout, Limit: "--connect-timeout"}
	case s.ConnectTimeout > 0:
		return &transport.TimeoutError{After: s.ConnectTimeout, Limit: "ConnectTimeout in ssh_config"}
	}
	return &transport.TimeoutError{After: DefaultConnectTimeout, Limit: "--connect-timeout"}
}

// Shutdown implements transport.Transport. It closes the connections to jump hosts, too.
func (t *Transport) Shutdown(ctx context.Context) {
	stop := context.AfterFunc(ctx, t.closing.hurry())
	defer stop()
	hops := t.hops.take()
	t.closing.Wait() // the hosts behind the jump hosts
	for _, same := range slices.Backward(hops[:]) {
		for _, h := range same {
			t.hangUp(h.client)
		}
		t.closing.Wait() // those that lead to them come after them
	}
	t.closing.reset()
	t.unasked.forget()
}

// environment is what the server is asked to set: SetEnv, and what of ours matches SendEnv.
func environment(s *sshconfig.Settings) []string {
	env := s.SetEnv
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		for _, pattern := range s.SendEnv {
			if matches(pattern, name) {
				env = append(env[:len(env):len(env)], pair)
				break
			}
		}
	}
	return env
}
