package wire

import (
	"encoding/json"
	"fmt"
)

// LogEntry is a line of a job's log. Its JSON is Ganeti's array: serial, time,
// type, text.
type LogEntry struct {
	Serial int64
	Time   Time
	Type   string
	Text   string
}

// MarshalJSON implements json.Marshaler.
func (e LogEntry) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{e.Serial, e.Time, e.Type, e.Text})
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *LogEntry) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return fmt.Errorf("decode log entry: %w", err)
	}
	into := []any{&e.Serial, &e.Time, &e.Type, &e.Text}
	if len(parts) != len(into) {
		return fmt.Errorf("decode log entry: %d parts, want %d", len(parts), len(into))
	}
	for i, p := range parts {
		if err := json.Unmarshal(p, into[i]); err != nil {
			return fmt.Errorf("decode log entry: %w", err)
		}
	}
	return nil
}
