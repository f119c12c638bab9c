package plan

// timeFunctions are those of times beyond the plain ones. *_fit is a cast to a type with a precision.
var timeFunctions = []string{
	"nullcall overlaps(timestamp, timestamp, timestamp, timestamp) boolean",
	"nullcall overlaps(timestamptz, timestamptz, timestamptz, timestamptz) boolean",
	"nullcall overlaps(time, time, time, time) boolean",
	"date_trunc(text, timestamptz, text) timestamptz",
	"make_timestamptz(bigint, bigint, bigint, bigint, bigint, double precision) timestamptz",
	"make_timestamptz(bigint, bigint, bigint, bigint, bigint, double precision, text) timestamptz",
	"isfinite(date) boolean", "isfinite(timestamp) boolean", "isfinite(timestamptz) boolean", "isfinite(interval) boolean",
	"time_fit(timestamp, bigint) timestamp", "time_fit(timestamptz, bigint) timestamptz", "time_fit(time, bigint) time",
	"time_fit(interval, bigint) interval",
	"to_char(interval, text) text", "to_char(numeric, text) text", "to_char(bigint, text) text", "to_char(double precision, text) text",
	"to_number(text, text) numeric",
}
