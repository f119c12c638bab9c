package dataflow

import (
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

var (
	errArrayLength = fault.SQL(fault.TooLarge, "54000", "array_agg makes an array of more than %d elements", record.MaxArray)
	errNullField   = fault.SQL(fault.Invalid, "22023", "field name must not be null")
)

// array is array_agg.
func (v *valueAgg) array(s int, out *record.Column) error {
	elems := record.NewColumn(v.agg.ArgType, 0)
	err := v.set.each(s, v.filter, func(key []byte, n int64) (bool, error) {
		if err := v.set.decode(key); err != nil {
			return false, err
		}
		if int64(elems.N)+n > record.MaxArray {
			return false, errArrayLength
		}
		for range n {
			elems.AppendFrom(&v.set.one.Cols[0], 0)
		}
		if len(elems.Bytes) > maxTextBytes {
			return false, errTextLength
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	return appendVarlen(out, func(dst []byte) ([]byte, error) { return record.AppendArray(dst, &elems), nil })
}

// object is jsonb_object_agg.
func (v *valueAgg) object(s int, out *record.Column) error {
	text := []byte{'{'}
	err := v.set.each(s, v.filter, func(key []byte, _ int64) (bool, error) {
		if err := v.set.decode(key); err != nil {
			return false, err
		}
		if v.set.one.Cols[0].Null(0) {
			return false, errNullField
		}
		if len(text) > 1 {
			text = append(text, ", "...)
		}
		text = append(record.AppendJSON(text, &v.set.one.Cols[0], 0), ": "...)
		if text = record.AppendJSON(text, &v.set.one.Cols[1], 0); len(text) > maxTextBytes {
			return false, errTextLength
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	value, err := record.ParseText(record.JSONB, string(append(text, '}')))
	if err != nil {
		return err
	}
	out.AppendValue(value)
	return nil
}
