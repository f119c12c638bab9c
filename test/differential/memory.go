package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition/stage"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// patience is how long a view may take to come to a tick, and a read to answer. It is shorter only while a case in which
// one doesn't is made smaller.
var patience = 40 * time.Second

// memory runs a case in this process: planner, operators, stages, exchange and state stores are the real ones; logs,
// ticks and the coordinator's state are the case's.
type memory struct {
	c     *Case
	logs  *logs
	nodes []*node
	state *internalv1.ClusterState
	names catalog
	first map[ids.PartitionID]bool // the next closing is its first since a start
	news  map[ids.PartitionID][]stage.StreamTick
	ids   map[string]ids.StreamID // of streams and tables' logs
	views map[string]*live
	cover *coverage
	next  uint64
	rng   *rand.Rand
}

// live is a view that runs.
type live struct {
	id      ids.StreamID
	created ids.Tick
	shape   *shape
}

// catalog is a sql.Catalog.
type catalog map[string]*sql.Object

// Lookup implements sql.Catalog.
func (c catalog) Lookup(name string) (*sql.Object, bool) { o, ok := c[name]; return o, ok }

// Names implements sql.Catalog.
func (c catalog) Names() []string { return nil }

// folding is a catalog that counts what is computed while a query is planned.
type folding struct {
	catalog
	cover *coverage
}

// Fold implements sql.Folder.
func (f folding) Fold(e *plan.Expr) (record.Value, error) {
	f.cover.expr(e)
	return dataflow.Evaluate(e, dataflow.Env{})
}

