package plan

import "github.com/millrace/millrace/record"

// Operators that keep rows until event time has passed them use two marks of a tick, both functions of the logs up to
// it. The watermark says that windows which end at or below it are over, partitions that are idle left out. The
// horizon says that every later row of any source that would be at or below it is late by its own partition's
// watermark, and will have been dropped: what only such rows could still change may be forgotten. The horizon is never
// above the watermark, and is missing while some partition has no record at all.

// Expire says when an operator may forget a row or group: once the horizon is at or above column Col plus Delay.
type Expire struct {
	Col   int   `json:"col"`   // TimestampTZ; of the operator's input, of an Aggregate's output
	Delay int64 `json:"delay"` // microseconds
}

// Hop appends window_start and window_end (TimestampTZ) and repeats the row for each window [start, end) that holds its
// time. Windows end at every multiple of Slide since the Unix epoch, plus Offset, and are Size long; with Cumulate they begin at
// multiples of Size (plus Offset) and grow by Slide (a divisor of Size) up to Size. A row is dropped from each window whose end is at
// or below its watermark, and counted late once if it was dropped from any. A NULL time is an error, as in Tumble.
//
// With Pane it appends instead, once for each row, the pane [start, end) that holds its time (panes are the greatest
// common divisor of Size and Slide long, so that every window is whole panes; window_start stands for the pane's
// start) and, as window_end, the end of the first window that holds the row and isn't over at its watermark: all later
// windows that hold the pane hold the row. An Aggregate of phase partial over keys and these two, and one of phase final with Panes,
// then aggregate each row once, however many windows it is in.
type Hop struct {
	Time      int   `json:"time"`      // input column
	Watermark int   `json:"watermark"` // input column with ColWatermark, or -1: nothing is late
	Size      int64 `json:"size"`      // microseconds
	Slide     int64 `json:"slide"`     // microseconds
	Offset    int64 `json:"offset"`    // microseconds
	Cumulate  bool  `json:"cumulate,omitempty"`
	Pane      bool  `json:"pane,omitempty"`
}

// Panes makes windows of panes: Size, Slide, Offset and Cumulate are Hop's. The input has a pane's start and the end of its
// first window where the output has window_start and window_end (the last two key columns). With Final a window's rows
// come out once, when the watermark reaches its end, and changes to it after that at once. Without, a change of a pane is
// a change of each window that holds it.
type Panes struct {
	Size     int64 `json:"size"`
	Slide    int64 `json:"slide"`
	Offset   int64 `json:"offset"`
	Cumulate bool  `json:"cumulate,omitempty"`
	Final    bool  `json:"final,omitempty"`
}

// DropLate drops and counts late the rows whose time is at or below their watermark. A NULL time is kept.
type DropLate struct {
	Time      int `json:"time"`      // input column
	Watermark int `json:"watermark"` // input column with ColWatermark, or -1: nothing is late
	// Event, if not 0, is one more than the input column with the event time that Time is computed from: a row without it is
	// dropped and counted among the errors, as in Tumble, and one without Time, whose error the computation has counted, is dropped.
	Event int `json:"event,omitempty"`
}

// LateOf says which operator's late rows a Late lets through.
type LateOf string

const (
	LateOfTumble   LateOf = "tumble"    // Size and Offset are Tumble's
	LateOfHop      LateOf = "hop"       // Size, Slide, Offset and Cumulate are Hop's
	LateOfSession  LateOf = "session"   // Size is Session's Gap
	LateOfDropLate LateOf = "drop_late" // there are no windows
)

// Late lets exactly those rows through that the operator with the same input and parameters drops and counts late; it counts nothing
// itself, and rows whose time is NULL or out of range are not late. It appends window_start and window_end (TimestampTZ): of the
// window that the row missed (Tumble); from the start of the first to the end of the last window that it missed (Hop); of the
// session that it would be alone (Session). With LateOfDropLate it appends nothing.
type Late struct {
	Of        LateOf `json:"of"`
	Time      int    `json:"time"`             // input column
	Watermark int    `json:"watermark"`        // input column with ColWatermark
	Size      int64  `json:"size,omitempty"`   // microseconds
	Slide     int64  `json:"slide,omitempty"`  // microseconds
	Offset    int64  `json:"offset,omitempty"` // microseconds
	Cumulate  bool   `json:"cumulate,omitempty"`
}

