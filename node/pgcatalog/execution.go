package pgcatalog

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
)

// Bounds of one statement.
const (
	maxSteps = 20_000_000 // rows looked at
	maxRows  = 1_000_000  // rows held by one query
)

// execution is one run of a statement: the tables that it has read, and what it has spent.
type execution struct {
	src            Source
	database, user string
	backend        uint32
	params         []Value
	tables         map[string]*table
	cached         map[*leaf]*table
	subs           map[*subquery][][]Value
	working        map[*cte][][]Value // the rows that recursive queries found last
	steps          int
}

func newExecution(src Source) *execution {
	x := &execution{src: src, tables: map[string]*table{}, cached: map[*leaf]*table{}, subs: map[*subquery][][]Value{}, working: map[*cte][][]Value{}}
	x.database, x.user, x.backend = src.Identity()
	return x
}

func (x *execution) step() error {
	if x.steps++; x.steps > maxSteps {
		return fault.SQL(fault.Exhausted, "54000", "the query looks at more than %d rows of the catalog; join on equal columns, or ask for less", maxSteps)
	}
	return nil
}

// table is rows in memory, with an index for each column that was looked up.
type table struct {
	rows    [][]Value
	indexes map[int]map[Value][]int
}

// find returns the rows whose column equals v.
func (t *table) find(col int, v Value) []int {
	if t.indexes == nil {
		t.indexes = map[int]map[Value][]int{}
	}
	index := t.indexes[col]
	if index == nil {
		index = map[Value][]int{}
		for i, row := range t.rows {
			if hashable(row[col]) {
				index[row[col]] = append(index[row[col]], i)
			}
		}
		t.indexes[col] = index
	}
	return index[v]
}

func hashable(v Value) bool {
	switch v.(type) {
	case bool, int64, string:
		return true
	}
	return false
}

// named returns a table of the two schemas, as it is now.
func (x *execution) named(name string) *table {
	t := x.tables[name]
	if t == nil {
		t = &table{rows: definitions()[name].make(x)}
		x.tables[name] = t
	}
	return t
}

// cast converts a value to a type.
func (x *execution) cast(v Value, from, to uint32) (Value, error) {
	if v == nil || from == to {
		return v, nil
	}
	if elem := elementOf(to); elem != 0 {
		return x.castArray(v, elem, to)
	}
	switch {
	case isReg(to):
		return x.toReg(v, to)
	case isInteger(to):
		return toInteger(v)
	case isFloat(to):
		if s, ok := v.(string); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
			if err != nil {
				return nil, fault.SQL(fault.Invalid, "22P02", "invalid input syntax for type double precision: %q", s)
			}
			return f, nil
		}
		return toFloat(v), nil
	case to == boolOID:
		return toBool(v)
	case isReg(from):
		if n, ok := v.(int64); ok {
			return x.regText(from, n), nil
		}
	case to == pgtype.QCharOID:
		s := text(v)
		return s[:min(len(s), 1)], nil
	}
	if b, ok := v.(bool); ok && to == textOID {
		return strconv.FormatBool(b), nil
	}
	return text(v), nil
}

func (x *execution) castArray(v Value, elem, to uint32) (Value, error) {
	list := elements(v)
	if s, ok := v.(string); ok {
		var err error
		if to == oidInt2vector || to == oidOidvector {
			for f := range strings.FieldsSeq(s) {
				list = append(list, f)
			}
		} else if list, err = parseArray(s); err != nil {
			return nil, err
		}
	}
	out := make([]Value, len(list))
	for i, e := range list {
		var err error
		if out[i], err = x.cast(e, 0, elem); err != nil {
			return nil, err
		}
	}
	if to == oidInt2vector || to == oidOidvector {
		return vector(out), nil
	}
	return out, nil
}

func toInteger(v Value) (Value, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case float64:
		return int64(v), nil
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		if err != nil {
			return nil, fault.SQL(fault.Invalid, "22P02", "invalid input syntax for type integer: %q", v)
		}
		return n, nil
	}
	return nil, fault.SQL(fault.Invalid, "42846", "cannot cast this value to integer")
}

func toBool(v Value) (Value, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case int64:
		return v != 0, nil
	case string:
		switch strings.ToLower(strings.TrimSpace(v)) {
		case "t", "true", "y", "yes", "on", "1":
			return true, nil
		case "f", "false", "n", "no", "off", "0":
			return false, nil
		}
	}
	return nil, fault.SQL(fault.Invalid, "22P02", "invalid input syntax for type boolean: %q", text(v))
}

