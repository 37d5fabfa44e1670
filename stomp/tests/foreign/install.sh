#!/bin/sh
# Makes a virtual environment with the packages of requirements.txt, unless it is there already.
#
#   install.sh FOLDER
set -eu

folder=${1:?usage: install.sh FOLDER}
wanted=$(dirname "$0")/requirements.txt
# What was installed. It is written last, so an attempt that was cut off is made anew.
installed=$folder/requirements.txt

# A broken link to the system's Python (after an upgrade of it) counts as missing too.
if cmp -s "$wanted" "$installed" && "$folder/bin/python" -c 'import stomp' 2>/dev/null; then
    exit 0
fi

for python in python3 /usr/bin/python3; do
    if "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        echo "foreign client: making $folder"
        rm -rf "$folder"
        "$python" -m venv "$folder"
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            --only-binary :all: --require-hashes --requirement "$wanted"
        cp "$wanted" "$installed"
        exit 0
    fi
done
echo "foreign client: no Python 3.10 or later with the module venv (Debian: python3-venv)" >&2
exit 1
