package inventory

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"multirsh/runner/hostlist"
)

// Settings say how hosts are reached, and more about them. What is zero is not set.
type Settings struct {
	Transport, User string
	Port            uint16
	Addr            string            // to connect to: an expression with one name for each of the hosts, in their order
	Jump            string            // as ssh(1)'s -J takes it
	Labels          map[string]string // as rack: r1
	Fanout          int               // so many of the hosts at once; of the configuration alone
}

// Keys of settings, as hosts files have them. A label's is labelPrefix and its name, as in transport.Host.Vars.
const (
	keyTransport = "transport"
	keyUser      = "user"
	keyPort      = "port"
	keyAddr      = "addr"
	keyJump      = "jump"
	keyFanout    = "fanout"
	labelPrefix  = "label."
)

const knownSettings = "transport=, user=, port=, addr=, jump=, label="

// maxLabels is the most names of labels that an inventory may have. Each is looked at for each of its hosts.
const maxLabels = 1000

// setting is one key and its value, which has been checked. It is not changed any more once hosts have it.
type setting struct {
	key, value string
	pairs      *pairs            // of an addr= for several hosts; nil: the value is the address
	vars       map[string]string // of a label: itself, as transport.Host has it
	from       string            // of a fanout: what is limited
}

// pairs are hosts and their addresses. They are matched when the first is asked for.
type pairs struct {
	hosts, addrs *hostlist.List
	once         sync.Once
	by           map[string]string
}

func (p *pairs) addr(host string) string {
	p.once.Do(func() {
		p.by = make(map[string]string, p.hosts.Len())
		next, stop := iter.Pull(p.addrs.All())
		defer stop()
		for host := range p.hosts.All() {
			p.by[host], _ = next()
		}
	})
	return p.by[host]
}

// of is the value for a host.
func (s *setting) of(host string) string {
	if s.pairs != nil {
		return s.pairs.addr(host)
	}
	return s.value
}

// fit has an addr= fit n hosts: an address for each of them.
func (s *setting) fit(n int, hosts *hostlist.List) error {
	if s.key != keyAddr || n == 1 && isPlain(s.value) {
		return nil
	}
	addrs, err := hostlist.Hosts(s.value)
	switch {
	case err != nil:
		return fmt.Errorf("addr=%s: %w", s.value, err)
	case addrs.Len() != n:
		return fmt.Errorf("addr=%s has %s for %s: give each host one of its own, as in n[1-3] addr=10.0.0.[1-3]",
			s.value, count(addrs.Len(), "address", "addresses"), count(n, "host", "hosts"))
	case n > 1:
		s.pairs = &pairs{hosts: hosts, addrs: addrs}
	default:
		for s.value = range addrs.All() { // [::1] is the address ::1
		}
	}
	return nil
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// String is the setting as a hosts file has it.
func (s setting) String() string {
	if label, is := strings.CutPrefix(s.key, labelPrefix); is {
		return "label=" + label + ":" + s.value
	}
	return s.key + "=" + s.value
}

// settings returns what is set, in the order of the keys above.
func (s Settings) settings() []setting {
	var all []setting
	add := func(key, value string) {
		if value != "" {
			all = append(all, setting{key: key, value: value})
		}
	}
	add(keyTransport, s.Transport)
	add(keyUser, s.User)
	if s.Port != 0 {
		add(keyPort, strconv.Itoa(int(s.Port)))
	}
	add(keyAddr, s.Addr)
	add(keyJump, s.Jump)
	if s.Fanout > 0 {
		add(keyFanout, strconv.Itoa(s.Fanout))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		all = append(all, setting{key: labelPrefix + name, value: s.Labels[name]})
	}
	return all
}

// parseSettings reads the words of a line.
func (inv *Inventory) parseSettings(words []string) ([]setting, error) {
	set := make([]setting, 0, len(words))
	add := func(s setting) error {
		if before := find(set, s.key); before != nil {
			return fmt.Errorf("this line sets %s and %s: leave one of them out", before, s)
		}
		if err := inv.checkSetting(s); err != nil {
			return err
		}
		set = append(set, s)
		return nil
	}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case !ok:
			return nil, fmt.Errorf("%q stands after a setting: hosts come first, then settings such as user=ops", word)
		case key == "label":
			for text := range strings.SplitSeq(value, ",") {
				name, value, ok := strings.Cut(text, ":")
				if !ok {
					return nil, fmt.Errorf("label=%s says no value: write label=NAME:VALUE, as label=rack:r1", text)
				}
				if err := add(inv.label(name, value)); err != nil {
					return nil, err
				}
			}
		case key == keyTransport || key == keyUser || key == keyPort || key == keyAddr || key == keyJump:
			if err := add(setting{key: key, value: value}); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("there is no setting %q: there is %s", key, knownSettings)
		}
	}
	return set, nil
}

