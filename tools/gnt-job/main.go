// Command gnt-job looks at jobs. Package tools/cli does the work.
package main

import (
	"os"

	"rolekey/tools/cli"
)

func main() { os.Exit(cli.Main(cli.Job)) }
