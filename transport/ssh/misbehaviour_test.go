package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"multirsh/transport"
	"multirsh/transport/rig"
	"multirsh/transport/ssh/auth"
	"multirsh/transport/ssh/sshtest"
)

// result is all that a session comes to.
type result struct {
	stdout, stderr string
	status         transport.Status
	err            error
}

// run runs a line to its end.
func run(t testing.TB, tr *Transport, host transport.Host, line string) (got result) {
	t.Helper()
	return runContext(t.Context(), tr, host, line)
}

func runContext(ctx context.Context, tr *Transport, host transport.Host, line string) (got result) {
	var stdout, stderr bytes.Buffer
	s, err := tr.Start(ctx, host, &transport.Command{Line: line, Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return result{err: err}
	}
	got.status, got.err = s.Wait(ctx)
	got.stdout, got.stderr = stdout.String(), stderr.String()
	return got
}

// outcome is what a misbehaving server should come to.
type outcome struct {
	started        bool // Start succeeds
	stdout, stderr string
	any            bool // stdout may be any part of it
	status         transport.Status
	phase          transport.Phase // of the error; empty: none
	kind           error           // that the error is
	text           string          // that is in it
}

const line = "echo out; echo err >&2; exit 3"

var (
	ended  = transport.Status{Started: true, Ended: true, Known: true, Code: 3}
	good   = outcome{started: true, stdout: "out\n", stderr: "err\n", status: ended}
	broken = outcome{started: true, stdout: "out\n", stderr: "err\n", any: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kind: transport.ErrLost, text: "connection lost"}
)

func late(phase transport.Phase) outcome {
	return outcome{phase: phase, kind: context.DeadlineExceeded, text: "--connect-timeout"}
}

func in(phase transport.Phase, kind error, text string) outcome {
	return outcome{phase: phase, kind: kind, text: text}
}

// misbehaviours is every behaviour of sshtest, in the phases in which it differs, and what comes of it.
var misbehaviours = map[string]outcome{
	"ok":               good,
	"refuse":           in(transport.PhaseConnect, syscall.ECONNREFUSED, "nobody listens on"),
	"maxstartups=1":    in(transport.PhaseVersion, syscall.EHOSTUNREACH, "tried 4 times"),
	"stall=accept":     late(transport.PhaseVersion),
	"stall=version":    late(transport.PhaseKeyExchange),
	"stall=kex":        late(transport.PhaseKeyExchange),
	"stall=auth":       late(transport.PhaseAuth),
	"stall=open":       late(transport.PhaseStart),
	"stall=exec":       late(transport.PhaseStart),
	"stall=output":     {started: true, stdout: "ou", stderr: "err\n", any: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kind: errPatience},
	"stall=status":     {started: true, stdout: "out\n", stderr: "err\n", any: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kind: errPatience},
	"stall=end":        good,
	"reset=accept":     in(transport.PhaseVersion, syscall.EHOSTUNREACH, "tried 4 times"),
	"reset=version":    in(transport.PhaseKeyExchange, transport.ErrProtocol, "closed the connection"),
	"reset=kex":        in(transport.PhaseKeyExchange, transport.ErrProtocol, "closed the connection"),
	"reset=auth":       in(transport.PhaseAuth, transport.ErrAuth, "in the middle of authentication"),
	"reset=open":       in(transport.PhaseStart, nil, "broke the connection off"),
	"reset=exec":       in(transport.PhaseStart, nil, "broke the connection off"),
	"reset=output":     broken,
	"reset=status":     broken,
	"reset=end":        good,
	"close=accept":     in(transport.PhaseVersion, syscall.EHOSTUNREACH, "MaxStartups"),
	"close=version":    in(transport.PhaseKeyExchange, transport.ErrProtocol, "closed the connection"),
	"close=kex":        in(transport.PhaseKeyExchange, transport.ErrProtocol, "closed the connection"),
	"close=auth":       in(transport.PhaseAuth, transport.ErrAuth, "in the middle of authentication"),
	"close=open":       in(transport.PhaseStart, nil, "broke the connection off"),
	"close=exec":       in(transport.PhaseStart, nil, "broke the connection off"),
	"close=output":     broken,
	"close=status":     broken,
	"close=end":        good,
	"garbage=accept":   in(transport.PhaseVersion, transport.ErrProtocol, "where an SSH version line belongs"),
	"garbage=version":  in(transport.PhaseKeyExchange, transport.ErrProtocol, "packet"),
	"garbage=kex":      in(transport.PhaseKeyExchange, transport.ErrProtocol, "packet"),
	"garbage=auth":     in(transport.PhaseAuth, transport.ErrAuth, "packet"),
	"garbage=open":     in(transport.PhaseStart, nil, "broke the connection off"),
	"garbage=exec":     in(transport.PhaseStart, nil, "broke the connection off"),
	"garbage=output":   broken,
	"garbage=status":   broken,
	"garbage=end":      good,
	"hang=auth":        late(transport.PhaseAuth),
	"hang=open":        late(transport.PhaseStart),
	"hang=exec":        late(transport.PhaseStart),
	"hang=status":      {started: true, stdout: "out\n", stderr: "err\n", any: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kind: errPatience},
	"banner":           in(transport.PhaseVersion, syscall.EHOSTUNREACH, "MaxStartups"),
	"banner=sorry":     in(transport.PhaseVersion, transport.ErrProtocol, `the server says "sorry"`),
	"http":             in(transport.PhaseVersion, transport.ErrProtocol, "HTTP/1.1 400"),
	"preface":          good,
	"version":          good, // the library takes any; a real server of version 1 does not go on
	"nocommon=kex":     in(transport.PhaseKeyExchange, transport.ErrProtocol, "the server offers sntrup4591761x25519-sha512@tinyssh.org, we offer mlkem768x25519-sha256,"),
	"nocommon=hostkey": in(transport.PhaseKeyExchange, transport.ErrProtocol, "no host key in common"),
	"nocommon=cipher":  in(transport.PhaseKeyExchange, transport.ErrProtocol, "no client to server cipher in common"),
	"nocommon=mac":     in(transport.PhaseKeyExchange, transport.ErrProtocol, "--legacy adds what old servers need"),
	"slow=1ms":         good,
	"hostkey=other":    in(transport.PhaseKeyExchange, transport.ErrHostKey, "has changed"),
	"hostkey=forged":   in(transport.PhaseKeyExchange, transport.ErrHostKey, "does not prove"),
	"denied":           in(transport.PhaseAuth, transport.ErrAuth, "it refused 1 key"),
	"maxauthtries":     good, // the one key is the right one
	"noopen":           in(transport.PhaseStart, transport.ErrProtocol, "opens no session"),
	"noopen=connect":   in(transport.PhaseStart, transport.ErrProtocol, "opens no session"),
	"noopen=type":      in(transport.PhaseStart, transport.ErrProtocol, "opens no session"),
	"noopen=shortage":  in(transport.PhaseStart, transport.ErrProtocol, "opens no session"),
	"noexec":           in(transport.PhaseStart, transport.ErrProtocol, "runs no command"),
	"noforward":        good,
	"status=none":      {started: true, stdout: "out\n", stderr: "err\n", status: transport.Status{Started: true}, phase: transport.PhaseRun, kind: transport.ErrLost, text: "the server closed the channel"},
	"status=twice":     good,
	"status=early":     good,
	"signal=SEGV":      {started: true, stdout: "out\n", stderr: "err\n", status: transport.Status{Started: true, Ended: true, Known: true, Signal: "SEGV"}},
	"background":       {started: true, stdout: "out\n", stderr: "err\n", status: transport.Status{Started: true, Known: true, Code: 3, Background: true}},
	"lull":             good,
	"lull=50ms":        good,
	"lull=1000s":       {started: true, status: transport.Status{Started: true, Known: true, Code: 3}, phase: transport.PhaseRun, kind: transport.ErrLost, text: "has not answered for 5s after the command's end (exit status 3), so that some of its output may be missing"},
	"noinput":          good,
	"drip":             good,
	"huge=1M":          {started: true, stdout: strings.Repeat(strings.Repeat("x", 63)+"\n", 1<<14) + "out\n", stderr: "err\n", status: ended},
	"flood":            {started: true, any: true, status: transport.Status{Started: true}, phase: transport.PhaseRun, kind: errPatience},
	"earlydata":        good,
	"nosignal":         good,
	"nokeepalive":      good,
	"rekey":            good,
	"neverclose":       good,
}

// errPatience ends sessions that would last as long as we let them.
var errPatience = errors.New("the test has seen enough")

func TestMisbehaviour(t *testing.T) {
	covered := make(map[string]bool)
	for behaviour := range misbehaviours {
		name, _, _ := strings.Cut(behaviour, "=")
		covered[name] = true
	}
	for _, doc := range sshtest.Behaviours() {
		name, _, _ := strings.Cut(doc.Name, "=")
		if name = strings.TrimSuffix(name, "["); !covered[name] {
			t.Errorf("nothing is said of what %q should come to", name)
		}
	}
	for behaviour, want := range misbehaviours {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			misbehave(t, behaviour, want)
		})
	}
}