// openMemory starts the nodes and makes the case's streams and tables.
func openMemory(c *Case, cover *coverage) (*memory, error) {
	m := &memory{
		c: c, logs: &logs{parts: map[logKey]*log{}}, names: catalog{}, first: map[ids.PartitionID]bool{}, ids: map[string]ids.StreamID{},
		news: map[ids.PartitionID][]stage.StreamTick{}, views: map[string]*live{}, cover: cover, next: 10, rng: rand.New(rand.NewPCG(c.Seed, 77)),
		state: &internalv1.ClusterState{Version: 1, ClusterId: "differential", Index: 1, PartitionCount: uint32(c.Partitions)},
	}
	for i := range c.Nodes {
		m.state.Members = append(m.state.Members, &internalv1.Member{Id: fmt.Sprint("n", i)})
	}
	for p := range c.Partitions {
		m.state.Partitions = append(m.state.Partitions, &internalv1.PartitionConfig{Id: uint32(p), Epoch: 1,
			Primary: fmt.Sprint("n", p%c.Nodes), Replicas: []string{fmt.Sprint("n", p%c.Nodes)}})
	}
	for i := range c.Objects {
		if err := m.create(&c.Objects[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Objects[i].SQL, err)
		}
	}
	for i := range c.Nodes {
		n := &node{id: ids.NodeID(fmt.Sprint("n", i)), fs: vfs.NewCrashableMem()}
		m.nodes = append(m.nodes, n)
		if err := m.start(n); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *memory) close() error {
	var errs []error
	for _, n := range m.nodes {
		errs = append(errs, m.halt(n))
	}
	return errors.Join(errs...)
}

// create makes a stream or a table.
func (m *memory) create(o *Object) error {
	statements, err := sql.Parse(o.SQL)
	if err != nil {
		return err
	}
	var def *millracev1.Stream
	switch st := statements[0].(type) {
	case *sql.CreateStream:
		def, err = sql.StreamOf(st)
	case *sql.CreateTable:
		def, err = sql.TableOf(st)
	default:
		err = fmt.Errorf("neither a stream nor a table")
	}
	if err != nil {
		return err
	}
	m.next++
	def.Id = m.next
	m.ids[o.Name] = ids.StreamID(def.Id)
	stream := &internalv1.StreamDef{Stream: def, CreatedTick: uint64(firstTick)}
	m.state.Streams = append(m.state.Streams, stream)
	object := &sql.Object{Kind: sql.ObjectStream, ID: def.Id, Name: def.Name, Columns: schemaOf(def.Columns), Stream: def}
	if o.Table {
		m.next++
		view := &internalv1.ViewDef{Id: m.next, Name: o.Name, Table: def.Id, Columns: def.Columns, CreatedTick: uint64(firstTick)}
		p, err := stage.PlanOf(view, map[ids.StreamID]*internalv1.StreamDef{ids.StreamID(def.Id): stream})
		if err != nil {
			return err
		}
		m.state.Views = append(m.state.Views, view)
		m.cover.plan(p)
		object = &sql.Object{Kind: sql.ObjectTable, ID: m.next, Name: def.Name, Columns: object.Columns, Key: p.Key, Stream: def, Plan: p}
	}
	m.names[o.Name] = object
	return nil
}

func schemaOf(cols []*millracev1.Column) record.Schema {
	s := make(record.Schema, len(cols))
	for i, c := range cols {
		t, _ := record.ParseType(c.Type) // it was checked by StreamOf
		s[i] = record.Field{Name: c.Name, Type: t}
	}
	return s
}

// createView plans a view and starts it; what comes back as a *fault.Error with an SQLSTATE is the planner's refusal.
func (m *memory) createView(v *View, after ids.Tick) error {
	statements, err := sql.Parse(v.SQL)
	if err != nil {
		return err
	}
	create, ok := statements[0].(*sql.CreateView)
	if !ok {
		return fmt.Errorf("not a view")
	}
	p, depends, err := sql.PlanView(create, folding{m.names, m.cover})
	if err != nil {
		return err
	}
	raw, err := plan.Marshal(p)
	if err != nil {
		return err
	}
	m.next++
	def := &internalv1.ViewDef{Id: m.next, Name: v.Name, Sql: v.SQL, Plan: raw, DependsOn: depends, EmitFinal: create.EmitFinal, CreatedTick: uint64(after)}
	for _, f := range p.Output {
		def.Columns = append(def.Columns, &millracev1.Column{Name: f.Name, Type: f.Type.String()})
	}
	if p, err = plan.Unmarshal(raw); err != nil { // as other nodes have it
		return err
	}
	for i := range p.Stages {
		if _, err := dataflow.New(p.Stages[i].Ops, dataflow.Env{Mode: dataflow.Live}); err != nil {
			return err
		}
	}
	m.cover.plan(p)
	m.names[v.Name] = &sql.Object{Kind: sql.ObjectView, ID: m.next, Name: v.Name, Columns: p.Output, Key: p.Key, Plan: p}
	m.views[v.Name] = &live{id: ids.StreamID(m.next), created: after, shape: shapeOf(p.Output, v)}
	m.state = &internalv1.ClusterState{
		Version: 1, ClusterId: m.state.ClusterId, Index: m.state.Index + 1, PartitionCount: m.state.PartitionCount, Members: m.state.Members,
		Streams: m.state.Streams, Partitions: m.state.Partitions, Views: append(append([]*internalv1.ViewDef(nil), m.state.Views...), def),
	}
	for _, n := range m.nodes {
		n.rt.Configure(m.state)
	}
	return nil
}

// apply appends a tick's records and closes it in all partitions.
func (m *memory) apply(records []placed, tick ids.Tick) {
	batches := map[logKey]*record.BatchBuilder{}
	var order []logKey
	for i := range records {
		r := &records[i]
		k := logKey{ids.PartitionID(r.partition), m.ids[r.Object]}
		if batches[k] == nil {
			batches[k] = &record.BatchBuilder{}
			order = append(order, k)
		}
		batches[k].Add(keyBytes(r), r.key != nil, []byte(r.JSON))
	}
	for _, k := range order {
		m.logs.append(k, tick, batches[k])
		m.news[k.p] = append(m.news[k.p], stage.StreamTick{Stream: k.stream, Tick: tick})
	}
	for _, p := range m.rng.Perm(m.c.Partitions) {
		cfg := m.state.Partitions[p]
		cl := stage.Closing{Partition: ids.PartitionID(p), Epoch: ids.Epoch(cfg.Epoch), Tick: tick}
		if !m.first[cl.Partition] {
			cl.Data = m.news[cl.Partition]
		}
		m.first[cl.Partition] = false
		delete(m.news, cl.Partition)
		m.node(cl.Partition).rt.OnClosed(cl)
	}
}

// keyBytes is a record's key as a producer would send it.
func keyBytes(r *placed) []byte {
	if len(r.key) > 1 && r.key[0] == '"' && r.key[len(r.key)-1] == '"' {
		return r.key[1 : len(r.key)-1]
	}
	return r.key
}

func (m *memory) node(p ids.PartitionID) *node { return m.nodes[int(p)%len(m.nodes)] }

// zset is rows with their weights.
type zset map[string]int64

const cellSeparator = "\x1f"

func (z zset) add(d *record.Delta) {
	for i := range d.N {
		cells := make([]string, len(d.Cols))
		for c := range d.Cols {
			if cells[c] = null; !d.Cols[c].Null(i) {
				cells[c] = string(record.AppendText(nil, &d.Cols[c], i))
			}
		}
		row := strings.Join(cells, cellSeparator)
		if z[row] += d.Weight(i); z[row] == 0 {
			delete(z, row)
		}
	}
}

// rows writes each row as often as it is there.
func (z zset) rows() ([][]string, error) {
	var out [][]string
	for row, w := range z {
		if w < 0 {
			return nil, fmt.Errorf("row %q is there %d times", row, w)
		}
		for range w {
			out = append(out, strings.Split(row, cellSeparator))
		}
	}
	return out, nil
}

// read returns a view's rows at a tick, from all partitions.
func (m *memory) read(v *View, tick ids.Tick) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := zset{}
	for p := range ids.PartitionID(m.c.Partitions) {
		if err := m.readPartition(ctx, m.views[v.Name].id, p, tick, all); err != nil {
			return nil, fmt.Errorf("partition %d: %w", p, err)
		}
	}
	return all.rows()
}

