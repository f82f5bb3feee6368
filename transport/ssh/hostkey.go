package ssh

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"multirsh/transport"
	"multirsh/transport/ssh/hostkeys"
	"multirsh/transport/ssh/sshconfig"
)

// Policy is what to do about a host whose key is not known. A key that has changed is refused whatever the policy.
type Policy string

// The policies.
const (
	FromConfig Policy = ""                // ssh_config's StrictHostKeyChecking, where no and off mean AcceptNew and all else but accept-new means Strict
	Strict     Policy = "strict"          // refuse
	AcceptNew  Policy = "accept-new"      // accept and note it
	Ask        Policy = "ask"             // refuse what the caller has not accepted before the run, see UnknownHostKeys
	Ignore     Policy = "insecure-ignore" // accept and forget
)

func (t *Transport) policy(s *sshconfig.Settings) Policy {
	if t.HostKeys != FromConfig {
		return t.HostKeys
	}
	switch s.StrictHostKeyChecking {
	case "no", "off", "accept-new":
		return AcceptNew
	}
	return Strict
}

// once reads each combination of files once.
type once[T any] struct {
	mu  sync.Mutex
	all map[string]func() (T, error)
}

func (o *once[T]) get(key string, read func() (T, error)) (T, error) {
	o.mu.Lock()
	if o.all == nil {
		o.all = make(map[string]func() (T, error))
	}
	at := o.all[key]
	if at == nil {
		at = sync.OnceValues(read)
		o.all[key] = at
	}
	o.mu.Unlock()
	return at()
}

// store is the known_hosts files of a host.
func (t *Transport) store(s *sshconfig.Settings) (*hostkeys.DB, error) {
	key := strings.Join(s.UserKnownHostsFiles, "\n") + "\n\n" + strings.Join(s.GlobalKnownHostsFiles, "\n")
	return t.stores.get(key, func() (*hostkeys.DB, error) { return hostkeys.Open(s.UserKnownHostsFiles, s.GlobalKnownHostsFiles) })
}

// notRevoked says that a key is in one of a host's RevokedHostKeys, or that these cannot be read, which is as bad.
func (t *Transport) notRevoked(s *sshconfig.Settings, key ssh.PublicKey) error {
	if s.RevokedHostKeys == nil {
		return nil
	}
	revoked, err := t.revoked.get(strings.Join(s.RevokedHostKeys, "\n"), func() (*hostkeys.Revoked, error) { return hostkeys.ReadRevoked(s.RevokedHostKeys) })
	if err != nil {
		return err
	}
	return revoked.Check(keyName(s), key)
}

// keyName is the name under which the host's key is known.
func keyName(s *sshconfig.Settings) string {
	if s.HostKeyAlias != "" {
		return s.HostKeyAlias
	}
	return hostkeys.Name(s.HostName, s.Port)
}

// verifier checks a host's key by the files and the policy.
func (t *Transport) verifier(s *sshconfig.Settings) (ssh.HostKeyCallback, error) {
	db, err := t.store(s)
	if err != nil {
		return nil, err
	}
	name := keyName(s)
	return func(_ string, remote net.Addr, key ssh.PublicKey) error {
		if err := t.notRevoked(s, key); err != nil {
			return err
		}
		err := db.Check(name, remote, key)
		if unknown := (*hostkeys.UnknownError)(nil); !errors.As(err, &unknown) {
			return err
		}
		switch t.policy(s) {
		case Ignore:
			return nil
		case AcceptNew:
			err = db.Accept([]hostkeys.Entry{{Names: []string{name}, Key: key}}, s.HashKnownHosts)
			if unwritten := (*hostkeys.WriteError)(nil); errors.As(err, &unwritten) {
				t.warn(unwritten) // for this run it is known all the same
				return nil
			}
		}
		return err
	}, nil
}

// hostKeyError is a host key that was not accepted.
type hostKeyError struct{ err error }

func (e *hostKeyError) Error() string   { return e.err.Error() }
func (e *hostKeyError) Unwrap() []error { return []error{transport.ErrHostKey, e.err} }

// relearnt says whether a host whose key seems to have changed deserves another key exchange. A database of hashed names may know more
// kinds of keys of a host than it could say without looking at every line, which it has done since.
func (t *Transport) relearnt(s *sshconfig.Settings, offered []string, err error) bool {
	changed := (*hostkeys.ChangedError)(nil)
	return errors.As(err, &changed) && !slices.Equal(offered, t.knownAlgorithms(s))
}

// knownAlgorithms are those of the keys that are known of a host.
func (t *Transport) knownAlgorithms(s *sshconfig.Settings) []string {
	db, err := t.store(s)
	if err != nil {
		return nil // verifier has said so
	}
	return db.Algorithms(keyName(s))
}

// UnknownKey is a host's key that no file knows.
type UnknownKey struct {
	Host     transport.Host // the first that has it
	Name     string         // under which it will be known
	Key      ssh.PublicKey
	settings *sshconfig.Settings
}