// Session appends window_start and window_end of the row's session: rows of equal Keys of which each is less than Gap
// after the one before belong to one; it begins with its first row and ends Gap after its last. A row is late when its
// time plus Gap is at or below its watermark. When rows come or go, sessions merge, grow, shrink and split, and the
// rows of a session that changed are taken back and come again. It runs where equal keys meet.
// In phase partial of a grouping it is left out in favour of SessionKeys.
type Session struct {
	Keys      []int   `json:"keys"` // input columns
	Time      int     `json:"time"`
	Watermark int     `json:"watermark"` // or -1
	Gap       int64   `json:"gap"`       // microseconds
	Expire    *Expire `json:"expire,omitempty"`
}

// SessionKeys groups by sessions: the last two key columns of the input are, in phase partial, a row's time and time plus
// Gap (sql projects them, and drops late rows by the latter), and in phase final those of the rows that phase partial
// found to be within one session; the output has the session's window_start and window_end there. Phase partial merges
// what it can of a tick, phase final all. Only append-only inputs can be grouped so; others go through Session. A row
// that isn't late may still join a session that ended before the watermark: the session that was emitted is taken
// back then, and comes again when it ends.
type SessionKeys struct {
	Gap int64 `json:"gap"` // microseconds
	// Final (phase final) holds a session back until the watermark reaches its end.
	Final bool `json:"final,omitempty"`
}

// JoinKind says which rows a Join gives.
type JoinKind string

const (
	JoinInner JoinKind = "inner"
	JoinLeft  JoinKind = "left"
	JoinRight JoinKind = "right"
	JoinFull  JoinKind = "full"
	JoinSemi  JoinKind = "semi" // left rows with a match, once; left columns only
	JoinAnti  JoinKind = "anti" // left rows without a match; left columns only
	// JoinNotIn is anti with the NULL rules of NOT IN over the single key column: a left row with a NULL key, or any
	// left row while the right side has a NULL key, is kept only while the right side is empty (as it is under Residual).
	// Both sides are in one place (or the right one is broadcast).
	JoinNotIn JoinKind = "not_in"
)

// Join joins its two inputs on equality of LeftKeys and RightKeys (same types; NULL equals nothing, unless NullsEqual) and
// Residual, an expression over the left columns and then the right ones. No keys: every pair. It runs where equal keys meet. Output: the left
// columns, then the right ones, those of the side without a match NULL (semi, anti, not_in: the left columns only).
type Join struct {
	Kind       JoinKind `json:"kind"`
	LeftKeys   []int    `json:"left_keys"`
	RightKeys  []int    `json:"right_keys"`
	NullsEqual bool     `json:"nulls_equal,omitempty"`
	Residual   *Expr    `json:"residual,omitempty"`
	// LeftExpire and RightExpire let a side's rows be forgotten: no later row of the other side can match them. Columns are of that side's input.
	LeftExpire  *Expire `json:"left_expire,omitempty"`
	RightExpire *Expire `json:"right_expire,omitempty"`
	// LeftAppendOnly and RightAppendOnly promise that no row of that side has a negative weight. LeftUnique and RightUnique promise that
	// no two rows of that side have equal keys at the end of a tick.
	LeftAppendOnly  bool `json:"left_append_only,omitempty"`
	RightAppendOnly bool `json:"right_append_only,omitempty"`
	LeftUnique      bool `json:"left_unique,omitempty"`
	RightUnique     bool `json:"right_unique,omitempty"`
}

// TemporalJoin gives each row of the append-only left input with the right rows that match it then, and never changes it
// afterwards: right rows as they are at the end of the left row's tick or, with LeftTime and RightTime, the right
// versions that were valid at the left row's event time (the row with the highest RightTime at or below it; left rows wait until the watermark
// has passed their time, then their result is final). Right rows are unique by RightKeys, with RightTime by both. Expire is about right
// rows: one may be forgotten then and, with RightTime, only once a later one of its key may be, too.
type TemporalJoin struct {
	LeftKeys  []int   `json:"left_keys"`
	RightKeys []int   `json:"right_keys"`
	Outer     bool    `json:"outer,omitempty"` // left rows without a match are kept, with NULLs
	Residual  *Expr   `json:"residual,omitempty"`
	LeftTime  int     `json:"left_time"`        // input column, or -1
	RightTime int     `json:"right_time"`       // input column, or -1
	Expire    *Expire `json:"expire,omitempty"` // of the right input
	// Appended says that a view of its rows is stored as one whose rows only come, which they do. Plans of older builds lack it,
	// and their views are stored otherwise.
	Appended bool `json:"appended,omitempty"`
}

