package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// spool makes the input of the command readable by every host, each at its own pace: a regular file as it is, from where it
// stands, anything else by way of a temporary file that has no name any more. The file is to be closed after the run.
func spool(name string, stdin io.Reader) (*io.SectionReader, io.Closer, error) {
	source := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, nil, usagef("--input %s: %v", name, reason(err))
		}
		source = file
	}
	if file, isFile := source.(*os.File); isFile {
		info, err := file.Stat()
		if err != nil {
			return nil, nil, usagef("--input %s: %v", name, reason(err))
		}
		if info.IsDir() {
			file.Close()
			return nil, nil, usagef("--input %s: this is a directory; name a file", name)
		}
		if info.Mode().IsRegular() {
			at, err := file.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, nil, err
			}
			return io.NewSectionReader(file, at, max(0, info.Size()-at)), file, nil
		}
		if name != "-" {
			defer file.Close()
		}
	}
	temporary, err := os.CreateTemp("", "multi-rsh-input-")
	if err != nil {
		return nil, nil, fmt.Errorf("cannot keep the input for the hosts: %w", err)
	}
	if err := os.Remove(temporary.Name()); err != nil {
		temporary.Close()
		return nil, nil, err
	}
	size, err := io.Copy(temporary, source)
	if err != nil {
		temporary.Close()
		return nil, nil, fmt.Errorf("cannot keep the input for the hosts in %s: %w", os.TempDir(), reason(err))
	}
	return io.NewSectionReader(temporary, 0, size), temporary, nil
}

// reason is the error without the operation and the name that the message has already.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
