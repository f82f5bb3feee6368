package groups

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Netgroup is the netgroups of nsswitch.conf(5), asked for through getent(1), which resolves netgroups within netgroups. Their hosts are the first fields of
// the triples; a triple without one stands for every host, or for none, and names none. Netgroups cannot be listed.
func Netgroup() Source { return netgroup{} }

type netgroup struct{}

func (netgroup) Map(ctx context.Context, group string) (string, error) {
	if !validName(group) {
		return "", ErrNoGroup
	}
	out, err := runCommand(ctx, command{args: []string{"getent", "netgroup", group}})
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 2 {
		return "", ErrNoGroup // getent(1): "one or more supplied key could not be found in the database"
	}
	if err != nil {
		return "", err
	}
	var hosts []string
	for triple := range strings.SplitSeq(out, "(") {
		fields, _, closed := strings.Cut(triple, ")")
		if !closed {
			continue // the name, before the first
		}
		host, _, comma := strings.Cut(fields, ",")
		if !comma {
			return "", fmt.Errorf("%s: expected (host,user,domain), found %s", getent(group), quote("("+fields+")"))
		}
		switch host = strings.TrimSpace(host); {
		case host == "" || host == "-":
		case !plain(host):
			return "", fmt.Errorf("%s: %s is no name of a host, in (%s)", getent(group), quote(host), fields)
		default:
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, "\n"), nil
}

func getent(group string) string { return quote("getent netgroup " + group) }

func (netgroup) List(context.Context) ([]string, error) {
	return nil, fmt.Errorf("netgroups: %w, only asked for by name", ErrNoList)
}

func (netgroup) Where(group string, _ int) string { return getent(group) }
