package pgcatalog

import (
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/sql"
)

// constantFunction gives the same whatever it is asked.
func constantFunction(result uint32, v Value) function {
	return function{result: result, most: -1, nulls: true, call: func(*execution, []Value) (Value, error) { return v, nil }}
}

// textFunction is one of texts.
func textFunction(n int, f func(a []string) Value) function {
	return function{result: textOID, least: n, most: n, call: func(_ *execution, a []Value) (Value, error) {
		s := make([]string, len(a))
		for i, v := range a {
			s[i] = text(v)
		}
		return f(s), nil
	}}
}

// functions are all that give a value, by name.
var functions = sync.OnceValue(func() map[string]function {
	out := map[string]function{}
	for _, add := range []func(map[string]function){addSession, addVisible, addDescriptions, addDefinitions, addProcedures, addPrivileges, addText, addFormat, addArrays} {
		add(out)
	}
	return out
})

func addSession(f map[string]function) {
	session := func(result uint32, get func(*execution) Value) function {
		return function{result: result, most: 1, nulls: true, call: func(x *execution, _ []Value) (Value, error) { return get(x), nil }}
	}
	f["version"] = session(textOID, func(x *execution) Value {
		v, _ := x.src.Setting("server_version")
		return "PostgreSQL " + v + ", a streaming SQL database that speaks PostgreSQL's protocol"
	})
	f["current_database"] = session(pgtype.NameOID, func(x *execution) Value { return x.database })
	f["current_catalog"] = f["current_database"]
	f["current_schema"] = constantFunction(pgtype.NameOID, sql.PublicSchema)
	f["current_schemas"] = function{result: pgtype.NameArrayOID, args: []uint32{boolOID}, least: 1, most: 1, call: func(_ *execution, a []Value) (Value, error) {
		if a[0] == true {
			return []Value{"pg_catalog", sql.PublicSchema}, nil
		}
		return []Value{sql.PublicSchema}, nil
	}}
	f["pg_backend_pid"] = session(int4OID, func(x *execution) Value { return int64(x.backend) })
	f["pg_get_userbyid"] = session(pgtype.NameOID, func(x *execution) Value { return x.user })
	f["current_setting"] = function{result: textOID, args: []uint32{textOID, boolOID}, least: 1, most: 2, call: currentSetting}
	f["set_config"] = function{result: textOID, args: []uint32{textOID, textOID, boolOID}, least: 3, most: 3, call: setConfig}
	f["pg_client_encoding"] = constantFunction(pgtype.NameOID, "UTF8")
	f["getdatabaseencoding"] = constantFunction(pgtype.NameOID, "UTF8")
	f["pg_encoding_to_char"] = constantFunction(pgtype.NameOID, "UTF8")
	f["pg_char_to_encoding"] = constantFunction(int4OID, int64(6))
	f["pg_is_in_recovery"] = constantFunction(boolOID, false)
	f["pg_is_wal_replay_paused"] = constantFunction(boolOID, false)
	f["pg_my_temp_schema"] = constantFunction(pgtype.OIDOID, int64(0))
	f["pg_is_other_temp_schema"] = constantFunction(boolOID, false)
	for _, name := range []string{"inet_server_addr", "inet_client_addr"} {
		f[name] = constantFunction(textOID, nil)
	}
	for _, name := range []string{"inet_server_port", "inet_client_port"} {
		f[name] = constantFunction(int4OID, nil)
	}
	f["pg_advisory_unlock_all"] = constantFunction(2278, "") // there are no such locks to take
	f["pg_postmaster_start_time"] = constantFunction(pgtype.TimestamptzOID, nil)
	f["pg_conf_load_time"] = constantFunction(pgtype.TimestamptzOID, nil)
	f["row_security_active"] = constantFunction(boolOID, false)
}

func currentSetting(x *execution, a []Value) (Value, error) {
	name := strings.ToLower(text(a[0]))
	if v, ok := x.src.Setting(name); ok {
		return v, nil
	}
	if len(a) > 1 && a[1] == true {
		return nil, nil
	}
	return nil, fault.SQL(fault.NotFound, "42704", "unrecognized configuration parameter %q", name)
}

func setConfig(x *execution, a []Value) (Value, error) {
	return a[1], x.src.SetSetting(strings.ToLower(text(a[0])), text(a[1]), a[2] == true)
}

