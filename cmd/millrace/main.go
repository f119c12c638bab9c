// Package main is the millrace command: the node (serve) and the command-line client. Results go to stdout, messages to
// stderr, each error in one line. It exits with 0 when done, 1 when the cluster said no, 2 on wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

const (
	exitDone    = 0
	exitRefused = 1 // the cluster said no
	exitUsage   = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app is what the commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	mu        sync.Mutex
	interrupt func() // takes the next SIGINT instead of the whole program; nil: none does
}

// run runs one command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	ctx, stop := a.signals(context.Background())
	defer stop()
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "millrace: %s\n", oneLine(err.Error()))
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitRefused
}

// rootCommand builds the tree of commands. A new one is added here.
func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "millrace",
		Short: "Millrace is a distributed stream database: durable streams, and SQL views that are always up to date",
		Long: `Millrace is a distributed stream database: durable streams of records, and SQL views over them that are always up to
date and consistent. One binary is the node (serve) and the client (everything else).`,
		Example: `  millrace serve --data ./data
  millrace sql -c "CREATE STREAM bids (item TEXT, price BIGINT) WITH (format = 'json', key = 'item')"
  millrace send bids bids.jsonl
  millrace sql -c "SELECT item, max(price) FROM bids GROUP BY item"`,
	}
	root.AddCommand(
		a.serveCommand(), a.sqlCommand(), a.sendCommand(), a.readCommand(), a.clusterCommand(),
		newDemoCommand(), a.versionCommand(),
	)
	root.CompletionOptions.HiddenDefaultCmd = true
	a.prepare(root)
	return root
}

// prepare gives a command and those below it the manners that all share.
func (a *app) prepare(c *cobra.Command) {
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SuggestionsMinimumDistance = 2
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%s; see %s --help", firstLine(err), c.CommandPath())
	})
	if c.HasSubCommands() && c.RunE == nil {
		c.Args = cobra.ArbitraryArgs // so that an unknown command comes here
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownCommand(c, args[0])
		}
	} else if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usagef("%s: %s; see %s --help", c.CommandPath(), firstLine(err), c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		a.prepare(sub)
	}
}

func unknownCommand(c *cobra.Command, name string) error {
	hint := "see " + c.CommandPath() + " --help"
	if near := c.SuggestionsFor(name); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %q?", near[0])
	}
	return usagef("unknown command %q for %q; %s", name, c.CommandPath(), hint)
}

// usageError is an error of whoever typed the command.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// oneLine puts a message of several lines in one.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}

// signals returns a context that ends with SIGINT or SIGTERM. A second one kills, as it would without this.
func (a *app) signals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case sig := <-ch:
				if sig == os.Interrupt && a.interrupted() {
					continue
				}
				signal.Stop(ch)
				cancel()
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		cancel()
		<-done
	}
}

func (a *app) interrupted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.interrupt == nil {
		return false
	}
	a.interrupt()
	return true
}

// onInterrupt has f called for SIGINT until restore is.
func (a *app) onInterrupt(f func()) (restore func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.interrupt
	a.interrupt = f
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.interrupt = before
	}
}

// isTerminal tells whether a stream of the process is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// nearest returns the flag whose name is closest to name, or "".
func nearest(name string, flags *pflag.FlagSet) string {
	best, distance := "", 3
	flags.VisitAll(func(f *pflag.Flag) {
		if d := editDistance(name, f.Name); d < distance && !f.Hidden {
			best, distance = f.Name, d
		}
	})
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
