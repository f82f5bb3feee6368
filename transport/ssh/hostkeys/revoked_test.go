package hostkeys

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// revocations are files of RevokedHostKeys and what they make of a host that has the key A, or a certificate for it by CA with the serial 7.
var revocations = []struct {
	what   string
	text   string // of the file; empty: as krl says
	krl    string // what ssh-keygen -k makes one of
	anyone bool   // of all authorities, not of CA alone
	cert   *certificate
	want   string // "ok", "revoked", or a part of why the file cannot be read
	theirs string // what ssh(1) says where that is something else
}{
	{what: "another key", text: "{B}\n", want: "ok"},
	{what: "the key", text: "# stolen\n\n{B}\n  {A} laptop\r\n", want: "revoked"},
	{what: "another certificate's key", text: "{B}\n", cert: &certificate{}, want: "ok"},
	{what: "the authority", text: "{CA}\n", cert: &certificate{}, want: "revoked"},
	{what: "the key in a certificate", text: "{A}\n", cert: &certificate{}, want: "revoked"},
	{what: "no key at all", text: "# none yet\n", want: "ok"},
	{what: "a line of known_hosts", text: "h {B}\n", want: "here is no public key"},
	{what: "options", text: "no-pty {B}\n", want: "here is no public key"},
	{what: "another type", text: "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIHfQpRLOnuGrFRZLmRFTnRDDCiHvRnRdQFJEo3qrRqgk\n", want: "not the"},
	{what: "garbage", text: "\x01\x02", want: "here is no public key"},
	{what: "a line that C takes for empty", text: "\x00\x01\x02", want: "here is no public key", theirs: "ok"},
	{what: "a KRL that is cut off", text: "SSHKRL\n\x00\x00\x00\x00\x01\x00", want: "cut off"},
	{what: "a KRL of another version", text: "SSHKRL\n\x00\x00\x00\x00\x02" + strings.Repeat("\x00", 32), want: "version 2"},
	{what: "an empty KRL", text: "SSHKRL\n\x00\x00\x00\x00\x01" + strings.Repeat("\x00", 32), want: "ok"},
	{what: "a KRL with a section of another kind", text: "SSHKRL\n\x00\x00\x00\x00\x01" + strings.Repeat("\x00", 32) + "\x09\x00\x00\x00\x00", want: "type 9"},

	{what: "KRL, another key", krl: "key: {B}", want: "ok"},
	{what: "KRL, the key", krl: "key: {B}\nkey: {A}", want: "revoked"},
	{what: "KRL, the key in a certificate", krl: "key: {A}", cert: &certificate{}, want: "revoked"},
	{what: "KRL, the authority", krl: "key: {CA}", cert: &certificate{}, want: "revoked"},
	{what: "KRL, SHA-1", krl: "sha1: {A}", want: "revoked"},
	{what: "KRL, SHA-1 of another", krl: "sha1: {B}", want: "ok"},
	{what: "KRL, SHA-256", krl: "sha256: {A}", want: "revoked"},
	{what: "KRL, SHA-256 of the authority", krl: "sha256: {CA}", cert: &certificate{}, want: "revoked"},
	{what: "KRL, the serial", krl: "serial: 7", cert: &certificate{}, want: "revoked"},
	{what: "KRL, the serial, without a certificate", krl: "serial: 7", want: "ok"},
	{what: "KRL, another serial", krl: "serial: 8", cert: &certificate{}, want: "ok"},
	{what: "KRL, the serial of another authority", krl: "serial: 7", cert: &certificate{signer: "CB"}, want: "ok"},
	{what: "KRL, the serial of any authority", krl: "serial: 7", anyone: true, cert: &certificate{signer: "CB"}, want: "revoked"},
	{what: "KRL, serials", krl: "serial: 2-7", cert: &certificate{}, want: "revoked"},
	{what: "KRL, serials behind it", krl: "serial: 8-900000", cert: &certificate{}, want: "ok"},
	{what: "KRL, a bitmap", krl: odd, cert: &certificate{}, want: "revoked"},
	{what: "KRL, a bitmap without it", krl: strings.ReplaceAll(odd, ": 7\n", ": 6\n"), cert: &certificate{}, want: "ok"},
	{what: "KRL, the key ID", krl: "id: host B\nid: host A", cert: &certificate{}, want: "revoked"},
	{what: "KRL, another key ID", krl: "id: host B", cert: &certificate{}, want: "ok"},
}

// odd are serials that a KRL holds as a bitmap.
var odd = func() string {
	var b strings.Builder
	for i := 1; i < 400; i += 2 {
		fmt.Fprintf(&b, "serial: %d\n", i)
	}
	return b.String()
}()

// revokedFile writes the file of a row.
func revokedFile(t testing.TB, text, krl string, anyone bool) string {
	t.Helper()
	if krl == "" {
		return write(t, fill(text, ""))
	}
	keygen := program(t, "ssh-keygen")
	file := filepath.Join(t.TempDir(), "krl")
	args := []string{"-q", "-k", "-f", file}
	if !anyone {
		args = append(args, "-s", write(t, fill("{CA}\n", "")))
	} else {
		args = append(args, "-s", "none")
	}
	run(t, keygen, append(args, write(t, fill(krl, "")+"\n"))...)
	return file
}

func hostSigner(t testing.TB, cert *certificate) ssh.Signer {
	if cert == nil {
		return signers()["A"]
	}
	return cert.sign(t, "h")
}

