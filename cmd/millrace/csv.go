package main

import (
	"bytes"
	"errors"
)

// csvField is one field of a CSV record (RFC 4180). An empty one without quotes is NULL.
type csvField struct {
	text   []byte
	quoted bool
}

func (f csvField) null() bool { return len(f.text) == 0 && !f.quoted }

var (
	errOpenQuote  = errors.New("a quoted field has no end")
	errBareQuote  = errors.New("a field with a quote in it must be in quotes")
	errAfterQuote = errors.New("a quoted field is followed by something else than a comma")
)

// csvParser splits records into fields, without allocating once its memory has grown.
type csvParser struct {
	fields  []csvField
	scratch []byte // fields with doubled quotes, as they are meant
}

// parse returns the fields of a record, valid until the next call. errOpenQuote: the record may go on in the next line.
func (p *csvParser) parse(record []byte) ([]csvField, error) {
	p.fields, p.scratch = p.fields[:0], p.scratch[:0]
	if cap(p.scratch) < len(record) { // fields must not move while it grows
		p.scratch = make([]byte, 0, len(record))
	}
	rest := record
	for {
		if len(rest) > 0 && rest[0] == '"' {
			field, tail, err := p.quoted(rest[1:])
			if err != nil {
				return nil, err
			}
			p.fields = append(p.fields, csvField{field, true})
			if len(tail) == 0 {
				return p.fields, nil
			}
			if tail[0] != ',' {
				return nil, errAfterQuote
			}
			rest = tail[1:]
			continue
		}
		n := bytes.IndexByte(rest, ',')
		field := rest
		if n >= 0 {
			field = rest[:n]
		}
		if bytes.IndexByte(field, '"') >= 0 {
			return nil, errBareQuote
		}
		p.fields = append(p.fields, csvField{field, false})
		if n < 0 {
			return p.fields, nil
		}
		rest = rest[n+1:]
	}
}

// quoted reads a field up to its closing quote.
func (p *csvParser) quoted(rest []byte) (field, tail []byte, err error) {
	start := len(p.scratch)
	for whole := rest; ; {
		n := bytes.IndexByte(rest, '"')
		if n < 0 {
			return nil, nil, errOpenQuote
		}
		if n+1 < len(rest) && rest[n+1] == '"' { // a doubled quote is one
			p.scratch = append(p.scratch, rest[:n+1]...)
			rest = rest[n+2:]
			continue
		}
		if len(p.scratch) == start {
			return whole[:n], rest[n+1:], nil
		}
		p.scratch = append(p.scratch, rest[:n]...)
		return p.scratch[start:len(p.scratch):len(p.scratch)], rest[n+1:], nil
	}
}
