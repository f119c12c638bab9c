package sql

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
)

// SQLSTATEs as PostgreSQL assigns them.
const (
	stateSyntax         = "42601"
	stateNoColumn       = "42703"
	stateNoRelation     = "42P01"
	stateNoObject       = "42704" // types, options
	stateNoFunction     = "42883"
	stateAmbiguousFunc  = "42725"
	stateAmbiguous      = "42702"
	stateDuplicateAlias = "42712"
	stateWindowing      = "42P20"
	stateRecursion      = "42P19"
	stateWindowArgument = "22016"
	stateFrameOffset    = "22013"
	stateCardinality    = "21000"
	stateSetColumns     = "42601"
	stateGrouping       = "42803"
	stateMismatch       = "42804"
	stateCannotCast     = "42846"
	stateDuplicate      = "42701"
	stateColumnRef      = "42P10"
	stateWrongObject    = "42809"
	stateIndeterminate  = "42P18"
	stateName           = "42602"
	stateNameTooLong    = "42622"
	stateReservedName   = "42939"
	stateUnsupported    = "0A000"
	stateTooLong        = "54000"
	stateTooDeep        = "54001"
	stateTooManyColumns = "54011"
	stateParameter      = "22023"
	stateBadLimit       = "2201W"
	stateBadOffset      = "2201X"
	stateEncoding       = "22021"
	stateOutOfRange     = "22003"
	stateNoParameter    = "42P02"
	stateBadTable       = "42P16"
)

// source is the text that Parse was given; positions are byte offsets in it.
type source struct {
	text  string
	other func(text string) Statement // ParseFunc's; may be nil
}

// PublicSchema is the schema that everything stands in; names may be written with it.
const PublicSchema = "public"

// lineCol returns pos as line:column, both from 1, the column in characters.
func (s *source) lineCol(pos int) string {
	pos = max(0, min(pos, len(s.text)))
	before := s.text[:pos]
	line := strings.Count(before, "\n") + 1
	start := strings.LastIndexByte(before, '\n') + 1
	return fmt.Sprintf("%d:%d", line, utf8.RuneCountInString(before[start:])+1)
}

// fail returns an error at pos: what is wrong, the position, and then what to do (hint, may be empty).
func (s *source) fail(pos int, state, hint, format string, args ...any) error {
	short := fmt.Sprintf(format, args...)
	msg := short + " at " + s.lineCol(pos)
	if hint != "" {
		msg += "; " + hint
	}
	e := fault.SQL(kindOfState(state), state, "%s", msg).WithReason(reasonOfState(state))
	e.Place = &fault.Place{Message: strings.TrimSuffix(short, ","), Hint: hint, Char: s.char(pos)}
	return e
}

// char returns pos as a number of characters, from 1.
func (s *source) char(pos int) int {
	return utf8.RuneCountInString(s.text[:max(0, min(pos, len(s.text)))]) + 1
}

// unsupported returns the error for something that PostgreSQL has and Millrace doesn't.
func (s *source) unsupported(pos int, hint, format string, args ...any) error {
	return s.fail(pos, stateUnsupported, hint, format, args...)
}

func kindOfState(state string) fault.Kind {
	switch state {
	case stateUnsupported:
		return fault.Unsupported
	case stateNoRelation, stateNoObject:
		return fault.NotFound
	case stateTooLong, stateTooDeep, stateTooManyColumns:
		return fault.TooLarge
	}
	return fault.Invalid
}

func reasonOfState(state string) string {
	switch state {
	case stateSyntax:
		return "SYNTAX_ERROR"
	case stateNoColumn:
		return "UNKNOWN_COLUMN"
	case stateNoRelation:
		return "UNKNOWN_RELATION"
	case stateNoFunction:
		return "UNKNOWN_FUNCTION"
	case stateGrouping:
		return "GROUPING_ERROR"
	case stateMismatch:
		return "TYPE_MISMATCH"
	}
	return ""
}

// literalError puts the position to an error of package record about a literal.
func (s *source) literalError(pos int, err error) error {
	var e *fault.Error
	if !errors.As(err, &e) {
		return s.fail(pos, stateParameter, "", "%v", err)
	}
	out := fault.SQL(e.Kind, e.GetSQLState(), "%s at %s", err.Error(), s.lineCol(pos)).WithReason(e.Reason)
	out.Place = &fault.Place{Message: err.Error(), Char: s.char(pos)}
	return out
}