// addVisible adds what tells whether a name can be used without its schema: everything can.
func addVisible(f map[string]function) {
	f["pg_table_is_visible"] = function{result: boolOID, args: []uint32{pgtype.OIDOID}, least: 1, most: 1, call: func(x *execution, a []Value) (Value, error) {
		def, t := definitions()["pg_catalog.pg_class"], x.named("pg_catalog.pg_class")
		for _, i := range t.find(def.column("oid"), a[0]) {
			return t.rows[i][def.column("relnamespace")] != schemaOIDs["information_schema"], nil
		}
		return nil, nil
	}}
	for _, name := range []string{
		"type", "function", "operator", "opclass", "opfamily", "collation", "conversion", "statistics_obj",
		"ts_config", "ts_dict", "ts_parser", "ts_template",
	} {
		f["pg_"+name+"_is_visible"] = constantFunction(boolOID, true)
	}
	f["pg_relation_is_publishable"] = constantFunction(boolOID, false)
	for reg, name := range map[uint32]string{oidRegclass: "to_regclass", oidRegtype: "to_regtype", oidRegnamespace: "to_regnamespace", oidRegproc: "to_regproc", oidRegrole: "to_regrole"} {
		f[name] = function{result: reg, least: 1, most: 1, call: func(x *execution, a []Value) (Value, error) {
			if oid, ok := x.lookup(reg, text(a[0])); ok {
				return oid, nil
			}
			return nil, nil
		}}
	}
}

// addDescriptions adds what shows definitions. There are no comments, defaults, rules, triggers.
func addDescriptions(f map[string]function) {
	f["format_type"] = function{result: textOID, args: []uint32{pgtype.OIDOID, int4OID}, least: 2, most: 2, nulls: true, call: func(_ *execution, a []Value) (Value, error) {
		oid, ok := a[0].(int64)
		if !ok {
			return nil, nil
		}
		mod, _ := a[1].(int64)
		return formatType(oid, mod), nil
	}}
	f["pg_get_viewdef"] = function{result: textOID, args: []uint32{oidRegclass, boolOID}, least: 1, most: 2, call: func(x *execution, a []Value) (Value, error) {
		for _, r := range x.src.Relations() {
			if r.OID() == a[0] && r.View {
				return " " + strings.TrimSpace(r.Definition) + ";", nil
			}
		}
		return nil, nil
	}}
	for _, name := range []string{
		"obj_description", "col_description", "shobj_description", "pg_get_ruledef",
		"pg_get_triggerdef", "pg_get_partkeydef", "pg_get_functiondef", "pg_get_statisticsobjdef", "pg_get_statisticsobjdef_columns", "pg_get_serial_sequence",
		"pg_describe_object", "pg_tablespace_location", "pg_get_partition_constraintdef", "pg_get_function_sqlbody",
	} {
		f[name] = constantFunction(textOID, nil)
	}
	for _, name := range []string{
		"pg_relation_size", "pg_total_relation_size", "pg_table_size", "pg_indexes_size", "pg_database_size", "pg_tablespace_size",
		"pg_stat_get_numscans", "pg_stat_get_live_tuples",
	} {
		f[name] = constantFunction(int8OID, int64(0))
	}
	f["pg_size_pretty"] = function{result: textOID, args: []uint32{int8OID}, least: 1, most: 1, call: func(_ *execution, a []Value) (Value, error) {
		return fmt.Sprintf("%s bytes", text(a[0])), nil
	}}
	f["age"] = constantFunction(int4OID, int64(0))
	f["pg_relation_filenode"] = constantFunction(pgtype.OIDOID, int64(0))
	f["pg_column_is_updatable"] = constantFunction(boolOID, false)
	f["pg_relation_is_updatable"] = constantFunction(int4OID, int64(0))
	f["pg_partition_root"] = constantFunction(oidRegclass, nil)
}

// addPrivileges adds the questions who may do what: everybody everything, as there are no users yet.
func addPrivileges(f map[string]function) {
	for _, name := range []string{
		"has_table_privilege", "has_schema_privilege", "has_database_privilege", "has_column_privilege", "has_any_column_privilege",
		"has_function_privilege", "has_type_privilege", "has_sequence_privilege", "has_tablespace_privilege", "has_language_privilege",
		"has_foreign_data_wrapper_privilege", "has_server_privilege", "pg_has_role",
	} {
		f[name] = constantFunction(boolOID, true)
	}
}

