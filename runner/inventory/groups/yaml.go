package groups

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// node is a place in a YAML file.
type node struct {
	*yaml.Node
	path   string
	budget *int // of places that may still be looked at, which is what stops a file whose aliases multiply
}

func readYAML(path string) (node, error) {
	text, err := readText(path)
	if err != nil {
		return node{}, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return node{}, fmt.Errorf("%s: %w", path, err)
	}
	budget := 1000 + 2*len(text) // without aliases every place has a byte of its own
	n := node{&document, path, &budget}
	if document.Kind == yaml.DocumentNode {
		n.Node = document.Content[0]
	}
	return n, nil
}

func (n node) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", n.path, n.Line, fmt.Sprintf(format, args...))
}

// at is a place below n.
func (n node) at(below *yaml.Node) (node, error) {
	if *n.budget--; *n.budget < 0 {
		return n, n.errorf("the aliases of this file multiply to more entries than it has bytes")
	}
	for below.Kind == yaml.AliasNode {
		below = below.Alias
	}
	return node{below, n.path, n.budget}, nil
}

func (n node) null() bool {
	return n.Kind == 0 || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

type pair struct {
	key   string
	value node
}

// pairs are the entries of a mapping, in their order; an empty value has none.
func (n node) pairs(what string) ([]pair, error) {
	if n.null() {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, n.errorf("%s: expected a mapping, as \"name: …\"", what)
	}
	var pairs []pair
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
		case seen[key.Value]:
			return nil, key.errorf("%s: %s is there twice", what, quote(key.Value))
		}
		seen[key.Value] = true
		pairs = append(pairs, pair{key.Value, value})
	}
	return pairs, nil
}

// texts are a text, or those of a list.
func (n node) texts() ([]string, error) {
	switch {
	case n.null():
		return nil, nil
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	case n.Kind != yaml.SequenceNode:
		return nil, n.errorf("expected hosts, as \"node[1-4]\"")
	}
	var texts []string
	for _, below := range n.Content {
		item, err := n.at(below)
		if err != nil {
			return nil, err
		}
		if item.Kind != yaml.ScalarNode || item.null() {
			return nil, item.errorf("expected hosts, as \"node[1-4]\"")
		}
		texts = append(texts, item.Value)
	}
	return texts, nil
}
