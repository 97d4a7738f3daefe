package query

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// SyntaxError says where a text is no filter.
type SyntaxError struct {
	Column int // in characters, from 1
	Text   string
}

// Error implements error.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("filter, column %d: %s", e.Column, e.Text)
}

// Parse reads the text form of a filter.
func Parse(text string) (*Filter, error) {
	p := &parser{text: text}
	switch {
	case len(text) > MaxText:
		return nil, &SyntaxError{1, fmt.Sprintf("the filter is over %d bytes", MaxText)}
	case !utf8.ValidString(text):
		return nil, &SyntaxError{1, "the filter is not UTF-8"}
	}
	f, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.skip(); p.pos < len(p.text) {
		return nil, p.fail("want and, or, or the end")
	}
	return f, nil
}

type parser struct {
	text    string
	pos     int // bytes
	depth   int
	regexps regexps
}

func (p *parser) fail(format string, args ...any) error {
	return p.failAt(p.pos, format, args...)
}

func (p *parser) failAt(pos int, format string, args ...any) error {
	return &SyntaxError{utf8.RuneCountInString(p.text[:pos]) + 1, fmt.Sprintf(format, args...)}
}

func (p *parser) skip() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// peek returns the next byte after blanks; 0 is the end.
func (p *parser) peek() byte {
	if p.skip(); p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func inField(c byte) bool { return isLetter(c) || isDigit(c) || c == '_' || c == '.' || c == '/' }

// word returns the field or keyword that comes next, or "".
func (p *parser) word() string {
	if !isLetter(p.peek()) {
		return ""
	}
	end := p.pos
	for end < len(p.text) && inField(p.text[end]) {
		end++
	}
	return p.text[p.pos:end]
}

// keyword takes a keyword if it comes next.
func (p *parser) keyword(k string) bool {
	if p.word() != k {
		return false
	}
	p.pos += len(k)
	return true
}

func (p *parser) or() (*Filter, error) { return p.chain("or", OpOr, p.and) }

func (p *parser) and() (*Filter, error) { return p.chain("and", OpAnd, p.unit) }

// chain reads one or more parts with a keyword between them.
func (p *parser) chain(keyword string, op Op, part func() (*Filter, error)) (*Filter, error) {
	var list []*Filter
	for {
		f, err := part()
		if err != nil {
			return nil, err
		}
		list = append(list, f)
		if !p.keyword(keyword) {
			return join(op, list), nil
		}
	}
}

func (p *parser) unit() (*Filter, error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, p.fail("the filter is nested over %d levels deep", MaxDepth)
	}
	defer func() { p.depth-- }()
	if p.keyword("not") {
		f, err := p.unit()
		if err != nil {
			return nil, err
		}
		return not(f), nil
	}
	if p.peek() != '(' {
		return p.condition()
	}
	open := p.pos
	p.pos++
	f, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.peek() != ')' {
		return nil, p.fail("want ) for the ( in column %d", utf8.RuneCountInString(p.text[:open])+1)
	}
	p.pos++
	return f, nil
}

func (p *parser) condition() (*Filter, error) {
	c := p.peek()
	if c == '"' || c == '\'' || c == '-' || isDigit(c) {
		return p.membership()
	}
	field, err := p.field()
	if err != nil {
		return nil, err
	}
	p.skip()
	at := p.pos
	switch op := p.operator(); op {
	case "":
		return &Filter{Op: OpTrue, Field: field}, nil
	case "=~", "!~":
		return p.regexp(field, op == "!~")
	case "=*", "!*":
		return p.glob(field, op == "!*")
	case "=":
		return nil, p.failAt(at, "want == for equality")
	default:
		value, err := p.value(true)
		if err != nil {
			return nil, err
		}
		if op == "==" {
			op = string(OpEqual)
		}
		return &Filter{Op: Op(op), Field: field, Value: value}, nil
	}
}

// keywords are no names of fields.
var keywords = map[string]bool{"and": true, "or": true, "not": true, "in": true, "true": true, "false": true, "True": true, "False": true}

func (p *parser) field() (string, error) {
	word := p.word()
	switch {
	case word == "" && p.pos == len(p.text):
		return "", p.fail("want a field, and the filter ends")
	case word == "":
		return "", p.fail("want a field")
	case keywords[word]:
		return "", p.fail("want a field, and %s is none", word)
	case len(word) > maxField:
		return "", p.fail("the name of a field is over %d bytes", maxField)
	}
	p.pos += len(word)
	return word, nil
}

// operators that follow a field, longer ones first. A single = is a mistake
// that deserves a word.
var operators = []string{"==", "!=", "=~", "!~", "=*", "!*", "<=", ">=", "<", ">", "="}

