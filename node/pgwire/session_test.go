package pgwire

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/leaks"
	"github.com/millrace/millrace/node/pgcatalog"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// memorySession is a session over a catalog of one stream, whose queries give three rows of NULLs. It counts what is open.
type memorySession struct {
	b        *memoryBackend
	status   byte
	closed   bool
	settings map[string]string
}

// memoryBackend makes memorySessions.
type memoryBackend struct {
	open    atomic.Int64 // sessions
	runs    atomic.Int64 // queries and subscriptions under way
	appends atomic.Int64 // rows of COPY
}

func (b *memoryBackend) Begin(g Greeting) (Session, []string) {
	b.open.Add(1)
	var warnings []string
	for name := range g.Settings {
		warnings = append(warnings, "unknown setting "+name)
	}
	return &memorySession{b: b, status: 'I', settings: map[string]string{"server_version": "15.0", "search_path": "public"}}, warnings
}

var clicks = &sql.Object{
	Kind: sql.ObjectStream, ID: 1, Name: "clicks", Columns: record.Schema{{Name: "page", Type: record.Text}, {Name: "ms", Type: record.BigInt}, {Name: "tags", Type: record.ArrayOf(record.Text)}},
	Stream: &millracev1.Stream{Id: 1, Name: "clicks", Columns: []*millracev1.Column{{Name: "page", Type: "text"}, {Name: "ms", Type: "bigint"}, {Name: "tags", Type: "text[]"}}},
}

func (s *memorySession) Lookup(name string) (*sql.Object, bool) { return clicks, name == "clicks" }
func (s *memorySession) Names() []string                        { return []string{"clicks"} }

func (s *memorySession) Describe(_ context.Context, st sql.Statement, given []record.Type) (*sql.Description, error) {
	if _, ok := st.(*sql.Subscribe); ok {
		return &sql.Description{Output: clicks.Columns}, nil
	}
	return sql.Prepare(st, given, s)
}

func (s *memorySession) Execute(ctx context.Context, st sql.Statement, out Output) (string, error) {
	switch st := st.(type) {
	case *sql.Transaction:
		s.status = 'I'
		if st.Action == sql.Begin {
			s.status = 'T'
		}
		return string(st.Action), nil
	case *sql.Select, *sql.Subscribe:
		run, err := s.Open(ctx, st)
		if err != nil {
			return "", err
		}
		return run(ctx, out)
	case *sql.Insert:
		if _, err := sql.PlanInsert(st, s); err != nil {
			return "", err
		}
		return "INSERT 0 1", out.Notice("01000", "nobody keeps it")
	case *sql.Set:
		s.settings[st.Name] = st.Value
		return "SET", nil
	}
	return "", fault.SQL(fault.Unsupported, "0A000", "%T is not supported", st)
}

func (s *memorySession) Open(_ context.Context, st sql.Statement) (Run, error) {
	sel, ok := st.(*sql.Select)
	if !ok { // a subscription, which only ends with its context
		return func(ctx context.Context, out Output) (string, error) {
			s.b.runs.Add(1)
			defer s.b.runs.Add(-1)
			if err := out.Schema(clicks.Columns); err != nil {
				return "", err
			}
			if err := out.Progress(ids.Tick(1)); err != nil {
				return "", err
			}
			<-ctx.Done()
			return "", context.Cause(ctx)
		}, nil
	}
	p, err := sql.PlanSelect(sel, s)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, out Output) (string, error) {
		if err := out.Schema(p.Output); err != nil {
			return "", err
		}
		d := record.NewDelta(p.Output, 3)
		for range 3 {
			for i := range d.Cols {
				d.Cols[i].AppendNull()
			}
			d.N++
		}
		return "SELECT 3", out.Rows(d)
	}, nil
}

// memoryTarget counts rows.
type memoryTarget struct{ s *memorySession }

func (t memoryTarget) Columns() record.Schema { return clicks.Columns }
func (t memoryTarget) Append(_ context.Context, rows *record.Delta) error {
	t.s.b.appends.Add(int64(rows.N))
	return nil
}

func (s *memorySession) Into(_ context.Context, relation string, columns []string) (Target, error) {
	if relation != "clicks" || columns != nil {
		return nil, fault.SQL(fault.NotFound, "42P01", "relation %q does not exist", relation)
	}
	return memoryTarget{s}, nil
}

func (s *memorySession) Close() {
	if !s.closed {
		s.closed = true
		s.b.open.Add(-1)
	}
}

func (s *memorySession) Status() byte { return s.status }
func (s *memorySession) Fail() {
	if s.status == 'T' {
		s.status = 'E'
	}
}
func (s *memorySession) Setting(name string) (string, bool) { v, ok := s.settings[name]; return v, ok }
func (s *memorySession) IdleTimeout() time.Duration         { return 0 }
func (s *memorySession) Reset() error                       { return nil }
func (s *memorySession) Catalog() pgcatalog.Source          { return s }
func (s *memorySession) Relations() []pgcatalog.Relation {
	return []pgcatalog.Relation{{ID: 1, Name: "clicks", Columns: clicks.Columns}}
}
func (s *memorySession) Identity() (string, string, uint32) { return "d", "u", 1 }
func (s *memorySession) Settings() []string                 { return []string{"search_path"} }
func (s *memorySession) SetSetting(name, value string, _ bool) error {
	s.settings[name] = value
	return nil
}

// panicHandler makes a test fail when a connection recovers from a panic, which it logs as an error.
type panicHandler struct {
	slog.Handler
	t *testing.T
}

func (h panicHandler) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		h.t.Errorf("%s: %s=%v", r.Message, a.Key, a.Value)
		return true
	})
	return nil
}

// memoryConn is a client that has said all that it says, and takes every answer.
type memoryConn struct {
	in  []byte
	out []byte
}

func (c *memoryConn) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *memoryConn) Write(b []byte) (int, error) {
	c.out = append(c.out, b...)
	return len(b), nil
}

func (c *memoryConn) Close() error                     { return nil }
func (c *memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// speak lets a client say something and go, and returns what it was told. Nothing may be left of it.
func speak(t *testing.T, said []byte) []byte {
	b := &memoryBackend{}
	cfg := DefaultConfig()
	cfg.MaxMessageBytes, cfg.MaxStatementBytes = 1<<16, 1<<14
	s := New(cfg, b, slog.New(panicHandler{slog.DiscardHandler, t}))
	if !s.enter() {
		t.Fatal("the server is full")
	}
	c := &memoryConn{in: said}
	newConn(s, c).serve()
	s.served.Done()
	if n := s.Connections(); n != 0 || b.open.Load() != 0 || b.runs.Load() != 0 {
		t.Errorf("left behind: %d connections, %d sessions, %d queries", n, b.open.Load(), b.runs.Load())
	}
	s.Shutdown(context.Background())
	if t.Failed() {
		t.Logf("said %q", said)
	}
	return c.out
}
