package sql

import (
	"slices"
	"strconv"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// intervalParts are the arguments of make_interval, which all may be left out.
var intervalParts = []string{"years", "months", "weeks", "days", "hours", "mins", "secs"}

// arguments converts the arguments of a function: of make_interval named ones and fewer, of row_to_json and the like a row.
func (c *converter) arguments(f *pgquery.FuncCall, name string) ([]expr, error) {
	switch {
	case name == "make_interval":
		return c.intervalArguments(f)
	case slices.Contains(wholeRow, name) && len(f.Args) == 1 && f.Args[0].GetRowExpr() != nil:
		row := f.Args[0].GetRowExpr()
		parts, err := c.list(row.Args)
		if err != nil {
			return nil, err
		}
		pos := at(c.at(row.Location))
		object := &call{at: pos, name: "jsonb_build_object"}
		for i, p := range parts {
			object.args = append(object.args, &literal{at: pos, kind: litString, text: "f" + strconv.Itoa(i+1)}, p)
		}
		return []expr{object}, nil
	}
	return c.list(f.Args)
}

func (c *converter) intervalArguments(f *pgquery.FuncCall) ([]expr, error) {
	out := make([]expr, len(intervalParts))
	for i, a := range f.Args {
		if n := a.GetNamedArgExpr(); n != nil {
			if i = slices.Index(intervalParts, n.Name); i < 0 || out[i] != nil {
				return nil, c.src.fail(c.at(n.Location), stateNoFunction, suggest(n.Name, intervalParts), "make_interval has no argument %q, or has it already", n.Name)
			}
			a = n.Arg
		}
		if i >= len(out) {
			return nil, c.src.fail(c.at(f.Location), stateNoFunction, "", "make_interval takes at most %d arguments", len(out))
		}
		var err error
		if out[i], err = c.expr(a); err != nil {
			return nil, err
		}
	}
	for i := range out {
		if out[i] == nil {
			out[i] = &literal{at: at(c.at(f.Location)), kind: litNumber, text: "0"}
		}
	}
	return out, nil
}

// rowIsNull converts (a, b) IS NULL, and IS NOT NULL, which all of its columns must be.
func (c *converter) rowIsNull(n *pgquery.NullTest, row *pgquery.RowExpr) (expr, error) {
	parts, err := c.list(row.Args)
	if err != nil {
		return nil, err
	}
	pos := at(c.at(n.Location))
	if len(parts) == 0 {
		return nil, c.src.unsupported(pos.pos(), "", "an empty row is not supported")
	}
	for i, p := range parts {
		parts[i] = &isTest{at: pos, arg: p, what: isNull, not: n.Nulltesttype == pgquery.NullTestType_IS_NOT_NULL}
	}
	return joined(pos, logicAnd, parts), nil
}

// collate converts COLLATE of the collations that compare as everything does here.
func (c *converter) collate(n *pgquery.CollateClause) (expr, error) {
	switch name := lastName(n.Collname); name {
	case "C", "POSIX", "ucs_basic", "default":
		return c.expr(n.Arg)
	default:
		return nil, c.src.unsupported(c.at(n.Location), `text compares by bytes, as COLLATE "C"`, "COLLATE %q is not supported", name)
	}
}

// fullRange is the first modifier of INTERVAL(p).
const fullRange = 0x7FFF

// modifiers takes from a type's name the modifiers that a cast applies, where it has such.
func (n *typeName) modifiers() []int32 {
	if n.array || len(n.mods) == 0 {
		return nil
	}
	mods := n.mods
	switch n.name {
	case "varchar", "numeric", "timestamp", "timestamptz", "time":
	case "interval":
		if len(mods) != 2 || mods[0] != fullRange {
			return nil
		}
		mods = mods[1:]
	default:
		return nil
	}
	n.mods = nil
	return mods
}
