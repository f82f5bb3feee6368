package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

// plain is the table as the library gives it.
func (t *table) plain() map[string]any {
	all := map[string]any{}
	for _, e := range t.entries {
		switch {
		case e.tables == nil:
			all[e.key] = e.value
		case !e.many:
			all[e.key] = e.tables[0].plain()
		default:
			var list []any
			for _, t := range e.tables {
				list = append(list, t.plain())
			}
			all[e.key] = list
		}
	}
	return all
}

// lines writes the keys of a table with the lines they stand on.
func (t *table) lines(b *strings.Builder, prefix string) {
	for _, e := range t.entries {
		fmt.Fprintf(b, "%d %s%s\n", e.line, prefix, e.key)
		for i, t := range e.tables {
			fmt.Fprintf(b, "%d %s%s[%d]\n", t.line, prefix, e.key, i)
			t.lines(b, prefix+e.key+".")
		}
	}
}

func TestTableLines(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"\n# a\n\nfanout = 3 # b\n", "4 fanout\n"},
		{"a = [\n 1, # ]\n 2,\n]\nb = 1", "1 a\n5 b\n"},
		{"a = \"\"\"\n#\"\" [\n\\\"\"\"\"\"\"\nb = '''\n'''''\nc = '#'\n", "1 a\n4 b\n6 c\n"},
		{"a = \"\\\\\"\r\n\r\nb = \"#\\\"\"\r\n", "1 a\n3 b\n"},
		{"\ufeff\na = 1", "2 a\n"},
		{"[[hosts]]\nuser = 'a'\n[[hosts]]\n\nuser = 'b'\n[hosts.label]\nrack = 1\n", "1 hosts\n1 hosts[0]\n2 hosts.user\n3 hosts[1]\n5 hosts.user\n6 hosts.label\n6 hosts.label[0]\n7 hosts.label.rack\n"},
		{"\nhosts = [\n {user = 'a'},\n {user = 'b'},\n]\nx = 1", "2 hosts\n2 hosts[0]\n2 hosts.user\n2 hosts[1]\n2 hosts.user\n6 x\n"},
		{"[a.b]\nc.d = 1\n[a]\nx = [[], [1]]\n", "1 a\n1 a[0]\n1 a.b\n1 a.b[0]\n2 a.b.c\n2 a.b.c[0]\n2 a.b.c.d\n4 a.x\n"},
	} {
		got, err := readTable(test.text, "x")
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		var b strings.Builder
		got.lines(&b, "")
		if diff := cmp.Diff(test.want, b.String()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.text, diff)
		}
	}
}

// Whatever a TOML file is, it means to us what it means to the library.
func FuzzTable(f *testing.F) {
	for _, text := range []string{
		"a = 1\n[b]\nc = [1, 2]\n[[d]]\ne = {f = 'g'}\n[[d]]\n[d.h]\ni = true\n",
		"a = \"\"\"x\\\"\"\"\"\"\"\nb = '''\n'''''\n# c\n\"d#\" = '#' # e\n",
		"a.b.c = 1\na.d = [{}, {e = 1}]\n[\"x.y\".'z[']\n",
		"x = 1979-05-27\r\ny = [[[]]]\r\n", "a = 3\na = 4", "[[a]]\n[a]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want map[string]any
		_, wantErr := toml.Decode(text, &want)
		got, err := readTable(text, "x")
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, the library %v", err, wantErr)
		}
		if err != nil {
			return
		}
		if diff := cmp.Diff(sameArrays(want), sameArrays(got.plain()), cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })); diff != "" {
			t.Errorf("the library's, ours:\n%s", diff)
		}
	})
}

// sameArrays has one kind of array where the library has two.
func sameArrays(value any) any {
	switch value := value.(type) {
	case map[string]any:
		same := map[string]any{}
		for key, v := range value {
			same[key] = sameArrays(v)
		}
		return same
	case []map[string]any:
		var same []any
		for _, v := range value {
			same = append(same, sameArrays(v))
		}
		return same
	case []any:
		var same []any
		for _, v := range value {
			same = append(same, sameArrays(v))
		}
		return same
	}
	return value
}
