package groups

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Whatever stands in a file: it is read, or refused with the file's name; what is listed can be asked for; every part of every text has a place; and
// where a file has names of hosts rather than expressions, a text means these names and nothing else.
func FuzzFiles(f *testing.F) {
	f.Add("lab: node[1-4]\n[web]\nwww[01:50] ansible_port=22\n[a:children]\nweb\n[web:vars]\nansible_user=\"x\"\n")
	f.Add("all:\n  hosts: {a: {ansible_user: x}}\n  children: {web: {hosts: &h {b: }}}\nmore: {hosts: {<<: [*h], c: }}\n")
	f.Add("node[1-4] mgmt,os=debian,own=%n\nnode[1-4],x pdsh_all_skip\nn[08-101] a%%b=%%\n")
	f.Add("[Main]\ndefault: x\nautodir: '/none' \"$CFGDIR\"\n[DEFAULT]\nall: w\n[x,y]\nmap: y\n z\ncache_time: 3\n")
	f.Add("#include f\nn1 # c\n#include ./g.conf\n")
	for _, test := range inventories {
		f.Add(test.text)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range []string{"f", "f.yaml", "groups.conf", "plain.ini"} {
			if err := os.WriteFile(dir+"/"+name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		check := func(s Source, names bool) {
			groups, err := s.List(t.Context())
			if err != nil {
				if !strings.HasPrefix(err.Error(), dir) {
					t.Errorf("%T: this error does not begin with the file: %v", s, err)
				}
				return
			}
			texts := map[string]string{}
			for _, group := range groups {
				if texts[group], err = s.Map(t.Context(), group); errors.Is(err, ErrNoGroup) && !strings.HasPrefix(err.Error(), dir) {
					t.Errorf("%T: a group that is listed, %q, is none", s, group)
				}
			}
			if all, is := s.(Aller); is {
				if texts["*"], err = all.All(t.Context()); err != nil {
					t.Errorf("%T: %v", s, err)
				}
			}
			for group, text := range texts {
				for at := range len(text) {
					if where := s.(Locator).Where(group, at); !strings.HasPrefix(where, dir) {
						t.Errorf("%T: the place of byte %d of %q is %q", s, at, group, where)
					}
				}
				for item := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
					if group, is := strings.CutPrefix(item, "@"); names && !plain(item) && !(is && validName(group)) && !strings.ContainsAny(item, "[]") {
						t.Errorf("%T: %q has %q, which is no name", s, group, item)
					}
				}
			}
		}
		check(File(dir+"/f"), false)
		check(Dsh(dir), false)
		check(Genders(dir+"/f"), true)
		check(Ansible(dir+"/plain.ini"), true)
		check(Ansible(dir+"/f.yaml"), true)
		sources, _, err := ClusterShell([]string{dir + "/groups.conf"}, "")
		if err != nil && !strings.HasPrefix(err.Error(), dir) && !strings.HasPrefix(err.Error(), "/") {
			t.Errorf("this error does not begin with a file: %v", err)
		}
		for _, s := range sources { // of these the commands are not run
			if static, is := s.Source.(static); is {
				check(static, false)
			}
		}
	})
}
