package output

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// page is a page in a browser, and all that it has complained of and asked for.
type page struct {
	context.Context
	testing.TB
	file string

	mu         sync.Mutex
	complaints []string
	requests   []string
}

// open opens the text as a page in headless Chromium.
func open(tb testing.TB, html string) *page {
	tb.Helper()
	p := &page{TB: tb, file: filepath.Join(tb.TempDir(), "run.html")}
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		tb.Skip("Chromium is not installed: apt-get install chromium")
	}
	if err := os.WriteFile(p.file, []byte(html), 0o644); err != nil {
		tb.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.WindowSize(1200, 900))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	tb.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	tb.Cleanup(cancel) // waits for the browser's end
	p.Context, cancel = chromedp.NewContext(ctx)
	tb.Cleanup(cancel)
	err := chromedp.Listen(p.Context, func(event any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			p.complaints = append(p.complaints, fmt.Sprintf("console.%s", e.Type))
		case *runtime.EventExceptionThrown:
			p.complaints = append(p.complaints, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			p.complaints = append(p.complaints, fmt.Sprintf("%s: %s", e.Entry.Level, e.Entry.Text))
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, "data:") {
				p.requests = append(p.requests, e.Request.URL)
			}
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := chromedp.Call(p.Context, network.Enable, network.EnableParams{}); err != nil {
		tb.Fatal(err)
	}
	if _, err := chromedp.Call(p.Context, log.Enable, cdp.Empty{}); err != nil {
		tb.Fatal(err)
	}
	p.do(chromedp.Navigate("file://"+p.file), ready)
	return p
}

// ready waits until the page has been drawn.
var ready = chromedp.WaitVisible(chromedp.CSS(`html[data-ready="true"]`))

func (p *page) do(steps ...step) {
	p.Helper()
	if err := chromedp.Do(p.Context, steps...); err != nil {
		p.Fatal(err)
	}
}

// is compares what an expression has for a value; it is waited for, since searching begins a moment after the last key.
func (p *page) is(expression, want string) {
	p.Helper()
	poll := chromedp.Poll[bool](fmt.Sprintf("String(%s) === %q", expression, want), chromedp.WithPollingTimeout(10*time.Second))
	if _, err := chromedp.Run(p.Context, poll); err != nil {
		p.Errorf("%s is %q, want %q (%v)", expression, value[string](p, "String("+expression+")"), want, err)
	}
}

// quiet says that the page has complained of nothing and asked for nothing but itself.
func (p *page) quiet() {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.complaints) > 0 {
		p.Errorf("the page complains: %s", strings.Join(p.complaints, "; "))
	}
	if len(p.requests) != 1 || p.requests[0] != "file://"+p.file {
		p.Errorf("the page asks for %v", p.requests)
	}
}

type step = chromedp.Action[chromedp.Void]

func click(selector string) step { return chromedp.Click(chromedp.CSS(selector)) }

// js runs a script whose value does not matter.
func js(script string) step { return chromedp.Evaluate[chromedp.Void](script) }

// value is what an expression has for a value.
func value[T any](p *page, expression string) T {
	p.Helper()
	v, err := chromedp.Run(p.Context, chromedp.Evaluate[T](expression))
	if err != nil {
		p.Fatal(err)
	}
	return v
}

const (
	shown   = `document.getElementById("shown").textContent`
	rows    = `document.querySelectorAll("#table tbody tr").length`
	cells   = `document.getElementById("host").textContent`
	outputs = `document.querySelectorAll("#groups details").length`
)

