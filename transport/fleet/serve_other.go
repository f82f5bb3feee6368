//go:build unix && !linux

package fleet

import "errors"

type engine struct{}

func (*engine) stop() {}

func (f *Fleet) start() (uint16, error) {
	return 0, errors.New("a simulated fleet needs Linux, where every address of 127.0.0.0/8 is the machine itself")
}
