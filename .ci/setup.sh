# What ./demo and ./test have in common: each function makes sure of one thing, or says in one line what is missing.
# Sourced by /bin/sh.

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo: run as root: $*"
    fi
}

# Installs the Debian packages that are missing.
need_packages() {
    command -v dpkg-query >/dev/null || fail "this is no Debian or Ubuntu: install these yourself: $*"
    missing=
    for package in "$@"; do
        state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$state" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "Installing$missing" >&2
    # The names are words of their own.
    # shellcheck disable=SC2086
    install_packages $missing || {
        as_root apt-get -qq update >&2 || fail "apt-get update failed: is there a network?"
        # shellcheck disable=SC2086
        install_packages $missing || fail "apt-get could not install$missing"
    }
}

install_packages() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install --yes --no-install-recommends "$@" >/dev/null
}

need_cargo() {
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        export PATH
    fi
    command -v cargo >/dev/null || fail "there is no cargo: install Rust from https://rustup.rs"
    cargo --version >/dev/null 2>&1 || cargo --version >&2 || fail "cargo does not run"
}

# The checker of metrics, as PROMTOOL. It comes with a server that nobody here wants, so only its file is taken.
need_promtool() {
    PROMTOOL=$(command -v promtool || true)
    if [ -z "$PROMTOOL" ]; then
        PROMTOOL=$PWD/target/promtool/usr/bin/promtool
        if [ ! -x "$PROMTOOL" ]; then
            mkdir -p target/promtool
            (cd target/promtool && apt-get -qq download prometheus >&2 && dpkg-deb --extract prometheus_*.deb .) ||
                fail "cannot fetch promtool, of the package prometheus"
        fi
    fi
    export PROMTOOL
}

# Lets ordinary users make user namespaces until the next boot, where the machine is set to forbid it.
need_user_namespaces() {
    allow kernel.unprivileged_userns_clone 0 1
    allow kernel.apparmor_restrict_unprivileged_userns 1 0
    allow user.max_user_namespaces 0 10000
}

# allow SETTING FORBIDS ALLOWS
allow() {
    file=/proc/sys/$(echo "$1" | tr . /)
    if [ -r "$file" ] && [ "$(cat "$file")" = "$2" ]; then
        echo "This machine forbids ordinary users namespaces of their own; until the next boot: sysctl -w $1=$3" >&2
        as_root sysctl -q -w "$1=$3" >&2 || fail "cannot set $1=$3; without it no namespace can be made"
    fi
}
