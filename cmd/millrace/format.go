package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/millrace/millrace/record"
)

// resultWriter writes results in one of the formats of sql.
type resultWriter interface {
	begin(columns record.Schema) error
	row(values []record.Value) error
	// end ends a result that had columns.
	end() error
	// done reports a statement that returned no rows.
	done(tag string) error

	// Of a subscription: the lines of one tick, written together, and the news that nothing changed.
	beginChanges(columns record.Schema) error
	change(tick uint64, weight int64, values []record.Value) error
	progress(tick uint64) error
	flush() error
}

const outputBuffer = 64 << 10

func newResultWriter(format string, out io.Writer) (resultWriter, error) {
	w := bufio.NewWriterSize(out, outputBuffer)
	switch format {
	case "table":
		return &tableWriter{out: w}, nil
	case "json":
		return &jsonWriter{out: w}, nil
	case "csv":
		return &csvWriter{out: w}, nil
	}
	return nil, usagef("--format %q: use table, json or csv", format)
}

// jsonWriter writes one object a row.
type jsonWriter struct {
	out     *bufio.Writer
	columns record.Schema
	keys    [][]byte // of each column: its name as JSON, and the colon
	buf     []byte
}

func (w *jsonWriter) begin(columns record.Schema) error {
	w.columns, w.keys = columns, w.keys[:0]
	for _, c := range columns {
		w.keys = append(w.keys, append(appendJSONText(nil, c.Name), ':'))
	}
	return nil
}

// appendJSONText appends a JSON string.
func appendJSONText(dst []byte, s string) []byte {
	return record.AppendJSONValue(dst, record.Value{Type: record.Text, Bytes: []byte(s)})
}

func (w *jsonWriter) row(values []record.Value) error {
	w.buf = w.fields(append(w.buf[:0], '{'), values)
	return w.line()
}

func (w *jsonWriter) fields(b []byte, values []record.Value) []byte {
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, w.keys[i]...)
		b = record.AppendJSONValue(b, v)
	}
	return b
}

func (w *jsonWriter) line() error {
	w.buf = append(w.buf, '}', '\n')
	_, err := w.out.Write(w.buf)
	return err
}

func (w *jsonWriter) end() error                               { return w.out.Flush() }
func (w *jsonWriter) done(string) error                        { return w.out.Flush() }
func (w *jsonWriter) flush() error                             { return w.out.Flush() }
func (w *jsonWriter) beginChanges(columns record.Schema) error { return w.begin(columns) }

func (w *jsonWriter) change(tick uint64, weight int64, values []record.Value) error {
	w.buf = strconv.AppendUint(append(w.buf[:0], `{"_tick":`...), tick, 10)
	w.buf = strconv.AppendInt(append(w.buf, `,"_weight":`...), weight, 10)
	if len(values) > 0 {
		w.buf = append(w.buf, ',')
	}
	w.buf = w.fields(w.buf, values)
	return w.line()
}

func (w *jsonWriter) progress(tick uint64) error {
	w.buf = strconv.AppendUint(append(w.buf[:0], `{"_tick":`...), tick, 10)
	w.buf = append(w.buf, `,"_progress":true`...)
	return w.line()
}

// csvWriter writes a header line and one line a row. NULL is an empty field, an empty text one in quotes.
type csvWriter struct {
	out       *bufio.Writer
	buf, cell []byte
}

func (w *csvWriter) begin(columns record.Schema) error { return w.header(nil, columns) }

func (w *csvWriter) header(first []string, columns record.Schema) error {
	w.buf = w.buf[:0]
	for _, name := range first {
		w.field([]byte(name))
	}
	for _, c := range columns {
		w.field([]byte(c.Name))
	}
	return w.line()
}

// field appends a field and a comma.
func (w *csvWriter) field(text []byte) {
	w.buf = append(record.AppendCSVField(w.buf, text), ',')
}

func (w *csvWriter) line() error {
	if n := len(w.buf); n > 0 {
		w.buf[n-1] = '\n'
	} else {
		w.buf = append(w.buf, '\n')
	}
	_, err := w.out.Write(w.buf)
	return err
}

func (w *csvWriter) row(values []record.Value) error {
	w.buf = w.buf[:0]
	w.values(values)
	return w.line()
}

func (w *csvWriter) values(values []record.Value) {
	for _, v := range values {
		if v.Null {
			w.buf = append(w.buf, ',')
			continue
		}
		w.cell = record.AppendTextValue(w.cell[:0], v)
		w.field(w.cell)
	}
}

func (w *csvWriter) end() error        { return w.out.Flush() }
func (w *csvWriter) done(string) error { return w.out.Flush() }
func (w *csvWriter) flush() error      { return w.out.Flush() }

func (w *csvWriter) beginChanges(columns record.Schema) error {
	return w.header([]string{"_tick", "_weight"}, columns)
}

