package sshconfig

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// where is what tokens stand for here. ssh has its home directory from the user database alone, so it is that for us too.
type where struct {
	me    *user.User
	local string
	ssh   string // the program; empty: there is none
}

func here(t *testing.T) where {
	t.Helper()
	w := where{}
	var err error
	if w.me, err = user.Current(); err != nil {
		t.Skipf("this user needs a line in /etc/passwd, for ssh has the home directory from there: %v", err)
	}
	if w.local, err = os.Hostname(); err != nil {
		t.Fatal(err)
	}
	if w.ssh, err = exec.LookPath("ssh"); err != nil {
		w.ssh = ""
	}
	t.Setenv("SHELL", "/bin/sh")
	t.Setenv("SSH_AUTH_SOCK", "/agent")
	t.Setenv("SSHCONFIG_TEST", "value")
	os.Unsetenv("SSHCONFIG_UNSET")
	return w
}

// TestCases holds every case of the table against what it expects.
func TestCases(t *testing.T) {
	w := here(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			fill := w.fill(dir)
			sources := c.make(t, dir, fill)
			s, err := settings(t, sources, c.target)
			if text, ok := strings.CutPrefix(c.want, "error: "); ok {
				if err == nil || !strings.Contains(err.Error(), fill(text)) {
					t.Errorf("error %v, want one with %q", err, fill(text))
				}
			} else if err != nil {
				t.Error(err)
			} else {
				compare(t, dump(s), parseDump(fill(c.want)), "the expectation")
			}
		})
	}
}

// TestOracle holds every case of the table against what "ssh -G" says: all keywords that both have, not only those that it is about.
func TestOracle(t *testing.T) {
	w := here(t)
	if w.ssh == "" {
		t.Skip("this compares with ssh -G: apt-get install openssh-client")
	}
	for _, c := range cases {
		if c.newer {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			sources := c.make(t, dir, w.fill(dir))
			w.compare(t, sources, c.target, c.later)
		})
	}
}

// TestOracleRandom does the same with configurations that nobody has thought of.
func TestOracleRandom(t *testing.T) {
	w := here(t)
	if w.ssh == "" {
		t.Skip("this compares with ssh -G: apt-get install openssh-client")
	}
	for number := range uint64(*randomCases) {
		config := random(number)
		name := filepath.Join(t.TempDir(), "config")
		write(t, name, config)
		if !t.Run(strconv.FormatUint(number, 10), func(t *testing.T) { w.compare(t, Sources{File: name}, Target{Host: "h"}, false) }) {
			t.Logf("of the configuration\n%s", config)
		}
	}
}

var randomCases = flag.Int("random", 60, "how many random configurations to compare with ssh -G")

// fill puts in what stands for directories and names in a case.
func (w where) fill(dir string) func(string) string {
	short, _, _ := strings.Cut(w.local, ".")
	return strings.NewReplacer("$DIR", dir, "$HOME", w.me.HomeDir, "$USER", w.me.Username, "$LOCAL", w.local, "$SHORT", short, "$UID", w.me.Uid).Replace
}

// make writes a case's files.
func (c *testCase) make(t *testing.T, dir string, fill func(string) string) Sources {
	t.Helper()
	for name, text := range c.files {
		write(t, filepath.Join(dir, name), fill(text))
	}
	s := Sources{File: filepath.Join(dir, "config"), Options: c.options}
	write(t, s.File, fill(c.config))
	if c.target.Host == "" {
		c.target.Host = "h"
	}
	return s
}

