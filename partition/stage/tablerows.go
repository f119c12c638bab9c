package stage

import (
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// PlanOf returns the plan of a view, or of a table's rows, which follows from the table's log.
func PlanOf(def *internalv1.ViewDef, streams map[ids.StreamID]*internalv1.StreamDef) (*plan.Plan, error) {
	if def.Table == 0 {
		p, err := plan.Unmarshal(def.Plan)
		if err != nil {
			return nil, fault.Wrap(fault.Corrupted, err, "the plan of view %q", def.Name)
		}
		return p, nil
	}
	log := streams[ids.StreamID(def.Table)]
	if log == nil {
		return nil, fault.New(fault.NotFound, "table %q has no log", def.Name)
	}
	columns, key, err := tableColumns(log.Stream)
	if err != nil {
		return nil, err
	}
	return plan.TableRows(def.Table, def.Name, columns, key), nil
}

// tableColumns returns a table's columns and which of them are its primary key.
func tableColumns(s *millracev1.Stream) (record.Schema, []int, error) {
	columns := make(record.Schema, len(s.Columns))
	for i, c := range s.Columns {
		t, ok := record.ParseType(c.Type)
		if !ok {
			return nil, nil, fault.New(fault.Corrupted, "table %q: column %q has the unknown type %q", s.Name, c.Name, c.Type)
		}
		columns[i] = record.Field{Name: c.Name, Type: t}
	}
	key := make([]int, len(s.PrimaryKey))
	for i, name := range s.PrimaryKey {
		if key[i] = columns.Index(name); key[i] < 0 {
			return nil, nil, fault.New(fault.Corrupted, "table %q has no column %q of its primary key", s.Name, name)
		}
	}
	return columns, key, nil
}
