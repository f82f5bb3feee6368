package groups

import (
	"fmt"
	"strings"
)

// File is a file with a group a line, "NAME: EXPR", as ClusterShell's groups. A name may come again and adds hosts; what follows a '#' at
// the begin of a line or after a blank is a comment.
func File(path string) Source {
	return once(func() (*table, error) {
		text, err := readText(path)
		if err != nil {
			return nil, err
		}
		t := &table{path: path}
		for number, line := range lines(text) {
			line = uncomment(line)
			if line == "" {
				continue
			}
			name, hosts, colon := strings.Cut(line, ":")
			if name = strings.TrimSpace(name); !colon || !validName(name) {
				return nil, fmt.Errorf("%s:%d: expected GROUP: HOSTS, found %s", path, number, quote(line))
			}
			if err := t.add(name, number, strings.TrimSpace(hosts)); err != nil {
				return nil, err
			}
		}
		return t, nil
	})
}
