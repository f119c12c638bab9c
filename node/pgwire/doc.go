// Package pgwire serves PostgreSQL's wire protocol, version 3.0: psql, drivers and tools connect as to a PostgreSQL
// server. The message codec is pgproto3's; this package is the conversation: greeting, simple and extended queries,
// portals, cursors, COPY, cancel requests, errors.
//
// It knows no data. What statements mean is the Session's business, which the caller gives; what a client may ask about
// the catalog is package pgcatalog's.
//
// Contract: nothing that a client sends harms another connection or the node. Each connection is one goroutine (and one
// for each portal that is read in parts) with bounded memory: a message is at most Config.MaxMessageBytes, the rows that
// a portal holds back at most Config.PortalBytes, prepared statements, portals and cursors at most maxNamed each. A client
// that doesn't read stops its own statement only, and after Config.WriteTimeout loses its connection.
package pgwire
