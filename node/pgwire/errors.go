package pgwire

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace/millrace/internal/fault"
)

// Errors of a connection as a whole; each ends what runs.
var (
	errCanceled = fault.SQL(fault.Canceled, "57014", "canceling statement due to user request")
	errStopping = fault.SQL(fault.Unavailable, "57P01", "terminating connection because this node is stopping; go on at another")
	errGone     = fault.SQL(fault.Canceled, "08006", "the client has gone")
	errTooMany  = fault.SQL(fault.Exhausted, "53300", "too many connections to this node; close some, or go to another")
	errWoken    = fault.SQL(fault.Internal, "XX000", "a wait for the client was cut short")
	errIdle     = fault.SQL(fault.Canceled, "25P03", "terminating connection due to idle-in-transaction timeout")
)

func protocolError(format string, args ...any) error {
	return fault.SQL(fault.Invalid, "08P01", format, args...)
}

// cause is the error that a statement ended with: why it was stopped, where it was.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(c, context.Canceled) {
		return c
	}
	return err
}

// errorResponse turns an error into the message with PostgreSQL's fields.
func errorResponse(severity string, err error) *pgproto3.ErrorResponse {
	out := &pgproto3.ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: "XX000", Message: oneLine(err.Error())}
	var f *fault.Error
	if !errors.As(err, &f) {
		f = fault.New(fault.KindOf(err), "%v", err)
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			f.SQLState = "57014"
		}
	}
	out.Code = f.GetSQLState()
	if f.GetReason() == "TICK_NOT_RETAINED" {
		out.Code = "72000" // snapshot_too_old
	}
	if p := f.Place; p != nil {
		out.Message, out.Hint, out.Position = oneLine(p.Message), oneLine(p.Hint), int32(p.Char)
	}
	out.Routine = f.GetReason() // stable, for programs
	return out
}

// oneLine takes out what would end a field early.
func oneLine(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\ufffd")
}
