package groups

import "go.yaml.in/yaml/v3"

// maxDepth bounds groups within groups, as they are written, and mappings that merge others.
const maxDepth = 100

// yaml reads the YAML form.
func (a *ansible) yaml() error {
	root, err := readYAML(a.path)
	if err != nil {
		return err
	}
	groups, err := root.pairs("the groups")
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := a.yamlGroup(g, 0); err != nil {
			return err
		}
	}
	return nil
}

func (a *ansible) yamlGroup(p pair, depth int) error {
	if depth > maxDepth {
		return a.errorf(p.line, "groups are nested more than %d deep here", maxDepth)
	}
	g, err := a.group(p.key, p.line)
	if err != nil {
		return err
	}
	parts, err := p.value.pairs("the group " + quote(p.key))
	if err != nil {
		return err
	}
	for _, part := range parts {
		if part.key != "hosts" && part.key != "children" && part.key != "vars" {
			return a.errorf(part.line, "there is no %s in a group: there is hosts, children and vars", quote(part.key))
		}
		if part.value.Kind == yaml.ScalarNode && !part.value.null() && part.key != "vars" {
			part.value = one(part.value) // "hosts: a" is short for "hosts: {a: }"
		}
		entries, err := part.value.pairs(part.key + " of the group " + quote(p.key))
		if err != nil {
			return err
		}
		for _, e := range entries {
			switch part.key {
			case "hosts":
				err = a.yamlHost(p.key, e)
			case "children":
				if err = a.child(g, e.key, e.line); err == nil {
					err = a.yamlGroup(e, depth+1)
				}
			case "vars":
				err = a.groupVariable(g, e.key, e.value.text(), e.line)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *ansible) yamlHost(in string, e pair) error {
	entries, err := e.value.pairs("the variables of " + quote(e.key))
	if err != nil {
		return err
	}
	var vars []Setting
	for _, v := range entries {
		if vars, err = a.variable(vars, v.key, v.value.text(), v.line); err != nil {
			return err
		}
	}
	return a.hostLine(in, e.key, vars, e.line)
}

// one is a mapping that has nothing but an empty entry of this name.
func one(name node) node {
	mapping := *name.Node
	mapping.Kind, mapping.Tag, mapping.Value = yaml.MappingNode, "!!map", ""
	mapping.Content = []*yaml.Node{name.Node, {Kind: yaml.ScalarNode, Tag: "!!null", Line: name.Line}}
	name.Node = &mapping
	return name
}

// text is a scalar's value; empty for anything else.
func (n node) text() string {
	if n.Kind != yaml.ScalarNode || n.null() {
		return ""
	}
	return n.Value
}
