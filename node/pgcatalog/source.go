package pgcatalog

import "github.com/millrace/millrace/record"

// Source is what the tables are made of. It doesn't change during a statement, but for SetSetting.
type Source interface {
	// Relations returns all streams, tables and views.
	Relations() []Relation
	// Identity returns the names of the database and the user as the client gave them, and the connection's number.
	Identity() (database, user string, id uint32)
	// Setting returns a setting's value.
	Setting(name string) (string, bool)
	// Settings returns the names of all settings.
	Settings() []string
	// SetSetting is set_config().
	SetSetting(name, value string, local bool) error
}

// Relation is a stream, table or view.
type Relation struct {
	ID         uint64
	Name       string
	View       bool
	Columns    record.Schema
	Key        []int    // columns that identify a row; nil: none do
	NotNull    []bool   // of a table: by column
	Defaults   []string // by column, as they were written; empty: none. nil: none at all
	Indexes    []Index  // besides the primary key
	Definition string   // of a view: its query
	Bytes      int64    // on disk, of one copy; 0: unknown
}

// Index is an index that was made.
type Index struct {
	ID      uint64 // from the same numbers as relations
	Name    string
	Columns []int
}

// firstOID is that of user objects in PostgreSQL; an object's is its id above.
const firstOID = 16384

// OID returns the number of a relation's id in the catalog's tables.
func OID(id uint64) int64 { return firstOID + int64(id%(oidRange-firstOID)) }

// OID returns the relation's number as the catalog's tables have it.
func (r *Relation) OID() int64 { return OID(r.ID) }

// Column is one of a result.
type Column struct {
	Name string
	OID  uint32 // of its type
}
