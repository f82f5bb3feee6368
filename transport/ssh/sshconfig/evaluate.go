package sshconfig

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An evaluation is the walk through a Config for one target. It keeps the lines that hold.
type evaluation struct {
	c      *Config
	ctx    context.Context // of For, which it does not outlive
	target Target
	host   string // what Host lines are compared with: the name as it was written; in the second pass the one that it led to
	final  bool   // this is the second pass

	values       [slots]*directive
	identities   []*directive
	certificates []*directive
	sendEnv      []string
	ignored      []string
}

// pass reads all files once.
func (e *evaluation) pass() error {
	for _, f := range e.c.files {
		if err := e.file(f); err != nil {
			return err
		}
	}
	return nil
}

func (e *evaluation) file(f *file) error {
	return f.candidates(e.host, func(b *block) error {
		switch b.condition {
		case onHost:
			if !matchHosts(e.host, b.hosts) {
				return nil
			}
		case onMatch:
			if matched, err := e.matches(b); !matched {
				return err
			}
		}
		for _, d := range b.lines {
			if err := e.line(d); err != nil {
				return err
			}
		}
		return nil
	})
}

// line takes in a line that holds.
func (e *evaluation) line(d *directive) error {
	if d.word == nil { // ssh looks at these in blocks that do not hold, too, and would refuse hosts that are none of theirs
		if list := e.values[slotIgnoreUnknown]; list == nil || !ignores(list.args[0], d.name) {
			return d.unknown()
		}
		return nil
	}
	switch d.word.slot {
	case slotSilent:
	case slotIgnored:
		e.ignoreUnlessOff(d)
	case slotInclude:
		for _, f := range d.files {
			if err := e.file(f); err != nil {
				return err
			}
		}
	case slotIdentityFile:
		e.identities = appendNew(e.identities, d)
	case slotCertificateFile:
		e.certificates = appendNew(e.certificates, d)
	case slotSendEnv:
		for _, pattern := range d.args {
			if back, ok := strings.CutPrefix(pattern, "-"); ok {
				e.sendEnv = slices.DeleteFunc(e.sendEnv, func(s string) bool { return match(s, back) })
			} else if !slices.Contains(e.sendEnv, pattern) {
				e.sendEnv = append(e.sendEnv, pattern)
			}
		}
	case slotCanonicalize:
		e.ignoreUnlessOff(d)
		fallthrough
	default:
		// A list without a value, all of it a comment, is no value.
		if e.values[d.word.slot] == nil && (len(d.args) > 0 || d.word.slot == slotProxy) {
			e.values[d.word.slot] = d
		}
	}
	return nil
}

// appendNew adds a line unless one with the same argument is there.
func appendNew(lines []*directive, d *directive) []*directive {
	if slices.ContainsFunc(lines, func(other *directive) bool { return other.args[0] == d.args[0] }) {
		return lines
	}
	return append(lines, d)
}

// ignoreUnlessOff notes a keyword that we do not act on. To be off is what it is without us, and needs no word.
func (e *evaluation) ignoreUnlessOff(d *directive) {
	if len(d.args) > 0 {
		switch strings.ToLower(d.args[0]) {
		case "no", "false", "none":
			return
		}
	}
	e.ignore(d.word.name)
}

func (e *evaluation) ignore(name string) {
	if !slices.Contains(e.ignored, name) {
		e.ignored = append(e.ignored, name)
	}
}

// user and port are as far as they are known by now: what is missing has its default.
func (e *evaluation) user() string {
	return cmp.Or(e.target.User, e.text(slotUser, e.c.localUser))
}

func (e *evaluation) port() uint16 {
	return cmp.Or(e.target.Port, uint16(e.number(slotPort, 22)))
}

// hostName is the name to connect to, as far as it is known by now.
func (e *evaluation) hostName() (string, error) {
	d := e.values[slotHostName]
	switch {
	case e.final:
		return e.host, nil
	case e.target.HostName != "":
		return e.target.HostName, nil
	case d == nil:
		return e.host, nil
	}
	name, err := expand(d.args[0], percents, hostTokens, &tokens{host: e.target.Host})
	if err != nil {
		return "", d.errorf("HostName: %w", err)
	}
	return name, nil
}

