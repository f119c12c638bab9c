package plan

import "github.com/millrace/millrace/record"

// ColDeleted is a hidden column of a table's log (Boolean): the record is a tombstone.
const ColDeleted = "_deleted"

// TableRows is the plan of a table's rows: the last record of each key in the table's log, unless it is a tombstone.
// key is the primary key's columns among columns.
func TableRows(log uint64, name string, columns record.Schema, key []int) *Plan {
	scan := &Scan{Kind: ScanStream, Object: log, Name: name, Table: true}
	in := append(record.Schema{}, columns...)
	in = append(in, record.Field{Name: ColDeleted, Type: record.Boolean}, record.Field{Name: ColOffset, Type: record.BigInt})
	for _, f := range in {
		scan.Columns = append(scan.Columns, f.Name)
	}
	n := len(columns)
	return &Plan{
		Version: Version, Output: columns, Key: key, Placed: &Placed{Cols: singles(key)},
		Stages: []Stage{
			{Ops: []Op{{Kind: OpScan, Schema: in, Scan: scan}}, Exchange: &Exchange{Key: key}},
			{Ops: []Op{
				{Kind: OpInput, Schema: in, Input: &Input{}},
				{Kind: OpUpsert, Inputs: []int{0}, Schema: columns, Upsert: &Upsert{Keys: key, Deleted: n, Offset: n + 1}},
			}},
		},
	}
}

// singles puts each of ids into a list of its own.
func singles(ids []int) [][]int {
	out := make([][]int, len(ids))
	for i, id := range ids {
		out[i] = []int{id}
	}
	return out
}
