package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
)

// maxStatementBytes bounds one statement that is read from a file or a pipe. The servers' limit is lower.
const maxStatementBytes = 16 << 20

func (a *app) sqlCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sql [FILE]",
		Short: "Run SQL statements, or type them at a prompt",
		Long: `Sql runs the statements given with -c, else those in FILE, else those on stdin; on a terminal it prompts for them.
It stops at the first error. What SET sets, and that answers never go back in time, holds for the whole run, also when a
node fails and another takes over.`,
		Example: `  millrace sql
  millrace sql -c "SELECT count(*) FROM bids"
  millrace sql --format json -c "SUBSCRIBE TO hot"
  millrace sql --addr 127.0.0.1:7070,127.0.0.1:7170 views.sql`,
		Args: cobra.MaximumNArgs(1),
	}
	addr := addrFlag(c)
	format := c.Flags().String("format", "table", "table, json or csv")
	commands := c.Flags().StringArrayP("command", "c", nil, "statements to run, separated by semicolons; may be repeated")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(*commands) > 0 && len(args) > 0 {
			return usagef("give statements with -c or in a file, not both")
		}
		out, err := newResultWriter(*format, a.stdout)
		if err != nil {
			return err
		}
		var script io.Reader = a.stdin
		name := "stdin"
		if len(args) == 1 && args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return usagef("%v", err)
			}
			defer f.Close()
			script, name = f, args[0]
		}
		cl, err := connect(c.Context(), *addr)
		if err != nil {
			return err
		}
		defer cl.Close()
		s := &shell{c: cl, session: cl.Session(), out: out, follow: true}
		switch {
		case len(*commands) > 0:
			for _, text := range *commands {
				if err := s.runAll(c.Context(), client.SplitAll(text), 0); err != nil {
					return err
				}
			}
			return s.runHeld(c.Context())
		case len(args) == 0 && isTerminal(a.stdin):
			return a.prompt(c.Context(), s)
		}
		return s.runScript(c.Context(), script, name)
	}
	return c
}

// shell runs statements in one session.
type shell struct {
	c       *client.Client
	session *client.Session
	out     resultWriter
	follow  bool               // an interrupted SUBSCRIBE is a regular end
	held    []client.Statement // from BEGIN on: a transaction is sent as a whole
}

