//go:build unix

package fleet

import (
	"fmt"
	"strconv"
	"strings"

	"multirsh/transport/rsh/rshtest"
	"multirsh/transport/ssh/sshtest"
)

// Behaviour is how one host treats a connection, as the package that serves it has it.
type Behaviour interface {
	rshtest.Behaviour | sshtest.Behaviour
	String() string
}

// Shares says which part of a fleet has which behaviour. The zero value: all hosts are good. Make others with [ParseShares] and
// [ParseSSHShares].
type Shares[B Behaviour] struct {
	parts []part[B]
}

type part[B Behaviour] struct {
	behaviour B
	upTo      uint64 // the part ends here, of the whole range of uint64
	percent   string // as written; empty: all
}

// ParseShares reads one behaviour of rsh hosts, as "stall=handshake", or several with their shares of the hosts, as
// "ok:95%,stall=handshake:5%". Shares add up to 100 %. A value with a comma cannot stand among shares.
func ParseShares(text string) (Shares[rshtest.Behaviour], error) {
	return parseShares(text, rshtest.ParseBehaviour)
}

// ParseSSHShares is ParseShares for SSH hosts: "stall=kex", or "ok:95%,stall=kex:5%".
func ParseSSHShares(text string) (Shares[sshtest.Behaviour], error) {
	return parseShares(text, sshtest.ParseBehaviour)
}

func parseShares[B Behaviour](text string, parse func(string) (B, error)) (Shares[B], error) {
	var s Shares[B]
	whole, err := parse(text)
	if err == nil && !strings.HasSuffix(text, "%") {
		return Shares[B]{parts: []part[B]{{whole, 1<<64 - 1, ""}}}, nil
	}
	if !strings.Contains(text, "%") {
		return s, err
	}
	sum := 0 // in millionths
	for _, item := range strings.Split(text, ",") {
		i := strings.LastIndexByte(item, ':')
		if i < 0 {
			return Shares[B]{}, fmt.Errorf("behaviour %q has no share: write it as NAME:5%%", item)
		}
		b, err := parse(strings.TrimSpace(item[:i]))
		if err != nil {
			return Shares[B]{}, err
		}
		percent, err := parsePercent(strings.TrimSpace(item[i+1:]))
		if err != nil {
			return Shares[B]{}, fmt.Errorf("behaviour %s: %w", item[:i], err)
		}
		if sum += percent; sum > whole100 {
			break
		}
		upTo := uint64(1<<64 - 1)
		if sum < whole100 {
			upTo = uint64(float64(sum) / whole100 * (1 << 64))
		}
		s.parts = append(s.parts, part[B]{b, upTo, item[i+1:]})
	}
	if sum != whole100 {
		return Shares[B]{}, fmt.Errorf("the shares of %q add up to %s%%, not 100%%", text, strconv.FormatFloat(float64(sum)/1e4, 'f', -1, 64))
	}
	return s, nil
}

const whole100 = 1_000_000 // 100 % in millionths

func parsePercent(text string) (int, error) {
	number, ok := strings.CutSuffix(text, "%")
	percent, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(percent > 0 && percent <= 100) {
		return 0, fmt.Errorf("a share is a percentage such as 5%% or 0.1%%, not %q", text)
	}
	return int(percent*whole100/100 + 0.5), nil
}

// Of is the behaviour of a host: always the same for the same number and seed. Among the first n hosts each behaviour has
// its share but for a host or a few, evenly spread: the numbers go round a circle in steps of the golden ratio (Weyl's
// sequence), on which a share is an arc.
func (s Shares[B]) Of(host int, seed uint64) (good B) {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio, odd
	if len(s.parts) == 0 {
		return good
	}
	at := uint64(host)*golden + seed*0xd1b54a32d192ed03
	for _, p := range s.parts {
		if at < p.upTo {
			return p.behaviour
		}
	}
	return s.parts[len(s.parts)-1].behaviour
}

// String is the text that ParseShares, or ParseSSHShares, turns into s.
func (s Shares[B]) String() string {
	if len(s.parts) == 0 {
		var good B
		return good.String()
	}
	var items []string
	for _, p := range s.parts {
		if p.percent == "" {
			return p.behaviour.String()
		}
		items = append(items, p.behaviour.String()+":"+p.percent)
	}
	return strings.Join(items, ",")
}
