package sshconfig

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// A keyword is one that OpenSSH knows, in any version since 9.0 or in the builds of Debian and Fedora.
type keyword struct {
	name  string // as ssh_config(5) spells it
	slot  slot
	check func(*directive) error // whether its arguments are good; it may put them into their usual form
}

// A slot is where the value of a keyword is kept.
type slot uint8

const (
	slotIgnored slot = iota // we do not act on it
	slotSilent              // nor does ssh

	slotHost
	slotMatch
	slotInclude

	// These add up over all lines that hold.
	slotIdentityFile
	slotCertificateFile
	slotSendEnv

	// Of these the first line that holds counts.
	slotAddressFamily
	slotBatchMode
	slotBindAddress
	slotBindInterface
	slotCanonicalize
	slotCASignatureAlgorithms
	slotCiphers
	slotConnectionAttempts
	slotConnectTimeout
	slotForwardAgent
	slotGlobalKnownHostsFile
	slotHashKnownHosts
	slotHostKeyAlgorithms
	slotHostKeyAlias
	slotHostName
	slotIdentitiesOnly
	slotIdentityAgent
	slotIgnoreUnknown
	slotKbdInteractiveAuthentication
	slotKexAlgorithms
	slotLogLevel
	slotMACs
	slotNumberOfPasswordPrompts
	slotPasswordAuthentication
	slotPort
	slotPreferredAuthentications
	slotProxy // ProxyJump and ProxyCommand: whichever comes first
	slotPubkeyAcceptedAlgorithms
	slotPubkeyAuthentication
	slotRequestTTY
	slotRevokedHostKeys
	slotServerAliveCountMax
	slotServerAliveInterval
	slotSetEnv
	slotStrictHostKeyChecking
	slotTag
	slotTCPKeepAlive
	slotUser
	slotUserKnownHostsFile
	slots
)

var yesNo = oneOf("yes", "no", "true=yes", "false=no")

