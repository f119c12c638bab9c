package pgwire

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/node/pgcatalog"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// Backend begins sessions. It may be called by any number of goroutines.
type Backend interface {
	// Begin returns a session for a client's greeting; what can't be set is told as a warning.
	Begin(g Greeting) (s Session, warnings []string)
}

// Greeting is what a client says of itself.
type Greeting struct {
	User, Database string
	Settings       map[string]string
	ID             uint32 // the connection's number
}

// Session runs statements for one connection, one at a time. Errors are those of package fault.
type Session interface {
	State
	// Describe tells a statement's parameters, and its columns: nil for a statement without rows.
	Describe(ctx context.Context, st sql.Statement, given []record.Type) (*sql.Description, error)
	// Execute runs a statement whose parameters are bound, and returns its tag.
	Execute(ctx context.Context, st sql.Statement, out Output) (tag string, err error)
	// Open begins a query or subscription. Run may be called once, at any later time, while the session does other things.
	Open(ctx context.Context, st sql.Statement) (Run, error)
	// Into returns where COPY's rows go.
	Into(ctx context.Context, relation string, columns []string) (Target, error)
	// Close ends the session and its transaction.
	Close()
}

// State is what the protocol tells of a session besides results.
type State interface {
	// Status is 'I' (idle), 'T' (in a transaction) or 'E' (in a failed one).
	Status() byte
	// Fail marks an open transaction as failed.
	Fail()
	// Setting returns a setting's value; ok is false for one that isn't there.
	Setting(name string) (value string, ok bool)
	// IdleTimeout is how long a client may leave a transaction open without a word; 0: for ever.
	IdleTimeout() time.Duration
	// Reset is DISCARD ALL's part of the session.
	Reset() error
	// Catalog is what the catalog's tables are made of.
	Catalog() pgcatalog.Source
}

// Run gives a query's rows and returns its tag.
type Run func(ctx context.Context, out Output) (tag string, err error)

// Output takes a statement's rows. Deltas are only read during the call.
type Output interface {
	Schema(record.Schema) error
	Rows(*record.Delta) error
	// Progress says that a subscription has no more changes up to tick.
	Progress(tick ids.Tick) error
	// Notice is a warning about a statement that is done all the same.
	Notice(sqlState, message string) error
}

// Target takes the rows of COPY FROM.
type Target interface {
	// Columns are those that COPY's rows have, in order.
	Columns() record.Schema
	// Append adds rows, which it doesn't keep.
	Append(ctx context.Context, rows *record.Delta) error
}
