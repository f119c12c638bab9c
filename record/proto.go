package record

import (
	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// ToProto returns value i of c as results carry it.
func ToProto(c *Column, i int) *millracev1.Value { return ToProtoValue(c.Value(i)) }

// ToProtoValue is ToProto of a value outside a column.
func ToProtoValue(v Value) *millracev1.Value {
	out := &millracev1.Value{}
	if v.Null {
		return out
	}
	switch v.Type {
	case Boolean:
		out.Kind = &millracev1.Value_Boolean{Boolean: v.Int != 0}
	case BigInt:
		out.Kind = &millracev1.Value_Bigint{Bigint: v.Int}
	case Double:
		out.Kind = &millracev1.Value_DoublePrecision{DoublePrecision: v.Float}
	case Bytea:
		out.Kind = &millracev1.Value_Bytea{Bytea: append([]byte{}, v.Bytes...)}
	case TimestampTZ:
		out.Kind = &millracev1.Value_TimestamptzUs{TimestamptzUs: v.Int}
	default:
		out.Kind = &millracev1.Value_Text{Text: string(AppendTextValue(nil, v))}
	}
	return out
}

// FromProto returns the value of type t that ToProto made v of. A v that no value of type t has is fault.Invalid.
func FromProto(t Type, v *millracev1.Value) (Value, error) {
	out := Value{Type: t}
	ok := false
	switch k := v.GetKind().(type) {
	case nil:
		out.Null, ok = true, true
	case *millracev1.Value_Boolean:
		if ok = t == Boolean; k.Boolean {
			out.Int = 1
		}
	case *millracev1.Value_Bigint:
		out.Int, ok = k.Bigint, t == BigInt
	case *millracev1.Value_DoublePrecision:
		out.Float, ok = k.DoublePrecision, t == Double
	case *millracev1.Value_Bytea:
		out.Bytes, ok = k.Bytea, t == Bytea
	case *millracev1.Value_TimestamptzUs:
		out.Int, ok = k.TimestamptzUs, t == TimestampTZ
	case *millracev1.Value_Text:
		switch t {
		case Boolean, BigInt, Double, Bytea, TimestampTZ:
		default:
			return ParseText(t, k.Text)
		}
	}
	if !ok {
		return Value{}, fault.New(fault.Invalid, "a value of type %s arrived as %T", t, v.GetKind())
	}
	return out, nil
}
