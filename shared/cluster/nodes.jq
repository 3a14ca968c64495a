# Of a page of the API's list of nodes: one object a node, with what is known of it and, where it cannot be asked, why.
# What is longer than it can be, or has characters that it cannot have, is left empty.
def fact($form; $most): if type == "string" and length <= $most and test($form) then . else "" end;
def word: fact("^[A-Za-z0-9][A-Za-z0-9._+:-]*$"; 80);
def tag($name): (.metadata.labels | objects | .[$name]) // "" | word;
def minor: (capture("^v1\\.(?<minor>[0-9]{1,3})\\.") | .minor | tonumber) // 0;

.items[]
| (.metadata.name | fact("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"; 253)) as $name
| if $name == "" then error("") else . end
| select($name > $after and ($names == null or ($names | index([$name]) != null)))
| ([.status.conditions[]? | objects | select(.type == "Ready")] | first) as $ready
| {
    node: $name,
    id: (.spec.providerID | fact("^[A-Za-z0-9:/._()-]+$"; 400)),
    version: (.status.nodeInfo.kubeletVersion | word),
    boot: (.status.nodeInfo.bootID | word),
    os: (.status.nodeInfo.operatingSystem | word),
    address: ([.status.addresses[]? | objects | select(.type == "InternalIP") | .address] | first
        | fact("^[0-9A-Fa-f.:]{2,45}$"; 45)),
    ready: ($ready.status | word),
    since: ($ready.lastTransitionTime | word),
    ca: tag("kubernetes.azure.com/kubelet-serving-ca")
  }
| if $way != "direct" then .address = "-"
  elif (.version | minor) < 33 then .trouble = "too_old"
  elif .ca != "cluster" then .trouble = "own_certificate"
  elif .address == "" then .trouble = "no_address"
  else .
  end
