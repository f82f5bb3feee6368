// Package auth proves to SSH servers who we are: with the keys of an ssh-agent, with identity files, certificates and a password,
// in OpenSSH's order, for thousands of hosts from one wallet.
//
//	          Prepare, before the fan-out                    Attempt, one for each connection
//	identity files ─ read once, passphrase once ─┐
//	certificates   ─ read once ──────────────────┼─► ring ──► Next ──► ssh.ClientConfig.AuthCallback
//	ssh-agent      ─ one connection, listed once ┘ (a profile's     │
//	                    ▲    keys, in order)                        ▼
//	                    └──── signatures, pipelined ───────── Succeeded │ Failed
//	the password   ─ asked once; one host's verdict counts for all ─────┘
//
// The order of the keys is that of OpenSSH's pubkey_prepare: certificates of CertificateFile, then the agent's keys that are identity files
// too, then the agent's others unless IdentitiesOnly, then the files that no agent holds. On top of it the key that let a
// user in last goes first on the next host, if it is among that host's own keys: it never goes where the settings do not send it.
// Keys are offered one by one, so that an agent that will not sign with one of them costs that key and not the host.
//
// A password is tried on one host while the others that need it wait for that host's verdict. Once a host has refused it,
// it goes nowhere else in the run: a thousand hosts behind one directory would lock the account. It goes out once on a connection,
// by keyboard-interactive or by password, and only to a prompt that looks like one for a password.
//
// Who owns what: the Wallet owns the agents' connections, and Close ends them with every goroutine. An Attempt owns nothing but its turn
// with the password, which Succeeded or Failed gives back: one of them must be called. Private keys stay in memory for as long as the Wallet.
//
// Security keys and PKCS#11 tokens work through an agent only.
package auth

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
)

// Options are what a Wallet needs from its user. The zero Options know no secrets and reach agents by their sockets.
type Options struct {
	// Password is asked at most once in the life of a Wallet, by the first host that needs it, which waits for it with its
	// connection open. Nil: no password authentication, neither by password nor by keyboard-interactive.
	Password func() (string, error)

	// Passphrase is asked by Prepare, once for each encrypted identity file, and twice more where what it says is wrong; an empty one
	// says that there is none. Nil: such files are left out, and Failed says so.
	Passphrase func(file string) (string, error)

	// NewAgent connects to an ssh-agent. Nil: net.Dial to the unix socket.
	NewAgent func(socket string) (net.Conn, error)
}

// Profile is what a host's settings say about authentication, as ssh_config(5) has it.
type Profile struct {
	User, Host string // who logs in where; Host is only named in messages

	IdentityFiles     []string // in order, expanded; a .pub file selects a key of the agent
	CertificateFiles  []string // when there is one, FILE-cert.pub beside the identity files does not count, as in OpenSSH
	DefaultIdentities bool     // IdentityFiles is OpenSSH's own list: a missing file is not worth a word
	IdentitiesOnly    bool     // of the agent's keys, only those that are identity files or certificates too
	AgentSocket       string   // empty: no agent

	Pubkey, Password, Keyboard bool   // PubkeyAuthentication, PasswordAuthentication, KbdInteractiveAuthentication
	Preferred                  string // PreferredAuthentications; empty: publickey,keyboard-interactive,password

	// PubkeyAlgorithms is PubkeyAcceptedAlgorithms, with * and ? as there. The name of a signature algorithm lets its certificates
	// pass too, that of a certificate's algorithm only those. Empty: all but the SHA-1 ones, ssh-rsa and ssh-dss.
	PubkeyAlgorithms []string
}

// Wallet holds the keys and the password of a run, and what the hosts have said to them. It is safe for use by many goroutines.
type Wallet struct {
	options  Options
	password secret

	mu     sync.Mutex
	agents map[string]*sshAgent
	files  map[string]func() *file
	certs  map[string]func() *certFile
	rings  map[string]*ring
	worked map[string]string // by user: the wire form of the key that let it in last
}

