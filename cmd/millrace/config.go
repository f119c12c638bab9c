package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
)

// readConfig sets the flags that a TOML file names and the command line doesn't.
func readConfig(path string, flags *pflag.FlagSet) error {
	if ext := strings.ToLower(filepath.Ext(path)); ext == ".yaml" || ext == ".yml" {
		return usagef("--config %s: a TOML file is wanted, with lines such as: listen = \"127.0.0.1:7070\"", path)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("--config %s: there is no such file", path)
	}
	if err != nil {
		return usagef("--config: %v", err)
	}
	var values map[string]any
	if _, err := toml.Decode(string(text), &values); err != nil {
		var at toml.ParseError
		if errors.As(err, &at) {
			return usagef("--config %s:%d: %s", path, at.Position.Line, at.Message)
		}
		return usagef("--config %s: %v", path, err)
	}
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if err := setFlag(flags, k, values[k]); err != nil {
			return usagef("--config %s: %v", path, err)
		}
	}
	return nil
}

// setFlag sets one flag from a file, unless the command line did.
func setFlag(flags *pflag.FlagSet, key string, value any) error {
	name := strings.ReplaceAll(key, "_", "-")
	f := flags.Lookup(name)
	if f == nil || f.Hidden || name == "config" || name == "help" {
		if near := nearest(name, flags); near != "" && near != "config" && near != "help" {
			return fmt.Errorf("unknown key %q; did you mean %q?", key, near)
		}
		return fmt.Errorf("unknown key %q; the keys are the flags of millrace serve", key)
	}
	if f.Changed {
		return nil
	}
	text, err := configText(value)
	if err != nil {
		return fmt.Errorf("key %q: %v", key, err)
	}
	if err := flags.Set(name, text); err != nil {
		return fmt.Errorf("key %q: %v", key, firstLine(err))
	}
	return nil
}

// configText is a value of a file as a flag would have it.
func configText(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool, int64:
		return fmt.Sprint(v), nil
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return "", errors.New("want a list of strings")
			}
			parts[i] = s
		}
		return strings.Join(parts, ","), nil
	}
	return "", fmt.Errorf("want a string, a number, true or false, or a list of strings, not %T", value)
}

// byteSize is a flag for a number of bytes, plain or with a unit.
type byteSize int

func (b *byteSize) String() string { return formatBytes(int64(*b)) }
func (b *byteSize) Type() string   { return "bytes" }
func (b *byteSize) Set(s string) error {
	n, err := parseBytes(s)
	*b = byteSize(n)
	return err
}

// byteSize64 is byteSize for an int64.
type byteSize64 int64

func (b *byteSize64) String() string { return formatBytes(int64(*b)) }
func (b *byteSize64) Type() string   { return "bytes" }
func (b *byteSize64) Set(s string) error {
	n, err := parseBytes(s)
	*b = byteSize64(n)
	return err
}

var byteUnits = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"B", 1}, {"", 1},
}

func parseBytes(s string) (int64, error) {
	for _, u := range byteUnits {
		number, ok := strings.CutSuffix(strings.TrimSpace(s), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n < 0 || n*u.factor > math.MaxInt64/2 || n*u.factor != math.Trunc(n*u.factor) {
			break
		}
		return int64(n * u.factor), nil
	}
	return 0, fmt.Errorf("%q is not a number of bytes, such as 65536 or 8MiB", s)
}

// formatBytes writes a size with the largest unit that divides it.
func formatBytes(n int64) string {
	for _, u := range []struct {
		suffix string
		shift  uint
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n > 0 && n&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
