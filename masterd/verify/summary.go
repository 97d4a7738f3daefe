package verify

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// summary ends the report with what somebody needs who reads nothing else.
func (c *check) summary() {
	c.section("Summary")
	var errs []*Finding
	for _, f := range c.findings {
		if f.Error() {
			errs = append(errs, f)
		}
	}
	warnings := len(c.findings) - len(errs)
	if len(errs) == 0 {
		c.tell(fmt.Sprintf("  No errors%s. %s answered; %d logins worked that must; %d calls and %d logins were refused that must be.",
			also(warnings), count(len(c.answers), "node"), c.count.logins, c.count.refusedCalls, c.count.refusedLogins))
		return
	}
	c.tell(fmt.Sprintf("  %s%s%s.", count(len(errs), "error"), where(errs), also(warnings)))
	f := slices.MinFunc(errs, func(a, b *Finding) int { return slices.Index(worst, a.Code) - slices.Index(worst, b.Code) })
	c.tell("  Worst: " + strings.TrimSpace(f.Kind+" "+f.Name) + ": " + f.Text)
	c.tell("  What to do: " + f.Remedy)
	if len(c.shut) > 0 {
		c.tell("  No candidate can log in to " + some(c.shut) + ": the fault is probably there.")
	}
}

// where names the nodes with errors.
func where(errs []*Finding) string {
	var nodes []string
	whole := false
	for _, f := range errs {
		if f.Kind != "node" {
			whole = true
		} else if !slices.Contains(nodes, f.Name) {
			nodes = append(nodes, f.Name)
		}
	}
	slices.Sort(nodes)
	names := count(len(nodes), "node") + ": " + some(nodes)
	switch {
	case len(nodes) == 0:
		return " of the cluster"
	case whole:
		return " of the cluster and on " + names
	}
	return " on " + names
}

// mostNames is how many names one line has.
const mostNames = 20

// some lists names, the first of them if there are many.
func some(names []string) string {
	if more := len(names) - mostNames; more > 0 {
		return strings.Join(names[:mostNames], ", ") + " and " + strconv.Itoa(more) + " more"
	}
	return strings.Join(names, ", ")
}

func also(warnings int) string {
	if warnings == 0 {
		return ""
	}
	return ", " + count(warnings, "warning")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
