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
	with     []*cteDef
	set      *setOperation // nil: a plain SELECT or VALUES
	values   [][]expr      // VALUES; nil: none
	distinct bool
	on       []expr // DISTINCT ON
	items    []selectItem
	from     []*fromItem // separated by commas; none: without FROM
	where    expr        // nil: none; so are having, limit and offset
	groupBy  []groupItem
	having   expr
	windows  []*windowSpec // WINDOW w AS (...)
	orderBy  []orderItem
	limit    expr
	offset   expr
}

// cteDef is one of WITH name [(columns)] AS (query), ...
type cteDef struct {
	at
	name    string
	columns []string
	query   *Select
}

type setKind string

const (
	setUnion     setKind = "UNION"
	setIntersect setKind = "INTERSECT"
	setExcept    setKind = "EXCEPT"
)

type setOperation struct {
	kind        setKind
	all         bool
	left, right *Select
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

// groupItem is one item of GROUP BY: an expression, or sets of them.
type groupItem struct {
	at
	expr expr
	kind groupKind
	sets []groupItem // of ROLLUP and CUBE: lists of expressions; of GROUPING SETS: items
	list []expr      // a list in parentheses: one element of a set
}

type groupKind uint8

const (
	groupExpr groupKind = iota
	groupList           // (a, b), or () of no expression
	groupRollup
	groupCube
	groupSets
)

// windowSpec is OVER (...) or an entry of WINDOW.
type windowSpec struct {
	at
	name  string // of the entry, or the one that OVER name means
	base  string // OVER (base ORDER BY ...)
	keys  []expr
	order []orderItem
	frame *frameSpec // nil: the default
}

type frameSpec struct {
	at
	mode       string // rows, range, groups
	start, end frameBound
}

type frameBound struct {
	unbounded bool
	preceding bool
	offset    expr // nil: unbounded or the current row
}

type fromKind uint8

const (
	fromRelation fromKind = iota // stream, view, table, or WITH's
	fromWindow                   // TUMBLE, HOP, CUMULATE, SESSION
	fromDead                     // dead_letters('stream')
	fromLate                     // late_records('view' [, 'stream'])
	fromSubquery
	fromJoin
	fromFunction // unnest, generate_series, ...
)

type fromItem struct {
	at
	kind    fromKind
	name    string // of the relation, the window function or the function
	nameAt  int
	alias   string   // empty: none
	columns []string // AS alias (a, b)
	lateral bool
	sub     *Select

	input *fromItem // of a window: what it is over
	args  []expr    // of a window: those after the input; of a function

	ordinality bool

	join        joinSyntax
	left, right *fromItem
	on          expr     // nil: none
	using       []string // USING (a, b)
	natural     bool

	asOf expr  // FOR SYSTEM_TIME AS OF; nil: none
	past *past // AS OF TICK or TIMESTAMP; nil: the statement's tick

	stream   string // of late_records; "": it isn't named
	streamAt int
}

// past is AS OF TICK n or AS OF TIMESTAMP '...'.
type past struct {
	at
	tick bool // else a timestamp
	text span // of the source
	time expr // a literal or a parameter
	used bool
}

type joinSyntax string

const (
	syntaxInner joinSyntax = "INNER"
	syntaxLeft  joinSyntax = "LEFT"
	syntaxRight joinSyntax = "RIGHT"
	syntaxFull  joinSyntax = "FULL"
	syntaxCross joinSyntax = "CROSS"
)

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
		order    []orderItem
		within   bool        // WITHIN GROUP (ORDER BY ...)
		over     *windowSpec // OVER ...; nil: none
		syntax   bool        // came from a syntax of its own
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
		name string  // PostgreSQL's internal name of the type (int8), a column's name when all else fails
		unit string  // INTERVAL '5' MINUTE: minute
		mods []int32 // NUMERIC(5, 2): 5, 2
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
	// subquery is a query in an expression.
	subquery struct {
		at
		kind  subqueryKind
		arg   expr   // of IN, ANY and ALL
		op    string // of ANY and ALL
		not   bool   // NOT IN
		query *Select
	}
	grouping struct { // GROUPING(a, b)
		at
		args []expr
	}
	// parameter is $n.
	parameter struct {
		at
		number int
	}
	// defaultValue is DEFAULT in INSERT's VALUES.
	defaultValue struct{ at }
)

type subqueryKind string

const (
	subScalar subqueryKind = "scalar"
	subExists subqueryKind = "EXISTS"
	subIn     subqueryKind = "IN"
	subAny    subqueryKind = "ANY"
	subAll    subqueryKind = "ALL"
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
