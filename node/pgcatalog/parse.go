package pgcatalog

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// Query is a question about the catalog: a statement as package sql's are.
type Query struct {
	text string
	tree *pgquery.SelectStmt
}

var _ sql.Statement = (*Query)(nil)

// Text implements sql.Statement.
func (q *Query) Text() string { return q.text }

// hints are parts of texts that may be questions about the catalog; without any of them a text is none.
var hints = []string{
	"pg_", "information_schema", "version", "current_", "session_user", "regclass", "regtype", "set_config", "has_", "_description",
	"inet_", "to_reg", "user", "txid_",
}

// Parse returns the query that a statement's text is if it is about the catalog, else nil. The text's nesting must be
// bounded already.
func Parse(text string) *Query {
	lower := strings.ToLower(text)
	found := false
	for _, h := range hints {
		found = found || strings.Contains(lower, h)
	}
	if !found {
		return nil
	}
	tree, err := sql.Tree(text)
	if err != nil || len(tree.Stmts) != 1 {
		return nil
	}
	s := tree.Stmts[0].Stmt.GetSelectStmt()
	if s == nil {
		return nil
	}
	k := &kindOf{ctes: map[string]bool{}}
	k.walk(s.ProtoReflect())
	if k.user || !k.catalog {
		return nil
	}
	return &Query{text: text, tree: s}
}

// kindOf finds out what a query reads.
type kindOf struct {
	ctes    map[string]bool
	catalog bool // something that only the catalog has
	user    bool // a stream or view
}

func (k *kindOf) relation(r *pgquery.RangeVar) {
	switch {
	case r.Schemaname == "pg_catalog", r.Schemaname == "information_schema":
		k.catalog = true
	case r.Schemaname == "" && k.ctes[r.Relname]:
	case r.Schemaname == "" && definitions()["pg_catalog."+r.Relname] != nil:
		k.catalog = true
	default:
		k.user = true
	}
}

func (k *kindOf) function(f *pgquery.FuncCall) {
	name := lastName(f.Funcname)
	if catalogOnly[name] || strings.HasPrefix(name, "pg_") || strings.HasPrefix(name, "has_") {
		k.catalog = true
	}
}

// Prepared is a query that was checked.
type Prepared struct {
	Params  []uint32 // types of the parameters
	Columns []Column
	query   *query
}

// Prepare checks a query. given are the types of the first parameters as the client declared them; 0 leaves one open.
func (q *Query) Prepare(src Source, given []uint32) (*Prepared, error) {
	c := &compiler{params: append([]uint32(nil), given...), x: newExecution(src)}
	for i, oid := range c.params {
		if oid == unknownOID {
			c.params[i] = 0
		}
	}
	out, err := c.selectStmt(q.tree, nil)
	if err != nil {
		return nil, err
	}
	for i, t := range c.params {
		if t == 0 {
			c.params[i] = textOID
		}
	}
	p := &Prepared{Params: c.params, Columns: make([]Column, len(out.cols)), query: out}
	for i, col := range out.cols {
		if col.OID == unknownOID || col.OID == 0 {
			col.OID = textOID
		}
		p.Columns[i] = col
	}
	return p, nil
}

// Run evaluates a query with values for its parameters.
func (p *Prepared) Run(src Source, args []record.Value) ([][]Value, error) {
	x := newExecution(src)
	x.params = make([]Value, len(p.Params))
	for i := range p.Params {
		if i >= len(args) {
			return nil, fault.SQL(fault.Invalid, "42P02", "there is no parameter $%d", i+1)
		}
		v, err := x.parameter(args[i], p.Params[i])
		if err != nil {
			return nil, err
		}
		x.params[i] = v
	}
	rows, err := p.query.run(&env{x: x})
	if err != nil {
		return nil, err
	}
	for i, c := range p.Columns {
		if isReg(c.OID) {
			for _, row := range rows {
				if n, ok := row[i].(int64); ok {
					row[i] = x.regText(c.OID, n)
				}
			}
		}
	}
	return rows, nil
}

// parameter is a value as the evaluation has it.
func (x *execution) parameter(v record.Value, oid uint32) (Value, error) {
	if v.Null {
		return nil, nil
	}
	switch v.Type {
	case record.Boolean:
		return v.Int != 0, nil
	case record.BigInt:
		return v.Int, nil
	case record.Double:
		return v.Float, nil
	}
	return x.cast(string(record.AppendTextValue(nil, textValue(v))), textOID, oid)
}

// textValue is a value of type Unknown as text.
func textValue(v record.Value) record.Value {
	if v.Type == record.Unknown {
		v.Type = record.Text
	}
	return v
}
