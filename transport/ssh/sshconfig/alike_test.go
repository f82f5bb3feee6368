package sshconfig

import "testing"

func TestAlike(t *testing.T) {
	for _, test := range []struct {
		text    string
		options []string
		want    bool
	}{
		{"", nil, true},
		{"User ops\nPort 2222\nIdentityFile ~/.ssh/%u-key\nProxyJump gate", nil, true},
		{"Host *\nIdentityFile ~/%d/%%h\nSendEnv LANG", nil, true},
		{"Match all\nUser ops", nil, true},
		{"Match user ops localuser me\nIdentityFile ~/x", nil, true},
		{"Match final\nUser ops", nil, true},
		{"Include plain", nil, true},
		{"HostName %h.example.com\nUserKnownHostsFile ~/hosts/%h", nil, true}, // no way to log in
		{"Host web*\nUser ops", nil, false},
		{"Host * !gate\nProxyJump gate", nil, false},
		{"Host gate\nHost *\nUser ops", nil, false},
		{"Match host gate\nUser ops", nil, false},
		{"Match originalhost gate\nUser ops", nil, false},
		{"Match exec true\nUser ops", nil, false},
		{"IdentityFile ~/keys/%h", nil, false},
		{"CertificateFile ~/keys/%n", nil, false},
		{"IdentityAgent ~/agents/%C", nil, false},
		{"ProxyCommand nc %h %p", nil, false},
		{"ProxyJump gate-%n", nil, false},
		{"Include named", nil, false},
		{"Match all\nInclude named", nil, false},
		{"", []string{"User=ops"}, true},
		{"", []string{"ProxyCommand=nc %h %p"}, false},
	} {
		s := home(t, map[string]string{
			"home/.ssh/config": test.text,
			"home/.ssh/plain":  "Host *\nUser ops",
			"home/.ssh/named":  "Host web\nUser ops",
			"home/.ssh/unused": "Host web",
		})
		s.Options = test.options
		c, err := Read(s)
		if err != nil {
			t.Fatalf("%q: %v", test.text, err)
		}
		if got := c.Alike(); got != test.want {
			t.Errorf("%q %q: %v, want %v", test.text, test.options, got, test.want)
		}
	}
}
