# Lives here: how a checkout gets its .venv, for the two launchers that source this file. POSIX sh, run from the checkout.
# Must not know: what the program does with it.
#
# A requirements file is copied into .venv after everything it names was installed; that copy is the stamp. While the
# copies match, nothing is run and nothing is fetched. They are removed before pip touches .venv, so an installation cut
# short leaves none, and the next start builds afresh. An flock on the checkout keeps two starts apart.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

installed() { cmp -s "$1" ".venv/$1" && [ -x .venv/bin/python ]; }

ready() { installed requirements.txt && installed "$1"; }

# Prints the real path of the first Python that is new enough and can make a venv with pip in it. The system's own comes
# first: distributions compile it with profile-guided optimisation, and one from a version manager, often compiled
# without, was measured to be half as fast. The path is the versioned one, so that .venv outlives a change of what
# `python3` means.
find_python() {
    for name in /usr/bin/python3 python3 python3.11 python3.12 python3.13 python3.14; do
        "$name" -c 'import os, sys, venv
from ensurepip import bootstrap
if sys.version_info < (3, 11): sys.exit(1)
print(os.path.realpath(sys.executable))' 2>/dev/null && return
    done
    return 1
}

# Debian keeps ensurepip in a package of its own, which a bare machine lacks.
install_python() {
    wanted='apt-get update && apt-get install --yes --no-install-recommends python3-venv'
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        fail "needs Python 3.11 or newer with venv and ensurepip. On Debian, as root: $wanted"
    fi
    say "installing Debian's python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    sh -c "$wanted" >&2 || fail "could not install python3-venv"
}

build_venv() {
    python=$(find_python) || { install_python && python=$(find_python); } ||
        fail "needs Python 3.11 or newer; this system's packages have an older one"
    say "making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv >&2 || fail "could not make $PWD/.venv"
}

# pip itself is quiet unless a person is watching. The locked file names everything, so there is nothing to resolve.
install_wheels() {
    say "installing the wheels locked in $1; the first time this fetches some 40 MB"
    quiet=-qq
    [ ! -t 2 ] || quiet=
    PIP_USER=0 .venv/bin/python -m pip install $quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
        -r "$1" >&2 || fail "could not install $1; start again to retry"
}

# need FILE: makes .venv hold what FILE and requirements.txt name, of which FILE is a superset.
need() {
    ready "$1" && return
    [ -w . ] || fail "cannot write to $PWD, where .venv belongs"
    exec 9<.
    flock -n 9 || { say "waiting for another start to finish .venv" && flock 9; }
    if ! ready "$1"; then
        installed requirements.txt || build_venv
        rm -f .venv/requirements*.txt
        install_wheels "$1"
        cp "$1" ".venv/$1"
        cp requirements.txt .venv/requirements.txt
    fi
    exec 9<&-
}
