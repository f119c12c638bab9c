package sql

import (
	"github.com/millrace/millrace/plan"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// Catalog is what the planner knows of streams and views. It doesn't change during a call.
type Catalog interface {
	Lookup(name string) (*Object, bool)
	Names() []string // of all, for did-you-mean
}

// ObjectKind is the kind of an Object.
type ObjectKind string

const (
	ObjectStream ObjectKind = "stream"
	ObjectView   ObjectKind = "materialized view"
	ObjectTable  ObjectKind = "table"
	ObjectIndex  ObjectKind = "index" // only DROP's: an index is no Object
)

// Object is a stream, a view or a table. The planner changes nothing in it.
type Object struct {
	Kind    ObjectKind
	ID      uint64 // of a table: its rows', which are scanned like a view
	Name    string
	Columns record.Schema      // declared or output columns, without hidden ones
	Key     []int              // view: plan.Plan's Key; table: its primary key
	Stream  *millracev1.Stream // stream: its definition; table: its log's
	Plan    *plan.Plan         // view and table: its plan; may be nil
	Indexes []Index            // of a view and table
	// Text is the statement that made a view, for late_records; From is the tick up to which records count for nothing
	// (start = 'now'), 0: all count.
	Text string
	From uint64
}

// hiddenColumns of every stream, usable when named.
var hiddenColumns = record.Schema{
	{Name: plan.ColPartition, Type: record.BigInt},
	{Name: plan.ColOffset, Type: record.BigInt},
	{Name: plan.ColTick, Type: record.BigInt},
	{Name: plan.ColTime, Type: record.TimestampTZ},
	{Name: plan.ColKey, Type: record.Text},
}

// deadColumns of dead_letters('stream').
var deadColumns = record.Schema{
	{Name: plan.DeadPartition, Type: record.BigInt},
	{Name: plan.DeadOffset, Type: record.BigInt},
	{Name: plan.DeadError, Type: record.Text},
	{Name: plan.DeadRaw, Type: record.Text},
}
