//go:build unix

package sshtest

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"multirsh/transport/testserver"
)

// conn is one connection at work: its transcript and what it holds.
type conn struct {
	srv    *Server
	number int // of the server's connections, from 0
	b      Behaviour
	wire   *wire
	ssh    *ssh.ServerConn // nil: nobody is let in yet

	work sync.WaitGroup // sessions and forwards, which end with the connection

	mu       sync.Mutex
	rec      Connection
	half     bool // a key was good, and the second half of the authentication is to follow
	sessions int  // open now
	lulled   bool // between a lull's exit status and its output
	asked    []*ssh.Request
}

var (
	errActed  = errors.New("the behaviour's phase is reached")
	errDenied = errors.New("permission denied")
)

// serve sees the connection through and closes it.
func (x *conn) serve() {
	x.rec.Client, x.rec.Server = testserver.AddrPort(x.wire.RemoteAddr()), testserver.AddrPort(x.wire.LocalAddr())
	x.b = x.srv.behaviour(x.rec.Server)
	x.rec.Behaviour = x.b
	x.wire.holdOpen = x.b.Kind == neverClose
	if err := x.run(); err != nil {
		x.rec.Err = err
		x.srv.core.Logf("%v: %v", x.rec.Client, err)
	}
	x.work.Wait()
	x.wire.finish(cmp.Or(x.srv.Patience, 10*time.Second))
	x.rec.First, x.rec.End = x.wire.first, x.wire.end
	x.srv.leave(x)
}

// run is the connection with x's behaviour; its error says why nobody was let in. It leaves the closing to serve.
func (x *conn) run() error {
	if x.b.at(PhaseAccept) {
		return x.misbehave()
	}
	x.wire.SetReadDeadline(time.Now().Add(cmp.Or(x.srv.Grace, 2*time.Minute)))
	switch x.b.Kind {
	case refuse:
		x.wire.Abort()
		return errActed
	case maxStartups:
		if x.dropped() {
			x.wire.Abort()
			return errors.New("dropped, as sshd does above MaxStartups")
		}
	case banner:
		return errors.Join(errActed, x.wire.say(x.b.Word))
	case http:
		x.wire.Read(make([]byte, 4096))
		return errors.Join(errActed, x.wire.say("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n"))
	case noCommon:
		return errors.Join(errActed, x.noCommon())
	case preface:
		x.wire.say(x.b.Word)
	case slow:
		x.srv.core.Pause(x.b.Pause)
	}
	if x.b.at(PhaseVersion) {
		x.wire.say(serverVersion)
		x.wire.Read(make([]byte, 4096))
		return x.misbehave()
	}
	sc, channels, requests, err := ssh.NewServerConn(x.wire, x.config())
	if err != nil {
		return err
	}
	x.wire.SetReadDeadline(time.Time{})
	x.letIn(sc)
	// As sshd does; a client that does not keep track of keys ignores it.
	var keys []byte
	for _, k := range x.srv.keys {
		keys = append(keys, ssh.Marshal(struct{ Key []byte }{k.PublicKey().Marshal()})...)
	}
	sc.SendRequest("hostkeys-00@openssh.com", false, keys)

	for channels != nil || requests != nil {
		select {
		case c, ok := <-channels:
			if !ok {
				channels = nil
				continue
			}
			x.open(c)
		case r, ok := <-requests:
			if !ok {
				requests = nil
				continue
			}
			x.request(r)
		}
	}
	var reason int
	var text string
	if n, _ := fmt.Sscanf(sc.Wait().Error(), "ssh: disconnect, reason %d: %q", &reason, &text); n == 2 {
		x.rec.Disconnect = fmt.Sprintf("%d: %s", reason, text)
	}
	return nil
}

// letIn notes what is known of a client whose authentication was good.
func (x *conn) letIn(sc *ssh.ServerConn) {
	x.ssh = sc
	x.rec.LoggedIn, x.rec.User, x.rec.ClientVersion = true, sc.User(), string(sc.ClientVersion())
	if a, ok := sc.Conn.(ssh.AlgorithmsConnMetadata); ok {
		x.rec.Algorithms = a.Algorithms()
	}
	x.srv.count(func(a *Account) { a.Handshakes--; a.Logins++ })
}

// misbehave does what x's behaviour does, its phase being reached.
func (x *conn) misbehave() error {
	switch x.b.Kind {
	case stall:
		x.srv.count(func(a *Account) { a.Stalled++ })
		x.wire.freeze()
	case reset:
		x.wire.Abort()
	case closes:
		x.wire.Close()
	case garbage:
		x.wire.TCPConn.Write([]byte("\xfe\x13\x00SSH-0.0-\xff\xff\n\x7f\xee\xc0\xff\xee and not a packet"))
		x.wire.Close()
	case hang:
		<-x.wire.over
	}
	return errActed
}