func addText(f map[string]function) {
	f["lower"] = textFunction(1, func(a []string) Value { return strings.ToLower(a[0]) })
	f["upper"] = textFunction(1, func(a []string) Value { return strings.ToUpper(a[0]) })
	f["quote_ident"] = textFunction(1, func(a []string) Value { return quoteIdent(a[0]) })
	f["quote_literal"] = textFunction(1, func(a []string) Value { return "'" + strings.ReplaceAll(a[0], "'", "''") + "'" })
	f["replace"] = textFunction(3, func(a []string) Value { return strings.ReplaceAll(a[0], a[1], a[2]) })
	f["split_part"] = function{result: textOID, args: []uint32{textOID, textOID, int4OID}, least: 3, most: 3, call: func(_ *execution, a []Value) (Value, error) {
		parts := strings.Split(text(a[0]), text(a[1]))
		i, _ := a[2].(int64)
		if i < 1 || i > int64(len(parts)) {
			return "", nil
		}
		return parts[i-1], nil
	}}
	trim := function{result: textOID, least: 1, most: 2, call: func(_ *execution, a []Value) (Value, error) {
		cut := " "
		if len(a) > 1 {
			cut = text(a[1])
		}
		return strings.Trim(text(a[0]), cut), nil
	}}
	f["btrim"], f["trim"] = trim, trim
	f["length"] = function{result: int4OID, least: 1, most: 1, call: func(_ *execution, a []Value) (Value, error) {
		return int64(len([]rune(text(a[0])))), nil
	}}
	f["char_length"] = f["length"]
	f["position"] = function{result: int4OID, least: 2, most: 2, call: func(_ *execution, a []Value) (Value, error) {
		return int64(strings.Index(text(a[1]), text(a[0])) + 1), nil
	}}
	f["strpos"] = function{result: int4OID, least: 2, most: 2, call: func(_ *execution, a []Value) (Value, error) {
		return int64(strings.Index(text(a[0]), text(a[1])) + 1), nil
	}}
	substring := function{result: textOID, args: []uint32{textOID, int4OID, int4OID}, least: 2, most: 3, call: substring}
	f["substring"], f["substr"] = substring, substring
	f["left"] = function{result: textOID, args: []uint32{textOID, int4OID}, least: 2, most: 2, call: func(x *execution, a []Value) (Value, error) {
		return substringOf(text(a[0]), 1, toFloat(a[1])), nil
	}}
	f["concat"] = function{result: textOID, most: -1, nulls: true, call: func(_ *execution, a []Value) (Value, error) {
		var b strings.Builder
		for _, v := range a {
			b.Write(AppendText(nil, v))
		}
		return b.String(), nil
	}}
}

func addFormat(f map[string]function) {
	f["format"] = function{result: textOID, least: 1, most: -1, nulls: true, call: func(_ *execution, a []Value) (Value, error) {
		if a[0] == nil {
			return nil, nil
		}
		return formatText(text(a[0]), a[1:])
	}}
	f["like_escape"] = textFunction(2, func(a []string) Value { return likeEscape(a[0], a[1]) })
	f["right"] = function{result: textOID, args: []uint32{textOID, int4OID}, least: 2, most: 2, call: func(_ *execution, a []Value) (Value, error) {
		r := []rune(text(a[0]))
		n, _ := a[1].(int64)
		if n < 0 {
			return string(r[min(int64(len(r)), -n):]), nil
		}
		return string(r[max(0, int64(len(r))-n):]), nil
	}}
}

// formatText is format() with %s, %I, %L and %%.
func formatText(pattern string, args []Value) (Value, error) {
	var b strings.Builder
	next := 0
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' {
			b.WriteByte(pattern[i])
			continue
		}
		if i++; i == len(pattern) {
			return nil, fault.SQL(fault.Invalid, "22023", "unterminated format() type specifier")
		}
		if pattern[i] == '%' {
			b.WriteByte('%')
			continue
		}
		if !strings.ContainsRune("sIL", rune(pattern[i])) {
			return nil, unsupported("%%%c in format()", pattern[i])
		}
		if next == len(args) {
			return nil, fault.SQL(fault.Invalid, "22023", "too few arguments for format()")
		}
		v := args[next]
		next++
		switch {
		case pattern[i] == 's' && v != nil:
			b.WriteString(text(v))
		case pattern[i] == 'L' && v == nil:
			b.WriteString("NULL")
		case pattern[i] == 'L':
			b.WriteString("'" + strings.ReplaceAll(text(v), "'", "''") + "'")
		case pattern[i] == 'I' && v == nil:
			return nil, fault.SQL(fault.Invalid, "22004", "null values cannot be formatted as an SQL identifier")
		case pattern[i] == 'I':
			b.WriteString(quoteIdent(text(v)))
		}
	}
	return b.String(), nil
}

