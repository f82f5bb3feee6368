package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// testEnv is a process of a user and a machine without any configuration.
func testEnv(environment map[string]string, args ...string) *env {
	return &env{Args: args, Getenv: func(name string) string { return environment[name] }, Etc: "/no/such"}
}

func configureWith(environment map[string]string, args ...string) (*config, error) {
	return testEnv(environment, args...).configure()
}

// base is a configuration with nothing asked for.
func base(change func(*config)) *config {
	c := &config{choice: choice{include: []string{"h1"}}, fanout: 64, transport: "ssh", command: "id", progress: "auto"}
	c.view = view{lines: true, summary: "text", color: "auto"}
	change(c)
	return c
}

func diffConfigs(want, got *config) string {
	return cmp.Diff(want, got, cmp.AllowUnexported(config{}, choice{}, labelLimit{}, policies{}, view{}), cmpopts.IgnoreFields(config{}, "given", "settled"), cmpopts.EquateEmpty())
}

func TestConfigure(t *testing.T) {
	type env = map[string]string
	for _, test := range []struct {
		args []string
		env  env
		want *config
	}{
		{args: []string{"id", "h1"}, want: base(func(c *config) {})},
		{args: []string{"uname -a", "h1", "h[2-3]"}, want: base(func(c *config) { c.command, c.include = "uname -a", []string{"h1", "h[2-3]"} })},
		{args: []string{"-wh1", "id"}, want: base(func(c *config) {})},
		{args: []string{"-w", "h[1,3]", "--hosts=h4,h5", "--hosts", "h6", "uname", "-a"}, want: base(func(c *config) {
			c.include, c.command = []string{"h[1,3]", "h4,h5", "h6"}, "uname -a"
		})},
		{args: []string{"-p64", "-t30", "-uops", "-Rexec", "-SN", "id", "h1"}, want: base(func(c *config) {
			c.timeout, c.user, c.transport, c.largestStatus, c.noLabels = 30*time.Second, "ops", "exec", true, true
		})},
		{args: []string{"-qkNp", "3", "id", "h1"}, want: base(func(c *config) {
			c.quiet, c.summary, c.failFast, c.noLabels, c.fanout = true, "none", true, true, 3
		})},
		{args: []string{"-f", "7", "--timeout=2m", "--connect-timeout", "1.5", "id", "h1"}, want: base(func(c *config) {
			c.fanout, c.timeout, c.connectTimeout = 7, 2*time.Minute, 1500*time.Millisecond
		})},
		{args: []string{"--merge", "--kill-on-disconnect", "--input=-", "id", "h1"}, want: base(func(c *config) {
			c.merge, c.killOnDisconnect, c.input = true, true, "-"
		})},
		{args: []string{"--plain", "-x", "h2", "-xh3,h4", "id", "h1"}, want: base(func(c *config) { c.plain, c.exclude = true, []string{"h2", "h3,h4"} })},
		{args: []string{"-J", "ops@gate:23,inner", "-i", "/dev/null", "--identity=~/id 2", "-oPort=23", "--ssh-option", "SetEnv A=b", "-F", "none", "id", "h1"}, want: base(func(c *config) {
			c.sshConfig = "none"
			c.sshOptions = []string{"ProxyJump=ops@gate:23,inner", `IdentityFile="/dev/null"`, `IdentityFile="~/id 2"`, "Port=23", "SetEnv A=b"}
		})},
		{args: []string{"--host-keys=ask", "--ask-pass", "--sh", "--tty", "-A", "--legacy", "--connect-retries=5", "id", "h1"}, want: base(func(c *config) {
			c.hostKeys, c.askPass, c.sh, c.tty, c.forwardAgent, c.legacy, c.retries = "ask", true, true, true, true, true, 5
		})},
		{args: []string{"--host-keys", "insecure-ignore", "--connect-retries", "0", "--askpass-command", "pass x", "id", "h1"}, want: base(func(c *config) {
			c.hostKeys, c.retries, c.askpassCommand = "insecure-ignore", -1, "pass x"
		})},
		{args: []string{"--jump=gate", "--ssh-config", "f", "--forward-agent=no", "id", "h1"}, want: base(func(c *config) {
			c.sshConfig, c.sshOptions = "f", []string{"ProxyJump=gate"}
		})},
		{args: []string{"-R", "ssh", "id", "h1"}, want: base(func(c *config) {})},
		{args: []string{"-R", "rsh", "id", "h1"}, want: base(func(c *config) { c.transport = "rsh" })},
		{args: []string{"-l", "-", "id"}, want: base(func(c *config) { c.include, c.hostsFile = []string{}, "-" })},
		{args: []string{"--", "--help", "h1"}, want: base(func(c *config) { c.command = "--help" })},
		{args: []string{"-wh1", "--", "-x", "--", "y"}, want: base(func(c *config) { c.command = "-x -- y" })},
		{args: []string{"help", "h1"}, want: base(func(c *config) { c.command = "help" })},
		{args: []string{"-wh1", "h"}, want: base(func(c *config) { c.command = "h" })},
		{args: []string{"-wh1", "version", "--version"}, want: base(func(c *config) { c.command = "version --version" })},
		{args: []string{"-wh1", "timeout", "5", "id"}, want: base(func(c *config) { c.command = "timeout 5 id" })}, // also an option's name
		{args: []string{"-h", "--fanout=0"}, want: &config{action: "help"}},
		{args: []string{"-wh1", "--man", "--help"}, want: &config{action: "man"}},
		{args: []string{"-V"}, env: env{"MULTI_RSH_FANOUT": "0"}, want: &config{action: "version"}},

		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_FANOUT": "5", "MULTI_RSH_MERGE": "yes", "MULTI_RSH_USER": "ops"}, want: base(func(c *config) {
			c.fanout, c.merge, c.user = 5, true, "ops"
		})},
		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_HOST_KEYS": "accept-new", "MULTI_RSH_JUMP": "gate", "MULTI_RSH_IDENTITY": "/dev/null", "MULTI_RSH_SH": "true", "MULTI_RSH_LEGACY": "no"}, want: base(func(c *config) {
			c.hostKeys, c.sh, c.sshOptions = "accept-new", true, []string{"ProxyJump=gate", `IdentityFile="/dev/null"`}
		})},
		{args: []string{"--ask-pass", "id", "h1"}, env: env{"MULTI_RSH_ASKPASS_COMMAND": "x"}, want: base(func(c *config) { c.askPass = true })},
		{args: []string{"--askpass-command=y", "id", "h1"}, env: env{"MULTI_RSH_ASK_PASS": "1"}, want: base(func(c *config) { c.askpassCommand = "y" })},
		{args: []string{"-f6", "--merge=false", "id", "h1"}, env: env{"MULTI_RSH_FANOUT": "5", "MULTI_RSH_MERGE": "1"}, want: base(func(c *config) { c.fanout = 6 })},
		{args: []string{"id", "x"}, env: env{"MULTI_RSH_HOSTS": "h1", "MULTI_RSH_QUIET": "off"}, want: base(func(c *config) { c.command = "id x" })},
		{args: []string{"-wh1", "id"}, env: env{"MULTI_RSH_HOSTS": "h2", "MULTI_RSH_HOSTS_FILE": "/x", "WCOLL": "/y"}, want: base(func(c *config) {})},
		{args: []string{"id", "-a"}, env: env{"WCOLL": "/dev/null"}, want: base(func(c *config) { c.include, c.hostsFile, c.command = []string{}, "/dev/null", "id -a" })},
		{args: []string{"id"}, env: env{"WCOLL": "/y", "MULTI_RSH_HOSTS": "h1"}, want: base(func(c *config) {})},
	} {
		got, err := configureWith(test.env, test.args...)
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
		} else if diff := diffConfigs(test.want, got); diff != "" {
			t.Errorf("%q, %v (-want +got):\n%s", test.args, test.env, diff)
		}
	}
}