func TestReportPage(t *testing.T) {
	p := open(t, writeReport(t, fleetRecord(t, 300)))
	d := dataOf(t, writeReport(t, fleetRecord(t, 300)))
	p.is("document.title", "300 hosts: "+firstLine("uname -r; echo \"$HOME\" </dev/null & "+hostile))
	p.is(shown, "300 hosts")
	p.is(rows, "100")
	p.is(outputs, fmt.Sprint(len(d.Groups)))
	p.is(`document.querySelectorAll("#histogram rect").length > 3`, "true")
	p.is(`[...document.querySelectorAll("#legend button")].map((b) => b.textContent).join(", ")`, "ok 288, xexit 5, ttimeout 3, rrefused 4")

	// Filters: one, two, none.
	p.do(click(`button[data-outcome="exit"]`))
	p.is(shown, "5 of 300 hosts")
	p.is(rows, "5")
	p.is(outputs, "3")
	p.do(click(`button[data-outcome="refused"]`))
	p.is(shown, "9 of 300 hosts")
	p.is(`document.querySelector('button[data-outcome="refused"]').getAttribute("aria-pressed")`, "true")
	p.do(click(`button[data-outcome="refused"]`), click(`button[data-outcome="exit"]`))
	p.is(shown, "300 hosts")

	// Search: by name, rack, error, output, nothing; "/" goes there.
	for _, search := range [][2]string{
		{"NODE00123", "1 of 300 hosts"}, {"rack=r2", "40 of 300 hosts"}, {"10.0.0.97:22", "1 of 300 hosts"}, {"[31mred", "1 of 300 hosts"},
		{"<script>", "2 of 300 hosts"}, {"exit 2", "2 of 300 hosts"}, {"nothing at all", "0 of 300 hosts"},
	} {
		text, want := search[0], search[1]
		p.do(js(`document.getElementById("search").value = ""; document.activeElement.blur(); document.dispatchEvent(new KeyboardEvent("keydown", {key: "/"}))`), chromedp.KeyEvent(text))
		p.is(shown, want)
	}
	p.is(outputs, "0")
	p.is(`document.getElementById("histogram").textContent`, "None of these hosts has accepted the command.")
	p.do(js(`document.getElementById("search").value = ""; document.getElementById("search").dispatchEvent(new Event("input"))`))
	p.is(shown, "300 hosts")

	// The grid with keys: the next hosts, and Enter to the output.
	p.do(chromedp.Focus(chromedp.CSS("#grid")), chromedp.KeyEvent(kb.ArrowRight))
	p.is(cells+`.startsWith("node00000: refused: nobody listens on 10.0.0.0:22")`, "true")
	p.do(chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.Enter))
	p.is(cells+`.startsWith("node00001: ok; accepted after 6 ms, ran 378 ms")`, "true")
	p.is(`document.activeElement.parentElement.id + document.activeElement.parentElement.open`, fmt.Sprintf("group%dtrue", d.Group[1]))

	// With the pointer.
	p.do(js(`document.getElementById("grid").scrollIntoView({block: "center"})`))
	at := value[struct{ X, Y float64 }](p, `(() => { const b = document.getElementById("grid").getBoundingClientRect(); return {X: b.left + 2 * 18 + 5, Y: b.top + 5} })()`)
	p.do(chromedp.MouseClickXY(at.X, at.Y))
	p.is(cells+`.startsWith("node00002: ok")`, "true")

	// A difference, and the same output in full.
	differing := 0
	for i, g := range d.Groups {
		if g.Diff != "" && strings.Contains(g.Diff, "6.1.0-") {
			differing = i
			break
		}
	}
	group := fmt.Sprintf(`document.getElementById("group%d")`, differing)
	p.do(click(fmt.Sprintf("#group%d summary", differing)))
	p.is(group+`.querySelectorAll("pre .add").length`, "2") // with the line of the file's name
	p.do(click(fmt.Sprintf("#group%d .tools button:last-child", differing)))
	p.is(group+`.querySelector("pre").textContent === `+fmt.Sprintf("%q", d.Groups[differing].Text), "true")

	// The table: another order, more of it.
	p.do(click(`#table th:nth-child(5) button`), click(`#table th:nth-child(5) button`))
	p.is(`document.querySelector("#table tbody td.name").textContent`, "node00005")
	p.is(`document.querySelector("#table th:nth-child(5)").getAttribute("aria-sort")`, "descending")
	p.do(click("#more button"))
	p.is(rows, "200")
	p.quiet()
}

// Whatever hosts are called and print, it is text.
func TestReportPageHostile(t *testing.T) {
	p := open(t, writeReport(t, fleetRecord(t, 20)))
	title := "20 hosts: " + firstLine("uname -r; echo \"$HOME\" </dev/null & "+hostile)
	p.do(js(`document.querySelectorAll("details").forEach((d) => d.open = true)`))
	p.is(`document.querySelector("h1").textContent.includes('<script>document.title="owned"')`, "true")
	p.is(`[...document.querySelectorAll("td.name")].some((td) => td.textContent === `+fmt.Sprintf("%q", hostile)+")", "true")
	p.is(`[...document.querySelectorAll("pre")].some((pre) => pre.textContent.includes('<script>document.title="owned"'))`, "true")
	p.is(`document.querySelectorAll("img").length + " " + document.scripts.length`, "0 2")
	p.is("document.title", title)
	p.quiet()
}

// Should a script get in all the same, the page's policy does not let it run.
func TestReportPagePolicy(t *testing.T) {
	html := writeReport(t, fleetRecord(t, 3))
	p := open(t, strings.Replace(html, "<main>", `<script>document.title = "owned"</script><img src="http://127.0.0.1:9/x"><main onclick="document.title = 'owned'">`, 1))
	p.do(js(`document.querySelector("main").click()`))
	p.is("document.title", "3 hosts: "+firstLine("uname -r; echo \"$HOME\" </dev/null & "+hostile))
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.complaints) != 3 {
		t.Errorf("of a script, a picture and a handler the browser refused %d: %v", len(p.complaints), p.complaints)
	}
}

// Ten thousand hosts are drawn; how fast is for the benchmark.
func TestReportPageLarge(t *testing.T) {
	p := open(t, writeReport(t, fleetRecord(t, 10_000)))
	p.is(shown, "10,000 hosts")
	p.do(click(`button[data-outcome="refused"]`))
	p.is(shown, "104 of 10,000 hosts")
	p.quiet()
}

func TestReportPageEmpty(t *testing.T) {
	p := open(t, writeReport(t, record(t, Run{})))
	p.is(shown, "0 hosts")
	p.quiet()
}

// TestReportScreenshots writes pictures for people to look at: REPORT_SCREENSHOTS=DIR go test -run Screenshots.
func TestReportScreenshots(t *testing.T) {
	dir := os.Getenv("REPORT_SCREENSHOTS")
	if dir == "" {
		t.Skip("REPORT_SCREENSHOTS does not name a folder for the pictures")
	}
	for _, hosts := range []int{300, 10_000} {
		p := open(t, writeReport(t, fleetRecord(t, hosts)))
		for _, look := range []struct {
			name, media, scheme string
			width               int64
		}{{"light", "", "light", 1200}, {"dark", "", "dark", 1200}, {"narrow", "", "light", 390}, {"print", "print", "dark", 800}} {
			_, err := chromedp.Call(p.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: look.media, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}}})
			if err != nil {
				t.Fatal(err)
			}
			p.do(chromedp.EmulateViewport(look.width, 900))
			picture, err := chromedp.Run(p.Context, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%s.png", hosts, look.name)), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// BenchmarkReportPage opens a page of 10,000 hosts; the browser runs already.
func BenchmarkReportPage(b *testing.B) {
	p := open(b, writeReport(b, fleetRecord(b, 10_000)))
	for b.Loop() {
		p.do(chromedp.Navigate("file://"+p.file), ready)
	}
}
