package record

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
)

// ParseText parses s in PostgreSQL's input syntax of type t. Errors are of kind fault.Invalid (fault.Unsupported for
// what PostgreSQL knows and Millrace doesn't) with PostgreSQL's texts and SQLSTATEs: 22P02 and 22007 for bad syntax, 22003, 22008 and 22015
// for what is out of range, 22021 for text that isn't UTF-8.
func ParseText(t Type, s string) (Value, error) {
	v := Value{Type: t}
	var err error
	switch t {
	case Boolean:
		var b bool
		if b, err = parseBool(s); b {
			v.Int = 1
		}
	case BigInt:
		v.Int, err = parseBigInt(s)
	case Double:
		v.Float, err = parseDouble(s)
	case Numeric:
		var e errNumeric
		v.Bytes, e = appendNumericText(nil, s)
		err = e.err(s)
	case Text:
		v.Bytes, err = []byte(s), checkText([]byte(s))
	case Bytea:
		v.Bytes, err = appendByteaText(nil, s)
	case TimestampTZ:
		v.Int, err = parseTimestamp([]byte(s))
	case IntervalT:
		v.Interval, err = parseInterval(s)
	case JSONB:
		v.Bytes, err = parseJSONB([]byte(s))
	case Timestamp:
		v.Int, err = parseLocal([]byte(s), Timestamp)
	case Date:
		v.Int, err = parseDate([]byte(s))
	case Time:
		v.Int, err = parseTime([]byte(s))
	case UUID:
		v.Bytes, err = appendUUIDText(nil, s)
	default:
		if t.IsArray() {
			v.Bytes, err = parseArray(nil, t, s)
			break
		}
		return Value{}, fault.New(fault.Internal, "no text can be of type %s", t)
	}
	if err != nil {
		return Value{}, err
	}
	return v, nil
}

// quote puts s in double quotes for an error: as UTF-8, as errors travel in protobuf strings, and shortened, as a
// field of a record may have megabytes.
func quote(s string) string {
	const most = 200 // bytes
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return `"` + strings.ToValidUTF8(s, "\ufffd") + `"`
}

func syntaxError(t Type, s string) error {
	return fault.SQL(fault.Invalid, "22P02", "invalid input syntax for type %s: %s", t, quote(s))
}

func rangeError(t Type, s string) error {
	return fault.SQL(fault.Invalid, "22003", "value %s is out of range for type %s", quote(s), t)
}

func isSpace(c byte) bool { return c == ' ' || (c >= '\t' && c <= '\r') }

func trimSpace(s string) string { return strings.Trim(s, " \t\n\v\f\r") }

func parseBool(s string) (bool, error) {
	t := strings.ToLower(trimSpace(s))
	is := func(word string, least int) bool { return len(t) >= least && strings.HasPrefix(word, t) }
	switch {
	case is("true", 1), is("yes", 1), is("on", 2), t == "1":
		return true, nil
	case is("false", 1), is("no", 1), is("off", 2), t == "0":
		return false, nil
	}
	return false, syntaxError(Boolean, s)
}

func parseBigInt(s string) (int64, error) {
	t := trimSpace(s)
	n, err := strconv.ParseInt(t, 10, 64)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, strconv.ErrRange) {
		return 0, rangeError(BigInt, s)
	}
	return 0, syntaxError(BigInt, s)
}

// parseDouble refuses what strconv takes and PostgreSQL doesn't: underscores and hexadecimal.
func parseDouble(s string) (float64, error) {
	t := trimSpace(s)
	if strings.ContainsAny(t, "_xXpP") {
		return 0, syntaxError(Double, s)
	}
	f, err := strconv.ParseFloat(t, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		// PostgreSQL takes signs before NaN too, but there is only one NaN.
		if strings.EqualFold(strings.TrimLeft(t, "+-"), "nan") && len(t) <= 4 {
			return math.NaN(), nil
		}
		return 0, syntaxError(Double, s)
	}
	if err != nil || (f == 0 && !isZero(t)) {
		return 0, fault.SQL(fault.Invalid, "22003", "%s is out of range for type double precision", quote(s))
	}
	return f, nil
}

// isZero tells whether the digits of a decimal number, its exponent aside, are all zeros.
func isZero(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c == 'e' || c == 'E':
			return true
		case c >= '1' && c <= '9':
			return false
		}
	}
	return true
}

// checkText returns an error unless s is UTF-8 without NUL, which is all that PostgreSQL's text can hold.
func checkText(s []byte) error {
	if !utf8.Valid(s) {
		return fault.SQL(fault.Invalid, "22021", "invalid byte sequence for encoding \"UTF8\"")
	}
	for _, c := range s {
		if c == 0 {
			return fault.SQL(fault.Invalid, "22021", "invalid byte sequence for encoding \"UTF8\": 0x00")
		}
	}
	return nil
}

// appendByteaText appends the bytes that s stands for in PostgreSQL's hex format (\x...) or its older escape format.
func appendByteaText(dst []byte, s string) ([]byte, error) {
	if strings.HasPrefix(s, `\x`) {
		return appendHex(dst, s[2:])
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			continue
		}
		switch {
		case i+1 < len(s) && s[i+1] == '\\':
			dst = append(dst, '\\')
			i++
		case i+3 < len(s) && s[i+1] >= '0' && s[i+1] <= '3' && s[i+2]&^7 == '0' && s[i+3]&^7 == '0':
			dst = append(dst, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
		default:
			return dst, fault.SQL(fault.Invalid, "22P02", "invalid input syntax for type bytea")
		}
	}
	return dst, nil
}

// appendHex appends the bytes of s; white space may stand between two bytes.
func appendHex(dst []byte, s string) ([]byte, error) {
	for i := 0; i < len(s); {
		if isSpace(s[i]) {
			i++
			continue
		}
		hi, ok := unhex(s[i])
		if !ok {
			return dst, hexDigitError(s[i:])
		}
		if i+1 == len(s) {
			return dst, fault.SQL(fault.Invalid, "22023", "invalid hexadecimal data: odd number of digits")
		}
		lo, ok := unhex(s[i+1])
		if !ok {
			return dst, hexDigitError(s[i+1:])
		}
		dst = append(dst, hi<<4|lo)
		i += 2
	}
	return dst, nil
}

func hexDigitError(s string) error {
	_, n := utf8.DecodeRuneInString(s)
	return fault.SQL(fault.Invalid, "22023", "invalid hexadecimal digit: %s", quote(s[:n]))
}

func unhex(c byte) (byte, bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
