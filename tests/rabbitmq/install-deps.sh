#!/bin/sh
# Installs what the tests need and this machine lacks, through the system's package manager.
#
#   install-deps.sh [--bench] [--python] [--browser]
#
#   --bench    also what the benchmarks need
#   --python   also what makes a virtual environment of Python
#   --browser  also what opens the pages of reports
#
# It says first what it is going to install and why, uses sudo unless it runs as root, and leaves no service running
# that was not there before: the tests start brokers of their own.
set -eu

fail() {
    echo "install-deps: $*" >&2
    exit 1
}

# The same places as the tests themselves look in.
has_rabbitmq() {
    if [ -n "${RABBITMQ_BIN:-}" ]; then
        [ -x "$RABBITMQ_BIN/rabbitmq-server" ] || fail "RABBITMQ_BIN is $RABBITMQ_BIN, which has no rabbitmq-server"
        return 0
    fi
    for folder in /usr/lib/rabbitmq/bin /opt/homebrew/sbin /opt/homebrew/opt/rabbitmq/sbin \
        /usr/local/sbin /usr/local/opt/rabbitmq/sbin /opt/rabbitmq/sbin /usr/local/bin; do
        [ ! -x "$folder/rabbitmq-server" ] || return 0
    done
    command -v rabbitmq-server >/dev/null 2>&1
}

# Also where an ordinary user's search path often does not lead.
has_nginx() {
    command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || [ -x /usr/local/sbin/nginx ]
}

has_redis() {
    command -v redis-server >/dev/null 2>&1 || [ -x /usr/bin/redis-server ] || [ -x /usr/local/bin/redis-server ]
}

# Debian's python3 comes without what makes virtual environments.
has_venv() {
    for candidate in python3 /usr/bin/python3; do
        ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 || return 0
    done
    return 1
}

has_browser() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        ! command -v "$name" >/dev/null 2>&1 || return 0
    done
    return 1
}

missing=
want() { # package, reason
    echo "install-deps: $1 is missing: $2"
    missing="$missing $1"
}

# Installs packages as root. No service may start: packages ask policy-rc.d for leave, and 101 means no.
install_as_root() {
    policy=/usr/sbin/policy-rc.d
    created=
    trap 'test -z "$created" || rm -f "$policy"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # With noclobber the shell creates the file or fails: one that exists is kept, and obeyed, as it is.
    if (set -C && printf '#!/bin/sh\nexit 101\n' >"$policy") 2>/dev/null; then
        created=yes
        chmod 755 "$policy"
    fi
    services=
    for service in rabbitmq-server epmd nginx redis-server; do
        has_unit "$service" || services="$services $service.service"
    done
    has_unit epmd || services="$services epmd.socket"

    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update || echo "install-deps: apt-get update failed; trying with the package lists that are here" >&2
    apt-get -q -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "$@"

    # What came along is enabled for the next boot, and runs already where a policy-rc.d of the machine allows it.
    if [ -d /run/systemd/system ]; then
        for service in $services; do
            systemctl disable --now "$service" >/dev/null 2>&1 || true
        done
    fi
}

has_unit() {
    [ -e "/lib/systemd/system/$1.service" ] || [ -e "/usr/lib/systemd/system/$1.service" ]
}

# How this script calls itself through sudo.
if [ "${1:-}" = --as-root ]; then
    shift
    install_as_root "$@"
    exit 0
fi

bench=
python=
browser=
for argument in "$@"; do
    case $argument in
    --bench) bench=yes ;;
    --python) python=yes ;;
    --browser) browser=yes ;;
    *) fail "unknown argument $argument; usage: install-deps.sh [--bench] [--python] [--browser]" ;;
    esac
done

has_rabbitmq || want rabbitmq-server "the tests start private brokers from it, on loopback, and remove them again"
has_redis || want redis-server "the comparison with a Redis between edge and broker starts a private one, on loopback"
if [ "$(uname)" = Linux ] && ! command -v strace >/dev/null 2>&1; then
    want strace "the tests make a disk fail with it, and see by it what a power cut would leave"
fi
if [ -n "$bench" ] && ! has_nginx; then
    want nginx-light "the benchmarks compare against it"
fi
if [ -n "$python" ] && ! has_venv; then
    want python3-venv "a foreign STOMP client, which the tests hold the in-memory broker against, is written in Python"
fi
if [ -n "$browser" ] && ! has_browser; then
    want chromium "the tests open the pages of reports in it, headless, and look for errors"
fi
if [ -z "$missing" ]; then
    echo "install-deps: everything is installed"
    exit 0
fi

command -v apt-get >/dev/null 2>&1 ||
    fail "this system has no apt-get: install$missing with its own package manager (Homebrew: rabbitmq, redis, nginx, python3, chromium)"
# shellcheck disable=SC2086 # a list of package names
set -- $missing
if [ "$(id -u)" -eq 0 ]; then
    echo "install-deps: installing $* with apt-get"
    install_as_root "$@"
elif command -v sudo >/dev/null 2>&1; then
    echo "install-deps: installing $* with apt-get, through sudo"
    exec sudo sh "$0" --as-root "$@"
else
    fail "neither root nor sudo: run as root: apt-get install --no-install-recommends $*"
fi
