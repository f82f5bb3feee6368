package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"multirsh/runner"
	"multirsh/runner/output"
)

// canPause finds out, before anything else is done, whether there will be somebody to ask between the stages.
func (e *env) canPause(c *config) error {
	if !c.rampPause || len(c.ramp) == 0 {
		return nil
	}
	tty, err := e.Terminal()
	if err != nil {
		return usagef("%s: %v between the stages; leave it out, and let --max-fail decide whether the next stage begins", c.rampPauseAs, errNoTerminal)
	}
	return tty.Close()
}

// pausing is how a stage ends with a question on the terminal, wherever the streams go.
type pausing struct {
	*env
	*console
	view *view
}

var errAnswerNo = errors.New("the answer was no")

// between shows how the stage went, beside the one before it, and asks whether to go on: runner.Runner.Between.
func (p *pausing) between(ctx context.Context, report runner.StageReport) error {
	if p.screen != nil {
		p.screen.Pause()
		defer p.screen.Resume()
	}
	question := fmt.Sprintf("Go on with the next %s? (yes, no, show) ", number(report.Next, "host"))
	p.question.Store(&question)
	defer p.question.Store(nil)
	compared, err := p.compared()
	if err != nil {
		return err
	}
	for text := compared + question; ; {
		answer, err := p.ask(ctx, text, visible)
		text = question
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "yes":
			return nil
		case "no":
			return errAnswerNo
		case "show":
			if err := p.showStage(ctx); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return errAnswerNo
		}
		if err != nil {
			return err
		}
	}
}

// compared is the stage and the one before, as they fit on the terminal.
func (p *pausing) compared() (string, error) {
	width, rows := 0, 0
	if tty, err := p.Terminal(); err == nil {
		width, rows, _ = term.GetSize(int(tty.Fd()))
		tty.Close()
	}
	var text bytes.Buffer
	color := output.Colors(p.view.color, true, p.Getenv)
	err := p.stages.Compare(output.Stream{W: &text, Width: width, Escape: true, Color: color}, max(0, rows-2)) // the question, and what is typed
	return text.String(), err
}

// showStage shows all that the hosts of the stage have written.
func (p *pausing) showStage(ctx context.Context) error {
	tty, err := p.Terminal()
	if err != nil {
		return errNoTerminal
	}
	width, _, _ := term.GetSize(int(tty.Fd()))
	color := output.Colors(p.view.color, true, p.Getenv)
	return unlessStopped(ctx, func() error {
		defer tty.Close()
		return p.stages.Show(output.Stream{W: tty, Width: width, Escape: !p.view.raw, Color: color})
	})
}

// askAgain puts the question that is being asked behind what has been written below it.
func (s *console) askAgain(terminal func() (*os.File, error)) {
	question := s.question.Load()
	if question == nil {
		return
	}
	if tty, err := terminal(); err == nil {
		io.WriteString(tty, *question)
		tty.Close()
	}
}

// tellPolicy says which policy has ended the run and, with stages, which hosts of the last one have failed.
func (s *console) tellPolicy(err error, summary runner.Summary) {
	policy := (*runner.PolicyError)(nil)
	if s.quiet || !errors.As(err, &policy) {
		return
	}
	if summary.Outcomes[runner.Skipped]+summary.Outcomes[runner.Cancelled]+summary.Outcomes[runner.Timeout] == 0 {
		return // it came with the last host's end
	}
	text := policy.Text
	if s.stages != nil {
		if stage, failed := s.stages.Failed(); failed != "" {
			text += fmt.Sprintf("; failed in stage %d: %s", stage, failed)
		}
	}
	fmt.Fprintf(s.stderr.W, "multi-rsh: %s\n", text)
}
