package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// propose puts a change of the catalog through Raft and waits until this node knows it.
func (s *session) propose(ctx context.Context, c *internalv1.Command) (*internalv1.CommandResult, error) {
	ctx, cancel := context.WithTimeout(ctx, s.n.cfg.StatementTimeout)
	defer cancel()
	res, err := s.n.coord.Propose(ctx, c)
	if err != nil {
		return nil, err
	}
	return res, s.n.applied(ctx, res.Index)
}

func (s *session) createStream(ctx context.Context, st *sql.CreateStream, out output) (string, error) {
	if err := s.creates("CREATE STREAM"); err != nil {
		return "", err
	}
	def, err := sql.StreamOf(st)
	if err != nil {
		return "", err
	}
	// What only the codec can judge, such as a protobuf descriptor, is judged before the stream exists.
	if def.Source != nil {
		def.Source.Partitions = uint32(s.n.catalog().partitions())
	}
	if _, err := datagen.NewDecoder(def, nil); err != nil {
		return "", err
	}
	res, err := s.propose(ctx, &internalv1.Command{Op: &internalv1.Command_CreateStream{CreateStream: &internalv1.CreateStream{
		Def: &internalv1.StreamDef{Stream: def, Sql: st.Text()}, IfNotExists: st.IfNotExists,
	}}})
	if err != nil {
		return "", err
	}
	if d := s.n.catalog().streams[ids.StreamID(res.ObjectId)]; d != nil {
		s.seen = max(s.seen, ids.Tick(d.CreatedTick))
	}
	return "CREATE STREAM", s.created("CREATE STREAM", def.Name, out)
}

func (s *session) createTable(ctx context.Context, st *sql.CreateTable, out output) (string, error) {
	if err := s.creates("CREATE TABLE"); err != nil {
		return "", err
	}
	def, err := sql.TableOf(st)
	if err != nil {
		return "", err
	}
	res, err := s.propose(ctx, &internalv1.Command{Op: &internalv1.Command_CreateTable{CreateTable: &internalv1.CreateTable{
		Log: &internalv1.StreamDef{Stream: def, Sql: st.Text()}, IfNotExists: st.IfNotExists,
	}}})
	if err != nil {
		return "", err
	}
	if d := s.n.catalog().views[ids.StreamID(res.ObjectId)]; d != nil {
		s.seen = max(s.seen, ids.Tick(d.CreatedTick))
	}
	return "CREATE TABLE", s.created("CREATE TABLE", def.Name, out)
}

// runnable refuses what the view runtime doesn't run.
func runnable(name string, p *plan.Plan) error {
	for i := range p.Stages {
		for j := range p.Stages[i].Ops {
			if s := p.Stages[i].Ops[j].Scan; s != nil && s.Kind == plan.ScanDead {
				return fault.SQL(fault.Unsupported, "0A000", "view %q reads dead letters, which only an ad-hoc query can", name)
			}
		}
		if _, err := dataflow.New(p.Stages[i].Ops, dataflow.Env{Mode: dataflow.Live}); err != nil {
			return fault.Wrap(fault.Unsupported, err, "view %q", name)
		}
	}
	return nil
}

// viewPlan is a planned view and what it reads.
type viewPlan struct {
	plan    *plan.Plan
	depends []uint64
}

func (s *session) createView(ctx context.Context, st *sql.CreateView, out output) (string, error) {
	err := s.creates("CREATE MATERIALIZED VIEW")
	if st.Replace {
		err = s.outside("CREATE OR REPLACE MATERIALIZED VIEW")
	}
	if err != nil {
		return "", err
	}
	v, err := planned(ctx, s.n, func(c sql.Catalog) (viewPlan, error) {
		p, depends, err := sql.PlanView(st, c)
		return viewPlan{p, depends}, err
	})
	if err != nil {
		return "", err
	}
	if err := runnable(st.Name, v.plan); err != nil {
		return "", err
	}
	encoded, err := plan.Marshal(v.plan)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "plan of %q", st.Name)
	}
	res, err := s.propose(ctx, &internalv1.Command{Op: &internalv1.Command_CreateView{CreateView: &internalv1.CreateView{
		Def: &internalv1.ViewDef{
			Name: st.Name, Sql: st.Text(), Plan: encoded, Columns: columnsOf(v.plan.Output), DependsOn: v.depends,
			EmitFinal: st.EmitFinal, StartNow: st.StartNow, HistoryUs: st.History,
		},
		IfNotExists: st.IfNotExists, Replace: st.Replace,
	}}})
	if err != nil {
		return "", err
	}
	if d := s.n.catalog().views[ids.StreamID(res.ObjectId)]; d != nil {
		s.seen = max(s.seen, ids.Tick(d.CreatedTick))
	}
	return "CREATE MATERIALIZED VIEW", s.created("CREATE MATERIALIZED VIEW", st.Name, out)
}

