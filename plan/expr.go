package plan

import "github.com/millrace/millrace/record"

// ExprKind says what an Expr is.
type ExprKind string

const (
	ExprCol   ExprKind = "col"   // input column Col
	ExprConst ExprKind = "const" // Const
	ExprCall  ExprKind = "call"  // Func over Args; NULL in, NULL out, unless the function says otherwise
	ExprAnd   ExprKind = "and"   // SQL's three-valued AND over Args
	ExprOr    ExprKind = "or"
	ExprNot   ExprKind = "not"
	ExprCase  ExprKind = "case"     // Args: when1, then1, when2, then2, ..., else (always there; a NULL constant without ELSE)
	ExprCoal  ExprKind = "coalesce" // first Arg that is not NULL; later ones are not evaluated
	ExprIsNil ExprKind = "is_null"
	ExprCast  ExprKind = "cast"         // Args[0] to Type, PostgreSQL's explicit cast
	ExprTick  ExprKind = "current_tick" // BigInt: the tick that the statement reads
	ExprNow   ExprKind = "now"          // TimestampTZ: the tick as a time
)

// Expr is a typed expression over the columns of one operator's input. In a live view an expression that fails
// (overflow, division by zero, bad cast) is NULL and counted; in an ad-hoc query it is an error.
// CASE and COALESCE evaluate an argument only for the rows that reach it, so that it can't fail for the others.
type Expr struct {
	Kind  ExprKind      `json:"kind"`
	Type  record.Type   `json:"type"`
	Col   int           `json:"col,omitempty"`
	Const *record.Value `json:"const,omitempty"`
	Func  string        `json:"func,omitempty"` // name of a Function, with Args of exactly its types
	Args  []Expr        `json:"args,omitempty"`
}
