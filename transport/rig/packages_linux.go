package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// fetch returns the directory that the daemon's package is unpacked in, and gets it first if it is not there yet. A failure
// is remembered: many tests may ask, and a machine without network takes its time.
func fetch(d Daemon) (dir string, err error) {
	once, _ := fetched.LoadOrStore(d, sync.OnceValues(func() (string, error) { return fetchPackage(d) }))
	return once.(func() (string, error))()
}

var fetched sync.Map // of a Daemon, to its call of fetchPackage

// fetchPackage lets one process at a time get packages, while others wait for it.
func fetchPackage(d Daemon) (dir string, err error) {
	cache := os.Getenv("MULTI_RSH_RIG_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no directory for the packages (set MULTI_RSH_RIG_CACHE): %w", err)
		}
		cache = filepath.Join(user, "multi-rsh", "rig")
	}
	cache, err = filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	dir = filepath.Join(cache, string(d))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	lock, err := os.Create(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // somebody got it while we waited
	}
	work := filepath.Join(cache, "unpack")
	if err := os.RemoveAll(work); err != nil { // what a killed process has left
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.Mkdir(work, 0o755); err != nil {
		return "", err
	}
	// As root apt-get downloads as the user _apt, who may not be allowed into the directory.
	const script = `cd "$1" && apt-get -q -o APT::Sandbox::User=root download "$2" && dpkg -x ./"$2"_*.deb ./root`
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := machine(ctx, "sh", "-c", script, "sh", work, string(d)).CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("package %s could not be fetched (apt-get update?): %w: %s", d, err, lines[len(lines)-1])
	}
	root := filepath.Join(work, "root")
	if err := missingLibraries(filepath.Join(root, "usr/sbin/in.rshd")); err != nil {
		return "", err
	}
	if err := os.Rename(root, dir); err != nil {
		return "", err
	}
	return dir, nil
}

// missingLibraries says which shared libraries a program would not find here.
func missingLibraries(program string) error {
	out, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ldd %s: %w: %s", program, err, out)
	}
	var missing []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			missing = append(missing, strings.Fields(line)[0])
		}
	}
	if missing != nil {
		return errors.New("in.rshd needs libraries that are not installed: " + strings.Join(missing, ", "))
	}
	return nil
}
