package plan

// textFunctions are those of text beyond the plain ones.
var textFunctions = []string{
	"nullcall format(text, text...) text", "nullcall format(text) text",
	"quote_ident(text) text", "quote_literal(text) text", "nullcall quote_nullable(text) text",
	"unistr(text) text", "normalize(text, text) text", "is_normalized(text, text) boolean",
	"similar_to_escape(text) text", "similar_to_escape(text, text) text",
	"text_fit(text, bigint) text", // a cast to VARCHAR(n)

	"regexp_match(text, text, text) text[]", "regexp_split_to_array(text, text, text) text[]",
	"regexp_count(text, text, bigint) bigint", "regexp_count(text, text, bigint, text) bigint",
	"regexp_instr(text, text) bigint", "regexp_instr(text, text, bigint) bigint", "regexp_instr(text, text, bigint, bigint) bigint",
	"regexp_instr(text, text, bigint, bigint, bigint) bigint", "regexp_instr(text, text, bigint, bigint, bigint, text) bigint",
	"regexp_instr(text, text, bigint, bigint, bigint, text, bigint) bigint",
	"regexp_substr(text, text, bigint) text", "regexp_substr(text, text, bigint, bigint) text",
	"regexp_substr(text, text, bigint, bigint, text) text", "regexp_substr(text, text, bigint, bigint, text, bigint) text",
	"regexp_replace(text, text, text, bigint) text", "regexp_replace(text, text, text, bigint, bigint) text",
	"regexp_replace(text, text, text, bigint, bigint, text) text",
}
