package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

const (
	publickey   = "publickey"
	keyboard    = "keyboard-interactive"
	passwordOwn = "password"
)

// errNoMoreKeys ends the method publickey.
var errNoMoreKeys = errors.New("no more keys to offer")

// Attempt is one connection's authentication. It is for one goroutine at a time: Next is called by the handshake, Succeeded or Failed after it.
type Attempt struct {
	w   *Wallet
	ctx context.Context
	p   Profile

	methods []string // that the settings allow and we can speak, the preferred one first
	takes   []string // that the host has said it takes
	current string   // under way
	partial int      // how many the host has taken as half the way
	begun   bool     // the host has answered the first request
	alive   bool     // and whatever came after it, as far as can be known: the library does not tell a refusal from a lost connection

	ring    *ring  // once the host has asked for keys
	keys    []*key // of the ring, not yet offered
	offer   *offer // under way
	refused []*key

	asked    bool // keyboard-interactive has been tried
	sent     bool // the password has gone out
	answered bool // and the host's verdict on it has been reported
	barred   bool // it was not to go out
	trial    *trial

	notes []string // clauses about what went wrong on the way
}

// Attempt begins the authentication of one connection. ctx is that connection's: it bounds the wait for a signature of an agent and for
// another host's verdict on the password. Every Attempt must be ended by Succeeded or Failed.
func (w *Wallet) Attempt(ctx context.Context, p Profile) *Attempt {
	a := &Attempt{w: w, ctx: ctx, p: p}
	order := []string{publickey, keyboard, passwordOwn} // the default of PreferredAuthentications, without what we cannot speak
	if p.Preferred != "" {
		order = strings.Split(p.Preferred, ",")
	}
	secret := w.options.Password != nil
	on := map[string]bool{publickey: p.Pubkey, keyboard: p.Keyboard && secret, passwordOwn: p.Password && secret}
	for _, m := range order {
		if m = strings.TrimSpace(m); on[m] {
			a.methods = append(a.methods, m)
		}
	}
	return a
}

// Next is the ssh.ClientConfig.AuthCallback of the connection. It alone chooses the methods: leave ClientConfig.Auth empty.
func (a *Attempt) Next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	halfWay := len(c.PartialSuccessMethods) > a.partial
	if !a.begun || halfWay {
		a.begun, a.alive = true, true
	}
	a.partial, a.takes = len(c.PartialSuccessMethods), c.AllowedMethods
	switch o := a.offer; {
	case o == nil:
		if halfWay && a.sent && !a.answered {
			a.judge(accepted)
		}
	case halfWay:
		a.remember(o.key)
	case o.err != nil || !o.announced:
		a.alive = a.alive && o.err == nil
		a.refuse(o)
	default:
		return nil, nil // no answer came: the library says why
	}
	a.offer = nil
	if a.ctx.Err() != nil {
		return nil, context.Cause(a.ctx)
	}

	for _, m := range a.methods {
		if !slices.Contains(c.AllowedMethods, m) {
			continue
		}
		a.current = m
		switch m {
		case publickey:
			if more, err := a.more(); err != nil {
				return nil, err
			} else if more {
				return ssh.RetryableAuthMethod(ssh.PublicKeysCallback(a.nextKey), 0), nil
			}
		case keyboard:
			if !a.asked {
				a.asked, a.alive = true, false // until it prompts
				return ssh.KeyboardInteractive(a.challenge), nil
			}
		case passwordOwn:
			if !a.sent && !a.barred {
				return ssh.PasswordCallback(a.password), nil
			}
		}
	}
	return nil, nil
}

// more says whether there is another key to offer. The key that let this user in last goes first.
func (a *Attempt) more() (bool, error) {
	if a.ring == nil {
		r, err := a.w.ring(a.ctx, &a.p)
		if err != nil {
			return false, err
		}
		a.ring, a.keys = r, r.keys
		a.w.mu.Lock()
		id := a.w.worked[a.p.User]
		a.w.mu.Unlock()
		if i := slices.IndexFunc(r.keys, func(k *key) bool { return k.id == id }); i > 0 {
			a.keys = slices.Concat(r.keys[i:i+1], r.keys[:i], r.keys[i+1:])
		}
	}
	for len(a.keys) > 0 && a.keys[0].lost() {
		a.keys = a.keys[1:]
	}
	return len(a.keys) > 0, nil
}

