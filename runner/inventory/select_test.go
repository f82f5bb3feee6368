package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
	"multirsh/runner/inventory"
	"multirsh/runner/inventory/groups"
	"multirsh/transport"
)

// mapped is a source of groups that are known, and counts how often it is asked.
type mapped struct {
	groups map[string]string
	fails  error         // of every question
	takes  time.Duration // to answer

	mu    sync.Mutex
	asked []string
}

func (m *mapped) ask(ctx context.Context, what string) error {
	m.mu.Lock()
	m.asked = append(m.asked, what)
	m.mu.Unlock()
	if m.takes > 0 {
		select {
		case <-time.After(m.takes):
		case <-ctx.Done():
			return fmt.Errorf("sinfo -p %s: killed", what)
		}
	}
	return m.fails
}

func (m *mapped) Map(ctx context.Context, group string) (string, error) {
	if err := m.ask(ctx, group); err != nil {
		return "", err
	}
	text, is := m.groups[group]
	if !is {
		return "", fmt.Errorf("slurm has no group %q: %w", group, groups.ErrNoGroup)
	}
	return text, nil
}

func (m *mapped) List(ctx context.Context) ([]string, error) {
	if err := m.ask(ctx, "list"); err != nil {
		return nil, err
	}
	var names []string
	for name := range m.groups {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// reversing is a mapped that knows the groups of a host, and all hosts.
type reversing struct{ *mapped }

func (r reversing) Reverse(ctx context.Context, host string) ([]string, error) {
	return []string{"of-" + host}, r.ask(ctx, "reverse "+host)
}

func (r reversing) All(ctx context.Context) (string, error) {
	return "all[1-2]", r.ask(ctx, "all")
}

// unlisted is a source that knows groups only by their names.
type unlisted struct{}

func (unlisted) Map(context.Context, string) (string, error) { return "", groups.ErrNoGroup }
func (unlisted) List(context.Context) ([]string, error)      { return nil, groups.ErrNoList }

// with returns an inventory with sources, the first of which is the default.
func with(sources ...inventory.Named) *inventory.Inventory {
	return inventory.New(inventory.Options{Transports: transports, Sources: sources, Default: sources[0].Name})
}

func mustRead(tb testing.TB, inv *inventory.Inventory, text string) {
	tb.Helper()
	if err := inv.Read(strings.NewReader(text), "hosts"); err != nil {
		tb.Fatal(err)
	}
}

func mustMatch(tb testing.TB, inv *inventory.Inventory, expr, place string, set inventory.Settings) {
	tb.Helper()
	if err := inv.Match(expr, place, set); err != nil {
		tb.Fatal(err)
	}
}

func slurm() *mapped {
	return &mapped{groups: map[string]string{
		"batch": "n[1-4]\n@gpu", "gpu": "g[1-2] n4", "all": "@batch,@gpu,@login", "login": "l1\n", "none": " \n",
		"loop": "x,@pool", "pool": "@loop", "bad": "n[", "dsh": "root@d1,d2", "lost": "@nowhere",
	}}
}

func TestSelect(t *testing.T) {
	const file = "n[1-6] user=ops port=22\nlogin label=rack:r0\n[rack1] label=rack:r1\nn[1-3]\n[rack2] label=rack:r2\nn[4-6]\n[racks:children]\nrack[1-2]\n"
	for _, tt := range []struct {
		name             string
		include, exclude []string
		want             string
	}{
		{"nothing", nil, nil, ""},
		{"names", []string{"x,n2"}, nil, lines("x", "n2 user=ops port=22 label.rack=r1")},
		{"all but", []string{"@*"}, []string{"n[1-5]"}, lines("n6 user=ops port=22 label.rack=r2", "login label.rack=r0")},
		{"all", []string{"*"}, []string{"@racks"}, lines("login label.rack=r0")},
		{"wildcards", []string{"log*,n?"}, []string{"n[2-5]", "n5,n5"}, lines("login label.rack=r0", "n1 user=ops port=22 label.rack=r1", "n6 user=ops port=22 label.rack=r2")},
		{"several texts", []string{"n1,", "@rack2", "-n[4-5]"}, nil, lines("n1 user=ops port=22 label.rack=r1", "n6 user=ops port=22 label.rack=r2")},
		{"a filter", []string{"n[1-6],login", "/[15]$/"}, nil, lines("n1 user=ops port=22 label.rack=r1", "n5 user=ops port=22 label.rack=r2")},
		{"targets", []string{"rsh:root@n[1-2],login:2222,n4"}, nil,
			lines("n1 transport=rsh user=root port=22 label.rack=r1", "n2 transport=rsh user=root port=22 label.rack=r1", "login port=2222 label.rack=r0", "n4 user=ops port=22 label.rack=r2")},
		{"a target of a group", []string{"root@@rack1"}, []string{"n[1-2]"}, lines("n3 user=root port=22 label.rack=r1")},
		{"nothing left", []string{"n1"}, []string{"n1"}, ""},
		{"a source", []string{"@slurm:batch"}, nil,
			lines("n1 user=ops port=22 label.rack=r1", "n2 user=ops port=22 label.rack=r1", "n3 user=ops port=22 label.rack=r1", "n4 user=ops port=22 label.rack=r2", "g1", "g2")},
		{"the default source", []string{"@login,@none"}, nil, lines("l1")},
		{"a source beside a section of the same name", []string{"@batch"}, []string{"@slurm:gpu,n[1-2]"}, lines("n3 user=ops port=22 label.rack=r1")},
		{"targets in a source", []string{"@dsh"}, nil, lines("d1 user=root", "d2")},
		{"a section goes before it", []string{"@dsh,@slurm:dsh"}, []string{"d2"}, lines("d1 user=root")},
		{"sections by their source", []string{"@hosts:rack1"}, []string{"n[2-3]"}, lines("n1 user=ops port=22 label.rack=r1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inv := with(inventory.Named{Name: "slurm", Source: slurm()})
			mustRead(t, inv, file)
			for range 2 { // and again, with all known
				s, err := inv.Select(t.Context(), tt.include, tt.exclude)
				if err != nil {
					t.Fatal(err)
				}
				wantText(t, "hosts", brief(s), tt.want)
			}
		})
	}
}

func TestSelectErrors(t *testing.T) {
	for _, tt := range []struct {
		file    string
		include []string
		exclude []string
		want    string
	}{
		{"", []string{"n["}, nil, `host expression "n[", column 2: this '[' is never closed: expected ']'`},
		{"", []string{"a", "", "b"}, nil, `host expression "a,,b", column 3: empty item: expected a host name, found ','`},
		{"", []string{"a"}, []string{"b"}, `host expression "b", column 1: this excludes nothing: b is not among the hosts`},
		{"", []string{"a01"}, []string{"a1"}, `host expression "a1", column 1: this excludes nothing: a1 is not among the hosts; did you mean a01?`},
		{"", []string{"@slurm:nosuch"}, nil, `@slurm:nosuch: slurm has no group "nosuch": there is no such group`},
		{"", []string{"@slurm:bacth"}, nil, `@slurm:bacth: slurm has no group "bacth": there is no such group; did you mean batch?`},
		{"[nosuchs]\n", []string{"@nosuch"}, nil, `@slurm:nosuch: slurm has no group "nosuch": there is no such group; did you mean nosuchs?`},
		{"", []string{"x", "@slrum:batch"}, nil, `there is no source of groups "slrum"; did you mean slurm?`},
		{"", []string{"@hosts:web"}, nil, `there is no section [web]: no hosts file has any`},
		{"", []string{"@slurm:loop"}, nil, "@slurm:loop is in itself: @slurm:loop > @slurm:pool > @slurm:loop"},
		{"", []string{"@slurm:bad"}, nil, `@slurm:bad: host expression "n[", column 2: this '[' is never closed: expected ']'`},
		{"", []string{"@slurm:lost"}, nil, `@slurm:lost: @slurm:nowhere: slurm has no group "nowhere": there is no such group`},
		{"a\n@slurm:pool\n", []string{"*"}, nil, "hosts:2: @slurm:pool is in itself: @slurm:pool > @slurm:loop > @slurm:pool"},
		{"a\n@slurm:pool user=x\n", []string{"b"}, nil, "hosts:2: @slurm:pool is in itself: @slurm:pool > @slurm:loop > @slurm:pool"},
		{"a\n@nosuch user=x\n", []string{"b"}, nil, `hosts:2: @slurm:nosuch: slurm has no group "nosuch": there is no such group`},
		{"@batch addr=10.0.0.[1-2]\n", []string{"b"}, nil, "hosts:1: addr=10.0.0.[1-2] has 2 addresses for 6 hosts: give each host one of its own, as in n[1-3] addr=10.0.0.[1-3]"},
		{"a user=x\nroot@@login\nl1 user=ops\n", []string{"a"}, nil, "hosts:3: l1 has user=ops here, but user=root at hosts:2: let one line set it"},
		{"a\n", []string{"b*"}, nil, `host expression "b*", column 1: `},
		{"", []string{"root@a,ops@a"}, nil, `host expression "root@a,ops@a", column 8: `},
	} {
		inv := with(inventory.Named{Name: "slurm", Source: slurm()})
		mustRead(t, inv, tt.file)
		_, err := inv.Select(t.Context(), tt.include, tt.exclude)
		if err == nil {
			t.Errorf("%q %q: no error, want %s", tt.file, tt.include, tt.want)
		} else if !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q %q: -want +got:\n%s", tt.file, tt.include, gocmp.Diff(tt.want, err.Error()))
		}
	}
}

// What the parts of a file come to, and what is asked for.
func TestSourcesAreAskedOnce(t *testing.T) {
	s, other := slurm(), &mapped{groups: map[string]string{"a": "@b,@c", "b": "@c", "c": "x"}}
	inv := with(inventory.Named{Name: "slurm", Source: s}, inventory.Named{Name: "other", Source: other}, inventory.Named{Name: "down", Source: &mapped{fails: errors.New("no")}})
	mustRead(t, inv, "[web]\n@slurm:gpu user=u\n@other:a\n[idle]\n@down:x\n")
	mustMatch(t, inv, "@slurm:login", "config:1", inventory.Settings{User: "l"})
	for range 2 {
		wantText(t, "hosts", brief(choose(t, inv, "@batch,@slurm:gpu,@other:a,l1", "@gpu")), lines("n1", "n2", "n3", "n4 user=u", "g1 user=u", "g2 user=u", "x", "l1 user=l"))
	}
	slices.Sort(s.asked)
	slices.Sort(other.asked)
	wantText(t, "slurm", strings.Join(s.asked, " "), "batch gpu login")
	wantText(t, "other", strings.Join(other.asked, " "), "a b c")
}

func TestAllOfASource(t *testing.T) {
	few := &mapped{groups: map[string]string{"a": "n[1-2]", "b": "n[2-3]", "a name": "m"}}
	for _, tt := range []struct {
		file, include, want string
	}{
		{"", "@*", lines("all1", "all2")},
		{"", "all1,*", lines("all1", "all2")},
		{"x\n", "@*", lines("x")},
		{"x\n", "@*,@few:*", lines("x", "n1", "n2", "m", "n3")},
		{"@few:* user=u\n[a:children]\nfew:a, @few:b\n", "@hosts:*", lines("n1 user=u", "n2 user=u", "m user=u", "n3 user=u")},
		{"[a:children]\nfew:a\n", "@*", lines("n1", "n2")},
	} {
		inv := with(inventory.Named{Name: "slurm", Source: reversing{slurm()}}, inventory.Named{Name: "few", Source: few})
		mustRead(t, inv, tt.file)
		wantText(t, tt.file+" "+tt.include, brief(choose(t, inv, tt.include)), tt.want)
	}
}

// Groups are fetched at the same time, a level after the other, and all of it within one deadline.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &mapped{takes: time.Second, groups: map[string]string{}}
		var all []string
		for i := range 30 {
			all = append(all, fmt.Sprint("@g", i))
			s.groups[fmt.Sprint("g", i)] = fmt.Sprint("@sub,n", i)
		}
		s.groups["sub"] = "x"
		choose(t, with(inventory.Named{Name: "slurm", Source: s}), all...)
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("two levels took %v, want 2s", took)
		}

		slow := &mapped{takes: time.Hour, groups: map[string]string{"x": "a"}}
		for _, tt := range []struct {
			timeout time.Duration
			is      time.Duration
		}{{5 * time.Second, 5 * time.Second}, {0, inventory.DefaultTimeout}} {
			start := time.Now()
			inv := inventory.New(inventory.Options{Sources: []inventory.Named{{Name: "slurm", Source: slow}}, Timeout: tt.timeout})
			_, err := inv.Select(t.Context(), []string{"@slurm:x"}, nil)
			want := fmt.Sprintf("@slurm:x: sinfo -p x: killed (the sources of groups have %v together)", tt.is)
			if took := time.Since(start); took != tt.is || err == nil || err.Error() != want {
				t.Errorf("after %v: %v, want after %v: %s", took, err, tt.is, want)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no deadline", err)
			}
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stopped")
		time.AfterFunc(time.Second, func() { cancel(stop) })
		inv := inventory.New(inventory.Options{Sources: []inventory.Named{{Name: "slurm", Source: slow}}})
		if _, err := inv.Groups(ctx, "slurm"); !errors.Is(err, stop) {
			t.Errorf("%v, want what stopped it", err)
		}
	})
}

