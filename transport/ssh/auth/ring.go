package auth

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// ring is the keys that a profile may offer, in order, and what it names but cannot use.
type ring struct {
	keys     []*key
	agent    *sshAgent // nil: the profile has none
	unusable []string  // clauses, with their mends
	sealed   []*file   // encrypted files that no agent stands in for
}

// key is a public key or certificate to offer, and who signs for it: an agent, a file, or the file when the agent is lost.
type key struct {
	public     ssh.PublicKey
	id         string   // its wire form
	name       string   // what messages call it
	algorithms []string // signature algorithms, the best first

	agent  *sshAgent
	proven atomic.Bool   // the agent has signed with it, and rightly
	held   ssh.PublicKey // what the agent calls the private half: a certificate may be ours and the key the agent's
	signer ssh.AlgorithmSigner
}

// candidate is a key on its way into a ring.
type candidate struct {
	public ssh.PublicKey
	name   string
	file   *file
	agent  bool
}

// notes are what a failure has to say about the ring: nothing in it may be what the user meant to log in with.
func (r *ring) notes() []string {
	if r.agent != nil {
		if err := r.agent.lost(); err != nil {
			return append([]string{err.Error()}, r.unusable...)
		}
	}
	return r.unusable
}

// build puts a profile's keys in order, which is that of pubkey_prepare in OpenSSH's sshconnect2.c. The error is that of ctx.
func (w *Wallet) build(ctx context.Context, p *Profile) (*ring, error) {
	r := &ring{}
	if !p.Pubkey {
		return r, nil
	}
	var holds []held
	if p.AgentSocket != "" {
		var err error
		if r.agent, err = w.agent(ctx, p.AgentSocket); err != nil {
			return nil, err
		}
		holds = r.agent.keys
	}

	var preferred, others, files []candidate
	for _, path := range p.CertificateFiles {
		c := once(&w.mu, w.certs, path, readCertificate)
		if c.err != nil {
			r.unusable = append(r.unusable, c.err.Error())
			continue
		}
		preferred = append(preferred, candidate{public: c.cert, name: path})
	}
	var read []*file
	for _, path := range p.IdentityFiles {
		f := once(&w.mu, w.files, path, readFile)
		read = append(read, f)
		if f.public != nil {
			files = append(files, candidate{public: f.public, name: path, file: f})
		} else if _, sealed, why := f.usable(); why != "" && !(f.missing && p.DefaultIdentities) {
			r.unusable = append(r.unusable, why)
			if sealed {
				r.sealed = append(r.sealed, f)
			}
		}
		if len(p.CertificateFiles) == 0 && f.cert != nil {
			if f.cert.err != nil {
				r.unusable = append(r.unusable, f.cert.err.Error())
			} else {
				files = append(files, candidate{public: f.cert.cert, name: f.cert.path})
			}
		}
	}
	for _, h := range holds {
		if i := slices.IndexFunc(files, func(c candidate) bool { return same(c.public, h.public) }); i >= 0 {
			preferred = append(preferred, files[i])
			files = slices.Delete(files, i, i+1)
		} else if !p.IdentitiesOnly {
			others = append(others, candidate{public: h.public, name: fmt.Sprintf("the agent's %q", h.comment), agent: true})
		}
	}

	for _, c := range slices.Concat(preferred, others, files) {
		k := &key{public: c.public, id: string(c.public.Marshal()), name: c.name, algorithms: algorithms(c.public.Type(), p.PubkeyAlgorithms)}
		if slices.ContainsFunc(r.keys, func(other *key) bool { return other.id == k.id }) {
			continue
		}
		if len(k.algorithms) == 0 {
			if !c.agent {
				r.unusable = append(r.unusable, fmt.Sprintf("%s is of type %s, which PubkeyAcceptedAlgorithms leaves out", c.name, c.public.Type()))
			}
			continue
		}
		plain := c.public
		if cert, ok := plain.(*ssh.Certificate); ok {
			plain = cert.Key
		}
		// The key itself in the agent, else the one that its certificate is for.
		for _, public := range []ssh.PublicKey{c.public, plain} {
			if k.agent == nil && slices.ContainsFunc(holds, func(h held) bool { return same(h.public, public) }) {
				k.agent, k.held = r.agent, public
			}
		}
		for _, f := range read {
			if signer, _, _ := f.usable(); signer != nil && same(f.public, plain) {
				k.signer = signer
			}
		}
		switch {
		case k.agent != nil || k.signer != nil:
			r.keys = append(r.keys, k)
		case c.file != nil:
			_, sealed, why := c.file.usable()
			r.unusable = append(r.unusable, why)
			if sealed {
				r.sealed = append(r.sealed, c.file)
			}
		default:
			r.unusable = append(r.unusable, fmt.Sprintf("there is no private key to certificate %s among the identity files and in the agent", c.name))
		}
	}
	return r, nil
}

func same(a, b ssh.PublicKey) bool {
	return a != nil && b != nil && a.Type() == b.Type() && bytes.Equal(a.Marshal(), b.Marshal())
}

// sign signs data with the private half, wherever it is.
func (k *key) sign(ctx context.Context, rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if k.agent != nil && (k.signer == nil || k.agent.lost() == nil) {
		sig, err := k.agent.sign(ctx, k.held, data, algorithm)
		// A server may end the connection over a wrong signature. Not every one is checked: that would cost a good agent's hosts as
		// much as the host's own signature does.
		if err == nil && !k.proven.Load() {
			if k.held.Verify(data, sig) != nil {
				return nil, k.agent.lied()
			}
			k.proven.Store(true)
		}
		return sig, err
	}
	return k.signer.SignWithAlgorithm(rand, data, algorithm)
}

// lost says that nobody can sign with the key any more; the ring's notes say why.
func (k *key) lost() bool { return k.signer == nil && k.agent.lost() != nil }

// String names the key in a message.
func (k *key) String() string {
	const shown = len("SHA256:") + 10
	return fmt.Sprintf("%s (%s…)", k.name, ssh.FingerprintSHA256(k.public)[:shown])
}

const certSuffix = "-cert-v01@openssh.com"

// algorithms gives the signature algorithms for a key's format that accepted lets pass, the best first: an RSA key has three, each
// with a name of its own for certificates (RFC 8332, PROTOCOL.certkeys).
func algorithms(format string, accepted []string) []string {
	plain, cert := strings.CutSuffix(format, certSuffix)
	names := []string{plain}
	if plain == ssh.KeyAlgoRSA {
		names = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	}
	// A security key's certificate is sk-ssh-ed25519-cert-v01@openssh.com, and its signature sk-ssh-ed25519@openssh.com.
	if cert && strings.HasPrefix(plain, "sk-") {
		names[0] += "@openssh.com"
	}
	lets := func(name string) bool {
		return slices.ContainsFunc(accepted, func(pattern string) bool {
			ok, _ := path.Match(pattern, name)
			return ok
		})
	}
	return slices.DeleteFunc(names, func(name string) bool {
		if len(accepted) == 0 {
			return name == ssh.KeyAlgoRSA || name == "ssh-dss"
		}
		return !lets(name) && !(cert && lets(strings.TrimSuffix(name, "@openssh.com")+certSuffix))
	})
}
