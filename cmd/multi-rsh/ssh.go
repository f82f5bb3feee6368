package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/term"

	"multirsh/runner/hostlist"
	"multirsh/transport"
	"multirsh/transport/ssh"
	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/sshconfig"
)

// newSSH is the transport as the options want it, but for its Wallet, which prepareSSH gives it. It has read the configuration.
func (e *env) newSSH(c *config) (*ssh.Transport, error) {
	settings, err := sshconfig.Read(sshconfig.Sources{File: c.sshConfig, Options: c.sshOptions})
	if err != nil {
		return nil, usagef("%v", err)
	}
	jumps := settings
	if len(c.sshOptions) > 0 {
		if jumps, err = sshconfig.Read(sshconfig.Sources{File: c.sshConfig}); err != nil {
			return nil, usagef("%v", err)
		}
	}
	t := &ssh.Transport{
		Config: settings, JumpConfig: jumps, HostKeys: c.hostKeys, ConnectTimeout: c.connectTimeout, Retries: c.retries,
		Legacy: c.legacy, ForwardAgent: c.forwardAgent, Merge: c.merge, Plain: c.plain, Shell: c.sh, KillOnDisconnect: c.killOnDisconnect && !c.plain,
		Warn: func(err error) { fmt.Fprintf(e.Stderr, "multi-rsh: %v\n", err) },
	}
	if c.tty {
		t.Terminal = e.remoteTerminal()
	}
	if err := t.CheckLine(c.command); err != nil {
		return nil, usagef("%v", err)
	}
	return t, nil
}

// remoteTerminal is what the commands' terminals are to be like: as ours, where we have one.
func (e *env) remoteTerminal() *ssh.Terminal {
	t := &ssh.Terminal{Type: e.Getenv("TERM"), Columns: 80, Rows: 24}
	if t.Type == "" {
		t.Type = "dumb"
	}
	for _, stream := range []any{e.Stdout, e.Stderr, e.Stdin} {
		if file, is := terminal(stream); is {
			if columns, rows, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 && rows > 0 {
				t.Columns, t.Rows = columns, rows
				break
			}
		}
	}
	return t
}

// prepareSSH does what no worker may do: it asks for password, passphrases and unknown host keys, all before the run. When it has
// succeeded the transport has a Wallet, which the caller closes.
func (e *env) prepareSSH(ctx context.Context, c *config, t *ssh.Transport, hosts *selection) (err error) {
	options := auth.Options{
		Passphrase: func(file string) (string, error) { return e.ask(ctx, "Passphrase for "+file+": ", hidden) },
	}
	if c.askPass || c.askpassCommand != "" {
		password, err := e.password(ctx, c)
		if err != nil {
			return err
		}
		options.Password = func() (string, error) { return password, nil }
	}
	t.Wallet = auth.New(options)
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			t.Shutdown(ctx) // jump hosts that were connected to for the keys of those behind them
			t.Wallet.Close()
		}
	}()
	all, learns := hosts.reachedBy("ssh"), true
	speakers := ssh.Each(all)
	if hosts.alike {
		if few, ok := t.Speakers(ctx, all, hosts.count, hosts.has); ok {
			speakers, learns = few, false
			for host := range few {
				learns = learns || t.LearnsHostKeys(ctx, host)
			}
		}
	}
	if err := t.Prepare(ctx, speakers); err != nil {
		return usagef("%v", err)
	}
	if err := enoughFiles(c, hosts, func(n int) int { return t.Files(n) + behind(n) }); err != nil {
		return err
	}
	if !learns {
		return nil
	}
	return e.hostKeys(ctx, c, t, all)
}

// password gets it from a person or from a command of theirs.
func (e *env) password(ctx context.Context, c *config) (password string, err error) {
	if c.askPass {
		password, err = e.ask(ctx, "Password on the hosts: ", hidden)
		if errors.Is(err, errNoTerminal) {
			return "", usagef("--ask-pass: %v; --askpass-command has a command say the password", err)
		}
	} else {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.askpassCommand)
		cmd.Stderr, cmd.WaitDelay = e.Stderr, patience
		var said []byte
		if said, err = cmd.Output(); err != nil {
			return "", usagef("the --askpass-command has given no password: %v", err)
		}
		password, _, _ = strings.Cut(string(said), "\n")
	}
	if err != nil {
		return "", err
	}
	if password == "" {
		return "", usagef("the password is empty, so nothing has been run")
	}
	return password, nil
}

