package pgcatalog

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// testSource is a catalog of a table of each kind.
type testSource struct{ settings map[string]string }

func (s *testSource) Identity() (database, user string, id uint32) { return "flights", "me", 7 }
func (s *testSource) Setting(name string) (string, bool)           { v, ok := s.settings[name]; return v, ok }
func (s *testSource) Settings() []string                           { return []string{"bytea_output"} }
func (s *testSource) SetSetting(name, value string, _ bool) error {
	s.settings[name] = value
	return nil
}

func (s *testSource) Relations() []Relation {
	return []Relation{
		{ID: 1, Name: "clicks", Columns: record.Schema{{Name: "at", Type: record.TimestampTZ}, {Name: "page", Type: record.Text}}},
		{
			ID: 2, Name: "accounts", Key: []int{0}, NotNull: []bool{true, true, false, false}, Defaults: []string{"", "'nobody'", "0", ""},
			Columns: record.Schema{{Name: "id", Type: record.BigInt}, {Name: "owner", Type: record.Text}, {Name: "balance", Type: record.Numeric}, {Name: "tags", Type: record.ArrayOf(record.Text)}},
			Indexes: []Index{{ID: 3, Name: "accounts_owner", Columns: []int{1, 2}}},
		},
		{
			ID: 4, Name: "pair", Key: []int{1, 0}, NotNull: []bool{true, true, false},
			Columns: record.Schema{{Name: "a", Type: record.Text}, {Name: "b", Type: record.BigInt}, {Name: "Note", Type: record.JSONB}},
		},
		{
			ID: 5, Name: "pages", View: true, Key: []int{0}, Definition: "SELECT page, count(*) AS n FROM clicks GROUP BY page",
			Columns: record.Schema{{Name: "page", Type: record.Text}, {Name: "n", Type: record.BigInt}}, Indexes: []Index{{ID: 6, Name: "pages_n_idx", Columns: []int{1}}},
		},
	}
}

// TestTools holds what the catalog answers to the questions of tools (go test ./node/pgcatalog -rewrite writes it anew).
func TestTools(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			src := &testSource{settings: map[string]string{"search_path": `"$user", public`, "server_version_num": "150000", "server_version": "15.0", "bytea_output": "hex"}}
			q := Parse(d.Input)
			if q == nil {
				return "not a question about the catalog\n"
			}
			rows, cols, err := ask(q, src)
			if err != nil {
				var f *fault.Error
				if errors.As(err, &f) {
					return fmt.Sprintf("ERROR %s: %v\n", f.GetSQLState(), err)
				}
				return fmt.Sprintf("ERROR: %v\n", err)
			}
			var names []string
			for _, c := range cols {
				names = append(names, c.Name+" "+formatType(int64(c.OID), -1))
			}
			return strings.Join(names, " | ") + "\n" + lines(rows)
		})
	})
}

func ask(q *Query, src Source) ([][]Value, []Column, error) {
	p, err := q.Prepare(src, nil)
	if err != nil {
		return nil, nil, err
	}
	rows, err := p.Run(src, nil)
	return rows, p.Columns, err
}

func lines(rows [][]Value) string {
	var out []string
	for _, r := range rows {
		var cells []string
		for _, v := range r {
			if v == nil {
				cells = append(cells, "NULL")
				continue
			}
			cells = append(cells, text(v))
		}
		out = append(out, strings.Join(cells, " | ")+"\n")
	}
	return strings.Join(out, "")
}
