package sql

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace/millrace/datagen"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// CreateStream is CREATE STREAM [IF NOT EXISTS] name (columns, WATERMARK FOR col AS col - INTERVAL '...') [WITH (...)].
// StreamOf makes the definition.
type CreateStream struct {
	statement
	Name        string
	IfNotExists bool

	nameAt    int
	columns   []columnDef
	watermark *watermarkDef // nil: none
	options   []option
	made      *millracev1.Source // nil: records are appended
}

type columnDef struct {
	name    string
	at      int
	typ     record.Type
	notNull bool   // of a table
	def     string // DEFAULT; empty: none
}

type watermarkDef struct {
	column  string
	at      int
	again   string // the column's name after AS
	againAt int
	delay   string // an interval's text; empty: none
	delayAt int
}

var streamOptions = []string{"format", "key", "retention", "retention_bytes", "idle", "descriptor", "message",
	"source", "kind", "events", "rate", "event_rate"}

func (c *cursor) createStream() (*CreateStream, error) {
	s := &CreateStream{statement: c.base(), IfNotExists: c.ifNotExists()}
	var err error
	if s.Name, s.nameAt, err = c.name("the stream's name"); err != nil {
		return nil, err
	}
	if c.word(c.i) != "with" { // whoever makes the records knows the columns
		if err := c.need(tokenOpen, `"(" and the columns`); err != nil {
			return nil, err
		}
		if err := c.streamColumns(s); err != nil {
			return nil, err
		}
	}
	if s.options, err = c.options(streamOptions); err != nil {
		return nil, err
	}
	if err := s.setSource(); err != nil {
		return nil, err
	}
	return s, c.finish()
}

// streamColumns takes the columns and the watermark, up to ")".
func (c *cursor) streamColumns(s *CreateStream) error {
	for {
		if c.word(c.i) == "watermark" && c.word(c.i+1) == "for" {
			if err := c.watermark(s); err != nil {
				return err
			}
		} else if err := c.column(s); err != nil {
			return err
		}
		if c.acceptToken(tokenClose) {
			return nil
		}
		if err := c.need(tokenComma, `"," or ")"`); err != nil {
			return err
		}
	}
}

func (c *cursor) watermark(s *CreateStream) error {
	if s.watermark != nil {
		return c.src.fail(c.pos(), stateSyntax, "", "a second WATERMARK")
	}
	c.i += 2
	w := &watermarkDef{}
	var err error
	if w.column, w.at, err = c.name("the watermark's column"); err != nil {
		return err
	}
	if !c.accept("as") {
		return c.expect("AS " + w.column + " - INTERVAL '...'")
	}
	if w.again, w.againAt, err = c.name("the watermark's column"); err != nil {
		return err
	}
	if c.acceptToken(tokenMinus) {
		if !c.accept("interval") {
			return c.expect("INTERVAL '...'")
		}
		if c.done() || c.tokens[c.i].tok != pgquery.Token_SCONST {
			return c.expect("the delay, '5 seconds'")
		}
		w.delayAt = c.pos()
		if w.delay, err = c.stringValue(c.tokens[c.i]); err != nil {
			return err
		}
		c.i++
		if unit := c.word(c.i); unit != "" { // INTERVAL '5' SECOND
			if !slices.Contains([]string{"year", "month", "day", "hour", "minute", "second"}, unit) {
				return c.expect("a unit of time")
			}
			if w.delay, err = withUnit(c.src, w.delayAt, w.delay, unit); err != nil {
				return err
			}
			c.i++
		}
	}
	s.watermark = w
	return nil
}

// column takes name type.
func (c *cursor) column(s *CreateStream) error {
	switch w := c.word(c.i); w {
	case "primary", "unique", "foreign", "check", "constraint", "exclude", "like":
		return c.constraint(w)
	}
	col, err := c.nameAndType()
	if err != nil {
		return err
	}
	switch w := c.word(c.i); w {
	case "":
	case "default":
		if err := c.defaultValue(&col); err != nil {
			return err
		}
		if w := c.word(c.i); slices.Contains(constraintWords, w) {
			return c.constraint(w)
		}
	case "not", "null", "primary", "unique", "check", "references", "generated", "collate", "constraint":
		return c.constraint(w)
	default:
		return c.expect(`"," or ")"`)
	}
	s.columns = append(s.columns, col)
	return nil
}

