package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// posixShells are those that quoteWords is held against.
var posixShells = [][]string{{"dash"}, {"bash"}, {"busybox", "sh"}, {"mksh"}, {"ksh93"}, {"zsh"}}

// Every shell makes the same words again of what quoteWords writes, byte for byte.
func TestQuoteWords(t *testing.T) {
	printf, err := exec.LookPath("printf") // a program: it gets what the shell has made
	if err != nil {
		t.Skipf("%v: apt-get install coreutils", err)
	}
	for _, shell := range posixShells {
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skipf("%v: apt-get install %s", err, shell[0])
			}
			// What a shell would take for its own, words that are long, each byte alone, and all of them.
			words := []string{"", "-", "--", "-n", "~", "~root", "=ls", "a=b", "PATH=", "!!", "a!b", "#", "[a-z]*", "{a,b}", "{1..3}", "$(id)", "`id`", "$'a'", `"`, `''`, `\`, "a\n", "\n", "\r\n", "if", "%1", "\xff", "é",
				strings.Repeat("'", 1000), strings.Repeat("a b", 20_000)}
			var all []byte
			for b := 1; b < 256; b++ {
				all = append(all, byte(b))
				words = append(words, string([]byte{byte(b)}))
			}
			holdWords(t, shell, printf, append(words, string(all)))

			r := rand.New(rand.NewPCG(1, 2))
			for range 12 {
				words := make([]string, 200)
				for i := range words {
					words[i] = anyWord(r)
				}
				holdWords(t, shell, printf, words)
			}
		})
	}
}

// anyWord is a word of up to 20 bytes, any but NUL, of which shells' own characters are the half.
func anyWord(r *rand.Rand) string {
	const special = "'\"\\$`!#&()*;<>?[]^{|}~=%:,+-@. \t\n\r\x01\x7f\x80\x81\x83\x88\xc3"
	word := make([]byte, r.IntN(21))
	for i := range word {
		if r.IntN(2) == 0 {
			word[i] = special[r.IntN(len(special))]
		} else {
			word[i] = byte(1 + r.IntN(255))
		}
	}
	return string(word)
}

// holdWords has the shell print the words, in a locale of single bytes and in one of UTF-8.
func holdWords(t *testing.T, shell []string, printf string, words []string) {
	t.Helper()
	for _, locale := range []string{"C", "C.UTF-8"} {
		args := append(slices.Clone(shell[1:]), "-c", quoteWords(append([]string{printf, `%s\0`}, words...)))
		cmd := exec.Command(shell[0], args...)
		cmd.Env = append(os.Environ(), "LC_ALL="+locale, "ENV=", "BASH_ENV=", "ZDOTDIR=/no/such")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s, %s: %v: %.200q", shell[0], locale, err, out)
		}
		got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		if len(got) != len(words) {
			t.Errorf("%s, %s: %d words for %d", shell[0], locale, len(got), len(words))
		}
		for i := range min(len(words), len(got)) {
			if got[i] != words[i] {
				t.Fatalf("%s, %s: %.200q for %.200q", shell[0], locale, got[i], words[i])
			}
		}
	}
}

// A program is called by its name, whatever that means to a shell.
func TestQuoteWordsKeyword(t *testing.T) {
	for _, word := range []string{"time", "if", "repeat", "%1", "uptime"} {
		if got, want := quoteWords([]string{word, "x"}), "'"+word+"' x"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
