// Command gnt-node manages nodes and their roles. Package tools/cli does the work.
package main

import (
	"os"

	"rolekey/tools/cli"
)

func main() { os.Exit(cli.Main(cli.Node)) }
