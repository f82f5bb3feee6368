package execcmd

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"multirsh/transport"
)

// maxLine is what Linux takes as one argument (execve(2), MAX_ARG_STRLEN, less the NUL). Other systems tell when it is run.
const maxLine = 128<<10 - 1

// Validate tells whether line can be run, before anything is: it is not too long, and holds no NUL and no % but these.
//
//	%h  the host's address: its name, or its address where the inventory gives one
//	%u  the user on the host; where none is given, the name of the local user
//	%n  the host's place in the run, Host.Vars["rank"] as the caller numbers them; 0 where it does not
//	%%  a percent sign
//
// A value that holds anything but letters, digits and ._:@+- is put in single quotes, so that the shell takes it as one word
// and never as code. That works outside quotes only, so a line that has %h in quotes, in a $( ) or after a # runs for plain
// names alone. A name that begins with a dash is refused: programs would take it for an option. What a further shell makes of
// the word, as in "eval %h" or "ssh gateway ssh %h", is not in our hands.
func Validate(line string) error {
	if len(line) > maxLine && runtime.GOOS == "linux" {
		return fmt.Errorf("the command has %d bytes, and a local one can have %d: put it in a file, or pass its data as input", len(line), maxLine)
	}
	return each(line, func(string, byte, bool) error { return nil })
}

// Line is what the shell gets for a host: the line with its % replaced.
func Line(line string, host transport.Host) (string, error) { return expand(line, host) }

// expand replaces the % in line by what host has.
func expand(line string, host transport.Host) (string, error) {
	var b strings.Builder
	b.Grow(len(line) + 64)
	err := each(line, func(text string, verb byte, bare bool) error {
		b.WriteString(text)
		var value string
		switch verb {
		case 0:
			return nil
		case '%':
			b.WriteByte('%')
			return nil
		case 'h':
			value = host.Address()
		case 'u':
			value = host.User
			if value == "" {
				var err error
				if value, err = localUser(); err != nil {
					return err
				}
			}
		case 'n':
			value = host.Vars["rank"]
			if value == "" {
				value = "0"
			}
		}
		switch {
		case strings.HasPrefix(value, "-"):
			return fmt.Errorf("%%%c is %q here, which programs take for an option", verb, value)
		case strings.IndexByte(value, 0) >= 0:
			return fmt.Errorf("%%%c is %q here, which holds a NUL byte", verb, value)
		case plain(value):
			b.WriteString(value)
		case !bare:
			return fmt.Errorf("%%%c is %q here, which must be quoted: put %%%c outside of quotes and $( )", verb, value, verb)
		default:
			b.WriteByte('\'')
			b.WriteString(strings.ReplaceAll(value, "'", `'\''`))
			b.WriteByte('\'')
		}
		return nil
	})
	return b.String(), err
}

// plain tells whether the shell takes s as it is, wherever it stands.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("._:@+-", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// each cuts line at its %: emit gets the text before one, its letter, and whether it surely stands outside of quotes. The text
// after the last % comes with the letter 0.
func each(line string, emit func(text string, verb byte, bare bool) error) error {
	if strings.IndexByte(line, 0) >= 0 {
		return errors.New("the command holds a NUL byte")
	}
	const outside = 0
	var (
		quote   byte = outside // or the quote that we are in
		odd     bool           // there was something that this scan of the quotes does not follow into
		escaped bool           // the byte before was a backslash that counts
		start   int
	)
	for i := 0; i < len(line); i++ {
		c := line[i]
		if c == '%' {
			verb := byte(0)
			if i+1 < len(line) {
				verb = line[i+1]
			}
			switch verb {
			case 'h', 'u', 'n', '%':
			case 0:
				return errors.New("the command ends in a single %: write %% for a percent sign")
			default:
				r := []rune(line[i+1:])[0]
				return fmt.Errorf("%%%c means nothing: there are %%h (host), %%u (user) and %%n (number); write %%%% for a percent sign", r)
			}
			if err := emit(line[start:i], verb, quote == outside && !odd && !escaped); err != nil {
				return err
			}
			i++
			start = i + 1
			escaped = false
			continue
		}
		switch {
		case escaped:
			escaped = false
		case quote == '\'':
			if c == '\'' {
				quote = outside
			}
		case c == '\\':
			escaped = true
		case c == '"' && quote == '"':
			quote = outside
		case c == '"', c == '\'' && quote == outside:
			quote = c
		case c == '`',
			c == '#' && quote == outside, // a comment, perhaps
			c == '$' && i+1 < len(line) && strings.IndexByte(`({['"`, line[i+1]) >= 0,
			c == '<' && i+1 < len(line) && line[i+1] == '<':
			odd = true
		}
	}
	return emit(line[start:], 0, false)
}

// localUser is the name of the user whose process this is, whatever the environment says.
var localUser = sync.OnceValues(func() (string, error) {
	uid := strconv.Itoa(os.Getuid())
	u, err := user.LookupId(uid)
	if err != nil {
		return "", fmt.Errorf("%%u: user id %s has no name here: say which user with -u", uid)
	}
	return u.Username, nil
})
