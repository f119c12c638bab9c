package dataflow

import (
	"strings"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// toNumber is to_number: the reverse of to_char of a NUMERIC.
func toNumber() kernel {
	var p numberPattern
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		p.set(bytesArg(c, 1, i))
		switch {
		case p.pattern == "":
			c.setNull(i)
			return dst, nil
		case p.err != nil:
			return dst, p.err
		case p.e:
			return dst, fault.SQL(fault.Unsupported, "0A000", `"EEEE" not supported for input`)
		case p.roman:
			return dst, fault.SQL(fault.Unsupported, "0A000", `"RN" not supported for input`)
		}
		r := numberReader{numberPattern: p, rest: string(bytesArg(c, 0, i))}
		return r.read(dst)
	})
}

// numberReader reads a number as a pattern has it.
type numberReader struct {
	numberPattern
	rest           string
	is             byte // the sign; 0: none was read
	number         strings.Builder
	before, behind int // digits that were read, before and behind the point
	inPoint        bool
}

func (r *numberReader) read(dst []byte) ([]byte, error) {
	for i := range r.parts {
		if r.rest == "" {
			break
		}
		r.part(&r.parts[i])
	}
	text := strings.TrimSuffix(r.number.String(), ".")
	if r.is == '-' || r.is == '+' {
		text = string(r.is) + text
	}
	v, err := record.ParseText(record.Numeric, text)
	if err != nil {
		return dst, err
	}
	precision := int64(r.pre + r.multi + r.behind)
	if precision > 0 && precision <= 1000 {
		if v.Bytes, err = fitNumeric(nil, v.Bytes, precision, int64(r.behind)); err != nil {
			return dst, err
		}
	}
	if r.v {
		return mulNumeric(dst, v.Bytes, tenthOf(r.multi))
	}
	return append(dst, v.Bytes...), nil
}

// tenthOf is 10^-n, as power() gives it: with 16 digits behind the point at least.
func tenthOf(n int) []byte {
	b, err := powerNumeric(nil, []byte("10"), appendSmall(nil, int64(-n), 0))
	if err != nil {
		return []byte("0")
	}
	return b
}

// next passes over n characters that are no part of a number.
func (r *numberReader) next(n int) {
	for ; n > 0 && r.rest != "" && !strings.ContainsRune("0123456789.,+-", rune(r.rest[0])); n-- {
		r.rest = r.rest[charSize([]byte(r.rest)):]
	}
}

func (r *numberReader) part(p *numberPart) {
	switch word := strings.ToUpper(p.word); word {
	case "":
		r.rest = r.rest[charSize([]byte(r.rest)):]
	case "9", "0", ".", "D":
		r.digit(word != "." && word != "D")
		if r.rest != "" {
			r.rest = r.rest[1:]
		}
	case ",", "G":
		if r.rest[0] == ',' && !r.fill {
			r.rest = r.rest[1:]
		}
	case "L":
		r.next(1)
	case "TH":
		if r.is != '-' && !r.point {
			r.next(2)
		}
	case "MI", "PL", "SG":
		c := r.rest[0]
		if c == '-' && word != "PL" || c == '+' && word != "MI" {
			r.is, r.rest = c, r.rest[1:]
		} else {
			r.next(1)
		}
	}
}

func isDigit(s string, at int) bool { return at < len(s) && s[at]-'0' <= 9 }

// digit reads a digit, or the point, and what signs are around; the last character is left: NUM_numpart_from_char.
func (r *numberReader) digit(number bool) {
	if r.rest = strings.TrimPrefix(r.rest, " "); r.rest == "" {
		return
	}
	if r.is == 0 && number && r.before+r.behind == 0 {
		switch c := r.rest[0]; {
		case r.sign == signBehind:
		case c == '-', r.bracket && c == '<' && r.sign == signNone:
			r.is, r.rest = '-', r.rest[1:]
		case c == '+':
			r.is, r.rest = '+', r.rest[1:]
		}
		if r.rest == "" {
			return
		}
	}
	read := false
	switch {
	case isDigit(r.rest, 0):
		if r.inPoint && r.behind == r.post {
			return
		}
		r.number.WriteByte(r.rest[0])
		if read = true; r.inPoint {
			r.behind++
		} else {
			r.before++
		}
	case r.point && !r.inPoint && r.rest[0] == '.':
		r.number.WriteByte('.')
		r.inPoint, read = true, true
	}
	if r.is != 0 || r.before+r.behind == 0 {
		return
	}
	switch {
	case r.sign != signNone && read && len(r.rest) > 1 && !isDigit(r.rest, 1):
		if c := r.rest[1]; c == '-' || c == '+' {
			r.is, r.rest = c, r.rest[1:]
		}
	case !read && r.sign == signNone && (r.plus || r.minus):
		if c := r.rest[0]; c == '-' || c == '+' {
			r.is = c
		}
	}
}