// LearnsHostKeys reports whether a key on the way to the host may be learnt, if no file knows it: else UnknownHostKeys finds none.
func (t *Transport) LearnsHostKeys(ctx context.Context, host transport.Host) bool {
	s, err := t.settings(ctx, host)
	if err != nil {
		return false
	}
	way, err := t.chain(ctx, s.ProxyJump)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(append(way, s), t.learns)
}

// learns is whether an unknown key of one hop may be learnt.
func (t *Transport) learns(s *sshconfig.Settings) bool {
	policy := t.policy(s)
	return policy == Ask || policy == AcceptNew
}

// UnknownHostKeys asks the hosts that no file knows for their keys, at most fanout at once, without a login. Hosts that do not answer are
// left out, and so are those whose key is revoked: the run will say why, with the policy Ask without another try. Of hosts behind a jump
// host that is unknown itself the jump host is returned; ask again when it has been accepted.
func (t *Transport) UnknownHostKeys(ctx context.Context, hosts iter.Seq[transport.Host], fanout int) ([]UnknownKey, error) {
	t.init()
	var (
		mu    sync.Mutex
		found []UnknownKey
		asked = make(map[string]bool)
		group errgroup.Group
	)
	group.SetLimit(fanout)
	for host := range hosts {
		if ctx.Err() != nil {
			break
		}
		s, err := t.settings(ctx, host)
		if err != nil {
			continue
		}
		if s, err = t.firstUnknown(ctx, s); err != nil || s == nil {
			continue
		}
		name := keyName(s)
		if asked[name] {
			continue
		}
		asked[name] = true
		group.Go(func() error {
			if key := t.probe(ctx, s); key != nil {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, UnknownKey{host, name, key, s})
			}
			return nil
		})
	}
	group.Wait()
	return found, context.Cause(ctx)
}

// firstUnknown is the first on the way to a host whose key no file knows, and may be learnt; nil: none.
func (t *Transport) firstUnknown(ctx context.Context, s *sshconfig.Settings) (*sshconfig.Settings, error) {
	way, err := t.chain(ctx, s.ProxyJump)
	if err != nil {
		return nil, err
	}
	for _, s := range append(way, s) {
		db, err := t.store(s)
		if err != nil {
			return nil, err
		}
		if t.learns(s) && !db.Known(keyName(s)) {
			return s, nil
		}
	}
	return nil, nil
}

var errProbed = errors.New("only the key was wanted")

// probe goes as far as a host's key; nil: it did not get there, or the key is revoked.
func (t *Transport) probe(ctx context.Context, s *sshconfig.Settings) (key ssh.PublicKey) {
	phase, err := t.connect(ctx, s, func(_ string, _ net.Addr, k ssh.PublicKey) error {
		if t.notRevoked(s, k) == nil {
			key = k
		}
		return errProbed
	}, nil)
	if t.policy(s) == Ask && t.knownAlgorithms(s) == nil && ctx.Err() == nil && !errors.Is(err, errProbed) {
		t.unasked.note(s, phase, err)
	}
	return key
}

// unasked are hosts that could not be reached when their keys were asked for. If the run is only to believe keys that have been accepted before
// it, it could do nothing with such a host, even if that is there by now: so it does not wait a second time for one that is not.
type unasked struct {
	mu   sync.Mutex
	some atomic.Bool
	all  map[string]failure // by the way to the host
}

type failure struct {
	phase transport.Phase
	err   error
}

func way(s *sshconfig.Settings) string {
	return fmt.Sprint(s.HostName, " ", s.Port, s.ProxyJump, s.ProxyCommand)
}

func (u *unasked) note(s *sshconfig.Settings, phase transport.Phase, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = make(map[string]failure)
	}
	if _, noted := u.all[way(s)]; !noted {
		u.all[way(s)] = failure{phase, &wrapped{fmt.Sprintf("%v (when it was asked for its host key, before the run)", err), err}}
	}
	u.some.Store(true)
}

// get is why a host could not be asked; nil: it could, or was not.
func (u *unasked) get(s *sshconfig.Settings) (transport.Phase, error) {
	if !u.some.Load() {
		return "", nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.all[way(s)]
	return f.phase, f.err
}

func (u *unasked) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = nil
	u.some.Store(false)
}

// AcceptHostKeys notes keys as known, in the files of their hosts and for this Transport.
func (t *Transport) AcceptHostKeys(keys []UnknownKey) error {
	type where struct {
		db   *hostkeys.DB
		hash bool
	}
	entries := make(map[where][]hostkeys.Entry)
	for _, k := range keys {
		db, err := t.store(k.settings)
		if err != nil {
			return err
		}
		at := where{db, k.settings.HashKnownHosts}
		entries[at] = append(entries[at], hostkeys.Entry{Names: []string{k.Name}, Key: k.Key})
	}
	for at, list := range entries {
		if err := at.db.Accept(list, at.hash); err != nil {
			return err
		}
	}
	return nil
}
