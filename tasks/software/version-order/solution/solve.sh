#!/bin/bash
# The reference solution.
set -e
cd /workspace
patch -p1 < /solution/oracle.patch
