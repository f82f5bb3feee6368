package ssh

import (
	"context"
	"sync"
	"time"

	"multirsh/transport"
)

// closing is the connections on their way to a close by the server, behind sessions that are over.
type closing struct {
	sync.WaitGroup
	mu     sync.Mutex
	ctx    context.Context // ends when there is no more time for manners
	cancel context.CancelFunc
}

func (c *closing) context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancel(context.Background())
	}
	return c.ctx
}

// hurry has everything that is closing reset when what it returns is called. Called late, that does nothing to the next run.
func (c *closing) hurry() context.CancelFunc {
	c.context()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cancel
}

// reset is for the next run.
func (c *closing) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
	c.ctx, c.cancel = nil, nil
}

// hangUp ends a connection politely and in the background: the server is told, and closes first. If it does not within closeTimeout,
// or there is no time any more, the connection is reset. Whoever waits for something from the connection is released at once.
func (t *Transport) hangUp(c *client) {
	t.closing.Go(func() {
		deadline := time.Now().Add(closeTimeout)
		ctx, cancel := context.WithDeadline(t.closing.context(), deadline)
		defer cancel()
		stop := context.AfterFunc(ctx, func() { c.wire.close() })
		defer stop()
		if disconnect(c.conn) == nil {
			c.wire.takeBack()
		} else {
			c.wire.close()
		}
		<-c.gone
		c.wire.awaitEnd(deadline)
		if c.wire.reset.Load() {
			t.stats.reset.Add(1)
		} else {
			t.stats.closedFirst.Add(1)
			c.trace.Pass(transport.PhaseClose, "")
		}
		c.release()
	})
}

// A gate lets so many through at once for each key.
type gates struct {
	mu   sync.Mutex
	open map[string]*gate
}

type gate struct {
	slots chan struct{}
	users int
}

// enter waits for a place at the key's gate. The function it returns gives the place back.
func (g *gates) enter(ctx context.Context, key string, places int) (leave func(), err error) {
	g.mu.Lock()
	if g.open == nil {
		g.open = make(map[string]*gate)
	}
	at := g.open[key]
	if at == nil {
		at = &gate{slots: make(chan struct{}, places)}
		g.open[key] = at
	}
	at.users++
	g.mu.Unlock()
	away := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(g.open, key)
		}
	}
	select {
	case at.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-at.slots; away() }), nil
	case <-ctx.Done():
		away()
		return nil, context.Cause(ctx)
	}
}

// backoff waits before the n-th further try, a little longer each time and never as long as the others.
func backoff(ctx context.Context, n int) error {
	const first, longest = 100 * time.Millisecond, 2 * time.Second
	timer := time.NewTimer(jitter(min(first<<n, longest)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
