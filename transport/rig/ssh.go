package rig

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// The SSH servers, of Debian's packages of these names.
const (
	OpenSSH  Daemon = "openssh-server" // sshd, a daemon that listens
	Dropbear Daemon = "dropbear-bin"   // from the host's inetd, one process for each connection
)

// SSH says which SSH server the hosts run, and how. The zero value is none.
//
// [ClientKey] may log in as every user, root too, but [NoRhosts] and [PasswordUser]. OpenSSH lets a certificate by [CA] in as each
// user that it names, whoever that is.
//
// sshd's settings are its own defaults, not Debian's, but for LogLevel VERBOSE: PAM is off, and there is a pam.d/sshd of pam_unix
// alone for a "UsePAM yes"; passwords and keys will do; MaxStartups is 10:30:100, too little for a benchmark.
type SSH struct {
	Server Daemon // OpenSSH or Dropbear; empty: the hosts have none
	Port   uint16 // 0: 22

	// Lines are for sshd_config(5), the rig's own come after them: the first value counts there, so these win. What begins with
	// a Match comes last. OpenSSH only.
	Lines []string

	Authorized string // further lines for the authorized_keys of those users

	// HostKeys are the types of the host keys: "ed25519", "ecdsa" (P-256), "rsa" (2048 bits). Nil: "ed25519" for OpenSSH, which is
	// the quickest to start; all three for Dropbear, which dies of a client that wants an RSA key first and there is none.
	// A host has the same key in every rig; only the RSA ones are new in each process, and take a while to be made.
	HostKeys []string

	// Certified host keys have a certificate by CA as well, for the first 256 of the names and addresses in KnownHosts:
	// OpenSSH reads no longer ones. OpenSSH only.
	Certified bool
}

// PasswordUser is a user on every host with a password, no authorized key and no .rhosts file.
const (
	PasswordUser = "tester-password"
	Password     = "open sesame"

	passwordHash = "$6$multirsh$hab2XvaBREUdYw/VmNMIbJBVMGGzxyztWDsfcsQoyIGNl5ml9x/xqnbZlrbYwEnK34KlYoZoWC9D5gV7XrtL0/" // crypt(5)
)

// ClientKey is the private key (ed25519) that the hosts' users let in. On the control side of a rig with an SSH server it is
// also in the file ClientKeyFile, as ssh-keygen writes it, and the public one beside it, with ".pub".
//
// This key, CA's and the hosts' are the same always and anybody can know them. They protect nothing: a rig's hosts can be
// reached from its control side alone.
func ClientKey() ssh.Signer { return signer(wellKnown("client")) }

// ClientKeyFile is a path on the control side.
const ClientKeyFile = sshDir + "id_ed25519"

// CA is the certification authority that hosts with OpenSSH trust, with certificates of users (TrustedUserCAKeys), and that signs
// the certificates of Certified hosts. A known_hosts line for the latter is "@cert-authority * " and its public key.
func CA() ssh.Signer { return signer(wellKnown("certification authority")) }

// KnownHosts are lines for known_hosts with all the rig's names and addresses (Addr, Addr6 and NameOf of 0 to 254), one line for
// each host key; none without an SSH server.
func (r *Rig) KnownHosts() string {
	var b strings.Builder
	for _, h := range r.Hosts {
		b.WriteString(h.KnownHosts())
	}
	return b.String()
}

// KnownHosts is that for one host.
func (h *Host) KnownHosts() string {
	names := h.identities()
	for i := range names {
		if h.ssh.Port != 22 {
			names[i] = fmt.Sprintf("[%s]:%d", names[i], h.ssh.Port)
		}
	}
	var b strings.Builder
	for _, k := range h.HostKeys {
		b.WriteString(strings.Join(names, ",") + " " + string(ssh.MarshalAuthorizedKey(k)))
	}
	return b.String()
}

// identities are all the host's names and addresses, those with a name first.
func (h *Host) identities() []string {
	all := []string{h.Name, h.Name + "-v6", h.Name + "-dual", h.Addr(0).String(), h.Addr6(0).String()}
	for j := 1; j <= 254; j++ {
		all = append(all, h.NameOf(j), h.Addr(j).String(), h.Addr6(j).String())
	}
	return all
}

