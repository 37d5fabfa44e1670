#!/bin/sh
# Puts the RabbitMQ of another release of Debian into a folder of its own, beside the one of this machine.
#
#   other-release.sh RELEASE FOLDER
#   other-release.sh trixie /opt/rabbitmq-trixie      RabbitMQ 4.0.5 with Erlang 27
#   RABBITMQ_BIN=/opt/rabbitmq-trixie/bin make test
#
# As root, on Debian or Ubuntu, 700 MB. A node runs in the folder as its root, with its own data (RABBITMQ_LOG_BASE),
# this machine's devices and processes in it: mounts that nobody else sees and that go with it. `rm -r FOLDER` removes everything.
set -eu

fail() {
    echo "other-release: $*" >&2
    exit 1
}

[ $# -eq 2 ] || fail "usage: other-release.sh RELEASE FOLDER, for example: other-release.sh trixie /opt/rabbitmq-trixie"
release=$1
case $2 in
/?*) folder=$2 ;;
*) fail "FOLDER is $2, which is not an absolute path" ;;
esac
[ "$(id -u)" -eq 0 ] || fail "run as root: a node needs a root folder of its own"
[ ! -e "$folder" ] || fail "$folder is there already: rm -r $folder, or name another one"
command -v debootstrap >/dev/null 2>&1 || fail "debootstrap is missing: apt-get install debootstrap"

# From where this machine's own packages come.
mirror=$(apt-get indextargets --format '$(SITE) $(ORIGIN)' 'Created-By: Packages' 2>/dev/null |
    sed -n 's/ Debian$//p' | head -n 1)
# shellcheck disable=SC2086 # no mirror: debootstrap's own default
debootstrap --variant=minbase --include=rabbitmq-server "$release" "$folder/root" $mirror

mkdir "$folder/bin"
cat >"$folder/bin/rabbitmq-server" <<END
#!/bin/sh
set -eu
# Replaced three times, the process stays the same: who started it can end it.
exec unshare --mount sh -c '
    set -eu
    mount -t tmpfs tmpfs "$folder/root/tmp"
    mkdir -p "$folder/root\$RABBITMQ_LOG_BASE"
    mount --bind "\$RABBITMQ_LOG_BASE" "$folder/root\$RABBITMQ_LOG_BASE"
    mount --rbind /dev "$folder/root/dev"
    mount -t proc proc "$folder/root/proc"
    exec chroot "$folder/root" /usr/lib/rabbitmq/bin/rabbitmq-server "\$@"
' rabbitmq-server "\$@"
END
chmod 755 "$folder/bin/rabbitmq-server"
echo "other-release: RabbitMQ $(ls "$folder/root/usr/lib/rabbitmq/lib" | sed -n 's/^rabbitmq_server-//p'); use it with RABBITMQ_BIN=$folder/bin"
