package dataflow

import (
	"strconv"

	"github.com/millrace/millrace/record"
)

// jsonPathImpls is the jsonb operators that take an array of text: #>, #>>, ?| and ?&.
var jsonPathImpls = map[string]impl{
	"json_get_path(jsonb, text[])":      {make: func() kernel { return jsonPath(false) }},
	"json_get_path_text(jsonb, text[])": {make: func() kernel { return jsonPath(true) }},
	"json_exists_any(jsonb, text[])":    {make: func() kernel { return jsonHasKeys(true) }},
	"json_exists_all(jsonb, text[])":    {make: func() kernel { return jsonHasKeys(false) }},
}

func jsonPath(text bool) kernel {
	k := newArrayKernel(record.ArrayOf(record.Text))
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 1, i); err != nil {
			return dst, err
		}
		v := bytesArg(c, 0, i)
		for e := 0; e < k.a.N && v != nil; e++ {
			v = jsonStep(v, &k.a, e)
		}
		if v == nil || text && v[0] == 'n' {
			c.setNull(i)
			return dst, nil
		}
		if text && v[0] == '"' {
			v = unquote(v)
		}
		return append(dst, v...), nil
	})
}

// jsonStep goes from v to its field or element of that name; nil where there is none.
func jsonStep(v []byte, names *record.Column, e int) []byte {
	if names.Null(e) {
		return nil
	}
	switch jsonKind(v) {
	case "object":
		return jsonField(v, names.At(e))
	case "array":
		at, err := strconv.ParseInt(string(names.At(e)), 10, 64)
		if err != nil {
			return nil
		}
		return jsonElement(v, at)
	}
	return nil
}

// jsonHasKeys tells whether any, or each, of the keys exists.
func jsonHasKeys(any bool) kernel {
	k := newArrayKernel(record.ArrayOf(record.Text))
	return func(c *call) {
		for i := range c.n {
			if c.null(i) {
				continue
			}
			if err := k.load(c, &k.a, 1, i); err != nil {
				c.fail(i, err)
				continue
			}
			found := !any
			for e := range k.a.N {
				if k.a.Null(e) {
					continue
				}
				if jsonExists(bytesArg(c, 0, i), k.a.At(e)) == any {
					found = any
					break
				}
			}
			c.out.Bools[i] = found
		}
	}
}
