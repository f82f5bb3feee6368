package rsh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"multirsh/transport"
)

// inBubble runs a test of a clock that begins with ten seconds, in a time of its own.
func inBubble(t *testing.T, name string, test func(t *testing.T, c *clock)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClock(t.Context(), 10*time.Second)
			defer c.stop()
			test(t, c)
		})
	})
}

// runs lets time pass and says whether the clock's context still lasts.
func runs(c *clock, d time.Duration) bool {
	time.Sleep(d)
	synctest.Wait()
	return c.ctx.Err() == nil
}

func TestClock(t *testing.T) {
	inBubble(t, "runs out", func(t *testing.T, c *clock) {
		if !runs(c, 10*time.Second-1) || c.left() != 1 {
			t.Errorf("it ended early, with %v left", c.left())
		}
		if runs(c, 1) {
			t.Error("it did not end in time")
		}
		var timeout *transport.TimeoutError
		if err := context.Cause(c.ctx); !errors.As(err, &timeout) || timeout.After != 10*time.Second || timeout.Limit != "--connect-timeout" {
			t.Errorf("cause %v", err)
		}
	})
	inBubble(t, "paused", func(t *testing.T, c *clock) {
		runs(c, 4*time.Second)
		c.pause()
		if !runs(c, time.Hour) || c.left() != 6*time.Second {
			t.Errorf("time passed in the pause: %v left", c.left())
		}
		c.resume()
		if !runs(c, 6*time.Second-1) || c.left() != 1 {
			t.Errorf("the pause took time: %v left", c.left())
		}
		if runs(c, 1) {
			t.Error("the pause gave time")
		}
	})
	inBubble(t, "paused twice", func(t *testing.T, c *clock) {
		for range 2 {
			runs(c, 3*time.Second)
			c.pause()
			runs(c, time.Minute)
			c.resume()
		}
		if !runs(c, 4*time.Second-1) || runs(c, 1) {
			t.Error("the pauses took or gave time")
		}
	})
	inBubble(t, "paused at the last moment", func(t *testing.T, c *clock) {
		runs(c, 10*time.Second-1)
		c.pause()
		if !runs(c, time.Hour) || c.left() != 1 {
			t.Errorf("time passed in the pause: %v left", c.left())
		}
		c.resume()
		if runs(c, 1) {
			t.Error("the pause gave time")
		}
	})
	inBubble(t, "paused too late", func(t *testing.T, c *clock) {
		runs(c, 10*time.Second)
		c.pause()
		c.resume()
		if runs(c, time.Hour) || !errors.Is(context.Cause(c.ctx), context.DeadlineExceeded) {
			t.Errorf("cause %v", context.Cause(c.ctx))
		}
	})
	inBubble(t, "stopped", func(t *testing.T, c *clock) {
		c.stop()
		if runs(c, time.Hour) || context.Cause(c.ctx) != context.Canceled {
			t.Errorf("cause %v", context.Cause(c.ctx))
		}
	})

	t.Run("the caller's end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			interrupted := errors.New("interrupted")
			parent, cancel := context.WithCancelCause(t.Context())
			c := newClock(parent, 10*time.Second)
			defer c.stop()
			c.pause() // does not keep it
			cancel(interrupted)
			if runs(c, 0) || context.Cause(c.ctx) != interrupted {
				t.Errorf("cause %v", context.Cause(c.ctx))
			}
		})
	})
	t.Run("default", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClock(t.Context(), new(Transport).connectTimeout())
			defer c.stop()
			if c.left() != DefaultConnectTimeout || !runs(c, DefaultConnectTimeout-1) || runs(c, 1) {
				t.Errorf("it is not %v", DefaultConnectTimeout)
			}
		})
	})
}

// An error that only tells of the end of time becomes the reason for that end; any other is kept.
func TestClockCause(t *testing.T) {
	inBubble(t, "running", func(t *testing.T, c *clock) {
		for _, err := range []error{syscall.ECONNREFUSED, context.DeadlineExceeded, os.ErrDeadlineExceeded} {
			if got := c.cause(err); got != err {
				t.Errorf("%v became %v", err, got)
			}
		}
	})
	inBubble(t, "ended", func(t *testing.T, c *clock) {
		runs(c, 10*time.Second)
		deadline := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
		for _, err := range []error{context.Canceled, context.DeadlineExceeded, deadline, fmt.Errorf("no port: %w", context.DeadlineExceeded)} {
			var timeout *transport.TimeoutError
			if got := c.cause(err); !errors.As(got, &timeout) {
				t.Errorf("%v became %v", err, got)
			}
		}
		for _, err := range []error{syscall.ECONNREFUSED, error(transport.ErrAuth)} {
			if got := c.cause(err); got != err {
				t.Errorf("%v became %v", err, got)
			}
		}
	})
}
