# Stands in for systemctl on a node of the sandbox: `show` and the like answer from files, the rest is service.py.
# @python@ and @source@ are filled in when the stand-ins are installed.
state=${KUBELET_GUARD_ROOT:?is not set}/run/sandbox
manager() {
    PYTHONPATH="@source@" "@python@" -P -B "@source@/sandbox/service.py" "$@"
}
if [ -f "$state/dies_at" ] && read -r at <"$state/dies_at" && [ "$(date +%s)" -ge "$at" ]; then
    manager settle
fi

verb= unit= wanted=, values= quiet= no_block=
while [ $# -gt 0 ]; do
    case $1 in
    -p | --property) wanted="$wanted$2," && shift ;;
    --property=*) wanted="$wanted${1#*=}," ;;
    -p*) wanted="$wanted${1#-p}," ;;
    --value) values=yes ;;
    -q | --quiet) quiet=yes ;;
    -n | --lines | -o | --output) shift ;;
    --no-block) no_block=$1 ;;
    --version) printf 'systemd 255 (255.4-1ubuntu8.11)\n+PAM +AUDIT +SELINUX +APPARMOR default-hierarchy=unified\n' && exit 0 ;;
    --timestamp=* | --no-pager | -l | --full | -a | --all | --no-legend | --system | --lines=* | --output=*) ;;
    -*) echo "systemctl: unrecognized option '$1'" >&2 && exit 1 ;;
    *.timer) unit=$1 ;;
    *) if [ -z "$verb" ]; then verb=$1; else unit=${1%.service}.service; fi ;;
    esac
    shift
done

needs_reload() {
    set --
    for directory in etc/systemd/system run/systemd/system usr/lib/systemd/system; do
        for file in "$KUBELET_GUARD_ROOT/$directory/kubelet.service" \
            "$KUBELET_GUARD_ROOT/$directory/kubelet.service.d/"*.conf; do
            [ -f "$file" ] && set -- "$@" "$file"
        done
    done
    [ $# -gt 0 ] && now=$(stat -c '%n %.9Y' "$@") || now=
    if [ "$now" = "$(cat "$state/loaded.list")" ]; then echo no; else echo yes; fi
}

property() { sed -n "s/^$1=//p" "$state/properties"; }

show() {
    while IFS= read -r line; do
        name=${line%%=*}
        case $wanted in , | *",$name,"*) ;; *) continue ;; esac
        case $line in
        NeedDaemonReload=) line=$line$(needs_reload) ;;
        "NRestarts=since "*) line="NRestarts=$((($(date +%s) - ${line##* }) / 2))" ;;
        esac
        if [ -n "$values" ]; then printf '%s\n' "${line#*=}"; else printf '%s\n' "$line"; fi
    done
}

absent() {
    printf '%s\n' MainPID=0 "Id=$unit" "Names=$unit" "Description=$unit" LoadState=not-found ActiveState=inactive \
        SubState=dead FragmentPath= DropInPaths= UnitFileState= NeedDaemonReload=no
}

case $verb in
daemon-reload)
    manager daemon-reload
    exit $?
    ;;
show-environment)
    printf 'LANG=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n'
    exit 0
    ;;
esac
[ -n "$unit" ] || { echo "systemctl: the sandbox needs a verb and a unit, got '$verb'" >&2 && exit 1; }
if [ "$verb" = stop ] && [ -f "$state/timers/$unit" ]; then
    rm "$state/timers/$unit"
    exit 0
fi
if [ "$unit" != kubelet.service ]; then
    case $verb in
    show) absent | show ;;
    is-active) [ -n "$quiet" ] || echo inactive; exit 3 ;;
    *) echo "Failed to $verb $unit: Unit $unit not found." >&2 && exit 5 ;;
    esac
    exit 0
fi
case $verb in
show) show <"$state/properties" ;;
is-active)
    active=$(property ActiveState)
    [ -n "$quiet" ] || echo "$active"
    [ "$active" = active ] || exit 3
    ;;
status)
    echo "kubelet.service - Kubelet"
    echo "     Loaded: $(property LoadState) ($(property FragmentPath); $(property UnitFileState))"
    echo "     Active: $(property ActiveState) ($(property SubState))"
    echo "   Main PID: $(property MainPID) (kubelet)"
    [ "$(property ActiveState)" = active ] || exit 3
    ;;
cat)
    [ -n "$(property FragmentPath)" ] || { echo "No files found for kubelet.service." >&2 && exit 1; }
    for path in $(property FragmentPath) $(property DropInPaths); do
        echo "# $path"
        cat "$KUBELET_GUARD_ROOT$path"
        echo
    done
    ;;
start | stop | restart)
    if [ "$(needs_reload)" = yes ]; then
        echo "Warning: The unit file, source configuration file or drop-ins of kubelet.service changed on disk." \
            "Run 'systemctl daemon-reload' to reload units." >&2
    fi
    manager "$verb" $no_block
    ;;
reset-failed) ;;
*) echo "Unknown command verb $verb." >&2 && exit 1 ;;
esac
