# What bash reads before a page's script. Variables: PAGE, its name; SOURCE, the script; STATE, a folder of the test's own;
# TAPS, which is empty where there can be none.
set -eEu -o pipefail
unset BASH_ENV
mkdir -p "$STATE/up" "$STATE/at" "$HOME"

# Every command before which something new is in the background waits until that is up.
newest=
__up() {
    [[ "${!-}" != "$newest" ]] || return 0
    newest=$!
    local tries=0
    until [[ -e $STATE/up/$newest ]]; do
        kill -0 "$newest" 2>>"$STATE/log" || { wait "$newest" || __fail "$?" "$1" "what is in the background"; }
        ((tries += 1)) && ((tries < 3000)) || __fail 124 "$1" "what is in the background and never up"
        sleep 0.01
    done
}
__fail() {
    trap - EXIT
    echo "$PAGE:$2: status $1: $3"
    exit 1
}
# The line of the page, also from within a function that the page has.
__line() {
    local depth=${#FUNCNAME[@]}
    ((depth < 3)) && echo "$1" || echo "${BASH_LINENO[depth - 2]}"
}
# Machines that still run are ended by their user.
__end() {
    [[ $1 == 0 ]] || return 0
    local machine
    for machine in "$STATE"/up/*; do
        [[ ! -s $machine ]] || kill -TERM "$(<"$machine")" 2>>"$STATE/log" || true
    done
    wait
    [[ ! -e $STATE/failed ]] || { cat "$STATE/failed"; exit 1; }
}
if [[ -n $TAPS ]]; then
    for number in {0..9}; do
        grep -q "dev tap$number mode tap" "$SOURCE" || ip tuntap add dev "tap$number" mode tap
    done
fi
kedge abi probe --output a.json
KEDGE_MODEL=6.1 kedge abi probe --output b.json

trap '__fail "$?" "$(__line "$LINENO")" "$BASH_COMMAND"' ERR
trap '__end "$?"' EXIT
trap '__up "$LINENO"' DEBUG
