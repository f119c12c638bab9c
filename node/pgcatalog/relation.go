package pgcatalog

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/sql"
)

// Objects are numbered from three ranges, so that a table, its primary key and that key's constraint, which are one
// object here, have numbers of their own.
const (
	oidRange      = 1 << 29
	keyOIDs       = 1 << 30
	constraintOID = keyOIDs + oidRange
)

// btreeOID is the access method of all indexes: an index here finds rows by equality and ranges of leading columns.
const btreeOID = 403

// index is an index of a relation as pg_index has it.
type index struct {
	oid     int64
	name    string
	columns []int
	primary bool
}

// keyName is the name of a primary key's index and constraint, as PostgreSQL gives it.
func (r *Relation) keyName() string {
	name := r.Name
	for len(name)+len("_pkey") > sql.MaxNameBytes {
		name = strings.ToValidUTF8(name[:len(name)-1], "")
	}
	return name + "_pkey"
}

// hasKey tells whether r has a primary key: a view's rows are unique in its key, but nobody declared it.
func (r *Relation) hasKey() bool { return !r.View && len(r.Key) > 0 }

// indexes returns the primary key's and the others.
func (r *Relation) indexes() []index {
	var out []index
	if r.hasKey() {
		out = append(out, index{oid: keyOIDs + int64(r.ID%oidRange), name: r.keyName(), columns: r.Key, primary: true})
	}
	for _, ix := range r.Indexes {
		out = append(out, index{oid: OID(ix.ID), name: ix.Name, columns: ix.Columns})
	}
	return out
}

// names are the columns of an index, quoted where they must be.
func (r *Relation) names(columns []int) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = quoteIdent(r.Columns[c].Name)
	}
	return out
}

func (r *Relation) indexDefinition(ix index) string {
	kind := "CREATE INDEX "
	if ix.primary {
		kind = "CREATE UNIQUE INDEX "
	}
	return kind + quoteIdent(ix.name) + " ON " + sql.PublicSchema + "." + quoteIdent(r.Name) + " USING btree (" + strings.Join(r.names(ix.columns), ", ") + ")"
}

func (r *Relation) keyDefinition() string {
	return "PRIMARY KEY (" + strings.Join(r.names(r.Key), ", ") + ")"
}

// numbers is columns counted from 1.
func numbers(columns []int) []Value {
	out := make([]Value, len(columns))
	for i, c := range columns {
		out[i] = int64(c + 1)
	}
	return out
}

// operatorClasses are the B-tree operator classes of types, as PostgreSQL numbers them.
var operatorClasses = map[uint32]int64{
	pgtype.BoolOID: 10003, pgtype.ByteaOID: 10006, pgtype.DateOID: 3122, pgtype.Float8OID: 3123, pgtype.Int8OID: 3124, pgtype.IntervalOID: 10022,
	pgtype.JSONBOID: 10088, pgtype.NumericOID: 3125, pgtype.TextOID: 3126, pgtype.TimeOID: 10038, pgtype.TimestampOID: 3128, pgtype.TimestamptzOID: 3127,
	pgtype.UUIDOID: 10065,
}

// arrayClass is that of all arrays.
const arrayClass = 10000

// eachClass calls visit for every operator class; each is a family of its own.
func eachClass(visit func(oid int64, name string, of uint32)) {
	for _, t := range types {
		if oid, ok := operatorClasses[t.oid]; ok {
			visit(oid, t.name+"_ops", t.oid)
		}
	}
	visit(arrayClass, "array_ops", oidAnyArray)
}

func fillOperatorClasses(_ *execution, add func(row)) {
	eachClass(func(oid int64, name string, of uint32) {
		add(row{
			"oid": oid, "opcmethod": int64(btreeOID), "opcname": name, "opcnamespace": schemaOIDs["pg_catalog"], "opcowner": int64(ownerOID),
			"opcfamily": oid, "opcintype": int64(of), "opcdefault": true,
		})
	})
}

func fillOperatorFamilies(_ *execution, add func(row)) {
	eachClass(func(oid int64, name string, _ uint32) {
		add(row{"oid": oid, "opfmethod": int64(btreeOID), "opfname": name, "opfnamespace": schemaOIDs["pg_catalog"], "opfowner": int64(ownerOID)})
	})
}

