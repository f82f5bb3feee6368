package runner

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// pacer holds starts back: one in each interval at most, and none until the delay after the last one is over. It is a token bucket with room for one
// token. As in any such, a host's claim counts from when it wanted to start, so that late timers on a busy machine do not add up to a
// lower rate; a token that nobody wanted in time is not made up for.
type pacer struct {
	interval, delay time.Duration
	token, next     time.Time // when the bucket has its token; when a host may start, which the delay may have later
	claimed         bool      // a host has wanted to start before that
	asked           bool      // and has not been told since that it may
}

func (p *pacer) ready() bool { return p.next.IsZero() || p.readyAt(time.Now()) }

func (p *pacer) readyAt(now time.Time) bool {
	p.asked = now.Before(p.next)
	p.claimed = p.claimed || p.asked
	return !p.asked
}

// left is how long whoever was told that it may not start has to wait; 0: nobody was. It says so once.
func (p *pacer) left() time.Duration {
	if !p.asked {
		return 0
	}
	p.asked = false
	return max(1, time.Until(p.next))
}

func (p *pacer) started() {
	if p.interval > 0 || p.delay > 0 {
		p.startedAt(time.Now())
	}
}

func (p *pacer) startedAt(now time.Time) {
	if !p.claimed || now.Sub(p.token) >= p.interval {
		p.token = now
	}
	p.claimed = false
	p.token = p.token.Add(p.interval)
	p.next = p.token
	if rested := now.Add(p.delay); rested.After(p.next) {
		p.next = rested
	}
}

// retry is a host that waits for its next try.
type retry struct {
	due time.Time
	*class
	place
}

// retries has the one that is due first at its head.
type retries []retry

func (r *retries) push(x retry) { heap.Push((*retryHeap)(r), x) }
func (r *retries) pop() retry   { return heap.Pop((*retryHeap)(r)).(retry) }

type retryHeap []retry

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h retryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *retryHeap) Push(x any)        { *h = append(*h, x.(retry)) }
func (h *retryHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = retry{}
	*h = (*h)[:last]
	return x
}

// idleClock ends a session from which nothing has come for too long. A write that the sink holds up is output, however long it takes.
type idleClock struct {
	after  time.Duration
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer // nil: not started, or stopped
	writers int
	last    time.Time // end of the last write
}

func (c *idleClock) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	c.timer = time.AfterFunc(c.after, c.ring)
}

func (c *idleClock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer.Stop()
	c.timer = nil
}

// ring sets the timer anew for as long as is left. Writes, of which there are many, leave it alone.
func (c *idleClock) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer == nil {
		return
	}
	left := c.after
	if c.writers == 0 {
		left -= time.Since(c.last)
	}
	if left > 0 {
		c.timer.Reset(left)
	} else {
		c.cancel(&IdleError{c.after})
	}
}

// watchedWriter is one of the streams that the clock watches.
type watchedWriter struct {
	clock *idleClock
	to    *stream
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	c := w.clock
	c.mu.Lock()
	c.writers++
	c.mu.Unlock()
	n, err := w.to.Write(p)
	c.mu.Lock()
	c.writers--
	c.last = time.Now()
	c.mu.Unlock()
	return n, err
}
