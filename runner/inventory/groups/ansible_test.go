package groups

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inventories are what ansible-core 2.14.18 reads, and what it makes of each: groups, and then the hosts that have variables.
var inventories = []struct{ name, text, groups, vars string }{
	{
		"hosts.ini", `
mail.example.com ansible_port=5555 ansible_host=192.0.2.50 other="a b # c"  # a comment
; another, don't stop
badwolf.example.com:5309
[2001:db8::1]:22
2001:db8::2

[web]   # the web
www[01:03].example.com
www[1:9:4]-test ansible_user=ops
www[1:9:4]-test ansible_user=dev\ ops
db-[a:d:2]
h#1
n[:2] ansible_host='192.0.2.1'
n[9:011]:2200

[site:children]
web
mail-servers # and these
[site:vars]
ansible_user = site ops # x
proxy=don't
[web:vars]
ansible_user="web"
[all:vars]
ansible_port=2222
[mail-servers]
mail.example.com
[01:02]-rack[x:y].test
[all]
lone
[b]
mail.example.com
[b:vars]
ansible_user=b
[c]
mail.example.com
[c:vars]
ansible_user=c1
ansible_user=c2
[d]
mail.example.com
[d:vars]
ansible_user=d
ansible_group_priority=-1
`, `b: mail.example.com
c: mail.example.com
d: mail.example.com
mail-servers: 01-rackx.test 01-racky.test 02-rackx.test 02-racky.test mail.example.com
site: @mail-servers @web
ungrouped: 2001:db8::1 2001:db8::2 badwolf.example.com lone
web: db-a db-c h n0 n1 n10 n11 n2 n9 www01.example.com www02.example.com www03.example.com www1-test www5-test www9-test
`, `01-rackx.test port=2222 user=site ops # x
01-racky.test port=2222 user=site ops # x
02-rackx.test port=2222 user=site ops # x
02-racky.test port=2222 user=site ops # x
2001:db8::1 port=22
2001:db8::2 port=2222
badwolf.example.com port=5309
db-a port=2222 user=web
db-c port=2222 user=web
h port=2222 user=web
lone port=2222
mail.example.com addr=192.0.2.50 port=5555 user=site ops # x
n0 addr=192.0.2.1 port=2222 user=web
n1 addr=192.0.2.1 port=2222 user=web
n10 port=2200 user=web
n11 port=2200 user=web
n2 addr=192.0.2.1 port=2222 user=web
n9 port=2200 user=web
www01.example.com port=2222 user=web
www02.example.com port=2222 user=web
www03.example.com port=2222 user=web
www1-test port=2222 user=dev ops
www5-test port=2222 user=dev ops
www9-test port=2222 user=dev ops
`,
	},
	{
		"hosts.yml", `---
all:
  hosts:
    mail.example.com: {ansible_port: 5555}
  vars: &v
    ansible_user: everybody
  children:
    web:
      hosts: &web
        www[01:03].example.com:
        db1: {ansible_host: 192.0.2.1, ansible_user: &u ops}
      vars: {ansible_user: *u, other: [1, {a: b}], ansible_host: null}
    site:
      children:
        web:
        lab: {hosts: {lab1: null, "h1:2200": }}
more:
  hosts:
    <<: *web
    db1: {ansible_port: 7}
  vars:
    <<: [*v]
short: {hosts: only1}
`, `lab: h1 lab1
more: db1 www01.example.com www02.example.com www03.example.com
short: only1
site: @lab @web
ungrouped: mail.example.com
web: db1 www01.example.com www02.example.com www03.example.com
`, `db1 addr=192.0.2.1 port=7 user=ops
h1 port=2200 user=everybody
lab1 user=everybody
mail.example.com port=5555 user=everybody
only1 user=everybody
www01.example.com user=ops
www02.example.com user=ops
www03.example.com user=ops
`,
	},
	{"hosts", "# YAML without an ending\nweb:\n  hosts:\n    w1:\n", "web: w1\n", ""},
	{"plain", "w1\nw2 ansible_user=x\n", "ungrouped: w1 w2\n", "w2 user=x\n"},
	{"hosts.json", `{"web": {"hosts": {"w1": {"ansible_port": 22}}, "children": {"db": null}}, "db": {"hosts": {"d1": null}}}`,
		"db: d1\nweb: @db w1\n", "w1 port=22\n"},
}

