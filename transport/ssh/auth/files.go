package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// maxFile bounds what is read of a key file: the largest key that OpenSSH makes takes 13 KiB.
const maxFile = 1 << 20

// file is an identity file and what is known of its two halves.
type file struct {
	path    string
	missing bool
	public  ssh.PublicKey // from the file, or from FILE.pub; nil: not known without the passphrase
	cert    *certFile     // FILE-cert.pub, nil: there is none

	mu     sync.Mutex
	signer ssh.AlgorithmSigner // the private half; nil: cannot be used, and why says why
	sealed *pem.Block          // an encrypted private half, until it is asked for
	why    string              // a clause about the file, with the mend
}

// certFile is a file with one user certificate.
type certFile struct {
	path string
	cert *ssh.Certificate
	err  error
}

// readFile reads an identity file and those beside it. It never fails: what is wrong is for those to hear whom no other key lets in.
func readFile(path string) *file {
	f := &file{path: path}
	text, mode, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.missing, f.why = true, "identity file "+path+" does not exist"
	case err != nil:
		f.why = fmt.Sprintf("identity file %s cannot be read (%v)", path, fileCause(err))
	default:
		f.parse(text, mode)
	}
	if f.public == nil {
		if text, _, err := read(path + ".pub"); err == nil {
			f.public = publicLine(text)
		}
	}
	if c := readCertificate(path + "-cert.pub"); !errors.Is(c.err, fs.ErrNotExist) {
		f.cert = c
	}
	return f
}

// read gives a file's bytes, and its permissions if they are ours to set.
func read(path string) ([]byte, fs.FileMode, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, 0, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxFile))
	if !ours(info) {
		return text, 0, err
	}
	return text, info.Mode().Perm(), err
}

// parse finds out what kind of file this is: a public key, or a private one in any of OpenSSH's formats.
func (f *file) parse(text []byte, mode fs.FileMode) {
	block := privateBlock(text)
	if block == nil {
		if f.public = publicLine(text); f.public != nil {
			f.why = f.path + " is a public key that no agent holds: ssh-add its private key, or name the private key's file"
			return
		}
		f.why = f.path + " is no key in a format that ssh-keygen writes"
		return
	}
	f.public = embedded(block)
	// As in OpenSSH, which does so only where the file belongs to the user: sudo's root reads the keys of others.
	if mode&0o077 != 0 {
		f.why = fmt.Sprintf("%s has permissions %#o, so that others can use the key: chmod 600 %[1]s", f.path, mode)
		return
	}
	private, err := openPrivate(block, nil)
	var encrypted *ssh.PassphraseMissingError
	if errors.As(err, &encrypted) {
		f.sealed, f.why = block, f.path+" is encrypted and its passphrase is not known: ssh-add "+f.path
		return
	}
	f.take(private, err)
}

// take has what openPrivate made of the private half. The caller holds mu, or is the only one to know f.
func (f *file) take(private any, err error) {
	switch {
	case f.public != nil && strings.HasPrefix(f.public.Type(), "sk-"):
		f.why = f.path + " is the handle of a security key, which only an agent can use: ssh-add " + f.path
		return
	case err == nil:
		var signer ssh.Signer
		if signer, err = ssh.NewSignerFromKey(private); err == nil {
			f.signer, f.public, f.why = signer.(ssh.AlgorithmSigner), signer.PublicKey(), ""
			return
		}
	}
	why := strings.TrimPrefix(err.Error(), "ssh: ")
	if noise(err) {
		why = "it is damaged"
	}
	f.why = fmt.Sprintf("%s cannot be used (%s): ssh-add %[1]s, if ssh can", f.path, why)
}

// passphraseTries is how often a passphrase is asked for, as ssh does by default (NumberOfPasswordPrompts).
const passphraseTries = 3

// unseal asks for the passphrase of an encrypted file, if that has not been done: again when it is wrong, not when there is none.
func (f *file) unseal(ask func(file string) (string, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sealed == nil || ask == nil {
		return
	}
	block := f.sealed
	f.sealed = nil
	for range passphraseTries {
		passphrase, err := ask(f.path)
		if err == nil && passphrase == "" {
			err = errors.New("it is empty")
		}
		if err != nil {
			f.why = fmt.Sprintf("%s is encrypted and there was no passphrase (%v): ssh-add %[1]s", f.path, err)
			return
		}
		private, err := openPrivate(block, []byte(passphrase))
		if !errors.Is(err, x509.IncorrectPasswordError) {
			f.take(private, err)
			return
		}
		f.why = "the passphrase given for " + f.path + " is wrong"
	}
}

// usable gives the private half, or why there is none.
func (f *file) usable() (signer ssh.AlgorithmSigner, sealed bool, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signer, f.sealed != nil, f.why
}

// privateBlock finds the private key in a PEM file; openssl writes the curve's parameters before it.
func privateBlock(text []byte) *pem.Block {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return block
		}
	}
}

// openPrivate gives the private key of a PEM block: OpenSSH's own format, PKCS#1, SEC1, PKCS#8, and each of them encrypted.
// Without the passphrase it takes, the error is an *ssh.PassphraseMissingError; with a wrong one, x509.IncorrectPasswordError.
func openPrivate(block *pem.Block, passphrase []byte) (any, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		if passphrase == nil {
			return nil, &ssh.PassphraseMissingError{}
		}
		return decryptPKCS8(block.Bytes, passphrase)
	}
	text := pem.EncodeToMemory(block)
	if passphrase == nil {
		return ssh.ParseRawPrivateKey(text)
	}
	private, err := ssh.ParseRawPrivateKeyWithPassphrase(text, passphrase)
	// Old PEM has no check of its own: what a wrong passphrase makes of it is noise, whose padding is right once in 256 times.
	if noise(err) {
		err = x509.IncorrectPasswordError
	}
	return private, err
}

// noise says that bytes are no ASN.1. Package x509 hands such errors on as text in places.
func noise(err error) bool { return err != nil && strings.Contains(err.Error(), "asn1: ") }

// embedded gives the public key that OpenSSH's format carries in the clear (PROTOCOL.key), nil for the other formats.
func embedded(block *pem.Block) ssh.PublicKey {
	const magic = "openssh-key-v1\x00"
	var header struct {
		Cipher, KDF, Options string
		Keys                 uint32
		Public               []byte
		Rest                 []byte `ssh:"rest"`
	}
	rest, ok := bytes.CutPrefix(block.Bytes, []byte(magic))
	if !ok || block.Type != "OPENSSH PRIVATE KEY" || ssh.Unmarshal(rest, &header) != nil {
		return nil
	}
	public, err := ssh.ParsePublicKey(header.Public)
	if err != nil {
		return nil
	}
	return public
}

// publicLine gives the first public key of a .pub file, nil when there is none.
func publicLine(text []byte) ssh.PublicKey {
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil
	}
	return public
}

// readCertificate reads a user's certificate, as ssh-keygen -s writes it.
func readCertificate(path string) *certFile {
	c := &certFile{path: path}
	text, _, err := read(path)
	if err != nil {
		c.err = fmt.Errorf("certificate %s cannot be read (%w)", path, fileCause(err))
		return c
	}
	cert, ok := publicLine(text).(*ssh.Certificate)
	switch {
	case !ok:
		c.err = fmt.Errorf("%s is no certificate: ssh-keygen -s makes one", path)
	case cert.CertType != ssh.UserCert:
		c.err = fmt.Errorf("%s is a host's certificate, not a user's", path)
	default:
		c.cert = cert
	}
	return c
}

// fileCause is an error of a file without the path, which the message around it names.
func fileCause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
