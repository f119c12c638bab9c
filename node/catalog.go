package node

import (
	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition/stage"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// catalog is one published state, indexed for statements and appends. It never changes.
type catalog struct {
	state   *internalv1.ClusterState
	byName  map[string]*sql.Object
	streams map[ids.StreamID]*internalv1.StreamDef
	views   map[ids.StreamID]*internalv1.ViewDef
	objects map[ids.StreamID]*sql.Object // views and tables by id, those too that have no name now
	members map[ids.NodeID]*internalv1.Member
}

// newCatalog indexes st. Definitions never change under their id, so what prev has decoded is taken over; prev may be nil.
func newCatalog(st *internalv1.ClusterState, prev *catalog) (*catalog, error) {
	c := &catalog{
		state:   st,
		byName:  make(map[string]*sql.Object, len(st.Streams)+len(st.Views)),
		streams: make(map[ids.StreamID]*internalv1.StreamDef, len(st.Streams)),
		views:   make(map[ids.StreamID]*internalv1.ViewDef, len(st.Views)),
		objects: make(map[ids.StreamID]*sql.Object, len(st.Views)),
		members: make(map[ids.NodeID]*internalv1.Member, len(st.Members)),
	}
	for _, m := range st.Members {
		c.members[ids.NodeID(m.Id)] = m
	}
	for _, s := range st.Streams {
		c.streams[ids.StreamID(s.Stream.Id)] = s
		if len(s.Stream.PrimaryKey) > 0 {
			continue // a table's log: its rows stand for it below
		}
		c.byName[s.Stream.Name] = &sql.Object{
			Kind: sql.ObjectStream, ID: s.Stream.Id, Name: s.Stream.Name,
			Columns: schemaOf(s.Stream.Columns), Stream: s.Stream,
		}
	}
	for _, v := range st.Views {
		c.views[ids.StreamID(v.Id)] = v
		o, err := c.object(v, prev)
		if err != nil {
			return nil, err
		}
		c.objects[ids.StreamID(v.Id)] = o
		if !hidden(v) {
			c.byName[v.Name] = o
		}
	}
	return c, nil
}

// hidden tells whether a view has no name now: it is to replace another one, or was replaced.
func hidden(v *internalv1.ViewDef) bool { return v.Replaces != 0 || v.ReplacedBy != 0 }

// object decodes a view or table, unless it was before.
func (c *catalog) object(v *internalv1.ViewDef, prev *catalog) (*sql.Object, error) {
	var o *sql.Object
	if prev != nil {
		o = prev.objects[ids.StreamID(v.Id)]
	}
	from := uint64(0)
	if v.StartNow {
		from = v.CreatedTick
	}
	if o != nil && len(o.Indexes) == 0 && len(v.Indexes) == 0 && o.From == from {
		return o, nil
	}
	if o != nil {
		copied := *o
		o = &copied
	} else {
		p, err := stage.PlanOf(v, c.streams)
		if err != nil {
			return nil, err
		}
		o = &sql.Object{Kind: sql.ObjectView, ID: v.Id, Name: v.Name, Columns: schemaOf(v.Columns), Key: p.Key, Plan: p}
	}
	o.Text, o.From = v.Sql, from
	if v.Table != 0 {
		o.Kind, o.Stream = sql.ObjectTable, c.streams[ids.StreamID(v.Table)].Stream
	}
	o.Indexes = nil
	for _, d := range v.Indexes {
		ix := sql.Index{ID: d.Id, Name: d.Name}
		for _, name := range d.Columns {
			ix.Columns = append(ix.Columns, o.Columns.Index(name))
		}
		o.Indexes = append(o.Indexes, ix)
	}
	return o, nil
}

// Lookup implements sql.Catalog.
func (c *catalog) Lookup(name string) (*sql.Object, bool) {
	o, ok := c.byName[name]
	return o, ok
}

// Fold implements sql.Folder.
func (c *catalog) Fold(e *plan.Expr) (record.Value, error) {
	return dataflow.Evaluate(e, dataflow.Env{})
}

// Names implements sql.Catalog.
func (c *catalog) Names() []string {
	out := make([]string, 0, len(c.byName))
	for _, s := range c.state.Streams {
		if len(s.Stream.PrimaryKey) == 0 {
			out = append(out, s.Stream.Name)
		}
	}
	for _, v := range c.state.Views {
		if !hidden(v) {
			out = append(out, v.Name)
		}
	}
	return out
}

// partitions returns the number of partitions.
func (c *catalog) partitions() int { return int(c.state.PartitionCount) }

// primary returns the member that holds partition p as its primary.
func (c *catalog) primary(p ids.PartitionID) (ids.NodeID, bool) {
	if int(p) >= len(c.state.Partitions) {
		return "", false
	}
	id := c.state.Partitions[p].Primary
	return ids.NodeID(id), id != ""
}

// name returns a member's label, or its id where the member is unknown.
func (c *catalog) name(id string) string {
	if m := c.members[ids.NodeID(id)]; m != nil {
		return m.Name
	}
	return id
}

func schemaOf(cols []*millracev1.Column) record.Schema {
	s := make(record.Schema, len(cols))
	for i, c := range cols {
		t, _ := record.ParseType(c.Type) // unknown types don't pass CREATE
		s[i] = record.Field{Name: c.Name, Type: t}
	}
	return s
}

func columnsOf(s record.Schema) []*millracev1.Column {
	out := make([]*millracev1.Column, len(s))
	for i, f := range s {
		out[i] = &millracev1.Column{Name: f.Name, Type: f.Type.String()}
	}
	return out
}