// dropped tells whether MaxStartups hits this connection: of any number of connections their share (Weyl's sequence), the same
// ones in every run.
func (x *conn) dropped() bool {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio, odd
	at := uint64(x.number) * golden
	return float64(at)/(1<<64) >= 1-x.b.Share()
}

// noCommon is the server's half of a negotiation that fails: RFC 4253 sections 4.2, 6 and 7.1.
func (x *conn) noCommon() error {
	a := ssh.SupportedAlgorithms()
	var keyTypes []string
	for _, k := range x.srv.keys {
		keyTypes = append(keyTypes, k.PublicKey().Type())
	}
	// Names that exist and that no library of today has.
	switch x.b.Word {
	case onKex:
		a.KeyExchanges = []string{"sntrup4591761x25519-sha512@tinyssh.org"}
	case onHostKey:
		keyTypes = []string{"pgp-sign-rsa", "pgp-sign-dss"}
	case onCipher:
		a.Ciphers = []string{"blowfish-cbc", "cast128-cbc"}
	case onMAC:
		a.Ciphers, a.MACs = []string{ssh.CipherAES128CTR}, []string{"hmac-md5", "hmac-ripemd160"} // with no AEAD, which needs none
	}
	m := struct {
		Cookie            [16]byte `sshtype:"20"`
		Kex, HostKey      []string
		CipherIn, CipherO []string
		MACIn, MACOut     []string
		CompIn, CompOut   []string
		LangIn, LangOut   []string
		Follows           bool
		Reserved          uint32
	}{
		Kex: a.KeyExchanges, HostKey: keyTypes, CipherIn: a.Ciphers, CipherO: a.Ciphers, MACIn: a.MACs, MACOut: a.MACs,
		CompIn: []string{"none"}, CompOut: []string{"none"},
	}
	rand.Read(m.Cookie[:])
	payload := ssh.Marshal(m)
	padding := 8 - (5+len(payload))%8
	if padding < 4 {
		padding += 8
	}
	packet := ssh.Marshal(struct {
		Length  uint32
		Padding byte
		Rest    []byte `ssh:"rest"`
	}{uint32(1 + len(payload) + padding), byte(padding), append(payload, make([]byte, padding)...)})
	x.wire.say(serverVersion)
	_, err := x.wire.Write(packet)
	return err
}

// config is the shared one with this connection's callbacks and what its behaviour changes.
func (x *conn) config() *ssh.ServerConfig {
	c := *x.srv.config
	switch {
	case x.b.Kind == hostKey && x.b.Word == keyOther:
		c = *x.srv.newConfig([]ssh.Signer{x.srv.otherKey})
	case x.b.Kind == hostKey || x.b.Kind == slow || x.b.at(PhaseKex):
		keys := make([]ssh.Signer, len(x.srv.keys))
		for i, k := range x.srv.keys {
			keys[i] = &signer{k, x}
		}
		c = *x.srv.newConfig(keys)
	case x.b.Kind == rekey:
		c.RekeyThreshold = uint64(x.b.N)
	case x.b.Kind == maxAuthTries:
		c.MaxAuthTries = int(x.b.N)
	case x.b.Kind == version:
		c.ServerVersion = x.b.Word
	}
	if x.srv.Banner != "" {
		c.BannerCallback = func(ssh.ConnMetadata) string { return x.srv.Banner }
	}
	c.AuthLogCallback = x.attempted
	c.NoClientAuthCallback = x.none
	if x.srv.byKey || x.b.Kind == denied {
		c.PublicKeyCallback = x.publicKey
	}
	if x.srv.byPassword || x.b.Kind == denied {
		c.PasswordCallback = x.password
	}
	if x.srv.byPrompts {
		c.KeyboardInteractiveCallback = x.prompts
	}
	return &c
}

// signer is a host key that signs as x's behaviour has it. Its signature is the server's half of the key exchange.
type signer struct {
	ssh.Signer
	x *conn
}

func (k *signer) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(random, data, "")
}

func (k *signer) SignWithAlgorithm(random io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	switch {
	case k.x.b.at(PhaseKex):
		return nil, k.x.misbehave()
	case k.x.b.Kind == slow:
		k.x.srv.core.Pause(k.x.b.Pause)
	case k.x.b.Kind == hostKey:
		data = slices.Concat(data, []byte("forged")) // of something else: as bad as one by another key
	}
	if a, ok := k.Signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return a.SignWithAlgorithm(random, data, algorithm)
	}
	return k.Signer.Sign(random, data)
}

// gate is what every attempt to authenticate goes through first.
func (x *conn) gate() error {
	switch {
	case x.b.at(PhaseAuth):
		return x.misbehave()
	case x.b.Kind == denied:
		return errDenied
	case x.b.Kind == slow:
		x.srv.core.Pause(x.b.Pause)
	}
	return nil
}

