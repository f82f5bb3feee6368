package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// programs are the daemons' programs in their packages.
var programs = map[Daemon]string{
	Redone:   "usr/sbin/in.rshd",
	Netkit:   "usr/sbin/in.rshd",
	OpenSSH:  "usr/sbin/sshd",
	Dropbear: "usr/sbin/dropbear",
}

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
	root := filepath.Join(work, "root")
	// As root apt-get downloads as the user _apt, who may not be allowed into the directory.
	const get = `get() { apt-get -q -o APT::Sandbox::User=root download "$1" && dpkg -x ./"$1"_*.deb ./root; }; cd "$1" && `
	if err := unpack(get+`get "$2"`, work, d); err != nil {
		return "", err
	}
	missing, err := missingLibraries(d, root)
	if err != nil {
		return "", err
	}
	if missing != nil && (d == OpenSSH || d == Dropbear) {
		// What an installation would add to the machine goes beside the program, as far as it is libraries.
		const libraries = `for lib in $(apt-get -q -s --no-install-recommends install "$2" | sed -n 's/^Inst \(lib[^ ]*\) (.*/\1/p')
			do get "$lib" || exit; done`
		if err := unpack(get+libraries, work, d); err != nil {
			return "", err
		}
		if missing, err = missingLibraries(d, root); err != nil {
			return "", err
		}
	}
	if missing != nil {
		return "", fmt.Errorf("%s needs libraries that are not installed: %s", filepath.Base(programs[d]), strings.Join(missing, ", "))
	}
	if err := os.Rename(root, dir); err != nil {
		return "", err
	}
	return dir, nil
}

// unpack runs a script that gets packages, on the machine's own network: $1 is the directory to work in, $2 the daemon's package.
func unpack(script, work string, d Daemon) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := machine(ctx, "sh", "-c", script, "sh", work, string(d)).CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("package %s could not be fetched (apt-get update?): %w: %s", d, err, lines[len(lines)-1])
	}
	return nil
}

// libraryDirs are the directories with libraries below one that packages are unpacked in.
func libraryDirs(root string) []string {
	var all []string
	for _, pattern := range []string{"/lib/*-linux-*", "/usr/lib/*-linux-*"} {
		dirs, _ := filepath.Glob(root + pattern) // it fails for bad patterns alone
		all = append(all, dirs...)
	}
	return all
}

// missingLibraries says which shared libraries a daemon would not find here, those that were unpacked beside it included.
func missingLibraries(d Daemon, root string) ([]string, error) {
	cmd := exec.Command("ldd", filepath.Join(root, programs[d]))
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraryDirs(root), ":"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: %s", programs[d], err, out)
	}
	var missing []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			missing = append(missing, strings.Fields(line)[0])
		}
	}
	return missing, nil
}
