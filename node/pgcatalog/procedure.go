package pgcatalog

import (
	"sync"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// typeFunctions are the numbers of a type's functions in PostgreSQL: input, output, receive, send; 0: none. Drivers tell
// arrays from other types by theirs.
type typeFunctions struct {
	prefix string // of the functions' names
	oids   [4]int64
}

var arrayFunctions = typeFunctions{"array_", [4]int64{750, 751, 2400, 2401}}

var functionsOfTypes = map[uint32]typeFunctions{
	pgtype.BoolOID: {"bool", [4]int64{1242, 1243, 2436, 2437}}, pgtype.ByteaOID: {"bytea", [4]int64{1244, 31, 2412, 2413}},
	pgtype.QCharOID: {"char", [4]int64{1245, 33, 2434, 2435}}, pgtype.NameOID: {"name", [4]int64{34, 35, 2422, 2423}},
	pgtype.Int8OID: {"int8", [4]int64{460, 461, 2408, 2409}}, pgtype.Int2OID: {"int2", [4]int64{38, 39, 2404, 2405}},
	oidInt2vector: {"int2vector", [4]int64{40, 41, 2410, 2411}}, pgtype.Int4OID: {"int4", [4]int64{42, 43, 2406, 2407}},
	oidRegproc: {"regproc", [4]int64{44, 45, 2444, 2445}}, pgtype.TextOID: {"text", [4]int64{46, 47, 2414, 2415}},
	pgtype.OIDOID: {"oid", [4]int64{1798, 1799, 2418, 2419}}, pgtype.XIDOID: {"xid", [4]int64{50, 51, 2440, 2441}},
	oidOidvector: {"oidvector", [4]int64{54, 55, 2420, 2421}}, pgtype.JSONOID: {"json_", [4]int64{321, 322, 323, 324}},
	oidPgNodeTree: {"pg_node_tree_", [4]int64{195, 196, 197, 198}}, pgtype.Float4OID: {"float4", [4]int64{200, 201, 2424, 2425}},
	pgtype.Float8OID: {"float8", [4]int64{214, 215, 2426, 2427}}, pgtype.UnknownOID: {"unknown", [4]int64{109, 110, 2416, 2417}},
	pgtype.ACLItemOID: {"aclitem", [4]int64{1031, 1032}}, pgtype.BPCharOID: {"bpchar", [4]int64{1044, 1045, 2430, 2431}},
	pgtype.VarcharOID: {"varchar", [4]int64{1046, 1047, 2432, 2433}}, pgtype.DateOID: {"date_", [4]int64{1084, 1085, 2468, 2469}},
	pgtype.TimeOID: {"time_", [4]int64{1143, 1144, 2470, 2471}}, pgtype.TimestampOID: {"timestamp_", [4]int64{1312, 1313, 2474, 2475}},
	pgtype.TimestamptzOID: {"timestamptz_", [4]int64{1150, 1151, 2476, 2477}}, pgtype.IntervalOID: {"interval_", [4]int64{1160, 1161, 2478, 2479}},
	pgtype.NumericOID: {"numeric_", [4]int64{1701, 1702, 2460, 2461}}, oidRegclass: {"regclass", [4]int64{2218, 2219, 2452, 2453}},
	oidRegtype: {"regtype", [4]int64{2220, 2221, 2454, 2455}}, pgtype.RecordOID: {"record_", [4]int64{2290, 2291, 2402, 2403}},
	2278: {"void_", [4]int64{2298, 2299, 3120, 3121}}, pgtype.UUIDOID: {"uuid_", [4]int64{2952, 2953, 2961, 2962}},
	pgtype.JSONBOID: {"jsonb_", [4]int64{3806, 3804, 3805, 3803}}, oidRegnamespace: {"regnamespace", [4]int64{4084, 4085, 4087, 4088}},
	oidRegrole: {"regrole", [4]int64{4098, 4092, 4094, 4095}},
}

// set puts the functions into a row of pg_type.
func (f typeFunctions) set(r row) row {
	for i, name := range []string{"typinput", "typoutput", "typreceive", "typsend"} {
		r[name] = f.oids[i]
	}
	return r
}

// procedure is a row of pg_proc.
type procedure struct {
	oid      int64
	name     string
	kind     string // f: function, a: aggregate, w: window function
	args     []uint32
	result   uint32
	variadic bool
	set      bool // gives rows
	strict   bool
}

// firstProcedure is the number of the first function that isn't a type's.
const firstProcedure = 8000

// procedures are the functions that statements may call, and those of the types.
var procedures = sync.OnceValue(func() []procedure {
	var out []procedure
	ofType := func(f typeFunctions, typ uint32) {
		for i, name := range []string{"in", "out", "recv", "send"} {
			if f.oids[i] == 0 {
				continue
			}
			p := procedure{oid: f.oids[i], name: f.prefix + name, kind: "f", args: []uint32{typ}, result: typ, strict: true}
			switch name {
			case "in":
				p.args = []uint32{pgtype.TextOID}
			case "out":
				p.result = pgtype.TextOID
			case "recv":
				p.args = []uint32{pgtype.ByteaOID}
			case "send":
				p.result = pgtype.ByteaOID
			}
			out = append(out, p)
		}
	}
	for _, t := range types {
		ofType(functionsOfTypes[t.oid], t.oid)
	}
	ofType(arrayFunctions, pgtype.TextArrayOID)
	next := int64(firstProcedure)
	add := func(p procedure) {
		p.oid = next
		next++
		out = append(out, p)
	}
	for _, f := range plan.Functions() {
		if !sql.Callable(f.Name) {
			continue
		}
		p := procedure{name: f.Name, kind: "f", result: oidOf(f.Result), variadic: f.Variadic, strict: !f.NullCall}
		for _, t := range f.Args {
			p.args = append(p.args, oidOf(t))
		}
		add(p)
	}
	addAggregates(add)
	return out
})

// addAggregates adds the aggregates of one argument, and the window functions.
func addAggregates(add func(procedure)) {
	for name, fn := range sql.Aggregates() {
		if fn.Pair() {
			add(procedure{name: name, kind: "a", args: []uint32{pgtype.Float8OID, pgtype.Float8OID}, result: pgtype.Float8OID})
			continue
		}
		for _, t := range record.Types() {
			if result, ok := fn.Result(t); ok {
				add(procedure{name: name, kind: "a", args: []uint32{oidOf(t)}, result: oidOf(result)})
			}
		}
	}
	for _, name := range []string{"row_number", "rank", "dense_rank", "ntile"} {
		add(procedure{name: name, kind: "w", result: pgtype.Int8OID})
	}
	for _, name := range []string{"percent_rank", "cume_dist"} {
		add(procedure{name: name, kind: "w", result: pgtype.Float8OID})
	}
}

func fillProcedures(_ *execution, add func(row)) {
	for _, p := range procedures() {
		args := make(vector, len(p.args))
		for i, t := range p.args {
			args[i] = int64(t)
		}
		r := row{
			"oid": p.oid, "proname": p.name, "pronamespace": schemaOIDs["pg_catalog"], "proowner": int64(ownerOID), "prolang": int64(internalLanguage),
			"procost": float64(1), "prokind": p.kind, "proisstrict": p.strict, "proretset": p.set, "provolatile": "i", "proparallel": "s",
			"pronargs": int64(len(p.args)), "prorettype": int64(p.result), "proargtypes": args, "prosrc": p.name,
		}
		if p.variadic {
			r["provariadic"] = int64(p.args[len(p.args)-1])
		}
		add(r)
	}
}

// internalLanguage is that of functions that are part of the server.
const internalLanguage = 12

// signature is the arguments of a function as psql lists them.
func (p *procedure) signature() string {
	out := ""
	for i, t := range p.args {
		if i > 0 {
			out += ", "
		}
		if p.variadic && i == len(p.args)-1 {
			out += "VARIADIC "
		}
		out += formatType(int64(t), -1)
	}
	return out
}

// addProcedures adds the functions that describe functions.
func addProcedures(f map[string]function) {
	describe := func(get func(p *procedure) string) function {
		return function{result: textOID, args: []uint32{pgtype.OIDOID}, least: 1, most: 1, call: func(_ *execution, a []Value) (Value, error) {
			list := procedures()
			for i := range list {
				if list[i].oid == a[0] {
					return get(&list[i]), nil
				}
			}
			return nil, nil
		}}
	}
	f["pg_get_function_arguments"] = describe((*procedure).signature)
	f["pg_get_function_identity_arguments"] = f["pg_get_function_arguments"]
	f["pg_get_function_result"] = describe(func(p *procedure) string { return formatType(int64(p.result), -1) })
}
