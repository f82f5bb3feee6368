package rsh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/rsh/resvport"
	"multirsh/transport/rsh/rshtest"
	"multirsh/transport/transporttest"
)

// outcome is what becomes of a session with a host that misbehaves.
type outcome struct {
	started        bool   // Start has returned a session
	stdout, stderr string // delivered
	only           bool   // stderr may or may not have come when stdout ended the session
	status         transport.Status
	phase          transport.Phase // of the error; empty: there is none
	kinds          []error         // the error is each of them
	text           string          // in the error
}

// The command of these tests, and how it ends when all goes well.
const line = "echo out; echo err >&2; exit 3"

var (
	ended   = transport.Status{Known: true, Code: 3, Started: true, Ended: true}
	fine    = outcome{started: true, stdout: "out\n", stderr: "err\n", status: ended}
	left    = outcome{started: true, stdout: "out\n", stderr: "err\n", status: transport.Status{Known: true, Code: 3, Started: true, Background: true}}
	stalled = outcome{phase: transport.PhaseHandshake, kinds: []error{context.DeadlineExceeded}, text: "--connect-timeout"}
	silent  = outcome{phase: transport.PhaseAuth, kinds: []error{transport.ErrAuth}, text: "closed the connection without an answer"}
	noBack  = outcome{phase: transport.PhaseHandshake, kinds: []error{context.DeadlineExceeded}, text: "has not opened the stderr channel"}
)

// misbehaviours says what comes of each behaviour of rshtest, for a session with the wrapper and two channels.
var misbehaviours = map[string]outcome{
	"ok": fine,

	"stall=accept":    stalled,
	"stall=callback":  stalled,
	"stall=handshake": stalled,
	"stall=leader":    {started: true, phase: transport.PhaseStart, kinds: []error{context.DeadlineExceeded}, text: "login shell"},
	"stall=output":    {started: true, stdout: "ou", only: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kinds: []error{errPatience}},
	"stall=trailer":   {started: true, stdout: "out\n", only: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kinds: []error{errPatience}},
	"stall=end":       left,

	"reset=accept":    silent,
	"reset=callback":  silent,
	"reset=handshake": silent,
	"reset=leader":    {started: true, phase: transport.PhaseStart, kinds: []error{transport.ErrProtocol}, text: "did not start"},
	"reset=output":    {started: true, stdout: "ou", only: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kinds: []error{transport.ErrLost}},
	"reset=trailer":   {started: true, stdout: "out\n", only: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kinds: []error{transport.ErrLost}},
	"reset=end":       {started: true, stdout: "out\n", stderr: "err\n", status: transport.Status{Known: true, Code: 3, Started: true}},

	"close=accept":    silent,
	"close=callback":  silent,
	"close=handshake": silent,
	"close=leader":    {started: true, status: transport.Status{Ended: true}, phase: transport.PhaseStart, kinds: []error{transport.ErrProtocol}, text: "did not start"},
	"close=output":    {started: true, stdout: "ou", only: true, status: transport.Status{Started: true, Ended: true}, phase: transport.PhaseRun, kinds: []error{transport.ErrLost}},
	"close=trailer":   {started: true, stdout: "out\n", only: true, status: transport.Status{Started: true, Ended: true}, phase: transport.PhaseRun, kinds: []error{transport.ErrLost}},
	"close=end":       fine,

	"neverclose":       left,
	"error=Try again.": {phase: transport.PhaseHandshake, kinds: []error{transport.ErrProtocol}, text: `"Try again."`},
	"garbage":          {phase: transport.PhaseHandshake, kinds: []error{transport.ErrProtocol}, text: "SSH-2.0"},
	"denied=redone":    {started: true, status: transport.Status{Ended: true}, phase: transport.PhaseAuth, kinds: []error{transport.ErrAuth}, text: "Authentication failure"},
	"denied=netkit":    {phase: transport.PhaseAuth, kinds: []error{transport.ErrAuth}, text: "Permission denied."},

	"huge=3M":    {started: true, stdout: strings.Repeat(strings.Repeat("x", 63)+"\n", 3<<20/64) + "out\n", stderr: "err\n", status: ended},
	"slow=1ms":   fine,
	"late=100ms": fine,

	"callback=expired":    stalled,
	"callback=twice":      fine,
	"callback=address":    fine,
	"callback=unreserved": noBack,
	"callback=port":       noBack,
	"callback=none":       noBack,

	"leader=stdout":  {started: true, stdout: "out\n", status: ended, phase: transport.PhaseRun, kinds: []error{transport.ErrProtocol}, text: "not this command's"},
	"leader=stderr":  {started: true, stderr: "err\n", status: transport.Status{Started: true, Ended: true}, phase: transport.PhaseRun, kinds: []error{transport.ErrLost}},
	"trailer=stdout": {started: true, stdout: "out\n", stderr: "err\n", status: ended, phase: transport.PhaseRun, kinds: []error{transport.ErrLost}, text: "exit status was 3"},
	"trailer=stderr": {started: true, stdout: "out\n", stderr: "err\n", status: transport.Status{Started: true, Ended: true}, phase: transport.PhaseRun, kinds: []error{transport.ErrLost}},
	"trailer=none":   {started: true, stdout: "out\n", stderr: "err\n", status: transport.Status{Started: true, Ended: true}, phase: transport.PhaseRun, kinds: []error{transport.ErrLost}},

	"falsetrailer":     fine, // but for the false trailers, which are output like any other
	"background=1000s": left,
}

