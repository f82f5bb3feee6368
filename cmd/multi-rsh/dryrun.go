package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"multirsh/runner"
	"multirsh/runner/hostlist"
	"multirsh/transport"
	"multirsh/transport/rsh"
	"multirsh/transport/ssh/sshconfig"
)

// dryRun shows what would be run, and where: an overview on standard error, and a row for each host on standard output. A host
// of which it is known already that it could not be reached is not ok in the summary.
func (e *env) dryRun(ctx context.Context, c *config) (runner.Summary, error) {
	hosts, err := e.selectHosts(ctx, c)
	if err != nil {
		return runner.Summary{}, err
	}
	if err := c.policies.check(hosts.count); err != nil {
		return runner.Summary{}, err
	}
	where, err := e.destinations(c, hosts, nil)
	if err != nil {
		return runner.Summary{}, err
	}
	if !c.quiet {
		if err := e.overview(c, hosts); err != nil {
			return runner.Summary{}, err
		}
	}
	rows := columns{w: e.Stdout}
	if !c.noLabels {
		rows.add("RANK", "HOST", "TRANSPORT", "USER", "ADDRESS", "JUMP", "LABELS")
	}
	rank, lost := 0, 0
	for host := range hosts.all {
		to, err := where.of(ctx, host)
		if ctx.Err() != nil {
			return runner.Summary{}, context.Cause(ctx)
		}
		if err != nil {
			lost++
			fmt.Fprintf(e.Stderr, "%s: %v\n", host.Name, err)
		}
		err = rows.add(strconv.Itoa(rank), host.Name, host.Transport, to.user, to.address, to.jump, labels(host))
		if err != nil {
			return runner.Summary{}, err
		}
		rank++
	}
	return runner.Summary{Hosts: rank, Outcomes: map[runner.Outcome]int{runner.OK: rank - lost}}, rows.flush()
}

// destinations knows where the hosts lead to. r is how they are reached, if that is known already.
func (e *env) destinations(c *config, hosts *selection, r *reach) (*destinations, error) {
	where := &destinations{rshUser: c.user}
	switch {
	case r != nil && r.ssh != nil:
		where.ssh = r.ssh.Config
	case hosts.by["ssh"]:
		t, err := e.newSSH(c)
		if err != nil {
			return nil, err
		}
		where.ssh = t.Config
	}
	if hosts.by["rsh"] && c.user == "" {
		var err error
		if where.rshUser, err = localUser(); err != nil {
			return nil, err
		}
	}
	return where, nil
}

// overview says how many hosts are reached by what, as the summary of a run does.
func (e *env) overview(c *config, hosts *selection) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d at once", number(hosts.count, "host"), min(c.fanout, hosts.count))
	for _, l := range c.limits {
		fmt.Fprintf(&b, ", %d with the same %s", l.n, l.label)
	}
	if text := cmp.Or(c.title, c.command); text != "" {
		fmt.Fprintf(&b, ": %s", strings.ReplaceAll(text, "\n", "\n  "))
	}
	b.WriteByte('\n')
	for _, name := range transportNames {
		if !hosts.by[name] {
			continue
		}
		n := 0
		folded := hostlist.Fold(func(yield func(string) bool) {
			for host := range hosts.reachedBy(name) {
				n++
				if !yield(host.Name) {
					return
				}
			}
		})
		fmt.Fprintf(&b, "%s (%d): %s\n", name, n, folded)
	}
	_, err := io.WriteString(e.Stderr, b.String())
	return err
}

// destinations knows where hosts lead to.
type destinations struct {
	ssh     *sshconfig.Config
	rshUser string // of hosts that name none
}

// destination is where a host leads to; what is not known, or none, is empty.
type destination struct {
	user, address string
	jump          string // the jump hosts as -J takes them, or proxied
	hops          []sshconfig.Jump
}

// proxied is in place of jump hosts where ssh_config has a ProxyCommand.
const proxied = "(ProxyCommand)"

func (d *destinations) of(ctx context.Context, host transport.Host) (destination, error) {
	switch host.Transport {
	case "rsh":
		return destination{
			user:    cmp.Or(host.User, d.rshUser),
			address: hostPort(host.Address(), cmp.Or(host.Port, rsh.DefaultPort)),
		}, nil
	case "ssh":
		s, err := d.ssh.For(ctx, sshconfig.Target{Host: host.Name, HostName: host.Addr, User: host.User, Port: host.Port, Jump: host.Jump})
		if err != nil {
			return destination{}, err
		}
		to := destination{user: s.User, address: hostPort(s.HostName, s.Port), hops: s.ProxyJump}
		var hops []string
		for _, hop := range s.ProxyJump {
			hops = append(hops, hop.String())
		}
		to.jump = strings.Join(hops, ",")
		if s.ProxyCommand != "" {
			to.jump = proxied
		}
		return to, nil
	}
	return destination{user: host.User}, nil
}

func hostPort(address string, port uint16) string {
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}

// labels are those of a host, as --limit-by names them.
func labels(host transport.Host) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(host.Vars)) {
		if label, is := strings.CutPrefix(name, labelPrefix); is {
			all = append(all, label+"="+host.Vars[name])
		}
	}
	return strings.Join(all, ",")
}

// columns writes rows with their cells one below the other. It aligns as many rows at a time as fit into memory and patience:
// columns grow where later rows are wider, and never shrink.
type columns struct {
	w      io.Writer
	rows   [][]string
	widths []int
}

const rowsAtOnce = 4096

// add takes a row, whose empty cells are shown as a dash.
func (c *columns) add(cells ...string) error {
	if c.widths == nil {
		c.widths = make([]int, len(cells))
	}
	for i, cell := range cells {
		cells[i] = cmp.Or(cell, "-")
		c.widths[i] = max(c.widths[i], utf8.RuneCountInString(cells[i]))
	}
	c.rows = append(c.rows, cells)
	if len(c.rows) < rowsAtOnce {
		return nil
	}
	return c.flush()
}

// flush writes the rows that have been added.
func (c *columns) flush() error {
	var text bytes.Buffer
	for _, row := range c.rows {
		for i, cell := range row {
			text.WriteString(cell)
			if i == len(row)-1 {
				break
			}
			for n := utf8.RuneCountInString(cell); n < c.widths[i]+2; n++ {
				text.WriteByte(' ')
			}
		}
		text.WriteByte('\n')
	}
	c.rows = c.rows[:0]
	_, err := c.w.Write(text.Bytes())
	return err
}
