package ssh

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"multirsh/transport"
	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/sshconfig"
)

// Prepare does before a run what must not wait for it, and what no worker may do: it has the Wallet read the keys for hosts and for the jump
// hosts that lead to them, list the agents and ask for passphrases. A host whose settings cannot be had is left out: the run will say why.
// The error is that of a run that could only fail, or the cause of ctx's end.
//
// Each of the hosts stands for so many as it comes with: see Each and Speakers.
func (t *Transport) Prepare(ctx context.Context, hosts iter.Seq2[transport.Host, int]) error {
	var profiles []auth.Profile
	seen := make(map[string]bool)
	add := func(s *sshconfig.Settings) {
		p := t.profile(s)
		if key := alike(&p); !seen[key] {
			seen[key] = true
			profiles = append(profiles, p)
		}
	}
	t.files = files{}
	ways := make(map[string]bool) // that have been looked at: the hosts behind one jump host are many
	for host, n := range hosts {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s, err := t.settings(ctx, host)
		if err != nil {
			continue
		}
		add(s)
		t.files.count(s, n)
		if len(s.ProxyJump) == 0 {
			continue
		}
		if way := fmt.Sprint(s.ProxyJump); !ways[way] {
			ways[way] = true
			chain, err := t.chain(ctx, s.ProxyJump)
			if err != nil {
				continue
			}
			for _, s := range chain {
				add(s)
			}
			t.files.jumps += filesOf(chain[0])
		}
	}
	return t.Wallet.Prepare(ctx, profiles)
}

// Each is for hosts of which every one may be logged in to in a way of its own: each stands for itself.
func Each(hosts iter.Seq[transport.Host]) iter.Seq2[transport.Host, int] {
	return func(yield func(transport.Host, int) bool) {
		for host := range hosts {
			if !yield(host, 1) {
				return
			}
		}
	}
}

// Speakers are for count hosts that differ in their names alone, of which has knows the names: the first whose settings can be had speaks for
// all that ssh_config does not name, and those that it names speak for themselves. So a million hosts are a few. Ok is false where ssh_config
// tells more hosts apart than it names, or where there is nobody to speak: it takes Each of them then.
func (t *Transport) Speakers(ctx context.Context, hosts iter.Seq[transport.Host], count int, has func(name string) bool) (
	speakers iter.Seq2[transport.Host, int], ok bool) {
	named, ok := t.Config.Alike()
	if !ok {
		return nil, false
	}
	named = slices.DeleteFunc(named, func(name string) bool { return !has(name) })
	for host := range hosts {
		if ctx.Err() != nil {
			break
		}
		if _, apart := slices.BinarySearch(named, host.Name); apart {
			continue
		}
		if _, err := t.settings(ctx, host); err != nil { // as a jump host that would be reached through itself
			continue
		}
		return func(yield func(transport.Host, int) bool) {
			if !yield(host, count-len(named)) {
				return
			}
			for _, name := range named {
				other := host
				other.Name = name
				if !yield(other, 1) {
					return
				}
			}
		}, true
	}
	return nil, false
}

// files counts the hosts that Prepare has seen by what their connections take.
type files struct {
	direct, proxied int // hosts
	jumps           int // files of jump hosts
}

func (f *files) count(s *sshconfig.Settings, hosts int) {
	switch filesOf(s) {
	case 1:
		f.direct += hosts
	case perProxy:
		f.proxied += hosts
	}
}

// perProxy is the two pipes and the pidfd of a ProxyCommand.
const perProxy = 3

// filesOf is how many files a connection to a host takes. Behind a jump host it is a channel, and takes none.
func filesOf(s *sshconfig.Settings) int {
	switch {
	case len(s.ProxyJump) > 0:
		return 0
	case s.ProxyCommand != "":
		return perProxy
	}
	return 1
}

// Files is about how many files are open at most while so many sessions run at once on the hosts that Prepare has seen: their connections, those
// to jump hosts, and lookups of names. Connections that close behind their sessions come to it.
func (t *Transport) Files(sessions int) int {
	f := &t.files
	proxied := min(sessions, f.proxied)
	direct := min(sessions-proxied, f.direct)
	return perProxy*proxied + direct + f.jumps + min(direct, maxLookups)
}

// alike is the same for two profiles when preparing the one has prepared the other. Whose login it is, and where, is all that they may differ in.
func alike(p *auth.Profile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%t%t%t%t%t\x00%s\x00%s", p.DefaultIdentities, p.IdentitiesOnly, p.Pubkey, p.Password, p.Keyboard, p.AgentSocket, p.Preferred)
	for _, list := range [][]string{p.IdentityFiles, p.CertificateFiles, p.PubkeyAlgorithms} {
		b.WriteByte(0)
		for _, s := range list {
			b.WriteByte(1)
			b.WriteString(s)
		}
	}
	return b.String()
}

// JumpHost is the jump host that the key belongs to; empty: it is the key of Host itself.
func (k UnknownKey) JumpHost() string {
	if k.settings.OriginalHost == k.Host.Name {
		return ""
	}
	return k.settings.OriginalHost
}

// Fingerprint is how people compare the key: "ssh-ed25519 SHA256:…".
func (k UnknownKey) Fingerprint() string { return k.Key.Type() + " " + ssh.FingerprintSHA256(k.Key) }
