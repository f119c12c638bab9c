package plan

import "github.com/millrace/millrace/record"

// jsonFunctions are those that make JSONB of other values, and change it.
var jsonFunctions = append([]string{
	"nullcall jsonb_build_array(jsonb...) jsonb", "nullcall jsonb_build_object(jsonb...) jsonb",
	"jsonb_object(text[]) jsonb", "jsonb_object(text[], text[]) jsonb",
	"jsonb_insert(jsonb, text[], jsonb) jsonb", "jsonb_insert(jsonb, text[], jsonb, boolean) jsonb",
	"nullcall jsonb_set_lax(jsonb, text[], jsonb, boolean, text) jsonb",
	"jsonb_extract_path(jsonb, text...) jsonb", "jsonb_extract_path_text(jsonb, text...) text",
	"lt(jsonb, jsonb) boolean", "le(jsonb, jsonb) boolean", "gt(jsonb, jsonb) boolean", "ge(jsonb, jsonb) boolean",
}, toJSONB()...)

func toJSONB() []string {
	var out []string
	for _, t := range record.Types() {
		out = append(out, "to_jsonb("+t.String()+") jsonb")
	}
	return out
}
