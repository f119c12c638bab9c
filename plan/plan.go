// Package plan is the immutable plan of a view or query: stages, operators, expressions; and its wire codec.
//
// A plan is cut into stages at exchanges. A stage that begins with a scan reads one stream or view and keeps no state
// between ticks; any other stage reads the outputs of earlier stages and may keep state. A stage runs in every
// partition; the last stage of an ad-hoc query runs once, at the node that was asked. sql makes plans and dataflow runs
// them: this package is all that they share, so it says exactly what each operator means. It depends on nothing but
// record.
package plan

import (
	"encoding/json"
	"fmt"

	"github.com/millrace/millrace/record"
)

// Version is the codec's version; Unmarshal refuses newer ones. Version 1 had fewer operators.
const Version = 2

// Plan is what a statement means. Nobody changes it once it is made.
type Plan struct {
	Version int     `json:"version"`
	Stages  []Stage `json:"stages"` // stage i reads only scans and stages before it
	// Output is the columns of the last stage, with the names that the user sees.
	Output record.Schema `json:"output"`
	// Key is the output columns that identify a row, when every row has weight 1 at all times (a grouped view); else nil.
	Key []int `json:"key,omitempty"`
	// Placed says where a view's rows are; nil: nothing is known.
	Placed *Placed `json:"placed,omitempty"`
	// Times is the output columns of a view that tell event time.
	Times []EventTime `json:"times,omitempty"`
	// Notes is what the planner did to the query and why, for EXPLAIN.
	Notes []string `json:"notes,omitempty"`
}

// Placed says that a view's rows are where an Exchange by Cols, in this order, would bring them: without Cols all in
// partition 0. Each of Cols is the output columns, equal in every row, that may stand for it. What reads the view may
// rely on it, so the plan of a view or table that exists keeps it for good.
type Placed struct {
	Cols [][]int `json:"cols"`
}

// EventTime says what an output column (TimestampTZ) has to do with event time, so that windows, emit = 'final' and joins
// over the view work as they do over the streams that it reads.
type EventTime struct {
	Col int `json:"col"`
	// Lag, in microseconds: once the watermark of these streams is at or above the column plus Lag, no row in time changes rows
	// with that value any more.
	Lag int64 `json:"lag,omitempty"`
	// Bounded promises that whatever row of the view still changes has the column plus Slack (microseconds) above the horizon.
	Bounded bool  `json:"bounded,omitempty"`
	Slack   int64 `json:"slack,omitempty"`
	// Window is set for the bound of a window.
	Window *WindowBound `json:"window,omitempty"`
}

// WindowBound says that a column is the bound of a window: Size, Slide and Offset are Hop's, 0 where they differ.
type WindowBound struct {
	End    bool  `json:"end,omitempty"` // else its start
	Size   int64 `json:"size,omitempty"`
	Slide  int64 `json:"slide,omitempty"`
	Offset int64 `json:"offset,omitempty"`
	// Twin is one more than the output column with the other bound; 0: there is none.
	Twin int `json:"twin,omitempty"`
	// Closes says that the start tells the end: windows of every kind but CUMULATE.
	Closes bool `json:"closes,omitempty"`
}

// Stage is a chain or tree of operators that runs without moving rows between partitions.
type Stage struct {
	Ops []Op `json:"ops"` // an operator reads only operators before it; the last one's output leaves the stage
	// Exchange says how the output reaches the next stage; the last stage has none.
	Exchange *Exchange `json:"exchange,omitempty"`
}

// Exchange moves a stage's output to the stages that read it: to the partition of the hash of the rows' key columns
// (none: all to partition 0), unless one of the flags says otherwise. Equal keys of two exchanges over columns of the
// same types meet in one partition.
type Exchange struct {
	Key []int `json:"key"` // output columns of the stage
	// Gather sends all rows to the node that was asked (the last stage of an ad-hoc query).
	Gather bool `json:"gather,omitempty"`
	// Broadcast sends all rows to every partition: the small side of a join.
	Broadcast bool `json:"broadcast,omitempty"`
	// Local leaves rows in their partition: they are where the next stage needs them. Key, if there is any, says by the hash of
	// which columns they are there already (for EXPLAIN).
	Local bool `json:"local,omitempty"`
}

