#!/bin/sh
# usage: code_server.sh FOLDER
# Installs code-server, an editor of VS Code in the browser, from the npm registry. Its own installer wants things from elsewhere
# (a fork of a module, ripgrep's binary) that a debugger does without.
set -eu
folder="$1"
version=4.96.4 # the last one for Node 20
[ ! -e "$folder/installed-$version" ] || exit 0
rm -rf "$folder"
mkdir -p "$folder"
export npm_config_nodedir="${npm_config_nodedir:-/usr}" npm_config_audit=false npm_config_fund=false npm_config_loglevel=error
npm install --prefix "$folder" --ignore-scripts "code-server@$version"
npm rebuild --prefix "$folder" argon2
cd "$folder/node_modules/code-server/lib/vscode"
rm -f npm-shrinkwrap.json
npm install --omit=dev --ignore-scripts
npm rebuild node-pty @vscode/spdlog @parcel/watcher native-watchdog
(cd extensions && rm -f npm-shrinkwrap.json && npm install --omit=dev --ignore-scripts)
ln -sfn node_modules node_modules.asar
: >"$folder/installed-$version"
