package pgwire

import (
	"encoding/binary"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// elementOIDs are the types of elements by those of the arrays that a client may send.
var elementOIDs = func() map[uint32]uint32 {
	out := map[uint32]uint32{ // those of the types that only parameters have
		1005: 21, 1007: 23, 1021: 700, 1028: 26, 1015: 1043, 1014: 1042, 1003: 19, 199: 114,
	}
	for elem, array := range arrayOIDs {
		out[array] = elem
	}
	return out
}()

// decodeBinaryArray reads what appendArray writes, of one dimension at most.
func decodeBinaryArray(oid uint32, b []byte) (record.Value, error) {
	bad := fault.SQL(fault.Invalid, "22P03", "incorrect binary data format of an array")
	want := elementOIDs[oid]
	elem := typeOf(want)
	v := record.Value{Type: record.ArrayOf(elem)}
	if len(b) < 12 {
		return v, bad
	}
	dims, got := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[8:])
	if got != want {
		return v, fault.SQL(fault.Invalid, "42804", "binary data has array element type %d instead of expected %d", got, want)
	}
	b = b[12:]
	elems := record.NewColumn(elem, 0)
	switch {
	case dims > 1:
		return v, fault.SQL(fault.Unsupported, "0A000", "arrays of more than one dimension are not supported")
	case dims == 1:
		if len(b) < 8 {
			return v, bad
		}
		n := binary.BigEndian.Uint32(b)
		if b = b[8:]; uint64(n) > uint64(len(b)/4) || n > record.MaxArray {
			return v, bad
		}
		for range n {
			if len(b) < 4 {
				return v, bad
			}
			size := int32(binary.BigEndian.Uint32(b))
			if b = b[4:]; size == -1 {
				elems.AppendNull()
				continue
			}
			if size < 0 || int(size) > len(b) {
				return v, bad
			}
			e, err := decodeBinary(want, b[:size])
			if err != nil {
				return v, err
			}
			e.Type = elem
			elems.AppendValue(e)
			b = b[size:]
		}
	}
	if len(b) > 0 {
		return v, bad
	}
	v.Bytes = record.AppendArray(nil, &elems)
	return v, nil
}
