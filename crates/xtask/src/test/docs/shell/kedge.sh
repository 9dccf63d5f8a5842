#!/bin/bash
# kedge, as a page's reader runs it: KEDGE is the program, STATE a folder of the test's own.
set -u
name=${0##*/}

# The shell gives it to what it puts into the background, and to nothing else.
in_background() { [[ $(readlink /proc/self/fd/0) == /dev/null ]]; }

# The value of a flag, if it is there.
value_of() {
    local flag=$1
    shift
    while (($#)); do
        if [[ $1 == "$flag" ]]; then echo "${2-}"; return; fi
        if [[ $1 == "$flag="* ]]; then echo "${1#*=}"; return; fi
        shift
    done
}
has() { [[ " ${*:2} " == *" $1 "* ]]; }

case "${1-} ${2-}" in
    console\ * | events\ *)
        if in_background; then
            touch "$STATE/up/$$"
            exec "$KEDGE" "$@"
        fi
        said=$(timeout 1 "$KEDGE" "$@" 2>&1)
        status=$?
        echo "$said"
        [[ -n $said ]] || { echo "it has printed nothing"; exit 1; }
        ((status == 124)) && exit 0 || exit "$status" ;;
    abi\ diff)
        # 1 where there is a difference, as with diff.
        "$KEDGE" "$@" || (($? == 1)) ;
        exit ;;
    run\ * | snapshot\ load | -*) ;;
    *) exec -a "$name" "$KEDGE" "$@" ;;
esac
for word; do
    case $word in
        --help | -h | --version | --dry-run | --snapshot-version | --describe-snapshot*) exec -a "$name" "$KEDGE" "$@" ;;
    esac
done

socket=$(value_of --api-sock "$@")
id=$(value_of --id "$@")
if [[ -z $socket && -n $id && $1 != -* ]]; then socket=$XDG_RUNTIME_DIR/kedge/$id/api.sock; fi
if [[ -z $socket && $1 == -* ]] && ! has --no-api "$@"; then
    echo "the documentation's machines have --api-sock or --no-api: the default socket is the host's"
    exit 1
fi
# Without a guest it waits for one.
if [[ $1 == -* && -z $(value_of --config-file "$@") ]]; then state='"Not started"'; else state='"\(Running\|Paused\)"'; fi

# Who starts one where another is has ended that.
at=$STATE/at/${socket//\//_}
if [[ -n $socket && -e $at ]]; then
    kill -TERM "$(<"$at")" 2>>"$STATE/log"
    while [[ -e $at ]]; do sleep 0.01; done
fi

said=$STATE/said.$$
(exec -a "$name" "$KEDGE" "$@") >"$said" 2>&1 &
machine=$!
is_up() {
    if [[ -n $socket ]]; then
        [[ -S $socket ]] && "$CURL" -s --unix-socket "$socket" http://localhost/ | grep -q "\"state\":$state"
    else
        # What the model's guest prints first.
        grep -q "the model's guest echoes" "$said"
    fi
}
until is_up; do
    kill -0 $machine 2>>"$STATE/log" || { wait $machine; status=$?; cat "$said"; exit $status; }
    sleep 0.005
done
if in_background; then
    if [[ -n $socket ]]; then echo $machine >"$at"; fi
    echo $machine >"$STATE/new.$$"
    mv "$STATE/new.$$" "$STATE/up/$$"
else
    kill -TERM $machine
fi
wait $machine
status=$?
if [[ -n $socket ]]; then rm -f "$at"; fi
cat "$said"
# Powered off, ended by its user in either way.
case $status in
    0 | 137 | 143) exit 0 ;;
esac
echo "$PAGE: status $status in the end: $name $*" | tee "$STATE/failed.$$"
mv "$STATE/failed.$$" "$STATE/failed"
exit $status
