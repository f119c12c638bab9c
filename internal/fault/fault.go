// Package fault is the small set of error kinds that every layer speaks, and their one mapping each to gRPC codes
// and SQLSTATEs. An error says what was wrong, where, and what to do; its Reason is stable and machine-readable.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Kind classifies an error by what its receiver can do about it.
type Kind uint8

const (
	Internal    Kind = iota // a defect of ours
	Invalid                 // the request is wrong; repeating it won't help
	NotFound                // what it names doesn't exist
	Exists                  // what it would create exists already
	Conflict                // the state forbids it: dependents, a changed version, a live node
	NotPrimary              // this node doesn't hold the partition; ask again, elsewhere
	Stale                   // the sender's epoch is older than the receiver's
	Unavailable             // not now; retry after a delay
	Exhausted               // over a limit or quota; retry after a delay or ask for less
	TooLarge                // over a size limit; repeating it won't help
	Unsupported             // a feature that isn't there
	Corrupted               // stored data failed its check
	Canceled
	Deadline
)

var kinds = [...]struct {
	reason, sqlState string
	code             codes.Code
}{
	Internal:    {"INTERNAL", "XX000", codes.Internal},
	Invalid:     {"INVALID", "22023", codes.InvalidArgument},
	NotFound:    {"NOT_FOUND", "42704", codes.NotFound},
	Exists:      {"EXISTS", "42710", codes.AlreadyExists},
	Conflict:    {"CONFLICT", "55006", codes.FailedPrecondition},
	NotPrimary:  {"NOT_PRIMARY", "57P03", codes.Unavailable},
	Stale:       {"STALE_EPOCH", "57P03", codes.Aborted},
	Unavailable: {"UNAVAILABLE", "57P03", codes.Unavailable},
	Exhausted:   {"EXHAUSTED", "53000", codes.ResourceExhausted},
	TooLarge:    {"TOO_LARGE", "54000", codes.InvalidArgument},
	Unsupported: {"UNSUPPORTED", "0A000", codes.Unimplemented},
	Corrupted:   {"CORRUPTED", "XX001", codes.DataLoss},
	Canceled:    {"CANCELED", "57014", codes.Canceled},
	Deadline:    {"DEADLINE", "57014", codes.DeadlineExceeded},
}

// String returns the kind's default reason.
func (k Kind) String() string { return kinds[k].reason }

// Error is an error of a kind. The zero values of Reason and SQLState mean the kind's own.
type Error struct {
	Kind       Kind
	Reason     string        // stable, UPPER_SNAKE_CASE
	SQLState   string        // five characters
	Message    string        // what, where, what to do; one line
	RetryAfter time.Duration // hint for retryable kinds; 0: none
	Err        error         // cause; may be nil
	Place      *Place        // of what is wrong in the text of a statement; nil: unknown, or lost on the way between nodes
}

// Place is where in a statement's text an error is, for protocols that carry it apart from the message.
type Place struct {
	Message string // what was wrong, without the place and what to do
	Hint    string // what to do; may be empty
	Char    int    // in characters, from 1
}

// New returns an error of kind k.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns an error of kind k caused by err, whose text follows the message.
func Wrap(k Kind, err error, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...), Err: err}
}

// SQL returns an error with a SQLSTATE of its own.
func SQL(k Kind, sqlState, format string, args ...any) *Error {
	return &Error{Kind: k, SQLState: sqlState, Message: fmt.Sprintf(format, args...)}
}

// WithReason sets the stable reason and returns e.
func (e *Error) WithReason(reason string) *Error { e.Reason = reason; return e }

// WithRetryAfter sets the delay after which a retry may succeed and returns e.
func (e *Error) WithRetryAfter(d time.Duration) *Error { e.RetryAfter = d; return e }

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// GetReason returns the reason, the kind's own where none was set.
func (e *Error) GetReason() string {
	if e.Reason != "" {
		return e.Reason
	}
	return kinds[e.Kind].reason
}

