package pgcatalog

import (
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// informationTables are those of information_schema.
func informationTables() []*definition {
	out := []*definition{
		define("information_schema.schemata", 0, `catalog_name:name schema_name:name schema_owner:name default_character_set_catalog:name?
			default_character_set_schema:name? default_character_set_name:name? sql_path:varchar?`, fillSchemata),
		define("information_schema.tables", 0, `table_catalog:name table_schema:name table_name:name table_type:varchar
			self_referencing_column_name:name? reference_generation:varchar? user_defined_type_catalog:name? user_defined_type_schema:name?
			user_defined_type_name:name? is_insertable_into:varchar is_typed:varchar commit_action:varchar?`, fillInformationTables),
		define("information_schema.columns", 0, `table_catalog:name table_schema:name table_name:name column_name:name ordinal_position:int4
			column_default:varchar? is_nullable:varchar data_type:varchar character_maximum_length:int4? character_octet_length:int4?
			numeric_precision:int4? numeric_precision_radix:int4? numeric_scale:int4? datetime_precision:int4? interval_type:varchar?
			interval_precision:int4? collation_name:name? domain_name:name? udt_catalog:name udt_schema:name udt_name:name
			dtd_identifier:name is_self_referencing:varchar is_identity:varchar identity_generation:varchar? is_generated:varchar
			generation_expression:varchar? is_updatable:varchar`, fillColumns),
		define("information_schema.views", 0, `table_catalog:name table_schema:name table_name:name view_definition:varchar
			check_option:varchar is_updatable:varchar is_insertable_into:varchar`, nil),
		define("information_schema.constraint_column_usage", 0, "table_catalog:name table_schema:name table_name:name column_name:name constraint_catalog:name constraint_schema:name constraint_name:name", fillConstraintColumns),
		define("information_schema.key_column_usage", 0, "constraint_catalog:name constraint_schema:name constraint_name:name table_catalog:name table_schema:name table_name:name column_name:name ordinal_position:int4 position_in_unique_constraint:int4?", fillKeyColumns),
		define("information_schema.table_constraints", 0, "constraint_catalog:name constraint_schema:name constraint_name:name table_catalog:name table_schema:name table_name:name constraint_type:varchar is_deferrable:varchar initially_deferred:varchar enforced:varchar", fillTableConstraints),
	}
	for _, t := range [][2]string{
		{"referential_constraints", "constraint_catalog:name constraint_schema:name constraint_name:name unique_constraint_catalog:name unique_constraint_schema:name unique_constraint_name:name match_option:varchar update_rule:varchar delete_rule:varchar"},
		{"check_constraints", "constraint_catalog:name constraint_schema:name constraint_name:name check_clause:varchar"},
		{"routines", "specific_catalog:name specific_schema:name specific_name:name routine_catalog:name routine_schema:name routine_name:name routine_type:varchar data_type:varchar routine_definition:varchar"},
		{"parameters", "specific_catalog:name specific_schema:name specific_name:name ordinal_position:int4 parameter_mode:varchar parameter_name:name data_type:varchar"},
		{"sequences", "sequence_catalog:name sequence_schema:name sequence_name:name data_type:varchar start_value:varchar minimum_value:varchar maximum_value:varchar increment:varchar"},
		{"triggers", "trigger_catalog:name trigger_schema:name trigger_name:name event_manipulation:varchar event_object_schema:name event_object_table:name action_statement:varchar action_timing:varchar"},
		{"table_privileges", "grantor:name grantee:name table_catalog:name table_schema:name table_name:name privilege_type:varchar is_grantable:varchar with_hierarchy:varchar"},
		{"column_privileges", "grantor:name grantee:name table_catalog:name table_schema:name table_name:name column_name:name privilege_type:varchar is_grantable:varchar"},
		{"domains", "domain_catalog:name domain_schema:name domain_name:name data_type:varchar"},
		{"character_sets", "character_set_catalog:name? character_set_schema:name? character_set_name:name default_collate_name:name"},
	} {
		out = append(out, define("information_schema."+t[0], 0, t[1], nil))
	}
	return out
}

func fillSchemata(x *execution, add func(row)) {
	for _, name := range []string{"pg_catalog", "information_schema", sql.PublicSchema} {
		add(row{"catalog_name": x.database, "schema_name": name, "schema_owner": x.user})
	}
}

// yesNo is the standard's boolean.
func yesNo(v bool) string {
	if v {
		return "YES"
	}
	return "NO"
}

// fillInformationTables lists materialized views as views, which PostgreSQL leaves out: tools would show none of them.
func fillInformationTables(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		kind := "BASE TABLE"
		if r.View {
			kind = "VIEW"
		}
		add(row{
			"table_catalog": x.database, "table_schema": sql.PublicSchema, "table_name": r.Name, "table_type": kind,
			"is_insertable_into": yesNo(!r.View), "is_typed": "NO",
		})
	}
	for _, d := range inOrder() {
		add(row{
			"table_catalog": x.database, "table_schema": d.schema, "table_name": d.relname, "table_type": "VIEW",
			"is_insertable_into": "NO", "is_typed": "NO",
		})
	}
}

func fillColumns(x *execution, add func(row)) {
	column := func(schema, table string, i int, name string, oid uint32, updatable, notNull bool, standard string) {
		r := row{
			"table_catalog": x.database, "table_schema": schema, "table_name": table, "column_name": name, "ordinal_position": int64(i + 1),
			"is_nullable": yesNo(!notNull), "data_type": formatType(int64(oid), -1), "udt_catalog": x.database, "udt_schema": "pg_catalog",
			"udt_name": udtName(oid), "dtd_identifier": text(int64(i + 1)), "is_self_referencing": "NO", "is_identity": "NO",
			"is_generated": "NEVER", "is_updatable": yesNo(updatable),
		}
		if standard != "" {
			r["column_default"] = standard
		}
		switch oid {
		case pgtype.Int8OID:
			r["numeric_precision"], r["numeric_precision_radix"], r["numeric_scale"] = int64(64), int64(2), int64(0)
		case pgtype.Float8OID:
			r["numeric_precision"], r["numeric_precision_radix"] = int64(53), int64(2)
		case pgtype.NumericOID:
			r["numeric_precision_radix"] = int64(10)
		case pgtype.DateOID:
			r["datetime_precision"] = int64(0)
		case pgtype.TimestamptzOID, pgtype.TimestampOID, pgtype.TimeOID, pgtype.IntervalOID:
			r["datetime_precision"] = int64(6)
		}
		if elementOf(oid) != 0 {
			r["data_type"] = "ARRAY"
		}
		add(r)
	}
	for _, rel := range x.src.Relations() {
		for i, f := range rel.Columns {
			standard := ""
			if rel.Defaults != nil {
				standard = rel.Defaults[i]
			}
			column(sql.PublicSchema, rel.Name, i, f.Name, columnOID(f), !rel.View, rel.NotNull != nil && rel.NotNull[i], standard)
		}
	}
	for _, d := range inOrder() {
		for i, c := range d.cols {
			column(d.schema, d.relname, i, c.Name, c.OID, false, false, "")
		}
	}
}

func columnOID(f record.Field) uint32 { return oidOf(f.Type) }

func udtName(oid uint32) string {
	for _, t := range types {
		switch {
		case t.oid == oid:
			return t.name
		case t.array == oid && oid != 0:
			return "_" + t.name
		}
	}
	return "text"
}