// compare holds what we say of a target against what ssh says. With later set, ssh may say nothing of an error of ours.
func (w where) compare(t *testing.T, sources Sources, target Target, later bool) {
	t.Helper()
	args := []string{"-F", sources.File, "-G"}
	if target.User != "" { // before the options: to ssh the first one counts
		args = append(args, "-l", target.User)
	}
	if target.Port != 0 {
		args = append(args, "-p", strconv.Itoa(int(target.Port)))
	}
	if target.Jump != "" {
		args = append(args, "-J", target.Jump)
	}
	if target.HostName != "" {
		args = append(args, "-o", "HostName="+strings.ReplaceAll(target.HostName, "%", "%%"))
	}
	for _, option := range sources.Options {
		args = append(args, "-o", option)
	}
	out, sshErr := exec.Command(w.ssh, append(args, "--", target.Host)...).Output()
	s, err := settings(t, sources, target)
	switch {
	case err != nil && later:
	case (err != nil) != (sshErr != nil):
		t.Errorf("error %v, but ssh -G says %v", err, sshErr)
	case err == nil:
		compare(t, dump(s), w.parse(string(out), s), "ssh -G")
	}
}

func settings(t testing.TB, s Sources, target Target) (*Settings, error) {
	t.Helper()
	c, err := Read(s)
	if err != nil {
		return nil, err
	}
	return c.For(t.Context(), target)
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// compare reports the keywords of want that got has otherwise.
func compare(t *testing.T, got, want map[string][]string, of string) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if values, ok := got[key]; ok && !slices.Equal(values, want[key]) {
			t.Errorf("%s: %q, by %s %q", key, values, of, want[key])
		} else if !ok && of != "ssh -G" {
			t.Errorf("%s is no keyword of dump", key)
		}
	}
}

// parseDump reads lines as ssh -G writes them. A keyword without a value has none.
func parseDump(text string) map[string][]string {
	values := map[string][]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case key == "":
		case value == "":
			values[key] = nil
		default:
			values[key] = append(values[key], value)
		}
	}
	return values
}

// dump is what ssh -G would write, with everything expanded, and yes and no for all that is.
func dump(s *Settings) map[string][]string {
	if s == nil {
		return nil
	}
	yes := func(b bool) []string {
		if b {
			return []string{"yes"}
		}
		return []string{"no"}
	}
	one := func(v any) []string {
		if text := fmt.Sprint(v); text != "" {
			return []string{text}
		}
		return nil
	}
	timeout := "none"
	if s.ConnectTimeout != 0 {
		timeout = fmt.Sprint(s.ConnectTimeout.Seconds())
	}
	jumps := make([]string, len(s.ProxyJump))
	for i, jump := range s.ProxyJump {
		jumps[i] = jump.String()
	}
	values := map[string][]string{
		"user": one(s.User), "hostname": one(s.HostName), "port": one(s.Port),
		"identityfile": s.IdentityFiles, "identitiesonly": yes(s.IdentitiesOnly), "identityagent": one(s.IdentityAgent),
		"certificatefile":      s.CertificateFiles,
		"userknownhostsfile":   one(strings.Join(s.UserKnownHostsFiles, " ")),
		"revokedhostkeys":      one(strings.Join(s.RevokedHostKeys, " ")),
		"globalknownhostsfile": one(strings.Join(s.GlobalKnownHostsFiles, " ")), "hostkeyalias": one(s.HostKeyAlias),
		"stricthostkeychecking": one(s.StrictHostKeyChecking), "hashknownhosts": yes(s.HashKnownHosts),
		"proxyjump": one(strings.Join(jumps, ",")), "proxycommand": one(s.ProxyCommand),
		"connecttimeout": one(timeout), "connectionattempts": one(s.ConnectionAttempts), "tcpkeepalive": yes(s.TCPKeepAlive),
		"serveraliveinterval": one(s.ServerAliveInterval.Seconds()), "serveralivecountmax": one(s.ServerAliveCountMax),
		"addressfamily": one(s.AddressFamily), "bindaddress": one(s.BindAddress), "bindinterface": one(s.BindInterface),
		"pubkeyauthentication": yes(s.PubkeyAuthentication), "passwordauthentication": yes(s.PasswordAuthentication),
		"kbdinteractiveauthentication": yes(s.KbdInteractiveAuthentication),
		"preferredauthentications":     one(s.PreferredAuthentications), "numberofpasswordprompts": one(s.NumberOfPasswordPrompts),
		"batchmode": yes(s.BatchMode), "setenv": s.SetEnv, "sendenv": slices.Sorted(slices.Values(s.SendEnv)), "forwardagent": one(s.ForwardAgent),
		"requesttty": one(s.RequestTTY), "loglevel": one(s.LogLevel),
		"kexalgorithms": one(s.KexAlgorithms), "ciphers": one(s.Ciphers), "macs": one(s.MACs),
		"hostkeyalgorithms": one(s.HostKeyAlgorithms), "pubkeyacceptedalgorithms": one(s.PubkeyAcceptedAlgorithms),
		"casignaturealgorithms": one(s.CASignatureAlgorithms),
		"defaultidentities":     yes(s.DefaultIdentities), "ignored": s.Ignored,
	}
	return values
}

