package hostkeys

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// manyKeys are ed25519 keys, one a host.
func manyKeys(n int) []ssh.PublicKey {
	keys := make([]ssh.PublicKey, n)
	for i := range keys {
		seed := make([]byte, ed25519.SeedSize)
		binary.BigEndian.PutUint32(seed, uint32(i))
		key, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(seed).Public())
		if err != nil {
			panic(err)
		}
		keys[i] = key
	}
	return keys
}

func hostName(i int) string { return fmt.Sprintf("web%d.example.org", i) }

// fleets are files for 10,000 lines: hashed by the tool that wrote them, with one key type or three for each host.
var fleets = sync.OnceValue(func() map[string]string {
	keys := manyKeys(10000)
	var plain, one, three, shared strings.Builder
	for i, key := range keys {
		fmt.Fprintf(&plain, "%s %s\n", hostName(i), keyText(key))
		fmt.Fprintf(&one, "%s %s\n", newHashed(hostName(i)), keyText(key))
		fmt.Fprintf(&shared, "%s %s\n", newHashed(hostName(i)), keyText(keys[0]))
		if i < 3333 {
			for _, k := range []ssh.PublicKey{keyNamed("R"), keyNamed("E"), key} {
				fmt.Fprintf(&three, "%s %s\n", newHashed(hostName(i)), keyText(k))
			}
		}
	}
	return map[string]string{"plain": plain.String(), "hashed": one.String(), "hashed-3-types": three.String(), "hashed-same-key": shared.String()}
})

// BenchmarkHost is what a run asks for each host with 10,000 lines: once, as the answers for a name are remembered.
func BenchmarkHost(b *testing.B) {
	keys := manyKeys(10000)
	stranger := keyNamed("B")
	for _, fleet := range []string{"plain", "hashed", "hashed-3-types", "hashed-same-key"} {
		file := write(b, fleets()[fleet])
		n := 10000
		if fleet == "hashed-3-types" {
			n = 3333
		}
		key := func(i int) ssh.PublicKey { return keys[i] }
		if fleet == "hashed-same-key" {
			key = func(int) ssh.PublicKey { return keys[0] }
		}
		inOrder := func(i int) int { return i % n }
		shuffled := rand.New(rand.NewPCG(1, 2)).Perm(n)
		inDisorder := func(i int) int { return shuffled[i%n] }
		for _, c := range []struct {
			what string
			host func(i int) int
			ask  func(db *DB, i int) bool
		}{
			{"check", inDisorder, func(db *DB, i int) bool { return db.Check(hostName(i), nil, key(i)) == nil }},
			{"algorithms-in-order", inOrder, func(db *DB, i int) bool { return db.Algorithms(hostName(i)) != nil }},
			{"algorithms-in-disorder", inDisorder, func(db *DB, i int) bool { return db.Algorithms(hostName(i)) != nil }},
			{"both-in-order", inOrder, func(db *DB, i int) bool {
				return db.Algorithms(hostName(i)) != nil && db.Check(hostName(i), nil, key(i)) == nil
			}},
			{"changed", inDisorder, func(db *DB, i int) bool { return db.Check(hostName(i), nil, stranger) != nil }},
			{"unknown", func(i int) int { return n + i }, func(db *DB, i int) bool { return db.Check(hostName(i), nil, stranger) != nil }},
		} {
			b.Run(fleet+"/"+c.what, func(b *testing.B) {
				db := open(b, file)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if i%n == 0 && i > 0 { // nothing is remembered of the second round
						b.StopTimer()
						db = open(b, file)
						b.StartTimer()
					}
					if !c.ask(db, c.host(i)) {
						b.Fatal("the answer is wrong")
					}
					i++
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	keys := manyKeys(100000)
	write100k := func(b *testing.B, line func(i int) string) string {
		var text strings.Builder
		for i := range keys {
			text.WriteString(line(i) + "\n")
		}
		return write(b, text.String())
	}
	r, e := keyText(keyNamed("R")), keyText(keyNamed("E"))
	for _, c := range []struct {
		what string
		line func(i int) string
	}{
		{"plain", func(i int) string { return hostName(i) + " " + keyText(keys[i]) }},
		{"hashed", func(i int) string { return newHashed(hostName(i)).String() + " " + keyText(keys[i]) }},
		{"names-and-addresses", func(i int) string {
			return fmt.Sprintf("%s,10.%d.%d.%d %s", hostName(i), i>>16, i>>8&255, i&255, keyText(keys[i]))
		}},
		{"three-types-two-keys-shared", func(i int) string { return hostName(i/3) + " " + []string{r, e, keyText(keys[i])}[i%3] }},
	} {
		b.Run(c.what, func(b *testing.B) {
			file := write100k(b, c.line)
			b.ReportAllocs()
			for b.Loop() {
				if db := open(b, file); len(db.lines) != len(keys) {
					b.Fatal("lines are missing")
				}
			}
		})
	}
}
