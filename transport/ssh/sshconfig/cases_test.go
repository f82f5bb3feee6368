package sshconfig

// A testCase is a configuration and what comes of it, in the words of ssh -G.
type testCase struct {
	name    string
	target  Target // the host h unless it says otherwise
	options []string
	config  string
	files   map[string]string // beside it
	want    string            // the keywords that it is about; or "error: " and a part of it

	newer bool // ssh 9.2 does not know this
	later bool // an error that ssh reports only when it connects, behind -G
}

var cases = []testCase{
	{name: "nothing", want: `
		hostname h
		user $USER
		port 22
		identityfile $HOME/.ssh/id_rsa
		identityfile $HOME/.ssh/id_ecdsa
		identityfile $HOME/.ssh/id_ecdsa_sk
		identityfile $HOME/.ssh/id_ed25519
		identityfile $HOME/.ssh/id_ed25519_sk
		defaultidentities yes
		identityagent /agent
		certificatefile
		userknownhostsfile $HOME/.ssh/known_hosts $HOME/.ssh/known_hosts2
		globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
		stricthostkeychecking ask
		connecttimeout none
		connectionattempts 1
		serveraliveinterval 0
		serveralivecountmax 3
		forwardagent no
		requesttty auto
		loglevel INFO
		proxyjump
		proxycommand
		ignored`},
	{name: "the first value wins", config: `
		Port 1
		Host h
			Port 2
			User a
		Host *
			Port 3
			User b`, want: "port 1\nuser a"},
	{name: "spellings of a line", config: "\tport=1\nUSER = a\n  HostName\tx.example  \r\nBindAddress= 192.0.2.1\f\n\"Tcpkeepalive\" no\nCiphers=\"aes128-ctr\"\n", want: `
		port 1
		user a
		hostname x.example
		bindaddress 192.0.2.1
		tcpkeepalive no
		ciphers aes128-ctr`},
	{name: "comments", config: `
		# Port 1
		Port 2 # two
		User a#b
		IdentityFile "x#y" #z
		SendEnv A # B
		ProxyCommand run # all of it`, want: `
		port 2
		user a#b
		identityfile x#y
		sendenv A
		proxycommand run # all of it`},
	{name: "quotes", config: `
		IdentityFile "a b"
		IdentityFile 'c "d"'
		IdentityFile e" f"g
		IdentityFile h\ i
		IdentityFile "j\"k\\l\m"`, want: `
		identityfile a b
		identityfile c "d"
		identityfile e fg
		identityfile h i
		identityfile j"k\l\m`},
	{name: "a quote that is not closed", config: "Port 1\nUser \"a", want: "error: $DIR/config:2: User has a quote"},
	{name: "a quote that is not closed in a command", config: "ProxyCommand echo it's", want: "error: $DIR/config:1: ProxyCommand has a quote"},
	{name: "no argument", config: "\n\nPort\n", want: "error: $DIR/config:3: Port says nothing"},
	{name: "a comment for an argument", config: "Port # 1", want: "error: config:1: Port: its argument is missing"},
	{name: "an argument too many", config: "User a b", want: `error: config:1: User: takes one argument, so put quotes around it, or remove "b"`},
	{name: "an unknown keyword", config: "Host other\nFoo bar", want: "error: config:2: unknown keyword Foo"},

	{name: "Host patterns", target: Target{Host: "web1.example.com"}, config: `
		Host *.example.org
			User a
		Host web?.example.com
			User b
		Host web*
			Port 1
		Host *
			Port 2`, want: "user b\nport 1"},
	{name: "Host with a negation", target: Target{Host: "web1"}, config: `
		Host web* !web1
			User a
		Host !web1 web*
			User b
		Host !other
			User c
		Host * !db*
			User d`, want: "user d"},
	{name: "Host keeps case", target: Target{Host: "WEB"}, config: `
		Host web
			User a
		Host WEB
			User b`, want: "user b\nhostname web"},
	{name: "Host with many names", target: Target{Host: "c"}, config: `
		Host a b
			Port 1
		Host b c c
			Port 2
		Host c*
			User u
		Host c
			Port 3
			User v`, want: "port 2\nuser u"},
	{name: "Host of a comma", target: Target{Host: "a"}, config: "Host a,b\nUser x", want: "user $USER"},
	{name: "Host of a comment", config: "Host # nobody\nUser x", want: "user $USER"},
	{name: "Host is not of HostName", config: "HostName other\nHost other\nUser x", want: "user $USER\nhostname other"},
	{name: "Host with an empty pattern", config: `Host ""`, want: "error: config:1: Host: an argument is empty"},
	{name: "a pattern with stars", target: Target{Host: "abcabd"}, config: `
		Host a*b?e
			Port 1
		Host *a*ab*
			Port 2`, want: "port 2"},

	{name: "Match all", config: "Match all\nUser a", want: "user a"},
	{name: "Match !all", config: "Match !all\nUser a", want: "user $USER"},
	{name: "Match host", target: Target{Host: "Web.Example"}, config: `
		Match host other,web.*
			User a
		Match host WEB.*
			Port 1`, want: "user a\nport 1"},
	{name: "Match host is of HostName", config: `
		Host h
			HostName %h.example
		Match host *.example
			User a
		Match originalhost h
			Port 1
		Match originalhost *.example
			BindAddress 192.0.2.1`, want: "hostname h.example\nuser a\nport 1\nbindaddress"},
	{name: "Match with a list that denies", target: Target{Host: "a1"}, config: `
		Match host a*,!a1
			User a
		Match !host a*,!a1
			User b`, want: "user b"},
	{name: "Match negated", config: `
		Match !host x !user y
			User a
		Match host h !host h
			User b`, want: "user a"},
	{name: "Match user before it is set", config: `
		Match user a
			Port 1
		Match user $USER
			User a
		Match user A
			Port 2
		Match user a
			Port 3`, want: "user a\nport 3"},
	{name: "Match user", target: Target{User: "u"}, config: `
		User a
		Match user a
			Port 1
		Match user x,u
			Port 2`, want: "user u\nport 2"},
	{name: "Match localuser", config: "Match localuser nobody-here\nPort 1\nMatch localuser $USER\nPort 2", want: "port 2"},
	{name: "Match with =", config: `
		Match host=h user = $USER
			Port 1
		Match originalhost =h
			User a`, want: "port 1\nuser a"},
	{name: "Match all behind another one", config: `
		Match host h all
			User a
		Match host x all
			Port 1`, want: "user a\nport 22"},
	{name: "Match all before another one", config: "Match all host h", want: "error: config:1: Match: all stands alone"},
	{name: "Match all behind two others", config: "Match host h user u all", want: "error: config:1: Match: all stands alone"},
	{name: "Match with a word that is none", config: "Match hostname h", want: `error: config:1: Match: "hostname" is no criterion`},
	{name: "Match without an argument", config: "Match host", want: "error: config:1: Match: host says nothing"},
	{name: "Match with a comment", config: "Match host h # user x\nUser a", want: "user a"},
	{name: "Match of a comment", config: "Match # nothing", want: "error: config:1: Match: it says nothing"},

	{name: "Match final", config: `
		Match final all
			User b
			Port 2
		Host h
			User a`, want: "user a\nport 2"},
	{name: "Match final sees the other Hosts", config: `
		Host h
			HostName Real.Example
		Host real.example
			User a
		Match final host real.example
			Port 1
		Match !final
			BindAddress 192.0.2.1`, want: "hostname real.example\nuser a\nport 1\nbindaddress 192.0.2.1"},
	{name: "Match final as Fedora has it", config: "Include $DIR/50-redhat.conf\nHost h\nUser a", files: map[string]string{
		"50-redhat.conf": `
			Match final all
				Include $DIR/openssh.config
				GSSAPIAuthentication yes
				ForwardX11Trusted yes`,
		"openssh.config": `
			Ciphers aes256-gcm@openssh.com,aes256-ctr
			MACs hmac-sha2-256-etm@openssh.com
			GSSAPIKeyExchange no
			KexAlgorithms curve25519-sha256
			PubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-256
			CASignatureAlgorithms ssh-ed25519
			RequiredRSASize 2048`,
	}, want: `
		user a
		ciphers aes256-gcm@openssh.com,aes256-ctr
		macs hmac-sha2-256-etm@openssh.com
		kexalgorithms curve25519-sha256
		pubkeyacceptedalgorithms ssh-ed25519,rsa-sha2-256
		casignaturealgorithms ssh-ed25519
		ignored RequiredRSASize
		ignored GSSAPIAuthentication
		ignored ForwardX11Trusted`},
	{name: "Match final where nothing matches", config: "Host h\nUser a\nMatch final host other\nUser b\nPort 1", want: "user a\nport 22"},
	{name: "Match final in a file that is not included for this host", config: `
		Host h
			HostName x.example
		Host other
			Include $DIR/final
		Host x.example
			User a`, files: map[string]string{"final": "Match final all\nPort 1"}, want: "user a\nport 22"},
	{name: "Match canonical", config: "Match canonical\nPort 1", want: "port 22"},
	{name: "Match canonical in a second pass", config: "Match canonical\nPort 1\nMatch final host x\nPort 2", want: "port 1"},
	{name: "CanonicalizeHostname", config: `
		CanonicalizeHostname yes
		CanonicalDomains none
		HostName real
		Host real
			User a
		Match canonical
			Port 1`, want: "hostname real\nuser a\nport 1\nignored CanonicalizeHostname"},
	{name: "CanonicalizeHostname no", config: "CanonicalizeHostname no\nMatch canonical\nPort 1", want: "port 22\nignored"},
	{name: "lists in two passes", config: `
		Match final
			IdentityFile b
			SendEnv B
		Match all
			IdentityFile a
			SendEnv A
			CertificateFile c`, want: "identityfile a\nidentityfile b\nsendenv A\nsendenv B\ncertificatefile c"},

	{name: "Match exec", config: `
		Match exec "false"
			Port 1
		Match exec true
			Port 2
		Match !exec "exit 3"
			User a`, want: "port 2\nuser a"},
	{name: "Match exec with tokens", target: Target{Host: "h", Port: 7}, config: `
		HostName %h.example
		Match exec "test '%h %n %p %r %u %l %L %i %d %k %%' = 'h.example h 7 $USER $USER $LOCAL $SHORT $UID $HOME h.example %%'"
			User a
		HostKeyAlias Ali
		Match exec "test %k.%r = Ali.a"
			BindAddress 192.0.2.1`, want: "user a\nbindaddress 192.0.2.1"},
	{name: "Match exec is not run behind a criterion that fails", config: `
		Match host other exec "touch $DIR/ran"
			Port 1
		Match exec "test -e $DIR/ran"
			Port 2`, want: "port 22"},
	{name: "Match exec that dies", config: `Match exec "kill -9 $$"`, want: "error: config:1: Match: exec \"kill -9 $$\" could not be run"},
	{name: "Match exec with a token that is none", config: `Match exec "echo %z"`, want: `error: config:1: Match: "%z" is no token`},

	{name: "Match tagged", options: []string{"Tag=prod"}, config: `
		Match tagged test
			User a
		Match tagged pr*
			User b
		Tag other`, want: "user b", newer: true},
	{name: "Match tagged with nothing", config: "Match tagged \"\"\nUser a\nMatch tagged *\nUser b", want: "user a", newer: true},
	{name: "Match localnetwork", config: `
		Match localnetwork 240.0.0.0/8,2001:db8:dead::/48
			User a
		Match localnetwork 0.0.0.0/0,::/0,!240.0.0.1
			Port 1`, want: "user $USER\nport 1", newer: true},
	{name: "Match localnetwork with bits behind", config: "Match localnetwork 192.0.2.1/24", want: `error: config:1: Match: "192.0.2.1/24" is no network`},
	{name: "Match of newer versions", config: `
		Match sessiontype exec version multi-rsh
			User a
		Match command uptime
			Port 1
		Match !command uptime
			Port 2`, want: "user a\nport 22\nignored Match command", newer: true},
	{name: "Match with quotes of both kinds", config: `Match exec 'test "%h" = "h"'
		User a`, want: "user a", newer: true},

	{name: "Include", config: `
		Include $DIR/d/*.conf $DIR/missing $DIR/none-*
		User c
		Port 3`, files: map[string]string{"d/1.conf": "User a", "d/2.conf": "User b\nPort 2", "d/.hidden.conf": "Port 4", "d/3.txt": "Port 5"},
		want: "user a\nport 2"},
	{name: "Include under a Host", config: `
		Host other
			Include $DIR/a
		Host h
			Include $DIR/b
			Port 3`, files: map[string]string{"a": "User a\nMatch all\nUser aa", "b": "Host other\nUser b\nHost h\nUser bb"}, want: "user bb\nport 3"},
	{name: "Include does not change the block that it is in", config: `
		Host h
			Include $DIR/a
			User b`, files: map[string]string{"a": "Host other\nUser a"}, want: "user b"},
	{name: "Include of a bad file", config: "Host other\nInclude $DIR/a", files: map[string]string{"a": "\nFoo bar"}, want: "error: $DIR/a:2: unknown keyword Foo"},
	{name: "Include of itself", config: "Include $DIR/config", want: "error: $DIR/config:1: Include: files include each other more than 16 deep"},
	{name: "Include of a directory", config: "Include $DIR/d*\nPort 1", files: map[string]string{"d/x": "Foo"}, want: "port 1"},
	{name: "Include with a range", config: "Include $DIR/[!b].conf", files: map[string]string{"a.conf": "Port 1", "b.conf": "Port 2\nUser b"}, want: "port 1\nuser $USER"},
	{name: "Include with a variable", config: "Include $DIR/${SSHCONFIG_TEST}", files: map[string]string{"value": "Port 1"}, want: "port 1", newer: true},
	{name: "Include with a token", config: "Include $DIR/%n", want: "error: config:1: Include: files are read before there is a host: instead of %n", newer: true},

	{name: "options go before files", options: []string{"User=a", "port 1", "IdentityFile=x", "SetEnv=A=1"}, config: `
		User b
		Port 2
		IdentityFile y
		SetEnv A=2`, want: "user a\nport 1\nidentityfile x\nidentityfile y\nsetenv A=1"},
	{name: "the target goes before options", target: Target{Host: "h", User: "u", Port: 9}, options: []string{"User=a", "Port=1"}, want: "user u\nport 9"},
	{name: "an option is unknown", options: []string{"Foo=1"}, want: "error: -o Foo=1: unknown keyword Foo"},
	{name: "an option is bad", options: []string{"Port=0"}, want: `error: -o Port=0: Port: "0" is no port from 1 to 65535`},
	{name: "an option is a Host", options: []string{"Host=x"}, want: "error: -o Host=x: Host belongs in a file"},
	{name: "an option is a Match", options: []string{"Match all"}, want: "error: -o Match all: Match belongs in a file"},
	{name: "an option is an Include", options: []string{"Include /dev/null"}, want: "error: -o Include /dev/null: Include belongs in a file"},
	{name: "options are not read in the second pass", options: []string{"SendEnv=A"}, config: "SendEnv -A\nMatch final\nPort 1", want: "sendenv\nport 1"},

	{name: "IgnoreUnknown", config: `
		IgnoreUnknown use*,FOO
		UseKeychain yes
		foo "bar baz"`, want: "port 22\nignored"},
	{name: "IgnoreUnknown below", config: "Foo 1\nIgnoreUnknown foo", want: "error: config:1: unknown keyword Foo"},
	{name: "IgnoreUnknown for this host", config: "Host h\nIgnoreUnknown foo\nFoo 1\nPort 1", want: "port 1"},
	{name: "IgnoreUnknown for another host", config: "Host other\nIgnoreUnknown foo\nHost h\nFoo 1", want: "error: config:4: unknown keyword Foo"},
	{name: "IgnoreUnknown from an option", options: []string{"IgnoreUnknown=foo"}, config: "IgnoreUnknown bar\nFoo 1", want: "port 22"},
	{name: "IgnoreUnknown is that of the first line", config: "IgnoreUnknown foo\nIgnoreUnknown bar\nBar 1", want: "error: config:3: unknown keyword Bar"},

	{name: "IdentityFile adds up", config: `
		IdentityFile ~/.ssh/a
		IdentityFile ~/.ssh/b
		IdentityFile ~/.ssh/a
		Host h
			IdentityFile /c
		IdentitiesOnly yes`, want: `
		identityfile $HOME/.ssh/a
		identityfile $HOME/.ssh/b
		identityfile /c
		defaultidentities no
		identitiesonly yes`},
	{name: "IdentityFile none", config: "IdentityFile none", want: "identityfile\ndefaultidentities no"},
	{name: "tokens in paths", target: Target{Host: "h", Port: 7}, config: `
		HostName real.example
		User a
		HostKeyAlias Ali
		IdentityFile ~/%h-%n-%p-%r-%u-%l-%L-%i-%k-%%
		IdentityFile %d/x
		CertificateFile ~/${SSHCONFIG_TEST}/%h
		UserKnownHostsFile ~/kh/%k ${SSHCONFIG_TEST}%h /%%`, want: `
		identityfile $HOME/real.example-h-7-a-$USER-$LOCAL-$SHORT-$UID-ali-%
		identityfile $HOME/x
		certificatefile $HOME/value/real.example
		userknownhostsfile $HOME/kh/ali value` + "real.example /%\n"},
	{name: "a token that is none", config: "UserKnownHostsFile /x/%z", want: `error: config:1: UserKnownHostsFile: "%z" is no token here`},
	{name: "a % at the end", config: "UserKnownHostsFile /x/%", want: "error: config:1: UserKnownHostsFile: it ends with a %"},
	{name: "a token that is none in a path to a key", config: "IdentityFile %z", want: `error: config:1: IdentityFile: "%z" is no token here`, later: true},
	{name: "a token that is none for HostName", config: "HostName %n", want: `error: config:1: HostName: "%n" is no token here`},
	{name: "a variable that is not set", config: "UserKnownHostsFile ${SSHCONFIG_UNSET}", want: "error: config:1: UserKnownHostsFile: ${SSHCONFIG_UNSET} is not in the environment"},
	{name: "a variable that is not closed", config: "UserKnownHostsFile ${SSHCONFIG_TEST", want: `error: "${SSHCONFIG_TEST" is not ${NAME}`},
	{name: "no user for a ~", config: "UserKnownHostsFile ~nobody-here/x", want: "error: config:1: UserKnownHostsFile: ~nobody-here: there is no such user"},
	{name: "a value is not expanded again", config: "UserKnownHostsFile /%%h/%%%%/$HOME", want: "userknownhostsfile /%h/%%/$HOME"},
	{name: "HostName", target: Target{Host: "Web"}, config: "HostName %h.Example.COM%%", want: "hostname Web.Example.COM%"},
	{name: "HostName is lower case", target: Target{Host: "Web"}, config: "HostName %h.Example.COM", want: "hostname web.example.com"},
	{name: "HostName is an address", config: "HostName 2001:DB8:0:0::1", want: "hostname 2001:db8::1"},
	{name: "a host is an address", target: Target{Host: "::FFFF:192.0.2.1"}, want: "hostname ::ffff:192.0.2.1"},

	{name: "known hosts", config: `
		UserKnownHostsFile ~/a "b c"
		GlobalKnownHostsFile none
		UserKnownHostsFile d
		HashKnownHosts yes
		StrictHostKeyChecking accept-new
		HostKeyAlias ALIAS`, want: `
		userknownhostsfile $HOME/a b c
		globalknownhostsfile
		hashknownhosts yes
		stricthostkeychecking accept-new
		hostkeyalias alias`},
	{name: "known hosts none", config: "UserKnownHostsFile none\nGlobalKnownHostsFile ~/g /h", want: "userknownhostsfile\nglobalknownhostsfile $HOME/g /h"},
	{name: "known hosts none and more", config: "UserKnownHostsFile none x", want: "error: config:1: UserKnownHostsFile: none stands alone"},
	{name: "StrictHostKeyChecking off", config: "StrictHostKeyChecking OFF", want: "stricthostkeychecking no"},
	{name: "StrictHostKeyChecking true", config: "StrictHostKeyChecking true", want: "stricthostkeychecking yes"},
	{name: "StrictHostKeyChecking maybe", config: "StrictHostKeyChecking maybe", want: `error: config:1: StrictHostKeyChecking: "maybe" is none of yes, no, ask, accept-new`},

	{name: "IdentityAgent", config: "IdentityAgent ~/%r/${SSHCONFIG_TEST}", want: "identityagent $HOME/$USER/value"},
	{name: "IdentityAgent none", config: "IdentityAgent none", want: "identityagent"},
	{name: "IdentityAgent SSH_AUTH_SOCK", config: "IdentityAgent SSH_AUTH_SOCK", want: "identityagent /agent"},
	{name: "IdentityAgent $SSH_AUTH_SOCK", config: "IdentityAgent $SSH_AUTH_SOCK", want: "identityagent /agent"},
	{name: "IdentityAgent for another host, of a variable that is not set", config: "Host other\nIdentityAgent ${SSHCONFIG_UNSET}", want: "error: config:2: IdentityAgent: ${SSHCONFIG_UNSET} is not in the environment"},
	{name: "IdentityAgent of what is no variable", config: "IdentityAgent $a-b", want: `error: config:1: IdentityAgent: "$a-b" is no variable`},
	{name: "ForwardAgent", config: "ForwardAgent YES", want: "forwardagent yes"},
	{name: "ForwardAgent with a path", config: "ForwardAgent /dev/null", want: "forwardagent /dev/null"},
	{name: "ForwardAgent with a variable", config: "ForwardAgent $SSH_AUTH_SOCK", want: "forwardagent $SSH_AUTH_SOCK"},

	{name: "ProxyJump", config: "ProxyJump a@b:1,ssh://c%2Dd@[2001:db8::1]:2/,e", want: "proxyjump a@b:1,c-d@[2001:db8::1]:2,e", newer: true},
	{name: "ProxyJump with addresses", config: "ProxyJump u@[::1]:2222,192.0.2.1:22 # via", want: "proxyjump u@[::1]:2222,192.0.2.1:22"},
	{name: "ProxyJump with a URI", config: "ProxyJump ssh://u;fingerprint=x@b.example:2222", want: "proxyjump u@b.example:2222"},
	{name: "ProxyJump with tokens", target: Target{Host: "h", User: "u", Port: 7}, config: "HostName real\nProxyJump %r@%n.%h.%p", want: "proxyjump u@h.real.7"},
	{name: "ProxyJump with a service", config: "ProxyJump b:ssh", want: "proxyjump b:22"},
	{name: "ProxyJump before ProxyCommand", config: "ProxyJump a\nProxyCommand b\nProxyJump c", want: "proxyjump a\nproxycommand"},
	{name: "ProxyCommand before ProxyJump", config: "ProxyCommand nc %h %p\nProxyJump a", want: "proxyjump\nproxycommand nc h 22"},
	{name: "ProxyJump none before ProxyCommand", config: "ProxyJump none\nProxyCommand b", want: "proxyjump\nproxycommand"},
	{name: "ProxyCommand none before ProxyJump", config: "ProxyCommand NONE\nProxyJump b", want: "proxyjump\nproxycommand"},
	{name: "ProxyJump that is bad", config: "Host other\nProxyJump a,", want: `error: config:2: ProxyJump: "" is not [user@]host[:port]`},
	{name: "ProxyJump without a user", config: "ProxyJump @a", want: `error: config:1: ProxyJump: "@a" is not [user@]host[:port]`},
	{name: "ProxyJump to an address without brackets", config: "ProxyJump ::1", want: `error: config:1: ProxyJump: "::1" is not`},
	{name: "ProxyJump to a port that is none", config: "ProxyJump a:65536", want: `error: config:1: ProxyJump: "65536" is no port`},
	{name: "ProxyJump to a path", config: "ProxyJump ssh://a/b", want: `error: config:1: ProxyJump: "ssh://a/b" is not`},
	{name: "ProxyJump through the host itself", config: "Host *\nProxyJump h", want: `error: config:2: ProxyJump: h would be reached through itself: except it, as with "Host * !h"`},
	{name: "ProxyJump through another user's account", config: "User a\nProxyJump b@h", want: "proxyjump b@h"},
	{name: "RevokedHostKeys", config: "RevokedHostKeys ~/revoked.%l\nRevokedHostKeys other", want: "revokedhostkeys $HOME/revoked.$LOCAL\nignored"},
	{name: "RevokedHostKeys none", config: "RevokedHostKeys none\nRevokedHostKeys other", want: "revokedhostkeys\nignored"},
	{name: "RevokedHostKeys, several", config: "RevokedHostKeys /a ${SSHCONFIG_TEST}/b", want: "revokedhostkeys /a value/b", newer: true},

	{name: "a target's own jump hosts", target: Target{Host: "h", User: "u", Jump: "%r@a:1,[::1]"}, options: []string{"ProxyJump=x"}, config: "ProxyCommand y", want: "proxyjump u@a:1,[::1]\nproxycommand"},
	{name: "a target without jump hosts", target: Target{Host: "h", Jump: "none"}, options: []string{"ProxyJump=x"}, config: "ProxyCommand y", want: "proxyjump\nproxycommand"},
	{name: "a target's bad jump host", target: Target{Host: "h", Jump: "a,,b"}, want: `error: jump host: "" is not [user@]host[:port]`},
	{name: "a target through itself", target: Target{Host: "h", Jump: "h"}, want: `error: jump host h: ProxyJump: h would be reached through itself: give it jump=none in a hosts file`},
	{name: "a target's own HostName", target: Target{Host: "web", HostName: "Host.Example"}, config: `
		Host web
			User a
			HostName b
		Host host.example
			User c
		Match host host.example
			Port 7
		IdentityFile %h/%n`, want: "hostname host.example\nuser a\nport 7\nidentityfile host.example/web"},
	{name: "a target's HostName with a zone", target: Target{Host: "web", HostName: "fe80::1%eth0"}, want: "hostname fe80::1%eth0"},

	{name: "ProxyCommand as it is written", options: []string{"ProxyCommand==  x"}, config: "", want: "proxycommand x"},
	{name: "ProxyCommand with quotes and tokens", target: Target{Host: "h", User: "u"}, config: `ProxyCommand ssh -W "[%h]:%p" %r@gate.%n 2>'/dev/null'`,
		want: `proxycommand ssh -W "[h]:22" u@gate.h 2>'/dev/null'`},
	{name: "ProxyCommand with a token that is none", config: "ProxyCommand x %d", want: `error: config:1: ProxyCommand: "%d" is no token here`, later: true},

	{name: "times", config: "ConnectTimeout 1h30m\nServerAliveInterval 1W2d3H4m5S", want: "connecttimeout 5400\nserveraliveinterval 788645"},
	{name: "times in seconds", config: "ConnectTimeout 10\nServerAliveInterval=0", want: "connecttimeout 10\nserveraliveinterval 0"},
	{name: "time none", config: "ConnectTimeout none", want: "connecttimeout none"},
	{name: "a time with a unit that is none", config: "ConnectTimeout 5y", want: `error: config:1: ConnectTimeout: "5y" is no time`},
	{name: "a time with a fraction", config: "ConnectTimeout 1.5", want: `error: config:1: ConnectTimeout: "1.5" is no time`},
	{name: "a time that is too long", config: "ConnectTimeout 4000w", want: `error: config:1: ConnectTimeout: "4000w" is no time`},
	{name: "numbers", config: "ConnectionAttempts 3\nServerAliveCountMax 5\nNumberOfPasswordPrompts 1", want: "connectionattempts 3\nserveralivecountmax 5\nnumberofpasswordprompts 1"},
	{name: "a number that is none", config: "ConnectionAttempts x", want: `error: config:1: ConnectionAttempts: "x" is no number`},
	{name: "no attempts", config: "ConnectionAttempts 0", want: "error: config:1: ConnectionAttempts: 0 is never"},
	{name: "a port by its name", config: "Port ssh", want: "port 22"},
	{name: "a port that is too high", config: "Port 65536", want: `error: config:1: Port: "65536" is no port`},
	{name: "a port that is negative", config: "Port -1", want: `error: config:1: Port: "-1" is no port`},

	{name: "SetEnv is that of the first line", config: "SetEnv A=1 \"B=2 3\" A=4\nSetEnv C=5", want: "setenv A=1\nsetenv B=2 3"},
	{name: "SetEnv that is bad", config: "SetEnv A", want: `error: config:1: SetEnv: "A" is not NAME=value`},
	{name: "SendEnv adds up", config: "SendEnv A LC_*\nSendEnv B\nSendEnv -LC_?", want: "sendenv A\nsendenv B"},
	{name: "SendEnv that is bad", config: "SendEnv A=1", want: `error: config:1: SendEnv: "A=1" is no name of a variable`},

	{name: "authentication", config: `
		PubkeyAuthentication host-bound
		PasswordAuthentication no
		ChallengeResponseAuthentication no
		PreferredAuthentications publickey,password
		BatchMode yes
		ServerAliveInterval 7`, want: `
		pubkeyauthentication yes
		passwordauthentication no
		kbdinteractiveauthentication no
		preferredauthentications publickey,password
		batchmode yes`},
	{name: "the network", config: "AddressFamily INET6\nBindAddress ::1\nBindInterface lo\nTCPKeepAlive no", want: "addressfamily inet6\nbindaddress ::1\nbindinterface lo\ntcpkeepalive no"},
	{name: "the session", config: "RequestTTY force\nLogLevel debug1", want: "requesttty force\nloglevel DEBUG"},
	{name: "lists of algorithms", config: `
		KexAlgorithms +diffie-hellman-group14-sha1
		Ciphers -*-cbc
		MACs ^hmac-sha2-512
		HostKeyAlgorithms ssh-ed25519,rsa-sha2-512
		PubkeyAcceptedKeyTypes +ssh-rsa
		CASignatureAlgorithms ssh-ed25519`, want: `
		kexalgorithms +diffie-hellman-group14-sha1
		ciphers -*-cbc
		macs ^hmac-sha2-512
		hostkeyalgorithms ssh-ed25519,rsa-sha2-512
		pubkeyacceptedalgorithms +ssh-rsa
		casignaturealgorithms ssh-ed25519`},
	{name: "keywords that nobody acts on", config: `
		Protocol 2
		ForwardX11 no
		ControlMaster auto
		ControlPath ~/.ssh/%C
		ControlPersist no
		LocalForward 8080 localhost:80
		UseRoaming no
		Cipher 3des
		RSAAuthentication yes
		ControlMaster auto
		RevokedHostKeys none`, want: `
		port 22
		ignored ControlMaster
		ignored ControlPath
		ignored LocalForward
		ignored Cipher
		ignored RSAAuthentication`},
	{name: "keywords of newer versions", config: "ObscureKeystrokeTiming no\nChannelTimeout session=5m\nRSAMinSize 2048", want: "ignored ChannelTimeout\nignored RequiredRSASize", newer: true},
}
