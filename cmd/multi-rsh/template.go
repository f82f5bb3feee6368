package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"multirsh/transport"
)

// template is a command in which --subst has each host put its own words:
//
//	{host} {short} {rank} {user} {label.NAME}    {{ and }} stand for braces
//
// Without --subst a command is no template: awk's and JSON's braces are their own.
type template struct {
	parts  []part
	quoted bool // the words are within single quotes, as --argv and --script have them
}

// part is some text, and then a host's word.
type part struct {
	text string
	word string // host, short, rank, user, label.NAME; "": none
	at   int    // in the command, in bytes
}

// parseTemplate reads a command. Its error shows the place.
func parseTemplate(command string, quoted bool) (*template, error) {
	t := &template{quoted: quoted}
	wrong := func(at int, format string, args ...any) error {
		line, column := command, at
		if i := strings.LastIndexByte(command[:at], '\n'); i >= 0 {
			line, column = command[i+1:], at-i-1
		}
		line, _, _ = strings.Cut(line, "\n")
		caret := strings.Repeat(" ", utf8.RuneCountInString(line[:column])) + "^"
		return usagef("--subst: %s\n  %s\n  %s", fmt.Sprintf(format, args...), printable(line, 0), caret)
	}
	var text strings.Builder
	for i := 0; i < len(command); {
		switch rest := command[i:]; {
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			text.WriteByte(rest[0])
			i += 2
		case rest[0] == '}':
			return nil, wrong(i, "this } closes nothing; write }} for a brace")
		case rest[0] == '{':
			end := strings.IndexAny(rest[1:], "{}")
			if end < 0 || rest[1+end] == '{' {
				return nil, wrong(i, "this { is not closed; write {{ for a brace")
			}
			word := rest[1 : 1+end]
			if !slices.Contains(hostWords, word) && (!strings.HasPrefix(word, labelPrefix) || word == labelPrefix) {
				return nil, wrong(i, "no host has a {%s}: there are {host}, {short}, {rank}, {user} and {label.NAME}; write {{ for a brace", word)
			}
			t.parts = append(t.parts, part{text.String(), word, i})
			text.Reset()
			i += len(word) + 2
		default:
			text.WriteByte(rest[0])
			i++
		}
	}
	t.parts = append(t.parts, part{text: text.String()})
	return t, nil
}

// hostWords are those that every host has.
var hostWords = []string{"host", "short", "rank", "user"}

// uses tells whether a word is in the template.
func (t *template) uses(word string) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.word == word })
}

// fill is the command of a host.
func (t *template) fill(host transport.Host, user string) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.text)
		value := ""
		switch p.word {
		case "":
			continue
		case "host":
			value = host.Name
		case "short":
			value = short(host.Name)
		case "rank":
			value = host.Vars["rank"]
		case "user":
			value = user
		default:
			var has bool
			if value, has = host.Vars[p.word]; !has {
				return "", usagef("--subst: %s has no %s, which the command names; give it one in a hosts file, as %[1]s label=%[3]s:VALUE", host.Name, p.word, strings.TrimPrefix(p.word, labelPrefix))
			}
		}
		switch {
		case strings.IndexByte(value, 0) >= 0:
			return "", usagef("--subst: the %s of %q holds a NUL byte, which no command can", p.word, host.Name)
		case t.quoted:
			value = strings.ReplaceAll(value, "'", `'\''`)
		case !harmlessToShells(value):
			return "", usagef("--subst: the %s of %q is %q, which a shell would not take as it is; --argv -- PROGRAM ARGUMENT... quotes it", p.word, host.Name, value)
		}
		if host.Transport == "exec" {
			value = strings.ReplaceAll(value, "%", "%%")
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// harmlessToShells tells whether no shell sees more in the text than a part of a word, wherever it stands.
func harmlessToShells(text string) bool {
	return text != "" && strings.IndexFunc(text, func(r rune) bool {
		return r >= utf8.RuneSelf || !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._:@%+,/-", r))
	}) < 0 && text[0] != '-'
}

// short is the name of a host up to its first dot. An address has no parts.
func short(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return name
	}
	first, _, _ := strings.Cut(name, ".")
	return first
}

// quoteWords is a command of which a POSIX shell makes exactly these words. The first is quoted in any case, since bare words such as time,
// repeat or %1 are the shell's own there.
func quoteWords(words []string) string {
	var b strings.Builder
	for i, word := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i > 0 {
			b.WriteString(quoteWord(word))
		} else {
			b.WriteString(inQuotes(word))
		}
	}
	return b.String()
}

// quoteWord is a word that is not the first of a command.
func quoteWord(word string) string {
	if harmlessToShells(word) {
		return word
	}
	return inQuotes(word)
}

func inQuotes(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
