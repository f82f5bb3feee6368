package inventory

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"multirsh/runner/hostlist"
	"multirsh/transport"
)

// place is where something stands; a line of 0 is none.
type place struct {
	file string
	line int
}

func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return p.file + ":" + strconv.Itoa(p.line)
}

// claim is what one place sets for hosts.
type claim struct {
	at    place
	group *node          // whose hosts they are; nil: those of a line
	name  string         // where it is one host: that
	hosts *hostlist.List // otherwise
	set   []setting
}

// where is the place, for the end of a sentence.
func (c *claim) where() string {
	if c.group == nil {
		return "at " + c.at.String()
	}
	return "as a host of " + c.group.what + " at " + c.at.String()
}

// has reports whether the claim is about a host.
func (c *claim) has(host string) bool {
	return c.name == host || c.hosts != nil && c.hosts.Contains(host)
}

// keyed is the part of a claim that is about one key.
type keyed struct {
	*claim
	*setting
	hosts *hostlist.List
}

// layer is what the places of one kind set. But for what other layers overrule, no host has two values for one key in it; so however often
// files repeat themselves, a look-up finds no more than there are keys.
type layer struct {
	one        map[string][]setting // of hosts that have claims of their own
	index      hostlist.Index[*setting]
	indexed    bool     // there is something in it
	transports []bucket // the hosts that each of the transports is set for
}

// rules are how claims of one kind go together.
type rules struct {
	// leave leaves those claims of a key that hold, for the hosts for which they do. Nil: all of them.
	leave func(cs []keyed) []keyed
	// overruled reports whether what the layer says of a host's key does not matter. Nil: it never is.
	overruled func(host, key string) bool
}

// ordered makes a layer of claims, of which the first that sets a host's key holds. There are few of them for each host.
func ordered(claims []claim) *layer {
	l := &layer{}
	for i := range claims {
		c := &claims[i]
		for j := range c.set {
			l.index.Add(c.hosts, &c.set[j])
			l.indexed = true
			if c.set[j].key == keyTransport {
				l.transports = append(l.transports, bucket{&c.set[j], c.hosts})
			}
		}
	}
	return l
}

// build makes a layer of claims. Two values for one host's key contradict each other, and that is an error.
func build(claims []claim, r rules) (*layer, error) {
	l := &layer{}
	var keys []string
	var alone []*claim // of one host each
	by := map[string][]keyed{}
	reached := map[string][]string{} // their hosts, by transports
	for i := range claims {
		c := &claims[i]
		if c.name != "" {
			if l.one == nil {
				l.one = make(map[string][]setting, len(claims))
			}
			set, err := merged(l.one[c.name], c, claims)
			if err != nil {
				return nil, err
			}
			l.one[c.name] = set
			alone = append(alone, c)
			if s := find(c.set, keyTransport); s != nil {
				reached[s.value] = append(reached[s.value], c.name)
			}
			continue
		}
		for j := range c.set {
			key := c.set[j].key
			if by[key] == nil {
				keys = append(keys, key)
			}
			by[key] = append(by[key], keyed{c, &c.set[j], c.hosts})
		}
	}
	l.indexed = len(keys) > 0
	for _, key := range keys {
		cs := by[key]
		if r.leave != nil {
			cs = r.leave(cs)
		}
		buckets := bucketed(cs)
		total, lists := 0, make([]*hostlist.List, len(buckets))
		for i, b := range buckets {
			total += b.hosts.Len()
			lists[i] = b.hosts
		}
		if len(lists) > 1 && union(lists).Len() < total {
			var err error
			if buckets, err = disjoint(cs, r); err != nil {
				return nil, err
			}
		}
		for _, b := range buckets {
			l.index.Add(b.hosts, b.set)
		}
		for _, c := range alone {
			if s := find(c.set, key); s != nil && l.indexes(c.name, *s) {
				return nil, clash(c.name, key, claims)
			}
		}
		if key == keyTransport {
			l.transports = append(l.transports, buckets...)
		}
	}
	for value, names := range reached {
		l.transports = append(l.transports, bucket{&setting{key: keyTransport, value: value}, hostlist.Of(slices.Values(names))})
	}
	return l, nil
}

// indexes reports whether the index has another value for a host's key.
func (l *layer) indexes(host string, set setting) bool {
	for s := range l.index.Lookup(host) {
		if s.key == set.key && s.of(host) != set.value {
			return true
		}
	}
	return false
}

// merged is what was set for a host and what c sets for it.
func merged(set []setting, c *claim, claims []claim) ([]setting, error) {
	if set == nil {
		return c.set, nil
	}
	set = slices.Clip(set)
	for _, s := range c.set {
		if before := find(set, s.key); before == nil {
			set = append(set, s)
		} else if before.value != s.value {
			return nil, clash(c.name, s.key, claims)
		}
	}
	return set, nil
}