// Every mistake is answered with one sentence of our own, which names what to write instead.
func TestConfigureRefuses(t *testing.T) {
	type env = map[string]string
	for _, test := range []struct {
		args []string
		env  env
		want string
	}{
		{args: nil, want: `no command: write multi-rsh [options] "command" host... (multi-rsh --help shows more)`},
		{args: []string{"id"}, want: `no hosts: name them after the command, "id" host..., or by -w, -g, -a or -l`},
		{args: []string{" ", "h1"}, want: `the command is empty; write multi-rsh [options] "command" host...`},
		{args: []string{"uname", "-a", "h1"}, want: `"-a" is not a host; options come before the command, and a command of several words is quoted when hosts follow it`},

		{args: []string{"--fanot", "3"}, want: `unknown option --fanot; did you mean --fanout?`},
		{args: []string{"--connect=3"}, want: `unknown option --connect; did you mean --connect-timeout?`},
		{args: []string{"--zzz"}, want: `unknown option --zzz; multi-rsh --help lists the options`},
		{args: []string{"-W", "h1"}, want: `unknown option -W; did you mean -w (--hosts)?`},
		{args: []string{"-SZ"}, want: `unknown option -Z; multi-rsh --help lists the options`},
		{args: []string{"-merge"}, want: `unknown option -merge; did you mean --merge?`},
		{args: []string{"-s"}, want: `unknown option -s: standard error is always kept apart, without an option (--merge joins the two)`},
		{args: []string{"-n"}, want: `unknown option -n: the command reads nothing, without an option (--input gives it something to read)`},
		{args: []string{"-é"}, want: `unknown option -é; multi-rsh --help lists the options`},

		{args: []string{"-w"}, want: `-w needs a value: -w EXPR, these hosts: 'n[01-16]!n07', @web; repeatable`},
		{args: []string{"--user"}, want: `--user needs a value: --user USER, user on the hosts; else ssh_config's or your own`},
		{args: []string{"--user="}, want: `--user needs a value: --user USER, user on the hosts; else ssh_config's or your own`},
		{args: []string{"--merge=maybe"}, want: `--merge is a switch, so its value is true or false, not "maybe"`},
		{args: []string{"-f3", "-f4"}, want: `-f is given twice; give it once`},
		{args: []string{"-p3", "--fanout=3"}, want: `-p and --fanout are the same option, given twice; give it once`},
		{args: []string{"-SS"}, want: `-S is given twice; give it once`},

		{args: []string{"-f0", "id", "h1"}, want: `-f "0": this is how many hosts run at once, a whole number from 1, as 64`},
		{args: []string{"-p", "many", "id", "h1"}, want: `-p "many": this is how many hosts run at once, a whole number from 1, as 64`},
		{args: []string{"--fanout=-3", "id", "h1"}, want: `--fanout "-3": this is how many hosts run at once, a whole number from 1, as 64`},
		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_FANOUT": "x"}, want: `MULTI_RSH_FANOUT "x": this is how many hosts run at once, a whole number from 1, as 64`},
		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_MERGE": "x"}, want: `MULTI_RSH_MERGE is a switch, so its value is true or false, not "x"`},
		{args: []string{"-t0", "id", "h1"}, want: `-t "0": ` + timeHint},
		{args: []string{"-t", "5x", "id", "h1"}, want: `-t "5x": ` + timeHint},
		{args: []string{"--connect-timeout=-5", "id", "h1"}, want: `--connect-timeout "-5": ` + timeHint},
		{args: []string{"--timeout=inf", "id", "h1"}, want: `--timeout "inf": ` + timeHint},
		{args: []string{"-t", "99999999999999999999", "id", "h1"}, want: `-t "99999999999999999999": ` + timeHint},
		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_TIMEOUT": "soon"}, want: `MULTI_RSH_TIMEOUT "soon": ` + timeHint},

		{args: []string{"-u", "30", "id", "h1"}, want: `-u 30: this is the user on the hosts; for a time limit write -t 30 (the whole of each host) or --connect-timeout 30`},
		{args: []string{"-l", "root", "id"}, want: `-l root: there is no such file, and -l is the hosts file; for the user on the hosts write -u root`},
		{args: []string{"--hosts-file=root", "id"}, want: `--hosts-file root: there is no such file`},
		{args: []string{"-l", "no/such.txt", "id"}, want: `-l no/such.txt: there is no such file`},
		{args: []string{"id"}, env: env{"WCOLL": "/no/such"}, want: `WCOLL /no/such: there is no such file`},
		{args: []string{"-R", "rhs", "id", "h1"}, want: `-R rhs: there is no such transport; it is ssh, rsh or exec`},
		{args: []string{"-l-", "--input=-", "id"}, want: `standard input cannot be both the hosts (-l -) and the input of the command (--input -); put one of them into a file`},

		{args: []string{"-Rrsh", "--plain", "--kill-on-disconnect", "id", "h1"}, want: `--plain sends the bare text, and --kill-on-disconnect needs what --plain leaves out; give one of them`},
		{args: []string{"-Rrsh", "--plain", "--input=x", "id", "h1"}, want: `--plain sends the bare text, and --input needs what --plain leaves out; give one of them`},
		{args: []string{"-Rrsh", "--plain", "-S", "id", "h1"}, want: `with --plain no exit status is known, so -S has nothing to tell; give one of them`},
		{args: []string{"-Rexec", "--plain", "id", "h1"}, want: `--plain is for rsh and ssh, and no host here is reached by it; leave it out`},
		{args: []string{"-Rexec", "--kill-on-disconnect", "id", "h1"}, want: `--kill-on-disconnect is for rsh and ssh, and no host here is reached by it; leave it out`},
		{args: []string{"--plain", "--sh", "id", "h1"}, want: `--plain sends the text as it is, and --sh and --merge put it below a wrapper; give one of them`},
		{args: []string{"--plain", "--kill-on-disconnect", "id", "h1"}, want: `--plain sends the bare text, and --kill-on-disconnect needs what --plain leaves out; give one of them`},
		{args: []string{"-Rrsh", "-Jgate", "id", "h1"}, want: `-J is for ssh, and no host here is reached by it; leave it out`},
		{args: []string{"-Rrsh", "--legacy", "id", "h1"}, want: `--legacy is for ssh, and no host here is reached by it; leave it out`},

		{args: []string{"--host-keys=maybe", "id", "h1"}, want: `--host-keys maybe: what to do about unknown host keys is strict (refuse them), accept-new, ask, or insecure-ignore`},
		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_HOST_KEYS": "insecure-ignore"}, want: `MULTI_RSH_HOST_KEYS=insecure-ignore is not heeded: ` + byHand + `--host-keys insecure-ignore where you mean it`},
		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_LEGACY": "true"}, want: `MULTI_RSH_LEGACY is not heeded: ` + byHand + `--legacy where you mean it`},
		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_FORWARD_AGENT": "x"}, want: `MULTI_RSH_FORWARD_AGENT is not heeded: ` + byHand + `--forward-agent where you mean it`},
		{args: []string{"id", "h1"}, env: env{"MULTI_RSH_SSH_OPTION": "Port=22"}, want: `MULTI_RSH_SSH_OPTION is not heeded: ` + byHand + `--ssh-option KEY=VALUE where you mean it`},
		{args: []string{"-o", "Prot=22", "id", "h1"}, want: `-o Prot=22: unknown keyword Prot: correct it, or name it in an IgnoreUnknown line above`},
		{args: []string{"-o", "Port", "id", "h1"}, want: `-o Port: Port says nothing: add what it is to be, or remove the line`},
		{args: []string{"-o", "Host=x", "id", "h1"}, want: `-o Host=x: Host belongs in a file: write one and name it with -F`},
		{args: []string{"-i", "no/such", "id", "h1"}, want: `-i no/such: there is no such file; name the file of a private key`},
		{args: []string{"--connect-retries=-1", "id", "h1"}, want: `--connect-retries "-1": this is how often a connection is tried again that a server has dropped, a whole number from 0, as 3`},
		{args: []string{"--ask-pass", "--askpass-command=x", "id", "h1"}, want: `--ask-pass and --askpass-command both give the password; give one of them`},
		{args: []string{"--tty", "--input=x", "id", "h1"}, want: `--tty gives the command a terminal, which has no end of input as a file has; give --tty or --input, not both`},
	} {
		got, err := configureWith(test.env, test.args...)
		if err == nil {
			_, err = testEnv(test.env).selectHosts(t.Context(), got)
		}
		if err == nil {
			t.Errorf("%q: accepted as %+v", test.args, got)
			continue
		}
		if _, is := err.(*usageError); !is || err.Error() != test.want {
			t.Errorf("%q %v:\n got %v\nwant %s", test.args, test.env, err, test.want)
		}
	}
}

const byHand = `what can make a run less safe is for the command line alone; unset it, and write `

const timeHint = `a time is a number of seconds above 0 or as 2m, 1h30m, 500ms; --timeout is for the whole of each host, --connect-timeout for getting through to it`

// Whatever the arguments are, they are understood or refused with a sentence of ours.
func FuzzConfigure(f *testing.F) {
	f.Add("-p64", "--fanout=3", "-wn[1-3]", "id")
	f.Add("-", "--", "-t5", "h1")
	f.Add("-\xff", "--=", "---", "--x=\x00")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		got, err := configureWith(nil, a, b, c, d)
		if err == nil {
			if got.action == "" && (got.command == "" || len(got.include) == 0 && got.hostsFile == "") {
				t.Errorf("accepted without a command or hosts: %+v", got)
			}
			return
		}
		if _, ours := err.(*usageError); !ours {
			t.Errorf("not a sentence of ours: %v", err)
		}
	})
}