// A group that fails says which one, and does not wait for the others.
func TestGroupFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		inv := with(
			inventory.Named{Name: "slow", Source: &mapped{takes: time.Hour, groups: map[string]string{"x": "a"}}},
			inventory.Named{Name: "slurm", Source: &mapped{takes: time.Second, fails: errors.New("sinfo -p down: exit status 1: no such partition")}})
		_, err := inv.Select(t.Context(), []string{"@slow:x,@slurm:down"}, nil)
		if want := "@slurm:down: sinfo -p down: exit status 1: no such partition"; err == nil || err.Error() != want || time.Since(start) != time.Second {
			t.Errorf("after %v: %v, want %s", time.Since(start), err, want)
		}
	})
}

// Groups in groups have an end, however a source answers.
type nested struct{}

func (nested) Map(_ context.Context, group string) (string, error) { return "@" + group + "x", nil }
func (nested) List(context.Context) ([]string, error)              { return nil, nil }

func TestEndlessGroups(t *testing.T) {
	_, err := with(inventory.Named{Name: "s", Source: nested{}}).Select(t.Context(), []string{"@s:g"}, nil)
	if err == nil || !strings.HasSuffix(err.Error(), ": groups are in groups more than 1000 deep") {
		t.Errorf("%.100v", err)
	}
}

