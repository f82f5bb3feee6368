// Count reads the events of "go test -json" and prints what a person wants of them: a line for each package, the output of
// what failed, each reason for which tests were skipped with their number, and last "N passed, N failed, N skipped".
// It ends with status 1 if anything failed, or if nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

type key struct{ pkg, test string }

// position is where a test says something: "    file_test.go:12: ".
var position = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

func main() {
	var passed, failed, skipped int
	output := map[key][]string{} // of what has not ended yet
	parent := map[key]bool{}     // tests with sub-tests: those are counted, not they
	broken := map[string]int{}   // failed tests of a package
	reasons := map[string]int{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var ev event
		if json.Unmarshal(in.Bytes(), &ev) != nil {
			fmt.Println(in.Text()) // not an event: a message of the go command
			continue
		}
		k := key{ev.Package, ev.Test}
		if i := strings.LastIndexByte(ev.Test, '/'); i >= 0 {
			parent[key{ev.Package, ev.Test[:i]}] = true
		}
		switch ev.Action {
		case "build-output":
			fmt.Print(ev.Output)
		case "output":
			output[k] = append(output[k], ev.Output)
		case "pass", "fail", "skip":
			text := output[k]
			delete(output, k)
			if ev.Test == "" {
				fmt.Printf("%-4s %s %.1fs\n", ev.Action, ev.Package, ev.Elapsed)
				if ev.Action == "fail" {
					if broken[ev.Package] == 0 {
						failed++ // it does not build, or failed outside of its tests
					}
					fmt.Print(strings.Join(text, ""))
				}
				continue
			}
			switch {
			case ev.Action == "fail":
				fmt.Print(strings.Join(text, ""))
				broken[ev.Package]++
				failed++ // tests with sub-tests too: they may have failed by themselves
			case parent[k]:
			case ev.Action == "pass":
				passed++
			default:
				skipped++
				reasons[reason(text)]++
			}
		}
	}
	if err := in.Err(); err != nil {
		fmt.Println(err)
		failed++
	}
	for _, r := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Printf("skipped %d: %s\n", reasons[r], r)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

// reason finds what a skipped test said.
func reason(text []string) string {
	for i, line := range text {
		if at := position.FindString(line); at != "" {
			said := strings.Join(text[i:], " ")[len(at):]
			said, _, _ = strings.Cut(said, "--- SKIP")
			return strings.Join(strings.Fields(said), " ")
		}
	}
	return "no reason given"
}
