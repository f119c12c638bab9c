package record

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/internal/fault"
)

// sqlState returns the SQLSTATE of err's own error, not of its cause.
func sqlState(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.GetSQLState()
	}
	return "?"
}

// TestText reads testdata/text: under "parse TYPE" each line is an input, given as Go's quoted string if it begins
// with a quote; the output is its text and, where it differs, its JSON; or SQLSTATE and error.
func TestText(t *testing.T) {
	datadriven.Walk(t, "testdata/text", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			typ, ok := ParseType(strings.ReplaceAll(d.CmdArgs[0].Key, "_", " "))
			if !ok || d.Cmd != "parse" {
				d.Fatalf(t, "unknown command")
			}
			var out strings.Builder
			for line := range strings.SplitSeq(d.Input, "\n") {
				in := line
				if strings.HasPrefix(line, `"`) && typ != JSONB {
					var err error
					if in, err = strconv.Unquote(line); err != nil {
						d.Fatalf(t, "%s: %v", line, err)
					}
				}
				out.WriteString(parsed(t, typ, in) + "\n")
			}
			return out.String()
		})
	})
}

func parsed(t *testing.T, typ Type, in string) string {
	v, err := ParseText(typ, in)
	if err != nil {
		return sqlState(err) + " " + err.Error()
	}
	text, json := string(AppendTextValue(nil, v)), string(AppendJSONValue(nil, v))
	again, err := ParseText(typ, text)
	if err != nil || Compare(v, again) != 0 {
		t.Errorf("%s %q prints as %q, which reads as %v, %v", typ, in, text, again, err)
	}
	if json == text || json == strconv.Quote(text) {
		return text
	}
	return fmt.Sprintf("%s  json %s", text, json)
}

// PostgreSQL's own output of these bits, from its regression test float8.
var doubles = []struct {
	bits uint64
	text string
}{
	{0x0000000000000000, "0"}, {0x8000000000000000, "-0"}, {0x7ff0000000000000, "Infinity"}, {0xfff0000000000000, "-Infinity"}, {0x7ff8000000000001, "NaN"},
	{0x0000000000000001, "5e-324"}, {0x0000000000000002, "1e-323"}, {0x0000000000000003, "1.5e-323"}, {0x0000000000001000, "2.0237e-320"},
	{0x000ffffffffffff0, "2.2250738585071935e-308"}, {0x0010000000000000, "2.2250738585072014e-308"},
	{0x3ee4f8b588e368f0, "9.999999999999999e-06"}, {0x3ee4f8b588e368f1, "1e-05"},
	{0x3f1a36e2eb1c432c, "9.999999999999999e-05"}, {0x3f1a36e2eb1c432d, "0.0001"}, {0x3f1a36e2eb1c432e, "0.00010000000000000002"},
	{0x3fb999999999999a, "0.1"}, {0x3fefffffffffffff, "0.9999999999999999"}, {0x3ff0000000000000, "1"},
	{0x42d6bcc41e900001, "100000000000000.02"}, {0x430c6bf52633ffff, "999999999999999.9"}, {0x430c6bf526340000, "1e+15"},
	{0x430c6bf526340001, "1.0000000000000001e+15"}, {0x4341c37937e07fff, "9.999999999999998e+15"}, {0x4341c37937e08000, "1e+16"},
	{0x4376345785d89fff, "9.999999999999998e+16"}, {0x43abc16d674ec800, "1e+18"}, {0x4415af1d78b58c40, "1e+20"}, {0x4480f0cf064dd592, "1e+22"},
	{0x44b52d02c7e14af5, "9.999999999999997e+22"}, {0x44b52d02c7e14af6, "9.999999999999999e+22"}, {0x44b52d02c7e14af7, "1.0000000000000001e+23"},
	{0x44ea784379d99db4, "1e+24"}, {0x45208b2a2c280292, "1.0000000000000003e+25"}, {0x7fefffffffffffff, "1.7976931348623157e+308"},
	{0x4350000000000002, "1.8014398509481992e+16"}, {0x4350000000002e06, "1.8014398509529112e+16"}, {0x4352000000000003, "2.0266198323167244e+16"},
	{0x4352000000000004, "2.0266198323167248e+16"}, {0x4358000000000003, "2.7021597764222988e+16"}, {0x4358000000000004, "2.7021597764222992e+16"},
	{0x435f000000000020, "3.4902897112121472e+16"}, {0xc350000000000002, "-1.8014398509481992e+16"}, {0xc352000000000004, "-2.0266198323167248e+16"},
	{0x42dc12218377de66, "123456789012345.6"}, {0x3ff3c0ca428c59f8, "1.234567890123456"}, {0x3e60000000000000, "2.9802322387695312e-08"},
	{0xc352bd2668e077c4, "-2.1098088986959632e+16"}, {0x434018601510c000, "9.0608011534336e+15"}, {0x43d055dc36f24000, "4.708356024711512e+18"},
	{0x43e052961c6f8000, "9.409340012568248e+18"}, {0x4830f0cf064dd592, "5.764607523034235e+39"}, {0x4840f0cf064dd592, "1.152921504606847e+40"},
	{0x4850f0cf064dd592, "2.305843009213694e+40"},
}

func TestDoubleText(t *testing.T) {
	for _, c := range doubles {
		if got := string(appendDouble(nil, math.Float64frombits(c.bits))); got != c.text {
			t.Errorf("%016x: %s, want %s", c.bits, got, c.text)
		}
	}
}
