package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os/exec"
	"slices"

	"github.com/urfave/cli/v2"
)

// version is set by the linker for a release.
var version = "0.1.0"

//go:embed multi-rsh.1
var manual []byte

// helpPage is what --help shows: it fits a screen of 80 by 50.
type helpPage struct {
	head   string
	groups []string // of options; nil: all of them
	foot   string
}

var runHelp = helpPage{
	head: `multi-rsh runs a command on many hosts at once, over SSH or rsh.

  multi-rsh [options] "command" host...
  multi-rsh [options] -w EXPR command [argument...]     (or -g, -a, -l)
  multi-rsh hosts|runs|resume|retry|replay|report|ports|doctor ... (--help each)
`,
	groups: []string{"Hosts", "Command", "Transport", "Output", "Other"},
	foot: `Examples
  multi-rsh -u ops -p 400 "uptime" node1 node2 node3
  multi-rsh -l hosts.txt --input motd 'cat >/etc/motd'
  multi-rsh -R rsh -w 'node[001-640]!node007' systemctl is-active sshd
`,
}

var sshHelp = helpPage{
	head: `With SSH, which is the default, ~/.ssh/config and /etc/ssh/ssh_config hold as in
ssh(1), and these options go before them. The others: multi-rsh --help
`,
	groups: []string{"SSH"},
	foot: `Examples
  multi-rsh --host-keys ask -l hosts.txt uptime
  multi-rsh -J ops@gate --ask-pass -w 'node[01-16]' df -h /
`,
}

var outputHelp = helpPage{
	head: `How a run is shown, and what is kept of it. The other options: multi-rsh --help

  multi-rsh replay RUN.jsonl ...      show a recorded run again, in these ways
  multi-rsh report RUN.jsonl -o FILE  make one page for a browser of it
`,
	groups: []string{"Output", "More output"},
	foot: `Examples
  multi-rsh -b -g web uname -r
  multi-rsh --diff --normalize host,ip -g web cat /etc/resolv.conf
  multi-rsh --json=run.jsonl -q -g web 'df -h'; multi-rsh replay -b run.jsonl
`,
}

var policiesHelp = helpPage{
	head: `What is run, when a run goes on, how fast, and what is tried again. The other
options: multi-rsh --help
`,
	groups: []string{"What is run", "Policies"},
	foot: `Examples
  multi-rsh --ramp 1,10%,100% --max-fail 5% -g web systemctl restart nginx
  multi-rsh --retry 3 --rate 20/s -g web reboot-needed
`,
}

// helpTopics are the pages beside the first, by what --help is followed by.
var helpTopics = map[string]helpPage{"ssh": sshHelp, "output": outputHelp, "policies": policiesHelp}

const helpTemplate = `{{.Head}}{{range .Groups}}
{{.Name}}
{{range .Options}}  {{.Usage}}
{{end}}{{end}}
{{.Foot}}`

type helpGroup struct {
	Name    string
	Options []helpLine
}

type helpLine struct{ *option }

// Usage is the option's line, with the long names in one column.
func (o helpLine) Usage() string {
	letter := "   "
	if o.letters != "" {
		letter = "-" + o.letters[:1] + ","
	}
	return fmt.Sprintf("%s --%-20s  %s", letter, o.name+o.value(), o.text)
}

// help writes a page about the options.
func (l *commandLine) help(w io.Writer, page helpPage) error {
	var groups []helpGroup
	for _, o := range l.options {
		if page.groups != nil && !slices.Contains(page.groups, o.group) {
			continue
		}
		if len(groups) == 0 || groups[len(groups)-1].Name != o.group {
			groups = append(groups, helpGroup{Name: o.group})
		}
		last := &groups[len(groups)-1]
		last.Options = append(last.Options, helpLine{o})
	}
	var text bytes.Buffer // the library's printer drops write errors
	cli.HelpPrinterCustom(&text, helpTemplate, struct {
		Head, Foot string
		Groups     []helpGroup
	}{page.head, page.foot, groups}, nil)
	_, err := w.Write(text.Bytes())
	return err
}

// writeManual writes the page as it is, or through man(1) where a person reads it and there is one.
func (e *env) writeManual(manual []byte) error {
	if isTerminal(e.Stdout) {
		if man, err := exec.LookPath("man"); err == nil {
			page := exec.Command(man, "-l", "-")
			page.Stdin, page.Stdout, page.Stderr = bytes.NewReader(manual), e.Stdout, e.Stderr
			if page.Run() == nil {
				return nil
			}
		}
	}
	_, err := e.Stdout.Write(manual)
	return err
}
