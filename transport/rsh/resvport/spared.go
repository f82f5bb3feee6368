package resvport

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"multirsh/transport/rsh/sockdiag"
)

const (
	etc           = "/etc"
	blacklistFile = etc + "/" + blacklistName
	blacklistName = "bindresvport.blacklist"
	reservedFile  = "/proc/sys/net/ipv4/ip_local_reserved_ports"
	startFile     = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
)

// Blocked returns the ports in the range that rcmd(3) uses which the administrator has kept for others, each with what names it:
// bindresvport.blacklist, in the directory that is /etc elsewhere, or net.ipv4.ip_local_reserved_ports. What cannot be read
// names none.
func Blocked(etc string) map[uint16]string {
	return blocked(etc, First, Last)
}

func blocked(etc string, low, high uint16) map[uint16]string {
	by := make(map[uint16]string)
	text, _ := os.ReadFile(reservedFile)
	for _, r := range parseReserved(string(text)) {
		for p := int(max(r[0], low)); p <= int(min(r[1], high)); p++ {
			by[uint16(p)] = "net.ipv4.ip_local_reserved_ports"
		}
	}
	name := filepath.Join(etc, blacklistName)
	text, _ = os.ReadFile(name)
	for _, p := range parseBlacklist(string(text)) {
		if low <= p && p <= high {
			by[p] = name
		}
	}
	return by
}

// leaveAlone returns the ports in the range that belong to others: those that the administrator named, and those that listen.
// What cannot be read names nobody: bind has the last word.
func leaveAlone(low, high uint16) map[uint16]bool {
	spared := make(map[uint16]bool)
	for p := range blocked(etc, low, high) {
		spared[p] = true
	}
	table, _ := sockdiag.Table(sockdiag.Filter{States: []sockdiag.State{sockdiag.Listen}, MinPort: low, MaxPort: high})
	for _, s := range table {
		spared[s.Local.Port()] = true
	}
	return spared
}

// parseBlacklist reads bindresvport.blacklist as glibc does: a port on each line, # begins a comment, other lines say nothing.
func parseBlacklist(text string) (ports []uint16) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if p, err := strconv.ParseUint(strings.TrimSpace(line), 10, 16); err == nil {
			ports = append(ports, uint16(p))
		}
	}
	return ports
}

// parseReserved reads the kernel's list of ports and ranges, as in "631,700-710".
func parseReserved(text string) (ranges [][2]uint16) {
	for field := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		from, to, isRange := strings.Cut(field, "-")
		if !isRange {
			to = from
		}
		low, err1 := strconv.ParseUint(from, 10, 16)
		high, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil && low <= high {
			ranges = append(ranges, [2]uint16{uint16(low), uint16(high)})
		}
	}
	return ranges
}

// unprivilegedStart is the first port that anybody may bind.
func unprivilegedStart() (uint16, bool) {
	text, err := os.ReadFile(startFile)
	if err != nil {
		return 0, false
	}
	p, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16)
	return uint16(p), err == nil
}

// shellWord writes s so that a shell reads it as one word.
func shellWord(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._+-", r))
	}) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}
