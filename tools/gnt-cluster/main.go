// Command gnt-cluster manages the cluster as a whole. Package tools/cli does the work.
package main

import (
	"os"

	"rolekey/tools/cli"
)

func main() { os.Exit(cli.Main(cli.Cluster)) }
