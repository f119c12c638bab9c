package sql

import "github.com/millrace/millrace/record"

// Statement is one statement of a text: *Select, *CreateStream, *CreateView, *Drop, *Show, *Describe, *Explain,
// *Subscribe, *Insert or *Set. It is not changed after Parse, and may be planned more than once.
type Statement interface {
	// Text returns the statement as it was written, without the semicolon.
	Text() string
}

// statement is what all statements share.
type statement struct {
	src      *source
	from, to int            // bytes of src.text
	params   []record.Value // values of $1, $2, ...; see Bind
}

func (s *statement) Text() string { return s.src.text[s.from:s.to] }

// Select is a query.
type Select struct {
	statement
	at       int
	distinct bool
	items    []selectItem
	from     *fromItem // nil: without FROM
	where    expr      // nil: none; so are having, limit and offset
	groupBy  []expr
	having   expr
	orderBy  []orderItem
	limit    expr
	offset   expr
}

type selectItem struct {
	expr  expr
	alias string // empty: none
}

type orderItem struct {
	expr       expr
	desc       bool
	nullsFirst bool
}

type fromKind uint8

const (
	fromRelation fromKind = iota // stream or view
	fromTumble                   // TUMBLE(stream, ts, size [, offset])
	fromDead                     // dead_letters('stream')
	fromSubquery
)

type fromItem struct {
	at
	kind    fromKind
	name    string // of the stream or view
	nameAt  int
	alias   string   // empty: none
	columns []string // AS alias (a, b)
	time    *columnRef
	size    expr
	offset  expr // nil: none
	sub     *Select
}

// expr is an expression as it was written.
type expr interface{ pos() int }

// at is the position of an expression's first or most telling token, in bytes of the source.
type at int

func (a at) pos() int { return int(a) }

type literalKind uint8

const (
	litNull literalKind = iota
	litBool             // text is "true" or "false"
	litNumber
	litString
)

type (
	columnRef struct {
		at
		table, name string // table may be empty
	}
	star struct { // in a select list only
		at
		table string
	}
	literal struct {
		at
		kind literalKind
		text string
	}
	// call is a function call, and what PostgreSQL has a syntax of its own for: coalesce, nullif, greatest, least,
	// extract, now (CURRENT_TIMESTAMP), trim, substring, position, overlay.
	call struct {
		at
		name     string
		label    string // column name, where it isn't name
		args     []expr
		star     bool // count(*)
		distinct bool // count(DISTINCT x)
		filter   expr // FILTER (WHERE ...); nil: none
		syntax   bool // came from a syntax of its own
	}
	operator struct {
		at
		op          string // as it is written: +, ||, ->>
		left, right expr   // left is nil for a prefix operator
	}
	like struct {
		at
		left, pattern expr
		escape        expr // nil: none
		insensitive   bool
		not           bool
	}
	logic struct {
		at
		op   logicOp
		args []expr
	}
	caseOf struct {
		at
		arg   expr // nil: CASE WHEN
		whens []when
		els   expr // nil: none
	}
	castTo struct {
		at
		arg  expr
		typ  record.Type
		name string // PostgreSQL's internal name of the type (int8), a column's name when all else fails
		unit string // INTERVAL '5' MINUTE: minute
	}
	inList struct {
		at
		arg  expr
		list []expr
		not  bool
	}
	between struct {
		at
		arg, lo, hi expr
		symmetric   bool
		not         bool
	}
	isTest struct {
		at
		arg  expr
		what isWhat
		not  bool
	}
	distinctFrom struct {
		at
		left, right expr
		not         bool
	}
	// parameter is $n.
	parameter struct {
		at
		number int
	}
	// defaultValue is DEFAULT in INSERT's VALUES.
	defaultValue struct{ at }
)

type when struct{ cond, then expr }

type logicOp string

const (
	logicAnd logicOp = "AND"
	logicOr  logicOp = "OR"
	logicNot logicOp = "NOT"
)

type isWhat string

const (
	isNull    isWhat = "NULL"
	isTrue    isWhat = "TRUE"
	isFalse   isWhat = "FALSE"
	isUnknown isWhat = "UNKNOWN"
)

// option is one of WITH (name = value, ...).
type option struct {
	name    string
	value   string
	at      int // of the name
	valueAt int
}