// label is a label, made once for all hosts that have it: they share its vars.
func (inv *Inventory) label(name, value string) setting {
	values := inv.labels[name]
	if values == nil {
		values = map[string]setting{}
		inv.labels[name] = values
	}
	s, is := values[value]
	if !is {
		s = setting{key: labelPrefix + name, value: value}
		s.vars = map[string]string{s.key: value}
		values[value] = s
	}
	return s
}

// checkSetting refuses values that cannot be right.
func (inv *Inventory) checkSetting(s setting) error {
	switch s.key {
	case keyTransport:
		if !slices.Contains(inv.options.Transports, s.value) {
			return fmt.Errorf("there is no transport %q: there is %s", s.value, strings.Join(inv.options.Transports, ", "))
		}
	case keyUser:
		name := s.value
		if len(name) > 1 {
			name = strings.TrimSuffix(name, "$") // of an account of a machine (useradd(8))
		}
		if name == "" || name[0] == '-' || strings.ContainsFunc(name, notInUser) {
			return fmt.Errorf("user=%q is no user name: expected letters, digits and punctuation, not beginning with '-'", s.value)
		}
	case keyPort:
		n, err := strconv.ParseUint(s.value, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("port=%q is no TCP port: expected a number from 1 to 65535", s.value)
		}
	case keyJump:
		if s.value == "" || s.value[0] == '-' || strings.ContainsFunc(s.value, notInJump) {
			return fmt.Errorf("jump=%q is no way to a host: expected [user@]host[:port], more than one with commas between them, or none", s.value)
		}
	case keyAddr, keyFanout:
	default:
		name := s.key[len(labelPrefix):]
		switch {
		case name == "" || strings.ContainsFunc(name, notInLabel):
			return fmt.Errorf("%q is no name for a label: expected letters, digits, '_', '-' and '.'", name)
		case s.value == "":
			return fmt.Errorf("label %s is empty: write label=NAME:VALUE, as label=rack:r1", name)
		case !utf8.ValidString(s.value) || strings.ContainsFunc(s.value, func(r rune) bool { return !unicode.IsPrint(r) }):
			return fmt.Errorf("label %s has the value %q: expected text that can be printed", name, s.value)
		case len(inv.labels) > maxLabels:
			return fmt.Errorf("with %s there are more than %d names of labels: a label's name is a kind of thing, as rack, and what differs is its value", name, maxLabels)
		}
	}
	return nil
}

// notInUser reports characters that no user name has, on any system: those that shells and protocols give a meaning.
func notInUser(r rune) bool {
	return r == unicode.ReplacementChar || !unicode.IsPrint(r) || strings.ContainsRune("\"'`$&|;<>()*?[]{}!/", r)
}

// notInJump is notInUser for several ways to hosts, which may have addresses in brackets in them.
func notInJump(r rune) bool {
	return r == '\\' || r == ' ' || notInUser(r) && !strings.ContainsRune("[]/", r)
}

func notInLabel(r rune) bool {
	return r == utf8.RuneError || !unicode.In(r, unicode.L, unicode.M, unicode.Nd) && !strings.ContainsRune("_-.", r)
}

func find(set []setting, key string) *setting {
	for i := range set {
		if set[i].key == key {
			return &set[i]
		}
	}
	return nil
}