func TestRevoked(t *testing.T) {
	for _, c := range revocations {
		t.Run(c.what, func(t *testing.T) {
			file := revokedFile(t, c.text, c.krl, c.anyone)
			r, err := ReadRevoked([]string{write(t, ""), file})
			if c.want != "ok" && c.want != "revoked" {
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) {
					t.Errorf("error %v, want one with %q and %s", err, c.want, file)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			err = r.Check("h", hostSigner(t, c.cert).PublicKey())
			if revoked := (*RevokedError)(nil); errors.As(err, &revoked) != (c.want == "revoked") || err != nil && !strings.Contains(err.Error(), file) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestRevokedErrors(t *testing.T) {
	if r, err := ReadRevoked(nil); err != nil || r.Check("h", keyNamed("A")) != nil {
		t.Error("no file is one that revokes")
	}
	for _, file := range []string{filepath.Join(t.TempDir(), "nothing"), t.TempDir()} {
		if _, err := ReadRevoked([]string{file}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%v, want one that names %s", err, file)
		}
	}
	file := write(t, fill("{B}\n{A}\n{CB}\n", ""))
	r, err := ReadRevoked([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	cert := (&certificate{signer: "CB"}).sign(t, "h").PublicKey()
	own, err := ReadRevoked([]string{write(t, keyText(cert))})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    *Revoked
		key  ssh.PublicKey
		want string
	}{
		{r, keyNamed("A"), "the host key of h is revoked (ssh-ed25519 " + Fingerprint(keyNamed("A")) + ", " + file + ":2): it may have been stolen, and the host needs a new one"},
		{own, cert, `the host certificate of h is revoked ("host A", serial 7, `},
	} {
		if err := c.r.Check("h", c.key); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
}

// ssh(1) lets in and refuses the same hosts.
func TestRevokedSSH(t *testing.T) {
	program := program(t, "ssh")
	if testing.Short() {
		t.Skip("it runs ssh(1) once for each row of the table, some 4 s: run this without -short")
	}
	for _, c := range revocations {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			addr := server(t, hostSigner(t, c.cert))
			cmd := exec.Command(program, "-F", "none", "-p", strconv.Itoa(addr.Port), "-l", "nobody",
				"-o", "UserKnownHostsFile="+write(t, fill("h {A}\n@cert-authority h {CA}\n@cert-authority h {CB}\n", "")), "-o", "GlobalKnownHostsFile=/dev/null",
				"-o", "RevokedHostKeys="+revokedFile(t, c.text, c.krl, c.anyone), "-o", "HostKeyAlias=h",
				"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "PubkeyAuthentication=no", "-o", "KexAlgorithms=curve25519-sha256",
				"-o", "IdentityAgent=none", "-o", "ConnectTimeout=20", "127.0.0.1", "true")
			cmd.Env = []string{"HOME=" + t.TempDir(), "LC_ALL=C"}
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatal("the server has let it in")
			}
			got := fmt.Sprintf("nothing that is understood: %s", out)
			for _, says := range []struct{ text, verdict string }{
				{"revoked by file", "revoked"},
				{"in revoked keys file", "unreadable"},
				{"Permission denied", "ok"},
			} {
				if bytes.Contains(out, []byte(says.text)) {
					got = says.verdict
					break
				}
			}
			want := c.want
			if want != "ok" && want != "revoked" {
				want = "unreadable"
			}
			if want := cmp.Or(c.theirs, want); got != want {
				t.Errorf("ssh: %s, want %s\n%s", got, want, out)
			}
		})
	}
}

// What is cut off anywhere is either refused or was a list at that place, and revokes nothing that the whole does not.
func TestRevokedCutOff(t *testing.T) {
	whole, err := os.ReadFile(revokedFile(t, "", odd+"id: x\nserial: 1000-2000\nserial: 900000\nkey: {A}\nsha1: {B}\nsha256: {C}\n", false))
	if err != nil {
		t.Fatal(err)
	}
	good := 0
	for n := range whole {
		r := &Revoked{keys: map[string]Line{}, sums: map[string]string{}}
		if n >= len(krlMagic) && r.krl("krl", whole[len(krlMagic):n]) == nil {
			good++
		}
	}
	if good > 6 { // between the sections
		t.Errorf("%d of %d beginnings of a KRL were taken for one", good, len(whole))
	}
}

func FuzzRevoked(f *testing.F) {
	for _, c := range revocations {
		f.Add([]byte(fill(c.text, "")))
	}
	text := func(b string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(b)))) + b }
	empty, serial := krlMagic+"\x00\x00\x00\x01"+strings.Repeat("\x00", 32), strings.Repeat("\x00", 7)+"\x07"
	f.Add([]byte(empty + "\x02" + text(text(string(keyNamed("A").Marshal()))) + "\x03" + text(text(strings.Repeat("x", 20)))))
	f.Add([]byte(empty + "\x01" + text(text("")+text("")+"\x20"+text(serial)+"\x21"+text(serial+serial)+"\x22"+text(serial+text("\x01"))+"\x23"+text(text("x")))))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ReadRevoked([]string{write(t, string(text))})
		if err != nil {
			return
		}
		key := keyNamed("A")
		if err := r.Check("h", key); err == nil && bytes.HasPrefix(text, []byte(keyText(key)+"\n")) {
			t.Fatal("the key is listed and was let through")
		}
		r.Check("h", (&certificate{}).sign(t, "h").PublicKey())
	})
}