// nextKey gives the library one key. It is called again when the host has refused that one, and not when the connection was lost
// or the signature failed.
func (a *Attempt) nextKey() ([]ssh.Signer, error) {
	if a.offer != nil {
		a.alive = true
		a.refuse(a.offer)
		a.offer = nil
	}
	more, err := a.more()
	switch {
	case err != nil:
		return nil, err
	case !more:
		return nil, errNoMoreKeys
	}
	a.offer = &offer{key: a.keys[0], ctx: a.ctx}
	a.keys = a.keys[1:]
	return []ssh.Signer{a.offer}, nil
}

// password is the answer to the host, when it is its turn to get one.
func (a *Attempt) password() (string, error) {
	value, t, err := a.w.password.take(a.ctx, a.p.User, a.p.Host)
	if err != nil {
		a.barred = true // no second wait, by the other method
		a.note(err.Error())
		return "", err
	}
	a.sent, a.trial = true, t
	return value, nil
}

// challenge answers keyboard-interactive (RFC 4256): one hidden prompt for a password, once.
func (a *Attempt) challenge(name, instruction string, questions []string, echos []bool) ([]string, error) {
	a.alive = true
	switch {
	case len(questions) == 0:
		return nil, nil
	case len(questions) == 1 && !echos[0] && !oneTime(questions[0]) && !a.sent && !a.barred:
		answer, err := a.password()
		return []string{answer}, err
	}
	if a.sent && !a.answered {
		a.judge(none)
	}
	err := fmt.Errorf("it asks %q, and a password is all that can be answered: log in there with a key, or with ssh", strings.Join(questions, " "))
	a.note(err.Error())
	return nil, err
}

// refuse notes what became of a key that did not let us in.
func (a *Attempt) refuse(o *offer) {
	switch {
	case o.err != nil:
		a.note(fmt.Sprintf("%v was accepted but could not sign: %v", o.key, o.err))
	case o.signature != nil && o.agent != nil && o.held.Verify(o.data, o.signature) != nil:
		a.note(fmt.Sprintf("%v was accepted, but %v", o.key, o.agent.lied())) // the first one was right: it may have mixed up its answers
	case o.signature != nil:
		a.note(fmt.Sprintf("%v was accepted and then the login refused: is the account locked or expired?", o.key))
	case o.announced:
		a.refused = append(a.refused, o.key)
	default:
		a.note(fmt.Sprintf("%v could not be offered, because the host takes no signature algorithm but ssh-rsa: --legacy allows it", o.key))
	}
}

func (a *Attempt) judge(v verdict) {
	a.answered = true
	a.w.password.report(a.p.User, a.p.Host, a.trial, v)
}

func (a *Attempt) note(clause string) {
	if !slices.Contains(a.notes, clause) {
		a.notes = append(a.notes, clause)
	}
}

// Succeeded remembers what let us in, for the next hosts.
func (a *Attempt) Succeeded() {
	if a.offer != nil {
		a.remember(a.offer.key)
	}
	if a.sent && !a.answered {
		if a.offer == nil {
			a.judge(accepted)
		} else {
			a.judge(denied) // it took a key after that
		}
	}
}

func (a *Attempt) remember(k *key) {
	a.w.mu.Lock()
	a.w.worked[a.p.User] = k.id
	a.w.mu.Unlock()
}

// offer is one key as a handshake has it: an ssh.MultiAlgorithmSigner that remembers what was done with it.
type offer struct {
	*key
	ctx       context.Context
	announced bool // the host was asked whether it takes the key
	data      []byte
	signature *ssh.Signature
	err       error // of signing
}

// announcement is the public half. The library marshals it when it sends it.
type announcement struct {
	ssh.PublicKey
	o *offer
}

func (p announcement) Marshal() []byte {
	p.o.announced = true
	return p.PublicKey.Marshal()
}

func (o *offer) PublicKey() ssh.PublicKey { return announcement{o.public, o} }
func (o *offer) Algorithms() []string     { return o.algorithms }

func (o *offer) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return o.SignWithAlgorithm(rand, data, o.algorithms[0])
}

func (o *offer) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	sig, err := o.sign(o.ctx, rand, data, algorithm)
	o.data, o.signature, o.err = data, sig, err
	return sig, err
}