// New makes a Wallet. Nothing is read or connected to before Prepare or the first Attempt.
func New(o Options) *Wallet {
	if o.NewAgent == nil {
		o.NewAgent = func(socket string) (net.Conn, error) { return net.Dial("unix", socket) }
	}
	return &Wallet{
		options:  o,
		password: secret{ask: o.Password},
		agents:   map[string]*sshAgent{},
		files:    map[string]func() *file{},
		certs:    map[string]func() *certFile{},
		rings:    map[string]*ring{},
		worked:   map[string]string{},
	}
}

// Close ends the connections to the agents; when it returns, no goroutine of the Wallet is left. Attempts that still wait for a signature fail.
func (w *Wallet) Close() error {
	w.mu.Lock()
	agents := slices.Collect(maps.Values(w.agents))
	w.mu.Unlock()
	for _, a := range agents {
		a.close()
	}
	return nil
}

// Prepare does before the fan-out what only has to be done once: it reads the files of all profiles, lists the agents, and asks
// for passphrases. A file is asked for when no agent holds its key; one of OpenSSH's default files only when there is nothing else to offer.
//
// The error is that of a run that could only fail: keys were named, none of them can be used for any host, and there
// is no password either; or ctx has ended. Hosts that have nothing while others do fail by themselves, each with its reason.
func (w *Wallet) Prepare(ctx context.Context, profiles []Profile) error {
	distinct := map[string]*Profile{}
	var order []string
	for i := range profiles {
		p := &profiles[i]
		key := p.key()
		if _, seen := distinct[key]; !seen {
			distinct[key] = p
			order = append(order, key)
		}
	}

	hope := len(profiles) == 0
	var reasons []string
	for _, key := range order {
		p := distinct[key]
		r, err := w.build(ctx, p)
		if err != nil {
			return err
		}
		if len(r.sealed) > 0 && (!p.DefaultIdentities || len(r.keys) == 0) {
			for _, f := range r.sealed {
				f.unseal(w.options.Passphrase)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
			}
			if r, err = w.build(ctx, p); err != nil {
				return err
			}
		}
		w.mu.Lock()
		w.rings[key] = r
		w.mu.Unlock()

		hope = hope || len(r.keys) > 0 || len(r.unusable) == 0
		for _, n := range r.notes() {
			if !slices.Contains(reasons, n) && len(reasons) < maxListed {
				reasons = append(reasons, n)
			}
		}
	}
	if w.options.Password != nil && slices.ContainsFunc(profiles, func(p Profile) bool { return p.Password || p.Keyboard }) {
		hope = true
	}
	if !hope {
		return &Error{Text: "there is no key to log in with: " + strings.Join(reasons, "; ")}
	}
	return nil
}

// Warnings lists, once each, what the profiles seen so far name and what cannot be used: files that are missing, too open, encrypted without a
// passphrase or of no use, and agents that do not answer.
func (w *Wallet) Warnings() []string {
	w.mu.Lock()
	rings := slices.Collect(maps.Values(w.rings))
	w.mu.Unlock()
	seen := map[string]bool{}
	for _, r := range rings {
		for _, n := range r.notes() {
			seen[n] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// key tells profiles with different keys apart.
func (p *Profile) key() string {
	if !p.Pubkey {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%t\x00%t\x00%s", p.DefaultIdentities, p.IdentitiesOnly, p.AgentSocket)
	for _, list := range [][]string{p.IdentityFiles, p.CertificateFiles, p.PubkeyAlgorithms} {
		b.WriteByte(0)
		for _, s := range list {
			b.WriteByte(1)
			b.WriteString(s)
		}
	}
	return b.String()
}

// ring gives the keys of a profile, built once for all that are alike.
func (w *Wallet) ring(ctx context.Context, p *Profile) (*ring, error) {
	key := p.key()
	w.mu.Lock()
	r := w.rings[key]
	w.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r, err := w.build(ctx, p)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r = cmp.Or(w.rings[key], r)
	w.rings[key] = r
	return r, nil
}

// once gives what read makes of a file, and has it read only once.
func once[T any](mu *sync.Mutex, seen map[string]func() T, path string, read func(string) T) T {
	mu.Lock()
	get := seen[path]
	if get == nil {
		get = sync.OnceValue(func() T { return read(path) })
		seen[path] = get
	}
	mu.Unlock()
	return get()
}
