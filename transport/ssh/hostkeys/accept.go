package hostkeys

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/crypto/ssh"
)

// Entry is a key and the names of the host that has it (see Name).
type Entry struct {
	Names []string
	Key   ssh.PublicKey // a certificate stands for the key in it
}

// WriteError: the accepted keys hold for this run, but could not be written to the file.
type WriteError struct {
	File string
	Err  error
}

func (e *WriteError) Error() string {
	return fmt.Sprintf("the accepted host keys hold for this run and could not be added to %s: %v; make it writable or name another file with UserKnownHostsFile", e.File, e.Err)
}

func (e *WriteError) Unwrap() error { return e.Err }

// Accept makes keys known: in memory, and in the first user file by one append, which leaves whole what other processes append
// to it at the same moment. The file keeps its mode and its place behind a symbolic link; where there is none it is made with
// mode 0600, and its directory with 0700. With hash each name is written as |1|salt|hash on a line of its own. What is known
// already is not written again.
//
// All or nothing: when one of the keys is a change or revoked, or a name cannot be written, the error says which and nothing is
// accepted. Only with a *WriteError the keys do hold for this run.
func (db *DB) Accept(entries []Entry, hash bool) error {
	var text bytes.Buffer
	var accepted []string
	seen := map[string]bool{}
	for _, e := range entries {
		key, _ := split(e.Key)
		encoded := key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal())
		var names []string
		for _, name := range e.Names {
			name = lower(name)
			if !writable(name) {
				return fmt.Errorf("the host name %q cannot be written to a known_hosts file: set a HostKeyAlias for it", name)
			}
			err := db.Check(name, nil, key)
			if err != nil && !errors.As(err, new(*UnknownError)) {
				return err
			}
			if err != nil && !seen[name+" "+encoded] {
				seen[name+" "+encoded] = true
				names = append(names, name)
			}
		}
		accepted = append(accepted, names...)
		if !hash && len(names) > 0 {
			names = []string{strings.Join(names, ",")}
		}
		for _, name := range names {
			if hash {
				name = newHashed(name).String()
			}
			fmt.Fprintf(&text, "%s %s\n", name, encoded)
		}
	}
	if text.Len() == 0 {
		return nil
	}

	db.mu.Lock()
	defer db.mu.Unlock()
	var lines int
	var err error
	if db.user != "" {
		if lines, err = db.counted.appendTo(db.user, text.Bytes()); err != nil {
			err = &WriteError{File: db.user, Err: err}
		}
	}
	file := cmp.Or(db.user, "the keys accepted in this run")
	for s := range strings.Lines(text.String()) {
		lines++
		if err := db.readLine(file, int32(lines), strings.TrimSuffix(s, "\n")); err != nil {
			panic("hostkeys: a line that was written cannot be read: " + err.Error())
		}
	}
	db.sortTypes()
	for _, name := range accepted {
		delete(db.asked, name)
	}
	return err
}

// writable says whether a name, read back, is that name and nothing else.
func writable(name string) bool {
	return name != "" && !strings.ContainsAny(name, ",*?!") && !strings.ContainsAny(name[:1], "#@|") &&
		!strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

func newHashed(name string) *hashedName {
	h := new(hashedName)
	rand.Read(h.salt[:]) // never fails
	h.hash = newProbe(name).sum(&h.salt)
	return h
}

// counted is how far the lines of a file have been counted: a run may accept keys host by host.
type counted struct {
	bytes int64 // to the end of a line
	lines int
}

// appendTo adds lines to a file, which it makes if need be, and says how many lines were there before. A rename in place of the
// append would lose what ssh(1), which takes no lock, appends in between, would undo a symbolic link and would replace
// /dev/null.
func (c *counted) appendTo(file string, text []byte) (before int, err error) {
	const how = os.O_RDWR | os.O_APPEND | os.O_CREATE
	f, err := os.OpenFile(file, how, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(file), 0o700); err == nil {
			f, err = os.OpenFile(file, how, 0o600)
		}
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if size < c.bytes { // made anew by somebody
		*c = counted{}
	}
	rest, err := io.ReadAll(io.NewSectionReader(f, c.bytes, size-c.bytes))
	if err != nil {
		return 0, err
	}
	whole := bytes.LastIndexByte(rest, '\n') + 1
	c.lines += bytes.Count(rest[:whole], []byte("\n"))
	c.bytes += int64(whole)
	before = c.lines
	if whole < len(rest) { // or our first line would be the end of that one
		before++
		text = append([]byte("\n"), text...)
	}
	_, err = f.Write(text)
	return before, err
}
