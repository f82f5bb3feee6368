package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"multirsh/runner"
	"multirsh/runner/hostlist"
	"multirsh/transport"
	"multirsh/transport/execcmd"
)

// textOptions say what the command is made of.
var textOptions = []*option{
	{name: "script", arg: "FILE", once: true, group: "What is run", text: "a local script, - for stdin; then its arguments"},
	{name: "argv", group: "What is run", text: "the words are the command's: -- prog 'a b'"},
	{name: "subst", group: "What is run", text: "{host} {short} {rank} {user} {label.NAME} {{"},
	{name: "explain", once: true, group: "What is run", text: "print what each host would get, and run nothing"},
}

// prepareScript reads the script, from which the command is made.
func (e *env) prepareScript(ctx context.Context, c *config) (s *script, err error) {
	if c.script == "" {
		return nil, nil
	}
	err = unlessStopped(ctx, func() (err error) {
		s, err = readScript(c.script, e.Stdin)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.command = s.command(c.words, c.input != "", c.subst)
	return s, nil
}

// template is the command as --subst has it; nil: it is the same for every host.
func (c *config) template() (*template, error) {
	if !c.subst {
		return nil, nil
	}
	return parseTemplate(c.command, c.argv || c.script != "")
}

// checkTemplate shows a mistake in what the user has written, which what is made of a script is not.
func (c *config) checkTemplate() error {
	if !c.subst {
		return nil
	}
	text := c.command
	if c.script != "" {
		text = quoteWords(c.words)
	}
	_, err := parseTemplate(text, c.argv || c.script != "")
	return err
}

// commander gives each host its command.
type commander struct {
	base     transport.Command
	template *template // nil: it is base for all
	where    *destinations
}

// commander makes it, and sees to it that each host can have its command, before any is touched.
func (e *env) commander(ctx context.Context, c *config, hosts *selection, r *reach) (*commander, error) {
	m := &commander{base: transport.Command{Line: c.command}}
	var err error
	if m.template, err = c.template(); err != nil || m.template == nil {
		return m, err
	}
	if m.template.uses("user") {
		if m.where, err = e.destinations(c, hosts, r); err != nil {
			return nil, err
		}
	}
	for host := range hosts.all {
		line, err := m.line(ctx, host)
		if err == nil {
			switch host.Transport {
			case "exec":
				if err = execcmd.Validate(line); err == nil {
					_, err = execcmd.Line(line, host)
				}
			case "rsh":
				err = r.rsh.CheckLine(line)
			case "ssh":
				err = r.ssh.CheckLine(line)
			}
			if err != nil {
				err = usagef("%s: %v", host.Name, err)
			}
		}
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return m, nil
}

func (m *commander) line(ctx context.Context, host transport.Host) (string, error) {
	if m.template == nil {
		return m.base.Line, nil
	}
	user := ""
	if m.where != nil {
		to, err := m.where.of(ctx, host)
		if err != nil {
			return "", err
		}
		if user = to.user; user == "" { // of a local command
			if user, err = localUser(); err != nil {
				return "", err
			}
		}
	}
	return m.template.fill(host, user)
}

// of is the command of a host.
func (m *commander) of(host transport.Host) *transport.Command {
	if m.template == nil {
		return &m.base
	}
	command := m.base
	line, err := m.line(context.Background(), host)
	if err != nil { // which it was not when it was looked at before the run
		line = "exit 126"
	}
	command.Line = line
	return &command
}

// explain writes what each host would get, hosts that get the same together.
func (e *env) explain(ctx context.Context, c *config, hosts *selection, r *reach, m *commander) (runner.Summary, error) {
	type sent struct{ transport, text string }
	groups := map[sent][]string{}
	var order []sent
	count := 0
	for host := range hosts.all {
		if ctx.Err() != nil {
			return runner.Summary{}, context.Cause(ctx)
		}
		count++
		command := m.of(host)
		text, err := command.Line, error(nil)
		switch host.Transport {
		case "exec":
			text, err = execcmd.Line(command.Line, host)
		case "rsh":
			text, err = r.rsh.Sent(command)
		case "ssh":
			text, err = r.ssh.Sent(command)
		}
		if err != nil {
			return runner.Summary{}, usagef("%s: %v", host.Name, err)
		}
		key := sent{host.Transport, text}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], host.Name)
	}
	stdout, _ := e.streams(&c.view)
	const rule = "---------------\n"
	for _, key := range order {
		names := groups[key]
		text := key.text
		if stdout.Escape {
			lines := strings.Split(text, "\n")
			for i := range lines {
				lines[i] = printable(lines[i], 0)
			}
			text = strings.Join(lines, "\n")
		}
		if !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		head := fmt.Sprintf("%s (%d): %s\n", hostlist.Fold(func(yield func(string) bool) {
			for _, name := range names {
				if !yield(name) {
					return
				}
			}
		}), len(names), key.transport)
		if _, err := io.WriteString(stdout.W, rule+head+rule+text); err != nil {
			return runner.Summary{}, err
		}
	}
	return runner.Summary{Hosts: count, Outcomes: map[runner.Outcome]int{runner.OK: count}}, nil
}