// operator takes the operator that comes next, or returns "".
func (p *parser) operator() string {
	for _, op := range operators {
		if strings.HasPrefix(p.text[p.pos:], op) {
			p.pos += len(op)
			return op
		}
	}
	return ""
}

// membership reads: value [not] in field.
func (p *parser) membership() (*Filter, error) {
	value, err := p.value(false)
	if err != nil {
		return nil, err
	}
	negated := p.keyword("not")
	if !p.keyword("in") {
		return nil, p.fail("want in, or not in, after a value; a comparison begins with its field")
	}
	field, err := p.field()
	if err != nil {
		return nil, err
	}
	f := &Filter{Op: OpContains, Field: field, Value: value}
	if negated {
		return not(f), nil
	}
	return f, nil
}

func (p *parser) value(bools bool) (any, error) {
	c := p.peek()
	word := p.word()
	switch {
	case c == '"' || c == '\'':
		return p.quoted()
	case c == '-' || isDigit(c):
		return p.number()
	case bools && (word == "true" || word == "True"):
		p.pos += len(word)
		return true, nil
	case bools && (word == "false" || word == "False"):
		p.pos += len(word)
		return false, nil
	case word != "":
		return nil, p.fail("want a value; a text stands in quotes: %q", word)
	case c == 0:
		return nil, p.fail("want a value, and the filter ends")
	}
	return nil, p.fail("want a value: a text in quotes, or a number")
}

func (p *parser) quoted() (string, error) {
	begin, mark := p.pos, p.text[p.pos]
	var b strings.Builder
	for p.pos++; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; {
		case c == mark:
			p.pos++
			return b.String(), nil
		case c == '\\' && p.pos+1 < len(p.text):
			p.pos++
			b.WriteByte(p.text[p.pos])
		default:
			b.WriteByte(c)
		}
	}
	return "", p.failAt(begin, "the text has no closing %c", mark)
}

func (p *parser) number() (float64, error) {
	begin := p.pos
	for p.pos < len(p.text) && (inField(p.text[p.pos]) || p.text[p.pos] == '-') {
		p.pos++
	}
	n, ok := parseNumber(p.text[begin:p.pos])
	if !ok {
		return 0, p.failAt(begin, "want a number, as 12 or -0.5")
	}
	return n, nil
}

// parseNumber reads [-]digits[.digits].
func parseNumber(s string) (float64, bool) {
	whole, part, point := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	if len(s) > maxNumber || !allDigits(whole) || point && !allDigits(part) {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil && math.Abs(n) <= maxInteger
}

func allDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func (p *parser) regexp(field string, negated bool) (*Filter, error) {
	if p.peek() != 'm' || p.pos+1 == len(p.text) || strings.IndexByte(delimiters, p.text[p.pos+1]) < 0 {
		return nil, p.fail("want a regular expression, as m/^node/")
	}
	begin, mark := p.pos, p.text[p.pos+1]
	p.pos += 2
	var b strings.Builder
	for ; ; p.pos++ {
		if p.pos == len(p.text) {
			return nil, p.failAt(begin, "the regular expression has no closing %c", mark)
		}
		c := p.text[p.pos]
		if c == mark {
			p.pos++
			break
		}
		if c == '\\' && p.pos+1 < len(p.text) {
			if p.pos++; p.text[p.pos] != mark {
				b.WriteByte(c)
			}
			c = p.text[p.pos]
		}
		b.WriteByte(c)
	}
	flags := p.modifiers()
	f, err := p.regexps.match(field, flags+b.String())
	if err != nil {
		return nil, p.failAt(begin, "%v", err)
	}
	if negated {
		return not(f), nil
	}
	return f, nil
}

// modifiers takes the letters behind a regular expression and returns what
// stands for them in front of it.
func (p *parser) modifiers() string {
	var i, s bool
	for ; p.pos < len(p.text) && (p.text[p.pos] == 'i' || p.text[p.pos] == 's'); p.pos++ {
		i, s = i || p.text[p.pos] == 'i', s || p.text[p.pos] == 's'
	}
	switch {
	case i && s:
		return "(?is)"
	case i:
		return "(?i)"
	case s:
		return "(?s)"
	}
	return ""
}

func (p *parser) glob(field string, negated bool) (*Filter, error) {
	if c := p.peek(); c != '"' && c != '\'' {
		return nil, p.fail("want a pattern in quotes")
	}
	begin := p.pos
	pattern, err := p.quoted()
	if err != nil {
		return nil, err
	}
	f, err := p.regexps.match(field, globRegexp(pattern))
	if err != nil {
		return nil, p.failAt(begin, "%v", err)
	}
	if negated {
		return not(f), nil
	}
	return f, nil
}
