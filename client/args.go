package client

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/fault"
)

// bind puts args in the places of $1, $2, ... as literals. Without args the text is left as it is.
func bind(text string, args []any) (string, error) {
	if len(args) == 0 {
		return text, nil
	}
	literals := make([]string, len(args))
	used := make([]bool, len(args))
	for i, a := range args {
		l, err := literal(a)
		if err != nil {
			return "", fault.New(fault.Invalid, "argument $%d: %v", i+1, err)
		}
		literals[i] = l
	}
	var out strings.Builder
	for i := 0; i < len(text); {
		kind, end := nextToken(text, i)
		if kind == tokenParam {
			n, err := strconv.Atoi(text[i+1 : end])
			if err != nil || n < 1 || n > len(args) {
				return "", fault.New(fault.Invalid, "%s: only %d arguments were given", text[i:end], len(args))
			}
			out.WriteString(literals[n-1])
			used[n-1] = true
		} else {
			out.WriteString(text[i:end])
		}
		i = end
	}
	for i, u := range used {
		if !u {
			return "", fault.New(fault.Invalid, "argument $%d is not used in the statement", i+1)
		}
	}
	return out.String(), nil
}

// literal returns the SQL literal of a Go value.
func literal(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "NULL", nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return integer(int64(v)), nil
	case int32:
		return integer(int64(v)), nil
	case int64:
		return integer(v), nil
	case uint32:
		return strconv.FormatUint(uint64(v), 10), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case float64:
		return double(v), nil
	case string:
		if strings.IndexByte(v, 0) >= 0 {
			return "", fault.New(fault.Invalid, "text must not hold a zero byte")
		}
		return "'" + strings.ReplaceAll(v, "'", "''") + "'", nil
	case []byte:
		if v == nil {
			return "NULL", nil
		}
		return `'\x` + hex.EncodeToString(v) + "'::bytea", nil
	case time.Time:
		return "'" + v.UTC().Format("2006-01-02T15:04:05.999999Z") + "'::timestamptz", nil
	case time.Duration:
		return "'" + strconv.FormatInt(v.Microseconds(), 10) + " microseconds'::interval", nil
	}
	return "", fault.New(fault.Invalid, "a %T can't be an argument; give nil, bool, an integer, float64, string, []byte, time.Time or time.Duration", v)
}

// integer puts a negative number in parentheses, lest "x -$1" become a comment.
func integer(v int64) string {
	s := strconv.FormatInt(v, 10)
	if v < 0 {
		return "(" + s + ")"
	}
	return s
}

func double(v float64) string {
	s := strconv.FormatFloat(v, 'g', -1, 64)
	switch {
	case math.IsNaN(v):
		s = "NaN"
	case math.IsInf(v, 1):
		s = "Infinity"
	case math.IsInf(v, -1):
		s = "-Infinity"
	}
	return "'" + s + "'::double precision"
}
