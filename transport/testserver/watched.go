//go:build unix

package testserver

import (
	"context"
	"sync"
)

// Watched is a value that goroutines change and tests wait for. The zero value holds the zero value of T.
type Watched[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{} // closed at the next change; nil: nobody waits
}

// Change has f change the value, and wakes those who wait.
func (w *Watched[T]) Change(f func(*T)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.value)
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// Value is the value as it is now.
func (w *Watched[T]) Value() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value
}

// Until waits until the value is as wanted, or returns the cause when ctx ends first. It tells the value then.
func (w *Watched[T]) Until(ctx context.Context, wanted func(T) bool) (T, error) {
	for {
		w.mu.Lock()
		now := w.value
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		more := w.changed
		w.mu.Unlock()
		if wanted(now) {
			return now, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return now, context.Cause(ctx)
		}
	}
}
