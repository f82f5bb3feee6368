// Package sshconfig reads ssh_config(5) as OpenSSH does and says what it means for one target.
//
//	-o options ─┐
//	~/.ssh/config ──► Read ──► Config ──► For(target) ──► Settings
//	ssh_config ─┘   once a run    │   many at once          values, lists, jumps: tokens, ~ and ${ENV} expanded
//	  └ Include ┘                 └ Match exec: once for each expanded command
//
// Read opens, splits and checks every file once, those that are included too, and fails where ssh would: at an unknown keyword,
// a bad value, a file that others may write to; the error names file and line. For walks what was read and keeps the first value
// that it meets for each keyword. A Host line that only names hosts costs nothing for all the others: it is found by name.
//
// Where a line says "Match final", or the name is to be made canonical, ssh reads its files a second time, with the name that the
// first reading led to; so does For. It makes no name canonical itself: CanonicalizeHostname is among [Settings.Ignored].
//
// What ssh knows and this program does not act on is no error: it is accepted and named in [Settings.Ignored].
// The measure for all of this is "ssh -G", against which the tests hold this package; where versions of OpenSSH differ (quoting
// in Match, Match tagged and localnetwork, keywords since 9.3) the newer one is followed.
//
// A Config is never written to after Read but for the results of Match exec. It holds no file, process or goroutine: there is
// nothing to close.
package sshconfig

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Sources says where settings come from, in the order of their precedence. The zero value is what ssh reads for this user.
type Sources struct {
	Options []string // as of -o: "Key=Value" or "Key Value"; they go before all files
	File    string   // as of -F: this file alone, which must be there; "none": no file; empty: Home/.ssh/config, then System

	Home      string // what ~ and %d stand for; empty: the user's home directory, by the user database as ssh has it
	System    string // empty: /etc/ssh/ssh_config; what it includes is relative to its directory
	LocalUser string // %u; empty: the user's name
	LocalHost string // %l; empty: the host's name
}

// Target is a host as the user wrote it. What is given here wins over all of the configuration, as ssh's -l, -p and -J do.
type Target struct {
	Host     string
	HostName string // as a HostName before all others, but taken as it is: no % stands for anything; empty: not given
	User     string // empty: not given
	Port     uint16 // 0: not given
	Jump     string // as of -J, see ParseJump; empty: not given
}

// Settings is what holds for one target, with %-tokens, ~ and ${ENV} expanded wherever OpenSSH expands them and its defaults
// where nothing was said. Lists may be shared with other Settings: they are for reading.
type Settings struct {
	OriginalHost string // as the user wrote it
	HostName     string // to resolve and connect to: lower case, addresses in their usual form
	User         string
	Port         uint16

	IdentityFiles     []string // in the order to try them
	DefaultIdentities bool     // they are OpenSSH's default ones: a file that is missing is no news
	IdentitiesOnly    bool
	IdentityAgent     string // path of the agent's socket; empty: no agent
	CertificateFiles  []string

	UserKnownHostsFiles, GlobalKnownHostsFiles []string
	RevokedHostKeys                            []string // files, each of which must be there; nil: none
	StrictHostKeyChecking                      string   // "yes", "no", "ask" or "accept-new"
	HostKeyAlias                               string   // lower case; empty: the host's own name
	HashKnownHosts                             bool

	ProxyJump    []Jump // the first one is connected to first; nil: none
	ProxyCommand string // for the user's shell, behind "exec"; empty: none, always so with ProxyJump

	ConnectTimeout      time.Duration // 0: not set
	ConnectionAttempts  int           // at least 1
	TCPKeepAlive        bool
	ServerAliveInterval time.Duration // 0: off
	ServerAliveCountMax int
	AddressFamily       string // "any", "inet" or "inet6"
	BindAddress         string // empty: any
	BindInterface       string // empty: any

	// Lists of algorithms as they were written, with a leading + - or ^ where there is one; empty: not set.
	KexAlgorithms, Ciphers, MACs, HostKeyAlgorithms, PubkeyAcceptedAlgorithms, CASignatureAlgorithms string

	PubkeyAuthentication, PasswordAuthentication, KbdInteractiveAuthentication bool
	PreferredAuthentications                                                   string // empty: not set
	NumberOfPasswordPrompts                                                    int
	BatchMode                                                                  bool

	SetEnv       []string // NAME=value
	SendEnv      []string // patterns of names
	ForwardAgent string   // "no", "yes", the path of a socket, or $NAME of a variable that holds it
	RequestTTY   string   // "auto", "no", "yes" or "force"
	LogLevel     string   // "QUIET" to "DEBUG3"

	Ignored []string // keywords that hold for this target and that we do not act on, each once, as ssh_config(5) spells them
}

// Jump is one hop of ProxyJump.
type Jump struct {
	User string // empty: what the configuration says for Host
	Host string
	Port uint16 // 0: what the configuration says for Host
}

// Config is the configuration as it was read. It is safe for use by many goroutines.
type Config struct {
	options *file   // -o
	files   []*file // in the order of their precedence
	final   bool    // some line says Match final

	home, localUser, localHost, uid string
	defaults                        defaults

	addresses func() []netip.Addr // of this host, for Match localnetwork
	execs     execs
}

// defaults are the lists that hold where none is configured.
type defaults struct{ identities, userKnownHosts, globalKnownHosts []string }

