package resvport

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func newBook(n, start int) *book {
	b := new(book)
	ports := make([]uint16, n)
	for i := range ports {
		ports[i] = uint16(600 + i)
	}
	b.init(ports, start)
	return b
}

func dest4(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 514)
}

// TestLeastRecentlyUsed follows one destination through random takes and returns: never a pair twice at once, and always the
// one whose last use is furthest back, never used first.
func TestLeastRecentlyUsed(t *testing.T) {
	const n = 24
	b, now := newBook(n, 7), time.Now()
	d := b.pin(dest4(1))
	last := make(map[int]int) // when it was given back
	held := make(map[int]bool)
	random := rand.New(rand.NewPCG(1, 2))
	for clock := 1; clock < 20_000; clock++ {
		if len(held) > 0 && random.IntN(2) == 0 {
			for i := range held {
				delete(held, i)
				last[i] = clock
				b.giveBack(d, i, now)
				break
			}
			continue
		}
		i, ok := b.take(d, now)
		if !ok {
			if len(held) != n {
				t.Fatalf("nothing to be had with %d of %d held", len(held), n)
			}
			continue
		}
		if held[i] {
			t.Fatalf("port %d twice at once", i)
		}
		for j := range n {
			if !held[j] && j != i && last[j] < last[i] {
				t.Fatalf("took port %d, last used at %d, before port %d, last used at %d", i, last[i], j, last[j])
			}
		}
		held[i] = true
	}
}

// TestWindow: destinations that are visited once share few ports; one that comes again uses them all before any twice.
func TestWindow(t *testing.T) {
	b, now := newBook(500, 490), time.Now()
	for i := range 10_000 {
		b.take(b.pin(dest4(i)), now)
	}
	if b.peak != window {
		t.Errorf("10,000 destinations on %d ports, want %d", b.peak, window)
	}
	if b.reached != window {
		t.Errorf("the rotation reached %d, want %d", b.reached, window)
	}
	d := b.pin(dest4(3))
	seen := make(map[int]bool)
	for range 499 { // it has one
		i, ok := b.take(d, now)
		if !ok || seen[i] {
			t.Fatalf("after %d ports: %d, %v", len(seen), i, ok)
		}
		seen[i] = true
	}
	if _, ok := b.take(d, now); ok {
		t.Error("more pairs than ports")
	}
	if b.reached != 500 {
		t.Errorf("the rotation reached %d, want 500", b.reached)
	}
}

// TestForgetting: idle destinations are forgotten after a while, or when there are too many, and never those in use.
func TestForgetting(t *testing.T) {
	b, now := newBook(100, 0), time.Now()
	visit := func(i int) {
		d := b.pin(dest4(i))
		port, _ := b.take(d, now)
		b.giveBack(d, port, now)
		b.unpin(d, now)
	}
	held := b.pin(dest4(-1))
	for i := range remember + 1000 {
		visit(i)
	}
	if len(b.dests) != remember+1 || b.idling != remember {
		t.Errorf("%d destinations known and %d idle, want %d idle", len(b.dests), b.idling, remember)
	}
	now = now.Add(rememberFor)
	visit(0)
	if len(b.dests) != 2 || b.dests[held.to] != held {
		t.Errorf("%d destinations known, want the one in use and the latest", len(b.dests))
	}
}

// TestRests: what bind refuses rests for all destinations of the address family, what connect refuses for one.
func TestRests(t *testing.T) {
	b, now := newBook(1, 0), time.Now()
	a, other, six := b.pin(dest4(1)), b.pin(dest4(2)), b.pin(netip.MustParseAddrPort("[2001:db8::1]:514"))
	can := func(d *dest, want bool) {
		t.Helper()
		i, ok := b.take(d, now)
		if ok != want {
			t.Errorf("%v can have the port: %v, want %v", d.to, ok, want)
		}
		if ok {
			b.giveBack(d, i, now)
		}
	}
	i, _ := b.take(a, now)
	b.putBy(a, i, now.Add(restAfterConnect))
	can(a, false)
	can(other, true)
	now = now.Add(restAfterConnect)
	can(a, true)

	i, _ = b.take(a, now)
	b.block(a, i, now.Add(restAfterBind))
	b.putBy(a, i, time.Time{})
	can(a, false)
	can(other, false)
	can(six, true)
	now = now.Add(restAfterBind)
	can(a, true)
	can(other, true)

	b.seats[0].listeners++
	can(a, false)
	can(six, false)
}

// TestOwnPort: never from the port that is dialled.
func TestOwnPort(t *testing.T) {
	b, now := newBook(3, 0), time.Now()
	d := b.pin(netip.MustParseAddrPort("127.0.0.1:601"))
	for range 2 {
		if i, ok := b.take(d, now); !ok || b.ports[i] == 601 {
			t.Errorf("port %d, %v", b.ports[i], ok)
		}
	}
	if i, ok := b.take(d, now); ok {
		t.Errorf("port %d", b.ports[i])
	}
}

func BenchmarkBook(b *testing.B) {
	for _, dests := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(dests), func(b *testing.B) {
			k, now, i := newBook(505, 0), time.Now(), 0
			b.ReportAllocs()
			for b.Loop() {
				d := k.pin(dest4(i % dests))
				port, _ := k.take(d, now)
				k.giveBack(d, port, now)
				k.unpin(d, now)
				i++
			}
		})
	}
}