func (m *memory) readPartition(ctx context.Context, view ids.StreamID, p ids.PartitionID, tick ids.Tick, to zset) error {
	for {
		got := zset{}
		rt := m.node(p).rt
		_, err := rt.BeginRead(ctx, view, []ids.PartitionID{p}, tick)
		if err == nil {
			err = rt.Read(ctx, view, p, tick, nil, func(d *record.Delta) error { got.add(d); return nil })
		}
		if fault.Retryable(err) && ctx.Err() == nil {
			continue
		}
		for row, w := range got {
			to[row] += w
		}
		return err
	}
}

var errEnough = errors.New("enough")

// sums subscribes to a view from the tick that it was made at, and returns its rows then plus the changes up to each of the
// ticks, in their order, the last of which is the last that was closed.
func (m *memory) sums(v *View, ticks []ids.Tick) ([][][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l := m.views[v.Name]
	parts := make([]zset, len(ticks))
	for i := range parts {
		parts[i] = zset{}
	}
	for p := range ids.PartitionID(m.c.Partitions) {
		sum := zset{}
		if err := m.readPartition(ctx, l.id, p, l.created, sum); err != nil {
			return nil, err
		}
		at := 0
		upTo := func(tick ids.Tick) { // all changes below tick have come
			for ; at < len(ticks) && ticks[at] < tick; at++ {
				for row, w := range sum {
					parts[at][row] += w
				}
			}
		}
		err := m.node(p).rt.Subscribe(ctx, l.id, p, l.created, func(tick ids.Tick, d *record.Delta) error {
			if d == nil {
				if upTo(tick + 1); at == len(ticks) {
					return errEnough
				}
				return nil
			}
			upTo(tick)
			sum.add(d)
			return nil
		})
		if !errors.Is(err, errEnough) {
			return nil, err
		}
	}
	var out [][][]string
	for _, z := range parts {
		rows, err := z.rows()
		if err != nil {
			return nil, err
		}
		out = append(out, rows)
	}
	return out, nil
}
