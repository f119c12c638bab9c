package plan

// bytesFunctions are those functions of text that BYTEA has too, and its own.
var bytesFunctions = []string{
	"like(bytea, bytea) boolean", "strpos(bytea, bytea) bigint", "bit_length(bytea) bigint", "bit_count(bytea) bigint",
	"substr(bytea, bigint) bytea", "substr(bytea, bigint, bigint) bytea",
	"overlay(bytea, bytea, bigint) bytea", "overlay(bytea, bytea, bigint, bigint) bytea",
	"trim(bytea, bytea) bytea", "ltrim(bytea, bytea) bytea", "rtrim(bytea, bytea) bytea",
	"get_byte(bytea, bigint) bigint", "set_byte(bytea, bigint, bigint) bytea",
	"get_bit(bytea, bigint) bigint", "set_bit(bytea, bigint, bigint) bytea",
}
