package record

// Type is a column's type.
type Type uint8

const (
	Unknown     Type = iota // of a bare NULL, until it is coerced
	Boolean                 // Column.Bools
	BigInt                  // Column.Ints
	Double                  // Column.Floats
	Numeric                 // Column.Bytes: the canonical decimal text, as PostgreSQL prints it ("1.10", "NaN")
	Text                    // Column.Bytes: UTF-8
	Bytea                   // Column.Bytes
	TimestampTZ             // Column.Ints: microseconds since the Unix epoch
	IntervalT               // Column.Intervals
	JSONB                   // Column.Bytes: the canonical text, as PostgreSQL prints it
)

var typeNames = [...]string{
	Unknown: "unknown", Boolean: "boolean", BigInt: "bigint", Double: "double precision", Numeric: "numeric",
	Text: "text", Bytea: "bytea", TimestampTZ: "timestamptz", IntervalT: "interval", JSONB: "jsonb",
}

// String returns PostgreSQL's name of the type.
func (t Type) String() string { return typeNames[t] }

// ParseType returns the type with PostgreSQL's name as String spells it.
func ParseType(name string) (Type, bool) {
	for t, n := range typeNames {
		if n == name {
			return Type(t), t != int(Unknown)
		}
	}
	return Unknown, false
}

// Varlen tells whether values are kept in Column.Bytes.
func (t Type) Varlen() bool {
	return t == Numeric || t == Text || t == Bytea || t == JSONB
}

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
	Int      int64    `json:"int,omitempty"`   // BigInt, TimestampTZ; Boolean as 0 or 1
	Float    float64  `json:"-"`               // Double; its bits travel as Int in a plan's codec
	Bytes    []byte   `json:"bytes,omitempty"` // Numeric, Text, Bytea, JSONB
	Interval Interval `json:"interval,omitzero"`
}