func misbehave(t *testing.T, behaviour string, want outcome) {
	b, err := sshtest.ParseBehaviour(behaviour)
	if err != nil {
		t.Fatal(err)
	}
	h := newHome(t)
	server := &sshtest.Server{Behaviour: b, Record: true}
	addr, host := h.serve(server)
	tr := h.transport()
	if want.kind == context.DeadlineExceeded {
		tr.ConnectTimeout = 2 * time.Second // what stalls would stall for as long as we let it
	}
	got := result{}
	var stdout, stderr record
	s, err := tr.Start(t.Context(), host, &transport.Command{Line: line, Stdout: &stdout, Stderr: &stderr})
	if want.started != (err == nil) {
		t.Fatalf("Start: %v", err)
	}
	if got.err = err; err == nil {
		ctx, enough := context.WithCancelCause(t.Context())
		defer enough(nil)
		if want.kind == errPatience {
			stdout.until = func() { enough(errPatience) }
			stdout.want = max(1, len(want.stdout))
		}
		got.status, got.err = s.Wait(ctx)
	}
	got.stdout, got.stderr = stdout.String(), stderr.String()
	if complete := got.stdout == want.stdout && got.stderr == want.stderr; !complete && !want.any {
		t.Errorf("stdout %.300q, stderr %.300q; want %.300q, %.300q", got.stdout, got.stderr, want.stdout, want.stderr)
	}
	if got.status != want.status {
		t.Errorf("status %+v, want %+v", got.status, want.status)
	}
	op := (*transport.OpError)(nil)
	switch {
	case want.phase == "":
		if got.err != nil {
			t.Errorf("error %v", got.err)
		}
	case !errors.As(got.err, &op) || op.Phase != want.phase || op.Host != host.Name:
		t.Errorf("error %v, want phase %q and host %q", got.err, want.phase, host.Name)
	case want.kind != nil && !errors.Is(got.err, want.kind):
		t.Errorf("error %v, which is not %v", got.err, want.kind)
	case !strings.Contains(got.err.Error(), want.text):
		t.Errorf("error %v, want %q in it", got.err, want.text)
	}
	nothingLeft(t, tr, addr)
}

