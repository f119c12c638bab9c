// Package sql turns text into plans: text -> AST -> checked query -> plan, and back to text for EXPLAIN.
//
// The dialect is PostgreSQL's. Its own grammar parses queries (through pg_query_go); the tree is converted at once
// into the small AST of ast.go, in convert.go and convert_expr.go only, so that the parser stays replaceable.
// Statements that PostgreSQL lacks are a small recursive descent over the same library's tokens.
//
// Every error is a fault.Error with PostgreSQL's SQLSTATE, and its text names the line and column (in characters,
// from 1) of the offending token in the text given to Parse.
//
// The package is pure: it does no I/O, keeps no state, reads no clock, and evaluates no expression (a literal of a
// known type is parsed; the rest is package dataflow's). What it can't plan it refuses by name with SQLSTATE 0A000;
// it never plans something that means less than what was asked.
package sql
