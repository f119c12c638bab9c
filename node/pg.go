package node

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/node/pgcatalog"
	"github.com/millrace/millrace/node/pgwire"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// listenPG takes the port of PostgreSQL's protocol. One that wasn't asked for gives way, so that several nodes of one
// machine need no flag.
func (n *Node) listenPG() (net.Listener, error) {
	addr := n.cfg.PG
	if addr == "" {
		if l, err := net.Listen("tcp", DefaultPG); err == nil {
			return l, nil
		}
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "--pg %s", addr)
	}
	return l, nil
}

func (n *Node) newPG() *pgwire.Server {
	cfg := pgwire.DefaultConfig()
	cfg.MaxConnections, cfg.MaxMessageBytes = n.cfg.MaxPGConnections, n.cfg.MaxMessageBytes
	cfg.MaxStatementBytes = n.cfg.MaxStatementBytes
	return pgwire.New(cfg, pgBackend{n}, n.log.With("part", "pg"))
}

// pgBackend begins sessions for the wire protocol: the same ones that gRPC's statements have.
type pgBackend struct{ n *Node }

// Begin implements pgwire.Backend.
func (b pgBackend) Begin(g pgwire.Greeting) (pgwire.Session, []string) {
	s := blankSession(b.n)
	if g.User == "" {
		g.User = settings["session_authorization"].standard
	}
	if g.Database == "" {
		g.Database = g.User
	}
	s.defaults["session_authorization"], s.warns = g.User, true
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(g.Settings)) {
		if err := s.set(name, g.Settings[name]); err != nil {
			warnings = append(warnings, err.Error())
		} else {
			s.defaults[name] = s.values[name]
		}
	}
	clear(s.changed)
	return &pgSession{session: s, greeting: g}, warnings
}

// pgSession is a session as the wire protocol has it.
type pgSession struct {
	*session
	greeting pgwire.Greeting
}

// pgOutput is the wire's output as a session has it.
type pgOutput struct{ pgwire.Output }

func (o pgOutput) schema(s record.Schema) error       { return o.Schema(s) }
func (o pgOutput) rows(d *record.Delta) error         { return o.Rows(d) }
func (o pgOutput) progress(t ids.Tick) error          { return o.Progress(t) }
func (o pgOutput) notice(state, message string) error { return o.Notice(state, message) }

// Describe implements pgwire.Session.
func (p *pgSession) Describe(ctx context.Context, st sql.Statement, given []record.Type) (*sql.Description, error) {
	return p.prepare(ctx, st, given)
}

// Execute implements pgwire.Session.
func (p *pgSession) Execute(ctx context.Context, st sql.Statement, out pgwire.Output) (string, error) {
	ctx, done := p.n.statement(ctx, st)
	defer done()
	tag, err := p.execute(ctx, st, pgOutput{out})
	clear(p.changed)
	return tag, err
}

// statement counts a statement that ends by itself, so that a stopping node waits for it.
func (n *Node) statement(ctx context.Context, st sql.Statement) (context.Context, func()) {
	if _, endless := st.(*sql.Subscribe); endless {
		return ctx, func() {}
	}
	n.active.Add(1)
	return ctx, func() { n.active.Add(-1) }
}

// Open implements pgwire.Session.
func (p *pgSession) Open(ctx context.Context, st sql.Statement) (pgwire.Run, error) {
	var run func(context.Context, output) (string, error)
	var err error
	switch st := st.(type) {
	case *sql.Select:
		run, err = p.openQuery(ctx, st)
	case *sql.Subscribe:
		run, err = p.openSubscription(ctx, st)
	default:
		err = fault.New(fault.Internal, "no cursor over %T", st)
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, out pgwire.Output) (string, error) { return run(ctx, pgOutput{out}) }, nil
}

