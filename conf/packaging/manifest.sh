# shellcheck shell=sh
# The list of what conf/install put on a machine, and the only functions that put something there or take it away.
#
# A line is "KIND MARK PATH", MARK is a file's checksum, a link's target, or -. A line is written before its thing is
# there, so that a kill in between leaves nothing that is unknown; until the new thing is there the line of the one before
# it stays as well. Paths are the final ones; $root (DESTDIR) goes before them. Read by conf/install, which sets root,
# manifest, python and force.
# shellcheck disable=SC2154

recorded() { # KIND PATH: is it ours by the list?
    [ -f "$root$manifest" ] && cut -d ' ' -f 1,3- "$root$manifest" | grep -qxF "$1 $2"
}

paths_of() { # KIND: all of that kind, oldest first
    [ ! -f "$root$manifest" ] || sed -n "s/^$1 [^ ]* //p" "$root$manifest"
}

marks_of() { # KIND PATH
    while read -r kind mark path; do
        [ "$kind $path" != "$1 $2" ] || echo "$mark"
    done <"$root$manifest"
}

announce() { # KIND MARK PATH: what will be there, beside what is
    { cat "$root$manifest" && echo "$1 $2 $3"; } >"$root$manifest.new"
    mv -f "$root$manifest.new" "$root$manifest"
}

forget() { # KIND PATH [LINE]: the list without that, or with LINE at its end instead
    while read -r kind mark path; do
        [ "$kind $path" = "$1 $2" ] || echo "$kind $mark $path"
    done <"$root$manifest" >"$root$manifest.new"
    [ -z "${3:-}" ] || echo "$3" >>"$root$manifest.new"
    mv -f "$root$manifest.new" "$root$manifest"
}

record() { # KIND MARK PATH: what is there, and nothing else
    forget "$1" "$3" "$1 $2 $3"
}

replace() { # FROM TO, at once, where TO may be a link to a folder: mv would go into that
    "$python" -IS -c 'import os, sys; os.replace(sys.argv[1], sys.argv[2])' "$1" "$2"
}

checksum() { sha256sum <"$1" | cut -d ' ' -f 1; }

exists() { [ -e "$root$1" ] || [ -L "$root$1" ]; }

begin_list() { # its own folder is ours, also if it is there since a call that was killed; those above it if they are new
    [ ! -f "$root$manifest" ] || return 0
    dir=$(dirname "$manifest")
    new="dir - $dir
"
    dir=$(dirname "$dir")
    while [ ! -d "$root$dir" ]; do
        new="dir - $dir
$new"
        dir=$(dirname "$dir")
    done
    mkdir -p "$root$(dirname "$manifest")"
    printf '%s' "$new" >"$root$manifest.new"
    mv -f "$root$manifest.new" "$root$manifest"
}

make_dir() { # with its parents; those that were not there are ours
    [ -d "$root$1" ] || {
        make_dir "$(dirname "$1")"
        record dir - "$1"
        mkdir -m 755 "$root$1"
    }
}

put_file() { # MODE PATH, content on stdin; by rename, so that whoever runs it now goes on with the old one
    make_dir "$(dirname "$2")"
    set_aside file "$2"
    content=$(cat)
    mark=$(printf '%s\n' "$content" | sha256sum | cut -d ' ' -f 1)
    announce file "$mark" "$2"
    printf '%s\n' "$content" >"$root$2.nftcni-new"
    chmod "$1" "$root$2.nftcni-new"
    mv -f "$root$2.nftcni-new" "$root$2"
    record file "$mark" "$2"
    echo "installed $root$2"
}

put_link() { # TARGET PATH
    make_dir "$(dirname "$2")"
    set_aside link "$2"
    announce link "$1" "$2"
    rm -f "$root$2.nftcni-new"
    ln -s "$1" "$root$2.nftcni-new"
    if [ -d "$root$2" ]; then
        replace "$root$2.nftcni-new" "$root$2"
    else
        mv -f "$root$2.nftcni-new" "$root$2"
    fi
    record link "$1" "$2"
    echo "installed $root$2 -> $1"
}

set_aside() { # KIND PATH: what is there and not ours; only reached with --force
    if exists "$2" && ! recorded "$1" "$2"; then
        record aside - "$2"
        mv "$root$2" "$root$2.before-nftcni"
        echo "moved $root$2 to $2.before-nftcni"
    fi
}

refuse_foreign() { # KIND PATH ADVICE
    if exists "$2" && ! recorded "$1" "$2" && [ -z "$force" ]; then
        refuse "$root$2 is there and was not installed by this; ${3:-remove it, or say --force to move it aside}"
    fi
}

changed() { # KIND PATH: is what is there another thing than what was put there?
    case $1 in
        file) [ -f "$root$2" ] && ! marks_of "$1" "$2" | grep -qxF "$(checksum "$root$2")" ;;
        link) exists "$2" && ! marks_of "$1" "$2" | grep -qxF "$(readlink "$root$2")" ;;
    esac
}

relabel() { # SELinux: what comes by a rename, or into a new folder, has that folder's label instead of its path's
    [ -z "$root" ] && command -v selinuxenabled >/dev/null && selinuxenabled || return 0
    { paths_of dir && paths_of file && paths_of link; } | xargs restorecon
    paths_of code | xargs restorecon -R
}

remove_recorded() {
    # Last come, first gone: the stub goes before the code it runs.
    sed '1!G;h;$!d' "$root$manifest" >"$root$manifest.reversed"
    while read -r kind mark path; do
        case $kind in
            file | link)
                rm -f "$root$path.nftcni-new"
                if ! exists "$path"; then
                    continue
                elif changed "$kind" "$path"; then
                    echo "left $root$path: it was changed since"
                else
                    rm -f "$root$path" && echo "removed $root$path"
                fi
                ;;
            code) rm -rf "$root$path" && echo "removed $root$path" ;;
        esac
    done <"$root$manifest.reversed"
    # Only now: what was set aside goes where a file of ours was.
    while read -r kind mark path; do
        if [ "$kind" = aside ] && exists "$path.before-nftcni" && ! exists "$path"; then
            mv "$root$path.before-nftcni" "$root$path"
            echo "put back $root$path"
        fi
    done <"$root$manifest.reversed"
    # Deepest first; a folder that others use by now stays.
    dirs=$(paths_of dir | sort -r)
    rm -rf "$root$(dirname "$manifest")/new" "$root$manifest.reversed" "$root$manifest.new" "$root$manifest"
    echo "$dirs" | while read -r path; do
        [ ! -d "$root$path" ] || rmdir "$root$path" 2>/dev/null || echo "left $root$path: not empty"
    done
}