// hostKeys has the keys that no file knows looked at and accepted, where the policy is to do so, those of jump hosts first: the
// hosts behind them cannot be asked before.
func (e *env) hostKeys(ctx context.Context, c *config, t *ssh.Transport, hosts iter.Seq[transport.Host]) error {
	if t.HostKeys == ssh.Strict || t.HostKeys == ssh.Ignore {
		return nil
	}
	for {
		keys, err := t.UnknownHostKeys(ctx, hosts, c.fanout)
		if err != nil || len(keys) == 0 {
			return err
		}
		inOrder(keys, hosts)
		list, count := describe(keys)
		if t.HostKeys == ssh.Ask {
			if err := e.askHostKeys(ctx, list, count); err != nil {
				return err
			}
		}
		if err := t.AcceptHostKeys(keys); err != nil {
			return fmt.Errorf("the host keys cannot be kept: %w", err)
		}
		if t.HostKeys != ssh.Ask && !c.quiet {
			fmt.Fprintf(e.Stderr, "%smulti-rsh: accepted %s\n", list, count)
		}
		if !slices.ContainsFunc(keys, func(k ssh.UnknownKey) bool { return k.JumpHost() != "" }) {
			return nil
		}
	}
}

// askHostKeys shows the keys and asks whether they are right. Both are on the terminal, wherever standard error goes.
func (e *env) askHostKeys(ctx context.Context, list, count string) error {
	keys := "No file knows these host keys:\n" + list
	question := fmt.Sprintf("Accept %s, and go on? (yes, no, show) ", count)
	for text := keys + question; ; {
		answer, err := e.ask(ctx, text, visible)
		if errors.Is(err, errNoTerminal) {
			io.WriteString(e.Stderr, keys)
			return usagef("--host-keys ask: %v; compare the fingerprints with the hosts' own, then use --host-keys accept-new once", err)
		}
		text = question
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "yes":
			return nil
		case "show":
			text = keys + question
		case "no":
			err = io.EOF
		}
		if err == io.EOF {
			return usagef("the host keys were not accepted, so nothing has been run")
		}
		if err != nil {
			return err
		}
	}
}

// inOrder sorts the keys as their hosts come in the run.
func inOrder(keys []ssh.UnknownKey, hosts iter.Seq[transport.Host]) {
	place := make(map[string]int, len(keys))
	for _, k := range keys {
		place[k.Host.Name] = 0
	}
	n := 0
	for host := range hosts {
		if _, asked := place[host.Name]; asked {
			place[host.Name] = n
		}
		n++
	}
	slices.SortStableFunc(keys, func(a, b ssh.UnknownKey) int { return place[a.Host.Name] - place[b.Host.Name] })
}

// describe shows keys, each once with all the hosts that have it, and counts them.
//
//	ssh-ed25519 SHA256:…  node[01-16] (16 hosts)
func describe(keys []ssh.UnknownKey) (list, count string) {
	type line struct {
		key  string
		jump bool
	}
	var lines []line
	names := map[line][]string{}
	distinct := map[string]bool{}
	hosts := 0
	for _, k := range keys {
		at := line{k.Fingerprint(), k.JumpHost() != ""}
		name := k.Host.Name
		if at.jump {
			name = k.JumpHost()
		}
		if names[at] == nil {
			lines = append(lines, at)
		}
		names[at] = append(names[at], name)
		distinct[at.key] = true
		hosts++
	}
	var b strings.Builder
	for _, at := range lines {
		what, n := "host", len(names[at])
		if at.jump {
			what = "jump host"
		}
		fmt.Fprintf(&b, "  %s  %s (%s)\n", at.key, hostlist.Fold(slices.Values(names[at])), number(n, what))
	}
	return b.String(), number(len(distinct), "host key") + " of " + number(hosts, "host")
}

// number is n and a noun, in the plural where it must be.
func number(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
