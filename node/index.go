package node

import (
	"context"
	"strings"

	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/sql"
)

func (s *session) createIndex(ctx context.Context, st *sql.CreateIndex, out output) (string, error) {
	if err := s.creates("CREATE INDEX"); err != nil {
		return "", err
	}
	o, err := planned(ctx, s.n, func(c sql.Catalog) (*sql.Object, error) { return st.Resolve(c) })
	if err != nil {
		return "", err
	}
	res, err := s.propose(ctx, &internalv1.Command{Op: &internalv1.Command_CreateIndex{CreateIndex: &internalv1.CreateIndex{
		On: st.On, Object: o.ID, Def: &internalv1.IndexDef{Name: st.Name, Columns: st.Columns}, IfNotExists: st.IfNotExists,
	}}})
	if err != nil {
		return "", err
	}
	if res.Notice != "" {
		return "CREATE INDEX", out.notice("42P07", res.Notice)
	}
	return "CREATE INDEX", s.created("CREATE INDEX", st.Name, out)
}

func (s *session) dropIndex(ctx context.Context, st *sql.Drop) (string, error) {
	_, err := s.propose(ctx, &internalv1.Command{Op: &internalv1.Command_DropIndex{DropIndex: &internalv1.DropIndex{Name: st.Name, IfExists: st.IfExists}}})
	return "DROP INDEX", err
}

func (s *session) showIndexes(ctx context.Context) (*table, error) {
	if err := s.n.sync(ctx); err != nil {
		return nil, err
	}
	c := s.n.catalog()
	totals := s.n.viewFigures(ctx, 0)
	t := newTable(showFields("indexes")...)
	for _, d := range c.state.Views {
		if hidden(d) {
			continue
		}
		for _, ix := range d.Indexes {
			state, bytes := "building", uint64(0)
			if v := totals[d.Id]; v != nil && v.indexes[ix.Id] != nil {
				x := v.indexes[ix.Id]
				if bytes = x.Bytes; int(x.Built) == c.partitions() {
					state = "ready"
				}
			}
			t.add(ix.Name, d.Name, strings.Join(ix.Columns, ", "), state, int64(bytes))
		}
	}
	return t, nil
}
