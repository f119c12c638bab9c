package node

import (
	"cmp"
	"context"
	"maps"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// pendingBytes bounds the records that a transaction holds until it commits, in bytes.
const pendingBytes = 64 << 20

// appendRows and appendBytes bound one append of a statement that writes many records.
const (
	appendRows  = 4096
	appendBytes = 1 << 20
)

type txStatus byte

// The letters are those that PostgreSQL's protocol has.
const (
	txIdle   txStatus = 'I'
	txOpen   txStatus = 'T'
	txFailed txStatus = 'E'
)

// transaction is what lies between BEGIN and COMMIT. All its reads are as of the tick of the first one. What it inserts
// is held back until COMMIT, and appended then; statements that change tables are checked when they come, and run at
// COMMIT, where what others did meanwhile may change their outcome. The transaction doesn't see its own changes, and
// COMMIT isn't atomic: when it fails, some of them may have been made. CREATE and DROP: see creates.
type transaction struct {
	status     txStatus
	tick       ids.Tick // that all reads are as of; 0: none yet
	readOnly   bool
	pending    []pendingWrite
	bytes      int64
	values     map[string]string // the settings at BEGIN
	local      map[string]string // what SET LOCAL has replaced; "" where nothing was set
	savepoints []savepoint
	created    []string // what CREATE has made, which stays whatever becomes of the transaction
}

// pendingWrite is records of one stream, a statement that changes a table, rows that COPY inserts into one, or a DROP.
type pendingWrite struct {
	stream  string
	records []*millracev1.Record
	change  sql.Statement
	table   string
	rows    *record.Delta
	drop    *sql.Drop
}

func (s *session) transaction(ctx context.Context, st *sql.Transaction, out output) (string, error) {
	switch st.Action {
	case sql.Begin:
		if s.tx.status != txIdle {
			return "BEGIN", out.notice("25001", "there is already a transaction in progress")
		}
		s.begin(st.Modes)
		return "BEGIN", nil
	case sql.Commit, sql.Rollback:
		return s.end(ctx, st, out)
	}
	return s.savepoint(st, out)
}

func (s *session) begin(m sql.TransactionModes) {
	s.tx = transaction{
		status: txOpen, readOnly: m.ReadOnly || s.readOnly && !m.ReadWrite, values: maps.Clone(s.values), local: map[string]string{},
	}
}

// end commits or rolls back. A failed transaction can only be rolled back, whatever is asked for.
func (s *session) end(ctx context.Context, st *sql.Transaction, out output) (string, error) {
	tx := s.tx
	if tx.status == txIdle {
		return string(st.Action), out.notice("25P01", "there is no transaction in progress")
	}
	s.tx = transaction{status: txIdle}
	commit := st.Action == sql.Commit && tx.status == txOpen
	if !commit {
		s.restore(tx.values)
	} else {
		for name, v := range tx.local {
			s.restoreOne(name, v)
		}
	}
	tag := "ROLLBACK"
	if commit {
		tag = "COMMIT"
		for _, p := range tx.pending {
			if err := s.commit(ctx, p); err != nil {
				return "", cmp.Or(stays(tx.created, "an error of COMMIT", out), err)
			}
		}
	} else if err := stays(tx.created, "ROLLBACK", out); err != nil {
		return "", err
	}
	if st.Chain { // not before what was held back is done: the next transaction would hold it back again
		s.begin(sql.TransactionModes{ReadOnly: tx.readOnly})
	}
	return tag, nil
}

// commit does what was held back. No transaction is open.
func (s *session) commit(ctx context.Context, p pendingWrite) error {
	var err error
	switch {
	case p.change != nil:
		_, err = s.change(ctx, p.change, nil)
	case p.drop != nil:
		_, err = s.drop(ctx, p.drop)
	case p.rows != nil:
		err = s.insertRows(ctx, p.table, p.rows)
	default:
		err = s.appendRecords(ctx, p.stream, p.records)
	}
	return err
}

// abandon ends a transaction whose client has gone.
func (s *session) abandon() { s.tx = transaction{status: txIdle} }

// fail marks an open transaction as failed. What it held before its last savepoint it can go back to.
func (s *session) fail() {
	if s.tx.status == txOpen {
		n := s.tx.sealed()
		clear(s.tx.pending[n:])
		s.tx.status, s.tx.pending = txFailed, s.tx.pending[:n]
	}
}

// restore puts all settings back to the values of an earlier time.
func (s *session) restore(values map[string]string) {
	for name := range maps.Clone(s.values) {
		if values[name] != s.values[name] {
			s.restoreOne(name, values[name])
		}
	}
	for name, v := range values {
		if _, ok := s.values[name]; !ok {
			s.restoreOne(name, v)
		}
	}
}

// restoreOne puts back a value that was taken once.
func (s *session) restoreOne(name, value string) {
	if value == "" || s.set(name, value) != nil {
		_ = s.reset(name) // of a setting that is there: it can't fail
	}
}

func (s *session) setStatement(st *sql.Set, out output) (string, error) {
	if m := st.Modes; m != nil {
		if st.Local && s.tx.status == txIdle {
			return "SET", out.notice("25P01", "SET TRANSACTION can only be used in transaction blocks")
		}
		switch {
		case st.Local && (m.ReadOnly || m.ReadWrite):
			s.tx.readOnly = m.ReadOnly
		case m.ReadOnly || m.ReadWrite:
			return "SET", s.set("default_transaction_read_only", onOff(m.ReadOnly))
		}
		return "SET", nil
	}
	if st.Default {
		tag := "RESET"
		if st.Local {
			tag = "SET"
		}
		return tag, s.reset(st.Name)
	}
	if st.Local {
		if s.tx.status == txIdle {
			return "SET", out.notice("25P01", "SET LOCAL can only be used in transaction blocks")
		}
		if _, ok := s.tx.local[st.Name]; !ok {
			s.tx.local[st.Name] = s.values[st.Name]
		}
	}
	return "SET", s.set(st.Name, st.Value)
}

// writable refuses what changes data in a read-only transaction.
func (s *session) writable(what string) error {
	if s.tx.readOnly || s.readOnly && s.tx.status == txIdle {
		return fault.SQL(fault.Conflict, "25006", "cannot execute %s in a read-only transaction", what)
	}
	return nil
}

// write appends records to a stream, at COMMIT when a transaction is open.
func (s *session) write(ctx context.Context, stream string, records []*millracev1.Record) error {
	if s.tx.status == txIdle {
		return s.appendRecords(ctx, stream, records)
	}
	size := 0
	for _, r := range records {
		size += len(r.Key) + len(r.Value) + 64
	}
	if err := s.hold(size); err != nil {
		return err
	}
	if n := len(s.tx.pending); n > s.tx.sealed() && s.tx.pending[n-1].records != nil && s.tx.pending[n-1].stream == stream {
		s.tx.pending[n-1].records = append(s.tx.pending[n-1].records, records...)
		return nil
	}
	s.tx.pending = append(s.tx.pending, pendingWrite{stream: stream, records: records})
	return nil
}

// hold counts what the transaction holds until COMMIT.
func (s *session) hold(size int) error {
	if s.tx.bytes += int64(size); s.tx.bytes > pendingBytes {
		return fault.SQL(fault.Exhausted, "53200", "the transaction holds more than %d MiB of changes until it commits; commit more often, or use autocommit", pendingBytes>>20)
	}
	return nil
}

// appendRecords appends in pieces that are small enough for a message, one after the other, so that they stay in order.
func (s *session) appendRecords(ctx context.Context, stream string, records []*millracev1.Record) error {
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && n < appendRows && (n == 0 || size < appendBytes) {
			size += len(records[n].Key) + len(records[n].Value)
			n++
		}
		resp, err := s.n.ingest.Append(ctx, &millracev1.AppendRequest{
			Stream: stream, SeenTick: uint64(s.seen), Records: &millracev1.Records{Records: records[:n]},
		})
		if err != nil {
			return fault.FromGRPC(err)
		}
		s.seen = max(s.seen, ids.Tick(resp.Tick))
		records = records[n:]
	}
	return nil
}
