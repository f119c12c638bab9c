package sql

import (
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// Parameters ($1, $2, ...) go in three steps: Parse gives a statement that names them; Prepare tells what they and
// the result's columns are, without values; Bind puts values in, after which the statement is planned as any other.

// MaxParameters bounds the parameters of a statement.
const MaxParameters = 1 << 15

// Description is what is known of a statement before its parameters have values.
type Description struct {
	Params []record.Type // of $1, $2, ..., as their places ask for; text where nothing does
	Output record.Schema // of a *Select's result and of RETURNING; nil for statements without rows
	// Origins says which column of which object each one of Output is, as it stands there; nil: nothing is known.
	Origins []Origin
}

// Origin is a column of an object; the zero value is none: the column is computed.
type Origin struct {
	Object uint64
	Column int // from 1
}

// Prepare checks a statement whose parameters have no values yet: a *Select, *Insert, *Update, *Delete, or what an
// *ExplainStatement explains; of all others it tells nothing. given are the types that the client declared for the
// first parameters; Unknown leaves one open. Errors are those of PlanSelect and PlanInsert; 42P18 for a parameter
// that is skipped ($2 without $1).
func Prepare(s Statement, given []record.Type, c Catalog) (*Description, error) {
	ps := &parameters{open: true, types: append([]record.Type(nil), given...)}
	out := &Description{}
	switch s := s.(type) {
	case *Select:
		q, origins, err := describeSelect(s, ps, c)
		if err != nil {
			return nil, err
		}
		out.Output, out.Origins = q, origins
	case *Insert, *Update, *Delete:
		ch, err := planChange(s, ps, c)
		if err != nil {
			return nil, err
		}
		out.Output = ch.Returned
	case *ExplainStatement:
		if s.Statement == nil {
			return out, nil
		}
		d, err := Prepare(s.Statement, given, c)
		if err != nil {
			return nil, err
		}
		out.Params = d.Params
		return out, nil
	}
	for i, t := range ps.types {
		if t == record.Unknown {
			if !ps.seen[i] {
				return nil, sourceOf(s).fail(0, stateIndeterminate, "number them from $1 on", "type of parameter $%d is unknown: it isn't used", i+1)
			}
			t = record.Text
		}
		out.Params = append(out.Params, t)
	}
	return out, nil
}

// Bind returns s with values for its parameters, $1 first. A value of type Unknown is text that takes the type its
// place asks for, as a string literal does; Null is NULL. More values than parameters do no harm.
func Bind(s Statement, values []record.Value) Statement {
	switch s := s.(type) {
	case *Select:
		bound := *s
		bound.params = values
		return &bound
	case *Insert:
		bound := *s
		bound.params = values
		return &bound
	case *Update:
		bound := *s
		bound.params = values
		return &bound
	case *Delete:
		bound := *s
		bound.params = values
		return &bound
	case *ExplainStatement:
		if s.Statement == nil {
			return s
		}
		bound := *s
		bound.Statement = Bind(s.Statement, values)
		return &bound
	}
	return s
}

func sourceOf(s Statement) *source {
	switch s := s.(type) {
	case *Select:
		return s.src
	case *Insert:
		return s.src
	case *Update:
		return s.src
	case *Delete:
		return s.src
	case *Truncate:
		return s.src
	case *ExplainStatement:
		return s.src
	}
	return &source{}
}

// parameters is what a binder knows of them.
type parameters struct {
	values []record.Value
	open   bool // values are yet to come; types are found out
	types  []record.Type
	seen   map[int]bool
}

func valuesOf(s statement) *parameters { return &parameters{values: s.params} }

// nodeParam stands for a parameter without a value; col is its number, from 0.
const nodeParam plan.ExprKind = "param"

// parameter checks $n.
func (b *binder) parameter(e *parameter) (*node, error) {
	ps, i := b.params, e.number-1
	switch {
	case i < 0 || i >= MaxParameters:
		return nil, b.src.fail(e.pos(), stateNoParameter, "", "there is no parameter $%d", e.number)
	case ps != nil && ps.open:
		for len(ps.types) <= i {
			ps.types = append(ps.types, record.Unknown)
		}
		if ps.seen == nil {
			ps.seen = map[int]bool{}
		}
		ps.seen[i] = true
		return &node{kind: nodeParam, typ: ps.types[i], col: i, pos: e.pos(), size: 1}, nil
	case ps == nil || i >= len(ps.values):
		return nil, b.src.fail(e.pos(), stateNoParameter, "write the value, or give it with the statement", "there is no parameter $%d", e.number)
	}
	return constant(ps.values[i], e.pos()), nil
}

// settle gives an open parameter the type that its place asks for; the first place decides.
func (b *binder) settle(n *node, t record.Type) *node {
	if b.params.types[n.col] == record.Unknown {
		b.params.types[n.col] = t
	}
	typed := *n
	typed.typ = b.params.types[n.col]
	return &typed
}
