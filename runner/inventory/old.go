package inventory

import (
	"context"
	"io"
	"iter"

	"multirsh/transport"
)

// What follows is how cmd/multi-rsh has used an inventory so far: it is gone when that selects hosts with New and Select.

type old struct {
	include, exclude []string
	chosen           *Selection
}

func Read(r io.Reader, name string, transports []string) (*Inventory, error) {
	inv := New(Options{Transports: transports})
	if err := inv.Read(r, name); err != nil {
		return nil, err
	}
	return inv, inv.choose([]string{"*"}, nil)
}

func (inv *Inventory) choose(include, exclude []string) error {
	if inv.sources == nil {
		*inv = *New(Options{Transports: []string{"ssh", "rsh", "exec"}})
	}
	include, exclude = append(inv.old.include, include...), append(inv.old.exclude, exclude...)
	s, err := inv.Select(context.Background(), include, exclude)
	if err == nil {
		inv.old = old{include, exclude, s}
	}
	return err
}

func (inv *Inventory) Add(exprs ...string) error     { return inv.choose(exprs, nil) }
func (inv *Inventory) Exclude(exprs ...string) error { return inv.choose(nil, exprs) }
func (inv *Inventory) Len() int                      { return inv.old.chosen.Len() }
func (inv *Inventory) Hosts(defaults transport.Host) iter.Seq[transport.Host] {
	return inv.old.chosen.Hosts(defaults)
}