// GetSQLState returns the SQLSTATE, the kind's own where none was set.
func (e *Error) GetSQLState() string {
	if e.SQLState != "" {
		return e.SQLState
	}
	return kinds[e.Kind].sqlState
}

// Is makes errors.Is(err, fault.Of(kind)) true for any error of that kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(kindMark)
	return ok && k.kind == e.Kind
}

type kindMark struct{ kind Kind }

func (m kindMark) Error() string { return kinds[m.kind].reason }

// Of returns a mark for errors.Is: errors.Is(err, fault.Of(fault.NotFound)).
func Of(k Kind) error { return kindMark{k} }

// KindOf returns the kind of the first Error in err's chain, else Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// KindOfContext returns Deadline or Canceled for a context that has ended.
func KindOfContext(ctx context.Context) Kind {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return Deadline
	}
	return Canceled
}

// Retryable tells whether the same request may succeed later or elsewhere.
func Retryable(err error) bool {
	switch KindOf(err) {
	case NotPrimary, Stale, Unavailable, Exhausted:
		return true
	}
	return false
}

const domain = "millrace"

// GRPCStatus makes every Error a gRPC status with google.rpc.ErrorInfo.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(kinds[e.Kind].code, e.Error())
	info := &errdetails.ErrorInfo{
		Reason: e.GetReason(), Domain: domain,
		Metadata: map[string]string{"kind": kinds[e.Kind].reason, "sqlstate": e.GetSQLState()},
	}
	var with *status.Status
	var err error
	if e.RetryAfter > 0 {
		with, err = st.WithDetails(info, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	} else {
		with, err = st.WithDetails(info)
	}
	if err != nil {
		return st
	}
	return with
}

// Status returns the gRPC status of any error: ours with its details, a context's by its kind, others as Internal.
func Status(err error) *status.Status {
	switch {
	case errors.Is(err, context.Canceled):
		return New(Canceled, "%v", err).GRPCStatus()
	case errors.Is(err, context.DeadlineExceeded):
		return New(Deadline, "%v", err).GRPCStatus()
	}
	var own *Error
	if errors.As(err, &own) {
		out := *own
		out.Message, out.Err = err.Error(), nil
		return out.GRPCStatus()
	}
	if st, ok := status.FromError(err); ok {
		return st
	}
	return New(Internal, "%v", err).GRPCStatus()
}

// FromGRPC turns an error of a gRPC call into an Error: ours as it was, a foreign status by its code.
func FromGRPC(err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return Wrap(Internal, err, "call failed")
	}
	e := FromStatus(st)
	if e.Kind == Unavailable && e.Reason == "" { // gRPC's own
		e.Message = "a call from one node to another broke off: " + e.Message + "; retry"
	}
	return e
}

// FromStatus turns a gRPC status that isn't OK into an Error.
func FromStatus(st *status.Status) *Error {
	e := &Error{Kind: kindOfCode(st.Code()), Message: st.Message()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.Domain != domain {
				continue
			}
			e.Reason, e.SQLState = d.Reason, d.Metadata["sqlstate"]
			for k := range kinds {
				if kinds[k].reason == d.Metadata["kind"] {
					e.Kind = Kind(k)
				}
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay.AsDuration()
		}
	}
	return e
}

func kindOfCode(c codes.Code) Kind {
	switch c {
	case codes.InvalidArgument, codes.OutOfRange:
		return Invalid
	case codes.NotFound:
		return NotFound
	case codes.AlreadyExists:
		return Exists
	case codes.FailedPrecondition:
		return Conflict
	case codes.Unavailable:
		return Unavailable
	case codes.Aborted:
		return Stale
	case codes.ResourceExhausted:
		return Exhausted
	case codes.Unimplemented:
		return Unsupported
	case codes.DataLoss:
		return Corrupted
	case codes.Canceled:
		return Canceled
	case codes.DeadlineExceeded:
		return Deadline
	}
	return Internal
}
