package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// lineSource makes records of an input's lines. A record is valid until the next call.
type lineSource interface {
	// next returns the next record and the number of its (first) line. A *lineError tells of a line that is no record;
	// the rest can still be read. io.EOF ends.
	next() (value []byte, line int64, err error)
}

// lineError is what is wrong with a line.
type lineError struct{ err error }

func (e *lineError) Error() string { return e.err.Error() }

func badLine(format string, args ...any) error { return &lineError{fmt.Errorf(format, args...)} }

// newLineSource returns the source for an input format and a stream. warn is told of what isn't quite right.
func newLineSource(format string, in *lineReader, def *millracev1.Stream, warn func(format string, args ...any)) (lineSource, error) {
	switch format {
	case "json":
		src := &jsonLines{in: in}
		if def.Format == "json" {
			return src, nil
		}
		t, err := newTranscoder("json", def)
		if err != nil {
			return nil, err
		}
		return &transcoded{src: src, t: t}, nil
	case "csv":
		return newCSVLines(in, def, warn)
	}
	return nil, usagef("--format %q: use json or csv", format)
}

// jsonLines are lines of JSON. Only the syntax is checked: whether a record suits its stream is for the stream to say.
type jsonLines struct {
	in    *lineReader
	begun bool
}

var byteOrderMark = []byte("\xef\xbb\xbf")

