package pgcatalog

import (
	"github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// walk visits all of a tree. Its depth is bounded by the limits of package sql.
func (k *kindOf) walk(m protoreflect.Message) {
	switch n := m.Interface().(type) {
	case *pg_query.WithClause:
		for _, c := range n.Ctes {
			k.ctes[c.GetCommonTableExpr().GetCtename()] = true
		}
	case *pg_query.RangeVar:
		k.relation(n)
	case *pg_query.FuncCall:
		k.function(n)
	case *pg_query.SQLValueFunction:
		if !timeFunction(n.Op) {
			k.catalog = true
		}
	case *pg_query.TypeName:
		switch lastName(n.Names) {
		case "regclass", "regtype", "regproc", "regnamespace", "regrole", "oid", "name":
			k.catalog = true
		}
	case *pg_query.SelectStmt: // its WITH is visited first, so that its names are known
		if n.WithClause != nil {
			k.walk(n.WithClause.ProtoReflect())
		}
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Kind() != protoreflect.MessageKind:
		case f.IsList():
			for i := range v.List().Len() {
				k.walk(v.List().Get(i).Message())
			}
		default:
			k.walk(v.Message())
		}
		return true
	})
}

// readsItself tells whether a query of WITH RECURSIVE reads its own name.
func readsItself(t *pg_query.CommonTableExpr) bool {
	found := false
	var walk func(m protoreflect.Message)
	walk = func(m protoreflect.Message) {
		if r, ok := m.Interface().(*pg_query.RangeVar); ok && r.Schemaname == "" && r.Relname == t.Ctename {
			found = true
		}
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsMap() || f.Kind() != protoreflect.MessageKind:
			case f.IsList():
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			default:
				walk(v.Message())
			}
			return true
		})
	}
	walk(t.Ctequery.ProtoReflect())
	return found
}

// timeFunction tells CURRENT_TIMESTAMP and its like, which statements over streams know.
func timeFunction(op pg_query.SQLValueFunctionOp) bool {
	switch op {
	case pg_query.SQLValueFunctionOp_SVFOP_CURRENT_ROLE, pg_query.SQLValueFunctionOp_SVFOP_CURRENT_USER,
		pg_query.SQLValueFunctionOp_SVFOP_USER, pg_query.SQLValueFunctionOp_SVFOP_SESSION_USER,
		pg_query.SQLValueFunctionOp_SVFOP_CURRENT_CATALOG, pg_query.SQLValueFunctionOp_SVFOP_CURRENT_SCHEMA:
		return false
	}
	return true
}
