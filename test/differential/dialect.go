package main

import (
	"fmt"
	"strings"
)

// text is a piece of a query in both dialects.
type text struct{ ours, pg string }

// same is text that is the same in both.
func same(s string) text { return text{s, s} }

// format is fmt.Sprintf in both dialects: arguments of type text give each its own.
func format(f string, args ...any) text {
	return text{fmt.Sprintf(f, side(args, false)...), fmt.Sprintf(f, side(args, true)...)}
}

func side(args []any, pg bool) []any {
	out := make([]any, len(args))
	for i, a := range args {
		if t, ok := a.(text); ok {
			if out[i] = t.ours; pg {
				out[i] = t.pg
			}
			continue
		}
		out[i] = a
	}
	return out
}

// join puts sep between the parts.
func join(parts []text, sep string) text {
	var ours, pg []string
	for _, p := range parts {
		ours, pg = append(ours, p.ours), append(pg, p.pg)
	}
	return text{strings.Join(ours, sep), strings.Join(pg, sep)}
}

// quote writes a string literal.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
