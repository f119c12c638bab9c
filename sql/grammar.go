package sql

// grammarError is what PostgreSQL's scanner or parser says about a text. scanText and parseText, of which a build has
// those of parser_cgo.go or of parser_nocgo.go, return no other error.
type grammarError struct {
	message string
	char    int // position in characters, from 0; -1: unknown
}

func (e *grammarError) Error() string { return e.message }