// SSHLog is what the host's SSH server has said so far: sshd to standard error, Dropbear to syslog.
func (h *Host) SSHLog() (string, error) {
	if h.ssh.Server == Dropbear {
		return h.Log()
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", h.PID, sshLog))
	return strings.ReplaceAll(string(text), "\r\n", "\n"), err
}

// check fills in what is not said.
func (s *SSH) check() error {
	if s.Server == "" {
		if s.Port != 0 || s.Lines != nil || s.Authorized != "" || s.HostKeys != nil || s.Certified {
			return errors.New("rig: settings for SSH, but no SSH.Server")
		}
		return nil
	}
	s.Port = cmp.Or(s.Port, 22)
	switch s.Server {
	case OpenSSH:
		if s.HostKeys == nil {
			s.HostKeys = []string{"ed25519"}
		}
	case Dropbear:
		if s.HostKeys == nil {
			s.HostKeys = []string{"ed25519", "ecdsa", "rsa"}
		}
		if s.Lines != nil || s.Certified {
			return errors.New("rig: Dropbear has no sshd_config and no certificates")
		}
	default:
		return fmt.Errorf("rig: no SSH server %q", s.Server)
	}
	for _, typ := range s.HostKeys {
		if !slices.Contains([]string{"ed25519", "ecdsa", "rsa"}, typ) {
			return fmt.Errorf("rig: no host key of type %q: ed25519, ecdsa and rsa are possible", typ)
		}
	}
	return nil
}

// sshFiles are what a host's SSH server needs, by path: all for root alone.
type sshFiles map[string][]byte

// Paths on a host.
const (
	sshDir        = "/run/rig/ssh/"
	sshConfig     = sshDir + "sshd_config"
	sshCA         = sshDir + "ca.pub"
	sshLog        = sshDir + "log"
	sshNotify     = sshDir + "notify"
	hostKeyPrefix = sshDir + "host_"
)

// makeHostKeys makes the host's keys, sets its HostKeys and returns the files that a server needs of them.
func (h *Host) makeHostKeys() (sshFiles, error) {
	files := make(sshFiles)
	for _, typ := range h.ssh.HostKeys {
		key, err := hostKey(h.N, typ)
		if err != nil {
			return nil, err
		}
		public := signer(key).PublicKey()
		h.HostKeys = append(h.HostKeys, public)
		if h.ssh.Server == Dropbear {
			files[hostKeyPrefix+typ], err = dropbearFile(key, public)
		} else {
			files[hostKeyPrefix+typ], err = privateFile(key, h.Name)
		}
		if err != nil {
			return nil, err
		}
		if h.ssh.Certified {
			cert := &ssh.Certificate{
				Key:             public,
				CertType:        ssh.HostCert,
				KeyId:           h.Name,
				ValidPrincipals: h.identities()[:256],
				ValidBefore:     ssh.CertTimeInfinity,
			}
			if err := cert.SignCert(rand.Reader, CA()); err != nil {
				return nil, err
			}
			files[hostKeyPrefix+typ+"-cert.pub"] = ssh.MarshalAuthorizedKey(cert)
		}
	}
	return files, nil
}

// sshdConfig is the host's sshd_config(5); dir is where sshd's package is unpacked.
func (s *SSH) sshdConfig(dir string) string {
	match := slices.IndexFunc(s.Lines, func(line string) bool {
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == '=' })
		return len(f) > 0 && strings.EqualFold(f[0], "Match")
	})
	if match < 0 {
		match = len(s.Lines)
	}
	lines := slices.Clone(s.Lines[:match])
	lines = append(lines,
		fmt.Sprintf("Port %d", s.Port),
		"LogLevel VERBOSE",
		"PidFile none",
		"TrustedUserCAKeys "+sshCA,
		"ModuliFile "+dir+"/etc/ssh/moduli")
	// From 9.8 on sshd has helpers, which it looks for where the package would be installed.
	for program, keyword := range map[string]string{"sshd-session": "SshdSessionPath", "sshd-auth": "SshdAuthPath"} {
		path := dir + "/usr/lib/openssh/" + program
		if _, err := os.Stat(path); err == nil {
			lines = append(lines, keyword+" "+path)
		}
	}
	for _, typ := range s.HostKeys {
		lines = append(lines, "HostKey "+hostKeyPrefix+typ)
		if s.Certified {
			lines = append(lines, "HostCertificate "+hostKeyPrefix+typ+"-cert.pub")
		}
	}
	lines = append(lines, s.Lines[match:]...)
	return strings.Join(lines, "\n") + "\n"
}

// wellKnown is a key that is the same always.
func wellKnown(of string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("multi-rsh rig: " + of))
	return ed25519.NewKeyFromSeed(seed[:])
}

// hostKey is the key of a type for a host's number.
func hostKey(n int, typ string) (crypto.Signer, error) {
	of := fmt.Sprintf("host %d %s", n, typ)
	switch typ {
	case "ecdsa":
		seed := sha256.Sum256([]byte("multi-rsh rig: " + of))
		return ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	case "rsa":
		made, _ := rsaKeys.LoadOrStore(n, sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }))
		return made.(func() (crypto.Signer, error))()
	}
	return wellKnown(of), nil
}

var rsaKeys sync.Map // of a host's number, to the function that makes the key or returns it

// signer makes an SSH key of one of our types, which always works.
func signer(key crypto.Signer) ssh.Signer {
	s, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		panic(err)
	}
	return s
}

// privateFile is a private key in a file as ssh-keygen writes it, without passphrase.
func privateFile(key crypto.Signer, comment string) ([]byte, error) {
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

// dropbearFile is a private key in a file as dropbearkey writes it: the public one as RFC 4253 has it, then what is secret. The
// key of ed25519 is both in one.
func dropbearFile(key crypto.Signer, public ssh.PublicKey) ([]byte, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return append(public.Marshal(), ssh.Marshal(struct{ D, P, Q *big.Int }{key.D, key.Primes[0], key.Primes[1]})...), nil
	case *ecdsa.PrivateKey:
		d, err := key.Bytes()
		return append(public.Marshal(), ssh.Marshal(struct{ D *big.Int }{new(big.Int).SetBytes(d)})...), err
	}
	return ssh.Marshal(struct {
		Type string
		Key  []byte
	}{public.Type(), key.(ed25519.PrivateKey)}), nil
}

// authorized is the line for authorized_keys, and for a .pub file, of a key.
func authorized(key ssh.Signer) string { return string(ssh.MarshalAuthorizedKey(key.PublicKey())) }