func fillIndexes(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		for _, ix := range r.indexes() {
			var classes, collations, options vector
			for _, c := range ix.columns {
				oid := oidOf(r.Columns[c].Type)
				class, ok := operatorClasses[oid]
				if !ok {
					class = arrayClass
				}
				collation := int64(0)
				if categoryOf(oid) == "S" {
					collation = defaultCollation
				}
				classes, collations, options = append(classes, class), append(collations, collation), append(options, int64(0))
			}
			add(row{
				"indexrelid": ix.oid, "indrelid": r.OID(), "indnatts": int64(len(ix.columns)), "indnkeyatts": int64(len(ix.columns)),
				"indisunique": ix.primary, "indisprimary": ix.primary, "indimmediate": true, "indisvalid": true, "indisready": true, "indislive": true,
				"indkey": vector(numbers(ix.columns)), "indcollation": collations, "indclass": classes, "indoption": options,
			})
		}
	}
}

func fillIndexList(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		for _, ix := range r.indexes() {
			add(row{"schemaname": sql.PublicSchema, "tablename": r.Name, "indexname": ix.name, "indexdef": r.indexDefinition(ix)})
		}
	}
}

func fillConstraints(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		if !r.hasKey() {
			continue
		}
		add(row{
			"oid": constraintOID + int64(r.ID%oidRange), "conname": r.keyName(), "connamespace": schemaOIDs[sql.PublicSchema], "contype": "p",
			"convalidated": true, "conrelid": r.OID(), "conindid": r.indexes()[0].oid, "conislocal": true, "connoinherit": true,
			"conkey": numbers(r.Key), "confupdtype": " ", "confdeltype": " ", "confmatchtype": " ",
		})
	}
}

func fillDefaults(x *execution, add func(row)) {
	next := int64(constraintOID)
	for _, r := range x.src.Relations() {
		for i, text := range r.Defaults {
			if text != "" {
				next++
				add(row{"oid": next, "adrelid": r.OID(), "adnum": int64(i + 1), "adbin": text})
			}
		}
	}
}

// addDefinitions adds the functions that write definitions out.
func addDefinitions(f map[string]function) {
	f["pg_get_indexdef"] = function{result: textOID, args: []uint32{oidRegclass, int4OID, boolOID}, least: 1, most: 3, call: func(x *execution, a []Value) (Value, error) {
		for _, r := range x.src.Relations() {
			for _, ix := range r.indexes() {
				if ix.oid != a[0] {
					continue
				}
				if len(a) == 1 || a[1] == int64(0) {
					return r.indexDefinition(ix), nil
				}
				n, _ := a[1].(int64)
				if n < 1 || n > int64(len(ix.columns)) {
					return "", nil
				}
				return r.names(ix.columns)[n-1], nil
			}
		}
		return nil, nil
	}}
	f["pg_get_constraintdef"] = function{result: textOID, args: []uint32{pgtype.OIDOID, boolOID}, least: 1, most: 2, call: func(x *execution, a []Value) (Value, error) {
		for _, r := range x.src.Relations() {
			if r.hasKey() && constraintOID+int64(r.ID%oidRange) == a[0] {
				return r.keyDefinition(), nil
			}
		}
		return nil, nil
	}}
	// An expression's stored form is its text here.
	f["pg_get_expr"] = function{result: textOID, args: []uint32{textOID, pgtype.OIDOID, boolOID}, least: 2, most: 3, call: func(_ *execution, a []Value) (Value, error) {
		return a[0], nil
	}}
}

// The standard's tables of constraints.

func fillTableConstraints(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		if r.hasKey() {
			add(row{
				"constraint_catalog": x.database, "constraint_schema": sql.PublicSchema, "constraint_name": r.keyName(), "table_catalog": x.database,
				"table_schema": sql.PublicSchema, "table_name": r.Name, "constraint_type": "PRIMARY KEY", "is_deferrable": "NO", "initially_deferred": "NO",
				"enforced": "YES",
			})
		}
	}
}

func fillKeyColumns(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		if !r.hasKey() {
			continue
		}
		for i, c := range r.Key {
			add(row{
				"constraint_catalog": x.database, "constraint_schema": sql.PublicSchema, "constraint_name": r.keyName(), "table_catalog": x.database,
				"table_schema": sql.PublicSchema, "table_name": r.Name, "column_name": r.Columns[c].Name, "ordinal_position": int64(i + 1),
			})
		}
	}
}

func fillConstraintColumns(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		if !r.hasKey() {
			continue
		}
		for _, c := range slices.Sorted(slices.Values(r.Key)) {
			add(row{
				"table_catalog": x.database, "table_schema": sql.PublicSchema, "table_name": r.Name, "column_name": r.Columns[c].Name,
				"constraint_catalog": x.database, "constraint_schema": sql.PublicSchema, "constraint_name": r.keyName(),
			})
		}
	}
}