// parse is the output of ssh -G in the form of dump. Some of it ssh writes before it expands it, some after.
func (w where) parse(out string, s *Settings) map[string][]string {
	alias := s.HostKeyAlias
	if alias == "" {
		alias = s.OriginalHost
	}
	tokens := strings.NewReplacer("%%", "%", "%d", w.me.HomeDir, "%h", s.HostName, "%i", w.me.Uid, "%k", alias, "%l", w.local,
		"%L", strings.SplitN(w.local, ".", 2)[0], "%n", s.OriginalHost, "%p", strconv.Itoa(int(s.Port)), "%r", s.User, "%u", w.me.Username)
	path := func(raw string) string {
		raw = strings.ReplaceAll(raw, "${SSHCONFIG_TEST}", os.Getenv("SSHCONFIG_TEST"))
		if rest, ok := strings.CutPrefix(raw, "~"); ok {
			raw = w.me.HomeDir + rest
		}
		return tokens.Replace(raw)
	}
	values := parseDump(out)
	for key, of := range values {
		for i, value := range of {
			switch value {
			case "true":
				of[i] = "yes"
			case "false":
				of[i] = "no"
			}
			switch key {
			case "identityfile", "certificatefile", "proxycommand", "globalknownhostsfile", "revokedhostkeys":
				of[i] = path(value)
			case "proxyjump":
				hops := strings.Split(value, ",")
				for i, hop := range hops {
					jump, err := parseJump(tokens.Replace(hop))
					if err != nil {
						panic(err)
					}
					hops[i] = jump.String()
				}
				of[i] = strings.Join(hops, ",")
			}
		}
		switch key {
		case "identityfile":
			of = slices.DeleteFunc(of, func(s string) bool {
				return strings.HasSuffix(s, "none") || strings.HasSuffix(s, "/id_xmss") || strings.HasSuffix(s, "/id_dsa")
			})
		case "hostname": // ssh leaves an address as it is if only its case is unusual
			of[0] = canonical(of[0])
		case "pubkeyauthentication":
			if of[0] != "no" {
				of[0] = "yes"
			}
		case "userknownhostsfile", "globalknownhostsfile":
			if of[0] == "none" {
				of = nil
			}
		case "identityagent":
			switch of[0] {
			case "none":
				of = nil
			case "SSH_AUTH_SOCK", "$SSH_AUTH_SOCK":
				of[0] = "/agent"
			}
		case "sendenv": // twice after a second pass, and in another order
			slices.Sort(of)
			of = slices.Compact(of)
		}
		values[key] = of
	}
	// Without a list of its own ssh writes its default; with + - or ^ what comes of it.
	for key, written := range map[string]string{
		"kexalgorithms": s.KexAlgorithms, "ciphers": s.Ciphers, "macs": s.MACs, "hostkeyalgorithms": s.HostKeyAlgorithms,
		"pubkeyacceptedalgorithms": s.PubkeyAcceptedAlgorithms, "casignaturealgorithms": s.CASignatureAlgorithms,
	} {
		if written == "" || strings.ContainsAny(written[:1], "+-^") {
			delete(values, key)
		}
	}
	return values
}

func TestJumpString(t *testing.T) {
	for _, text := range []string{"h", "u@h", "u@h:22", "h:22", "[::1]:22", "u@[fe80::1]"} {
		jump, err := parseJump(text)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(text, jump.String()); diff != "" {
			t.Error(diff)
		}
	}
}
