package dataflow

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
)

// hashImpls is cryptographic hashes, and text as bytes.
var hashImpls = map[string]impl{
	"sha224(bytea)": unaryBytes(getBytes, func(dst, b []byte) ([]byte, error) { s := sha256.Sum224(b); return append(dst, s[:]...), nil }),
	"sha256(bytea)": unaryBytes(getBytes, func(dst, b []byte) ([]byte, error) { s := sha256.Sum256(b); return append(dst, s[:]...), nil }),
	"sha384(bytea)": unaryBytes(getBytes, func(dst, b []byte) ([]byte, error) { s := sha512.Sum384(b); return append(dst, s[:]...), nil }),
	"sha512(bytea)": unaryBytes(getBytes, func(dst, b []byte) ([]byte, error) { s := sha512.Sum512(b); return append(dst, s[:]...), nil }),
	"convert_to(text, text)": binaryBytes(getBytes, getBytes, func(dst, b, encoding []byte) ([]byte, error) {
		return append(dst, b...), checkEncoding(encoding)
	}),
	"convert_from(bytea, text)": binaryBytes(getBytes, getBytes, func(dst, b, encoding []byte) ([]byte, error) {
		if err := checkEncoding(encoding); err != nil {
			return dst, err
		}
		if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
			return dst, fault.SQL(fault.Invalid, "22021", "invalid byte sequence for encoding \"UTF8\"")
		}
		return append(dst, b...), nil
	}),
}

func checkEncoding(name []byte) error {
	switch strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(string(name))) {
	case "utf8", "unicode":
		return nil
	}
	return fault.SQL(fault.Unsupported, "0A000", "encoding %q is not supported; there is UTF8", shorten(name))
}