// clash is the error that two of the claims contradict each other about a host's key: the first one of all, and the first that sets
// something else.
func clash(host, key string, claims []claim) error {
	var about []keyed
	for i := range claims {
		c := &claims[i]
		if s := find(c.set, key); s != nil && c.has(host) {
			about = append(about, keyed{claim: c, setting: s})
		}
	}
	other := slices.IndexFunc(about, func(k keyed) bool { return k.of(host) != about[0].of(host) })
	return contradiction(host, about[0], about[other])
}

// bucket is the hosts that have the same value for a key.
type bucket struct {
	set   *setting
	hosts *hostlist.List
}

// bucketed is the claims by their values.
func bucketed(cs []keyed) []bucket {
	type same struct{ value, from string }
	at := map[same]int{}
	var buckets []bucket
	var hosts []gathered
	for _, c := range cs {
		i, is := at[same{c.value, c.from}]
		if !is || c.pairs != nil {
			i = len(buckets)
			buckets, hosts = append(buckets, bucket{set: c.setting}), append(hosts, gathered{})
			if c.pairs == nil {
				at[same{c.value, c.from}] = i
			}
		}
		hosts[i].add(c.hosts)
	}
	for i := range buckets {
		buckets[i].hosts = hosts[i].list()
	}
	return buckets
}

// disjoint is the claims of one key by their values, without those that say again what is known of all of their hosts. It goes through all
// hosts, as is needed only where claims overlap: in a file that contradicts itself, or that gives hosts the same address twice.
func disjoint(cs []keyed, r rules) ([]bucket, error) {
	const most = 2 * hostlist.MaxHosts
	type first struct {
		value string
		by    int
	}
	known := map[string]first{}
	var buckets []bucket
	walked := 0
	for i, c := range cs {
		fresh := false
		for host := range c.hosts.All() {
			if walked++; walked > most {
				return nil, fmt.Errorf("%s: up to here %s= has been set for the same hosts again and again, more than %d times in all", c.at, c.key, most)
			}
			value := c.of(host)
			before, is := known[host]
			if !is {
				known[host] = first{value, i}
				fresh = true
			} else if before.value != value && (r.overruled == nil || !r.overruled(host, c.key)) {
				return nil, contradiction(host, cs[before.by], c)
			}
		}
		if fresh {
			buckets = append(buckets, bucket{c.setting, c.hosts})
		}
	}
	return buckets, nil
}

// contradiction is the error that two places set different things for a host.
func contradiction(host string, before, c keyed) error {
	was, is := *before.setting, *c.setting
	was.value, is.value = was.of(host), is.of(host)
	here := "here"
	mend := "let one line set it"
	if c.group != nil {
		here = "as a host of " + c.group.what
		mend = "set it on a line of the host's own"
	}
	return fmt.Errorf("%s: %s has %s %s, but %s %s: %s", c.at, host, is, here, was, before.where(), mend)
}

// apply sets what the layer sets for h and h has not yet. own is whether h.Vars is of no other host.
func (l *layer) apply(h *transport.Host, own *bool) {
	one := l.one[h.Name]
	for i := range one {
		one[i].apply(h, own)
	}
	if l.indexed {
		for s := range l.index.Lookup(h.Name) {
			s.apply(h, own)
		}
	}
}

func (s *setting) apply(h *transport.Host, own *bool) {
	switch s.key {
	case keyTransport:
		h.Transport = or(h.Transport, s.value)
	case keyUser:
		h.User = or(h.User, s.value)
	case keyJump:
		h.Jump = or(h.Jump, s.value)
	case keyAddr:
		if h.Addr == "" {
			h.Addr = s.of(h.Name)
		}
	case keyPort:
		if h.Port == 0 {
			n, _ := strconv.ParseUint(s.value, 10, 16)
			h.Port = uint16(n)
		}
	case keyFanout:
	default:
		addVar(h, s, own)
	}
}

// sets reports whether the layer sets a host's key.
func (l *layer) sets(host, key string) bool {
	if find(l.one[host], key) != nil {
		return true
	}
	for s := range l.index.Lookup(host) {
		if s.key == key {
			return true
		}
	}
	return false
}

func or(set, otherwise string) string {
	if set != "" {
		return set
	}
	return otherwise
}

// addVar gives h a label that it has not yet.
func addVar(h *transport.Host, label *setting, own *bool) {
	if h.Vars == nil {
		h.Vars = label.vars
		return
	}
	if _, has := h.Vars[label.key]; has {
		return
	}
	if !*own {
		h.Vars, *own = maps.Clone(h.Vars), true
	}
	h.Vars[label.key] = label.value
}
