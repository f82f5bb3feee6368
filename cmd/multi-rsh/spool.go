package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// spooled is the input of the command, readable by every host, each at its own pace. The file is to be closed after the run.
type spooled struct {
	*io.SectionReader
	io.Closer
	name string // of a file that keep has made; "": it has none, or is the user's
}

// spool makes the input readable: a regular file as it is, from where it stands, anything else by way of a temporary file that has no
// name any more. With a keep, all of it goes by way of the file that keep makes.
func spool(name string, stdin io.Reader, keep func() (*os.File, error)) (*spooled, error) {
	source := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, usagef("--input %s: %v", name, reason(err))
		}
		source = file
	}
	if file, isFile := source.(*os.File); isFile {
		info, err := file.Stat()
		if err != nil {
			return nil, usagef("--input %s: %v", name, reason(err))
		}
		if info.IsDir() {
			file.Close()
			return nil, usagef("--input %s: this is a directory; name a file", name)
		}
		if info.Mode().IsRegular() && keep == nil {
			at, err := file.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			return &spooled{io.NewSectionReader(file, at, max(0, info.Size()-at)), file, ""}, nil
		}
		if name != "-" {
			defer file.Close()
		}
	}
	own := keep
	if own == nil {
		own = nameless
	}
	copied, err := own()
	if err != nil {
		return nil, err
	}
	size, err := io.Copy(copied, source)
	if err != nil {
		copied.Close()
		if keep != nil {
			os.Remove(copied.Name())
		}
		if in := (*fs.PathError)(nil); errors.As(err, &in) && in.Op == "read" {
			return nil, fmt.Errorf("the input cannot be read (%v), and nothing has been run", in.Err)
		}
		return nil, fmt.Errorf("the input for the hosts cannot be kept in %s (%v), and nothing has been run", copied.Name(), reason(err))
	}
	s := &spooled{io.NewSectionReader(copied, 0, size), copied, ""}
	if keep != nil {
		s.name = copied.Name()
	}
	return s, nil
}

func nameless() (*os.File, error) {
	file, err := os.CreateTemp("", "multi-rsh-input-")
	if err != nil {
		return nil, fmt.Errorf("cannot keep the input for the hosts: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// reason is the error without the operation and the name that the message has already.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
