package record

// Type is a column's type.
type Type uint8

const (
	Unknown     Type = iota // of a bare NULL, until it is coerced
	Boolean                 // LayoutBools
	BigInt                  // LayoutInts
	Double                  // LayoutFloats
	Numeric                 // LayoutBytes: the canonical decimal text, as PostgreSQL prints it ("1.10", "NaN")
	Text                    // LayoutBytes: UTF-8
	Bytea                   // LayoutBytes
	TimestampTZ             // LayoutInts: microseconds since the Unix epoch
	IntervalT               // LayoutIntervals
	JSONB                   // LayoutBytes: the canonical text, as PostgreSQL prints it
	Date                    // LayoutInts: days since the Unix epoch
	Time                    // LayoutInts: microseconds since midnight, 24:00 included
	Timestamp               // LayoutInts: microseconds since 1970-01-01 00:00, in no time zone
	UUID                    // LayoutBytes: 16 bytes

	scalarTypes // how many there are, Unknown included
)

// arrayBit marks the type of an array of the type without it. Arrays have one dimension.
const arrayBit Type = 0x40

// ArrayOf returns the type of arrays of t, Unknown if t is an array itself.
func ArrayOf(t Type) Type {
	if t == Unknown || t >= scalarTypes {
		return Unknown
	}
	return t | arrayBit
}

// IsArray tells whether t is a type of arrays.
func (t Type) IsArray() bool { return t&arrayBit != 0 }

// Elem returns the type of an array's elements.
func (t Type) Elem() Type { return t &^ arrayBit }

// Layout says which slices of a Column hold a type's values.
type Layout uint8

const (
	LayoutNone      Layout = iota
	LayoutBools            // Column.Bools
	LayoutInts             // Column.Ints
	LayoutFloats           // Column.Floats
	LayoutIntervals        // Column.Intervals
	LayoutBytes            // Column.Offsets and Column.Bytes; arrays too, see array.go
)

// scalars describes the types that aren't arrays.
var scalars = [scalarTypes]struct {
	name   string // PostgreSQL's
	layout Layout
}{
	Unknown:     {"unknown", LayoutNone},
	Boolean:     {"boolean", LayoutBools},
	BigInt:      {"bigint", LayoutInts},
	Double:      {"double precision", LayoutFloats},
	Numeric:     {"numeric", LayoutBytes},
	Text:        {"text", LayoutBytes},
	Bytea:       {"bytea", LayoutBytes},
	TimestampTZ: {"timestamptz", LayoutInts},
	IntervalT:   {"interval", LayoutIntervals},
	JSONB:       {"jsonb", LayoutBytes},
	Date:        {"date", LayoutInts},
	Time:        {"time", LayoutInts},
	Timestamp:   {"timestamp", LayoutInts},
	UUID:        {"uuid", LayoutBytes},
}

// layouts is Layout of every type, for speed.
var layouts = func() (out [256]Layout) {
	for t, s := range scalars {
		out[t] = s.layout
		if s.layout != LayoutNone {
			out[Type(t)|arrayBit] = LayoutBytes
		}
	}
	return out
}()

// Layout returns how t's values are kept.
func (t Type) Layout() Layout { return layouts[t] }

// String returns PostgreSQL's name of the type.
func (t Type) String() string {
	switch {
	case t.IsArray() && t.Elem() < scalarTypes:
		return scalars[t.Elem()].name + "[]"
	case t < scalarTypes:
		return scalars[t].name
	}
	return scalars[Unknown].name
}

// ParseType returns the type with PostgreSQL's name as String spells it.
func ParseType(name string) (Type, bool) {
	array := Type(0)
	if n := len(name) - 2; n > 0 && name[n:] == "[]" {
		name, array = name[:n], arrayBit
	}
	for t, s := range scalars {
		if s.name == name {
			return Type(t) | array, t != int(Unknown)
		}
	}
	return Unknown, false
}

// Types returns every type but Unknown, scalars first. The slice is the caller's.
func Types() []Type {
	var out []Type
	for t := Unknown + 1; t < scalarTypes; t++ {
		out = append(out, t)
	}
	for t := Unknown + 1; t < scalarTypes; t++ {
		out = append(out, ArrayOf(t))
	}
	return out
}

// Varlen tells whether values are kept in Column.Bytes.
func (t Type) Varlen() bool { return layouts[t] == LayoutBytes }

// Interval is PostgreSQL's interval: three parts that don't convert into each other.
type Interval struct {
	Months, Days int32
	Micros       int64
}

// Field is a column's name and type.
type Field struct {
	Name string `json:"name"`
	Type Type   `json:"type"`
}

// Schema is the columns of a delta, in order.
type Schema []Field

// Index returns the position of the column called name, or -1.
func (s Schema) Index(name string) int {
	for i := range s {
		if s[i].Name == name {
			return i
		}
	}
	return -1
}

// Value is one value outside a column, for constants, keys and slow paths.
type Value struct {
	Type     Type     `json:"type"`
	Null     bool     `json:"null,omitempty"`
	Int      int64    `json:"int,omitempty"`   // of LayoutInts; of LayoutBools as 0 or 1
	Float    float64  `json:"-"`               // of LayoutFloats; its bits travel as Int in a plan's codec
	Bytes    []byte   `json:"bytes,omitempty"` // of LayoutBytes
	Interval Interval `json:"interval,omitzero"`
}
