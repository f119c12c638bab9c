package test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// TestScenarios runs the files in testdata/scenarios, one for each feature of the language, each on a node of its own with
// one partition, so that what is late and when windows end is the same each time:
//
//	sql [step=NAME]             statements; prints the rows of the last one, its tag, or its SQLSTATE and error
//	send STREAM [step=NAME]     records, a line each
//	follow VIEW ...             prints the view's rows and, after each later command, what that changed in it
//	counts VIEW ...             prints what SHOW VIEWS counts of the rows so far: late ones, and errors
//
// A step is named for its tick: @NAME in a later statement is that tick. "go test -run TestScenarios -rewrite" writes
// what comes.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := newScenario(t)
			datadriven.RunTest(t, file, s.run)
		})
	}
}

// scenario runs one file.
type scenario struct {
	t        *testing.T
	ctx      context.Context
	c        *client.Client
	session  *client.Session
	tick     uint64 // of the last command
	steps    map[string]uint64
	followed []*followedView
}

// followedView is a view whose changes are shown, and the tick up to which they were.
type followedView struct {
	name    string
	through uint64
	ended   bool
}

func newScenario(t *testing.T) *scenario {
	ctx, cancel := context.WithTimeout(context.Background(), 3*stepTimeout)
	t.Cleanup(cancel)
	node := serve(t, "n1", "--partitions", "1")
	c, err := client.Dial(ctx, []string{node.grpc})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &scenario{t: t, ctx: ctx, c: c, session: c.Session(), steps: map[string]uint64{}}
}

func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	var out string
	switch d.Cmd {
	case "sql":
		out = s.sql(d.Input)
	case "send":
		out = s.send(d.CmdArgs[0].Key, strings.Split(strings.TrimSpace(d.Input), "\n"))
	case "follow":
		for _, a := range d.CmdArgs {
			s.followed = append(s.followed, &followedView{name: a.Key})
		}
	case "counts":
		for _, a := range d.CmdArgs {
			out += s.counts(a.Key)
		}
	default:
		d.Fatalf(t, "no such command")
	}
	for _, a := range d.CmdArgs {
		if a.Key == "step" {
			s.steps[a.Vals[0]] = s.tick
		}
	}
	for _, f := range s.followed {
		out += s.changes(f)
	}
	return out
}

// counts reads what a view has counted once it is as far as the last command.
func (s *scenario) counts(view string) string {
	if _, err := s.session.Exec(s.ctx, "SELECT 1 FROM "+view+" LIMIT 1"); err != nil {
		return failure(err)
	}
	rows, err := s.session.Query(s.ctx, "SHOW VIEWS")
	if err != nil {
		return failure(err)
	}
	defer rows.Close()
	for rows.Next() {
		of, columns := map[string]record.Value{}, rows.Columns()
		for i, v := range rows.Values() {
			of[columns[i].Name] = v
		}
		if string(of["name"].Bytes) == view {
			return fmt.Sprintf("%s: %d late, %d errors\n", view, of["late"].Int, of["errors"].Int)
		}
	}
	return failure(cmp.Or(rows.Err(), fmt.Errorf("SHOW VIEWS has no %q", view)))
}

var stepName = regexp.MustCompile(`@\w+`)

func (s *scenario) sql(text string) string {
	text = stepName.ReplaceAllStringFunc(text, func(name string) string { return fmt.Sprint(s.steps[name[1:]]) })
	rows, err := s.session.Query(s.ctx, text)
	if err != nil {
		return failure(err)
	}
	defer rows.Close()
	for {
		var lines []string
		for rows.Next() {
			lines = append(lines, rowText(rows.Values()))
		}
		if columns, tag := rows.Columns(), rows.Tag(); !rows.NextStatement() {
			if err := rows.Err(); err != nil {
				return failure(err)
			}
			s.tick = max(s.tick, rows.Tick())
			if columns == nil {
				return tag + "\n"
			}
			return strings.Join(append(lines, ""), "\n")
		}
	}
}

var longNumber = regexp.MustCompile(`\b\d{14,}\b( \([-0-9:. ]*Z\))?`) // a tick, and its time

// failure is an error with its SQLSTATE, without what differs from run to run.
func failure(err error) string {
	code := "?"
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		code = f.GetSQLState()
	}
	return fmt.Sprintf("error %s: %s\n", code, longNumber.ReplaceAllString(err.Error(), "N"))
}

// send sends records as one batch, so that they are in one tick, and waits until that tick is over, so that what is sent
// next is in a later one.
func (s *scenario) send(stream string, records []string) string {
	p, err := s.c.Producer(s.ctx, stream, client.WithLinger(stepTimeout))
	if err != nil {
		return failure(err)
	}
	var mu sync.Mutex
	for _, r := range records {
		err = errors.Join(err, p.Send(s.ctx, nil, []byte(r), func(a client.Ack, _ error) {
			mu.Lock()
			defer mu.Unlock()
			s.tick = max(s.tick, a.Tick)
		}))
	}
	if err = errors.Join(err, p.Close(s.ctx)); err != nil {
		return failure(err)
	}
	s.c.See(s.tick)
	if _, err := s.session.Exec(s.ctx, "SELECT 1 FROM "+stream+" LIMIT 1"); err != nil {
		return failure(err)
	}
	return ""
}

// changes is what has changed in a view up to the last command, added up. A subscription of its own for each command says
// so at once, once the view is known to be there; one that goes on says that nothing changed only now and then.
func (s *scenario) changes(f *followedView) string {
	if f.ended || f.through > 0 && f.through >= s.tick {
		return ""
	}
	_, err := s.session.Exec(s.ctx, "SELECT 1 FROM "+f.name+" LIMIT 1")
	weights := map[string]int64{}
	var after []client.SubscribeOption
	if f.through > 0 {
		after = append(after, client.AfterTick(f.through))
	}
	for change, e := range s.c.Subscribe(s.ctx, f.name, after...) {
		if err = cmp.Or(err, e); err != nil {
			f.ended = true
			return fmt.Sprintf("%s: %s", f.name, failure(err))
		}
		for _, r := range change.Rows {
			weights[rowText(r.Values)] += r.Weight
		}
		if f.through = change.Tick; f.through >= s.tick {
			break
		}
	}
	var lines []string
	for row, w := range weights {
		if w != 0 {
			lines = append(lines, fmt.Sprintf("%s: %s %+d\n", f.name, row, w))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func rowText(values []record.Value) string {
	var cols []string
	for _, v := range values {
		if v.Null {
			cols = append(cols, "NULL")
			continue
		}
		cols = append(cols, strings.TrimSuffix(string(record.AppendTextValue(nil, v)), "+00"))
	}
	return strings.Join(cols, " | ")
}