// nameAndType takes a column's name and type.
func (c *cursor) nameAndType() (col columnDef, err error) {
	if col.name, col.at, err = c.name("a column"); err != nil {
		return col, err
	}
	t, err := c.typeName()
	if err != nil {
		return col, err
	}
	col.typ, err = t.resolve(c.src)
	return col, err
}

// constraint refuses what a table has and a stream doesn't.
func (c *cursor) constraint(word string) error {
	hint := "a record that doesn't fit is for the queries to filter"
	switch word {
	case "not":
		word = "not null"
	case "primary", "foreign":
		word, hint = word+" key", "the option key = 'column' says how records spread"
	}
	return c.src.unsupported(c.pos(), hint, "%s in CREATE STREAM is not supported", upper(word))
}

// typeName takes the words of a type: DOUBLE PRECISION, NUMERIC (10, 2), TIMESTAMP (3) WITH TIME ZONE, TEXT[].
func (c *cursor) typeName() (typeName, error) {
	t := typeName{at: c.pos()}
	if c.done() {
		return t, c.expect("a type")
	}
	if tok := c.tokens[c.i]; tok.tok == pgquery.Token_IDENT {
		t.name = identifier(c.text(c.i))
	} else if t.name = c.word(c.i); t.name == "" {
		return t, c.expect("a type")
	}
	c.i++
	switch {
	case t.name == "double" && c.accept("precision"):
		t.name = "double precision"
	case (t.name == "character" || t.name == "char") && c.accept("varying"):
		t.name = "character varying"
	}
	if c.acceptToken(tokenOpen) {
		for {
			if c.done() || c.tokens[c.i].tok != pgquery.Token_ICONST {
				return t, c.expect("a number")
			}
			n, _ := strconv.ParseInt(c.text(c.i), 10, 32) // its value is in no message
			t.mods = append(t.mods, int32(n))
			c.i++
			if c.acceptToken(tokenClose) {
				break
			}
			if err := c.need(tokenComma, `"," or ")"`); err != nil {
				return t, err
			}
		}
	}
	if t.name == "timestamp" || t.name == "time" {
		switch {
		case c.accept("with", "time", "zone"):
			t.name += " with time zone"
		case c.accept("without", "time", "zone"):
			t.name += " without time zone"
		}
	}
	t.array = c.accept("array")
	if c.acceptToken(pgquery.Token_ASCII_91) {
		t.array = true
		if err := c.need(pgquery.Token_ASCII_93, `"]"`); err != nil {
			return t, err
		}
	}
	return t, nil
}

// reservedColumns can't be declared: they are hidden columns, or stand beside the columns in what SUBSCRIBE writes.
var reservedColumns = []string{"_partition", "_offset", "_tick", "_time", "_key", "_watermark", "_deleted", "_weight", "_progress"}

// defaultIdle is how long a partition without records holds windows back, in microseconds.
const defaultIdle = 10_000_000

// StreamOf returns the definition that s makes, checked, with id 0. Errors: 42701 (a column twice), 42703 (key or
// watermark of an unknown column), 42804 (of the wrong type), 42939 (reserved name), 22023 (an option's value).
func StreamOf(s *CreateStream) (*millracev1.Stream, error) {
	src := s.src
	if len(s.columns) == 0 {
		return nil, src.fail(s.nameAt, stateSyntax, "", "stream %q has no columns", s.Name)
	}
	out := &millracev1.Stream{Name: s.Name, Format: "json", IdleUs: defaultIdle, Source: proto.CloneOf(s.made)}
	if err := checkName(src, s.nameAt, s.Name); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i, col := range s.columns {
		switch {
		case i >= MaxColumns:
			return nil, src.fail(col.at, stateTooManyColumns, "", "stream %q has more than %d columns", s.Name, MaxColumns)
		case seen[col.name]:
			return nil, src.fail(col.at, stateDuplicate, "", "column %q is there twice", col.name)
		case slices.Contains(reservedColumns, col.name):
			return nil, src.fail(col.at, stateReservedName, "choose another", "column name %q is reserved", col.name)
		}
		if err := checkName(src, col.at, col.name); err != nil {
			return nil, err
		}
		seen[col.name] = true
		out.Columns = append(out.Columns, &millracev1.Column{Name: col.name, Type: col.typ.String(), NotNull: col.notNull, Default: col.def})
	}
	if err := s.setWatermark(out); err != nil {
		return nil, err
	}
	var message *option
	for i, o := range s.options {
		if err := s.setOption(out, o); err != nil {
			return nil, err
		}
		if o.name == "message" {
			message = &s.options[i]
		}
	}
	if err := s.checkProtobuf(out, message); err != nil {
		return nil, err
	}
	if out.Source != nil {
		if err := datagen.CheckStream(out); err != nil {
			return nil, src.literalError(s.nameAt, err)
		}
	}
	if _, err := record.NewDecoder(out, nil); err != nil {
		pos := s.nameAt
		if message != nil {
			pos = message.valueAt
		}
		return nil, src.literalError(pos, err)
	}
	return out, nil
}

