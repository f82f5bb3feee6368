package groups

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFile(t *testing.T) {
	path := file(t, "groups", "# our groups\nlab: node[1-4] # the old ones\n\nweb: web1,web2 web3\n  lab : extra#1@lab\nempty:\nrack/1+a: @lab\n")
	want := "lab: node[1-4] extra#1@lab\nweb: web1,web2 web3\nempty: \nrack/1+a: @lab\n* node[1-4] extra#1@lab web1,web2 web3 @lab\n"
	if diff := cmp.Diff(want, told(t, File(path))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := told(t, File(file(t, "groups", "web: w1\nall: a1\n"))); got != "web: w1\nall: a1\n* a1\n" {
		t.Errorf("a group that is called all: %q", got)
	}
	testBadFiles(t, "", File, []badFile{
		{"a: n1\nb n2\n", `FILE:2: expected GROUP: HOSTS, found "b n2"`},
		{"a b: n1\n", `FILE:1: expected GROUP: HOSTS, found "a b: n1"`},
		{": n1\n", `FILE:1: expected GROUP: HOSTS, found ": n1"`},
		{"-a: n1\n", `FILE:1: expected GROUP: HOSTS, found "-a: n1"`},
		{"b: n1\n", "there is no such group"},
		{"", "there is no such group"},
	})
}