func TestAnsible(t *testing.T) {
	for _, test := range inventories {
		t.Run(test.name, func(t *testing.T) {
			s := Ansible(file(t, test.name, test.text))
			groups, vars := ansibleTold(t, s)
			if diff := cmp.Diff(test.groups, groups); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.vars, vars); diff != "" {
				t.Errorf("variables (-want +got):\n%s", diff)
			}
			all, err := s.(Aller).All(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := mustMap(t, s, "all"); got != all {
				t.Errorf("@all is %q, and all of them are %q", got, all)
			}
		})
	}
}

// ansibleTold is what a source says of groups but all, sorted, and of each host.
func ansibleTold(tb testing.TB, s Source) (groups, vars string) {
	tb.Helper()
	names, err := s.List(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		if name != "all" {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(slices.Compact(slices.Sorted(strings.FieldsSeq(mustMap(tb, s, name)))), " "))
		}
	}
	groups = b.String()
	var members func(text string) []string
	members = func(text string) (hosts []string) {
		for word := range strings.FieldsSeq(text) {
			if group, is := strings.CutPrefix(word, "@"); is {
				hosts = append(hosts, members(mustMap(tb, s, group))...)
			} else {
				hosts = append(hosts, word)
			}
		}
		return hosts
	}
	settings, err := s.(Settler).Settings(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	of := map[string]map[string]string{}
	for _, set := range settings {
		for _, host := range members(set.Hosts) {
			if of[host] == nil {
				of[host] = map[string]string{}
			}
			if _, before := of[host][set.Key]; !before {
				of[host][set.Key] = set.Value
			}
		}
	}
	return groups, hostVars(of)
}

