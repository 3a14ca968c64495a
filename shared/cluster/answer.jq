# Of what kubectl said when it asked one kubelet: the values of the settings in their order (null: absent), or a word for
# what went wrong. The rest of it never leaves: a kubelet's configuration can hold secrets in the clear.
def weight: [explode[] | if . < 127 then 1 else 12 end] | add;  # written in ASCII
def trouble:
    if startswith("{") then "malformed"
    elif test("\\(Forbidden\\)|forbidden:") then "forbidden"
    elif test("\\(Unauthorized\\)|must be logged in") then "unauthorized"
    elif test("x509: |tls: failed to verify|certificate") then "certificate"
    elif test("connection refused|was refused|no route to host|network is unreachable") then "refused"
    elif test("deadline exceeded|Client\\.Timeout|i/o timeout|timed out|TLS handshake timeout|\\(Timeout\\)|\\(GatewayTimeout\\)")
    then "timeout"
    elif test("\\(NotFound\\)") then "not_found"
    elif test("\\(ServiceUnavailable\\)|error dialing backend|unable to handle the request|EOF|reset by peer")
    then "unreachable"
    else "malformed"
    end;

. as $said
| (try fromjson catch null) as $read
| {answer: $name} + (
    if ($read | type) == "object" and ($read.kubeletconfig | type) == "object" then
        $read.kubeletconfig as $config
        | {values: [$settings[] | split(".") as $path | try ($config | getpath($path)) catch null]}
        | if (tojson | weight) > 3500 then {trouble: "too_long"} else . end
    else {trouble: ($said[:4000] | trouble)}
    end
  )