// keywords are all of them, by their names in lower case.
var keywords = func() map[string]*keyword {
	table := map[string]*keyword{}
	for _, k := range []*keyword{
		{"Host", slotHost, hosts},
		{"Match", slotMatch, nil},
		{"Include", slotInclude, noneEmpty},

		{"AddressFamily", slotAddressFamily, oneOf("any", "inet", "inet6")},
		{"BatchMode", slotBatchMode, yesNo},
		{"BindAddress", slotBindAddress, word},
		{"BindInterface", slotBindInterface, word},
		{"CanonicalizeHostname", slotCanonicalize, oneOf("yes", "no", "always", "true=yes", "false=no")},
		{"CASignatureAlgorithms", slotCASignatureAlgorithms, word},
		{"CertificateFile", slotCertificateFile, word},
		{"Ciphers", slotCiphers, word},
		{"ConnectionAttempts", slotConnectionAttempts, count},
		{"ConnectTimeout", slotConnectTimeout, seconds},
		{"ForwardAgent", slotForwardAgent, forwardAgent},
		{"GlobalKnownHostsFile", slotGlobalKnownHostsFile, names},
		{"HashKnownHosts", slotHashKnownHosts, yesNo},
		{"HostKeyAlgorithms", slotHostKeyAlgorithms, word},
		{"HostKeyAlias", slotHostKeyAlias, word},
		{"HostName", slotHostName, word},
		{"IdentitiesOnly", slotIdentitiesOnly, yesNo},
		{"IdentityAgent", slotIdentityAgent, socket},
		{"IdentityFile", slotIdentityFile, word},
		{"IgnoreUnknown", slotIgnoreUnknown, word},
		{"KbdInteractiveAuthentication", slotKbdInteractiveAuthentication, yesNo},
		{"KexAlgorithms", slotKexAlgorithms, word},
		{"LogLevel", slotLogLevel, oneOf("QUIET", "FATAL", "ERROR", "INFO", "VERBOSE", "DEBUG", "DEBUG1=DEBUG", "DEBUG2", "DEBUG3")},
		{"MACs", slotMACs, word},
		{"NumberOfPasswordPrompts", slotNumberOfPasswordPrompts, count},
		{"PasswordAuthentication", slotPasswordAuthentication, yesNo},
		{"Port", slotPort, port},
		{"PreferredAuthentications", slotPreferredAuthentications, word},
		{"ProxyCommand", slotProxy, command},
		{"ProxyJump", slotProxy, jumps},
		{"PubkeyAcceptedAlgorithms", slotPubkeyAcceptedAlgorithms, word},
		{"PubkeyAuthentication", slotPubkeyAuthentication, oneOf("yes", "no", "true=yes", "false=no", "unbound=yes", "host-bound=yes")},
		{"RequestTTY", slotRequestTTY, oneOf("yes", "no", "force", "auto", "true=yes", "false=no")},
		{"RevokedHostKeys", slotRevokedHostKeys, names},
		{"SendEnv", slotSendEnv, patterns},
		{"ServerAliveCountMax", slotServerAliveCountMax, count},
		{"ServerAliveInterval", slotServerAliveInterval, seconds},
		{"SetEnv", slotSetEnv, assignments},
		{"StrictHostKeyChecking", slotStrictHostKeyChecking, oneOf("yes", "no", "ask", "accept-new", "true=yes", "false=no", "off=no")},
		{"Tag", slotTag, word},
		{"TCPKeepAlive", slotTCPKeepAlive, yesNo},
		{"User", slotUser, word},
		{"UserKnownHostsFile", slotUserKnownHostsFile, names},

		{"Protocol", slotSilent, nil},
	} {
		table[strings.ToLower(k.name)] = k
	}
	for _, name := range strings.Fields(`
		AddKeysToAgent CanonicalDomains CanonicalizeFallbackLocal CanonicalizeMaxDots CanonicalizePermittedCNAMEs ChannelTimeout
		CheckHostIP ClearAllForwardings Compression ControlMaster ControlPath ControlPersist DynamicForward EnableEscapeCommandline
		EnableSSHKeysign EscapeChar ExitOnForwardFailure FingerprintHash ForkAfterAuthentication ForwardX11 ForwardX11Timeout
		ForwardX11Trusted GatewayPorts GSSAPIAuthentication GSSAPIClientIdentity GSSAPIDelegateCredentials GSSAPIKexAlgorithms
		GSSAPIKeyExchange GSSAPIRenewalForcesRekey GSSAPIServerIdentity GSSAPITrustDns HostbasedAcceptedAlgorithms
		HostbasedAuthentication IPQoS KbdInteractiveDevices KnownHostsCommand LocalCommand LocalForward LogVerbose
		NoHostAuthenticationForLocalhost ObscureKeystrokeTiming PermitLocalCommand PermitRemoteOpen PKCS11Provider ProxyUseFdpass
		RefuseConnection RekeyLimit RemoteCommand RemoteForward RequiredRSASize SecurityKeyProvider SessionType
		StdinNull StreamLocalBindMask StreamLocalBindUnlink SyslogFacility Tunnel TunnelDevice UpdateHostKeys VerifyHostKeyDNS
		VersionAddendum VisualHostKey WarnWeakCrypto XAuthLocation

		AFSTokenPassing Cipher CompressionLevel FallBackToRsh GlobalKnownHostsFile2 KerberosAuthentication KerberosTgtPassing
		RhostsAuthentication RhostsRSAAuthentication RSAAuthentication UseBlacklistedKeys UsePrivilegedPort UserKnownHostsFile2
		UseRoaming UseRsh`) {
		table[strings.ToLower(name)] = &keyword{name, slotIgnored, nil}
	}
	for old, name := range map[string]string{
		"challengeresponseauthentication": "kbdinteractiveauthentication",
		"dsaauthentication":               "pubkeyauthentication",
		"hostbasedkeytypes":               "hostbasedacceptedalgorithms",
		"identityfile2":                   "identityfile",
		"keepalive":                       "tcpkeepalive",
		"protocolkeepalives":              "serveraliveinterval", // Debian
		"pubkeyacceptedkeytypes":          "pubkeyacceptedalgorithms",
		"rsaminsize":                      "requiredrsasize",     // Fedora
		"setuptimeout":                    "serveraliveinterval", // Debian
		"skeyauthentication":              "kbdinteractiveauthentication",
		"smartcarddevice":                 "pkcs11provider",
		"tisauthentication":               "kbdinteractiveauthentication",
	} {
		table[old] = table[name]
	}
	return table
}()