func TestMatch(t *testing.T) {
	inv := with(inventory.Named{Name: "slurm", Source: slurm()})
	mustRead(t, inv, "n[1-3] user=file\n[web] label=role:web\nw[1-2]\n")
	mustMatch(t, inv, "@web", "config:1", inventory.Settings{User: "first", Fanout: 8, Labels: map[string]string{"role": "other", "row": "7, the last"}})
	mustMatch(t, inv, "w2,n2", "config:5", inventory.Settings{User: "second", Port: 2222, Fanout: 2, Transport: "rsh"})
	mustMatch(t, inv, "w*,n*", "config:9", inventory.Settings{})
	mustMatch(t, inv, "n*", "config:11", inventory.Settings{Jump: "gate"})
	mustMatch(t, inv, "zz*", "config:12", inventory.Settings{Jump: "nobody"})
	mustMatch(t, inv, "/3$/", "config:13", inventory.Settings{Port: 3})
	mustMatch(t, inv, "a[1-2]", "config:14", inventory.Settings{Addr: "10.0.0.[1-2]"})
	s := choose(t, inv, "w[1-2],n[2-3],a2")
	wantText(t, "hosts", brief(s), lines(
		"w1 user=first label.role=web label.row=7, the last fanout=8/config:1",
		"w2 transport=rsh user=first port=2222 label.role=web label.row=7, the last fanout=8/config:1",
		"n2 transport=rsh user=file jump=gate port=2222 fanout=2/config:5",
		"n3 user=file jump=gate port=3",
		"a2 addr=10.0.0.2",
	))
	if diff := gocmp.Diff(map[string]bool{"rsh": true, "ssh": true}, s.Transports("ssh")); diff != "" {
		t.Errorf("Transports: -want +got:\n%s", diff)
	}
	if diff := gocmp.Diff(map[string]bool{"exec": true}, choose(t, with(inventory.Named{Name: "slurm", Source: slurm()}), "x").Transports("exec")); diff != "" {
		t.Errorf("Transports: -want +got:\n%s", diff)
	}

	for _, tt := range []struct {
		expr string
		set  inventory.Settings
		want string
	}{
		{"n[", inventory.Settings{}, `config:1: host expression "n[", column 2: this '[' is never closed: expected ']'`},
		{"n", inventory.Settings{User: "-l"}, `config:1: user="-l" is no user name: expected letters, digits and punctuation, not beginning with '-'`},
		{"n", inventory.Settings{Transport: "x"}, `config:1: there is no transport "x": there is ssh, rsh, exec`},
		{"n", inventory.Settings{Labels: map[string]string{"a b": "x"}}, `config:1: "a b" is no name for a label: expected letters, digits, '_', '-' and '.'`},
		{"n[1-2]", inventory.Settings{Addr: "a"}, "config:1: addr=a has 1 address for 2 hosts: give each host one of its own, as in n[1-3] addr=10.0.0.[1-3]"},
		{"@slurm:nosuch", inventory.Settings{}, `config:1: @slurm:nosuch: slurm has no group "nosuch": there is no such group`},
		{"n[1-3]!n4", inventory.Settings{}, `config:1: host expression "n[1-3]!n4", column 8: this excludes nothing: n4 is not among the hosts`},
	} {
		inv := with(inventory.Named{Name: "slurm", Source: slurm()})
		err := inv.Match(tt.expr, "config:1", tt.set)
		if err == nil {
			_, err = inv.Select(t.Context(), []string{"x"}, nil)
		}
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.expr, err, tt.want)
		}
	}
}

