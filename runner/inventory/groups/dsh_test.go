package groups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDsh(t *testing.T) {
	dir := write(t, map[string]string{
		"home/web":     "web1\nweb2 # the second\n#include more\n#a comment\n#included\n#include ../extra/x\n",
		"home/more":    "web[3-4]\n",
		"home/.hidden": "x\n",
		"home/web~":    "x\n",
		"home/sub/x":   "x\n",
		"etc/web":      "other\n",
		"etc/db":       "#include more\n\ndb1",
		"extra/x":      "ops@x1\n",
	})
	if err := os.Symlink("nowhere", dir+"/etc/link"); err != nil {
		t.Fatal(err)
	}
	s := Dsh(dir+"/none", dir+"/home", dir+"/etc")
	if got, want := told(t, s), "db: web[3-4] db1\nmore: web[3-4]\nweb: web1 web2 web[3-4] ops@x1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.RemoveAll(dir + "/home"); err != nil {
		t.Fatal(err)
	}
	if got := mustMap(t, s, "more"); got != "web[3-4]" {
		t.Errorf("asked again: %q", got)
	}
}

func TestDshBad(t *testing.T) {
	dir := write(t, map[string]string{
		"a": "#include b\n", "b": "n1\n#include a\n", "c": "#include none\n", "d": "n1\n#include ./none\n", "e": "n\x00",
		"bomb0": "n1\n", "bomb1": strings.Repeat("#include bomb0\n", 100), "bomb2": strings.Repeat("#include bomb1\n", 100),
	})
	for group, want := range map[string]string{
		"a":     "DIR/a:1: DIR/b:2: these files include each other: DIR/a, DIR/b, DIR/a",
		"c":     `DIR/c:1: #include "none": there is no such group`,
		"d":     "DIR/d:2: DIR/none: no such file or directory",
		"e":     "DIR/e:1: there is a NUL byte here: groups are read from UTF-8 text",
		"bomb2": "DIR/bomb2:10: DIR/bomb1:90: more than 1000 files are included",
	} {
		_, err := Dsh(dir).Map(t.Context(), group)
		if got := strings.ReplaceAll(fmt.Sprint(err), dir, "DIR"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	for _, group := range []string{"../" + filepath.Base(dir) + "/a", "..", ".", "", "none", "x y"} {
		if _, err := Dsh(dir).Map(t.Context(), group); !errors.Is(err, ErrNoGroup) {
			t.Errorf("%q: %v", group, err)
		}
	}
	if _, err := Dsh(dir + "/a").List(t.Context()); err == nil || err.Error() != dir+"/a: not a directory" {
		t.Errorf("a file for a directory: %v", err)
	}
}

func TestDshDirs(t *testing.T) {
	for _, test := range []struct {
		env  map[string]string
		want []string
	}{
		{map[string]string{"HOME": "/h"}, []string{"/h/.dsh/group", "/etc/dsh/group"}},
		{map[string]string{"HOME": "/h", "DSHGROUP_PATH": "/a::/b"}, []string{"/h/.dsh/group", "/a", "/b"}},
		{nil, []string{"/etc/dsh/group"}},
	} {
		if got := DshDirs(func(name string) string { return test.env[name] }); !slices.Equal(got, test.want) {
			t.Errorf("%v: got %q, want %q", test.env, got, test.want)
		}
	}
}