var errEmpty = errors.New("an argument is empty")

// word is for one argument.
func word(d *directive) error {
	switch {
	case len(d.args) == 0 || d.args[0] == "":
		return errors.New("its argument is missing")
	case len(d.args) > 1:
		return fmt.Errorf("takes one argument, so put quotes around it, or remove %q", d.args[1])
	}
	return nil
}

// oneOf is for one of some values, in either case. "true=yes" takes true, for yes.
func oneOf(values ...string) func(*directive) error {
	means := map[string]string{}
	var proper []string
	for _, value := range values {
		given, meant, other := strings.Cut(value, "=")
		if !other {
			meant = given
			proper = append(proper, given)
		}
		means[strings.ToLower(given)] = meant
	}
	return func(d *directive) error {
		if err := word(d); err != nil {
			return err
		}
		value, ok := means[strings.ToLower(d.args[0])]
		if !ok {
			return fmt.Errorf("%q is none of %s", d.args[0], strings.Join(proper, ", "))
		}
		d.args = []string{value}
		return nil
	}
}

// count is for a number that is not negative.
func count(d *directive) error {
	if err := word(d); err != nil {
		return err
	}
	n, err := strconv.ParseUint(d.args[0], 10, 31)
	if err != nil {
		return fmt.Errorf("%q is no number from 0 to %d", d.args[0], math.MaxInt32)
	}
	d.num = int(n)
	return nil
}

// port is for a TCP port, by its number or by its name in services(5).
func port(d *directive) error {
	if err := word(d); err != nil {
		return err
	}
	n, err := parsePort(d.args[0])
	d.num = int(n)
	return err
}

func parsePort(s string) (uint16, error) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil && n > 0 {
		return uint16(n), nil
	}
	if strings.Trim(s, "0123456789+-") != "" {
		if n, err := net.LookupPort("tcp", s); err == nil {
			return uint16(n), nil
		}
	}
	return 0, fmt.Errorf("%q is no port from 1 to 65535", s)
}

// seconds is for a time by the rules of sshd_config(5), TIME FORMATS: numbers, each with a unit that may be left out for seconds.
func seconds(d *directive) error {
	if err := word(d); err != nil {
		return err
	}
	if d.args[0] == "none" {
		return nil
	}
	n, ok := parseTime(d.args[0])
	if !ok {
		return fmt.Errorf("%q is no time: write it as 90, 90s, 5m, 1h30m, 2d or 1w", d.args[0])
	}
	d.num = n
	return nil
}

func parseTime(s string) (total int, ok bool) {
	for s != "" {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		n, err := strconv.ParseUint(s[:digits], 10, 31)
		if err != nil {
			return 0, false
		}
		unit := 1
		if s = s[digits:]; s != "" {
			switch s[0] | 0x20 { // in lower case
			case 's':
			case 'm':
				unit = 60
			case 'h':
				unit = 60 * 60
			case 'd':
				unit = 24 * 60 * 60
			case 'w':
				unit = 7 * 24 * 60 * 60
			default:
				return 0, false
			}
			s = s[1:]
		}
		if int(n) > (math.MaxInt32-total)/unit {
			return 0, false
		}
		total, ok = total+int(n)*unit, true
	}
	return total, ok
}

// names is for a list in which "none" stands alone.
func names(d *directive) error {
	for _, arg := range d.args {
		if arg == "" {
			return errEmpty
		}
		if strings.EqualFold(arg, "none") && len(d.args) > 1 {
			return errors.New("none stands alone")
		}
	}
	return nil
}

