package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/chzyer/readline"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
)

const (
	promptFirst = "millrace=> "
	promptMore  = "millrace-> "
	promptHeld  = "millrace*> "       // in a transaction
	historyFile = ".millrace_history" // in the home folder
	historySize = 2000
)

const promptHelp = `A statement ends with a semicolon and may take several lines. Ctrl-C stops the one that runs, Ctrl-D leaves.
  \d          streams and views        \d NAME      columns of a stream or view
  \n          nodes                    \f FORMAT    table, json or csv
  \?          this                     \q           leave
`

// lineEditor is what the prompt needs of a terminal.
type lineEditor interface {
	SetPrompt(string)
	Readline() (string, error)
	SaveHistory(string) error
}

// prompt reads statements from the terminal until it is left.
func (a *app) prompt(ctx context.Context, s *shell) error {
	history := ""
	if home, err := os.UserHomeDir(); err == nil {
		history = filepath.Join(home, historyFile)
	}
	in, err := readline.NewEx(&readline.Config{
		Prompt: promptFirst, HistoryFile: history, HistoryLimit: historySize, DisableAutoSaveHistory: true,
		InterruptPrompt: "^C", Stdout: a.stdout, Stderr: a.stderr,
	})
	if err != nil {
		return err
	}
	defer in.Close()
	fmt.Fprintf(a.stderr, "Millrace %s. Type \\? for help.\n", version())
	return a.converse(ctx, s, in)
}

func (a *app) converse(ctx context.Context, s *shell, in lineEditor) error {
	text := ""
	for ctx.Err() == nil {
		switch {
		case text != "":
			in.SetPrompt(promptMore)
		case len(s.held) > 0:
			in.SetPrompt(promptHeld)
		default:
			in.SetPrompt(promptFirst)
		}
		line, err := in.Readline()
		switch {
		case errors.Is(err, readline.ErrInterrupt):
			text, s.held = "", nil
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if text == "" && strings.HasPrefix(strings.TrimSpace(line), `\`) {
			in.SaveHistory(line)
			if leave := a.metaCommand(ctx, s, strings.Fields(line)); leave {
				return nil
			}
			continue
		}
		text += line + "\n"
		statements, rest := client.Split(text)
		if len(statements) > 0 {
			in.SaveHistory(strings.Join(strings.Fields(strings.TrimSuffix(text, rest)), " "))
			waited := len(s.held) > 0
			a.runStatements(ctx, s, statements)
			if len(s.held) > 0 && !waited {
				fmt.Fprintln(a.stderr, "A transaction is sent as a whole: nothing is done before its COMMIT. Ctrl-C drops it.")
			}
			text = rest
		}
		if strings.TrimSpace(text) == "" {
			text = ""
		}
	}
	return nil
}

// runStatements runs what was typed; an error is shown and ends only this. Ctrl-C cancels it.
func (a *app) runStatements(ctx context.Context, s *shell, statements []client.Statement) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer a.onInterrupt(cancel)()
	if err := s.runAll(ctx, statements, 0); err != nil {
		if ctx.Err() != nil && errors.Is(err, fault.Of(fault.Canceled)) {
			fmt.Fprintln(a.stderr, "millrace: canceled")
			return
		}
		fmt.Fprintf(a.stderr, "millrace: %s\n", oneLine(err.Error()))
	}
}

// metaCommand runs a command that begins with a backslash.
func (a *app) metaCommand(ctx context.Context, s *shell, words []string) (leave bool) {
	name, arg := words[0], ""
	if len(words) > 1 {
		arg = strings.TrimSuffix(words[1], ";")
	}
	run := func(text string) {
		outside := *s // of a transaction
		outside.held = nil
		a.runStatements(ctx, &outside, client.SplitAll(text))
	}
	switch {
	case name == `\q`:
		return true
	case name == `\?`:
		fmt.Fprint(a.stderr, promptHelp)
	case name == `\d` && arg == "":
		run("SHOW STREAMS; SHOW VIEWS")
	case name == `\d`:
		run("DESCRIBE " + arg)
	case name == `\n`:
		run("SHOW NODES")
	case name == `\f` && arg != "":
		out, err := newResultWriter(arg, a.stdout)
		if err != nil {
			fmt.Fprintf(a.stderr, "millrace: unknown format %q; use table, json or csv\n", arg)
			return false
		}
		s.out = out
	default:
		fmt.Fprintf(a.stderr, "millrace: unknown command %s; type \\? for help\n", name)
	}
	return false
}
