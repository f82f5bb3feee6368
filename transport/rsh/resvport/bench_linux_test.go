package resvport

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is what this process has used so far.
func cpu(b *testing.B) int64 {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

// benchServer accepts on loopback, every address of 127.0.0.0/8, and closes when the client does.
func benchServer(b *testing.B) uint16 {
	if err := (&Allocator{}).Check(); err != nil {
		b.Skip(err)
	}
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort().Port()
}

func loopback(i uint32, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1 + byte(i>>16)&63, byte(i >> 8), byte(i)}), port)
}

// BenchmarkDial is a connection and its reset, 64 at a time, with both ends in this process; cpu-us is what they use together.
// Plain is package net alone with the same options, for comparison: what choosing the port costs.
func BenchmarkDial(b *testing.B) {
	var n atomic.Uint32
	run := func(b *testing.B, dial func(i uint32) (io.Closer, error)) {
		b.SetParallelism(32)
		b.ReportAllocs()
		before := cpu(b)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c, err := dial(n.Add(1))
				if err != nil {
					b.Error(err)
					return
				}
				c.Close()
			}
		})
		b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1000, "cpu-us/op")
	}
	b.Run("plain", func(b *testing.B) {
		port, options := benchServer(b), socketOptions(30e9)
		d := net.Dialer{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { options(int(fd)) })
		}}
		run(b, func(i uint32) (io.Closer, error) {
			from := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(700+i%window))
			return d.DialTCP(b.Context(), "tcp4", from, loopback(i, port))
		})
	})
	b.Run("allocator", func(b *testing.B) {
		a, port := newAllocator(b, 0, 0), benchServer(b)
		run(b, func(i uint32) (io.Closer, error) { return a.Dial(b.Context(), loopback(i, port)) })
	})
}

// BenchmarkLease is a lease and the connection that ends it.
func BenchmarkLease(b *testing.B) {
	benchServer(b)
	a := newAllocator(b, 0, 0)
	out := newAllocator(b, 900, 960)
	local := netip.MustParseAddr("127.0.0.1")
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		l, err := a.Lease(b.Context(), local)
		if err != nil {
			b.Fatal(err)
		}
		c, err := out.Dial(b.Context(), netip.AddrPortFrom(local, l.Port()))
		if err != nil {
			b.Fatal(err)
		}
		back, err := l.Accept(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		back.Close()
		c.Close()
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1000, "cpu-us/op")
}

// BenchmarkDestinations is the memory that is left after 100,000 destinations that were visited once.
func BenchmarkDestinations(b *testing.B) {
	var before, after runtime.MemStats
	var k *book
	for b.Loop() {
		k = nil
		runtime.GC()
		runtime.ReadMemStats(&before)
		k = newBook(505, 0)
		for i := range 100_000 {
			d, now := k.pin(dest4(i)), time.Now()
			port, _ := k.take(d, now)
			k.giveBack(d, port, now)
			k.unpin(d, now)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
	runtime.KeepAlive(k)
}
