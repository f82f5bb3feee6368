package auth

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxListed bounds a list in a message, which stands for one host of thousands.
const maxListed = 4

// Error says that a host does not let us in: what was tried, what it would take, and the mend. The host's name is for the caller to add.
type Error struct {
	Text string
	Err  error // of x/crypto/ssh; nil from Prepare
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Err }

// disconnected is how x/crypto/ssh words an SSH_MSG_DISCONNECT (RFC 4253 section 11.1), whose type it does not export.
var disconnected = regexp.MustCompile(`ssh: disconnect, reason (\d+): (".*")`)

// disconnectText gives what the server said when it ended the connection, quoted for a terminal.
func disconnectText(err error) (quoted string, ok bool) {
	m := disconnected.FindStringSubmatch(err.Error())
	if m == nil {
		return "", false
	}
	text, err := strconv.Unquote(m[2])
	if err != nil {
		return "", false
	}
	return strconv.Quote(strings.TrimSpace(text)), true
}

// Failed ends an attempt whose handshake failed with err, and says it in one sentence with the mend. When authentication is what failed
// the error is an *Error. When the connection's context ended first, or authentication had not begun, err comes back,
// wrapped where there is something to add.
func (a *Attempt) Failed(err error) error {
	text, told := disconnectText(err)
	closed := told || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	refusal := errors.Is(err, errNoMoreKeys) || strings.Contains(err.Error(), "unable to authenticate, attempted methods")

	if a.sent && !a.answered {
		switch {
		case refusal:
			a.judge(denied)
			a.note("it refused the password")
		case strings.Contains(err.Error(), "unexpected message type 60"): // SSH_MSG_USERAUTH_PASSWD_CHANGEREQ, RFC 4252 section 8
			a.judge(denied)
			a.note("the password has expired there: log in with ssh and set a new one")
		case closed && a.alive:
			// Some servers answer a wrong password so. To believe otherwise could lock the account, host by host.
			a.judge(denied)
			a.note("it ended the connection on being told the password, which is taken as a refusal")
		default:
			a.judge(none)
		}
	}
	switch late := a.ctx.Err() != nil && !refusal && !closed; {
	case !a.begun && told:
		return &worded{"the host ended the connection with " + text, err}
	case !a.begun:
		return err
	case late && len(a.notes) > 0:
		return &worded{strings.Join(a.notes, "; "), err}
	case late:
		return err
	}

	refused, over := a.refused, "it ended the connection in the middle of authentication"
	if o := a.offer; o != nil && closed { // the key under way when the end came
		switch {
		case o.signature != nil || o.err != nil:
			a.refuse(o)
		case told || len(refused) > 1:
			refused = append(refused, o.key)
		default:
			over = fmt.Sprintf("it ended the connection when asked about %v", o.key)
		}
	}
	// OpenSSH says so, dropbear just closes.
	tooMany := len(refused) > 0 && strings.Contains(strings.ToLower(text), "too many authentication failures") || closed && !told && len(refused) > 2

	var said []string
	switch {
	case tooMany:
		said = append(said, fmt.Sprintf("it allows no more attempts after %s", list(refused)))
	case told:
		said = append(said, "it ended the connection with "+text)
	case closed:
		said = append(said, over)
	case !refusal && len(a.notes) == 0:
		said = append(said, "authentication broke off ("+strings.TrimPrefix(strings.TrimPrefix(err.Error(), "ssh: handshake failed: "), "ssh: ")+")")
	}
	if len(refused) > 0 && !tooMany {
		said = append(said, "it refused "+list(refused))
	}
	notes := slices.Clone(a.notes)
	if a.ring != nil {
		notes = append(notes, a.ring.notes()...)
	}
	if len(notes) > maxListed {
		notes = append(notes[:maxListed:maxListed], fmt.Sprintf("and %d more", len(notes)-maxListed))
	}
	said = append(said, notes...)
	if a.ring != nil && len(a.ring.keys) == 0 && len(notes) == 0 {
		said = append(said, "there is no key to offer")
	}
	if !closed && len(a.takes) > 0 {
		besides := ""
		if a.partial > 0 {
			besides = "besides what it has accepted "
		}
		said = append(said, besides+"it takes "+strings.Join(a.takes, ", "))
	}
	sentence := fmt.Sprintf("the host does not let user %q in: %s", a.p.User, strings.Join(said, "; "))
	switch {
	case tooMany:
		sentence += ": name the right key with -i and set IdentitiesOnly=yes"
	case len(notes) == 0:
		sentence += a.mend(len(refused) > 0)
	}
	return &Error{Text: sentence, Err: err}
}

// mend says what could be done about a host that refused all that we had, where nothing better is known.
func (a *Attempt) mend(refused bool) string {
	var can []string
	if slices.Contains(a.takes, publickey) {
		switch {
		case !a.p.Pubkey:
			can = append(can, "allow keys (PubkeyAuthentication)")
		case refused:
			can = append(can, "add such a key to the user's authorized_keys there", "name another with -i")
		default:
			can = append(can, "name a key with -i", "ssh-add one")
		}
	}
	if (slices.Contains(a.takes, passwordOwn) || slices.Contains(a.takes, keyboard)) && a.w.options.Password == nil {
		can = append(can, "give a password with --ask-pass")
	}
	if len(can) == 0 {
		return ""
	}
	return ": " + strings.Join(can, ", or ")
}

// list names keys, the first few in full.
func list(keys []*key) string {
	names := make([]string, 0, maxListed+1)
	for i, k := range keys {
		if i == maxListed {
			names = append(names, fmt.Sprintf("%d more", len(keys)-maxListed))
			break
		}
		names = append(names, k.String())
	}
	return fmt.Sprintf("%d key%s: %s", len(keys), map[bool]string{false: "s"}[len(keys) == 1], strings.Join(names, ", "))
}

// worded is an error in better words, for a cause that is not ours to judge.
type worded struct {
	text string
	err  error
}

func (e *worded) Error() string { return e.text }
func (e *worded) Unwrap() error { return e.err }
