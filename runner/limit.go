package runner

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"multirsh/transport"
)

// Limit has the hosts that share its Key run at most N at once, be they those of a rack or those of a line in the configuration.
// An N of 0 or less limits nothing. Where hosts give one Key different Ns, each waits until fewer than its own N run.
type Limit struct {
	Key string
	N   int
}

const (
	// mostAside is how many hosts are set aside at most; then no more are pulled until one of them can go. So a million hosts of one rack
	// cost no more than these (less than 10 MB with a label each), and 64 at once, 2 in a rack, find their hosts in racks of up to 512.
	mostAside = 1 << 14
	// mostPassed bounds how often the host that has waited longest is passed by others that need one of its keys: one with two keys
	// could wait for ever for both to have room at the same moment.
	mostPassed = 16
)

// turns decides whose turn it is: hosts go in order, but for those set aside because a limit of theirs is full, and those that have failed and
// are tried again. They go before all later ones as soon as all of their limits have room, the one that has waited longest first. All of
// it is in the hands of one goroutine, that of pull.
//
//	hosts ──► admit ──► start, in a slot, not before its time ──► ended ──► await: room in its limits, a free slot
//	             │                                                  │         ▲ go first
//	             ├────► aside, by class ────────────────────────────┼─────────┘
//	             │         ▲ when it is time                        │
//	             │       later, in no slot ◄── to be tried again ───┘
type turns struct {
	*run
	group   errgroup.Group
	slots   int        // free ones
	running int        // hosts
	ended   chan ended // when its slot is free again
	pace    pacer
	later   retries
	timer   *time.Timer // nil: none was needed yet

	unlimited class
	classes   map[string]*class // those that have hosts
	keys      map[string]*key
	id        []byte // of a class, on its way into classes
	aside     int    // hosts
	arrivals  int    // hosts ever set aside
	oldest    *class // whose first host has been set aside for longest; nil: none is
	given     []int  // what oldest's keys had given when it became the oldest
}

// ended is a task that has, and its host's class.
type ended struct {
	*task
	*class
}

// class is the hosts with the same limits. Among them order alone decides.
type class struct {
	id     string
	limits []share
	hosts  int // that run, are set aside or are about to
	aside  []place
}

// share is a class's part in a key.
type share struct {
	*key
	n int
}

// key counts the hosts that share a Limit's Key.
type key struct {
	name    string
	running int
	given   int // how often it let a host run
	classes int
}

// place is a host's in the run.
type place struct {
	seq     int
	arrival int // among those set aside
	host    transport.Host
	last    *Result // of the try before; nil: there was none
}

func (x *run) newTurns() *turns {
	return &turns{
		run: x, slots: positive(x.Fanout, DefaultFanout), ended: make(chan ended),
		pace:    pacer{interval: x.Rate.Interval(), delay: x.Delay},
		classes: map[string]*class{}, keys: map[string]*key{},
	}
}

// admit starts a host or sets it aside, once it can be said which: when one may start. A run that has ended has neither.
func (q *turns) admit(p place) {
	c := q.class(p.host)
	c.hosts++
	for q.halt.Err() == nil {
		switch {
		case !q.free() || len(q.later) >= mostAside:
		case q.fits(c):
			q.start(c, p)
			return
		case q.aside < mostAside:
			q.setAside(c, p)
			return
		}
		q.await()
	}
	q.never()
	q.newTask(p).never()
}

// settle waits until all hosts so far have ended, and says whether the run then goes on.
func (q *turns) settle() bool {
	for q.running+q.aside+len(q.later) > 0 && q.halt.Err() == nil {
		q.await()
	}
	return q.halt.Err() == nil
}

// finish sees all hosts to their end.
func (q *turns) finish() {
	q.settle()
	q.never()
	for q.running > 0 {
		q.release(<-q.ended)
		q.never() // if it was to be tried again, decided before the run's end
	}
	q.group.Wait()
}

// free tells whether a host may start now, as far as its limits allow.
func (q *turns) free() bool { return q.slots > 0 && q.pace.ready() }

// await waits until a host has ended or it is time for another, and starts those set aside that can go now. It returns at the end of the run's
// time, too.
func (q *turns) await() {
	select {
	case e := <-q.ended:
		q.release(e)
	case <-q.alarm():
	case <-q.halt.Done():
	}
	for len(q.later) > 0 && time.Until(q.later[0].due) <= 0 {
		r := q.later.pop()
		q.setAside(r.class, r.place)
	}
	for q.aside > 0 && q.free() && q.halt.Err() == nil {
		c := q.next()
		if c == nil {
			return
		}
		p := c.aside[0]
		c.aside[0] = place{}
		c.aside = c.aside[1:]
		q.aside--
		if c == q.oldest {
			q.findOldest()
		}
		q.start(c, p)
	}
}

// alarm rings when the pace allows another host, or the next try of one is due. Without a slot neither matters.
func (q *turns) alarm() <-chan time.Time {
	if q.slots == 0 {
		return nil
	}
	wait := q.pace.left()
	if len(q.later) > 0 {
		if due := max(1, time.Until(q.later[0].due)); wait == 0 || due < wait {
			wait = due
		}
	}
	if wait == 0 {
		return nil
	}
	if q.timer == nil {
		q.timer = time.NewTimer(wait)
	} else {
		q.timer.Reset(wait)
	}
	return q.timer.C
}

