package client

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// Session runs SQL statements and keeps what SET sets. What it reads is never older than anything that its client has
// seen. It outlives the loss of a node, as all its state is here. It may be used by several goroutines at once.
type Session struct {
	c *Client

	mu       sync.Mutex
	settings map[string]string
}

// Session returns a new session with the servers' default settings.
func (c *Client) Session() *Session { return &Session{c: c, settings: map[string]string{}} }

// Query runs a statement in a session of its own; SET has no lasting effect. See Session.Query.
func (c *Client) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	return c.Session().Query(ctx, sql, args...)
}

// Exec runs statements in a session of its own. See Session.Exec.
func (c *Client) Exec(ctx context.Context, sql string, args ...any) (Result, error) {
	return c.Session().Exec(ctx, sql, args...)
}

// Settings returns a copy of the session's settings.
func (s *Session) Settings() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.settings)
}

func (s *Session) update(changed map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.settings, changed)
}

// Query runs a statement and returns its rows. args take the places of $1, $2, ... A statement that only reads is
// run again on another node when its node fails before the first row; one that changes something is not, and its error
// then says that its outcome is unknown.
//
// Read the rows to their end or close them.
func (s *Session) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	text, err := bind(sql, args)
	if err != nil {
		return nil, err
	}
	var rows *Rows
	start := func(n *nodeConn) error {
		r, err := s.start(ctx, n, text)
		if err == nil {
			rows = r
		}
		return err
	}
	if repeatable(text) {
		err = s.c.each(ctx, func(_ context.Context, n *nodeConn) error { return start(n) })
	} else {
		err = s.c.once(ctx, func(_ context.Context, n *nodeConn) error { return start(n) })
	}
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Result is what a statement without rows tells.
type Result struct {
	Tag  string // PostgreSQL's command tag, such as INSERT 0 3
	Tick uint64 // that the statement read at, or that its change has
}

// Exec runs statements, stops at the first error, and returns the result of the last.
func (s *Session) Exec(ctx context.Context, sql string, args ...any) (Result, error) {
	rows, err := s.Query(ctx, sql, args...)
	if err != nil {
		return Result{}, err
	}
	defer rows.Close()
	for {
		for rows.Next() {
		}
		if !rows.NextStatement() {
			return Result{Tag: rows.Tag(), Tick: rows.Tick()}, rows.Err()
		}
	}
}

// start sends a text to a node and waits for the first message of the answer.
func (s *Session) start(ctx context.Context, n *nodeConn, text string) (*Rows, error) {
	watched, release := n.watch(ctx, nil)
	call, err := millracev1.NewSqlClient(n.cc).Execute(watched, &millracev1.ExecuteRequest{
		Sql: text, SeenTick: s.c.SeenTick(), Settings: s.Settings(),
	})
	r := &Rows{s: s, n: n, ctx: watched, release: release, call: call}
	if err != nil {
		err = n.explain(watched, err)
		release()
		return nil, err
	}
	if !r.receive() && r.err != nil {
		r.Close()
		return nil, r.err
	}
	return r, nil
}

// Rows is the answer to a query, read row by row. It is not for concurrent use.
type Rows struct {
	s       *Session
	n       *nodeConn
	ctx     context.Context
	release func()
	call    grpc.ServerStreamingClient[millracev1.ExecuteResponse]

	message   *millracev1.ExecuteResponse // received and not yet looked at
	statement uint32
	complete  bool // the statement is
	ended     bool // the stream is
	columns   record.Schema
	rows      []*millracev1.Row
	values    []record.Value
	tag       string
	tick      uint64
	err       error
}

// receive gets the next message unless there is one.
func (r *Rows) receive() bool {
	if r.message != nil {
		return true
	}
	if r.ended {
		return false
	}
	m, err := r.call.Recv()
	if err == nil {
		r.n.heard.Store(true)
		r.message = m
		if s, ok := m.Kind.(*millracev1.ExecuteResponse_Schema); ok && m.Statement == r.statement {
			r.columns = SchemaOf(s.Schema)
		}
		return true
	}
	r.ended = true
	if !errors.Is(err, io.EOF) {
		r.err = r.n.explain(r.ctx, err)
	}
	r.release()
	return false
}

// Next goes to the next row of the statement. It returns false at its end, and at an error: see Err.
func (r *Rows) Next() bool {
	for {
		if len(r.rows) > 0 {
			row := r.rows[0]
			r.rows = r.rows[1:]
			return r.take(row)
		}
		if r.complete || r.err != nil || !r.receive() || r.message.Statement != r.statement {
			return false
		}
		m := r.message
		r.message = nil
		switch k := m.Kind.(type) {
		case *millracev1.ExecuteResponse_Rows:
			r.rows = k.Rows.GetRows()
		case *millracev1.ExecuteResponse_Complete:
			r.complete = true
			r.tag, r.tick = k.Complete.GetTag(), k.Complete.GetTick()
			r.s.c.See(r.tick)
			r.s.update(k.Complete.GetSettings())
		}
	}
}

func (r *Rows) take(row *millracev1.Row) bool {
	r.values, r.err = appendValues(r.values[:0], r.columns, row)
	return r.err == nil
}

// appendValues turns a row of the wire into values.
func appendValues(dst []record.Value, columns record.Schema, row *millracev1.Row) ([]record.Value, error) {
	if len(row.GetValues()) != len(columns) {
		return dst, fault.New(fault.Internal, "a row of %d values arrived for %d columns", len(row.GetValues()), len(columns))
	}
	for i, v := range row.Values {
		value, err := record.FromProto(columns[i].Type, v)
		if err != nil {
			return dst, fault.Wrap(fault.Internal, err, "column %q", columns[i].Name)
		}
		dst = append(dst, value)
	}
	return dst, nil
}

// NextStatement goes to the rows of the next statement, if the text had several.
func (r *Rows) NextStatement() bool {
	for r.Next() {
	}
	if r.err != nil || !r.receive() {
		return false
	}
	r.statement = r.message.Statement
	r.complete, r.columns, r.tag, r.tick = false, nil, "", 0
	if s, ok := r.message.Kind.(*millracev1.ExecuteResponse_Schema); ok {
		r.columns = SchemaOf(s.Schema)
	}
	return true
}

// Columns returns the names and types of the columns, nil for a statement that returns no rows.
func (r *Rows) Columns() record.Schema { return r.columns }

// Values returns the current row. It is valid until the next call of Next.
func (r *Rows) Values() []record.Value { return r.values }

// Tag returns the statement's command tag, such as SELECT 5, after its last row.
func (r *Rows) Tag() string { return r.tag }

// Tick returns the tick that the statement read at, or that its change has, after its last row.
func (r *Rows) Tick() uint64 { return r.tick }

// Err returns the error that ended the rows, nil at their regular end.
func (r *Rows) Err() error { return r.err }

// Close ends the query. It may be called twice, and at any time.
func (r *Rows) Close() error {
	r.ended = true
	r.message, r.rows = nil, nil
	r.release()
	return r.err
}

// SchemaOf returns the schema that a result or a stream has. A type of a newer server is taken as text.
func SchemaOf(s *millracev1.RowSchema) record.Schema { return schemaOf(s.GetColumns()) }

func schemaOf(columns []*millracev1.Column) record.Schema {
	out := make(record.Schema, len(columns))
	for i, c := range columns {
		t, ok := record.ParseType(c.Type)
		if !ok {
			t = record.Text
		}
		out[i] = record.Field{Name: c.Name, Type: t}
	}
	return out
}
