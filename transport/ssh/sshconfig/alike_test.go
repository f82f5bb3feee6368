package sshconfig

import (
	"slices"
	"strings"
	"testing"
)

func TestAlike(t *testing.T) {
	for _, test := range []struct {
		text    string
		options []string
		want    bool
		but     string
	}{
		{"", nil, true, ""},
		{"User ops\nPort 2222\nIdentityFile ~/.ssh/%u-key\nProxyJump gate", nil, true, ""},
		{"Host *\nIdentityFile ~/%d/%%h\nSendEnv LANG", nil, true, ""},
		{"Match all\nUser ops", nil, true, ""},
		{"Match user ops localuser me\nIdentityFile ~/x", nil, true, ""},
		{"Match final\nUser ops", nil, true, ""},
		{"Include plain", nil, true, ""},
		{"HostName %h.example.com\nUserKnownHostsFile ~/hosts/%h", nil, true, ""}, // no way to log in
		{"Host web*\nUser ops", nil, false, ""},
		{"Host * !gate\nProxyJump gate", nil, true, "gate"},
		{"Host gate\nHost *\nUser ops", nil, true, "gate"},
		{"Match host gate\nUser ops", nil, false, ""},
		{"Match originalhost gate\nUser ops", nil, false, ""},
		{"Match exec true\nUser ops", nil, true, ""},
		{"Match exec \"test %h\"\nUser ops", nil, false, ""},
		{"IdentityFile ~/keys/%h", nil, false, ""},
		{"CertificateFile ~/keys/%n", nil, false, ""},
		{"IdentityAgent ~/agents/%C", nil, false, ""},
		{"ProxyCommand nc %h %p", nil, true, ""},
		{"ProxyJump gate-%n", nil, false, ""},
		{"Include named", nil, true, "web"},
		{"Include patterns", nil, false, ""},
		{"Match all\nInclude named", nil, true, "web"},
		{"Host git\nInclude patterns\nIdentityFile ~/%h\nCanonicalizeHostname yes", nil, true, "git"}, // it is asked about itself
		{"Host a b\nHost * !c\nIdentityFile ~/%h", nil, false, ""},
		{"Host git\nHost *\nCanonicalizeHostname yes", nil, false, ""}, // GIT is git in the second pass
		{"Host git\nMatch final\nUser ops", nil, false, ""},
		{"Host * !web?\nUser ops", nil, false, ""},
		{"", []string{"User=ops"}, true, ""},
		{"", []string{"ProxyJump=gate-%h"}, false, ""},
	} {
		s := home(t, map[string]string{
			"home/.ssh/config":   test.text,
			"home/.ssh/plain":    "Host *\nUser ops",
			"home/.ssh/named":    "Host web\nUser ops",
			"home/.ssh/patterns": "Host web*\nUser ops",
		})
		s.Options = test.options
		c, err := Read(s)
		if err != nil {
			t.Fatalf("%q: %v", test.text, err)
		}
		but, got := c.Alike()
		if got != test.want || !slices.Equal(but, strings.Fields(test.but)) {
			t.Errorf("%q %q: %v but for %q, want %v but for %q", test.text, test.options, got, but, test.want, test.but)
		}
	}
}