// never gives those that wait their results when they will not be started.
func (q *turns) never() {
	if q.aside+len(q.later) == 0 {
		return
	}
	all := q.unlimited.aside
	q.unlimited.aside = nil
	for _, c := range q.classes {
		all = append(all, c.aside...)
		c.aside = nil
	}
	for _, r := range q.later {
		all = append(all, r.place)
	}
	q.aside, q.oldest, q.later = 0, nil, nil
	slices.SortFunc(all, func(a, b place) int { return cmp.Compare(a.seq, b.seq) })
	for _, p := range all {
		q.newTask(p).never()
	}
}

func (q *turns) start(c *class, p place) {
	for _, l := range c.limits {
		l.running++
		l.given++
	}
	q.slots--
	q.running++
	q.pace.started()
	t := q.newTask(p)
	q.group.Go(func() error {
		t.host()
		q.ended <- ended{t, c}
		return nil
	})
}

// release gives back what a host has held.
func (q *turns) release(e ended) {
	t, c := e.task, e.class
	q.slots++
	q.running--
	for _, l := range c.limits {
		l.running--
	}
	if t.Kind == Again {
		last := t.result // the task itself is far larger
		q.later.push(retry{last.Ended.Add(q.Retry.after(last.Tries)), c, place{seq: t.Seq, host: t.Host, last: &last}})
		return
	}
	if c.hosts--; c.hosts > 0 {
		return
	}
	delete(q.classes, c.id)
	for _, l := range c.limits {
		if l.classes--; l.classes == 0 {
			delete(q.keys, l.name)
		}
	}
}

func (q *turns) setAside(c *class, p place) {
	p.arrival = q.arrivals
	q.arrivals++
	c.aside = append(c.aside, p)
	q.aside++
	if q.oldest == nil && c != &q.unlimited {
		q.findOldest()
	}
}

// class is that of a host's limits.
func (q *turns) class(host transport.Host) *class {
	if q.Limits == nil {
		return &q.unlimited
	}
	limits := q.Limits(host)
	q.id = q.id[:0]
	for _, l := range limits {
		if l.N > 0 {
			q.id = binary.AppendVarint(q.id, int64(l.N))
			q.id = binary.AppendVarint(q.id, int64(len(l.Key)))
			q.id = append(q.id, l.Key...)
		}
	}
	if len(q.id) == 0 {
		return &q.unlimited
	}
	c := q.classes[string(q.id)]
	if c == nil {
		c = &class{id: string(q.id)}
		q.classes[c.id] = c
		for _, l := range limits {
			c.limit(q.keys, l)
		}
	}
	return c
}

// limit adds a limit to a new class. A key that comes twice counts a host once, with the smaller N.
func (c *class) limit(keys map[string]*key, l Limit) {
	if l.N <= 0 {
		return
	}
	k := keys[l.Key]
	if k == nil {
		k = &key{name: l.Key}
		keys[l.Key] = k
	}
	if i := c.needs(k); i >= 0 {
		c.limits[i].n = min(c.limits[i].n, l.N)
		return
	}
	k.classes++
	c.limits = append(c.limits, share{k, l.N})
}

// needs is where a key is among the class's, -1 if it is not.
func (c *class) needs(k *key) int {
	return slices.IndexFunc(c.limits, func(s share) bool { return s.key == k })
}

// fits is whether a host of the class may run now, as far as limits go.
func (q *turns) fits(c *class) bool {
	for _, l := range c.limits {
		if l.running >= l.n || c != q.oldest && q.kept(l.key) {
			return false
		}
	}
	return true
}

// kept is whether a key is kept for the host that has waited longest, because each of that host's keys has been given to later ones often
// enough: it is not some long command that holds it up.
func (q *turns) kept(k *key) bool {
	if q.oldest == nil || q.oldest.needs(k) < 0 {
		return false
	}
	for i, l := range q.oldest.limits {
		if l.given-q.given[i] < mostPassed {
			return false
		}
	}
	return true
}

// next is the class of the host set aside that is to run next; nil: none can.
func (q *turns) next() (next *class) {
	if q.aside == 0 {
		return nil
	}
	if len(q.unlimited.aside) > 0 {
		next = &q.unlimited
	}
	for _, c := range q.classes {
		if len(c.aside) > 0 && c.before(next) && q.fits(c) {
			next = c
		}
	}
	return next
}

func (q *turns) findOldest() {
	q.oldest, q.given = nil, q.given[:0]
	for _, c := range q.classes {
		if len(c.aside) > 0 && c.before(q.oldest) {
			q.oldest = c
		}
	}
	if q.oldest != nil {
		for _, l := range q.oldest.limits {
			q.given = append(q.given, l.given)
		}
	}
}

// before is whether the class's first host set aside came before the other's.
func (c *class) before(other *class) bool {
	return other == nil || c.aside[0].arrival < other.aside[0].arrival
}