func (s *session) drop(ctx context.Context, st *sql.Drop) (string, error) {
	kind, tag := internalv1.ObjectKind_OBJECT_KIND_STREAM, "DROP STREAM"
	switch st.Kind {
	case sql.ObjectView:
		kind, tag = internalv1.ObjectKind_OBJECT_KIND_VIEW, "DROP MATERIALIZED VIEW"
	case sql.ObjectTable:
		kind, tag = internalv1.ObjectKind_OBJECT_KIND_TABLE, "DROP TABLE"
	case sql.ObjectIndex:
		kind, tag = internalv1.ObjectKind_OBJECT_KIND_UNSPECIFIED, "DROP INDEX"
	}
	if err := s.writable(tag); err != nil {
		return "", err
	}
	if s.tx.status != txIdle {
		return tag, s.holdDrop(ctx, st)
	}
	if st.Kind == sql.ObjectIndex {
		return s.dropIndex(ctx, st)
	}
	_, err := s.propose(ctx, &internalv1.Command{Op: &internalv1.Command_DropObjects{DropObjects: &internalv1.DropObjects{
		Names: []string{st.Name}, Kind: kind, IfExists: st.IfExists, Cascade: st.Cascade,
	}}})
	return tag, err
}

// table builds the rows of SHOW and DESCRIBE.
type table struct {
	fields record.Schema
	d      *record.Delta
}

func newTable(fields ...record.Field) *table {
	return &table{fields: fields, d: record.NewDelta(fields, 0)}
}

// add appends a row of string, int64, float64 or bool, one per column; nil is NULL.
func (t *table) add(values ...any) {
	for i, v := range values {
		c := &t.d.Cols[i]
		switch v := v.(type) {
		case nil:
			c.AppendNull()
		case string:
			c.AppendString(v)
		case int64:
			c.AppendInt(v)
		case float64:
			c.AppendFloat(v)
		case bool:
			c.AppendBool(v)
		default:
			panic(fmt.Sprintf("node: no column for %T", v))
		}
	}
	t.d.N++
}

func (t *table) write(out output) error {
	if err := out.schema(t.fields); err != nil {
		return err
	}
	return out.rows(t.d)
}

func text(name string) record.Field    { return record.Field{Name: name, Type: record.Text} }
func bigint(name string) record.Field  { return record.Field{Name: name, Type: record.BigInt} }
func boolean(name string) record.Field { return record.Field{Name: name, Type: record.Boolean} }

func (s *session) show(ctx context.Context, st *sql.Show, out output) (string, error) {
	var t *table
	var err error
	switch st.What {
	case "streams":
		t, err = s.showStreams(ctx)
	case "tables":
		t, err = s.showTables(ctx)
	case "views":
		t, err = s.showViews(ctx)
	case "indexes":
		t, err = s.showIndexes(ctx)
	case "nodes":
		t, err = s.showNodes(ctx)
	case "all":
		t = newTable(showFields(st.What)...)
		err = s.showSettings(t)
	default:
		t = newTable(showFields(st.What)...)
		var v string
		if v, err = s.setting(st.What); err == nil {
			t.add(v)
		}
	}
	if err != nil {
		return "", err
	}
	return "SHOW", t.write(out)
}

// showFields is the columns of SHOW what.
func showFields(what string) record.Schema {
	switch what {
	case "streams":
		return record.Schema{text("name"), text("format"), text("key"), bigint("records"), bigint("bytes"), bigint("dead")}
	case "tables":
		return record.Schema{text("name"), text("format"), text("key"), bigint("rows"), bigint("records"), bigint("bytes"), bigint("dead"), bigint("state_bytes")}
	case "views":
		return record.Schema{text("name"), text("state"), {Name: "progress", Type: record.Double}, bigint("tick"), bigint("lag_ms"),
			bigint("rows"), bigint("errors"), text("last_error"), bigint("late"), bigint("state_bytes"), text("waits_for")}
	case "indexes":
		return record.Schema{text("name"), text("relation"), text("columns"), text("state"), bigint("bytes")}
	case "nodes":
		return record.Schema{text("name"), text("grpc"), text("gossip"), text("http"), text("zone"), text("state"), boolean("voter"),
			bigint("replicas"), bigint("primaries"), text("pg")}
	case "all":
		return record.Schema{text("name"), text("setting"), text("description")}
	}
	return record.Schema{text(what)}
}

var (
	describeFields = record.Schema{text("column"), text("type"), text("note")}
	explainFields  = record.Schema{text("plan")}
)

// logTotals is a log's figures over all partitions.
type logTotals struct{ records, bytes, dead uint64 }

