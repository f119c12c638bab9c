package sql

import (
	"errors"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// scopeColumn is a column that the expressions of one query may name.
type scopeColumn struct {
	table  string // alias or name of the relation
	name   string
	typ    record.Type
	id     int
	hidden bool // usable when named, not in *
	// qualified: usable with its table's name alone, because USING made another column of it.
	qualified bool
}

// scope is the columns of a query's FROM.
type scope struct {
	cols []scopeColumn
	seen map[string][]int // by name
	// parent is the columns of the query around this one.
	parent *scope
	// none says why there are no columns, where that needs to be told.
	none string
}

func newScope(cols []scopeColumn) *scope {
	s := &scope{cols: cols, seen: make(map[string][]int, len(cols))}
	for i, c := range cols {
		s.seen[c.name] = append(s.seen[c.name], i)
	}
	return s
}

// resolve returns the column that r names, in this scope or one around it.
func (s *scope) resolve(src *source, r *columnRef) (*scopeColumn, error) {
	i, err := s.find(src, r)
	if err == nil {
		return &s.cols[i], nil
	}
	var e *fault.Error
	if s.parent == nil || errors.As(err, &e) && e.GetSQLState() == stateAmbiguous {
		return nil, err
	}
	if c, perr := s.parent.resolve(src, r); perr == nil {
		return c, nil
	} else if len(s.cols) == 0 {
		return nil, perr
	}
	return nil, err
}

// find returns the column that r names. Hidden columns give way to others of the same name.
func (s *scope) find(src *source, r *columnRef) (int, error) {
	if r.table != "" && !s.hasTable(r.table) {
		return 0, s.unknownTable(src, r.pos(), r.table)
	}
	found, hidden := -1, -1
	for _, i := range s.seen[r.name] {
		c := &s.cols[i]
		switch {
		case r.table != "" && c.table != r.table, r.table == "" && c.qualified:
		case c.hidden:
			hidden = i
		case found >= 0:
			return 0, src.fail(r.pos(), stateAmbiguous, "", "column reference %q is ambiguous", r.name)
		default:
			found = i
		}
	}
	if found < 0 {
		found = hidden
	}
	if found < 0 {
		return 0, s.unknown(src, r)
	}
	return found, nil
}

func (s *scope) unknown(src *source, r *columnRef) error {
	if len(s.cols) == 0 {
		return src.fail(r.pos(), stateNoColumn, s.none, "unknown column %q", r.name)
	}
	names := make([]string, len(s.cols))
	for i, c := range s.cols {
		names[i] = c.name
	}
	hint := suggest(r.name, names)
	if hint == "" && src.text[r.pos()] == '"' {
		hint = "text is written in single quotes: '" + r.name + "'"
	}
	return src.fail(r.pos(), stateNoColumn, hint, "unknown column %q", r.name)
}

func (s *scope) unknownTable(src *source, pos int, name string) error {
	tables := s.tables()
	hint := suggest(name, tables)
	if hint == "" && len(tables) == 1 && tables[0] != "" {
		hint = "in this query it is called \"" + tables[0] + "\""
	}
	return src.fail(pos, stateNoRelation, hint, "unknown table %q", name)
}

func (s *scope) hasTable(name string) bool {
	return slices.ContainsFunc(s.cols, func(c scopeColumn) bool { return c.table == name })
}

func (s *scope) tables() []string {
	var out []string
	for _, c := range s.cols {
		if !slices.Contains(out, c.table) {
			out = append(out, c.table)
		}
	}
	return out
}
