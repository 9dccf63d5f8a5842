#!/bin/bash
# curl, as a page's reader runs it: an answer that says no fails, and one without an end is heard for a second.
for word; do
    if [[ $word == --no-buffer ]]; then
        if [[ $(readlink /proc/self/fd/0) == /dev/null ]]; then
            touch "$STATE/up/$$"
            exec "$CURL" -sS "$@"
        fi
        said=$(timeout 1 "$CURL" -sS --fail-with-body "$@" 2>&1)
        status=$?
        echo "$said"
        [[ -n $said && $status == 124 ]] || exit 1
        exit 0
    fi
done
exec "$CURL" -sS --max-time 30 --fail-with-body "$@"