// tokens are those for a connection to host.
func (e *evaluation) tokens(host string) tokens {
	t := tokens{
		c: e.c, host: host, original: e.target.Host, user: e.user(), port: strconv.Itoa(int(e.port())),
		alias: strings.ToLower(e.text(slotHostKeyAlias, e.target.Host)),
	}
	if d := e.values[slotProxy]; d != nil && len(d.jumps) > 0 {
		t.jump = d.jumps[len(d.jumps)-1].Host
	}
	return t
}

// text is the value of a keyword with one argument.
func (e *evaluation) text(s slot, otherwise string) string {
	if d := e.values[s]; d != nil {
		return d.args[0]
	}
	return otherwise
}

func (e *evaluation) flag(s slot, otherwise bool) bool {
	if d := e.values[s]; d != nil {
		return d.args[0] == "yes"
	}
	return otherwise
}

func (e *evaluation) number(s slot, otherwise int) int {
	if d := e.values[s]; d != nil {
		return d.num
	}
	return otherwise
}

// settings expands what was kept.
func (e *evaluation) settings() (*Settings, error) {
	t := e.tokens(e.host)
	s := &Settings{
		OriginalHost: e.target.Host, HostName: e.host, User: t.user, Port: e.port(),

		IdentitiesOnly:        e.flag(slotIdentitiesOnly, false),
		StrictHostKeyChecking: e.text(slotStrictHostKeyChecking, "ask"),
		HashKnownHosts:        e.flag(slotHashKnownHosts, false),

		ConnectTimeout:      time.Duration(e.number(slotConnectTimeout, 0)) * time.Second,
		ConnectionAttempts:  e.number(slotConnectionAttempts, 1),
		TCPKeepAlive:        e.flag(slotTCPKeepAlive, true),
		ServerAliveInterval: time.Duration(e.number(slotServerAliveInterval, 0)) * time.Second,
		ServerAliveCountMax: e.number(slotServerAliveCountMax, 3),
		AddressFamily:       e.text(slotAddressFamily, "any"),
		BindAddress:         e.text(slotBindAddress, ""),
		BindInterface:       e.text(slotBindInterface, ""),

		KexAlgorithms:            e.text(slotKexAlgorithms, ""),
		Ciphers:                  e.text(slotCiphers, ""),
		MACs:                     e.text(slotMACs, ""),
		HostKeyAlgorithms:        e.text(slotHostKeyAlgorithms, ""),
		PubkeyAcceptedAlgorithms: e.text(slotPubkeyAcceptedAlgorithms, ""),
		CASignatureAlgorithms:    e.text(slotCASignatureAlgorithms, ""),

		PubkeyAuthentication:         e.flag(slotPubkeyAuthentication, true),
		PasswordAuthentication:       e.flag(slotPasswordAuthentication, true),
		KbdInteractiveAuthentication: e.flag(slotKbdInteractiveAuthentication, true),
		PreferredAuthentications:     e.text(slotPreferredAuthentications, ""),
		NumberOfPasswordPrompts:      e.number(slotNumberOfPasswordPrompts, 3),
		BatchMode:                    e.flag(slotBatchMode, false),

		SendEnv:      e.sendEnv,
		ForwardAgent: "no",
		RequestTTY:   e.text(slotRequestTTY, "auto"),
		LogLevel:     e.text(slotLogLevel, "INFO"),
		Ignored:      e.ignored,
	}
	if d := e.values[slotHostKeyAlias]; d != nil {
		s.HostKeyAlias = t.alias
	}
	if d := e.values[slotSetEnv]; d != nil {
		s.SetEnv = d.args
	}
	x := &expander{t: &t}
	s.IdentityFiles, s.DefaultIdentities = e.c.defaults.identities, len(e.identities) == 0
	if !s.DefaultIdentities {
		s.IdentityFiles = x.files(e.identities)
	}
	s.CertificateFiles = x.files(e.certificates)
	s.UserKnownHostsFiles = x.paths(e.values[slotUserKnownHostsFile], percents|variables, e.c.defaults.userKnownHosts)
	s.GlobalKnownHostsFiles = x.paths(e.values[slotGlobalKnownHostsFile], 0, e.c.defaults.globalKnownHosts)
	s.RevokedHostKeys = x.paths(e.values[slotRevokedHostKeys], percents|variables, nil)
	s.IdentityAgent = x.socket(e.values[slotIdentityAgent])
	if d := e.values[slotForwardAgent]; d != nil {
		s.ForwardAgent = x.forwardAgent(d)
	}
	if d := e.values[slotProxy]; d != nil {
		x.proxy(s, d)
	}
	if x.err != nil {
		return nil, x.err
	}
	if d := e.values[slotConnectionAttempts]; d != nil && s.ConnectionAttempts == 0 {
		return nil, d.errorf("ConnectionAttempts: 0 is never: the least is 1")
	}
	return s, nil
}

