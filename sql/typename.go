package sql

import (
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/record"
)

// typeName is the name of a type as it was written.
type typeName struct {
	name  string // PostgreSQL's internal name or what the user wrote, in lower case
	mods  []int32
	array bool
	at    int
}

// typeNames are the names that mean one of our types: those of the standard, PostgreSQL's and its internal ones.
// INTEGER and SMALLINT are taken as BIGINT, REAL as DOUBLE PRECISION.
var typeNames = map[string]record.Type{
	"boolean": record.Boolean, "bool": record.Boolean,
	"bigint": record.BigInt, "int": record.BigInt, "integer": record.BigInt, "smallint": record.BigInt,
	"int2": record.BigInt, "int4": record.BigInt, "int8": record.BigInt,
	"double precision": record.Double, "float": record.Double, "real": record.Double, "float4": record.Double, "float8": record.Double,
	"double":  record.Double,
	"numeric": record.Numeric, "decimal": record.Numeric, "dec": record.Numeric,
	"text": record.Text, "varchar": record.Text, "character varying": record.Text, "string": record.Text,
	"bytea":       record.Bytea,
	"timestamptz": record.TimestampTZ, "timestamp with time zone": record.TimestampTZ,
	"interval": record.IntervalT,
	"jsonb":    record.JSONB,
	"date":     record.Date, "time": record.Time, "time without time zone": record.Time,
	"timestamp": record.Timestamp, "timestamp without time zone": record.Timestamp, "uuid": record.UUID,
}

// otherTypes are PostgreSQL's types that aren't supported, and what to take instead.
var otherTypes = map[string]string{
	"timetz": "TIME", "time with time zone": "TIME",
	"json": "JSONB", "char": "TEXT", "character": "TEXT", "bpchar": "TEXT", "name": "TEXT", "money": "NUMERIC",
	"serial": "BIGINT", "bigserial": "BIGINT", "inet": "TEXT", "cidr": "TEXT", "macaddr": "TEXT", "xml": "TEXT", "bit": "BYTEA", "varbit": "BYTEA",
	"point": "two columns", "oid": "BIGINT", "regclass": "TEXT", "citext": "TEXT", "record": "JSONB",
}

func (n typeName) resolve(src *source) (record.Type, error) {
	t, ok := typeNames[n.name]
	if !ok {
		if instead, ok := otherTypes[n.name]; ok {
			return t, src.unsupported(n.at, "use "+instead, "type %s is not supported", n.name)
		}
		names := make([]string, 0, len(typeNames))
		for k := range typeNames {
			names = append(names, k)
		}
		slices.Sort(names)
		return t, src.fail(n.at, stateNoObject, suggest(n.name, names), "unknown type %q", n.name)
	}
	switch {
	case len(n.mods) > 0 && t == record.Numeric:
		return t, src.unsupported(n.at, "write NUMERIC, and round(x, 2) for a number of decimals", "precision and scale of NUMERIC are not supported")
	case len(n.mods) > 0 && t == record.Text:
		return t, src.unsupported(n.at, "write TEXT", "a length limit of text is not supported")
	case len(n.mods) > 0 && t != record.Double:
		return t, src.unsupported(n.at, "leave it out", "a precision of %s is not supported", t)
	}
	if n.array {
		return record.ArrayOf(t), nil
	}
	return t, nil
}

// intervalUnits are the bits of an interval's first modifier, as PostgreSQL's grammar sets them.
var intervalUnits = map[int32]string{1 << 2: "year", 1 << 1: "month", 1 << 3: "day", 1 << 10: "hour", 1 << 11: "minute", 1 << 12: "second"}

// intervalUnit returns the field of INTERVAL '5' MINUTE.
func intervalUnit(src *source, n typeName) (string, error) {
	if u, ok := intervalUnits[n.mods[0]]; ok && len(n.mods) == 1 {
		return u, nil
	}
	return "", src.unsupported(n.at, "write the units into the text, INTERVAL '1 hour 30 minutes'", "ranges of fields and precisions of INTERVAL are not supported")
}

// withUnit adds the unit of INTERVAL '5' MINUTE to its text, which must be a number.
func withUnit(src *source, pos int, text, unit string) (string, error) {
	if _, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err != nil {
		return "", src.fail(pos, stateUnsupported, "write the units into the text, INTERVAL '1 hour 30 minutes'", "INTERVAL %q %s must be a number", text, strings.ToUpper(unit))
	}
	return text + " " + unit, nil
}

func itoa(v int32) string { return strconv.FormatInt(int64(v), 10) }
