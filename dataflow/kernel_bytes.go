package dataflow

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/millrace/millrace/internal/fault"
)

// bytesImpls is functions of bytea and its encodings as text.
var bytesImpls = map[string]impl{
	"concat_op(bytea, bytea)": binaryBytes(getBytes, getBytes, func(dst, a, b []byte) ([]byte, error) {
		return append(append(dst, a...), b...), nil
	}),
	"length(bytea)":       pure(getBytes, setInt, func(a []byte) int64 { return int64(len(a)) }),
	"octet_length(bytea)": pure(getBytes, setInt, func(a []byte) int64 { return int64(len(a)) }),
	"md5(text)":           unaryBytes(getBytes, appendMD5),
	"md5(bytea)":          unaryBytes(getBytes, appendMD5),
	"encode(bytea, text)": binaryBytes(getBytes, getBytes, encodeBytes),
	"decode(text, text)":  binaryBytes(getBytes, getBytes, decodeBytes),
}

func appendMD5(dst, a []byte) ([]byte, error) {
	sum := md5.Sum(a)
	return hex.AppendEncode(dst, sum[:]), nil
}

// base64Line is the length of PostgreSQL's lines of base64.
const base64Line = 76

func encodeBytes(dst, a, format []byte) ([]byte, error) {
	switch strings.ToLower(string(format)) {
	case "hex":
		return hex.AppendEncode(dst, a), nil
	case "base64":
		const group = base64Line / 4 * 3
		for len(a) > group {
			dst = append(base64.StdEncoding.AppendEncode(dst, a[:group]), '\n')
			a = a[group:]
		}
		dst = base64.StdEncoding.AppendEncode(dst, a)
		if len(a) == group {
			dst = append(dst, '\n')
		}
		return dst, nil
	case "escape":
		for _, c := range a {
			switch {
			case c == 0 || c >= 0x80:
				dst = append(dst, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
			case c == '\\':
				dst = append(dst, '\\', '\\')
			default:
				dst = append(dst, c)
			}
		}
		return dst, nil
	}
	return dst, errEncoding(format)
}

func errEncoding(format []byte) error {
	return fault.SQL(fault.Invalid, "22023", "unrecognized encoding: %q; use hex, base64 or escape", shorten(format))
}

func decodeBytes(dst, a, format []byte) ([]byte, error) {
	switch strings.ToLower(string(format)) {
	case "hex":
		return decodeHex(dst, a)
	case "base64":
		return decodeBase64(dst, a)
	case "escape":
		return decodeEscape(dst, a)
	}
	return dst, errEncoding(format)
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func decodeHex(dst, a []byte) ([]byte, error) {
	for i := 0; i < len(a); {
		if isSpace(a[i]) {
			i++
			continue
		}
		hi, ok := hexDigit(a[i])
		if !ok {
			return dst, errHexDigit(a[i:])
		}
		if i+1 == len(a) {
			return dst, fault.SQL(fault.Invalid, "22023", "invalid hexadecimal data: odd number of digits")
		}
		lo, ok := hexDigit(a[i+1])
		if !ok {
			return dst, errHexDigit(a[i+1:])
		}
		dst = append(dst, hi<<4|lo)
		i += 2
	}
	return dst, nil
}

func errHexDigit(a []byte) error {
	return fault.SQL(fault.Invalid, "22023", "invalid hexadecimal digit: %q", a[:charSize(a)])
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c-'0' <= 9:
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

func decodeBase64(dst, a []byte) ([]byte, error) {
	var buf uint32
	pos, end := 0, 0
	for i, c := range a {
		var v uint32
		switch {
		case isSpace(c):
			continue
		case c == '=':
			// The end: = after two characters (then a second one) or after three.
			if end == 0 {
				switch pos {
				case 2:
					end = 1
				case 3:
					end = 2
				default:
					return dst, fault.SQL(fault.Invalid, "22023", `unexpected "=" while decoding base64 sequence`)
				}
			}
		default:
			var ok bool
			if v, ok = base64Digit(c); !ok || end != 0 {
				return dst, fault.SQL(fault.Invalid, "22023", "invalid symbol %q found while decoding base64 sequence", a[i:i+charSize(a[i:])])
			}
		}
		buf = buf<<6 | v
		if pos++; pos == 4 {
			dst = append(dst, byte(buf>>16))
			if end == 0 || end > 1 {
				dst = append(dst, byte(buf>>8))
			}
			if end == 0 || end > 2 {
				dst = append(dst, byte(buf))
			}
			buf, pos = 0, 0
		}
	}
	if pos != 0 {
		return dst, fault.SQL(fault.Invalid, "22023", "invalid base64 end sequence; the input is missing padding, is truncated, or is otherwise corrupted")
	}
	return dst, nil
}

func base64Digit(c byte) (uint32, bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return uint32(c - 'A'), true
	case c >= 'a' && c <= 'z':
		return uint32(c-'a') + 26, true
	case c >= '0' && c <= '9':
		return uint32(c-'0') + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}

var errEscape = fault.SQL(fault.Invalid, "22P02", "invalid input syntax for type bytea")

func decodeEscape(dst, a []byte) ([]byte, error) {
	octal := func(c byte) bool { return c >= '0' && c <= '7' }
	for i := 0; i < len(a); {
		switch {
		case a[i] != '\\':
			dst = append(dst, a[i])
			i++
		case i+1 < len(a) && a[i+1] == '\\':
			dst = append(dst, '\\')
			i += 2
		case i+3 < len(a) && a[i+1] >= '0' && a[i+1] <= '3' && octal(a[i+2]) && octal(a[i+3]):
			dst = append(dst, (a[i+1]-'0')<<6|(a[i+2]-'0')<<3|(a[i+3]-'0'))
			i += 4
		default:
			return dst, errEscape
		}
	}
	return dst, nil
}
