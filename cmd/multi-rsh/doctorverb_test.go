package main

import (
	"net/netip"
	"testing"

	"multirsh/transport"
)

// A host of which one address cannot be reached has a way to it all the same.
func TestRouteOfMany(t *testing.T) {
	nowhere, here := netip.MustParseAddrPort("[fe80::1]:514"), netip.MustParseAddrPort("127.0.0.1:514") // link-local without an interface
	for _, tt := range []struct {
		addrs []netip.AddrPort
		want  bool
	}{
		{[]netip.AddrPort{nowhere, here}, true},
		{[]netip.AddrPort{nowhere}, false},
	} {
		v := new(visit)
		v.begin()
		v.passed(transport.Passed{Phase: transport.PhaseResolve, Addrs: tt.addrs})
		if got := v.reached(stepRoute); got != tt.want || got == (v.routed != nil) {
			t.Errorf("%v: a way is %v (%v), want %v", tt.addrs, got, v.routed, tt.want)
		}
	}
}
