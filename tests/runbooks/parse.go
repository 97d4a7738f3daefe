package runbooks

import (
	"fmt"
	"regexp"
	"strings"
)

// step is a command of a runbook.
type step struct {
	Where   string // node2, master or admin
	Command string
	Repeat  bool   // until it works
	Says    string // and prints this; empty: anything
}

var (
	prompt = regexp.MustCompile(`^ {4}(node[0-9]+|master|admin)[#$] (.*)$`)
	repeat = regexp.MustCompile(`^repeat until it (works|says (.+))$`)
)

// parse returns the steps of one runbook of the page.
func parse(page, title string) ([]step, error) {
	section, err := find(page, "Runbook: "+title)
	if err != nil {
		return nil, err
	}
	var steps []step
	console := false
	for line := range strings.Lines(section) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, ".. code-block:: console"):
			console = true
		case line != "" && line[0] != ' ':
			console = false
		}
		m := prompt.FindStringSubmatch(line)
		if !console || m == nil {
			if console && strings.HasPrefix(line, "    ") {
				return nil, fmt.Errorf("runbook %q: no prompt in %q", title, line)
			}
			continue
		}
		s, err := parseStep(m[1], m[2])
		if err != nil {
			return nil, fmt.Errorf("runbook %q: %w", title, err)
		}
		steps = append(steps, s)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("runbook %q has no commands", title)
	}
	return steps, nil
}

func parseStep(where, text string) (step, error) {
	s := step{Where: where}
	command, comment, ok := strings.Cut(text, "  # ")
	s.Command = strings.TrimSpace(command)
	if comment = strings.TrimSpace(comment); !ok || !strings.HasPrefix(comment, "repeat") {
		return s, nil
	}
	m := repeat.FindStringSubmatch(comment)
	if m == nil {
		return s, fmt.Errorf("comment %q: want \"repeat until it works\" or \"repeat until it says WORDS\"", comment)
	}
	s.Repeat, s.Says = true, m[2]
	return s, nil
}

// find returns the text below a heading, up to the next one.
func find(page, heading string) (string, error) {
	lines := strings.Split(page, "\n")
	for i, line := range lines {
		if line != heading || i+1 == len(lines) || !underline(lines[i+1]) {
			continue
		}
		end := i + 2
		for end+1 < len(lines) && (!underline(lines[end+1]) || lines[end] == "") {
			end++
		}
		return strings.Join(lines[i+2:end], "\n"), nil
	}
	return "", fmt.Errorf("there is no section %q", heading)
}

func underline(line string) bool {
	return len(line) > 2 && (strings.Trim(line, "=") == "" || strings.Trim(line, "-") == "")
}

// titles lists the runbooks of the page.
func titles(page string) []string {
	var out []string
	for line := range strings.Lines(page) {
		if t, ok := strings.CutPrefix(strings.TrimSpace(line), "Runbook: "); ok {
			out = append(out, t)
		}
	}
	return out
}
