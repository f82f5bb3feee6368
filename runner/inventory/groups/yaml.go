package groups

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxYAML bounds a YAML file, each byte of which may become a node of some two hundred.
const maxYAML = 8 << 20

// node is a place in a YAML file.
type node struct {
	*yaml.Node
	path   string
	budget *int // of bytes that may still be looked at, which is what stops a file whose aliases multiply
}

var yamlError = regexp.MustCompile(`^yaml: line (\d+): `)

func readYAML(path string) (node, error) {
	text, err := readText(path)
	if err != nil {
		return node{}, err
	}
	if len(text) > maxYAML {
		return node{}, fmt.Errorf("%s: this file has %d bytes, and YAML is read up to %d; write ranges of hosts, or have a command print them", path, len(text), maxYAML)
	}
	var document, second yaml.Node
	d := yaml.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&document); err != nil && err != io.EOF {
		if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
			return node{}, fmt.Errorf("%s:%s: %s", path, m[1], err.Error()[len(m[0]):])
		}
		return node{}, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&second); err == nil && len(second.Content) > 0 {
		return node{}, fmt.Errorf("%s:%d: a second document begins here; one file is one document", path, second.Line)
	}
	budget := 1<<20 + 16*len(text)
	n := node{&document, path, &budget}
	if document.Kind == yaml.DocumentNode {
		return n.at(document.Content[0])
	}
	return n, nil
}

func (n node) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", n.path, max(1, n.Line), fmt.Sprintf(format, args...))
}

// at is a place below n.
func (n node) at(below *yaml.Node) (node, error) {
	line := below.Line
	for below.Kind == yaml.AliasNode {
		below = below.Alias
	}
	if *n.budget -= 1 + len(below.Value); *n.budget < 0 {
		return n, fmt.Errorf("%s:%d: the aliases of this file make it sixteen times as large as it is, or more", n.path, line)
	}
	return node{below, n.path, n.budget}, nil
}

func (n node) null() bool {
	return n.Kind == 0 || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

type pair struct {
	key   string
	value node
	line  int
}

var errMapping = errors.New(`expected a mapping, as "name: …"`)

// pairs are the entries of a mapping, in their order, and those that it merges with "<<"; an empty value has none.
func (n node) pairs(what string) ([]pair, error) {
	return n.merged(what, 0)
}

func (n node) merged(what string, depth int) ([]pair, error) {
	if n.null() {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, n.errorf("%s: %v", what, errMapping)
	}
	if depth > maxDepth {
		return nil, n.errorf("%s: mappings merge each other more than %d deep here", what, maxDepth)
	}
	var pairs []pair
	var merges []node
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, err := n.at(n.Content[i])
		if err != nil {
			return nil, err
		}
		value, err := n.at(n.Content[i+1])
		if err != nil {
			return nil, err
		}
		switch {
		case key.Kind != yaml.ScalarNode:
			return nil, key.errorf("%s: a name is expected here", what)
		case key.Tag == "!!merge" && value.Kind == yaml.SequenceNode:
			for _, below := range value.Content {
				merge, err := n.at(below)
				if err != nil {
					return nil, err
				}
				merges = append(merges, merge)
			}
			continue
		case key.Tag == "!!merge":
			merges = append(merges, value)
			continue
		case seen[key.Value]:
			return nil, key.errorf("%s: %s is there twice", what, quote(key.Value))
		}
		seen[key.Value] = true
		pairs = append(pairs, pair{key.Value, value, key.Line})
	}
	for _, merge := range merges { // an earlier one goes before a later one, and the mapping's own before all
		more, err := merge.merged(what, depth+1)
		if err != nil {
			return nil, err
		}
		for _, p := range more {
			if !seen[p.key] {
				seen[p.key] = true
				pairs = append(pairs, p)
			}
		}
	}
	return pairs, nil
}

// texts are a text, or those of a list.
func (n node) texts() ([]node, error) {
	switch {
	case n.null():
		return nil, nil
	case n.Kind == yaml.ScalarNode:
		return []node{n}, nil
	case n.Kind != yaml.SequenceNode:
		return nil, n.errorf("expected hosts, as \"node[1-4]\"")
	}
	texts := make([]node, 0, len(n.Content))
	for _, below := range n.Content {
		item, err := n.at(below)
		if err != nil {
			return nil, err
		}
		if item.Kind != yaml.ScalarNode || item.null() {
			return nil, item.errorf("expected hosts, as \"node[1-4]\"")
		}
		texts = append(texts, item)
	}
	return slices.Clip(texts), nil
}