// record is a writer that may say when it has enough, and throws away what goes beyond 16 MiB.
type record struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	want  int
	until func()
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.buf.Len() < 16<<20 {
		r.buf.Write(p)
	}
	if r.until != nil && r.buf.Len() >= r.want {
		r.until()
		r.until = nil
	}
	return len(p), nil
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// nothingLeft checks that no socket of ours towards the server is left, in whatever state, once the transport is shut down.
func nothingLeft(t testing.TB, tr *Transport, server netip.AddrPort) {
	t.Helper()
	tr.Shutdown(context.Background())
	// A process that a server starts in this one has copies of our sockets from fork(2) to execve(2): until then a closed one is not.
	rig.Until(t, "left behind", func() string { return sockets(t, server) })
}

// sockets lists our sockets towards a server, but for those in LAST_ACK, whose far end has closed first.
func sockets(t testing.TB, server netip.AddrPort) string {
	t.Helper()
	table, err := rig.Sockets()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the sockets are counted in /proc, which only Linux has")
	}
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, s := range table {
		if s.Remote == server && s.State != "LAST_ACK" {
			left = append(left, fmt.Sprintf("%v in state %s", s.Local, s.State))
		}
	}
	return strings.Join(left, ", ")
}

// A host that another one holds up says which, beside that its time is over.
func TestWaitsForPassword(t *testing.T) {
	h := newHome(t)
	users := map[string]sshtest.User{"": {Password: "secret"}}
	_, first := h.serve(&sshtest.Server{Users: users})
	_, second := h.serve(&sshtest.Server{Users: users})
	first.Name, second.Name = "first", "second"
	tr := h.transport()
	asked, answer := make(chan struct{}), make(chan struct{})
	tr.Wallet = auth.New(auth.Options{Password: func() (string, error) {
		close(asked)
		<-answer
		return "secret", nil
	}})
	tr.ConnectTimeout = 2 * time.Second
	var all sync.WaitGroup
	all.Go(func() { run(t, tr, first, line) })
	<-asked
	got := run(t, tr, second, line)
	close(answer)
	all.Wait()
	for _, text := range []string{"--connect-timeout", "had not yet answered to the password"} {
		if !errors.Is(got.err, context.DeadlineExceeded) || !strings.Contains(got.err.Error(), text) || errors.Is(got.err, transport.ErrAuth) {
			t.Errorf("%v, want a timeout and %q", got.err, text)
		}
	}
	tr.Wallet.Close()
}

// Who gives up while a dropped connection waits for another try is told so, and not that the server drops connections.
func TestCancelledRetry(t *testing.T) {
	h := newHome(t)
	server := &sshtest.Server{Behaviour: sshtest.MustParseBehaviour("maxstartups=1")}
	_, host := h.serve(server)
	tr := h.transport()
	tr.Retries = 1000
	tr.ConnectTimeout = time.Hour
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		server.Until(ctx, func(a sshtest.Account) bool { return a.Connections > 1 })
		cancel(enough)
	}()
	if got := runContext(ctx, tr, host, line); !errors.Is(got.err, enough) {
		t.Errorf("%v", got.err)
	}
}
