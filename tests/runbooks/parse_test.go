package runbooks

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const sample = `
Before
======

Runbook: a fire
---------------

Text with node1# nothing.

.. code-block:: console

    node1# a --b  # repeat until it says "all is well"
    master# c | d
    admin$ ssh node1 e  # only a remark

More.

.. code-block:: console

    node2# f  # repeat until it works

Runbook: a flood
----------------

.. code-block:: text

    node1# not console
`

func TestParse(t *testing.T) {
	got, err := parse(sample, "a fire")
	want := []step{
		{"node1", "a --b", true, `"all is well"`},
		{"master", "c | d", false, ""},
		{"admin", "ssh node1 e", false, ""},
		{"node2", "f", true, ""},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, title := range []string{"a flood", "a storm"} {
		if _, err := parse(sample, title); err == nil {
			t.Errorf("%s: no error", title)
		}
	}
	if _, err := parse(strings.Replace(sample, "until it works", "until noon", 1), "a fire"); err == nil {
		t.Error("a comment that means nothing is accepted")
	}
	if _, err := parse(strings.Replace(sample, "    master#", "    somewhere#", 1), "a fire"); err == nil {
		t.Error("an unknown prompt is accepted")
	}
	if got := titles(sample); !slices.Equal(got, []string{"a fire", "a flood"}) {
		t.Errorf("titles %q", got)
	}
}

// TestEveryRunbookIsCarriedOut: no runbook of the page is left to the reader.
func TestEveryRunbookIsCarriedOut(t *testing.T) {
	followed := regexp.MustCompile(`follow\("(.+?)"\)`)
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var carried []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range followed.FindAllStringSubmatch(string(text), -1) {
			carried = append(carried, m[1])
		}
	}
	for _, title := range titles(page(t)) {
		if !slices.Contains(carried, title) {
			t.Errorf("no test carries out the runbook %q", title)
		}
		if _, err := parse(page(t), title); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{
		"lost master", "lost majority", "hostile master", "whole-cluster power loss", "lost disk of a voter", "restored VM snapshot",
		"changed addresses of all nodes",
	} {
		if !slices.Contains(titles(page(t)), want) {
			t.Errorf("there is no runbook %q", want)
		}
	}
}