// What sources set holds for their hosts, if the source is the default or has been asked for a group.
func TestSourcesSet(t *testing.T) {
	dir := tree(t, map[string]string{
		"ansible": "[web]\nw1 ansible_host=10.0.0.1 ansible_port=2222\nw[2:3] ansible_host=10.0.0.2\n[web:vars]\nansible_user=deploy\n[bad:children]\nweb\n[lost]\nx\n",
		"broken":  "[web]\nw1 ansible_port=many\n",
		"lab":     "lab: n[1-2]\nall: @lab,ops@n9\n",
	})
	ansible := inventory.Named{Name: "ansible", Source: groups.Ansible(filepath.Join(dir, "ansible"))}
	lab := inventory.Named{Name: "lab", Source: groups.File(filepath.Join(dir, "lab"))}
	web := lines("w1 user=deploy addr=10.0.0.1 port=2222", "w2 user=deploy addr=10.0.0.2", "w3 user=deploy addr=10.0.0.2")
	wantText(t, "a host of the default source", brief(choose(t, with(ansible, lab), "w1")), lines("w1 user=deploy addr=10.0.0.1 port=2222"))
	wantText(t, "of another", brief(choose(t, with(lab, ansible), "w1")), lines("w1"))
	inv := with(lab, ansible)
	mustRead(t, inv, "w2 user=own\n")
	mustMatch(t, inv, "w*", "config:1", inventory.Settings{User: "match", Jump: "gate"})
	wantText(t, "of another that is asked", brief(choose(t, inv, "@ansible:web")),
		strings.ReplaceAll(strings.Replace(strings.ReplaceAll(web, " addr=10.0.0.2", " addr=10.0.0.2 jump=gate"), "w2 user=deploy", "w2 user=own", 1), "10.0.0.1", "10.0.0.1 jump=gate"))
	wantText(t, "and then", brief(choose(t, inv, "w1,n9,n1")), lines("w1 user=deploy addr=10.0.0.1 jump=gate port=2222", "n9", "n1"))
	wantText(t, "a target", brief(choose(t, inv, "@lab:*,n9,ops@n1")), lines("n1 user=ops", "n2", "n9 user=ops"))
	_, err := with(inventory.Named{Name: "broken", Source: groups.Ansible(filepath.Join(dir, "broken"))}).Select(t.Context(), []string{"x"}, nil)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "broken")+":2: ") {
		t.Errorf("%v, want the place in the file", err)
	}
}

