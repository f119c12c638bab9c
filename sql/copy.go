package sql

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// CopyFormat is the format of COPY's data.
type CopyFormat string

const (
	CopyText   CopyFormat = "text"
	CopyCSV    CopyFormat = "csv"
	CopyBinary CopyFormat = "binary"
)

// Copy is COPY name [(columns)] FROM STDIN, COPY name [(columns)] TO STDOUT or COPY (query) TO STDOUT.
type Copy struct {
	statement
	From     bool
	Relation string // empty: Query is set
	Columns  []string
	Query    Statement // *Select, *Subscribe, or one of ParseFunc's caller

	Format    CopyFormat
	Delimiter byte
	Null      string
	Header    bool
	Quote     byte // CSV
	Escape    byte // CSV
}

func (c *cursor) copyStatement() (*Copy, error) {
	s := &Copy{statement: c.base(), Format: CopyText}
	c.i = 1
	if err := c.copySource(s); err != nil {
		return nil, err
	}
	switch {
	case c.accept("from", "stdin"):
		s.From = true
		if s.Query != nil {
			return nil, c.src.fail(c.tokens[0].from, stateSyntax, "", "syntax error: a query can't be copied into")
		}
	case c.accept("to", "stdout"):
	case c.word(c.i) == "from" || c.word(c.i) == "to":
		return nil, c.src.unsupported(c.pos(), "copy FROM STDIN or TO STDOUT", "COPY from or to files and programs is not supported")
	default:
		return nil, c.expect("FROM STDIN or TO STDOUT")
	}
	o := &copyOptions{Copy: s}
	if err := c.copyOptions(o); err != nil {
		return nil, err
	}
	return s, o.fill(c)
}

// copySource takes a relation with its columns, or a query in parentheses.
func (c *cursor) copySource(s *Copy) error {
	var err error
	if !c.acceptToken(tokenOpen) {
		if s.Relation, _, err = c.name("a stream, a view or a query in parentheses"); err != nil {
			return err
		}
		if !c.acceptToken(tokenOpen) {
			return nil
		}
		for {
			name, _, err := c.name("a column")
			if err != nil {
				return err
			}
			s.Columns = append(s.Columns, name)
			if c.acceptToken(tokenClose) {
				return nil
			}
			if err := c.need(tokenComma, `"," or ")"`); err != nil {
				return err
			}
		}
	}
	first, depth := c.i, 1
	for ; ; c.i++ {
		if c.done() {
			return c.expect(`")"`)
		}
		if t := c.tokens[c.i].tok; t == tokenOpen {
			depth++
		} else if t == tokenClose {
			if depth--; depth == 0 {
				break
			}
		}
	}
	if c.i == first {
		return c.expect("a query")
	}
	end := c.i
	part := newCursor(c.src, c.tokens[:end])
	part.i = first
	s.Query, err = part.inner("a query")
	c.i++
	return err
}

// copyOptions is which options were given.
type copyOptions struct {
	*Copy
	delimiter, null, quote, escape *string
}

// copyOptions takes [WITH] (FORMAT csv, HEADER, ...), or the form of old: [WITH] CSV HEADER DELIMITER AS ','.
func (c *cursor) copyOptions(o *copyOptions) error {
	c.accept("with")
	if !c.acceptToken(tokenOpen) {
		for !c.done() {
			if err := c.copyOption(o, false); err != nil {
				return err
			}
		}
		return nil
	}
	for {
		if err := c.copyOption(o, true); err != nil {
			return err
		}
		if c.acceptToken(tokenClose) {
			return c.finish()
		}
		if err := c.need(tokenComma, `"," or ")"`); err != nil {
			return err
		}
	}
}

func (c *cursor) copyOption(o *copyOptions, listed bool) error {
	text := func(to **string) error {
		c.accept("as")
		v, err := c.value()
		*to = &v
		return err
	}
	switch {
	case listed && c.accept("format"):
		format := c.word(c.i)
		switch CopyFormat(format) {
		case CopyText, CopyCSV, CopyBinary:
			o.Format = CopyFormat(format)
			c.i++
			return nil
		}
		return c.expect("text, csv or binary")
	case !listed && c.accept("csv"):
		o.Format = CopyCSV
	case !listed && c.accept("binary"):
		o.Format = CopyBinary
	case c.accept("header"):
		o.Header = true
		if listed && !c.done() && c.tokens[c.i].tok != tokenComma && c.tokens[c.i].tok != tokenClose {
			v, err := c.value()
			if err != nil {
				return err
			}
			if v = lowerASCII(v); v == "match" {
				return c.src.unsupported(c.pos(), "", "HEADER MATCH is not supported")
			}
			o.Header = v == "true" || v == "on" || v == "1"
		}
	case c.accept("delimiter"):
		return text(&o.delimiter)
	case c.accept("null"):
		return text(&o.null)
	case c.accept("quote"):
		return text(&o.quote)
	case c.accept("escape"):
		return text(&o.escape)
	case c.accept("encoding"):
		var encoding *string
		return text(&encoding)
	case c.accept("freeze"):
		if listed && c.word(c.i) != "" {
			c.i++
		}
	default:
		if !c.done() && c.tokens[c.i].tok == pgquery.Token_IDENT || c.word(c.i) != "" {
			return c.src.unsupported(c.pos(), "", "option %s of COPY is not supported", upper(c.text(c.i)))
		}
		return c.expect("an option of COPY")
	}
	return nil
}

// fill puts the format's defaults where no option was given.
func (o *copyOptions) fill(c *cursor) error {
	pos := o.from
	o.Delimiter, o.Null, o.Quote, o.Escape = '\t', `\N`, '"', '"'
	if o.Format == CopyCSV {
		o.Delimiter, o.Null = ',', ""
	}
	if o.Format == CopyBinary && (o.delimiter != nil || o.null != nil || o.Header) {
		return c.src.fail(pos, stateSyntax, "", "syntax error: DELIMITER, NULL and HEADER aren't for the binary format")
	}
	if o.Format != CopyCSV && (o.quote != nil || o.escape != nil) {
		return c.src.fail(pos, stateUnsupported, "", "QUOTE and ESCAPE are for the csv format")
	}
	one := func(name string, v *string, to *byte) error {
		if v == nil {
			return nil
		}
		if len(*v) != 1 || (*v)[0] == '\n' || (*v)[0] == '\r' {
			return c.src.fail(pos, stateParameter, "", "COPY's %s must be a single one-byte character", name)
		}
		*to = (*v)[0]
		return nil
	}
	if err := one("delimiter", o.delimiter, &o.Delimiter); err != nil {
		return err
	}
	if err := one("quote", o.quote, &o.Quote); err != nil {
		return err
	}
	o.Escape = o.Quote
	if err := one("escape", o.escape, &o.Escape); err != nil {
		return err
	}
	if o.null != nil {
		o.Null = *o.null
	}
	if o.Format == CopyText && (o.Delimiter == '\\' || o.Delimiter == '.') || o.Format == CopyCSV && o.Delimiter == o.Quote {
		return c.src.fail(pos, stateParameter, "", "COPY's delimiter can't be %q here", string(o.Delimiter))
	}
	return nil
}