var errPatience = errors.New("the test waits no longer")

// variants lists the behaviours that a documented one stands for: one for each choice of its value, or the name alone.
func variants(t testing.TB, doc rshtest.Doc) (all []string) {
	name, value, _ := strings.Cut(strings.NewReplacer("[", "", "]", "").Replace(doc.Name), "=")
	switch value {
	case "PHASE", "DAEMON", "HOW", "CHANNEL":
		_, err := rshtest.ParseBehaviour(name + "=")
		_, choices, found := strings.Cut(fmt.Sprint(err), "the value is ")
		if !found {
			t.Fatalf("%s: its choices are not told: %v", doc.Name, err)
		}
		for choice := range strings.SplitSeq(choices, ", ") {
			all = append(all, name+"="+choice)
		}
		return all
	}
	return []string{name}
}

// Whatever a host does, the session says what became of it, in its time, keeps the output that came, and leaves nothing behind.
func TestMisbehaviour(t *testing.T) {
	needPorts(t)
	tested := make(map[string]bool)
	for _, doc := range rshtest.Behaviours() {
		for _, variant := range variants(t, doc) {
			known := 0
			for text, want := range misbehaviours {
				if text == variant || strings.HasPrefix(text, variant+"=") {
					known++
					tested[text] = true
					t.Run(text, func(t *testing.T) { misbehave(t, text, want) })
				}
			}
			if known == 0 {
				t.Errorf("nothing is expected of behaviour %s", variant)
			}
		}
	}
	for text := range misbehaviours {
		if !tested[text] {
			t.Errorf("something is expected of %s, which is no behaviour", text)
		}
	}
}

func misbehaving(t testing.TB, behaviour string) (*rshtest.Server, transport.Host) {
	t.Helper()
	s := &rshtest.Server{Behaviour: rshtest.MustParseBehaviour(behaviour), Record: true, Patience: time.Second}
	host := serve(t, s)
	host.Name = "odd"
	return s, host
}

func misbehave(t *testing.T, behaviour string, want outcome) {
	server, host := misbehaving(t, behaviour)
	tr := client(t)
	if slices.Contains(want.kinds, context.DeadlineExceeded) {
		tr.ConnectTimeout = time.Second // what stalls would stall for as long as we let it
	}
	var stdout, stderr transporttest.Recorder
	s, err := tr.Start(t.Context(), host, &transport.Command{Line: line, Stdout: &stdout, Stderr: &stderr})
	if want.started != (err == nil) {
		t.Fatalf("Start: %v", err)
	}
	var status transport.Status
	if err == nil {
		ctx, lost := context.WithCancelCause(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			status, err = s.Wait(ctx)
		}()
		if slices.Contains(want.kinds, errPatience) {
			rig.Until(t, "stdout", func() string {
				if got := stdout.String(); got != want.stdout {
					return fmt.Sprintf("%q, want %q", got, want.stdout)
				}
				return ""
			})
			lost(errPatience)
		}
		<-done
		lost(nil)
		if err := s.Close(); err != nil {
			t.Errorf("Close after the end: %v", err)
		}
	}

	if got := withoutFalseTrailer(t, behaviour, stdout.String()); got != want.stdout {
		t.Errorf("stdout %.300q, want %.300q", got, want.stdout)
	}
	if got := withoutFalseTrailer(t, behaviour, stderr.String()); got != want.stderr && !want.only {
		t.Errorf("stderr %.300q, want %.300q", got, want.stderr)
	}
	if d := cmp.Diff(want.status, status); d != "" {
		t.Errorf("status (-want +got):\n%s", d)
	}
	if behaviour == "reset=accept" && errors.Is(err, syscall.ECONNRESET) { // before connect(2) had returned
		want = outcome{phase: transport.PhaseConnect}
	}
	checkError(t, err, want)
	nothingHere(t, tr)
	checkTranscript(t, server, behaviour)
}

