package main

import (
	"encoding/json"
	"os"
)

// Case is everything that a run needs: it can be kept in a file and run again without the generator.
type Case struct {
	Seed       uint64   `json:"seed"`
	Partitions int      `json:"partitions"`
	Nodes      int      `json:"nodes"`
	Objects    []Object `json:"objects"`
	Views      []View   `json:"views"`
	Steps      []Step   `json:"steps"`
}

// Object is a stream or a table.
type Object struct {
	Name       string   `json:"name"`
	SQL        string   `json:"sql"`
	PG         string   `json:"pg"` // PostgreSQL's columns
	Table      bool     `json:"table,omitempty"`
	PrimaryKey []string `json:"primary_key,omitempty"`
	Key        string   `json:"key,omitempty"`
	Watermark  bool     `json:"watermark,omitempty"`
	DelayUs    int64    `json:"delay_us,omitempty"`
}

// View is a query in both dialects.
type View struct {
	Name    string   `json:"name"`
	SQL     string   `json:"sql"`
	PG      string   `json:"pg"`
	After   int      `json:"after,omitempty"` // it is made when this many steps have been
	Inexact []int    `json:"inexact,omitempty"`
	Columns []string `json:"columns,omitempty"`
	// Expected is what PostgreSQL said after each checked step, for the corpus.
	Expected []Expected `json:"expected,omitempty"`

	uses []string // other views
}

// Expected is a view's rows after a step.
type Expected struct {
	Step   int      `json:"step"`
	Rows   []string `json:"rows,omitempty"` // where they are few
	Count  int      `json:"count"`
	Digest string   `json:"digest"`
}

// Step is what happens in one tick.
type Step struct {
	Records []Record `json:"records,omitempty"`
	Check   bool     `json:"check,omitempty"` // compare after it
	Crash   bool     `json:"crash,omitempty"` // a node crashes after it
}

// Record is a record of a stream, or a change of a table.
type Record struct {
	Object    string `json:"object"`
	Partition int    `json:"partition"` // -1: by its key
	JSON      string `json:"json"`
}

func readCase(path string) (*Case, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &Case{}
	return c, json.Unmarshal(raw, c)
}

func (c *Case) write(path string) error {
	raw, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

func (c *Case) view(name string) *View {
	for i := range c.Views {
		if c.Views[i].Name == name {
			return &c.Views[i]
		}
	}
	return nil
}