// OpKind says which of Op's parts is set.
type OpKind string

const (
	OpScan      OpKind = "scan"       // rows of a stream or view
	OpInput     OpKind = "input"      // rows of an earlier stage, after its exchange
	OpFilter    OpKind = "filter"     // rows for which Pred is true
	OpProject   OpKind = "project"    // one column per expression
	OpTumble    OpKind = "tumble"     // input columns, then window_start and window_end; drops and counts late rows
	OpAggregate OpKind = "aggregate"  // group by
	OpEmitFinal OpKind = "emit_final" // holds rows back until the watermark reaches their window's end
	OpDistinct  OpKind = "distinct"   // each row once
	OpSort      OpKind = "sort"       // order, offset, limit (ad-hoc only; a view's LIMIT is a top_n)
	OpValues    OpKind = "values"     // constant rows (SELECT without FROM); of a stage's rows in partition 0 only

	OpHop          OpKind = "hop"           // input columns, then window_start and window_end, once for each window
	OpDropLate     OpKind = "drop_late"     // drops and counts rows at or below the watermark
	OpLate         OpKind = "late"          // the rows that a windowed operator drops as late
	OpSession      OpKind = "session"       // input columns, then window_start and window_end of the row's session
	OpJoin         OpKind = "join"          // of two inputs
	OpTemporalJoin OpKind = "temporal_join" // each left row with the right row as it is at the left row's tick
	OpUnion        OpKind = "union"         // all rows of all inputs
	OpSetOp        OpKind = "set_op"        // INTERSECT, EXCEPT [ALL] of two inputs
	OpTopN         OpKind = "top_n"         // the first rows of each group in an order
	OpWindow       OpKind = "window"        // window functions: OVER (PARTITION BY ... ORDER BY ...)
	OpUnnest       OpKind = "unnest"        // input columns, then the elements of a set-returning function
	OpExpand       OpKind = "expand"        // GROUPING SETS: each row once for each set
	OpUpsert       OpKind = "upsert"        // the changes of a table's log as changes of its rows
)

// Op is one operator; exactly the part that Kind names is set.
type Op struct {
	Kind   OpKind        `json:"kind"`
	Inputs []int         `json:"inputs,omitempty"` // indices into Stage.Ops
	Schema record.Schema `json:"schema"`           // of the output

	Scan      *Scan      `json:"scan,omitempty"`
	Input     *Input     `json:"input,omitempty"`
	Filter    *Filter    `json:"filter,omitempty"`
	Project   *Project   `json:"project,omitempty"`
	Tumble    *Tumble    `json:"tumble,omitempty"`
	Aggregate *Aggregate `json:"aggregate,omitempty"`
	EmitFinal *EmitFinal `json:"emit_final,omitempty"`
	Sort      *Sort      `json:"sort,omitempty"`
	Values    *Values    `json:"values,omitempty"`

	Hop          *Hop          `json:"hop,omitempty"`
	DropLate     *DropLate     `json:"drop_late,omitempty"`
	Late         *Late         `json:"late,omitempty"`
	Session      *Session      `json:"session,omitempty"`
	Join         *Join         `json:"join,omitempty"`
	TemporalJoin *TemporalJoin `json:"temporal_join,omitempty"`
	SetOp        *SetOp        `json:"set_op,omitempty"`
	TopN         *TopN         `json:"top_n,omitempty"`
	Window       *Window       `json:"window,omitempty"`
	Unnest       *Unnest       `json:"unnest,omitempty"`
	Expand       *Expand       `json:"expand,omitempty"`
	Upsert       *Upsert       `json:"upsert,omitempty"`
}

// ScanKind is the kind of thing that a Scan reads.
type ScanKind string

