package node

import (
	"maps"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/sql"
)

// maxSavepoints bounds the savepoints of one transaction.
const maxSavepoints = 1000

// savepoint is what a transaction held when it was made, so that ROLLBACK TO can go back there. All that a transaction
// does before COMMIT is held back or of the session, so there is nothing else to undo, but for CREATE, which can't be undone.
type savepoint struct {
	name     string
	pending  int // how many pending writes there were
	bytes    int64
	readOnly bool
	values   map[string]string
	local    map[string]string
	created  int // how much CREATE had made
}

// savepoint runs SAVEPOINT, RELEASE and ROLLBACK TO.
func (s *session) savepoint(st *sql.Transaction, out output) (string, error) {
	tx := &s.tx
	switch {
	case tx.status == txIdle:
		return "", fault.SQL(fault.Conflict, "25P01", "%s can only be used in transaction blocks", st.Action)
	case tx.status == txFailed && st.Action != sql.RollbackTo:
		return "", fault.SQL(fault.Conflict, "25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	if st.Action == sql.Savepoint {
		if len(tx.savepoints) >= maxSavepoints {
			return "", fault.SQL(fault.Exhausted, "53000", "the transaction has %d savepoints, which is the limit; release some", maxSavepoints)
		}
		tx.savepoints = append(tx.savepoints, savepoint{
			name: st.Name, pending: len(tx.pending), bytes: tx.bytes, readOnly: tx.readOnly, values: maps.Clone(s.values), local: maps.Clone(tx.local),
			created: len(tx.created),
		})
		return string(st.Action), nil
	}
	at := len(tx.savepoints) - 1
	for at >= 0 && tx.savepoints[at].name != st.Name {
		at--
	}
	if at < 0 {
		return "", fault.SQL(fault.NotFound, "3B001", "savepoint %q does not exist", st.Name)
	}
	if st.Action == sql.Release {
		tx.savepoints = tx.savepoints[:at]
		return string(st.Action), nil
	}
	p := tx.savepoints[at]
	clear(tx.pending[p.pending:])
	tx.status, tx.pending, tx.bytes, tx.readOnly = txOpen, tx.pending[:p.pending], p.bytes, p.readOnly
	tx.savepoints, tx.local = tx.savepoints[:at+1], maps.Clone(p.local)
	s.restore(p.values)
	return "ROLLBACK", stays(tx.created[p.created:], "ROLLBACK", out)
}

// sealed tells how many of the pending writes are a savepoint's, and stay as they are.
func (tx *transaction) sealed() int {
	if n := len(tx.savepoints); n > 0 {
		return tx.savepoints[n-1].pending
	}
	return 0
}
