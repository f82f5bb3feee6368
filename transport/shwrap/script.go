package shwrap

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The script's text, cut where a reader would cut it; on the wire it is one line. Its variables begin with mr_ so as not to
// be ones that the environment exports. $1 and $2 are the halves of the nonce.
const (
	setNonce = `set -- `

	// What %b encoded. The dot saves trailing newlines from the substitution; a printf that fails runs nothing.
	openDecode  = `; mr_t=$(printf %b`
	closeDecode = ` .) || exit`
	decodedText = `"${mr_t%.}"`

	leader       = `; printf '\036%s%s+\n' $1 $2 || exit`
	leaderStderr = `; printf '\036%s%s+\n' $1 $2 >&2 || exit`

	// From here on we survive what stops the command. In our children a trap with an action is the default again.
	traps = `trap : 1 2 3 15; mr_k=; trap mr_k=k URG; `

	// And if we end before our time, for want of a process, nobody is left to hold the connection.
	guard   = `trap "kill -KILL -$$" 0; `
	unguard = `; trap - 0`

	// The command has ended. A stop that comes now must not end the trailer: in mksh printf is a program, which a signal ends unless it is ignored.
	deaf = `; trap '' 1 2 3 15`

	// The first exec that replaces an open file leaves mksh with a copy of that file, at 10. This gives it one to keep.
	decoy = `exec 3</dev/null; `

	// Without input: the watcher, which has nothing of ours open but the main channel.
	openWatch  = `; ` + decoy + `exec 3<&0 </dev/null; ` + traps + `{ exec <&3 3<&- >/dev/null 2>&1; trap '' 1 2 3 15; `
	closeWatch = `; } & mr_w=$!; ` + guard + `exec 3<&- 4>&2 2>/dev/null`

	// With input: the feeder, a shell of its own so as to know its pid, which is the first line in the pipe. While its trap on
	// 0 (its exit, for whatever reason) stands, the group dies before the pipe can close.
	openFeed  = `; ` + decoy + `exec 3<&0 4>&2 </dev/null 2>/dev/null; ` + traps + guard + `/bin/sh -c 'trap "" 1 2 3 15; trap "kill -KILL -$1" 0; echo $$; `
	fed       = `read -r mr_x; [ "$mr_x" = go ] || exit; trap - 0; ` + decoy + `exec 3<&- >/dev/null; `
	closeFeed = `' sh $$ <&3 3<&- 4>&- | { exec 3<&-; ` + traps + guard + `read -r mr_w || exit`

	// The command. Our own fd 2 is /dev/null meanwhile: shells write "Terminated" there when a child was. Without the
	// parentheses dash gives itself the command's fd 2 until it has ended.
	run      = `; (exec /bin/sh -c -- `
	afterRun = ` 2>&4 4>&-); mr_s=$?`
	drain    = `; cat >/dev/null`

	// The watcher is our child: wait, or in busybox its end interrupts a trailer that is waiting for room. The feeder is not.
	unwatch       = `; [ "$mr_k" ] || { kill -KILL $mr_w; wait $mr_w; }`
	unfeed        = `; [ "$mr_k" ] || kill -KILL $mr_w`
	trailer       = `; printf '\036%s%s-%d\n' $1 $2 $mr_s`
	trailerStderr = `; printf '\036%s%s-%d\n' $1 $2 $mr_s >&4`
	exit          = `; exit $mr_s`
	// After a stop the feeder has its second before it; the shell above would wait for it, the connection in hand.
	letGo    = `; [ "$mr_k" ] && kill -KILL $$`
	closeFed = `; }; mr_s=$?` + unguard + exit
)

// What watcher and feeder do while the command runs, for the process group with the id pgid: one line, or the end of the
// connection. They let go of the connection first, so that it ends with the command and not with their second.
func watch(pgid string, killOnDisconnect bool) string {
	end := liveOn
	if killOnDisconnect {
		end = ""
	}
	return `read -r mr_x; mr_r=$?; exec </dev/null; kill -URG -` + pgid + end +
		`; kill -${mr_x:-TERM} -` + pgid + `; sleep 1; kill -KILL -` + pgid
}

const liveOn = `; [ $mr_r = 0 ] || exit`

var (
	watchLiveOn, watchKill = watch("$$", false), watch("$$", true)
	feedLiveOn, feedKill   = watch("$1", false), watch("$1", true)
)

// block is what the feeder reads and writes at once: what a pipe holds.
const block = 65536

// feed appends the commands that copy exactly n bytes. Only with fullblock does dd wait for a block that comes in pieces; a
// dd that does not know it has read nothing when it says so.
func feed(b []byte, n int64) []byte {
	b = append(b, `{ `...)
	blocks, rest := n/block, n%block
	if blocks > 0 {
		b = append(b, `dd bs=65536 count=`...)
		b = strconv.AppendInt(b, blocks, 10)
		b = append(b, ` iflag=fullblock`...)
	}
	if blocks > 0 && rest > 0 {
		b = append(b, ` && `...)
	}
	if rest > 0 {
		b = append(b, `dd bs=`...)
		b = strconv.AppendInt(b, rest, 10)
		b = append(b, ` count=1 iflag=fullblock`...)
	}
	b = append(b, feedSlowly...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, `; }; `...)
}

const feedSlowly = ` || dd ibs=1 obs=65536 count=`