const (
	ScanStream ScanKind = "stream"
	ScanView   ScanKind = "view"
	// ScanDead reads dead_letters('stream'): the records that don't decode. Object is the stream's; Columns are among
	// DeadPartition, DeadOffset, DeadError and DeadRaw.
	ScanDead ScanKind = "dead"
)

// Columns of a ScanDead.
const (
	DeadPartition = "partition" // BigInt
	DeadOffset    = "offset"    // BigInt
	DeadError     = "error"     // Text: why the record doesn't decode
	DeadRaw       = "raw"       // Text: the record's value; bytes that are not UTF-8, and zero bytes, as \xNN
)

// Scan reads a stream's or a view's rows. Op.Schema holds the columns read, in the order of Columns.
type Scan struct {
	Kind    ScanKind `json:"kind"`
	Object  uint64   `json:"object"`  // catalog id
	Name    string   `json:"name"`    // as the user wrote it, for EXPLAIN
	Columns []string `json:"columns"` // needed columns by name, hidden ones (_partition, _offset, _tick, _time, _key, _watermark) too
	// KeyPrefix is a view's leading Key columns that the query fixes by equality, in order: a point or prefix read.
	// The filter above the scan checks the same columns again, so a reader may ignore it.
	KeyPrefix []record.Value `json:"key_prefix,omitempty"`
	// Keys, if any, are the whole keys of the only rows that are wanted of a view (ad-hoc only). Nothing above the scan
	// checks that; a reader may hand over more rows, and whoever made the plan drops them.
	Keys []KeyRead `json:"keys,omitempty"`
	// Index is a way to the rows by an index of the view; the filter above the scan checks the same again, so a reader may
	// ignore it.
	Index *IndexRead `json:"index,omitempty"`
	// AsOf, if not 0, is the tick as of which rows are read, whatever the statement's is (ad-hoc only).
	AsOf uint64 `json:"as_of,omitempty"`
	// Table says that Object is a table's: its rows, or its log. For EXPLAIN.
	Table bool `json:"table,omitempty"`
}

// KeyRead is the key of a row that is wanted, and the partition that the row is in, if it is there.
type KeyRead struct {
	Partition uint32         `json:"partition"`
	Key       []record.Value `json:"key"` // in the order of the view's Key
}

// IndexRead narrows a scan to the rows of a view whose indexed columns begin with the values of Equal, and of which the
// next one, where Low or High is set, is not below Low and not above High, both within reach.
type IndexRead struct {
	ID      uint64         `json:"id"`      // of the index in the catalog
	Name    string         `json:"name"`    // for EXPLAIN
	Columns []string       `json:"columns"` // that are indexed, in order
	Equal   []record.Value `json:"equal,omitempty"`
	Low     *record.Value  `json:"low,omitempty"`
	High    *record.Value  `json:"high,omitempty"`
}

// Hidden columns of every stream. They are columns of a scan when named.
const (
	ColPartition = "_partition" // BigInt
	ColOffset    = "_offset"    // BigInt
	ColTick      = "_tick"      // BigInt
	ColTime      = "_time"      // TimestampTZ, append time
	ColKey       = "_key"       // Text, NULL without a key
	// ColWatermark is for windowed operators only, not for users: TimestampTZ, the watermark of the records before this one
	// in its own partition's log (highest event time so far less the stream's delay), NULL while there is none.
	ColWatermark = "_watermark"
)

// Input reads what an earlier stage sends.
type Input struct {
	Stage int `json:"stage"`
}

// Filter keeps the rows for which Pred is true (neither false nor NULL).
type Filter struct {
	Pred Expr `json:"pred"`
}

// Project computes one column per expression.
type Project struct {
	Exprs []Expr `json:"exprs"`
}