// toReg is a cast to regclass and so on: of a number, or of a name, which must be there.
func (x *execution) toReg(v Value, to uint32) (Value, error) {
	s, ok := v.(string)
	if !ok {
		return toInteger(v)
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	if oid, ok := x.lookup(to, s); ok {
		return oid, nil
	}
	switch to {
	case oidRegclass:
		return nil, fault.SQL(fault.NotFound, "42P01", "relation %q does not exist", s)
	case oidRegtype:
		return nil, fault.SQL(fault.NotFound, "42704", "type %q does not exist", s)
	case oidRegproc:
		return nil, fault.SQL(fault.NotFound, "42883", "function %q does not exist", s)
	}
	return nil, fault.SQL(fault.NotFound, "42704", "%q does not exist", s)
}

// lookup finds a name's number.
func (x *execution) lookup(reg uint32, name string) (int64, bool) {
	parts := identifiers(name)
	if len(parts) == 0 {
		return 0, false
	}
	last := parts[len(parts)-1]
	find := func(table string, nameCol, oidCol string) (int64, bool) {
		def := definitions()[table]
		t := x.named(table)
		for _, i := range t.find(def.column(nameCol), last) {
			if n, ok := t.rows[i][def.column(oidCol)].(int64); ok {
				return n, true
			}
		}
		return 0, false
	}
	switch reg {
	case oidRegclass:
		return find("pg_catalog.pg_class", "relname", "oid")
	case oidRegproc:
		return find("pg_catalog.pg_proc", "proname", "oid")
	case oidRegtype:
		if oid, ok := typeNames[strings.ToLower(name)]; ok {
			return int64(oid), true
		}
		if elem, ok := strings.CutSuffix(strings.ToLower(name), "[]"); ok {
			if oid, ok := typeNames[elem]; ok {
				return int64(arrayOf(oid)), true
			}
		}
		return find("pg_catalog.pg_type", "typname", "oid")
	case oidRegnamespace:
		return find("pg_catalog.pg_namespace", "nspname", "oid")
	case oidRegrole:
		return find("pg_catalog.pg_roles", "rolname", "oid")
	}
	return 0, false
}

// regText is the name of a number.
func (x *execution) regText(reg uint32, oid int64) string {
	find := func(table, nameCol string) string {
		def := definitions()[table]
		t := x.named(table)
		for _, i := range t.find(def.column("oid"), oid) {
			if s, ok := t.rows[i][def.column(nameCol)].(string); ok {
				return quoteIdent(s)
			}
		}
		if oid == 0 {
			return "-"
		}
		return strconv.FormatInt(oid, 10)
	}
	switch reg {
	case oidRegclass:
		return find("pg_catalog.pg_class", "relname")
	case oidRegproc:
		return find("pg_catalog.pg_proc", "proname")
	case oidRegtype:
		return formatType(oid, -1)
	case oidRegnamespace:
		return find("pg_catalog.pg_namespace", "nspname")
	case oidRegrole:
		return find("pg_catalog.pg_roles", "rolname")
	}
	return strconv.FormatInt(oid, 10)
}

// identifiers splits a name into its parts, without quotes, folded where there were none.
func identifiers(name string) []string {
	var out []string
	for i := 0; i <= len(name); i++ {
		var b strings.Builder
		if i < len(name) && name[i] == '"' {
			for i++; i < len(name); i++ {
				if name[i] == '"' {
					if i+1 < len(name) && name[i+1] == '"' {
						i++
					} else {
						break
					}
				}
				b.WriteByte(name[i])
			}
			for i < len(name) && name[i] != '.' {
				i++
			}
		} else {
			start := i
			for i < len(name) && name[i] != '.' {
				i++
			}
			b.WriteString(strings.ToLower(strings.TrimSpace(name[start:i])))
		}
		out = append(out, b.String())
	}
	return out
}

// quoteIdent quotes a name where it must be.
func quoteIdent(s string) string {
	plain := s != "" && (s[0] == '_' || s[0] >= 'a' && s[0] <= 'z')
	for i := range len(s) {
		c := s[i]
		plain = plain && (c == '_' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
	}
	if plain {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}
