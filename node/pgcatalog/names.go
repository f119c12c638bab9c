package pgcatalog

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/record"
)

// typeInfo is a row of pg_type.
type typeInfo struct {
	oid      uint32
	name     string // of pg_type
	display  string // as format_type tells it
	length   int64
	category string
	array    uint32 // its array type; 0: none
}

// types are PostgreSQL's types that something here has, or that drivers ask for.
var types = []typeInfo{
	{pgtype.BoolOID, "bool", "boolean", 1, "B", pgtype.BoolArrayOID},
	{pgtype.ByteaOID, "bytea", "bytea", -1, "U", pgtype.ByteaArrayOID},
	{pgtype.QCharOID, "char", `"char"`, 1, "Z", pgtype.QCharArrayOID},
	{pgtype.NameOID, "name", "name", 64, "S", pgtype.NameArrayOID},
	{pgtype.Int8OID, "int8", "bigint", 8, "N", pgtype.Int8ArrayOID},
	{pgtype.Int2OID, "int2", "smallint", 2, "N", pgtype.Int2ArrayOID},
	{oidInt2vector, "int2vector", "int2vector", -1, "A", 1006},
	{pgtype.Int4OID, "int4", "integer", 4, "N", pgtype.Int4ArrayOID},
	{oidRegproc, "regproc", "regproc", 4, "N", 1008},
	{pgtype.TextOID, "text", "text", -1, "S", pgtype.TextArrayOID},
	{pgtype.OIDOID, "oid", "oid", 4, "N", pgtype.OIDArrayOID},
	{pgtype.XIDOID, "xid", "xid", 4, "U", pgtype.XIDArrayOID},
	{oidOidvector, "oidvector", "oidvector", -1, "A", 1013},
	{pgtype.JSONOID, "json", "json", -1, "U", pgtype.JSONArrayOID},
	{oidPgNodeTree, "pg_node_tree", "pg_node_tree", -1, "Z", 0},
	{pgtype.Float4OID, "float4", "real", 4, "N", pgtype.Float4ArrayOID},
	{pgtype.Float8OID, "float8", "double precision", 8, "N", pgtype.Float8ArrayOID},
	{pgtype.UnknownOID, "unknown", "unknown", -2, "X", 0},
	{pgtype.ACLItemOID, "aclitem", "aclitem", 12, "U", pgtype.ACLItemArrayOID},
	{pgtype.BPCharOID, "bpchar", "character", -1, "S", pgtype.BPCharArrayOID},
	{pgtype.VarcharOID, "varchar", "character varying", -1, "S", pgtype.VarcharArrayOID},
	{pgtype.DateOID, "date", "date", 4, "D", pgtype.DateArrayOID},
	{pgtype.TimeOID, "time", "time without time zone", 8, "D", pgtype.TimeArrayOID},
	{pgtype.TimestampOID, "timestamp", "timestamp without time zone", 8, "D", pgtype.TimestampArrayOID},
	{pgtype.TimestamptzOID, "timestamptz", "timestamp with time zone", 8, "D", pgtype.TimestamptzArrayOID},
	{pgtype.IntervalOID, "interval", "interval", 16, "T", pgtype.IntervalArrayOID},
	{pgtype.NumericOID, "numeric", "numeric", -1, "N", pgtype.NumericArrayOID},
	{oidRegclass, "regclass", "regclass", 4, "N", 2210},
	{oidRegtype, "regtype", "regtype", 4, "N", oidRegtypeArray},
	{pgtype.RecordOID, "record", "record", -1, "P", pgtype.RecordArrayOID},
	{2202, "regprocedure", "regprocedure", 4, "N", 2207},
	{2203, "regoperator", "regoperator", 4, "N", 2208},
	{oidAnyArray, "anyarray", "anyarray", -1, "P", 0},
	{2278, "void", "void", 4, "P", 0},
	{pgtype.UUIDOID, "uuid", "uuid", 16, "U", pgtype.UUIDArrayOID},
	{pgtype.JSONBOID, "jsonb", "jsonb", -1, "U", pgtype.JSONBArrayOID},
	{oidRegnamespace, "regnamespace", "regnamespace", 4, "N", 4090},
	{oidRegrole, "regrole", "regrole", 4, "N", 4097},
}

// typeNames are the types that casts may name.
var typeNames = func() map[string]uint32 {
	out := map[string]uint32{
		"integer": pgtype.Int4OID, "int": pgtype.Int4OID, "bigint": pgtype.Int8OID, "smallint": pgtype.Int2OID, "boolean": pgtype.BoolOID,
		"double precision": pgtype.Float8OID, "real": pgtype.Float4OID, "decimal": pgtype.NumericOID, "character varying": pgtype.VarcharOID,
		"character": pgtype.BPCharOID, "timestamp with time zone": pgtype.TimestamptzOID, "timestamp without time zone": pgtype.TimestampOID,
		"sql_identifier": pgtype.NameOID, "character_data": pgtype.VarcharOID, "cardinal_number": pgtype.Int4OID, "yes_or_no": pgtype.VarcharOID,
	}
	for _, t := range types {
		out[t.name] = t.oid
	}
	return out
}()

// arrayTypes are the types of arrays by their elements'.
var arrayTypes = func() map[uint32]uint32 {
	out := map[uint32]uint32{}
	for _, t := range types {
		out[t.oid] = t.array
	}
	return out
}()

// categoryOf is a type's typcategory.
func categoryOf(oid uint32) string {
	for _, t := range types {
		if t.oid == oid {
			return t.category
		}
	}
	return "A"
}

// formatType is a type as SQL spells it.
func formatType(oid, mod int64) string {
	for _, t := range types {
		switch {
		case int64(t.oid) == oid && mod > 4 && (t.oid == pgtype.VarcharOID || t.oid == pgtype.BPCharOID):
			return t.display + "(" + strconv.FormatInt(mod-4, 10) + ")"
		case int64(t.oid) == oid:
			return t.display
		case t.array != 0 && int64(t.array) == oid:
			return t.display + "[]"
		}
	}
	if oid == 0 {
		return "-"
	}
	return "???"
}

// oidOf is PostgreSQL's type of ours.
func oidOf(t record.Type) uint32 {
	name, array := strings.CutSuffix(t.String(), "[]")
	if oid, ok := typeNames[name]; ok {
		if array {
			return arrayTypes[oid]
		}
		return oid
	}
	return pgtype.TextOID
}