// runAll runs statements until one fails. line is the number of the line before the text that they are from.
func (s *shell) runAll(ctx context.Context, statements []client.Statement, line int) error {
	for _, st := range statements {
		st.Line += line
		if err := s.run(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

// runScript runs statements as they arrive.
func (s *shell) runScript(ctx context.Context, script io.Reader, name string) error {
	in := bufio.NewReader(script)
	var text []byte // what isn't run yet
	first := 0      // lines before it
	for {
		part, err := in.ReadSlice('\n')
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("%s: %w", name, err)
		}
		text = append(text, part...)
		if ended {
			if err := s.runAll(ctx, client.SplitAll(string(text)), first); err != nil {
				return err
			}
			return s.runHeld(ctx)
		}
		if len(text) > maxStatementBytes {
			return fmt.Errorf("%s: the statement that begins at line %d is over %d bytes; is a semicolon or a quote missing?", name, first+1, maxStatementBytes)
		}
		if bytes.IndexByte(part, ';') < 0 {
			continue
		}
		statements, rest := client.Split(string(text))
		if err := s.runAll(ctx, statements, first); err != nil {
			return err
		}
		// What is left stays in its line and column.
		done := text[:len(text)-len(rest)]
		first += bytes.Count(done, []byte("\n"))
		column := utf8.RuneCount(done[bytes.LastIndexByte(done, '\n')+1:])
		text = append(append(text[:0:0], bytes.Repeat([]byte(" "), column)...), rest...)
	}
}

// run runs one statement and writes its result. Those of a transaction wait for its end.
func (s *shell) run(ctx context.Context, st client.Statement) error {
	begins, ends := transactionBounds(st.Text)
	if begins || len(s.held) > 0 {
		if s.held = append(s.held, st); ends {
			return s.runHeld(ctx)
		}
		return nil
	}
	if view, after, ok := parseSubscribe(st.Text); ok {
		return s.subscribe(ctx, view, after)
	}
	return s.query(ctx, atPosition(st))
}

// runHeld runs the transaction that waits for its end, if there is one.
func (s *shell) runHeld(ctx context.Context) error {
	if len(s.held) == 0 {
		return nil
	}
	text := inPositions(s.held)
	s.held = nil
	return s.query(ctx, text)
}

// query runs a text and writes the results of its statements.
func (s *shell) query(ctx context.Context, text string) error {
	rows, err := s.session.Query(ctx, text)
	if err != nil {
		return err
	}
	defer rows.Close()
	for {
		if err := s.write(rows); err != nil {
			return errors.Join(err, s.out.flush())
		}
		if !rows.NextStatement() {
			return rows.Err()
		}
	}
}

// transactionBounds tells whether a statement begins a transaction, and whether it ends one.
func transactionBounds(text string) (begins, ends bool) {
	words := client.Tokens(strings.ToUpper(text))
	switch words[0] {
	case "BEGIN", "START":
		return true, false
	case "COMMIT", "END", "ABORT", "ROLLBACK":
		chain := slices.Contains(words, "CHAIN") && !slices.Contains(words, "NO")
		return false, !chain && !slices.Contains(words, "TO")
	}
	return false, false
}

func (s *shell) write(rows *client.Rows) error {
	columns := rows.Columns()
	if columns != nil {
		if err := s.out.begin(columns); err != nil {
			return err
		}
	}
	for rows.Next() {
		if err := s.out.row(rows.Values()); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if columns != nil {
		return s.out.end()
	}
	return s.out.done(rows.Tag())
}

// maxPadding bounds what atPosition adds to a statement.
const maxPadding = 64 << 10

// atPosition puts the statement at the place in a text that it has in the script, so that the line and column of the
// server's messages are those of the script.
func atPosition(st client.Statement) string {
	if st.Line+st.Column > maxPadding {
		return st.Text
	}
	return strings.Repeat("\n", st.Line-1) + strings.Repeat(" ", st.Column-1) + st.Text
}

// inPositions puts statements one behind the other, each at its place in the script where there is room.
func inPositions(statements []client.Statement) string {
	var b strings.Builder
	b.WriteString(atPosition(statements[0]))
	line := statements[0].Line + strings.Count(statements[0].Text, "\n")
	for _, st := range statements[1:] {
		b.WriteString(";\n")
		line++
		if st.Line >= line && st.Line+st.Column <= maxPadding {
			b.WriteString(strings.Repeat("\n", st.Line-line) + strings.Repeat(" ", st.Column-1))
			line = st.Line
		}
		b.WriteString(st.Text)
		line += strings.Count(st.Text, "\n")
	}
	return b.String()
}

// parseSubscribe recognises SUBSCRIBE TO view [AFTER TICK n]. Anything else that begins with SUBSCRIBE is left to the
// server, which says what is wrong with it.
func parseSubscribe(text string) (view string, after uint64, ok bool) {
	tokens := client.Tokens(text)
	if len(tokens) < 3 || !strings.EqualFold(tokens[0], "subscribe") || !strings.EqualFold(tokens[1], "to") {
		return "", 0, false
	}
	view, ok = identifier(tokens[2])
	switch {
	case !ok:
		return "", 0, false
	case len(tokens) == 3:
		return view, 0, true
	case len(tokens) == 6 && strings.EqualFold(tokens[3], "after") && strings.EqualFold(tokens[4], "tick"):
		n, err := strconv.ParseUint(tokens[5], 10, 64)
		return view, n, err == nil
	}
	return "", 0, false
}

// identifier is a name as PostgreSQL reads it: folded to lower case unless it is quoted.
func identifier(token string) (string, bool) {
	if strings.HasPrefix(token, `"`) {
		if len(token) < 3 || !strings.HasSuffix(token, `"`) {
			return "", false
		}
		return strings.ReplaceAll(token[1:len(token)-1], `""`, `"`), true
	}
	for i := range len(token) {
		c := token[i]
		if c != '_' && c != '$' && c < 0x80 && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return "", false
		}
	}
	if token == "" || token[0] >= '0' && token[0] <= '9' {
		return "", false
	}
	return strings.ToLower(token), true
}

// subscribe writes a view's changes, each tick's lines together, until ctx ends.
func (s *shell) subscribe(ctx context.Context, view string, after uint64) error {
	begun := false
	for change, err := range s.c.Subscribe(ctx, view, client.AfterTick(after)) {
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, fault.Of(fault.Canceled)) && s.follow {
				return nil
			}
			return err
		}
		if !begun {
			begun = true
			if err := s.out.beginChanges(change.Columns); err != nil {
				return err
			}
		}
		if err := s.writeChange(change); err != nil {
			return err
		}
	}
	return nil
}

func (s *shell) writeChange(change *client.Change) error {
	for _, r := range change.Rows {
		if err := s.out.change(change.Tick, r.Weight, r.Values); err != nil {
			return err
		}
	}
	if len(change.Rows) == 0 {
		if err := s.out.progress(change.Tick); err != nil {
			return err
		}
	}
	return s.out.flush()
}