func (w *csvWriter) change(tick uint64, weight int64, values []record.Value) error {
	w.buf = append(strconv.AppendUint(w.buf[:0], tick, 10), ',')
	w.buf = append(strconv.AppendInt(w.buf, weight, 10), ',')
	w.values(values)
	return w.line()
}

// progress writes nothing: CSV has no line that isn't a row.
func (w *csvWriter) progress(uint64) error { return nil }

// tableWriter writes aligned columns, as psql does. It holds up to tableRows rows to find the columns' widths; those
// that follow are written as they come.
type tableWriter struct {
	out     *bufio.Writer
	columns record.Schema
	widths  []int
	held    [][]string
	count   int
	headed  bool
	buf     []byte
}

const tableRows = 10_000

func (w *tableWriter) begin(columns record.Schema) error {
	*w = tableWriter{out: w.out, columns: columns, buf: w.buf}
	for _, c := range columns {
		w.widths = append(w.widths, uniseg.StringWidth(printable(c.Name)))
	}
	return nil
}

func (w *tableWriter) row(values []record.Value) error {
	w.count++
	return w.cells(w.texts(values))
}

func (w *tableWriter) texts(values []record.Value) []string {
	cells := make([]string, len(values))
	for i, v := range values {
		if !v.Null {
			w.buf = record.AppendTextValue(w.buf[:0], v)
			cells[i] = printable(string(w.buf))
		}
	}
	return cells
}

func (w *tableWriter) cells(cells []string) error {
	if w.headed {
		return w.write(cells)
	}
	for i, c := range cells {
		w.widths[i] = max(w.widths[i], uniseg.StringWidth(c))
	}
	w.held = append(w.held, cells)
	if len(w.held) >= tableRows {
		return w.release()
	}
	return nil
}

// release writes the header and the rows that were held.
func (w *tableWriter) release() error {
	if !w.headed {
		w.headed = true
		w.header()
	}
	for _, cells := range w.held {
		if err := w.write(cells); err != nil {
			return err
		}
	}
	w.held = nil
	return nil
}

func (w *tableWriter) header() {
	b := w.buf[:0]
	for i, c := range w.columns {
		name := printable(c.Name)
		room := w.widths[i] - uniseg.StringWidth(name)
		b = spaces(b, 1+room/2)
		b = append(b, name...)
		b = spaces(b, room-room/2+1)
		if i < len(w.columns)-1 {
			b = append(b, '|')
		}
	}
	b = append(b, '\n')
	for i := range w.columns {
		for range w.widths[i] + 2 {
			b = append(b, '-')
		}
		if i < len(w.columns)-1 {
			b = append(b, '+')
		}
	}
	w.buf = append(b, '\n')
	w.out.Write(w.buf)
}

func (w *tableWriter) write(cells []string) error {
	b := w.buf[:0]
	for i, c := range cells {
		room := max(w.widths[i]-uniseg.StringWidth(c), 0)
		b = append(b, ' ')
		last := i == len(cells)-1
		switch {
		case rightAligned(w.columns[i].Type):
			b = append(spaces(b, room), c...)
		case last:
			b = append(b, c...)
		default:
			b = spaces(append(b, c...), room)
		}
		if !last {
			b = append(b, ' ', '|')
		}
	}
	w.buf = append(b, '\n')
	_, err := w.out.Write(w.buf)
	return err
}

func rightAligned(t record.Type) bool {
	return t == record.BigInt || t == record.Double || t == record.Numeric
}

func spaces(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
}

func (w *tableWriter) end() error {
	if err := w.release(); err != nil {
		return err
	}
	rows := "rows"
	if w.count == 1 {
		rows = "row"
	}
	fmt.Fprintf(w.out, "(%d %s)\n\n", w.count, rows)
	return w.out.Flush()
}

func (w *tableWriter) done(tag string) error {
	if tag != "" {
		fmt.Fprintln(w.out, tag)
	}
	return w.out.Flush()
}

func (w *tableWriter) flush() error {
	if len(w.columns) > 0 {
		if err := w.release(); err != nil {
			return err
		}
	}
	return w.out.Flush()
}

func (w *tableWriter) beginChanges(columns record.Schema) error {
	return w.begin(append(record.Schema{{Name: "_tick", Type: record.BigInt}, {Name: "_weight", Type: record.BigInt}}, columns...))
}

func (w *tableWriter) change(tick uint64, weight int64, values []record.Value) error {
	return w.cells(append([]string{strconv.FormatUint(tick, 10), strconv.FormatInt(weight, 10)}, w.texts(values)...))
}

// progress writes nothing: a table is for people, who see that nothing changes.
func (w *tableWriter) progress(uint64) error { return nil }

// printable escapes what would break a table or play with the terminal.
func printable(s string) string {
	clean := true
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case !unicode.IsPrint(r) && r != utf8.RuneError:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}