func noneEmpty(d *directive) error {
	for _, arg := range d.args {
		if arg == "" {
			return errEmpty
		}
	}
	return nil
}

// hosts is for the patterns of Host.
func hosts(d *directive) error {
	if err := noneEmpty(d); err != nil {
		return fmt.Errorf("%w: a pattern for every host is *", err)
	}
	return nil
}

// patterns is for names of variables, as patterns; a leading '-' takes those before it back.
func patterns(d *directive) error {
	for _, arg := range d.args {
		if arg == "" || strings.Contains(arg, "=") {
			return fmt.Errorf("%q is no name of a variable: SetEnv is for values", arg)
		}
	}
	return nil
}

// assignments is for NAME=value. Of a name that comes twice the first value holds.
func assignments(d *directive) error {
	seen := map[string]bool{}
	var args []string
	for _, arg := range d.args {
		name, _, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=value: put quotes around all of it", arg)
		}
		if !seen[name] {
			args = append(args, arg)
		}
		seen[name] = true
	}
	d.args = args
	return nil
}

// socket is for an agent's socket: a path, or the variable that holds it.
func socket(d *directive) error {
	if err := word(d); err != nil {
		return err
	}
	if _, err := expand(d.args[0], variables, "", nil); err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(d.args[0], "$"); ok && !strings.HasPrefix(name, "{") && !isVariable(name) {
		return fmt.Errorf("%q is no variable", d.args[0])
	}
	return nil
}

// isVariable is whether s may be the name of a variable of the environment.
func isVariable(s string) bool {
	for _, c := range s {
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return s != ""
}

func forwardAgent(d *directive) error {
	if yesNo(d) == nil {
		return nil
	}
	return socket(d)
}

// command is for the rest of the line as it was written, quotes, comment and all.
func command(d *directive) error {
	d.rest = strings.TrimLeft(d.rest, whitespace+"=")
	if d.rest == "" {
		return errors.New("its argument is missing")
	}
	return nil
}

// jumps is for hops in the order in which they are passed, up to a comment, which may begin anywhere.
func jumps(d *directive) error {
	list, _, _ := strings.Cut(d.rest, "#")
	var err error
	d.jumps, err = parseJumps(strings.Trim(list, whitespace+"="))
	return err
}

func parseJumps(list string) (all []Jump, err error) {
	if strings.EqualFold(list, "none") {
		return nil, nil
	}
	for hop := range strings.SplitSeq(list, ",") {
		jump, err := parseJump(hop)
		if err != nil {
			return nil, err
		}
		all = append(all, jump)
	}
	return all, nil
}

// parseJump reads [user@]host[:port], or the same as a URI with ssh://. An IPv6 address stands in brackets if a port follows it.
func parseJump(s string) (jump Jump, err error) {
	bad := fmt.Errorf("%q is not [user@]host[:port], with an IPv6 address in [brackets]", s)
	rest, uri := strings.CutPrefix(s, "ssh://")
	at := strings.LastIndexByte(rest, '@')
	if uri {
		at = strings.IndexByte(rest, '@')
	}
	if at >= 0 {
		jump.User, rest = rest[:at], rest[at+1:]
		if uri {
			jump.User, _, _ = strings.Cut(jump.User, ";") // parameters, of which there are none
			if jump.User, err = url.QueryUnescape(jump.User); err != nil {
				return Jump{}, bad
			}
		}
		if jump.User == "" {
			return Jump{}, bad
		}
	}
	if uri {
		rest = strings.TrimSuffix(rest, "/")
	}
	var number string
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		if jump.Host, number, ok = strings.Cut(inner, "]"); !ok || number != "" && number[0] != ':' {
			return Jump{}, bad
		}
		number = strings.TrimPrefix(number, ":")
	} else {
		jump.Host, number, _ = strings.Cut(rest, ":")
	}
	if jump.Host == "" || strings.ContainsAny(jump.Host, "/") {
		return Jump{}, bad
	}
	if number != "" {
		if jump.Port, err = parsePort(number); err != nil {
			return Jump{}, err
		}
	}
	return jump, nil
}
