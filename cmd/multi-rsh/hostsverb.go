package main

// hostsVerb is "multi-rsh hosts": it says what host expressions mean, and runs nothing. Its errors are as a run's.
func (e *env) hostsVerb(args []string) error {
	return usagef("multi-rsh hosts: write what to do with which hosts")
}
