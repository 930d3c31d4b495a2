#!/bin/sh
# Installs what is used from Debian where it may: with "demo" the libraries that OpenCV links, without it
# also what the whole suite uses. Where it may not, it says what is missing, and fails if nothing runs without that.
PATH="$PATH:/usr/sbin:/sbin" # ldconfig is not on everybody's path
[ "$(uname)" = Linux ] || exit 0
needed="" wanted=""
has() { ldconfig -p | grep -q "$1"; }
has 'libGL\.so\.1' || needed="$needed libgl1"
has 'libgthread-2\.0\.so\.0' || needed="$needed libglib2.0-0"
if [ "$1" != demo ]; then
    command -v chromium >/dev/null 2>&1 || wanted="$wanted chromium"
    command -v espeak-ng >/dev/null 2>&1 || wanted="$wanted espeak-ng"
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || wanted="$wanted postgresql"
    fc-list :lang=ko 2>/dev/null | grep -q . || wanted="$wanted fonts-nanum"
fi
[ -z "$needed$wanted" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $needed $wanted >/dev/null && exit 0
fi
[ -z "$wanted" ] || echo "Missing:$wanted. Tests that need them are skipped; install them with your package manager."
[ -z "$needed" ] && exit 0
echo "Missing:$needed (Debian's names), without which nothing here starts. Install them with your package manager."
exit 1
