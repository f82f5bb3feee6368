package main

import "regexp"

// sectionsName is the source that is there always: the sections of the hosts files.
const sectionsName = "hosts"

var sourceName = regexp.MustCompile(`^[\pL\pN_][\pL\pN_-]*$`)

// sourceKinds are the keys that a [groups.source.NAME] has for where its groups are, beside the commands of an upcall.
var sourceKinds = []string{"file", "genders", "dsh", "netgroup", "ansible", "clustershell"}
