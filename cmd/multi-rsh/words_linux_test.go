package main

import (
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// Of what quoteWords makes of words each shell makes exactly these words again.
func TestQuoteWords(t *testing.T) {
	printf, err := exec.LookPath("printf")
	if err != nil {
		t.Skipf("%v; install coreutils", err)
	}
	for _, shell := range []string{"dash", "bash", "busybox sh", "mksh", "ksh93", "zsh"} {
		t.Run(shell, func(t *testing.T) {
			argv := strings.Fields(shell)
			if _, err := exec.LookPath(argv[0]); err != nil {
				t.Skipf("%v; install %s", err, argv[0])
			}
			random := rand.New(rand.NewPCG(1, 2))
			for range 100 {
				words := []string{printf, `%s\000`}
				want := ""
				for range 1 + random.IntN(30) {
					word := randomWord(random)
					words = append(words, word)
					want += word + "\x00"
				}
				line := quoteWords(words)
				got, err := exec.Command(argv[0], append(argv[1:], "-c", line)...).Output()
				if err != nil || string(got) != want {
					t.Fatalf("%q: %v\ngot  %q\nwant %q", line, err, got, want)
				}
			}
		})
	}
}

// randomWord is made of any bytes but NUL, and those that mean something to shells above all.
func randomWord(random *rand.Rand) string {
	var b strings.Builder
	for range random.IntN(12) {
		switch special := " \t\n'\"\\$`!#&()*;<>?[]^{|}~=%@+-,./:_é"; random.IntN(4) {
		case 0:
			b.WriteByte(byte(1 + random.IntN(255)))
		case 1:
			b.WriteByte(byte('a' + random.IntN(26)))
		default:
			b.WriteByte(special[random.IntN(len(special))])
		}
	}
	return b.String()
}

// A program is called by its name, whatever that means to a shell.
func TestQuoteWordsKeyword(t *testing.T) {
	for _, word := range []string{"time", "if", "repeat", "uptime"} {
		if got, want := quoteWords([]string{word, word}), "'"+word+"' "+word; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