// SetOp computes INTERSECT or EXCEPT over whole rows; NULLs are equal. It runs where equal rows meet.
type SetOp struct {
	Except bool `json:"except"` // else INTERSECT
	All    bool `json:"all"`    // with ALL a row's weight counts: the lesser one, or the difference if positive; else each row once
}

// RankFunc is how TopN counts places.
type RankFunc string

const (
	RankRowNumber RankFunc = "row_number"
	RankRank      RankFunc = "rank"
	RankDense     RankFunc = "dense_rank"
)

// TopN keeps, in each group of equal Keys (none: one group, in partition 0), the rows whose place in Order is above Offset and at most
// Offset plus Limit (-1: no limit). Ties are broken by the whole row for row_number, so that the choice is a function of the rows alone. With
// Place it appends the place (BigInt). It runs where equal keys meet.
type TopN struct {
	Func   RankFunc  `json:"func"`
	Keys   []int     `json:"keys"`
	Order  []SortKey `json:"order"`
	Limit  int64     `json:"limit"`
	Offset int64     `json:"offset"`
	Place  bool      `json:"place,omitempty"`
	// AppendOnly promises that no input row has a negative weight: rows that fell off are then forgotten.
	AppendOnly bool    `json:"append_only,omitempty"`
	Expire     *Expire `json:"expire,omitempty"`
}

// Window appends one column per function of Funcs over the rows of equal Keys in Order; ties are broken by the whole row (but are
// peers for rank, dense_rank, percent_rank, cume_dist and RANGE frames). It runs where equal keys meet.
type Window struct {
	Keys   []int        `json:"keys"`
	Order  []SortKey    `json:"order"`
	Funcs  []WindowFunc `json:"funcs"`
	Expire *Expire      `json:"expire,omitempty"`
}

// WindowFunc is one function of a Window: row_number, rank, dense_rank, percent_rank, cume_dist, ntile, lag, lead, first_value,
// last_value, nth_value, or an aggregate (Agg) over the frame.
type WindowFunc struct {
	Name  string         `json:"name"`
	Args  []int          `json:"args,omitempty"`  // input columns: the value, then lag's and lead's default, if given
	Const []record.Value `json:"const,omitempty"` // lag's and lead's distance, ntile's and nth_value's number
	Agg   *Agg           `json:"agg,omitempty"`   // Name is "agg"
	Type  record.Type    `json:"type"`            // of the result
	Frame Frame          `json:"frame"`
}

// FrameBound is one end of a frame.
type FrameBound struct {
	// Unbounded, else Offset rows (ROWS), groups of peers (GROUPS) or distance in the order column (RANGE; Interval for times) from the current row: negative
	// is preceding, 0 the current row.
	Unbounded bool            `json:"unbounded,omitempty"`
	Offset    int64           `json:"offset,omitempty"`
	Interval  record.Interval `json:"interval,omitzero"`
}

// Frame is a window function's frame, PostgreSQL's. The zero value isn't the default: sql writes what holds.
type Frame struct {
	Mode  string     `json:"mode"` // rows, range, groups
	Start FrameBound `json:"start"`
	End   FrameBound `json:"end"`
}

// Unnest appends, for each row, the elements of a set-returning function of its columns: Func is "unnest" (one array; the element),
// "generate_series" (start, stop, step), "jsonb_array_elements", "jsonb_array_elements_text", "jsonb_each", "jsonb_each_text",
// "jsonb_object_keys", "regexp_split_to_table", "string_to_table".
// With Ordinality a BigInt from 1 follows. With Outer a row without elements is kept once, with NULLs.
type Unnest struct {
	Func       string `json:"func"`
	Args       []Expr `json:"args"`
	Outer      bool   `json:"outer,omitempty"`
	Ordinality bool   `json:"ordinality,omitempty"`
}

// Expand repeats each row for each of Sets: key columns (of Keys) that aren't in the set become NULL, and a BigInt column follows with
// GROUPING's bits: for each of Keys, in order, a 1 if it isn't in the set, the last key's being the lowest bit; equal sets are
// told apart by bits above those.
type Expand struct {
	Keys []int   `json:"keys"`
	Sets [][]int `json:"sets"` // indices into Keys
}

// Upsert turns the records of a table's log, in the order of their offsets, into changes of the table's rows: the last record of a
// key is its row. Input: the row's columns, then Deleted and Offset. Output: the row's columns. It runs where equal keys meet, and all records of a key
// come from one partition's log.
type Upsert struct {
	Keys    []int `json:"keys"`    // input columns of the primary key
	Deleted int   `json:"deleted"` // input column (Boolean): the record is a tombstone
	Offset  int   `json:"offset"`  // input column (BigInt)
}
