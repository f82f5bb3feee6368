package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"multirsh/transport/ssh/sshtest"
)

// testSSHD starts an sshd for a test, whose commands run in dir, and writes a configuration for it there: the port, and known
// hosts in dir alone; "right" there is what they should be. It returns the port. Settings are
//
//	hosts=N            as many addresses, from 127.0.0.1 on; else one
//	behaviour=B,B...   of the first connection, the second one, and so on; the last one is that of all that follow
//	password=TEXT      which every user must give
//	key=FILE           which every user must have; it is the identity file
func testSSHD(t interface{ Fatal(...any) }, cleanup func(func()), dir string, settings ...string) int {
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	server, hosts, identity := &sshtest.Server{Dir: dir}, 1, "none"
	user := sshtest.User{}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		switch key {
		case "hosts":
			_, err := fmt.Sscan(value, &hosts)
			check(err)
		case "behaviour":
			var list []sshtest.Behaviour
			for text := range strings.SplitSeq(value, ",") {
				b, err := sshtest.ParseBehaviour(text)
				check(err)
				list = append(list, b)
			}
			var connections atomic.Int32
			server.Behave = func(netip.AddrPort) sshtest.Behaviour {
				return list[min(int(connections.Add(1)), len(list))-1]
			}
		case "password":
			user.Password = value
			server.Users = map[string]sshtest.User{"": user}
		case "key":
			text, err := os.ReadFile(filepath.Join(dir, value+".pub"))
			check(err)
			public, _, _, _, err := ssh.ParseAuthorizedKey(text)
			check(err)
			user.Keys = append(user.Keys, public)
			identity = filepath.Join(dir, value)
			server.Users = map[string]sshtest.User{"": user}
		default:
			t.Fatal("no setting of sshd: " + setting)
		}
	}
	at, err := server.Start("127.0.0.1:0")
	check(err)
	cleanup(func() { server.Close() })
	for n := 2; n <= hosts; n++ {
		_, err := server.Start(fmt.Sprintf("127.0.0.%d:%d", n, at.Port()))
		check(err)
	}
	config := fmt.Sprintf("Port %d\nUserKnownHostsFile %[2]s/known\nGlobalKnownHostsFile none\nIdentityFile %s\nIdentityAgent none\n", at.Port(), dir, identity)
	check(os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600))
	known := sshtest.KnownHosts(server.HostKey(), fmt.Sprintf("[127.0.0.*]:%d", at.Port()))
	check(os.WriteFile(filepath.Join(dir, "right"), []byte(known), 0o600))
	return int(at.Port())
}

// testKey writes a key pair, FILE and FILE.pub.
func testKey(file, passphrase string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		return err
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".pub", ssh.MarshalAuthorizedKey(line), 0o600); err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(block), 0o600)
}

// scriptFatal is a script as one to whom failures are told.
type scriptFatal struct{ *testscript.TestScript }

func (s scriptFatal) Fatal(args ...any) { s.Fatalf("%s", fmt.Sprint(args...)) }

// sshCommands are commands of scripts:
//
//	sshd NAME setting...   see testSSHD; $NAME is its port, and MULTI_RSH_SSH_CONFIG is set
//	keygen FILE [PASSPHRASE]
var sshCommands = map[string]func(*testscript.TestScript, bool, []string){
	"sshd": func(script *testscript.TestScript, _ bool, args []string) {
		if len(args) == 0 {
			script.Fatalf("usage: sshd name [settings...]")
		}
		port := testSSHD(scriptFatal{script}, script.Defer, script.Getenv("WORK"), args[1:]...)
		script.Setenv(args[0], fmt.Sprint(port))
		script.Setenv("MULTI_RSH_SSH_CONFIG", "config")
	},
	"keygen": func(script *testscript.TestScript, _ bool, args []string) {
		if len(args) == 0 {
			script.Fatalf("usage: keygen file [passphrase]")
		}
		script.Check(testKey(script.MkAbs(args[0]), strings.Join(args[1:], " ")))
	},
}