// The order of what holds, for every setting.
func TestPrecedence(t *testing.T) {
	set := func(by string) string {
		return fmt.Sprintf("transport=%s user=%s port=%d jump=%[2]s label=by:%[2]s", map[string]string{"line": "rsh"}[by]+map[string]string{"section": "exec"}[by], by, len(by))
	}
	inv := newInventory()
	mustRead(t, inv, "line "+set("line")+" addr=line\n[s] "+set("section")+"\nline,section\n")
	mustMatch(t, inv, "line,section", "c:1", inventory.Settings{Transport: "ssh", User: "match", Port: 5, Addr: "m1,m2", Jump: "match", Labels: map[string]string{"by": "match"}})
	mustMatch(t, inv, "match", "c:2", inventory.Settings{Transport: "ssh", User: "match", Port: 5, Addr: "match", Jump: "match", Labels: map[string]string{"by": "match"}})
	s := choose(t, inv, "exec:target@line:1,section,match,none")
	label := func(by string) map[string]string { return map[string]string{"label.by": by} }
	want := []transport.Host{
		{Name: "line", Transport: "exec", User: "target", Port: 1, Addr: "line", Jump: "line", Vars: label("line")},
		{Name: "section", Transport: "exec", User: "section", Port: 7, Addr: "m2", Jump: "section", Vars: label("section")},
		{Name: "match", Transport: "ssh", User: "match", Port: 5, Addr: "match", Jump: "match", Vars: label("match")},
		{Name: "none", Transport: "rsh", User: "me", Port: 9, Addr: "d", Jump: "d", Vars: label("default")},
	}
	got := slices.Collect(s.Hosts(transport.Host{Name: "x", Transport: "rsh", User: "me", Port: 9, Addr: "d", Jump: "d", Vars: label("default")}))
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Labels from several places come together, and what hosts share is not written to.
func TestLabelsAreShared(t *testing.T) {
	inv := newInventory()
	mustRead(t, inv, "a,b label=rack:r1\na label=row:7\n[x] label=x:y\na,b,c\n")
	for range 2 {
		wantText(t, "hosts", brief(choose(t, inv, "b,a,b,c")), lines("b label.rack=r1 label.x=y", "a label.rack=r1 label.row=7 label.x=y", "c label.x=y"))
	}
}

func TestDup(t *testing.T) {
	inv := inventory.New(inventory.Options{Transports: transports, Dup: true})
	mustRead(t, inv, "a user=u\na,a\n")
	wantText(t, "hosts", brief(choose(t, inv, "a,b,a,@*")), lines("a user=u", "b", "a user=u", "a user=u"))
}

func TestHostsOfFiles(t *testing.T) {
	dir := tree(t, map[string]string{
		"list":       "a,b user=f # c\n^more/list\n@s label=x:y\n[s] port=5\nc\n",
		"more/list":  "d addr=10.0.0.1\n^third\n",
		"more/third": "e\n@web user=w\n",
		"self":       "a\n^self\n",
		"one":        "x\n^two\n",
		"two":        "^one\n",
		"missing":    "x\n\n^none\n",
		"broken":     "x\ny[\n",
		"to broken":  "^broken\n",
		"against":    "a user=other\n",
		"kids":       "[a:children]\nb\n",
	})
	t.Chdir(dir)
	inv := newInventory()
	mustRead(t, inv, "[web]\nw\n")
	for range 2 {
		wantText(t, "hosts", brief(choose(t, inv, "^list,z")), lines("a user=f", "b user=f", "d addr=10.0.0.1", "e", "w user=w", "c port=5 label.x=y", "z"))
	}
	wantText(t, "the file is no inventory", brief(choose(t, inv, "@*")), lines("w user=w"))
	if _, err := inv.Select(t.Context(), []string{"a,b,x"}, []string{"^more/list,a"}); err == nil || !strings.Contains(err.Error(), "this excludes nothing: ") {
		t.Errorf("-x ^FILE: %v", err)
	}
	if s, err := inv.Select(t.Context(), []string{"a,d,e,w,x"}, []string{"^more/list,a"}); err != nil {
		t.Error(err)
	} else {
		wantText(t, "-x", brief(s), lines("x"))
	}
	for _, tt := range []struct{ file, include, want string }{
		{"", "^self", "self:2: ^self is in itself: ^self > ^self"},
		{"", "^one", "two:1: ^one is in itself: ^one > ^two > ^one"},
		{"", "^missing", "missing:3: none: no such file or directory"},
		{"", "^to broken", ""},
		{"", "^broken", `broken:2: host expression "y[", column 2: this '[' is never closed: expected ']'`},
		{"", "^kids", "kids:2: there is no section [b]: a group of a source is written SOURCE:GROUP"},
		{"", "^.", ".: this is a directory: name a hosts file, or its files as in DIRECTORY/*"},
		{"^missing\n", "x", "missing:3: none: no such file or directory"},
		{"", "^list,^against", "against:1: a has user=other here, but user=f at list:1: let one line set it"},
		{"^list!a user=g\n", "x", "list:1: b has user=f here, but user=g at hosts:1: let one line set it"},
	} {
		inv := newInventory()
		mustRead(t, inv, tt.file+"[web]\n")
		if _, err := inv.Select(t.Context(), []string{tt.include}, nil); err == nil || tt.want != "" && err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.include, err, tt.want)
		}
	}
}

