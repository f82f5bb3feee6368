package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// maxIterations bounds the work for one file; openssl's default is 2048, the largest in use some hundred thousand.
const maxIterations = 10_000_000

// What ssh-keygen -m PKCS8 writes when a passphrase is given, and what else openssl may have written: PBES2 with PBKDF2 (RFC 8018
// appendix A). The ciphers and digests are those of openssl pkcs8 -v2 and -v2prf; each entry's key is the object identifier.
var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}

	digests = map[string]func() hash.Hash{
		"":                    sha1.New, // the default of the ASN.1
		"1.2.840.113549.2.7":  sha1.New,
		"1.2.840.113549.2.8":  sha256.New224,
		"1.2.840.113549.2.9":  sha256.New,
		"1.2.840.113549.2.10": sha512.New384,
		"1.2.840.113549.2.11": sha512.New,
	}
	ciphers = map[string]struct {
		keyLength int
		new       func([]byte) (cipher.Block, error)
	}{
		"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
		"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
		"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
		"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
	}
)

// decryptPKCS8 opens an EncryptedPrivateKeyInfo (RFC 5958 section 3). A wrong passphrase is x509.IncorrectPasswordError.
func decryptPKCS8(der, passphrase []byte) (any, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	var scheme struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	var kdf struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		Digest     pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	var iv []byte
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("damaged PKCS#8: %w", err)
	}
	if !info.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, fmt.Errorf("encrypted PKCS#8 of kind %v", info.Algorithm.Algorithm)
	}
	if _, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return nil, fmt.Errorf("damaged PKCS#8: %w", err)
	}
	if !scheme.KDF.Algorithm.Equal(oidPBKDF2) {
		return nil, fmt.Errorf("encrypted PKCS#8 with key derivation %v", scheme.KDF.Algorithm)
	}
	if _, err := asn1.Unmarshal(scheme.KDF.Parameters.FullBytes, &kdf); err != nil {
		return nil, fmt.Errorf("damaged PKCS#8: %w", err)
	}
	digest, known := digests[kdf.Digest.Algorithm.String()]
	if !known {
		return nil, fmt.Errorf("encrypted PKCS#8 with digest %v", kdf.Digest.Algorithm)
	}
	c, known := ciphers[scheme.Cipher.Algorithm.String()]
	if !known {
		return nil, fmt.Errorf("encrypted PKCS#8 with cipher %v", scheme.Cipher.Algorithm)
	}
	if kdf.Iterations < 1 || kdf.Iterations > maxIterations {
		return nil, fmt.Errorf("encrypted PKCS#8 with %d iterations", kdf.Iterations)
	}
	if _, err := asn1.Unmarshal(scheme.Cipher.Parameters.FullBytes, &iv); err != nil {
		return nil, fmt.Errorf("damaged PKCS#8: %w", err)
	}
	key, err := pbkdf2.Key(digest, string(passphrase), kdf.Salt, kdf.Iterations, c.keyLength)
	if err != nil {
		return nil, err
	}
	block, err := c.new(key)
	if err != nil {
		return nil, err
	}
	if len(iv) != block.BlockSize() || len(info.Data) == 0 || len(info.Data)%block.BlockSize() != 0 {
		return nil, errors.New("damaged PKCS#8: it does not fill its blocks")
	}
	plain := make([]byte, len(info.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, info.Data)
	// The file itself is read here, not by a server that could be asked: what the padding tells is told to its owner.
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > block.BlockSize() {
		return nil, x509.IncorrectPasswordError
	}
	private, err := x509.ParsePKCS8PrivateKey(plain[:len(plain)-pad])
	if noise(err) {
		err = x509.IncorrectPasswordError
	}
	return private, err
}