// encode makes the preamble.
func (w *Wrapper) encode() []byte {
	plain := isPlain(w.Line)
	size := len(w.Line) + 1100 // the longest script less its text
	if !plain {
		size += 4 * len(w.Line)
	}
	const room = 8 // for the length and a space, put before the script when that is there
	b := make([]byte, room, room+size)
	b = append(b, setNonce...)
	b = append(b, w.nonce[:half]...)
	b = append(b, ' ')
	b = append(b, w.nonce[half:]...)
	if !plain {
		b = append(b, openDecode...)
		b = appendEncoded(b, w.Line)
		b = append(b, closeDecode...)
	}
	b = append(b, leader...)
	if !w.Merged {
		b = append(b, leaderStderr...)
	}
	switch {
	case w.Input == 0:
		b = append(b, openWatch...)
		if w.KillOnDisconnect {
			b = append(b, watchKill...)
		} else {
			b = append(b, watchLiveOn...)
		}
		b = append(b, closeWatch...)
	default:
		b = append(b, openFeed...)
		b = feed(b, w.Input)
		b = append(b, fed...)
		if w.KillOnDisconnect {
			b = append(b, feedKill...)
		} else {
			b = append(b, feedLiveOn...)
		}
		b = append(b, closeFeed...)
	}
	b = append(b, run...)
	if plain {
		b = appendQuoted(b, w.Line)
	} else {
		b = append(b, decodedText...)
	}
	b = append(b, afterRun...)
	if w.Input > 0 {
		b = append(b, drain...)
		b = append(b, deaf...)
		b = append(b, unguard...)
		b = append(b, unfeed...)
	} else {
		b = append(b, deaf...)
		b = append(b, unguard...)
		b = append(b, unwatch...)
	}
	b = append(b, trailer...)
	if !w.Merged {
		b = append(b, trailerStderr...)
	}
	if w.Input > 0 {
		b = append(b, letGo...)
		b = append(b, exit...)
		b = append(b, closeFed...)
	} else {
		b = append(b, exit...)
	}
	var digits [room]byte
	length := append(strconv.AppendInt(digits[:0], int64(len(b)-room), 10), ' ')
	start := room - len(length)
	copy(b[start:], length)
	return append(b[start:], '\n')
}

// isPlain says whether text can be in the script as it is, in quotes.
func isPlain(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func appendQuoted(b []byte, text string) []byte {
	b = append(b, '\'')
	for {
		before, after, found := strings.Cut(text, "'")
		b = append(b, before...)
		if !found {
			return append(b, '\'')
		}
		b = append(b, `'\''`...)
		text = after
	}
}

// appendEncoded appends text as arguments for printf %b. They are short enough for a printf that is no builtin.
func appendEncoded(b []byte, text string) []byte {
	const argument = 16 << 10
	for len(text) > 0 {
		part := text[:min(len(text), argument)]
		text = text[len(part):]
		b = append(b, ` '`...)
		for i := range len(part) {
			switch c := part[i]; {
			case c < ' ' || c > '~' || c == '\'' || c == '\\':
				b = append(b, '\\', '0', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
			default:
				b = append(b, c)
			}
		}
		b = append(b, '\'')
	}
	return b
}

// Decode is the inverse of New for a server that answers without a shell: the session whose preamble line is, with or
// without its newline. It refuses whatever New would not have made. The Wrapper's Leader and Trailer are then what to send.
func Decode(line []byte) (*Wrapper, error) {
	w, err := decode(string(bytes.TrimSuffix(line, []byte("\n"))))
	if err != nil {
		return nil, fmt.Errorf("not a preamble of this protocol: %w", err)
	}
	return w, nil
}

// decode looks for the pieces without much care: encoding what it found must give the line again.
func decode(line string) (*Wrapper, error) {
	_, script, _ := strings.Cut(line, " ")
	const first, second = len(setNonce), len(setNonce) + half + 1
	if !strings.HasPrefix(script, setNonce) || len(script) < second+half {
		return nil, errors.New("no nonce")
	}
	w := new(Wrapper)
	copy(w.nonce[:half], script[first:])
	copy(w.nonce[half:], script[second:])
	if strings.Trim(string(w.nonce[:]), "0123456789abcdef") != "" {
		return nil, errors.New("the nonce is not hexadecimal")
	}
	head := script[second+half:]
	encoded := strings.HasPrefix(head, openDecode)
	if encoded {
		var text []byte
		var err error
		if text, head, err = cutEncoded(head[len(openDecode):]); err != nil {
			return nil, err
		}
		w.Line = string(text)
	}
	head, tail, found := strings.Cut(head, run)
	if !found {
		return nil, errors.New("no command")
	}
	if !encoded {
		end := max(0, strings.LastIndex(tail, afterRun))
		w.Line = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(tail[:end], "'"), "'"), `'\''`, "'")
	}
	w.Merged = !strings.Contains(head, leaderStderr)
	w.KillOnDisconnect = !strings.Contains(head, liveOn)
	if _, after, found := strings.Cut(head, feedSlowly); found {
		digits, _, _ := strings.Cut(after, ";")
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n == 0 {
			return nil, errors.New("no length of the input")
		}
		w.Input = n
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	w.preamble = w.encode()
	if string(w.preamble) != line+"\n" {
		return nil, errors.New("the script is another one")
	}
	return w, nil
}

// cutEncoded undoes appendEncoded at the beginning of s.
func cutEncoded(s string) (text []byte, rest string, err error) {
	for strings.HasPrefix(s, " '") {
		part, after, found := strings.Cut(s[len(" '"):], "'")
		if !found {
			return nil, "", errors.New("the encoded text has no end")
		}
		s = after
		for {
			before, escape, found := strings.Cut(part, `\`)
			text = append(text, before...)
			if !found {
				break
			}
			if len(escape) < 4 {
				return nil, "", errors.New("an escape in the text is cut off")
			}
			c, err := strconv.ParseUint(escape[:4], 8, 8)
			if err != nil {
				return nil, "", errors.New("an escape in the text is not octal")
			}
			text = append(text, byte(c))
			part = escape[4:]
		}
	}
	return text, s, nil
}