func names(all []inventory.Group) string {
	var b strings.Builder
	for _, g := range all {
		fmt.Fprintln(&b, g)
	}
	return b.String()
}

func TestGroups(t *testing.T) {
	s := &mapped{groups: map[string]string{"batch": "n[1-4]", "web": "other", "gpu": "n[3-4],g1"}}
	inv := with(inventory.Named{Name: "slurm", Source: s}, inventory.Named{Name: "rev", Source: reversing{s}}, inventory.Named{Name: "down", Source: &mapped{fails: errors.New("is down")}})
	mustRead(t, inv, "n9\n[web]\nn1\n[all:children]\nweb\nslurm:gpu\n[rack1]\n@web,n2\n")
	ctx := t.Context()
	got := func(all []inventory.Group, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return names(all)
	}
	wantText(t, "sources", strings.Join(inv.Sources(), " "), "hosts slurm rev down")
	wantText(t, "plain", got(inv.Groups(ctx)), lines("@web", "@all", "@rack1", "@batch", "@gpu"))
	wantText(t, "named", got(inv.Groups(ctx, "slurm", "hosts")), lines("@slurm:batch", "@slurm:gpu", "@slurm:web", "@hosts:web", "@hosts:all", "@hosts:rack1"))
	wantText(t, "of n1", got(inv.GroupsOf(ctx, "n1")), lines("@web", "@all", "@rack1", "@batch"))
	wantText(t, "of n3", got(inv.GroupsOf(ctx, "n3", "slurm", "hosts", "rev")), lines("@slurm:batch", "@slurm:gpu", "@hosts:all", "@rev:of-n3"))
	wantText(t, "of other", got(inv.GroupsOf(ctx, "other")), "")
	inv = with(inventory.Named{Name: "net", Source: unlisted{}})
	mustRead(t, inv, "[web]\nn1\n")
	wantText(t, "of n1, where groups cannot be listed", got(inv.GroupsOf(ctx, "n1")), lines("@web"))
	if all, err := inv.Groups(ctx); !errors.Is(err, groups.ErrNoList) {
		t.Errorf("groups that cannot be listed: %v, %v", all, err)
	}
	if all, err := inv.GroupsOf(ctx, "n1", "net"); !errors.Is(err, groups.ErrNoList) {
		t.Errorf("groups that cannot be listed: %v, %v", all, err)
	}
	if text, err := inv.Regroup(ctx, choose(t, inv, "n[1-2]").Names()); err != nil || text != "@web,n2" {
		t.Errorf("Regroup, where groups cannot be listed: %s, %v", text, err)
	}
	inv = with(inventory.Named{Name: "slurm", Source: s}, inventory.Named{Name: "down", Source: &mapped{fails: errors.New("is down")}})
	for _, source := range []string{"down", "dwon"} {
		want := map[string]string{"down": "@down:*: is down", "dwon": `there is no source of groups "dwon"; did you mean down?`}[source]
		if _, err := inv.Groups(ctx, source); err == nil || err.Error() != want {
			t.Errorf("Groups(%s): %v, want %s", source, err, want)
		}
		if _, err := inv.GroupsOf(ctx, "n1", source); err == nil || err.Error() != want {
			t.Errorf("GroupsOf(%s): %v, want %s", source, err, want)
		}
	}
}

