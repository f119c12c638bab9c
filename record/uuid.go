package record

import (
	"encoding/hex"
	"strings"
)

// appendUUID appends the 16 bytes of v as PostgreSQL prints a uuid.
func appendUUID(dst, v []byte) []byte {
	if len(v) != 16 {
		return dst
	}
	for i, n := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst, v = hex.AppendEncode(dst, v[:n]), v[n:]
	}
	return dst
}

// appendUUIDText appends the 16 bytes that s stands for: hexadecimal digits in either case, with a hyphen allowed after each
// four of them, in braces or not, as PostgreSQL reads them.
func appendUUIDText(dst []byte, s string) ([]byte, error) {
	t := s
	if strings.HasPrefix(t, "{") {
		if !strings.HasSuffix(t, "}") {
			return dst, syntaxError(UUID, s)
		}
		t = t[1 : len(t)-1]
	}
	digits := 0
	var high byte
	for i := range len(t) {
		if t[i] == '-' {
			if digits == 0 || digits%4 != 0 || digits == 32 || t[i-1] == '-' {
				return dst, syntaxError(UUID, s)
			}
			continue
		}
		d, ok := unhex(t[i])
		if !ok || digits == 32 {
			return dst, syntaxError(UUID, s)
		}
		if digits%2 == 0 {
			high = d << 4
		} else {
			dst = append(dst, high|d)
		}
		digits++
	}
	if digits != 32 {
		return dst, syntaxError(UUID, s)
	}
	return dst, nil
}
