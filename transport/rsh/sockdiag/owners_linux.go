package sockdiag

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// FindOwners looks through /proc for the processes that hold the sockets. A process that comes or goes meanwhile does no harm.
// What another user's processes hold is shown to root alone (CAP_SYS_PTRACE).
func FindOwners(sockets []Socket) (Owners, error) {
	owners := Owners{ByInode: map[uint32][]Process{}}
	for _, s := range sockets {
		if s.Inode != 0 {
			owners.ByInode[s.Inode] = nil
		}
	}
	if len(owners.ByInode) == 0 {
		return owners, nil
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return owners, fmt.Errorf("sockdiag: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return owners, fmt.Errorf("sockdiag: %w", err)
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if err := owners.look(pid); errors.Is(err, fs.ErrPermission) {
			owners.Hidden++
		}
	}
	for _, holders := range owners.ByInode {
		slices.SortFunc(holders, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
	}
	return owners, nil
}

// look notes which of the sockets the process holds. It is the kernel that takes the time, 5 µs a file, so a process with thousands of
// them is looked at by several processors: one reads names, the others links.
func (o *Owners) look(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid)
	files, err := os.Open(dir + "/fd")
	if err != nil {
		return err
	}
	defer files.Close()
	var (
		mu    sync.Mutex
		held  = map[uint32]bool{}
		links errgroup.Group
		fd    = int(files.Fd())
	)
	links.SetLimit(runtime.GOMAXPROCS(0))
	for {
		names, err := files.Readdirnames(1024)
		read := func() error {
			buffer := make([]byte, 32)
			var found []uint32
			for _, name := range names {
				if inode, is := socketInode(fd, name, buffer); is {
					if _, wanted := o.ByInode[inode]; wanted {
						found = append(found, inode)
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, inode := range found {
				held[inode] = true
			}
			return nil
		}
		if err != nil { // io.EOF, or the process has ended
			break
		}
		if len(names) < 1024 {
			read() // all there are, of most processes
		} else {
			links.Go(read)
		}
	}
	links.Wait()
	if len(held) == 0 {
		return nil
	}
	name, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return err // it has ended
	}
	for inode := range held {
		o.ByInode[inode] = append(o.ByInode[inode], Process{PID: pid, Name: strings.TrimSuffix(string(name), "\n")})
	}
	return nil
}

// socketInode reads a link such as socket:[4711].
func socketInode(dir int, name string, buffer []byte) (uint32, bool) {
	n, err := unix.Readlinkat(dir, name, buffer)
	if err != nil {
		return 0, false
	}
	text, is := strings.CutPrefix(string(buffer[:n]), "socket:[")
	if !is {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32)
	return uint32(inode), err == nil
}