func TestRegroup(t *testing.T) {
	s := &mapped{groups: map[string]string{"rack1": "n[1-4]", "rack2": "n[5-8]", "rack3": "n[9-12]", "pair": "n[4-5]", "row": "@rack1,@rack2", "none": "", "bad name": "n[1-12],m", "one": "m"}}
	for _, tt := range []struct {
		hosts string
		named string
		want  string
	}{
		{"n[1-12]", "", "@rack3,@row"},
		{"n[1-4],n[9-12]", "", "@rack[1,3]"},
		{"n[1-5]", "", "@pair,@rack1"},
		{"n[4-7]", "", "@pair,n[6-7]"},
		{"n[1-3]", "", "n[1-3]"},
		{"n[1-8],m,x[1-2]", "s", "@s:one,@s:row,x[1-2]"},
		{"", "", ""},
	} {
		inv := with(inventory.Named{Name: "s", Source: s})
		list := new(hostlist.List)
		if tt.hosts != "" {
			list = choose(t, inv, tt.hosts).Names()
		}
		got, err := inv.Regroup(t.Context(), list, strings.Fields(tt.named)...)
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, tt.hosts, got, tt.want)
		if got != "" {
			back := choose(t, inv, got).Names()
			if back.Len() != list.Len() || back.Difference(list).Len() > 0 {
				t.Errorf("%s: regrouped as %s, which is %s", tt.hosts, got, hostlist.Fold(back.All()))
			}
		}
	}
}

