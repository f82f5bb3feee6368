package ssh

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/sshconfig"
)

// legacy is what servers of the last decade may need: broken or nearly so, and never offered without being asked for.
var legacy = ssh.Algorithms{
	KeyExchanges:   []string{ssh.InsecureKeyExchangeDH14SHA1, ssh.InsecureKeyExchangeDHGEXSHA1, ssh.InsecureKeyExchangeDH1SHA1},
	Ciphers:        []string{ssh.InsecureCipherAES128CBC, ssh.InsecureCipherTripleDESCBC},
	MACs:           []string{ssh.HMACSHA1},
	HostKeys:       []string{ssh.KeyAlgoRSA},
	PublicKeyAuths: []string{ssh.KeyAlgoRSA},
}

// algorithms is what to offer: the library's defaults, which begin with a post-quantum key exchange, as ssh_config changes them.
func (t *Transport) algorithms(s *sshconfig.Settings) (offer ssh.Algorithms, err error) {
	defaults, insecure := ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()
	for _, list := range []struct {
		name               string
		spec               string
		to                 *[]string
		usual, unsafe, old []string
	}{
		{"KexAlgorithms", s.KexAlgorithms, &offer.KeyExchanges, defaults.KeyExchanges, insecure.KeyExchanges, legacy.KeyExchanges},
		{"Ciphers", s.Ciphers, &offer.Ciphers, defaults.Ciphers, insecure.Ciphers, legacy.Ciphers},
		{"MACs", s.MACs, &offer.MACs, defaults.MACs, insecure.MACs, legacy.MACs},
		{"HostKeyAlgorithms", s.HostKeyAlgorithms, &offer.HostKeys, defaults.HostKeys, insecure.HostKeys, legacy.HostKeys},
	} {
		chosen := choose(list.spec, list.usual, list.unsafe)
		if t.Legacy {
			chosen = union(chosen, list.old)
		}
		if len(chosen) == 0 {
			return offer, fmt.Errorf("%s %s names nothing that this program has; it has %s", list.name, list.spec, strings.Join(union(list.usual, list.unsafe), ","))
		}
		*list.to = chosen
	}
	if s.PubkeyAuthentication && len(t.pubkeyAlgorithms(s)) == 0 {
		return offer, fmt.Errorf("PubkeyAcceptedAlgorithms %s names nothing that this program has; it has %s", s.PubkeyAcceptedAlgorithms,
			strings.Join(union(defaults.PublicKeyAuths, certificates), ","))
	}
	return offer, nil
}

// knownFirst has the host asked for a key of a kind that is known, and only then for others.
func (t *Transport) knownFirst(s *sshconfig.Settings, offer []string) []string {
	known := slices.DeleteFunc(slices.Clone(t.knownAlgorithms(s)), func(a string) bool { return !slices.Contains(offer, a) })
	return union(known, offer)
}

// choose applies a list of ssh_config(5), with its + - ^ and wildcards, to the usual algorithms. Unknown ones are left out.
func choose(spec string, usual, unsafe []string) []string {
	if spec == "" {
		return usual
	}
	have := union(usual, unsafe)
	how := spec[0]
	if strings.IndexByte("+-^", how) >= 0 {
		spec = spec[1:]
	}
	var named []string
	for pattern := range strings.SplitSeq(spec, ",") {
		for _, name := range have {
			if matches(pattern, name) {
				named = union(named, []string{name})
			}
		}
	}
	switch how {
	case '+':
		return union(usual, named)
	case '^':
		return union(named, usual)
	case '-':
		return slices.DeleteFunc(slices.Clone(usual), func(name string) bool { return slices.Contains(named, name) })
	}
	return named
}

// union is a, then what of b is not in it.
func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, name := range b {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// certificates are the algorithms of certificates, which the library's list of ours leaves out.
var certificates = []string{
	ssh.CertAlgoED25519v01, ssh.CertAlgoSKED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoSKECDSA256v01, ssh.CertAlgoECDSA384v01,
	ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
}

// pubkeyAlgorithms are those that a key of ours may be used with.
func (t *Transport) pubkeyAlgorithms(s *sshconfig.Settings) []string {
	usual, unsafe := ssh.SupportedAlgorithms().PublicKeyAuths, ssh.InsecureAlgorithms().PublicKeyAuths
	algorithms := choose(s.PubkeyAcceptedAlgorithms, union(usual, certificates), unsafe)
	if t.Legacy {
		algorithms = union(algorithms, legacy.PublicKeyAuths)
	}
	return algorithms
}

// profile is what of a host's settings matters to authentication.
func (t *Transport) profile(s *sshconfig.Settings) auth.Profile {
	return auth.Profile{
		User: s.User, Host: s.OriginalHost,
		IdentityFiles: s.IdentityFiles, CertificateFiles: s.CertificateFiles,
		DefaultIdentities: s.DefaultIdentities, IdentitiesOnly: s.IdentitiesOnly, AgentSocket: s.IdentityAgent,
		Pubkey: s.PubkeyAuthentication, Password: s.PasswordAuthentication, Keyboard: s.KbdInteractiveAuthentication,
		Preferred: s.PreferredAuthentications, PubkeyAlgorithms: t.pubkeyAlgorithms(s),
	}
}

// matches is a pattern of ssh_config(5) with * and ?, for names without slashes.
func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}
