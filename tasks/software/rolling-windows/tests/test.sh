#!/bin/bash
# Lays the hidden tests over the workspace, runs all tests, and writes the reward where Harbor reads it.
set -u
mkdir -p /logs/verifier
cp -R /tests/tree/. /workspace/
cd /workspace || exit 1
if python -m pytest -q -p no:cacheprovider tests; then
    echo 1 > /logs/verifier/reward.txt
else
    echo 0 > /logs/verifier/reward.txt
fi
