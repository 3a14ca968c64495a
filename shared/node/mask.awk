# Masks what no control needs, one byte for one, so that offsets, lines, keys and types stay; and finds in the same texts
# what the kubelet's command line names. Run with LC_ALL=C; set before: `kind` (config, unit, environment, arguments or
# manager), `find` (1: print what the text names, nothing else; `uses`: the variables that ExecStart= expands, and as
# what), `keep` (" NAME:USE ... ", those variables), `continued` (1: a comment of an environment file goes on behind a
# backslash, systemd before 254), `other` (1: the arguments are no kubelet's), `present` (" FLAG ... ", whose values are
# files that must be there).
#
# A letter or digit becomes `*` where the text means nothing to a kubelet (comments, other variables, other commands),
# and `x` where the value is read and must stay a valid one of its type (a header, a label, a part of a URL).

BEGIN { ORS = ""; H = "[0-9A-Fa-f]" }
{ T = T $0 "\n" }
END {
    if (kind == "config") {
        # An alias below a secret key shows a secret that stands at its anchor: then every anchored value is masked.
        if (T ~ /&/ && T ~ /[*]/) { dry = 1; config(); dry = 0 }
        config()
    }
    else if (kind == "unit") unit()
    else if (kind == "environment") environment()
    else if (kind == "arguments") arguments()
    else manager()
}

function emit(s) { if (!dry && !find) print s }

# Letters and digits of any script; a sequence that is not UTF-8, or a control or line separator, stays what it is.
function letters(s, by) {
    gsub(/[0-9A-Za-z]/, by, s)
    if (s ~ /[\200-\377]/) {
        gsub(/[\303-\337][\200-\277]|\302[\241-\277]/, "\303\227", s)
        gsub(/[\341\343-\354\356][\200-\277][\200-\277]|\340[\240-\277][\200-\277]|\342[\201-\277][\200-\277]|\355[\200-\237][\200-\277]/, "\342\201\203", s)
        gsub(/[\361-\363][\200-\277][\200-\277][\200-\277]|\360[\220-\277][\200-\277][\200-\277]/, "\360\220\200\200", s)
    }
    return s
}

# `escapes`: 0 none, 1 YAML's and JSON's, 2 a unit's (also octal ones, and specifiers), 3 those and `$NAME`. What an
# escape means is masked, and a wrong one stays wrong.
function cover(s, by, escapes,    out, code) {
    if (!escapes) return letters(s, by)
    code = by == "x" ? "78" : "2a"
    out = ""
    while (match(s, escapes == 3 ? "[\\\\%$]" : escapes == 2 ? "[\\\\%]" : "\\\\")) {
        out = out letters(substr(s, 1, RSTART - 1), by)
        s = substr(s, RSTART)
        if (match(s, "^\\\\u" H H H H)) s = step(s, s ~ /^\\u([dD][89a-fA-F]|0000)/ ? substr(s, 1, 6) : "\\u00" code)
        else if (match(s, "^\\\\U" H H H H H H H H))
            s = step(s, s ~ /^\\U00(0[1-9a-fA-F]|10|00[0-9a-cA-Ce-fE-F]|00d[0-7])/ && s !~ /^\\U00000000/ ? "\\U000000" code : substr(s, 1, 10))
        else if (match(s, "^\\\\x" H H)) s = step(s, s ~ /^\\x00/ ? "\\x00" : "\\x" code)
        else if (escapes > 1 && match(s, /^\\[0-3][0-7][0-7]/)) s = step(s, s ~ /^\\000/ ? "\\000" : by == "x" ? "\\170" : "\\052")
        else if (match(s, /^[$][{][A-Za-z0-9_]*[}]/) || match(s, /^[$][A-Za-z_][A-Za-z0-9_]*/)) s = step(s, substr(s, 1, RLENGTH))
        else { RLENGTH = 2; s = step(s, substr(s, 1, 2)) }
        out = out stepped
    }
    return out letters(s, by)
}
function step(s, instead) { stepped = instead; return substr(s, RLENGTH + 1) }

