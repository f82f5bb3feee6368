package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// arrows says which packages of ours each package may import; its tests may import testArrows besides. A new package, or a
// new arrow, is a decision about the design: it is written here and in docs/design.md.
//
//	            cmd/multi-rsh ──────────────┐            cmd/fleetsim
//	   ┌─────────────┼────────────┐         │                 │
//	runner/output  runner/inventory         │          transport/fleet
//	   │   └──► runner/hostlist ◄─┘         ▼           │          │
//	   ▼                    transport/{execcmd,rsh,ssh} rsh/rshtest ssh/sshtest ─► testserver
//	 runner ──────► transport ◄────────────┘ │  │  └─► ssh/{sshconfig,hostkeys,auth}, shwrap
//	                                         │  └─► rsh/resvport ─► rsh/sockdiag
//	                                         └────► shwrap
var arrows = map[string][]string{
	"cmd/multi-rsh": {
		"runner", "runner/hostlist", "runner/inventory", "runner/inventory/groups", "runner/journal", "runner/output",
		"transport", "transport/execcmd", "transport/rsh", "transport/rsh/resvport", "transport/rsh/sockdiag",
		"transport/shwrap", "transport/ssh", "transport/ssh/auth", "transport/ssh/hostkeys", "transport/ssh/sshconfig",
	},
	"cmd/multi-rsh/real":      {},
	"cmd/fleetsim":            {"transport/fleet", "transport/rsh/rshtest", "transport/ssh/sshtest"},
	"runner":                  {"transport"},
	"runner/hostlist":         {},
	"runner/inventory":        {"runner/hostlist", "runner/inventory/groups", "transport"},
	"runner/inventory/groups": {},
	"runner/journal":          {"runner", "transport"},
	"runner/output":           {"runner", "runner/hostlist", "transport"},
	"transport":               {},
	"transport/execcmd":       {"transport"},
	"transport/rsh":           {"transport", "transport/rsh/resvport", "transport/shwrap"},
	"transport/shwrap":        {"transport"},
	"transport/rsh/resvport":  {"transport", "transport/rsh/sockdiag"},
	"transport/rsh/sockdiag":  {},
	"transport/rsh/rshtest":   {"transport", "transport/shwrap", "transport/testserver"},
	"transport/ssh":           {"transport", "transport/shwrap", "transport/ssh/auth", "transport/ssh/hostkeys", "transport/ssh/sshconfig"},
	"transport/ssh/auth":      {},
	"transport/ssh/hostkeys":  {},
	"transport/ssh/sshconfig": {},
	"transport/ssh/sshtest":   {"transport", "transport/shwrap", "transport/testserver"},
	"transport/testserver":    {},
	"transport/fleet":         {"transport", "transport/rsh/rshtest", "transport/shwrap", "transport/ssh/sshtest"},
	"transport/transporttest": {"transport"},
	"transport/rig":           {"transport"},
	"transport/closing":       {"transport/rsh/sockdiag"}, // in its tests; there is nothing else
}

// testArrows are packages for tests: any test may import them, and nothing else may but the packages named in arrows.
var testArrows = []string{"transport/transporttest", "transport/rsh/rshtest", "transport/ssh/sshtest", "transport/fleet", "transport/rig", "transport/testserver"}

// Imports point one way, downward, and those of other people's packages stay where they belong.
func TestArrows(t *testing.T) {
	const module = "multirsh/"
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "multirsh/...").Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Skipf("go list is needed to read the imports, so put go into PATH: %v", err)
	}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(pkg.ImportPath, module)
		allowed, known := arrows[name]
		if !known {
			t.Errorf("%s is not in the table of arrows", name)
			continue
		}
		for _, imported := range pkg.Imports {
			if ours, is := strings.CutPrefix(imported, module); is && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: no such arrow", name, ours)
			}
			if imported == "github.com/urfave/cli/v2" && !strings.HasPrefix(name, "cmd/") {
				t.Errorf("%s imports %s: the command line belongs to cmd", name, imported)
			}
		}
		for _, imported := range slices.Concat(pkg.TestImports, pkg.XTestImports) {
			if ours, is := strings.CutPrefix(imported, module); is && ours != name && !slices.Contains(allowed, ours) && !slices.Contains(testArrows, ours) {
				t.Errorf("tests of %s import %s: no such arrow", name, ours)
			}
		}
	}
}

// The table itself has no cycle: an arrow leads to a package whose own arrows never lead back.
func TestArrowsPointDown(t *testing.T) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		path = append(path, name)
		if _, known := arrows[name]; !known {
			t.Fatalf("an arrow to %s, which has none itself: %s", name, strings.Join(path, " → "))
		}
		if state[name] == visiting {
			t.Fatalf("a cycle: %s", strings.Join(path, " → "))
		}
		if state[name] == done {
			return
		}
		state[name] = visiting
		for _, next := range arrows[name] {
			visit(next, path)
		}
		state[name] = done
	}
	for name := range arrows {
		visit(name, nil)
	}
}
