package record

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/millrace/millrace/internal/fault"
)

// jsonSyntax is how records are read: RFC 8259 and UTF-8 to the letter (no escaped lone surrogates either), nesting up
// to jsontext's bound of 10,000. Of members with one name, which RFC 8259 leaves open, the last one wins.
//
// Why not fastjson: it reads faster, but lets invalid UTF-8 and, without its Validate, control characters and numbers
// such as 01 and 1e pass. Why not a scanner of our own: one took a third of the time in a trial, but jsontext is well
// above what a view needs (see the benchmarks), and what it accepts needs no proof of ours.
var jsonSyntax = jsontext.AllowDuplicateNames(true)

// maxJSONDepth is jsontext's bound on how deep arrays and objects nest, for code of ours that recurses.
const maxJSONDepth = 10000

// jsonReader reads documents one after the other, in place and without allocating.
type jsonReader struct {
	buf bytes.Buffer // jsontext parses straight from a bytes.Buffer, and never writes to it
	dec *jsontext.Decoder
}

func (r *jsonReader) reset(b []byte) {
	r.buf = *bytes.NewBuffer(b)
	if r.dec == nil {
		r.dec = jsontext.NewDecoder(&r.buf, jsonSyntax)
		return
	}
	r.dec.Reset(&r.buf, jsonSyntax)
}

// document returns the one value that b holds, without the white space around it.
func (r *jsonReader) document(b []byte) ([]byte, error) {
	r.reset(b)
	v, err := r.dec.ReadValue()
	if err != nil {
		return nil, malformedJSON(err)
	}
	return v, r.end()
}

// end checks that nothing follows the value.
func (r *jsonReader) end() error {
	if _, err := r.dec.ReadToken(); err != io.EOF {
		if err == nil {
			return fault.SQL(fault.Invalid, "22P02", "malformed JSON: something follows the value after offset %d", r.dec.InputOffset())
		}
		return malformedJSON(err)
	}
	return nil
}

func malformedJSON(err error) error {
	text := strings.TrimPrefix(err.Error(), "jsontext: ")
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		text = "it ends too early"
	}
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return fault.SQL(fault.Invalid, "22P02", "malformed JSON: %s", strings.ToValidUTF8(text, "\ufffd"))
}

var errNotObject = fault.SQL(fault.Invalid, "22P02", "the record is not a JSON object")

// CheckJSON returns an error (fault.Invalid, saying what is wrong and where) unless value is one well-formed JSON
// object, by the same rules by which a record is decoded.
func CheckJSON(value []byte) error {
	if !jsontext.Value(value).IsValid(jsonSyntax) {
		var r jsonReader
		if _, err := r.document(value); err != nil {
			return err
		}
	}
	if i := skipSpace(value, 0); i == len(value) || value[i] != '{' {
		return errNotObject
	}
	return nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		d, ok := unhex(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

// appendUnescaped appends the contents of a well-formed string, given without its quotes.
func appendUnescaped(dst, s []byte) []byte {
	for len(s) > 0 {
		n := bytes.IndexByte(s, '\\')
		if n < 0 || n+1 >= len(s) {
			return append(dst, s...)
		}
		dst = append(dst, s[:n]...)
		c := s[n+1]
		s = s[n+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(s, 0)
			s = s[min(4, len(s)):]
			if r >= 0xd800 && r <= 0xdfff { // half of a pair; the other half follows
				low, _ := hex4(s, 2)
				r = (r-0xd800)<<10 | (low - 0xdc00) + 0x10000
				s = s[min(6, len(s)):]
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
	}
	return dst
}
