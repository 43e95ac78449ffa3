# shellcheck shell=sh
# What keeps the table alive after somebody's flush: the services, for systemd or OpenRC, installed, enabled and removed.
# Read by conf/install after manifest.sh.
# shellcheck disable=SC2154

watch=nftcni-watch
repairs="nftcni-repair@nftables.service nftcni-repair@firewalld.service"
unit_dir=$prefix/lib/systemd/system
init_script=/etc/init.d/$watch

has_systemd() { command -v systemctl >/dev/null; }
systemd_runs() { [ -d /run/systemd/system ] && has_systemd; }
has_openrc() { command -v rc-update >/dev/null; }
openrc_runs() { [ -d /run/openrc ]; }

put_services() {
    if has_systemd || [ -n "$root" ]; then
        for unit in nftcni-repair@.service $watch.service nftcni-metrics.socket nftcni-metrics@.service; do
            sed "s|/opt/cni/bin/nftcni|$bin_dir/nftcni|" "conf/systemd/$unit" | put_file 644 "$unit_dir/$unit"
        done
    fi
    if { [ -z "$root" ] && has_openrc && ! has_systemd; } || { [ -n "$root" ] && [ -x "$root/sbin/openrc-run" ]; }; then
        sed "s|/opt/cni/bin/nftcni|$bin_dir/nftcni|" conf/openrc/$watch | put_file 755 "$init_script"
    fi
}

start_services() {
    if [ -n "$root" ]; then
        echo "nothing is enabled in $root: enable $watch (systemd or OpenRC) where it is booted"
    elif has_systemd; then
        enable_units
    elif has_openrc; then
        rc-update -q add $watch default
        ! openrc_runs || rc-service -q $watch restart
        echo "enabled $watch: rebuilds the table after anybody's flush"
    else
        echo "no systemd and no OpenRC here: nothing rebuilds the table after a flush of the ruleset (nft flush ruleset," \
            "a firewall that is started again). Have \"$bin_dir/nftcni watch\" started at boot, and again if it ends;" \
            "or call \"$bin_dir/nftcni repair\" after each flush"
    fi
}

enable_units() {
    case $prefix in
        /usr | /usr/local) ;;
        *)
            echo "not enabled: systemd does not look into $unit_dir (systemctl enable --now $unit_dir/$watch.service)"
            return
            ;;
    esac
    now=""
    if systemd_runs; then
        systemctl daemon-reload
        systemctl -q try-restart $watch.service # with the older code it would bring the older rules back
        now=--now
    fi
    # shellcheck disable=SC2086  # words
    systemctl -q enable $now $repairs $watch.service
    echo "enabled $watch.service and $repairs: rebuild the table after anybody's flush, and after these"
}

disable_services() {
    if has_systemd && recorded_unit; then
        # Also those that an administrator enabled for other services. A template cannot be stopped as such. Of units that
        # it does not find, below another prefix for example, systemctl says so by a failure (systemd 262: of `disable`).
        ! systemd_runs || systemctl -q stop $watch.service 'nftcni-repair@*.service' 2>/dev/null || true
        systemctl -q disable $watch.service nftcni-repair@.service 2>/dev/null || true
    fi
    if has_openrc && recorded file "$init_script"; then
        ! openrc_runs || rc-service -q $watch stop
        rc-update -q del $watch default
    fi
}

package_services() { # those of the distribution's package go on, if it is installed as well
    if has_systemd && { [ -e /usr/lib/systemd/system/$watch.service ] || [ -e /lib/systemd/system/$watch.service ]; }; then
        now=""
        ! systemd_runs || now=--now
        # shellcheck disable=SC2086  # words
        systemctl -q enable $now $watch.service || true
    fi
}

recorded_unit() { paths_of file | grep -q "/$watch\.service$"; }