// attempted notes an attempt that was answered.
func (x *conn) attempted(c ssh.ConnMetadata, method string, err error) {
	x.rec.User, x.rec.ClientVersion = c.User(), string(c.ClientVersion())
	var partial *ssh.PartialSuccessError
	x.rec.Attempts = append(x.rec.Attempts, Attempt{Method: method, OK: err == nil || errors.As(err, &partial)})
}

func (x *conn) none(ssh.ConnMetadata) (*ssh.Permissions, error) {
	if err := x.gate(); err != nil {
		return nil, err
	}
	if x.srv.Users == nil {
		return nil, nil
	}
	return nil, ssh.ErrNoAuth
}

func (x *conn) publicKey(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	x.rec.Offered = append(x.rec.Offered, ssh.FingerprintSHA256(key))
	if err := x.gate(); err != nil {
		return nil, err
	}
	u, _ := x.srv.user(c.User())
	checker := ssh.CertChecker{
		IsUserAuthority: func(ca ssh.PublicKey) bool { return contains(u.CAs, ca) },
		UserKeyFallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !contains(u.Keys, key) {
				return nil, errDenied
			}
			return nil, nil
		},
	}
	permissions, err := checker.Authenticate(c, key)
	if err != nil || !u.Second {
		return permissions, err
	}
	next := &ssh.PartialSuccessError{}
	if u.Password != "" {
		next.Next.PasswordCallback = x.password
	}
	if len(u.Prompts) > 0 {
		next.Next.KeyboardInteractiveCallback = x.prompts
	}
	x.mu.Lock()
	x.half = true
	x.mu.Unlock()
	return nil, next
}

// first refuses what may only come after a key.
func (x *conn) first(u User) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if u.Second && !x.half {
		return errDenied
	}
	return nil
}

func (x *conn) password(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
	if err := x.gate(); err != nil {
		return nil, err
	}
	u, _ := x.srv.user(c.User())
	if u.Password == "" || string(password) != u.Password {
		return nil, errDenied
	}
	return nil, x.first(u)
}

func (x *conn) prompts(c ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	if err := x.gate(); err != nil {
		return nil, err
	}
	u, _ := x.srv.user(c.User())
	if len(u.Prompts) == 0 {
		return nil, errDenied
	}
	var questions, want []string
	var echo []bool
	for _, p := range u.Prompts {
		questions, want, echo = append(questions, p.Question), append(want, p.Answer), append(echo, p.Echo)
	}
	answers, err := ask("", "", questions, echo)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(answers, want) {
		return nil, errDenied
	}
	return nil, x.first(u)
}

// request answers a global request.
func (x *conn) request(r *ssh.Request) {
	if r.Type == "keepalive@openssh.com" {
		x.srv.count(func(a *Account) { a.Keepalives++ })
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.b.Kind == noKeepalive:
	case x.lulled:
		x.asked = append(x.asked, r)
	default:
		r.Reply(false, nil) // as sshd, which knows no such request and is alive
	}
}

// rest says nothing for the pause of a lull. It answers what was asked meanwhile, and does the rest before it answers anything else.
func (x *conn) rest(then func()) {
	x.srv.core.Pause(x.b.Pause)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.asked {
		r.Reply(false, nil)
	}
	then()
	x.lulled, x.asked = false, nil
}

// open answers the request for a channel.
func (x *conn) open(c ssh.NewChannel) {
	if x.b.at(PhaseOpen) {
		if x.b.Kind != hang { // which leaves this one without an answer and goes on
			x.misbehave()
		}
		return
	}
	switch kind := c.ChannelType(); {
	case kind == "session" && x.b.Kind == noOpen:
		r := reasons[x.b.Word]
		c.Reject(r, r.String())
	case kind == "session":
		x.openSession(c)
	case kind == "direct-tcpip" && x.b.Kind == noForward:
		c.Reject(ssh.Prohibited, "open failed")
	case kind == "direct-tcpip":
		x.work.Go(func() { x.forward(c) })
	default:
		c.Reject(ssh.UnknownChannelType, "unsupported channel type")
	}
}

var reasons = map[string]ssh.RejectionReason{
	openProhibited: ssh.Prohibited, openConnect: ssh.ConnectionFailed, openType: ssh.UnknownChannelType, openShortage: ssh.ResourceShortage,
}

func (x *conn) openSession(c ssh.NewChannel) {
	x.mu.Lock()
	full := x.sessions >= cmp.Or(x.srv.MaxSessions, 10)
	if !full {
		x.sessions++
	}
	x.mu.Unlock()
	if full {
		c.Reject(ssh.ConnectionFailed, "open failed")
		return
	}
	x.srv.count(func(a *Account) { a.Sessions++; a.SessionsNow++ })
	channel, requests, err := c.Accept()
	x.work.Go(func() {
		if err == nil {
			newSession(x, channel).serve(requests)
		}
		x.mu.Lock()
		x.sessions--
		x.mu.Unlock()
		x.srv.count(func(a *Account) { a.SessionsNow-- })
	})
}
