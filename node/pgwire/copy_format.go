package pgwire

import (
	"bytes"
	"encoding/binary"

	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// endOfRow returns the position of the newline that ends the first row of b, or -1. It goes on where it stopped.
func (in *copyInput) endOfRow(b []byte) int {
	if in.st.Format == sql.CopyCSV {
		for i := in.scanned; i < len(b); i++ {
			switch {
			case b[i] == in.st.Quote && in.st.Escape == in.st.Quote:
				in.quoted = !in.quoted // a doubled quote is left and entered again
			case in.quoted && b[i] == in.st.Escape:
				if i+1 == len(b) {
					in.scanned = i
					return -1
				}
				i++
			case b[i] == in.st.Quote:
				in.quoted = !in.quoted
			case b[i] == '\n' && !in.quoted:
				return i
			}
		}
		in.scanned = len(b)
		return -1
	}
	for i := in.scanned; ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			in.scanned = len(b)
			return -1
		}
		i += n
		escapes := 0
		for i-escapes > 0 && b[i-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i
		}
		i++
	}
}

// plainRow reads a row of the text format.
func (in *copyInput) plainRow(row []byte) error {
	col := 0
	for {
		end := 0
		for end < len(row) && row[end] != in.st.Delimiter {
			if row[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end, len(row))
		field := row[:end]
		var err error
		if string(field) == in.st.Null {
			err = in.add(col, true, nil)
		} else {
			err = in.add(col, false, unescape(field))
		}
		if err != nil {
			return err
		}
		col++
		if end == len(row) {
			return in.complete(col)
		}
		row = row[end+1:]
	}
}

var escapes = map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v'}

// unescape resolves the backslashes of the text format.
func unescape(field []byte) []byte {
	if bytes.IndexByte(field, '\\') < 0 {
		return field
	}
	out := make([]byte, 0, len(field))
	for i := 0; i < len(field); i++ {
		b := field[i]
		if b != '\\' || i+1 == len(field) {
			out = append(out, b)
			continue
		}
		i++
		b = field[i]
		switch {
		case escapes[b] != 0:
			out = append(out, escapes[b])
		case b >= '0' && b <= '7':
			v := 0
			for k := 0; k < 3 && i < len(field) && field[i] >= '0' && field[i] <= '7'; k++ {
				v = v*8 + int(field[i]-'0')
				i++
			}
			i--
			out = append(out, byte(v))
		case b == 'x' && i+1 < len(field) && hexDigit(field[i+1]) >= 0:
			v := 0
			for k := 0; k < 2 && i+1 < len(field) && hexDigit(field[i+1]) >= 0; k++ {
				i++
				v = v*16 + hexDigit(field[i])
			}
			out = append(out, byte(v))
		default:
			out = append(out, b)
		}
	}
	return out
}

func hexDigit(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return int(b|0x20-'a') + 10
	}
	return -1
}

// csvRow reads a row of the csv format; an unquoted field that is the text of NULL is NULL.
func (in *copyInput) csvRow(row []byte) error {
	st := in.st
	col, i := 0, 0
	for {
		var field []byte
		quoted := false
		for i < len(row) && row[i] != st.Delimiter {
			if row[i] != st.Quote {
				field = append(field, row[i])
				i++
				continue
			}
			quoted = true
			closed := false
			for i++; i < len(row); i++ {
				if row[i] == st.Escape && i+1 < len(row) && (row[i+1] == st.Quote || row[i+1] == st.Escape) {
					i++
				} else if row[i] == st.Quote {
					closed = true
					i++
					break
				}
				field = append(field, row[i])
			}
			if !closed {
				return in.wrong("22P04", "unterminated CSV quoted field")
			}
		}
		null := !quoted && string(field) == st.Null
		if err := in.add(col, null, field); err != nil {
			return err
		}
		col++
		if i >= len(row) {
			return in.complete(col)
		}
		i++
		if i == len(row) { // a delimiter at the end: one more field, which is empty
			if err := in.add(col, st.Null == "", nil); err != nil {
				return err
			}
			return in.complete(col + 1)
		}
	}
}

// binaryRow reads a row of the binary format from the front of b and returns its length, 0 when it isn't complete.
func (in *copyInput) binaryRow(b []byte) (int, error) {
	used := 0
	if !in.begun {
		n, err := in.signature(b)
		if n == 0 || err != nil {
			return 0, err
		}
		in.begun = true
		used = n
	}
	if len(b) < used+2 {
		return used, nil
	}
	count := int(int16(binary.BigEndian.Uint16(b[used:])))
	at := used + 2
	if count == -1 {
		in.over = true
		return at, nil
	}
	if count != len(in.cols) {
		in.line++
		return 0, in.wrong("22P04", "row field count is %d, expected %d", count, len(in.cols))
	}
	fields := make([][]byte, count)
	for i := range fields {
		if len(b) < at+4 {
			return used, nil
		}
		n := int(int32(binary.BigEndian.Uint32(b[at:])))
		at += 4
		if n == -1 {
			continue
		}
		if n < 0 || n > in.max {
			return 0, in.wrong("22P03", "invalid field size")
		}
		if len(b) < at+n {
			return used, nil
		}
		fields[i] = b[at : at+n : at+n]
		at += n
	}
	in.line++
	return at, in.binaryFields(fields)
}

func (in *copyInput) binaryFields(fields [][]byte) error {
	for i, f := range fields {
		c := &in.rows.Cols[i]
		if f == nil {
			c.AppendNull()
			continue
		}
		in.bytes += len(f) + 8
		v, err := decodeBinary(oidOf(in.cols[i].Type), f)
		if err != nil {
			return in.at(i, err)
		}
		if v.Type != in.cols[i].Type {
			if v, err = record.ParseText(in.cols[i].Type, string(v.Bytes)); err != nil {
				return in.at(i, err)
			}
		}
		c.AppendValue(v)
	}
	return in.complete(len(fields))
}

// signature checks the header of the binary format and returns its length, 0 when it isn't complete.
func (in *copyInput) signature(b []byte) (int, error) {
	const fixed = 11
	if len(b) < len(copySignature) {
		return 0, nil
	}
	if string(b[:fixed]) != copySignature[:fixed] {
		return 0, in.wrong("22P04", "COPY file signature not recognized")
	}
	if binary.BigEndian.Uint32(b[fixed:])&0xffff0000 != 0 {
		return 0, in.wrong("22P04", "unrecognized critical flags in COPY file header")
	}
	extra := int(binary.BigEndian.Uint32(b[fixed+4:]))
	if extra > in.max {
		return 0, in.wrong("22P04", "invalid COPY file header")
	}
	if len(b) < len(copySignature)+extra {
		return 0, nil
	}
	return len(copySignature) + extra, nil
}
