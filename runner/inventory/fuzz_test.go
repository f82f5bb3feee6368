package inventory_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"multirsh/runner/hostlist"
	"multirsh/transport"
)

// written is what a line of a hosts file sets for a host.
func written(h transport.Host) string {
	var b strings.Builder
	for _, kv := range [][2]string{{"transport", h.Transport}, {"user", h.User}, {"addr", h.Addr}, {"jump", h.Jump}} {
		if kv[1] != "" {
			fmt.Fprintf(&b, " %s=%s", kv[0], kv[1])
		}
	}
	if h.Port != 0 {
		fmt.Fprintf(&b, " port=%d", h.Port)
	}
	for _, key := range slices.Sorted(maps.Keys(h.Vars)) {
		fmt.Fprintf(&b, " label=%s:%s", strings.TrimPrefix(key, "label."), h.Vars[key])
	}
	return b.String()
}

// A file that is read and written out folded, a line for each combination of settings, is read as the same hosts again. Whatever is no
// hosts file is one sentence that begins with the place.
func FuzzHostsFile(f *testing.F) {
	for _, seed := range []string{
		"\ufeffa,n[1-3] user=x # c\r\nb port=3\n",
		"a\na user=x\n",
		"a transport=rsh=x #\x00",
		"n[1-3] addr=10.0.0.[1-3] label=a:b,c:d jump=g\nn2 label=a:b\n[w] user=u\nn[1-2]\n[w:children]\nx\n[x] port=1\n@w!n1\n",
		"rsh:root@n[1-2]:22\n[::1]:5\nfe80::1%eth0\n10.0.0.0/30\n[1-2][3-4]\n",
		"[a:children]\nb\n[b:children]\na\n",
		"[w] user=a\nn\n[v] user=b\nn\n",
		"include nothing\n", "include [\n", "^nothing\n", "n*\n", "/x/\n", "a,a,include,\ninclude, user=u\n",
		"[1] user=a\n[-]\n[]\n[a/b+c.d] label=x:y\nn\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		inv := newInventory()
		err := inv.Read(strings.NewReader(text), "hosts")
		var all []transport.Host
		if err == nil {
			s, serr := inv.Select(t.Context(), []string{"@*"}, nil)
			if err = serr; err == nil {
				if s.Len() > 2000 {
					return
				}
				if all = slices.Collect(s.Hosts(transport.Host{})); len(all) != s.Len() {
					t.Fatalf("%q: Len() = %d, but there are %d", text, s.Len(), len(all))
				}
			}
		}
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		by := map[string][]string{}
		want := map[string]string{}
		for _, h := range all {
			set := written(h)
			by[set] = append(by[set], h.Name)
			if _, twice := want[h.Name]; twice || h.Name == "" {
				t.Fatalf("%q: %q is empty or there twice", text, h.Name)
			}
			want[h.Name] = set
		}
		var out strings.Builder
		for set, names := range by {
			// With its comma, the name "include" and names in brackets are hosts too.
			fmt.Fprintf(&out, "%s,%s\n", hostlist.Fold(slices.Values(names)), set)
		}
		if len(want) == 0 {
			return
		}
		got := map[string]string{}
		for h := range choose(t, read(t, out.String()), "@*").Hosts(transport.Host{}) {
			got[h.Name] = written(h)
		}
		if !maps.Equal(want, got) {
			t.Fatalf("%q: written as %q\n%v\n%v", text, out.String(), want, got)
		}
	})
}
