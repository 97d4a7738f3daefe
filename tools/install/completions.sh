#!/bin/bash
# Installs shell completions, which the commands print themselves.
set -euo pipefail

bin=${1:?usage: completions.sh BIN SHAREDIR COMMAND...} share=${2:?}
shift 2

install -d "$share/bash-completion/completions" "$share/zsh/site-functions" "$share/fish/vendor_completions.d"
for command in "$@"; do
	"$bin/$command" completion bash >"$share/bash-completion/completions/$command"
	"$bin/$command" completion zsh >"$share/zsh/site-functions/_$command"
	"$bin/$command" completion fish >"$share/fish/vendor_completions.d/$command.fish"
done