// hosts.example is what newcomers copy. What it has commented out, since it needs more than the file, is tried too.
func TestHostsExample(t *testing.T) {
	want, err := os.ReadFile("testdata/example.golden")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../hosts.example")
	if err != nil {
		t.Fatal(err)
	}
	inv := newInventory()
	if err := inv.ReadFile("../../hosts.example"); err != nil {
		t.Fatal(err)
	}
	wantText(t, "hosts.example", brief(choose(t, inv, "*")), string(want))

	more := string(text)
	for _, line := range []string{"@slurm:batch", "^more-hosts", "include racks.d/*.hosts"} {
		if !strings.Contains(more, "\n#"+line+"\n") {
			t.Fatalf("hosts.example has no line #%s", line)
		}
		more = strings.Replace(more, "\n#"+line+"\n", "\n"+line+"\n", 1)
	}
	dir := tree(t, map[string]string{"hosts": more, "more-hosts": "more user=m\n", "racks.d/1.hosts": "[rack1]\nr1\n"})
	inv = with(inventory.Named{Name: "slurm", Source: slurm()})
	if err := inv.ReadFile(filepath.Join(dir, "hosts")); err != nil {
		t.Fatal(err)
	}
	wantText(t, "all of hosts.example", brief(choose(t, inv, "*!@compute,@compute")),
		strings.Replace(string(want), "web3 user=root label.owner=shop\n", "", 1)+lines("r1", "web3 user=root label.owner=shop", "n1", "n2", "n3", "n4", "g1", "g2", "more user=m"))
}

// A million hosts are one item of an expression until they are asked for.
func TestLazy(t *testing.T) {
	inv := newInventory()
	mustRead(t, inv, "node[1-1000000] user=ops port=22\nlogin user=root\n[all] label=site:x\nnode[1-1000000]\n")
	s := choose(t, inv, "node[1-1000000],login")
	allocs := testing.AllocsPerRun(10, func() {
		inv := newInventory()
		mustRead(t, inv, "node[1-1000000] user=ops port=22\nlogin user=root\n[all] label=site:x\nnode[1-1000000]\n")
		for host := range choose(t, inv, "root@node[1-1000000],login").Hosts(transport.Host{}) {
			if host.Name != "node1" || host.User != "root" || host.Vars["label.site"] != "x" {
				t.Fatalf("%+v", host)
			}
			break
		}
	})
	if allocs > 5000 {
		t.Errorf("the first of a million hosts takes %v allocations", allocs)
	}
	if s.Len() != 1_000_001 {
		t.Errorf("Len() = %d", s.Len())
	}
}

// Hosts are alike where nothing is set for some of them that is not for the others.
func TestAlike(t *testing.T) {
	for _, test := range []struct {
		hosts, match, include string
		want                  bool
	}{
		{"", "", "n[1-9]", true},
		{"", "", "rsh:ops@n[1-9]:514", true},
		{"", "", "n[1-9]:514,m1", false},
		{"", "", "n[1-9]:514,m1:514", false},
		{"n[1-9]", "", "n[1-9]", true},
		{"n[1-9] user=ops", "", "m[1-9]", false}, // not looked into
		{"n1 port=1", "", "n[1-9]", false},
		{"[web] user=ops\nn1", "", "n[1-9]", false},
		{"", "n1", "n[1-9]", false},
	} {
		inv := inventory.New(inventory.Options{Transports: []string{"ssh", "rsh"}})
		if test.hosts != "" {
			if err := inv.Read(strings.NewReader(test.hosts), "hosts"); err != nil {
				t.Fatal(err)
			}
		}
		if test.match != "" {
			if err := inv.Match(test.match, "config:1", inventory.Settings{User: "ops"}); err != nil {
				t.Fatal(err)
			}
		}
		s, err := inv.Select(t.Context(), []string{test.include}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.Alike() != test.want {
			t.Errorf("%q, match %q, %s: %v, want %v", test.hosts, test.match, test.include, s.Alike(), test.want)
		}
	}
}

// What is wrong in a group's text is said with the place that the source has it from.
func TestGroupTextPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "groups")
	if err := os.WriteFile(path, []byte("good: n[1-3]\n\nbad: n1\nbad: n[3-1]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	inv := inventory.New(inventory.Options{Sources: []inventory.Named{{Name: "f", Source: groups.File(path)}}, Default: "f"})
	_, err := inv.Select(t.Context(), []string{"@bad"}, nil)
	if want := "@f:bad from " + path + ":4: "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s…", err, want)
	}
}