// The same hosts, met with one channel or without the wrapper: an end that is not the command's own is never taken for one.
func TestMisbehaviourOtherwise(t *testing.T) {
	needPorts(t)
	for _, plain := range []bool{false, true} {
		for behaviour := range misbehaviours {
			t.Run(fmt.Sprintf("plain=%v/%s", plain, behaviour), func(t *testing.T) {
				_, host := misbehaving(t, behaviour)
				tr := client(t)
				tr.Merge, tr.Plain = true, plain
				name, _, _ := strings.Cut(behaviour, "=")
				limit := rig.Patience
				if name == "stall" || plain && (name == "neverclose" || name == "background") {
					limit = 200 * time.Millisecond // it would last as long as we let it
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				var stdout transporttest.Recorder
				s, err := tr.Start(ctx, host, &transport.Command{Line: line, Stdout: &stdout})
				var status transport.Status
				if err == nil {
					status, err = s.Wait(ctx)
				}
				got := stdout.String()
				if !plain {
					got = withoutFalseTrailer(t, behaviour, got)
				}
				complete := strings.HasSuffix(got, "out\nerr\n") || plain && name == "huge" // which adds its bytes at the end
				switch {
				case plain && status.Known:
					t.Errorf("status %+v of a host that cannot tell", status)
				case !plain && err == nil && !complete:
					t.Errorf("no error, and the output is %q", got)
				case !plain && err == nil && (!status.Known || status.Code != 3):
					t.Errorf("no error, status %+v", status)
				case status.Known && status.Code != 3, ctx.Err() != nil && err == nil && !status.Known:
					t.Errorf("status %+v, %v", status, err)
				case err == nil && name != "huge" && name != "denied" && !strings.HasPrefix("out\nerr\n", got):
					t.Errorf("the output is %q", got)
				}
				nothingHere(t, tr)
			})
		}
	}
}

// A host without a login shell ends the session with our script unread, in a reset or not. That is one error, with what it says.
func TestNoShell(t *testing.T) {
	for shell, want := range map[string]struct {
		kind error
		text string
	}{
		"/bin/false":        {transport.ErrProtocol, "no login shell"},
		"/usr/sbin/nologin": {ErrAccount, "not available"},
	} {
		t.Run(shell, func(t *testing.T) {
			if _, err := os.Stat(shell); err != nil {
				t.Skip(err)
			}
			tr := client(t)
			host := serve(t, &rshtest.Server{Shell: shell})
			for range 20 {
				got := run(t, tr, host, line)
				if !errors.Is(got.err, want.kind) || !strings.Contains(got.err.Error(), want.text) || got.status.Started || got.stdout != "" {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}

func checkError(t *testing.T, err error, want outcome) {
	t.Helper()
	if want.phase == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	var op *transport.OpError
	if !errors.As(err, &op) || op.Phase != want.phase || op.Host != "odd" {
		t.Errorf("error %v, want one of host odd in phase %s", err, want.phase)
	}
	for _, kind := range want.kinds {
		if !errors.Is(err, kind) {
			t.Errorf("error %v is no %v", err, kind)
		}
	}
	if err != nil && !strings.Contains(err.Error(), want.text) {
		t.Errorf("error %v says nothing of %s", err, want.text)
	}
}

// withoutFalseTrailer cuts the false trailer off the beginning of what behaviour falsetrailer gives.
func withoutFalseTrailer(t testing.TB, behaviour, text string) string {
	t.Helper()
	if behaviour != "falsetrailer" {
		return text
	}
	trailer, rest, _ := strings.Cut(text, "\n")
	if len(trailer) != 35 || trailer[0] != 0x1e || !strings.HasSuffix(trailer, "-0") {
		t.Errorf("the output begins with %q, want a false trailer", trailer)
	}
	return rest
}

// checkTranscript looks at the same session from the server's side.
func checkTranscript(t *testing.T, server *rshtest.Server, behaviour string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
	defer cancel()
	if behaviour == "neverclose" {
		return // and so it is never over
	}
	all, err := server.Wait(ctx, 1)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d transcripts: %v", len(all), err)
	}
	s := all[0]
	if s.Client.Port() < resvport.First || s.Client.Port() > resvport.Last {
		t.Errorf("we came from port %d", s.Client.Port())
	}
	switch behaviour {
	case "callback=expired":
		if len(s.Callbacks) != 1 || !errors.Is(s.Callbacks[0].Err, syscall.ECONNREFUSED) {
			t.Errorf("the late connection back was let in: %+v", s.Callbacks)
		}
	case "callback=twice":
		if len(s.Callbacks) != 2 || s.Callbacks[1].Err != nil {
			t.Errorf("%+v", s.Callbacks)
		}
	}
}

// Output is never another session's, whatever the hosts beside it do with their connections back.
func TestSessionsApart(t *testing.T) {
	for _, behaviour := range []string{"late=50ms", "callback=expired", "callback=twice", "callback=address", "callback=unreserved", "callback=none", "callback=port"} {
		t.Run(behaviour, func(t *testing.T) {
			needPorts(t)
			_, good := misbehaving(t, "ok")
			_, odd := misbehaving(t, behaviour)
			// Few ports, so that each serves many sessions, the good ones' right after the odd ones'.
			ports := &resvport.Allocator{Low: 600, High: 663}
			t.Cleanup(func() { ports.Close() })
			tr := &Transport{Ports: ports, LocalUser: "root", ConnectTimeout: 30 * time.Second}
			hasty := &Transport{Ports: ports, LocalUser: "root", ConnectTimeout: 200 * time.Millisecond}
			var wg sync.WaitGroup
			slots := make(chan struct{}, 16)
			for i := range 120 {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					tr, host, isOdd := tr, good, i%4 == 0
					if isOdd {
						tr, host = hasty, odd
					}
					began := time.Now()
					got := run(t, tr, host, fmt.Sprintf("echo out %d; echo err %d >&2; exit %d", i, i, i%7))
					want := result{fmt.Sprintf("out %d\n", i), fmt.Sprintf("err %d\n", i), transport.Status{Known: true, Code: i % 7, Started: true, Ended: true}, nil}
					if got.status.Background && time.Since(began) >= minDrain { // a server that is slow to close looks like one that cannot
						want.status.Ended, want.status.Background = false, true
					}
					switch {
					case got == want:
					case isOdd && got == (result{err: got.err}):
					case behaviour == "callback=port" && (errors.Is(got.err, transport.ErrProtocol) || errors.Is(got.err, transport.ErrLost)) &&
						(got.stdout == "" || got.stdout == want.stdout) && got.stderr == "":
						// Its own port was called by the wrong host before the right one. That is found out, and is an error.
					default:
						t.Errorf("%d: %+v: %v", i, got, got.err)
					}
				})
			}
			wg.Wait()
			hasty.Shutdown(t.Context())
			nothingHere(t, tr)
		})
	}
}

// The host may hang up while we still wait for a stderr port. That is no other error than when it does so later.
func TestHungUpBeforeTheRequest(t *testing.T) {
	needPorts(t)
	_, holds := misbehaving(t, "stall=handshake")
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	hangsUp := transport.Host{Name: "odd", Addr: addr.Addr().String(), Port: addr.Port()}
	ports := &resvport.Allocator{Low: 600, High: 602} // room for one listener
	t.Cleanup(func() { ports.Close() })
	tr := &Transport{Ports: ports, LocalUser: "root", ConnectTimeout: rig.Patience}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sessions sync.WaitGroup
	defer sessions.Wait()
	sessions.Go(func() { tr.Start(ctx, holds, &transport.Command{Line: line}) })
	rig.Until(t, "the first session", func() string {
		if ports.Stats().Leases != 1 {
			return "no lease"
		}
		return ""
	})
	var got error
	sessions.Go(func() { _, got = tr.Start(t.Context(), hangsUp, &transport.Command{Line: line}) })
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	rig.Until(t, "the second session", func() string {
		if ports.Stats().LeaseWaits != 1 {
			return "does not wait for the lease"
		}
		return ""
	})
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	cancel()
	sessions.Wait()
	checkError(t, got, silent)
	nothingHere(t, tr)
}
