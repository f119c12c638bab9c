package record

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	// The well-known types, for descriptor sets made without --include_imports.
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// protobufMessage is the schema of a stream's records.
type protobufMessage struct {
	desc  protoreflect.MessageDescriptor
	types *dynamicpb.Types // resolves what messages of type Any hold
}

// newProtobufMessage finds the stream's message in its descriptor set.
func newProtobufMessage(s *millracev1.Stream) (*protobufMessage, error) {
	if s.Message == "" || len(s.DescriptorSet) == 0 {
		return nil, fault.New(fault.Invalid, "stream %q: format protobuf needs a descriptor set and the full name of a message in it", s.Name)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(s.DescriptorSet, set); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "stream %q: its descriptor set is no google.protobuf.FileDescriptorSet (make it with protoc --include_imports --descriptor_set_out)", s.Name)
	}
	addWellKnown(set)
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "stream %q: its descriptor set is not complete (make it with protoc --include_imports)", s.Name)
	}
	d, err := files.FindDescriptorByName(protoreflect.FullName(s.Message))
	if err != nil {
		return nil, fault.New(fault.Invalid, "stream %q: its descriptor set has no message %q", s.Name, s.Message)
	}
	m, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return nil, fault.New(fault.Invalid, "stream %q: %q is no message", s.Name, s.Message)
	}
	return &protobufMessage{desc: m, types: dynamicpb.NewTypes(files)}, nil
}

// addWellKnown adds google/protobuf/*.proto files that are imported but missing.
func addWellKnown(set *descriptorpb.FileDescriptorSet) {
	have := make(map[string]bool)
	for _, f := range set.File {
		have[f.GetName()] = true
	}
	for i := 0; i < len(set.File); i++ { // grows
		for _, name := range set.File[i].GetDependency() {
			if have[name] {
				continue
			}
			have[name] = true
			if known, err := protoregistry.GlobalFiles.FindFileByPath(name); err == nil && known.Package() == "google.protobuf" {
				set.File = append(set.File, protodesc.ToFileDescriptorProto(known))
			}
		}
	}
}

func (m *protobufMessage) jsonName(f protoreflect.FieldDescriptor) string { return f.TextName() }

// column finds the field of column c and checks that it fits.
func (m *protobufMessage) column(s *millracev1.Stream, c declared) (protoColumn, error) {
	fd := m.desc.Fields().ByName(protoreflect.Name(c.name))
	if fd == nil {
		for i := range m.desc.Fields().Len() { // groups have another name, and SQL folds case
			if f := m.desc.Fields().Get(i); f.TextName() == c.name {
				fd = f
			}
		}
	}
	if fd == nil {
		return protoColumn{}, fault.New(fault.Invalid, "stream %q: message %s has no field for the column %q", s.Name, s.Message, c.name)
	}
	col := protoColumn{field: fd, wire: wireType(fd), kind: protoScalar}
	list := fd.IsList() || fd.IsMap()
	message := fd.Kind() == protoreflect.MessageKind || fd.Kind() == protoreflect.GroupKind
	fits := false
	switch {
	case c.typ == JSONB && (list || message):
		col.kind, fits = protoJSON, true
	case list:
	case message:
		name := fd.Message().FullName()
		col.kind = protoTime
		fits = (name == timestampFullName && c.typ == TimestampTZ) || (name == durationFullName && c.typ == IntervalT)
	default:
		fits = scalarFits(fd.Kind(), c.typ)
	}
	if !fits {
		return protoColumn{}, fault.New(fault.Invalid, "stream %q: column %q of type %s doesn't fit the field of type %s in message %s",
			s.Name, c.name, c.typ, fieldType(fd), s.Message)
	}
	var err error
	col.zero, err = zeroOf(fd, c.typ)
	if err != nil {
		return protoColumn{}, fault.Wrap(fault.Invalid, err, "stream %q: column %q of type %s can't take the empty string that a missing field stands for; make the field optional",
			s.Name, c.name, c.typ)
	}
	return col, nil
}

func fieldType(fd protoreflect.FieldDescriptor) string {
	name := fd.Kind().String()
	switch {
	case fd.IsMap():
		return "map"
	case fd.Message() != nil:
		name = string(fd.Message().FullName())
	case fd.Enum() != nil:
		name = string(fd.Enum().FullName())
	}
	if fd.IsList() {
		return "repeated " + name
	}
	return name
}

// inOwnKind tells whether a type has kinds of fields that aren't strings in its place.
func inOwnKind(t Type) bool { return t == Boolean || t == BigInt || t == Double || t == Bytea }

// scalarFits tells whether every column type that a scalar field may have includes t.
func scalarFits(k protoreflect.Kind, t Type) bool {
	switch k {
	case protoreflect.BoolKind:
		return t == Boolean
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return t == Double
	case protoreflect.StringKind:
		return t == Text || !inOwnKind(t) && !t.IsArray()
	case protoreflect.BytesKind:
		return t == Bytea
	case protoreflect.EnumKind:
		return t == Text || t == BigInt
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return t == BigInt || t == Numeric || t == TimestampTZ
	}
	return t == BigInt || t == Numeric
}

// zeroOf returns what the column is where a message lacks the field: NULL for a field with presence, else its default.
func zeroOf(fd protoreflect.FieldDescriptor, t Type) (Value, error) {
	v := Value{Type: t}
	switch {
	case fd.IsMap():
		v.Bytes = []byte("{}")
	case fd.IsList():
		v.Bytes = []byte("[]")
	case fd.HasPresence():
		v.Null = true
	case t == Numeric && fd.Kind() != protoreflect.StringKind:
		v.Bytes = []byte("0")
	case t == Text && fd.Kind() == protoreflect.EnumKind:
		v.Bytes = []byte(fd.Enum().Values().ByNumber(0).Name())
	case fd.Kind() == protoreflect.StringKind && t != Text:
		return ParseText(t, "")
	}
	return v, nil
}

func wireType(fd protoreflect.FieldDescriptor) protowire.Type {
	if fd.IsMap() {
		return protowire.BytesType
	}
	switch fd.Kind() {
	case protoreflect.FloatKind, protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		return protowire.Fixed32Type
	case protoreflect.DoubleKind, protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	}
	return protowire.VarintType
}
