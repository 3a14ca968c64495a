# Stands in for systemd-run on a node of the sandbox: transient timers (--unit=NAME --on-active=SECONDS COMMAND…).
# A timer is a file; taking the file away (systemctl stop NAME.timer, or the sandbox's end) stops it within a second.
state=${KUBELET_GUARD_ROOT:?is not set}/run/sandbox
unit= seconds=
while [ $# -gt 0 ]; do
    case $1 in
    --unit=*) unit=${1#*=} ;;
    --on-active=*) seconds=${1#*=} seconds=${seconds%s} ;;
    --quiet | --collect | --timer-property=*) ;;
    -*) echo "systemd-run: unrecognized option '$1'" >&2 && exit 1 ;;
    *) break ;;
    esac
    shift
done
if [ -z "$unit" ] || [ -z "$seconds" ] || [ $# -eq 0 ]; then
    echo 'systemd-run: the sandbox needs --unit=, --on-active= and a command' >&2 && exit 1
fi
timer=$state/timers/$unit.timer
[ ! -e "$timer" ] || { echo "Failed to start transient timer unit: Unit $unit.timer already exists." >&2 && exit 1; }
mkdir -p "$state/timers"
: >"$timer"
(
    while [ "$seconds" -gt 0 ] && [ -e "$timer" ]; do
        sleep 1
        seconds=$((seconds - 1))
    done
    if [ -e "$timer" ]; then
        rm "$timer"
        exec "$@"
    fi
) </dev/null >/dev/null 2>&1 &
