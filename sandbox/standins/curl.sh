# Stands in for curl on a node of the sandbox: it knows the kubelet's health endpoint and nothing else.
state=${KUBELET_GUARD_ROOT:?is not set}/run/sandbox
if [ -f "$state/dies_at" ] && read -r at <"$state/dies_at" && [ "$(date +%s)" -ge "$at" ]; then
    systemctl is-active -q kubelet
fi
url= silent= show_errors= fail= output= format=
while [ $# -gt 0 ]; do
    case $1 in
    -m | --max-time | --connect-timeout | --retry | --noproxy) shift ;;
    --max-time=* | --connect-timeout=*) ;;
    -o | --output) output=$2 && shift ;;
    -w | --write-out) format=$2 && shift ;;
    -g | --globoff) ;;
    --silent) silent=yes ;;
    --show-error) show_errors=yes ;;
    --fail) fail=yes ;;
    -[sSf]*)
        case $1 in *s*) silent=yes ;; esac
        case $1 in *S*) show_errors=yes ;; esac
        case $1 in *f*) fail=yes ;; esac
        case $1 in *m) shift ;; *o) output=$2 && shift ;; esac
        ;;
    -*) echo "curl: option $1: is unknown" >&2 && exit 2 ;;
    *) url=$1 ;;
    esac
    shift
done
complain() {
    if [ -z "$silent" ] || [ -n "$show_errors" ]; then echo "curl: $1" >&2; fi
}
status=000
case $url in
http://127.0.0.1:10248/healthz | http://localhost:10248/healthz)
    if [ -f "$state/healthz" ] && read -r from answer <"$state/healthz" && [ "$(date +%s)" -ge "$from" ]; then
        status=$answer
    fi
    ;;
esac
case $status in
000)
    [ -n "$format" ] && printf '%s' "$format" | sed 's/%{http_code}/000/; s/\\n/\n/g'
    complain "(7) Failed to connect to ${url#*//}: Couldn't connect to server"
    exit 7
    ;;
200) body=ok ;;
*) body='[-]syncloop failed: reason withheld
healthz check failed' ;;
esac
if [ -n "$fail" ] && [ "$status" != 200 ]; then
    [ -n "$format" ] && printf '%s' "$format" | sed "s/%{http_code}/$status/; s/\\\\n/\\n/g"
    complain "(22) The requested URL returned error: $status"
    exit 22
fi
if [ -n "$output" ]; then printf '%s' "$body" >"$output"; else printf '%s' "$body"; fi
[ -z "$format" ] || printf '%s' "$format" | sed "s/%{http_code}/$status/; s/\\\\n/\\n/g"