func hostVars(of map[string]map[string]string) string {
	var lines []string
	for host, vars := range of {
		line := host
		for _, key := range []string{"addr", "port", "user"} {
			if value, is := vars[key]; is {
				line += " " + key + "=" + value
			}
		}
		if line != host {
			lines = append(lines, line+"\n")
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// The old names go before the new ones wherever they stand, as ssh's connection plugin has them.
func TestAnsibleOldNames(t *testing.T) {
	_, vars := ansibleTold(t, Ansible(file(t, "f", `[g]
a ansible_host=127.0.0.1 ansible_ssh_host=127.0.0.2 ansible_port=7 ansible_ssh_port=8 ansible_user=u ansible_ssh_user=v
b ansible_host=127.0.0.1 ansible_user=u
[g:vars]
ansible_ssh_user=w
`)))
	if want := "a addr=127.0.0.2 port=8 user=v\nb addr=127.0.0.1 user=w\n"; vars != want {
		t.Errorf("got %q, want %q", vars, want)
	}
}

// badAnsible are inventories that Ansible refuses, too.
var badAnsible = []badFile{
	{"[web]\nn1\n[web:kids]\n", `FILE:3: there is no [web:kids]: there is [web], [web:children] and [web:vars]`},
	{"[1:3]\n", `FILE:1: there is no [1:3]: there is [1], [1:children] and [1:vars]`},
	{"[site:children]\nweb\n", `FILE:2: there is no group "web", which site has as a child`},
	{"[site:children]\nweb\n[web:vars]\nx=y\n", `FILE:2: there is no group "web", which site has as a child`},
	{"\n[web:vars]\nansible_user=x\n", `FILE:2: there is no group "web", which these variables are for`},
	{"[a]\nn1\n[a:children]\nb\n[b:children]\na\n", `FILE:6: these groups are children of each other: a, b, a`},
	{"[x:children]\na\n[a:children]\nb\n[b:children]\nc\n[c:children]\nb\nd\n[d]\n", `FILE:8: these groups are children of each other: b, c, b`},
	{"[a:children]\na\n", `FILE:2: these groups are children of each other: a, a`},
	{"n[1:\n", `FILE:1: this '[' is never closed in "n[1:"`},
	{"n[1-4]\n", `FILE:1: [1-4] in "n[1-4]" is no range: expected [01:50], [1:9:2] or [a:f]`},
	{"n[1:x]\n", `FILE:1: [1:x] in "n[1:x]" is no range: expected [01:50], [1:9:2] or [a:f]`},
	{"n[1:9:]\n", `FILE:1: [1:9:] in "n[1:9:]" is no range: expected [01:50], [1:9:2] or [a:f]`},
	{"n[1:9:0]\n", `FILE:1: [1:9:0] in "n[1:9:0]" is no range: expected [01:50], [1:9:2] or [a:f]`},
	{"n[f:a]\n", `FILE:1: [f:a] in "n[f:a]" runs backwards`},
	{"n[001:3]\n", `FILE:1: [001:3] in "n[001:3]" has ends of different lengths, the first of them padded`},
	{"n1 word\n", `FILE:1: expected NAME=VALUE after the host, found "word"`},
	{"n1 a='b\n", `FILE:1: the quote ' is never closed`},
	{"n1 a=b\\\n", `FILE:1: there is nothing after the backslash at the end of the line`},
	{"[a]\n[a:vars]\nx\n", `FILE:3: expected NAME=VALUE, found "x"`},
	{"[a:children]\nb c\n", `FILE:2: expected the name of a group, found "b c"`},
}

func TestAnsibleBad(t *testing.T) {
	testBadFiles(t, "", Ansible, badAnsible)
	testBadFiles(t, "", Ansible, []badFile{ // what Ansible lets through
		{"n[3:1]\n", `FILE:1: [3:1] in "n[3:1]" runs backwards, or its numbers are too long`},
		{"n[1:99999999999999999999]\n", `FILE:1: [1:99999999999999999999] in "n[1:99999999999999999999]" runs backwards, or its numbers are too long`},
		{"n[1:9999999]\n", `FILE:1: [1:9999999] in "n[1:9999999]" makes more than 1000000 names`},
		{"n[1:9999][1:9999]\n", `FILE:1: the ranges of "n[1:9999][1:9999]" make more than 1000000 names`},
		{"n[1:999999]\nm[1:2]\n", `FILE:2: with this line the inventory has more than 1000000 hosts`},
		{"a,b\n", `FILE:1: "a,b" is no name of a host`},
		{"@x\n", `FILE:1: "@x" is no name of a host`},
		{"-x\n", `FILE:1: "-x" is no name of a host`},
		{"10.0.0.0/24\n", `FILE:1: "10.0.0.0/24" is no name of a host`},
		{"'' a=b\n", `FILE:1: expected a host, found "'' a=b"`},
		{"n1 ansible_host={{x}}\n", `FILE:1: ansible_host is the template "{{x}}", which only Ansible can fill in; write a source of commands, which run ansible-inventory`},
		{"[a]\n[a:vars]\nansible_group_priority=high\n", `FILE:3: ansible_group_priority is no number: "high"`},
		{"[b;d]\nn1\n", `FILE:1: "b;d" is no name of a group: expected letters, digits, '_', '-' and '.'`},
		{"#!/bin/sh\n", `FILE: this is a program that prints an inventory; write a source of commands, which run ansible-inventory`},
	})
}

var badAnsibleYAML = []badFile{
	{"all: {hosts: [a, b]}", `FILE:1: hosts of the group "all": expected a mapping, as "name: …"`},
	{"web:\n  children: {web: }\n", `FILE:2: these groups are children of each other: web, web`},
	{"all: [\n", "FILE:1: did not find expected node content"},
	{"web:\n  hosts:\n    a:\n---\ndb:\n  hosts:\n    b:\n", `FILE:4: a second document begins here; one file is one document`},
}

func TestAnsibleBadYAML(t *testing.T) {
	testBadFiles(t, ".yml", Ansible, badAnsibleYAML)
	bomb := "a: &a {children: {x: {}}}\n"
	for i := range 25 {
		name, before := 'b'+rune(i), 'a'+rune(i)
		bomb += fmt.Sprintf("%c: &%c {children: {x%d: *%c, y%d: *%c}}\n", name, name, i, before, i, before)
	}
	long := "web:\n  vars: {x: &x " + strings.Repeat("x", 1<<10) + "}\n  hosts: {"
	for i := range 20_000 {
		long += fmt.Sprintf("h%d: {y: *x},", i)
	}
	testBadFiles(t, ".yml", Ansible, []badFile{ // what Ansible lets through, passes over with a warning, or dies of
		{"web:\n- a\n", `FILE:2: the group "web": expected a mapping, as "name: …"`},
		{"web: x\n", `FILE:1: the group "web": expected a mapping, as "name: …"`},
		{"all:\n  kids: {}\n", `FILE:2: there is no "kids" in a group: there is hosts, children and vars`},
		{"all:\n  hosts: {a: , a: }\n", `FILE:2: hosts of the group "all": "a" is there twice`},
		{"all:\n  hosts:\n    ? [a]\n    : b\n", `FILE:3: hosts of the group "all": a name is expected here`},
		{"all:\n  hosts:\n    a: {ansible_user: !vault \"$ANSIBLE_VAULT;1.1;AES256\"}\n", `FILE:3: ansible_user is in a vault, which only Ansible can open`},
		{"- a\n", `FILE:1: the groups: expected a mapping, as "name: …"`},
		{strings.Repeat("a: {children: {", 200) + strings.Repeat("}}", 200), "FILE:1: groups are nested more than 100 deep here"},
		{"a: &a\n  children:\n    b: *a\n", "FILE:3: groups are nested more than 100 deep here"},
		{"a: &a\n  hosts: &h\n    <<: *h\n", `FILE:2: hosts of the group "a": mappings merge each other more than 100 deep here`},
		{bomb, "FILE:3: the aliases of this file make it sixteen times as large as it is, or more"},
		{long + "}\n", "FILE:3: the aliases of this file make it sixteen times as large as it is, or more"},
		{strings.Repeat("# x\n", maxYAML/4+1), fmt.Sprintf("FILE: this file has %d bytes, and YAML is read up to %d; write ranges of hosts, or have a command print them", maxYAML+4, maxYAML)},
	})
}

// A chain of a hundred thousand groups, and a lattice with more ways through it than can be gone, are read as any other.
func TestAnsibleManyChildren(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "[g%d:children]\ng%d\n", i, i+1)
	}
	b.WriteString("[g100000]\nn1\n")
	for i := range 100 {
		fmt.Fprintf(&b, "[l%d:children]\nl%d\nr%d\n[r%d:children]\nl%d\nr%d\n", i, i+1, i+1, i, i+1, i+1)
	}
	b.WriteString("[l100]\nn1\n[r100]\nn1\n[l100:vars]\nansible_user=deepest\n[l0:vars]\nansible_user=top\n[g100000:vars]\nansible_port=1\n[g0:vars]\nansible_port=2\n")
	settings, err := Ansible(file(t, "f", b.String())).(Settler).Settings(t.Context())
	if err != nil || len(settings) != 4 || settings[0].Hosts != "@g100000" || settings[1].Hosts != "@l100" {
		t.Errorf("%v, %v", settings, err)
	}
}

// Ansible's own reading of the same inventories. What is bad for it was tried by hand, at more than a second each.
func TestAnsibleOracle(t *testing.T) {
	program, err := exec.LookPath("ansible-inventory")
	if err != nil {
		t.Skip("ansible-inventory is not there; install ansible-core. Its answers of ansible-core 2.14.18 are those that TestAnsible wants")
	}
	for _, test := range inventories {
		t.Run(test.name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), program, "-i", file(t, test.name, test.text), "--list").Output()
			if err != nil {
				t.Fatal(err)
			}
			var raw map[string]json.RawMessage
			if err := json.Unmarshal(out, &raw); err != nil {
				t.Fatal(err)
			}
			var meta struct{ HostVars map[string]map[string]any }
			if err := json.Unmarshal(raw["_meta"], &meta); err != nil {
				t.Fatal(err)
			}
			var lines []string
			for name := range raw {
				var g struct{ Hosts, Children []string }
				if err := json.Unmarshal(raw[name], &g); err != nil {
					t.Fatal(err)
				}
				words := slices.Clone(g.Hosts)
				for _, child := range g.Children {
					words = append(words, "@"+child)
				}
				if slices.Sort(words); name != "all" && name != "_meta" {
					lines = append(lines, name+": "+strings.Join(words, " ")+"\n")
				}
			}
			slices.Sort(lines)
			if diff := cmp.Diff(strings.Join(lines, ""), test.groups); diff != "" {
				t.Errorf("groups (-ansible +want):\n%s", diff)
			}
			of := map[string]map[string]string{}
			for host, vars := range meta.HostVars {
				of[host] = map[string]string{}
				for name, key := range ansibleSettings {
					if value := vars[name]; value != nil && !strings.HasPrefix(key, "ssh ") {
						of[host][key] = fmt.Sprint(value)
					}
				}
			}
			if diff := cmp.Diff(hostVars(of), test.vars); diff != "" {
				t.Errorf("variables (-ansible +want):\n%s", diff)
			}
		})
	}
}
