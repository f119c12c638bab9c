// Package pgcatalog answers what clients of PostgreSQL's protocol ask about the catalog: the tables of pg_catalog and
// information_schema, and the functions that go with them (version(), format_type(), casts to regclass).
//
// psql's \d commands, drivers and tools ask such questions in a dialect far richer than what a stream or view needs:
// correlated subqueries, arrays, system columns, types of names and oids. So they are evaluated here, row by row over
// tables in memory that are made anew from the cluster's catalog for each statement, and never touch a stream or view.
// A query over both is refused.
//
// Parse decides what is a question about the catalog: whatever reads only relations of the two schemas, or reads nothing
// and calls a function that only the catalog has. Everything evaluated is PostgreSQL's meaning or refused with 0A000.
// Work is bounded by maxSteps and maxRows.
package pgcatalog
