package groups

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestUpcallCache(t *testing.T) {
	dir := write(t, map[string]string{"n": ""})
	u := Upcall{Source: "s", Map: "printf x >>n; echo $GROUP", Dir: dir, Cache: time.Hour, CacheDir: dir + "/cache/groups"}
	runs := 0
	ask := func(why, group string, want int) {
		t.Helper()
		if text, err := u.New().Map(t.Context(), group); err != nil || text != group+"\n" {
			t.Errorf("%s: %q, %v", why, text, err)
		}
		data, err := os.ReadFile(dir + "/n")
		if err != nil {
			t.Fatal(err)
		}
		if ran := len(data) - runs; ran != want {
			t.Errorf("%s: %d runs, want %d", why, ran, want)
		}
		runs = len(data)
	}
	ask("the first time", "a", 1)
	ask("the second time", "a", 0)
	ask("another group", "b", 1)
	u.Source = "t"
	ask("another source", "b", 1)
	u.Source, u.Cache = "s", time.Minute
	ask("a shorter time", "a", 1)

	each := func(change func(path string) error) {
		t.Helper()
		entries, err := os.ReadDir(u.CacheDir)
		if err != nil || len(entries) == 0 {
			t.Fatalf("%v, %v", entries, err)
		}
		for _, e := range entries {
			path := filepath.Join(u.CacheDir, e.Name())
			if err := change(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	each(func(path string) error {
		info, err := os.Stat(path)
		if err == nil && info.Mode() != 0o600 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	})
	each(func(path string) error { return os.Chtimes(path, time.Time{}, time.Now().Add(-time.Second)) })
	ask("an answer of old", "a", 1)
	each(func(path string) error { return os.Chmod(path, 0o622) })
	ask("an answer that anybody may have written", "a", 1)
	if os.Geteuid() == 0 {
		each(func(path string) error { return os.Chown(path, 1, 1) })
		ask("an answer of somebody else", "a", 1)
	}
	each(func(path string) error { return os.WriteFile(path, []byte("a\x00"), 0o600) })
	each(func(path string) error { return os.Chtimes(path, time.Time{}, time.Now().Add(time.Second*50)) })
	ask("an answer that is no text", "a", 1)

	// What is no longer good is taken out, and what is not of the cache is left there.
	each(func(path string) error { return os.Chtimes(path, time.Time{}, time.Now().Add(-2*time.Hour)) })
	other := filepath.Join(u.CacheDir, "README")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(other, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	ask("all is old", "a", 1)
	if entries, err := os.ReadDir(u.CacheDir); err != nil || len(entries) != 2 {
		t.Errorf("want an answer and the README: %v, %v", entries, err)
	}

	u.Map = "printf x >>n; exit 1"
	u.New().Map(t.Context(), "a")
	u.New().Map(t.Context(), "a")
	u.Map = "printf x >>n; echo $GROUP"
	ask("two failures, which are no answers to keep", "c", 3)
	u.CacheDir = "/proc/nowhere"
	ask("no place for a cache, which is no error", "a", 1)
	u.Cache, u.CacheDir = 0, dir+"/cache/none"
	ask("no time for a cache", "a", 1)
	if _, err := os.Stat(u.CacheDir); err == nil {
		t.Error("there is a cache, for no time")
	}
}