// Tumble appends window_start and window_end (TimestampTZ) of the window [start, end) that holds the row's time.
// Windows are aligned with the Unix epoch plus Offset. A row whose time is NULL is dropped and counted among the
// errors; a row whose window_end is at or below its watermark is dropped and counted late.
type Tumble struct {
	Time      int   `json:"time"`      // input column
	Watermark int   `json:"watermark"` // input column with ColWatermark, or -1: nothing is late
	Size      int64 `json:"size"`      // microseconds
	Offset    int64 `json:"offset"`    // microseconds
}

// AggPhase says what an Aggregate reads and writes.
type AggPhase string

const (
	// AggSingle reads rows, keeps state, writes keys and results.
	AggSingle AggPhase = "single"
	// AggPartial reads the rows of one tick, keeps no state between ticks, and writes keys and the partial columns of
	// each aggregate (see Agg.PartialTypes) with weight +1.
	AggPartial AggPhase = "partial"
	// AggFinal reads keys and partial columns, keeps state, writes keys and results.
	AggFinal AggPhase = "final"
)

// Aggregate groups by Keys. Single and Final emit, at the end of a tick, -1 for a changed group's old row and +1 for
// its new one; a group whose number of rows falls to zero disappears. Without Keys there is one group that always
// exists, even with no input (count 0, other results NULL), in partition 0 only.
type Aggregate struct {
	Phase AggPhase `json:"phase"`
	Keys  []int    `json:"keys"` // input columns; in phase final the first len(Keys) columns
	Aggs  []Agg    `json:"aggs"`
	// AppendOnly promises that no input row has a negative weight: min and max then need no index of values.
	AppendOnly bool `json:"append_only"`
	// Panes (phase final only): the last two key columns are a pane, not a window; see Panes.
	Panes *Panes `json:"panes,omitempty"`
	// Session: the last two key columns are a row's or fragment's session; see SessionKeys.
	Session *SessionKeys `json:"session,omitempty"`
	// Expire, if set, lets a group be forgotten by one of its keys; see Expire. The input is append-only then. With Panes a
	// pane is forgotten once all of its windows are at or below the horizon, whatever Delay is, and with Session a session
	// once the horizon is at or above its end plus the larger one of Gap and Delay.
	Expire *Expire `json:"expire,omitempty"`
}

// AggFunc is an aggregate function.
type AggFunc string

const (
	AggCountStar AggFunc = "count(*)"
	AggCount     AggFunc = "count"
	AggSum       AggFunc = "sum" // of bigint and numeric: numeric; of double precision: double precision; of interval: interval
	AggMin       AggFunc = "min"
	AggMax       AggFunc = "max"
	AggAvg       AggFunc = "avg" // of bigint and numeric: numeric; of double precision: double precision; of interval: interval

	AggBoolAnd AggFunc = "bool_and" // sql writes every so
	AggBoolOr  AggFunc = "bool_or"
	AggBitAnd  AggFunc = "bit_and"
	AggBitOr   AggFunc = "bit_or"
	AggBitXor  AggFunc = "bit_xor"

	AggStddevPop  AggFunc = "stddev_pop" // these four: of bigint and numeric: numeric; of double precision: double precision
	AggStddevSamp AggFunc = "stddev_samp"
	AggVarPop     AggFunc = "var_pop"
	AggVarSamp    AggFunc = "var_samp"

	AggCovarPop      AggFunc = "covar_pop" // these: of Arg (y) and More[0] (x), both double precision
	AggCovarSamp     AggFunc = "covar_samp"
	AggCorr          AggFunc = "corr"
	AggRegrAvgX      AggFunc = "regr_avgx"
	AggRegrAvgY      AggFunc = "regr_avgy"
	AggRegrCount     AggFunc = "regr_count"
	AggRegrIntercept AggFunc = "regr_intercept"
	AggRegrR2        AggFunc = "regr_r2"
	AggRegrSlope     AggFunc = "regr_slope"
	AggRegrSXX       AggFunc = "regr_sxx"
	AggRegrSXY       AggFunc = "regr_sxy"
	AggRegrSYY       AggFunc = "regr_syy"

	AggPercentileCont AggFunc = "percentile_cont" // of double precision and interval; median is percentile_cont(0.5)
	AggPercentileDisc AggFunc = "percentile_disc" // of any ordered type
	AggMode           AggFunc = "mode"
	AggFirst          AggFunc = "first" // of the first row in Order; min_by(x, y) is first(x ORDER BY y) FILTER (WHERE y IS NOT NULL)
	AggLast           AggFunc = "last"  // of the last row in Order
	AggStringAgg      AggFunc = "string_agg"
	AggJSONBAgg       AggFunc = "jsonb_agg"
	AggArrayAgg       AggFunc = "array_agg"        // of any type but arrays: an array of it
	AggJSONBObjectAgg AggFunc = "jsonb_object_agg" // of Arg (text, the key) and More[0] (any type, the value); of a key's values the last in Order

	// AggApproxCountDistinct estimates with HyperLogLog (2^14 registers, a standard error of 0.8 %); over rows that may be
	// taken back it counts exactly.
	AggApproxCountDistinct AggFunc = "approx_count_distinct"
	// AggApproxPercentile is within 1 % of the value at the fraction Const[0] (DDSketch).
	AggApproxPercentile AggFunc = "approx_percentile"
)