// Read reads all sources. Its errors name file and line and say what to do about them.
func Read(s Sources) (*Config, error) {
	if err := s.complete(); err != nil {
		return nil, err
	}
	ssh := filepath.Join(s.Home, ".ssh")
	c := &Config{
		home: s.Home, localUser: s.LocalUser, localHost: s.LocalHost, uid: strconv.Itoa(os.Getuid()),
		addresses: sync.OnceValue(localAddresses),
		execs:     execs{limit: execLimit, running: make(chan struct{}, 2*runtime.GOMAXPROCS(0)), results: map[string]*result{}},
		defaults: defaults{
			userKnownHosts:   []string{filepath.Join(ssh, "known_hosts"), filepath.Join(ssh, "known_hosts2")},
			globalKnownHosts: []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
		},
	}
	// Without id_dsa and id_xmss, which no server of today takes.
	for _, name := range []string{"id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"} {
		c.defaults.identities = append(c.defaults.identities, filepath.Join(ssh, name))
	}

	r := &reader{sources: s}
	c.options = &file{}
	for _, option := range s.Options {
		if err := r.option(c.options, option); err != nil {
			return nil, err
		}
	}
	var err error
	switch {
	case strings.EqualFold(s.File, "none"):
	case s.File != "":
		err = r.source(c, s.File, origin{user: true}, true)
	default:
		if err = r.source(c, filepath.Join(ssh, "config"), origin{user: true, guarded: true}, false); err == nil {
			err = r.source(c, s.System, origin{}, false)
		}
	}
	if err != nil {
		return nil, err
	}
	c.final = r.final
	return c, nil
}

// source reads a file that is not included by another one. Unless it is needed it may be missing.
func (r *reader) source(c *Config, name string, from origin, needed bool) error {
	f, err := r.read(name, from, 0)
	switch {
	case err != nil:
		return err
	case f != nil:
		c.files = append(c.files, f)
	case needed:
		return fmt.Errorf("the ssh configuration %s does not exist: correct -F, or leave it out", name)
	}
	return nil
}

// complete fills in what was left empty.
func (s *Sources) complete() error {
	if s.System == "" {
		s.System = "/etc/ssh/ssh_config"
	}
	if s.LocalHost == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("this host has no name, set one with hostname(1): %w", err)
		}
		s.LocalHost = host
	}
	if s.Home == "" || s.LocalUser == "" {
		u, err := user.Current()
		if err != nil {
			return fmt.Errorf("the user database does not know this user, add a line to /etc/passwd: %w", err)
		}
		if s.Home == "" {
			s.Home = u.HomeDir
		}
		if s.LocalUser == "" {
			s.LocalUser = u.Username
		}
	}
	return nil
}

// localAddresses are those of the interfaces that are up.
func localAddresses() []netip.Addr {
	var addresses []netip.Addr
	interfaces, _ := net.Interfaces() // what cannot be listed is no network to match
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		networks, _ := i.Addrs()
		for _, n := range networks {
			if prefix, err := netip.ParsePrefix(n.String()); err == nil {
				addresses = append(addresses, prefix.Addr())
			}
		}
	}
	return addresses
}

// For says what holds for t. ctx bounds the commands of Match exec, each of which also has 10 s of its own.
// An error is that of a Match exec that could not be run to its end, of a token or variable that does not exist, or of
// a keyword that only an IgnoreUnknown for other hosts covers; it names file and line.
func (c *Config) For(ctx context.Context, t Target) (*Settings, error) {
	e := &evaluation{c: c, ctx: ctx, target: t, host: t.Host}
	if t.Jump != "" {
		hops, err := ParseJump(t.Jump)
		if err != nil {
			return nil, fmt.Errorf("jump host: %w", err)
		}
		e.values[slotProxy] = &directive{file: &file{name: "jump host " + t.Jump}, word: keywords["proxyjump"], jumps: hops}
	}
	if err := e.file(c.options); err != nil {
		return nil, err
	}
	if err := e.pass(); err != nil {
		return nil, err
	}
	host, err := e.hostName()
	if err != nil {
		return nil, err
	}
	e.host = canonical(host)
	if canonicalize := e.values[slotCanonicalize]; c.final || canonicalize != nil && canonicalize.args[0] != "no" {
		e.final = true
		if err := e.pass(); err != nil {
			return nil, err
		}
	}
	return e.settings()
}

// canonical is the form in which ssh looks a name up: an address as usual, anything else in lower case.
func canonical(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String()
	}
	if strings.ContainsAny(host, "%:") { // an address with a zone, not to be touched
		return host
	}
	return strings.ToLower(host)
}

// ParseJump reads the jump hosts to pass, in their order, as of ssh's -J: [user@]host[:port], with commas between them and
// tokens as in ProxyJump; none for "none". It refuses what could only fail later.
func ParseJump(text string) ([]Jump, error) {
	hops, err := parseJumps(text)
	for _, hop := range hops {
		if hop.Host[0] == '-' || strings.ContainsAny(hop.User+hop.Host, whitespace) {
			return nil, fmt.Errorf("%q is no host: it begins with a dash, or has a blank in it", hop.String())
		}
		for _, part := range []string{hop.User, hop.Host} {
			if _, err := expand(part, percents, proxyTokens, &tokens{}); err != nil {
				return nil, fmt.Errorf("%q: %w", hop.String(), err)
			}
		}
	}
	return hops, err
}

// String is the hop as ProxyJump takes it.
func (j Jump) String() string {
	text := j.Host
	if strings.Contains(text, ":") {
		text = "[" + text + "]"
	}
	if j.User != "" {
		text = j.User + "@" + text
	}
	if j.Port != 0 {
		text += ":" + strconv.Itoa(int(j.Port))
	}
	return text
}
