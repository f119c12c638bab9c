package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/sql"
)

// The catalog changes at once or not at all, and what it has made others may use at once, so that no CREATE can be taken
// back by ROLLBACK. But whoever puts CREATE between BEGIN and COMMIT, as drivers and migration tools do unasked, is served better
// by a table and a warning than by a refusal. So CREATE takes effect at once there too, says so, and ROLLBACK says what stays: an
// object too many, which DROP takes away. DROP takes data away for good, so that it waits for COMMIT like other changes.

// creates readies the session for a statement that makes something at once. In a transaction it is refused behind changes that
// wait for COMMIT, which it would overtake, and where its warning can't be told.
func (s *session) creates(what string) error {
	if err := s.writable(what); err != nil {
		return err
	}
	switch {
	case s.tx.status == txIdle:
		return nil
	case !s.warns:
		return s.outside(what)
	case len(s.tx.pending) > 0:
		return fault.SQL(fault.Conflict, "25001", "%s takes effect at once, but what the transaction has changed before waits for COMMIT; commit first, or create first", what)
	}
	return nil
}

// outside refuses within a transaction what would take away for good, and at once, what is there.
func (s *session) outside(what string) error {
	if s.tx.status != txIdle {
		return fault.SQL(fault.Conflict, "25001", "%s cannot run inside a transaction block; it takes effect at once, so end the transaction first or use autocommit", what)
	}
	return s.writable(what)
}

// maxCreated bounds the names that a transaction keeps of what it has created.
const maxCreated = 100

// created tells that a statement took effect at once. What the transaction reads from here on is as of a later tick, at which
// what was created is there.
func (s *session) created(what, name string, out output) error {
	if s.tx.status == txIdle {
		return nil
	}
	s.tx.tick = 0
	if s.tx.created = append(s.tx.created, fmt.Sprintf("%q", name)); len(s.tx.created) > maxCreated {
		s.tx.created = append(s.tx.created[:maxCreated-1], "more")
	}
	return out.notice("01000", what+" took effect at once: ROLLBACK does not take it back")
}

// stays warns of what was created although the transaction ends in another way than by COMMIT.
func stays(created []string, how string, out output) error {
	if len(created) == 0 {
		return nil
	}
	return out.notice("01000", how+" does not take back CREATE, which took effect at once: "+strings.Join(created, ", ")+"; use DROP")
}

// holdDrop keeps a DROP until COMMIT. What it is to drop must be there now; whether something depends on it is found then.
func (s *session) holdDrop(ctx context.Context, st *sql.Drop) error {
	_, err := planned(ctx, s.n, func(c sql.Catalog) (struct{}, error) {
		if st.Kind == sql.ObjectIndex {
			for _, name := range c.Names() {
				o, _ := c.Lookup(name)
				for _, ix := range o.Indexes {
					if ix.Name == st.Name {
						return struct{}{}, nil
					}
				}
			}
			return struct{}{}, fault.SQL(fault.NotFound, "42704", "index %q does not exist", st.Name)
		}
		if o, ok := c.Lookup(st.Name); ok && o.Kind == st.Kind {
			return struct{}{}, nil
		} else if ok {
			return struct{}{}, fault.SQL(fault.Invalid, "42809", "%q is a %s, not a %s", st.Name, o.Kind, st.Kind)
		}
		return struct{}{}, fault.SQL(fault.NotFound, "42P01", "%s %q does not exist", st.Kind, st.Name)
	})
	if fault.KindOf(err) == fault.NotFound && st.IfExists {
		return nil
	}
	if err == nil {
		err = s.hold(len(st.Name) + 64)
	}
	if err == nil {
		s.tx.pending = append(s.tx.pending, pendingWrite{drop: st})
	}
	return err
}