// Into implements pgwire.Session.
func (p *pgSession) Into(ctx context.Context, relation string, columns []string) (pgwire.Target, error) {
	if err := p.writable("COPY FROM"); err != nil {
		return nil, err
	}
	def, err := p.n.stream(ctx, relation)
	if err != nil {
		return nil, err
	}
	t := &copyTarget{s: p.session, stream: def, all: schemaOf(def.Columns)}
	if t.enc, err = record.NewEncoder(def); err != nil {
		return nil, err
	}
	if err := t.readDefaults(ctx); err != nil {
		return nil, err
	}
	if columns == nil {
		for _, f := range t.all {
			columns = append(columns, f.Name)
		}
	}
	for _, name := range columns {
		i := t.all.Index(name)
		if i < 0 {
			return nil, fault.SQL(fault.Invalid, "42703", "column %q of stream %q does not exist", name, relation)
		}
		if slices.Contains(t.at, i) {
			return nil, fault.SQL(fault.Invalid, "42701", "column %q specified more than once", name)
		}
		t.at = append(t.at, i)
		t.given = append(t.given, t.all[i])
	}
	return t, nil
}

// Close implements pgwire.Session.
func (p *pgSession) Close() { p.abandon() }

// Status implements pgwire.State.
func (p *pgSession) Status() byte { return byte(p.tx.status) }

// Fail implements pgwire.State.
func (p *pgSession) Fail() { p.fail() }

// Setting implements pgwire.State and pgcatalog.Source.
func (p *pgSession) Setting(name string) (string, bool) {
	v, err := p.setting(name)
	return v, err == nil
}

// IdleTimeout implements pgwire.State.
func (p *pgSession) IdleTimeout() time.Duration { return p.idleTimeout }

// Reset implements pgwire.State.
func (p *pgSession) Reset() error { return p.reset("all") }

// Catalog implements pgwire.State.
func (p *pgSession) Catalog() pgcatalog.Source { return p }

// Relations implements pgcatalog.Source.
func (p *pgSession) Relations() []pgcatalog.Relation {
	c := p.n.catalog()
	out := make([]pgcatalog.Relation, 0, len(c.state.Streams)+len(c.state.Views))
	for _, s := range c.state.Streams {
		if len(s.Stream.PrimaryKey) > 0 {
			continue // a table's log: its rows stand for it below
		}
		r := pgcatalog.Relation{ID: s.Stream.Id, Name: s.Stream.Name, Columns: schemaOf(s.Stream.Columns)}
		r.NotNull, r.Defaults = declared(s.Stream.Columns)
		out = append(out, r)
	}
	for _, v := range c.state.Views {
		if hidden(v) {
			continue
		}
		r := pgcatalog.Relation{ID: v.Id, Name: v.Name, View: v.Table == 0, Columns: schemaOf(v.Columns), Key: c.byName[v.Name].Key}
		if r.View {
			r.Definition = queryOf(v.Sql)
		} else {
			r.NotNull, r.Defaults = declared(c.streams[ids.StreamID(v.Table)].Stream.Columns)
		}
		for _, ix := range c.byName[v.Name].Indexes {
			r.Indexes = append(r.Indexes, pgcatalog.Index{ID: ix.ID, Name: ix.Name, Columns: ix.Columns})
		}
		out = append(out, r)
	}
	return out
}

// declared is what was declared of columns besides their types.
func declared(columns []*millracev1.Column) (notNull []bool, defaults []string) {
	for _, col := range columns {
		notNull, defaults = append(notNull, col.NotNull), append(defaults, col.Default)
	}
	return notNull, defaults
}

// queryOf is the query of a CREATE MATERIALIZED VIEW's text: what stands behind its first AS.
func queryOf(text string) string {
	fields := strings.Fields(text)
	for i, w := range fields {
		if strings.EqualFold(w, "as") {
			return strings.Join(fields[i+1:], " ")
		}
	}
	return text
}

// Identity implements pgcatalog.Source.
func (p *pgSession) Identity() (database, user string, id uint32) {
	return p.greeting.Database, p.greeting.User, p.greeting.ID
}

// Settings implements pgcatalog.Source.
func (p *pgSession) Settings() []string { return slices.Sorted(maps.Keys(settings)) }

// SetSetting implements pgcatalog.Source.
func (p *pgSession) SetSetting(name, value string, local bool) error {
	_, err := p.setStatement(&sql.Set{Name: name, Value: value, Local: local && p.tx.status == txOpen}, pgOutput{nil})
	return err
}