// allFigures asks all nodes for the figures of logs, by stream, and of views. Dead letters are counted by reading what
// came since the last count, which may take a while.
func (s *session) allFigures(ctx context.Context) (map[uint64]logTotals, map[uint64]*viewTotals, error) {
	if err := s.n.sync(ctx); err != nil {
		return nil, nil, err
	}
	c := s.n.catalog()
	logs, views := map[uint64]logTotals{}, map[uint64]*viewTotals{}
	asked := 0
	for _, st := range s.n.allStats(ctx, &internalv1.StatsRequest{Dead: true}, s.n.cfg.StatementTimeout) {
		asked += len(st.Partitions)
		for _, f := range st.Streams {
			x := logs[f.Stream]
			logs[f.Stream] = logTotals{x.records + f.Records, x.bytes + f.Bytes, x.dead + f.Dead}
		}
		addViews(views, st)
	}
	if asked < c.partitions() {
		return nil, nil, fault.New(fault.Unavailable, "%d of %d partitions can't be asked now; retry, see millrace cluster status", c.partitions()-asked, c.partitions())
	}
	return logs, views, nil
}

func (s *session) showStreams(ctx context.Context) (*table, error) {
	sums, _, err := s.allFigures(ctx)
	if err != nil {
		return nil, err
	}
	t := newTable(showFields("streams")...)
	for _, d := range s.n.catalog().state.Streams {
		if len(d.Stream.PrimaryKey) > 0 {
			continue
		}
		x := sums[d.Stream.Id]
		var key any
		if d.Stream.Key != "" {
			key = d.Stream.Key
		}
		t.add(d.Stream.Name, d.Stream.Format, key, int64(x.records), int64(x.bytes), int64(x.dead))
	}
	return t, nil
}

func (s *session) showTables(ctx context.Context) (*table, error) {
	logs, views, err := s.allFigures(ctx)
	if err != nil {
		return nil, err
	}
	c := s.n.catalog()
	t := newTable(showFields("tables")...)
	for _, d := range c.state.Views {
		if d.Table == 0 {
			continue
		}
		log, x := c.streams[ids.StreamID(d.Table)].Stream, logs[d.Table]
		v := views[d.Id]
		if v == nil {
			v = &viewTotals{}
		}
		t.add(d.Name, log.Format, strings.Join(log.PrimaryKey, ", "), int64(v.rows), int64(x.records), int64(x.bytes), int64(x.dead), int64(v.stateSize))
	}
	return t, nil
}

func (s *session) showNodes(ctx context.Context) (*table, error) {
	d, err := (&clusterService{n: s.n}).Describe(ctx, &millracev1.DescribeRequest{})
	if err != nil {
		return nil, err
	}
	t := newTable(showFields("nodes")...)
	for _, m := range d.Nodes {
		t.add(m.Name, m.Grpc, m.Gossip, m.Http, m.Zone, m.State, m.Voter, int64(m.Replicas), int64(m.Primaries), m.Pg)
	}
	return t, nil
}

func (s *session) describe(ctx context.Context, st *sql.Describe, out output) (string, error) {
	var o *sql.Object
	_, err := s.n.lookup(ctx, func(c *catalog) bool {
		o = c.byName[st.Name]
		return o != nil
	})
	if err != nil {
		return "", err
	}
	if o == nil {
		return "", fault.SQL(fault.NotFound, "42P01", "unknown stream, table or view %q; SHOW STREAMS, SHOW TABLES and SHOW VIEWS list them", st.Name)
	}
	t := newTable(describeFields...)
	for i, f := range o.Columns {
		t.add(f.Name, f.Type.String(), columnNote(o, i))
	}
	return "DESCRIBE", t.write(out)
}

// columnNote tells what is special about a column; nil when nothing is.
func columnNote(o *sql.Object, i int) any {
	var notes []string
	name := o.Columns[i].Name
	if o.Kind == sql.ObjectStream && o.Stream.Key == name {
		notes = append(notes, "key")
	}
	if o.Stream != nil && o.Stream.WatermarkColumn == name {
		notes = append(notes, fmt.Sprintf("watermark: %v behind", time.Duration(o.Stream.WatermarkDelayUs)*time.Microsecond))
	}
	for _, k := range o.Key {
		if k == i {
			notes = append(notes, "key")
		}
	}
	if o.Kind == sql.ObjectTable && o.Stream.Columns[i].NotNull {
		notes = append(notes, "not null")
	}
	if o.Stream != nil && o.Stream.Columns[i].Default != "" {
		notes = append(notes, "default "+o.Stream.Columns[i].Default)
	}
	if len(notes) == 0 {
		return nil
	}
	return strings.Join(notes, "; ")
}
