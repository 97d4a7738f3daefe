package wire

import "encoding/json"

// Query is the body of a query: fields, and a filter in Ganeti's form.
type Query struct {
	What    string          `json:"-"` // node or job
	Fields  []string        `json:"fields"`
	QFilter json.RawMessage `json:"qfilter,omitempty"`
	Filter  json.RawMessage `json:"filter,omitempty"` // its old name
}

// QueryAnswer has a row of cells for each object, and what the columns are.
type QueryAnswer struct {
	Data   [][]QueryCell `json:"data"`
	Fields []Field       `json:"fields"`
}

// QueryCell is Ganeti's status of a value (0 normal, 1 unknown field, 2 no data,
// 3 unavailable, 4 offline), and the value.
type QueryCell [2]any

// Field describes what can be queried.
type Field struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Kind  string `json:"kind"`
	Doc   string `json:"doc"`
}

// QueryFields lists them.
type QueryFields struct {
	Fields []Field `json:"fields"`
}