// likeEscape rewrites a pattern of LIKE with another escape character, or none, to one with a backslash.
func likeEscape(pattern, escape string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch {
		case escape != "" && strings.HasPrefix(pattern[i:], escape):
			b.WriteByte('\\')
			if i += len(escape); i < len(pattern) {
				b.WriteByte(pattern[i])
			}
		case pattern[i] == '\\':
			b.WriteString(`\\`)
		default:
			b.WriteByte(pattern[i])
		}
	}
	return b.String()
}

func substring(_ *execution, a []Value) (Value, error) {
	from, ok := a[1].(int64)
	if !ok {
		return nil, unsupported("substring with a pattern")
	}
	n := float64(1 << 40)
	if len(a) > 2 {
		n = toFloat(a[2])
	}
	return substringOf(text(a[0]), from, n), nil
}

// substringOf is n characters of s from character from on, from 1.
func substringOf(s string, from int64, n float64) string {
	r := []rune(s)
	end := min(float64(from)+n-1, float64(len(r)))
	from = max(from, 1)
	if float64(from) > end {
		return ""
	}
	return string(r[from-1 : int(end)])
}

func addArrays(f map[string]function) {
	f["array_to_string"] = function{result: textOID, args: []uint32{pgtype.TextArrayOID, textOID, textOID}, least: 2, most: 3, nulls: true, call: arrayToString}
	f["string_to_array"] = function{result: pgtype.TextArrayOID, least: 2, most: 2, call: func(_ *execution, a []Value) (Value, error) {
		out := []Value{}
		if s := text(a[0]); s != "" {
			for p := range strings.SplitSeq(s, text(a[1])) {
				out = append(out, p)
			}
		}
		return out, nil
	}}
	size := func(name string, get func(n int64) int64) {
		f[name] = function{result: int4OID, args: []uint32{pgtype.TextArrayOID, int4OID}, least: 1, most: 2, call: func(_ *execution, a []Value) (Value, error) {
			n := int64(len(elements(a[0])))
			if n == 0 && name != "cardinality" {
				return nil, nil
			}
			return get(n), nil
		}}
	}
	size("array_length", func(n int64) int64 { return n })
	size("array_upper", func(n int64) int64 { return n })
	size("array_lower", func(int64) int64 { return 1 })
	size("cardinality", func(n int64) int64 { return n })
	f["array_position"] = function{result: int4OID, args: []uint32{pgtype.TextArrayOID, textOID}, least: 2, most: 2, call: func(_ *execution, a []Value) (Value, error) {
		for i, v := range elements(a[0]) {
			if c, ok := compare(v, a[1]); ok && c == 0 {
				return int64(i + 1), nil
			}
		}
		return nil, nil
	}}
	f["array_remove"] = function{args: []uint32{pgtype.TextArrayOID, textOID}, least: 2, most: 2, nulls: true, call: func(_ *execution, a []Value) (Value, error) {
		out := []Value{}
		for _, v := range elements(a[0]) {
			if c, ok := compareNulls(v, a[1]); !ok || c != 0 {
				out = append(out, v)
			}
		}
		return out, nil
	}}
	f["array_append"] = function{args: []uint32{pgtype.TextArrayOID, textOID}, least: 2, most: 2, nulls: true, call: func(_ *execution, a []Value) (Value, error) {
		return append(append([]Value{}, elements(a[0])...), a[1]), nil
	}}
	f["parse_ident"] = function{result: pgtype.TextArrayOID, args: []uint32{textOID, boolOID}, least: 1, most: 2, call: func(_ *execution, a []Value) (Value, error) {
		out := []Value{}
		for _, s := range identifiers(text(a[0])) {
			out = append(out, s)
		}
		return out, nil
	}}
}

func arrayToString(_ *execution, a []Value) (Value, error) {
	if a[0] == nil || a[1] == nil {
		return nil, nil
	}
	var parts []string
	for _, v := range elements(a[0]) {
		switch {
		case v != nil:
			parts = append(parts, text(v))
		case len(a) > 2 && a[2] != nil:
			parts = append(parts, text(a[2]))
		}
	}
	return strings.Join(parts, text(a[1])), nil
}