// checkName holds for names of streams, views and their columns.
func checkName(src *source, pos int, name string) error {
	switch {
	case name == "":
		return src.fail(pos, stateName, "", "empty name")
	case len(name) > MaxNameBytes:
		return src.fail(pos, stateNameTooLong, "", "name of %d bytes is over the limit of %d bytes", len(name), MaxNameBytes)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return src.fail(pos, stateName, "", "name %q holds a control character", name)
		}
	}
	return nil
}

func (s *CreateStream) find(name string, pos int) (columnDef, error) {
	names := make([]string, len(s.columns))
	for i, c := range s.columns {
		if c.name == name {
			return c, nil
		}
		names[i] = c.name
	}
	return columnDef{}, s.src.fail(pos, stateNoColumn, suggest(name, names), "unknown column %q", name)
}

func (s *CreateStream) setWatermark(out *millracev1.Stream) error {
	w := s.watermark
	if w == nil {
		return nil
	}
	col, err := s.find(w.column, w.at)
	if err != nil {
		return err
	}
	switch {
	case col.typ != record.TimestampTZ:
		return s.src.fail(w.at, stateMismatch, "it must be TIMESTAMPTZ", "WATERMARK column %q is of type %s", w.column, col.typ)
	case w.again != w.column:
		return s.src.fail(w.againAt, stateUnsupported, "write AS "+w.column+" - INTERVAL '...'", "WATERMARK of another column is not supported: %q", w.again)
	}
	out.WatermarkColumn = w.column
	if w.delay != "" {
		if out.WatermarkDelayUs, err = s.src.duration(w.delayAt, w.delay); err != nil {
			return err
		}
	}
	return nil
}

// duration returns an interval's text in microseconds. It must not be negative and have no months; a day is 24 hours.
func (s *source) duration(pos int, text string) (int64, error) {
	v, err := parseLiteral(s, pos, record.IntervalT, text)
	if err != nil {
		return 0, err
	}
	us, ok := micros(v.Interval)
	switch {
	case v.Interval.Months != 0:
		return 0, s.fail(pos, stateParameter, "use days", "interval %q has months, whose length differs,", text)
	case !ok:
		return 0, s.fail(pos, stateOutOfRange, "", "interval %q is out of range", text)
	case us < 0:
		return 0, s.fail(pos, stateParameter, "", "interval %q is negative", text)
	}
	return us, nil
}

// micros returns an interval's days and microseconds as microseconds, and whether they fit.
func micros(v record.Interval) (int64, bool) {
	const day = 24 * 3600 * 1_000_000
	days := int64(v.Days)
	if days > math.MaxInt64/day/2 || days < math.MinInt64/day/2 || v.Micros > math.MaxInt64/2 || v.Micros < math.MinInt64/2 {
		return 0, false
	}
	return days*day + v.Micros, true
}

