// Package floors holds the tests of the architecture: which package may import
// which, what must stay pure, and the limits that keep the source readable.
// The rules are in rules.go; docs explain them in the words of the design.
package floors
