package sockdiag

import (
	"cmp"
	"context"
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

// FindOwners looks through /proc for the processes that hold sockets, of any kind and in any network namespace. A process that comes
// or goes meanwhile does no harm. What another user's processes hold is shown to root alone (CAP_SYS_PTRACE). At the end of ctx it
// gives up, with the error of ctx.
//
// It may run beside Table, which takes as long: what neither of them sees is a socket that is opened or closed meanwhile.
func FindOwners(ctx context.Context) (Owners, error) {
	owners := Owners{ByInode: map[uint32][]Process{}}
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
		if ctx.Err() != nil {
			return owners, ctx.Err()
		}
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if err := owners.look(ctx, pid); errors.Is(err, fs.ErrPermission) {
			owners.Hidden++
		}
	}
	for _, holders := range owners.ByInode {
		if len(holders) > 1 {
			slices.SortFunc(holders, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
		}
	}
	return owners, nil
}

// look notes which sockets the process holds. It is the kernel that takes the time, 5 µs a file, so a process with thousands of
// them is looked at by several processors: one reads names, the others links.
func (o *Owners) look(ctx context.Context, pid int) error {
	dir := "/proc/" + strconv.Itoa(pid)
	files, err := os.Open(dir + "/fd")
	if err != nil {
		return err
	}
	defer files.Close()
	var (
		mu    sync.Mutex
		held  []uint32
		links errgroup.Group
		fd    = int(files.Fd())
	)
	links.SetLimit(runtime.GOMAXPROCS(0))
	for ctx.Err() == nil {
		names, err := files.Readdirnames(1024)
		read := func() error {
			buffer := make([]byte, 32)
			var found []uint32
			for _, name := range names {
				if inode, is := socketInode(fd, name, buffer); is {
					found = append(found, inode)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			held = append(held, found...)
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
	slices.Sort(held)
	one := []Process{{PID: pid, Name: strings.TrimSuffix(string(name), "\n")}} // of most sockets the only one
	for _, inode := range slices.Compact(held) {                               // dup(2) makes two files of one socket
		if others := o.ByInode[inode]; others == nil {
			o.ByInode[inode] = one[:1:1]
		} else {
			o.ByInode[inode] = append(others, one[0])
		}
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
