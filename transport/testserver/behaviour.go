//go:build unix

package testserver

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Table is the behaviours that a server knows, each at the place that is its number. The first is the good one.
type Table []Row

// Row parses, prints and documents one behaviour.
type Row struct {
	Name string

	// Value is what the documentation calls the value, and says what it may be: BYTES, N, SHARE, PAUSE, DURATION and TEXT as in
	// Behaviour, by any other name a word. Empty: the behaviour takes none.
	Value   string
	Choices []string // the values allowed; nil: any that parses
	Preset  string   // the value when it is left out; empty: it may not be
	Text    string   // one line
}

// Behaviour is one of a table, with its value. The zero value is the table's first. Behaviours are comparable.
type Behaviour struct {
	Kind  int           // the place in the table
	Word  string        // a word, or a TEXT: one line
	N     int64         // BYTES; N: 1 or more; SHARE: 0 to 1, in millionths
	Pause time.Duration // PAUSE, DURATION
}

const millionth = 1_000_000

// Share is the value of a behaviour that takes a SHARE.
func (b Behaviour) Share() float64 { return float64(b.N) / millionth }

// Doc is the documentation of one behaviour.
type Doc struct {
	Name string // as it is parsed; words in capitals stand for a value, brackets enclose what may be left out
	Text string // one line
}

// Docs documents all behaviours of the table.
func (t Table) Docs() []Doc {
	docs := make([]Doc, len(t))
	for i, r := range t {
		name := r.Name
		switch {
		case r.Value != "" && r.Preset != "":
			name += "[=" + r.Value + "]"
		case r.Value != "":
			name += "=" + r.Value
		}
		text := r.Text
		if r.Preset != "" {
			text += " (" + r.Preset + ")"
		}
		docs[i] = Doc{name, text}
	}
	return docs
}

// Parse reads a behaviour by its name, as "ok", "stall=handshake" or "huge=10M".
func (t Table) Parse(text string) (Behaviour, error) {
	name, value, given := strings.Cut(text, "=")
	i := slices.IndexFunc(t, func(r Row) bool { return r.Name == name })
	if i < 0 {
		return Behaviour{}, fmt.Errorf("no behaviour %q: it is one of %s", name, t.names())
	}
	r := t[i]
	if r.Value == "" {
		if given {
			return Behaviour{}, fmt.Errorf("behaviour %s takes no value, not %q", name, value)
		}
		return Behaviour{Kind: i}, nil
	}
	if !given {
		if r.Preset == "" {
			return Behaviour{}, fmt.Errorf("behaviour %s needs a value: %s", name, r.want())
		}
		value = r.Preset
	}
	if r.Choices != nil && !slices.Contains(r.Choices, value) {
		return Behaviour{}, fmt.Errorf("behaviour %s=%q: the value is %s", name, value, r.want())
	}
	b := Behaviour{Kind: i}
	if err := b.set(r.Value, value); err != nil {
		return Behaviour{}, fmt.Errorf("behaviour %s=%q: %w", name, value, err)
	}
	return b, nil
}

// set takes a value in, kind being a row's Value.
func (b *Behaviour) set(kind, value string) (err error) {
	switch kind {
	case "BYTES":
		b.N, err = parseBytes(value)
	case "N":
		b.N, err = strconv.ParseInt(value, 10, 32)
		if err != nil || b.N < 1 {
			return errors.New("the value is a number, 1 or more")
		}
	case "SHARE":
		share, err := strconv.ParseFloat(value, 64)
		if err != nil || !(share >= 0 && share <= 1) {
			return errors.New("the value is a number from 0 to 1 such as 0.3")
		}
		b.N = int64(share*millionth + 0.5)
	case "PAUSE", "DURATION":
		b.Pause, err = time.ParseDuration(value)
		if err != nil || b.Pause < 0 {
			return errors.New("the value is a duration such as 1.5s")
		}
	case "TEXT":
		b.Word = value
		if strings.ContainsAny(value, "\n\x00") {
			return errors.New("the value is one line without a NUL")
		}
	default:
		b.Word = value
	}
	return err
}

// Print is the text that Parse turns into b.
func (t Table) Print(b Behaviour) string {
	r := t[b.Kind]
	switch r.Value {
	case "":
		return r.Name
	case "BYTES", "N":
		return r.Name + "=" + strconv.FormatInt(b.N, 10)
	case "SHARE":
		return r.Name + "=" + strconv.FormatFloat(b.Share(), 'f', -1, 64)
	case "PAUSE", "DURATION":
		return r.Name + "=" + b.Pause.String()
	}
	return r.Name + "=" + b.Word
}

func (r Row) want() string {
	switch {
	case r.Choices != nil:
		return strings.Join(r.Choices, ", ")
	case r.Value == "BYTES":
		return "a number of bytes such as 10M"
	}
	return r.Value
}

func (t Table) names() string {
	var all []string
	for _, r := range t {
		all = append(all, r.Name)
	}
	return strings.Join(all, ", ")
}

func parseBytes(text string) (int64, error) {
	digits, unit := text, int64(1)
	if text != "" {
		switch text[len(text)-1] {
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit > 1 {
			digits = text[:len(text)-1]
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > uint64((1<<63-1)/unit) {
		return 0, errors.New("the value is a number of bytes such as 4096, 64k, 10M or 1G")
	}
	return int64(n) * unit, nil
}

// Choices are words of any type as a row has them.
func Choices[W ~string](words ...W) []string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = string(w)
	}
	return all
}

// Must is for a constant text: it panics when parsing that has failed.
func Must[B any](b B, err error) B {
	if err != nil {
		panic(err)
	}
	return b
}