func (s *jsonLines) next() ([]byte, int64, error) {
	for {
		line, number, err := nextLine(s.in)
		if err != nil {
			return nil, number, err
		}
		if !s.begun {
			s.begun = true
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if err := checkJSON(line); err != nil {
			return nil, number, badLine("%s", err)
		}
		return line, number, nil
	}
}

// nextLine reads a line; one that is too long is a bad line.
func nextLine(in *lineReader) ([]byte, int64, error) {
	line, number, err := in.next()
	if errors.Is(err, errLineTooLong) {
		err = badLine("longer than the %d bytes that a record may have", in.limit)
	}
	return line, number, err
}

// checkJSON checks that a line is a JSON value. Records must be objects, but one that isn't is well-formed all the same.
func checkJSON(line []byte) error {
	err := record.CheckJSON(line)
	if err == nil {
		return nil
	}
	if trimmed := bytes.TrimSpace(line); len(trimmed) > 0 && trimmed[0] != '{' && json.Valid(line) && utf8.Valid(line) {
		return nil
	}
	return err
}

// csvLines are records of CSV after a header that names their columns.
type csvLines struct {
	in     *lineReader
	parser csvParser
	width  int // fields of a record

	same    bool // the record is passed on as it is
	build   func(dst []byte, fields []csvField) []byte
	t       *transcoder // into another format; nil: none
	scratch []byte
}

// csvColumn is a column of the header.
type csvColumn struct {
	name     string
	declared int // position in the stream; -1: not there
	typ      record.Type
	key      []byte // as a JSON key, with what is before and after it
}

func newCSVLines(in *lineReader, def *millracev1.Stream, warn func(string, ...any)) (lineSource, error) {
	s := &csvLines{in: in}
	columns, err := s.readHeader(def)
	if err != nil || columns == nil {
		return s, err
	}
	for _, c := range columns {
		if c.declared < 0 {
			warn("column %q of the header is not a column of stream %q and is ignored there", c.name, def.Name)
		}
	}
	s.width = len(columns)
	position := make([]int, len(def.Columns)) // of each declared column in the header
	for i := range position {
		position[i] = -1
	}
	for i, c := range columns {
		if c.declared >= 0 {
			position[c.declared] = i
		}
	}
	switch def.Format {
	case "json":
		s.build = func(dst []byte, fields []csvField) []byte { return csvToJSON(dst, columns, fields) }
		return s, nil
	case "csv":
	default:
		if s.t, err = newTranscoder("csv", def); err != nil {
			return nil, err
		}
	}
	s.same = len(columns) == len(position)
	for i, p := range position {
		s.same = s.same && i == p
	}
	s.build = func(dst []byte, fields []csvField) []byte { return reorderCSV(dst, position, fields) }
	return s, nil
}

// readHeader reads the header. No columns: the input is empty.
func (s *csvLines) readHeader(def *millracev1.Stream) ([]csvColumn, error) {
	line, number, err := nextLine(s.in)
	for err == nil && len(bytes.TrimSpace(bytes.TrimPrefix(line, byteOrderMark))) == 0 {
		line, number, err = nextLine(s.in)
	}
	if err != nil {
		if isEOF(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("line %d, the header: %w", number, err)
	}
	fields, err := s.parser.parse(bytes.TrimPrefix(line, byteOrderMark))
	if err != nil {
		return nil, fmt.Errorf("line %d, the header: malformed CSV: %w", number, err)
	}
	names := make([]string, len(def.Columns))
	for i, c := range def.Columns {
		names[i] = c.Name
	}
	columns, known := make([]csvColumn, len(fields)), 0
	seen := map[string]bool{}
	for i, f := range fields {
		c := csvColumn{name: strings.TrimSpace(string(f.text)), declared: -1, typ: record.Text}
		if c.declared = findColumn(names, c.name); c.declared >= 0 {
			known++
			c.name = names[c.declared]
			if t, ok := record.ParseType(def.Columns[c.declared].Type); ok {
				c.typ = t
			}
		}
		if seen[c.name] {
			return nil, fmt.Errorf("line %d, the header: column %q is there twice", number, c.name)
		}
		seen[c.name] = true
		open := byte(',')
		if i == 0 {
			open = '{'
		}
		c.key = append(appendJSONText([]byte{open}, c.name), ':')
		columns[i] = c
	}
	if known == 0 {
		return nil, fmt.Errorf("line %d: the first line must name the columns; none of %q is a column of stream %q, which has %s",
			number, clip(line), def.Name, strings.Join(names, ", "))
	}
	return columns, nil
}

// clip shortens a line for a message.
func clip(line []byte) string {
	const most = 60
	if len(line) <= most {
		return string(line)
	}
	return string(line[:most]) + "..."
}

// findColumn returns the position of a column, by its exact name or else whatever its case; -1 for none.
func findColumn(names []string, name string) int {
	found := -1
	for i, n := range names {
		if n == name {
			return i
		}
		if found < 0 && strings.EqualFold(n, name) {
			found = i
		}
	}
	return found
}

func (s *csvLines) next() ([]byte, int64, error) {
	for {
		line, number, err := nextLine(s.in)
		if err != nil {
			return nil, number, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		fields, err := s.parser.parse(line)
		for errors.Is(err, errOpenQuote) {
			var merr error
			if line, merr = s.in.more(); merr != nil {
				if !isEOF(merr) && !errors.Is(merr, errLineTooLong) {
					return nil, number, merr
				}
				break
			}
			fields, err = s.parser.parse(line)
		}
		if err != nil { // only this line: the quote that went wrong may have swallowed good ones
			s.in.back()
			return nil, number, badLine("malformed CSV: %s", err)
		}
		if len(fields) != s.width {
			s.in.back()
			return nil, number, badLine("malformed CSV: %d fields, but the header has %d", len(fields), s.width)
		}
		value, err := s.record(line, fields)
		return value, number, err
	}
}

// record makes a record of the stream's format.
func (s *csvLines) record(line []byte, fields []csvField) ([]byte, error) {
	if !utf8.Valid(line) {
		return nil, badLine("not UTF-8")
	}
	value := line
	if !s.same {
		s.scratch = s.build(s.scratch[:0], fields)
		value = s.scratch
	}
	if s.t != nil {
		return s.t.convert(value)
	}
	return value, nil
}

// reorderCSV writes fields in the order of the stream's columns.
func reorderCSV(dst []byte, position []int, fields []csvField) []byte {
	for i, p := range position {
		if i > 0 {
			dst = append(dst, ',')
		}
		if p >= 0 && !fields[p].null() {
			dst = record.AppendCSVField(dst, fields[p].text)
		}
	}
	return dst
}

// csvToJSON writes fields as a JSON object: NULL as null, numbers and truth values as such where they are, the rest as
// text. What doesn't suit its column is left for the stream to find.
func csvToJSON(dst []byte, columns []csvColumn, fields []csvField) []byte {
	for i, f := range fields {
		dst = append(dst, columns[i].key...)
		if f.null() {
			dst = append(dst, "null"...)
			continue
		}
		dst = appendTyped(dst, columns[i].typ, f.text)
	}
	return append(dst, '}')
}

func appendTyped(dst []byte, t record.Type, text []byte) []byte {
	switch t {
	case record.BigInt, record.Double, record.Numeric:
		if isJSONNumber(text) {
			return append(dst, text...)
		}
		if v, err := record.ParseText(t, string(text)); err == nil {
			return record.AppendJSONValue(dst, v)
		}
	case record.TimestampTZ:
		if isJSONNumber(text) { // microseconds
			return append(dst, text...)
		}
	case record.Boolean:
		if v, err := record.ParseText(t, string(text)); err == nil {
			return record.AppendJSONValue(dst, v)
		}
	case record.JSONB:
		if json.Valid(text) {
			return append(dst, bytes.TrimSpace(text)...)
		}
	}
	return record.AppendJSONValue(dst, record.Value{Type: record.Text, Bytes: text})
}

// isJSONNumber tells whether text is a number as JSON has them (RFC 8259, section 6).
func isJSONNumber(text []byte) bool {
	i := 0
	digits := func() bool {
		from := i
		for i < len(text) && text[i] >= '0' && text[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(text) && text[i] == '-' {
		i++
	}
	from := i
	if !digits() || text[from] == '0' && i > from+1 {
		return false
	}
	if i < len(text) && text[i] == '.' {
		i++
		if !digits() {
			return false
		}
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(text)
}

// transcoder turns records of one format into those of a stream of another, column by column. What doesn't decode
// can't be turned into anything.
type transcoder struct {
	from, to string
	dec      *record.Decoder
	enc      *record.Encoder
	batch    record.BatchBuilder
	row      *record.Delta
	out      []byte
}

func newTranscoder(from string, def *millracev1.Stream) (*transcoder, error) {
	twin := proto.Clone(def).(*millracev1.Stream)
	twin.Format, twin.DescriptorSet, twin.Message = from, nil, ""
	return transcoderBetween(twin, def)
}

// transcoderBetween turns records of one definition into those of another with the same columns.
func transcoderBetween(from, to *millracev1.Stream) (*transcoder, error) {
	columns := make([]string, len(from.Columns))
	for i, c := range from.Columns {
		columns[i] = c.Name
	}
	dec, err := record.NewDecoder(from, columns)
	if err != nil {
		return nil, err
	}
	enc, err := record.NewEncoder(to)
	if err != nil {
		return nil, err
	}
	return &transcoder{from: from.Format, to: to.Format, dec: dec, enc: enc, row: record.NewDelta(dec.Schema(), 1)}, nil
}

func (t *transcoder) convert(value []byte) ([]byte, error) {
	t.batch.Reset()
	t.batch.Add(nil, false, value)
	t.row.Reset()
	var bad error
	err := t.dec.Decode(t.batch.Payload(), record.Meta{}, t.row, func(_ ids.Offset, _ []byte, _ bool, _ []byte, err error) { bad = err })
	if err != nil {
		return nil, err
	}
	if bad != nil {
		return nil, badLine("can't be turned into %s: %s", t.to, bad)
	}
	if t.out, err = t.enc.Encode(t.out[:0], t.row, 0); err != nil {
		return nil, badLine("can't be turned into %s: %s", t.to, err)
	}
	return t.out, nil
}

// transcoded are the records of another source, in the stream's format.
type transcoded struct {
	src lineSource
	t   *transcoder
}

func (s *transcoded) next() ([]byte, int64, error) {
	value, line, err := s.src.next()
	if err != nil {
		return nil, line, err
	}
	value, err = s.t.convert(value)
	return value, line, err
}
