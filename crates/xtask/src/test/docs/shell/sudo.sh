#!/bin/bash
# sudo: who runs a page is root of its own namespaces.
exec "$@"