// An expander expands lines until one fails.
type expander struct {
	t   *tokens
	err error
}

func (x *expander) fail(d *directive, err error) {
	if err != nil && x.err == nil {
		x.err = d.errorf("%s: %w", d.word.name, err)
	}
}

func (x *expander) path(d *directive, s string, kinds expansion) string {
	path, err := x.t.path(s, kinds)
	x.fail(d, err)
	return path
}

// files are the paths of lines with one each.
func (x *expander) files(lines []*directive) []string {
	var files []string
	for _, d := range lines {
		if !strings.EqualFold(d.args[0], "none") {
			files = append(files, x.path(d, d.args[0], percents|variables))
		}
	}
	return files
}

// paths are those of one line.
func (x *expander) paths(d *directive, kinds expansion, otherwise []string) []string {
	if d == nil {
		return otherwise
	}
	if strings.EqualFold(d.args[0], "none") {
		return nil
	}
	paths := make([]string, len(d.args))
	for i, arg := range d.args {
		paths[i] = x.path(d, arg, kinds)
	}
	return paths
}

// socket is that of the agent to ask.
func (x *expander) socket(d *directive) string {
	const fromEnvironment = "SSH_AUTH_SOCK"
	if d == nil || d.args[0] == fromEnvironment {
		return os.Getenv(fromEnvironment)
	}
	if d.args[0] == "none" {
		return ""
	}
	if name, ok := strings.CutPrefix(d.args[0], "$"); ok && !strings.HasPrefix(name, "{") {
		return os.Getenv(name)
	}
	return x.path(d, d.args[0], percents|variables)
}

func (x *expander) forwardAgent(d *directive) string {
	value := d.args[0]
	if value == "yes" || value == "no" || value[0] == '$' && !strings.HasPrefix(value, "${") {
		return value
	}
	return x.path(d, value, percents|variables)
}

// proxy sets the way to the host.
func (x *expander) proxy(s *Settings, d *directive) {
	expandTokens := func(text string) string {
		text, err := expand(text, percents, proxyTokens, x.t)
		x.fail(d, err)
		return text
	}
	if d.word.name == "ProxyCommand" {
		if !strings.EqualFold(d.rest, "none") {
			s.ProxyCommand = expandTokens(d.rest)
		}
		return
	}
	for _, jump := range d.jumps {
		jump.User, jump.Host = expandTokens(jump.User), expandTokens(jump.Host)
		s.ProxyJump = append(s.ProxyJump, jump)
	}
	if len(s.ProxyJump) == 0 {
		return
	}
	last := s.ProxyJump[len(s.ProxyJump)-1]
	if last.Host == s.HostName && cmp.Or(last.Port, 22) == s.Port && cmp.Or(last.User, s.User) == s.User {
		mend := "except it, as with \"Host * !" + last.Host + "\""
		if d.line == 0 {
			mend = "give it jump=none in a hosts file"
		}
		x.fail(d, fmt.Errorf("%s would be reached through itself: %s", last.Host, mend))
	}
}