# Credentials, query and fragment of every URL. Hexadecimal digits stay such, so that `%2F` and a port stay valid.
function urls(s, escapes,    out, word, to, from) {
    out = ""
    while (match(s, /:\\?\/\\?\/[^ \t\r\n"'<>]+/)) {
        out = out substr(s, 1, RSTART - 1)
        word = substr(s, RSTART, RLENGTH)
        s = substr(s, RSTART + RLENGTH)
        match(word, /^:\\?\/\\?\//)
        out = out substr(word, 1, RLENGTH)
        word = substr(word, RLENGTH + 1)
        to = match(word, /.*@/) ? RLENGTH : 0
        from = match(substr(word, to + 1), /[?#]/) ? to + RSTART : length(word) + 1
        out = out hexes(substr(word, 1, to), escapes) substr(word, to + 1, from - to - 1) hexes(substr(word, from), escapes)
    }
    return out s
}
function hexes(s, escapes) {
    if (s ~ /[\\$]/ || s ~ /[\200-\377]/) return cover(s, "x", escapes ? escapes : 0)
    gsub(/[0-9]/, "1", s); gsub(/[A-Fa-f]/, "a", s); gsub(/[G-Zg-z]/, "x", s)
    return s
}

function labels(s, escapes,    out, n, i, part, at) { # NAME=VALUE,...: the values
    out = ""
    n = split(s, part, ",")
    for (i = 1; i <= n; i++) {
        at = index(part[i], "=")
        out = out (i > 1 ? "," : "") substr(part[i], 1, at ? at : length(part[i])) (at ? cover(substr(part[i], at + 1), "x", escapes) : "")
    }
    return out
}

# What the value of a flag is: `secret`, `labels`, `config`, `dir`, `ca`, or nothing of note.
function flag(name) {
    gsub(/_/, "-", name)
    if (name == "--node-labels") return "labels"
    if (name == "--config") return "config"
    if (name == "--config-dir") return "dir"
    if (index(present, " " name " ")) return "ca"
    if (name ~ /^--authentication-token-webhook/) return ""
    if (name == "--manifest-url" || tolower(name) ~ /token|password|secret|header|api-key/) return "secret"
    return ""
}

function quoted(s, open,    i, c) { # the quote that is open behind `s`
    while (match(s, /[\\"']/)) {
        c = substr(s, RSTART, 1)
        s = substr(s, RSTART + (c == "\\" ? 2 : 1))
        if (c != "\\") { if (open == "") open = c; else if (open == c) open = "" }
    }
    return open
}

# Part of a command line as a unit or a variable writes it. `outer` is the quote around it, in which a flag's value ends
# where the next flag or variable begins: words may stand in it. Calls use_of for every `$NAME`.
function line(s, escapes, outer,    out, name, what, start, i, c, open, n, value, gap) {
    out = ""
    gap = "([ \t\r\n\001]|\\\\(\r\n?|\n)" (escapes > 1 ? "|\\\\([nrst]|x20|x09|x0[aAdD]|0(40|1[125]))" : "") ")"
    while (match(s, /--[A-Za-z0-9_-]+/)) {
        name = substr(s, RSTART, RLENGTH)
        n = RSTART + RLENGTH
        use_of(substr(s, 1, n - 1), "plain")
        out = out urls(substr(s, 1, n - 1), escapes)
        outer = quoted(substr(s, 1, n - 1), outer)
        s = substr(s, n)
        what = flag(name)
        if (what == "" || !match(s, "^[\"']?(=|" gap "+)")) continue
        start = substr(s, 1, RLENGTH)
        s = substr(s, RLENGTH + 1)
        out = out start
        outer = quoted(start, outer)
        n = length(s); open = ""
        for (i = 1; i <= n; i++) {
            c = substr(s, i, 1)
            if (open == "" && c ~ /[ \t\r\n\001\\]/ && ends(substr(s, i), gap, outer == "" && what != "secret")) break
            if (c == "\\") i++
            else if (open != "") { if (c == open) open = "" }
            else if (c == outer) break
            else if (c == "\"" || c == "'") open = c
        }
        value = substr(s, 1, i - 1)
        s = substr(s, i)
        use_of(value, what)
        if (what == "secret") value = cover(value, "x", escapes)
        else if (what == "labels") value = labels(value, escapes)
        else { named(what, value); value = urls(value, escapes) }
        out = out value
    }
    use_of(s, "plain")
    return out urls(s, escapes)
}

# Whether a value ends at this gap: words may go on within a quote, and those behind a secret are taken for its own.
function ends(s, gap, every) {
    if (every && s ~ /^([^\\]|\\[\r\n])/) return 1
    return match(s, "^" gap "+") && substr(s, RLENGTH + 1) ~ /^([-$"']|$)/
}

function use_of(s, what) {
    if (find != "uses") return
    gsub(/[$][$]/, " ", s)
    while (match(s, /[$][{]?[A-Za-z_][A-Za-z0-9_]*/)) {
        name_of = substr(s, RSTART, RLENGTH); gsub(/[^A-Za-z0-9_]/, "", name_of)
        print name_of ":" what "\n"
        s = substr(s, RSTART + RLENGTH)
    }
}

function named(what, s) {
    if (!find || find == "uses" || (what != "config" && what != "dir" && what != "ca")) return
    gsub(/["'\001\r\n\\]/, "", s)
    sub(/^[ \t]+/, "", s)
    if (s != "" && s !~ /[$]/) print what " " s "\n"
}

function use(name,   i, n, what) { # what the unit uses a variable as, the most delicate first; empty: not at all
    n = split("secret labels plain config dir ca", what, " ")
    for (i = 1; i <= n; i++) if (index(keep, " " name ":" what[i] " ")) return what[i]
    return ""
}

function variable(name, s, escapes, outer,    what) {
    what = use(name)
    if (what == "") return cover(s, "*", escapes)
    if (what == "secret") return cover(s, "x", escapes)
    if (what == "labels") return labels(s, escapes)
    if (what != "plain") { named(what, s); return urls(s, escapes) }
    return line(s, escapes, outer)
}

# --- a unit or drop-in: systemd.syntax(7)

function unit(   l, key, buffer, going) {
    buffer = key = ""; comments = going = 0
    if (substr(T, 1, 3) == "\357\273\277") { emit(substr(T, 1, 3)); T = substr(T, 4) }
    while (match(T, /\r\n|\r|\n/)) {
        l = substr(T, 1, RSTART + RLENGTH - 1)
        T = substr(T, RSTART + RLENGTH)
        if (l ~ /^[ \t]*[#;]/) { # within a value it is no part of it
            l = cover(l, "*", 0)
            if (going) { comment[++comments] = l; buffer = buffer "\001" }
            else emit(l)
            continue
        }
        if (!going && match(l, /^[ \t]*[A-Za-z][A-Za-z0-9-]*[ \t]*=/)) {
            key = substr(l, 1, RLENGTH - 1); gsub(/[ \t]/, "", key)
            emit(substr(l, 1, RLENGTH))
            l = substr(l, RLENGTH + 1)
        }
        buffer = buffer l
        going = l ~ /(^|[^\\])(\\\\)*\\[\r\n]+$/
        if (!going) { with_comments(setting(key, buffer)); buffer = key = ""; comments = 0 }
    }
    if (buffer != "") with_comments(setting(key, buffer))
}

function with_comments(s,   i, at) {
    for (i = 1; i <= comments && (at = index(s, "\001")); i++) {
        emit(substr(s, 1, at - 1) comment[i])
        s = substr(s, at + 1)
    }
    emit(s)
}

function setting(key, s) {
    if (key == "ExecStart" && find) return kubelet(s) ? line(s, 3, "") : ""
    if (key == "ExecStart") return direct(s) ? line(s, 3, "") : substr(s, 1, RLENGTH) cover(substr(s, RLENGTH + 1), "*", 3)
    if (key == "Environment") return assignments(s)
    if (key ~ /^Exec/ || key ~ /^SetCredential/) return cover(s, "*", 2)
    if (key == "" && s !~ /^[ \t]*\[/) return cover(s, "*", 2) # not a setting: nobody reads it
    if (key ~ /^(Description|Documentation|X-.*|[a-z].*|.*(Credential|Password|Token|Secret).*)$/ && key !~ /^(Condition|Assert)/) return cover(s, "*", 2)
    return urls(s, 2)
}

function kubelet(s) { return s ~ /(^|[\/ \t"'@:+!|-])kubelet([-_.0-9][^ \t\r\n"'\/]*)?([ \t\r\n"']|$)/ }

# Whether a command is a kubelet by its name, or may be one: no other program's words are looked at. Sets RLENGTH.
function direct(s,   program) {
    if (!match(s, /^([ \t]|\\(\r\n?|\n)|\001)*[-@:+!|]*["']?[A-Za-z0-9_.\/+-]+["']?/)) return 1
    program = substr(s, 1, RLENGTH)
    if (substr(s, RLENGTH + 1) !~ /^([ \t\r\n]|\\[\r\n])/) return 1
    return program ~ /[@+\/!|:"' \t\n\001-](kubelet|hyperkube)[^\/]*$/ || program ~ /^(kubelet|hyperkube)[^\/]*$/
}

function assignments(s,   out, i, n, c, from, open, name, value, at) { # words NAME=VALUE, quoted or not
    out = ""; n = length(s); i = 1
    while (i <= n) {
        while (i <= n && substr(s, i) ~ /^([ \t\r\n\001]|\\(\r\n?|\n))/) { c = substr(s, i, 1); out = out c; i++ }
        from = i; open = ""; at = 0
        for (; i <= n; i++) {
            c = substr(s, i, 1)
            if (c == "\\" && substr(s, i + 1, 1) !~ /[\r\n]/) i++
            else if (open != "" && c == open) open = ""
            else if (open == "" && (c == "\"" || c == "'")) open = c
            else if (open == "" && c ~ /[ \t\r\n\001\\]/) break
            else if (c == "=" && !at) at = i
        }
        if (i > n + 1) i = n + 1
        if (!at) { out = out cover(substr(s, from, i - from), "*", 2); continue }
        name = substr(s, from, at - from)
        open = quoted(name, "")
        value = substr(s, at + 1, i - at - 1)
        out = out name "="
        gsub(/["']/, "", name)
        out = out variable(name, value, 2, open)
    }
    return out
}

# --- an environment file: systemd.exec(5), EnvironmentFile=; not a shell's syntax

function environment(   n, i, c, state, from, name, at) {
    n = length(T); state = "before"; from = 1
    for (i = 1; i <= n; i++) {
        c = substr(T, i, 1)
        if (state == "before") {
            if (c == "#" || c == ";") { emit(substr(T, from, i - from)); state = "comment"; from = i }
            else if (c !~ /[ \t\r\n]/) { emit(substr(T, from, i - from)); state = "name"; from = i }
        } else if (state == "name") {
            if (c ~ /[\r\n]/) { emit(cover(substr(T, from, i - from), "*", 0)); state = "before"; from = i }
            else if (c == "=") {
                name = substr(T, from, i - from); sub(/[ \t]+$/, "", name)
                emit(substr(T, from, i - from + 1)); state = "value"; from = i + 1
                plain = 0
            }
        } else if (state == "value") {
            if (c ~ /[\r\n]/) { emit(variable(name, substr(T, from, i - from), 0, "")); state = "before"; from = i }
            else if (c == "\\") { i++; plain = 1 }
            else if (!plain && (c == "\"" || c == "'")) state = c
            else if (c !~ /[ \t]/) plain = 1
        } else if (state == "\"" || state == "'") {
            if (c == state) { state = "value"; plain = 0 }
            else if (c == "\\" && state == "\"") i++
        } else { # a comment
            if (c == "\\" && continued) i++
            else if (c ~ /[\r\n]/) { emit(cover(substr(T, from, i - from), "*", 0)); state = "before"; from = i }
        }
    }
    if (from > n) return
    if (state == "value" || state == "\"" || state == "'") emit(variable(name, substr(T, from), 0, ""))
    else emit(cover(substr(T, from), "*", 0))
}

# --- a process's arguments, one a line (a newline within one is \001); `NAME=VALUE` lines of the service manager

function arguments(   n, i, all, what, value, at, begun) {
    n = split(substr(T, 1, length(T) - 1), all, "\n"); what = ""; begun = 0
    for (i = 1; i <= n; i++) {
        value = all[i]
        if (other && i > 1) { emit(cover(value, "*", 0) "\n"); continue }
        if (what != "") { emit(argument(what, value) "\n"); what = ""; continue }
        at = value ~ /^--/ ? index(value, "=") : 0
        if (at) emit(substr(value, 1, at) argument(begun ? flag(substr(value, 1, at - 1)) : "", substr(value, at + 1)) "\n")
        else {
            emit((value ~ /^--/ ? value : line(value, 0, "")) "\n")
            if (value ~ /^--/) what = flag(value)
        }
        if (!begun) begun = kubelet(value)
    }
}
function argument(what, value) {
    if (what == "secret") return cover(value, "x", 0)
    if (what == "labels") return labels(value, 0)
    if (find && (what == "config" || what == "dir" || what == "ca")) print what " " value "\n"
    return urls(value, 0)
}
function manager(   n, i, all, at) {
    n = split(T, all, "\n")
    for (i = 1; i < n; i++)
        if ((at = index(all[i], "=")) && use(substr(all[i], 1, at - 1)) != "")
            emit("manager " substr(all[i], 1, at) variable(substr(all[i], 1, at - 1), substr(all[i], at + 1), 2, "") "\n")
}

# --- a config file: YAML 1.1, of which JSON is a part, token by token as libyaml's scanner takes it

function blank(c) { return c == "" || c == " " || c == "\t" || c == "\n" || c == "\r" }
function newline_at(i,   c) { # how many bytes a line's end at this place has, 0 for none
    c = substr(T, i, 1)
    if (c == "\n" || c == "\r") return 1
    if (c == "\302" && substr(T, i + 1, 1) == "\205") return 2
    return c == "\342" && substr(T, i + 1, 2) ~ /^\200[\250\251]$/ ? 3 : 0
}
function hidden() { return secret_column >= 0 || secret_flow > 0 }
function hide(column) {
    if (hidden()) return
    if (flow) secret_flow = flow; else secret_column = column
}

# Whether a key's value is one. Of the kubelet's own only staticPodURL and staticPodURLHeader are; another key means
# nothing to it, but may be one of these spelt wrongly, or something that does not belong here.
function secret(name) {
    return name ~ /^staticpod.*url|header|passw|token|secret|credential/ && name !~ /changedetectionstrategy$|verificationpolicy$/
}

function config(   n, i, j, k, c, l, s, column, start, fresh, keyed, prefix, explicit, iskey, name, newline) {
    n = length(T); start = 1; fresh = 1; keyed = 0; prefix = -1; explicit = -1
    flow = secret_flow = top = 0; secret_column = indents[0] = -1
    i = 1
    if (substr(T, 1, 3) == "\357\273\277") { emit(substr(T, 1, 3)); i = start = 4 }
    while (i <= n) {
        c = substr(T, i, 1)
        column = i - start
        if (j = newline_at(i)) {
            emit(substr(T, i, j)); i += j; start = i; fresh = 1; keyed = 0; prefix = -1
            continue
        }
        if (c == " " || c == "\t") { emit(c); i++; continue }
        if (c == "#") { j = line_end(i); emit(cover(substr(T, i, j - i), "*", 0)); i = j; continue }
        if (!flow && fresh) {
            if (column == 0 && substr(T, i, 4) ~ /^(---|\.\.\.)([ \t\r\n]|$)/) {
                top = 0; secret_column = explicit = -1; fresh = 0
                emit(substr(T, i, 3)); i += 3
                continue
            }
            if (column == 0 && c == "%") { j = line_end(i); emit(substr(T, i, j - i)); i = j; continue }
            while (top > 0 && indents[top] > column) top--
            if (explicit > column) explicit = -1
            if (secret_column > column || secret_column == column && !(c == "-" && blank(substr(T, i + 1, 1))) && !(c == ":" && explicit == column))
                secret_column = -1
        }
        if (!flow && (c == "-" || c == "?" || c == ":") && blank(substr(T, i + 1, 1))) {
            if (c != ":" && column > indents[top]) indents[++top] = column
            if (c == "?") explicit = column
            emit(c); i++; keyed = 0; prefix = -1
            continue
        }
        fresh = 0
        if (c == "[" || c == "{") { flow++; emit(c); i++; continue }
        if (flow && (c == "]" || c == "}")) {
            flow--
            if (secret_flow > flow) secret_flow = 0
            emit(c); i++; continue
        }
        if (flow && c == ",") { if (secret_flow == flow) secret_flow = 0; emit(c); i++; continue }
        if (flow && (c == ":" || c == "?" && blank(substr(T, i + 1, 1)))) { emit(c); i++; continue }
        if (c == "&" || c == "*" || c == "!") {
            for (j = i + 1; j <= n && !blank(substr(T, j, 1)) && !(flow && index(",[]{}", substr(T, j, 1))); j++);
            if (c == "*" && hidden()) aliased = 1
            if (c == "&" && aliased) hide(keyed ? indents[top] : column)
            if (prefix < 0 && c != "*") prefix = column
            emit(substr(T, i, j - i)); i = j
            continue
        }
        if (!flow && (c == "|" || c == ">")) {
            j = line_end(i)
            l = substr(T, i, j - i)
            if (match(l, /^[|>][-+0-9]*[ \t]*/) && (RLENGTH == length(l) || substr(l, RLENGTH + 1, 1) == "#")) {
                s = substr(l, 1, RLENGTH)
                emit(s cover(substr(l, RLENGTH + 1), "*", 0))
                i = block(j, match(s, /[1-9]/) ? substr(s, RSTART, 1) : 0)
                start = i; fresh = 1; keyed = 0; prefix = -1
                continue
            }
        }
        newline = 0
        if (c == "\"" || c == "'") {
            for (j = i + 1; j <= n; j++) {
                k = substr(T, j, 1)
                if (k == "\\" && c == "\"") j++
                else if (k == c) {
                    if (c == "'" && substr(T, j + 1, 1) == "'") j++
                    else break
                }
                else if (k == "\n" || k == "\r") { newline = 1; start = j + 1 }
            }
            if (j > n) { emit(cover(substr(T, i), "x", 1)); return } # never closed: nobody reads it
            j++
        } else j = plain_end(i)
        s = substr(T, i, j - i)
        if (plain_lines) { newline = 1; start = plain_lines }
        plain_lines = 0
        for (k = j; k <= n && (substr(T, k, 1) == " " || substr(T, k, 1) == "\t" || flow && blank(substr(T, k, 1))); k++);
        iskey = substr(T, k, 1) == ":" && (flow || !newline && !keyed && blank(substr(T, k + 1, 1)))
        name = iskey || explicit >= 0 ? tolower(scalar(s, c)) : ""
        if (iskey && !flow) {
            if (prefix >= 0) column = prefix
            if (column > indents[top]) indents[++top] = column
            keyed = 1
        }
        if (iskey) emit(s)
        else if (hidden()) emit(c == "\"" ? cover(s, "x", 1) : c == "'" ? cover(s, "x", 0) : typed(s))
        else emit(urls(s, c == "\"" ? 1 : 0))
        if (secret(name)) hide(explicit >= 0 && !iskey ? explicit : column)
        prefix = -1
        i = j
    }
}

function line_end(i,   s) {
    s = substr(T, i)
    return match(s, /[\r\n]|\302\205|\342\200[\250\251]/) ? i + RSTART - 1 : length(T) + 1
}

# The end of a plain scalar; plain_lines: where its last line starts, if that is not its first.
function plain_end(i,   j, k, c, n, end, from, width) {
    n = length(T); plain_lines = 0; end = i; j = i
    while (j <= n) {
        c = substr(T, j, 1)
        if (blank(c) || newline_at(j)) {
            from = 0
            for (k = j; k <= n; k += width) {
                if (width = newline_at(k)) from = k + width
                else if (blank(substr(T, k, 1))) width = 1
                else break
            }
            if (k > n || substr(T, k, 1) == "#") break
            if (from && !flow && (k - from <= indents[top] || k == from && substr(T, k, 4) ~ /^(---|\.\.\.)([ \t\r\n]|$)/)) break
            if (substr(T, k, 1) == ":" && blank(substr(T, k + 1, 1))) break
            if (flow && index(",[]{}", substr(T, k, 1))) break
            if (from) plain_lines = from
            j = k
            continue
        }
        if (c == ":" && blank(substr(T, j + 1, 1))) break
        if (flow && index(",[]{}", c)) break
        j++; end = j
    }
    return end > i ? end : i + 1
}

# A block scalar's lines, from the end of its header; returns where the next line starts.
function block(i, digit,   n, j, l, depth, width) {
    n = length(T)
    if (i > n) return i
    width = substr(T, i, 2) == "\r\n" ? 2 : newline_at(i)
    emit(substr(T, i, width)); i += width
    depth = digit ? (indents[top] > 0 ? indents[top] : 0) + digit : 0
    while (i <= n) {
        j = line_end(i)
        l = substr(T, i, j - i)
        match(l, /^ */); width = RLENGTH
        if (width < length(l)) {
            if (!depth) { depth = indents[top] + 1 > width ? indents[top] + 1 : width; if (depth < 1) depth = 1 }
            if (width < depth) return i
        }
        emit(hidden() || l ~ /^[ \t]*#/ ? cover(l, "x", 0) : urls(l, 0)) # a comment to whoever wrote it there
        width = newline_at(j)
        emit(substr(T, j, width))
        i = j + (width ? width : 1)
    }
    return i
}

function scalar(s, c,   out, p, code) { # what a key says, as far as it is ASCII
    if (c != "\"" && c != "'") return s
    s = substr(s, 2, length(s) - 2)
    out = ""
    while (c == "\"" && (p = index(s, "\\"))) {
        out = out substr(s, 1, p - 1); s = substr(s, p)
        if (match(s, "^\\\\u00" H H) || match(s, "^\\\\x" H H) || match(s, "^\\\\U000000" H H)) {
            code = tolower(substr(s, RLENGTH - 1, 2))
            out = out sprintf("%c", 16 * (index("0123456789abcdef", substr(code, 1, 1)) - 1) + index("0123456789abcdef", substr(code, 2, 1)) - 1)
            s = substr(s, RLENGTH + 1)
        } else { out = out substr(s, 1, 2); s = substr(s, 3) }
    }
    return out s
}

# A plain scalar keeps its type: YAML 1.1's words for true, false and null stay, a number stays a number.
function typed(s) {
    if (s ~ /^(y|Y|yes|Yes|YES|on|On|ON|n|N|no|No|NO|off|Off|OFF|true|True|TRUE|false|False|FALSE|null|Null|NULL|~|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$/) return s
    if (s ~ /^[-+]?0(b[01_]+|o?[0-7_]+|x[0-9a-fA-F_]+)$/) return s
    if (s ~ /^[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$/) { gsub(/[2-9]/, "1", s); return s }
    return cover(s, "x", 0)
}
