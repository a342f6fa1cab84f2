#!/bin/bash
# Builds the tests and prints the path of every test executable, one a line: for the scripts beside
# this one, which run them in places that cargo does not know.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --locked --no-run --message-format=json |
    sed -n '/"profile":{[^}]*"test":true}/s/.*"executable":"\([^"]*\)".*/\1/p'
