#!/bin/sh
# A throw-away PostgreSQL server for the tests of tier `system`.
#
#   NASFLOW_TEST_POSTGRES=$(.ci/postgres.sh start FOLDER)   # prints the URL; FOLDER must not exist yet
#   .ci/postgres.sh stop FOLDER                             # stops the server and removes the folder
#
# Needs PostgreSQL's server programs (Debian: apt-get install postgresql). It listens on a free port of 127.0.0.1 only
# and lets every local user in without a password. The server refuses to run as root, so root hands it to user postgres.
set -eu

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -eq 2 ] || usage
folder=$2
initdb=$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
initdb=${initdb:-$(command -v initdb || true)}
[ -n "$initdb" ] || { echo "postgres.sh: no initdb found; apt-get install postgresql" >&2; exit 1; }
bin=$(dirname "$(readlink -f "$initdb")")

as_owner() {
    if [ "$(id -u)" -eq 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

case $1 in
start)
    mkdir "$folder"
    folder=$(cd "$folder" && pwd)
    chmod 755 "$folder"
    if [ "$(id -u)" -eq 0 ]; then chown postgres "$folder"; fi
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    as_owner "$bin/initdb" -D "$folder/data" -U nasflow --auth=trust --encoding=UTF8 --no-sync >"$folder.log" 2>&1 ||
        { cat "$folder.log" >&2; exit 1; }
    as_owner "$bin/pg_ctl" -D "$folder/data" -w -t 60 -l "$folder/server.log" \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$folder -c fsync=off" start \
        >>"$folder.log" 2>&1 </dev/null || { cat "$folder.log" "$folder/server.log" >&2; exit 1; }
    rm -f "$folder.log"
    echo "postgresql+psycopg://nasflow@127.0.0.1:$port/postgres"
    ;;
stop)
    as_owner "$bin/pg_ctl" -D "$folder/data" -w -m immediate stop >&2 || true
    rm -rf "$folder"
    ;;
*) usage ;;
esac
