//go:build !cgo

package sql

import (
	"errors"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	wasm "github.com/wasilibs/go-pgquery"
	"github.com/wasilibs/go-pgquery/parser"
)

// scanText returns the tokens of text, comments too. The parser is the same C code as in parser_cgo.go, compiled to
// WebAssembly: several times slower, and some hundred milliseconds to start, but in need of no C compiler.
func scanText(text string) (*pgquery.ScanResult, error) {
	r, err := wasm.Scan(text)
	return r, asGrammarError(err)
}

// parseText returns PostgreSQL's tree of text.
func parseText(text string) (*pgquery.ParseResult, error) {
	r, err := wasm.Parse(text)
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
