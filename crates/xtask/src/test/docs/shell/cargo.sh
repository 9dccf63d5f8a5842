#!/bin/bash
# cargo, for developer commands: most run every day, and here they only have to be there, with these flags.
case ${1-} in
    xtask) [[ ${2-} != guest ]] || HOME=$DEVELOPER exec "$XTASK" "${@:2}" ;;&
    xtask) exec "$XTASK" "${@:2}" --help ;;
esac
echo "no rule for: cargo $*"
exit 1
