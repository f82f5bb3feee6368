package output

import "io"

// Stream is where something is written to, and how it is to look there. The zero values are for files and pipes: what hosts write goes
// there byte for byte. Names of hosts and errors are harmless to a terminal in any case.
type Stream struct {
	W      io.Writer // belongs to the caller
	Width  int       // columns of the terminal that it is; 0: it is none, and no line is wrapped or cut
	Escape bool      // what a terminal would obey in outputs is shown as text, see appendEscaped
	Color  bool      // with colours
}
