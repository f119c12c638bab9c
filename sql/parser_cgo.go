//go:build cgo

package sql

import (
	"errors"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
)

// scanText returns the tokens of text, comments too.
func scanText(text string) (*pgquery.ScanResult, error) {
	r, err := pgquery.Scan(text)
	return r, asGrammarError(err)
}

// parseText returns PostgreSQL's tree of text.
func parseText(text string) (*pgquery.ParseResult, error) {
	r, err := pgquery.Parse(text)
	return r, asGrammarError(err)
}

func asGrammarError(err error) error {
	if err == nil {
		return nil
	}
	var pe *parser.Error
	if errors.As(err, &pe) {
		return &grammarError{message: pe.Message, char: pe.Cursorpos - 1}
	}
	return &grammarError{message: err.Error(), char: -1}
}
