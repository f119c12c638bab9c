package plan

// numberFunctions are mathematics beyond plain arithmetic.
var numberFunctions = []string{
	"sinh(double precision) double precision", "cosh(double precision) double precision", "tanh(double precision) double precision",
	"asinh(double precision) double precision", "acosh(double precision) double precision", "atanh(double precision) double precision",
	"cot(double precision) double precision",
	"sind(double precision) double precision", "cosd(double precision) double precision", "tand(double precision) double precision",
	"cotd(double precision) double precision", "asind(double precision) double precision", "acosd(double precision) double precision",
	"atand(double precision) double precision", "atan2d(double precision, double precision) double precision",

	"exp(numeric) numeric", "ln(numeric) numeric", "log10(numeric) numeric", "log(numeric, numeric) numeric",
	"div_trunc(numeric, numeric) numeric", // div()
	"gcd(numeric, numeric) numeric", "lcm(numeric, numeric) numeric",
	"scale(numeric) bigint", "min_scale(numeric) bigint", "trim_scale(numeric) numeric", "factorial(bigint) numeric",
	"width_bucket(double precision, double precision, double precision, bigint) bigint",
	"width_bucket(numeric, numeric, numeric, bigint) bigint",
	"numeric_fit(numeric, bigint, bigint) numeric", // a cast to NUMERIC(precision, scale)
}
