package datagen

import (
	"strconv"
	"time"

	"github.com/millrace/millrace/record"
)

// AppendJSON appends event n as a JSON object with the columns that its kind has, in order; times are in UTC with
// milliseconds. It returns dst as it is for an event of another kind.
func (g *Nexmark) AppendJSON(dst []byte, n uint64) []byte {
	if !g.has(n) {
		return dst
	}
	e, kind := g.event(n), KindOf(n)
	dst = append(dst, '{')
	first := true
	for i := range g.cols {
		f := g.cols[i].fields[kind]
		if f == nil {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, g.json[i]...)
		switch {
		case f.number == nil: // letters, digits and spaces only
			dst = append(dst, '"')
			dst = append(f.text(g.tables, e, dst), '"')
		case g.cols[i].typ == record.TimestampTZ:
			at := time.UnixMilli(int64(f.number(g.tables, e))).UTC()
			dst = append(at.AppendFormat(append(dst, '"'), "2006-01-02 15:04:05.000"), '"')
		default:
			dst = strconv.AppendUint(dst, f.number(g.tables, e), 10)
		}
	}
	return append(dst, '}')
}