func (s *CreateStream) setOption(out *millracev1.Stream, o option) (err error) {
	src := s.src
	switch o.name {
	case "format":
		out.Format = lowerASCII(o.value)
		if formats := []string{"json", "csv", "protobuf"}; !slices.Contains(formats, out.Format) {
			hint := suggest(out.Format, formats)
			if hint == "" {
				hint = "it is json, csv or protobuf"
			}
			return src.fail(o.valueAt, stateParameter, hint, "unknown format %q", o.value)
		}
	case "key":
		if err := s.checkKey(o.value, o.valueAt); err != nil {
			return err
		}
		out.Key = o.value
	case "retention":
		if o.value != "0" {
			out.RetentionUs, err = src.duration(o.valueAt, o.value)
		}
	case "idle":
		if out.IdleUs, err = src.duration(o.valueAt, o.value); err == nil && out.IdleUs == 0 {
			err = src.fail(o.valueAt, stateParameter, "", "idle must be above 0")
		}
	case "retention_bytes":
		out.RetentionBytes, err = src.byteCount(o)
	case "descriptor":
		out.DescriptorSet, err = src.binary(o)
	case "message":
		out.Message = strings.TrimPrefix(o.value, ".")
	}
	return err
}

// checkKey checks that a column can be a key.
func (s *CreateStream) checkKey(name string, pos int) error {
	col, err := s.find(name, pos)
	if err != nil {
		return err
	}
	if col.typ.HasForms() && col.typ != record.Numeric {
		return s.src.fail(pos, stateMismatch, "take another column", "key column %q is of type %s, whose equal values have several spellings,", col.name, col.typ)
	}
	return nil
}

// byteCount reads 1000000, '512 MB', '10GB'; units as PostgreSQL's settings have them (1 kB is 1024 bytes).
func (s *source) byteCount(o option) (int64, error) {
	text, shift := strings.TrimSpace(o.value), 0
	for i, unit := range []string{"kb", "mb", "gb", "tb"} {
		if n := len(text) - 2; n > 0 && lowerASCII(text[n:]) == unit {
			text, shift = strings.TrimSpace(text[:n]), 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, s.fail(o.valueAt, stateParameter, "write a number of bytes, or '512 MB'", "malformed %s %q", o.name, o.value)
	}
	return n << shift, nil
}

// binary reads base64, or hexadecimal after \x.
func (s *source) binary(o option) ([]byte, error) {
	text := strings.Join(strings.Fields(o.value), "")
	if h, ok := strings.CutPrefix(text, `\x`); ok {
		if b, err := hex.DecodeString(h); err == nil {
			return b, nil
		}
	} else if b, err := base64.StdEncoding.DecodeString(text); err == nil {
		return b, nil
	}
	return nil, s.fail(o.valueAt, stateParameter, `write base64, or \x and hexadecimal digits`, "malformed %s", o.name)
}

// checkProtobuf holds the descriptor set, the message and the format against each other.
func (s *CreateStream) checkProtobuf(out *millracev1.Stream, message *option) error {
	src := s.src
	if out.Format != "protobuf" {
		if len(out.DescriptorSet) > 0 || out.Message != "" {
			return src.fail(s.options[0].at, stateParameter, "add format = 'protobuf'", "options descriptor and message are for format protobuf, not %s,", out.Format)
		}
		return nil
	}
	pos := s.options[0].at
	if len(out.DescriptorSet) == 0 || message == nil {
		return src.fail(pos, stateParameter, "", "format protobuf needs the options descriptor and message")
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(out.DescriptorSet, set); err != nil {
		return src.fail(pos, stateParameter, "make it with protoc --include_imports --descriptor_set_out", "descriptor is not a FileDescriptorSet")
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return src.fail(pos, stateParameter, "make it with protoc --include_imports --descriptor_set_out", "descriptor doesn't hold together (%v)", err)
	}
	d, err := files.FindDescriptorByName(protoreflect.FullName(out.Message))
	if _, ok := d.(protoreflect.MessageDescriptor); err != nil || !ok {
		return src.fail(message.valueAt, stateNoObject, suggest(out.Message, messageNames(files)), "unknown message %q in the descriptor", out.Message)
	}
	return nil
}

func messageNames(files interface {
	RangeFiles(func(protoreflect.FileDescriptor) bool)
}) []string {
	var out []string
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			out = append(out, string(f.Messages().Get(i).FullName()))
		}
		return true
	})
	slices.Sort(out)
	return out
}
