package journal

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"multirsh/runner"
	"multirsh/transport"
)

// victimVar is set in a process that is to be killed: to what it does, and the folder of runs.
const victimVar = "MULTI_RSH_JOURNAL_VICTIM"

// victim is the life of such a process.
func victim(what string) {
	what, dir, _ := strings.Cut(what, ":")
	var err error
	switch what {
	case "run":
		err = victimRun(dir)
	case "runs":
		err = victimRuns(dir)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

const victimHosts = 2000

// victimRun begins the run or goes on with it. It tells each host that it has sent the command to, and each that it has shown the result of.
func victimRun(dir string) error {
	hosts := numbered(victimHosts)
	j, _, _, err := Resume(dir, Last)
	if _, none := err.(*NameError); none {
		j, err = Create(dir, Head{Command: "uptime"}, hosts, "")
	} else if err == nil {
		rest := j.Rest(nil)
		hosts = func(yield func(transport.Host) bool) {
			for _, h := range rest {
				if !yield(h) {
					return
				}
			}
		}
	}
	if err != nil {
		return err
	}
	r := &runner.Runner{Transport: &metered{leave: bufio.NewReader(os.Stdin)}, Fanout: 32}
	_, err = r.Run(context.Background(), hosts, func(transport.Host) *transport.Command { return &transport.Command{} }, telling{j})
	return err
}

// telling is a journal with a sink behind it.
type telling struct{ *Journal }

func (s telling) Event(e runner.Event) error {
	if err := s.Journal.Event(e); err != nil {
		return err
	}
	if e.Kind == runner.Finish {
		fmt.Println("shown", e.Host.Name)
	}
	return nil
}

// metered is a transport whose commands end when it gets leave, a byte for each.
type metered struct {
	mu    sync.Mutex
	leave *bufio.Reader
}

func (m *metered) Start(_ context.Context, h transport.Host, _ *transport.Command) (transport.Session, error) {
	fmt.Println("sent", h.Name)
	return &meteredSession{m: m}, nil
}
func (m *metered) Shutdown(context.Context) {}

type meteredSession struct {
	instant
	m *metered
}

func (s *meteredSession) Wait(context.Context) (transport.Status, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if _, err := s.m.leave.ReadByte(); err != nil {
		os.Exit(2) // nobody is left who would kill this process
	}
	return s.instant.Wait(context.Background())
}

// bring starts a process that does what, in dir.
func bring(t *testing.T, what, dir, stdin string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimVar+"="+what+":"+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // open until the process has ended
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if _, err := io.WriteString(in, stdin); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// A run of 2,000 hosts is killed at ten moments, and gone on with each time.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("ten processes are killed: run this without -short")
	}
	dir := filepath.Join(t.TempDir(), "runs")
	sent, shown := map[string]int{}, map[string]int{}
	note := func(line string) {
		what, name, _ := strings.Cut(line, " ")
		switch what {
		case "sent":
			sent[name]++
		case "shown":
			shown[name]++
		default:
			t.Fatal(line)
		}
	}
	for round := range 10 {
		leave := 20 + rand.IntN(140)
		until := rand.IntN(leave)
		cmd, out := bring(t, "run", dir, strings.Repeat(".", leave))
		for results := 0; out.Scan(); {
			note(out.Text())
			if strings.HasPrefix(out.Text(), "shown") {
				results++
			}
			if results >= until {
				break
			}
		}
		cmd.Process.Kill()
		for out.Scan() {
			note(out.Text()) // what it had said by then
		}
		cmd.Wait()

		run, damaged := load(t, dir, Last)
		for _, h := range run.Hosts {
			if sent[h.Name] > 1 || shown[h.Name] > 1 {
				t.Errorf("%s was sent the command %d times, and its result was shown %d times", h.Name, sent[h.Name], shown[h.Name])
			}
			switch {
			case shown[h.Name] > 0 && h.State != Done:
				t.Errorf("round %d: the result of %s was shown, and its state is %v", round, h.Name, h.State)
			case sent[h.Name] > 0 && h.State == NotRun:
				t.Errorf("round %d: %s was sent the command, and its state is %v", round, h.Name, h.State)
			case sent[h.Name] == 0 && h.State == Done:
				t.Errorf("round %d: %s was not sent the command, and its state is %v", round, h.Name, h.State)
			}
		}
		c := run.Counts()
		t.Logf("killed: %d results, %d begun, %d not run, %d lines damaged", c.Outcomes[runner.OK], c.Open, c.NotRun, len(damaged))
		if len(damaged) > 1 || c.NotRun == 0 || c.Open > 32*(round+1) {
			t.Errorf("damaged: %v", damaged)
		}
	}

	j, run, _, err := Resume(dir, Last)
	if err != nil {
		t.Fatal(err)
	}
	open := run.Counts().Open
	for seq, h := range j.Rest(func(Host) bool { return true }) {
		for _, e := range []runner.Event{start(seq), finish(seq, 0)} {
			e.Host = h
			send(t, j, e)
		}
		sent[h.Name]++
	}
	closed(t, j)
	again := 0
	for _, n := range sent {
		if n > 1 {
			again++
		}
	}
	if len(sent) != victimHosts || again > open {
		t.Errorf("%d hosts were sent the command, %d of them again, and %d were unknown", len(sent), again, open)
	}
	text, err := os.ReadFile(filepath.Join(dir, j.ID, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]int{}
	for line := range bytes.Lines(text) {
		if e, err := parse(bytes.TrimSuffix(line, []byte("\n"))); err == nil && e.Type == "result" {
			results[string(e.Host)]++
		}
	}
	for name := range sent {
		if results[name] != 1 {
			t.Errorf("%s has %d results", name, results[name])
		}
	}
}

// victimRuns makes runs and removes them until it is killed.
func victimRuns(dir string) error {
	for {
		spool, err := Spool(dir)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(spool, "input\n"); err != nil {
			return err
		}
		j, err := Create(dir, Head{Command: "uptime"}, numbered(50), spool.Name())
		if err != nil {
			return err
		}
		spool.Close()
		if err := Prune(dir, 3); err != nil {
			return err
		}
		if err := j.Event(start(0)); err != nil {
			return err
		}
		if err := j.Close(); err != nil {
			return err
		}
		fmt.Println("made", j.ID)
	}
}

// Whenever a process dies that makes and removes runs, those that there are can be read.
func TestKillMaker(t *testing.T) {
	if testing.Short() {
		t.Skip("ten processes are killed: run this without -short")
	}
	dir := filepath.Join(t.TempDir(), "runs")
	last, made := "", 0
	for range 10 {
		cmd, out := bring(t, "runs", dir, "")
		next := func() bool {
			if !out.Scan() {
				return false
			}
			what, id, _ := strings.Cut(out.Text(), " ")
			if what != "made" || id <= last {
				t.Fatalf("%s after %s", out.Text(), last)
			}
			last = id
			made++
			return true
		}
		for range 1 + rand.IntN(10) {
			if !next() {
				t.Fatal("it has ended by itself")
			}
		}
		for range rand.IntN(20_000) {
			if _, err := os.Stat(filepath.Join(dir, "none")); err == nil { // a little later
				t.Fatal("there is one")
			}
		}
		cmd.Process.Kill()
		for next() { // what it had said by then
		}
		cmd.Wait()
		list, err := List(dir)
		if err != nil || len(list) < min(3, made) || list[0].ID < last {
			t.Errorf("%d runs after %d, %v", len(list), made, err)
		}
		for _, info := range list {
			if info.Err != nil || info.Running || info.Counts.NotRun < 49 {
				t.Errorf("%+v", info)
			}
			if _, _, err := Load(dir, info.ID); err != nil {
				t.Error(err)
			}
		}
	}
	aged(t, dir)
	if err := Prune(dir, 2); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