// Agg is one aggregate over input column Arg (-1 for count(*)). Phase final finds its partial columns by PartialTypes,
// in the order of Aggs; there Arg, More, Filter and Order are left as phase partial has them.
type Agg struct {
	Func    AggFunc     `json:"func"`
	Arg     int         `json:"arg"`
	ArgType record.Type `json:"arg_type"`
	Type    record.Type `json:"type"` // of the result
	// More is the columns of further arguments, and MoreTypes their types: b of count(DISTINCT a, b), x of corr(y, x).
	More      []int         `json:"more,omitempty"`
	MoreTypes []record.Type `json:"more_types,omitempty"`
	// Distinct counts each value of the argument (or arguments) once. Aggregates over one argument with DISTINCT share
	// what is kept, whatever their Filter.
	Distinct bool `json:"distinct,omitempty"`
	// Filter, if not 0, is one more than the input column (Boolean) that is true for the rows that count.
	Filter int `json:"filter,omitempty"`
	// Order is the order of the rows for jsonb_agg, jsonb_object_agg, array_agg, string_agg, first and last; then (or without
	// it) by the argument's value. OrderTypes are its columns' types. With DISTINCT it may only name arguments, as in PostgreSQL.
	Order      []SortKey     `json:"order,omitempty"`
	OrderTypes []record.Type `json:"order_types,omitempty"`
	// Const is further constant arguments: string_agg's separator, a percentile's fraction (Double).
	Const []record.Value `json:"const,omitempty"`
	// Retract is for min and max in two phases over rows that may be taken back.
	Retract bool `json:"retract,omitempty"`
}

// EmitFinal holds each row back until the stage's watermark is at or above its window's end, then emits it.
// A change to a window that was emitted already is emitted at once.
type EmitFinal struct {
	WindowEnd int `json:"window_end"` // input column
}

// Sort orders by Keys, then drops Offset rows and keeps Limit (-1: all). Ties are broken by the whole row.
type Sort struct {
	Keys   []SortKey `json:"keys"`
	Limit  int64     `json:"limit"`
	Offset int64     `json:"offset"`
}

// SortKey is one column of an ORDER BY.
type SortKey struct {
	Col        int  `json:"col"`
	Desc       bool `json:"desc"`
	NullsFirst bool `json:"nulls_first"`
}

// Values is constant rows.
type Values struct {
	Rows [][]Expr `json:"rows"`
}

// Marshal encodes p.
func Marshal(p *Plan) ([]byte, error) { return json.Marshal(p) }

// Unmarshal decodes a plan of this version.
func Unmarshal(b []byte) (*Plan, error) {
	p := &Plan{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if p.Version < 1 || p.Version > Version {
		return nil, fmt.Errorf("plan: version %d, this build reads versions 1 to %d", p.Version, Version)
	}
	return p, nil
}
