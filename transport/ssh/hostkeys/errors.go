package hostkeys

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// UnknownError: nothing is known for the name. Entry{[]string{Name}, Key} is what Accept needs to know it.
type UnknownError struct {
	Name        string
	Addr        net.Addr      // as given to Check; may be nil
	Key         ssh.PublicKey // a plain one, also when it came in a certificate
	Certificate error         // why the certificate around it does not count; nil: none came
}

func (e *UnknownError) Error() string {
	text := fmt.Sprintf("the host key of %s is not known: %s", at(e.Name, e.Addr), describe(e.Key))
	if e.Certificate != nil {
		text += fmt.Sprintf(" (its certificate does not count: %v)", e.Certificate)
	}
	return text + "; compare the fingerprint with the host's own and accept it with --host-keys ask"
}

func (e *UnknownError) Unwrap() error { return e.Certificate }

// Line is where a key is known from.
type Line struct {
	File    string
	Number  int // from 1
	Key     ssh.PublicKey
	Pattern bool // the line's names have wildcards: it may be there for other hosts too
}

// ChangedError: the name has a key, and it is not the one that came. It was put there by somebody, so this is an attack until
// somebody says that it is not.
type ChangedError struct {
	Name string
	Addr net.Addr      // as given to Check; may be nil
	Key  ssh.PublicKey // a plain one, also when it came in a certificate
	Line Line          // the known key, of the same type if there is one
}

func (e *ChangedError) Error() string {
	mend := fmt.Sprintf("ssh-keygen -R %s -f %s", quote(lower(e.Name)), quote(e.Line.File))
	if e.Line.Pattern {
		mend = "that line, which may hold for other hosts too"
	}
	return fmt.Sprintf("the host key of %s has changed: it is %s and was %s (%s:%d); someone may be in between: only if you know why it changed, remove the old one: %s",
		at(e.Name, e.Addr), describe(e.Key), describe(e.Line.Key), e.Line.File, e.Line.Number, mend)
}

// RevokedError: the key is revoked, the certificate around it or the one that signed that, by a @revoked line for the name or by a file of
// RevokedHostKeys.
type RevokedError struct {
	Name        string
	Key         ssh.PublicKey
	Authority   bool             // Key is the signer of the certificate
	Certificate *ssh.Certificate // it alone is revoked, not the Key in it; nil: it is not that
	Line        Line             // Number is 0 in a KRL, which has no lines
}

func (e *RevokedError) Error() string {
	where := e.Line.File
	if e.Line.Number > 0 {
		where = fmt.Sprintf("%s:%d", e.Line.File, e.Line.Number)
	}
	switch {
	case e.Authority:
		return fmt.Sprintf("the authority that signed the host certificate of %s is revoked (%s, %s): the host needs a certificate from another one",
			e.Name, describe(e.Key), where)
	case e.Certificate != nil:
		return fmt.Sprintf("the host certificate of %s is revoked (%q, serial %d, %s): the host needs a new one", e.Name, e.Certificate.KeyId, e.Certificate.Serial, where)
	}
	return fmt.Sprintf("the host key of %s is revoked (%s, %s): it may have been stolen, and the host needs a new one", e.Name, describe(e.Key), where)
}

func at(name string, addr net.Addr) string {
	if addr == nil || addr.String() == name {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, addr)
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// checkCertificate says why a certificate from a known authority does not make host what it says it is; nil: it does.
// See PROTOCOL.certkeys of OpenSSH.
func checkCertificate(cert *ssh.Certificate, host string) error {
	if cert.CertType != ssh.HostCert {
		return errors.New("it is a user certificate: sign the host's key with ssh-keygen -h")
	}
	principal := slices.IndexFunc(cert.ValidPrincipals, func(p string) bool { return match(p, host) })
	if principal < 0 {
		return fmt.Errorf("it is for %s and not for %s: name the host with -n when signing it", nameList(cert.ValidPrincipals), host)
	}
	switch cert.Signature.Format {
	case ssh.KeyAlgoRSA, "ssh-dss":
		return fmt.Errorf("it is signed with %s, which is too weak: sign it again with ssh-keygen -t rsa-sha2-512", cert.Signature.Format)
	}
	var checker ssh.CertChecker // without SupportedCriticalOptions: there is none for hosts
	if err := checker.CheckCert(cert.ValidPrincipals[principal], cert); err != nil {
		return fmt.Errorf("%s; certificate %q, serial %d, valid %s", strings.TrimPrefix(err.Error(), "ssh: "), cert.KeyId, cert.Serial, validity(cert))
	}
	return nil
}

func nameList(names []string) string {
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, ",")
}

func validity(cert *ssh.Certificate) string {
	text := "from " + time.Unix(int64(cert.ValidAfter), 0).UTC().Format(time.RFC3339)
	if cert.ValidBefore != ssh.CertTimeInfinity {
		text += " to " + time.Unix(int64(cert.ValidBefore), 0).UTC().Format(time.RFC3339)
	}
	return text
}
